"""Rotations as operators of PyTorch, with gradients. Imported when a tensor first needs them.

`torch.ops.ropewalk.rotate` and its sisters are what torch.compile, export and fake tensors see; autograd stands in
front of them and not inside. Nothing is saved for backward but positions: the gradient of a rotation is the rotation of
the gradient by the adjoint.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

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

# The encoding behind a key, also in a process that never made it. Bounded: randomized positions have a key a draw.
_encoding_of = functools.lru_cache(maxsize=1024)(_ropewalk.Encoding.from_key)


# How many modes want to see every operator. Without the means to know, as if there were one.
_listeners = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)


def _run(function: Any, q: Any, k: Any, arguments: tuple[Any, ...], *out: Any, inside: bool = True) -> Any:
    encoding, positions, offset, cu_seqlens, order, inverse, adjoint, cos, sin, threads = arguments
    e, table = _encoding_of(encoding), None if cos is None else (cos, sin)
    return function(q, k, e, positions, offset, cu_seqlens, order, inverse, adjoint, table, threads, *out, inside)


def _sides(x: Any, as_key: bool) -> tuple[Any, Any]:
    """q and k of a call that has only one."""
    return (None, x) if as_key else (x, None)


def _rotate(q: Tensor, k: Tensor, *arguments: Any) -> Any:
    return _run(_ropewalk.rotate, q, k, arguments, None)


def _rotate_(q: Tensor, k: Tensor, *arguments: Any) -> None:
    _run(_ropewalk.rotate_, q, k, arguments)


def _rotate_one(x: Tensor, as_key: bool, *arguments: Any) -> Any:
    return _run(_ropewalk.rotate, *_sides(x, as_key), arguments, None)


def _rotate_one_(x: Tensor, as_key: bool, *arguments: Any) -> None:
    _run(_ropewalk.rotate_, *_sides(x, as_key), arguments)


for _name, _function in {
    "rotate": _rotate,
    "rotate_": _rotate_,
    "rotate_one": _rotate_one,
    "rotate_one_": _rotate_one_,
}.items():
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _function, _device)


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


def _rows(gradient: Tensor) -> Tensor:
    """Gradients may be expanded or transposed; the kernels want the elements of a head side by side."""
    return gradient if gradient.stride(-1) == 1 else gradient.contiguous()


# What a call has beside q and k, in the order of _ARGUMENTS, flat: torch.compile follows no tuple into a Function.
_COUNT = 10


def _save(ctx: Any, rest: tuple[Any, ...]) -> None:
    ctx.encoding, positions, ctx.offset, cu_seqlens, ctx.order, ctx.inverse, ctx.adjoint, cos, sin, ctx.threads = rest
    ctx.save_for_backward(positions, cu_seqlens, cos, sin)


def _transposed(ctx: Any) -> tuple[Any, ...]:
    """The arguments of the way back."""
    positions, cu_seqlens, cos, sin = ctx.saved_tensors
    return (
        *(ctx.encoding, positions, ctx.offset, cu_seqlens, ctx.order),
        *(ctx.inverse, not ctx.adjoint, cos, sin, ctx.threads),
    )


def _kernel_or_operator(q: Any, k: Any, *rest: Any) -> Any:
    """Without gradients: at once where nobody listens for operators, which cost as much as the rotation of a token."""
    if not torch.compiler.is_compiling() and _listeners() == 0:
        done = _run(_ropewalk.rotate, q, k, rest, None, inside=False)
        if done is not NotImplemented:
            return done
    if q is None or k is None:
        return torch.ops.ropewalk.rotate_one(k if q is None else q, q is None, *rest)
    return torch.ops.ropewalk.rotate(q, k, *rest)


def _turn_both(q: Tensor, k: Tensor, *rest: Any) -> Any:
    """With gradients of gradients where they are asked for: a Function costs more than the rotation of a token."""
    return (_Both.apply if torch.is_grad_enabled() else _kernel_or_operator)(q, k, *rest)


def _turn_one(x: Tensor, as_key: bool, *rest: Any) -> Any:
    if torch.is_grad_enabled():
        return _One.apply(x, as_key, *rest)
    return _kernel_or_operator(*_sides(x, as_key), *rest)


class _Both(torch.autograd.Function):
    """q and k into new tensors."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, *rest: Any) -> Any:
        _save(ctx, rest)
        return _kernel_or_operator(q, k, *rest)

    @staticmethod
    def backward(ctx: Any, q: Tensor, k: Tensor) -> Any:
        rest = _transposed(ctx)
        wants_q, wants_k = ctx.needs_input_grad[:2]
        if wants_q and wants_k:
            q, k = _turn_both(_rows(q), _rows(k), *rest)
            return (q, k, *(None,) * _COUNT)
        if wants_q:
            return (_turn_one(_rows(q), False, *rest), None, *(None,) * _COUNT)
        return (None, _turn_one(_rows(k), True, *rest), *(None,) * _COUNT)


