"""The benchmark of GPU peers goes through all of its steps on the CPU, and its plot takes what it writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "python"
sys.path.append(str(SCRIPTS))
KEYS = {
    "candidate",
    "type",
    "layout",
    "heads",
    "tokens",
    "microseconds",
    "terabytes_per_second",
    "ratio_to_copy",
    "error",
}


def run(script, *arguments):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


def made_up_row(candidate, tokens, rate, **rest):
    row = {"candidate": candidate, "type": "bf16", "layout": "half_split", "heads": "40/40", "tokens": tokens}
    return {**row, "in_place": True, "microseconds": 1.0, "terabytes_per_second": rate, "error": 0.001, **rest}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What a dry run writes beside rows of the C++ benchmark."""
    folder = tmp_path_factory.mktemp("gpu")
    names = ["device copy", "ropewalk, in place", "ropewalk, out of place", "append", *(f"peer {i}" for i in range(9))]
    rows = [made_up_row(name, n, 3 - i / 5, ratio_to_copy=0.9) for i, name in enumerate(names) for n in (4096, 32768)]
    (folder / "cuda.json").write_text(json.dumps({"context": {"device": "made up"}, "rows": rows}))
    out = folder / "result.json"
    done = run("bench_gpu.py", "--dry-run", "--cuda-rows", folder / "cuda.json", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def test_rows_of_both_benchmarks_are_joined(result):
    path, _ = result
    made = json.loads(path.read_text())
    assert made["context"]["device"] == "made up"
    assert {"date", "commit", "driver", "torch"} <= made["context"].keys()
    assert all(row.keys() >= KEYS for row in made["rows"])
    names = {row["candidate"] for row in made["rows"]}
    assert {"append", "device copy, PyTorch", "ropewalk, Python, in place", "ropewalk, Python, out of place"} <= names


def test_errors_are_those_of_the_type(result):
    path, _ = result
    for row in json.loads(path.read_text())["rows"]:
        if row["candidate"].startswith("ropewalk, Python"):
            assert 0 < row["error"] < {"f32": 4e-7, "bf16": 2**-7}[row["type"]]


def test_a_table_is_printed_and_what_is_missing_is_told(result):
    path, printed = result
    assert "f32, interleaved, 4/4 heads: microseconds (ratio to the device copy)" in printed
    for name, why in json.loads(path.read_text())["context"]["not_measured"].items():
        assert f"not measured: {name}: {why}" in printed


def test_without_a_device_only_the_rows_from_elsewhere_are_kept(result, tmp_path):
    path, _ = result
    out = tmp_path / "kept.json"
    done = run("bench_gpu.py", "--cuda-rows", path.parent / "cuda.json", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PyTorch finds no device" in done.stdout
    assert len(json.loads(out.read_text())["rows"]) == len(json.loads((path.parent / "cuda.json").read_text())["rows"])


def test_no_rows_are_no_result(tmp_path):
    out = tmp_path / "none.json"
    done = run("bench_gpu.py", "--cuda-rows", tmp_path / "missing.json", "--out", out)
    assert done.returncode != 0
    assert "no rows" in done.stderr
    assert not out.exists()


NO_RESULT = [
    ("{", "is not valid JSON"),
    ("[1]", "has no context and rows"),
    ('{"context": {}, "rows": [1]}', "row 0 lacks a valid candidate, type, layout"),
    (json.dumps({"context": {}, "rows": [made_up_row("a", "4096", 1.0, ratio_to_copy=1.0)]}), "lacks a valid tokens"),
]


@pytest.mark.parametrize(("text", "message"), NO_RESULT)
@pytest.mark.parametrize("command", [["plot_gpu.py"], ["bench_gpu.py", "--cuda-rows"]])
def test_a_broken_file_is_refused(command, text, message, tmp_path):
    broken, out = tmp_path / "broken.json", tmp_path / "out.png"
    broken.write_text(text)
    done = run(*command, broken, "--out", out)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{broken}" in done.stderr and message in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(("name", "begin"), [("gpu.png", b"\x89PNG"), ("gpu.svg", b"<?xml")])
def test_plot(result, tmp_path, name, begin):
    pytest.importorskip("matplotlib")
    done = run("plot_gpu.py", result[0], "--out", tmp_path / name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / name).read_bytes().startswith(begin)


@pytest.mark.parametrize("name", ["gpu.xyz", "gpu"])
def test_what_is_no_picture_is_refused(result, tmp_path, name):
    pytest.importorskip("matplotlib")
    done = run("plot_gpu.py", result[0], "--out", tmp_path / name)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"expected a file name ending in .png or .svg, got '{tmp_path / name}'" in done.stderr


def test_a_candidate_which_leaves_no_numbers_is_wrong():
    import torch
    from bench_gpu import TOLERANCE, Buffers, candidates_of

    data = Buffers("f32", (2, 1), 3, "cpu")
    next(one for one in candidates_of(data, "half_split", False, {}) if one.name.startswith("ropewalk")).run(0)
    q, k = data.inputs(0)
    assert data.error(q, k, "half_split") <= TOLERANCE["f32"]
    k[1] = torch.nan
    assert not data.error(q, k, "half_split") <= TOLERANCE["f32"]


@pytest.mark.parametrize("turned", [(0, 1), (0,), (1,)])
def test_a_peer_on_the_cpu_must_turn_queries_and_keys(turned):
    from bench_peers import TOLERANCE, Case, rw

    case = Case("f32", 3)
    encoding = rw.encoding("default", head_dim=128, layout="half_split")

    def run():
        for one in turned:
            rw.rotate_(case.both[one], encoding=encoding, offset=1000)

    assert (case.error(run, "half_split") <= TOLERANCE["f32"]) == (turned == (0, 1))


def test_plot_of_nothing_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "empty.json").write_text('{"context": {}, "rows": []}')
    done = run("plot_gpu.py", tmp_path / "empty.json")
    assert done.returncode != 0
    assert "no rows of bf16 half_split" in done.stderr
