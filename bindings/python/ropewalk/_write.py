"""Writer of encodings into the config.json of a model."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np

from ropewalk import _files, _inspect, _ropewalk
from ropewalk._encoding import check_encoding, path_of, text_of, to_hf_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LANGUAGE_MODELS = ("text_config", "language_config", "llm_config", "thinker_config")
SECTIONS = ("rope_parameters", "rope_scaling")
BASES = ("rotary_emb_base", "rotary_embedding_base", "rope_embedding_base", "global_rope_theta")  # as rope_theta
SUPERSEDED = ("abacus_scale",)  # the scaling of early Giraffe models
# Widths and layout belong to the weights, so they stay as the file has them.
OF_THE_WEIGHTS = ("head_dim", "rotary_dim", "rotary_offset", "layout")
KEYS_OF_THE_WEIGHTS = ("head_dim", "partial_rotary_factor", "rope_interleave")
WITHOUT_SCALING = ("gptj", "codegen")
LENGTHS = (1, 2**30)  # a policy that depends on the length differs between them


def write_hf_config(encoding: _ropewalk.Encoding, path: str | os.PathLike[str], layer_type: str | None = None) -> Path:
    """Write an encoding into the config.json of a model.

    The scaling method and the base change, in the language model's part of the file: in `rope_parameters` if the file
    has it, and in the older `rope_scaling` and `rope_theta` if it has one of these, or none of the three. Every version
    of Transformers reads the older keys. All other keys stay. The new file replaces the old one in one step, after
    from_config() has read the encoding back from it. A symbolic link is replaced by a file, so that a file in a shared
    cache stays as it is.

    Args:
        encoding: The encoding to write.
        path: A config.json or its folder.
        layer_type: The layers that get the encoding, such as "full_attention", if those of the model differ.

    Returns:
        The path of the file.

    Raises:
        Error: The file cannot express the encoding, or the encoding does not fit the head, the rotary part or the
            layout of the model. The file is then unchanged.
        OSError: The file cannot be read or written.
    """
    check_encoding(encoding)
    file = path_of(path, "path")
    text = text_of(file)
    check_weights(encoding, read(text, file, layer_type, policy="default"), file)
    whole = _files.parse_json(text, str(file))
    model = language_model(whole)
    if model.get("model_type") in WITHOUT_SCALING:
        raise _ropewalk.Error(f"ropewalk: the code of {model['model_type']} reads no scaling method and no base")
    before = {name: key_of(text, file, name) for name in layer_types(model)}
    differ = len({key for key in before.values() if key is not None}) > 1
    if differ and layer_type is None:
        raise _ropewalk.Error(
            f"ropewalk: the layers of {file} have several encodings; pass layer_type, one of {', '.join(before)}"
        )
    set_encoding(model, to_hf_config(encoding), layer_type, differ)
    new = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    replace(file, new, lambda written: check_written(written, file, encoding, layer_type, before))
    return file


def read(
    text: str, file: Path, layer_type: str | None, length: int | None = None, policy: str | None = None
) -> _ropewalk.Encoding:
    return _ropewalk.encoding_from_config(text, str(file), layer_type, length, None, policy)


def key_of(text: str, file: Path, layer_type: str) -> str | None:
    """Return the key of the encoding of one layer type, or None if the reader refuses it."""
    try:
        return read(text, file, layer_type).key
    except _ropewalk.Error:
        return None


def check_weights(encoding: _ropewalk.Encoding, own: _ropewalk.Encoding, file: Path) -> None:
    for name in OF_THE_WEIGHTS:
        of_model, wanted = getattr(own, name), getattr(encoding, name)
        if of_model != wanted:
            raise _ropewalk.Error(
                f"ropewalk: {file} has {name} {of_model}, which belongs to the weights, but the encoding has {wanted}"
            )
    of_model, wanted = sections_of(own), sections_of(encoding)
    if of_model != wanted:
        raise _ropewalk.Error(
            f"ropewalk: {file} has {of_model or 'no mrope'}, but the encoding has {wanted or 'no mrope'}; use "
            "from_config(path, policy=...), which keeps the sections"
        )


def language_model(whole: dict[str, Any]) -> dict[str, Any]:
    """Return the language model's part of a configuration."""
    for name in LANGUAGE_MODELS:
        if isinstance(whole.get(name), dict):
            return language_model(whole[name])
    return whole


