"""Tables, plots and the generated part of docs/giraffe.md, from the recorded results."""

from __future__ import annotations

import json
import math
from pathlib import Path

from .experiment import wilson
from .verdicts import CONCLUSIONS, MARGIN, Figures, all_questions, disagreements, far_quarter, short, verdict

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "giraffe.md"
START, END = "<!-- generated: start -->", "<!-- generated: end -->"


def load(paths):
    """The results of several seeds, which must be of one model."""
    results = [json.loads(Path(path).read_text(encoding="utf-8")) for path in sorted(paths)]
    if not results:
        raise ValueError(f"no results giraffe_seed*.json in {RESULTS}; run make giraffe first")
    if any(result["settings"] != results[0]["settings"] for result in results):
        names = ", ".join(str(path) for path in paths)
        raise ValueError(f"the results have different settings: {names}; remove the outdated ones")
    return results


def table(heading, lines):
    rule = ["---"] * len(heading)
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in [heading, rule, *lines])


def cells(every, read):
    """One figure per seed."""
    return " / ".join(read(figures) for figures in every)


def accuracy_table(every, read=all_questions):
    multiples = every[0].multiples
    lines = []
    for name in every[0].methods:
        policy = every[0].row(name, multiples[0])["policy"]
        values = [cells(every, lambda f, n=name, m=m: short(read(f.row(n, m)))) for m in multiples]
        lines.append([name, f"`{escape(policy)}`", *values])
    return table(["method", "policy at evaluation", *(f"{m}x" for m in multiples)], lines)


def perplexity_table(every):
    multiples = every[0].multiples
    lines = [
        [name, *(cells(every, lambda f, n=name, m=m: f"{f.row(n, m)['perplexity']:.2f}") for m in multiples)]
        for name in every[0].methods
    ]
    return table(["method", *(f"{m}x" for m in multiples)], lines)


def scale_table(every):
    """Reach by ratio, and the accuracy that the shortest length keeps."""
    lines = []
    for name in every[0].methods:
        reaches = [cells(every, lambda f, n=name, r=r: f"{f.reach(n, r):.1f}") for r in every[0].ratios]
        kept = [cells(every, lambda f, n=name, r=r: short(f.accuracy(n, 1, r))) for r in every[0].ratios]
        lines.append([name, *reaches, *kept])
    ratios = every[0].ratios
    return table(["method", *(f"reach, {r}x" for r in ratios), *(f"at 1x, {r}x" for r in ratios)], lines)


def conclusions_table(every):
    lines = []
    for conclusion in CONCLUSIONS:
        outcome, texts = verdict(conclusion, every)
        ours = "; ".join(f"seed {f.result['context']['seed']}: {text}" for f, text in zip(every, texts))
        lines.append([conclusion.claim, conclusion.paper, ours, f"**{outcome}**"])
    return table(["conclusion", "the paper", "the lab", "verdict"], lines)


def rules():
    return "\n".join(f"{i}. {conclusion.rule}" for i, conclusion in enumerate(CONCLUSIONS, 1))


def agreement(every):
    """Sentences on the difference between the seeds."""
    if len(every) < 2:
        return "One seed is recorded, so the spread between seeds is unknown."
    count, found = disagreements(every)
    text = f"{count - len(found)} of the {count} cells of the first table agree within {MARGIN} between the seeds."
    if found:
        listed = ", ".join(f"{n} at {m}x ({' / '.join(map(short, values))})" for n, m, values in found)
        text += f" The others: {listed}."
    return text


def margin(every):
    """Sentences on the margin of the verdicts."""
    text = f"The margin {MARGIN} is fixed. Undecided means that the difference is within it."
    count, found = disagreements(every, beyond=2)
    if found:
        largest = max(max(values) - min(values) for _, _, values in found)
        text += (
            f" Beyond 2x, the seeds differ by more in {len(found)} of {count} cells of the first table, by up to "
            f"{short(largest)}. A verdict with a difference below {short(largest)} needs more seeds."
        )
    return text


