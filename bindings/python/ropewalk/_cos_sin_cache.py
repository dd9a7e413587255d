"""Tables of cosines and sines in one array, as inference engines keep them."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np

from ropewalk import _ropewalk
from ropewalk._encoding import check_encoding
from ropewalk._encoding import encoding as make_encoding
from ropewalk._rotate import rotate_

_TYPES = ("float32", "float16", "bfloat16", "float64")
_CHUNK = 4096  # rows that are rotated by one call


def cos_sin_cache(encoding: _ropewalk.Encoding, length: int, dtype: Any = "float32", device: Any = None) -> Any:
    """Make a table [length, rotary_dim] for positions 0 to length - 1.

    A row has the cosines of all pairs, then their sines, multiplied by the attention factor, as the cos_sin_cache of
    vLLM, SGLang and FlashInfer. Entries are the nearest numbers of the dtype.

    Args:
        encoding: From encoding() or from_config(), without xpos and randomized positions.
        length: Number of positions.
        dtype: float32, float16, bfloat16 (of ml_dtypes in NumPy) or float64: a name, or a type of NumPy or PyTorch.
        device: Device of the tensor. The default is PyTorch's own.

    Returns:
        A torch.Tensor if dtype or device is one of PyTorch, else a NumPy array.

    Raises:
        Error: The encoding has no such table, or length, dtype or device is not supported.
        TypeError: An argument is of the wrong kind.
    """
    check_encoding(encoding)
    rows = _ropewalk.as_int(length, "length")
    if not 0 <= rows < 1 << 31:
        raise _ropewalk.Error(f"ropewalk: length must be from 0 to 2^31 - 1, got {rows}")
    if encoding.draws_positions or encoding.magnitude_rates.any():
        cause = "draws random positions" if encoding.draws_positions else "scales queries and keys by their positions"
        raise _ropewalk.Error(f"ropewalk: '{encoding.expression}' {cause}, which a table does not hold")
    torch: Any = sys.modules.get("torch")
    is_torch = device is not None or (torch is not None and isinstance(dtype, torch.dtype))
    name = _name_of(dtype)
    if name == "bfloat16" and not is_torch:
        import ml_dtypes

        array_type: Any = ml_dtypes.bfloat16
    else:
        array_type = np.float32 if name == "bfloat16" else name
    if not is_torch:
        return _filled(np.empty((rows, encoding.rotary_dim), array_type), encoding)
    import torch

    try:
        where = torch.get_default_device() if device is None else torch.device(device)
        if where.type == "meta":
            raise TypeError
    except (TypeError, RuntimeError, ValueError, OverflowError):
        raise _ropewalk.Error(f"ropewalk: device must be one of PyTorch with memory, got {_shown(device)}") from None
    cache = torch.empty(rows, encoding.rotary_dim, dtype=getattr(torch, name), device=where)
    on_host = cache if cache.device.type == "cpu" else torch.empty_like(cache, device="cpu")
    _filled(on_host, encoding)
    return cache if on_host is cache else cache.copy_(on_host)


def _name_of(dtype: Any) -> str:
    name = dtype if isinstance(dtype, str) else ""
    if type(dtype).__module__ == "torch" and type(dtype).__name__ == "dtype":
        name = str(dtype).removeprefix("torch.")
    elif isinstance(dtype, (type, np.dtype)):
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = ""
    if name not in _TYPES:
        raise _ropewalk.Error(f"ropewalk: dtype must be one of {', '.join(_TYPES)}, got {_shown(dtype)}")
    return name


def _shown(value: Any) -> str:
    """Return a value for a message: text, a number or a type that is short, and the type of others."""
    text = _ropewalk.repr_of(value) if isinstance(value, (str, float, type, np.dtype)) else ""
    is_dtype = type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device")
    if is_dtype:
        text = str(value)
    return text if 0 < len(text) <= 60 and text.isprintable() else type(value).__name__


def _filled(cache: Any, encoding: _ropewalk.Encoding) -> Any:
    """Fill a table by rotating (1, 0), whose result is (cos, sin), in float64."""
    pairs, start = encoding.rotary_dim // 2, encoding.rotary_offset
    step = 1 if encoding.layout == "half_split" else 2
    cos = slice(start, start + pairs * step, step)
    first_sine = start + (pairs if step == 1 else 1)
    sin = slice(first_sine, first_sine + pairs * step, step)
    as_input: Any = np.asarray
    if not isinstance(cache, np.ndarray):
        import torch

        as_input = torch.from_numpy
    for begin in range(0, len(cache), _CHUNK):
        rows = min(_CHUNK, len(cache) - begin)
        units = np.zeros((rows, encoding.head_dim))
        units[:, cos] = 1
        rotate_(units, encoding=encoding, offset=begin, order="td")
        cache[begin : begin + rows] = as_input(np.concatenate((units[:, cos], units[:, sin]), 1))
    return cache


@functools.lru_cache(maxsize=64)
def _plain(head_size: int, rotary_dim: int, layout: str) -> _ropewalk.Encoding:
    """Return an encoding of a shape, whose angles a table replaces."""
    return make_encoding("default", head_size, rotary_dim=rotary_dim, layout=layout)


def apply_cos_sin_cache_(
    positions: Any, query: Any, key: Any, head_size: int, cos_sin_cache: Any, is_neox: bool = True
) -> Any:
    """Encode queries and keys in place by a table alone, with the arguments of vLLM and FlashInfer in their order.

    Replaces vLLM's rotary_embedding() and FlashInfer's apply_rope_with_cos_sin_cache_inplace(). The arithmetic is
    float32 for every type of the table and of the heads.

    Args:
        positions: [tokens] or [batch, tokens]: the rows of the table.
        query: The axes of positions, then [heads * head_size] or [heads, head_size].
        key: Keys in the same form, or None.
        head_size: Elements per head. The first rotary_dim of them rotate.
        cos_sin_cache: [rows, rotary_dim]: cosines, then sines; see cos_sin_cache().
        is_neox: True for pairs (j, j + rotary_dim/2), False for pairs (2j, 2j + 1).

    Returns:
        query, or (query, key).

    Raises:
        Error: Shapes, types or positions do not fit. Nothing is written then.
        TypeError: An argument is of the wrong kind.
    """
    size = _ropewalk.as_int(head_size, "head_size")
    layout = "half_split" if _ropewalk.as_bool(is_neox, "is_neox") else "interleaved"
    shape = _shape_of(cos_sin_cache, "cos_sin_cache")
    if len(shape) != 2 or shape[1] % 2 != 0 or not 0 < shape[1] <= size:
        raise _ropewalk.Error(
            f"ropewalk: cos_sin_cache {list(shape)} must be [positions, rotary_dim] with an even rotary_dim of at most "
            f"head_size {size}"
        )
    axes = len(_shape_of(positions, "positions"))
    if axes not in (1, 2):
        raise _ropewalk.Error(f"ropewalk: positions has {axes} axes, expected [tokens] or [batch, tokens]")
    heads = [None if x is None else _heads_of(x, name, axes, size) for x, name in ((query, "query"), (key, "key"))]
    if heads[0] is None:
        raise TypeError("ropewalk: query is None")
    given: dict[str, Any] = {"positions": positions, "table": cos_sin_cache}
    rotate_(*heads, encoding=_plain(size, shape[1], layout), order="thd" if axes == 1 else "bshd", **given)
    return query if key is None else (query, key)


def _shape_of(x: Any, name: str) -> tuple[int, ...]:
    shape = getattr(x, "shape", None)
    if shape is None or not isinstance(shape, tuple):
        raise TypeError(f"ropewalk: {name} must be an array, got {type(x).__name__}")
    return tuple(shape)


def _heads_of(x: Any, name: str, axes: int, size: int) -> Any:
    """Return a view of x with an axis for heads."""
    shape = _shape_of(x, name)
    if len(shape) == axes + 2:
        if shape[-1] != size:
            raise _ropewalk.Error(f"ropewalk: {name} {list(shape)} does not end with head_size, which is {size}")
        return x
    if len(shape) != axes + 1 or shape[-1] % size != 0:
        raise _ropewalk.Error(
            f"ropewalk: {name} {list(shape)} must have the {axes} axes of positions, then heads * {size} elements or "
            f"[heads, {size}]"
        )
    split = (*shape[:-1], shape[-1] // size, size)
    return x.view(split) if hasattr(x, "is_sparse") else x.reshape(split)
