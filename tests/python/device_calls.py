"""Calls that give the same results on the CPU and on a CUDA device.

cuda_on_host.py runs them on arrays in host memory that claim to lie on a device, test_cuda_device.py on a device.
"""

import numpy as np
import rope_reference as reference
import ropewalk as rw
from rope_reference import DEVICE_TYPES, LAYOUTS, ORDERS

BATCH, TOKENS, DIM = 2, 33, 64
NUMBERS = np.random.default_rng(3)


def pair(type_name="float32", order="bshd"):
    """Queries and keys in NumPy."""
    shape = 1 if order == "thd" else BATCH, TOKENS
    made = [reference.make("numpy", type_name, (*shape, heads, DIM), seed=heads) for heads in (8, 2)]
    return [reference.arrange(x, order) for x in made]


def encode(policy="default", **options):
    return rw.encoding(policy, head_dim=DIM, **options)


def in_place(encoding, **options):
    return lambda q, k: rw.rotate_(q, k, encoding=encoding, **options)


def new(encoding, **options):
    return lambda q, k: rw.rotate(q, k, encoding=encoding, **options)


# Each case: a function of arrays that returns the results, and the arrays.
CASES = {}
for type_name in DEVICE_TYPES:
    for layout in LAYOUTS:
        for order in ORDERS:
            name = f"{type_name} {layout} {order}"
            encoding = encode("yarn:8,original_length=64", layout=layout)
            CASES[f"in place {name}"] = in_place(encoding, offset=1 << 20, order=order), pair(type_name, order)
            CASES[f"new {name}"] = new(encoding, offset=-9, order=order), pair(type_name, order)
        for rotary_dim in (16, 24, 30, 62):
            encoding = encode("linear:8", rotary_dim=rotary_dim, layout=layout)
            CASES[f"part of the head {type_name} {layout} {rotary_dim}"] = new(encoding, offset=3), pair(type_name)
for policy in ("default", "xpos:64"):
    for ids_type in ("int32", "int64"):
        # Small positions: xPos scales keys up, and CPU kernels without fused multiply-add round once more.
        ids = NUMBERS.integers(-20, 20, (BATCH, TOKENS)).astype(ids_type)
        CASES[f"positions {policy} {ids_type}"] = (
            lambda q, k, ids, policy=policy: rw.rotate_(q, k, encoding=encode(policy), positions=ids),
            [*pair(), ids],
        )
for starts_type in ("int32", "int64"):
    CASES[f"ragged {starts_type}"] = (
        lambda q, k, starts: rw.rotate(q, k, encoding=encode(), cu_seqlens=starts, offset=9),
        [*pair(order="thd"), np.array([0, 5, 5, 30, TOKENS], starts_type)],
    )
for offsets_type in ("int32", "int64"):
    CASES[f"offsets of rows {offsets_type}"] = (
        lambda q, k, offsets: rw.rotate(q, k, encoding=encode(), offset=offsets),
        [*pair(), np.arange(BATCH, dtype=offsets_type) * 100 - 7],
    )
    CASES[f"offsets of sequences {offsets_type}"] = (
        lambda q, k, starts, offsets: rw.rotate(q, k, encoding=encode(), cu_seqlens=starts, offset=offsets),
        [*pair(order="thd"), np.array([0, 5, 5, 30, TOKENS]), np.array([9, -3, 1000, 0], offsets_type)],
    )
CASES["three positions per token"] = (
    lambda q, k, ids: rw.rotate_(q, k, encoding=encode("mrope:[16,8,8]"), positions=ids),
    [*pair(), NUMBERS.integers(-99, 99, (3, BATCH, TOKENS))],
)
for inverse in (False, True):
    for adjoint in (False, True):
        call = in_place(encode("xpos:64"), offset=5, inverse=inverse, adjoint=adjoint)
        CASES[f"inverse {inverse} adjoint {adjoint}"] = call, pair()
for columns in (DIM, DIM // 2):
    for type_name in DEVICE_TYPES:
        CASES[f"table {type_name} {columns}"] = (
            lambda q, k, cos, sin: rw.rotate(q, k, encoding=encode(), table=(cos, sin)),
            [*pair(), *(reference.make("numpy", type_name, (BATCH, TOKENS, columns), seed) for seed in (0, 1))],
        )
CASES["rerotation"] = (
    lambda k: [rw.rerotate_(k, encode("linear:8"), encode("xpos:64"), offset=3, new_offset=-4)],
    pair()[1:],
)
