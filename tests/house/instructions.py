"""Instructions of the GPU kernels per 16 bytes moved, counted in the disassembly for sm_90.

A kernel's main loop processes a fixed number of heads per iteration, and its prologue runs once per thread. Both are
counted on the shortest path among those that compute the most: a loop that norms, rotates, converts and stores each
head once, and a prologue with all cosines and sines from phases. Values count like keys, although they do not rotate.
The search of a cache slot is not counted.

The printed share of the copy is the part of its speed that the instructions allow, at most 1. It was not measured: no
device is needed. Without cuobjdump (in CUDA's toolkit and in the Python package triton), the check exits with 77, which
ctest reports as skipped.
"""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from common import LIBRARY, ROOT, find_or_skip, finish
from nvcc import compile_one, kernels_in

UNIT = """#include <ropewalk/gpu/fused.cuh>
#include <ropewalk/gpu/rotate.cuh>
namespace rw = ropewalk;
namespace gpu = rw::gpu;
using rotated_rates = gpu::plain_rates<gpu::plain_pairs>;
using fused_rates = gpu::plain_rates<gpu::few_pairs>;
template __global__ void gpu::detail::rotate_kernel<rw::bf16, rw::half_split, 16, rotated_rates>(
    const __grid_constant__ gpu::rotate_kernel_params<rotated_rates>);
#define FUSED(norms, converts) \\
    template __global__ void gpu::detail::fused_kernel<rw::bf16, rw::half_split, 16, fused_rates, \\
        norms, converts>(const __grid_constant__ gpu::fused_kernel_params<fused_rates>)
FUSED(false, false);
FUSED(true, false);
FUSED(false, true);
"""


class Case(NamedTuple):
    """A kernel with its ceilings, 10 % above what it reaches."""

    kernel: str  # a pattern of its mangled name
    marker: str  # instructions of the path through the loop, for keys and values
    without: str  # instructions that this call does without
    stores: int  # per head of keys and values
    bytes: tuple[int, ...]  # moved per thread and head of q, k and v (0: no such heads)
    instructions: float  # per 16 bytes, 40 and 40 heads
    few_heads: float  # likewise, 32 and 8 heads
    registers: int
    few_per_thread: int  # heads, of 32 and 8
    query_marker: str = "BF16.*PACK_AB"  # of the path of queries, which keep their type
    first_marker: str = "never"  # of the path to the loop


SCALE = "FMNMX|FCHK"  # of the maximum and the divisions that make the scale of an int8 head
CASES = {
    "rotate": Case("rotate_kernel", "STG", SCALE, 2, (64, 64, 0), 32, 32, 64, 11),
    "append": Case("fused_kernel.*Lb0ELb0E", "STG", SCALE, 2, (64, 64, 64), 36, 39, 80, 8),
    "norm": Case("fused_kernel.*Lb1ELb0E", "SHFL", SCALE, 2, (64, 64, 0), 67, 67, 112, 11, "SHFL", "FADD"),
    "append to fp8": Case("fused_kernel.*Lb0ELb1E", "E4M3", f"SHFL|{SCALE}", 2, (64, 48, 48), 77, 66, 112, 8),
    # Less than 1 more where the first heads have to find their scales, which no opcode tells from the rest.
    "append to int8": Case(
        "fused_kernel.*Lb0ELb1E", "SHFL|12582912|0x4b400000", "E4M3", 3, (64, 48, 48), 81, 70, 112, 8
    ),
}
QUERY_STORES = 2  # per head
# Heads of q and k. tests/gpu/plan.cpp checks the numbers of heads per thread.
MODELS = {"40/40": (40, 40), "32/8": (32, 8)}
PER_THREAD = 10  # heads of a launch of 8192 tokens with 40 and 40 heads on 132 multiprocessors
HEADS_IN_FLIGHT = 2
LANES_PER_HEAD = 8  # three exchanges per reduction
# An H200: multiprocessors, schedulers of each, clock, the part of the issue slots that can be used, and its copy.
ISSUE_RATE = 132 * 4 * 1.755e9 * 0.7 * 32
COPY = 4.3e12