def sampling(every):
    """Sentences on the error of a cell, and on the accuracy of guesses."""
    settings = every[0].result["settings"]
    queries, questions = every[0].row("none", 1)["queries"], settings["questions"]
    errors = []
    for count in (queries, queries // 4):
        low, high = wilson(count // 2, count)
        errors.append(short((high - low) / 2, 3))
    lines, chance = settings["lines"], 1 / settings["vocabulary"]["values"]
    return (
        f"Accuracy is over {queries} questions per cell, from {queries // questions} rows with {lines} lines and "
        f"{questions} questions at every length. Counted as independent, half of a Wilson interval at 95 % is at most "
        f"{errors[0]}. For the far quarter, about {queries // 4} questions, it is {errors[1]}. Questions of one row "
        f"depend on each other, so the error is larger. A guess among all values is right with probability "
        f"{short(chance)}, a guess among the values of the row with {short((1 + (lines - 1) * chance) / lines)}."
    )


def near_and_far(every):
    """Sentences on methods that fail far away only, and near only."""
    last = every[0].multiples[-1]
    near, far = (
        [cells(every, lambda f, n=name, r=read: short(r(f.row(n, last)))) for read in (all_questions, far_quarter)]
        for name in ("randomized", "truncated")
    )
    return (
        f"Accuracy over all questions can hide a failure here: at {last}x randomized has {near[0]} over all questions "
        f"and {near[1]} in the far quarter. The opposite occurs too: truncated has {far[0]} and {far[1]}."
    )


def runs(every):
    lines = []
    for figures in every:
        context, pretraining = figures.result["context"], figures.result["pretraining"]
        emerged = pretraining["emerged_after_tokens"] or math.nan
        lines.append(
            [
                context["seed"],
                f"{context['seconds']:.0f} s",
                f"{context['threads']} threads, {context['machine']}, PyTorch {context['versions']['torch']}",
                f"{emerged / 1e6:.1f}M of {pretraining['tokens'] / 1e6:.1f}M tokens",
                short(pretraining["accuracy"]),
            ]
        )
    return table(["seed", "time", "machine", "retrieval emerged after", "accuracy at 1x after pretraining"], lines)


def generated(every):
    """The generated part of the page."""
    settings = every[0].result["settings"]
    length = settings["length"]
    last = every[0].multiples[-1]
    seeds = " / ".join(str(figures.result["context"]["seed"]) for figures in every)
    floors = cells(every, lambda figures: f"{figures.result['perplexity_floor']:.2f}")
    parts = [
        f"Cells have one figure per seed ({seeds}). 1x is the pretrained length, {length} tokens; fine-tuning has "
        f"{2 * length}.",
        sampling(every),
        "## Conclusions",
        "FFQA and AltQA are the paper's FreeFormQA and AlteredNumericQA, questions on documents made from Wikipedia.",
        conclusions_table(every),
        margin(every),
        "The program computes the verdicts by these rules, in the order of the table:",
        rules(),
        f"![Accuracy by length, and accuracy by perplexity at {last}x](../benchmarks/results/giraffe.png)",
        "Lines: mean of the seeds. Bands: lowest to highest seed. Fourth panel: one point per seed, triangles for "
        f"methods for comparison; dashed: the floor of seed {every[0].result['context']['seed']}.",
        "## Accuracy by length",
        accuracy_table(every),
        agreement(every),
        "## Accuracy in the far quarter of the context",
        "Only questions for lines in the quarter that is farthest from the questions.",
        accuracy_table(every, far_quarter),
        near_and_far(every),
        "## Perplexity",
        f"The text has a known entropy: no model has a lower perplexity than {floors} in the long run. "
        "Randomized is evaluated at scale 4, but fine-tuned at scale 1.",
        perplexity_table(every),
        "## Scale at evaluation",
        "The columns are scales at evaluation as multiples of the fine-tuned one. Reach is the longest multiple of the "
        "pretrained length at which accuracy is at least .5, interpolated over the logarithm of the length. A reach of "
        f"{last} means {last} or more. For most methods, a larger scale costs accuracy at 1x. "
        "Policies without a factor are combined with `linear`, applied first.",
        scale_table(every),
        "## Recorded runs",
        runs(every),
    ]
    return "\n\n".join(parts)


def write_page(every, page=PAGE):
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{page} lacks the lines {START} and {END}")
    page.write_text(f"{before}{START}\n\n{generated(every)}\n\n{END}{after}", encoding="utf-8")


def escape(policy):
    """A bar ends a cell of a table even in code."""
    return policy.replace("|", "\\|")


def plot(every, path):
    """Accuracy by length of the methods, of linear 4 by scale, and accuracy by perplexity at the longest length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image  # a requirement of matplotlib

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7.6), layout="constrained")
    multiples = every[0].multiples
    colours = dict(zip(every[0].methods, (*pyplot.get_cmap("tab20").colors[::2], "navy", "gold", "black")))

    def curve(axis, name, ratio, label, colour):
        by_seed = [[f.accuracy(name, m, ratio) for m in multiples] for f in every]
        mean = [sum(values) / len(values) for values in zip(*by_seed)]
        axis.plot(multiples, mean, color=colour, label=label, marker="o", markersize=3)
        axis.fill_between(multiples, *([f(v) for v in zip(*by_seed)] for f in (min, max)), color=colour, alpha=0.15)

    paper = every[0].of_paper()
    groups = (["none", "plain", *paper], [name for name in every[0].methods if name not in paper])
    # Legends have places that no curve of the recorded results crosses.
    titles, legends = ("The paper's methods", "Methods for comparison"), ((0, 0), (0, 0.16))
    for axis, names, title, legend in zip(axes[0], groups, titles, legends):
        for name in names:
            curve(axis, name, None, name, colours[name])
        axis.set_title(title)
        axis.legend(fontsize=7, loc="lower left", bbox_to_anchor=legend)
    shades = pyplot.get_cmap("viridis")
    for i, ratio in enumerate(every[0].ratios):
        policy = every[0].row("linear 4", 1, ratio)["policy"]
        curve(axes[1, 0], "linear 4", ratio, f"evaluated with {policy}", shades(i / len(every[0].ratios)))
    axes[1, 0].set_title("Fine-tuned with linear:4")
    axes[1, 0].legend(fontsize=7, loc="lower left")
    for axis in (*axes[0], axes[1, 0]):
        axis.set_xscale("log", base=2)
        axis.set_xticks(multiples, [f"{m}x" for m in multiples])
        axis.set_xlabel("length, multiple of the pretrained one")
        axis.set_ylabel("accuracy")
        axis.set_ylim(-0.03, 1.05)
        axis.grid(alpha=0.3)
    axis, last = axes[1, 1], multiples[-1]
    for name in every[0].methods:
        rows = [f.row(name, last) for f in every]
        points = [[row[key] for row in rows] for key in ("perplexity", "accuracy")]
        axis.scatter(*points, color=colours[name], label=name, s=22, marker="o" if name in paper else "^")
    axis.axvline(every[0].result["perplexity_floor"], color="grey", linewidth=0.8, linestyle="--")
    axis.set_xscale("log")
    axis.set_title(f"Accuracy by perplexity at {last}x")
    axis.set_xlabel(f"perplexity of text (dashed: the floor of seed {every[0].result['context']['seed']})")
    axis.set_xticks([3, 5, 10, 20, 50, 100], [3, 5, 10, 20, 50, 100], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_ylabel("accuracy")
    axis.set_ylim(-0.03, 1.05)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="upper right", ncols=2)
    figure.supxlabel(
        "Lines: mean of the seeds. Bands: lowest to highest seed. Fourth panel: one point per seed.", fontsize=8
    )
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    with Image.open(path) as image:
        reduced = image.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
    reduced.save(path, optimize=True)


def summary(every):
    """Tables for the terminal."""
    lines = [accuracy_table(every), ""]
    for conclusion in CONCLUSIONS:
        outcome, texts = verdict(conclusion, every)
        lines.append(f"{conclusion.claim} {outcome.upper()}: {'; '.join(texts)}")
    return "\n".join(lines)


def report(paths, page=PAGE, picture=RESULTS / "giraffe.png"):
    """Write the plot and the generated part of the page."""
    every = [Figures(result) for result in load(paths)]
    plot(every, picture)
    write_page(every, page)
    return every
