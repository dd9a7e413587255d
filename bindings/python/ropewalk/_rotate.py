"""Rotation of queries and keys."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Union, overload

from ropewalk import _composite, _ropewalk


class Array(Protocol):
    """A NumPy array, a torch.Tensor or an array of another library, on the CPU or on a CUDA device."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...


Positions = Union[Array, Sequence[int], Sequence[Sequence[int]], None]
Encodings = Union[_ropewalk.Encoding, Sequence[_ropewalk.Encoding]]
Table = Union[tuple[Array, Array], Array, None]

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from typing_extensions import Required, TypedDict, Unpack

    class Arguments(TypedDict, total=False):
        """The arguments that rotate_() and rotate() have in common, except for q and k."""

        encoding: Required[Encodings]
        positions: Positions
        offset: int | Array | Sequence[int]
        cu_seqlens: Positions
        padded_tail: bool
        k_positions: Positions
        k_offset: int | Array | Sequence[int] | None
        order: str | None
        inverse: bool
        adjoint: bool
        table: Table
        threads: int | None

    class OutArguments(Arguments, total=False):
        """The same with out."""

        out: Any

    Q = TypeVar("Q", bound=Array)
    K = TypeVar("K", bound=Array)
    New = TypeVar("New", torch.Tensor, NDArray[Any])


