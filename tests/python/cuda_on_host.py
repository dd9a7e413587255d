"""Calls on a CUDA device with a stand-in for ropewalk._cuda that runs the threads of a kernel on the host.

The path from the arguments in Python to a launch thus runs without a device. test_cuda.py starts this file in a process
of its own.
"""

import ctypes
import functools
import os
import sys
import types

import fused_calls
import numpy as np
import on_device
import pytest
import rope_reference as reference
import ropewalk as rw
from checks import assert_refused
from device_calls import CASES, DIM, TOKENS, encode, pair

IDS = np.arange(TOKENS) * 7 - 20


@pytest.fixture(scope="module", autouse=True)
def module_on_host():
    host = ctypes.CDLL(os.environ["ROPEWALK_HOST_CUDA"])
    host.host_cuda.restype = ctypes.c_void_p
    stand_in = types.ModuleType("ropewalk._cuda")
    stand_in.interface = on_device.new_capsule(host.host_cuda(), b"ropewalk._cuda.interface", None)
    sys.modules["ropewalk._cuda"] = stand_in
    yield host


@pytest.mark.parametrize("name", CASES)
def test_results_equal_those_of_the_cpu(name):
    """The same bits, except where the CPU's fused multiply-add rounds differently."""
    call, arrays = CASES[name]
    on_cpu = call(*(x.copy() for x in arrays))
    on_device_arrays = call(*(on_device.Array(x.copy()) for x in arrays))
    tolerance = 1e-6 if name.startswith(("table", "rerotation")) else 0
    for before, expected, ours in zip(arrays, on_cpu, on_device_arrays):
        assert isinstance(ours, on_device.Array) and ours.dtype == expected.dtype
        assert not np.array_equal(ours.memory, before)
        step = max(2 * reference.HALF_ULP[before.dtype.name], 2.0**-21)
        actual = reference.exact(ours.memory)
        np.testing.assert_allclose(actual, reference.exact(expected), rtol=step, atol=step + tolerance)


def test_against_the_formula():
    ours = on_device.Array(pair()[0])
    expected = reference.rotate_exactly(ours.memory, reference.plain(DIM) / 8, IDS)
    assert rw.rotate_(ours, encoding=encode("linear:8"), positions=on_device.Array(IDS)) is ours
    reference.assert_close(ours.memory, expected)


def test_keys_with_positions_of_their_own():
    q, k = pair(order="thd")
    for k_at in ({"k_offset": 5}, {"k_positions": np.arange(9) * 3}):
        expected = rw.rotate(q, k[:9], encoding=encode(), offset=8, **k_at)
        on_device_at = {name: at if name == "k_offset" else on_device.Array(at) for name, at in k_at.items()}
        ours = rw.rotate(on_device.Array(q), on_device.Array(k[:9]), encoding=encode(), offset=8, **on_device_at)
        for x, y in zip(ours, expected):
            np.testing.assert_allclose(x.memory, y, rtol=1e-6, atol=1e-6)


def test_outputs():
    q, k = pair()
    out = [on_device.Array(np.zeros_like(x)) for x in (q, k)]
    result = rw.rotate(on_device.Array(q), on_device.Array(k), encoding=encode(), offset=8, out=out)
    assert result[0] is out[0] and result[1] is out[1]
    for ours, expected in zip(out, rw.rotate(q, k, encoding=encode(), offset=8)):
        np.testing.assert_allclose(ours.memory, expected, rtol=1e-6, atol=1e-6)


def test_rerotation_returns_its_argument():
    k = on_device.Array(pair()[1])
    assert rw.rerotate_(k, encode("linear:8"), encode("xpos:64"), offset=3, new_offset=-4) is k


def test_views_with_strides():
    whole = reference.make("numpy", "float32", (TOKENS, 6, DIM + 3))
    expected, ours = whole.copy(), whole.copy()
    rw.rotate_(expected[:, 1:5, 2 : DIM + 2], encoding=encode(), offset=77)
    rw.rotate_(on_device.Array(ours[:, 1:5, 2 : DIM + 2]), encoding=encode(), offset=77)
    assert (ours != whole).sum() > TOKENS * 4 * (DIM - 2)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 4, DIM), (TOKENS, 0, DIM), (0, TOKENS, 4, DIM)])
