"""A user's translation unit compiles for every architecture without a warning, a spill or a narrow access.

Looks at what the compiler says of each kernel, and at the memory instructions of those which take 16 bytes at once.
Without nvcc it says so and exits with 77, which ctest counts as skipped.
"""

import argparse
import re
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from common import LIBRARY, ROOT, finish

SOURCE = ROOT / "tests" / "cuda" / "user.cu"
SKIPPED = 77
# Threads that a multiprocessor may hold. Each has 65,536 registers, given out by eights.
ARCHITECTURES = {"sm_80": 2048, "sm_90": 2048, "sm_120": 1536}
REGISTERS = 65536
LIMIT_SECONDS = 5.0
ATTEMPTS = 3  # a loaded machine makes a compiler slower, never faster
WARNINGS = ["-Werror", "all-warnings", "-Xcompiler=-Wall,-Wextra,-Wconversion,-Werror"]

FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
ENTRY = re.compile(r"\.entry (\w+)\((.*?)\n}", re.DOTALL)
# Kernels by their mangled names: those which run in every layer, and those of 16-byte accesses.
HOT = re.compile(r"plain_rates")
WIDE = re.compile(r"Li16E")


def compile_one(nvcc, flags, arguments):
    """Runs nvcc; returns what it printed and the processor time of all its children, or raises what is wrong."""
    command = [nvcc, "-std=c++20", *flags, *WARNINGS, *arguments, str(SOURCE)]
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


def check_accesses(ptx):
    """Kernels of 16-byte accesses store nothing narrower, and load elements by 16 bytes."""
    problems, seen = [], 0
    for name, body in ENTRY.findall(ptx):
        if not WIDE.search(name):
            continue
        seen += 1
        stores = set(re.findall(r"\bst\.global[\w.]*", body))
        loads = set(re.findall(r"\bld\.global[\w.]*", body))
        if not stores or any(".v4." not in store for store in stores):
            problems.append(f"{name} stores by {sorted(stores)}, expected 16 bytes at once")
        if not any(".v4." in load for load in loads):
            problems.append(f"{name} loads by {sorted(loads)}, expected 16 bytes at once")
        if "ld.local" in body or "st.local" in body:
            problems.append(f"{name} keeps an array in local memory")
    return problems if seen else ["no kernel of 16-byte accesses was found"]


def check_architecture(nvcc, flags, name, threads):
    """What is wrong with one architecture, and a line about it."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["-cubin", f"-arch={name}", "--ptxas-options=-v", "--keep", f"--keep-dir={folder}"]
        report, seconds = compile_one(nvcc, flags, [*out, "-o", f"{folder}/user.cubin"])
        ptx = "".join(path.read_text(encoding="utf-8") for path in Path(folder).glob("*.ptx"))
    for _ in range(ATTEMPTS - 1):
        if seconds <= LIMIT_SECONDS:
            break
        seconds = min(seconds, compile_one(nvcc, flags, ["-cubin", f"-arch={name}", "-o", "/dev/null"])[1])
    kernels = kernels_in(report)
    problems = check_registers(kernels, threads) + check_accesses(ptx)
    if not kernels:
        problems.append(f"the compiler said nothing of any kernel:\n{report}")
    if seconds > LIMIT_SECONDS:
        problems.append(f"compiling takes {seconds:.1f} s of a processor, allowed are {LIMIT_SECONDS} s")
    hot = max((used for kernel, (_, _, used) in kernels.items() if HOT.search(kernel)), default=0)
    most = max((used for _, _, used in kernels.values()), default=0)
    line = f"{name}: {len(kernels)} kernels, at most {hot} registers where plain and {most} elsewhere, {seconds:.1f} s"
    return [f"{name}: {problem}" for problem in problems], line


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvcc", default="nvcc")
    options = parser.parse_args()
    nvcc = shutil.which(options.nvcc)
    if nvcc is None:
        print(f"skipped: no nvcc found ({options.nvcc})")
        raise SystemExit(SKIPPED)
    flags = [f"-I{ROOT / folder.parent}" for folder in LIBRARY.values()]
    problems = []
    try:
        # The host's side, whose warnings a user would see too.
        with tempfile.TemporaryDirectory() as folder:
            _, seconds = compile_one(nvcc, flags, ["-c", "-arch=sm_90", "-o", f"{folder}/user.o"])
        print(f"host and sm_90 together: {seconds:.1f} s")
        for name, threads in ARCHITECTURES.items():
            wrong, line = check_architecture(nvcc, flags, name, threads)
            problems += wrong
            print(line)
    except RuntimeError as failure:
        problems.append(str(failure))
    finish(problems, f"{len(ARCHITECTURES)} architectures of {SOURCE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
