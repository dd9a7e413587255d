"""Replacement of the rotation in Hugging Face models.

A model computes cos and sin once per forward pass (`rotary_emb`) and passes them to every layer, where functions of the
module, such as `apply_rotary_pos_emb`, multiply by them. patch() makes `rotary_emb` pass positions instead, and makes
the functions that take cos and sin call rotate() for them. They stay as they are for models that are not patched.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Union

import torch

from ropewalk import _ropewalk
from ropewalk._encoding import encoding as make_encoding
from ropewalk._encoding import from_config
from ropewalk._patched import PatchedRotaryEmbedding, Schedule, install, order_of, with_length, without_draws
from ropewalk._rotate import rotate
from ropewalk._saved_config import Change, restore_configs, save_policies
from ropewalk._trial import AtLength, Rotation, fitted, has_axes

Policies = Union[str, _ropewalk.Policy, Mapping[str, Union[str, _ropewalk.Policy, None]], None]

# Layer types that attend to a part of the context. "main" is that of the sliding layers of DeepSeek-V4.
_LOCAL = ("sliding", "chunked", "local")
_LOCAL_NAMES = ("main",)


class _Candidate(NamedTuple):
    """A rotary module of the language model."""

    parent: torch.nn.Module
    name: str
    child: torch.nn.Module
    config: Any

    @property
    def kind(self) -> str:
        return type(self.child).__name__


def _kinds(model: torch.nn.Module) -> list[type]:
    return list(dict.fromkeys(type(module) for module in model.modules()))


class _Functions:
    """The functions that the classes of a model can call to rotate, and by key the modules that hold them."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.rotations: dict[str, Rotation] = {}
        self.places: dict[str, list[tuple[str, str]]] = {}
        bases = {base: None for kind in _kinds(model) for base in kind.__mro__}
        names = dict.fromkeys(base.__module__ for base in bases if issubclass(base, torch.nn.Module))
        for module_name in names:
            if module_name.partition(".")[0] not in ("torch", "ropewalk") and module_name in sys.modules:
                self._add(module_name)
        if not self.rotations:
            raise _ropewalk.Error(
                f"ropewalk: no function of {type(model).__name__} takes heads, cos and sin; patch() does not support "
                "models whose attention modules rotate by themselves"
            )

    def _add(self, module_name: str) -> None:
        for name, function in list(vars(sys.modules[module_name]).items()):
            rotation = Rotation.of(function)
            if rotation is not None:
                self.rotations.setdefault(rotation.key, rotation)
                self.places.setdefault(rotation.key, []).append((module_name, name))