def test_empty_arrays(shape):
    q = on_device.Array(np.zeros(shape, np.float32))
    assert rw.rotate_(q, encoding=encode()) is q


def on_gpu(x, device=0):
    return on_device.Array(x, device)


Q, K = pair(order="thd")
TABLE = [np.ones((TOKENS, DIM), np.float32)] * 2
HERE, THERE = "on the CPU, and the call runs on cuda:0", "on cuda:0, and the call runs on the CPU"
NEXT = "on cuda:1, and the call runs on cuda:0"
REFUSED = [
    (f"k is {HERE}", {"q": on_gpu(Q), "k": K}),
    (f"k is {THERE}", {"q": Q, "k": on_gpu(K)}),
    (f"k is {NEXT}", {"q": on_gpu(Q), "k": on_gpu(K, device=1)}),
    (f"positions is {HERE}", {"q": on_gpu(Q), "positions": IDS}),
    (f"positions is {THERE}", {"q": Q, "positions": on_gpu(IDS)}),
    (f"positions is {NEXT}", {"q": on_gpu(Q), "positions": on_gpu(IDS, device=1)}),
    (f"cos is {HERE}", {"q": on_gpu(Q), "table": TABLE}),
    (f"cos is {THERE}", {"q": Q, "table": [on_gpu(x) for x in TABLE]}),
    (r"positions int64 .* must be contiguous", {"q": on_gpu(Q), "positions": on_gpu(np.arange(2 * TOKENS)[::2])}),
    (f"positions has 3 entries for {TOKENS} tokens", {"q": on_gpu(Q), "positions": on_gpu(np.arange(3))}),
    ("positions .*expected int32 or int64 on cuda:0", {"q": on_gpu(Q), "positions": on_gpu(np.zeros(TOKENS, np.int8))}),
    ("tensors of f64 rotate on the CPU only", {"q": on_gpu(Q.astype(np.float64))}),
    ("k_positions has 3 entries", {"q": on_gpu(Q), "k": on_gpu(K), "k_positions": on_gpu(np.arange(3))}),
    ("head_dim 32|head_dim 16", {"q": on_gpu(Q), "k": on_gpu(K[:9, :, :16]), "k_offset": 0}),
    ("head_dim", {"q": on_gpu(Q[..., :16])}),
    ("last stride|contiguous|unit", {"q": on_gpu(Q[..., ::-1])}),
    ("only PyTorch can copy them to cuda:0", {"q": on_gpu(Q), "encoding": encode("randomized:64")}),
    ("threads must be from 1 to 4096", {"q": on_gpu(Q), "threads": 0}),
]


@pytest.mark.parametrize(("message", "arguments"), REFUSED)
def test_refused_calls_write_nothing(message, arguments):
    assert_refused(message, lambda: rw.rotate_(**{"encoding": encode(), **arguments}), Q)


def test_other_arguments_on_another_device_are_refused():
    with pytest.raises(rw.Error, match=f"out of q is {HERE}"):
        rw.rotate(on_gpu(Q), encoding=encode(), out=Q.copy())
    with pytest.raises(rw.Error, match=f"positions is {THERE}"):
        encode().cos_sin(on_gpu(IDS))


def test_fused_calls_of_every_kind_of_slots():
    for slots in fused_calls.SLOTS.values():
        q, k, v = fused_calls.heads("bfloat16")
        k_cache, v_cache = (
            fused_calls.cache(name, pages=slots.pages, page_size=slots.page_size) for name in ("bfloat16", "float16")
        )
        arguments = {name: on_gpu(x) if isinstance(x, np.ndarray) else x for name, x in slots.arguments.items()}
        expected = [fused_calls.rotated(x, slots.positions) for x in (q, k)]
        ours = on_gpu(q)
        result = rw.append(
            *(ours, on_gpu(k), on_gpu(v)),
            **{"encoding": fused_calls.ENCODING, "k_cache": on_gpu(k_cache), "v_cache": on_gpu(v_cache)},
            **arguments,
        )
        assert result is ours
        fused_calls.assert_stored(q, expected[0])
        fused_calls.assert_cache(k_cache, "nhd", slots, expected[1])
        fused_calls.assert_cache(v_cache, "nhd", slots, reference.exact(v))


