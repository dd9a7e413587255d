"""Calls that engines need: norms, rotation, caches and quantised outputs in one pass over memory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ropewalk import _ropewalk
from ropewalk._rotate import Array, _traced

if TYPE_CHECKING:
    from ropewalk._rotate import Positions, Q, Table

    X = TypeVar("X", bound=Array)


class Arguments(NamedTuple):
    """Arguments of the module's fused(), in its order. Those of q, k and v follow each other."""

    q_out: Any = None  # written; with q None in place
    k_out: Any = None
    v_out: Any = None
    q_cache: None = None
    k_cache: Any = None
    v_cache: Any = None
    q: Any = None
    k: Any = None
    v: Any = None
    q_scale: Any = None
    k_scale: Any = None
    v_scale: Any = None
    encoding: Any = None
    positions: Any = None
    offset: Any = 0
    cu_seqlens: Any = None
    order: Any = None
    table: Any = None
    q_weight: Any = None
    k_weight: Any = None
    epsilon: Any = 1e-6
    one_plus: Any = False
    slot_mapping: Any = None
    page_table: Any = None
    kv_indptr: Any = None
    kv_indices: Any = None
    last_page_len: Any = None
    entries: Any = None
    cache_order: Any = "nhd"
    cache_dtype: Any = None
    latent: bool = False  # k_cache has one head per token: v, then k
    threads: Any = None


def _run(arguments: Arguments) -> None:
    if not _traced() and _ropewalk.fused(arguments, False) is not NotImplemented:
        return
    from ropewalk import _fused_operator

    _fused_operator.run(arguments)


def append(
    q: Q,
    k: Array,
    v: Array | None = None,
    *,
    encoding: _ropewalk.Encoding,
    k_cache: Array,
    v_cache: Array | None = None,
    slot_mapping: Positions = None,
    page_table: Positions = None,
    kv_indptr: Positions = None,
    kv_indices: Positions = None,
    last_page_len: Positions = None,
    entries: int | Positions = None,
    positions: Positions = None,
    offset: int | Array = 0,
    cu_seqlens: Positions = None,
    order: str | None = None,
    cache_order: str = "nhd",
    cache_dtype: Any = None,
    k_scale: float | Array | None = None,
    v_scale: float | Array | None = None,
    table: Table = None,
    threads: int | None = None,
) -> Q:
    """Rotate queries in place, and write rotated keys and unchanged values into a cache.

    k and v are only read. The elements of the cache are rounded once, from float32. A slot outside the cache is an
    error if the slots are in host memory; on a device such a token is not written. Two tokens of a call must not have
    the same slot. For norms and other outputs see fused().

    The slots of the tokens are one of:

    - slot_mapping: the slot number of each token.
    - page_table: the pages of each sequence, in rows.
    - kv_indptr and kv_indices: the pages of each sequence, in one list.
    - none of them: a contiguous cache, of which page s belongs to sequence s.

    A sequence is a batch row or, with cu_seqlens, one of the packed sequences.

    Args:
        q: Queries, as for rotate_(): float32, float16 or bfloat16. None for keys and values only.
        k: Keys of the same type, batch and tokens.
        v: Values with the tokens and heads of k, of any head_dim. None for keys only.
        encoding: From encoding() or from_config().
        k_cache: Cache of the keys: [pages, page_size, heads, head_dim], or [pages, heads, page_size, head_dim] for
            cache_order "hnd". The elements of a head must be contiguous; other strides are free, so keys and values may
            be slices of one array. Its type is float32, float16, bfloat16, float8_e4m3fn, float8_e5m2 or int8.
        v_cache: Cache of the values, with the same pages.
        slot_mapping: page * page_size + entry of each token, [tokens] or [batch, tokens]: int32 or int64. A negative
            number skips a token.
        page_table: int32 [sequences, max_pages].
        kv_indptr: int32 [sequences + 1]: the pages of sequence s are kv_indices[kv_indptr[s]:kv_indptr[s + 1]].
        kv_indices: int32, the pages of all sequences.
        last_page_len: int32 [sequences], the number of entries on the last page of each sequence. The tokens of the
            call, which cu_seqlens splits, are then the last ones of their sequences. Without it, entries tell.
        entries: Index of each token in its sequence's part of the cache: integers [tokens] or [batch, tokens], or the
            index of the first token. By default its position.
        positions: Position of each token; see rotate_(). Next to page_table or kv_indptr, cu_seqlens may be given too.
        offset: Position of the first token, if positions is None; see rotate_().
        cu_seqlens: Starts of packed sequences; see rotate_().
        order: Order of the axes of q, k and v; see rotate_().
        cache_order: Order of the axes of the cache: "nhd" or "hnd".
        cache_dtype: "float8_e4m3fn" or "float8_e5m2" for a cache that holds 8-bit floats as uint8.
        k_scale: For an 8-bit float: the divisor of the elements of the keys, a number or a float32 array of one element
            on the device of q, which is read when the call runs. For int8: a float32 array of the shape of k_cache
            without its last axis, into which the call writes the scale of each head.
        v_scale: The same for the values.
        table: (cos, sin); see rotate_().
        threads: Upper limit of threads; see rotate_().

    Returns:
        q, as passed.

    Raises:
        Error: Shapes, strides, types, slots or positions do not fit, memory is read-only or overlaps, or a tensor
            requires grad. Nothing is written then.
        TypeError: An argument is of the wrong kind.
    """
    _run(
        Arguments(
            q_out=q,
            k=k,
            v=v,
            k_cache=k_cache,
            v_cache=v_cache,
            k_scale=k_scale,
            v_scale=v_scale,
            encoding=encoding,
            positions=positions,
            offset=offset,
            cu_seqlens=cu_seqlens,
            order=order,
            table=table,
            slot_mapping=slot_mapping,
            page_table=page_table,
            kv_indptr=kv_indptr,
            kv_indices=kv_indices,
            last_page_len=last_page_len,
            entries=entries,
            cache_order=cache_order,
            cache_dtype=cache_dtype,
            threads=threads,
        )
    )
    return q


