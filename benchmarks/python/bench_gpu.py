"""GPU benchmark of ropewalk and of other rotary implementations for PyTorch.

python benchmarks/python/bench_gpu.py [--quick] [--seconds 240] [--cuda-rows build/gpu/cuda.json] [--out result.json]

Rotates queries and keys of Llama-2-13B (40 + 40 heads of 128) and of models with 32 + 8 heads. Every candidate is first
checked against float64. Then graphs of calls on several buffer sets are replayed between two events, alternating
between all candidates and a device copy of as many bytes. The rows hold the medians. The L2 cache holds none of the
sets, unless calls are so short that 64 of them fit. The tables of the peers are precomputed in float64, rounded to the
type that each peer reads, and not timed; ropewalk computes its angles in every call. A candidate that cannot be
captured in a graph is timed call by call, and its row says so. Rows of the C++ benchmark are added. `--dry-run` runs
all steps on the CPU; its times are meaningless.
"""

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path

from bench_common import HALF, INTERLEAVED, check_writable, commit, installed, read_result, without_folders

try:
    import torch
    from gpu_candidates import Buffers, Candidate, candidates_of
except ImportError:  # the rows of the C++ benchmark are still written
    torch = None

# Relative to the norm of a pair. Most peers read a table in the element type, whose error is twice that of a rounding.
TOLERANCE = {"f32": 1e-2, "f16": 1e-2, "bf16": 4e-2}
PACKAGES = ("torch", "triton", "transformers", "liger-kernel", "flash-attn", "flashinfer-python", "vllm")
REPEATS, SAMPLE_MICROSECONDS = 25, 200.0


def check(candidate, data):
    """The error of a candidate on the first set."""
    data.fill()
    result = candidate.run(0)
    error = data.error(*(data.inputs(0) if result is None else result), candidate.layout)
    data.fill()
    return error


class Replay:
    """Calls on successive buffer sets: replayed from a graph if a graph can capture them, otherwise repeated."""

    def __init__(self, run, data):
        self.run, self.sets, self.calls, self.graph = run, data.sets, data.sets, None
        self.device = data.device
        for number in range(min(3, self.sets)):
            run(number)
        if self.device == "cuda":
            torch.cuda.synchronize()
            self.record()
            once = max(self.microseconds(), 0.1)
            if once < SAMPLE_MICROSECONDS and self.graph is not None:
                self.calls = self.sets * (1 + int(min(500 / self.sets, SAMPLE_MICROSECONDS / once)))
                self.record()

    def record(self):
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.call_all()
            self.graph = graph
        except Exception as problem:  # peers raise any type
            self.graph = None
            torch.cuda.synchronize()
            print(f"no graph: {type(problem).__name__}: {problem}".splitlines()[0])

    def call_all(self):
        for call in range(self.calls):
            self.run(call % self.sets)

    def microseconds(self):
        """The time of one replay."""
        replay = self.call_all if self.graph is None else self.graph.replay
        if self.device == "cpu":
            start = time.perf_counter()
            replay()
            return (time.perf_counter() - start) * 1e6
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e3


def time_candidates(data, candidates, repeats):
    """{name: (median microseconds per call, True if from a graph)} of interleaved candidates and the copy."""

    def copy(number):
        data.flat_out[number].copy_(data.flat_in[number])

    replays = {}
    for name, run in [("device copy", copy)] + [(candidate.name, candidate.run) for candidate in candidates]:
        try:
            replays[name] = Replay(run, data)
        except RuntimeError as problem:
            print(f"not measured: {name}: {problem}".splitlines()[0])
    samples = defaultdict(list)
    for _ in range(repeats):
        for name, replay in replays.items():
            samples[name].append(replay.microseconds() / replay.calls)
    return {name: (statistics.median(values), replays[name].graph is not None) for name, values in samples.items()}


def measure(kind, heads, tokens, options, missing):
    """The rows of one workload in every layout."""
    rows = []
    data = Buffers(kind, heads, tokens, options.device)
    for layout in (HALF, INTERLEAVED):
        correct, errors = [], {}
        for candidate in candidates_of(data, layout, options.compile, missing):
            try:
                errors[candidate.name] = check(candidate, data)
            except Exception as problem:  # a failing peer must not stop the other measurements
                missing.setdefault(candidate.name, reason(problem))
                print(f"not measured: {candidate.name}: {missing[candidate.name]}")
                continue
            error = errors[candidate.name]
            if error <= TOLERANCE[kind]:
                correct.append(candidate)
            else:
                print(f"not timed: {candidate.name}, {kind} {layout}, {tokens} tokens: error {error:.1e}")
        times = time_candidates(data, correct, options.repeats)
        copied = times["device copy"][0]
        for candidate in [Candidate("device copy, PyTorch", layout, None, False), *correct]:
            untimed = times["device copy"] if candidate.run is None else (None, None)
            microseconds, graph = times.get(candidate.name, untimed)
            if microseconds is None:
                continue
            row = {
                "candidate": candidate.name,
                "type": kind,
                "layout": layout,
                "heads": f"{heads[0]}/{heads[1]}",
                "tokens": tokens,
                "in_place": candidate.in_place,
                "microseconds": microseconds,
                "terabytes_per_second": 2 * data.bytes / microseconds * 1e-6,
                "ratio_to_copy": copied / microseconds,
                "error": errors.get(candidate.name, 0.0),
            }
            if not graph:
                row["timed"] = "call by call"
            rows.append(row)
            print_row(row)
        torch.cuda.empty_cache()
    return rows


