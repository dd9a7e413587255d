"""Tests of the house checks: each finds a planted problem and accepts correct files."""

import shutil
import subprocess
import sys
from pathlib import Path

import check as compile_fail
import layers
import macros
import nvcc
import pytest
import snippets
import symbols

COMPILER = shutil.which("c++") or "c++"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def header(root, name, *names):
    text = "#pragma once\n" + "".join(f'#include "{other}"\n' for other in names)
    return write(root / "include/ropewalk" / name, text)


@pytest.fixture
def root(tmp_path):
    header(tmp_path, "core/a.hpp")
    header(tmp_path, "cpu/a.hpp", "ropewalk/core/a.hpp", "xsimd/xsimd.hpp")
    write(tmp_path / "cuda/ropewalk/gpu/a.cuh", '#pragma once\n#include "ropewalk/core/a.hpp"\n')
    return tmp_path


def test_layers_accept_includes_that_point_down(root):
    assert layers.check(root)[0] == []


@pytest.mark.parametrize(
    ("name", "included", "complaint"),
    [
        ("core/b.hpp", "ropewalk/cpu/a.hpp", "core) includes ropewalk/cpu/a.hpp"),
        ("core/b.hpp", "../cpu/a.hpp", "core) includes ../cpu/a.hpp"),
        ("policy/b.hpp", "immintrin.h", "must not use"),
        ("encoding.hpp", "Eigen/Core", "must not use"),
        ("cpu/b.hpp", "ropewalk/gpu/a.cuh", "includes both cpu and gpu"),
        ("rotation/b.hpp", "ropewalk/cpu/a.hpp", "rotation) includes ropewalk/cpu/a.hpp"),
        ("somewhere/b.hpp", "ropewalk/core/a.hpp", "no layer named 'somewhere'"),
    ],
)
def test_layers_refuse(root, name, included, complaint):
    header(root, name, included)
    assert any(complaint in problem for problem in layers.check(root)[0])


def test_layers_refuse_a_header_without_pragma_once(root):
    write(root / "include/ropewalk/core/b.hpp", "int x;\n")
    write(root / "include/ropewalk/core/b.inl", "int x;\n")
    assert layers.check(root)[0] == ["include/ropewalk/core/b.hpp: no #pragma once"]


def test_layers_find_cpu_and_gpu_through_other_headers(root):
    header(root, "llama/cpu_only.hpp", "ropewalk/cpu/a.hpp")
    header(root, "llama/both.hpp", "cpu_only.hpp", "ropewalk/gpu/a.cuh")
    assert layers.check(root)[0] == ["include/ropewalk/llama/both.hpp includes both cpu and gpu"]


@pytest.mark.parametrize(
    ("name", "line", "count"),
    [
        ("core/b.hpp", "#ifdef __CUDACC__", 1),
        ("core/b.hpp", "#if defined(_MSC_VER) && __AVX2__", 2),
        ("core/b.hpp", "#ifndef ROPEWALK_B_HPP", 0),
        ("core/compiler.hpp", "#ifdef __CUDACC__", 0),
        ("cpu/b.hpp", "#  elif defined(__AVX512F__)", 0),
        ("cpu/b.hpp", "#ifdef __GNUC__", 1),
    ],
)
def test_macros(root, name, line, count):
    write(root / "include/ropewalk" / name, line + "\n#endif\n")
    assert len(macros.check(root)[0]) == count


