"""What the benchmarks have in common: the problem, its exact result, what is installed, and the command line."""

import argparse
import json
import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HEAD_DIM, BASE, OFFSET = 128, 10000.0, 1000
HALF, INTERLEAVED = "half_split", "interleaved"
NUMBER = (int, float)
# Of a benchmark of a GPU.
ROW = {
    "candidate": str,
    "type": str,
    "layout": str,
    "heads": str,
    "tokens": int,
    "in_place": bool,
    "microseconds": NUMBER,
    "terabytes_per_second": NUMBER,
    "ratio_to_copy": NUMBER,
}


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
    try:
        found = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git
        found = ""
    return os.environ.get("ROPEWALK_COMMIT") or found or "unknown"


def counts(text):
    """For argparse: whole numbers between commas."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 0 < int(word) < 2**31 for word in words):
        raise argparse.ArgumentTypeError(f"takes whole numbers from 1 up, as in 1,2, got {text!r}")
    return [int(word) for word in words]


def types_among(known):
    """For argparse: names of element types between commas."""

    def types(text):
        if not known >= set(text.split(",")):
            raise argparse.ArgumentTypeError(f"takes {','.join(sorted(known))} or one of them, got {text!r}")
        return text.split(",")

    return types


def check_writable(parser, path):
    """Ends the program where no such file can be written; one that is there stays as it is."""
    there = path.exists()
    if there and not path.is_file() and not path.is_dir():  # a pipe that is opened and closed has ended for its reader
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
        if not there:
            path.unlink()
    except OSError as problem:
        parser.error(f"cannot write {path}: {problem.strerror}")


def read_result(parser, path):
    """The context and the rows that a benchmark of a GPU has written. Ends the program where the file holds none."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        parser.error(f"{path}: {problem.strerror}")
    except ValueError as problem:
        parser.error(f"{path} is no JSON: {problem}")
    whole = isinstance(result, dict) and isinstance(result.get("context"), dict)
    if not whole or not isinstance(result.get("rows"), list):
        parser.error(f"{path} has no context and rows: tools/gpu_check.sh writes such files")
    for number, row in enumerate(result["rows"]):
        wrong = [key for key, kind in ROW.items() if not isinstance(row, dict) or not isinstance(row.get(key), kind)]
        if wrong:
            parser.error(f"{path}: row {number} has no {', '.join(wrong)} of a measurement")
    return result
