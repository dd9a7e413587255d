"""Turning queries and keys."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Optional, Union

from ropewalk import _ropewalk

Array = Any  # a NumPy array, a torch tensor, or anything with __dlpack__, on the CPU or on a CUDA device
Positions = Union[Array, Sequence[int], None]
Table = Optional[tuple[Array, Array]]


def _traced() -> bool:
    """Whether torch.compile is looking: it sees operators and no pointers."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def rotate_(
    q: Array,
    k: Array = None,
    *,
    encoding: _ropewalk.Encoding,
    positions: Positions = None,
    offset: int = 0,
    cu_seqlens: Positions = None,
    order: str | None = None,
    inverse: bool = False,
    adjoint: bool = False,
    table: Table = None,
    threads: int | None = None,
) -> Array:
    """Encode queries q and keys k in place; return what was given, q, k or (q, k).

    q, k: float32, float16 or bfloat16 (NumPy's is that of ml_dtypes), [tokens, heads, head_dim] or
        [batch, tokens, heads, head_dim], strided as they like as long as the last stride is 1; no copy is made. k may
        have fewer heads, by a whole factor. Either may be None.
    encoding: from encoding() or from_config().
    positions: int32 or int64 [tokens] or [batch or 1, tokens]: the position of each token, negative ones too. For an
        encoding by mrope [tokens], [3, tokens] or [3, batch, tokens]: the numbers t, h and w of each token.
    offset: the position of the first token, where positions is None.
    cu_seqlens: int32 or int64 [sequences + 1] for packed sequences (3 axes): token cu_seqlens[i] is the first of
        sequence i. It starts with 0, ascends and ends with the number of tokens.
    order: of the axes: "thd", "bshd" (the defaults for 3 and 4 axes), "bhsd" or "sbhd".
    inverse: undo the encoding. adjoint: its transpose, for gradients; the same unless there are magnitudes (xpos).
        Both: the transpose of the inverse.
    table: (cos, sin) of float32 or bfloat16, used instead of the encoding's own angles: [n, columns], whose row p
        serves position p, or [batch or 1, tokens, columns] with a row a token, as Transformers hands to its layers.
        columns is rotary_dim, in the order of the layout, or rotary_dim/2.
    threads: at most so many; torch.get_num_threads() by default, or OpenMP's number where torch is not loaded. Small
        calls use one, and so does a child forked after a threaded call, which has OpenMP's threads no more.

    On a CUDA device q, k and table lie on that one device, and the call joins torch's current stream (the legacy
    default stream for arrays of others) without waiting for it. Positions and cu_seqlens that lie elsewhere cost a
    transfer: have them on the device, above all where a CUDA graph is captured. Randomized positions are drawn on the
    CPU and taken there; given ones on the device are then waited for. What positions on the device hold cannot be
    checked: rows of a table that they leave are taken to be its last ones. threads means nothing there.

    Pair j at position p turns by p * encoding.inv_freq[j] radians. float32 results lie within 3e-7 of the norm of the
    head's vector for |p| < 2^31, 16-bit ones within one rounding. Throws Error, with nothing written, when shapes,
    strides, types or positions do not fit, and for read-only memory. Gradients flow through torch tensors, by
    rotate() also those in forward mode and of torch.func, and torch.compile sees one operator.
    """
    if not _traced():
        done = _ropewalk.rotate_(
            q, k, encoding, positions, offset, cu_seqlens, order, inverse, adjoint, table, threads, False
        )
        if done is not NotImplemented:
            return done
    from ropewalk import _torch

    return _torch.rotate_(q, k, encoding, positions, offset, cu_seqlens, order, inverse, adjoint, table, threads)


def rotate(
    q: Array,
    k: Array = None,
    *,
    encoding: _ropewalk.Encoding,
    positions: Positions = None,
    offset: int = 0,
    cu_seqlens: Positions = None,
    order: str | None = None,
    inverse: bool = False,
    adjoint: bool = False,
    table: Table = None,
    threads: int | None = None,
    out: Any = None,
) -> Array:
    """Encode queries q and keys k into new arrays; the arguments are those of rotate_().

    out: where the results go, (q, k), or one array where one of q and k is None. It may be the input itself; an overlap
        with it otherwise is an error. Without out, results are new arrays of the library of the input (of NumPy where
        that library has no __array_namespace__; on a CUDA device always of its own).

    Returns q, k or (q, k), as given.
    """
    if not _traced():
        done = _ropewalk.rotate(
            q, k, encoding, positions, offset, cu_seqlens, order, inverse, adjoint, table, threads, out, False
        )
        if done is not NotImplemented:
            return done
    from ropewalk import _torch

    if out is not None:
        raise _ropewalk.Error("ropewalk: out= goes with neither gradients nor torch.compile: use the result")
    return _torch.rotate(q, k, encoding, positions, offset, cu_seqlens, order, inverse, adjoint, table, threads)


def rerotate_(
    k: Array,
    old_encoding: _ropewalk.Encoding,
    new_encoding: _ropewalk.Encoding,
    positions: Positions = None,
    offset: int = 0,
    new_positions: Positions = None,
    new_offset: int | None = None,
    order: str | None = None,
    threads: int | None = None,
) -> Array:
    """Take cached keys in place from one encoding, and from one position, to another; return them.

    The keys were encoded by old_encoding at positions (or from offset on) and come out as new_encoding would encode
    them at new_positions (or from new_offset on), by default at the old places. Within one rounding of encoding afresh.
    k, positions, offset, order and threads are those of rotate_(); both encodings must turn the same elements.
    """
    return _ropewalk.rerotate_(
        k, old_encoding, new_encoding, positions, offset, new_positions, new_offset, order, threads
    )
