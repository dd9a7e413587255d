"""CUDA from Python without a device: the contents of ropewalk._cuda, and errors where it cannot run."""

import importlib.util
import shutil
import sys
from pathlib import Path

import checks
import numpy as np
import on_device
import pytest
import ropewalk as rw
import torch
from checks import run_python
from torch._subclasses import FakeTensorMode

HERE = Path(__file__).resolve().parent
ENCODING = rw.encoding("linear:8", head_dim=8)
HOST_CUDA = HERE.parents[1] / "build" / "tests" / "libropewalk_host_cuda.so"
MODULE = importlib.util.find_spec("ropewalk._cuda")
needs_module = pytest.mark.skipif(MODULE is None, reason="built without nvcc: there is no ropewalk._cuda")


def run(program):
    """Standard output of a program that imports from this folder."""
    return run_python(program, PYTHONPATH=str(HERE))


def error_of_a_call_on_a_device(setup):
    """The error in a new process, after `setup`."""
    return run(f"""
import ctypes, sys, types
import numpy as np, on_device, ropewalk as rw
{setup}
try:
    rw.rotate_(on_device.Array(np.ones((3, 2, 8), np.float32)), encoding=rw.encoding("default", head_dim=8))
except rw.Error as problem:
    print(problem)
""")


@pytest.mark.skipif(not HOST_CUDA.exists(), reason=f"the kernels on the host are not built: {HOST_CUDA} is missing")
def test_calls_reach_their_launch():
    """Runs cuda_on_host.py in a process of its own, because ropewalk._cuda stays loaded after the first call."""
    program = HERE / "cuda_on_host.py"
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", program)
    done = checks.run(*command, ROPEWALK_HOST_CUDA=str(HOST_CUDA))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_an_error_without_the_module_tells_how_to_build_it():
    error = error_of_a_call_on_a_device("sys.modules['ropewalk._cuda'] = None")
    for part in ("q or k is on cuda:0", "ropewalk._cuda", "nvcc", "pip install .", "ROPEWALK_BUILD_CUDA=ON", "q.cpu()"):
        assert part in error


def test_a_module_of_another_build_is_refused():
    error = error_of_a_call_on_a_device("""
table = (ctypes.c_uint32 * 16)(99, 1)
module = sys.modules["ropewalk._cuda"] = types.ModuleType("ropewalk._cuda")
module.interface = on_device.new_capsule(ctypes.addressof(table), b"ropewalk._cuda.interface", None)
""")
    assert "of another build (interface 99 of 1 bytes" in error


def test_the_module_is_not_imported_for_the_cpu():
    program = """
import sys, numpy as np, torch, ropewalk as rw
for make in (np.ones, torch.ones):
    rw.rotate_(make((3, 2, 8)).astype(np.float32) if make is np.ones else make(3, 2, 8),
               encoding=rw.encoding("default", head_dim=8))
print("ropewalk._cuda" in sys.modules)
"""
    assert run(program) == "False"


@needs_module
def test_the_module_imports_without_a_device():
    assert run("from ropewalk import _cuda; print(type(_cuda.interface).__name__)") == "PyCapsule"
    from ropewalk import _cuda

    assert all(name.split("-")[0].isdigit() for name in _cuda.architectures.split(", "))


@needs_module
@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf")
def test_the_module_links_the_runtime_statically_and_hides_its_symbols():
    dynamic = checks.run("readelf", "-d", MODULE.origin).stdout
    assert "libc.so" in dynamic
    assert "libcuda" not in dynamic  # neither the runtime, libcudart, nor the driver
    symbols = checks.run("readelf", "-W", "--dyn-syms", MODULE.origin).stdout
    exported = [line.split()[-1] for line in symbols.splitlines() if " GLOBAL " in line and " UND " not in line]
    assert exported == ["PyInit__cuda"]
    assert "ropewalk" not in symbols


@needs_module
@pytest.mark.parametrize("call", [rw.rotate, rw.rotate_])
def test_host_memory_is_refused(call):
    """The CUDA runtime reports the missing driver or, with a device, the host memory."""
    q = on_device.Array(np.ones((3, 2, 8), np.float32))
    message = r"ropewalk: .*(driver|host memory|no CUDA-capable device)"
    checks.assert_refused(message, lambda: call(q, encoding=ENCODING, offset=7), q.memory)


def test_operators_have_cuda_kernels():
    from ropewalk import _torch  # noqa: F401

    for name in ("rotate", "rotate_"):
        for device in ("CPU", "CUDA", "Meta"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"ropewalk::{name}", device), (name, device)


@pytest.mark.parametrize("positions", [None, [3, 0, 5], "on the device"])
def test_fake_tensors_on_a_device(positions):
    with FakeTensorMode():
        q = torch.empty_strided((2, 3, 4, 8), (32, 64, 8, 1), device="cuda", dtype=torch.bfloat16)
        k = torch.empty(2, 3, 2, 8, device="cuda", dtype=torch.bfloat16)
        if positions == "on the device":
            positions = torch.empty(3, device="cuda", dtype=torch.int64)
        result = rw.rotate(q, k, encoding=ENCODING, positions=positions)
        for ours, given in zip(result, (q, k)):
            assert (ours.device, ours.dtype, ours.shape) == (given.device, given.dtype, given.shape)
            assert ours.stride() == given.stride() and ours is not given
        assert rw.rotate_(q, encoding=ENCODING, positions=positions) is q


def test_other_devices_are_refused():
    with pytest.raises(rw.Error, match="q is on the device meta, where tensors hold no numbers"):
        rw.rotate_(torch.empty(3, 2, 8, device="meta"), encoding=ENCODING)
