"""Gathers the evidence that only a GPU can give: python3 tools/gpu_evidence --library liblamina.so --out FOLDER

Needs python3 with torch (and the NumPy that comes with it) and a folder with liblamina.so and, beside it, what it links;
no compiler, package or network. Five steps, each in a process of its own with its own time limit, so that one that hangs
loses nothing: every record is a line of JSON in FOLDER/<step>.jsonl as soon as it is known.
    ceilings   what the card reaches: copies, matrix products, a launch
    parity     every operator, dtype and candidate against float64, outputs poisoned, guard bands, twice for races
    sanitize   compute-sanitizer over a small part of that, where the tool is there
    benches    every candidate beside cuBLAS, cuDNN, FlashAttention, PyTorch
    table      FOLDER/gpu.json and FOLDER/gpu.md: ratios to the best peer and to the floor
"""

import argparse
import datetime
import json
import pathlib
import shutil
import subprocess
import sys

from records import lines

LIMITS = {"ceilings": 60, "parity": 150, "sanitize": 90, "benches": 260, "table": 20}  # seconds; under 10 minutes in all


def step(name, library_path, out):
    """Runs one step in this process."""
    with open(out / f"{name}.jsonl", "w", buffering=1) as file:
        def emit(record):
            file.write(json.dumps(record) + "\n")
        from library import Library
        library = Library(library_path)
        emit({"library": library.build_info(), "date": datetime.date.today().isoformat()})
        if name == "ceilings":
            import ceilings
            ceilings.run(emit)
        elif name == "parity":
            import parity
            from problem import Cuda
            parity.run(library, Cuda(), emit)
        elif name == "sanitized":  # of the step sanitize: few and small
            import parity
            from problem import Cuda
            small = [d for d in parity.FIXED if library.cost(d)["macs"] < 3e6]
            parity.run(library, Cuda(), emit, small, ("f32", "bf16"))
        elif name == "benches":
            import benches
            known = {r["ceiling"]: r["per_second"] for r in lines(out / "ceilings.jsonl") if "per_second" in r}
            benches.run(library, known, emit)
        elif name == "table":
            import table
            table.write(out)


def sanitize(command, out):
    """memcheck, then synccheck, over the small problems."""
    tool = shutil.which("compute-sanitizer")
    with open(out / "sanitize.jsonl", "w", buffering=1) as file:
        if tool is None:
            file.write(json.dumps({"absent": "compute-sanitizer is not on the PATH"}) + "\n")
            return
        for check in ("memcheck", "synccheck"):
            try:
                done = subprocess.run([tool, "--tool", check, "--error-exitcode", "9", *command], capture_output=True,
                                      text=True, timeout=LIMITS["sanitize"] / 2)
                said = done.stdout.strip().split("\n")[-1]
                file.write(json.dumps({"tool": check, "exit": done.returncode, "said": said}) + "\n")
            except subprocess.TimeoutExpired:
                file.write(json.dumps({"tool": check, "exit": "stopped at its time limit"}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True, help="liblamina.so, built with CUDA")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for the results")
    parser.add_argument("--only", choices=LIMITS, action="append", help="only this step; may be given several times")
    parser.add_argument("--step", help=argparse.SUPPRESS)  # in this process
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.step:
        return step(given.step, given.library, given.out)
    command = [sys.executable, str(pathlib.Path(__file__).parent), "--library", given.library, "--out", str(given.out), "--step"]
    for name, seconds in LIMITS.items():
        if given.only and name not in given.only:
            continue
        print(f"== {name} (at most {seconds} s)", flush=True)
        if name == "sanitize":
            sanitize([*command, "sanitized"], given.out)
            continue
        try:
            code = subprocess.run([*command, name], timeout=seconds).returncode
            if code:
                print(f"{name} ended with exit code {code}", flush=True)
        except subprocess.TimeoutExpired:
            print(f"{name} was stopped at its time limit; its records so far are kept", flush=True)
    report = given.out / "gpu.md"
    print(report.read_text() if report.exists() else "no table was made")


if __name__ == "__main__":
    main()
