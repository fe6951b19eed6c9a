"""The Python side of protocol.h: serves requests for one engine, a line each, and samples as `lamina bench` does.

usage: serve.py ENGINE THREADS
An engine is a module of engines/ with prepare(problems, threads, direct) -> model: model.bind(arena) gives a function
that runs it once, on tensors newly placed by the arena; model.output() its result in Lamina's layout; model.name.
"""

import importlib
import json
import os
import pathlib
import sys
import time
import zlib

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from problems import parse  # noqa: E402

FLUSH_BYTES = 64 << 20


class Arena:
    """Arrays at addresses whose last twelve bits differ from tensor to tensor and from allocation to allocation."""

    def __init__(self, allocation):
        self.next = allocation * 5

    def empty(self, shape):
        offset = self.next * 11 % 64 * 64
        self.next += 1
        count = int(np.prod(shape))
        raw = np.zeros(count * 4 + 2 * 4096, np.uint8)
        begin = -raw.ctypes.data % 4096 + offset
        return raw[begin:begin + count * 4].view(np.float32).reshape(shape)

    def copy(self, values):
        array = self.empty(values.shape)
        array[...] = values
        return array


def clock(run, calls):
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def sample(run, seconds, flushed):
    """Seconds of a call, in samples of about a millisecond, at least three; flushed: single calls, caches emptied."""
    clock(run, 1)
    one = max(clock(run, 1), 1e-8)
    calls = 1 if flushed is not None else max(1, int(1e-3 / one))
    rounds = int(seconds / (one * calls + (0.01 if flushed is not None else 0)))
    samples = []
    for _ in range(max(1 if one > 0.3 else 3, rounds)):
        if flushed is not None:
            flushed += 1
        samples.append(clock(run, calls))
    return samples


def answer(engine, threads, line, prepared):
    row, seconds, allocations, cold, variant, output, text = line.split(" ", 6)
    if prepared.get("key") != (text, variant):
        prepared.clear()
        problems = [parse(t) for t in text.split(" ; ")]
        for problem in problems:
            problem.layer = len(problems) > 1
        prepared["model"] = engine.prepare(problems, threads, variant == "direct")
        prepared["key"] = (text, variant)
    model, samples = prepared["model"], []
    flushed = np.zeros(FLUSH_BYTES // 4, np.float32) if cold == "1" else None
    for allocation in range(int(allocations)):
        run = model.bind(Arena(allocation + zlib.crc32(row.encode()) % 7))
        if allocation == 0 and output != "-":
            run()
            np.ascontiguousarray(model.output(), np.float32).tofile(output)
        samples += sample(run, float(seconds) / int(allocations), flushed)
        if sum(samples) > 4 * float(seconds):
            break
    return {"row": row, "us": float(np.median(samples)) * 1e6, "implementation": model.name}


def main():
    # Libraries chatter on the standard output: answers go to a copy of it, theirs to the standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    engine, threads, prepared = importlib.import_module(f"engines.{sys.argv[1]}"), int(sys.argv[2]), {}
    for line in sys.stdin:
        line = line.strip()
        try:
            said = answer(engine, threads, line, prepared)
        except Exception as error:  # pylint: disable=broad-except  (whatever a library raises are its words)
            prepared.clear()
            words = " ".join(str(error).split()) or type(error).__name__
            said = {"row": line.split(" ", 1)[0], "refused": words[:300]}
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()
