"""Decompositions of the operators into standard ones, for ONNX and other formats that have no custom operators.

Angles come from the same 64-bit steps as in the kernels, by integers that do not overflow for |position| < 2^31.
Cosines and sines are within 4e-7. A decomposed program contains nothing of ropewalk.
"""

from __future__ import annotations

import functools
import math
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ropewalk import _ropewalk
from ropewalk._encoding import encoding as make_encoding
from ropewalk._operators import Arguments, encoding_of, present

_HALF = 1 << 32  # radix of the two digits of a step

# Constants of each trace.
_constants: WeakKeyDictionary[Any, dict[Any, Tensor]] = WeakKeyDictionary()

# Axes of the batch, the tokens and the heads. Orders without a batch become "bshd" by new axes of one.
_NEW_AXES = {"thd": (0,), "td": (0, 2), "hd": (0, 0)}
_ORDERS = {"bshd": (0, 1, 2), "bhsd": (0, 2, 1), "sbhd": (1, 0, 2)}


def decompositions() -> dict[Any, Any]:
    """Return the decompositions of ropewalk's PyTorch operators into standard operators.

    torch.onnx.export(..., dynamo=True) finds them without this function. It is for torch.export:

        table = torch.export.default_decompositions()
        table.update(ropewalk.decompositions())
        program = torch.export.export(model, inputs).run_decompositions(table)

    Cosines and sines are within 4e-7 for |position| < 2^31.

    Returns:
        A dict from operators to functions.
    """
    from ropewalk import _patched  # noqa: F401 - registers late_cos_sin

    operators = torch.ops.ropewalk
    return {operators.rotate.default: rotate, operators.late_cos_sin.default: late_cos_sin}


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise _ropewalk.Error(f"ropewalk: {message}")


def _equal(a: Any, b: Any) -> bool:
    """Return whether two sizes are equal for all inputs. The answers about symbolic sizes add no guards."""
    return bool(statically_known_true(a == b))


def _differ(a: Any, b: Any) -> bool:
    return bool(statically_known_true(a != b))


def _less(a: Any, b: Any) -> bool:
    return bool(statically_known_true(a < b))


def _constant(values: Any, like: Tensor) -> Tensor:
    """Return numbers as a tensor. torch.export drops tensors that a decomposition makes, but it keeps their numbers.

    One node per number makes an export slow, so the calls in one trace share the tensor.
    """
    mode = get_proxy_mode()
    made = {} if mode is None else _constants.setdefault(mode.tracer, {})
    key = values.tobytes(), values.dtype.name, like.device
    if key not in made:
        dtype = getattr(torch, values.dtype.name)
        made[key] = torch.cat([torch.full((1,), x, dtype=dtype, device=like.device) for x in values.tolist()])
    tensor: Tensor = made[key]
    return tensor


def _products(positions: Tensor, rates: Any) -> tuple[Tensor, Tensor]:
    """Return position * rate / 2^32 of int64 positions and 64-bit rates [pairs]: int64 [..., pairs].

    The second result is the remainder of the division.
    """
    rates = _constant(rates.astype(np.uint64).view(np.int64), positions)
    low = positions * torch.remainder(rates, _HALF)
    # The upper digit is signed: an angle wraps, and a rate of magnitudes is positive.
    high = positions * torch.floor_divide(rates, _HALF)
    return high + torch.floor_divide(low, _HALF), torch.remainder(low, _HALF)