def append_mla(
    q_rope: Q,
    k_rope: Array,
    latent: Array | None = None,
    *,
    encoding: _ropewalk.Encoding,
    cache: Array,
    slot_mapping: Positions = None,
    page_table: Positions = None,
    kv_indptr: Positions = None,
    kv_indices: Positions = None,
    last_page_len: Positions = None,
    entries: int | Positions = None,
    positions: Positions = None,
    offset: int | Array = 0,
    cu_seqlens: Positions = None,
    order: str | None = None,
    cache_dtype: Any = None,
    scale: float | Array | None = None,
    table: Table = None,
    threads: int | None = None,
) -> Q:
    """Rotate queries in place, and write latent vectors and rotated keys into one cache of multi-head latent attention.

    A row of the cache has the latent vector of a token and then its rotated key, which all heads share: 512 and 64
    elements in DeepSeek-V3, whose encoding has the layout "interleaved". The arguments that are not listed here are
    those of append().

    Args:
        q_rope: The rotary parts of the queries, [tokens, heads, rope_dim], for example q[..., 128:] of heads of 192; or
            whole heads, with an encoding whose rotary_offset is the width of the other part. None for keys only.
        k_rope: The rotary parts of the keys, [tokens, rope_dim] or [tokens, 1, rope_dim]. Without latent it holds whole
            rows of the cache.
        latent: Latent vectors [tokens, latent_dim]. None if k_rope holds them.
        cache: [pages, page_size, latent_dim + rope_dim]: float32, float16, bfloat16, float8_e4m3fn or float8_e5m2.
        scale: The divisor of the elements of a cache of 8-bit floats; see k_scale of append().

    Returns:
        q_rope, as passed.

    Raises:
        Error: As for append().
        TypeError: As for append().
    """
    _run(
        Arguments(
            q_out=q_rope,
            k=k_rope,
            v=latent,
            k_cache=cache,
            k_scale=scale,
            encoding=encoding,
            positions=positions,
            offset=offset,
            cu_seqlens=cu_seqlens,
            order=order,
            table=table,
            slot_mapping=slot_mapping,
            page_table=page_table,
            kv_indptr=kv_indptr,
            kv_indices=kv_indices,
            last_page_len=last_page_len,
            entries=entries,
            cache_dtype=cache_dtype,
            latent=True,
            threads=threads,
        )
    )
    return q_rope


def norm_rotate_(
    q: Any,
    k: Any = None,
    *,
    encoding: _ropewalk.Encoding,
    q_weight: Array | None = None,
    k_weight: Array | None = None,
    epsilon: float = 1e-6,
    one_plus: bool = False,
    positions: Positions = None,
    offset: int | Array = 0,
    cu_seqlens: Positions = None,
    order: str | None = None,
    table: Table = None,
    threads: int | None = None,
) -> Any:
    """Norm and encode queries and keys in place.

    Each head becomes x / sqrt(mean(x^2) + epsilon) * weight, as by RMSNorm, and is then rotated, in float32 without
    rounding in between. There are no gradients: train with torch.nn.functional.rms_norm() and rotate().

    Args:
        q: Queries, as for rotate_(): float32, float16 or bfloat16. None for keys only.
        k: Keys of the same type, batch and tokens. None for queries only.
        encoding: From encoding() or from_config().
        q_weight: Weights [head_dim] of the queries: float32, float16 or bfloat16. None leaves queries without a norm.
        k_weight: Weights of the keys.
        epsilon: A number of at least 0, added to the mean square.
        one_plus: Whether heads are multiplied by 1 + weight, as in Gemma.
        positions: Position of each token; see rotate_().
        offset: Position of the first token, if positions is None; see rotate_().
        cu_seqlens: Starts of packed sequences; see rotate_().
        order: Order of the axes; see rotate_().
        table: (cos, sin); see rotate_().
        threads: Upper limit of threads; see rotate_().

    Returns:
        q, k or (q, k), as passed.

    Raises:
        Error: As for append().
        TypeError: As for append().
    """
    _check_norms(q_weight, k_weight, one_plus)
    _run(
        Arguments(
            q_out=q,
            k_out=k,
            encoding=encoding,
            positions=positions,
            offset=offset,
            cu_seqlens=cu_seqlens,
            order=order,
            table=table,
            q_weight=q_weight,
            k_weight=k_weight,
            epsilon=epsilon,
            one_plus=one_plus,
            threads=threads,
        )
    )
    return q if k is None else k if q is None else (q, k)


