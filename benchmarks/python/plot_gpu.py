"""Plot of the rates in a result of tools/gpu_check.sh, compared with a device copy.

python benchmarks/python/plot_gpu.py benchmarks/results/<device>.json    writes a .png with the same name

There is one panel per number of heads. It shows TB/s over the tokens per call of the fastest candidates, in bfloat16
and half_split. Solid lines are in place, dashed lines out of place. The grey line is a device copy of as many bytes in
the same run. Of a sweep, each panel shows the ratio to that copy over the heads per thread of one size; dotted lines
are the number that the launch plan chooses.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import matplotlib
from bench_common import check_writable, read_result

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS, COPY = "ropewalk", "device copy"
COLOURS = ("#c44900", "#d98e04", "#7a7a7a", "#5b6c9d", "#8a4f7d", "#2f7d95", "#a05a2c")
MIN_TOKENS = 512  # tables show shorter calls in microseconds
MAX_LINES = 9  # of a panel
METADATA = {".png": {"Software": None}, ".svg": {"Date": None}}  # equal plots give equal files


def lines_of(rows, heads, kind, layout):
    """{candidate: {tokens: row}} of a panel."""
    lines = defaultdict(dict)
    for row in rows:
        if (row["heads"], row["type"], row["layout"]) == (heads, kind, layout) and row["tokens"] >= MIN_TOKENS:
            lines[row["candidate"]][row["tokens"]] = row
    return lines


def select(lines):
    """Selects ropewalk, the copy and the fastest peers. Omits calls that do more than a rotation."""
    shown = [name for name in (COPY, f"{OURS}, in place", f"{OURS}, out of place") if name in lines]
    omitted = ("append", "norm", "rotate, then", COPY, OURS)
    others = [name for name in lines if not name.startswith(omitted)]
    best = sorted(others, key=lambda name: -max(row["terabytes_per_second"] for row in lines[name].values()))
    return shown + best[: MAX_LINES - len(shown)]


def style_of(name, row, colours):
    if name == COPY:
        return {"color": "#cccccc", "linewidth": 5, "zorder": 1}
    dashes = {} if row["in_place"] else {"linestyle": "--"}
    if name.startswith(OURS):
        return {"color": "#0b6e4f", "linewidth": 2.4, "zorder": 3, **dashes}
    if name not in colours:
        colours[name] = COLOURS[len(colours) % len(COLOURS)]
    return {"color": colours[name], "linewidth": 1.5, "zorder": 2, **dashes}


def draw(axes, lines, heads, colours):
    for name in select(lines):
        points = sorted(lines[name].items())
        rates = [row["terabytes_per_second"] for _, row in points]
        style = style_of(name, points[0][1], colours)
        axes.plot([tokens for tokens, _ in points], rates, marker="o", markersize=3, label=name, **style)
    axes.set_xscale("log", base=2)
    tokens = sorted({n for line in lines.values() for n in line})
    axes.set_xticks(tokens, [f"{n // 1024}k" for n in tokens])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens")
    axes.set_title(f"{heads} heads of 128", fontsize=9, color="#555555", loc="right")
    axes.grid(True, axis="y", color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)


def draw_sweep(axes, rows, colours):
    for name in dict.fromkeys(row["candidate"] for row in rows):
        points = {row.get("heads_per_thread", 0): row["ratio_to_copy"] for row in rows if row["candidate"] == name}
        colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
        forced = sorted(heads for heads in points if heads > 0)
        axes.plot(forced, [points[heads] for heads in forced], marker="o", markersize=3, label=name, color=colour)
        if 0 in points:
            axes.axhline(points[0], color=colour, linewidth=1, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("heads per thread")
    axes.set_title(f"{rows[0]['tokens']} tokens, {rows[0]['heads']} heads", fontsize=9, color="#555555", loc="right")
    axes.grid(True, axis="y", color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)


def plot_sweep(result, path):
    panels = defaultdict(list)
    for row in result["rows"]:
        if "copy" not in row["candidate"]:
            panels[row["heads"], row["tokens"]].append(row)
    figure, all_axes = make_panels(len(panels))
    colours = {}
    for axes, rows in zip(all_axes[0], panels.values()):
        draw_sweep(axes, rows, colours)
    all_axes[0][0].set_ylabel("rate relative to a device copy")
    finish(figure, all_axes, result, path, "Heads per thread")


def make_panels(count):
    plt.rcParams.update({"font.size": 9, "font.family": "DejaVu Sans", "svg.hashsalt": "ropewalk"})
    size = (4.2 * count + 2.4, 3.9)
    return plt.subplots(1, count, figsize=size, dpi=120, squeeze=False, sharey=True, layout="constrained")


def finish(figure, all_axes, result, path, title):
    """Adds the legend and the title, and writes the file."""
    named = {label: line for axes in all_axes[0] for line, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(named.values(), named, frameon=False, fontsize=8, loc="outside right upper")
    device = result["context"].get("device", "unknown device")
    figure.suptitle(f"{title}: {device}", fontsize=10, x=0.01, ha="left")
    figure.savefig(path, metadata=METADATA[path.suffix])
    print(f"written to {path}")


def plot(result, path, kind="bf16", layout="half_split"):
    rows = result["rows"]
    if any("heads_per_thread" in row for row in rows):
        plot_sweep(result, path)
        return
    panels = {heads: lines_of(rows, heads, kind, layout) for heads in dict.fromkeys(row["heads"] for row in rows)}
    panels = {heads: lines for heads, lines in panels.items() if lines}
    if not panels:
        raise SystemExit(f"plot_gpu: no rows of {kind} {layout} with {MIN_TOKENS} tokens or more")
    figure, all_axes = make_panels(len(panels))
    colours = {}
    for axes, (heads, lines) in zip(all_axes[0], panels.items()):
        draw(axes, lines, heads, colours)
    all_axes[0][0].set_ylabel("TB/s, bytes read and written once")
    finish(figure, all_axes, result, path, f"Rotation of queries and keys, {kind}, {layout}")


def picture(text):
    """argparse type of an image file that Matplotlib writes without other programs."""
    if Path(text).suffix not in METADATA:
        raise argparse.ArgumentTypeError(f"expected a file name ending in {' or '.join(METADATA)}, got {text!r}")
    return Path(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--out", type=picture, help="a .png or .svg file")
    options = parser.parse_args()
    result, out = read_result(parser, options.result), options.out or options.result.with_suffix(".png")
    check_writable(parser, out)
    plot(result, out)


if __name__ == "__main__":
    main()
