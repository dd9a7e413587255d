"""Inspections as text: in a box with colours on a terminal if rich is installed, else plain."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from ropewalk import Encoding
    from ropewalk._inspect import Inspection

WIDTH = 100
NAME_WIDTH = 18  # of the facts
PAIR_INTERVAL = 8  # between the rows of the table of pairs
NO_NOTES: Mapping[str, str] = {}
PAIRS = {"half_split": "pairs (j, j + {half})", "interleaved": "pairs (2j, 2j + 1)"}


@dataclass
class Table:
    header: Sequence[str]  # each of one line, or each of two
    rows: list[Sequence[str]] = field(default_factory=list)  # the first column is aligned left, the others right


@dataclass
class Card:
    title: str
    about: Sequence[str] = ()
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    note: str = ""


def number(value: float | None, digits: int = 4) -> str:
    """Format with four significant digits, from 1000 on as a whole number with separators."""
    if value is None:
        return "-"
    if abs(value) >= 1e9:
        return f"{value:.{digits - 1}e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def brief(expression: str) -> str:
    """Abbreviate lists of more than four numbers to [first,...,last]."""
    return re.sub(
        r"\[([^,\]]*)(?:,[^,\]]*){3,},([^,\]]*)\]",
        lambda ends: f"[{float(ends[1]):.4g},...,{float(ends[2]):.4g}]",
        expression,
    )


def short(expression: str, width: int) -> str:
    """Abbreviate to at most `width` characters."""
    expression = brief(expression)
    return expression if len(expression) <= width else expression[: width - 3] + "..."


def summary(encoding: Encoding) -> str:
    """Return an encoding on one line: "linear:8 (head_dim 128, base 10000, half_split)"."""
    facts = [f"head_dim {encoding.head_dim}", f"base {encoding.base:.10g}", encoding.layout]
    if encoding.rotary_dim != encoding.head_dim:
        facts.insert(1, f"rotary_dim {encoding.rotary_dim}")
    if encoding.rotary_offset:
        facts.insert(2, f"rotary_offset {encoding.rotary_offset}")
    if encoding.sequence_length is not None:
        facts.append(f"sequence_length {encoding.sequence_length}")
    return f"{brief(encoding.expression)} ({', '.join(facts)})"


def change_of(data: Inspection) -> str:
    pair = data.most_changed_pair
    if pair is None:
        return "no pair: the frequencies are those of default"
    ratio = data.ratio[pair]
    if ratio == 0:
        return f"pair {pair} never rotates"
    change = f"{number(1 / ratio)} times slower" if ratio < 1 else f"{number(ratio)} times faster"
    uniform = max(data.ratio) - min(data.ratio) < 1e-12 * ratio
    return f"{'every pair' if uniform else f'pair {pair}'} is {change} than default"


def inspection_card(data: Inspection, notes: Mapping[str, str] = NO_NOTES) -> Card:
    """Return the card. `notes` say after the facts of these names whether they are assumed."""
    pairs = len(data.inv_freq)
    squared = "" if data.attention_factor == 1 else f", so {number(data.attention_factor**2, 6)} on every score"
    at = "" if data.sequence_length is None else f" at a sequence length of {data.sequence_length:,}"
    limits = data.max_position
    facts = [
        ("head", head_of(data)),
        ("layout", f"{data.layout}: {PAIRS[data.layout].format(half=pairs)}"),
        ("lengths", lengths_of(data)),
        ("wavelengths", waves_of(data)),
        ("full turns", full_turns_of(data)),
        ("most changed", change_of(data)),
        ("attention factor", f"{number(data.attention_factor, 6)} on cos and sin{squared}"),
        ("softmax factor", number(data.softmax_factor, 6)),
        ("stage", f"{data.stage}{at}"),
        (
            "largest position",
            "any" if limits is None else ", ".join(f"{name} {limit:,}" for name, limit in limits.items()),
        ),
    ]
    if data.draws_positions:
        facts.append(("positions", "random; lengths and errors here refer to the positions drawn"))
    facts = [(name, fact + notes.get(name, "")) for name, fact in facts]
    return Card(brief(data.expression), data.about, facts, [error_table(data), pair_table(data)])


def head_of(data: Inspection) -> str:
    rotary = "" if data.rotary_dim == data.head_dim else f", {data.rotary_dim} of them rotary"
    after = "" if data.rotary_offset == 0 else f" from element {data.rotary_offset} on"
    return f"{data.head_dim} elements{rotary}{after}, base {number(data.base)}"


def lengths_of(data: Inspection) -> str:
    extended = "" if data.length == data.original_length else f", {data.length:,} extended"
    return f"{data.original_length:,} tokens originally{extended}"


def waves_of(data: Inspection) -> str:
    if data.shortest_wavelength is None:
        return "none: all frequencies are 0"
    return f"{number(data.shortest_wavelength)} to {number(data.longest_wavelength)} tokens"


def full_turns_of(data: Inspection) -> str:
    text = f"{data.full_turns_within_original} of {len(data.inv_freq)} pairs within {data.original_length:,} tokens"
    if data.length != data.original_length:
        text += f", {data.full_turns_within_length} within {data.length:,}"
    return text + (f"; {data.never_rotating} never rotate" if data.never_rotating else "")


def error_table(data: Inspection) -> Table:
    errors = Table(("largest error of cos and sin", "float32 product", "ropewalk"))
    rows = {
        data.original_length: (data.float32_error_original, data.error_original),
        data.length: (data.float32_error_length, data.error_length),
    }
    for length, values in rows.items():
        errors.rows.append((f"below {length:,}", *(f"{value:.1e}" for value in values)))
    return errors


def pair_table(data: Inspection) -> Table:
    table = Table(("pair", "radians per token", "wavelength", f"turns in {data.length:,}", "times default"))
    last = len(data.inv_freq) - 1
    for pair in sorted({*range(0, last, PAIR_INTERVAL), last}):
        theta, wavelength = data.inv_freq[pair], data.wavelength[pair]
        cells = ["0", "infinite", "0"]
        if theta > 0:
            cells = [f"{theta:.3e}", number(wavelength), number(data.length / wavelength)]
        table.rows.append((str(pair), *cells, number(data.ratio[pair])))
    return table


def comparison_card(inspections: Sequence[Inspection], notes: Sequence[Mapping[str, str]]) -> Card:
    """Return the card of encodings within the same lengths, with notes for each."""
    first = inspections[0]
    heads = [head_of(data) + note.get("head", "") for data, note in zip(inspections, notes)]
    facts = [
        ("head", "; ".join(dict.fromkeys(heads))),
        ("lengths", lengths_of(first) + notes[0].get("lengths", "")),
    ]
    full_turns = (f"turns\n{length:,}" for length in (first.original_length, first.length))
    header = ("policy\n", "longest\nwave", *full_turns, "never\nrotate", "attention\nfactor")
    table = Table((*header, "|score|\nbeyond", "f32 error\nat the end"))
    for data in inspections:
        table.rows.append(
            (
                short(data.expression, 30),
                number(data.longest_wavelength),
                str(data.full_turns_within_original),
                str(data.full_turns_within_length),
                str(data.never_rotating),
                number(data.attention_factor),
                "-" if data.mean_score_beyond_original is None else f"{data.mean_score_beyond_original:.4f}",
                f"{data.float32_error_length:.1e}",
            )
        )
    ours = max(data.error_length for data in inspections)
    note = (
        "turns: number of pairs that complete a full turn within so many tokens. "
        f"|score| beyond: mean over distances from {first.original_length + 1:,} to {first.length:,}. "
        f"f32 error: of cos and sin of a float32 product, as other libraries use; ropewalk's error is {ours:.1e}."
    )
    return Card(f"{len(inspections)} policies", facts=facts, tables=[table], note=note)


Line = list[tuple[str, str]]  # pieces of text, each with a style of rich


def render(card: Card, width: int) -> Iterator[Line]:
    for text in textwrap.wrap(card.title, width):
        yield [(text, "bold")]
    for about in card.about:
        yield from ([(text, "italic")] for text in textwrap.wrap("  " + about, width))
    if card.facts:
        yield []
    for name, value in card.facts:
        for text in textwrap.wrap(value, width - NAME_WIDTH, break_on_hyphens=False):  # paths stay whole
            yield [(name.ljust(NAME_WIDTH), "cyan"), (text, "")]
            name = ""
    for table in card.tables:
        header = [*zip(*(name.split("\n") for name in table.header))]
        widths = [max(map(len, column)) for column in zip(*header, *table.rows)]
        yield []
        for style, rows in (("cyan", header), ("", table.rows)):
            for first, *others in rows:
                cells = [cell.rjust(width) for cell, width in zip(others, widths[1:])]
                yield [("  ".join([first.ljust(widths[0]), *cells]).rstrip(), style)]
    if card.note:
        yield []
        yield from ([(text, "dim")] for text in textwrap.wrap(card.note, width))


def print_box(card: Card, console: Console) -> None:
    from rich.panel import Panel
    from rich.text import Text

    lines = (Text.assemble(*line) for line in render(card, console.width - 4))
    console.print(Panel(Text("\n").join(lines), expand=False))


def show(card: Card) -> None:
    """Print the card."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
        except ImportError:
            pass
        else:
            console = Console(highlight=False)
            console.width = min(console.width, WIDTH + 4)
            return print_box(card, console)
    for line in render(card, WIDTH):
        print("".join(text for text, _ in line).rstrip())
