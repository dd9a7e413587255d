"""Torch wheels that rename libgomp: ropewalk must use the renamed library and not load a second one."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
from checks import run_python

SONAME, RENAMED = b"libgomp.so.1\0", b"libgompx.so1\0"

PROGRAM = """
import ctypes, json, os, sys
import ropewalk as rw
import numpy as np

other = ctypes.CDLL(sys.argv[1])
encoding = rw.encoding("default", head_dim=128)
q = np.zeros((2048, 32, 128), dtype="float32")
counts = []
for threads in (1, 2):
    other.omp_set_num_threads(threads)
    rw.rotate_(q, encoding=encoding)
    counts.append(len(os.listdir("/proc/self/task")))
print(json.dumps({"counts": counts, "torch": "torch" in sys.modules}))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in Linux's /proc")
def test_ropewalk_uses_the_openmp_library_of_torch(tmp_path):
    spec = importlib.util.find_spec("torch")
    own = next(iter(Path(spec.submodule_search_locations[0], "lib").glob("libgomp.so*")), None) if spec else None
    if own is None:
        pytest.skip("torch has no libgomp of that name to rename")
    content = own.read_bytes()
    assert SONAME in content
    library = tmp_path / "torch" / "lib" / "libgomp-a1b2c3.so.1"
    library.parent.mkdir(parents=True)
    library.write_bytes(content.replace(SONAME, RENAMED))
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('torch is not needed')")
    found = json.loads(run_python(PROGRAM, library, PYTHONPATH=str(tmp_path)))
    assert not found["torch"]
    # The renamed library sets the number of threads, so it also runs them.
    assert found["counts"][1] == found["counts"][0] + 1, found