def _traced() -> bool:
    """Return whether torch.compile is tracing. It records operators and sees no pointers."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


@overload
def rotate_(q: Q, k: None = None, **arguments: Unpack[Arguments]) -> Q: ...
@overload
def rotate_(q: None, k: K, **arguments: Unpack[Arguments]) -> K: ...
@overload
def rotate_(q: Q, k: K, **arguments: Unpack[Arguments]) -> tuple[Q, K]: ...
@overload
def rotate_(q: Array | None, k: Array | None = None, **arguments: Unpack[Arguments]) -> Any: ...
def rotate_(
    q: Array | None,
    k: Array | None = None,
    *,
    encoding: Encodings,
    positions: Positions = None,
    offset: int | Array | Sequence[int] = 0,
    cu_seqlens: Positions = None,
    padded_tail: bool = False,
    k_positions: Positions = None,
    k_offset: int | Array | Sequence[int] | None = None,
    order: str | None = None,
    inverse: bool = False,
    adjoint: bool = False,
    table: Table = None,
    threads: int | None = None,
) -> Any:
    """Encode queries and keys in place.

    Pair j of the token at position p is rotated by p * encoding.inv_freq[j] radians. float32 results are within 3e-7 of
    the norm of the head's vector for |p| < 2^31, 16-bit results within one rounding, and float64 results within
    4e-16 + 1.4e-18 * |p| of the norm. Gradients flow through PyTorch tensors, and torch.compile records one operator.
    Forward mode and torch.func need rotate().

    On a CUDA device, q, k and table must be on one device. The call joins PyTorch's current stream (for arrays of other
    libraries the legacy default stream) and does not wait for it. Positions and cu_seqlens on the host are copied to
    the device: pass them on the device when a CUDA graph is captured. Positions on the device are not checked, and
    those outside a table read its last row. Randomized positions are drawn on the host, which waits for positions on
    the device. threads has no effect.

    Args:
        q: Queries: float32, float16, bfloat16 (of ml_dtypes in NumPy) or, on the CPU, float64:
            [tokens, heads, head_dim] or [batch, tokens, heads, head_dim]. Any strides are supported if the last one is
            1. No copy is made. None for keys only.
        k: Keys of the same type, batch and, without k_positions and k_offset, tokens. The heads of q must be a multiple
            of those of k. None for queries only.
        encoding: From encoding() or from_config(), or a list with one per batch row or packed sequence, which differ in
            their angles only. A call then makes one call per run of equal encodings, and needs cu_seqlens on the host.
        positions: Position of each token, which may be negative: integers of any type but uint64, [tokens] or
            [batch or 1, tokens]. Other types than int32 and int64 are converted. For mrope also
            [3, batch or 1, tokens], the positions t, h and w of each token, and [1, batch or 1, tokens], one position
            for all three. [3, tokens] is t, h and w if q and k have no batch axis. With a batch axis it is an error,
            since it could be a batch of 3.
        offset: Position of the first token, if positions is None: an integer, or integers [batch] with the position of
            the first token of each batch row. With cu_seqlens [sequences], as for chunks of prompts that continue
            caches of different lengths. One entry is shared by all.
        cu_seqlens: Starts of packed sequences (3 axes): integers [sequences + 1], ascending from 0 to the number
            of tokens.
        padded_tail: Whether the tokens after the last sequence are padding. They get position 0: without xpos and an
            attention factor they keep their values. Otherwise such tokens are an error.
        k_positions: Positions of the keys, if they are not those of the queries, as for cross-attention. Keys may then
            have another number of tokens, and four axes that fit both "bshd" and "bhsd" need order.
        k_offset: Position of the first key, if k_positions is None.
        order: Order of the axes: "thd" (the default for 3 axes), "bshd" (the default for 4 axes), "bhsd" or "sbhd". The
            queries of Hugging Face models, [batch, heads, tokens, head_dim], need "bhsd": without it, their heads count
            as tokens. Shapes that look like it get a warning, once per process. "hd" is one token, and "td" one head. A
            3 stands for q, k and v in one array, passed as q without k, as in "bs3hd" and "t3hd": v keeps its values.
        inverse: Undo the encoding.
        adjoint: Apply the transpose, for gradients. It differs from the inverse for xpos and for attention factors.
            Together with inverse: the transpose of the inverse.
        table: (cos, sin) in float32, bfloat16 or float16 (or float64 for float64 tensors), used in place of the
            encoding's angles: [n, columns], where row p is for position p, or [batch or 1, tokens, columns] with one
            row per token, as in Transformers. columns is rotary_dim, in the order of the layout, or rotary_dim/2.
            Or one array [n, rotary_dim] with the cosines of all pairs followed by their sines, as the cos_sin_cache of
            vLLM, SGLang and FlashInfer; cos_sin_cache() makes one. A table that requires grad gets its gradient.
        threads: Upper limit of threads. The default is torch.get_num_threads(), or OpenMP's number if PyTorch is not
            loaded. Small calls use one thread. So does a process forked from one with several threads, because OpenMP
            threads do not survive fork.

    Returns:
        q, k or (q, k), as passed.

    Raises:
        Error: Shapes, strides, types or positions do not fit, or memory is read-only. Nothing is written then.
        TypeError: An argument is of the wrong kind.
    """
    simple = k_positions is None and k_offset is None and padded_tail is False
    if simple and not _traced():
        done = _ropewalk.rotate_(
            q, k, encoding, positions, offset, cu_seqlens, order, inverse, adjoint, table, threads, False
        )
        if done is not NotImplemented:
            return done
    if not simple or _composite.is_composite(order, encoding):
        return _composite.rotate(
            rotate_,
            q,
            k,
            k_positions,
            k_offset,
            padded_tail,
            encoding=encoding,
            positions=positions,
            offset=offset,
            cu_seqlens=cu_seqlens,
            order=order,
            inverse=inverse,
            adjoint=adjoint,
            table=table,
            threads=threads,
        )
    from ropewalk import _torch

    return _torch.rotate_(q, k, encoding, positions, offset, cu_seqlens, order, inverse, adjoint, table, threads)


@overload
def rotate(q: New, k: None = None, **arguments: Unpack[OutArguments]) -> New: ...
@overload
def rotate(q: None, k: New, **arguments: Unpack[OutArguments]) -> New: ...
@overload
def rotate(q: New, k: New, **arguments: Unpack[OutArguments]) -> tuple[New, New]: ...
@overload
def rotate(q: Array | None, k: Array | None = None, **arguments: Unpack[OutArguments]) -> Any: ...
def rotate(
    q: Array | None,
    k: Array | None = None,
    *,
    encoding: Encodings,
    positions: Positions = None,
    offset: int | Array | Sequence[int] = 0,
    cu_seqlens: Positions = None,
    padded_tail: bool = False,
    k_positions: Positions = None,
    k_offset: int | Array | Sequence[int] | None = None,
    order: str | None = None,
    inverse: bool = False,
    adjoint: bool = False,
    table: Table = None,
    threads: int | None = None,
    out: Any = None,
) -> Any:
    """Encode queries and keys into new arrays.

    Also supports derivatives in forward mode and by torch.func. The arguments that are not listed here are those of
    rotate_().

    Args:
        q: Queries.
        k: Keys.
        out: Arrays for the results: (q, k), or one array if one of q and k is None. It may be the input itself; any
            other overlap with the input is an error. Not supported with gradients, torch.compile or packed q, k and v.

    Returns:
        q, k or (q, k): out if passed, else new arrays of the library of the input. On the CPU, libraries without
        __array_namespace__ get NumPy arrays.

    Raises:
        Error: As for rotate_().
        TypeError: As for rotate_().
    """
    simple = k_positions is None and k_offset is None and padded_tail is False
    if simple and not _traced():
        done = _ropewalk.rotate(
            q, k, encoding, positions, offset, cu_seqlens, order, inverse, adjoint, table, threads, out, False
        )
        if done is not NotImplemented:
            return done
    if not simple or _composite.is_composite(order, encoding):
        return _composite.rotate(
            rotate,
            q,
            k,
            k_positions,
            k_offset,
            padded_tail,
            encoding=encoding,
            positions=positions,
            offset=offset,
            cu_seqlens=cu_seqlens,
            order=order,
            inverse=inverse,
            adjoint=adjoint,
            table=table,
            threads=threads,
            out=out,
        )
    from ropewalk import _torch

    if out is not None:
        raise _ropewalk.Error("ropewalk: out= is not supported with gradients or torch.compile; use the result")
    return _torch.rotate(q, k, encoding, positions, offset, cu_seqlens, order, inverse, adjoint, table, threads)


def rerotate_(
    k: K,
    old_encoding: _ropewalk.Encoding,
    new_encoding: _ropewalk.Encoding,
    positions: Positions = None,
    offset: int | Array | Sequence[int] = 0,
    new_positions: Positions = None,
    new_offset: int | Array | Sequence[int] | None = None,
    order: str | None = None,
    threads: int | None = None,
) -> K:
    """Move cached keys in place from one encoding, and from one position, to another.

    The result is within one rounding of encoding the keys afresh.

    Args:
        k: Keys that old_encoding has encoded.
        old_encoding: The source encoding.
        new_encoding: The target encoding, which must rotate the same elements.
        positions: Positions of the keys in the source encoding; see rotate_().
        offset: Position of the first key, if positions is None, or one per batch row.
        new_positions: Positions in the target encoding. By default they stay.
        new_offset: Position of the first key in the target encoding, if new_positions is None.
        order: Order of the axes; see rotate_().
        threads: Upper limit of threads; see rotate_().

    Returns:
        k.

    Raises:
        Error: As for rotate_(), or if k requires grad or the call is traced.
        TypeError: An argument is of the wrong kind.
    """
    return _ropewalk.rerotate_(  # type: ignore[no-any-return]
        k, old_encoding, new_encoding, positions, offset, new_positions, new_offset, order, threads
    )
