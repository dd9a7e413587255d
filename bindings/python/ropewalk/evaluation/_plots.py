"""Plots of an evaluation: values by length, accuracy by depth and losses by position. Needs matplotlib."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ropewalk._plot import GREY, LINE, LOOK, WIDTH, looks_of, save
from ropewalk.evaluation._report import ACCURACIES, TITLES, distinct, labels, longest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase
    from numpy.typing import NDArray

    from ropewalk.evaluation._results import Bucket, Cell

    Looks = dict[str, dict[str, Any]]
    Panel = tuple[Callable[[Axes, Sequence[Cell], Looks], None], list[Cell]]

NAME_WIDTH = 40  # characters of a policy in the legend
MARKERS = "osD^vP*X"
DODGE = 0.05  # of a doubling of the length at most, between the intervals of two policies
SPREAD = 0.6  # of the distance of two lengths at most, for the intervals of all policies
LOGARITHMIC = 4  # ratio of perplexities that needs a logarithmic axis
CUT = 3  # intervals end at this factor from the extreme perplexities
DIFFERENCES = (0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)  # ticks in nats; the axis is linear up to the third
LENGTH_LABELS = 6.5  # of an axis at most
MAPS = 4  # heat maps in a row
TITLE_WIDTH = 30  # characters of a policy above a heat map
COLOURS = "viridis"
EMPTY = "#dddddd"  # of bins without samples
FEW = 60  # answers of a length: with fewer, depths have 5 bins instead of 10


def plot(cells: Sequence[Cell], path: str | Path, trained_length: int | None = None) -> None:
    """Write one figure with a panel per task, heat maps of lines and the losses by position.

    Args:
        cells: The results. Policies keep their order.
        path: A file that ends in .png or .svg.
        trained_length: The length that the model was trained with, marked by a vertical line.
    """
    path = Path(path)
    kind = path.suffix[1:]
    if kind not in ("png", "svg"):
        raise ValueError(f"plots are .png or .svg files, got {str(path)!r}")
    if not cells:
        raise ValueError("a plot needs at least one cell, got none")
    policies = distinct([cell.policy for cell in cells])
    looks = looks_by_policy(policies)
    panels = panels_of(cells)
    maps = [cell for cell in cells if cell.task == "lines" and any(row.depth is not None for row in cell.answers)]
    mapped = distinct([cell.policy for cell in maps])
    names = labels(policies, NAME_WIDTH)
    columns = max(1, min(len(policies), int(WIDTH / (0.6 + 0.08 * max(map(len, names.values()))))))
    heights = [0.35 + 0.2 * -(-len(policies) // columns) + 3.2 * -(-len(panels) // 2)]
    if maps:
        heights.append(0.5 + 1.9 * -(-len(mapped) // MAPS))
    with matplotlib.rc_context(LOOK):
        engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
        figure = Figure(figsize=(WIDTH, sum(heights)), dpi=100, layout=engine)
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        draw_panels(parts[0], panels, looks, trained_length)
        handles = [Line2D([], [], label=names[policy], **looks[policy]) for policy in policies]
        parts[0].legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, handlelength=3)
        if maps:
            draw_maps(parts[1], maps, mapped)
        save(figure, path, kind)


def looks_by_policy(policies: Sequence[str]) -> Looks:
    """Return one line style per policy. Markers differ as well, for policies that share a colour."""
    return {
        policy: {**look, "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
        for i, (policy, look) in enumerate(zip(policies, looks_of(policies)))
    }


def panels_of(cells: Sequence[Cell]) -> list[Panel]:
    """Return the panels with lines: a function that draws one, and its cells."""
    panels: list[Panel] = []
    for task in distinct([cell.task for cell in cells]):
        chosen = [cell for cell in cells if cell.task == task]
        if any(cell.buckets for cell in chosen):
            places = [*longest(chosen)[1].values()]
            panels.append((draw_positions, places))
            if len(places) > 1:
                panels.append((draw_differences, places))
        panels.append((draw_lengths, chosen))
    return panels


def draw_panels(
    part: FigureBase,
    panels: Sequence[Panel],
    looks: Looks,
    trained_length: int | None,
) -> None:
    rows = -(-len(panels) // 2)
    columns = min(2, len(panels))
    grid = part.add_gridspec(rows, columns)
    for i, (draw, cells) in enumerate(panels):
        alone = i % 2 == 0 and i == len(panels) - 1
        axes = part.add_subplot(grid[i // 2, :] if alone else grid[i // 2, i % 2])
        draw(axes, cells, looks)
        low, high = axes.get_xlim()
        if trained_length is not None and low <= trained_length <= high:
            axes.axvline(trained_length, color=LINE, linewidth=0.8, linestyle="--", zorder=0)
            axes.text(
                trained_length,
                1.0,
                "trained ",
                color=GREY,
                fontsize=8,
                ha="right",
                va="top",
                transform=axes.get_xaxis_transform(),
            )


def draw_lengths(axes: Axes, cells: Sequence[Cell], looks: Looks) -> None:
    """Draw the values of one task by length, with their intervals."""
    task = cells[0].task
    lengths = sorted({cell.length for cell in cells})
    policies = distinct([cell.policy for cell in cells])
    nearest = min((math.log2(b / a) for a, b in zip(lengths, lengths[1:])), default=1.0)
    step = min(DODGE, SPREAD * nearest / len(policies))
    for i, policy in enumerate(policies):
        chosen = sorted((cell for cell in cells if cell.policy == policy), key=lambda cell: cell.length)
        values = np.array([cell.value for cell in chosen])
        ends = np.array([[cell.low, cell.high] for cell in chosen])
        ends = np.where(np.isfinite(ends).all(axis=1, keepdims=True), ends, values[:, None])  # of a single block
        shift = 2 ** (step * (i - (len(policies) - 1) / 2))
        axes.errorbar(
            [cell.length * shift for cell in chosen],
            values,
            yerr=np.abs(ends - values[:, None]).T,
            elinewidth=0.9,
            **looks[policy],
        )
    length_axis(axes, lengths)
    axes.set_xlim(lengths[0] / 1.3, lengths[-1] * 1.3)
    axes.set(xlabel="length, tokens", title=f"{TITLES.get(task, task).capitalize()} by length")
    if task in ACCURACIES:
        axes.set(ylim=(-0.03, 1.03), ylabel="share of correct answers")
    else:
        axes.set_ylabel("perplexity")
        perplexity_axis(axes, cells)


def perplexity_axis(axes: Axes, cells: Sequence[Cell]) -> None:
    """Set a range that shows all values, and cuts intervals of very few blocks."""
    values = [cell.value for cell in cells]
    if max(values) > LOGARITHMIC * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, min(values) / CUT), min(high, max(values) * CUT))


def draw_positions(axes: Axes, cells: Sequence[Cell], looks: Looks) -> None:
    """Draw the losses of one length by position, as steps."""
    draw_steps(axes, cells, looks, {})
    axes.set(ylabel="loss, nats per token", title=f"Loss by position, in {cells[0].length:,} tokens")


def draw_differences(axes: Axes, cells: Sequence[Cell], looks: Looks) -> None:
    """Draw the losses above the lowest of all policies, linear at first so that small differences are visible."""
    lowest: dict[tuple[int, int], float] = {}
    for bucket in buckets_of(cells):
        place = bucket.start, bucket.stop
        lowest[place] = min(bucket.loss, lowest.get(place, math.inf))
    draw_steps(axes, cells, looks, lowest)
    highest = max(bucket.loss - lowest[bucket.start, bucket.stop] for bucket in buckets_of(cells))
    axes.set_yscale("symlog", linthresh=DIFFERENCES[2], linscale=1.2)
    axes.set_yticks(DIFFERENCES, [f"{tick:g}" for tick in DIFFERENCES])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.004, max(1.2 * highest, DIFFERENCES[2]))
    axes.set(ylabel="difference, nats per token", title="Loss above the lowest of all policies")


def draw_steps(axes: Axes, cells: Sequence[Cell], looks: Looks, less: Mapping[tuple[int, int], float]) -> None:
    for cell in cells:
        buckets = sorted(cell.buckets, key=lambda bucket: bucket.start)
        places = [(bucket.start or bucket.stop / 2, bucket.stop) for bucket in buckets]
        losses = [bucket.loss - less.get((bucket.start, bucket.stop), 0) for bucket in buckets]
        look = {**looks[cell.policy], "marker": ""}
        axes.plot(np.ravel(places), np.repeat(losses, 2), **look, solid_joinstyle="miter")
    stops = sorted({bucket.stop for bucket in buckets_of(cells)})
    length_axis(axes, stops)
    axes.set(xlim=(stops[0] / 2, stops[-1]), xlabel="position, tokens")


def buckets_of(cells: Sequence[Cell]) -> list[Bucket]:
    return [bucket for cell in cells for bucket in cell.buckets]


def length_axis(axes: Axes, lengths: Sequence[int]) -> None:
    """Set a logarithmic axis with the lengths as ticks."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, spaced_labels(lengths, [math.log(length) for length in lengths], LENGTH_LABELS))
    axes.xaxis.set_minor_locator(NullLocator())


