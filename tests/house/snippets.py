"""The code in the documentation runs: every ```cpp and ```python block that does not follow `<!-- not run -->`.

A C++ block without `main` gets one: its #include, using and namespace lines go above it. Python blocks of one document
share their names, as they would for a reader who pastes them in order. Blocks run in the repository's root.

A ```cuda block is a translation unit of its own, which nvcc compiles and nobody runs. Without nvcc that is skipped.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from common import LIBRARY, ROOT, find_or_skip, finish

FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SKIP = "<!-- not run -->"
GLOBAL = re.compile(r"^(#|using |namespace )")


def blocks(document, language):
    """(line number, code) of each block that runs."""
    text = document.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip().splitlines()
        if match.group(1) == language and not (before and before[-1].strip() == SKIP):
            yield text[: match.start()].count("\n") + 1, match.group(2)


def whole_program(code):
    if re.search(r"\bint main\s*\(", code):
        return code
    lines = code.splitlines()
    outside = [line for line in lines if GLOBAL.match(line)]
    inside = [line for line in lines if not GLOBAL.match(line)]
    return "\n".join([*outside, "int main() {", *inside, "}", ""])


def failure(command, code=None):
    result = subprocess.run(command, input=code, capture_output=True, text=True, check=False, cwd=ROOT)
    return result.stdout + result.stderr if result.returncode else None


def run_cpp(document, compiler, flags):
    cases = list(blocks(document, "cpp"))
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "snippet")
        for line, code in cases:
            source = whole_program(code)
            wrong = failure([compiler, "-std=c++20", "-O1", "-x", "c++", "-", *flags, "-o", program], source)
            wrong = wrong or failure([program])
            if wrong:
                problems.append(f"{document.name}:{line}: the C++ block fails:\n{wrong}")
    return problems, len(cases)


def compile_cuda(document, nvcc):
    cases = list(blocks(document, "cuda"))
    includes = [f"-I{ROOT / folder.parent}" for folder in LIBRARY.values()]
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "snippet.cu"
        for line, code in cases:
            source.write_text(code, encoding="utf-8")
            command = [nvcc, "-std=c++20", "-arch=sm_90", *includes, "-c", str(source), "-o", f"{folder}/snippet.o"]
            if wrong := failure(command):
                problems.append(f"{document.name}:{line}: the CUDA block does not compile:\n{wrong}")
    return problems, len(cases)


def run_python(document, python):
    cases = list(blocks(document, "python"))
    padded = "\n".join(f"exec(compile({chr(10) * line + code!r}, {document.name!r}, 'exec'))" for line, code in cases)
    wrong = failure([python, "-"], padded)
    return ([f"{document.name}: the Python blocks fail:\n{wrong}"] if wrong else []), len(cases)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("language", choices=["cpp", "cuda", "python"])
    parser.add_argument("documents", nargs="+", type=Path)
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--nvcc", default="nvcc")
    options, flags = parser.parse_known_args()
    nvcc = find_or_skip(options.nvcc) if options.language == "cuda" else None
    problems, count = [], 0
    for document in options.documents:
        if options.language == "cpp":
            found, run = run_cpp(document, options.compiler, flags)
        elif options.language == "cuda":
            found, run = compile_cuda(document, nvcc)
        else:
            found, run = run_python(document, options.python)
        problems += found
        count += run
    finish(problems, f"{count} {options.language} blocks")


if __name__ == "__main__":
    main()
