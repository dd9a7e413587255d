"""Rotation of JAX arrays on the CPU, also under jax.jit, jax.grad and jax.vmap.

    import ropewalk as rw
    import ropewalk.jax

    q, k = rw.jax.rotate(q, k, encoding=enc, offset=position)

XLA calls the kernels through its foreign-function interface, without Python and without copies.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import ffi

from ropewalk import _ropewalk
from ropewalk._encoding import check_encoding

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["rotate"]

_TARGET = "ropewalk_rotate"
_ADJOINT = 2  # bit of a direction: forward, inverse, adjoint, inverse of the adjoint

ffi.register_ffi_target(_TARGET, _ropewalk.xla_handler(), platform="cpu")


class _Call(NamedTuple):
    """Static arguments of a call."""

    given: str  # "q", "k" or "qk"
    encoding: str  # Encoding.key
    order: str
    offset: int
    direction: int
    threads: int


def rotate(
    q: Any,
    k: Any = None,
    *,
    encoding: _ropewalk.Encoding,
    positions: Any = None,
    offset: Any = 0,
    order: str | None = None,
    inverse: bool = False,
    adjoint: bool = False,
    threads: int | None = None,
) -> Any:
    """Encode queries and keys into new JAX arrays.

    Works on the CPU, also under jax.jit, jax.vmap, and jax.grad and jax.vjp of any order. Positions and offset may be
    traced, so that a decode loop compiles once. Derivatives in forward mode (jax.jvp) are not supported. The arguments
    that are not listed here are those of ropewalk.rotate().

    Args:
        q: Queries: float32, float16, bfloat16 or float64. None for keys only.
        k: Keys.
        encoding: From encoding() or from_config(). Static under jax.jit.
        positions: Position of each token: [tokens] or [batch or 1, tokens], and for mrope also
            [3 or 1, batch or 1, tokens].
        offset: Position of the first token, if positions is None: an integer or an array of one.
        order: Order of the axes: "thd" (the default for 3 axes), "bshd" (the default for 4 axes), "bhsd" or "sbhd".
            Name it for 4 axes: without it, the heads of [batch, heads, tokens, head_dim] count as tokens.

    Returns:
        q, k or (q, k).

    Raises:
        Error: Shapes, types or positions do not fit. Under jax.jit, values of positions that do not fit raise JAX's own
            error when the program runs.
        TypeError: An argument is of the wrong kind.
    """
    check_encoding(encoding)
    if threads is not None and not 1 <= _ropewalk.as_int(threads, "threads") <= 4096:  # most_threads in cpu/threads.hpp
        raise _ropewalk.Error(f"ropewalk: threads must be from 1 to 4096, got {threads}")
    for name, x in (("q", q), ("k", k), ("positions", positions), ("offset", offset)):
        if not isinstance(x, jax.Array):
            _ropewalk.check_plain(x, name)
    given = ("" if q is None else "q") + ("" if k is None else "k")
    arrays = tuple(jnp.asarray(x) for x in (q, k) if x is not None)
    _check(given, arrays, encoding, order)
    order = order or ("thd" if arrays[0].ndim == 3 else "bshd")
    tokens = arrays[0].shape[order.index("t" if "t" in order else "s")]
    ids = None if positions is None else _ids(jnp.asarray(positions), encoding, arrays[0].ndim, tokens)
    if isinstance(offset, jax.Array):
        ids, offset = _counted(offset, ids, tokens), 0
    offset = _ropewalk.as_offset(offset)
    if positions is not None and offset != 0:
        raise _ropewalk.Error(f"ropewalk: positions and an offset exclude each other, got an offset of {offset}")
    direction = _ropewalk.as_bool(inverse, "inverse") + _ADJOINT * _ropewalk.as_bool(adjoint, "adjoint")
    results = _rotated(arrays, ids, _Call(given, encoding.key, order, offset, direction, threads or 0))
    return results if len(results) == 2 else results[0]


def _check(given: str, arrays: Sequence[jax.Array], encoding: _ropewalk.Encoding, order: str | None) -> None:
    """Throw what ropewalk.rotate() throws for these shapes and types. Memory that is never touched costs nothing."""
    if order not in (None, "thd", "bshd", "bhsd", "sbhd"):
        raise _ropewalk.Error(f"ropewalk: order must be 'thd', 'bshd', 'bhsd' or 'sbhd' for JAX arrays, got {order!r}")
    if not arrays:
        raise _ropewalk.Error("ropewalk: q and k are both None; pass at least one of them")
    stand_ins = dict(zip(given, (np.empty(x.shape, x.dtype) for x in arrays)))
    _ropewalk.check_pair(stand_ins.get("q"), stand_ins.get("k"), encoding, order)


def _counted(offset: jax.Array, ids: jax.Array | None, tokens: int) -> jax.Array:
    """Return the positions of consecutive tokens, since a traced offset is no static number."""
    if ids is not None:
        raise _ropewalk.Error("ropewalk: positions and an offset exclude each other; pass one of them")
    if offset.size != 1 or offset.dtype not in (jnp.int32, jnp.int64):
        raise _ropewalk.Error(
            f"ropewalk: offset {offset.dtype} {list(offset.shape)}: expected one int32 or int64; if sequences start at "
            "different positions, pass positions= [batch, tokens]"
        )
    return (offset.reshape(()) + jnp.arange(tokens, dtype=offset.dtype)).reshape(1, 1, tokens)


def _ids(positions: jax.Array, encoding: _ropewalk.Encoding, axes: int, tokens: int) -> jax.Array:
    """Return positions [axes of mrope or 1, batch or 1, tokens] in int32 or int64."""
    has_axes = "mrope" in encoding.expression
    unread = positions.dtype in (jnp.uint32, jnp.uint64) or not jnp.issubdtype(positions.dtype, jnp.integer)
    if unread or not 1 <= positions.ndim <= (3 if has_axes else 2):
        expected = "[tokens], [batch or 1, tokens]" + (" or [3, batch or 1, tokens]" if has_axes else "")
        raise _ropewalk.Error(
            f"ropewalk: positions {positions.dtype} {list(positions.shape)}: expected {expected} of int32 or int64"
        )
    if positions.dtype not in (jnp.int32, jnp.int64):
        positions = positions.astype(jnp.int32)
    if positions.shape[-1] != tokens:
        raise _ropewalk.Error(f"ropewalk: positions {list(positions.shape)} for {tokens} tokens; set order=")
    if has_axes and positions.ndim == 2 and positions.shape[0] == 3:
        if axes == 4:
            raise _ropewalk.Error(
                f"ropewalk: positions {list(positions.shape)} could be t, h and w or a batch of 3; pass "
                "positions[:, None] for t, h and w, or positions[None] for one position per token"
            )
        return positions[:, None]
    return positions.reshape((1,) * (3 - positions.ndim) + positions.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rotated(arrays: tuple[jax.Array, ...], ids: jax.Array | None, call: _Call) -> tuple[jax.Array, ...]:
    like = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays)
    numbers = {name: np.int64(getattr(call, name)) for name in ("offset", "direction", "threads")}
    texts = {name: getattr(call, name) for name in ("given", "encoding", "order")}
    operands = arrays if ids is None else (*arrays, ids)
    return tuple(ffi.ffi_call(_TARGET, like, vmap_method="broadcast_all")(*operands, **numbers, **texts))


def _forward(arrays: tuple[jax.Array, ...], ids: jax.Array | None, call: _Call) -> tuple[Any, Any]:
    return _rotated(arrays, ids, call), ids


def _backward(call: _Call, ids: jax.Array | None, gradients: tuple[jax.Array, ...]) -> tuple[Any, None]:
    """Rotate the gradients by the adjoint."""
    return _rotated(gradients, ids, call._replace(direction=call.direction ^ _ADJOINT)), None


_rotated.defvjp(_forward, _backward)
