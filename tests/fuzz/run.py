"""Runs fuzz targets with libFuzzer, one after the other, or reduces their inputs to those that the repository keeps.

`make fuzz TARGETS="key config" SECONDS=60` builds them first. New inputs go to build/fuzz/corpus/<target>, failing ones
to build/fuzz/found. The last lines give the executions of each target. The exit status is 1 if a target failed.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "fuzz" / "corpus"
TARGETS = ("config", "safetensors", "expression", "key", "c_interface")
# Longer inputs repeat what shorter ones reach.
LONGEST = {"c_interface": 600, "expression": 2048, "key": 2048}
DICTIONARIES = {"key": "expression"}
HASH_DIGITS = 40  # libFuzzer names an input by its SHA-1
EXTRA_SEEDS = {"config": [ROOT / "examples" / "configs"]}


def command(build, target):
    """The program of a target with the options of every run."""
    dictionary = ROOT / "tests" / "fuzz" / f"{DICTIONARIES.get(target, target)}.dict"
    options = [f"-max_len={LONGEST.get(target, 8192)}", "-timeout=30", "-rss_limit_mb=2048", "-entropic=0"]
    options += [f"-artifact_prefix={build / 'found' / target}.", "-print_final_stats=1"]
    if dictionary.exists():
        options.append(f"-dict={dictionary}")
    return [str(build / "tests" / f"fuzz_{target}"), *options]


def run(build, target, seconds):
    """Returns the executions of a target, and whether it failed."""
    work = build / "corpus" / target
    work.mkdir(parents=True, exist_ok=True)
    seeds = [folder for folder in (KEPT / target, *EXTRA_SEEDS.get(target, [])) if folder.exists()]
    arguments = [*command(build, target), f"-max_total_time={seconds}", str(work), *map(str, seeds)]
    log = build / f"{target}.log"
    with log.open("wb") as file:
        status = subprocess.run(arguments, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT).returncode
    text = log.read_text(encoding="utf-8", errors="replace")
    if status != 0:
        print(text[-4000:])
    executions = re.search(r"number_of_executed_units: (\d+)", text)
    return int(executions[1]) if executions else 0, status != 0


def keep(build, target, limit):
    """Replaces the kept inputs by few ones that reach the same code: at most `limit`, of all sizes."""
    everything, kept = build / "corpus" / target, KEPT / target
    merged = build / "merged" / target
    merged.mkdir(parents=True, exist_ok=True)
    for old in merged.iterdir():
        old.unlink()
    sources = [path for path in (kept, everything) if path.exists()]
    # Without counters: an input that only repeats a loop more often is not kept.
    merge = ["-set_cover_merge=1", "-use_counters=0", str(merged)]
    subprocess.run([*command(build, target), *merge, *map(str, sources)], check=True, cwd=ROOT)
    kept.mkdir(parents=True, exist_ok=True)
    for old in kept.iterdir():
        if len(old.name) == HASH_DIGITS:  # an input with a name of its own belongs to a fix
            old.unlink()
    found = sorted(merged.iterdir(), key=lambda path: (path.stat().st_size, path.name))
    chosen = found if len(found) <= limit else [found[i * len(found) // limit] for i in range(limit)]
    for path in chosen:
        (kept / path.name).write_bytes(path.read_bytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="time per target")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--keep", type=int, metavar="N", help="copy at most N reduced inputs into tests/fuzz/corpus")
    arguments = parser.parse_args()
    targets = arguments.targets or TARGETS
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"unknown targets {sorted(unknown)}, known are {', '.join(TARGETS)}")
    build = arguments.build.resolve()
    (build / "found").mkdir(parents=True, exist_ok=True)
    # The thread limit of a call follows the processors; more threads than these only take turns.
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    if arguments.keep is not None:
        for target in targets:
            keep(build, target, arguments.keep)
        return
    failed = []
    for target in targets:
        executions, failure = run(build, target, arguments.seconds)
        print(f"{target}: {executions} executions in {arguments.seconds} s{', FAILED' if failure else ''}", flush=True)
        failed += [target] if failure else []
    sys.exit(f"failed: {', '.join(failed)}; inputs in {build / 'found'}" if failed else 0)


if __name__ == "__main__":
    main()
