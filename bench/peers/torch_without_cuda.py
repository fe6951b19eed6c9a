#!/usr/bin/env python3
"""Lets PyPI's PyTorch, which is built for GPUs, load on a machine without their three gigabytes of libraries.

usage: torch_without_cuda.py SITE_PACKAGES

PyTorch's libraries name CUDA's as needed. One empty library stands for those that are missing: each function that
PyTorch could call answers cudaErrorNoDevice (100), the answer of a machine without a GPU. The CPU's code is untouched.
"""

import pathlib
import re
import subprocess
import sys

CUDA = re.compile(r"^(_*cu[A-Z]|_*cuda|cudnn|cublas|cusparse|cufft|cuFile|cupti|nccl|nvrtc|nvshmem|nvJitLink)")
NO_DEVICE = 100


def words(*command):
    """What the command prints, line by line, each split into words."""
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return [line.split() for line in run.stdout.splitlines()]


def main(site_packages):
    folder = pathlib.Path(site_packages) / "torch" / "lib"
    libraries = sorted(folder.glob("*.so*"))
    missing, versions = set(), {}  # version -> its functions; "" for those that name none
    for library in libraries:
        for line in words("ldd", str(library)):
            if line[-2:] == ["not", "found"]:
                missing.add(line[0])
        for line in words("nm", "-D", "--undefined-only", str(library)):
            name, _, version = line[-1].partition("@")
            if CUDA.match(name):
                versions.setdefault(version.strip("@"), set()).add(name)
    if not (folder / "libtorch_cpu.so").exists() or not missing:
        return
    stub = folder / "liblamina_no_cuda.so"
    script = stub.with_suffix(".map")
    script.write_text("".join(f"{version} {{ {' '.join(f'{name};' for name in sorted(names))} }};\n"
                              for version, names in versions.items() if version))
    lines = [f"long {name}(void) {{ return {NO_DEVICE}; }}" for name in sorted(set().union(*versions.values()))]
    subprocess.run(["g++", "-x", "c", "-w", "-fno-builtin", "-shared", "-fPIC", "-O1", "-o", str(stub),
                    f"-Wl,--version-script={script}", "-"], check=True, text=True, input="\n".join(lines))
    for name in missing:
        (folder / name).symlink_to(stub.name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    main(sys.argv[1])
