"""Functions that make encodings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ropewalk import _files, _ropewalk

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 16 << 20  # as in parse_config.hpp


def check_encoding(encoding: object) -> None:
    """Throw the TypeError of the compiled module for an object that is no encoding."""
    if not isinstance(encoding, _ropewalk.Encoding):
        raise TypeError(
            f"ropewalk: encoding must be a ropewalk.Encoding, got {type(encoding).__name__}; call ropewalk.encoding()"
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
    """Make the encoding of one head shape.

    Args:
        policy: An expression such as "linear:4|truncated:4096", or objects such as Linear(4) | Truncated(4096).
            "default" is plain RoPE.
        head_dim: Elements per head.
        base: Base of the frequencies, `rope_theta`. Plain RoPE rotates pair j by base**(-2j/rotary_dim) radians per
            token (arXiv 2104.09864, eq. 15).
        rotary_dim: Elements of a head to rotate, an even number. The default is all from rotary_offset on.
        rotary_offset: The first element to rotate.
        layout: "half_split", pairs (j, j + rotary_dim/2), or "interleaved", pairs (2j, 2j + 1).
        sequence_length: Tokens of the sequence, for policies that depend on it.

    Returns:
        The encoding, immutable.

    Raises:
        Error: The geometry or a parameter is invalid.
    """
    return _ropewalk.Encoding(policy, head_dim, base, rotary_dim, rotary_offset, layout, sequence_length)


def from_config(
    config: str | os.PathLike[str] | Mapping[str, Any],
    layer_type: str | None = None,
    sequence_length: int | None = None,
    layout: str | None = None,
    policy: str | _ropewalk.Policy | None = None,
) -> _ropewalk.Encoding:
    """Make the encoding of a Hugging Face model from its configuration.

    Args:
        config: The path of a config.json or of its folder, a dict, or a configuration object of Transformers.
        layer_type: "full_attention", "sliding_attention" and so on, if the layers of the model differ.
        sequence_length: Tokens of the sequence, for scaling methods that depend on it.
        layout: Replaces the layout of this kind of model.
        policy: Replaces the configuration's scaling method, for example "yarn:8,original_length=4096". Base, widths and
            mrope_section stay.

    Returns:
        The encoding.

    Raises:
        Error: The scaling method is unknown, lacks a key, has an unknown key or contradicts itself. The message names
            the key. Or the path is a FIFO or a device, or the file has more than 16 MiB.
        OSError: The file cannot be read.
        TypeError: config is none of the kinds above.
    """
    if isinstance(config, (str, os.PathLike)):
        path = path_of(config)
        name = str(path).encode("utf-8", "backslashreplace").decode()
        return _ropewalk.encoding_from_config(text_of(path), name, layer_type, sequence_length, layout, policy)
    keys = config.to_dict() if hasattr(config, "to_dict") else config
    if not isinstance(keys, Mapping):
        raise TypeError(
            f"ropewalk: config must be a path, a dict or a configuration of Transformers, got {type(config).__name__}"
        )
    try:
        text = json.dumps(dict(keys), default=str)
    except (TypeError, ValueError, RecursionError) as problem:  # keys of other types, cycles, integers of 5,000 digits
        raise _ropewalk.Error(f"ropewalk: config cannot be written as JSON: {problem}") from None
    return _ropewalk.encoding_from_config(text, "the configuration", layer_type, sequence_length, layout, policy)


def path_of(config: str | os.PathLike[str], name: str = "config") -> Path:
    """Return the path of a configuration, or of the config.json in a folder."""
    path = _files.as_path(config, name)
    return path / "config.json" if path.is_dir() else path


def text_of(path: Path) -> str:
    """Return the text of a configuration."""
    return _files.read_text(path, MAX_BYTES)


def to_hf_config(encoding: _ropewalk.Encoding) -> dict[str, Any]:
    """Return an encoding as keys of a Hugging Face config.json, which from_config() reads.

    Power, truncated, ntk and chains of policies become `longrope`, with default.inv_freq / encoding.inv_freq in both
    lists of factors and 1e30 for a pair of frequency 0. write_hf_config() writes into a file.

    Args:
        encoding: The encoding to write.

    Returns:
        `rope_parameters`, the older `rope_scaling`, `rope_theta`, `head_dim` and `partial_rotary_factor`, to be merged
        into the configuration or its `text_config`; also `rope_interleave`, `max_position_embeddings` and
        `original_max_position_embeddings` if needed.

    Raises:
        Error: A configuration cannot express the encoding: xpos, randomized positions, a rotary_offset, "dynamic" or
            "longrope" among other policies.
    """
    keys: dict[str, Any] = json.loads(_ropewalk.encoding_to_config(encoding))
    return keys


def to_vllm_overrides(encoding: _ropewalk.Encoding) -> dict[str, Any]:
    """Return an encoding as the argument of vLLM's --hf-overrides, a dict for JSON.

    Args:
        encoding: The encoding to write.

    Returns:
        `rope_parameters`, with vLLM's own names of the attention factor, and lengths.

    Raises:
        Error: As for to_hf_config().
    """
    overrides: dict[str, Any] = json.loads(_ropewalk.encoding_to_vllm(encoding))
    return overrides


def to_llama_cpp_flags(encoding: _ropewalk.Encoding) -> str:
    """Return an encoding as flags of llama.cpp, such as "--rope-scaling linear --rope-scale 8 --rope-freq-base 10000".

    Args:
        encoding: The encoding to write.

    Returns:
        The flags.

    Raises:
        Error: As for to_hf_config(), or llama.cpp has no flags for the encoding. The message has the reason.
    """
    return _ropewalk.encoding_to_llama_cpp(encoding)
