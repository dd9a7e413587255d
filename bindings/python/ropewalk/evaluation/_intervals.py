"""Intervals and tests for the results of an evaluation, without SciPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ropewalk._ropewalk import Error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ropewalk.evaluation._results import Block, Cell

    Array = NDArray[np.float64]

Z = 1.959963984540054  # 0.975 quantile of the normal distribution
# Losses of neighbouring blocks of 256 tokens have a correlation of 0.35, and the standard error of their mean is 1.4
# times that of independent blocks (SmolLM2-135M, 11 texts of 2048 tokens of pydoc_data.topics).
BATCH = 4
FEWEST_BATCHES = 8
LEVEL = 0.05  # of all tests; the intervals have the level 1 - LEVEL


def wilson(successes: int, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927, without continuity correction)."""
    if not 0 <= successes <= samples or samples < 1:
        raise ValueError(f"successes must be in [0, samples] and samples positive, got {successes} of {samples}")
    share, spread = successes / samples, Z * Z / samples
    centre = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    low, high = (centre - half) / (1 + spread), (centre + half) / (1 + spread)
    # Both ends are exact where rounding would leave 1e-17.
    return 0.0 if successes == 0 else low, 1.0 if successes == samples else high


def mean_interval(values: Sequence[float], weights: Sequence[float] | None = None) -> tuple[float, float]:
    """Return the 95 % interval of the weighted mean of a series, by Student's t distribution.

    For the losses of blocks in their order, the weights are their numbers of tokens. Neighbouring blocks of a text are
    correlated, so the scatter is that of the means of up to BATCH neighbours. In a longer series it is that of the
    differences between consecutive means (von Neumann 1941): positions are not drawn at random, so a trend along the
    context is no scatter. One value has no scatter, so its interval is (-inf, inf).
    """
    x, w = checked(values, weights)
    count = -(-len(x) // min(BATCH, max(1, len(x) // FEWEST_BATCHES)))
    parts = [*zip(np.array_split(x, count), np.array_split(w, count))]
    means, sums = np.array([part @ shares / shares.sum() for part, shares in parts]), [s.sum() for _, s in parts]
    mean, error = mean_and_error(means, sums)
    if math.isinf(error):
        return -math.inf, math.inf
    degrees = count - 1
    if len(x) >= 2 * FEWEST_BATCHES and error > 0:
        # Of independent values, half of the mean squared difference estimates the same variance, less precisely.
        error *= math.sqrt(np.square(np.diff(means)).mean() / 2 / means.var(ddof=1))
        degrees = max(2 * degrees // 3, 1)
    half = t_quantile(degrees) * error
    return mean - half, mean + half


def checked(values: Sequence[float] | Array, weights: Sequence[float] | None) -> tuple[Array, Array]:
    x = np.asarray(values, dtype=np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 1 or x.shape != w.shape or len(x) == 0 or not (w > 0).all():
        raise ValueError(f"a mean needs values and as many positive weights, got {len(x)} and {len(w)}")
    return x, w


def mean_and_error(values: Sequence[float] | Array, weights: Sequence[float] | None = None) -> tuple[float, float]:
    """Return the weighted mean and its standard error, which is infinite for a single value."""
    x, w = checked(values, weights)
    mean = float(x @ w / w.sum())
    if len(x) == 1:
        return mean, math.inf
    scatter = float(np.square(w * (x - mean)).sum()) * len(x) / (len(x) - 1)
    return mean, math.sqrt(scatter) / float(w.sum())


def t_within(t: float, degrees: int) -> float:
    """Return the probability that Student's t is in [-t, t] (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    k = np.arange(2, degrees - 1, 2) + odd  # the factors (k - 1) / k of even and odd degrees
    terms = np.cumprod((k - 1) / k * cosine**2)
    total = sine * (1 + float(terms.sum()))
    if not odd:
        return total
    return 2 / math.pi * (angle + (total * cosine if degrees > 1 else 0.0))


def t_quantile(degrees: int) -> float:
    """Return the t with t_within(t, degrees) = 0.95."""
    low, high = 0.0, 13.0  # 12.7 with one degree of freedom, and less with more
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, degrees) < 1 - LEVEL else (low, middle)
    return low


def t_test(difference: float, error: float, degrees: int) -> float:
    """Return the two-sided p-value of a mean difference with a standard error."""
    if difference == 0 or math.isinf(error):
        return 1.0
    return 0.0 if error == 0 else max(0.0, 1 - t_within(abs(difference) / error, degrees))


def welch_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value that two means differ, with unequal variances (Welch 1947)."""
    (a, a_error), (b, b_error) = mean_and_error(first), mean_and_error(second)
    squares = a_error**2, b_error**2
    if math.isinf(sum(squares)) or sum(squares) == 0:
        return t_test(a - b, math.sqrt(sum(squares)), 1)
    scale = squares[0] ** 2 / (len(first) - 1) + squares[1] ** 2 / (len(second) - 1)
    return t_test(a - b, math.sqrt(sum(squares)), max(1, int(sum(squares) ** 2 / scale)))


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided exact p-value of wins against losses with equal chances. Ties are left out."""
    if wins < 0 or losses < 0:
        raise ValueError(f"wins and losses must not be negative, got {wins} and {losses}")
    count = wins + losses
    tail = sum(math.comb(count, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / (1 << count))


@dataclass(frozen=True)
class Comparison:
    """Paired comparison of two cells of one task and length."""

    difference: float  # first minus second: of the shares of correct answers, or of the mean losses in nats
    p: float  # two-sided p-value that the cells do not differ
    pairs: int


def compare(first: Cell, second: Cell) -> Comparison:
    """Compare two cells by their answers to the same rows, or by their losses of the same blocks.

    The test of answers is the exact sign test on the rows that one of the two answers correctly (McNemar). The test of
    blocks is the t-test on the differences of their losses, weighted by tokens. A sign test would compare medians: a
    policy with tiny gains in most blocks and a failure in the others would win. Blocks count as independent, because
    the text cancels in a difference: neighbours have a correlation of 0.06 (default and linear:2 on SmolLM2-135M).
    """
    if (first.task, first.length) != (second.task, second.length):
        places = " and ".join(f"{cell.task} at {cell.length}" for cell in (first, second))
        raise ValueError(f"only cells of one task and length can be compared, got {places}")
    if first.answers or second.answers:
        return compare_answers(first, second)
    return compare_blocks(first, second)


def compare_answers(first: Cell, second: Cell) -> Comparison:
    if [row.expected for row in first.answers] != [row.expected for row in second.answers]:
        raise different(first, second, "rows", len(first.answers), len(second.answers))
    pairs = [(a.correct, b.correct) for a, b in zip(first.answers, second.answers)]
    wins, losses = pairs.count((True, False)), pairs.count((False, True))
    return Comparison((wins - losses) / len(pairs), sign_test(wins, losses), len(pairs))


def compare_blocks(first: Cell, second: Cell) -> Comparison:
    ours, theirs = losses_by_place(first.blocks), losses_by_place(second.blocks)
    if ours.keys() != theirs.keys() or not ours:
        raise different(first, second, "blocks", len(ours), len(theirs))
    differences = [ours[place] - theirs[place] for place in ours]
    mean, error = mean_and_error(differences, [stop - start for _, start, stop in ours])
    return Comparison(mean, t_test(mean, error, len(differences) - 1), len(differences))


def losses_by_place(blocks: Sequence[Block]) -> dict[tuple[int, int, int], float]:
    return {(block.text, block.start, block.stop): block.loss for block in blocks}


def different(first: Cell, second: Cell, things: str, ours: int, theirs: int) -> Error:
    return Error(
        f"ropewalk: {first.policy} and {second.policy} have different {things} of {first.task} at {first.length} "
        f"tokens ({ours} and {theirs}); evaluate both with the same options"
    )
