#!/usr/bin/env python3
"""Times Lamina beside other libraries, in alternating rounds, and says which targets are met.

In each round every engine runs the row once, in its own pinned and warmed process; a ratio is a peer's time over ours
in the same round, and the figure is the median over the rounds. docs/measuring.md says more.
"""

import dataclasses
import datetime
import json
import math
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import numpy as np  # noqa: E402

import ours  # noqa: E402
import reference  # noqa: E402
import report_text  # noqa: E402
import stats  # noqa: E402
from options import parse_arguments, wrong  # noqa: E402
from peers import HERE, Server  # noqa: E402
from problems import network, networks, suite  # noqa: E402

ALLOCATIONS = 3  # of a row's tensors in each round, as in `lamina bench`
SIDE_ROUNDS = 3  # at most, of all parts but the suite
FAR_BEHIND = {0: 10, 1: 2.5}  # after a round: a peer so many times slower than the best one is not run any more


@dataclasses.dataclass
class Work:
    """A row to be timed: one problem, or all layers of a network."""
    name: str
    problems: list
    words: list  # by which `lamina bench` knows it
    variant: str = "any"
    beside: list = dataclasses.field(default_factory=list)  # the words of the same row in nhwc, where that is timed too


class Pass:
    """Rows with so many threads on one instruction set; kind: "" (the suite), "nchw", "cold" or "networks"."""

    def __init__(self, options, kind, threads, isa, engines, cpus, machine, targets):
        self.isa, self.targets, self.kind, self.checked = isa, targets, kind, kind in ("", "nchw")
        self.rounds = min(options.rounds, SIDE_ROUNDS) if kind else options.rounds
        self.seconds = options.seconds
        pinned = cpus[-1:] if threads == 1 else cpus[:threads]
        self.lamina = ours.Lamina(threads, isa, pinned, machine)
        self.servers = {e.name: Server(e, threads, isa, pinned) for e in engines}
        self.errors = {}  # (row, variant, name) -> error

    def row(self, work):
        """One row of the table, as a dictionary."""
        times, said, mine, nhwc = {n: [] for n in self.servers}, {}, [], []
        behind = set()
        for index in range(self.rounds):
            order = list(self.servers)[index % max(1, len(self.servers)):] + \
                    list(self.servers)[:index % max(1, len(self.servers))]
            answer = self.lamina.ask(work.name, self.seconds, work.words, self.kind == "cold", work.variant)
            said["Lamina"] = answer if index == 0 or "refused" in answer else said["Lamina"] | answer
            mine.append(answer.get("us"))
            if work.beside:
                nhwc.append(self.lamina.ask(work.name, self.seconds, work.beside).get("us"))
            for peer in order:
                if peer in behind:
                    times[peer].append(None)
                    continue
                answer, error = self.ask(peer, work, check=index == 0 and self.checked)
                if error is not None:
                    self.errors[work.name, work.variant, peer] = error
                said[peer] = answer
                times[peer].append(answer.get("us"))
                if "refused" in answer:
                    behind.add(peer)
            if index in FAR_BEHIND:
                behind |= self.far_behind(work, mine, times, FAR_BEHIND[index])
        row = self.summary(work, mine, times, said)
        if work.beside:
            row["nhwc"] = stats.peer_figures(mine, nhwc)
        return row

    def ask(self, peer, work, check):
        """The answer, and the error of the result where it is to be checked."""
        server, cold = self.servers[peer], self.kind == "cold"
        if not check:
            return server.ask(work.name, self.seconds, ALLOCATIONS, work.problems, cold, work.variant), None
        with tempfile.NamedTemporaryFile() as file:
            answer = server.ask(work.name, self.seconds, ALLOCATIONS, work.problems, cold, work.variant, file.name)
            if "refused" in answer:
                return answer, None
            return answer, self.error(work.problems[0], np.fromfile(file.name, np.float32))

    @staticmethod
    def error(problem, y):
        try:
            return reference.error(problem, y)
        except ValueError:  # a result of another size is wrong altogether
            return float("inf")

    def far_behind(self, work, mine, times, factor):
        ratios = {}
        for peer, values in times.items():
            figures = stats.peer_figures(mine, values)
            error = self.errors.get((work.name, work.variant, peer))
            if figures and not stats.exceeds(error, self.targets["accuracy_limit"]):
                ratios[peer] = figures["ratio"]
        return {p for p, r in ratios.items() if r > factor * min(ratios.values())}

    def summary(self, work, mine, times, said):
        peers = {}
        for peer, values in times.items():
            answer = said[peer]
            figures = stats.peer_figures(mine, values)
            if figures is None:
                peers[peer] = {"refused": answer.get("refused", "Lamina refused the row")}
                continue
            error = self.errors.get((work.name, work.variant, peer))
            peers[peer] = figures | {"error": error, "implementation": answer.get("implementation", ""),
                                     "rounds_us": values,
                                     "inaccurate": stats.exceeds(error, self.targets["accuracy_limit"])}
        best = stats.best_peer(peers, self.targets["accuracy_limit"])
        row = {"row": work.name, "problem": " ".join(work.words), "variant": work.variant, "peers": peers, "best": best}
        lamina = said["Lamina"]
        if "refused" in lamina:
            return row | {"ours": {"refused": lamina["refused"]}}
        us = float(np.median([m for m in mine if m]))
        # The program's percentage belongs to its last round's time: a percentage is of a time, so it scales with it.
        row["ours"] = {"us": us, "rounds_us": mine, "implementation": lamina["implementation"],
                       "percent_of_roof": lamina["percent_of_roof"] * lamina["us"] / us, "roof": lamina["roof"]}
        if self.checked:
            y = ours.result(work.problems[0], self.isa, work.variant == "direct")
            row["ours"]["error"] = None if y is None else self.error(work.problems[0], y)
        return row

    def close(self):
        for server in self.servers.values():
            server.close()


