#!/usr/bin/env bash
# The project's commands: each installs what it needs where it may, configures, builds, and runs.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
  cat <<'END'
usage: ./do COMMAND [ARGUMENTS]

  bench [ARGUMENTS]  compares standard with depthwise-separable convolution (lamina compare ARGUMENTS) on this machine,
                     by default over MobileNetV1's layers on all cores; writes JSON and an HTML page
  test [ARGUMENTS]   builds and runs every test (ctest ARGUMENTS); oneDNN, the second oracle, comes from PyPI into .venv
  peers [ARGUMENTS]  times the suite beside oneDNN, XNNPACK, ONNX Runtime, OpenVINO, PyTorch, ncnn and MNN in alternating
                     rounds (some 40 minutes), and says which targets are met; ./do peers --help
  python [ARGUMENTS] builds the Python package's wheel (in build/wheel), installs it into .venv and runs its tests
                     (pytest ARGUMENTS)
  evidence           makes build/evidence, a folder that gathers results on a machine with a GPU, python3 and torch, and
                     says how
  build              builds the library, the `lamina` program and the benches
  setup              only installs the packages that are missing, those of .ci/run too

Missing Debian packages are installed when this runs as root; otherwise the one command that does so is printed.
END
}

build_packages=(cmake ninja-build g++ libhwy-dev libpthreadpool-dev libbenchmark-dev libcli11-dev nlohmann-json3-dev)
# Boost.Context: the fibers of the emulated GPU. ccache: the packaging tests build the library thrice.
test_packages=(libgtest-dev libboost-context-dev python3-venv pkg-config ccache)
python_packages=(python3-dev python3-venv)
bench_packages=(python3-venv)
peer_packages=(python3-venv libxnnpack-dev libpthreadpool-dev)
ci_packages=(git clang-14 libclang-rt-14-dev clang-format-14)

say() { printf '\n== %s\n' "$*" >&2; }

