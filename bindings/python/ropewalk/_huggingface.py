"""Models of Hugging Face: our rotation in place of theirs, in one line and back.

A model of the Llama family makes cos and sin once (`rotary_emb`) and hands them to every layer, where the module's
function `apply_rotary_pos_emb` multiplies by them. patch() has `rotary_emb` hand over the positions instead, and that
function call rotate() where it is given positions; for every other model it stays what it was.
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
from ropewalk._rotate import rotate
from ropewalk._trial import AtLength, fitted

_APPLY = "apply_rotary_pos_emb"


class Places:
    """What a patched model hands to its layers in place of cos and of sin: positions, or angles already worked out."""

    def __init__(self, encoding: _ropewalk.Encoding, positions: torch.Tensor | None, table: Any = None) -> None:
        self.encoding = encoding
        self.positions = positions
        self.table = table

    def to(self, device: Any, non_blocking: bool = False) -> Places:
        """For whoever spreads a model over devices, and moves what a layer is given to the one of the layer."""
        positions = None if self.positions is None else self.positions.to(device, non_blocking=non_blocking)
        table = None if self.table is None else tuple(one.to(device, non_blocking=non_blocking) for one in self.table)
        return Places(self.encoding, positions, table)


class PatchedRotaryEmbedding(torch.nn.Module):
    """Stands where `rotary_emb` of a model stood, and keeps it."""

    def __init__(self, original: torch.nn.Module, encodings: list[_ropewalk.Encoding]) -> None:
        super().__init__()
        self.original = original
        encoding, self.short, self.long = encodings
        self.encoding = encoding
        self.placed = _without_draws(encoding)
        self.follows_length = self.short.stage != self.long.stage
        moving = [p for p in _parts(encoding) if isinstance(p, (_ropewalk.LongRope, _ropewalk.DynamicNtk))]
        # The last length of the first of two states; None where there are more, one for every length with dynamic.
        two = [type(p) for p in moving] == [_ropewalk.LongRope]
        self.last_short = moving[0].original_length if two else None
        self.has_table = not encoding.magnitude_rates.any()
        with torch.inference_mode(False):
            # Forward passes in training: the draw of randomized positions. A tensor, whose value torch.compile does
            # not look at; and no buffer, which would move to the device and be waited for there.
            self.passes = torch.zeros((), dtype=torch.int64, device="cpu")

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[Places, Places]:
        draws = self.encoding.draws_positions and self.training
        if draws:
            self._draw()
        if not draws and not self.follows_length:
            places = Places(self.placed, position_ids)
        elif torch.compiler.is_compiling() and self.has_table:
            places = Places(self.placed, None, self._table(x, position_ids, draws))
        elif draws:
            places = Places(_with_draw(self.encoding, int(self.passes), position_ids.shape[-1]), None)
        else:
            # As Transformers does, and like it without turning the keys of the cache: see ropewalk.rerotate_().
            places = Places(self._at(int(position_ids.max()) + 1), position_ids)
        return places, places

    def _draw(self) -> None:
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() >= 0:
            raise _ropewalk.Error(
                "ropewalk: a checkpoint repeats rotary_emb in backward, where randomized positions would be others: "
                "have it repeat layers only, as model.gradient_checkpointing_enable() does"
            )
        self.passes.add_(1)

    def _at(self, length: int) -> _ropewalk.Encoding:
        if self.last_short is None:
            return _with_length(self.placed, length)
        return self.long if length > self.last_short else self.short

    def _table(self, x: torch.Tensor, position_ids: torch.Tensor, draws: bool) -> Any:
        """The angles of every token. A graph makes no encoding, but it may choose between angles."""
        if draws:
            rows = position_ids.expand(x.shape[0], -1)  # every row of the batch draws its own
            return torch.ops.ropewalk.late_cos_sin(rows, self.passes, self.encoding.key)
        if self.last_short is None:
            return torch.ops.ropewalk.late_cos_sin(position_ids, None, self.placed.key)
        is_long = position_ids.max() >= self.last_short
        both = zip(_cos_sin(self.long, position_ids), _cos_sin(self.short, position_ids))
        return tuple(torch.where(is_long, long, short) for long, short in both)

    def __getattr__(self, name: str) -> Any:
        """What a model asks of its own module: GraniteSWA reads `config`, say. Hooks of the original stay its own."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            return getattr(super().__getattr__("original"), name)

    def __setstate__(self, state: Any) -> None:
        """A model that was pickled whole may come to a process that never called patch()."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _install(self.original)

    def extra_repr(self) -> str:
        return repr(self.encoding)


def _cos_sin(encoding: _ropewalk.Encoding, positions: torch.Tensor, drawn: bool = False) -> Any:
    """Tables of [batch, tokens, rotary_dim/2]: to where the pair (1, 0) turns, on whatever device, also in a graph."""
    e = encoding
    axis, pairs = (-2, (2, -1)) if e.layout == "half_split" else (-1, (-1, 2))
    head: Any = torch.zeros(*positions.shape, 1, e.head_dim, dtype=torch.float32, device=positions.device)
    head.narrow(-1, e.rotary_offset, e.rotary_dim).unflatten(-1, pairs).select(axis, 0).fill_(1.0)
    turned = rotate(head, encoding=e, positions=None if drawn else positions, order="bshd")[:, :, 0]
    both = turned.narrow(-1, e.rotary_offset, e.rotary_dim).unflatten(-1, pairs).unbind(axis)
    return tuple(one.contiguous() for one in both)


def _late_cos_sin(positions: torch.Tensor, draw: torch.Tensor | None, key: str) -> Any:
    """_cos_sin() of an encoding that no graph can hold, since the length or the draw makes it."""
    encoding = _ropewalk.Encoding.from_key(key)
    if draw is None:
        made = _with_length(encoding, int(positions.max()) + 1)
    else:
        made = _with_draw(encoding, int(draw), positions.shape[-1])
    return _cos_sin(made, positions, draw is not None)


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
    """The module's function, which sends positions to us."""

    def apply(q: Any, k: Any, cos: Any, sin: Any, *rest: Any, **named: Any) -> Any:
        if not isinstance(cos, Places):
            return original(q, k, cos, sin, *rest, **named)
        axis = named.get("unsqueeze_dim", rest[0] if rest else 1)
        return rotate(q, k, encoding=cos.encoding, positions=cos.positions, order=_order_of(axis), table=cos.table)

    dispatching: Any = functools.wraps(original)(apply)
    dispatching.ropewalk_original = original
    return dispatching


