"""Calls on a CUDA device with the module for CUDA replaced by one that runs the kernels' threads on the host.

So the way from Python's arguments to a launch runs without a device. test_cuda.py has it in a process of its own.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import on_device
import pytest
import rope_reference as reference
import ropewalk as rw

ROOT = Path(__file__).resolve().parents[2]
BATCH, TOKENS, DIM = 2, 5, 32
HEADS = {"q": 4, "k": 2}
TYPES = list(reference.NUMPY_TYPES)
IDS = np.array([7, -3, 100, 0, 41])


@pytest.fixture(scope="module", autouse=True)
def module_on_host(tmp_path_factory):
    library = tmp_path_factory.mktemp("host") / "host_cuda.so"
    compiler = [*(["ccache"] if shutil.which("ccache") else []), os.environ.get("CXX", "g++")]
    includes = [f"-I{ROOT / folder}" for folder in ("include", "cuda", "bindings", "tests/cuda", "tests")]
    objects = []
    for source in ("tests/python/host_cuda.cpp", "tests/gpu/host.cpp"):
        objects.append(f"{library}.{len(objects)}.o")
        command = [*compiler, "-std=c++20", "-O1", "-fPIC", *includes, "-c", str(ROOT / source), "-o", objects[-1]]
        subprocess.run(command, check=True)
    subprocess.run([*compiler, "-shared", *objects, "-o", str(library)], check=True)
    host = ctypes.CDLL(str(library))
    host.host_cuda.restype = ctypes.c_void_p
    fake = types.ModuleType("ropewalk._cuda")
    fake.interface = on_device.new_capsule(host.host_cuda(), b"ropewalk._cuda.interface", None)
    sys.modules["ropewalk._cuda"] = fake
    yield host


def pair(type_name="float32", order="bshd"):
    """q and k in NumPy."""
    shape = (1 if order == "thd" else BATCH, TOKENS)
    return [
        reference.arrange(reference.make("numpy", type_name, (*shape, heads, DIM), seed=heads), order)
        for heads in HEADS.values()
    ]


def on_both(call, q, k):
    """The results on the CPU and on the device."""
    here = call(q.copy(), k.copy())
    there = call(on_device.Array(q.copy()), on_device.Array(k.copy()))
    assert all(isinstance(one, on_device.Array) for one in there)
    return here, [one.memory for one in there]


def assert_alike(call, q, k, tolerance=0.0):
    """The same bits, but for those that the CPU's fused multiply-add rounds otherwise."""
    for before, here, there in zip((q, k), *on_both(call, q, k)):
        assert not np.array_equal(there, before)
        here, there = here.astype(np.float64), there.astype(np.float64)
        step = max(2 * reference.HALF_ULP[before.dtype.name], 2.0**-21)
        np.testing.assert_allclose(there, here, rtol=step, atol=step + tolerance)


@pytest.mark.parametrize("order", list(reference.AXES))
@pytest.mark.parametrize("type_name", TYPES)
def test_in_place(type_name, order):
    encoding = rw.encoding("yarn:8,original_length=64", head_dim=DIM)
    assert_alike(lambda q, k: rw.rotate_(q, k, encoding=encoding, offset=11, order=order), *pair(type_name, order))


@pytest.mark.parametrize("layout", ["half_split", "interleaved"])
@pytest.mark.parametrize("type_name", TYPES)
def test_into_new_arrays_of_the_same_library(type_name, layout):
    encoding = rw.encoding("linear:8", head_dim=DIM, rotary_dim=24, layout=layout)
    assert_alike(lambda q, k: rw.rotate(q, k, encoding=encoding, offset=3), *pair(type_name))


def test_against_the_formula():
    encoding = rw.encoding("linear:8", head_dim=DIM)
    q, _ = pair()
    ours = on_device.Array(q.copy())
    assert rw.rotate_(ours, encoding=encoding, positions=on_device.Array(IDS)) is ours
    exact = reference.turn(q, reference.plain(DIM) / 8, IDS[None])
    reference.assert_close(reference.exact(ours.memory), exact, "float32")


@pytest.mark.parametrize("type_name", ["int32", "int64"])
def test_positions_on_the_device(type_name):
    encoding = rw.encoding("xpos:64", head_dim=DIM)
    ids = np.stack([IDS, IDS + 1]).astype(type_name)

    def call(q, k):
        here = isinstance(q, np.ndarray)
        return rw.rotate_(q, k, encoding=encoding, positions=ids if here else on_device.Array(ids))

    assert_alike(call, *pair())


def test_ragged_batches():
    encoding = rw.encoding("default", head_dim=DIM)
    starts = np.array([0, 2, 2, TOKENS])

    def call(q, k):
        here = isinstance(q, np.ndarray)
        return rw.rotate(q, k, encoding=encoding, cu_seqlens=starts if here else on_device.Array(starts), offset=9)

    assert_alike(call, *pair(order="thd"))


def test_several_positions_a_token():
    encoding = rw.encoding("mrope:[4,6,6]", head_dim=DIM)
    ids = np.random.default_rng(3).integers(-99, 99, (3, BATCH, TOKENS))

    def call(q, k):
        return rw.rotate_(q, k, encoding=encoding, positions=ids if isinstance(q, np.ndarray) else on_device.Array(ids))

    assert_alike(call, *pair())


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_directions(inverse, adjoint):
    encoding = rw.encoding("xpos:64", head_dim=DIM)
    assert_alike(lambda q, k: rw.rotate_(q, k, encoding=encoding, offset=5, inverse=inverse, adjoint=adjoint), *pair())


