"""Re-encoding of cached keys as the PyTorch operator `torch.ops.ropewalk.rerotate_cache_`, without gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ropewalk import _operators, _ropewalk
from ropewalk._encoding import check_encoding
from ropewalk._torch import _as_tensor, _indices

_library = torch.library.Library("ropewalk", "FRAGMENT")
_library.define(
    "rerotate_cache_(Tensor(a!) k_cache, Tensor(b!)? k_scales, Tensor? k_scale_at, Tensor? slot_mapping, "
    "Tensor? page_table, Tensor? kv_indptr, Tensor? kv_indices, Tensor? entries, Tensor? positions, "
    "Tensor? new_positions, str old_encoding, str new_encoding, float? k_scale=None, SymInt? first_entry=None, "
    "SymInt offset=0, SymInt? new_offset=None, str cache_order='nhd', str? cache_dtype=None, SymInt? threads=None) "
    "-> ()"
)


def _rerotate_cache(
    k_cache: Tensor,
    k_scales: Tensor | None,
    k_scale_at: Tensor | None,
    slot_mapping: Tensor | None,
    page_table: Tensor | None,
    kv_indptr: Tensor | None,
    kv_indices: Tensor | None,
    entries: Tensor | None,
    positions: Tensor | None,
    new_positions: Tensor | None,
    old_encoding: str,
    new_encoding: str,
    k_scale: float | None = None,
    first_entry: int | None = None,
    offset: int = 0,
    new_offset: int | None = None,
    cache_order: str = "nhd",
    cache_dtype: str | None = None,
    threads: int | None = None,
) -> None:
    """Run the kernel."""
    scale = next((x for x in (k_scales, k_scale_at, k_scale) if x is not None), None)
    _ropewalk.rerotate_cache_(
        *(k_cache, _operators.encoding_of(old_encoding), _operators.encoding_of(new_encoding), slot_mapping),
        *(page_table, kv_indptr, kv_indices, first_entry if entries is None else entries, positions, offset),
        *(new_positions, new_offset, cache_order, cache_dtype, scale, threads, True),
    )


_operators.add_without_gradients(
    *(_library, "rerotate_cache_", _rerotate_cache),
    "rerotate_cache_ has no gradients; pass detach() or call under torch.no_grad()",
    "rerotate_cache_ does not run under torch.vmap; pass all slots in one call",
)


def run(
    k_cache: Any,
    old_encoding: _ropewalk.Encoding,
    new_encoding: _ropewalk.Encoding,
    slot_mapping: Any,
    page_table: Any,
    kv_indptr: Any,
    kv_indices: Any,
    entries: Any,
    positions: Any,
    offset: Any,
    new_positions: Any,
    new_offset: Any,
    cache_order: str,
    cache_dtype: Any,
    k_scale: Any,
    threads: Any,
) -> None:
    """ropewalk.rerotate_cache_() of tensors through the operator."""
    check_encoding(old_encoding)
    check_encoding(new_encoding)
    if not isinstance(k_cache, Tensor):
        raise _ropewalk.Error(
            f"ropewalk: k_cache is a {type(k_cache).__name__}, but another argument is a torch.Tensor"
        )
    if hasattr(k_cache, "to_local"):
        raise _ropewalk.Error("ropewalk: k_cache is a DTensor; pass k_cache.to_local()")
    has_scales = isinstance(k_scale, Tensor) and k_cache.dtype == torch.int8
    has_scale_at = isinstance(k_scale, Tensor) and not has_scales
    is_number = isinstance(k_scale, (int, float)) and not isinstance(k_scale, bool)
    if k_scale is not None and not isinstance(k_scale, Tensor) and not is_number:
        k_scale = _ropewalk.as_double(k_scale, "k_scale")
    is_first = isinstance(entries, (int, torch.SymInt)) and not isinstance(entries, bool)
    torch.ops.ropewalk.rerotate_cache_(
        k_cache,
        k_scale if has_scales else None,
        k_scale if has_scale_at else None,
        _indices(slot_mapping, "slot_mapping", False),
        _indices(page_table, "page_table", True),
        _indices(kv_indptr, "kv_indptr", True),
        _indices(kv_indices, "kv_indices", True),
        None if is_first else _as_tensor(entries, "entries", "int64"),
        _as_tensor(positions, "positions", "int64"),
        _as_tensor(new_positions, "new_positions", "int64"),
        old_encoding.key,
        new_encoding.key,
        None if isinstance(k_scale, Tensor) else k_scale,
        entries if is_first else None,
        offset if isinstance(offset, (int, torch.SymInt)) else _ropewalk.as_offset(offset),
        new_offset,
        cache_order,
        cache_dtype,
        threads,
    )
