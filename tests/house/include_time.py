"""Including ropewalk/ropewalk.hpp costs at most two seconds more than including xsimd alone (median of three)."""

import argparse
import os
import statistics
import subprocess
import time

from common import LIBRARY, ROOT, finish

LIMIT_SECONDS = 2.0
REPETITIONS = 3


def seconds_to_compile(compiler, header, flags):
    command = [compiler, "-std=c++20", "-O2", "-c", *flags, "-x", "c++", "-", "-o", os.devnull]
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        subprocess.run(command, input=f"#include <{header}>\n", text=True, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiler", required=True)
    options, flags = parser.parse_known_args()
    flags += [f"-I{ROOT / folder.parent}" for folder in LIBRARY.values()]
    base = seconds_to_compile(options.compiler, "xsimd/xsimd.hpp", flags)
    ours = seconds_to_compile(options.compiler, "ropewalk/ropewalk.hpp", flags)
    what = f"ropewalk.hpp {ours:.2f} s, xsimd alone {base:.2f} s, allowed difference {LIMIT_SECONDS} s"
    finish([what] if ours - base > LIMIT_SECONDS else [], what)


if __name__ == "__main__":
    main()
