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
  build              builds the library, the `lamina` program and the benches
  setup              only installs the packages that are missing, those of .ci/run too

Missing Debian packages are installed when this runs as root; otherwise the one command that does so is printed.
END
}

build_packages=(cmake ninja-build g++ libhwy-dev libpthreadpool-dev libbenchmark-dev libcli11-dev nlohmann-json3-dev)
test_packages=(libgtest-dev python3-venv pkg-config ccache) # ccache: the packaging tests build the library thrice
bench_packages=(python3-venv)
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

# Installs packages of PyPI into the project's own environment.
pip_install() {
  say "installing $* into .venv"
  { [[ -x .venv/bin/pip ]] || python3 -m venv .venv; } >&2 &&
    .venv/bin/pip install -q --disable-pip-version-check "$@" >&2
}

# oneDNN for the tests. Without it they go on, and count it as skipped.
onednn() {
  [[ -e .venv/lib/cmake/dnnl ]] || pip_install onednn-cpu-gomp==2023.2.0 onednn-devel-cpu-gomp==2023.2.0 ||
    say "oneDNN could not be installed: the tests that compare with it will be skipped"
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
  local options=(-DLAMINA_BUILD_TESTS="$tests")
  if [[ $tests == ON ]]; then options+=(-DLAMINA_ONEDNN="$PWD/.venv"); fi
  if command -v ccache > /dev/null; then options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
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
    need "${build_packages[@]}" "${test_packages[@]}" "${bench_packages[@]}" "${ci_packages[@]}"
    ;;
  build)
    need "${build_packages[@]}"
    build OFF
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
  test)
    shift
    need "${build_packages[@]}" "${test_packages[@]}"
    onednn
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
