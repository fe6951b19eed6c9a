"""The records of all steps as one JSON file and one table in Markdown."""

import datetime
import json
import pathlib

from records import lines


def parity_summary(records):
    """Counts by operator and dtype, and every failure."""
    counts, failures = {}, []
    for r in records:
        if "desc" not in r:
            continue
        words = r["desc"].split()
        dtype = next((w[6:] for w in words if w.startswith("dtype=")), "f32")
        count = counts.setdefault(f"{words[0]} {dtype}", {"passed": 0, "failed": 0, "refused": 0})
        kind = "failed" if "failure" in r else "refused" if "refused" in r else "passed"
        count[kind] += 1
        if kind == "failed":
            failures.append(f"{r['desc']} on {r['implementation']}: {r['failure']}")
    return counts, failures


def bench_rows(records):
    """(case, products, our best candidate, us, best peer, its us, ratio, share of the floor) of every case. f32 problems
    have two rows: what may round factors to TF32, on either side, is compared with its like."""
    cases = {}
    for r in records:
        if "us" in r:
            tf32 = r["contender"].lower().endswith("tf32")
            cases.setdefault((r["case"], "tf32" if tf32 else r["dtype"]), []).append(r)
    for (case, products), found in cases.items():
        ours = sorted((r for r in found if r["contender"].startswith("cuda/")), key=lambda r: r["us"])
        theirs = sorted((r for r in found if not r["contender"].startswith("cuda/")), key=lambda r: r["us"])
        if ours:
            best, peer = ours[0], theirs[0] if theirs else None
            yield (case, products, best["contender"][5:], best["us"], peer and peer["contender"], peer and peer["us"],
                   peer and peer["us"] / best["us"], best["floor_us"] / best["us"])


def candidate_rows(records):
    """(case, dtype, "name us (predicted us), ...") of every case: how well predictions choose, and what fusing gains."""
    cases = {}
    for r in records:
        if "us" in r and r["contender"].startswith("cuda/"):
            cases.setdefault((r["case"], r["dtype"]), []).append(r)
    for (case, dtype), found in cases.items():
        found.sort(key=lambda r: r["us"])
        yield case, dtype, ", ".join(f"{r['contender'][5:]} {r['us']:.1f} ({r['predicted_us']:.1f})" for r in found)


def markdown(data):
    facts, out = data["facts"], []
    if facts is None:
        return "Not yet run on a GPU.\n"
    out.append(f"{facts['card']}, driver {facts['driver']}, CUDA {facts['cuda']}, PyTorch {facts['torch']}, cuDNN {facts['cudnn']}; "
               f"{data['date']}, {data['library']}\n")
    out += ["| problem | products | Lamina | us | best peer | us | ratio | of the floor |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for case, dtype, name, us, peer, peer_us, ratio, share in bench_rows(data["benches"]):
        theirs = f"{peer} | {peer_us:.1f} | {ratio:.2f}" if peer else "- | - | -"
        out.append(f"| {case} | {dtype} | {name} | {us:.1f} | {theirs} | {share:.0%} |")
    out += ["", "| problem | dtype | every candidate: us (predicted us) |", "| --- | --- | --- |"]
    out += [f"| {case} | {dtype} | {times} |" for case, dtype, times in candidate_rows(data["benches"])]
    out += ["", "| parity | passed | failed | refused |", "| --- | --- | --- | --- |"]
    for name, count in data["parity"].items():
        out.append(f"| {name} | {count['passed']} | {count['failed']} | {count['refused']} |")
    out += ["", *(f"compute-sanitizer: {r}" for r in data["sanitize"]), "", *data["failures"]]
    return "\n".join(out) + "\n"


def write(out: pathlib.Path):
    ceilings, parity = lines(out / "ceilings.jsonl"), lines(out / "parity.jsonl")
    counts, failures = parity_summary(parity)
    data = {"facts": next((r["facts"] for r in ceilings if "facts" in r), None),
            "date": datetime.date.today().isoformat(),
            "library": next((r["library"] for r in ceilings + parity if "library" in r), "unknown"),
            "ceilings": [r for r in ceilings if "ceiling" in r], "parity": counts, "failures": failures,
            "sanitize": lines(out / "sanitize.jsonl"), "benches": lines(out / "benches.jsonl")}
    (out / "gpu.json").write_text(json.dumps(data, indent=1) + "\n")
    (out / "gpu.md").write_text(markdown(data))