# Installs those of the named packages that are missing, or says how to and ends.
need() {
  command -v dpkg-query > /dev/null || return 0 # no Debian: the build names what it lacks
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  if ((EUID != 0)); then
    {
      echo "These packages are missing. As root, run:"
      echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    } >&2
    exit 2
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

# Installs packages of PyPI into an environment of the project's own.
environment=.venv
pip_install() {
  say "installing $* into $environment"
  { [[ -x $environment/bin/pip ]] || python3 -m venv "$environment"; } >&2 &&
    "$environment/bin/pip" install -q --disable-pip-version-check "$@" >&2
}

has() { compgen -G "$environment/lib/python3*/site-packages/$1" > /dev/null; }

# package MODULE PACKAGE...: installs packages unless the module is there. What needs one that cannot be had is left out.
package() {
  local module=$1
  shift
  has "$module" || pip_install "$@" ||
    say "$* could not be installed: the run goes on without"
}

onednn=(../../cmake/dnnl onednn-cpu-gomp==2023.2.0 onednn-devel-cpu-gomp==2023.2.0)

# dlpack.h, for the C interface.
dlpack() { package tvm_ffi/include/dlpack --no-deps apache-tvm-ffi==0.1.15.post2; }

# What the tests have from PyPI, in .venv: oneDNN, the second oracle; NumPy, for the test of tools/gpu_evidence; and, where
# CUDA kernels are built at all, the disassembler with which their machine code is read. Tests that lack one are skipped.
test_tools() {
  package "${onednn[@]}"
  package numpy numpy
  dlpack
  [[ ! -x $(command -v nvcc || echo /usr/local/cuda/bin/nvcc) ]] ||
    package nvidia/cu13/bin/cuobjdump nvidia-cuda-cuobjdump==13.5.37 nvidia-cuda-nvdisasm==13.5.37
}

# The peers and their programs, in build/peers.
peers() {
  environment=build/peers/venv
  mkdir -p build/peers
  package numpy numpy && package onnx onnx && package matplotlib matplotlib
  package "${onednn[@]}"
  package onnxruntime onnxruntime
  package openvino openvino
  package ncnn ncnn
  package MNN MNN
  # PyTorch's own dependencies bring gigabytes for GPUs; these are what it needs on a CPU.
  package sympy filelock fsspec jinja2 networkx sympy typing-extensions
  package torch --no-deps torch
  "$environment/bin/python" bench/peers/torch_without_cuda.py "$environment"/lib/python3*/site-packages ||
    say "PyTorch cannot do without its GPU libraries here: the run goes on without"
  say "building the peers' programs (in build/peers/programs)"
  cmake -S bench/peers -B build/peers/programs -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_PREFIX_PATH="$PWD/$environment" > build/peers/configure.log &&
    cmake --build build/peers/programs >&2 || say "the peers' programs could not be built: the run goes on without"
}

# Prints a Python that has matplotlib: .venv's, the user's or the system's, else .venv's once it is installed there.
plotting_python() {
  local python
  for python in .venv/bin/python python3 /usr/bin/python3; do
    if "$python" -c 'import matplotlib' 2> /dev/null; then
      echo "$python"
      return
    fi
  done
  pip_install matplotlib && echo .venv/bin/python
}

# build TESTS [TARGET...]: configures (with the tests or without) and builds.
build() {
  local tests=$1
  shift
  local options=(-DLAMINA_BUILD_TESTS="$tests" -DLAMINA_BUILD_PYTHON=OFF)
  if [[ $tests == ON ]]; then options+=(-DLAMINA_ONEDNN="$PWD/.venv"); fi
  if [[ $tests == ON ]] && has nanobind && has pytest; then options+=(-DLAMINA_BUILD_PYTHON=ON); fi
  if command -v ccache > /dev/null; then options+=(-DCMAKE_C{XX,UDA}_COMPILER_LAUNCHER=ccache); fi
  say "building (in build/release)"
  mkdir -p build/release
  cmake --preset release "${options[@]}" > build/release/configure.log || {
    cat build/release/configure.log >&2
    exit 1
  }
  cmake --build build/release ${@:+--target "$@"} >&2
}

case "${1-help}" in
  setup)
    need "${build_packages[@]}" "${test_packages[@]}" "${bench_packages[@]}" "${python_packages[@]}" "${ci_packages[@]}"
    ;;
  build)
    need "${build_packages[@]}" python3-venv
    dlpack
    build OFF
    ;;
  evidence)
    need "${build_packages[@]}"
    build OFF lamina
    rm -rf build/evidence
    DESTDIR="$PWD/build/evidence/install" cmake --install build/release --component library > /dev/null
    mkdir build/evidence/lib
    find build/evidence/install -name 'liblamina.so*' -exec cp -a {} build/evidence/lib/ \;
    # What it links and a bare machine may lack: Highway and pthreadpool.
    ldd build/evidence/lib/liblamina.so | awk '/libhwy|libpthreadpool|libcpuinfo/ {print $3}' | xargs cp -t build/evidence/lib
    cp -r tools/gpu_evidence build/evidence/gpu_evidence
    rm -rf build/evidence/install build/evidence/gpu_evidence/__pycache__
    du -sh build/evidence
    echo "There: python3 build/evidence/gpu_evidence --library build/evidence/lib/liblamina.so --out RESULTS"
    ;;
  bench)
    shift
    need "${build_packages[@]}" "${bench_packages[@]}"
    build OFF lamina_program
    mkdir -p build/report
    say "measuring"
    build/release/tools/lamina compare --json build/report/compare.json "$@"
    printf '\nJSON: %s\n' "$PWD/build/report/compare.json"
    if python=$(plotting_python); then
      "$python" tools/report.py build/report/compare.json build/report/compare.html
      printf 'Page: %s\n' "$PWD/build/report/compare.html"
    else
      say "no page: matplotlib could not be installed; with one that has it: tools/report.py JSON PAGE"
    fi
    ;;
  peers)
    shift
    case " $* " in *" -h "* | *" --help "*)
      python3 bench/peers/options.py --help
      exit
      ;;
    esac
    need "${build_packages[@]}" "${peer_packages[@]}"
    python3 bench/peers/options.py "$@"
    build OFF lamina_program
    peers
    say "measuring"
    build/peers/venv/bin/python bench/peers/run.py "$@"
    ;;
  python)
    shift
    need "${build_packages[@]}" "${python_packages[@]}"
    package scikit_build_core scikit-build-core
    package nanobind nanobind
    package numpy numpy
    package pytest pytest
    dlpack
    # The compiler and the depth of the folder are those of the other builds: a compiler cache then has their objects.
    export CXX=${CXX:-c++}
    if command -v ccache > /dev/null; then export CMAKE_CXX_COMPILER_LAUNCHER=ccache; fi
    say "building the wheel (in build/python and build/wheel)"
    rm -f build/wheel/*.whl
    .venv/bin/pip wheel -q --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir build/wheel \
      --config-settings=build-dir=build/python --config-settings=cmake.define.LAMINA_WERROR=ON . >&2
    .venv/bin/pip install -q --disable-pip-version-check --no-deps --force-reinstall build/wheel/*.whl >&2
    say "testing"
    .venv/bin/python -m pytest "$@"
    ;;
  test)
    shift
    need "${build_packages[@]}" "${test_packages[@]}"
    test_tools
    build ON
    say "testing"
    ctest --test-dir build/release --output-on-failure --schedule-random -j "$(nproc)" "$@"
    ;;
  help | -h | --help)
    usage
    ;;
  *)
    echo "./do: unknown command \"$1\"" >&2
    usage >&2
    exit 2
    ;;
esac
