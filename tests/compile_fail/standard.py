"""Compile every public header as C++17: the first message must ask for C++20, and few may follow."""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MESSAGE = "ropewalk needs C++20: compile with -std=c++20"
LIMIT = 2  # the message, and the missing file that stops the compiler


def errors(compiler, header, includes):
    """The lines of the errors of a unit with this header alone."""
    command = [compiler, "-std=c++17", "-fsyntax-only", *includes, "-x", "c++", "-"]
    unit = f'#include "{header}"\n'
    result = subprocess.run(command, input=unit, capture_output=True, text=True, check=False)
    return [line for line in result.stderr.splitlines() if "error: " in line]


def problem(header, found):
    if not found:
        return None  # it has nothing that needs C++20
    if MESSAGE not in found[0]:
        return f"{header}: must include core/compiler.hpp first, but reports as C++17:\n  {found[0]}"
    if len(found) > LIMIT:
        return f"{header}: reports {len(found)} errors as C++17, the limit is {LIMIT}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compiler", required=True)
    options, includes = parser.parse_known_args()
    headers = [
        path.relative_to(folder)
        for folder in (ROOT / "include", ROOT / "cuda", ROOT / "bindings" / "dispatch" / "include")
        for path in sorted(folder.rglob("*.hpp"))
    ]
    problems = [text for header in headers if (text := problem(header, errors(options.compiler, header, includes)))]
    entry = Path("ropewalk/ropewalk.hpp")
    if not errors(options.compiler, entry, includes):
        problems.append(f"{entry}: compiles as C++17")
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(headers)} headers ask for C++20")


if __name__ == "__main__":
    main()
