"""Rows of evaluation files, and texts of a given number of tokens."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from ropewalk import _files
from ropewalk._files import PathLike as PathLike
from ropewalk._ropewalk import Error

Tokenizer = Callable[[str], Any]  # returns a mapping with `input_ids`, like the tokenizers of Transformers
T = TypeVar("T")
MOST_SAMPLES = 100_000  # rows that are made before the first is used


class Row:
    """One row of a file: its fields, and its place for error messages."""

    def __init__(self, values: Any, where: str) -> None:
        self.where = where
        if not isinstance(values, dict):
            raise self.error(f"a row must be an object with named fields, got {shorten(values)}")
        self.values = values

    def error(self, message: str) -> Error:
        return Error(f"ropewalk: {self.where}: {message}")

    def get(self, name: str, kind: type[T]) -> T:
        value = self.get_optional(name, kind)
        if value is None:
            raise self.error(f"the row has no {name!r}, only {', '.join(map(repr, self.values)) or 'no field at all'}")
        return value

    def get_optional(self, name: str, kind: type[T]) -> T | None:
        """Return a field, or None if it is absent or null."""
        value = self.values.get(name)
        if value is None:
            return None
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(f"{name!r} must be of type {kind.__name__}, got {shorten(value)}")
        return value


def shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_rows(path: PathLike) -> list[Row]:
    """Read a file of rows: JSON lines, one JSON list, or Parquet.

    Args:
        path: The file. Its content decides the format: Parquet begins with PAR1, a JSON list with a bracket.

    Raises:
        Error: The file is not of these formats, has no rows, or is Parquet and pyarrow is not installed.
        OSError: The file cannot be read.
    """
    file = _files.as_path(path, "path")
    name, content = str(file), _files.read_bytes(file)
    if content.startswith(b"PAR1"):
        rows = read_parquet(content, name)
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            raise Error(f"ropewalk: {name} is neither Parquet nor UTF-8 text: {problem}") from None
        rows = parse_list(text, name) if text.lstrip().startswith("[") else parse_lines(text, name)
    if not rows:
        raise Error(f"ropewalk: {name} has no rows")
    return rows


def read_parquet(content: bytes, name: str) -> list[Row]:
    try:
        import pyarrow.parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise Error(f"ropewalk: {name}: reading Parquet needs pyarrow: pip install pyarrow") from None
    try:
        rows = pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    except pyarrow.ArrowException as problem:
        raise Error(f"ropewalk: {name} is not a readable Parquet file: {problem}") from None
    return [Row(row, f"{name}, row {number}") for number, row in enumerate(rows, 1)]


def parse_list(text: str, name: str) -> list[Row]:
    return [Row(row, f"{name}, row {number}") for number, row in enumerate(_files.parse_json(text, name), 1)]


def parse_lines(text: str, name: str) -> list[Row]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [Row(_files.parse_json(line, name, number), f"{name}:{number}") for number, line in lines]


def count_tokens(tokenizer: Tokenizer, text: str) -> int:
    """Return the number of tokens, with the special tokens that the tokenizer adds by itself."""
    return len(tokenizer(text)["input_ids"])


def check_request(length: int, samples: int) -> None:
    for name, value in (("length", length), ("samples", samples)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise Error(f"ropewalk: {name} must be an integer, got {value!r}")
        if value < 1:
            raise Error(f"ropewalk: {name} must be positive, got {value}")
    if samples > MOST_SAMPLES:
        raise Error(f"ropewalk: samples must be at most {MOST_SAMPLES}, got {samples}")


def fit(count: Callable[[int], int], limit: int, low: int, high: int) -> tuple[int, int]:
    """Return a number n in [low, high], and count(n), so that count(n) is at most `limit` and close to it.

    Interpolates, because each count tokenizes a whole prompt: about five counts where the cost per unit is uneven. The
    result is the largest such n, or one whose count is within 1/400 of `limit`.

    Args:
        count: A function that grows with n, except for small irregularities.
        limit: The largest count that is allowed. count(low) must not exceed it.
        low: The smallest n.
        high: The largest n.
    """
    below, tokens, above = low, count(low), high + 1
    above_tokens = None
    probe = low + 64
    while above - below > 1 and limit - tokens > limit // 400:
        probe = min(max(probe, below + 1), above - 1)
        probe_tokens = count(probe)
        slope = (probe_tokens - tokens) / (probe - below)
        if probe_tokens <= limit:
            below, tokens = probe, probe_tokens
        else:
            above, above_tokens = probe, probe_tokens
        if above_tokens is not None:
            slope = (above_tokens - tokens) / (above - below)
        probe = below + int((limit - tokens) / max(slope, 1e-3))
    return below, tokens