def _order_of(unsqueeze_dim: int) -> str:
    """Where the heads are: behind the batch, or behind the tokens."""
    if unsqueeze_dim not in (1, 2):
        raise _ropewalk.Error(f"ropewalk: unsqueeze_dim must be 1 or 2, got {unsqueeze_dim}")
    return "bhsd" if unsqueeze_dim == 1 else "bshd"


def _install(child: torch.nn.Module) -> None:
    """Have the function of the child's module send positions to us."""
    module = sys.modules[type(child).__module__]
    if not hasattr(getattr(module, _APPLY), "ropewalk_original"):
        setattr(module, _APPLY, _dispatching(getattr(module, _APPLY)))


def _children(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str, torch.nn.Module]]:
    """Every place of every module: named_children() tells one name of a module that has two."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"ropewalk: model must be a torch.nn.Module, got {type(model).__name__}")
    parents = list(model.modules())
    return [(parent, name, one) for parent in parents for name, one in parent._modules.items() if one is not None]


def _candidates(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str, torch.nn.Module]]:
    found = []
    for parent, name, child in _children(model):
        if isinstance(child, PatchedRotaryEmbedding):
            raise _ropewalk.Error("ropewalk: the model is patched already: call unpatch() first")
        if type(child).__name__.endswith("RotaryEmbedding"):
            found.append((parent, name, child))
    # Looked for first: what the configuration of an image tower beside it lacks says less.
    for *_, child in found:
        if getattr(child, "mrope_section", None):
            raise _unknown_axes(child)
    return found


def _unknown_axes(child: torch.nn.Module) -> _ropewalk.Error:
    return _ropewalk.Error(
        f"ropewalk: {type(child).__name__} has M-RoPE: patch() does not know models with three positions a token"
    )


def _encodings_of(
    child: torch.nn.Module, config: Any, policy: str | _ropewalk.Policy | None
) -> tuple[AtLength, list[_ropewalk.Encoding]]:
    """What the configuration of the module, or else of the model, asks for, and that with the policy in its place.

    The one for any length; the other for an unknown length, the shortest and the longest.
    """
    if getattr(config, "layer_rope_theta", None):  # GraniteSWA has a module for every base in it
        config = {**config.to_dict(), "layer_rope_theta": None}
    if config is None:
        raise _ropewalk.Error(f"ropewalk: {type(child).__name__} has no config that says its head_dim and base")

    def own(length: int | None) -> _ropewalk.Encoding:
        return from_config(config, sequence_length=length)

    at: Any = own  # PhiMoE has two magnitudes, of which an expression says one
    first, wanted = own(None), from_config(config, policy=policy)
    if policy is not None:
        at = functools.partial(_with_length, _without_draws(wanted))
    if _has_axes(first):
        raise _unknown_axes(child)
    if _has_axes(wanted):
        raise _ropewalk.Error(
            f"ropewalk: '{wanted.expression}' takes three positions a token, and {type(child).__name__} gives one"
        )
    if policy is not None:
        _check_softmax(child, first, at(1))
    return own, [wanted, at(1), at(1 << 40)]


def _check_softmax(child: torch.nn.Module, own: _ropewalk.Encoding, wanted: _ropewalk.Encoding) -> None:
    """The attention modules beside the child (DeepSeek, MiniCPM3) hold the factor in their `scaling`."""
    if own.softmax_factor != wanted.softmax_factor:
        raise _ropewalk.Error(
            f"ropewalk: '{wanted.expression}' has a softmax factor of {wanted.softmax_factor:.6g} and the attention of "
            f"the model with {type(child).__name__} {own.softmax_factor:.6g}, which patch() does not change: make the "
            "model with that scheme in its configuration, or choose mscale_all_dim so that the factors agree"
        )


def _has_axes(encoding: _ropewalk.Encoding) -> bool:
    return any(hasattr(part, "sections") for part in _parts(encoding))


def _function_of(child: torch.nn.Module, name: str) -> Any:
    """The function of the child's module that turns heads, where its arguments are those that we know."""
    apply = getattr(sys.modules[type(child).__module__], _APPLY, None)
    inputs = list(inspect.signature(type(child).forward).parameters)[1:]
    if apply is None or inputs != ["x", "position_ids"]:
        raise _ropewalk.Error(
            f"ropewalk: {type(child).__name__} ({name}) takes {inputs} and its module has "
            f"{'no' if apply is None else 'an'} {_APPLY}: patch() does not know this kind of model"
        )
    return getattr(apply, "ropewalk_original", apply)


