"""Including ropewalk/ropewalk.hpp costs at most two seconds more than including xsimd alone, on a machine which reads
xsimd in two thirds of a second; on a slower one as much more as it is slower.

Processor time, which a waiting compiler does not spend, and the shortest of some repetitions: a loaded machine makes a
compiler slower, never faster. The two headers take turns, so that what slows one for a while slows the other.
"""

import argparse
import os
import resource
import subprocess

from common import LIBRARY, ROOT, finish

LIMIT_SECONDS = 2.0
LIMIT_RATIO = 3.0  # of the difference to the time of xsimd alone, where that is more
REPETITIONS = 5
HEADERS = ("xsimd/xsimd.hpp", "ropewalk/ropewalk.hpp")


def seconds_to_compile(compiler, header, flags):
    command = [compiler, "-std=c++20", "-O2", "-c", *flags, "-x", "c++", "-", "-o", os.devnull]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, input=f"#include <{header}>\n", text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def allowed(base):
    """By how much our header may take longer than xsimd, which takes `base` seconds."""
    return max(LIMIT_SECONDS, LIMIT_RATIO * base)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", required=True)
    options, flags = parser.parse_known_args()
    flags += [f"-I{ROOT / folder.parent}" for folder in LIBRARY.values()]
    times = {header: [] for header in HEADERS}
    for _ in range(REPETITIONS):
        for header in HEADERS:
            times[header].append(seconds_to_compile(options.compiler, header, flags))
        base, ours = (min(times[header]) for header in HEADERS)
        if ours - base <= allowed(base):
            break
    what = f"ropewalk.hpp {ours:.2f} s, xsimd alone {base:.2f} s, allowed difference {allowed(base):.2f} s"
    finish([what] if ours - base > allowed(base) else [], what)


if __name__ == "__main__":
    main()