def reason(problem):
    """The first line of an exception."""
    return without_folders(f"{type(problem).__name__}: {problem}".splitlines()[0])


def print_row(row):
    print(
        f"{row['candidate']:37s}{row['type']:>5s} {row['layout']:12s}{row['heads']:>6s}{row['tokens']:>7d}"
        f"{row['microseconds']:10.2f}{row['terabytes_per_second']:8.3f}{row['ratio_to_copy']:8.3f}{row['error']:10.1e}"
    )


def print_table(rows):
    """Prints the microseconds per type, layout and heads: one column per length, the fastest candidate first."""
    groups = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        groups[row["type"], row["layout"], row["heads"]][row["candidate"]][row["tokens"]] = row
    for (kind, layout, heads), by_name in groups.items():
        tokens = sorted({n for columns in by_name.values() for n in columns})
        print(f"\n{kind}, {layout}, {heads} heads: microseconds (ratio to the device copy)")
        print(f"{'':38s}" + "".join(f"{n:>17d}" for n in tokens))
        for name, columns in sorted(
            by_name.items(), key=lambda item: -max(r["ratio_to_copy"] for r in item[1].values())
        ):
            cells = (
                f"{columns[n]['microseconds']:10.1f} ({columns[n]['ratio_to_copy']:.2f})" if n in columns else ""
                for n in tokens
            )
            print(f"{name:38s}" + "".join(f"{cell:>17s}" for cell in cells))


def problems(quick):
    """(type, heads, tokens), the most important first, because the time is limited."""
    long = (4096, 32768) if quick else (4096, 8192, 16384, 32768)
    models = ((40, 40), (32, 8))
    yield from (("bf16", heads, n) for heads in models for n in long)
    yield from (("bf16", heads, n) for heads in models for n in ((1, 64) if quick else (1, 4, 16, 64)))
    yield from ((kind, heads, n) for kind in ("f16", "f32") for heads in models for n in long)


def driver():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def context():
    result = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "driver": driver(),
        "python": platform.python_version(),
        **{package: installed(package) for package in PACKAGES},
    }
    if torch is not None and torch.cuda.is_available():
        result["device"] = torch.cuda.get_device_name(0)
        result["torch_cuda"] = torch.version.cuda
    return result


def save(path, rows, missing, cuda):
    """Writes the rows of C++ and Python to one file."""
    head = {**context(), **cuda["context"], "not_measured": missing}
    rows = [*cuda["rows"], *rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps({k: short(v) for k, v in row.items()}) for row in rows)
    # Replaced at once, so that a killed run leaves whole rows.
    regular = not path.exists() or path.is_file()
    part = path.with_name(path.name + ".part") if regular else path
    part.write_text(f'{{"context": {json.dumps(head)},\n"rows": [\n{lines}\n]}}\n')
    if regular:
        part.replace(path)


def short(value):
    return float(f"{value:.4g}") if isinstance(value, float) else value


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="measure only the shortest and the longest sizes")
    parser.add_argument("--seconds", type=float, default=240, help="start no workload after this time")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="skip torch.compile")
    parser.add_argument("--cuda-rows", type=Path, help="result file of benchmarks/cuda/bench_rotate")
    parser.add_argument("--out", type=Path, default=Path("build/gpu/peers.json"))
    parser.add_argument("--dry-run", action="store_true", help="run all steps on the CPU with a few tokens")
    options = parser.parse_args()
    check_writable(parser, options.out)
    options.cuda = {"context": {}, "rows": []}
    if options.cuda_rows and options.cuda_rows.is_file():
        options.cuda = read_result(parser, options.cuda_rows)
    elif options.cuda_rows:  # the C++ benchmark may have failed; the peers are still measured
        print(f"{options.cuda_rows} does not exist: no rows of the C++ benchmark")
    options.device = "cpu" if options.dry_run else "cuda"
    options.repeats = 2 if options.dry_run else 9 if options.quick else REPEATS
    options.compile = options.compile and not options.dry_run
    return options


def main():
    options = arguments()
    start = time.monotonic()
    cuda, rows, missing, skipped = options.cuda, [], {}, 0
    can_measure = torch is not None and (options.dry_run or torch.cuda.is_available())
    if not can_measure:
        print("PyTorch finds no device: keeping only the rows of the C++ benchmark")
    workloads = [("bf16", (4, 2), 3), ("f32", (4, 4), 3)] if options.dry_run else list(problems(options.quick))
    for kind, heads, tokens in workloads if can_measure else []:
        if time.monotonic() - start > options.seconds:
            skipped += 1
            continue
        rows += measure(kind, heads, tokens, options, missing)
        # Saved after each workload, so that a timeout loses no rows.
        save(options.out, rows, missing, cuda)
    if skipped:
        print(f"{skipped} of {len(workloads)} workloads were skipped: the time is up")
    if not rows and not cuda["rows"]:
        raise SystemExit("bench_gpu: no rows, no file written")
    save(options.out, rows, missing, cuda)
    print_table([*cuda["rows"], *rows])
    print(f"\n{len(cuda['rows'])} + {len(rows)} rows in {options.out}")


if __name__ == "__main__":
    main()
