"""Replacement of the rotation in Hugging Face models.

A model of the Llama family computes cos and sin once per forward pass (`rotary_emb`) and passes them to every layer,
where the module's function `apply_rotary_pos_emb` multiplies by them. patch() makes `rotary_emb` pass positions
instead, and makes that function call rotate() for them. It stays as it is for models that are not patched.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
from typing import Any

import torch

from ropewalk import _ropewalk
from ropewalk._encoding import encoding as make_encoding
from ropewalk._encoding import from_config
from ropewalk._operators import decompose
from ropewalk._rotate import rotate
from ropewalk._trial import AtLength, fitted

_APPLY = "apply_rotary_pos_emb"


class RotaryInput:
    """The argument of the layers of a patched model in place of cos and sin: positions, or a table of both."""

    def __init__(self, encoding: _ropewalk.Encoding, positions: torch.Tensor | None, table: Any = None) -> None:
        self.encoding = encoding
        self.positions = positions
        self.table = table

    def to(self, device: Any, non_blocking: bool = False) -> RotaryInput:
        """Copy to a device, for libraries that spread a model over devices and move the arguments of each layer."""
        positions = None if self.positions is None else self.positions.to(device, non_blocking=non_blocking)
        table = None if self.table is None else tuple(x.to(device, non_blocking=non_blocking) for x in self.table)
        return RotaryInput(self.encoding, positions, table)


class PatchedRotaryEmbedding(torch.nn.Module):
    """Replaces `rotary_emb` of a model and keeps the original."""

    def __init__(self, original: torch.nn.Module, encodings: list[_ropewalk.Encoding]) -> None:
        super().__init__()
        self.original = original
        encoding, self.short, self.long = encodings
        self.encoding = encoding
        self.fixed = _without_draws(encoding)
        self.follows_length = self.short.stage != self.long.stage
        moving = [p for p in _parts(encoding) if isinstance(p, (_ropewalk.LongRope, _ropewalk.DynamicNtk))]
        # The last length of the first of two stages. None for more stages: dynamic has one per length.
        has_two_stages = [type(p) for p in moving] == [_ropewalk.LongRope]
        self.last_short = moving[0].original_length if has_two_stages else None
        self.has_table = not encoding.magnitude_rates.any()
        with torch.inference_mode(False):
            # Number of forward passes in training, which selects the draw of randomized positions. A tensor, so that
            # torch.compile does not specialize on its value. Not a buffer: reading one on a device would wait for it.
            self.passes = torch.zeros((), dtype=torch.int64, device="cpu")

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[RotaryInput, RotaryInput]:
        draws = self.encoding.draws_positions and self.training
        if draws:
            self._draw()
        if not draws and not self.follows_length:
            rotary = RotaryInput(self.fixed, position_ids)
        elif torch.compiler.is_compiling() and self.has_table:
            rotary = RotaryInput(self.fixed, None, self._table(x, position_ids, draws))
        elif draws:
            rotary = RotaryInput(_with_draw(self.encoding, int(self.passes), position_ids.shape[-1]), None)
        else:
            # Like Transformers, this leaves the keys of the cache as they are: see ropewalk.rerotate_().
            rotary = RotaryInput(self._of_length(int(position_ids.max()) + 1), position_ids)
        return rotary, rotary

    def _draw(self) -> None:
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() >= 0:
            raise _ropewalk.Error(
                "ropewalk: a checkpoint repeats rotary_emb in backward, which would draw other randomized positions; "
                "checkpoint layers only, as model.gradient_checkpointing_enable() does"
            )
        self.passes.add_(1)

    def _of_length(self, length: int) -> _ropewalk.Encoding:
        if self.last_short is None:
            return _with_length(self.fixed, length)
        return self.long if length > self.last_short else self.short

    def _table(self, x: torch.Tensor, position_ids: torch.Tensor, draws: bool) -> Any:
        """Return cos and sin of every token. A graph cannot make encodings, but it can select between tables."""
        if draws:
            rows = position_ids.expand(x.shape[0], -1)  # every batch row has its own draw
            return torch.ops.ropewalk.late_cos_sin(rows, self.passes, self.encoding.key)
        if self.last_short is None:
            return torch.ops.ropewalk.late_cos_sin(position_ids, None, self.fixed.key)
        is_long = position_ids.max() >= self.last_short
        both = zip(_cos_sin(self.long, position_ids), _cos_sin(self.short, position_ids))
        return tuple(torch.where(is_long, long, short) for long, short in both)

    def __getattr__(self, name: str) -> Any:
        """Return public attributes of the original module: GraniteSWA, for example, reads `config`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            return getattr(super().__getattr__("original"), name)

    def __setstate__(self, state: Any) -> None:
        """Unpickle in a process that may never have called patch()."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _install(self.original)

    def extra_repr(self) -> str:
        return repr(self.encoding)


def _cos_sin(encoding: _ropewalk.Encoding, positions: torch.Tensor, drawn: bool = False) -> Any:
    """Return tables [batch, tokens, rotary_dim/2] by rotating pairs (1, 0), on any device and also in a graph."""
    e = encoding
    axis, pairs = (-2, (2, -1)) if e.layout == "half_split" else (-1, (-1, 2))
    head: Any = torch.zeros(*positions.shape, 1, e.head_dim, dtype=torch.float32, device=positions.device)
    head.narrow(-1, e.rotary_offset, e.rotary_dim).unflatten(-1, pairs).select(axis, 0).fill_(1.0)
    rotated = rotate(head, encoding=e, positions=None if drawn else positions, order="bshd")[:, :, 0]
    tables = rotated.narrow(-1, e.rotary_offset, e.rotary_dim).unflatten(-1, pairs).unbind(axis)
    return tuple(table.contiguous() for table in tables)


def _late_cos_sin(positions: torch.Tensor, draw: torch.Tensor | None, key: str) -> Any:
    """Run _cos_sin() with an encoding that depends on the length or the draw, which a graph cannot contain."""
    encoding = _ropewalk.Encoding.from_key(key)
    if draw is None:
        encoding = _with_length(encoding, int(positions.max()) + 1)
    else:
        encoding = _with_draw(encoding, int(draw), positions.shape[-1])
    return _cos_sin(encoding, positions, draw is not None)


def _like_late_cos_sin(positions: torch.Tensor, draw: Any, key: str) -> Any:
    columns = _ropewalk.Encoding.from_key(key).rotary_dim // 2
    return tuple(positions.new_empty((*positions.shape, columns), dtype=torch.float32) for _ in range(2))


def _again(encoding: _ropewalk.Encoding, policy: str, length: int | None) -> _ropewalk.Encoding:
    e = encoding
    return make_encoding(policy, e.head_dim, e.base, e.rotary_dim, e.rotary_offset, e.layout, length)


@functools.lru_cache(maxsize=64)
def _with_length(encoding: _ropewalk.Encoding, length: int) -> _ropewalk.Encoding:
    return _again(encoding, encoding.expression, length)


def _parts(encoding: _ropewalk.Encoding) -> list[_ropewalk.Policy]:
    return [_ropewalk.policy(part) for part in encoding.expression.split("|")]


@functools.lru_cache(maxsize=8)
def _without_draws(encoding: _ropewalk.Encoding) -> _ropewalk.Encoding:
    if not encoding.draws_positions:
        return encoding
    rest = [str(part) for part in _parts(encoding) if not hasattr(part, "draw")]
    return _again(encoding, "|".join(rest) or "default", encoding.sequence_length)


def _with_draw(encoding: _ropewalk.Encoding, draw: int, tokens: int) -> _ropewalk.Encoding:
    def drawn(part: _ropewalk.Policy) -> str:
        if not hasattr(part, "draw"):
            return str(part)
        make, parameters = part.__reduce__()
        return str(make(*parameters[:-1], parameters[-1] + draw))  # draw is the last parameter

    return _again(encoding, "|".join(drawn(part) for part in _parts(encoding)), tokens)


def _dispatching(original: Any) -> Any:
    """Wrap the module's function: RotaryInput goes to rotate(), anything else to the original."""

    def apply(q: Any, k: Any, cos: Any, sin: Any, *rest: Any, **named: Any) -> Any:
        if not isinstance(cos, RotaryInput):
            return original(q, k, cos, sin, *rest, **named)
        axis = named.get("unsqueeze_dim", rest[0] if rest else 1)
        return rotate(q, k, encoding=cos.encoding, positions=cos.positions, order=_order_of(axis), table=cos.table)

    dispatching: Any = functools.wraps(original)(apply)
    dispatching.ropewalk_original = original
    return dispatching