def test_fused_norms_and_mla():
    q, k, _ = fused_calls.heads()
    weight = np.linspace(0.5, 2, fused_calls.DIM).astype(np.float32)
    expected = [
        fused_calls.rotated(fused_calls.normed(x, weight, 1e-6), np.arange(fused_calls.TOKENS) + 3) for x in (q, k)
    ]
    weights = {"q_weight": on_gpu(weight), "k_weight": on_gpu(weight)}
    rw.norm_rotate_(on_gpu(q), on_gpu(k), encoding=fused_calls.ENCODING, offset=3, **weights)
    for x, exact in zip((q, k), expected):
        fused_calls.assert_stored(x, exact)
    encoding = rw.encoding("default", head_dim=64, layout="interleaved")
    q, rows, latent = (reference.make("numpy", "bfloat16", shape) for shape in ((5, 4, 64), (5, 64), (5, 512)))
    cache, on_cpu = (np.ones((3, 4, 576), q.dtype) for _ in range(2))
    mapping = np.array([9, -1, 3, 0, 5])
    rw.append_mla(q.copy(), rows, latent, encoding=encoding, cache=on_cpu, slot_mapping=mapping)
    given = [on_gpu(x) for x in (q, rows, latent)]
    rw.append_mla(*given, encoding=encoding, cache=on_gpu(cache), slot_mapping=on_gpu(mapping))
    np.testing.assert_array_equal(cache.view(np.int16), on_cpu.view(np.int16))


def test_refused_fused_calls_write_nothing():
    q, k, v = fused_calls.heads()
    caches = {name: on_gpu(fused_calls.cache("float32")) for name in ("k_cache", "v_cache")}
    good = {"encoding": fused_calls.ENCODING, **caches, "slot_mapping": on_gpu(np.arange(fused_calls.TOKENS))}
    for message, arguments in (
        (f"k_cache is {HERE}", {"k_cache": fused_calls.cache("float32")}),
        (f"slot_mapping is {HERE}", {"slot_mapping": np.arange(fused_calls.TOKENS)}),
        (f"v_cache is {NEXT}", {"v_cache": on_gpu(fused_calls.cache("float32"), device=1)}),
        (f"page_table is {HERE}", {"slot_mapping": None, "page_table": np.zeros((1, 2), np.int32)}),
    ):
        arrays = [x.memory for x in caches.values()]
        call = functools.partial(rw.append, on_gpu(q), on_gpu(k), on_gpu(v), **{**good, **arguments})
        assert_refused(message, call, q, *arrays)


def test_cached_keys_of_a_paged_cache():
    mapping, encoding = np.array([9, -1, 3, 0, 5]), encode("linear:8")
    for name in ("bfloat16", "float8_e4m3fn", "int8"):
        values = np.random.default_rng(0).standard_normal((3, 4, 2, DIM)) * 20
        cache, on_cpu = (values.astype(fused_calls.CACHE_TYPES[name]) for _ in range(2))
        dtype = name if name.startswith("float8") else None
        if dtype is not None:  # DLPack of this test has no code for it
            cache, on_cpu = cache.view(np.uint8), on_cpu.view(np.uint8)
        scales = [np.full((3, 4, 2), 0.1, np.float32) if name == "int8" else None for _ in range(2)]
        rw.rerotate_cache_(
            on_cpu,
            encoding,
            encode("xpos:64"),
            slot_mapping=mapping,
            new_offset=3,
            k_scale=scales[0],
            cache_dtype=dtype,
        )
        rw.rerotate_cache_(
            *(on_gpu(cache), encoding, encode("xpos:64")),
            **{"slot_mapping": on_gpu(mapping), "new_offset": 3},
            **{"k_scale": None if scales[1] is None else on_gpu(scales[1]), "cache_dtype": dtype},
        )
        if scales[0] is None:
            np.testing.assert_array_equal(cache.view(np.uint8), on_cpu.view(np.uint8))
            continue
        # Magnitudes of xPos differ in the last bit, and so may the scale of a head and a rounded element.
        np.testing.assert_allclose(*scales, rtol=1e-6)
        assert np.abs(cache.astype(int) - on_cpu.astype(int)).max() <= 1
