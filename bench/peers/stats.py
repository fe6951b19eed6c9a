"""Ratios, means and verdicts. A ratio is a peer's time over ours: above 1, ours is the faster."""

import math
import statistics


def geomean(values):
    return math.exp(statistics.fmean(math.log(v) for v in values))


def peer_figures(ours, theirs):
    """Of one row, the times of the rounds (us, None where a round has none): what is said of one peer."""
    ratios = [t / o for o, t in zip(ours, theirs) if o and t]
    if not ratios:
        return None
    return {"us": statistics.median(t for t in theirs if t), "ratio": statistics.median(ratios),
            "ratio_min": min(ratios), "ratio_max": max(ratios), "rounds": len(ratios)}


def best_peer(peers, accuracy_limit):
    """The name of the peer with the least ratio, among those whose error does not exceed the limit; None without."""
    counted = {name: p["ratio"] for name, p in peers.items()
               if "ratio" in p and not exceeds(p.get("error"), accuracy_limit)}
    return min(counted, key=counted.get) if counted else None


def exceeds(error, limit):
    return error is not None and not error <= limit


def goals(group, targets, threads, isa):
    """(mean, lowest) that the group must reach with so many threads and this instruction set; None: no such goal."""
    mean, lowest = group["mean"], group["lowest"]
    if isa == "AVX2":
        own = targets["AVX2"].get(group["name"])
        less = targets["AVX2"]["less"]
        mean = own["mean"] if own else mean and mean - less
        lowest = own["lowest"] if own else lowest and lowest - less
    if threads > 1 and lowest is not None:
        lowest = min(lowest, targets["several_threads"]["lowest"])
    return mean, lowest


def verdict(group, rows, targets, threads=1, isa="best"):
    """Whether a group of rows meets its goals. rows: name -> {"ratio", "best_us"} or None where nothing was compared.

    With several threads a row whose best peer is short need only reach short_mean, in the mean and as lowest row: it
    enters the mean as the goal itself where it reaches that, and its ratio is not held against the lowest row's.
    """
    names = list(rows) if group["rows"] == "all" else [n for n in group["rows"] if n in rows]
    names = [n for n in names if n not in group.get("without", [])]
    compared = [n for n in names if rows[n]]
    mean, lowest = goals(group, targets, threads, isa)
    result = {"name": group["name"], "what": group["what"], "goal_mean": mean, "goal_lowest": lowest,
              "rows": len(compared), "missing": len(names) - len(compared)}
    if not compared:
        return result | {"mean": None, "lowest": None, "met": None}
    ratios = {n: rows[n]["ratio"] for n in compared}
    result |= {"mean": geomean(ratios.values()), "lowest": min(ratios.values()),
               "lowest_row": min(ratios, key=ratios.get)}
    judged, floor = dict(ratios), {n: lowest for n in compared}
    if threads > 1:
        special = targets["several_threads"]
        for n in compared:
            if rows[n]["best_us"] < special["short_us"]:
                if mean is not None and ratios[n] >= special["short_mean"]:
                    judged[n] = max(ratios[n], mean)
                floor[n] = special["short_mean"] if lowest is not None else None
    if mean is None and lowest is None:
        return result | {"met": None}
    met = mean is None or geomean(judged.values()) >= mean
    met = met and all(floor[n] is None or ratios[n] >= floor[n] for n in compared)
    return result | {"met": bool(met)}
