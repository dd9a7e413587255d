"""Files stay under 400 lines and the median header at 150 or below.

A file may be longer where its first ten lines say why: `longer than 400 lines because ...`.
"""

import statistics

from common import headers, run

FOLDERS = ("include", "cuda", "bindings", "tests", "benchmarks", "examples", "tools", "cmake")
SUFFIXES = {".hpp", ".inl", ".cuh", ".cpp", ".cu", ".py", ".sh", ".cmake", ".in", ".txt", ""}
LONGEST = 400
MEDIAN = 150
EXCUSE = "longer than 400 lines because"


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def check(root):
    problems = []
    files = sorted(
        path
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts
    )
    for path in files:
        lines = lines_of(path)
        if len(lines) >= LONGEST and not any(EXCUSE in line for line in lines[:10]):
            problems.append(f"{path.relative_to(root)}: {len(lines)} lines, expected fewer than {LONGEST}")
    lengths = [len(lines_of(path)) for path in headers(root)]
    if lengths and statistics.median(lengths) > MEDIAN:
        problems.append(f"the median header has {statistics.median(lengths)} lines, expected at most {MEDIAN}")
    return problems, f"{len(files)} file lengths"


if __name__ == "__main__":
    run(__doc__, check)
