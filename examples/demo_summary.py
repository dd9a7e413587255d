"""Summary of build/demo.json, which build/examples/demo writes: a table, a plot and the next commands to try.

python examples/demo_summary.py [build/demo.json]    writes build/demo.png
"""

import argparse
import json
import sys
from pathlib import Path

ROPEWALK, FLOAT32 = "#0b6e4f", "#c44900"
COLOURS = {"f32": ROPEWALK, "bf16": "#8fbfae"}
NEXT = """next commands to try:
  .venv/bin/python -m ropewalk inspect yarn:8,original_length=4096
  .venv/bin/python -m ropewalk compare linear:8 power:0.5 --plot build/compare.png
  make bench ARGS='--benchmark_filter=rotate/bf16/half_split/40x40'"""


def load(path):
    """{policy: {type: row}} in the order of the file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        policies = {}
        for row in rows:
            policies.setdefault(row["policy"], {})[row["type"]] = row
    except OSError as error:
        sys.exit(f"demo_summary: {path}: {error.strerror}; run build/examples/demo first")
    except (ValueError, TypeError, KeyError) as error:
        sys.exit(f"demo_summary: {path} is not a result of build/examples/demo: {error}")
    return policies


def print_table(policies):
    print(f"{'policy':16s}{'f32':>22s}{'bf16':>22s}{'angle error':>15s}{'float32 product':>17s}")
    for policy, rows in policies.items():
        times = (
            f"{row['milliseconds']:7.1f} ms, {100 * row['ratio_to_scale']:3.0f} %"
            for row in (rows["f32"], rows["bf16"])
        )
        errors = (rows["f32"]["angle_error"], rows["f32"]["float32_product_angle_error"])
        print(f"{policy:16s}", *(f"{time:>21s}" for time in times), *(f"{error:15.1e}" for error in errors))
    print("%: time of an in-place scale of the same memory, divided by the time of the rotation")


def plot(policies, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 9, "font.family": "DejaVu Sans"})
    figure, (errors, speeds) = pyplot.subplots(1, 2, figsize=(10, 3.6), dpi=120, sharey=True, layout="constrained")
    tokens = next(iter(policies.values()))["f32"]["tokens"]
    for y, rows in enumerate(policies.values()):
        row = rows["f32"]
        exact, product = row["angle_error"], row["float32_product_angle_error"]
        errors.plot([exact, product], [y, y], color="#dddddd", linewidth=2, zorder=1)
        for error, colour, label in ((exact, ROPEWALK, "ropewalk"), (product, FLOAT32, "float32 product")):
            errors.scatter([error], [y], color=colour, s=45, zorder=2, label=label if y == 0 else None)
        for shift, name, text in ((-0.2, "f32", "white"), (0.2, "bf16", "black")):
            row = rows[name]
            label = name if y == 0 else None
            speeds.barh(y + shift, 100 * row["ratio_to_scale"], 0.36, color=COLOURS[name], label=label)
            speeds.text(2, y + shift, f"{row['milliseconds']:.0f} ms", va="center", color=text, fontsize=8)
    errors.set_xscale("log")
    errors.set_yticks(range(len(policies)), list(policies))
    errors.invert_yaxis()
    errors.set_xlabel("largest error of cos and sin at the last position")
    speeds.set_xlabel("speed in percent of an in-place scale of the same memory")
    speeds.axvline(100, color="#888888", linewidth=0.8, linestyle=":")
    for axes in (errors, speeds):
        axes.grid(True, axis="x", color="#eeeeee")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    figure.suptitle(f"Llama-2-13B, {tokens} tokens, policies of the Giraffe paper", fontsize=10, x=0.01, ha="left")
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("build/demo.json"))
    results = parser.parse_args().results
    policies = load(results)
    print_table(policies)
    try:
        plot(policies, results.with_suffix(".png"))
        print(f"plot: {results.with_suffix('.png')}")
    except ImportError as error:
        print(f"no plot: {error}; install it with: .venv/bin/python -m pip install matplotlib")
    print(NEXT)


if __name__ == "__main__":
    main()
