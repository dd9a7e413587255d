"""Cached keys re-encoded in their slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ropewalk import _ropewalk
from ropewalk._rotate import Array, _traced

if TYPE_CHECKING:
    from ropewalk._rotate import K, Positions


def rerotate_cache_(
    k_cache: K,
    old_encoding: _ropewalk.Encoding,
    new_encoding: _ropewalk.Encoding,
    *,
    slot_mapping: Positions = None,
    page_table: Positions = None,
    kv_indptr: Positions = None,
    kv_indices: Positions = None,
    entries: int | Positions = None,
    positions: Positions = None,
    offset: int = 0,
    new_positions: Positions = None,
    new_offset: int | None = None,
    cache_order: str = "nhd",
    cache_dtype: Any = None,
    k_scale: float | Array | None = None,
    threads: int | None = None,
) -> K:
    """Move the keys in some slots of a cache in place from one encoding, and from one position, to another.

    Arithmetic is in float32, and each element is read and written once. Elements outside the rotary part keep their
    value. An int8 head gets a new scale, so that each of its elements is within max(abs(head)) / 254 of its exact
    value; an 8-bit float keeps the scale of its cache, and saturates. Two tokens must not have the same slot, and slots
    outside the cache are an error; on a device the first is not checked, and tokens with such slots are skipped.

    The slots of the tokens are slot_mapping, or entries of page_table, or entries of kv_indptr and kv_indices, or
    entries of a contiguous cache, of which page s belongs to batch row s: see append(). The number of tokens is that of
    slot_mapping, entries or positions.

    Args:
        k_cache: Keys that old_encoding has encoded: [pages, page_size, heads, head_dim], [pages, heads, page_size,
            head_dim] for cache_order "hnd", or [pages, page_size, head_dim] for one head per token, as in multi-head
            latent attention. Types and strides are those of append().
        old_encoding: The source encoding.
        new_encoding: The target encoding, which must rotate the same elements. It may be old_encoding.
        slot_mapping: page * page_size + entry of each token, [tokens] or [batch, tokens]: int32 or int64. A negative
            number skips a token.
        page_table: int32 [batch, max_pages].
        kv_indptr: int32 [batch + 1]: the pages of row s are kv_indices[kv_indptr[s]:kv_indptr[s + 1]].
        kv_indices: int32, the pages of all rows.
        entries: Index of each token in its sequence's part of the cache, or of the first token. By default its old
            position.
        positions: Position of each token in the source encoding, [tokens] or [batch, tokens].
        offset: Position of the first token, if positions is None.
        new_positions: Positions in the target encoding. By default they stay.
        new_offset: Position of the first token in the target encoding, if new_positions is None.
        cache_order: Order of the axes of the cache: "nhd" or "hnd".
        cache_dtype: "float8_e4m3fn" or "float8_e5m2" for a cache that holds 8-bit floats as uint8.
        k_scale: For an 8-bit float: the divisor of the elements, a number or a float32 array of one element on the
            device of the cache. For int8: the float32 scales of the heads, of the shape of k_cache without its last
            axis, which are read and written.
        threads: Upper limit of threads; see rotate_().

    Returns:
        k_cache, as passed.

    Raises:
        Error: Shapes, strides, types, slots or positions do not fit, memory is read-only, or a tensor requires grad.
            Nothing is written then.
        TypeError: An argument is of the wrong kind.
    """
    arguments = (
        *(k_cache, old_encoding, new_encoding, slot_mapping, page_table, kv_indptr, kv_indices, entries, positions),
        *(offset, new_positions, new_offset, cache_order, cache_dtype, k_scale, threads),
    )
    if not _traced() and _ropewalk.rerotate_cache_(*arguments, False) is not NotImplemented:
        return k_cache
    from ropewalk import _rerotate_cache_operator

    _rerotate_cache_operator.run(*arguments)
    return k_cache
