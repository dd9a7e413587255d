"""Making encodings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ropewalk import _ropewalk


def check_encoding(encoding: object) -> None:
    """TypeError for what is no encoding, in the words of the calls that the module checks itself."""
    if not isinstance(encoding, _ropewalk.Encoding):
        raise TypeError(
            f"ropewalk: encoding must be a ropewalk.Encoding, got {type(encoding).__name__}: "
            "ropewalk.encoding() makes one"
        )


def encoding(
    policy: str | _ropewalk.Policy,
    head_dim: int,
    base: float = 10000.0,
    rotary_dim: int | None = None,
    rotary_offset: int = 0,
    layout: str = "half_split",
    sequence_length: int | None = None,
) -> _ropewalk.Encoding:
    """Work out the frequencies of one head shape.

    policy: an expression such as "linear:4|truncated:4096", or objects such as Linear(4) | Truncated(4096); "default"
        is plain RoPE.
    head_dim: elements a head.
    base: `rope_theta`; pair j of plain RoPE turns by base**(-2j/rotary_dim) radians a token (arXiv 2104.09864, eq. 15).
    rotary_dim: elements that turn, even; the others pass through. All behind rotary_offset by default.
    rotary_offset: the first element that turns.
    layout: "half_split", pairs (j, j + rotary_dim/2), or "interleaved", pairs (2j, 2j + 1).
    sequence_length: tokens, for policies that depend on it.

    Throws Error when the geometry or a parameter makes no sense.
    """
    return _ropewalk.Encoding(policy, head_dim, base, rotary_dim, rotary_offset, layout, sequence_length)


def from_config(
    config: str | os.PathLike[str] | Mapping[str, Any],
    layer_type: str | None = None,
    sequence_length: int | None = None,
    layout: str | None = None,
    policy: str | _ropewalk.Policy | None = None,
) -> _ropewalk.Encoding:
    """Make the encoding that a Hugging Face model's configuration asks for.

    config: the path of a config.json or of the folder with it, a dict, or a configuration object of Transformers.
    layer_type: "full_attention", "sliding_attention", ... where the layers of a model differ.
    sequence_length: tokens, for schemes that depend on it.
    layout: overrides the layout that the kind of model has.
    policy: "yarn:8,original_length=4096", say, in place of the configuration's scheme; base, widths and mrope_section
        stay.

    Throws Error, one line that names the key, for a scheme that is unknown, lacks something, has a key that is not
    known for it or contradicts itself.
    """
    source = "the configuration"
    if isinstance(config, (str, os.PathLike)):
        path = Path(config)
        path = path / "config.json" if path.is_dir() else path
        source = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as problem:
            raise _ropewalk.Error(f"ropewalk: {source} is no text in UTF-8: {problem}") from None
    else:
        plain = config.to_dict() if hasattr(config, "to_dict") else config
        if not isinstance(plain, Mapping):
            raise TypeError(
                "ropewalk: config must be a path, a dict or a configuration of Transformers, got "
                f"{type(config).__name__}"
            )
        text = json.dumps(dict(plain), default=str)
    return _ropewalk.encoding_from_config(text, source, layer_type, sequence_length, layout, policy)


def to_hf_config(encoding: _ropewalk.Encoding) -> dict[str, Any]:
    """Write an encoding as keys of a Hugging Face config.json, which from_config reads back.

    Returns `rope_parameters`, the older `rope_scaling`, `rope_theta`, `head_dim` and `partial_rotary_factor`, to be
    merged into the model's configuration, into its `text_config` where it has one (`rope_interleave`,
    `max_position_embeddings` and `original_max_position_embeddings` where they are needed); `vllm_overrides`, the
    object for vLLM's --hf-overrides; `llama_cpp_flags`, text or None, and then `llama_cpp_reason` says why. Power,
    truncated, ntk and several policies in a row become `longrope` with the factors
    `default.inv_freq / encoding.inv_freq` in both lists, 1e30 for a pair that stands still.

    Throws Error for what a configuration cannot say: xpos, randomized positions, a rotary_offset, "dynamic" or
    "longrope" among other policies.
    """
    keys: dict[str, Any] = json.loads(_ropewalk.encoding_to_config(encoding))
    return keys
