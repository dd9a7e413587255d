"""Policies of patch() in the configuration of a model, for save_pretrained()."""

from __future__ import annotations

import copy
import functools
import json
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from ropewalk import _ropewalk
from ropewalk._encoding import to_hf_config
from ropewalk._patched import PatchedRotaryEmbedding, Schedule
from ropewalk._trial import AtLength, Fit, Rotation, expresses

_KEYS = ("rope_parameters", "max_position_embeddings")
_KEPT = ("partial_rotary_factor", "mrope_section", "mrope_interleaved")  # of the rope section of a configuration


class Change(NamedTuple):
    """A rotary module, or one of its layer types, whose policy is not that of the configuration."""

    child: torch.nn.Module
    config: Any
    layer_type: str | None
    schedule: Schedule
    at: AtLength
    rotation: Rotation
    fit: Fit


def _written(model: torch.nn.Module, changes: list[Change]) -> dict[int, Any]:
    """Return copies of the configurations of a model with its policies, by id of the original.

    Copies, because other models may share the originals. Throws if Transformers would make another encoding of them.
    """
    copies: dict[int, Any] = {}
    for config in (getattr(model, "config", None), *(change.config for change in changes)):
        copy.deepcopy(config, copies)
    for change in changes:
        config = copies[id(change.config)]
        if not hasattr(config, "rope_parameters"):
            raise _ropewalk.Error(f"{type(config).__name__} has no rope_parameters")
        keys, parameters = to_hf_config(change.schedule.fixed), config.rope_parameters
        before = (parameters if change.layer_type is None else parameters[change.layer_type]) or {}
        section = {**{key: before[key] for key in _KEPT if key in before}, **keys["rope_parameters"]}
        config.rope_parameters = section if change.layer_type is None else {**parameters, change.layer_type: section}
        if "max_position_embeddings" in keys:  # the original length of dynamic
            config.max_position_embeddings = keys["max_position_embeddings"]
    for change in changes:
        config = copies[id(change.config)]
        loaded = type(config).from_dict(json.loads(json.dumps(config.to_dict(), default=str)))
        if not expresses(change.child, loaded, change.layer_type, change.at, change.rotation, change.fit):
            raise _ropewalk.Error(
                f"{type(change.child).__name__} does not read '{change.schedule.encoding.expression}' from it"
            )
    return copies


def save_policies(model: torch.nn.Module, changes: list[Change], patched: Iterable[PatchedRotaryEmbedding]) -> None:
    """Give a model configurations with its policies. If that is not possible, make save_pretrained() warn."""
    by_child = {one.original: one for one in patched}
    draws = [change.schedule.encoding for change in changes if change.schedule.encoding.draws_positions]
    reason = f"'{draws[0].expression}' draws positions in training" if draws else None
    try:
        copies = _written(model, changes)
    except Exception as problem:  # also of configurations that are not those of Transformers
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