def _order_of(unsqueeze_dim: int) -> str:
    """Return the order of the axes: the heads follow the batch, or the tokens."""
    if unsqueeze_dim not in (1, 2):
        raise _ropewalk.Error(f"ropewalk: unsqueeze_dim must be 1 or 2, got {unsqueeze_dim}")
    return "bhsd" if unsqueeze_dim == 1 else "bshd"


def _install(child: torch.nn.Module) -> None:
    """Wrap the function of the child's module, once."""
    module = sys.modules[type(child).__module__]
    if not hasattr(getattr(module, _APPLY), "ropewalk_original"):
        setattr(module, _APPLY, _dispatching(getattr(module, _APPLY)))


def _children(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str, torch.nn.Module]]:
    """Return every (parent, name, child). named_children() would skip the second name of a shared child."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"ropewalk: model must be a torch.nn.Module, got {type(model).__name__}")
    parents = list(model.modules())
    return [(parent, name, child) for parent in parents for name, child in parent._modules.items() if child is not None]


def _candidates(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str, torch.nn.Module]]:
    found = []
    for parent, name, child in _children(model):
        if isinstance(child, PatchedRotaryEmbedding):
            raise _ropewalk.Error("ropewalk: the model is already patched; call unpatch() first")
        if type(child).__name__.endswith("RotaryEmbedding"):
            found.append((parent, name, child))
    # Checked first: this error is clearer than that of a missing key in the configuration of the image tower.
    for *_, child in found:
        if getattr(child, "mrope_section", None):
            raise _unknown_axes(child)
    return found


def _unknown_axes(child: torch.nn.Module) -> _ropewalk.Error:
    return _ropewalk.Error(
        f"ropewalk: {type(child).__name__} has M-RoPE; patch() does not support models with three positions per token"
    )


def _encodings_of(
    child: torch.nn.Module, config: Any, policy: str | _ropewalk.Policy | None
) -> tuple[AtLength, list[_ropewalk.Encoding]]:
    """Return the encoding of the configuration as a function of the length, and the encodings with the policy applied.

    The latter are for an unknown length, the shortest one and the longest one.
    """
    if getattr(config, "layer_rope_theta", None):  # GraniteSWA has one module per base
        config = {**config.to_dict(), "layer_rope_theta": None}
    if config is None:
        raise _ropewalk.Error(f"ropewalk: {type(child).__name__} has no config with its head_dim and base")

    def own(length: int | None) -> _ropewalk.Encoding:
        return from_config(config, sequence_length=length)

    at: Any = own  # not from the expression, which holds only one of the two magnitudes of PhiMoE
    first, wanted = own(None), from_config(config, policy=policy)
    if policy is not None:
        at = functools.partial(_with_length, _without_draws(wanted))
    if _has_axes(first):
        raise _unknown_axes(child)
    if _has_axes(wanted):
        raise _ropewalk.Error(
            f"ropewalk: '{wanted.expression}' needs three positions per token, but {type(child).__name__} passes one"
        )
    if policy is not None:
        _check_softmax(child, first, at(1))
    return own, [wanted, at(1), at(1 << 40)]


def _check_softmax(child: torch.nn.Module, own: _ropewalk.Encoding, wanted: _ropewalk.Encoding) -> None:
    """Refuse another softmax factor, which the attention modules (DeepSeek, MiniCPM3) hold in their `scaling`."""
    if own.softmax_factor != wanted.softmax_factor:
        raise _ropewalk.Error(
            f"ropewalk: '{wanted.expression}' has a softmax factor of {wanted.softmax_factor:.6g}, but the attention "
            f"of the model with {type(child).__name__} has {own.softmax_factor:.6g}, which patch() does not change; "
            "make the model with that policy in its configuration, or set mscale_all_dim so that the factors agree"
        )


def _has_axes(encoding: _ropewalk.Encoding) -> bool:
    return any(hasattr(part, "sections") for part in _parts(encoding))


def _function_of(child: torch.nn.Module, name: str) -> Any:
    """Return the rotation function of the child's module. Throws for unknown arguments."""
    apply = getattr(sys.modules[type(child).__module__], _APPLY, None)
    inputs = list(inspect.signature(type(child).forward).parameters)[1:]
    if apply is None or inputs != ["x", "position_ids"]:
        raise _ropewalk.Error(
            f"ropewalk: {type(child).__name__} ({name}) takes {inputs} and its module has "
            f"{'no' if apply is None else 'an'} {_APPLY}; patch() does not support this kind of model"
        )
    return getattr(apply, "ropewalk_original", apply)


