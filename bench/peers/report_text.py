"""The tables that `./do peers` prints, from the JSON that it writes."""


def scaling(machine, isa):
    """How many times the FMA peak of one thread all threads reach together."""
    peaks = machine["gflops"]
    peak = max(peaks.values(), key=lambda g: g["one_thread"]) if isa == "best" else peaks[isa]
    return peak["all_threads"] / peak["one_thread"]


def title(run):
    """What was timed how: "2 threads, SIMD target AVX2"."""
    threads = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}, SIMD target {run['isa']}"
    return threads + {"": "", "cold": ", caches emptied before every call", "nchw": ", images in nchw",
                      "networks": ", whole networks"}[run.get("kind", "")]


def judged(data, run):
    """Whether this pass's verdicts count, and why not."""
    if run["threads"] == 1:
        return True, ""
    scale, least = scaling(data["machine"], run["isa"]), data["targets"]["scaling_at_least"]
    return scale >= least, f"all threads reach {scale:.2f} times one thread's FMA peak, {least} are wanted"


NHWC_HEADS = ["own nhwc us", "of its speed"]


def cell(peer):
    if "refused" in peer:
        return "refused"
    mark = "!" if peer["inaccurate"] else ""
    return f"{peer['us']:.1f}{mark}"


def row_table(run):
    names = list(run["rows"][0]["peers"])
    planes = run.get("kind") == "nchw"
    heads = ["row", "Lamina us", "% roof", *names, "best peer", "ratio", "spread"] + (NHWC_HEADS if planes else [])
    lines = []
    for r in run["rows"]:
        name = r["row"] + (" (direct)" if r["variant"] == "direct" else "")
        if "refused" in r["ours"]:
            lines.append([name, "refused", ""] + [cell(r["peers"][n]) for n in names] +
                         [""] * (len(heads) - 3 - len(names)))
            continue
        best = r["peers"][r["best"]] if r["best"] else None
        lines.append([name, f"{r['ours']['us']:.1f}", f"{r['ours']['percent_of_roof']:.0f}"] +
                     [cell(r["peers"][n]) for n in names] +
                     ([r["best"], f"{best['ratio']:.2f}", f"{best['ratio_min']:.2f}..{best['ratio_max']:.2f}"]
                      if best else ["none", "", ""]) + (nhwc_cells(r) if planes else []))
    return aligned([heads] + lines)


def nhwc_cells(row):
    """Our own time in nhwc in the same rounds, and that over our time in nchw."""
    figures = row["nhwc"]
    return [f"{figures['us']:.1f}", f"{figures['ratio']:.2f}"] if figures else ["refused", ""]


def aligned(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = []
    for line in lines:
        text.append("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))))
    return "\n".join(text[:1] + ["-" * len(text[0])] + text[1:])


def goal(value):
    return "-" if value is None else f"{value:.2f}"


def verdict_word(v):
    return {None: "-", True: "met", False: "NOT met"}[v["met"]]


def verdict_table(run):
    heads = ["target", "rows", "mean", "wanted", "lowest", "wanted", "lowest row", ""]
    lines = [heads]
    for v in run["verdicts"]:
        lines.append([v["what"], str(v["rows"]), goal(v["mean"]), goal(v["goal_mean"]), goal(v["lowest"]),
                      goal(v["goal_lowest"]), v.get("lowest_row", ""), verdict_word(v)])
    return aligned(lines)


def errors_table(run):
    names = list(run["rows"][0]["peers"])

    def say(error):
        return "-" if error is None else f"{error:.3g}"

    lines = [["row", "Lamina", *names]]
    for r in run["rows"]:
        if r["variant"] == "any":
            lines.append([r["row"], say(r["ours"].get("error"))] + [say(r["peers"][n].get("error")) for n in names])
    return aligned(lines)


def uncapped(run):
    """Which peers ran on more than Lamina was allowed."""
    names = run.get("uncapped", [])
    return f"not capped to {run['isa']}: {', '.join(names)}" if names else ""


def refusals(run):
    """Each distinct pair of a peer and its words once, with the rows."""
    words = {}
    for r in run["rows"]:
        for name, peer in r["peers"].items():
            if "refused" in peer:
                rows = words.setdefault((name, peer["refused"]), [])
                if r["row"] not in rows:
                    rows.append(r["row"])
    return "\n".join(f"no figure of {name} for {', '.join(rows)}: {said}" for (name, said), rows in words.items())


def tables(data):
    machine, parts = data["machine"], []
    parts.append(f"{machine['cpu']}, {data['date'][:16].replace('T', ' ')}, {data['rounds']} rounds; times in"
                 " us, ratio: the best peer's time over ours (median over rounds, least and greatest beside it);"
                 " !: error above "
                 f"{data['targets']['accuracy_limit']}, not counted as best")
    for name, reason in data["absent"].items():
        parts.append(f"absent: {name}: {reason}")
    for run in data["passes"]:
        counts, why = judged(data, run)
        parts += ["== " + title(run), row_table(run), uncapped(run), refusals(run)]
        if run["verdicts"]:
            parts += [verdict_table(run), "" if counts else f"not judged: {why}"]
        if any("error" in r["ours"] for r in run["rows"]):
            parts += ["largest e / (u sqrt(K) S)", errors_table(run)]
    return "\n\n".join(p for p in parts if p) + "\n"
