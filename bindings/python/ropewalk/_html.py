"""Cards of encodings, policies and inspections as HTML, for notebooks."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from ropewalk import _card, _inspect, _ropewalk
from ropewalk._target import ASSUMED, Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEFT = ' style="text-align:left"'


def of_encoding(encoding: _ropewalk.Encoding, assumed_head: str = "") -> str:
    """Return the card of an encoding and its plot, or its repr() if inspect() refuses it."""
    try:
        original_length, length = _inspect.lengths(encoding)
    except _ropewalk.Error:
        return f"<code>{escape(repr(encoding))}</code>"
    assumed_length = "" if _inspect.original_length_of(encoding) else ASSUMED
    return of_target(Target(encoding, original_length, length, {"head": assumed_head, "lengths": assumed_length}))


def of_policy(policy: _ropewalk.Policy) -> str:
    """Return the card of an encoding with this policy, of the head that its lists fit."""
    parts = [_ropewalk.policy(part) for part in str(policy).split("|")]
    sections = [sum(part.sections) for part in parts if isinstance(part, _ropewalk.MRope)]
    factors = [len(part.short_factor or part.long_factor) for part in parts if isinstance(part, _ropewalk.LongRope)]
    pairs = max([*sections, *factors]) or 64 if sections or factors else 64
    try:
        return of_encoding(_ropewalk.Encoding(policy, 2 * pairs), assumed_head=ASSUMED)
    except _ropewalk.Error:  # the policy needs a parameter
        return f"<code>{escape(repr(policy))}</code>"


def of_inspection(data: _inspect.Inspection) -> str:
    encoding = _ropewalk.Encoding(
        data.expression,
        data.head_dim,
        data.base,
        data.rotary_dim,
        data.rotary_offset,
        data.layout,
        data.sequence_length,
    )
    return of_target(Target(encoding, data.original_length, data.length))


def of_target(target: Target) -> str:
    card = _card.inspection_card(target.inspection(), target.notes)
    return "\n".join(["<div>", *body_of(card), picture_of(target), "</div>"])


def body_of(card: _card.Card) -> Iterator[str]:
    yield f"<p><b>{escape(card.title)}</b></p>"
    yield from (f"<p><i>{escape(about)}</i></p>" for about in card.about)
    yield from table_of(card.facts)
    for table in card.tables:
        yield f"<details><summary>{escape(', '.join(table.header))}</summary>"
        yield from table_of(table.rows, table.header)
        yield "</details>"


def table_of(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> Iterator[str]:
    yield "<table>"
    if header:
        yield "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td{LEFT}>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</table>"


def picture_of(target: Target) -> str:
    """Return the plot, or nothing without matplotlib."""
    try:
        from ropewalk import _plot
    except ImportError:
        return ""
    png = io.BytesIO()
    _plot.plot_one(target, png, "png")
    data = base64.b64encode(png.getvalue()).decode()
    return f'<img alt="wavelengths, and scores by distance" src="data:image/png;base64,{data}">'
