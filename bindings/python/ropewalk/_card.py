"""Inspections as text: with rich on a terminal where that is installed, else plain."""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from ropewalk._inspect import Inspection

WIDTH = 100
EVERY = 8  # pairs a row of the table
PAIRS = {"half_split": "pairs (j, j + {half})", "interleaved": "pairs (2j, 2j + 1)"}


@dataclass
class Table:
    header: Sequence[str]  # of one line or all of two
    rows: list[Sequence[str]] = field(default_factory=list)  # the first column is set left, the others right


@dataclass
class Card:
    title: str
    about: Sequence[str] = ()
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    note: str = ""


def number(value: float | None, digits: int = 4) -> str:
    """Four significant digits, whole numbers from 1000 on with separators."""
    if value is None:
        return "-"
    if abs(value) >= 1e9:
        return f"{value:.{digits - 1}e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def brief(expression: str) -> str:
    """Lists of more than four numbers as [first,...,last]."""
    return re.sub(
        r"\[([^,\]]*)(?:,[^,\]]*){3,},([^,\]]*)\]",
        lambda ends: f"[{float(ends[1]):.4g},...,{float(ends[2]):.4g}]",
        expression,
    )


def short(expression: str, width: int) -> str:
    """At most so many characters."""
    expression = brief(expression)
    return expression if len(expression) <= width else expression[: width - 3] + "..."


def change_of(one: Inspection) -> str:
    pair = one.most_changed_pair
    if pair is None:
        return "no pair: the frequencies are those of default"
    ratio = one.ratio[pair]
    if ratio == 0:
        return f"pair {pair} never turns"
    how = f"{number(1 / ratio)} times slower" if ratio < 1 else f"{number(ratio)} times faster"
    all_alike = max(one.ratio) - min(one.ratio) < 1e-12 * ratio
    return f"every pair is {how} than default" if all_alike else f"pair {pair} is {how} than default"


def inspection_card(one: Inspection) -> Card:
    pairs = len(one.inv_freq)
    rotary = "" if one.rotary_dim == one.head_dim else f", {one.rotary_dim} of them turn"
    after = "" if one.rotary_offset == 0 else f" from element {one.rotary_offset} on"
    squared = "" if one.attention_factor == 1 else f", so {number(one.attention_factor**2, 6)} on every score"
    at = "" if one.sequence_length is None else f" at a sequence length of {one.sequence_length:,}"
    limits = one.max_position
    facts = [
        ("head", f"{one.head_dim} elements{rotary}{after}, base {number(one.base)}"),
        ("layout", f"{one.layout}: {PAIRS[one.layout].format(half=pairs)}"),
        ("lengths", lengths_of(one)),
        ("wavelengths", waves_of(one)),
        ("full turns", turns_of(one)),
        ("most changed", change_of(one)),
        ("attention factor", f"{number(one.attention_factor, 6)} on cos and sin{squared}"),
        ("softmax factor", number(one.softmax_factor, 6)),
        ("stage", f"{one.stage}{at}"),
        (
            "largest position",
            "any" if limits is None else ", ".join(f"{name} {limit:,}" for name, limit in limits.items()),
        ),
    ]
    if one.draws_positions:
        facts.append(("positions", "drawn anew; lengths and errors here are of the numbers drawn"))
    return Card(brief(one.expression), one.about, facts, [error_table(one), pair_table(one)])


def lengths_of(one: Inspection) -> str:
    extended = "" if one.length == one.original_length else f", {one.length:,} extended"
    return f"{one.original_length:,} tokens originally{extended}"


def waves_of(one: Inspection) -> str:
    if one.shortest_wavelength is None:
        return "none: no pair turns"
    return f"{number(one.shortest_wavelength)} to {number(one.longest_wavelength)} tokens"


def turns_of(one: Inspection) -> str:
    text = f"{one.turning_within_original} of {len(one.inv_freq)} pairs within {one.original_length:,} tokens"
    if one.length != one.original_length:
        text += f", {one.turning_within_length} within {one.length:,}"
    return text + (f"; {one.never_turning} never turn" if one.never_turning else "")


