"""Shared parts of the benchmarks: constants, installed packages, command line arguments and result files."""

import argparse
import json
import os
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HEAD_DIM, BASE, OFFSET = 128, 10000.0, 1000
HALF, INTERLEAVED = "half_split", "interleaved"
NUMBER = (int, float)
# Required keys of a row of a GPU benchmark, with their types.
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
    """The first and second elements of the pairs of heads [..., head_dim]: two float64 [..., head_dim / 2]."""
    x = x.double()
    return x.chunk(2, dim=-1) if layout == HALF else (x[..., 0::2], x[..., 1::2])


def installed(package):
    """The version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit():
    """The measured commit: ROPEWALK_COMMIT for files outside a repository, otherwise the description by git."""
    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git
        found = ""
    return os.environ.get("ROPEWALK_COMMIT") or found or "unknown"


def without_folders(text):
    """The text with the folders of absolute paths removed, for result files."""
    return re.sub(r"(^|[^\w./])(/[\w.+@-]+)+/", r"\1", text)


def counts(text):
    """argparse type of positive whole numbers separated by commas."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 0 < int(word) < 2**31 for word in words):
        raise argparse.ArgumentTypeError(f"expected positive whole numbers like 1,2, got {text!r}")
    return [int(word) for word in words]


def types_among(known):
    """argparse type of names of element types separated by commas."""

    def types(text):
        if not known >= set(text.split(",")):
            raise argparse.ArgumentTypeError(f"expected {','.join(sorted(known))} or a part of it, got {text!r}")
        return text.split(",")

    return types


def check_writable(parser, path):
    """Ends the program if the file cannot be written. An existing file stays unchanged."""
    exists = path.exists()
    if exists and not path.is_file() and not path.is_dir():  # opening and closing a pipe would end it for its reader
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
        if not exists:
            path.unlink()
    except OSError as error:
        parser.error(f"cannot write {path}: {error.strerror}")


def read_result(parser, path):
    """Reads the context and rows of a GPU benchmark. Ends the program if the file does not contain them."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(f"{path}: {error.strerror}")
    except ValueError as error:
        parser.error(f"{path} is not valid JSON: {error}")
    complete = isinstance(result, dict) and isinstance(result.get("context"), dict)
    if not complete or not isinstance(result.get("rows"), list):
        parser.error(f"{path} has no context and rows; expected a file that tools/gpu_check.sh wrote")
    for number, row in enumerate(result["rows"]):
        missing = [key for key, kind in ROW.items() if not isinstance(row, dict) or not isinstance(row.get(key), kind)]
        if missing:
            parser.error(f"{path}: row {number} lacks a valid {', '.join(missing)}")
    return result