def test_snippets(tmp_path):
    good = '```cpp\n#include <cstdio>\nstd::puts("x");\n```\n'
    document = write(tmp_path / "a.md", good + "\n<!-- not run -->\n```cpp\nnonsense\n```\n")
    assert snippets.run_cpp([document, document], COMPILER, []) == ([], 2)
    wrong = write(tmp_path / "b.md", good + "```cpp\nnonsense\n```\n")
    problems, count = snippets.run_cpp([document, wrong], COMPILER, [])
    assert (len(problems), count) == (1, 3)
    assert "b.md:6: error" in problems[0] or "b.md:6:1: error" in problems[0]
    throws = '```cpp\n#include <stdexcept>\nint main() { throw std::runtime_error("out of rope"); }\n```\n'
    problems, _ = snippets.run_cpp([write(tmp_path / "c.md", throws)], COMPILER, [])
    assert "c.md:2\nout of rope" in problems[0]


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("int main(void) { return 0; }", None),
        ("#include <assert.h>\nint main(void) { assert(0); }", "a.md:2: the C block fails"),
        ("int main(void) { return y; }", "a.md:2:25: error"),
        ("inline x; int main(void) { return 0; }", "error"),
    ],
)
def test_c_snippets(tmp_path, program, complaint):
    problems, count = snippets.run_c([write(tmp_path / "a.md", f"```c\n{program}\n```\n")], "cc", [])
    assert count == 1
    assert problems == [] if complaint is None else complaint in problems[0]


