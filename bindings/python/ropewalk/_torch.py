"""Rotations of torch tensors by way of the operators, with gradients. Imported when a tensor first needs them.

autograd stands in front of the operators, and behind them where one is called by itself, in an exported program say.
Nothing is saved for backward but positions: the gradient of a rotation is the rotation of the gradient by the adjoint.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from ropewalk import _ropewalk
from ropewalk._encoding import check_encoding
from ropewalk._operators import differentiate, run, sides, transform, unwrap


def _outside(one: Any) -> Any:
    return one if one is None else unwrap(one)


def _rows(gradient: Tensor) -> Tensor:
    """Gradients may be expanded or transposed; the kernels want the elements of a head side by side."""
    return gradient if gradient.stride(-1) == 1 else gradient.contiguous()


# What a call has beside q and k, in the order of _ARGUMENTS, flat: torch.compile follows no tuple into a Function.
_COUNT = 10


def _save(ctx: Any, rest: tuple[Any, ...]) -> None:
    ctx.encoding, positions, ctx.offset, cu_seqlens, ctx.order, ctx.inverse, ctx.adjoint, cos, sin, ctx.threads = rest
    ctx.save_for_backward(positions, cu_seqlens, cos, sin)


def _saved(ctx: Any, adjoint: bool) -> tuple[Any, ...]:
    positions, cu_seqlens, cos, sin = ctx.saved_tensors
    if not torch.compiler.is_compiling():
        positions, cu_seqlens = _outside(positions), _outside(cu_seqlens)
        cos, sin = _outside(cos), _outside(sin)
    return (
        *(ctx.encoding, positions, ctx.offset, cu_seqlens, ctx.order),
        *(ctx.inverse, adjoint, cos, sin, ctx.threads),
    )


def _transposed(ctx: Any) -> tuple[Any, ...]:
    """The arguments of the way back."""
    return _saved(ctx, not ctx.adjoint)


def _transformed() -> bool:
    """Whether derivatives are taken in forward mode, or by torch.func."""
    if torch.compiler.is_compiling():
        return False
    within: Any = transform()
    return forward_ad._current_level >= 0 or (within is not None and within.key().name != "Functionalize")


def _records(*given: Any) -> bool:
    """Whether autograd is to know; a graph has the operator, which tells it."""
    if torch.compiler.is_compiling() or torch._C._is_tracing() or not torch.is_grad_enabled():
        return False
    return any(one is not None and one.requires_grad for one in given)


def _kernel_or_operator(q: Any, k: Any, *rest: Any) -> Any:
    """Without gradients: at once where nobody listens for operators, which cost as much as the rotation of a token."""
    if not torch.compiler.is_compiling():
        done = run(_ropewalk.rotate, q, k, rest, None, inside=False)
        if done is not NotImplemented:
            return done
    if q is None or k is None:
        return torch.ops.ropewalk.rotate_one(k if q is None else q, q is None, *rest)
    return torch.ops.ropewalk.rotate(q, k, *rest)


def _turn_both(q: Tensor, k: Tensor, *rest: Any) -> Any:
    """With gradients of gradients where they are asked for: a Function costs more than the rotation of a token."""
    if _transformed():
        return _TransformedBoth.apply(q, k, *rest)
    return (_Both.apply if _records(q, k) else _kernel_or_operator)(q, k, *rest)


def _turn_one(x: Tensor, as_key: bool, *rest: Any) -> Any:
    if _transformed():
        return _TransformedOne.apply(x, as_key, *rest)
    if _records(x):
        return _One.apply(x, as_key, *rest)
    return _kernel_or_operator(*sides(x, as_key), *rest)


class _Both(torch.autograd.Function):
    """q and k into new tensors."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, *rest: Any) -> Any:
        _save(ctx, rest)
        turned = _kernel_or_operator(q, k, *rest)
        # Of two that differ in this, the one without a gradient stays so.
        ctx.mark_non_differentiable(*(to for to, x in zip(turned, (q, k)) if not x.requires_grad))
        return turned

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
        return _kernel_or_operator(*sides(x, as_key), *rest)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> Any:
        return (_turn_one(_rows(x), ctx.as_key, *_transposed(ctx)), None, *(None,) * _COUNT)


