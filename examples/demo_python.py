"""Comparison of Python with examples/demo.cpp: the same rotations of NumPy arrays give the same bits.

python examples/demo_python.py [build/demo_checksums.json]

Rotates the same queries and keys in place and compares the sum of all 32-bit words with the checksum that the C++
demonstration wrote. Also compares some tokens with float64. Fails if a result differs.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import ropewalk as rw

HEADS, HEAD_DIM = 40, 128
CONFIGS = Path(__file__).parent / "configs"
DTYPES = {"f32": np.float32, "bf16": ml_dtypes.bfloat16}
ROUNDING = {"f32": 0.0, "bf16": 2.0**-8}


def known_heads(tokens, dtype):
    """q and k [tokens, heads, head_dim], one after the other in one array, with the values of demo.cpp."""
    pattern = ((np.arange(8191) * 40503 % 65536) / 65536 - 0.5).astype(np.float32).astype(dtype)
    both = np.resize(pattern, 2 * tokens * HEADS * HEAD_DIM)
    return both, *both.reshape(2, tokens, HEADS, HEAD_DIM)


def make_encoding(policy, layout):
    """The encodings of two configuration files, or of the policy expression."""
    if policy == "default":
        return rw.from_config(CONFIGS / "llama-2-13b.json")
    if policy == "linear:8":
        return rw.from_config(CONFIGS / "llama-2-7b-32k.json")
    return rw.encoding(policy, head_dim=HEAD_DIM, layout=layout)


def pairs_of(x, layout):
    """The first and second elements of the pairs in float64."""
    x = x.astype(np.float64)
    return np.split(x, 2, axis=-1) if layout == "half_split" else (x[..., 0::2], x[..., 1::2])


def error_to_tolerance(before, after, positions, enc, layout, rounding):
    """The largest error against float64, divided by the tolerance. For policies without a magnitude."""
    errors = []
    for i, position in enumerate(positions):
        angle = position * np.asarray(enc.inv_freq)
        x, y = pairs_of(before[i], layout)
        first, second = pairs_of(after[i], layout)
        norm = np.hypot(x, y)
        for got, exact in (
            (first, x * np.cos(angle) - y * np.sin(angle)),
            (second, x * np.sin(angle) + y * np.cos(angle)),
        ):
            errors.append(abs(got - exact) / (rounding * abs(exact) + 3e-7 * norm + 1e-9))
    return np.max(errors)


def run(expected):
    """Rotates and compares one row. Returns whether the results agree."""
    name, layout, tokens = expected["type"], expected["layout"], expected["tokens"]
    enc = make_encoding(expected["policy"], layout)
    both, q, k = known_heads(tokens, DTYPES[name])
    checked = [0, 1, tokens // 3, tokens - 1]
    before = q[checked]
    start = time.perf_counter()
    rw.rotate_(q, k, encoding=enc)
    seconds = time.perf_counter() - start
    same = int(both.view(np.uint32).sum(dtype=np.uint64)) == expected["checksum"]
    verdict = "same bits as C++" if same else "DIFFERS from C++"
    correct = same
    if expected["policy"] not in ("xpos:512", "randomized"):
        error = error_to_tolerance(before, q[checked], checked, enc, layout, ROUNDING[name])
        correct = correct and error <= 1
        verdict += f", error against float64: {error:.2f} of the tolerance"
    print(f"{expected['policy']:15s} {name:5s} {layout:12s} {1e3 * seconds:7.1f} ms  {verdict}", flush=True)
    return correct


def rows_of(path):
    """The rows that demo.cpp wrote, at least one."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        sys.exit(f"ropewalk: {path}: {error.strerror}: run build/examples/demo first")
    except ValueError as error:
        sys.exit(f"ropewalk: {path} is not valid JSON: {error}")
    keys = {"policy", "type", "layout", "tokens", "checksum"}
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and row.keys() >= keys for row in rows):
        sys.exit(f"ropewalk: {path} contains no checksums of build/examples/demo; run it again")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checksums", type=Path, nargs="?", default=Path("build/demo_checksums.json"))
    rows = rows_of(parser.parse_args().checksums)
    print(f"the same rotations from Python, on NumPy {np.__version__} arrays, {rw.instruction_set()}:")
    if not all([run(expected) for expected in rows]):
        sys.exit("Python and C++ do NOT agree")
    print("Python and C++ agree")


if __name__ == "__main__":
    main()
