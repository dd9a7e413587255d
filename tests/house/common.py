"""Helpers of the house checks: paths of the repository, includes of a file, and the end of a check."""

import argparse
import re
import shutil
import sys
from pathlib import Path

SKIPPED = 77  # the exit status that ctest reports as skipped
ROOT = Path(__file__).resolve().parents[2]
LIBRARY = {"include": Path("include/ropewalk"), "cuda": Path("cuda/ropewalk")}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def headers(root):
    """Every header that users can include, sorted."""
    found = (path for folder in LIBRARY.values() for path in (root / folder).rglob("*"))
    return sorted(path for path in found if path.suffix in (".hpp", ".inl", ".cuh"))


def includes(path):
    """The names in a file's #include directives."""
    return [name for _, name in INCLUDE.findall(path.read_text(encoding="utf-8"))]


def resolve(root, path, name):
    """The repository's file that `#include name` in `path` refers to, or None for a file of another project."""
    for folder in (path.parent, root / "include", root / "cuda", root / "bindings", root / "bindings/dispatch/include"):
        candidate = (folder / name).resolve()
        if candidate.is_file() and root in candidate.parents:
            return candidate
    return None


def finish(problems, summary):
    """Ends a check: prints every problem and fails, or prints what was checked. Checking nothing is a failure."""
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(f"{len(problems)} problem(s) in {summary}")
    if summary.startswith("0 "):
        sys.exit(f"nothing to check: {summary}")
    print(f"{summary}: passed")


def find_or_skip(tool):
    """The path of an optional tool. Without the tool the check prints a message and ends as skipped."""
    found = shutil.which(tool)
    if found is None:
        print(f"skipped: {tool} not found")
        raise SystemExit(SKIPPED)
    return found


def run(description, check):
    """Runs a check of the whole tree: `check(root)` returns its problems and a summary."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, default=ROOT)
    finish(*check(parser.parse_args().root.resolve()))
