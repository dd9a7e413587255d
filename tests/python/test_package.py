"""The package: import, instruction sets, threads, arguments that make no sense."""

import inspect
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import ropewalk as rw
import torch
from rope_reference import make

ENCODING = rw.encoding("default", head_dim=64)


def python(code, **environment):
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_is_quick_and_brings_no_torch():
    code = (
        "import sys, time\n"
        "start = time.perf_counter()\n"
        "import ropewalk\n"
        "print(time.perf_counter() - start, 'torch' in sys.modules)"
    )
    seconds, torch_too = min(python(code).split() for _ in range(3))
    assert torch_too == "False"
    assert float(seconds) < 0.3


def test_numpy_works_without_torch():
    code = (
        "import numpy as np, ropewalk as rw, sys\n"
        "q = np.ones((3, 2, 64), np.float32)\n"
        "rw.rotate_(q, encoding=rw.encoding('linear:8', head_dim=64), threads=None)\n"
        "print('torch' in sys.modules, float(q.sum()))"
    )
    assert python(code).startswith("False ")


@pytest.mark.parametrize("name", rw.instruction_sets())
def test_instruction_sets_agree(name):
    code = (
        "import numpy as np, ropewalk as rw\n"
        "q = np.random.default_rng(0).standard_normal((9, 3, 64)).astype(np.float32)\n"
        "rw.rotate_(q, encoding=rw.encoding('linear:8', head_dim=64))\n"
        "print(rw.instruction_set(), *q.ravel()[:999].tolist())"
    )
    ours, *numbers = python(code, ROPEWALK_ISA=name).split()
    assert ours == name
    q = np.random.default_rng(0).standard_normal((9, 3, 64)).astype(np.float32)
    rw.rotate_(q, encoding=rw.encoding("linear:8", head_dim=64))
    np.testing.assert_allclose(np.array(numbers, np.float64), q.ravel()[:999], rtol=0, atol=5e-7)


def test_unknown_instruction_set():
    code = "import ropewalk as rw\ntry:\n    rw.instruction_set()\nexcept rw.Error as problem:\n    print(problem)"
    assert "ROPEWALK_ISA is 'mmx', this machine has" in python(code, ROPEWALK_ISA="mmx")


@pytest.mark.parametrize("threads", [None, 1, 2, 7])
def test_threads_do_not_change_the_result(threads):
    q = make("torch", "float32", (1, 1000, 8, 64))
    one = rw.rotate(q, encoding=ENCODING, threads=1)
    assert torch.equal(rw.rotate(q, encoding=ENCODING, threads=threads), one)
    with pytest.raises(rw.Error, match="at least 1, got 0"):
        rw.rotate_(q, encoding=ENCODING, threads=0)


def test_calls_from_many_threads():
    """The interpreter is free while a call computes, and calls do not disturb each other."""
    tensors = [make("torch", "float32", (400, 8, 64), seed) for seed in range(8)]
    expected = [rw.rotate(x, encoding=ENCODING) for x in tensors]
    workers = [
        threading.Thread(target=lambda x=x: [rw.rotate_(x, encoding=ENCODING, inverse=bool(i % 2)) for i in range(21)])
        for x in tensors
    ]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    for x, y in zip(tensors, expected):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-5)


