"""The package: import, instruction sets, threads, and the public names."""

import inspect
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import ropewalk as rw
import torch
from checks import run, run_python
from rope_reference import make

ENCODING = rw.encoding("default", head_dim=64)


def test_import_does_not_import_torch():
    assert run_python('import ropewalk, sys; print("torch" in sys.modules)') == "False"


def test_numpy_works_without_torch():
    program = """
import numpy as np, ropewalk as rw, sys
q = np.ones((3, 2, 64), np.float32)
rw.rotate_(q, encoding=rw.encoding("linear:8", head_dim=64), threads=None)
print("torch" in sys.modules, float(q.sum()))
"""
    assert run_python(program).startswith("False ")


@pytest.mark.parametrize("name", rw.instruction_sets())
def test_instruction_sets_agree(name):
    program = """
import numpy as np, ropewalk as rw
q = np.random.default_rng(0).standard_normal((9, 3, 64)).astype(np.float32)
rw.rotate_(q, encoding=rw.encoding("linear:8", head_dim=64))
print(rw.instruction_set(), *q.ravel()[:999].tolist())
"""
    used, *numbers = run_python(program, ROPEWALK_ISA=name).split()
    assert used == name
    q = make("numpy", "float32", (9, 3, 64))
    rw.rotate_(q, encoding=rw.encoding("linear:8", head_dim=64))
    np.testing.assert_allclose(np.array(numbers, np.float64), q.ravel()[:999], rtol=0, atol=5e-7)


def test_unknown_instruction_set():
    program = "import ropewalk as rw\ntry:\n    rw.instruction_set()\nexcept rw.Error as problem:\n    print(problem)"
    assert "ROPEWALK_ISA is 'mmx', this machine has" in run_python(program, ROPEWALK_ISA="mmx")


def test_tuning_profile_is_that_of_the_environment():
    program = """
import ropewalk as rw
try:
    print(rw.tuning_profile())
except rw.Error as problem:
    print(problem)
"""
    assert run_python(program, ROPEWALK_PROFILE="zen3").strip() == "zen3"
    assert "ROPEWALK_PROFILE is 'zen9', expected one of zen3, zen4" in run_python(program, ROPEWALK_PROFILE="zen9")
    assert "cannot read the tuning profile ./none: " in run_python(program, ROPEWALK_PROFILE="./none")


@pytest.mark.parametrize("threads", [None, 1, 2, 7])
def test_threads_do_not_change_the_result(threads):
    q = make("torch", "float32", (1, 1000, 8, 64))
    expected = rw.rotate(q, encoding=ENCODING, threads=1)
    assert torch.equal(rw.rotate(q, encoding=ENCODING, threads=threads), expected)


def test_calls_from_many_threads():
    """A call releases the interpreter lock while it computes, and concurrent calls are independent."""
    tensors = [make("torch", "float32", (400, 8, 64), seed) for seed in range(8)]
    expected = [rw.rotate(x, encoding=ENCODING) for x in tensors]

    def rotate_21_times(x):
        for i in range(21):
            rw.rotate_(x, encoding=ENCODING, inverse=bool(i % 2))

    workers = [threading.Thread(target=rotate_21_times, args=(x,)) for x in tensors]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
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


@pytest.mark.parametrize("offset", [np.int64(2**40), np.uint8(3), torch.tensor(2**40)])
def test_numbers_of_numpy_and_torch(offset):
    q = make("numpy", "float32", (4, 2, 64))
    expected = rw.rotate(q, encoding=ENCODING, offset=int(offset), inverse=True)
    assert not np.array_equal(expected, rw.rotate(q, encoding=ENCODING, offset=int(offset)))
    np.testing.assert_array_equal(rw.rotate(q, encoding=ENCODING, offset=offset, inverse=np.True_), expected)


def test_dir_has_the_public_names_only():
    assert dir(rw) == sorted(rw.__all__)
    assert not any(name.startswith("_") for name in dir(rw) if name != "__version__")


def test_the_demonstration_needs_the_package_only(tmp_path):
    """A copy of the file, run in another folder."""
    program = tmp_path / "demo.py"
    program.write_text((Path(__file__).parents[2] / "examples" / "demo_torch.py").read_text(encoding="utf-8"))
    done = run(sys.executable, program.name, "64", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    first, *rows = done.stdout.splitlines()
    assert first.startswith(f"ropewalk {rw.__version__}") and len(rows) == 12
    assert all("x PyTorch  largest error" in row and "WRONG" not in row for row in rows)


def test_public_names_are_documented_and_annotated():
    for name in rw.__all__:
        member = getattr(rw, name)
        if name != "__version__":
            assert inspect.getdoc(member), name
        if inspect.isfunction(member):
            signature = inspect.signature(member)
            annotations = [*(p.annotation for p in signature.parameters.values()), signature.return_annotation]
            assert inspect.Signature.empty not in annotations, name