def spaced_labels(lengths: Sequence[int], places: Sequence[float], most: float) -> list[str]:
    """Return one label per length, empty where the places are too near for so many labels on the whole axis."""
    apart = (places[-1] - places[0]) / most
    texts: list[str] = []
    last = math.inf
    for length, place in zip(reversed(lengths), reversed(places)):
        fits = last - place >= apart
        texts.insert(0, f"{length:,}" if fits else "")
        last = place if fits else last
    return texts


def draw_maps(part: FigureBase, cells: Sequence[Cell], policies: Sequence[str]) -> None:
    """Draw the accuracy by length and depth, one small map per policy."""
    lengths = sorted({cell.length for cell in cells})
    bins = 5 if max(len(cell.answers) for cell in cells) < FEW else 10
    columns = min(MAPS, max(2, len(policies)))
    rows = -(-len(policies) // columns)
    panels = part.subplots(rows, columns, sharey=True, squeeze=False)
    names = labels(policies, TITLE_WIDTH)
    colours = matplotlib.colormaps[COLOURS].with_extremes(bad=EMPTY)
    centres = [i + 0.5 for i in range(len(lengths))]
    texts = spaced_labels(lengths, centres, 1.25 * LENGTH_LABELS * 2 / columns)
    for i, (axes, policy) in enumerate(zip(panels.flat, policies)):
        found = {cell.length: cell for cell in cells if cell.policy == policy}
        shares = np.array([by_depth(found.get(length), bins) for length in lengths]).T
        mesh = axes.pcolormesh(np.arange(len(lengths) + 1), np.linspace(0, 1, bins + 1), shares, cmap=colours)
        mesh.set(clim=(0, 1), edgecolor="white", linewidth=1)
        axes.set_title(names[policy], fontsize=9)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks(centres, texts if i + columns >= len(policies) else [""] * len(lengths))
        axes.set_yticks([0, 0.5, 1], ["start", "middle", "end"])
    panels[0, 0].invert_yaxis()
    for axes in panels.flat[len(policies) :]:
        axes.set_visible(False)
    part.suptitle("Accuracy on lines by length and depth of the asked line", fontsize=LOOK["font.size"] * 1.2)
    bar = part.colorbar(mesh, ax=panels, pad=0.01, aspect=18, shrink=1 / rows, anchor=(0, 1), ticks=(0, 0.5, 1))
    bar.outline.set_visible(False)


def by_depth(cell: Cell | None, bins: int) -> NDArray[np.float64]:
    """Return the share of correct answers per bin of depths, NaN without samples."""
    rows = [] if cell is None else [(row.depth, row.correct) for row in cell.answers if row.depth is not None]
    depths = np.array([min(int(depth * bins), bins - 1) for depth, _ in rows], dtype=np.int64)
    counts = np.bincount(depths, minlength=bins)
    correct = np.bincount(depths, weights=[correct for _, correct in rows], minlength=bins)
    return np.where(counts > 0, correct / np.maximum(counts, 1), math.nan)
