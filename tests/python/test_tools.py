"""The scripts for developers tell what is wrong with a command line before they run or write anything."""

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
    ("tools/lint formats", "tools/lint: there is format, tidy, python and types, got 'formats'"),
    ("tools/llvm", "tools/llvm: name a tool"),
    ("tools/stubs.py --chek", "unrecognized arguments: --chek"),
    ("benchmarks/python/plot_gpu.py no/such.json", "no/such.json: No such file or directory"),
    ("benchmarks/python/bench_peers.py --tokens x", "--tokens: takes whole numbers from 1 up, as in 1,2, got 'x'"),
    ("benchmarks/python/bench_peers.py --types f64", "--types: takes bf16,f32 or one of them, got 'f64'"),
    ("benchmarks/python/bench_threads.py --threads 0", "--threads: takes whole numbers from 1 up"),
    ("benchmarks/python/bench_training.py --tokens 0", "--tokens: takes whole numbers from 1 up"),
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
