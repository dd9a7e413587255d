"""Conditions on compiler macros: only core/compiler.hpp may have an `#if` on one.

A compiler macro is a reserved name: it begins with two underscores, or with an underscore and a capital letter.
"""

import re

from common import headers, run

CONDITIONAL = re.compile(r"^\s*#\s*(?:el)?if(?:n?def)?\b(.*)$")
RESERVED = re.compile(r"\b_(?:_|[A-Z])\w*")

CONFIG = "include/ropewalk/core/compiler.hpp"
# Exceptions: files, macros and the reason.
ALLOWED = [
    (
        re.compile(r"include/ropewalk/cpu/.*"),
        re.compile(r"__(SSE|AVX|FMA|F16C|BMI|ARM_NEON|ARM_FEATURE|aarch64|x86_64)\w*"),
        "selects intrinsics that xsimd does not offer",
    ),
]


def allowed(name, macro):
    return any(files.fullmatch(name) and macros.fullmatch(macro) for files, macros, _ in ALLOWED)


def check(root):
    problems = []
    files = headers(root)
    for path in files:
        name = path.relative_to(root).as_posix()
        if name == CONFIG:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = CONDITIONAL.match(line)
            macros = RESERVED.findall(match.group(1)) if match else []
            problems += [f"{name}:{number}: {m} belongs in {CONFIG}" for m in macros if not allowed(name, m)]
    return problems, f"{len(files)} headers for compiler macros"


if __name__ == "__main__":
    run(__doc__, check)