def _children(
    module: torch.nn.Module, config: Any = None, seen: set[int] | None = None
) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Module, Any]]:
    """Yield every (parent, name, child, config). named_children() would skip the second name of a shared child.

    config is that of the child, or of the closest module that contains it.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"ropewalk: model must be a torch.nn.Module, got {type(module).__name__}")
    seen = set() if seen is None else seen
    seen.add(id(module))
    config = getattr(module, "config", None) or config
    for name, child in module._modules.items():
        if child is not None:
            yield module, name, child, getattr(child, "config", None) or config
            if id(child) not in seen:
                yield from _children(child, config, seen)


def _language_configs(config: Any) -> tuple[type, ...]:
    """Return the classes of the configurations of the language model, () if the model has nothing else."""
    kinds = set()
    for role in ({}, {"decoder": True}, {"encoder": True}):
        try:
            kinds.add(type(config.get_text_config(**role)))
        except Exception:  # the role is ambiguous, or there is no such method
            continue
    encoder: Any = getattr(config, "encoder", None)  # with text and images in T5Gemma-2
    if hasattr(encoder, "get_text_config") and encoder.get_text_config() is not encoder:
        kinds.add(type(encoder.get_text_config()))
    return () if kinds <= {type(config)} else tuple(kinds)


def _candidates(model: torch.nn.Module) -> list[_Candidate]:
    """Return the rotary modules of the language model. Towers for images and audio keep theirs."""
    found: list[_Candidate] = []
    towers: list[_Candidate] = []
    children = list(_children(model))
    kinds = _language_configs(getattr(model, "config", None))
    for parent, name, child, config in children:
        if isinstance(child, PatchedRotaryEmbedding):
            raise _ropewalk.Error("ropewalk: the model is already patched; call unpatch() first")
        kind = type(child).__name__
        if kind.endswith("RotaryEmbedding"):
            one = _Candidate(parent, name, child, config)
            (towers if (kinds and type(config) not in kinds) or "Vision" in kind else found).append(one)
    if not found:
        reason = "has no rotary_emb that patch() supports"
        if towers:
            names = ", ".join(dict.fromkeys(one.kind for one in towers))
            reason = f"has rotary embeddings in towers only ({names}), which patch() leaves as they are"
        elif any(
            "rotary" in name.lower() for *_, child, _ in children for name in (*dir(type(child)), type(child).__name__)
        ):
            reason = "rotates in its attention modules, without a rotary_emb; patch() does not support this kind"
        raise _ropewalk.Error(f"ropewalk: {type(model).__name__} {reason}")
    return found


def _layer_types(one: _Candidate) -> list[str | None]:
    """Return the layer types that rotate. Throws for a forward() with unknown arguments."""
    inputs = list(inspect.signature(type(one.child).forward).parameters)[1:]
    if inputs == ["x", "position_ids"]:
        return [None]
    if inputs != ["x", "position_ids", "layer_type"]:
        raise _ropewalk.Error(
            f"ropewalk: {one.kind} ({one.name}) takes {inputs}; patch() supports rotary modules that take "
            "['x', 'position_ids'] or ['x', 'position_ids', 'layer_type']"
        )
    parameters = getattr(one.config, "rope_parameters", None)
    parameters = parameters if isinstance(parameters, Mapping) else {}
    types = sorted(key for key, section in parameters.items() if isinstance(section, Mapping))
    held = getattr(one.child, "layer_types", types)
    if types:
        return [layer_type for layer_type in types if layer_type in held]
    return [None]


def _is_local(layer_type: str) -> bool:
    return layer_type in _LOCAL_NAMES or any(word in layer_type for word in _LOCAL)


def _policies(found: list[_Candidate], layer_types: list[list[str | None]], policy: Policies) -> list[dict[Any, Any]]:
    """Return the policy of each rotary module by layer type, None for that of the configuration."""
    known = {name for types in layer_types for name in types if name is not None}
    if isinstance(policy, Mapping):
        unknown = [name for name in policy if name not in known]
        if unknown:
            raise _ropewalk.Error(
                f"ropewalk: policy has the layer types {list(policy)}, but {found[0].kind} has "
                + (f"{sorted(known)}" if known else "one encoding for all layers; pass one policy")
            )
        return [{name: policy.get(name) for name in types if name} for types in layer_types]
    whole = [[name for name in types if name is None or not _is_local(name)] for types in layer_types]
    if policy is not None and not any(whole):
        raise _ropewalk.Error(
            f"ropewalk: a policy changes the layers with full attention, but {found[0].kind} has {sorted(known)} only; "
            f"pass a policy per layer type, such as {{'{min(known)}': {str(policy)!r}}}"
        )
    return [{name: policy if name in full else None for name in types} for types, full in zip(layer_types, whole)]


def _encodings_of(
    one: _Candidate, layer_type: str | None, policy: str | _ropewalk.Policy | None
) -> tuple[AtLength, AtLength, list[_ropewalk.Encoding]]:
    """Return two functions of the length, and a list.

    The functions return the encoding of the configuration and the one to use. The list has the one to use for an
    unknown length, the shortest one and the longest one.
    """
    config = one.config
    if not hasattr(config, "to_dict") and not isinstance(config, Mapping):
        raise _ropewalk.Error(f"ropewalk: {one.kind} has no config with its head_dim and base")
    if hasattr(config, "to_dict"):
        keys = config.to_dict()
        # Other names of a key: Moonshine has num_attention_heads for encoder_num_attention_heads.
        names = [name for name in getattr(config, "attribute_map", {}) if name not in keys and hasattr(config, name)]
        config = {**keys, **{name: getattr(config, name) for name in names}}
        config.pop("layer_rope_theta", None)  # GraniteSWA has one module per base

    @functools.cache
    def own(length: int | None) -> _ropewalk.Encoding:
        return from_config(config, layer_type, sequence_length=length)

    at: Any = own  # not from the expression, which holds only one of the two magnitudes of PhiMoE
    first, wanted = own(None), from_config(config, layer_type, policy=policy)
    if policy is not None:
        at = functools.partial(with_length, without_draws(wanted))
    if has_axes(wanted) and not has_axes(first):
        raise _ropewalk.Error(
            f"ropewalk: '{wanted.expression}' needs three positions per token, but {one.kind} passes one"
        )
    if policy is not None:
        _check_softmax(one, first, at(1))
    return own, at, [wanted, at(1), at(1 << 40)]


def _check_softmax(one: _Candidate, own: _ropewalk.Encoding, wanted: _ropewalk.Encoding) -> None:
    """Refuse another softmax factor, which the attention modules (DeepSeek, MiniCPM3) hold in their `scaling`."""
    if own.softmax_factor != wanted.softmax_factor:
        raise _ropewalk.Error(
            f"ropewalk: '{wanted.expression}' has a softmax factor of {wanted.softmax_factor:.6g}, but the attention "
            f"of the model with {one.kind} has {own.softmax_factor:.6g}, which patch() does not change; "
            "make the model with that policy in its configuration, or set mscale_all_dim so that the factors agree"
        )


def _head_dims(config: Any) -> list[int]:
    """Return the width of whole heads, which for latent attention is not that of the encoding."""
    try:
        width = config.head_dim
    except Exception:  # absent, or one per layer as in Gemma-4
        return []
    return [width] if isinstance(width, int) else []


def patch(model: torch.nn.Module, policy: Policies = None) -> torch.nn.Module:
    """Make a Hugging Face model encode positions with ropewalk.

    Works with caches, generate(), left padding, gradients, pickling and torch.compile, in one graph for all lengths;
    only xpos together with dynamic, longrope or randomized breaks the graph. Frequencies that `.to(dtype)` rounded with
    the weights are exact again. The keys of state_dict() stay the same.

    In a model with images or audio, the language model is patched. Its towers keep their rotation.

    model.config becomes a copy with the policy, so that save_pretrained() saves it; unpatch() restores the values.
    save_pretrained() warns if no configuration can express the policy (xpos, randomized), or the code of the model has
    no scaling methods.

    Policies that depend on the sequence length (dynamic, longrope) follow it; keys already cached stay as they are.
    longrope does so as in Transformers, except for PhiMoE: there Transformers changes only the magnitude, ropewalk also
    the frequencies. dynamic follows the current length. Transformers keeps the frequencies of the longest sequence
    served until one is shorter than the original length.

    Args:
        model: A model with a `rotary_emb` that returns cos and sin (or `freqs_cis`) for positions, and functions such
            as `apply_rotary_pos_emb(q, k, cos, sin)`: the documentation has a table. In float32, float16,
            bfloat16, or on the CPU float64.
        policy: Replaces the scaling method of the model's configuration, which is kept for None. In a model with one
            encoding per layer type (Gemma-3, OLMo-3, ModernBERT) it changes the layers with full attention, and sliding
            layers keep theirs. A dict has a policy per layer type, {"full_attention": "linear:2"}, and None or a
            missing type keeps that of the configuration. xpos changes queries and keys differently. randomized has an
            effect in training mode, with a new draw in every forward pass. Activation checkpointing may then repeat
            layers, but not the whole model.

    Returns:
        The same model.

    Raises:
        Error: The model's own rotation on random heads differs from its configuration, or it is already patched. Or
            the policy is unknown, has another softmax_factor than the model, or has a layer type that the model does
            not have. The model is then unchanged. Layers that use cos and sin themselves raise it when they run.
        TypeError: model is no torch.nn.Module.
    """
    found = _candidates(model)
    if any(x.dtype == torch.float64 and x.device.type not in ("cpu", "meta") for x in model.parameters()):
        name = type(model).__name__
        raise _ropewalk.Error(f"ropewalk: {name} is in float64, which patch() supports on the CPU only")
    layer_types = [_layer_types(one) for one in found]
    if not any(layer_types):
        raise _ropewalk.Error(f"ropewalk: no layer type of {found[0].kind} rotates")
    functions, changes = _Functions(model), list[Change]()
    patched: dict[torch.nn.Module, PatchedRotaryEmbedding] = {}
    for one, types, policies in zip(found, layer_types, _policies(found, layer_types, policy)):
        if types and one.child not in patched:
            patched[one.child] = _patched(one, {name: policies[name] for name in types}, functions, changes)
    if changes:
        save_policies(model, changes, patched.values())
    for one in found:
        if one.child in patched:  # not if all layers are convolutions, as LFM-3 allows
            install(patched[one.child].functions)
            setattr(one.parent, one.name, patched[one.child])
    return model


def _patched(
    one: _Candidate, policies: Mapping[Any, Any], functions: _Functions, changes: list[Change]
) -> PatchedRotaryEmbedding:
    """Return the replacement of a rotary module, and append its layer types with another policy to `changes`."""
    schedules: dict[str | None, Schedule] = {}
    used: dict[str, Rotation] = {}
    for layer_type, policy in policies.items():
        own, at, encodings = _encodings_of(one, layer_type, policy)
        rotations = list(functions.rotations.values())
        fits = fitted(one.child, one.config, layer_type, own, rotations, _head_dims(one.config))
        schedules[layer_type] = Schedule(one.kind, encodings, fits)
        used.update((key, functions.rotations[key]) for key, _ in fits)
        if policy is not None and encodings[0] != own(None):
            (key, _), fit = next(iter(fits.items()))
            rotation = functions.rotations[key]
            changes.append(Change(one.child, one.config, layer_type, schedules[layer_type], at, rotation, fit))
    places = [place for key in used for place in functions.places[key]]
    returns_pair = len(next(iter(used.values())).tables) == 2
    return PatchedRotaryEmbedding(one.child, schedules, places, returns_pair).train(one.child.training)


def unpatch(model: torch.nn.Module) -> torch.nn.Module:
    """Undo patch().

    Args:
        model: The model. One that is not patched is left unchanged.

    Returns:
        The same model.
    """
    for parent, name, child, _ in list(_children(model)):
        if isinstance(child, PatchedRotaryEmbedding):
            restore_configs(model, child)
            setattr(parent, name, child.original.train(child.training))
    return model


_TABLE_TYPES = (torch.float32, torch.bfloat16)


def apply_rotary_transformers(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace `apply_rotary_pos_emb` of Transformers: half_split, with caller-supplied cos and sin.

    Args:
        q: Queries [batch, heads, tokens, head_dim] for unsqueeze_dim 1, [batch, tokens, heads, head_dim] for 2.
        k: Keys in the same order.
        cos: [batch or 1, tokens, rotary_dim]. Elements of a head beyond rotary_dim are copied. The second half must
            repeat the first one, as in Transformers: it is not read.
        sin: The same.
        unsqueeze_dim: 1 or 2, the axis of the heads.

    Returns:
        The rotated (q, k).

    Raises:
        Error: Shapes or types do not fit.
        TypeError: An argument is no tensor.
    """
    if not torch.compiler.is_compiling():
        for name, x in (("q", q), ("k", k), ("cos", cos), ("sin", sin)):
            if not isinstance(x, torch.Tensor) or x.dim() == 0:
                kind = "a scalar" if isinstance(x, torch.Tensor) else type(x).__name__
                raise TypeError(f"ropewalk: {name} must be a torch.Tensor with axes, got {kind}")
    widths = q.shape[-1], cos.shape[-1]
    # Graphs for several widths have symbols for them: index() makes them numbers.
    encoding = _known(*map(operator.index, widths)) if torch.compiler.is_compiling() else _plain(*widths)
    table = (cos, sin) if cos.dtype in _TABLE_TYPES else (cos.float(), sin.float())
    rotated: tuple[torch.Tensor, torch.Tensor] = rotate(
        q, k, encoding=encoding, table=table, order=order_of(unsqueeze_dim)
    )
    return rotated


@functools.lru_cache(maxsize=64)
def _plain(head_dim: int, rotary_dim: int) -> _ropewalk.Encoding:
    return make_encoding("default", head_dim, rotary_dim=rotary_dim)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _known(head_dim: int, rotary_dim: int) -> _ropewalk.Encoding:
    """Run _plain() for torch.compile, which cannot trace its cache."""
    return _plain(head_dim, rotary_dim)
