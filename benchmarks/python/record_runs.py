"""Recorded result of one or several runs of a CPU benchmark: medians over the runs, one row per line.

python benchmarks/python/record_runs.py benchmarks/results/<machine>_<what>.json build/run1.json build/run2.json …

The inputs are files that --benchmark_out wrote: bench_rotate, bench_decode or bench_peers. Runs must be of one machine,
instruction set, profile, compiler and commit. With several runs a row also has `runs`, the ratios of each one.
"""

import argparse
import json
import statistics
from pathlib import Path

from bench_common import check_writable

# Properties of Google Benchmark's rows that are no measurement.
OMITTED = {
    "cpu_time",
    "family_index",
    "iterations",
    "per_family_instance_index",
    "repetition_index",
    "repetitions",
    "run_name",
    "run_type",
    "threads",
}
SAME = ("machine", "instruction_set", "tuning_profile", "compiler", "commit", "ggml")
# The ratio that a run is judged by: the first that a row has.
RATIOS = ("ratio_to_scale", "ratio_to_hand", "ratio_to_store")


def rounded(value):
    return float(f"{value:.4g}") if isinstance(value, float) else value


def read_run(path):
    """The context and {name: row} of a run."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        rows = {row["name"]: row for row in result["benchmarks"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} is not an output of --benchmark_out: {error}") from error
    failed = [f"{name}: {row['error_message']}" for name, row in rows.items() if "error_message" in row]
    if failed:
        raise SystemExit(f"{path} has rows that failed:\n" + "\n".join(failed))
    return result["context"], rows


def merge(rows):
    """One row for the rows of the same name."""
    merged = {key: value for key, value in rows[0].items() if key not in OMITTED}
    for key, value in merged.items():
        if isinstance(value, (int, float)):
            merged[key] = rounded(statistics.median(float(row[key]) for row in rows))
    ratio = next((name for name in RATIOS if name in merged), None)
    if ratio and len(rows) > 1:
        merged["runs"] = [rounded(row[ratio]) for row in rows]
    return merged


def record(runs):
    """The context and the rows of the recorded result."""
    contexts, all_rows = zip(*runs)
    for key in SAME:
        values = {str(context.get(key)) for context in contexts}
        if len(values) > 1:
            raise SystemExit(f"the runs differ in {key}: {', '.join(sorted(values))}")
    names = list(all_rows[0])
    for rows in all_rows:
        if set(rows) != set(names):
            different = sorted(set(rows) ^ set(names))
            raise SystemExit(f"the runs differ in {len(different)} rows, such as {different[0]}")
    context = {key: value for key, value in contexts[-1].items() if key not in ("host_name", "executable")}
    context["runs"] = len(runs)
    return context, [merge([rows[name] for rows in all_rows]) for name in names]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    check_writable(parser, options.out)
    context, rows = record([read_run(path) for path in options.runs])
    lines = ",\n".join(json.dumps(row) for row in rows)
    options.out.write_text(f'{{"context": {json.dumps(context)},\n"benchmarks": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"written to {options.out}: {len(rows)} rows, medians of {len(options.runs)} run(s)")


if __name__ == "__main__":
    main()