def layer_types(model: dict[str, Any]) -> list[str]:
    """Return the names of the layer types, in order."""
    listed = model.get("layer_types")
    names = listed if isinstance(listed, list) else ["full_attention", "sliding_attention"]
    parts = [name for key in SECTIONS for name in model.get(key) or () if is_nested(model[key])]
    return list(dict.fromkeys([*names, *parts]))


def is_nested(section: Any) -> bool:
    """Return whether a section has one part per layer type."""
    return isinstance(section, dict) and any(isinstance(part, dict) for part in section.values())


def set_encoding(model: dict[str, Any], keys: dict[str, Any], layer_type: str | None, differ: bool) -> None:
    """Replace the keys of the scaling method and of the base, in the spellings that the model has.

    Plain RoPE needs a section, because the code of some models scales without one. If layers differ, Transformers would
    take a new section for that of all layers.
    """
    nested = [model[key] for key in SECTIONS if is_nested(model.get(key))]
    for section in nested:
        section[layer_type or next(iter(section))] = keys["rope_parameters"]
    if nested:
        return
    section = keys["rope_parameters"]
    has_section, has_old = "rope_parameters" in model, bool({"rope_scaling", "rope_theta"} & model.keys())
    if not has_section and (differ or keys["rope_scaling"] is not None):
        del keys["rope_parameters"]
    elif has_section and not has_old:
        del keys["rope_scaling"], keys["rope_theta"]
    elif keys["rope_scaling"] is not None and "partial_rotary_factor" in section:
        # Transformers 5 reads the older section alone if there are two.
        keys["rope_scaling"]["partial_rotary_factor"] = section["partial_rotary_factor"]
    model.update({key: value for key, value in keys.items() if key not in KEYS_OF_THE_WEIGHTS})
    model.update({key: section["rope_theta"] for key in BASES if model.get(key) is not None})
    for key in SUPERSEDED:
        model.pop(key, None)


def check_written(
    text: str, file: Path, encoding: _ropewalk.Encoding, layer_type: str | None, before: dict[str, str | None]
) -> None:
    """Throw unless the text has the encoding for its layers, and other layers as before."""
    try:
        for length in (encoding.sequence_length, *LENGTHS):
            expected = _inspect.like(encoding, encoding.expression, length)
            for name in [layer_type] if layer_type else [None, *(name for name in before if before[name])]:
                written = read(text, file, name, length)
                if not same(written, expected):
                    raise _ropewalk.Error(f"ropewalk: it would be read as {written}")
        for name, key in before.items():
            if layer_type and name != layer_type and key_of(text, file, name) != key:
                raise _ropewalk.Error(f"ropewalk: the layers of type {name} would change, too")
    except _ropewalk.Error as problem:
        reason = str(problem).removeprefix("ropewalk: ")
        raise _ropewalk.Error(
            f"ropewalk: {file} cannot express '{encoding.expression}' and is unchanged: {reason}"
        ) from None


def same(one: _ropewalk.Encoding, other: _ropewalk.Encoding) -> bool:
    """Compare numbers, because a file has other names for some policies."""
    names = (*OF_THE_WEIGHTS, "base")
    factors = ("attention_factor", "softmax_factor")
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and sections_of(one) == sections_of(other)
        and np.allclose([getattr(one, f) for f in factors], [getattr(other, f) for f in factors], rtol=1e-12, atol=0)
        and np.allclose(one.inv_freq, other.inv_freq, rtol=1e-12, atol=1e-29)  # 0 is written as 1e-30
    )


def sections_of(encoding: _ropewalk.Encoding) -> str:
    """Return the mrope policy, or nothing."""
    return "|".join(part for part in encoding.expression.split("|") if part.startswith("mrope"))


def replace(file: Path, text: str, check: Callable[[str], None]) -> None:
    """Write a new file next to the old one, check what it holds, and put it in its place."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as new:
            new.write(text)
            new.flush()
            os.fsync(descriptor)
        with open(name, encoding="utf-8") as new:
            check(new.read())
        shutil.copymode(file, name)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