@pytest.mark.parametrize("columns", [DIM, DIM // 2])
def test_tables(columns):
    encoding = rw.encoding("default", head_dim=DIM)
    table = [np.random.default_rng(i).standard_normal((BATCH, TOKENS, columns)).astype(np.float32) for i in (0, 1)]

    def call(q, k):
        here = isinstance(q, np.ndarray)
        return rw.rotate(q, k, encoding=encoding, table=table if here else [on_device.Array(one) for one in table])

    assert_alike(call, *pair(), tolerance=1e-6)


def test_outputs_that_are_given():
    encoding = rw.encoding("default", head_dim=DIM)
    q, k = pair()
    outs = [on_device.Array(np.zeros_like(one)) for one in (q, k)]
    done = rw.rotate(on_device.Array(q), on_device.Array(k), encoding=encoding, offset=8, out=outs)
    assert done[0] is outs[0] and done[1] is outs[1]
    for ours, theirs in zip(outs, rw.rotate(q, k, encoding=encoding, offset=8)):
        np.testing.assert_allclose(ours.memory, theirs, rtol=1e-6, atol=1e-6)


def test_rerotation():
    old, new = rw.encoding("linear:8", head_dim=DIM), rw.encoding("xpos:64", head_dim=DIM)
    _, k = pair()
    here, there = k.copy(), on_device.Array(k.copy())
    rw.rerotate_(here, old, new, offset=3, new_offset=-4)
    assert rw.rerotate_(there, old, new, offset=3, new_offset=-4) is there
    np.testing.assert_allclose(there.memory, here, rtol=2e-6, atol=2e-6)


def test_views_with_strides():
    encoding = rw.encoding("default", head_dim=DIM)
    whole = reference.make("numpy", "float32", (TOKENS, 6, DIM + 3))
    here, there = whole.copy(), whole.copy()
    rw.rotate_(here[:, 1:5, 2 : DIM + 2], encoding=encoding, offset=77)
    rw.rotate_(on_device.Array(there[:, 1:5, 2 : DIM + 2]), encoding=encoding, offset=77)
    assert (there != whole).sum() > TOKENS * 4 * (DIM - 2)
    np.testing.assert_allclose(there, here, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 4, DIM), (TOKENS, 0, DIM), (0, TOKENS, 4, DIM)])
def test_nothing_to_do(shape):
    q = on_device.Array(np.zeros(shape, np.float32))
    assert rw.rotate_(q, encoding=rw.encoding("default", head_dim=DIM)) is q


def refused(match, q, *rest, **named):
    """The message, after which nothing is written."""
    before = q.memory.copy() if isinstance(q, on_device.Array) else q.copy()
    with pytest.raises(rw.Error, match=match):
        rw.rotate_(q, *rest, **{"encoding": rw.encoding("default", head_dim=DIM), **named})
    assert np.array_equal(q.memory if isinstance(q, on_device.Array) else q, before)


def test_what_lies_elsewhere_is_refused():
    q, k = pair()
    there = on_device.Array(q)
    ids = np.arange(TOKENS)
    table = [np.ones((TOKENS, DIM), np.float32)] * 2
    refused(r"k is on the CPU, and the call runs on cuda:0", there, k)
    refused(r"k is on cuda:0, and the call runs on the CPU", q, on_device.Array(k))
    refused(r"k is on cuda:1, and the call runs on cuda:0", there, on_device.Array(k, device=1))
    refused(r"positions is on the CPU, and the call runs on cuda:0", there, positions=ids)
    refused(r"positions is on cuda:0, and the call runs on the CPU", q, positions=on_device.Array(ids))
    refused(r"positions is on cuda:1, and the call runs on cuda:0", there, positions=on_device.Array(ids, device=1))
    refused(r"cos is on the CPU, and the call runs on cuda:0", there, table=table)
    refused(r"cos is on cuda:0, and the call runs on the CPU", q, table=[on_device.Array(one) for one in table])
    with pytest.raises(rw.Error, match="out of q is on the CPU, and the call runs on cuda:0"):
        rw.rotate(there, encoding=rw.encoding("default", head_dim=DIM), out=q.copy())
    with pytest.raises(rw.Error, match="positions is on cuda:0, and the call runs on the CPU"):
        rw.encoding("default", head_dim=DIM).cos_sin(on_device.Array(ids))


def test_what_does_not_fit_is_refused():
    q, _ = pair()
    ids = on_device.Array(np.arange(2 * TOKENS)[::2])
    refused(r"positions int64 .* must be contiguous", on_device.Array(q), positions=ids)
    refused("positions has 3 entries for 5 tokens", on_device.Array(q), positions=on_device.Array(np.arange(3)))
    refused("head_dim", on_device.Array(q[..., :16]))
    refused("last stride|contiguous|unit", on_device.Array(q[..., ::-1]))
    refused("torch alone can take them", on_device.Array(q), encoding=rw.encoding("randomized:64", head_dim=DIM))
    refused("threads must be at least 1", on_device.Array(q), threads=0)
