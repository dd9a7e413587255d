"""Torch wheels whose libgomp has a name of its own: the module must use that one and not a second."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
def test_the_runtime_of_torch_serves_the_module(tmp_path):
    spec = importlib.util.find_spec("torch")
    own = next(iter(Path(spec.submodule_search_locations[0], "lib").glob("libgomp.so*")), None) if spec else None
    if own is None:
        pytest.skip("torch has no libgomp of that name to rename")
    content = own.read_bytes()
    assert SONAME in content
    library = tmp_path / "torch" / "lib" / "libgomp-a1b2c3.so.1"
    library.parent.mkdir(parents=True)
    library.write_bytes(content.replace(SONAME, RENAMED))
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('nobody asked for torch')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(library)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["torch"]
    # The renamed runtime says how many threads there are, so it is the one that runs them.
    assert found["counts"][1] == found["counts"][0] + 1, found
