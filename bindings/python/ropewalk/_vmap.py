"""Rotations under torch.vmap: the mapped axis becomes heads or batch rows of one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from ropewalk import _ropewalk
from ropewalk._operators import Arguments, encoding_of, present

Run = Callable[[Any, Any, Arguments], Sequence[Tensor]]
_ORDERS = ("thd", "bshd", "bhsd", "sbhd", "hd", "td")


def rotate(run: Run, info: Any, mapped: Sequence[Any], q: Any, k: Any, arguments: Arguments) -> tuple[Any, int]:
    """Rotate all elements of a mapped axis by one call of `run`, and return the results and their mapped axis.

    `mapped` has the axes of q, of k and of each argument. The axis becomes heads, since all heads of a token have the
    same positions, also drawn ones and those of packed sequences. If positions are mapped, it becomes batch rows.
    """
    axes = Arguments(*mapped[2:])
    for name in ("cu_seqlens", "cos", "sin"):
        if getattr(axes, name) is not None:
            raise _ropewalk.Error(
                f"ropewalk: {name} cannot be mapped by torch.vmap, only q, k and positions can; call once per element"
            )
    if axes.offsets is not None:
        arguments, axes = _counted(arguments, axes, q, k, mapped)
    if axes.positions is not None and encoding_of(arguments.encoding).draws_positions:
        raise _ropewalk.Error(
            "ropewalk: the encoding draws positions for each batch row, so torch.vmap cannot map positions; call once "
            "per element"
        )
    q, k = (_in_front(x, axis, info.batch_size) for x, axis in zip((q, k), mapped))
    ids: Any = arguments.positions
    if axes.positions is not None:
        ids = ids.movedim(axes.positions, 0)
    first = arguments._replace(positions=ids if axes.positions is None else ids[0])
    x = present(q, k)[0]
    order = arguments.order or {4: "thd", 5: "bshd"}.get(x.dim(), "")
    if order not in _ORDERS or len(order) != x.dim() - 1:
        _refuse(run, q, k, first)
    if axes.positions is None:
        return _folded(run, info.batch_size, "h", order, q, k, arguments)
    rows = _rows(ids, dict(zip(order, x.shape[1:])).get("b"), encoding_of(arguments.encoding).has_axes)
    if rows is None:
        _refuse(run, q, k, first)
    cos: Any = arguments.cos
    sin: Any = arguments.sin
    if cos is not None and cos.dim() == 3 and cos.shape[0] > 1:  # rows of every batch row
        cos, sin = (x.repeat(info.batch_size, 1, 1) for x in (cos, sin))
    arguments = arguments._replace(positions=rows, cos=cos, sin=sin)
    return _folded(run, info.batch_size, "b", order, q, k, arguments)


def _counted(arguments: Arguments, axes: Arguments, q: Any, k: Any, mapped: Sequence[Any]) -> tuple[Any, Any]:
    """Replace mapped offsets by positions [elements, tokens] or [elements, batch, tokens]."""
    if arguments.cu_seqlens is not None:
        raise _ropewalk.Error(
            "ropewalk: offset cannot be mapped by torch.vmap together with cu_seqlens; call once per element"
        )
    if arguments.positions is not None:
        raise _ropewalk.Error("ropewalk: positions and an offset exclude each other; pass one of them")
    offsets: Any = arguments.offsets
    x, axis = (k, mapped[1]) if q is None else (q, mapped[0])
    order = arguments.order or {3: "thd", 4: "bshd"}.get(x.dim() - (axis is not None), "")
    letter = order.find("t" if "t" in order else "s")
    shape = [size for at, size in enumerate(x.shape) if at != axis]
    tokens = shape[letter] if 0 <= letter < len(shape) else 1  # "hd", or an order that the call refuses
    ids = offsets.movedim(axes.offsets, 0)[..., None] + torch.arange(tokens, device=offsets.device)
    if encoding_of(arguments.encoding).has_axes and ids.dim() == 3:
        ids = ids[:, None]  # one position for all axes
    return arguments._replace(positions=ids, offsets=None), axes._replace(positions=0, offsets=None)  # type: ignore[arg-type]


def _in_front(x: Any, axis: int | None, size: int) -> Any:
    """Move the mapped axis to the front, or repeat a tensor that has none."""
    if x is None:
        return x
    return x.expand(size, *x.shape) if axis is None else x.movedim(axis, 0)


def _refuse(run: Run, q: Any, k: Any, arguments: Arguments) -> NoReturn:
    """Raise the error of a call for the first element."""
    run(q if q is None else q[0], k if k is None else k[0], arguments)
    raise _ropewalk.Error("ropewalk: the axes of q, k or positions do not fit under torch.vmap")


def _rows(ids: Any, batch: int | None, has_axes: bool) -> Any:
    """Return ids [elements, …] with a row per element and batch row, or None for a shape that a call refuses."""
    if ids.dim() == 2:
        ids = ids[:, None, None]
    elif ids.dim() == 3:
        ids = ids[:, :, None] if batch is None and has_axes else ids[:, None]
        if batch is not None and has_axes and ids.shape[2] == 3:  # t, h and w, or a batch of 3
            return None
    elif not has_axes:
        return None
    rows = batch or 1
    if ids.dim() != 4 or ids.shape[2] not in (1, rows):
        return None
    ids = ids.expand(-1, -1, rows, -1).movedim(0, 1).flatten(1, 2)
    return ids if has_axes else ids[0]


def _folded(run: Run, size: int, into: str, order: str, q: Any, k: Any, arguments: Arguments) -> tuple[Any, int]:
    """Make the first axis of q and k heads ("h") or batch rows ("b")."""
    inserted = []  # axes that one element lacks
    if len(order) == 2:
        inserted.append(1 + "thd".index("h" if order == "td" else "t"))
        order = "thd"
    if into not in order:
        inserted.append(1)
        order = "bshd"
    at = order.index(into)

    def fold(x: Any) -> Any:
        for axis in inserted:
            x = x.unsqueeze(axis)
        x = x.movedim(0, at).flatten(at, at + 1)
        return x if x.stride(-1) == 1 else x.contiguous()

    def unfold(x: Any) -> Any:
        x = x.unflatten(at, (size, x.shape[at] // size)).movedim(at, 0)
        for axis in reversed(inserted):
            x = x.squeeze(axis)
        return x

    q, k = (x if x is None else fold(x) for x in (q, k))
    return tuple(unfold(x) for x in run(q, k, arguments._replace(order=order))), 0