def test_python_snippets_share_names_and_report_their_line(tmp_path):
    document = write(tmp_path / "a.md", "```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    problems, count = snippets.run_python([document], sys.executable)
    assert count == 2
    assert 'File "a.md", line 6' in problems[0]


def test_symbols(tmp_path):
    source = write(tmp_path / "a.cpp", "inline int shared() { return 1; }\nint f() { return shared(); }\n")
    subprocess.run([COMPILER, "-c", str(source), "-o", str(tmp_path / "a.o")], check=True)
    assert symbols.weak_symbols("nm", tmp_path / "a.o") == ["_Z6sharedv"]


def test_exported_symbols(tmp_path):
    source = write(
        tmp_path / "a.cpp",
        'extern "C" int ropewalk_a() { return 1; }\nstatic int b() { return 2; }\nint c() { return b(); }\n',
    )
    subprocess.run([COMPILER, "-shared", "-fPIC", str(source), "-o", str(tmp_path / "a.so")], check=True)
    names = symbols.exported_symbols("nm", tmp_path / "a.so")
    assert {"ropewalk_a", "c()"} <= names and "b()" not in names
    header = "ROPEWALK_API int ropewalk_a(int);\nROPEWALK_API const char* ropewalk_d(void);\n"
    assert symbols.check_library({"ropewalk_a", "c()", "std::f()"}, header) == [
        "the library does not export ropewalk_d, which the header declares",
        "the library exports c()",
        "the library exports std::f()",
    ]
    good = {"ropewalk_a", "ropewalk_d", "ropewalk::dispatch::rotate(int)", "typeinfo for ropewalk::error"}
    assert symbols.check_library(good, header) == []


@pytest.mark.parametrize(
    ("first_line", "bad_twin", "complaint"),
    [
        ("// expect: must be even", 'static_assert(3 % 2 == 0, "must be even");', None),
        ("// expect: must be even", "", "compiles with RW_FAIL"),
        ("// expect: must be even", "int x = y;", "without a message that matches"),
    ],
)
def test_compile_fail(tmp_path, first_line, bad_twin, complaint):
    source = write(tmp_path / "a.cpp", f"{first_line}\n#ifdef RW_FAIL\n{bad_twin}\n#endif\n")
    wrong = compile_fail.check(COMPILER, source, [])
    assert wrong is None if complaint is None else complaint in wrong


def test_compile_fail_refuses_a_bad_good_twin_and_a_missing_compiler(tmp_path):
    source = write(tmp_path / "a.cpp", "// expect: x\n#ifdef RW_FAIL\n#else\nint x = y;\n#endif\n")
    assert "must compile without RW_FAIL" in compile_fail.check(COMPILER, source, [])
    script = Path(compile_fail.__file__)
    command = [sys.executable, str(script), "--compiler", "no-such-compiler", "--source", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "no-such-compiler" in result.stderr


def ptxas_report(frame, spilled, registers):
    return (
        "ptxas info    : Compiling entry function '_Z13rotate_kernelI11plain_ratesLi16EE' for 'sm_90'\n"
        f"    {frame} bytes stack frame, {spilled} bytes spill stores, 0 bytes spill loads\n"
        f"ptxas info    : Used {registers} registers, used 0 barriers\n"
    )


@pytest.mark.parametrize(
    ("report", "complaint"),
    [
        (ptxas_report(0, 0, 64), None),
        (ptxas_report(8, 0, 64), "stack frame of 8 bytes"),
        (ptxas_report(8, 4, 64), "spills 4"),
        (ptxas_report(0, 0, 72), "72 registers; half of 2048 threads have 64"),
    ],
)
def test_nvcc_registers(report, complaint):
    kernels = nvcc.kernels_in(report)
    assert len(kernels) == 1
    problems = nvcc.check_registers(kernels, 2048)
    assert problems == [] if complaint is None else complaint in problems[0]


def ptx_of(name, instructions):
    """A kernel whose loads and stores are inline assembly, like accesses of elements."""
    body = "".join(f"// begin inline asm\n{line};\n// end inline asm\n" for line in instructions.split(";") if line)
    return f".visible .entry {name}(\n)\n{{\n{body}\n}}\n"


@pytest.mark.parametrize(
    ("instructions", "complaint"),
    [
        ("ld.global.v4.u32 {};st.global.v4.u32 []", None),
        ("ld.global.v4.u32 {};st.global.v4.u32 [];st.global.u8 []", "stores by ['st.global.u8', 'st.global.v4.u32']"),
        ("ld.global.v4.u32 {};ld.global.u16 {};st.global.v4.u32 []", "loads by ['ld.global.u16', 'ld.global.v4.u32']"),
        ("ld.global.v2.u32 {};st.global.v4.u32 []", "loads by ['ld.global.v2.u32']"),
        ("ld.global.v4.u32 {};st.global.v4.u32 [];st.global.v2.u32 []", "stores by"),
        ("ld.global.v4.u32 {}", "stores by []"),
        ("ld.global.v4.u32 {};st.global.v4.u32 [];st.local.u32 []", "local memory"),
    ],
)
def test_nvcc_accesses(instructions, complaint):
    problems = nvcc.check_accesses(ptx_of("_Z13rotate_kernelILi16EE", instructions), 1)
    assert problems == [] if complaint is None else complaint in problems[0]


@pytest.mark.parametrize(
    ("narrow", "complaint"),
    [
        ("st.global.v2.u32 [];st.global.u32 []", None),
        ("st.global.u16 []", "stores by"),
        ("ld.global.u32 {}", "loads by"),
    ],
)
def test_nvcc_accesses_of_fused_kernels(narrow, complaint):
    ptx = ptx_of("_Z12fused_kernelILi16EE", f"ld.global.v4.u32 {{}};st.global.v4.u32 [];{narrow}")
    problems = nvcc.check_accesses(ptx, 1)
    assert problems == [] if complaint is None else complaint in problems[0]


@pytest.mark.parametrize(("binding", "visibility"), [("WEAK", "DEFAULT"), ("WEAK", "HIDDEN"), ("LOCAL", "DEFAULT")])
def test_nvcc_hidden(binding, visibility):
    names = ["_ZN8ropewalk3gpu5fusedINS_10half_splitEEEvv", "_ZN8ropewalk3gpu6detail13allows_accessEv"]
    symbols = "".join(f"   7: 0000 9 FUNC    {binding}   {visibility}    5 {name}\n" for name in names)
    found = (binding, visibility) == ("WEAK", "DEFAULT")
    assert nvcc.check_hidden(symbols) == [f"{names[0]} launches kernels and is visible to other modules"] * found


def test_nvcc_accesses_count_kernels():
    assert nvcc.check_accesses(".entry other(\n)\n{\n}\n", 2) == ["found 0 kernels with 16-byte accesses, expected 2"]


def test_cuda_snippets(tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc here")
    document = write(tmp_path / "a.md", "```cuda\n__global__ void f() {}\n```\n```cuda\nnonsense\n```\n")
    problems, count = snippets.compile_cuda([document], "nvcc")
    assert (len(problems), count) == (1, 2)
    assert problems[0].startswith("a.md:5: ")


def test_cuda_snippets_are_skipped_without_a_compiler():
    command = [sys.executable, snippets.__file__, "cuda", "README.md", "--nvcc", "no-such-compiler"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (77, "skipped: no-such-compiler not found\n")
