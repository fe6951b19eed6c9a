"""The self-contained HTML page of a comparison, from the JSON that `./do peers` writes.

usage: page.py peers.json peers.html
"""

import html
import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import report_text  # noqa: E402
from report import STYLE, plt, section, svg  # noqa: E402  (tools/report.py: the same look)

COLOURS = {"Lamina": "#1b2530", "oneDNN": "#0072b2", "XNNPACK": "#e69f00", "ONNX Runtime": "#009e73",
           "OpenVINO": "#cc79a7", "PyTorch": "#d55e00", "ncnn": "#56b4e9", "MNN": "#b8a800"}  # after Okabe and Ito
OWN_STYLE = """
  td.best { font-weight: 600; } td.off { color: #8a949f; } td.met { color: #00795a; font-weight: 600; }
  td.missed { color: #b23a00; font-weight: 600; }
"""


def label(row):
    return row["row"] + (" direct" if row["variant"] == "direct" else "")


def axes_of(rows, height):
    figure, axes = plt.subplots(figsize=(11, height))
    axes.set_xticks(range(len(rows)), [label(r) for r in rows], rotation=60, ha="right", fontsize=8)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", color="#e6eaee")
    return figure, axes


def ratio_plot(rows):
    """A point for each peer over each row, a bar to the best one, on a logarithmic scale."""
    figure, axes = axes_of(rows, 4.6)
    for peer, colour in COLOURS.items():
        points = [(i, r["peers"][peer]) for i, r in enumerate(rows) if "ratio" in r["peers"].get(peer, {})]
        if not points:
            continue
        sound = [(i, p["ratio"]) for i, p in points if not p["inaccurate"]]
        off = [(i, p["ratio"]) for i, p in points if p["inaccurate"]]
        axes.scatter([i for i, _ in sound], [r for _, r in sound], s=26, color=colour, label=peer, zorder=3)
        axes.scatter([i for i, _ in off], [r for _, r in off], s=26, facecolors="none", edgecolors=colour, zorder=3)
    for i, r in enumerate(rows):
        if r["best"]:
            best = r["peers"][r["best"]]
            colour = "#cfe3d8" if best["ratio"] >= 1 else "#f3d3c4"
            axes.bar(i, best["ratio"] - 1, 0.7, bottom=1, color=colour, zorder=1)
            axes.plot([i, i], [best["ratio_min"], best["ratio_max"]], color="#56616e", linewidth=1, zorder=2)
    axes.axhline(1, color="#56616e", linewidth=0.9)
    axes.set_yscale("log", base=2)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.8), min(high, 16))  # what is slower still is in the table
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    axes.set_ylabel("peer's time / Lamina's (log)")
    axes.legend(frameon=False, ncols=8, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, fontsize=9)
    return svg(figure)


def roof_plot(rows):
    rows = [r for r in rows if "us" in r["ours"]]
    figure, axes = axes_of(rows, 3.2)
    axes.bar(range(len(rows)), [r["ours"]["percent_of_roof"] for r in rows], 0.7, color="#0072b2")
    axes.axhline(100, color="#56616e", linewidth=0.9)
    axes.set_ylabel("percent of the roofline")
    return svg(figure)


def table(heads, lines):
    """lines: cells as (text, class)."""
    out = ["<div class='scroll'><table><thead><tr>"] + [f"<th>{html.escape(h)}</th>" for h in heads]
    out.append("</tr></thead><tbody>")
    for line in lines:
        cells = (f'<td class="{kind}">{html.escape(str(text))}</td>' for text, kind in line)
        out.append(f"<tr>{''.join(cells)}</tr>")
    return "".join(out + ["</tbody></table></div>"])


def peer_cell(row, name):
    peer = row["peers"][name]
    if "refused" in peer:
        return "refused", "off"
    return report_text.cell(peer), "best" if name == row["best"] else "off" if peer["inaccurate"] else ""


