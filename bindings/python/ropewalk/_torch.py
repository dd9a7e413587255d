"""Rotations of PyTorch tensors through the operators, with gradients. Imported at the first call that needs them.

The gradient of a rotation is the rotation of the gradient by the adjoint, so that only positions and tables are saved
for backward.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from ropewalk import _operators, _ropewalk, _tables, _vmap
from ropewalk._encoding import check_encoding
from ropewalk._operators import Arguments, batch, differentiate, is_batched, learned, present, transform

# Unwraps a saved tensor of a finished transform of torch.func. PyTorch has no public function for it.
_unwrap = getattr(getattr(torch._C, "_functorch", None), "unwrap_if_dead", lambda tensor: tensor)

# Returns whether torch.export is tracing. PyTorch before 2.7 has no such function.
_exporting = getattr(torch.compiler, "is_exporting", lambda: False)

# Kinds of views that autograd does not allow to be written, by the names of PyTorch's CreationMeta. Public functions
# report them only after the memory is written.
_VIEWS = {
    "MULTI_OUTPUT_NODE": "by a call with several results, like split() and unbind()",
    "IN_CUSTOM_FUNCTION": "by an autograd.Function",
}
_creation = getattr(torch._C._autograd, "_get_creation_meta", lambda view: None)


def _transformed() -> bool:
    """Return whether derivatives are taken in forward mode or by torch.func."""
    if torch.compiler.is_compiling():
        return False
    within: Any = transform()
    return forward_ad._current_level >= 0 or (within is not None and within.key().name != "Functionalize")


def _learns_table(arguments: Arguments) -> bool:
    """Return whether the table gets a gradient."""
    cos, sin = arguments.cos, arguments.sin
    return cos is not None and sin is not None and torch.is_grad_enabled() and (cos.requires_grad or sin.requires_grad)


def _records(q: Tensor | None, k: Tensor | None, arguments: Arguments) -> bool:
    """Return whether autograd needs a Function here. In a graph or a trace, the operator has the gradients."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    return any([x.requires_grad for x in learned(q, k, arguments)])


def _run(q: Tensor | None, k: Tensor | None, arguments: Arguments) -> Sequence[Tensor]:
    """Rotate without gradients.

    The direct call of the module saves 9 us of 28 us. It is possible if nothing records operators.
    """
    if not torch.compiler.is_compiling():
        done: Any = _operators.rotate(q, k, *arguments, inside=False)
        if done is not NotImplemented:
            return done  # type: ignore[no-any-return]
    return tuple(torch.ops.ropewalk.rotate(q, k, *arguments))


def _rotated(q: Tensor | None, k: Tensor | None, arguments: Arguments) -> Sequence[Tensor]:
    """Rotate into new tensors, with gradients of gradients where they are needed."""
    if _transformed():
        results: Sequence[Tensor] = _TransformedRotation.apply(q, k, arguments)
        return results
    return _recorded(q, k, arguments) if _records(q, k, arguments) else _run(q, k, arguments)


def _recorded(q: Tensor | None, k: Tensor | None, arguments: Arguments) -> Any:
    """Rotate into new tensors by the Function that has the gradients."""
    if _learns_table(arguments):
        rest = arguments._replace(cos=None, sin=None)
        return _TableRotation.apply(q, k, arguments.cos, arguments.sin, rest)
    return _Rotation.apply(q, k, arguments)


def _rows(gradient: Tensor | None) -> Tensor | None:
    """Make the elements of a head contiguous: gradients may be expanded or transposed."""
    return gradient if gradient is None or gradient.stride(-1) == 1 else gradient.contiguous()


_TENSORS = ("positions", "cu_seqlens", "cos", "sin", "offsets")
_NO_TENSORS: dict[str, Any] = dict.fromkeys(_TENSORS)


def _save(ctx: Any, arguments: Arguments) -> None:
    ctx.arguments = arguments._replace(**_NO_TENSORS)
    ctx.save_for_backward(*(getattr(arguments, name) for name in _TENSORS))


def _saved(ctx: Any, adjoint: bool) -> Arguments:
    tensors = ctx.saved_tensors
    if not torch.compiler.is_compiling():
        tensors = [x if x is None else _unwrap(x) for x in tensors]
    saved: Arguments = ctx.arguments
    return saved._replace(adjoint=adjoint, **dict(zip(_TENSORS, tensors)))