def patch(model: torch.nn.Module, policy: str | _ropewalk.Policy | None = None) -> torch.nn.Module:
    """Make a Hugging Face model of the Llama family encode positions with ropewalk.

    Works with caches, generate(), left padding, gradients, pickling and torch.compile, in one graph for all lengths;
    only xpos together with dynamic, longrope or randomized breaks the graph. Frequencies that `.to(dtype)` rounded with
    the weights are exact again.

    Policies that depend on the sequence length (dynamic, longrope) follow it; keys already cached stay as they are.
    longrope does so as in Transformers, except for PhiMoE: there Transformers changes only the magnitude, ropewalk also
    the frequencies. dynamic follows the current length. Transformers keeps the frequencies of the longest sequence
    served until one is shorter than the original length.

    Args:
        model: Llama, Mistral, Qwen2, GPT-NeoX or another model with a `rotary_emb` and
            `apply_rotary_pos_emb(q, k, cos, sin)`, in float32, float16 or bfloat16.
        policy: Replaces the scaling method of the model's configuration, which is kept for None. xpos changes queries
            and keys differently. randomized has an effect in training mode, with a new draw in every forward pass; a
            checkpoint may then repeat layers, but not the whole model.

    Returns:
        The same model.

    Raises:
        Error: The model's own rotation on random heads differs from its configuration, it has three positions per token
            (M-RoPE), is in float64 or is already patched. Or the policy is unknown or has another softmax_factor than
            the model. The model is then unchanged.
        TypeError: model is no torch.nn.Module.
    """
    found = _candidates(model)
    if not found:
        raise _ropewalk.Error(f"ropewalk: {type(model).__name__} has no rotary_emb that patch() supports")
    if any(x.dtype == torch.float64 for x in model.parameters()):
        name = type(model).__name__
        raise _ropewalk.Error(f"ropewalk: {name} is in float64; patch() supports float32, float16 and bfloat16")
    config = getattr(model, "config", None)
    functions = [_function_of(child, name) for _, name, child in found]
    configs = [getattr(child, "config", None) or config for *_, child in found]
    asked = [_encodings_of(child, its, policy) for (*_, child), its in zip(found, configs)]
    patched: dict[torch.nn.Module, PatchedRotaryEmbedding] = {}
    for (*_, child), function, its, (own, wanted) in zip(found, functions, configs, asked):
        if child not in patched:
            encoding = fitted(child, its, function, own, wanted)
            patched[child] = PatchedRotaryEmbedding(child, encoding).train(child.training)
    for parent, name, child in found:
        _install(child)
        setattr(parent, name, patched[child])
    return model