FUNCTION = re.compile(r"Function : (\w+)")
LINE = re.compile(r"^\s+/\*([0-9a-f]+)\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")


class Instruction(NamedTuple):
    address: int
    predicated: bool
    name: str
    operands: str

    @property
    def target(self):
        if self.name.split(".")[0] != "BRA":
            return None
        return int(re.findall(r"0x([0-9a-f]+)", self.operands)[-1], 16)

    @property
    def falls_through(self):
        stops = self.name.split(".")[0] in ("BRA", "EXIT", "RET")
        return self.predicated or not stops or "P" in self.operands.split("0x")[0]


def functions_in(sass):
    """{name: instructions} of a disassembly."""
    found, body = {}, []
    for line in sass.splitlines():
        if match := FUNCTION.search(line):
            body = found.setdefault(match.group(1), [])
        elif match := LINE.match(line):
            body.append(Instruction(int(match.group(1), 16), bool(match.group(2)), match.group(3), match.group(4)))
    return found


def edges(code):
    """The indices that follow each instruction."""
    index = {each.address: i for i, each in enumerate(code)}
    following = []
    for i, each in enumerate(code):
        next_ones = [i + 1] if each.falls_through and i + 1 < len(code) else []
        if each.target is not None and each.target in index:
            next_ones.append(index[each.target])
        following.append(next_ones)
    return following


def best_path(code, first, last, weight, stores=None):
    """The number of instructions on the path of largest weight from `first` to `last`, inclusive.

    The path has `stores` stores to global memory if a number is given. Weights are tuples. Backward branches are
    ignored, but a loop that exchanges values between lanes repeats."""
    following = edges(code)
    repeats = [1] * len(code)
    for i, each in enumerate(code):
        start = i + 1 if each.target is None else code_index(code, each.target)
        exchanges = any(inner.name.startswith("SHFL") for inner in code[start : i + 1])
        if exchanges and first < start <= i <= last:
            repeats[start : i + 1] = [LANES_PER_HEAD.bit_length() - 1] * (i + 1 - start)
    best = [{} for _ in code]  # by the number of stores: the weight and the number of instructions
    best[first][0] = ((0,) * len(weight(code[first])), 0)
    for i in range(first, last + 1):
        own = weight(code[i])
        is_store = stores is not None and code[i].name.startswith("STG")
        for done, (value, number) in best[i].items():
            value = tuple(a + b * repeats[i] for a, b in zip(value, own))
            number, done = number + repeats[i], done + is_store
            if i == last:
                best[last] = {**best[last], ("end", done): (value, number)}
                continue
            for after in following[i]:
                if i < after <= last and (done not in best[after] or value > best[after][done][0]):
                    best[after][done] = (value, number)
    return best[last]["end", stores or 0][1]


def code_index(code, address):
    return (address - code[0].address) // (code[1].address - code[0].address)


def main_loop(code):
    """The first and the last instruction of the largest loop that loads and stores 16 bytes at once."""
    found = (0, -1)
    for i, each in enumerate(code):
        if each.target is None or each.target >= each.address:
            continue
        start = code_index(code, each.target)
        names = {inner.name for inner in code[start : i + 1]}
        wide = [name for name in names if name.endswith(".128")]
        if any(name.startswith("LDG") for name in wide) and i - start > found[1] - found[0]:
            found = (start, i)
    return found


