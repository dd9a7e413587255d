"""Tables of cosines and sines in one tensor, and the gradients of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

from ropewalk import _ropewalk

if TYPE_CHECKING:
    from torch import Tensor

    from ropewalk._operators import Arguments


def split(table: Any, encoding: _ropewalk.Encoding, as_tensor: Callable[[Any], Any]) -> Any:
    """Return the cosines and the sines of a table, which is a pair or one array [positions, rotary_dim]."""
    if isinstance(table, (tuple, list)):
        if len(table) != 2:
            raise _ropewalk.Error(f"ropewalk: table must be a pair (cos, sin), got {len(table)} entries")
        return table
    if not any(hasattr(table, name) for name in ("__dlpack__", "__array_struct__", "__cuda_array_interface__")):
        raise _ropewalk.Error(
            "ropewalk: table must be a pair (cos, sin) or one array [positions, rotary_dim], got "
            f"{type(table).__name__}"
        )
    cache = as_tensor(table)
    pairs = encoding.rotary_dim // 2
    if cache.dim() != 2 or cache.shape[1] != 2 * pairs:
        raise _ropewalk.Error(
            f"ropewalk: table {list(cache.shape)} must be [positions, {2 * pairs}] with {pairs} cosines and {pairs} "
            "sines per row, or a pair (cos, sin)"
        )
    return cache[:, :pairs], cache[:, pairs:]


def gradients(
    rotated: Sequence[tuple[Tensor | None, Tensor | None]], arguments: Arguments, needed: Sequence[bool]
) -> list[Tensor | None]:
    """Return the gradients of the cosines and of the sines of a table, for inputs and gradients of their results.

    Sums are float32, or float64 for float64 tensors. They run over heads, and over the tokens that share a row.
    """
    import torch

    if not any(needed):
        return [None, None]
    from ropewalk._decompositions import axes_of, token_positions
    from ropewalk._operators import encoding_of

    encoding, cos, sin = encoding_of(arguments.encoding), arguments.cos, arguments.sin
    assert cos is not None and sin is not None
    start, width, pairs = encoding.rotary_offset, encoding.rotary_dim, encoding.rotary_dim // 2
    totals: list[Any] = [0, 0]
    rows: Any = None
    for x, gradient in rotated:
        if x is None or gradient is None:
            continue
        new_axes, batch_axis, token_axis, head_axis = axes_of(arguments.order, x)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        parts = []
        for one in (x, gradient):
            for axis in new_axes:
                one = one.unsqueeze(axis)
            one = one.movedim((batch_axis, token_axis, head_axis), (0, 1, 2))[..., start : start + width].to(dtype)
            if encoding.layout == "half_split":
                parts += [one[..., :pairs], one[..., pairs:]]
            else:
                parts += one.unflatten(-1, (pairs, 2)).unbind(-1)
        first, second, of_first, of_second = parts
        totals[0] = totals[0] + (of_first * first + of_second * second).sum(2)
        totals[1] = totals[1] + (of_second * first - of_first * second).sum(2)
        if rows is None and cos.dim() == 2:
            batch, tokens = first.shape[:2]
            rows = token_positions(x, batch, tokens, not new_axes, encoding, arguments)[..., 0]
            # On a device, positions outside of the table read its last row.
            rows = rows.clamp(0, cos.shape[0] - 1).expand(batch, tokens).reshape(-1)
    if arguments.inverse != arguments.adjoint:
        totals[1] = -totals[1]
    return [
        _in_table(total, table, rows, pairs, encoding.layout) if is_needed else None
        for total, table, is_needed in zip(totals, (cos, sin), needed)
    ]


def _in_table(total: Tensor, table: Tensor, rows: Tensor | None, pairs: int, layout: str) -> Tensor:
    """Return the sums [batch, tokens, pairs] at the entries of the table that a call reads."""
    if rows is not None:
        result = total.new_zeros(table.shape[0], pairs).index_add(0, rows, total.flatten(0, 1))
    else:
        result = total if table.shape[0] > 1 or total.shape[0] == 1 else total.sum(0, keepdim=True)
        unread = table.shape[1] - result.shape[1]
        result = result if unread == 0 else _pad(result, (0, 0, 0, unread))
    if table.shape[-1] == 2 * pairs:  # every cosine is stored twice, and the first one is read
        result = _pad(result, (0, pairs)) if layout == "half_split" else _pad(result.unsqueeze(-1), (0, 1)).flatten(-2)
    return result.to(table.dtype)


def _pad(x: Tensor, widths: tuple[int, ...]) -> Tensor:
    import torch

    return torch.nn.functional.pad(x, widths)