class _TransformedBoth(_Both):
    """For derivatives in forward mode and torch.func. Apart, since torch.compile takes no Function with a jvp()."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, *rest: Any) -> Any:  # type: ignore[override]
        return _kernel_or_operator(q, k, *rest)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save_for_both_ways(ctx, inputs[2:])

    @staticmethod
    def jvp(ctx: Any, q: Any, k: Any, *rest: Any) -> Any:
        return _turn_both(_rows(q), _rows(k), *_saved(ctx, ctx.adjoint))

    @staticmethod
    def vmap(info: Any, mapped: tuple[Any, ...], q: Tensor, k: Tensor, *rest: Any) -> Any:
        raise _no_vmap(("q", "k"), mapped)


class _TransformedOne(_One):
    """The same for q or k alone."""

    @staticmethod
    def forward(x: Tensor, as_key: bool, *rest: Any) -> Any:  # type: ignore[override]
        return _kernel_or_operator(*sides(x, as_key), *rest)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.as_key = inputs[1]
        _save_for_both_ways(ctx, inputs[2:])

    @staticmethod
    def jvp(ctx: Any, x: Any, as_key: Any, *rest: Any) -> Any:
        return _turn_one(_rows(x), ctx.as_key, *_saved(ctx, ctx.adjoint))

    @staticmethod
    def vmap(info: Any, mapped: tuple[Any, ...], x: Tensor, as_key: bool, *rest: Any) -> Any:
        raise _no_vmap(("k" if as_key else "q", ""), mapped)


def _no_vmap(first: tuple[str, str], mapped: tuple[Any, ...]) -> Exception:
    names = (*first, "encoding", "positions", "offset", "cu_seqlens", "order", "inverse", "adjoint", "cos", "sin")
    return _ropewalk.Error(
        f"ropewalk: {next(name for name, axis in zip(names, mapped) if axis is not None)} has no strided memory inside "
        "torch.vmap (which is not needed: a batch is an axis of q and k)"
    )


def _save_for_both_ways(ctx: Any, rest: tuple[Any, ...]) -> None:
    _save(ctx, rest)
    ctx.save_for_forward(*(rest[i] for i in (1, 3, 7, 8)))


def _write(x: Any, as_key: bool, *rest: Any) -> Any:
    """q or k in place."""
    if x is not None and x.requires_grad:
        return _OneInPlace.apply(x, as_key, *rest)
    if x is not None:
        torch.ops.ropewalk.rotate_one_(x, as_key, *rest)
    return x


class _OneInPlace(torch.autograd.Function):
    """q or k in place, with a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, as_key: bool, *rest: Any) -> Any:
        ctx.mark_dirty(x)
        ctx.as_key = as_key
        _save(ctx, rest)
        torch.ops.ropewalk.rotate_one_(x, as_key, *rest)
        return x

    backward = _One.backward


def _both(q: Tensor, k: Tensor, *rest: Any) -> Any:
    return (_TransformedBoth if _transformed() else _Both).apply(q, k, *rest)


def _one(x: Tensor, as_key: bool, *rest: Any) -> Any:
    return (_TransformedOne if _transformed() else _One).apply(x, as_key, *rest)


def _both_(q: Tensor, k: Tensor, *rest: Any) -> None:
    _write(q, False, *rest)
    _write(k, True, *rest)


def _one_(x: Tensor, as_key: bool, *rest: Any) -> None:
    _write(x, as_key, *rest)


for _name, _function in {"rotate": _both, "rotate_one": _one, "rotate_": _both_, "rotate_one_": _one_}.items():
    differentiate(_name, _function)


