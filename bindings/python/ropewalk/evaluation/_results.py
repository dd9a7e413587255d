"""Results of an evaluation: plain data, which json.dumps() takes after to_dict()."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from ropewalk import _files, _ropewalk

if TYPE_CHECKING:
    from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer of a model to one row of the tasks lines and qa."""

    expected: str
    answer: str  # what the model wrote
    correct: bool
    depth: float | None  # where the prompt holds the answer: 0 at its start, 1 at its end, None if unknown
    tokens: int  # length of the prompt


@dataclasses.dataclass(frozen=True)
class Block:
    """Losses of up to 256 consecutive tokens."""

    text: int  # number of the text, or of the sliding window
    start: int  # position of the first token in the context; its loss is that of predicting the next token
    stop: int  # position after the last token
    loss: float  # mean cross-entropy per token, in nats


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Loss at the positions [start, stop), over all texts of a cell."""

    start: int
    stop: int
    loss: float  # mean cross-entropy per token, in nats


@dataclasses.dataclass(frozen=True)
class Cell:
    """One policy, task and length."""

    policy: str  # as given: an expression, or "from-config" for the scaling of the configuration
    task: str  # "perplexity", "sliding", "lines", "qa"
    length: int  # tokens: of a text or window, or at most of a prompt
    value: float  # perplexity, or the share of correct answers
    low: float  # 95 % interval of value
    high: float  # infinite if there is one block only, null in JSON
    samples: int  # texts, windows or answers
    seconds: float
    answers: tuple[Answer, ...] = ()  # of lines and qa
    blocks: tuple[Block, ...] = ()  # of perplexity and sliding
    buckets: tuple[Bucket, ...] = ()  # of perplexity

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "high": self.high if math.isfinite(self.high) else None}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Cell:
        """Return the cell of a dictionary that to_dict() made. Other keys are ignored."""
        known = {field.name: values[field.name] for field in dataclasses.fields(Cell) if field.name in values}
        known["high"] = math.inf if known["high"] is None else known["high"]
        for name, kind in (("answers", Answer), ("blocks", Block), ("buckets", Bucket)):
            known[name] = tuple(kind(**one) for one in known.get(name, ()))
        return Cell(**known)


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a result file: the values of a cell each, and those that describe the run.

    Raises:
        Error: The file is no list of such rows.
        OSError: The file cannot be read.
    """
    text = _files.read_text(_files.as_path(path, "path"))
    try:
        rows: list[dict[str, Any]] = _files.parse_json(text, str(path))
        for row in rows:
            Cell.from_dict(row)
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise _ropewalk.Error(f"ropewalk: {path} holds no results of an evaluation: {problem!r}") from None
    return rows


def read_cells(*paths: str | Path) -> list[Cell]:
    """Return the cells of result files. If they are of several models, the policy of a cell begins with its model.

    Raises:
        Error: A file holds no results, or two files have the same cell.
    """
    rows = [row for path in paths for row in read_results(path)]
    several = len({row.get("model") for row in rows}) > 1
    cells: dict[tuple[str, str, int], Cell] = {}
    for row in rows:
        cell = Cell.from_dict(row)
        if several:
            cell = dataclasses.replace(cell, policy=f"{row.get('model')} {cell.policy}")
        key = (cell.policy, cell.task, cell.length)
        if key in cells:
            raise _ropewalk.Error(
                f"ropewalk: {cell.task} of {cell.policy} at {cell.length} tokens is in the files more than once"
            )
        cells[key] = cell
    return list(cells.values())