def judge(rows, targets, threads, isa):
    """The verdicts of all groups of which a row was run."""
    verdicts = []
    for group in targets["groups"]:
        variant = group.get("variant", "any")
        ratios = {}
        for r in rows:
            if r["variant"] == variant:
                best = r["peers"].get(r["best"]) if r["best"] else None
                ratios[r["row"]] = {"ratio": best["ratio"], "best_us": best["us"]} if best else None
        if group["rows"] == "all" or any(n in ratios for n in group["rows"]):
            verdicts.append(stats.verdict(group, ratios, targets, threads, isa))
    return verdicts


def judge_planes(rows, targets, threads, isa):
    """The verdicts on images in nchw: beside the best peer, and beside our own speed in nhwc."""
    best = {r["row"]: r["peers"][r["best"]] if r["best"] else None for r in rows}
    beside = {"peers": {n: b and {"ratio": b["ratio"], "best_us": b["us"]} for n, b in best.items()},
              # Both sides are ours: no row is excused for being short.
              "nhwc": {r["row"]: r["nhwc"] and {"ratio": r["nhwc"]["ratio"], "best_us": math.inf} for r in rows}}
    return [stats.verdict(group | {"rows": "all"}, beside[group["beside"]], targets, threads, isa)
            for group in targets["nchw"]]


def main():
    options, names, threads, isas, engines, cpus = parse_arguments(sys.argv[1:])
    targets = json.loads((HERE / "targets.json").read_text(encoding="utf-8"))
    folder = pathlib.Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    absent = {e.name: e.absence() for e in engines if e.absence()}
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}", file=sys.stderr)
    engines = [e for e in engines if e.name not in absent]
    if not engines:
        wrong("none of the peers is installed")

    machine_file = folder / "machine.txt"
    data = {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": ours.roofs(machine_file), "rounds": options.rounds, "seconds": options.seconds,
            "absent": absent, "targets": targets, "passes": []}
    for kind, isa, count in passes(options, threads, isas):
        run = Pass(options, kind, count, isa, engines, cpus, machine_file, targets)
        rows = list(work_of(kind, names, targets))
        if not rows:
            continue
        said = {"kind": kind, "isa": isa, "threads": count, "rows": [],
                "uncapped": [e.name for e in engines if isa != "best" and isa not in e.caps]}
        for index, work in enumerate(rows):
            print(f"[{report_text.title(said)}: {index + 1}/{len(rows)}] {work.name}"
                  f"{' (direct)' if work.variant == 'direct' else ''}", file=sys.stderr, flush=True)
            said["rows"].append(run.row(work))
        run.close()
        judges = {"": judge, "nchw": judge_planes}
        said["verdicts"] = judges[kind](said["rows"], targets, count, isa) if kind in judges else []
        if not report_text.judged(data, said)[0]:
            said["verdicts"] = [v | {"met": None} for v in said["verdicts"]]
        data["passes"].append(said)
        (folder / "peers.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    print(report_text.tables(data))
    print(f"JSON: {folder / 'peers.json'}")
    write_page(data, folder / "peers.html")


def passes(options, threads, isas):
    """(kind, instruction set, threads): the suite with all of them, nchw with all instruction sets, the others with the
    first."""
    parts = options.parts.split(",")
    if "suite" in parts:
        yield from (("", isa, count) for isa in isas for count in threads)
    if "nchw" in parts:
        yield from (("nchw", isa, threads[0]) for isa in isas)
    if "networks" in parts:
        yield "networks", isas[0], threads[0]
    if "cold" in parts:
        yield "cold", isas[0], threads[0]


def work_of(kind, names, targets):
    """The rows of a pass; those of which direct algorithms are judged come once more."""
    if kind == "networks":
        for name in networks():
            if name in names:
                yield Work(name, network(name), ["--network", name, "--end-to-end"])
        return
    rows = {name: problem for name, problem in suite().items() if name in names}
    if kind == "nchw":
        for name, problem in rows.items():
            if problem.op in ("conv2d", "separable_conv2d"):
                planes = problem.in_planes()
                yield Work(name, [planes], [str(planes)], beside=[str(problem)])
        return
    for name, problem in rows.items():
        yield Work(name, [problem], [str(problem)])
    if kind == "":
        direct = next(g["rows"] for g in targets["groups"] if g.get("variant") == "direct")
        for name in direct:
            if name in rows:
                yield Work(name, [rows[name]], [str(rows[name])], "direct")


def write_page(data, path):
    try:
        import page
    except (ModuleNotFoundError, SystemExit):
        print("no page: matplotlib is not installed", file=sys.stderr)
        return
    path.write_text(page.page(data), encoding="utf-8")
    print(f"Page: {path}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
