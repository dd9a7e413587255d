"""Users' translation units under nvcc: no warning, no spill and no narrow access for any architecture.

The check reads the compiler's report of each kernel, and the memory instructions of the kernels with 16-byte accesses.
Functions that launch kernels must be hidden like the kernels, so that no module launches the kernels of another module.
The compile times are printed. Without nvcc the check exits with 77, which ctest reports as skipped.
"""

import argparse
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from common import LIBRARY, ROOT, find_or_skip, finish

# Threads per multiprocessor. A multiprocessor has 65,536 registers, allocated in units of eight.
ARCHITECTURES = {"sm_80": 2048, "sm_90": 2048, "sm_100": 2048, "sm_120": 1536}
REGISTERS = 65536


class Unit(NamedTuple):
    """A user's file and its expectations."""

    name: str
    wide: int  # number of kernels with 16-byte accesses
    architectures: tuple[str, ...] = tuple(ARCHITECTURES)

    @property
    def path(self):
        return ROOT / "tests" / "cuda" / self.name


# The Llama stack is compiled for one architecture: it has 22 kernels, and the other architectures show the same.
UNITS = (Unit("user.cu", 4), Unit("fused_user.cu", 4), Unit("llama_user.cu", 0, ("sm_90",)))
WARNINGS = ["-Werror", "all-warnings", "-Xcompiler=-Wall,-Wextra,-Wconversion,-Werror"]

FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
ENTRY = re.compile(r"\.entry (\w+)\((.*?)\n}", re.DOTALL)
# Elements are loaded by inline assembly. Other loads read positions, tables and cache slots.
ASSEMBLY = re.compile(r"// begin inline asm(.*?)// end inline asm", re.DOTALL)
LOAD = re.compile(r"\bld\.global[\w.]*")
STORE = re.compile(r"\bst\.global[\w.]*")
# Mangled names of the kernels that run in every layer, and of the kernels with 16-byte accesses.
HOT = re.compile(r"rotate_kernel.*plain_rates")
WIDE = re.compile(r"Li16E")
# The fused kernel of ordinary heads: a quarter of the threads of a multiprocessor must have registers.
FUSED_HOT = re.compile(r"fused_kernel.*Li16E.*plain_rates")
# A lane of a fused kernel holds 16 bytes of elements. In a narrower cache or norm weight the same elements take 8 or 4
# bytes. The scale of a head has 4 bytes.
FUSED = re.compile(r"fused_kernel")
NARROWER = {"loads": {"ld.global.v2.u32"}, "stores": {"st.global.v2.u32", "st.global.u32"}}
# Kernels that start the next kernel at once and wait for the previous one late, from compute capability 9.0 on.
OVERLAPPING = re.compile(r"rotate_kernel|fused_kernel")
OVERLAP_ORDER = re.compile(r"\bgriddepcontrol\.\w+|\b(?:ld|st)\.global\b")
# Mangled names of the functions that launch kernels, and of the one that caches a property of each kernel.
LAUNCHES = re.compile(
    r"_ZN8ropewalk3gpu(6detail)?((3run|6launch|6rotate|8rerotate|5fused|6append|11norm_rotate)I|18waits_for_previous)"
)


def check_hidden(symbols):
    """Finds visible weak launch functions: the loader keeps one for all modules, with its own module's kernels."""
    rows = (line.split() for line in symbols.splitlines() if " WEAK " in line and " DEFAULT " in line)
    return [f"{row[-1]} launches kernels and is visible to other modules" for row in rows if LAUNCHES.match(row[-1])]


def compile_one(nvcc, flags, source, arguments):
    """Runs nvcc and returns its output and the seconds it took. Raises the output where nvcc fails."""
    command = [nvcc, "-std=c++20", *flags, *WARNINGS, *arguments, str(source)]
    start = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr, seconds


def kernels_in(report):
    """{name: (stack frame, spilled bytes, registers)} from the report of ptxas."""
    found, name, frame = {}, None, (0, 0)
    for line in report.splitlines():
        if match := FUNCTION.search(line):
            name = match.group(1)
        elif match := FRAME.search(line):
            numbers = [int(number) for number in match.groups()]
            frame = (numbers[0], numbers[1] + numbers[2])
        elif (match := USED.search(line)) and name:
            found[name] = (*frame, int(match.group(1)))
            name = None
    return found


