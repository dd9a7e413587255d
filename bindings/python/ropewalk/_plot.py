"""Plots of encodings: wavelengths of the pairs and scores by distance. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ropewalk import _inspect
from ropewalk._card import number, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from ropewalk import Encoding
    from ropewalk._target import Target

# Okabe and Ito's colours for colour-blind readers, without yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", ":", "-.")
GREY = "#555555"
LINE = "#aaaaaa"
WIDTH = 10  # inches
NAME_WIDTH = 40  # characters
POINTS = 240
WINDOW = 1.08  # distances are averaged over this factor in both directions
SATURATED = 0.75  # score at the end of the colour scale, so that small scores at long distances stay visible
COMPANIONS = ("linear:{factor:g}", "ntk:{factor:g}", "yarn:{factor:g},original_length={length}")
LOOK: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "ropewalk",  # reproducible files
}


def plot_one(target: Target, file: Path | BinaryIO, kind: str) -> None:
    """Plot an encoding and plain RoPE, with other policies of the same factor in the heat map: a "png" or "svg"."""
    plain = _inspect.default_like(target.encoding)
    shown = [target.encoding] if target.encoding.expression == "default" else [plain, target.encoding]
    draw(shown, [*shown, *companions(target)], target, file, kind)


def plot_comparison(targets: Sequence[Target], file: Path | BinaryIO, kind: str) -> None:
    """Plot all targets, with plain RoPE first."""
    encodings = [target.encoding for target in targets]
    plain = _inspect.default_like(encodings[0])
    shown = encodings if any(e.expression == "default" for e in encodings) else [plain, *encodings]
    draw(shown, shown, targets[0], file, kind)


def companions(target: Target) -> list[Encoding]:
    factor = _inspect.factor_of(target.encoding)
    factor = factor if factor > 1 else max(2.0, target.length / target.original_length)
    texts = [text.format(factor=factor, length=target.original_length) for text in COMPANIONS]
    encodings = [_inspect.like(target.encoding, text) for text in texts]
    return [e for e in encodings if e.expression != target.encoding.expression]


def draw(shown: Sequence[Encoding], rows: Sequence[Encoding], target: Target, file: Path | BinaryIO, kind: str) -> None:
    """Draw lines for `shown`, and one row of the heat map for each of `rows`, which begin with `shown`."""
    distances = _inspect.sampled_distances(1, target.length)
    points = np.unique(np.searchsorted(distances, np.geomspace(1, distances[-1], POINTS).round()))
    scores = np.array([smooth_scores(_inspect.without_draws(e), distances)[points] for e in rows])
    looks = list(looks_of(e.expression for e in shown))
    names = [short(e.expression, NAME_WIDTH) for e in rows]
    columns = min(len(shown), int(WIDTH / (0.6 + 0.08 * max(map(len, names[: len(shown)])))))
    legend, heat = 0.2 * -(-len(shown) // columns), 0.9 + 0.27 * len(rows)
    engine = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 4.4 + legend + heat), dpi=100, layout=engine)
        panels = figure.subplot_mosaic([["spectrum", "scores"], ["heat", "heat"]], height_ratios=[3.6, heat])
        draw_spectrum(panels["spectrum"], shown, looks, target)
        draw_scores(panels["scores"], distances[points], scores[: len(shown)], looks, target)
        draw_heat(panels["heat"], distances[points], scores, names, target)
        handles = panels["spectrum"].get_lines()[: len(shown)]
        figure.legend(handles, names[: len(shown)], loc="outside upper center", ncols=columns, frameon=False)
        save(figure, file, kind)


def save(figure: Figure, file: Path | BinaryIO, kind: str) -> None:
    """Write a "png" or "svg" without its date and the version of matplotlib, so that equal plots are equal files."""
    figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})


def looks_of(expressions: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield one line style per policy: a thin grey line on top for plain RoPE, a colour for each other one."""
    count = 0
    for expression in expressions:
        if expression == "default":
            yield {"color": GREY, "linewidth": 1.1, "zorder": 3}
            continue
        style = STYLES[count // len(COLOURS) % len(STYLES)]
        yield {"color": COLOURS[count % len(COLOURS)], "linestyle": style, "linewidth": 2.2}
        count += 1


def smooth_scores(encoding: Encoding, distances: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean scores averaged over neighbouring distances, without the oscillation of the fastest pairs."""
    scores = _inspect.mean_scores(encoding, distances)
    first = np.searchsorted(distances, (distances / WINDOW).round())
    end = np.searchsorted(distances, (distances * WINDOW).round(), side="right")
    for _ in range(2):  # a second pass makes the weights of the window triangular
        sums = np.append(0, np.cumsum(scores))
        scores = (sums[end] - sums[first]) / (end - first)
    return scores


def length_marks(target: Target) -> dict[str, int]:
    marks = {"original": target.original_length}
    if target.length != target.original_length:
        marks["extended"] = target.length
    return marks


def draw_spectrum(axes: Axes, shown: Sequence[Encoding], looks: Sequence[dict[str, Any]], target: Target) -> None:
    waves = [_inspect.wavelengths(e) for e in shown]
    for wave, look in zip(waves, looks):
        axes.semilogy(np.where(np.isfinite(wave), wave, np.nan), **look)
    height = 6 * max(target.length, *(wave[np.isfinite(wave)].max(initial=1) for wave in waves))
    for wave, look in zip(waves, looks):
        still = np.flatnonzero(np.isinf(wave))
        if len(still) == 0:
            continue
        axes.plot(still, np.full(len(still), height), "^", color=look["color"], markersize=4)
        axes.text(still[0] - 1, height, "never rotate", ha="right", va="center", color=look["color"], fontsize=8)
        height *= 4
    for name, length in length_marks(target).items():
        axes.axhline(length, color=LINE, linewidth=0.8, linestyle="--", zorder=0)
        axes.text(
            0.02,
            length * 1.15,
            f"{length:,} tokens, {name}",
            color=GREY,
            fontsize=8,
            transform=axes.get_yaxis_transform(),
        )
    shapes = {f" (of {e.rotary_dim} elements, base {number(e.base)})" for e in shown}
    axes.set(xlabel="pair" + (shapes.pop() if len(shapes) == 1 else ""), ylabel="wavelength, tokens")
    axes.set(xlim=(-0.5, max(map(len, waves)) + 0.5), title="Tokens per full turn of each pair")


def draw_scores(
    axes: Axes,
    distances: NDArray[np.int64],
    scores: NDArray[np.float64],
    looks: Sequence[dict[str, Any]],
    target: Target,
) -> None:
    axes.axhline(0, color=LINE, linewidth=0.8, zorder=0)
    for row, look in zip(scores, looks):
        axes.plot(distances, row, **look)
    distance_axis(axes, target)
    axes.set(ylabel="mean score", title="Score by distance")
    if target.length != target.original_length:
        axes.text(
            target.original_length * 0.93,
            0.99,
            f"{target.original_length:,} tokens, original",
            color=GREY,
            fontsize=8,
            ha="right",
            va="top",
            transform=axes.get_xaxis_transform(),
        )


def draw_heat(
    axes: Axes, distances: NDArray[np.int64], scores: NDArray[np.float64], names: Sequence[str], target: Target
) -> None:
    edges = np.sqrt(distances[:-1] * distances[1:].astype(float))
    edges = np.concatenate(([1], edges, [target.length]))
    mesh = axes.pcolormesh(edges, np.arange(len(names) + 1), scores, cmap="RdBu_r", vmin=-SATURATED, vmax=SATURATED)
    mesh.set_rasterized(True)
    axes.invert_yaxis()
    axes.set_yticks(np.arange(len(names)) + 0.5, names)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    axes.hlines(range(1, len(names)), 1, target.length, color="white", linewidth=2)
    distance_axis(axes, target)
    axes.set_title("Mean score by distance for each policy")
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.01, aspect=10, extend="both", ticks=(-SATURATED, 0, SATURATED))
    bar.outline.set_visible(False)


def distance_axis(axes: Axes, target: Target) -> None:
    axes.set_xscale("log")
    axes.set(xlim=(1, max(2, target.length)), xlabel="distance between query and key, tokens")
    axes.xaxis.set_major_formatter(lambda value, _: counted(value))
    if target.length != target.original_length:
        axes.axvline(target.original_length, color=LINE, linewidth=0.8, linestyle="--", zorder=2)


def counted(tokens: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:g}{letter}"
    return f"{tokens:g}"