class _One(torch.autograd.Function):
    """q or k into a new tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, as_key: bool, *rest: Any) -> Any:
        ctx.as_key = as_key
        _save(ctx, rest)
        return _kernel_or_operator(*_sides(x, as_key), *rest)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> Any:
        return (_turn_one(_rows(x), ctx.as_key, *_transposed(ctx)), None, *(None,) * _COUNT)


class _OneInPlace(torch.autograd.Function):
    """q or k in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, as_key: bool, *rest: Any) -> Any:
        ctx.mark_dirty(x)
        ctx.as_key = as_key
        _save(ctx, rest)
        torch.ops.ropewalk.rotate_one_(x, as_key, *rest)
        return x

    backward = _One.backward


def _as_tensor(one: Any) -> Any:
    return one if one is None or isinstance(one, Tensor) else torch.as_tensor(one)


def _prepare(
    encoding: _ropewalk.Encoding,
    positions: Any,
    offset: int,
    cu_seqlens: Any,
    order: str | None,
    inverse: bool,
    adjoint: bool,
    table: Any,
    threads: int | None,
) -> tuple[Any, ...]:
    """The arguments of an operator behind q and k."""
    cos, sin = (None, None) if table is None else map(_as_tensor, table)
    for name, one in (("cos", cos), ("sin", sin)):
        if one is not None and one.requires_grad:
            raise _ropewalk.Error(f"ropewalk: {name} requires grad, but a table gets no gradient: pass {name}.detach()")
    positions, cu_seqlens = _as_tensor(positions), _as_tensor(cu_seqlens)
    return (encoding.key, positions, offset, cu_seqlens, order, inverse, adjoint, cos, sin, threads)


def rotate(q: Any, k: Any, *arguments: Any) -> Any:
    """ropewalk.rotate() through the operators; `arguments` are the others of its, in their order, but for out."""
    rest = _prepare(*arguments)
    if k is None:
        return _turn_one(q, False, *rest)
    if q is None:
        return _turn_one(k, True, *rest)
    return _turn_both(q, k, *rest)


def rotate_(q: Any, k: Any, *arguments: Any) -> Any:
    """ropewalk.rotate_() through the operators."""
    rest = _prepare(*arguments)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k)):
        for name, x in (("q", q), ("k", k)):
            if x is not None and x.requires_grad and x.is_leaf:
                raise _ropewalk.Error(
                    f"ropewalk: {name} {list(x.shape)} is a leaf that requires grad, and rotate_ would overwrite it: "
                    "use rotate(), or call under torch.no_grad()"
                )
        q = None if q is None else _OneInPlace.apply(q, False, *rest)
        k = None if k is None else _OneInPlace.apply(k, True, *rest)
    elif q is None or k is None:
        torch.ops.ropewalk.rotate_one_(k if q is None else q, q is None, *rest)
    else:
        torch.ops.ropewalk.rotate_(q, k, *rest)
    if k is None:
        return q
    return k if q is None else (q, k)
