"""CUDA from Python where there may be no device: what the module is made of, and what is said where it is no use."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import on_device
import pytest
import ropewalk as rw
import torch
from torch._subclasses import FakeTensorMode

HERE = Path(__file__).resolve().parent
MODULE = importlib.util.find_spec("ropewalk._cuda")
needs_module = pytest.mark.skipif(MODULE is None, reason="built without nvcc: there is no ropewalk._cuda")


def run(code):
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def message(set_up):
    """What a call on a device says in a fresh process after `set_up`."""
    return run(f"""
import ctypes, sys, types
import numpy as np, on_device, ropewalk as rw
{set_up}
try:
    rw.rotate_(on_device.Array(np.ones((3, 2, 8), np.float32)), encoding=rw.encoding("default", head_dim=8))
except rw.Error as problem:
    print(problem)
""")


def test_calls_reach_their_launch():
    """cuda_on_host.py in a process of its own, as the module stays loaded once a call has needed it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "cuda_on_host.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_without_the_module_the_error_says_how_to_get_it():
    said = message("sys.modules['ropewalk._cuda'] = None")
    for part in ("q or k is on cuda:0", "ropewalk._cuda", "nvcc", "pip install .", "ROPEWALK_BUILD_CUDA=ON", "q.cpu()"):
        assert part in said


def test_a_module_of_another_build_is_refused():
    said = message("""
table = (ctypes.c_uint32 * 16)(99, 1)
module = sys.modules["ropewalk._cuda"] = types.ModuleType("ropewalk._cuda")
module.interface = on_device.new_capsule(ctypes.addressof(table), b"ropewalk._cuda.interface", None)
""")
    assert "of another build (interface 99 of 1 bytes" in said


def test_the_module_is_not_imported_for_the_cpu():
    loaded = run("""
import sys, numpy as np, torch, ropewalk as rw
for make in (np.ones, torch.ones):
    rw.rotate_(make((3, 2, 8)).astype(np.float32) if make is np.ones else make(3, 2, 8),
               encoding=rw.encoding("default", head_dim=8))
print("ropewalk._cuda" in sys.modules)
""")
    assert loaded == "False\n"


@needs_module
def test_the_module_imports_without_a_device():
    assert run("from ropewalk import _cuda; print(type(_cuda.interface).__name__)") == "PyCapsule\n"
    from ropewalk import _cuda

    assert all(one.split("-")[0].isdigit() for one in _cuda.architectures.split(", "))


@needs_module
@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf")
def test_the_module_brings_its_own_runtime_and_shows_nobody():
    dynamic = subprocess.run(["readelf", "-d", MODULE.origin], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in dynamic
    assert "libcuda" not in dynamic  # neither the runtime, libcudart, nor the driver
    symbols = subprocess.run(["readelf", "-W", "--dyn-syms", MODULE.origin], capture_output=True, text=True).stdout
    exported = [line.split()[-1] for line in symbols.splitlines() if " GLOBAL " in line and " UND " not in line]
    assert exported == ["PyInit__cuda"]
    assert "ropewalk" not in symbols


@needs_module
@pytest.mark.parametrize("place", ["in place", "out of place"])
def test_host_memory_is_refused_readably(place):
    """Without a driver the runtime says so; with a device, that the memory is the host's."""
    q = np.ones((3, 2, 8), np.float32)
    call = rw.rotate_ if place == "in place" else rw.rotate
    with pytest.raises(rw.Error, match=r"ropewalk: .*(driver|host memory|no CUDA-capable device)"):
        call(on_device.Array(q), encoding=rw.encoding("default", head_dim=8), offset=7)
    assert (q == 1).all()


def test_operators_are_there_for_cuda():
    from ropewalk import _torch  # noqa: F401

    for name in ("rotate", "rotate_"):
        for device in ("CPU", "CUDA", "Meta"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"ropewalk::{name}", device), (name, device)


@pytest.mark.parametrize("positions", [None, [3, 0, 5], "on the device"])
def test_fake_tensors_on_a_device(positions):
    encoding = rw.encoding("linear:8", head_dim=8)
    with FakeTensorMode():
        q = torch.empty_strided((2, 3, 4, 8), (32, 64, 8, 1), device="cuda", dtype=torch.bfloat16)
        k = torch.empty(2, 3, 2, 8, device="cuda", dtype=torch.bfloat16)
        if positions == "on the device":
            positions = torch.empty(3, device="cuda", dtype=torch.int64)
        done = rw.rotate(q, k, encoding=encoding, positions=positions)
        for ours, given in zip(done, (q, k)):
            assert (ours.device, ours.dtype, ours.shape) == (given.device, given.dtype, given.shape)
            assert ours.stride() == given.stride() and ours is not given
        assert rw.rotate_(q, encoding=encoding, positions=positions) is q


def test_other_devices_are_refused():
    with pytest.raises(rw.Error, match="q is on the device meta, where tensors hold no numbers"):
        rw.rotate_(torch.empty(3, 2, 8, device="meta"), encoding=rw.encoding("default", head_dim=8))
