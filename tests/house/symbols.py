"""Symbols of the compiled library.

Weak symbols of object files built for an instruction set: no other translation unit may define them. The linker keeps
any one definition of a weak symbol. If a plain inline function is compiled into an AVX-512 object, a machine without
AVX-512 may run that copy. Therefore its name must contain the type of the architecture.

Exported symbols of the shared library: exactly the functions that ropewalk.h declares, the functions of
ropewalk::dispatch, and the class of errors, whose type information a program needs to catch them.
"""

import argparse
import re
import subprocess
from pathlib import Path

from common import ROOT, finish

HEADER = ROOT / "bindings" / "dispatch" / "include" / "ropewalk" / "ropewalk.h"

# Names that contain an architecture, and the reference to the exception personality routine, which is data.
ALLOWED = r"avx|DW\.ref\."
WEAK = "WVu"
# C++ names that the shared library exports.
EXPORTED = r"ropewalk::dispatch::\w+\(.*|(typeinfo|typeinfo name|vtable) for ropewalk::error"


def weak_symbols(nm, path):
    listing = subprocess.run([nm, "--defined-only", str(path)], capture_output=True, text=True, check=True).stdout
    fields = (line.split(maxsplit=2) for line in listing.splitlines())
    return [field[2] for field in fields if len(field) == 3 and field[1] in WEAK]


def exported_symbols(nm, library):
    """Demangled names of the dynamic symbols that a shared library defines, without versions and nodes of versions."""
    command = [nm, "--dynamic", "--defined-only", "--demangle", "--without-symbol-versions", str(library)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    fields = (line.split(maxsplit=2) for line in listing.splitlines())
    return {field[2] for field in fields if field[1] != "A"}


def check_library(names, header):
    """Problems of the exported names, given the text of the C header."""
    declared = set(re.findall(r"^ROPEWALK_API [\w *]*?(\w+)\(", header, re.MULTILINE))
    c_names = {name for name in names if re.fullmatch(r"\w+", name)}
    others = {name for name in names - c_names if not re.fullmatch(EXPORTED, name)}
    problems = [f"the library does not export {name}, which the header declares" for name in sorted(declared - c_names)]
    return problems + [f"the library exports {name}" for name in sorted((c_names - declared) | others)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("objects", nargs="*", type=Path)
    parser.add_argument("--only", default=r"kernels_avx", help="objects to check, a regular expression")
    parser.add_argument("--allow", default=ALLOWED, help="weak symbols to accept, a regular expression")
    parser.add_argument("--library", type=Path, help="the shared library, to check its exported symbols")
    parser.add_argument("--nm", default="nm")
    options = parser.parse_args()
    objects = [path for path in options.objects if re.search(options.only, path.name)]
    problems = [
        f"{path.name}: weak symbol {symbol} does not match '{options.allow}'"
        for path in objects
        for symbol in weak_symbols(options.nm, path)
        if not re.search(options.allow, symbol)
    ]
    if options.library:
        names = exported_symbols(options.nm, options.library)
        problems += check_library(names, HEADER.read_text(encoding="utf-8"))
    finish(problems, f"{len(objects)} object files with an instruction set of their own")


if __name__ == "__main__":
    main()