def unpatch(model: torch.nn.Module) -> torch.nn.Module:
    """Undo patch().

    Args:
        model: The model. One that is not patched is left unchanged.

    Returns:
        The same model.
    """
    for parent, name, child in _children(model):
        if isinstance(child, PatchedRotaryEmbedding):
            setattr(parent, name, child.original)
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
    """
    widths = q.shape[-1], cos.shape[-1]
    # Graphs for several widths have symbols for them: index() makes them numbers.
    encoding = _known(*map(operator.index, widths)) if torch.compiler.is_compiling() else _plain(*widths)
    table = (cos, sin) if cos.dtype in _TABLE_TYPES else (cos.float(), sin.float())
    rotated: tuple[torch.Tensor, torch.Tensor] = rotate(
        q, k, encoding=encoding, table=table, order=_order_of(unsqueeze_dim)
    )
    return rotated


@functools.lru_cache(maxsize=64)
def _plain(head_dim: int, rotary_dim: int) -> _ropewalk.Encoding:
    return make_encoding("default", head_dim, rotary_dim=rotary_dim)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _known(head_dim: int, rotary_dim: int) -> _ropewalk.Encoding:
    """Run _plain() for torch.compile, which cannot trace its cache."""
    return _plain(head_dim, rotary_dim)


# Registered at the end of the module: after an interrupt above, the module is imported again, and PyTorch does not
# register an operator twice.
_operators: Any = torch.library  # not annotated
_library = _operators.Library("ropewalk", "FRAGMENT")
_library.define("late_cos_sin(Tensor positions, Tensor? draw, str encoding) -> (Tensor, Tensor)")
for _device in ("CPU", "CUDA"):
    _library.impl("late_cos_sin", _late_cos_sin, _device)
_operators.register_fake("ropewalk::late_cos_sin", _like_late_cos_sin, lib=_library)
decompose("late_cos_sin", _like_late_cos_sin)