def norm_rotate(
    q: Any,
    k: Any = None,
    *,
    encoding: _ropewalk.Encoding,
    q_weight: Array | None = None,
    k_weight: Array | None = None,
    epsilon: float = 1e-6,
    one_plus: bool = False,
    positions: Positions = None,
    offset: int | Array = 0,
    cu_seqlens: Positions = None,
    order: str | None = None,
    table: Table = None,
    threads: int | None = None,
) -> Any:
    """Norm and encode queries and keys into new arrays.

    The arguments that are not listed here are those of norm_rotate_().

    Args:
        q: Queries: a NumPy array or a PyTorch tensor.
        k: Keys.

    Returns:
        q, k or (q, k): new arrays.

    Raises:
        Error: As for append().
        TypeError: As for append().
    """
    _check_norms(q_weight, k_weight, one_plus)
    q_out, k_out = _new(q, "q", None), _new(k, "k", None)
    _run(
        Arguments(
            q_out=q_out,
            k_out=k_out,
            q=q,
            k=k,
            encoding=encoding,
            positions=positions,
            offset=offset,
            cu_seqlens=cu_seqlens,
            order=order,
            table=table,
            q_weight=q_weight,
            k_weight=k_weight,
            epsilon=epsilon,
            one_plus=one_plus,
            threads=threads,
        )
    )
    return q_out if k is None else k_out if q is None else (q_out, k_out)


def fused(
    q: Array | None,
    k: Array | None = None,
    v: Array | None = None,
    *,
    encoding: _ropewalk.Encoding,
    q_weight: Array | None = None,
    k_weight: Array | None = None,
    epsilon: float = 1e-6,
    one_plus: bool = False,
    k_cache: Array | None = None,
    v_cache: Array | None = None,
    slot_mapping: Positions = None,
    page_table: Positions = None,
    kv_indptr: Positions = None,
    kv_indices: Positions = None,
    last_page_len: Positions = None,
    entries: int | Positions = None,
    positions: Positions = None,
    offset: int | Array = 0,
    cu_seqlens: Positions = None,
    order: str | None = None,
    cache_order: str = "nhd",
    cache_dtype: Any = None,
    q_scale: float | Array | None = None,
    k_scale: float | Array | None = None,
    v_scale: float | Array | None = None,
    dtype: Any = None,
    out: Any = None,
    table: Table = None,
    threads: int | None = None,
) -> tuple[Any, Any, Any]:
    """Norm, encode, quantise and store the heads of one attention layer.

    Every step happens only if its arguments are given. Queries and keys are normed as by norm_rotate_(), rotated as by
    rotate_(), and stored as by append(), with one rounding at the end. The arguments that are not listed here are those
    of these functions.

    Args:
        q: Queries: float32, float16 or bfloat16. Any of q, k and v may be None, but not both q and k.
        k: Keys.
        v: Values, which are neither normed nor rotated.
        k_cache: Cache of the keys; see append(). None for no cache.
        v_cache: Cache of the values.
        q_scale: For queries in an 8-bit float or in int8, as k_scale of append(). The scales of int8 queries have the
            shape of q without its last axis.
        k_scale: For keys in a cache or an output; see append().
        v_scale: The same for values.
        dtype: Type of new arrays: float32, float16, bfloat16, float8_e4m3fn, float8_e5m2 or int8, as text or as a type
            of PyTorch or NumPy. By default that of q, k and v.
        out: Arrays (q, k, v) for the results, of any of these types and with the shape of their input. An input itself
            is written in place. None stands for no output if there is a cache, else for a new array.

    Returns:
        (q, k, v): out, or new arrays. None for those without a result of their own.

    Raises:
        Error: As for append().
        TypeError: As for append().
    """
    _check_norms(q_weight, k_weight, one_plus)
    if out is not None and (not isinstance(out, (tuple, list)) or len(out) != 3):
        raise _ropewalk.Error(f"ropewalk: out must hold three arrays or None, for q, k and v, got {type(out).__name__}")
    given = (None, None, None) if out is None else tuple(out)
    results, makes = [], False
    for name, x, to, cache in zip("qkv", (q, k, v), given, (None, k_cache, v_cache)):
        if x is None and to is not None:
            raise _ropewalk.Error(f"ropewalk: out of {name} is given but {name} is None")
        is_new = to is None and x is not None and cache is None
        makes = makes or is_new
        results.append(_new(x, name, dtype) if is_new else to)
    if dtype is not None and not makes:
        raise _ropewalk.Error("ropewalk: dtype is the type of new arrays, and none of q, k and v gets one; drop it")
    _run(
        Arguments(
            q_out=results[0],
            k_out=results[1],
            v_out=results[2],
            q=q,
            k=k,
            v=v,
            k_cache=k_cache,
            v_cache=v_cache,
            q_scale=q_scale,
            k_scale=k_scale,
            v_scale=v_scale,
            encoding=encoding,
            positions=positions,
            offset=offset,
            cu_seqlens=cu_seqlens,
            order=order,
            table=table,
            q_weight=q_weight,
            k_weight=k_weight,
            epsilon=epsilon,
            one_plus=one_plus,
            slot_mapping=slot_mapping,
            page_table=page_table,
            kv_indptr=kv_indptr,
            kv_indices=kv_indices,
            last_page_len=last_page_len,
            entries=entries,
            cache_order=cache_order,
            cache_dtype=cache_dtype,
            threads=threads,
        )
    )
    return results[0], results[1], results[2]


