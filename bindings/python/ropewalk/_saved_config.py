"""Policies of patch() in the configuration of a model, for save_pretrained()."""

from __future__ import annotations

import copy
import functools
import json
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from ropewalk import _ropewalk
from ropewalk._encoding import encoding as make_encoding
from ropewalk._encoding import to_hf_config
from ropewalk._patched import PatchedRotaryEmbedding, Schedule, with_policy
from ropewalk._trial import AtLength, Fit, Rotation, expresses

_KEYS = ("rope_parameters", "max_position_embeddings")
# Keys of a section that belong to its scaling method. The others, such as mrope_section, stay.
_SCALING = {
    *("rope_type", "type", "factor", "alpha", "beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim"),
    *("attention_factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "finetuned"),
    *("short_factor", "long_factor", "short_mscale", "long_mscale"),
}


class Change(NamedTuple):
    """A rotary module, or one of its layer types, whose policy is not that of the configuration."""

    child: torch.nn.Module
    config: Any
    layer_type: str | None
    schedule: Schedule
    at: AtLength
    rotation: Rotation
    fit: Fit


def _as_it_is(change: Change) -> _ropewalk.Encoding:
    return change.schedule.fixed


def _as_proportional(change: Change) -> _ropewalk.Encoding:
    """Return proportional with a factor for proportional and linear, which Gemma-4 can read."""
    encoding = change.schedule.fixed
    parts = [_ropewalk.policy(part) for part in encoding.expression.split("|")]
    if [type(part) for part in parts] != [_ropewalk.Proportional, _ropewalk.Linear]:
        return encoding
    _, (fraction, factor) = parts[0].__reduce__()
    _, (times,) = parts[1].__reduce__()
    return with_policy(encoding, str(_ropewalk.Proportional(fraction, factor * times)), None)


def _as_long_rope(change: Change) -> _ropewalk.Encoding:
    """Return longrope with equal lists, the only scaling method that Phi-3 can read."""
    encoding = change.schedule.fixed
    if change.schedule.follows_length:
        return encoding
    frequencies = zip(with_policy(encoding, "default", None).inv_freq, encoding.inv_freq)
    factors = [float(plain / scaled) if scaled else 1e30 for plain, scaled in frequencies]
    length = int(getattr(change.config, "max_position_embeddings", 4096))
    long_rope = _ropewalk.LongRope(factors, factors, 1.0, length, encoding.attention_factor)
    sections = [part for part in encoding.expression.split("|") if hasattr(_ropewalk.policy(part), "sections")]
    return with_policy(encoding, "|".join((str(long_rope), *sections)), None)


def _section(encoding: _ropewalk.Encoding, before: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an encoding as a rope section, with the keys of the previous one that do not scale, and as a config."""
    if encoding.rotary_offset:  # sections have no key for it, nor for the rest of the head
        e = encoding
        encoding = make_encoding(e.expression, e.rotary_dim, e.base, layout=e.layout)
    keys = to_hf_config(encoding)
    section = {**{key: value for key, value in before.items() if key not in _SCALING}, **keys["rope_parameters"]}
    if "llama_4_scaling_beta" in before:  # the attention of Ministral-3 uses the original length too
        original = before["original_max_position_embeddings"]
        if section.setdefault("original_max_position_embeddings", original) != original:
            raise _ropewalk.Error("llama_4_scaling_beta of the attention depends on original_max_position_embeddings")
    return section, keys


def _written(model: torch.nn.Module, changes: list[Change], form: Callable[[Change], Any]) -> dict[int, Any]:
    """Return copies of the configurations of a model with its policies, by id of the original.

    Copies, because other models may share the originals. Throws if Transformers would make another encoding of them.
    """
    copies: dict[int, Any] = {}
    copy.deepcopy(getattr(model, "config", None), copies)
    for change in changes:
        kind = type(change.config).__name__
        if id(change.config) not in copies:
            raise _ropewalk.Error(f"{type(change.child).__name__} has a {kind} that is not in the one of the model")
        config = copies[id(change.config)]
        if not hasattr(config, "rope_parameters"):
            raise _ropewalk.Error(f"{kind} has no rope_parameters")
        parameters = config.rope_parameters
        before = (parameters if change.layer_type is None else parameters[change.layer_type]) or {}
        section, keys = _section(form(change), before)
        config.rope_parameters = section if change.layer_type is None else {**parameters, change.layer_type: section}
        if "max_position_embeddings" in keys:  # the original length of dynamic
            config.max_position_embeddings = keys["max_position_embeddings"]
    for change in changes:
        config, name = copies[id(change.config)], type(change.child).__name__
        try:
            loaded = type(config).from_dict(json.loads(json.dumps(config.to_dict(), default=str)))
            reads = expresses(change.child, loaded, change.layer_type, change.at, change.rotation, change.fit)
        except Exception as problem:
            text = " ".join(str(problem).split())
            raise _ropewalk.Error(f"{name} cannot be made from it ({type(problem).__name__}: {text})") from problem
        if not reads:
            raise _ropewalk.Error(f"{name} does not read '{change.schedule.encoding.expression}' from it")
    return copies


def _copies(model: torch.nn.Module, changes: list[Change]) -> dict[int, Any]:
    """Return the copies of the first form that Transformers reads, or throw the error of the first one."""
    problems: list[Exception] = []
    for form in (_as_it_is, _as_proportional, _as_long_rope):
        try:
            return _written(model, changes, form)
        except Exception as problem:  # also of configurations that are not those of Transformers
            problems.append(problem)
    raise problems[0]


def save_policies(model: torch.nn.Module, changes: list[Change], patched: Iterable[PatchedRotaryEmbedding]) -> None:
    """Give a model configurations with its policies. If that is not possible, make save_pretrained() warn."""
    by_child = {one.original: one for one in patched}
    draws = [change.schedule.encoding for change in changes if change.schedule.encoding.draws_positions]
    reason = f"'{draws[0].expression}' draws positions in training" if draws else None
    try:
        copies = _copies(model, changes)
    except Exception as problem:
        reason = str(problem).removeprefix("ropewalk: ")
    else:
        for module in model.modules():
            config = module.__dict__.get("config")
            if config is not None and id(config) in copies and module not in by_child:
                module.config = copies[id(config)]
        for change in changes:
            values = {key: getattr(change.config, key) for key in _KEYS if hasattr(change.config, key)}
            by_child[change.child].written.append((copies[id(change.config)], values))
    if reason is None:
        return
    for module in model.modules():
        if hasattr(module, "save_pretrained") and not by_child.keys().isdisjoint(module.modules()):
            module.__dict__["save_pretrained"] = functools.partial(_save_and_warn, module, reason)


def _save_and_warn(model: Any, reason: str, *arguments: Any, **named: Any) -> Any:
    warnings.warn(
        f"ropewalk: the saved configuration does not have the policy of patch(), because {reason}; patch the model "
        "again once it is loaded",
        stacklevel=2,
    )
    return type(model).save_pretrained(model, *arguments, **named)


def restore_configs(model: torch.nn.Module, patched: PatchedRotaryEmbedding) -> None:
    """Undo save_policies() for one rotary module."""
    for config, values in patched.written:
        for key, value in values.items():
            setattr(config, key, value)
        patched.original.config = config
    for module in model.modules():
        module.__dict__.pop("save_pretrained", None)
