"""Every header compiles alone, twice included and without a warning; the first compiler given looks at each by itself.

What a header lacks of its includes does not depend on the compiler, warnings do: every other compiler reads all headers
in one file, and half of the time is saved.
"""

import argparse
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import LIBRARY, ROOT, finish, headers

FLAGS = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-x", "c++", "-"]


def compile_headers(compiler, names, flags):
    """What is wrong with a file which includes some headers, and then once more; or None."""
    source = "".join(f'#include "{name}"\n' for name in names) * 2
    result = subprocess.run([compiler, *flags, *FLAGS], input=source, capture_output=True, text=True, check=False)
    what = f"{names[0]} does not compile alone" if len(names) == 1 else f"{len(names)} headers do not compile together"
    return f"{what} with {compiler}:\n{result.stderr}" if result.returncode else None


def cases_of(compilers, names):
    """(compiler, headers of one file) for each compilation, the longest first."""
    return [(other, names) for other in compilers[1:]] + [(compilers[0], [name]) for name in names]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--compiler", action="append", required=True)
    parser.add_argument("--jobs", type=int, default=2)
    options, flags = parser.parse_known_args()
    own = [f"-I{options.root / folder.parent}" for folder in LIBRARY.values()]
    # A .cuh needs nvcc; the GPU check compiles those.
    names = list(map(str, headers(options.root, (".hpp",))))
    with ThreadPoolExecutor(options.jobs) as pool:
        compiled = pool.map(lambda case: compile_headers(*case, own + flags), cases_of(options.compiler, names))
        problems = [problem for problem in compiled if problem]
    finish(problems, f"{len(names)} headers by {len(options.compiler)} compilers")


if __name__ == "__main__":
    main()
