"""What the benchmarks on a CPU and on a GPU have in common: the problem, its exact result, and what is installed."""

import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HEAD_DIM, BASE, OFFSET = 128, 10000.0, 1000
HALF, INTERLEAVED = "half_split", "interleaved"


def pairs_of(x, layout):
    """The first and the second elements of the pairs of heads [..., head_dim], float64 [..., head_dim / 2] each."""
    x = x.double()
    return x.chunk(2, dim=-1) if layout == HALF else (x[..., 0::2], x[..., 1::2])


def installed(package):
    """Its version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit():
    """What is measured: ROPEWALK_COMMIT where the files have left their repository, else what git says."""
    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    return os.environ.get("ROPEWALK_COMMIT") or found or "unknown"
