"""Encodings and lengths of the words on the command line."""

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

SHORTEST_TRAINING = 2048  # tokens: no published model with an extended context was trained on fewer


@dataclass(frozen=True)
class Target:
    encoding: _ropewalk.Encoding
    original_length: int
    length: int
    stated_length: int | None  # original_length, unless it is the default

    def inspection(self) -> _inspect.Inspection:
        return _inspect.inspect(self.encoding, self.original_length, self.length)


def load_all(words: list[str], options: argparse.Namespace) -> list[Target]:
    """Read one target, or several within the same lengths."""
    for name in ("head_dim", "base", "rotary_dim"):
        if all(map(is_config, words)) and getattr(options, name) is not None:
            raise _ropewalk.Error(
                f"ropewalk: --{name.replace('_', '-')} needs an expression, but {words[0]} is a configuration"
            )
    return load_alike(words, options) if len(words) > 1 else [load(words[0], options)]


def load(word: str, options: argparse.Namespace) -> Target:
    """Read an expression, or the configuration in a file or folder.

    A policy that depends on the sequence length is shown at the extended length, unless the options state another.
    """
    encoding = make(word, options, options.sequence_length)
    stated = config_lengths(word, encoding) if is_config(word) else (None, None)
    original = stated[0] if options.original_length is None else options.original_length
    original = _inspect.original_length_of(encoding) if original is None else original
    length = stated[1] if options.length is None and options.original_length is None else options.length
    lengths = _inspect.lengths(encoding, original, length)
    if options.sequence_length is None:
        encoding = at_length(encoding, word, options, lengths[1])
    return Target(encoding, *lengths, stated_length=original)


def load_alike(words: list[str], options: argparse.Namespace) -> list[Target]:
    """Read all targets within the same lengths: the largest stated original length and the largest extended length."""
    targets = [load(word, options) for word in words]
    stated = [target.stated_length for target in targets if target.stated_length is not None]
    options.original_length = max(stated, default=targets[0].original_length)
    if options.length is None:
        extended = [_inspect.lengths(target.encoding, options.original_length)[1] for target in targets]
        options.length = max(*extended, *(target.length for target in targets if target.stated_length is not None))
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
    """Return the encoding for sequences of that length, or the given one if the length does not change it."""
    try:
        extended = make(word, options, length)
    except _ropewalk.Error:  # the length exceeds the range of randomized_sorted
        return encoding
    return extended if extended.stage != encoding.stage else encoding


def config_lengths(path: str, encoding: _ropewalk.Encoding) -> tuple[int | None, int | None]:
    """Return the original and the extended length that a configuration states.

    `max_position_embeddings` is the extended length in most configurations and the original one in some with a factor.
    It is read as the extended length if the quotient by the factor is at least SHORTEST_TRAINING.
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
    """Return the language model's part of a configuration, which from_config() has accepted."""
    file = Path(path)
    whole = json.loads((file / "config.json" if file.is_dir() else file).read_text(encoding="utf-8"))
    text = whole.get("text_config")
    return text if isinstance(text, dict) else whole


def whole_number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
