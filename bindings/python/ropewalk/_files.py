"""Files of untrusted paths and JSON: only regular files are read, as by io/regular_file.hpp."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Union

from ropewalk import _ropewalk

PathLike = Union[str, "os.PathLike[str]"]
KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)


def as_path(value: PathLike, name: str) -> Path:
    """Return a path that the operating system can look up. `name` is that of the argument, for messages."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"ropewalk: {name} must be a path, got {type(value).__name__}")
    try:
        path = Path(value)
        os.access(path, os.F_OK)
    except (TypeError, ValueError) as problem:  # a path of bytes, a lone surrogate, a zero byte
        raise _ropewalk.Error(f"ropewalk: {name} is no path: {problem}") from None
    return path


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Return the bytes of a regular file. A FIFO or a device is refused, and neither blocks.

    Raises:
        Error: The path is no regular file, or the file has more than `limit` bytes.
        OSError: The file cannot be read.
    """
    with open(path, "rb", opener=_open_without_blocking) as file:
        status = os.fstat(file.fileno())
        kind = next((kind for is_kind, kind in KINDS if is_kind(status.st_mode)), None)
        if kind is not None:
            raise _ropewalk.Error(f"ropewalk: {path} is {kind}, expected a file")
        if limit is None:
            return file.read()
        data = file.read(limit + 1)  # the system states a size of 0 for files that it generates
    if len(data) > limit:
        raise _ropewalk.Error(f"ropewalk: {path} has {max(status.st_size, len(data))} bytes, the limit is {limit}")
    return data


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def read_text(path: Path, limit: int | None = None) -> str:
    """The same as UTF-8 text, with a line feed at the end of each line."""
    try:
        text = read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as problem:
        raise _ropewalk.Error(f"ropewalk: {path} is not UTF-8 text: {problem.reason} at byte {problem.start}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str, name: str, line: int = 1) -> Any:
    """Return the value of a JSON text. The file of this name has it from this line on.

    Raises:
        Error: The text is not JSON, or has more levels or digits than Python reads.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise _ropewalk.Error(
            f"ropewalk: {name}:{line + problem.lineno - 1}: not JSON: {problem.msg} at column {problem.colno}"
        ) from None
    except (ValueError, RecursionError) as problem:
        raise _ropewalk.Error(f"ropewalk: {name}:{line}: cannot be read: {problem}") from None