def times(rows):
    names, planes = list(rows[0]["peers"]), "nhwc" in rows[0]
    lines = []
    for r in rows:
        if "us" not in r["ours"]:
            lines.append([(label(r), "text"), ("refused", "off")])
            continue
        best = r["peers"][r["best"]] if r["best"] else None
        lines.append([(label(r), "text"), (f"{r['ours']['us']:.1f}", ""), (f"{r['ours']['percent_of_roof']:.0f}", ""),
                      (r["ours"]["implementation"], "text")] + [peer_cell(r, n) for n in names] +
                     ([(r["best"], "text"), (f"{best['ratio']:.2f}", "met" if best["ratio"] >= 1 else "missed"),
                       (f"{best['ratio_min']:.2f} to {best['ratio_max']:.2f}", "")]
                      if best else [("none", "text"), ("", ""), ("", "")]) +
                     ([(c, "") for c in report_text.nhwc_cells(r)] if planes else []))
    return table(["row", "Lamina", "% roof", "implementation", *names, "best peer", "ratio", "spread"] +
                 (report_text.NHWC_HEADS if planes else []), lines)


def verdicts(run):
    lines = [[(v["what"], "text"), (v["rows"], ""), (report_text.goal(v["mean"]), ""),
              (report_text.goal(v["goal_mean"]), ""), (report_text.goal(v["lowest"]), ""),
              (report_text.goal(v["goal_lowest"]), ""), (v.get("lowest_row", ""), "text"),
              (report_text.verdict_word(v), {True: "met", False: "missed", None: ""}[v["met"]])]
             for v in run["verdicts"]]
    return table(["target", "rows", "mean ratio", "wanted", "lowest ratio", "wanted", "lowest row", ""], lines)


def errors(rows):
    names = list(rows[0]["peers"])
    lines = []
    for r in rows:
        if r["variant"] == "any":
            values = [r["ours"].get("error")] + [r["peers"][n].get("error") for n in names]
            lines.append([(r["row"], "text")] + [("" if e is None else f"{e:.3g}", "") for e in values])
    return table(["row", "Lamina", *names], lines)


def pass_section(data, run):
    counts, why = report_text.judged(data, run)
    rows, title = run["rows"], report_text.title(run)
    refused = "".join(f"<li>{html.escape(line)}</li>" for line in report_text.refusals(run).splitlines())
    said = ("The median over the rounds of the best peer's time over ours; bars above 1 where ours is the faster, lines"
            " from the least round to the greatest. Hollow: its error is above the limit, so it is not counted.")
    if run.get("uncapped"):
        said += f" Engines {html.escape(report_text.uncapped(run))}."
    parts = [section(title, said, ratio_plot(rows)), times(rows)]
    if run["verdicts"]:
        parts.append(section("Targets", "" if counts else f"Not judged: {html.escape(why)}.", verdicts(run)))
    parts.append(section("Percent of the roofline", "As <code>lamina bench</code> counts it.", roof_plot(rows)))
    if any("error" in r["ours"] for r in rows):
        limit = data["targets"]["accuracy_limit"]
        said = ("The largest e / (u &radic;K S) over a sample of the outputs, u = 2<sup>-24</sup>, S the sum of the"
                f" terms' absolute values; above {limit} a peer is marked with ! and not counted.")
        parts.append(section("Errors", said, errors(rows)))
    return "".join(parts) + (f"<p>Rows without a figure, and why (refusals in the engines' words):</p><ul>{refused}</ul>" if refused else "")


def page(data):
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
                         "svg.hashsalt": "lamina"})
    title = "Lamina beside its peers"
    machine = f"{data['machine']['cpu']}, {data['date'][:16].replace('T', ' ')}, {data['rounds']} rounds, times in µs"
    absent = "".join(f"<p>Absent: {html.escape(n)}: {html.escape(why)}</p>" for n, why in data["absent"].items())
    body = "".join(pass_section(data, run) for run in data["passes"])
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>'
            f'{STYLE}{OWN_STYLE}</style></head><body><h1>{title}</h1><p class="machine">{html.escape(machine)}</p>'
            f"{absent}{body}"
            "<footer>Made by bench/peers/page.py from the JSON of <code>./do peers</code>.</footer></body></html>\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    pathlib.Path(sys.argv[2]).write_text(page(json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))),
                                         encoding="utf-8")
