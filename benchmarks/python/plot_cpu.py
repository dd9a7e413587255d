"""Plots of rotations on a CPU, compared with the loops of engines: the ratio to the in-place scale over the tokens.

python benchmarks/python/plot_cpu.py benchmarks/results/<machine>_loops_<set>.json …    writes a .png with the same name

There is one panel per element type and layout, for one thread. The dashed line is a scale that also converts 16-bit
elements. The inputs are recorded results of bench_peers.
"""

import argparse
from pathlib import Path

import matplotlib
from bench_common import check_writable
from results_page import CANDIDATES, LENGTHS, OURS, SETS, machine_of, ratio_of, read_result, row_of, table_rows

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TYPES, LAYOUTS = ("f32", "f16", "bf16"), ("half_split", "interleaved")
STYLES = {
    OURS: ("#0b6e4f", 2.4),
    "hand": ("#5b6c9d", 1.5),
    "ggml": ("#c44900", 1.5),
    "libm": ("#d98e04", 1.5),
}
THREADS = 1
CONVERT = "scale that converts"


def draw(axes, rows, kind, layout):
    axes.set_axisbelow(True)
    axes.grid(True, axis="y", color="#eeeeee")
    axes.axhline(1, color="#bbbbbb", linewidth=2.5, zorder=1)
    found = [row_of(rows, kind, layout, tokens, THREADS) for tokens in LENGTHS]
    bounds = [(i, r["ratio_to_scale"] / r["ratio_to_convert"]) for i, r in enumerate(found) if "ratio_to_convert" in r]
    if bounds:
        axes.plot(*zip(*bounds), color="#999999", linewidth=1.2, linestyle="--", label=CONVERT)
    for candidate, (colour, width) in STYLES.items():
        ratios = [ratio_of(rows, kind, layout, tokens, THREADS, candidate) for tokens in LENGTHS]
        points = [(i, ratio) for i, ratio in enumerate(ratios) if ratio is not None]
        if points:
            axes.plot(
                *zip(*points),
                color=colour,
                linewidth=width,
                marker="o",
                markersize=3,
                label=CANDIDATES[candidate],
                zorder=3 if candidate == OURS else 2,
            )
    axes.set_xticks(range(len(LENGTHS)), [f"{n // 1024}k" if n >= 1024 else str(n) for n in LENGTHS])
    axes.set_ylim(0, 1.5)
    axes.set_title(f"{kind}, {layout}", fontsize=9, color="#555555", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def plot(path):
    result = read_result(path)
    rows = table_rows(result)
    plt.rcParams.update({"font.size": 9, "font.family": "DejaVu Sans"})
    figure, all_axes = plt.subplots(
        len(LAYOUTS), len(TYPES), figsize=(8.4, 5.2), dpi=120, sharex=True, sharey=True, layout="constrained"
    )
    for axes_of_layout, layout in zip(all_axes, LAYOUTS):
        for axes, kind in zip(axes_of_layout, TYPES):
            draw(axes, rows, kind, layout)
    for axes in all_axes[-1]:
        axes.set_xlabel("tokens; up to 128 in cache")
    for axes in all_axes[:, 0]:
        axes.set_ylabel("ratio to the in-place scale")
    named = {label: line for axes in all_axes.flat for line, label in zip(*axes.get_legend_handles_labels())}
    shown = [label for label in (*CANDIDATES.values(), CONVERT) if label in named]
    figure.legend(
        [named[label] for label in shown],
        shown,
        frameon=False,
        fontsize=8,
        ncols=len(shown),
        loc="outside lower center",
    )
    instruction_set = SETS[result["context"]["instruction_set"]]
    title = f"Rotation of 40 + 40 heads of 128 in place, one thread: {machine_of(path)}, {instruction_set}"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    out = path.with_suffix(".png")
    figure.savefig(out, metadata={"Software": None})
    print(f"written to {out}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    options = parser.parse_args()
    for path in options.results:
        check_writable(parser, path.with_suffix(".png"))
        plot(path)


if __name__ == "__main__":
    main()