def _as_tensor(one: Any, name: str, types: str) -> Any:
    """A tensor, or a copy of what is none: nobody would see the caller write to that before the gradients come."""
    if one is None or isinstance(one, Tensor):
        return one
    if hasattr(one, "__cuda_array_interface__"):
        return torch.as_tensor(one).clone()
    if torch.compiler.is_compiling() and isinstance(one, (list, tuple, range)):  # NumPy's functions take none there
        return torch.tensor(list(one)) if len(one) else torch.empty(0, dtype=torch.int64)
    try:
        copy = np.array(one, order="C")
    except ValueError as problem:  # rows of several lengths
        raise _ropewalk.Error(f"ropewalk: {name} cannot be {types}: {problem}") from None
    try:
        return torch.from_numpy(copy if copy.size else copy.astype(np.int64))
    except (TypeError, ValueError):  # objects, big endian
        raise _ropewalk.Error(f"ropewalk: {name} {copy.dtype} {list(copy.shape)}: expected {types}") from None


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
    check_encoding(encoding)
    if table is not None and (not isinstance(table, (tuple, list)) or len(table) != 2):
        raise _ropewalk.Error(f"ropewalk: table must be a pair (cos, sin), got {type(table).__name__}")
    cos, sin = (None, None) if table is None else table
    if table is not None and (cos is None or sin is None):  # which operators take for no table
        raise TypeError(f"ropewalk: {'cos' if cos is None else 'sin'} must be an array, got NoneType")
    cos, sin = _as_tensor(cos, "cos", "float32 or bfloat16"), _as_tensor(sin, "sin", "float32 or bfloat16")
    for name, one in (("cos", cos), ("sin", sin)):
        if one is not None and one.requires_grad:
            raise _ropewalk.Error(f"ropewalk: {name} requires grad, but a table gets no gradient: pass {name}.detach()")
    positions = _as_tensor(positions, "positions", "int32 or int64")
    cu_seqlens = _as_tensor(cu_seqlens, "cu_seqlens", "int32 or int64")
    return (encoding.key, positions, offset, cu_seqlens, order, inverse, adjoint, cos, sin, threads)


def _check_both(q: Any, k: Any, encoding: _ropewalk.Encoding, *arguments: Any) -> None:
    """Autograd knows of no call that writes two views of one tensor: each goes by itself, once both are fine."""
    if all(x is None or type(x) in (Tensor, torch.nn.Parameter) for x in (q, k)):
        _ropewalk.check_both(q, k, encoding, arguments[3])


# How the views came about that autograd lets nobody write, by the names of torch's CreationMeta.
_VIEWS = {
    "MULTI_OUTPUT_NODE": "by a call that made several, like split() and unbind()",
    "IN_CUSTOM_FUNCTION": "by an autograd.Function",
}
_creation = getattr(torch._C._autograd, "_get_creation_meta", lambda view: None)


def _check_writable(name: str, x: Any) -> None:
    """What autograd would say, but only once the memory is written."""
    if x is None or not x.requires_grad:
        return
    base = x._base
    if x.is_leaf or (base is not None and base.is_leaf and base.requires_grad):
        raise _ropewalk.Error(
            f"ropewalk: {name} {list(x.shape)} is {'' if x.is_leaf else 'a view of '}a leaf that requires grad, and "
            "rotate_ would overwrite it: use rotate(), or call under torch.no_grad()"
        )
    made = None if base is None else _VIEWS.get(getattr(_creation(x), "name", ""))
    if made is not None:
        raise _ropewalk.Error(
            f"ropewalk: {name} {list(x.shape)} is a view made {made}, which autograd lets nobody write: use rotate(), "
            "or take it by a slice"
        )


def _check_tensors(q: Any, k: Any) -> None:
    for name, x in (("q", q), ("k", k)):
        if x is not None and not isinstance(x, Tensor):
            raise _ropewalk.Error(
                f"ropewalk: {name} is a {type(x).__name__} beside a tensor that torch must see turned"
            )
        if x is not None and x.is_nested:
            raise _ropewalk.Error(
                f"ropewalk: {name} is a nested tensor: pass its values(), and cu_seqlens=its offsets()"
            )


def rotate(q: Any, k: Any, *arguments: Any) -> Any:
    """ropewalk.rotate() through the operators; `arguments` are the others of its, in their order, but for out."""
    _check_tensors(q, k)
    rest = _prepare(*arguments)
    if k is None:
        return _turn_one(q, False, *rest)
    if q is None:
        return _turn_one(k, True, *rest)
    return _turn_both(q, k, *rest)


def rotate_(q: Any, k: Any, *arguments: Any) -> Any:
    """ropewalk.rotate_() through the operators."""
    _check_tensors(q, k)
    rest = _prepare(*arguments)
    if _transformed():
        _check_both(q, k, *arguments)
        raise _ropewalk.Error(
            "ropewalk: rotate_ has no derivatives in forward mode or under torch.func, which rotate() has: use that"
        )
    if _records(q, k):
        _check_writable("q", q)
        _check_writable("k", k)
        if q is not None and k is not None:
            _check_both(q, k, *arguments)
        q, k = _write(q, False, *rest), _write(k, True, *rest)
    elif q is None or k is None:
        torch.ops.ropewalk.rotate_one_(k if q is None else q, q is None, *rest)
    else:
        torch.ops.ropewalk.rotate_(q, k, *rest)
    if k is None:
        return q
    return k if q is None else (q, k)
