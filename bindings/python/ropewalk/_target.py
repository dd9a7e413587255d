"""From a word on the command line to an encoding and the lengths that it is seen within."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk import _inspect, _ropewalk
from ropewalk._encoding import from_config

if TYPE_CHECKING:
    import argparse

SHORTEST_TRAINING = 2048  # tokens: no model that was stretched had been trained on fewer


@dataclass(frozen=True)
class Target:
    encoding: _ropewalk.Encoding
    original_length: int
    length: int
    stated_length: int | None  # original_length, where it is not just the default

    def inspection(self) -> _inspect.Inspection:
        return _inspect.inspect(self.encoding, self.original_length, self.length)


def load_all(words: list[str], options: argparse.Namespace) -> list[Target]:
    """What the command line asks for: one target, or several within the same lengths."""
    for name in ("head_dim", "base", "rotary_dim"):
        if all(map(is_config, words)) and getattr(options, name) is not None:
            raise _ropewalk.Error(f"ropewalk: --{name.replace('_', '-')} is for expressions, {words[0]} has its own")
    return load_alike(words, options) if len(words) > 1 else [load(words[0], options)]


def load(word: str, options: argparse.Namespace) -> Target:
    """Read an expression, or the configuration in a file or folder, with the options of the command line.

    A scheme that depends on the sequence length is shown at the extended one, unless the options state another.
    """
    encoding = make(word, options, options.sequence_length)
    stated = config_lengths(word, encoding) if is_config(word) else (None, None)
    original = stated[0] if options.original_length is None else options.original_length
    original = _inspect.original_length_of(encoding) if original is None else original
    length = stated[1] if options.length is None and options.original_length is None else options.length
    seen = _inspect.lengths(encoding, original, length)
    if options.sequence_length is None:
        encoding = at_length(encoding, word, options, seen[1])
    return Target(encoding, *seen, stated_length=original)


def load_alike(words: list[str], options: argparse.Namespace) -> list[Target]:
    """All of them within the same lengths: the largest original one that any states, and the largest extended one."""
    targets = [load(word, options) for word in words]
    stated = [one.stated_length for one in targets if one.stated_length is not None]
    options.original_length = max(stated, default=targets[0].original_length)
    if options.length is None:
        grown = [_inspect.lengths(one.encoding, options.original_length)[1] for one in targets]
        options.length = max(*grown, *(one.length for one in targets if one.stated_length is not None))
    return [load(word, options) for word in words]


def is_config(word: str) -> bool:
    return word.endswith(".json") or os.sep in word or os.path.exists(os.path.join(word, "config.json"))


def make(word: str, options: argparse.Namespace, sequence_length: int | None) -> _ropewalk.Encoding:
    if not is_config(word):
        head_dim = 128 if options.head_dim is None else options.head_dim
        base = 10000.0 if options.base is None else options.base
        layout = options.layout or "half_split"
        return _ropewalk.Encoding(word, head_dim, base, options.rotary_dim, 0, layout, sequence_length)
    return from_config(word, options.layer_type, sequence_length, options.layout)


def at_length(encoding: _ropewalk.Encoding, word: str, options: argparse.Namespace, length: int) -> _ropewalk.Encoding:
    """The encoding for sequences of that length, where that is another one."""
    try:
        grown = make(word, options, length)
    except _ropewalk.Error:  # randomized_sorted has a range that sequences must fit into
        return encoding
    return grown if grown.stage != encoding.stage else encoding


def config_lengths(path: str, encoding: _ropewalk.Encoding) -> tuple[int | None, int | None]:
    """The original and the extended length that a configuration states.

    `max_position_embeddings` is the longest context in most, and the original one in those that leave the rest to the
    factor. It is taken for the longest where dividing it by the factor leaves a length that a model may have seen.
    """
    model = read_model(path)
    longest = whole_number(model.get("max_position_embeddings"))
    original = whole_number(model.get("original_max_position_embeddings")) or _inspect.original_length_of(encoding)
    if longest is None:
        return original, None
    if original is None:
        divided = longest / _inspect.factor_of(encoding)
        original = int(divided) if divided >= SHORTEST_TRAINING else longest
    return original, longest if longest > original else None


def read_model(path: str) -> dict[str, Any]:
    """The part of a configuration about the language model; from_config() has found it to be an object."""
    file = Path(path)
    whole = json.loads((file / "config.json" if file.is_dir() else file).read_text(encoding="utf-8"))
    text = whole.get("text_config")
    return text if isinstance(text, dict) else whole


def whole_number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
