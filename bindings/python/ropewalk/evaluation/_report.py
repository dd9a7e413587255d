"""Tables and sentences of an evaluation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ropewalk._card import Table, brief
from ropewalk.evaluation._intervals import LEVEL, compare, losses_by_place, welch_test

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from ropewalk.evaluation._results import Cell

    T = TypeVar("T")

WIDTH = 100  # characters
LABEL_WIDTHS = (26, 20, 16)
# Tasks whose value is a perplexity, and those whose value is a share of correct answers, with their titles.
PERPLEXITIES = {"perplexity": "perplexity", "sliding": "sliding-window perplexity"}
ACCURACIES = {"lines": "accuracy on lines", "qa": "accuracy on qa"}
TITLES = {**PERPLEXITIES, **ACCURACIES}
SAMPLES = {"perplexity": "texts", "sliding": "windows"}
SMALLEST = 0.001  # nats: smaller differences are not called a win, however significant
RISE = 0.1  # nats: smaller rises of the loss are not reported
MANY = 4  # policies that a sentence names


def distinct(values: Sequence[T]) -> list[T]:
    """Return the values without repetitions, in their order."""
    return list(dict.fromkeys(values))


def labels(policies: Sequence[str], width: int) -> dict[str, str]:
    """Return one name of at most `width` characters per policy. Shortened names that coincide get numbers."""
    names: dict[str, str] = {}
    for policy in distinct(policies):
        name = whole = brief(policy)
        number = 1
        while len(name) > width or name in names.values():
            ending = "..." if number == 1 else f"...#{number}"
            name = whole[: width - len(ending)] + ending
            number += 1
        names[policy] = name
    return names


def table(cells: Sequence[Cell], width: int = WIDTH) -> str:
    """Return the values of all cells as text, with one block per task and the losses by position.

    Policies, in the order of the cells, are rows and lengths are columns. Columns beyond `width` continue below. Long
    expressions are shortened as far as that saves lines.
    """
    policies = [cell.policy for cell in cells]
    texts = [table_with(cells, labels(policies, size), width) for size in LABEL_WIDTHS]
    return min(texts, key=lambda text: text.count("\n"))


def table_with(cells: Sequence[Cell], names: dict[str, str], width: int) -> str:
    parts = []
    for task in distinct([cell.task for cell in cells]):
        chosen = [cell for cell in cells if cell.task == task]
        title = f"{TITLES.get(task, task)} by length in tokens, {samples_of(chosen)} each"
        parts.append(block(title, values_table(chosen, names), width))
        if any(cell.buckets for cell in chosen):
            parts.append(block(*losses_table(chosen, names), width))
    best = "* best of the column; " if any("*" in part for part in parts) else ""
    notes = [f"{best}in brackets: 95 % interval"] if parts else []
    notes += [f"{name} = {policy}" for policy, name in names.items() if "..." in name and name != policy]
    return "\n\n".join([*parts, "\n".join(notes)])


def samples_of(cells: Sequence[Cell]) -> str:
    """Return the number of samples: "20 samples", "2 to 4 texts"."""
    counts = {cell.samples for cell in cells}
    things = SAMPLES.get(cells[0].task, "samples")
    return f"{span(min(counts), max(counts))} {things[:-1] if counts == {1} else things}"


def span(first: object, last: object) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def values_table(cells: Sequence[Cell], names: dict[str, str]) -> Table:
    lengths = sorted({cell.length for cell in cells})
    found = {(cell.policy, cell.length): cell for cell in cells}
    choose = max if cells[0].task in ACCURACIES else min
    result = Table(["", *(f"{length:,} " for length in lengths)])
    best = {length: best_of_several([one.value for one in cells if one.length == length], choose) for length in lengths}
    for policy in distinct([cell.policy for cell in cells]):
        row = [found.get((policy, length)) for length in lengths]
        texts = ["- " if cell is None else with_interval(cell) + star(cell.value, best[cell.length]) for cell in row]
        result.rows.append((names[policy], *texts))
    return result


def best_of_several(values: Sequence[float], choose: Callable[[Sequence[float]], float]) -> float | None:
    return choose(values) if len(values) > 1 else None


def star(value: float, best: float | None) -> str:
    return "*" if value == best else " "


def with_interval(cell: Cell) -> str:
    if cell.task in ACCURACIES:
        return f"{cell.value:.2f} [{cell.low:.2f}, {cell.high:.2f}]"
    if not math.isfinite(cell.high):  # of a single block
        return rounded(cell.value, 4)
    return f"{rounded(cell.value, 4)} [{rounded(cell.low, 3)}, {rounded(cell.high, 3)}]"


def rounded(perplexity: float, digits: int) -> str:
    """Format with so many significant digits, but at most two after the point."""
    if perplexity >= 1e5:
        return f"{perplexity:.1e}"
    return f"{perplexity:,.{max(0, min(2, digits - len(str(int(perplexity)))))}f}"


def longest(cells: Sequence[Cell]) -> tuple[int, dict[str, Cell]]:
    """Return the greatest length with losses by position, and its cells by policy."""
    length = max(cell.length for cell in cells if cell.buckets)
    return length, {cell.policy: cell for cell in cells if cell.length == length and cell.buckets}


def losses_table(cells: Sequence[Cell], names: dict[str, str]) -> tuple[str, Table]:
    """Return a title and the losses by position at the greatest length."""
    length, chosen = longest(cells)
    places = sorted({(bucket.start, bucket.stop) for cell in chosen.values() for bucket in cell.buckets})
    losses = {
        (policy, (bucket.start, bucket.stop)): bucket.loss for policy, cell in chosen.items() for bucket in cell.buckets
    }
    best = {place: best_of_several([x for (_, at), x in losses.items() if at == place], min) for place in places}
    result = Table(["", *(f"<{stop:,} " for _, stop in places)])
    for policy in chosen:
        row = [losses.get((policy, place)) for place in places]
        texts = ["- " if x is None else f"{x:.2f}{star(x, best[place])}" for x, place in zip(row, places)]
        result.rows.append((names[policy], *texts))
    return f"loss in nats by position, in {length:,} tokens", result


def block(title: str, content: Table, width: int) -> str:
    """Lay out a table, in several parts if its columns do not fit."""
    columns = [*zip(content.header, *content.rows)]
    lines = [title]
    for part in parts_of(columns, width):
        widths = [max(map(len, column)) for column in part]
        for first, *others in zip(*part):
            texts = [first.ljust(widths[0]), *(text.rjust(size) for text, size in zip(others, widths[1:]))]
            lines.append("  ".join(texts).rstrip())
    return "\n".join(lines)


def parts_of(columns: Sequence[Sequence[str]], width: int) -> Iterator[list[Sequence[str]]]:
    """Yield groups of columns that fit, each with the first column."""
    part, used = [columns[0]], max(map(len, columns[0]))
    start = used
    for column in columns[1:]:
        size = 2 + max(map(len, column))
        if used + size > width and len(part) > 1:
            yield part
            part, used = [columns[0]], start
        part.append(column)
        used += size
    yield part


def sentences(cells: Sequence[Cell]) -> list[str]:
    """Say which policy is best per task and length, as far as paired tests at the level 0.05 allow.

    The level is divided by the number of comparisons with the policy that has the best value. Neighbouring lengths
    with the same outcome share a sentence. The last sentences say at which positions losses rise.
    """
    names = labels([cell.policy for cell in cells], 40)
    result: list[str] = []
    for task in distinct([cell.task for cell in cells]):
        by_length: dict[int, list[Cell]] = {}
        for cell in sorted((cell for cell in cells if cell.task == task), key=lambda cell: cell.length):
            by_length.setdefault(cell.length, []).append(cell)
        result += task_sentences(task, by_length, names)
    for task in distinct([cell.task for cell in cells if cell.buckets]):
        result += rise_sentences([cell for cell in cells if cell.task == task], names)
    return result


def task_sentences(task: str, by_length: dict[int, list[Cell]], names: dict[str, str]) -> Iterator[str]:
    groups: list[tuple[frozenset[str], list[list[Cell]]]] = []
    for cells in by_length.values():
        if len(cells) < 2:
            groups.append((frozenset(), []))  # nothing to compare, and an end of the range of lengths
            continue
        best = frozenset(cell.policy for cell in ties(cells))
        if not groups or groups[-1][0] != best or len(groups[-1][1][-1]) != len(cells):
            groups.append((best, []))
        groups[-1][1].append(cells)
    for best, found in groups:
        if found:
            yield outcome(task, best, found, names)


def ties(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cell with the best value, and those that a test cannot tell apart from it."""
    winner = best_of(cells)
    level = LEVEL / (len(cells) - 1)
    return [cell for cell in cells if cell is winner or not better(winner, cell, level)]


