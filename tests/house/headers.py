"""Every header compiles alone, twice included and without a warning, with every compiler given."""

import argparse
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import LIBRARY, ROOT, finish, headers

FLAGS = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-x", "c++", "-"]


def compile_alone(compiler, header, flags):
    source = f'#include "{header}"\n' * 2
    result = subprocess.run([compiler, *flags, *FLAGS], input=source, capture_output=True, text=True, check=False)
    return f"{header} does not compile alone with {compiler}:\n{result.stderr}" if result.returncode else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--compiler", action="append", required=True)
    parser.add_argument("--jobs", type=int, default=2)
    options, flags = parser.parse_known_args()
    own = [f"-I{options.root / folder.parent}" for folder in LIBRARY.values()]
    # A .cuh needs nvcc; the GPU check compiles those.
    cases = [(compiler, header) for header in headers(options.root, (".hpp",)) for compiler in options.compiler]
    with ThreadPoolExecutor(options.jobs) as pool:
        problems = [p for p in pool.map(lambda case: compile_alone(*case, own + flags), cases) if p]
    finish(problems, f"{len(cases)} headers by compilers")


if __name__ == "__main__":
    main()