class _Rotation(torch.autograd.Function):
    """Rotation of q, k or both into new tensors."""

    @staticmethod
    def forward(ctx: Any, q: Tensor | None, k: Tensor | None, arguments: Arguments) -> Any:
        _save(ctx, arguments)
        results = _run(q, k, arguments)
        # If only one of q and k has a gradient, the result of the other one has none either.
        ctx.mark_non_differentiable(*(to for to, x in zip(results, present(q, k)) if not x.requires_grad))
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        of_each = gradients if len(gradients) == 2 else gradients * 2  # one gradient: of q or of k
        q, k = (_rows(x) if needed else None for x, needed in zip(of_each, ctx.needs_input_grad))
        results = iter(_rotated(q, k, _saved(ctx, not ctx.arguments.adjoint)))
        return q if q is None else next(results), k if k is None else next(results), None


class _TransformedRotation(_Rotation):
    """The same for forward mode and torch.func. A setup_context() costs 16 us, so _Rotation has none."""

    @staticmethod
    def forward(q: Tensor | None, k: Tensor | None, arguments: Arguments) -> Any:  # type: ignore[override]
        # Without tangents, which the operator would differentiate again.
        q, k = (x if x is None or is_batched(x) else forward_ad.unpack_dual(x).primal for x in (q, k))
        return _run(q, k, arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        arguments = inputs[2]
        _save(ctx, arguments)
        ctx.save_for_forward(*(getattr(arguments, name) for name in _TENSORS))

    @staticmethod
    def jvp(ctx: Any, q: Any, k: Any, arguments: Any) -> Any:
        return _rotated(_rows(q), _rows(k), _saved(ctx, ctx.arguments.adjoint))

    @staticmethod
    def vmap(info: Any, axes: tuple[Any, ...], q: Any, k: Any, arguments: Arguments) -> Any:
        return _vmap.rotate(_rotated, info, (axes[0], axes[1], *axes[2]), q, k, arguments)


class _RotationInPlace(torch.autograd.Function):
    """Rotation of q or k in place. Autograd supports no call that writes two views of one tensor."""

    @staticmethod
    def forward(ctx: Any, q: Tensor | None, k: Tensor | None, arguments: Arguments) -> Any:
        (x,) = present(q, k)
        ctx.mark_dirty(x)
        _save(ctx, arguments)
        torch.ops.ropewalk.rotate_(q, k, *arguments)
        return x

    backward = _Rotation.backward


class _TableRotation(torch.autograd.Function):
    """Rotation of q, k or both into new tensors by a table that may have gradients."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, cos: Tensor, sin: Tensor, arguments: Arguments) -> Any:
        _TableRotation.save(ctx, q, k, arguments._replace(cos=cos, sin=sin))
        return _run(q, k, arguments._replace(cos=cos, sin=sin))

    @staticmethod
    def save(ctx: Any, q: Tensor | None, k: Tensor | None, arguments: Arguments) -> None:
        ctx.arguments = arguments._replace(**_NO_TENSORS)
        ctx.save_for_backward(q, k, *(getattr(arguments, name) for name in _TENSORS))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        q, k, *tensors = ctx.saved_tensors
        arguments: Arguments = ctx.arguments._replace(**dict(zip(_TENSORS, tensors)))
        of_q, of_k = gradients if len(gradients) == 2 else gradients * 2
        of_q, of_k = _rows(of_q) if q is not None else None, _rows(of_k) if k is not None else None
        asked_q, asked_k = (x if needed else None for x, needed in zip((of_q, of_k), ctx.needs_input_grad))
        results: Any = iter(())
        if present(asked_q, asked_k):
            results = iter(_rotated(asked_q, asked_k, arguments._replace(adjoint=not arguments.adjoint)))
        table = _tables.gradients([(q, of_q), (k, of_k)], arguments, ctx.needs_input_grad[2:4])
        return (*(x if x is None else next(results) for x in (asked_q, asked_k)), *table, None)


class _TableRotationInPlace(torch.autograd.Function):
    """The same of q or k in place. It keeps a copy of the values, which the gradient of the table needs."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, cos: Tensor, sin: Tensor, arguments: Arguments) -> Any:
        (x,) = present(q, k)
        ctx.mark_dirty(x)
        arguments = arguments._replace(cos=cos, sin=sin)
        kept_q, kept_k = (x if x is None else x.clone() for x in (q, k))
        _TableRotation.save(ctx, kept_q, kept_k, arguments)
        torch.ops.ropewalk.rotate_(q, k, *arguments)
        return x

    backward = _TableRotation.backward


def _write(q: Tensor | None, k: Tensor | None, arguments: Arguments) -> tuple[Tensor | None, Tensor | None]:
    """Rotate in place, with gradients where they are needed."""
    for x, pair in ((q, (q, None)), (k, (None, k))):
        if x is not None and _learns_table(arguments):
            rest = arguments._replace(cos=None, sin=None)
            _TableRotationInPlace.apply(*pair, arguments.cos, arguments.sin, rest)
        elif x is not None and x.requires_grad:
            _RotationInPlace.apply(*pair, arguments)
        elif x is not None:
            torch.ops.ropewalk.rotate_(*pair, *arguments)
    return q, k


def _differentiated(q: Tensor | None, k: Tensor | None, arguments: Arguments) -> Any:
    return _TransformedRotation.apply(q, k, arguments) if _transformed() else _recorded(q, k, arguments)


def _differentiated_(q: Tensor | None, k: Tensor | None, arguments: Arguments) -> None:
    _write(q, k, arguments)


def _refuse_transforms(*arguments: Any) -> NoReturn:
    raise _ropewalk.Error(
        "ropewalk: rotate_ has no derivatives in forward mode and does not run under torch.func and torch.vmap; use "
        "rotate()"
    )


differentiate("rotate", _differentiated)
differentiate("rotate_", _differentiated_)
batch("rotate", functools.partial(_vmap.rotate, lambda q, k, arguments: torch.ops.ropewalk.rotate(q, k, *arguments)))
batch("rotate_", _refuse_transforms)


_SEQUENCES = (list, tuple, range)


def _as_tensor(array: Any, name: str, types: str) -> Any:
    """Return a tensor as it is, anything else as a copy: the caller may write to it before backward reads it."""
    if array is None or isinstance(array, Tensor):
        return array
    if hasattr(array, "__cuda_array_interface__"):
        return torch.as_tensor(array).clone()
    if torch.compiler.is_compiling() and isinstance(array, _SEQUENCES):  # NumPy's functions take none there
        return torch.tensor(list(array)) if len(array) else torch.empty(0, dtype=torch.int64)
    if type(array) is not np.ndarray and not torch.compiler.is_compiling():
        _ropewalk.check_plain(array, name)
    try:
        copy = np.array(array, order="C")
    except ValueError as problem:  # rows of several lengths
        raise _ropewalk.Error(f"ropewalk: {name} cannot be {types}: {problem}") from None
    try:
        return torch.from_numpy(copy if copy.size else copy.astype(np.int64))
    except (TypeError, ValueError):  # objects, big endian
        raise _ropewalk.Error(f"ropewalk: {name} {copy.dtype} {list(copy.shape)}: expected {types}") from None


def _indices(given: Any, name: str, narrow: bool) -> Any:
    """Return integers as a tensor; those of Python are int32 where only that is read."""
    made = _as_tensor(given, name, "int32" if narrow else "int64")
    return made.int() if narrow and isinstance(given, _SEQUENCES) else made


def _check_size(array: Any, name: str, x: Tensor, starts: Any = None) -> None:
    """Refuse positions that are longer than every axis of q or k, and than `starts`, before NumPy copies them."""
    sizes = array.shape if isinstance(array, np.ndarray) else (len(array),) if isinstance(array, _SEQUENCES) else ()
    limit = max(3, *x.shape, len(starts) if hasattr(starts, "__len__") else 0)
    if any(size > limit for size in sizes):
        raise _ropewalk.Error(f"ropewalk: {name} has {max(sizes)} entries for {list(x.shape)}")


def _as_offsets(offset: Any) -> Tensor:
    """Return the offsets of sequences as a tensor, which a graph or a transform cannot read."""
    offsets: Tensor = _as_tensor(offset, "offset", "int64")
    if offsets.is_floating_point() or offsets.is_complex() or offsets.dtype == torch.bool:
        if offsets.dim() == 0:
            _ropewalk.as_offset(offset)  # raises the error
        kind = str(offsets.dtype).removeprefix("torch.")
        raise _ropewalk.Error(
            f"ropewalk: offset {kind} {list(offsets.shape)}: expected int64, or integers of at most 32 bits"
        )
    return offsets


def _has_derivatives(x: Tensor) -> bool:
    """Return whether forward mode or torch.func takes derivatives with respect to a tensor."""
    return x.requires_grad or forward_ad.unpack_dual(x).tangent is not None


def _prepare(
    q: Any,
    k: Any,
    encoding: _ropewalk.Encoding,
    positions: Any,
    offset: Any,
    cu_seqlens: Any,
    order: str | None,
    inverse: bool,
    adjoint: bool,
    table: Any,
    threads: int | None,
) -> Arguments:
    """Check the arguments of rotate() and convert them to those of an operator."""
    for name, x in (("q", q), ("k", k)):
        if x is not None and not isinstance(x, Tensor):
            raise _ropewalk.Error(f"ropewalk: {name} is a {type(x).__name__}, but the other one is a torch.Tensor")
        if x is not None and x.is_nested:
            raise _ropewalk.Error(
                f"ropewalk: {name} is a nested tensor; pass its values(), and cu_seqlens=its offsets()"
            )
    check_encoding(encoding)
    types = "float32, float16, bfloat16 or float64"
    cos, sin = (
        (None, None) if table is None else _tables.split(table, encoding, lambda x: _as_tensor(x, "table", types))
    )
    if table is not None and (cos is None or sin is None):  # an operator would take None for no table
        raise TypeError(f"ropewalk: {'cos' if cos is None else 'sin'} must be an array, got NoneType")
    cos, sin = _as_tensor(cos, "cos", types), _as_tensor(sin, "sin", types)
    if table is not None and _transformed() and any(_has_derivatives(x) for x in (cos, sin)):
        raise _ropewalk.Error(
            "ropewalk: a table has no derivatives in forward mode and by torch.func; use torch.autograd, or detach it"
        )
    offsets = None
    if isinstance(offset, np.ndarray):
        several = offset.ndim > 0
    else:
        several = isinstance(offset, (Tensor, Sequence)) and not isinstance(offset, (str, bytes))
    if several:
        if not torch.compiler.is_compiling():
            _check_size(offset, "offset", k if q is None else q, cu_seqlens)
        offsets, offset = _as_offsets(offset), 0
    elif isinstance(offset, bool) or not isinstance(offset, (int, torch.SymInt)):
        offset = _ropewalk.as_offset(offset)
    if not torch.compiler.is_compiling():
        _check_size(positions, "positions", k if q is None else q)
    positions = _as_tensor(positions, "positions", "int64")
    cu_seqlens = _as_tensor(cu_seqlens, "cu_seqlens", "int64")
    return Arguments(encoding.key, positions, offset, cu_seqlens, order, inverse, adjoint, cos, sin, threads, offsets)


def _check_pair(q: Any, k: Any, encoding: _ropewalk.Encoding, order: str | None) -> None:
    """Check q and k together, since autograd has them written one after the other."""
    if all(x is None or type(x) in (Tensor, torch.nn.Parameter) for x in (q, k)):
        _ropewalk.check_pair(q, k, encoding, order)


def _check_writable(name: str, x: Tensor | None) -> None:
    """Refuse what autograd would refuse after the memory is written."""
    if x is None or not x.requires_grad:
        return
    base = x._base
    if x.is_leaf or (base is not None and base.is_leaf and base.requires_grad):
        raise _ropewalk.Error(
            f"ropewalk: {name} {list(x.shape)} is {'' if x.is_leaf else 'a view of '}a leaf that requires grad, and "
            "rotate_ would overwrite it; use rotate(), or call under torch.no_grad()"
        )
    origin = None if base is None else _VIEWS.get(getattr(_creation(x), "name", ""))
    if origin is not None:
        raise _ropewalk.Error(
            f"ropewalk: {name} {list(x.shape)} is a view made {origin}, which autograd does not allow to be "
            "written; use rotate(), or make the view by a slice"
        )


def _is_distributed(q: Any, k: Any, arguments: Arguments) -> bool:
    """Return whether q or k is a DTensor. Its module takes 0.65 s to import, so it is looked up."""
    kind: Any = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    if kind is None:
        return False
    if isinstance(q, kind) or isinstance(k, kind):
        if _learns_table(arguments):
            raise _ropewalk.Error(
                "ropewalk: a table gets no gradient from DTensors; pass a table without requires_grad"
            )
        return True
    for name, x in zip(Arguments._fields, arguments):
        if isinstance(x, kind):
            raise _ropewalk.Error(f"ropewalk: {name} is a DTensor, but q and k are not; pass {name}.to_local()")
    return False


def rotate(q: Any, k: Any, *arguments: Any) -> Any:
    """ropewalk.rotate() of tensors. `arguments` are its other ones in their order, without out."""
    prepared = _prepare(q, k, *arguments)
    if _is_distributed(q, k, prepared):
        from ropewalk import _dtensor

        return _dtensor.rotate(_rotated, q, k, prepared, arguments[0])
    results = _rotated(q, k, prepared)
    return results[0] if len(results) == 1 else tuple(results)


def rotate_(q: Any, k: Any, *arguments: Any) -> Any:
    """ropewalk.rotate_() of tensors."""
    prepared = _prepare(q, k, *arguments)
    if _transformed():
        _refuse_transforms()
    if _is_distributed(q, k, prepared):
        from ropewalk import _dtensor

        return _dtensor.rotate_(_rotated, q, k, prepared, arguments[0])
    if _records(q, k, prepared):
        _check_writable("q", q)
        _check_writable("k", k)
        if q is not None and k is not None:
            _check_pair(q, k, arguments[0], prepared.order)
        q, k = _write(q, k, prepared)
    elif _exporting() and torch.onnx.is_in_onnx_export() and q is not k:  # ONNX has no operators that write
        for x, result in zip(present(q, k), torch.ops.ropewalk.rotate(q, k, *prepared)):
            x.copy_(result)
    else:
        torch.ops.ropewalk.rotate_(q, k, *prepared)
    if k is None:
        return q
    return k if q is None else (q, k)
