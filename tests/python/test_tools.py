"""The scripts for developers tell what is wrong with a command line before they run or write anything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script, *arguments):
    program = [sys.executable] if script.endswith(".py") else []
    return subprocess.run(
        [*program, str(ROOT / script), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


REFUSED = [
    ("tools/gpu_check.sh --minutes", "gpu_check: --minutes needs a value"),
    ("tools/gpu_check.sh --minutes x", "gpu_check: --minutes takes a whole number, got 'x'"),
    ("tools/gpu_check.sh --minute 9", "gpu_check: unknown option '--minute'"),
    ("tools/gpu_check.sh --compile --arch sm_90", "gpu_check: --arch takes a number as in 90, got 'sm_90'"),
    ("tools/lint formats", "tools/lint: expected format, tidy, python or types, got 'formats'"),
    ("tools/llvm", "tools/llvm: name a tool"),
    ("tools/stubs.py --chek", "unrecognized arguments: --chek"),
    ("benchmarks/python/plot_gpu.py no/such.json", "no/such.json: No such file or directory"),
    ("benchmarks/python/bench_peers.py --tokens x", "--tokens: expected positive whole numbers like 1,2, got 'x'"),
    ("benchmarks/python/bench_peers.py --types f64", "--types: expected bf16,f32 or a part of it, got 'f64'"),
    ("benchmarks/python/bench_threads.py --threads 0", "--threads: expected positive whole numbers"),
    ("benchmarks/python/bench_training.py --tokens 0", "--tokens: expected positive whole numbers"),
    ("benchmarks/python/bench_threads.py --out /dev/null/x", "cannot write /dev/null/x"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_what_is_refused(words, message):
    if "benchmarks" in words:
        pytest.importorskip("torch")
        pytest.importorskip("matplotlib")
    done = run(*words.split())
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["tools/gpu_check.sh", "tools/lint", "tools/stubs.py"])
def test_help(script):
    done = run(script, "--help")
    assert done.returncode == 0 and done.stdout and done.stderr == ""


# What tools/setup calls, on a machine with the packages that are `installed`, whose apt knows of those in `known`.
PRETENDED = {
    "dpkg-query": 'shift 3; for name; do if grep -qx "$name" installed; then echo "ii $name"; fi; done',
    "apt-cache": 'grep -qx "$2" known',
    "apt-get": 'if [ "$1" = update ]; then touch known; else shift 4; echo "$@" >asked; fi',
    "id": "echo 0",
    "python3": 'if [ "$2" = venv ]; then mkdir -p .venv/bin; ln -s ../../bin/python3 .venv/bin/python; fi',
}


def set_up(folder, installed, known):
    """What apt is asked for; nothing where it is not called."""
    for name in ("setup", "llvm", "requirements.txt"):
        (folder / "tools").mkdir(exist_ok=True)
        shutil.copy(ROOT / "tools" / name, folder / "tools")
    (folder / "bin").mkdir()
    for name, script in PRETENDED.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "installed").write_text("\n".join(installed))
    (folder / "known").write_text("\n".join(known))
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    command = [str(folder / "tools" / "setup")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0 and done.stdout.endswith("setup: ready\n"), done.stdout + done.stderr
    asked = folder / "asked"
    return asked.read_text().split() if asked.exists() else []


@pytest.mark.parametrize("version", ["16", "17", "19"])
def test_setup_takes_the_llvm_that_the_system_has(version, tmp_path):
    asked = set_up(tmp_path, ["g++"], [f"clang-format-{version}", "clang-format-20"])
    theirs = {f"clang-{version}", f"clang-format-{version}", f"clang-tidy-{version}"}
    assert {name for name in asked if name.startswith("clang")} == theirs
    assert {f"libomp-{version}-dev", f"libclang-rt-{version}-dev", "cmake"} <= set(asked) and "g++" not in asked


def test_setup_asks_for_nothing_where_nothing_is_missing(tmp_path):
    asked = set_up(tmp_path, [], ["clang-format-16"])
    (tmp_path / "again").mkdir()
    there = [name.replace("-16", "-18") for name in asked]
    assert set_up(tmp_path / "again", there, ["clang-format-16"]) == []
