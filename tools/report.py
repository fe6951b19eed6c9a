#!/usr/bin/env python3
"""Makes one self-contained HTML page from the JSON of `lamina compare --json`.

usage: report.py compare.json compare.html
"""

import html
import io
import json
import sys

try:
    import matplotlib
except ModuleNotFoundError:
    sys.exit("report.py: matplotlib is not installed: apt-get install python3-matplotlib, or pip install matplotlib")
matplotlib.use("svg")
import matplotlib.pyplot as plt

FORMS = {  # name on the page, colour (Okabe and Ito's, told apart by colour-blind people too)
    "standard": ("standard convolution", "#56616e"),
    "dw_pw": ("separable, depthwise first (dw_pw)", "#0072b2"),
    "pw_dw": ("separable, pointwise first (pw_dw)", "#e69f00"),
    "as_written": ("inverted residual (pw_dw_pw)", "#009e73"),
}
MARKERS = {"standard": "s", "dw_pw": "o", "pw_dw": "^", "as_written": "D"}

STYLE = """
  body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1b2530; background: #fff; margin: 0 auto;
         max-width: 1240px; padding: 24px 32px 64px; }
  h1 { font-size: 26px; line-height: 1.25; margin: 8px 0 4px; }
  h2 { font-size: 18px; margin: 40px 0 4px; }
  p { margin: 4px 0 12px; max-width: 85ch; }
  .machine { color: #56616e; max-width: none; }
  .figures { display: flex; flex-wrap: wrap; gap: 16px; margin: 24px 0 8px; }
  .figure { border: 1px solid #d8dee5; border-radius: 8px; padding: 12px 20px; min-width: 190px; }
  .figure b { display: block; font-size: 30px; line-height: 1.2; color: #0072b2; }
  svg { width: 100%; height: auto; }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
  th, td { padding: 3px 7px; text-align: right; white-space: nowrap; }
  th { border-bottom: 2px solid #56616e; text-align: right; vertical-align: bottom; position: sticky; top: 0;
       background: #fff; }
  th.text, td.text { text-align: left; }
  td.why { white-space: normal; min-width: 230px; text-align: left; }
  tr.first td { border-top: 1px solid #d8dee5; }
  tr.total td { font-weight: 600; }
  .dot { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 6px; }
  footer { color: #56616e; font-size: 13px; margin-top: 40px; border-top: 1px solid #d8dee5; padding-top: 8px; }
"""


