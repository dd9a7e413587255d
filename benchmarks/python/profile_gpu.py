"""Hardware counters of ropewalk's kernels by Nsight Compute (ncu), with the clocks as they are.

python benchmarks/python/profile_gpu.py --program build/gpu/bench_rotate --rows build/gpu/profile.json --out ncu.json

The program launches rotations of 4k and 32k tokens, appends, norms and a copy kernel, each twice; the second launch is
kept. ncu replays each kernel once per group of counters. Exits with status 77 if ncu may not read counters here.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from bench_common import check_writable, commit

SKIPPED = 77
STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
METRICS = {
    "microseconds": "gpu__time_duration.sum",
    "dram_percent": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram_read_bytes": "dram__bytes_read.sum",
    "dram_written_bytes": "dram__bytes_write.sum",
    "issue_percent": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "instructions": "smsp__inst_executed.sum",
    "occupancy_percent": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "registers_per_thread": "launch__registers_per_thread",
    "constant_stalls": STALL.format("imc_miss"),
    "memory_stalls": STALL.format("long_scoreboard"),
    "queue_stalls": STALL.format("lg_throttle"),
    "arithmetic_stalls": STALL.format("math_pipe_throttle"),
}
# ncu prints one of these where the driver or the system gives it no counters.
REFUSALS = ("ERR_NVGPUCTRPERM", "Failed to initialize the profiler", "not supported", "LibraryNotLoaded")


def run_ncu(program, rows, metrics, folder):
    """The report of ncu: lines of text and CSV."""
    log = Path(folder) / "ncu.csv"
    command = ["ncu", "--clock-control", "none", "--csv", "--page", "raw", "--print-units", "base"]
    command += ["--metrics", ",".join(metrics), "--log-file", log, program, "--profile", "--out", rows]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (log.read_text(errors="replace") if log.exists() else "") + done.stdout + done.stderr


def profile(program, rows):
    """The report of ncu on the metrics that it knows here."""
    metrics = list(METRICS.values())
    with tempfile.TemporaryDirectory() as folder:
        while True:
            report = run_ncu(program, rows, metrics, folder)
            errors = [line for line in report.splitlines() if "==ERROR==" in line]
            unknown = [name for name in metrics if any(name in line for line in errors)]
            if not unknown or len(unknown) == len(metrics):
                return report, errors
            print(f"ncu does not know {', '.join(unknown)} here")
            metrics = [name for name in metrics if name not in unknown]


def number(text):
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def kernels_of(report):
    """[{column: text}] of the kernels of ropewalk and the copy kernel, in the order of launches."""
    lines = [line for line in report.splitlines() if line.startswith('"')]
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    kernels = [row for row in csv.DictReader(lines[start:]) if (row["ID"] or "").isdecimal()]
    return [row for row in kernels if "ropewalk" in row["Kernel Name"] or "copy_kernel" in row["Kernel Name"]]


def result_of(kernel):
    """The counters of one launch. Other columns name the machine and stay out."""
    result = {"grid": kernel.get("Grid Size", ""), "block": kernel.get("Block Size", "")}
    for key, metric in METRICS.items():
        value = number(kernel.get(metric) or "")
        if value is not None:
            result[key] = float(f"{value / 1e3 if key == 'microseconds' else value:.5g}")
    return result


def join(launches, kernels):
    """Rows with counters; of equal launches the last one."""
    if len(launches) != len(kernels):
        print(f"{len(launches)} launches but {len(kernels)} kernels: the rows have names of kernels")
        launches = [{"candidate": kernel["Kernel Name"].split("(")[0]} for kernel in kernels]
    rows = {}
    for launch, kernel in zip(launches, kernels):
        rows[tuple(launch.get(key) for key in ("candidate", "type", "layout", "heads", "tokens"))] = {
            **{key: value for key, value in launch.items() if key != "error"},
            **result_of(kernel),
        }
    return list(rows.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True, help="benchmarks/cuda/bench_rotate, compiled")
    parser.add_argument("--rows", type=Path, required=True, help="file of the launches that the program writes")
    parser.add_argument("--out", type=Path, required=True, help="file of the counters")
    options = parser.parse_args()
    check_writable(parser, options.out)
    options.rows.unlink(missing_ok=True)
    report, errors = profile(options.program.resolve(), options.rows)
    kernels = kernels_of(report)
    if not kernels:
        print("\n".join(errors) or report[-2000:])
        refused = any(reason in report for reason in REFUSALS)
        print("ncu may not read counters here" if refused else "ncu reports no kernel")
        sys.exit(SKIPPED if refused else 1)
    launched = json.loads(options.rows.read_text()) if options.rows.exists() else {"context": {}, "rows": []}
    rows = join(launched["rows"], kernels)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    context = {"date": date, "commit": commit(), **launched["context"], "metrics": METRICS}
    lines = ",\n".join(json.dumps(row) for row in rows)
    options.out.write_text(f'{{"context": {json.dumps(context)},\n"rows": [\n{lines}\n]}}\n')
    print(f"{'candidate':28s}{'heads':>7s}{'tokens':>8s}{'us':>9s}{'DRAM %':>8s}{'issue %':>9s}{'constant':>10s}")
    for row in rows:
        cells = [row.get(key, float("nan")) for key in ("microseconds", "dram_percent", "issue_percent")]
        print(
            f"{row['candidate'][:28]:28s}{row.get('heads', ''):>7s}{row.get('tokens', 0):>8d}{cells[0]:9.1f}"
            f"{cells[1]:8.1f}{cells[2]:9.1f}{row.get('constant_stalls', float('nan')):10.2f}"
        )
    print(f"{len(rows)} rows in {options.out}")


if __name__ == "__main__":
    main()