def best_of(cells: Sequence[Cell]) -> Cell:
    return min(cells, key=lambda cell: cell.value * (-1 if cell.task in ACCURACIES else 1))


def better(winner: Cell, other: Cell, level: float) -> bool:
    result = compare(winner, other)
    large = winner.task in ACCURACIES or result.difference < -SMALLEST
    return large and result.p < level


def outcome(task: str, best: frozenset[str], found: Sequence[Sequence[Cell]], names: dict[str, str]) -> str:
    first, last = found[0][0].length, found[-1][0].length
    range_ = f"at {first:,} tokens" if first == last else f"from {first:,} to {last:,} tokens"
    if len(best) == 1:
        (policy,) = best
        quality = "the lowest" if task in PERPLEXITIES else "the highest"
        return f"{names[policy]} has {quality} {TITLES.get(task, task)} {range_}, {margin(found)}"
    samples = samples_of([cell for cells in found for cell in cells])
    tied = [names[cell.policy] for cell in found[0] if cell.policy in best]
    others = [names[cell.policy] for cell in found[0] if cell.policy not in best]
    if others and len(tied) <= MANY:
        text = f"the best are {listing(tied)}, which cannot be told apart"
    else:
        text = f"{f'all but {listing(others)}' if others else listing(tied)} cannot be told apart"
    return f"{TITLES.get(task, task)} {range_}: {text} ({samples})"