def test_tensors_that_need_a_gradient():
    q = torch.ones(2, 2, 64, requires_grad=True)
    with pytest.raises(rw.Error, match=r"q \[2, 2, 64\] is a leaf that requires grad"):
        rw.rotate_(q, encoding=ENCODING, offset=3)
    assert bool((q == 1).all())
    with torch.no_grad():
        rw.rotate_(q, encoding=ENCODING, offset=3)
    assert not bool((q == 1).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": np.zeros((4, 2, 64))}, r"q float64 \[4, 2, 64\] of strides \[128, 64, 1\]"),
        ({"q": np.zeros((4, 2, 64), ">f4")}, r"q >f4 \[4, 2, 64\]"),
        ({"q": np.zeros((2, 64), np.float32)}, r"q float32 \[2, 64\].*2 axes"),
        ({"q": np.zeros((4, 2, 32), np.float32)}, "head_dim 32.*the encoding is for head_dim 64"),
        ({"k": np.zeros((3, 2, 64), np.float32)}, "same batch and tokens"),
        ({"k": np.zeros((4, 3, 64), np.float32)}, "multiple of those of k, got 2 and 3"),
        ({"k": np.zeros((4, 2, 64), np.float16)}, "q is f32 but k is f16"),
        ({"order": "bshd"}, "has 3 axes, but the order 'bshd' names 4"),
        ({"order": "hsd"}, "'sbhd', got 'hsd'"),
        ({"q": None}, "both None"),
        ({"q": torch.sparse_coo_tensor(size=(4, 2, 64), check_invariants=True)}, "q has no strided memory"),
        ({"q": torch.ones(4, 2, 64, dtype=torch.cfloat).conj().imag}, "q is a lazy negation"),
    ],
)
def test_errors_write_nothing(change, message):
    q = make("numpy", "float32", (4, 2, 64))
    before = q.copy()
    with pytest.raises(rw.Error, match=message):
        rw.rotate_(**{"q": q, "encoding": ENCODING, "offset": 3, **change})
    np.testing.assert_array_equal(q, before)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((4, 2, 64), np.float32), "out must be a pair for q and k, got numpy.ndarray"),
        ((np.zeros((4, 2, 64), np.float32),), "out must hold 2 arrays, got 1"),
        ((np.zeros((4, 2, 64), np.float16), np.zeros((4, 2, 64), np.float16)), "q is f32 but its output is f16"),
        ((np.zeros((5, 2, 64), np.float32), np.zeros((4, 2, 64), np.float32)), "one shape"),
    ],
)
def test_outputs_that_do_not_fit(out, message):
    q = make("numpy", "float32", (4, 2, 64))
    with pytest.raises(rw.Error, match=message):
        rw.rotate(q, q.copy(), encoding=ENCODING, out=out)
    assert all(not np.asarray(x).any() for x in out)


def test_arguments_of_other_types():
    q = make("numpy", "float32", (4, 2, 64))
    with pytest.raises(TypeError, match=r"q must be a NumPy array, a PyTorch tensor .* got list"):
        rw.rotate_([[[1.0]]], encoding=ENCODING)
    with pytest.raises(TypeError, match=r"encoding must be a ropewalk\.Encoding, got str"):
        rw.rotate_(q, encoding="linear:8")
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'encoding'"):
        rw.rotate_(q)
    with pytest.raises(TypeError, match="offset must be an integer, got float"):
        rw.rotate_(q, encoding=ENCODING, offset=1.0)
    with pytest.raises(rw.Error, match="offset must be an integer of 64 bits, got 9223372036854775808"):
        rw.rotate(q, encoding=ENCODING, offset=2**63)
    with pytest.raises(TypeError, match="inverse must be True or False, got str"):
        rw.rotate(q, encoding=ENCODING, inverse="no")


def test_numbers_of_other_libraries():
    q = make("numpy", "float32", (4, 2, 64))
    expected = rw.rotate(q, encoding=ENCODING, offset=3, inverse=True)
    assert not np.array_equal(expected, rw.rotate(q, encoding=ENCODING, offset=3))
    for offset in (np.int64(3), np.uint8(3), torch.tensor(3)):
        np.testing.assert_array_equal(rw.rotate(q, encoding=ENCODING, offset=offset, inverse=np.True_), expected)


def test_everything_public_is_documented_and_annotated():
    for name in rw.__all__:
        one = getattr(rw, name)
        if name != "__version__":
            assert inspect.getdoc(one), name
        if inspect.isfunction(one):
            signature = inspect.signature(one)
            parts = [*(p.annotation for p in signature.parameters.values()), signature.return_annotation]
            assert inspect.Signature.empty not in parts, name
