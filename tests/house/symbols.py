"""Weak symbols of object files built for an instruction set: no other translation unit may define them.

The linker keeps any one definition of a weak symbol. If a plain inline function is compiled into an AVX-512 object, a
machine without AVX-512 may run that copy. Therefore its name must contain the type of the architecture.
"""

import argparse
import re
import subprocess
from pathlib import Path

from common import finish

# Names that contain an architecture, and the reference to the exception personality routine, which is data.
ALLOWED = r"avx|DW\.ref\."
WEAK = "WVu"


def weak_symbols(nm, path):
    listing = subprocess.run([nm, "--defined-only", str(path)], capture_output=True, text=True, check=True).stdout
    fields = (line.split(maxsplit=2) for line in listing.splitlines())
    return [field[2] for field in fields if len(field) == 3 and field[1] in WEAK]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objects", nargs="*", type=Path)
    parser.add_argument("--only", default=r"kernels_avx", help="objects to check, a regular expression")
    parser.add_argument("--allow", default=ALLOWED, help="weak symbols to accept, a regular expression")
    parser.add_argument("--nm", default="nm")
    options = parser.parse_args()
    objects = [path for path in options.objects if re.search(options.only, path.name)]
    problems = [
        f"{path.name}: weak symbol {symbol} does not match '{options.allow}'"
        for path in objects
        for symbol in weak_symbols(options.nm, path)
        if not re.search(options.allow, symbol)
    ]
    finish(problems, f"{len(objects)} object files with an instruction set of their own")


if __name__ == "__main__":
    main()
