"""What the house checks share: where files are, how includes are read, how a check ends."""

import argparse
import re
import shutil
import sys
from pathlib import Path

SKIPPED = 77  # what ctest counts as skipped
ROOT = Path(__file__).resolve().parents[2]
LIBRARY = {"include": Path("include/ropewalk"), "cuda": Path("cuda/ropewalk")}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def headers(root, suffixes=(".hpp", ".inl", ".cuh")):
    """Every header that users can include, sorted."""
    found = (path for folder in LIBRARY.values() for path in (root / folder).rglob("*") if path.suffix in suffixes)
    return sorted(found)


def includes(path):
    """The names in a file's #include directives."""
    return [name for _, name in INCLUDE.findall(path.read_text(encoding="utf-8"))]


def resolve(root, path, name):
    """The repository's file that `#include name` in `path` means, or None for a file of another project."""
    for folder in (path.parent, root / "include", root / "cuda", root / "bindings"):
        candidate = (folder / name).resolve()
        if candidate.is_file() and root in candidate.parents:
            return candidate
    return None


def finish(problems, what):
    """Ends a check: prints every problem and fails, or says what was looked at. Looking at nothing is a failure."""
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(f"{len(problems)} problem(s) in {what}")
    if what.startswith("0 "):
        sys.exit(f"nothing to check: {what}")
    print(f"{what}: all well")


def find_or_skip(tool):
    """The path of a tool that a machine may lack; without it the check says so and ends as skipped."""
    found = shutil.which(tool)
    if found is None:
        print(f"skipped: no {tool} found")
        raise SystemExit(SKIPPED)
    return found


def run(description, check):
    """The main program of a check of the whole tree: `check(root)` returns its problems and what it looked at."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, default=ROOT)
    finish(*check(parser.parse_args().root.resolve()))
