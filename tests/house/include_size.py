"""Size of the include tree of ropewalk/ropewalk.hpp, compared with that of xsimd alone.

The check counts preprocessed text, which does not depend on the speed of the machine. benchmarks/compile_time.py
measures seconds.
"""

import argparse
import subprocess

from common import LIBRARY, ROOT, finish

LIMIT_RATIO = 2.5  # measured: 1.8 with GCC 12 and with Clang 16


def preprocessed(compiler, header, flags):
    command = [compiler, "-std=c++20", "-E", "-P", *flags, "-x", "c++", "-"]
    return subprocess.run(command, input=f"#include <{header}>\n".encode(), capture_output=True, check=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", required=True)
    options, flags = parser.parse_known_args()
    flags += [f"-I{ROOT / folder.parent}" for folder in LIBRARY.values()]
    sizes = []
    for header in ("xsimd/xsimd.hpp", "ropewalk/ropewalk.hpp"):
        sizes.append(len(preprocessed(options.compiler, header, flags)))
        print(f"{header}: {sizes[-1] / 1e6:.1f} MB preprocessed")
    ratio = sizes[1] / sizes[0]
    summary = f"ropewalk.hpp reads {ratio:.2f} times as much as xsimd alone, the limit is {LIMIT_RATIO}"
    finish([summary] if ratio > LIMIT_RATIO else [], summary)


if __name__ == "__main__":
    main()
