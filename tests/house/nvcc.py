"""Users' translation units compile for every architecture without a warning, a spill or a narrow access.

What launches kernels is as hidden as they are, so that no module launches those of another.

Looks at what the compiler says of each kernel, and at the memory instructions of those which take 16 bytes at once.
Without nvcc it says so and exits with 77, which ctest counts as skipped.
"""

import argparse
import re
import resource
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from common import LIBRARY, ROOT, find_or_skip, finish

# Threads that a multiprocessor may hold. Each has 65,536 registers, given out by eights.
ARCHITECTURES = {"sm_80": 2048, "sm_90": 2048, "sm_120": 1536}
REGISTERS = 65536


class Unit(NamedTuple):
    """A user's file, and what is asked of it."""

    name: str
    seconds: float  # of a processor, an architecture
    wide: int  # kernels of 16-byte accesses
    architectures: tuple[str, ...] = tuple(ARCHITECTURES)

    @property
    def path(self):
        return ROOT / "tests" / "cuda" / self.name


# Attention over caches has 22 kernels, and who uses it waits longer: 6 s where this was written. One architecture says
# what the others say, and saves half a minute.
UNITS = (Unit("user.cu", 5.0, 4), Unit("fused_user.cu", 5.0, 2), Unit("llama_user.cu", 12.0, 0, ("sm_90",)))
ATTEMPTS = 3  # a loaded machine makes a compiler slower, never faster
WARNINGS = ["-Werror", "all-warnings", "-Xcompiler=-Wall,-Wextra,-Wconversion,-Werror"]

FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
ENTRY = re.compile(r"\.entry (\w+)\((.*?)\n}", re.DOTALL)
# Elements are read by instructions that are written out; other loads are of positions, tables and slots.
ASSEMBLY = re.compile(r"// begin inline asm(.*?)// end inline asm", re.DOTALL)
LOAD = re.compile(r"\bld\.global[\w.]*")
STORE = re.compile(r"\bst\.global[\w.]*")
# Kernels by their mangled names: those which run in every layer, and those of 16-byte accesses.
HOT = re.compile(r"rotate_kernel.*plain_rates")
WIDE = re.compile(r"Li16E")
# A lane of a fused kernel has as many elements as 16 bytes hold, which are 8 or 4 bytes where a cache or the weights of
# a norm are narrower. The scale of a head has 4 bytes.
FUSED = re.compile(r"fused_kernel")
NARROWER = {"loads": {"ld.global.v2.u32"}, "stores": {"st.global.v2.u32", "st.global.u32"}}
# Functions that launch, by their mangled names.
LAUNCHES = re.compile(r"_ZN8ropewalk3gpu(6detail)?(3run|6launch|6rotate|8rerotate|5fused|6append|11norm_rotate)I")


def check_hidden(symbols):
    """Other modules may define a weak function too, and the loader keeps one: that may launch their kernels."""
    rows = (line.split() for line in symbols.splitlines() if " WEAK " in line and " DEFAULT " in line)
    return [f"{row[-1]} launches kernels, and other modules see it" for row in rows if LAUNCHES.match(row[-1])]


def compile_one(nvcc, flags, source, arguments):
    """Runs nvcc; returns what it printed and the processor time of all its children, or raises what is wrong."""
    command = [nvcc, "-std=c++20", *flags, *WARNINGS, *arguments, str(source)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr, seconds


def kernels_in(report):
    """{name: (stack frame, spilled bytes, registers)} from what ptxas says."""
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
    half = REGISTERS // (threads // 2) // 8 * 8
    problems = []
    for name, (frame, spilled, registers) in kernels.items():
        if frame or spilled:
            problems.append(f"{name} has a stack frame of {frame} bytes and spills {spilled}")
        if HOT.search(name) and registers > half:
            problems.append(f"{name} uses {registers} registers; half of {threads} threads have {half} each")
    return problems


def check_accesses(ptx, expected):
    """What is narrow in kernels of 16-byte accesses, of which there should be so many."""
    problems, seen = [], 0
    for name, body in ENTRY.findall(ptx):
        if not WIDE.search(name):
            continue
        seen += 1
        loads = LOAD.findall("".join(ASSEMBLY.findall(body)))
        for verb, found in (("loads", set(loads)), ("stores", set(STORE.findall(body)))):
            wide = {one for one in found if ".v4." in one}
            allowed = NARROWER[verb] if FUSED.search(name) else set()
            if not wide or found - wide - allowed:
                problems.append(f"{name} {verb} by {sorted(found)}, expected 16 bytes at once")
        if "ld.local" in body or "st.local" in body:
            problems.append(f"{name} keeps an array in local memory")
    if seen != expected:
        problems.append(f"{seen} kernels of 16-byte accesses were found, expected {expected}")
    return problems


def check_architecture(nvcc, flags, unit, name, threads):
    """What is wrong with one file on one architecture, and a line about it."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["-cubin", f"-arch={name}", "--ptxas-options=-v", "--keep", f"--keep-dir={folder}"]
        report, seconds = compile_one(nvcc, flags, unit.path, [*out, "-o", f"{folder}/user.cubin"])
        ptx = "".join(path.read_text(encoding="utf-8") for path in Path(folder).glob("*.ptx"))
    for _ in range(ATTEMPTS - 1):
        if seconds <= unit.seconds:
            break
        again = compile_one(nvcc, flags, unit.path, ["-cubin", f"-arch={name}", "-o", "/dev/null"])
        seconds = min(seconds, again[1])
    kernels = kernels_in(report)
    problems = check_registers(kernels, threads) + check_accesses(ptx, unit.wide)
    if not kernels:
        problems.append(f"the compiler said nothing of any kernel:\n{report}")
    if seconds > unit.seconds:
        problems.append(f"compiling takes {seconds:.1f} s of a processor, allowed are {unit.seconds} s")
    hot = max((used for kernel, (_, _, used) in kernels.items() if HOT.search(kernel)), default=0)
    most = max((used for _, _, used in kernels.values()), default=0)
    line = f"{name}: {len(kernels)} kernels, at most {most} registers, {seconds:.1f} s"
    if hot:
        line += f"; {hot} registers where plain"
    return [f"{unit.name}, {name}: {problem}" for problem in problems], f"{unit.name}, {line}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvcc", default="nvcc")
    nvcc = find_or_skip(parser.parse_args().nvcc)
    flags = [f"-I{ROOT / folder.parent}" for folder in LIBRARY.values()]
    problems = []
    for unit in UNITS:
        try:
            # The host's side, whose warnings a user would see too.
            with tempfile.TemporaryDirectory() as folder:
                object_file = ["-c", "-arch=sm_90", "-o", f"{folder}/user.o"]
                _, seconds = compile_one(nvcc, flags, unit.path, object_file)
                symbols = subprocess.check_output(["readelf", "-sW", object_file[-1]], text=True)
                problems += [f"{unit.name}: {problem}" for problem in check_hidden(symbols)]
            print(f"{unit.name}, host and sm_90 together: {seconds:.1f} s")
            for name in unit.architectures:
                wrong, line = check_architecture(nvcc, flags, unit, name, ARCHITECTURES[name])
                problems += wrong
                print(line)
        except RuntimeError as failure:
            problems.append(str(failure))
    finish(problems, f"{len(UNITS)} users' files on {len(ARCHITECTURES)} architectures")


if __name__ == "__main__":
    main()