def _angles(positions: Tensor, steps: Any, dtype: torch.dtype) -> Tensor:
    """Return angles in [-pi, pi], [..., pairs]: within 3e-7, or within 1e-15 in float64."""
    phases, remainder = _products(positions, steps)
    signed = (torch.remainder(phases + _HALF // 2, _HALF) - _HALF // 2).to(dtype)
    if dtype == torch.float64:
        signed = signed + remainder.to(dtype) / _HALF
    return signed * (2 * math.pi / _HALF)


def _magnitudes(positions: Tensor, encoding: _ropewalk.Encoding, sign: int, dtype: torch.dtype) -> Tensor:
    """Return 2^(sign * (position - centre) * rate), [..., pairs]: within 4e-7 of its value in float32."""
    distances = positions - sum(part.length // 2 for part in _parts(encoding) if isinstance(part, _ropewalk.XPos))
    if dtype == torch.float64:
        return torch.exp2(distances.to(dtype) * _constant(sign * encoding.magnitude_rates, positions))
    unit = 1 << 24  # of an exponent
    exponents = sign * _products(distances, encoding.magnitude_rates * 2.0**56)[0]
    whole = torch.floor_divide(exponents, unit)
    fraction = (exponents - whole * unit).to(dtype) / unit
    return torch.exp2(fraction) * torch.exp2(whole.to(dtype))


def _parts(encoding: _ropewalk.Encoding) -> list[Any]:
    return [_ropewalk.policy(part) for part in encoding.expression.split("|")]


@functools.lru_cache(maxsize=64)
def _axes_of_pairs(encoding: _ropewalk.Encoding) -> Any:
    """Return the axis that each pair follows: int64 [pairs]. It is read from the angles of (1, 0, 0), (0, 1, 0), …"""
    _, sin = encoding.cos_sin(np.eye(3, dtype=np.int64))
    return np.abs(sin).argmax(axis=0)


def axes_of(order: str | None, x: Tensor) -> tuple[tuple[int, ...], int, int, int]:
    """Return the new axes of one for an order without batch, and the axes of batch, tokens and heads with them."""
    order = order or {3: "thd", 4: "bshd"}.get(x.dim(), "")
    _expect(order in _ORDERS or order in _NEW_AXES, f"order {order!r} is unknown")
    new_axes = _NEW_AXES.get(order, ())
    return (new_axes, *_ORDERS["bshd" if new_axes else order])


def token_positions(
    x: Tensor, batch: Any, tokens: Any, batched: bool, encoding: _ropewalk.Encoding, arguments: Arguments
) -> Tensor:
    """Return int64 positions [batch or 1, tokens, 1], or [batch or 1, tokens, pairs] where tokens have several."""
    given = arguments.positions
    if given is None:
        index = torch.arange(tokens, dtype=torch.int64, device=x.device)
        first: Any = arguments.offset
        if arguments.offsets is not None:
            first = arguments.offsets.to(torch.int64).reshape(-1)
        if arguments.cu_seqlens is not None:
            starts = arguments.cu_seqlens.to(torch.int64)
            sequence = (index[:, None] >= starts[1:]).sum(-1)
            index = index - torch.index_select(starts, 0, sequence)
            if arguments.offsets is not None and not _equal(first.shape[0], 1):
                first = torch.index_select(first, 0, sequence)
        elif arguments.offsets is not None:
            count = first.shape[0]
            _expect(not _differ(count, 1) or not _differ(count, batch), f"offset has {count} entries for {batch} rows")
            by_row: Tensor = index + first[:, None]
            return by_row[..., None]
        by_token: Tensor = index + first
        return by_token[None, :, None]
    _expect(arguments.offsets is None, "positions and an offset exclude each other; pass one of them")
    _expect(arguments.cu_seqlens is None, "positions and cu_seqlens exclude each other; pass one of them")
    # For mrope, [3, tokens] where q and k have no batch axis, or [3 or 1, batch or 1, tokens].
    several = given.dim() >= 2 and any(hasattr(part, "sections") for part in _parts(encoding))
    shape = list(given.shape)
    rows: Any = 1 if given.dim() == 1 + several else shape[-2]
    axes = shape[0] if several else 1
    _expect(given.dim() - several in (1, 2) and axes in (1, 3), f"positions {shape}: unexpected axes")
    _expect(not several or given.dim() == 3 or not batched, f"positions {shape} of a batch: expected [3, 1, tokens]")
    _expect(not _differ(shape[-1], tokens), f"positions has {shape[-1]} entries for {tokens} tokens")
    _expect(not _differ(rows, 1) or not _differ(rows, batch), f"positions has {rows} rows for a batch of {batch}")
    # A reshape also fails in a program for sizes that do not fit, where a broadcast would repeat one position.
    given = given.to(torch.int64).reshape(axes, rows, tokens)
    if axes == 3:
        return torch.index_select(given, 0, _constant(_axes_of_pairs(encoding), x)).permute(1, 2, 0)
    return given[0].unsqueeze(-1)


def _table(table: Tensor, positions: Any, tokens: Any, pairs: int, layout: str, dtype: torch.dtype) -> Tensor:
    """Return the rows of a caller-supplied table that belong to the tokens: [batch or 1, tokens, pairs]."""
    _expect(table.shape[-1] in (pairs, 2 * pairs), f"the table must have {pairs} or {2 * pairs} columns")
    if table.shape[-1] == 2 * pairs:
        table = table[..., :pairs] if layout == "half_split" else table[..., ::2]
    if table.dim() == 3:
        _expect(not _less(table.shape[1], tokens), f"the table has {table.shape[1]} rows for {tokens} tokens")
        rows = table[:, :tokens].reshape(table.shape[0], tokens, pairs)
    else:
        index: Any = positions()[..., 0]
        index = torch.where(index < 0, table.shape[0], index)  # ONNX would count negative ones from the end
        rows = torch.index_select(table, 0, index.reshape(-1)).reshape(*index.shape, pairs)
    return rows.to(dtype)


def _cos_sin(
    encoding: _ropewalk.Encoding, arguments: Arguments, positions: Any, tokens: Any, sign: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return cos and sin with their factors, for queries (sign -1) or keys (1): [batch or 1, tokens, pairs]."""
    if arguments.cos is not None and arguments.sin is not None:
        pairs = encoding.rotary_dim // 2
        cos, sin = (_table(t, positions, tokens, pairs, encoding.layout, dtype) for t in (arguments.cos, arguments.sin))
    else:
        angles = _angles(positions(), encoding.steps, dtype)
        cos, sin = angles.cos(), angles.sin()
        factor: Any = 1 / encoding.attention_factor if arguments.inverse else encoding.attention_factor
        if encoding.magnitude_rates.any():
            factor = factor * _magnitudes(positions(), encoding, -sign if arguments.inverse else sign, dtype)
        if isinstance(factor, Tensor) or factor != 1:
            cos, sin = cos * factor, sin * factor
    return cos, sin if arguments.inverse == arguments.adjoint else -sin


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, encoding: _ropewalk.Encoding) -> Tensor:
    """Rotate one tensor. cos and sin have its axes, the last of which has one entry per pair."""
    start, width = encoding.rotary_offset, encoding.rotary_dim
    part = x[..., start : start + width].to(cos.dtype)
    if encoding.layout == "half_split":
        # The formula of Transformers, which optimizers of ONNX models recognize.
        first, second = part[..., : width // 2], part[..., width // 2 :]
        partner = torch.cat((-second, first), -1)
        result = part * torch.cat((cos, cos), -1) + partner * torch.cat((sin, sin), -1)
    else:
        first, second = part.reshape(*part.shape[:-1], width // 2, 2).unbind(-1)
        result = torch.stack((first * cos - second * sin, second * cos + first * sin), -1).flatten(-2)
    result = result.to(x.dtype)
    if width != encoding.head_dim:
        result = torch.cat((x[..., :start], result, x[..., start + width :]), -1)
    return result


def rotate(q: Tensor | None, k: Tensor | None, *given: Any, **named: Any) -> list[Tensor]:
    """Decompose torch.ops.ropewalk.rotate."""
    arguments = Arguments(*given, **named)
    encoding = encoding_of(arguments.encoding)
    tensors = present(q, k)
    if any(hasattr(x, "_spec") for x in tensors):
        raise NotImplementedError  # DTensor looks for a sharding rule, but arange() below does not know the shard
    _expect(
        not encoding.draws_positions,
        f"'{encoding.expression}' draws random positions, which standard operators cannot; export in evaluation mode "
        "or without it",
    )
    order = arguments.order or {3: "thd", 4: "bshd"}.get(tensors[0].dim(), "")
    new_axes, batch_axis, token_axis, head_axis = axes_of(order, tensors[0])
    results: list[Tensor] = []
    shared: Any = None  # batch, tokens, cos and sin of the queries
    for x, sign in ((q, -1), (k, 1)):
        if x is None:
            continue
        shape = list(x.shape)
        _expect(len(shape) == len(order), f"{shape} has {len(shape)} axes, but the order '{order}' names {len(order)}")
        _expect(shape[-1] == encoding.head_dim, f"{shape}: the encoding is for head_dim {encoding.head_dim}")
        whole = x
        for axis in new_axes:
            whole = whole.unsqueeze(axis)
        batch, tokens = whole.shape[batch_axis], whole.shape[token_axis]
        # Standard operators would rotate keys of another order without a message.
        _expect(
            shared is None or not (_differ(batch, shared[0]) or _differ(tokens, shared[1])),
            f"q and k must have the same batch and tokens, got {[list(x.shape) for x in tensors]} in the order {order}"
            + ("; did you mean order='bhsd'?" if arguments.order is None and len(shape) == 4 else ""),
        )
        is_shared = shared is not None and _equal(batch, shared[0]) and _equal(tokens, shared[1])
        if not is_shared or encoding.magnitude_rates.any():
            dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
            positions = functools.cache(
                functools.partial(token_positions, x, batch, tokens, not new_axes, encoding, arguments)
            )
            shared = batch, tokens, _cos_sin(encoding, arguments, positions, tokens, sign, dtype)
        cos, sin = (row.movedim(0, 1 if batch_axis > token_axis else 0).unsqueeze(head_axis) for row in shared[2])
        result = _rotated(whole, cos, sin, encoding)
        for axis in reversed(new_axes):
            result = result.squeeze(axis)
        results.append(_ordered_like(x, result))
    return results


def _ordered_like(x: Tensor, result: Tensor) -> Tensor:
    """Return the result with the axes in the order of x in memory, as the operator does. Later views depend on it."""
    axes = sorted(range(x.dim()), key=x.stride, reverse=True)
    return result.permute(axes).contiguous().permute([axes.index(axis) for axis in range(x.dim())])


def late_cos_sin(positions: Tensor, draw: Tensor | None, key: str) -> tuple[Tensor, Tensor]:
    """Decompose torch.ops.ropewalk.late_cos_sin, the table of an encoding that depends on the largest position.

    It supports `dynamic`. The frequencies are computed in float64.
    """
    encoding = encoding_of(key)
    _expect(draw is None, f"'{encoding.expression}' draws random positions; export the model in evaluation mode")
    _expect(positions.dim() <= 2, f"'{encoding.expression}' has three positions per token and depends on the length")
    parts = [part for part in _parts(encoding) if isinstance(part, _ropewalk.DynamicNtk)]
    _expect(len(parts) == 1, f"'{encoding.expression}' depends on the length; patch the model without a policy")
    (dynamic,) = parts
    pairs = encoding.rotary_dim // 2
    exponents = -np.arange(pairs) / max(pairs - 1, 1)
    shortest = _of_length(encoding, 1).inv_freq
    for length in (1, dynamic.original_length + 1, 9 * dynamic.original_length):
        ratio = max(dynamic.factor * length / dynamic.original_length - (dynamic.factor - 1), 1.0)
        _expect(
            np.allclose(shortest * ratio**exponents, _of_length(encoding, length).inv_freq, rtol=1e-12, atol=0),
            f"'{encoding.expression}' depends on the length in a way that standard operators do not support here",
        )
    longest = positions.max().to(torch.float64) + 1
    growth = (longest * (dynamic.factor / dynamic.original_length) - (dynamic.factor - 1)).clamp(min=1.0)
    turns = _constant(shortest / (2 * math.pi), positions) * torch.pow(growth, _constant(exponents, positions))
    turns = positions.to(torch.float64)[..., None] * turns
    angles = (turns - turns.round()).to(torch.float32) * (2 * math.pi)
    factor = encoding.attention_factor
    return angles.cos() * factor, angles.sin() * factor


def _of_length(encoding: _ropewalk.Encoding, length: int) -> _ropewalk.Encoding:
    e = encoding
    return make_encoding(e.expression, e.head_dim, e.base, e.rotary_dim, e.rotary_offset, e.layout, length)