def margin(found: Sequence[Sequence[Cell]]) -> str:
    """Return the least advantage of the winner: "1.2 % below yarn:4"."""
    margins = []
    for cells in found:
        winner = best_of(cells)
        second = best_of([cell for cell in cells if cell is not winner])
        if winner.task in ACCURACIES:
            margins.append((winner.value - second.value, f"{winner.value - second.value:.2f} above", second.policy))
        else:
            share = 100 * (1 - winner.value / second.value)
            margins.append((share, f"{share:.{0 if share >= 10 else 1}f} % below", second.policy))
    _, text, policy = min(margins)
    return f"{text} {brief(policy)}" if len(found) == 1 else f"at least {text} the next policy"


def listing(names: Sequence[str]) -> str:
    if len(names) > MANY:
        return f"the {len(names)} policies"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def rise_sentences(cells: Sequence[Cell], names: dict[str, str]) -> Iterator[str]:
    """Say at which positions losses rise, relative to the policy with the lowest loss at the end.

    The difference of two policies at the same tokens does not depend on the difficulty of the text, which a loss alone
    does.
    """
    length, chosen = longest(cells)
    reference = min(chosen.values(), key=lambda cell: max(cell.buckets, key=lambda bucket: bucket.stop).loss)
    rises: dict[int, list[str]] = {}
    for policy, cell in chosen.items():
        found = None if cell is reference else rise(cell, reference)
        if found:
            rises.setdefault(found[0], []).append(f"{names[policy]} by {found[1]:.2f} nats")
    for start, texts in sorted(rises.items()):
        yield (
            f"loss in {length:,} tokens: from position {start:,} on, it rises relative to {names[reference.policy]}: "
            f"{', '.join(texts)}"
        )


def rise(cell: Cell, reference: Cell) -> tuple[int, float] | None:
    """Return the start of the first bucket with a higher loss than before, and the rise to the last bucket, in nats."""
    ours, theirs = losses_by_place(cell.blocks), losses_by_place(reference.blocks)
    places = [(bucket.start, bucket.stop) for bucket in sorted(cell.buckets, key=lambda bucket: bucket.start)]
    inside = [
        [ours[key] - theirs[key] for key in ours.keys() & theirs.keys() if start <= key[1] and key[2] <= stop]
        for start, stop in places
    ]
    known = [(start, losses) for (start, _), losses in zip(places, inside) if len(losses) > 1]
    level = LEVEL / max(1, len(known) - 1)
    for k in range(1, len(known)):
        lowest = min((losses for _, losses in known[:k]), key=mean)
        if all(mean(losses) - mean(lowest) > RISE for _, losses in known[k:]):
            ends = known[k][1], known[-1][1]
            if all(welch_test(losses, lowest) < level for losses in ends):
                return known[k][0], mean(known[-1][1]) - mean(lowest)
    return None


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