def patch(model: torch.nn.Module, policy: str | _ropewalk.Policy | None = None) -> torch.nn.Module:
    """Have a Hugging Face model of the Llama family encode positions with ropewalk; return the same model.

    model: Llama, Mistral, Qwen2, GPT-NeoX: whatever has a `rotary_emb` and `apply_rotary_pos_emb(q, k, cos, sin)`, in
        float32, float16 or bfloat16. Frequencies that `.to(dtype)` rounded with the weights are exact again.
    policy: in place of the scheme of the model's configuration, which holds when policy is None. xpos changes queries
        and keys differently; randomized works in training mode, where every forward pass draws anew (a checkpoint may
        repeat layers, not the whole model).

    Works with caches, generate(), left padding, gradients, pickling and torch.compile, in one graph for all lengths;
    only xpos together with dynamic, longrope or randomized breaks the graph. Schemes that follow the sequence length
    (dynamic, longrope) move with it: keys already cached stay as they are. longrope does so as in Transformers, but for
    PhiMoE, which there keeps the short list and takes only the long magnitude; here it takes both. dynamic follows
    the length at hand, where Transformers keeps the frequencies of the longest sequence that it served until one is
    shorter than the original length.

    Throws Error for models that do otherwise (their own rotation is tried on random heads), those with three positions
    a token (M-RoPE) and those in float64, for an unknown policy or one whose softmax_factor is not that of the model's
    own scheme (attention modules keep theirs), and for a model that is patched already; the model is then unchanged.
    """
    found = _candidates(model)
    if not found:
        raise _ropewalk.Error(f"ropewalk: {type(model).__name__} has no rotary_emb that patch() knows")
    if any(one.dtype == torch.float64 for one in model.parameters()):
        name = type(model).__name__
        raise _ropewalk.Error(f"ropewalk: {name} is in float64, and patch() turns float32, float16 and bfloat16")
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
    """Undo patch(); return the same model. One that is not patched stays as it is."""
    for parent, name, child in _children(model):
        if isinstance(child, PatchedRotaryEmbedding):
            setattr(parent, name, child.original)
    return model


_TABLE_TYPES = (torch.float32, torch.bfloat16)


def apply_rotary_transformers(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """What Transformers calls `apply_rotary_pos_emb`, by our kernels: half_split, with the caller's cos and sin.

    q, k: [batch, heads, tokens, head_dim] for unsqueeze_dim 1, [batch, tokens, heads, head_dim] for 2.
    cos, sin: [batch or 1, tokens, rotary_dim]; elements beyond rotary_dim pass through. Their second half repeats the
        first, as Transformers makes them, and is not read: where it differs, the result is not that of Transformers.
    """
    widths = q.shape[-1], cos.shape[-1]
    # A graph that was made for several widths has symbols for them: index() asks for the numbers.
    encoding = _known(*map(operator.index, widths)) if torch.compiler.is_compiling() else _plain(*widths)
    table = (cos, sin) if cos.dtype in _TABLE_TYPES else (cos.float(), sin.float())
    both: tuple[torch.Tensor, torch.Tensor] = rotate(
        q, k, encoding=encoding, table=table, order=_order_of(unsqueeze_dim)
    )
    return both


@functools.lru_cache(maxsize=64)
def _plain(head_dim: int, rotary_dim: int) -> _ropewalk.Encoding:
    return make_encoding("default", head_dim, rotary_dim=rotary_dim)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _known(head_dim: int, rotary_dim: int) -> _ropewalk.Encoding:
    """_plain() for torch.compile, which would look into it and find no Python."""
    return _plain(head_dim, rotary_dim)


# Last: what is above takes a second, and after an interrupt in it the module is imported again, which torch registers
# nothing for.
_operators: Any = torch.library  # which is not annotated
_library = _operators.Library("ropewalk", "FRAGMENT")
_library.define("late_cos_sin(Tensor positions, Tensor? draw, str encoding) -> (Tensor, Tensor)")
for _device in ("CPU", "CUDA"):
    _library.impl("late_cos_sin", _late_cos_sin, _device)
_operators.register_fake("ropewalk::late_cos_sin", _like_late_cos_sin, lib=_library)
