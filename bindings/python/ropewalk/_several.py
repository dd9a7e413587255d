"""Calls of rotate() and rotate_() with one encoding per sequence."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np

from ropewalk import _ropewalk
from ropewalk._encoding import check_encoding

_BATCH_AXES = {"bshd": 0, "bhsd": 0, "sbhd": 1}


def _fail(message: str) -> Any:
    raise _ropewalk.Error(f"ropewalk: {message}")


def rotate(function: Callable[..., Any], q: Any, k: Any, given: dict[str, Any]) -> Any:
    """Make one call of `function` per run of sequences with the same encoding, of views.

    `function` is rotate_(), or rotate() if the arguments have `out`. Nothing is written unless all calls are valid,
    except in a trace and for tensors with gradients.
    """
    encodings: Sequence[_ropewalk.Encoding] = tuple(given["encoding"])
    _check_encodings(encodings)
    for name, absent in (("table", None), ("k_positions", None), ("k_offset", None), ("padded_tail", False)):
        if given.pop(name, absent) is not absent:
            _fail(f"several encodings exclude {name}; make one call per encoding")
    if q is None and k is None:
        _fail("q and k are both None; pass at least one of them")
    make_calls = _batch_calls if given["cu_seqlens"] is None else _packed_calls
    calls = make_calls(encodings, k if q is None else q, given)
    if "out" not in given:
        parts = [(arguments, _part(q, place), _part(k, place)) for place, arguments in calls]
        _check(parts, [(None, None)] * len(parts), given["order"], True)
        for arguments, q_part, k_part in parts:
            function(q_part, k_part, **{**given, **arguments})
        return q if k is None else k if q is None else (q, k)
    return _new(function, q, k, calls, given)


def _new(function: Callable[..., Any], q: Any, k: Any, calls: list[Any], given: dict[str, Any]) -> Any:
    torch: Any = sys.modules.get("torch")
    tensors = torch is not None and any(isinstance(x, torch.Tensor) for x in (q, k))
    out = given["out"]
    compiles = tensors and torch.compiler.is_compiling()
    learns = tensors and torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k))
    if out is None and (compiles or learns):
        results = [function(_part(q, place), _part(k, place), **{**given, **more}) for place, more in calls]
        axis = max(len(calls[0][0]) - 1, 0)
        if q is None or k is None:
            return torch.cat(results, axis)
        return tuple(torch.cat(one, axis) for one in zip(*results))
    outs = [None, None]
    if out is not None:
        outs = (
            list(out) if isinstance(out, (tuple, list)) and len(out) == 2 else [out, None] if k is None else [None, out]
        )
    for i, x in enumerate((q, k)):
        if x is not None and outs[i] is None:
            outs[i] = torch.empty_like(x) if tensors else np.empty_like(x)
    parts = [(arguments, _part(q, place), _part(k, place)) for place, arguments in calls]
    targets = [(_part(outs[0], place), _part(outs[1], place)) for place, _ in calls]
    _check(parts, targets, given["order"], False)
    for (arguments, q_part, k_part), target in zip(parts, targets):
        one = target if q is not None and k is not None else target[0] if k is None else target[1]
        function(q_part, k_part, **{**given, **arguments, "out": one})
    return outs[0] if k is None else outs[1] if q is None else tuple(outs)


def _check_encodings(encodings: Sequence[_ropewalk.Encoding]) -> None:
    if not encodings:
        _fail("encoding is empty, expected one per sequence")
    for one in encodings:
        check_encoding(one)

    def shape(e: _ropewalk.Encoding) -> tuple[Any, ...]:
        return e.head_dim, e.rotary_dim, e.rotary_offset, e.layout

    for i, one in enumerate(encodings):
        if shape(one) != shape(encodings[0]):
            _fail(
                "the encodings of a call must have one head_dim, rotary_dim, rotary_offset and layout, got "
                f"{shape(encodings[0])} and, for sequence {i}, {shape(one)}"
            )
        if one.draws_positions:
            _fail(f"'{one.expression}' draws positions, which several encodings in one call exclude")


def _runs(encodings: Sequence[_ropewalk.Encoding]) -> list[tuple[int, int, _ropewalk.Encoding]]:
    """Return the bounds of runs of equal encodings."""
    runs: list[tuple[int, int, _ropewalk.Encoding]] = []
    for i, one in enumerate(encodings):
        if runs and runs[-1][2].key == one.key:
            runs[-1] = (runs[-1][0], i + 1, one)
        else:
            runs.append((i, i + 1, one))
    return runs


def _part(x: Any, place: tuple[slice, ...]) -> Any:
    return None if x is None else x[place]


def _offsets_of(offset: Any, sequences: int, start: int, end: int) -> Any:
    """Return the offsets of a run. One number is shared by all."""
    axes = (
        len(getattr(offset, "shape", ())) if hasattr(offset, "shape") else int(isinstance(offset, (list, tuple, range)))
    )
    if axes == 0 or len(offset) == 1:
        return offset
    if len(offset) != sequences:
        _fail(f"offset has {len(offset)} entries for {sequences} sequences")
    return offset[start:end]


def _batch_calls(encodings: Sequence[_ropewalk.Encoding], x: Any, given: dict[str, Any]) -> list[Any]:
    shape = tuple(getattr(x, "shape", ()))
    order = given["order"] or ("bshd" if len(shape) == 4 else "thd")
    axis = _BATCH_AXES.get(order) if isinstance(order, str) and len(shape) == 4 else None
    batch = 1 if axis is None else shape[axis]
    if len(encodings) != batch:
        _fail(f"encoding has {len(encodings)} entries for a batch of {batch}; packed sequences need cu_seqlens=")
    if axis is None:
        return [((), {"encoding": encodings[0]})]
    ids = given["positions"]
    if ids is not None and not hasattr(ids, "shape"):
        ids = np.asarray(ids)
    calls = []
    for start, end, one in _runs(encodings):
        arguments: dict[str, Any] = {"encoding": one, "offset": _offsets_of(given["offset"], batch, start, end)}
        if ids is not None:
            by_row = ids.ndim >= 2 and ids.shape[-2] == batch
            arguments["positions"] = ids[..., start:end, :] if by_row else ids
        calls.append(((slice(None),) * axis + (slice(start, end),), arguments))
    return calls


def _packed_calls(encodings: Sequence[_ropewalk.Encoding], x: Any, given: dict[str, Any]) -> list[Any]:
    bounds = given["cu_seqlens"]
    if len(getattr(bounds, "shape", (1,))) != 1:
        _fail(f"cu_seqlens {list(bounds.shape)}: expected [sequences + 1]")
    torch: Any = sys.modules.get("torch")
    unread = torch is not None and isinstance(bounds, torch.Tensor) and bounds.device.type != "cpu"
    if unread or (torch is not None and torch.compiler.is_compiling()):
        _fail(
            "an encoding per packed sequence needs cu_seqlens on the host and no graph; on a device, concatenate "
            "cos_sin_cache() of the encodings and add the first row of its encoding to each position"
        )
    starts = [_ropewalk.as_int(start, "cu_seqlens") for start in bounds]
    sequences = len(starts) - 1
    if len(encodings) != sequences:
        _fail(f"encoding has {len(encodings)} entries for {sequences} sequences of cu_seqlens")
    tokens = x.shape[0] if getattr(x, "shape", ()) else 0
    if starts[0] != 0 or starts[-1] != tokens or any(b < a for a, b in zip(starts, starts[1:])):
        _fail(f"cu_seqlens must ascend from 0 to the number of tokens {tokens}, got {starts}")
    calls = []
    for start, end, one in _runs(encodings):
        inner = [s - starts[start] for s in starts[start : end + 1]]
        offset = _offsets_of(given["offset"], sequences, start, end)
        calls.append(((slice(starts[start], starts[end]),), {"encoding": one, "cu_seqlens": inner, "offset": offset}))
    return calls


def _check(parts: list[Any], targets: list[Any], order: str | None, in_place: bool) -> None:
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.compiler.is_compiling():
        return
    for (arguments, q, k), (q_out, k_out) in zip(parts, targets):
        _ropewalk.check_rotation(
            q,
            k,
            q_out,
            k_out,
            arguments["encoding"],
            arguments.get("positions"),
            arguments.get("offset", 0),
            arguments.get("cu_seqlens"),
            order,
            in_place,
        )
