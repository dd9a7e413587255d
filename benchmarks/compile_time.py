"""Compile time, peak memory and code size of users' translation units and of the compiled library.

python benchmarks/compile_time.py [--json build/compile_time.json]

Compiles each unit alone and prints the processor seconds (user), the peak memory of the compiler, and the bytes of code
(text) and of the object file. Processor seconds depend on the machine and on its load: compare rows of one run.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
INCLUDES = [f"-I{ROOT / folder}" for folder in ("include", "bindings", "bindings/dispatch/include")]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
SANITIZERS = ["-O1", "-g", "-fsanitize=address,undefined"]

HEADER = "#include <ropewalk/ropewalk.hpp>\nnamespace rw = ropewalk;\n"
ARGUMENTS = "(rw::view<{type}> q, rw::view<{type}> k, const rw::Encoding& encoding)"
ROTATE = "void rotate_{layout}" + ARGUMENTS + " {{ rw::cpu::rotate<rw::{layout}>(q, k, encoding, rw::offset{{7}}); }}\n"
BY_POLICY = """rw::Encoding make(const rw::Geometry& geometry, double factor) {
    return rw::make_encoding(geometry, rw::Linear{.factor = factor});
}
"""
BY_EXPRESSION = """rw::Encoding make(const rw::Geometry& geometry, const char* text) {
    return rw::make_encoding(geometry, text);
}
"""
COMPILED = """#include <ropewalk/dispatch.hpp>
namespace rw = ropewalk;
void rotate(rw::view<float> q, rw::view<float> k, const rw::Encoding& encoding) {
    rw::dispatch::rotate<rw::half_split>(q, k, encoding, rw::offset{7});
}
"""


def rotate(layout, element="float"):
    return ROTATE.format(layout=layout, type=element)


class Unit(NamedTuple):
    """A translation unit, as text or as a path in the repository, with its flags."""

    name: str
    source: "str | Path"
    flags: "list[str]"

    @property
    def optimisation(self):
        sanitizers = ["sanitizers"] if SANITIZERS[-1] in self.flags else []
        return " ".join([flag for flag in self.flags if flag.startswith(("-O", "-g"))] + sanitizers)


def units():
    """The units in the order of the table. On x86-64 users' units are compiled for AVX2."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    simd = AVX2 if x86 else []
    one, both = HEADER + rotate("half_split"), HEADER + rotate("half_split") + rotate("interleaved")
    two_types = HEADER + rotate("half_split") + rotate("half_split", "rw::bf16")
    sets = {"baseline": [], "avx2": AVX2, "avx512": [*AVX2, *(f"-mavx512{x}" for x in ("f", "bw", "dq", "vl", "cd"))]}
    kernels = sets if x86 else {"neon": []}
    library = ["-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
    return [
        Unit("include ropewalk.hpp", HEADER, ["-O2", *simd]),
        Unit("make_encoding by policy", HEADER + BY_POLICY, ["-O2", *simd]),
        Unit("make_encoding by expression", HEADER + BY_EXPRESSION, ["-O2", *simd]),
        Unit("rotate, one layout", one, ["-O2", *simd]),
        Unit("rotate, one layout", one, ["-O3", *simd]),
        Unit("rotate, one layout", one, ["-O2", "-g", *simd]),
        Unit("rotate, both layouts", both, ["-O2", *simd]),
        Unit("rotate, two types", two_types, [*SANITIZERS, *simd]),
        Unit("rotate by the compiled library", COMPILED, ["-O2"]),
        *(
            Unit(path.name, path, [*library, *flags])
            for path, flags in ((ROOT / f"bindings/dispatch/kernels_{name}.cpp", kernels[name]) for name in kernels)
        ),
    ]


def text_bytes(path):
    """The code and the read-only data of an object file, by `size` of binutils."""
    listing = subprocess.run(["size", str(path)], capture_output=True, text=True, check=True).stdout
    return int(listing.splitlines()[1].split()[0])


def compile_unit(compiler, unit, folder):
    """The row of one unit. Exits with the message of the compiler where it fails."""
    source, target = unit.source, folder / "unit.o"
    if isinstance(source, str):
        source = folder / "unit.cpp"
        source.write_text(unit.source, encoding="utf-8")
    command = [compiler, "-std=c++20", *INCLUDES, *unit.flags, "-c", str(source), "-o", str(target)]
    process = subprocess.Popen(command, env={**os.environ, "CCACHE_DISABLE": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"compile_time: cannot compile '{unit.name}': {' '.join(command)}")
    return {
        "unit": unit.name,
        "optimisation": unit.optimisation,
        "flags": " ".join(unit.flags),
        "seconds": round(usage.ru_utime, 2),
        "peak_megabytes": usage.ru_maxrss // 1024,
        "text_bytes": text_bytes(target),
        "object_bytes": target.stat().st_size,
    }


def context(compiler):
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "machine": models[0] if models else platform.processor(),
        "compiler": version.splitlines()[0],
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "compile_time.json", metavar="FILE")
    options = parser.parse_args()
    try:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"cannot write {options.json}: {error.strerror}")
    rows = []
    print(f"{'unit':32s} {'optimisation':17s} {'seconds':>8s} {'peak':>8s} {'text':>10s} {'object':>10s}")
    with tempfile.TemporaryDirectory() as folder:
        for unit in units():
            row = compile_unit(options.compiler, unit, Path(folder))
            rows.append(row)
            print(
                f"{row['unit']:32s} {row['optimisation']:17s} {row['seconds']:6.1f} s {row['peak_megabytes']:5d} MB "
                f"{row['text_bytes'] / 1e3:7.1f} KB {row['object_bytes'] / 1e3:7.0f} KB",
                flush=True,
            )
    report = {"context": context(options.compiler), "rows": rows}
    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
