#!/usr/bin/env python3
"""Times Lamina beside other libraries, in alternating rounds, and says which targets are met.

In each round every engine runs the row once, in its own pinned and warmed process; a ratio is a peer's time over ours
in the same round, and the figure is the median over the rounds. docs/measuring.md says more.
"""

import datetime
import json
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
from problems import suite  # noqa: E402

FAR_BEHIND = 2.5  # a peer so many times slower than the best one after two rounds is not run in further ones


class Pass:
    """The rows with so many threads on one instruction set."""

    def __init__(self, options, threads, isa, engines, cpus, machine, targets):
        self.options, self.isa, self.targets, self.cold = options, isa, targets, False
        pinned = cpus[-1:] if threads == 1 else cpus[:threads]
        self.lamina = ours.Lamina(threads, isa, pinned, machine)
        able = [e for e in engines if isa == "best" or isa in e.caps]
        self.servers = {e.name: Server(e, threads, isa, pinned) for e in able}
        self.errors = {}  # (row, variant, name) -> error

    def row(self, name, problem, variant="any"):
        """One row of the table, as a dictionary."""
        times, said, mine = {n: [] for n in self.servers}, {}, []
        behind = set()
        for index in range(self.options.rounds):
            order = list(self.servers)[index % max(1, len(self.servers)):] + \
                    list(self.servers)[:index % max(1, len(self.servers))]
            answer = self.lamina.ask(name, self.options.seconds, problem, self.cold, variant)
            said["Lamina"] = answer if index == 0 or "refused" in answer else said["Lamina"] | answer
            mine.append(answer.get("us"))
            for peer in order:
                if peer in behind:
                    times[peer].append(None)
                    continue
                answer, error = self.ask(peer, name, problem, variant, check=index == 0)
                if error is not None:
                    self.errors[name, variant, peer] = error
                said[peer] = answer
                times[peer].append(answer.get("us"))
                if "refused" in answer:
                    behind.add(peer)
            if index == 1:
                behind |= self.far_behind(name, variant, mine, times)
        return self.summary(name, problem, variant, mine, times, said)

    def ask(self, peer, name, problem, variant, check):
        if not check:
            return self.servers[peer].ask(name, self.options.seconds, 3, [problem], self.cold, variant), None
        with tempfile.NamedTemporaryFile() as file:
            answer = self.servers[peer].ask(name, self.options.seconds, 3, [problem], self.cold, variant,
                                            file.name)
            if "refused" in answer:
                return answer, None
            return answer, self.error(problem, np.fromfile(file.name, np.float32))

    @staticmethod
    def error(problem, y):
        try:
            return reference.error(problem, y)
        except ValueError:  # a result of another size is wrong altogether
            return float("inf")

    def far_behind(self, name, variant, mine, times):
        ratios = {}
        for peer, values in times.items():
            figures = stats.peer_figures(mine, values)
            if figures and not stats.exceeds(self.errors.get((name, variant, peer)), self.targets["accuracy_limit"]):
                ratios[peer] = figures["ratio"]
        return {p for p, r in ratios.items() if r > FAR_BEHIND * min(ratios.values())}

    def summary(self, name, problem, variant, mine, times, said):
        peers = {}
        for peer, values in times.items():
            answer = said[peer]
            figures = stats.peer_figures(mine, values)
            if figures is None:
                peers[peer] = {"refused": answer.get("refused", "Lamina refused the row")}
                continue
            error = self.errors.get((name, variant, peer))
            peers[peer] = figures | {"error": error, "implementation": answer.get("implementation", ""),
                                     "rounds_us": values,
                                     "inaccurate": stats.exceeds(error, self.targets["accuracy_limit"])}
        best = stats.best_peer(peers, self.targets["accuracy_limit"])
        row = {"row": name, "problem": str(problem), "variant": variant, "peers": peers, "best": best}
        lamina = said["Lamina"]
        if "refused" in lamina:
            return row | {"ours": {"refused": lamina["refused"]}}
        us = float(np.median([m for m in mine if m]))
        # The program's percentage belongs to its last round's time: a percentage is of a time, so it scales with it.
        row["ours"] = {"us": us, "rounds_us": mine, "implementation": lamina["implementation"],
                       "percent_of_roof": lamina["percent_of_roof"] * lamina["us"] / us, "roof": lamina["roof"]}
        y = ours.result(problem, self.isa, variant == "direct")
        row["ours"]["error"] = None if y is None else self.error(problem, y)
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


def main():
    options, names, threads, isas, engines, cpus = parse_arguments(sys.argv[1:])
    rows = {name: problem for name, problem in suite().items() if name in names}
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
    machine = ours.roofs(machine_file)
    data = {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "machine": machine,
            "rounds": options.rounds, "seconds": options.seconds, "absent": absent,
            "targets": targets, "passes": []}
    direct = next(g["rows"] for g in targets["groups"] if g.get("variant") == "direct")
    for isa in isas:
        for count in threads:
            run = Pass(options, count, isa, engines, cpus, machine_file, targets)
            done = []
            work = [(n, "any") for n in rows] + [(n, "direct") for n in rows if n in direct]
            for index, (name, variant) in enumerate(work):
                print(f"[{isa}, {count} thread{'s' if count > 1 else ''}: {index + 1}/{len(work)}] {name}"
                      f"{' (direct)' if variant == 'direct' else ''}", file=sys.stderr, flush=True)
                done.append(run.row(name, rows[name], variant))
            run.close()
            data["passes"].append({"isa": isa, "threads": count, "rows": done,
                                   "verdicts": judge(done, targets, count, isa)})
            (folder / "peers.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    print(report_text.tables(data))
    print(f"JSON: {folder / 'peers.json'}")
    try:
        import page
        (folder / "peers.html").write_text(page.page(data), encoding="utf-8")
        print(f"Page: {folder / 'peers.html'}")
    except ModuleNotFoundError as error:
        print(f"no page: {error.name} is not installed", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