def split_qkv(packed: X, q_heads: int, kv_heads: int, head_dim: int) -> tuple[X, X, X]:
    """View the output of a packed projection as queries, keys and values.

    Args:
        packed: A NumPy array or a PyTorch tensor [..., (q_heads + 2 * kv_heads) * head_dim], queries first.
        q_heads: Heads of the queries.
        kv_heads: Heads of the keys, and of the values.
        head_dim: Elements of a head.

    Returns:
        (q, k, v): views [..., heads, head_dim] of the same memory.

    Raises:
        Error: The last axis has another length, or a number is negative.
        TypeError: An argument is of the wrong kind.
    """
    if not _traced():
        q_heads, kv_heads, head_dim = (
            _ropewalk.as_int(x, name)
            for x, name in ((q_heads, "q_heads"), (kv_heads, "kv_heads"), (head_dim, "head_dim"))
        )
    _library_of(packed, "packed")
    array: Any = packed
    width = array.shape[-1] if array.ndim else 0
    if min(q_heads, kv_heads, head_dim) < 0 or width != (q_heads + 2 * kv_heads) * head_dim:
        raise _ropewalk.Error(
            f"ropewalk: packed {list(array.shape)} is not {q_heads} + 2 * {kv_heads} heads of {head_dim}: q_heads, "
            "kv_heads and head_dim must not be negative, and make up the last axis"
        )

    def heads(first: int, count: int) -> Any:
        part = array[..., first * head_dim : (first + count) * head_dim]
        return part.reshape(*part.shape[:-1], count, head_dim)

    return heads(0, q_heads), heads(q_heads, kv_heads), heads(q_heads + kv_heads, kv_heads)


_TYPES = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8")


def _library_of(x: Any, name: str) -> Any:
    """Return the torch or NumPy module of an array."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return torch
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(x, numpy.ndarray):
        return numpy
    raise TypeError(f"ropewalk: {name} must be a NumPy array or a PyTorch tensor, got {type(x).__name__}")


def _new(x: Any, name: str, dtype: Any) -> Any:
    """Return a new array with the shape of x, or None for None."""
    if x is None:
        return None
    library = _library_of(x, name)
    if dtype is None:
        return library.empty_like(x)
    text = dtype if isinstance(dtype, str) else dtype.__name__ if isinstance(dtype, type) else ""
    if isinstance(dtype, library.dtype):
        text = str(dtype).removeprefix("torch.")
    if text not in _TYPES:
        raise _ropewalk.Error(
            f"ropewalk: dtype must be one of {', '.join(_TYPES)}, got {_ropewalk.repr_of(dtype):.200}"
        )
    if library.__name__ == "torch":
        return library.empty_like(x, dtype=getattr(library, text))
    if text in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        import ml_dtypes

        return library.empty_like(x, dtype=getattr(ml_dtypes, text))
    return library.empty_like(x, dtype=text)


def _check_norms(q_weight: Any, k_weight: Any, one_plus: Any) -> None:
    if one_plus is not False and q_weight is None and k_weight is None and _ropewalk.as_bool(one_plus, "one_plus"):
        raise _ropewalk.Error("ropewalk: one_plus is given but neither q_weight nor k_weight")
