"""Size of the include tree of ropewalk/ropewalk.hpp, compared with that of xsimd alone.

The check counts preprocessed text, which does not depend on the speed of the machine. It also prints how long the
compiler takes for each of the two headers.
"""

import argparse
import os
import subprocess
import time

from common import LIBRARY, ROOT, finish

LIMIT_RATIO = 2.5  # measured: 1.8 with GCC 12 and with Clang 16


def compile_include(compiler, header, flags, *mode):
    command = [compiler, "-std=c++20", *mode, *flags, "-x", "c++", "-"]
    return subprocess.run(command, input=f"#include <{header}>\n".encode(), capture_output=True, check=True).stdout


def seconds_to_compile(*arguments):
    start = time.perf_counter()
    compile_include(*arguments, "-O2", "-c", "-o", os.devnull)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", required=True)
    options, flags = parser.parse_known_args()
    flags += [f"-I{ROOT / folder.parent}" for folder in LIBRARY.values()]
    sizes = []
    for header in ("xsimd/xsimd.hpp", "ropewalk/ropewalk.hpp"):
        arguments = (options.compiler, header, flags)
        sizes.append(len(compile_include(*arguments, "-E", "-P")))
        print(f"{header}: {sizes[-1] / 1e6:.1f} MB preprocessed, {seconds_to_compile(*arguments):.1f} s to compile")
    ratio = sizes[1] / sizes[0]
    summary = f"ropewalk.hpp reads {ratio:.2f} times as much as xsimd alone, the limit is {LIMIT_RATIO}"
    finish([summary] if ratio > LIMIT_RATIO else [], summary)


if __name__ == "__main__":
    main()
