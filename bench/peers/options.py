#!/usr/bin/env python3
"""Times Lamina beside other libraries, in alternating rounds, and says which targets are met.

In each round every engine runs the row once, in its own pinned and warmed process; a ratio is a peer's time over ours
in the same round, and the figure is the median over the rounds. docs/measuring.md says more.
"""

import argparse
import os
import re
import sys

from peers import ENGINES, ROOT

PARTS = ("suite", "nchw", "networks", "cold")


def wrong(sentence):
    print(f"./do peers: {sentence}", file=sys.stderr)
    sys.exit(2)


def known_names():
    """The suite's rows and the networks."""
    text = (ROOT / "bench" / "suite.txt").read_text(encoding="utf-8")
    return re.findall(r"^([\w.]+):", text, re.MULTILINE) + [p.stem for p in (ROOT / "bench/networks").glob("*.txt")]


def thread_counts(text, cpus):
    counts = []
    for word in text.split(","):
        count = cpus if word == "all" else int(word) if word.isdigit() else 0
        if not 1 <= count <= cpus:
            wrong(f"--threads wants all, or numbers from 1 to {cpus}, got \"{word}\"")
        if count not in counts:
            counts.append(count)
    return counts


def chosen_engines(text):
    if not text:
        return ENGINES
    names = [word.strip().lower() for word in text.split(",")]
    known = [e.name.lower() for e in ENGINES]
    for name in names:
        if name not in known:
            wrong(f"--peers: unknown \"{name}\", the peers are {', '.join(e.name for e in ENGINES)}")
    return [e for e in ENGINES if e.name.lower() in names]


def parse_arguments(arguments):
    """(options, names of rows, thread counts, instruction sets, engines, CPUs); ends with code 2 on bad input."""
    cpus = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="./do peers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = wrong
    parser.add_argument("--rows", default="",
                        help="only rows and networks whose name contains one of these words: res,sep1")
    parser.add_argument("--rounds", type=int, default=7, help="7 unless given; fewer are for a quick look")
    parser.add_argument("--threads", default="1,all", help="1,all unless given")
    parser.add_argument("--isa", default="best,AVX2",
                        help="best,AVX2 unless given; peers that cannot be capped to AVX2 run beside it as they are")
    parser.add_argument("--peers", default="", help="only these of " + ", ".join(e.name for e in ENGINES))
    parser.add_argument("--parts", default=",".join(PARTS),
                        help=f"{','.join(PARTS)} unless given: the rows, the convolutions with images in nchw, networks"
                             " end to end, the rows with the caches emptied before every call")
    parser.add_argument("--seconds", type=float, default=0.1, help="of timing per row, round and engine")
    parser.add_argument("--out", default=str(ROOT / "build" / "peers"), help="folder of peers.json and peers.html")
    options = parser.parse_args(arguments)
    names = known_names()
    if options.rows:
        names = [n for n in names if any(w in n for w in options.rows.split(",") if w)]
        if not names:
            wrong(f"--rows: no row of bench/suite.txt and no network contains \"{options.rows}\"")
    if not 1 <= options.rounds <= 1000:
        wrong(f"--rounds must be between 1 and 1000, got {options.rounds}")
    if not 0 < options.seconds <= 60:
        wrong(f"--seconds must be more than 0 and at most 60, got {options.seconds}")
    for part in options.parts.split(","):
        if part not in PARTS:
            wrong(f"--parts wants some of {','.join(PARTS)}, got \"{part}\"")
    isas = list(dict.fromkeys(options.isa.split(",")))
    for isa in isas:
        if isa not in ("best", "AVX2"):
            wrong(f"--isa wants best, AVX2 or both, got \"{isa}\"")
    return options, names, thread_counts(options.threads, len(cpus)), isas, chosen_engines(options.peers), cpus


if __name__ == "__main__":
    parse_arguments(sys.argv[1:])
