"""Compile a source twice: it must compile without RW_FAIL, and fail with RW_FAIL and the expected message.

The first line of the source states the message:  // expect: <regular expression>
A second line `// errors: <n>` limits the errors that the compiler reports.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

EXPECT = re.compile(r"// expect: (\S.*)")
ERRORS = re.compile(r"// errors: (\d+)")


def expected_message(source):
    lines = source.read_text(encoding="utf-8").splitlines()
    match = EXPECT.fullmatch(lines[0].strip()) if lines else None
    if match is None:
        sys.exit(f"{source}: the first line must be '// expect: <regular expression>', got {lines[:1]}")
    if not any(re.match(r"#\s*if(def|ndef)\s+RW_FAIL", line) for line in lines):
        sys.exit(f"{source}: has no '#ifdef RW_FAIL'")
    return match.group(1)


def error_limit(source):
    lines = source.read_text(encoding="utf-8").splitlines()
    match = ERRORS.fullmatch(lines[1].strip()) if len(lines) > 1 else None
    return int(match.group(1)) if match else None


def compile_source(compiler, source, includes, *definitions):
    command = [compiler, "-std=c++20", "-fsyntax-only", *includes, *definitions, str(source)]
    plain = {**os.environ, "LC_ALL": "C"}  # untranslated messages with ASCII quotes
    return subprocess.run(command, capture_output=True, text=True, check=False, env=plain)


def check(compiler, source, includes):
    """Returns the problem of a case, or None."""
    message = expected_message(source)
    good = compile_source(compiler, source, includes)
    if good.returncode != 0:
        return f"{source}: must compile without RW_FAIL, but:\n{good.stderr}"
    bad = compile_source(compiler, source, includes, "-DRW_FAIL")
    if bad.returncode == 0:
        return f"{source}: compiles with RW_FAIL; expected an error that matches '{message}'"
    if not re.search(message, " ".join(bad.stderr.split())):
        return f"{source}: fails with RW_FAIL, but without a message that matches '{message}':\n{bad.stderr}"
    limit, errors = error_limit(source), len(re.findall(r"error: ", bad.stderr))
    if limit is not None and errors > limit:
        return f"{source}: reports {errors} errors, the limit is {limit}:\n{bad.stderr}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--source", type=Path, required=True)
    options, includes = parser.parse_known_args()
    try:
        problem = check(options.compiler, options.source, includes)
    except FileNotFoundError as missing:
        problem = f"{options.source}: cannot run the compiler '{options.compiler}': {missing}"
    if problem:
        sys.exit(problem)


if __name__ == "__main__":
    main()
