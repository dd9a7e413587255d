"""Scripts for developers: they check the command line first, and setup requests only missing packages."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from checks import run

ROOT = Path(__file__).parents[2]


def run_script(script, *arguments):
    program = [sys.executable] if script.endswith(".py") else []
    return run(*program, ROOT / script, *arguments)


REFUSED = [
    ("tools/gpu_check.sh --minutes", "gpu_check: --minutes needs a value"),
    ("tools/gpu_check.sh --minutes x", "gpu_check: --minutes takes a whole number, got 'x'"),
    ("tools/gpu_check.sh --minute 9", "gpu_check: unknown option '--minute'"),
    ("tools/gpu_check.sh --compile --arch sm_90", "gpu_check: --arch takes a number as in 90, got 'sm_90'"),
    ("tools/lint formats", "tools/lint: expected format, tidy, python or types, got 'formats'"),
    ("tools/llvm", "tools/llvm: name a tool"),
    ("tools/setup demonstration", "tools/setup: expected demo, test or docs, got 'demonstration'"),
    ("tools/stubs.py --chek", "unrecognized arguments: --chek"),
    ("benchmarks/python/plot_gpu.py no/such.json", "no/such.json: No such file or directory"),
    ("benchmarks/python/bench_peers.py --tokens x", "--tokens: expected positive whole numbers like 1,2, got 'x'"),
    ("benchmarks/python/bench_peers.py --types f64", "--types: expected bf16,f32 or a part of it, got 'f64'"),
    ("benchmarks/python/bench_threads.py --threads 0", "--threads: expected positive whole numbers"),
    ("benchmarks/python/bench_training.py --tokens 0", "--tokens: expected positive whole numbers"),
    ("benchmarks/python/bench_threads.py --out /dev/null/x", "cannot write /dev/null/x"),
    ("benchmarks/llama/bench_engines.py --gguf no.gguf --weights no", "no.gguf is missing"),
    ("benchmarks/llama/conversation.py --weights no --turns 512 --tokens 1024", "1024 tokens are not turns of [512]"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_refused_command_lines(words, message):
    if "benchmarks" in words:
        pytest.importorskip("torch")
        pytest.importorskip("matplotlib")
    done = run_script(*words.split())
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["tools/gpu_check.sh", "tools/lint", "tools/setup", "tools/stubs.py"])
def test_help(script):
    done = run_script(script, "--help")
    assert done.returncode == 0 and done.stdout and done.stderr == ""


# Programs that tools/setup calls. The file `installed` lists the installed packages, `known` those that apt offers.
STAND_INS = {
    "dpkg-query": 'shift 3; for name; do if grep -qx "$name" installed; then echo "ii $name"; fi; done',
    "apt-cache": 'grep -qx "$2" known',
    "apt-get": 'if [ "$1" = update ]; then touch known; else shift 4; echo "$@" >requested; fi',
    "id": "echo 0",
    # As .venv/bin/python it gets the lists of requirements after `-`, and the names of missing ones after `install`.
    "python3": """case "$2" in
venv) mkdir -p .venv/bin; ln -s ../../bin/python3 .venv/bin/python ;;
-c) exit 1 ;;
pip) echo "$@" >pip_requested ;;
*) if [ "$1" = - ]; then shift; cat "$@" | grep -v "^#"; fi ;;
esac""",
}


def set_up(folder, installed, known, *purpose):
    """The packages that setup requests from apt; an empty list if it does not call apt."""
    shutil.copytree(ROOT / "tools", folder / "tools", dirs_exist_ok=True)
    (folder / "bin").mkdir()
    for name, script in STAND_INS.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "installed").write_text("\n".join(installed))
    (folder / "known").write_text("\n".join(known))
    done = run(folder / "tools" / "setup", *purpose, PATH=f"{folder / 'bin'}:{os.environ['PATH']}")
    assert done.returncode == 0 and done.stdout.endswith("setup: ready\n"), done.stdout + done.stderr
    requested = folder / "requested"
    return requested.read_text().split() if requested.exists() else []


@pytest.mark.parametrize("version", ["16", "17", "19"])
def test_setup_requests_the_llvm_of_the_system(version, tmp_path):
    requested = set_up(tmp_path, ["g++"], [f"clang-format-{version}", "clang-format-20"])
    llvm = {f"clang-{version}", f"clang-format-{version}", f"clang-tidy-{version}"}
    assert {name for name in requested if name.startswith("clang")} == llvm
    assert {f"libomp-{version}-dev", f"libclang-rt-{version}-dev", "cmake"} <= set(requested) and "g++" not in requested


def test_setup_requests_nothing_if_all_packages_are_installed(tmp_path):
    requested = set_up(tmp_path, [], ["clang-format-16"])
    (tmp_path / "again").mkdir()
    installed = [name.replace("-16", "-18") for name in requested]
    assert set_up(tmp_path / "again", installed, ["clang-format-16"]) == []


def test_setup_of_the_demonstration_requests_no_tool_of_the_tests(tmp_path):
    requested = set_up(tmp_path, [], ["clang-format-16"], "demo")
    assert {"g++", "cmake", "libxsimd-dev"} <= set(requested)
    assert not [name for name in requested if re.search("clang|omp|catch2|benchmark|ccache|doxygen", name)]
    python = (tmp_path / "pip_requested").read_text().split()
    assert {"numpy", "pybind11"} <= set(python) and not {"pytest", "transformers", "ruff", "sphinx"} & set(python)
    assert not [name for name in python if name.startswith("torch")]