def count(value):
    """4231976 as "4.23 M"."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}" if abs(value) < 999.5 * unit else f"{value / unit:.0f}{name}"
    return f"{value:.0f}"


class Comparison:
    """The rows of a comparison, by block and form."""

    def __init__(self, data):
        self.context = data["context"]
        if "comparison" not in self.context:
            sys.exit("report.py: this JSON is not of `lamina compare`")
        rows = data["benchmarks"]
        self.blocks = {}  # block -> form -> row
        for row in rows:
            if row.get("kind") == "block":
                self.blocks.setdefault(row["block"], {})[row["form"]] = row
        self.networks = {row["form"]: row for row in rows if row.get("kind") == "network"}
        self.forms = [f for f in FORMS if any(f in forms for forms in self.blocks.values())]

    def label(self, block):
        row = next(iter(self.blocks[block].values()))
        return f"{block} x{row['count']}" if row["count"] > 1 else block


def svg(figure):
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def grouped_bars(axes, c, value, forms):
    """Bars of each block side by side, one for each form; `value` may be None."""
    blocks = list(c.blocks)
    width = 0.8 / len(forms)
    for i, form in enumerate(forms):
        xs, ys = [], []
        for b, block in enumerate(blocks):
            row = c.blocks[block].get(form)
            if row is not None and value(row) is not None:
                xs.append(b + (i - (len(forms) - 1) / 2) * width)
                ys.append(value(row))
        axes.bar(xs, ys, width * 0.92, color=FORMS[form][1], label=FORMS[form][0])
    axes.set_xticks(range(len(blocks)), [c.label(b) for b in blocks], rotation=30 if len(blocks) > 6 else 0,
                    ha="right" if len(blocks) > 6 else "center")
    axes.set_xlim(-0.6, len(blocks) - 0.4)
    axes.grid(axis="y", color="#e6eaee")


def legend_above(axes):
    axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def latency_plot(c):
    figure, axes = plt.subplots(figsize=(11, 3.8))
    grouped_bars(axes, c, lambda row: row["real_time"] * 1e-3, c.forms)
    axes.set_ylabel("ms")
    legend_above(axes)
    return svg(figure)


def speed_plot(c):
    """How many times faster than the standard convolution: measured as bars, theory as a line over each bar."""
    forms = [f for f in c.forms if f != "standard"]
    figure, axes = plt.subplots(figsize=(11, 3.8))
    grouped_bars(axes, c, lambda row: 1 / row["time_ratio"], forms)
    width = 0.8 / len(forms)
    labelled = False
    for i, form in enumerate(forms):
        for b, block in enumerate(c.blocks):
            row = c.blocks[block].get(form)
            if row is None:
                continue
            x = b + (i - (len(forms) - 1) / 2) * width
            axes.plot([x - width * 0.46, x + width * 0.46], [1 / row["theory_macs_ratio"]] * 2, color="#1b2530",
                      linewidth=1.8, label=None if labelled else "theory: as many times fewer multiply-accumulates")
            labelled = True
    axes.axhline(1, color="#56616e", linewidth=0.8)
    axes.set_ylabel("times faster than standard")
    legend_above(axes)
    return svg(figure)


def roofline_plot(c):
    machine, threads = c.context["machine"], c.context["threads"]

    def at(one, all_threads):
        most = machine["threads"]
        return one if most <= 1 else one + (min(threads, most) - 1) / (most - 1) * (all_threads - one)

    peak = c.context["roof_gflops"]
    rows = [(form, row) for forms in c.blocks.values() for form, row in forms.items()]
    intensities = [row["arithmetic_intensity"] for _, row in rows]
    left, right = min(intensities + [2]) / 2, max(intensities) * 2
    figure, axes = plt.subplots(figsize=(11, 4.6))
    slowest = min(row["gflops"] for _, row in rows)
    low, high = min(slowest, peak / 10) / 1.6, peak * 1.8
    for name, level in machine["levels"].items():
        gbps = at(level["gbps_one_thread"], level["gbps_all_threads"])
        knee = peak / gbps
        start = max(left, low / gbps)
        if knee > start:
            axes.plot([start, knee], [start * gbps, peak], color="#9aa5b1", linewidth=1)
            # Along the line, a little after its beginning.
            x = start * (knee / start) ** 0.08
            axes.annotate(f"{name} {gbps:.0f} GB/s", (x, x * gbps), textcoords="offset points", xytext=(2, 5),
                          fontsize=8, color="#56616e")
    axes.plot([peak / max(at(l["gbps_one_thread"], l["gbps_all_threads"]) for l in machine["levels"].values()), right],
              [peak, peak], color="#1b2530", linewidth=1.4)
    axes.annotate(f"FMA peak {peak:.0f} GFLOP/s", (right, peak), textcoords="offset points", xytext=(-4, 5), ha="right",
                  fontsize=9)
    for form in c.forms:
        points = [(row["arithmetic_intensity"], row["gflops"]) for f, row in rows if f == form]
        axes.scatter([p[0] for p in points], [p[1] for p in points], s=38, marker=MARKERS[form], color=FORMS[form][1],
                     edgecolors="white", linewidths=0.6, label=FORMS[form][0], zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set_xlabel("FLOP per byte that must move")
    axes.set_ylabel("GFLOP/s")
    axes.grid(color="#eef1f4", which="both")
    axes.legend(frameon=False, loc="lower right")
    return svg(figure)


def parameters_plot(c):
    figure, axes = plt.subplots(figsize=(11, 3.6))
    grouped_bars(axes, c, lambda row: row["params"], c.forms)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: count(v)))
    axes.set_ylabel("parameters (log)")
    legend_above(axes)
    return svg(figure)


def network_plot(c):
    forms = [f for f in FORMS if f in c.networks]
    figure, axes = plt.subplots(figsize=(11, 0.55 * len(forms) + 0.6))
    for i, form in enumerate(forms):
        ms = c.networks[form]["real_time"] * 1e-3
        axes.barh(i, ms, 0.7, color=FORMS[form][1])
        axes.annotate(f" {ms:.2f} ms", (ms, i), va="center", fontsize=10)
    axes.set_yticks(range(len(forms)), [FORMS[f][0] for f in forms])
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.margins(x=0.1)
    return svg(figure)


def headline(c):
    """The figures at the top: of the whole network, else of the single block."""
    rows = c.networks or next(iter(c.blocks.values()))
    standard, best = rows["standard"], rows["as_written"] if "as_written" in rows else rows["dw_pw"]
    figures = [
        (standard["macs"] / best["macs"], "fewer multiply-accumulates",
         f"{count(best['macs'])} instead of {count(standard['macs'])}"),
        (standard["params"] / best["params"], "fewer parameters",
         f"{count(best['params'])} instead of {count(standard['params'])}"),
        (standard["real_time"] / best["real_time"], "faster on this machine",
         f"{best['real_time'] * 1e-3:.2f} ms instead of {standard['real_time'] * 1e-3:.2f} ms"),
    ]
    boxes = "".join(f'<div class="figure"><b>{ratio:.1f}&times;</b>{what}<br><small>{how}</small></div>'
                    for ratio, what, how in figures)
    return f'<div class="figures">{boxes}</div>'


def table(c):
    heads = [("block", 1), ("form", 1), ("implementation", 1), ("params", 0), ("MACs", 0), ("ms", 0), ("GFLOP/s", 0),
             ("% of<br>roof", 0), ("roof", 1), ("params<br>ratio", 0), ("MACs<br>ratio", 0), ("time<br>ratio", 0),
             ("why time and MACs differ", 1)]
    out = ["<table><thead><tr>"]
    out += [f'<th class="text">{h}</th>' if text else f"<th>{h}</th>" for h, text in heads]
    out.append("</tr></thead><tbody>")

    def line(first, name, form, row, ratios, kind):
        ratio = [f"{r:.3f}" for r in ratios] if ratios else ["", "", ""]
        block = kind == "block"
        cells = [(name if first else "", "text"),
                 (f'<span class="dot" style="background:{FORMS[form][1]}"></span>{form}', "text"),
                 (html.escape(row["label"]), "text"), (count(row["params"]), ""), (count(row["macs"]), ""),
                 (f"{row['real_time'] * 1e-3:.3f}", ""), (f"{row['gflops']:.0f}", ""),
                 (f"{row['percent_of_roof']:.0f}" if block else "", ""), (row["roof"] if block else "", "text")]
        cells += [(r, "") for r in ratio] + [(html.escape(row.get("why", "")), "why")]
        style = ("first " if first else "") + ("total" if kind == "network" else "")
        out.append(f'<tr class="{style}">' + "".join(f'<td class="{k}">{v}</td>' for v, k in cells) + "</tr>")

    for block, forms in c.blocks.items():
        for i, (form, row) in enumerate(forms.items()):
            ratios = (row["theory_params_ratio"], row["theory_macs_ratio"], row["time_ratio"]) if i else None
            line(i == 0, html.escape(c.label(block)), form, row, ratios, "block")
    for i, (form, row) in enumerate(c.networks.items()):
        standard = c.networks["standard"]
        ratios = (row["params"] / standard["params"], row["macs"] / standard["macs"], row["time_ratio"]) if i else None
        line(i == 0, "whole network", form, row, ratios, "network")
    out.append("</tbody></table>")
    return "".join(out)


def section(title, text, body):
    return f"<h2>{title}</h2><p>{text}</p>{body}"


def page(c):
    context = c.context
    title = f"Standard against depthwise-separable convolution: {context['comparison']['title']}"
    images, threads = context["comparison"]["images"], context["threads"]
    machine = (f"{context['machine']['cpu']}, {threads} thread{'s' if threads > 1 else ''}, SIMD target {context['isa']}, "
               f"{images} image{'s' if images > 1 else ''} at a time, {context['date'][:16].replace('T', ' ')}")
    parts = [f'<h1>{html.escape(title)}</h1><p class="machine">{html.escape(machine)}</p>', headline(c)]
    if c.networks:
        parts.append(section("The whole network", "All layers after one another, stem and classifier included.",
                             network_plot(c)))
    parts += [
        section("Latency per block", "The median time of one call, all forms measured in turns in one process.",
                latency_plot(c)),
        section("Theory and measurement",
                "Bars: how many times faster than the standard convolution. Lines: how many times fewer multiply-accumulates"
                " theory gives, 1 / (1/oc + 1/k&sup2;) for dw_pw and 1 / (s&sup2;/k&sup2; + 1/ic) for pw_dw. A bar below its"
                " line runs at fewer GFLOP/s than the standard convolution, to which Winograd's algorithm gives"
                " credit for the multiplications that it saves; the table says why.", speed_plot(c)),
        section("Roofline", "What each block reaches, under the FMA peak and the read bandwidths measured on this machine"
                            " just before. Bytes are those that must move at least: inputs, weights and outputs once.",
                roofline_plot(c)),
        section("Parameters", "Biases included, batch norms folded.", parameters_plot(c)),
        section("All figures",
                "The ratios are to the block's standard convolution: parameters and multiply-accumulates (MACs) by theory,"
                " time as measured. Percentages are of the roof, which is the FMA peak or the bandwidth of the memory level"
                " that holds the block's data.", f'<div class="scroll">{table(c)}</div>'),
        "<footer>Made by tools/report.py from the JSON of <code>lamina compare --json</code>. Times of separable forms are"
        " of the one operator; &ldquo;depthwise is x% of time&rdquo; is of its two steps run by themselves.</footer>",
    ]
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n")


def main():
    if len(sys.argv) != 3 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stderr)
        sys.exit(0 if sys.argv[1:2] in (["-h"], ["--help"]) else 2)
    try:
        with open(sys.argv[1], encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError) as error:
        print(f"report.py: cannot read {sys.argv[1]}: {error}", file=sys.stderr)
        sys.exit(2)
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
                         "svg.hashsalt": "lamina"})
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(page(Comparison(data)))


if __name__ == "__main__":
    main()