def error_table(one: Inspection) -> Table:
    errors = Table(("largest error of cos and sin", "float32 product", "ropewalk"))
    rows = {
        one.original_length: (one.float32_error_original, one.error_original),
        one.length: (one.float32_error_length, one.error_length),
    }
    for length, values in rows.items():
        errors.rows.append((f"towards {length:,}", *(f"{value:.1e}" for value in values)))
    return errors


def pair_table(one: Inspection) -> Table:
    table = Table(("pair", "radians a token", "wavelength", f"turns in {one.length:,}", "times default"))
    last = len(one.inv_freq) - 1
    for pair in sorted({*range(0, last, EVERY), last}):
        theta, wavelength = one.inv_freq[pair], one.wavelength[pair]
        cells = ["0", "never turns", "0"]
        if theta > 0:
            cells = [f"{theta:.3e}", number(wavelength), number(one.length / wavelength)]
        table.rows.append((str(pair), *cells, number(one.ratio[pair])))
    return table


def comparison_card(all_of_them: Sequence[Inspection]) -> Card:
    first = all_of_them[0]
    turning = (f"turn in\n{length:,}" for length in (first.original_length, first.length))
    header = ("policy\n", "longest\nwave", *turning, "never\nturn", "attention\nfactor")
    table = Table((*header, "|score|\nbeyond", "f32 error\nat the end"))
    for one in all_of_them:
        table.rows.append(
            (
                short(one.expression, 30),
                number(one.longest_wavelength),
                str(one.turning_within_original),
                str(one.turning_within_length),
                str(one.never_turning),
                number(one.attention_factor),
                "-" if one.mean_score_beyond_original is None else f"{one.mean_score_beyond_original:.4f}",
                f"{one.float32_error_length:.1e}",
            )
        )
    ours = max(one.error_length for one in all_of_them)
    note = (
        "turn in n: the pairs that complete a full turn within n tokens. "
        f"|score| beyond: the mean over distances from {first.original_length + 1:,} to {first.length:,}. "
        f"f32 error: of cos and sin of the float32 product that others form; ropewalk's stays below {ours:.1e}."
    )
    return Card(f"{len(all_of_them)} policies", tables=[table], note=note)


def plain(card: Card) -> str:
    lines = [
        *textwrap.wrap(card.title, WIDTH),
        *(line for text in card.about for line in textwrap.wrap("  " + text, WIDTH)),
    ]
    if card.facts:
        lines.append("")
    for name, value in card.facts:
        lines += textwrap.wrap(f"{name:18}{value}", WIDTH, subsequent_indent=" " * 18)
    for table in card.tables:
        rows = [*zip(*(name.split("\n") for name in table.header)), *table.rows]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines.append("")
        for first, *others in rows:
            cells = [cell.rjust(width) for cell, width in zip(others, widths[1:])]
            lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    if card.note:
        lines += ["", *textwrap.wrap(card.note, WIDTH)]
    return "\n".join(lines) + "\n"


def rich_printed(card: Card, console: Console) -> None:
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[RenderableType] = [Text(text, style="italic") for text in card.about]
    if card.facts:
        grid = RichTable.grid(padding=(0, 2))
        for name, value in card.facts:
            grid.add_row(Text(name, style="cyan"), Text(value))
        parts += ["", grid]
    for table in card.tables:
        made = RichTable(box=box.SIMPLE, header_style="cyan", pad_edge=False, padding=(0, 1, 0, 0))
        for i, name in enumerate(table.header):
            made.add_column(Text(name), justify="right" if i else "left")
        for row in table.rows:
            made.add_row(*map(Text, row))
        parts += [made]
    if card.note:
        parts.append(Text(card.note, style="dim"))
    title = Text(short(card.title, WIDTH - 8), style="bold")
    console.print(Panel(Group(*parts), title=title, title_align="left", expand=False, padding=1))


def show(card: Card) -> None:
    """Print the card: boxes and colours on a terminal, plain text into a pipe."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
        except ImportError:
            pass
        else:
            console = Console(highlight=False)
            console.width = min(console.width, WIDTH)
            rich_printed(card, console)
            return
    sys.stdout.write(plain(card))
