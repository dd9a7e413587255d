"""Calls of rotate() and rotate_() that consist of simpler ones.

They are packed q, k and v, keys with positions of their own, packed sequences with padding, and encodings per sequence.
"""

from __future__ import annotations

import sys
from typing import Any, Callable

import numpy as np

from ropewalk import _ropewalk, _several

_ORDERS = ("thd", "bshd", "bhsd", "sbhd")
_Function = Callable[..., Any]


def is_composite(order: str | None, encoding: Any) -> bool:
    """Return whether a call without k_positions, k_offset and padded_tail is one for rotate()."""
    return is_packed(order) or isinstance(encoding, (list, tuple))


def is_packed(order: str | None) -> bool:
    """Return whether an order is that of q, k and v in one array."""
    return isinstance(order, str) and "3" in order


def rotate(
    function: _Function, q: Any, k: Any, k_positions: Any, k_offset: Any, padded_tail: bool, **arguments: Any
) -> Any:
    """Make the calls of `function`, which is rotate_(), or rotate() if the arguments have `out`."""
    if type(padded_tail) is not bool:
        padded_tail = _ropewalk.as_bool(padded_tail, "padded_tail")
    if arguments["order"] is not None and not isinstance(arguments["order"], str):
        raise TypeError(f"ropewalk: order must be text, got {type(arguments['order']).__name__}")
    if is_packed(arguments["order"]):
        if any(x is not None for x in (k, k_positions, k_offset, arguments.get("out"))):
            raise _ropewalk.Error(
                f"ropewalk: order='{arguments['order']}' takes q, k and v as one array, without k, k_positions, "
                "k_offset and out"
            )
        return _packed(function, q, {**arguments, "padded_tail": padded_tail})
    if isinstance(arguments["encoding"], (list, tuple)):
        apart = {"padded_tail": padded_tail, "k_positions": k_positions, "k_offset": k_offset}
        return _several.rotate(function, q, k, {**arguments, **apart})
    if padded_tail:
        arguments = _with_positions(q if k is None else k, arguments)
    if k_positions is None and k_offset is None:
        return function(q, k, **arguments)
    return _apart(function, q, k, k_positions, 0 if k_offset is None else k_offset, arguments)


def _packed(function: _Function, qkv: Any, arguments: dict[str, Any]) -> Any:
    """Rotate q and k in [batch, tokens, 3, heads, head_dim], or in another order, and leave v."""
    order = str(arguments.pop("order"))
    inner, axis, shape = order.replace("3", "", 1), order.index("3"), getattr(qkv, "shape", ())
    if inner not in _ORDERS or axis == len(inner):
        raise _ropewalk.Error(f"ropewalk: order must be one of {_ORDERS} with a 3 for q, k and v, got '{order}'")
    if len(shape) != len(order) or shape[axis] != 3:
        raise _ropewalk.Error(
            f"ropewalk: q {list(shape)} must have {len(order)} axes for order='{order}', and axis {axis} must be 3"
        )
    torch: Any = sys.modules.get("torch")
    if isinstance(qkv, np.ndarray):
        stack: _Function = np.stack
    elif torch is not None and isinstance(qkv, torch.Tensor):
        stack = torch.stack
    else:
        raise _ropewalk.Error(
            f"ropewalk: order='{order}' takes NumPy arrays and PyTorch tensors, got {type(qkv).__name__}"
        )
    q, k, v = (qkv[(slice(None),) * axis + (i,)] for i in range(3))
    rotated = function(q, k, order=inner, **arguments)
    return stack((*rotated, v), axis) if "out" in arguments else qkv


def _apart(function: _Function, q: Any, k: Any, k_positions: Any, k_offset: Any, arguments: dict[str, Any]) -> Any:
    """Rotate q and k by one call each. Nothing is written unless both are valid, except in a trace."""
    positions, offset, table = (arguments.pop(name) for name in ("positions", "offset", "table"))
    if q is None or k is None:
        raise _ropewalk.Error(
            "ropewalk: k_positions and k_offset need q and k; pass positions= or offset= without them"
        )
    if arguments["cu_seqlens"] is not None:
        raise _ropewalk.Error("ropewalk: cu_seqlens excludes k_positions and k_offset; rotate q and k by two calls")
    if isinstance(table, (tuple, list)) and any(len(getattr(half, "shape", ())) == 3 for half in table):
        raise _ropewalk.Error(
            "ropewalk: a table with a row per token excludes k_positions and k_offset; rotate q and k by two calls"
        )
    q_out, k_out = q, k
    outputs: list[dict[str, Any]] = [{}, {}]
    if "out" in arguments:
        q_out, k_out = out = (None, None) if arguments["out"] is None else arguments["out"]
        outputs = [{"out": x} for x in out]
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.compiler.is_compiling():
        _ropewalk.check_apart(
            q,
            k,
            q_out,
            k_out,
            arguments["encoding"],
            positions,
            offset,
            k_positions,
            k_offset,
            arguments["order"],
            table,
        )
    return (
        function(q, None, **{**arguments, **outputs[0], "positions": positions, "offset": offset, "table": table}),
        function(None, k, **{**arguments, **outputs[1], "positions": k_positions, "offset": k_offset, "table": table}),
    )


