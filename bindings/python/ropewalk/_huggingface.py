"""Models of Hugging Face: our rotation in place of theirs, in one line and back.

A model of the Llama family makes cos and sin once (`rotary_emb`) and hands them to every layer, where the module's
function `apply_rotary_pos_emb` multiplies by them. patch() has `rotary_emb` hand over the positions instead, and that
function call rotate() where it is given positions; for every other model it stays what it was.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any

import torch

from ropewalk import _ropewalk
from ropewalk._encoding import encoding as make_encoding
from ropewalk._encoding import from_config
from ropewalk._rotate import rotate

_APPLY = "apply_rotary_pos_emb"


class Places:
    """What a patched model hands to its layers in place of cos and of sin."""

    def __init__(self, encoding: _ropewalk.Encoding, positions: torch.Tensor | None) -> None:
        self.encoding = encoding
        self.positions = positions


class PatchedRotaryEmbedding(torch.nn.Module):
    """Stands where `rotary_emb` of a model stood, and keeps it."""

    def __init__(self, original: torch.nn.Module, encoding: _ropewalk.Encoding) -> None:
        super().__init__()
        self.original = original
        self.encoding = encoding
        self.passes = 0  # forward passes in training: the draw of randomized positions
        lengths = (_with_length(encoding, length).epoch for length in (1, 1 << 40))
        self.follows_length = len(set(lengths)) > 1

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[Places, Places]:
        encoding = self.encoding
        if encoding.draws_positions:
            places = self._drawn(position_ids)
        elif self.follows_length:
            # As Transformers does, and like it without turning the keys of the cache: see ropewalk.rerotate_().
            places = Places(_with_length(encoding, int(position_ids.max()) + 1), position_ids)
        else:
            places = Places(encoding, position_ids)
        return places, places

    def _drawn(self, position_ids: torch.Tensor) -> Places:
        """Randomized positions serve training alone, and every forward pass draws its own."""
        if not self.training:
            return Places(_without_draws(self.encoding), position_ids)
        self.passes += 1
        return Places(_with_draw(self.encoding, self.passes, position_ids.shape[-1]), None)

    def extra_repr(self) -> str:
        return repr(self.encoding)


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
        return rotate(q, k, encoding=cos.encoding, positions=cos.positions, order=_order_of(axis))

    dispatching: Any = functools.wraps(original)(apply)
    dispatching.ropewalk_original = original
    return dispatching


def _order_of(unsqueeze_dim: int) -> str:
    """Where the heads are: behind the batch, or behind the tokens."""
    if unsqueeze_dim not in (1, 2):
        raise _ropewalk.Error(f"ropewalk: unsqueeze_dim must be 1 or 2, got {unsqueeze_dim}")
    return "bhsd" if unsqueeze_dim == 1 else "bshd"


def _candidates(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str, torch.nn.Module]]:
    found = []
    for parent in model.modules():
        if isinstance(parent, PatchedRotaryEmbedding):
            continue
        for name, child in parent.named_children():
            if isinstance(child, PatchedRotaryEmbedding):
                raise _ropewalk.Error("ropewalk: the model is patched already: call unpatch() first")
            if type(child).__name__.endswith("RotaryEmbedding"):
                found.append((parent, name, child))
    return found


_TRIED = (0, 1, 2, 7, 31)  # positions below every original length
_ALIKE = 1e-3  # of the largest element; a model in bfloat16 still makes its angles in float32


def _fitted(child: torch.nn.Module, apply: Any, own: _ropewalk.Encoding, wanted: _ropewalk.Encoding) -> Any:
    """`wanted` for heads as the module hands them over: whole, or what turns of them (Phi, StableLM, Persimmon).

    The module's own rotation is tried on random heads: where `own`, which its configuration asks for, does otherwise,
    ours would be wrong in silence. NanoChat turns backwards, say.
    """
    device = next((one.device for one in child.buffers()), torch.device("cpu"))
    if device.type == "meta":
        return wanted
    places = torch.tensor([_TRIED])
    name, problem = type(child).__name__, "takes heads of another shape"
    with torch.no_grad():
        table = child(torch.zeros(1, device=device), places.to(device))
        cos, sin = (one.detach().float().cpu() for one in table)
        for width in dict.fromkeys((own.head_dim, own.rotary_dim)):
            q, k = torch.randn(2, 1, 2, len(_TRIED), width, generator=torch.Generator().manual_seed(0))
            try:
                theirs = apply(q, k, cos, sin)
            except RuntimeError:  # the shapes do not go together
                continue
            ours = rotate(
                q, k, encoding=_with_length(_of_width(own, width), _TRIED[-1] + 1), positions=places, order="bhsd"
            )
            off = max(float((a - b).abs().max()) for a, b in zip(ours, theirs))
            if off <= _ALIKE * float(theirs[0].abs().max()):
                return _of_width(wanted, width)
            problem = f"turns heads otherwise than {own.expression} of its configuration, by up to {off:.2g}"
    raise _ropewalk.Error(f"ropewalk: {name} {problem}: patch() does not know this kind of model")


def _of_width(encoding: _ropewalk.Encoding, width: int) -> _ropewalk.Encoding:
    e = encoding
    if width == e.head_dim:
        return e
    return make_encoding(e.expression, width, e.base, e.rotary_dim, e.rotary_offset, e.layout, e.sequence_length)


def patch(model: torch.nn.Module, policy: str | _ropewalk.Policy | None = None) -> torch.nn.Module:
    """Have a Hugging Face model of the Llama family encode positions with ropewalk; return the same model.

    model: Llama, Mistral, Qwen2, GPT-NeoX: whatever has a `rotary_emb` and `apply_rotary_pos_emb(q, k, cos, sin)`.
    policy: in place of the scheme of the model's configuration, which holds when policy is None. xpos changes queries
        and keys differently; randomized works in training mode, where every forward pass draws anew.

    Works with caches, generate(), left padding, gradients and torch.compile. Schemes that follow the sequence length
    (dynamic, longrope) move with it as in Transformers: keys already cached stay as they are. Throws Error for models
    that do otherwise (their own rotation is tried on random heads), for an unknown policy, and for a model that is
    patched already; the model is then unchanged.
    """
    found = _candidates(model)
    if not found:
        raise _ropewalk.Error(f"ropewalk: {type(model).__name__} has no rotary_emb that patch() knows")
    config = getattr(model, "config", None)
    if config is None:
        raise _ropewalk.Error(f"ropewalk: {type(model).__name__} has no config that says its head_dim and base")
    own, wanted = from_config(config), from_config(config, policy=policy)
    modules, encodings = [], []
    for _, name, child in found:
        module = sys.modules[type(child).__module__]
        inputs = list(inspect.signature(type(child).forward).parameters)
        if not hasattr(module, _APPLY) or inputs[1:] != ["x", "position_ids"]:
            raise _ropewalk.Error(
                f"ropewalk: {type(child).__name__} ({name}) takes {inputs[1:]} and its module has "
                f"{'a' if hasattr(module, _APPLY) else 'no'} {_APPLY}: patch() does not know this kind of model"
            )
        modules.append(module)
        apply = getattr(module, _APPLY)
        encodings.append(_fitted(child, getattr(apply, "ropewalk_original", apply), own, wanted))
    for module in modules:
        if not hasattr(getattr(module, _APPLY), "ropewalk_original"):
            setattr(module, _APPLY, _dispatching(getattr(module, _APPLY)))
    for (parent, name, child), encoding in zip(found, encodings):
        setattr(parent, name, PatchedRotaryEmbedding(child, encoding).train(child.training))
    return model


def unpatch(model: torch.nn.Module) -> torch.nn.Module:
    """Undo patch(); return the same model. One that is not patched stays as it is."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, PatchedRotaryEmbedding):
                setattr(parent, name, child.original)
    return model


def apply_rotary_transformers(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """What Transformers calls `apply_rotary_pos_emb`, by our kernels: half_split, with the caller's cos and sin.

    q, k: [batch, heads, tokens, head_dim] for unsqueeze_dim 1, [batch, tokens, heads, head_dim] for 2.
    cos, sin: [batch or 1, tokens, rotary_dim]; elements beyond rotary_dim pass through.
    """
    encoding = _plain(q.shape[-1], cos.shape[-1])
    table = (cos, sin) if cos.dtype in (torch.float32, torch.bfloat16) else (cos.float(), sin.float())
    both: tuple[torch.Tensor, torch.Tensor] = rotate(
        q, k, encoding=encoding, table=table, order=_order_of(unsqueeze_dim)
    )
    return both


@functools.lru_cache(maxsize=64)
def _plain(head_dim: int, rotary_dim: int) -> _ropewalk.Encoding:
    return make_encoding("default", head_dim, rotary_dim=rotary_dim)
