"""Rotations as operators of PyTorch: `torch.ops.ropewalk.rotate` and its sisters, without their gradients.

torch.compile, export and fake tensors see these. The operators come with ropewalk._torch, which adds gradients.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import checkpoint

from ropewalk import _ropewalk

_ARGUMENTS = (
    "str encoding, Tensor? positions, SymInt offset, Tensor? cu_seqlens, str? order, bool inverse, bool adjoint, "
    "Tensor? cos, Tensor? sin, int? threads"
)
_library = torch.library.Library("ropewalk", "DEF")
_library.define(f"rotate(Tensor q, Tensor k, {_ARGUMENTS}) -> (Tensor, Tensor)")
_library.define(f"rotate_(Tensor(a!) q, Tensor(b!) k, {_ARGUMENTS}) -> ()")
_library.define(f"rotate_one(Tensor x, bool as_key, {_ARGUMENTS}) -> Tensor")
_library.define(f"rotate_one_(Tensor(a!) x, bool as_key, {_ARGUMENTS}) -> ()")

# The transform of torch.func that a call is inside of, or None; and a tensor out of one that is over.
_functorch = getattr(torch._C, "_functorch", None)
transform = getattr(_functorch, "peek_interpreter_stack", lambda: None)
unwrap = getattr(_functorch, "unwrap_if_dead", lambda tensor: tensor)

# The encoding behind a key, also in a process that never made it. Bounded: randomized positions have a key a draw.
_encoding_of = functools.lru_cache(maxsize=1024)(_ropewalk.Encoding.from_key)


def run(function: Any, q: Any, k: Any, arguments: tuple[Any, ...], *out: Any, inside: bool = True) -> Any:
    encoding, positions, offset, cu_seqlens, order, inverse, adjoint, cos, sin, threads = arguments
    e, table = _encoding_of(encoding), None if cos is None else (cos, sin)
    return function(q, k, e, positions, offset, cu_seqlens, order, inverse, adjoint, table, threads, *out, inside)


def sides(x: Any, as_key: bool) -> tuple[Any, Any]:
    """q and k of a call that has only one."""
    return (None, x) if as_key else (x, None)


# Not `inside` of the operator, somebody else may want to know of the call: NotImplemented then.
def _rotate(q: Tensor, k: Tensor, *arguments: Any, inside: bool = True) -> Any:
    return run(_ropewalk.rotate, q, k, arguments, None, inside=inside)


def _rotate_one(x: Tensor, as_key: bool, *arguments: Any, inside: bool = True) -> Any:
    return run(_ropewalk.rotate, *sides(x, as_key), arguments, None, inside=inside)


def _rotate_(q: Tensor, k: Tensor, *arguments: Any, inside: bool = True) -> Any:
    done = run(_ropewalk.rotate_, q, k, arguments, inside=inside)
    return done if done is NotImplemented else None


def _rotate_one_(x: Tensor, as_key: bool, *arguments: Any, inside: bool = True) -> Any:
    return _rotate_(*sides(x, as_key), *arguments, inside=inside)


_functions: dict[str, Any] = {
    "rotate": _rotate,
    "rotate_": _rotate_,
    "rotate_one": _rotate_one,
    "rotate_one_": _rotate_one_,
}
for _name, _function in _functions.items():
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _function, _device)


def _mutation(operator: Any, written: int) -> Any:
    """What makes autograd notice that an operator writes its first arguments."""
    below = torch._C._after_ADInplaceOrView_keyset

    def run(keys: Any, *arguments: Any) -> None:
        torch.autograd.graph.increment_version([one for one in arguments[:written] if not one.is_inference()])
        operator.redispatch(keys & below, *arguments)

    return run


_library.impl("rotate_", _mutation(torch.ops.ropewalk.rotate_.default, 2), "ADInplaceOrView", with_keyset=True)
_library.impl("rotate_one_", _mutation(torch.ops.ropewalk.rotate_one_.default, 1), "ADInplaceOrView", with_keyset=True)


# A selective checkpoint skips operators whose results a policy has it save. These have none but what they write, which
# would then be missing in backward: they run again whatever the policy says.
_run_again: set[Any] = getattr(checkpoint, "SAC_IGNORED_OPS", set())
_run_again |= {torch.ops.ropewalk.rotate_.default, torch.ops.ropewalk.rotate_one_.default}


@torch.library.register_fake("ropewalk::rotate", lib=_library)
def _(q: Tensor, k: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k)


@torch.library.register_fake("ropewalk::rotate_one", lib=_library)
def _(x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("ropewalk::rotate_", lib=_library)
@torch.library.register_fake("ropewalk::rotate_one_", lib=_library)
def _(*rest: Any) -> None:
    return None


def differentiate(name: str, function: Any) -> None:
    """Have `function` run instead of the operator where its arguments have derivatives."""
    operator, direct = getattr(torch.ops.ropewalk, name).default, _functions[name]
    below, turned = torch._C._after_autograd_keyset, 1 if "one" in name else 2

    def run_or_record(keys: Any, *arguments: Any) -> Any:
        within: Any = transform()
        if within is not None and within.key().name in ("Grad", "Jvp"):  # no Function could follow it down here
            raise NotImplementedError(  # which breaks the graph of torch.compile where it may
                "ropewalk: a rotation has no derivatives by torch.func inside of a graph: leave that function "
                "uncompiled, or use torch.autograd.grad()"
            )
        if _has_tangents(arguments):
            if name.endswith("_"):
                raise _ropewalk.Error("ropewalk: rotate_ has no derivatives in forward mode: use rotate()")
            return function(*arguments)
        tensors = arguments[:turned]
        if any([one.requires_grad for one in tensors]) and torch.is_grad_enabled():
            return function(*arguments)
        # torch has ways of its own to make numbers of what is lazy.
        if not any([one.is_meta or one.is_neg() or one._is_zerotensor() for one in tensors]):
            done = direct(*arguments, inside=False)
            if done is not NotImplemented:
                return done
        return operator.redispatch(keys & below, *arguments)

    _library.impl(name, run_or_record, "Autograd", with_keyset=True)


def _has_tangents(arguments: tuple[Any, ...]) -> bool:
    if forward_ad._current_level < 0 or not torch._C._is_fwd_grad_enabled():
        return False
    return any(isinstance(one, Tensor) and forward_ad.unpack_dual(one).tangent is not None for one in arguments)
