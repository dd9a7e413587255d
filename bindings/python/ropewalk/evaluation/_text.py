"""Texts whose perplexity is measured."""

from __future__ import annotations

import pydoc_data.topics
from typing import TYPE_CHECKING, Any

from ropewalk import _files, _ropewalk

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def default_text() -> str:
    """Return the reference of the Python language, about 450,000 characters of English in every Python."""
    topics = pydoc_data.topics.topics
    return "\n".join(topics[name] for name in sorted(topics))


def read_texts(files: Iterable[str | Path]) -> str:
    """Return the texts of UTF-8 files, one after another.

    Raises:
        Error: A file is not UTF-8 text.
        OSError: A file cannot be read.
    """
    return "\n".join(_files.read_text(_files.as_path(file, "files")) for file in files)


def first_tokens(tokenizer: Any) -> list[int]:
    """Return the tokens that the tokenizer puts before every text."""
    plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    places = [at for at in range(len(whole)) if whole[at : at + len(plain)] == plain]
    return list(whole[: places[-1]]) if places else []


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text, without those that the tokenizer puts before and after it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def windows(ids: list[int], first: list[int], length: int, count: int, stride: int | None = None) -> list[list[int]]:
    """Return up to `count` parts of `length` + 1 tokens each: the last token is predicted, but has no prediction.

    Args:
        ids: Tokens of the whole text.
        first: Put before each part, and counted in its length. See first_tokens().
        stride: Tokens between the ends of two parts, from the end of the text, so that parts of all lengths end at the
            same tokens. By default the parts do not overlap and spread over the text.

    Raises:
        Error: The text is shorter than one part.
    """
    needed = length + 1 - len(first)
    if len(ids) < needed:
        raise _ropewalk.Error(
            f"ropewalk: the text has {len(ids)} tokens, but length {length} needs {needed}; pass a longer text (--text)"
        )
    if stride is None:
        count = min(count, len(ids) // needed)
        stride = (len(ids) - needed) // max(count - 1, 1)
        starts = [part * stride for part in range(count)]
    else:
        count = min(count, (len(ids) - needed) // stride + 1)
        starts = [len(ids) - needed - part * stride for part in range(count)]
    return [first + ids[start : start + needed] for start in starts]