def count(code, case):
    """Instructions of the prologue and per head of queries and of keys, and the loads before a loaded value is used."""

    def weight_of(marker, without):
        def weight(each):
            # Never the subroutines of divisions by 64-bit numbers.
            is_avoided = bool(re.match(f"CALL|{without}", each.name))
            is_marked = bool(re.search(marker, each.name + each.operands))
            return (-is_avoided, is_marked, each.name.startswith(("FFMA", "FMUL")), -1)

        return weight

    first, last = main_loop(code)
    of_queries = weight_of(case.query_marker, f"{case.without}|{SCALE}")
    of_keys = weight_of(case.marker, case.without)
    prologue = best_path(code, 0, first, weight_of(case.first_marker, case.without)) - 1
    per_head = [
        best_path(code, first, last, weight, stores * HEADS_IN_FLIGHT) / HEADS_IN_FLIGHT
        for weight, stores in ((of_queries, QUERY_STORES), (of_keys, case.stores))
    ]
    return prologue, per_head, loads_in_flight(code[first : last + 1])


def loads_in_flight(loop):
    """The 16-byte loads of the loop that start before the first instruction reads one of their results."""
    loaded, most = set(), 0
    for each in loop:
        registers = re.findall(r"\bR(\d+)", each.operands)
        if each.name.startswith("LDG") and each.name.endswith(".128"):
            first = int(registers[0])
            loaded |= {str(first + i) for i in range(4)}
            most = max(most, len(loaded) // 4)
        elif loaded & set(registers[1:] if not each.name.startswith("ST") else registers):
            loaded.clear()
    return most


def per_16_bytes(case, prologue, per_head, model):
    q, k = MODELS[model]
    per_thread = PER_THREAD if q == k else case.few_per_thread
    instructions = moved = 0
    for heads, each, of_head in zip((q, k, k), case.bytes, (*per_head, per_head[-1])):
        if each:
            instructions += heads * of_head + -(-heads // per_thread) * prologue
            moved += heads * each
    return instructions / moved * 16


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--cuobjdump", default="cuobjdump")
    arguments = parser.parse_args()
    nvcc, cuobjdump = find_or_skip(arguments.nvcc), find_or_skip(arguments.cuobjdump)
    flags = [f"-I{ROOT / folder.parent}" for folder in LIBRARY.values()]
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder) / "kernels.cu", f"{folder}/kernels.cubin"
        source.write_text(UNIT, encoding="utf-8")
        options = ["-cubin", "-arch=sm_90", "--ptxas-options=-v", "-o", cubin]
        report, _ = compile_one(nvcc, flags, source, options)
        functions = functions_in(subprocess.check_output([cuobjdump, "-sass", cubin], text=True))
    resources, problems = kernels_in(report), []
    for label, case in CASES.items():
        names = [name for name in functions if re.search(case.kernel, name)]
        if len(names) != 1:
            problems.append(f"{label}: found kernels {names}, expected one")
            continue
        name = names[0]
        prologue, per_head, loads = count(functions[name], case)
        frame, spilled, registers = resources[name]
        each = {model: per_16_bytes(case, prologue, per_head, model) for model in MODELS}
        shares = {model: min(1, ISSUE_RATE / each[model] * 16 / COPY) for model in MODELS}
        print(
            f"{label}: {registers} registers, {loads * 16} B in flight, {prologue} instructions per thread, "
            f"{per_head[0]:.1f} per head of q and {per_head[1]:.1f} of k; per 16 B "
            + ", ".join(f"{each[m]:.1f} ({shares[m]:.2f} of the copy) for {m} heads" for m in MODELS)
        )
        limits = {"40/40": case.instructions, "32/8": case.few_heads}
        problems += [
            f"{label}, {m}: {each[m]:.1f} instructions per 16 B, at most {limits[m]} expected"
            for m in MODELS
            if each[m] > limits[m]
        ]
        if registers > case.registers:
            problems.append(f"{label}: {registers} registers, at most {case.registers} expected")
        if loads * 16 < 48:
            problems.append(f"{label}: {loads * 16} B in flight, at least 48 expected")
        if frame or spilled:
            problems.append(f"{label}: a stack frame of {frame} bytes, {spilled} bytes spilled")
    finish(problems, f"{len(CASES)} kernels")


if __name__ == "__main__":
    main()
