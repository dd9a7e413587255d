"""Fused calls with the results that float64 arithmetic, which shares no code with the library, expects of them.

test_fused.py runs them on the CPU, cuda_on_host.py on arrays that claim to lie on a device.
"""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import rope_reference as reference
import ropewalk as rw

TOKENS, Q_HEADS, KV_HEADS, DIM = 7, 4, 2, 32
PAGES, PAGE = 6, 4
ENCODING = rw.encoding("linear:8", head_dim=DIM, layout="interleaved")
FREQUENCIES = reference.plain(DIM) / 8
CACHE_TYPES = {
    **reference.NUMPY_TYPES,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "int8": np.int8,
}
del CACHE_TYPES["float64"]
# Half a step of numbers just above a power of two, relative to them, and of subnormal numbers.
HALF_STEPS = {
    "float32": (2.0**-24, 0),
    "float16": (2.0**-11, 2.0**-25),
    "bfloat16": (2.0**-8, 0),
    "float8_e4m3fn": (2.0**-4, 2.0**-10),
    "float8_e5m2": (2.0**-3, 2.0**-17),
}


def heads(type_name="float32", batch=None):
    """q, k and v in NumPy."""
    shape = (TOKENS,) if batch is None else (batch, TOKENS)
    return [
        reference.make("numpy", type_name, (*shape, count, DIM), seed=i)
        for i, count in enumerate((Q_HEADS, KV_HEADS, KV_HEADS))
    ]


def rotated(x, positions, encoding=ENCODING):
    return reference.rotate_exactly(x, FREQUENCIES, positions, encoding.layout)


def normed(x, weight, epsilon, one_plus=False):
    x, weight = reference.exact(x), reference.exact(weight)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * (weight + one_plus)


def cache(type_name, order="nhd", pages=PAGES, page_size=PAGE, dim=DIM):
    """A cache of ones."""
    shape = (pages, page_size, KV_HEADS, dim) if order == "nhd" else (pages, KV_HEADS, page_size, dim)
    return np.ones(shape, CACHE_TYPES[type_name])


def assert_stored(found, expected, scale=1.0):
    """The stored heads, times their scale, are within one rounding of the numbers."""
    name = reference.type_of(found)
    found, expected = reference.exact(found), reference.exact(expected)
    scale = np.asarray(reference.exact(scale))
    if name == "int8":
        largest = np.abs(expected).max(-1)
        np.testing.assert_allclose(scale, largest / 127, rtol=1e-5)
        assert (np.abs(found * scale[..., None] - expected) <= scale[..., None] * 0.501).all()
        return
    relative, absolute = HALF_STEPS[name]
    room = np.abs(expected) * (relative * 1.01 + 2e-6) + absolute * scale + 2e-6
    difference = np.abs(found * scale - expected)
    assert (difference <= room).all(), f"{name}: off by {(difference / room).max()} of the room"


class Slots(NamedTuple):
    """Arguments of a call, the slot of each token, and the position of each token."""

    arguments: dict[str, Any]
    of_token: list  # (page, entry) or None
    positions: Any = np.arange(TOKENS)
    pages: int = PAGES
    page_size: int = PAGE


def entries_on(pages, entries):
    return [(pages[e // PAGE], e % PAGE) for e in entries]


MAPPING = np.array([9, 3, -1, 23, 0, 14, 5])
TABLE = np.array([[4, 1, 5]], np.int32)
TWO_TABLES = np.array([[2, 0], [5, 3]], np.int32)
STARTS = np.array([0, 3, TOKENS])
SLOTS = {
    "mapping of int64": Slots({"slot_mapping": MAPPING}, [None if n < 0 else divmod(int(n), PAGE) for n in MAPPING]),
    "mapping of int32": Slots(
        {"slot_mapping": MAPPING.astype(np.int32), "offset": 100},
        [None if n < 0 else divmod(int(n), PAGE) for n in MAPPING],
        np.arange(TOKENS) + 100,
    ),
    "page table": Slots(
        {"page_table": TABLE, "offset": 3}, entries_on([4, 1, 5], range(3, 3 + TOKENS)), np.arange(TOKENS) + 3
    ),
    "page table with positions": Slots(
        {"page_table": TABLE, "positions": np.array([11, 0, 5, 6, 7, 10, 2])},
        entries_on([4, 1, 5], [11, 0, 5, 6, 7, 10, 2]),
        np.array([11, 0, 5, 6, 7, 10, 2]),
    ),
    "page table with entries": Slots(
        {"page_table": TABLE, "positions": np.full(TOKENS, 50), "entries": np.arange(TOKENS)},
        entries_on([4, 1, 5], range(TOKENS)),
        np.full(TOKENS, 50),
    ),
    "page table from an entry on": Slots(
        {"page_table": TABLE, "offset": 90, "entries": 2},
        entries_on([4, 1, 5], range(2, 2 + TOKENS)),
        np.arange(TOKENS) + 90,
    ),
    "page tables of sequences": Slots(
        {"page_table": TWO_TABLES, "cu_seqlens": STARTS, "offset": 2},
        entries_on([2, 0], range(2, 5)) + entries_on([5, 3], range(2, 6)),
        np.array([2, 3, 4, 2, 3, 4, 5]),
    ),
    "lists of pages": Slots(
        {
            **{"kv_indptr": np.array([0, 2, 3], np.int32), "kv_indices": np.array([5, 1, 2], np.int32)},
            **{"cu_seqlens": STARTS, "offset": 0},
        },
        entries_on([5, 1], range(3)) + entries_on([2], range(4)),
        np.array([0, 1, 2, 0, 1, 2, 3]),
    ),
    "the ends of lists of pages": Slots(
        {
            **{"kv_indptr": np.array([0, 2, 4], np.int32), "kv_indices": np.array([5, 1, 2, 0], np.int32)},
            **{"last_page_len": np.array([2, 3], np.int32), "cu_seqlens": STARTS},
            "positions": np.array([3, 4, 5, 3, 4, 5, 6]),
        },
        entries_on([5, 1], range(3, 6)) + entries_on([2, 0], range(3, 7)),
        np.array([3, 4, 5, 3, 4, 5, 6]),
    ),
    "contiguous": Slots({"offset": 5}, [(0, 5 + t) for t in range(TOKENS)], np.arange(TOKENS) + 5, 1, 16),
    "contiguous sequences": Slots(
        {"cu_seqlens": STARTS, "offset": 1},
        [(0, 1 + t) for t in range(3)] + [(1, 1 + t) for t in range(4)],
        np.array([1, 2, 3, 1, 2, 3, 4]),
        2,
        8,
    ),
}


def assert_cache(found, order, slots, expected, scale=1.0):
    """The tokens are in their slots, and all other elements are ones still."""
    values = found if order == "nhd" else found.swapaxes(1, 2)
    scale = scale if np.ndim(scale) == 0 else (scale if order == "nhd" else scale.swapaxes(1, 2))
    left = reference.exact(values)
    for token, slot in enumerate(slots.of_token):
        if slot is None:
            continue
        assert_stored(values[slot], expected[token], scale if np.ndim(scale) == 0 else scale[slot])
        left[slot] = 1
    assert (left == 1).all()
