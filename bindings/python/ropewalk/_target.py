"""Encodings and lengths of the words on the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ropewalk import _files, _inspect, _ropewalk
from ropewalk._encoding import from_config, path_of, text_of

if TYPE_CHECKING:
    import argparse

ASSUMED = " (assumed)"
SHORTEST_TRAINING = 2048  # tokens: no published model with an extended context was trained on fewer


@dataclass(frozen=True)
class Target:
    encoding: _ropewalk.Encoding
    original_length: int
    length: int
    notes: dict[str, str] = field(default_factory=dict)  # the sources of the head and of the lengths, for the card
    stated_length: int | None = None  # original_length, unless it is assumed

    def inspection(self) -> _inspect.Inspection:
        return _inspect.inspect(self.encoding, self.original_length, self.length)


def load_all(words: list[str], options: argparse.Namespace) -> list[Target]:
    """Read one target, or several within the same lengths."""
    configs = [word for word in words if is_config(word)]
    if options.config and len(configs) == len(words):
        raise _ropewalk.Error(f"ropewalk: --config needs an expression, but {words[0]} is a configuration")
    for name in ("head_dim", "base", "rotary_dim"):
        option = f"--{name.replace('_', '-')}"
        if getattr(options, name) is not None and options.config:
            raise _ropewalk.Error(f"ropewalk: {option} and --config exclude each other; the file has this number")
        if getattr(options, name) is not None and len(configs) == len(words):
            raise _ropewalk.Error(f"ropewalk: {option} needs an expression, but {words[0]} is a configuration")
    return load_alike(words, options) if len(words) > 1 else [load(words[0], options)]


def load(word: str, options: argparse.Namespace) -> Target:
    """Read an expression, or the configuration in a file or folder.

    A policy that depends on the sequence length is shown at the extended length, unless the options state another.
    """
    encoding = make(word, options, options.sequence_length)
    of_policy = _inspect.original_length_of(encoding)
    of_config: tuple[int | None, int | None] = (None, None)
    if is_config(word):
        of_config = config_lengths(word, encoding)
    elif options.config:
        own = config_lengths(options.config, own_encoding(options))[0]
        of_config = (own if of_policy in (None, own) else None), None  # the policy has the last word
    file = word if is_config(word) else options.config
    sources = [(options.original_length, ""), (of_config[0], f" (of {file})"), (of_policy, " (of the policy)")]
    missing = (None, " (assumed; set --original-length or --config)")
    original, note = next((source for source in sources if source[0] is not None), missing)
    length = of_config[1] if options.length is None and options.original_length is None else options.length
    lengths = _inspect.lengths(encoding, original, length)
    if options.sequence_length is None:
        encoding = at_length(encoding, word, options, lengths[1])
    return Target(encoding, *lengths, {"head": head_note(word, options), "lengths": note}, original)


def head_note(word: str, options: argparse.Namespace) -> str:
    """Return the source of head_dim and base, in the words of the command line."""
    if is_config(word) or options.config:
        return f" (of {word if is_config(word) else options.config})"
    assumed = [name for name in ("head_dim", "base") if getattr(options, name) is None]
    ways = ", ".join(f"--{name.replace('_', '-')}" for name in assumed)
    only = f"{assumed[0]} " if len(assumed) == 1 else ""
    return f" ({only}assumed; set {ways} or --config)" if assumed else ""


def load_alike(words: list[str], options: argparse.Namespace) -> list[Target]:
    """Read all targets within the same lengths: the largest stated original length and the largest extended length."""
    targets = [load(word, options) for word in words]
    stated = [target for target in targets if target.stated_length is not None]
    longest = max(stated, key=lambda target: target.original_length, default=targets[0])
    options.original_length = longest.original_length
    if options.length is None:
        extended = [_inspect.lengths(target.encoding, options.original_length)[1] for target in targets]
        options.length = max(*extended, *(target.length for target in stated))
    note = longest.notes["lengths"]
    alike = [load(word, options) for word in words]
    return [replace(target, notes={**target.notes, "lengths": note}) for target in alike]


def is_config(word: str) -> bool:
    return word.endswith(".json") or os.sep in word or os.path.exists(os.path.join(word, "config.json"))


def make(word: str, options: argparse.Namespace, sequence_length: int | None) -> _ropewalk.Encoding:
    """Make the encoding of a configuration, of an expression with the geometry of --config, or of the options."""
    if is_config(word):
        return from_config(word, options.layer_type, sequence_length, options.layout)
    if options.config:
        return from_config(options.config, options.layer_type, sequence_length, options.layout, word)
    head_dim = 128 if options.head_dim is None else options.head_dim
    base = 10000.0 if options.base is None else options.base
    layout = options.layout or "half_split"
    return _ropewalk.Encoding(word, head_dim, base, options.rotary_dim, 0, layout, sequence_length)


def own_encoding(options: argparse.Namespace) -> _ropewalk.Encoding:
    """Return the encoding of --config with its own scaling method, or with none if that is not supported."""
    try:
        return from_config(options.config, options.layer_type)
    except _ropewalk.Error:
        return from_config(options.config, options.layer_type, policy="default")


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
    whole = _files.parse_json(text_of(path_of(path)), path)
    text = whole.get("text_config")
    return text if isinstance(text, dict) else whole


def whole_number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
