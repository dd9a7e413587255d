"""Check that the code in the documentation runs: ```cpp, ```c, ```python and ```cuda blocks.

A block after the line `<!-- not run -->` is excluded. All C++ blocks become one program, because each compiles the same
kernels: a block is a function in its own namespace, after all #include lines. A C block is a program, compiled as C99.
Python blocks of one document share their names, as they do for a reader who pastes them in order. nvcc compiles each
CUDA block as a file of its own; without nvcc they are skipped. Everything runs in the root of the repository.
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
INCLUDE = re.compile(r"^#include .*$", re.MULTILINE)
GLOBAL = re.compile(r"^(using |namespace )")
MAIN = re.compile(r"\bint main\s*\(\)")
FIRST_LINES = """#undef NDEBUG
#include <exception>
#include <iostream>
"""


def blocks(document, language):
    """(line number, code) of each block that runs."""
    text = document.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip().splitlines()
        if match.group(1) == language and not (before and before[-1].strip() == SKIP):
            yield text[: match.start()].count("\n") + 2, match.group(2)


def as_function(name, document, line, code):
    """A block as `void <name>::block()`, with the compiler's messages pointing into the document."""
    code = INCLUDE.sub("", code)
    position = f'#line {line} "{document}"'
    if MAIN.search(code):
        return f"namespace {name} {{\n{position}\n{MAIN.sub('void block()', code)}\n}}"
    lines = code.splitlines()
    outside = "\n".join(line if GLOBAL.match(line) else "" for line in lines)
    inside = "\n".join("" if GLOBAL.match(line) else line for line in lines)
    return f"namespace {name} {{\n{outside}\nvoid block() {{\n{position}\n{inside}\n}}\n}}"


def one_program(cases):
    """The source of a program that runs every case (document, line, code)."""
    includes = dict.fromkeys(include for _, _, code in cases for include in INCLUDE.findall(code))
    functions = [as_function(f"case_{i}", *case) for i, case in enumerate(cases)]
    calls = [f'run("{document}:{line}", case_{i}::block);' for i, (document, line, _) in enumerate(cases)]
    return "\n".join(
        [
            FIRST_LINES,
            *includes,
            *functions,
            "int failures = 0;",
            "void run(const char* block, void (*function)()) {",
            "std::cerr << block << std::endl;",
            'try { function(); } catch (const std::exception& e) { std::cerr << e.what() << "\\n"; ++failures; }',
            "}",
            "int main() {",
            *calls,
            "return failures; }",
            "",
        ]
    )


def failure(command, code=None):
    result = subprocess.run(command, input=code, capture_output=True, text=True, check=False, cwd=ROOT)
    return result.stdout + result.stderr if result.returncode else None


def relative(document):
    path = document.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def run_cpp(documents, compiler, flags):
    cases = [(relative(document), *block) for document in documents for block in blocks(document, "cpp")]
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "snippets")
        command = [compiler, "-std=c++20", "-O1", "-x", "c++", "-", *flags, "-o", program]
        problem = failure(command, one_program(cases)) or failure([program])
    return ([f"the C++ blocks fail; the last block named is the one:\n{problem}"] if problem else []), len(cases)


def run_c(documents, compiler, flags):
    problems, count = [], 0
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "snippet")
        command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-x", "c", "-", *flags]
        for document in documents:
            for line, code in blocks(document, "c"):
                located = f'#undef NDEBUG\n#line {line} "{relative(document)}"\n{code}'
                if problem := failure([*command, "-o", program], located) or failure([program]):
                    problems.append(f"{relative(document)}:{line}: the C block fails:\n{problem}")
                count += 1
    return problems, count


def compile_cuda(documents, nvcc):
    includes = [f"-I{ROOT / folder.parent}" for folder in LIBRARY.values()]
    problems, count = [], 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "snippet.cu"
        for document in documents:
            for line, code in blocks(document, "cuda"):
                source.write_text(f'#line {line} "{relative(document)}"\n{code}', encoding="utf-8")
                command = [nvcc, "-std=c++20", "-arch=sm_90", *includes, "-c", str(source), "-o", f"{folder}/snippet.o"]
                if problem := failure(command):
                    problems.append(f"{relative(document)}:{line}: the CUDA block does not compile:\n{problem}")
                count += 1
    return problems, count


def run_python(documents, python):
    problems, count = [], 0
    for document in documents:
        cases = list(blocks(document, "python"))
        name = relative(document)
        code = "\n".join(f"exec(compile({chr(10) * (line - 1) + code!r}, {name!r}, 'exec'))" for line, code in cases)
        if problem := failure([python, "-"], code) if cases else None:
            problems.append(f"{name}: the Python blocks fail:\n{problem}")
        count += len(cases)
    return problems, count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=["cpp", "c", "cuda", "python"])
    parser.add_argument("documents", nargs="+", type=Path)
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--nvcc", default="nvcc")
    options, flags = parser.parse_known_args()
    if options.language == "cpp":
        problems, count = run_cpp(options.documents, options.compiler, flags)
    elif options.language == "c":
        problems, count = run_c(options.documents, options.compiler, flags)
    elif options.language == "cuda":
        problems, count = compile_cuda(options.documents, find_or_skip(options.nvcc))
    else:
        problems, count = run_python(options.documents, options.python)
    finish(problems, f"{count} {options.language} blocks")


if __name__ == "__main__":
    main()