def _with_positions(x: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Replace cu_seqlens, whose last sequence is followed by padding, by the positions of the tokens of x."""
    cu_seqlens, offset = arguments["cu_seqlens"], arguments["offset"]
    shape: Any = getattr(x, "shape", ())
    if cu_seqlens is None:
        raise _ropewalk.Error("ropewalk: padded_tail needs cu_seqlens")
    if arguments["positions"] is not None:
        raise _ropewalk.Error("ropewalk: positions and cu_seqlens exclude each other; pass one of them")
    if len(shape) != 3 or arguments["order"] not in (None, "thd"):
        raise _ropewalk.Error(f"ropewalk: cu_seqlens needs packed tokens [tokens, heads, head_dim], got {list(shape)}")
    tokens: int = shape[0]
    torch: Any = sys.modules.get("torch")
    tensors = [one for one in (cu_seqlens, offset) if torch is not None and isinstance(one, torch.Tensor)]
    on_devices = [one for one in tensors if one.device.type != "cpu"]
    device = {"device": (on_devices or tensors)[0].device} if tensors else {}
    library: Any = torch if tensors else np
    bounds, first = (
        _as_array(library, one, name, device) for name, one in (("cu_seqlens", cu_seqlens), ("offset", offset))
    )
    readable = not tensors or (
        bounds.device.type == "cpu" and type(bounds) is torch.Tensor and not torch.compiler.is_compiling()
    )
    _check_sequences(bounds, first, tokens, readable)
    bounds, first = (library.asarray(one, dtype=library.int64) for one in (bounds, first))
    shifts = library.concatenate((first - bounds[:-1], library.zeros_like(bounds[:1])))
    token = library.arange(tokens, **device)
    if tensors and getattr(torch.compiler, "is_exporting", bool)():  # ONNX has no searchsorted
        sequence = (bounds <= token[:, None]).sum(-1) - 1
    else:
        sequence = library.searchsorted(bounds, token, side="right") - 1
    positions = library.where(sequence < len(bounds) - 1, token + shifts[sequence], library.zeros_like(token))
    return {**arguments, "positions": positions, "cu_seqlens": None, "offset": 0}


def _as_array(library: Any, one: Any, name: str, device: dict[str, Any]) -> Any:
    if type(one) is not np.ndarray and not hasattr(one, "is_sparse"):  # NumPy's own arrays and tensors are plain
        _ropewalk.check_plain(one, name)
    try:
        return library.asarray(one, **device)
    except (TypeError, ValueError, OverflowError, RuntimeError) as problem:  # rows of several lengths, other objects
        raise _ropewalk.Error(f"ropewalk: {name} cannot be int64: {problem}") from None


def _check_sequences(bounds: Any, first: Any, tokens: int, readable: bool) -> None:
    """Check the bounds of sequences and the position of the first token of each, whose values may be unreadable."""
    for name, one in (("cu_seqlens", bounds), ("offset", first)):
        dtype = str(one.dtype).removeprefix("torch.")
        if "int" not in dtype or dtype == "uint64":
            raise _ropewalk.Error(
                f"ropewalk: {name} {dtype} {list(one.shape)}: expected int64, or integers of at most 32 bits"
            )
    if bounds.ndim != 1 or len(bounds) == 0:
        raise _ropewalk.Error(f"ropewalk: cu_seqlens {list(bounds.shape)}: expected [sequences + 1]")
    if first.ndim > 1 or (first.ndim == 1 and len(first) not in (1, len(bounds) - 1)):
        raise _ropewalk.Error(
            f"ropewalk: offset {list(first.shape)}: expected a number, or one entry for each of the {len(bounds) - 1} "
            "sequences of cu_seqlens"
        )
    if not readable:
        return
    starts = bounds.tolist()
    if starts[0] != 0:
        raise _ropewalk.Error(f"ropewalk: cu_seqlens must begin with 0, got {starts[0]}")
    for i, (previous, start) in enumerate(zip(starts, starts[1:]), 1):
        if start < previous:
            raise _ropewalk.Error(f"ropewalk: cu_seqlens must ascend, got {start} after {previous} at entry {i}")
    if starts[-1] > tokens:
        raise _ropewalk.Error(f"ropewalk: cu_seqlens ends with {starts[-1]} but there are {tokens} tokens")