def check_registers(kernels, threads):
    half, quarter = REGISTERS // (threads // 2) // 8 * 8, REGISTERS // (threads // 4) // 8 * 8
    problems = []
    for name, (frame, spilled, registers) in kernels.items():
        if frame or spilled:
            problems.append(f"{name} has a stack frame of {frame} bytes and spills {spilled}")
        if HOT.search(name) and registers > half:
            problems.append(f"{name} uses {registers} registers; half of {threads} threads have {half} each")
        if FUSED_HOT.search(name) and registers > quarter:
            problems.append(f"{name} uses {registers} registers; a quarter of {threads} threads has {quarter} each")
    return problems


def check_accesses(ptx, expected):
    """Finds narrow accesses in the kernels with 16-byte accesses, whose number must be `expected`."""
    problems, count = [], 0
    for name, body in ENTRY.findall(ptx):
        if not WIDE.search(name):
            continue
        count += 1
        loads = LOAD.findall("".join(ASSEMBLY.findall(body)))
        for verb, found in (("loads", set(loads)), ("stores", set(STORE.findall(body)))):
            wide = {instruction for instruction in found if ".v4." in instruction}
            allowed = NARROWER[verb] if FUSED.search(name) else set()
            if not wide or found - wide - allowed:
                problems.append(f"{name} {verb} by {sorted(found)}, expected 16 bytes at once")
        if "ld.local" in body or "st.local" in body:
            problems.append(f"{name} keeps an array in local memory")
    if count != expected:
        problems.append(f"found {count} kernels with 16-byte accesses, expected {expected}")
    return problems


def check_overlap(ptx):
    """Finds kernels that do not start the next kernel first, or that access memory before they wait."""
    problems = []
    for name, body in ENTRY.findall(ptx):
        first = OVERLAP_ORDER.findall(body)[:2]
        if OVERLAPPING.search(name) and first != ["griddepcontrol.launch_dependents", "griddepcontrol.wait"]:
            problems.append(f"{name} begins with {first}")
    return problems


def check_architecture(nvcc, flags, unit, name, threads):
    """Returns the problems of one file on one architecture, and a summary line."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["-cubin", f"-arch={name}", "--ptxas-options=-v", "--keep", f"--keep-dir={folder}"]
        report, seconds = compile_one(nvcc, flags, unit.path, [*out, "-o", f"{folder}/user.cubin"])
        ptx = "".join(path.read_text(encoding="utf-8") for path in Path(folder).glob("*.ptx"))
    kernels = kernels_in(report)
    problems = check_registers(kernels, threads) + check_accesses(ptx, unit.wide)
    if name != "sm_80":
        problems += check_overlap(ptx)
    if not kernels:
        problems.append(f"the compiler reported no kernel:\n{report}")
    hot = max((used for kernel, (_, _, used) in kernels.items() if HOT.search(kernel)), default=0)
    maximum = max((used for _, _, used in kernels.values()), default=0)
    line = f"{unit.name}, {name}: {len(kernels)} kernels, at most {maximum} registers, {seconds:.1f} s"
    if hot:
        line += f"; {hot} registers for plain rates"
    return [f"{unit.name}, {name}: {problem}" for problem in problems], line


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvcc", default="nvcc")
    nvcc = find_or_skip(parser.parse_args().nvcc)
    flags = [f"-I{ROOT / folder.parent}" for folder in LIBRARY.values()]
    problems = []
    for unit in UNITS:
        try:
            # The host code, whose warnings users see too.
            with tempfile.TemporaryDirectory() as folder:
                object_file = ["-c", "-arch=sm_90", "-o", f"{folder}/user.o"]
                _, seconds = compile_one(nvcc, flags, unit.path, object_file)
                symbols = subprocess.check_output(["readelf", "-sW", object_file[-1]], text=True)
                problems += [f"{unit.name}: {problem}" for problem in check_hidden(symbols)]
            print(f"{unit.name}, host and sm_90: {seconds:.1f} s")
            for name in unit.architectures:
                found, line = check_architecture(nvcc, flags, unit, name, ARCHITECTURES[name])
                problems += found
                print(line)
        except RuntimeError as failure:
            problems.append(str(failure))
    finish(problems, f"{len(UNITS)} users' files on {len(ARCHITECTURES)} architectures")


if __name__ == "__main__":
    main()
