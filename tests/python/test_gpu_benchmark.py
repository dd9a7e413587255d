"""Benchmark of GPU peers: a dry run of all steps on the CPU, and plots of its results."""

import json
import sys
from pathlib import Path

import checks
import pytest

pytest.importorskip("torch")

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "python"
sys.path.append(str(SCRIPTS))
KEYS = {"candidate", "type", "layout", "heads", "tokens"}
KEYS |= {"microseconds", "terabytes_per_second", "ratio_to_copy", "error"}


def run(script, *arguments):
    return checks.run(sys.executable, SCRIPTS / script, *arguments, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")


def run_well(script, *arguments):
    done = run(script, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def example_row(candidate, tokens, rate, **rest):
    row = {"candidate": candidate, "type": "bf16", "layout": "half_split", "heads": "40/40", "tokens": tokens}
    return {**row, "in_place": True, "microseconds": 1.0, "terabytes_per_second": rate, "error": 0.001, **rest}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Path and output of a dry run that adds rows to those of the C++ benchmark."""
    folder = tmp_path_factory.mktemp("gpu")
    names = ["device copy", "ropewalk, in place", "ropewalk, out of place", "append", *(f"peer {i}" for i in range(9))]
    rows = [example_row(name, n, 3 - i / 5, ratio_to_copy=0.9) for i, name in enumerate(names) for n in (4096, 32768)]
    (folder / "cuda.json").write_text(json.dumps({"context": {"device": "example"}, "rows": rows}))
    out = folder / "result.json"
    return out, run_well("bench_gpu.py", "--dry-run", "--cuda-rows", folder / "cuda.json", "--out", out)


def test_rows_of_both_benchmarks_are_joined(result):
    path, _ = result
    joined = json.loads(path.read_text())
    assert joined["context"]["device"] == "example"
    assert {"date", "commit", "driver", "torch"} <= joined["context"].keys()
    assert all(row.keys() >= KEYS for row in joined["rows"])
    names = {row["candidate"] for row in joined["rows"]}
    assert {"append", "device copy, PyTorch", "ropewalk, Python, in place", "ropewalk, Python, out of place"} <= names


def test_errors_are_small_for_the_type(result):
    path, _ = result
    for row in json.loads(path.read_text())["rows"]:
        if row["candidate"].startswith("ropewalk, Python"):
            assert 0 < row["error"] < {"f32": 4e-7, "bf16": 2**-7}[row["type"]]


def test_the_output_has_a_table_and_the_candidates_not_measured(result):
    path, printed = result
    assert "f32, interleaved, 4/4 heads: microseconds (ratio to the device copy)" in printed
    for name, why in json.loads(path.read_text())["context"]["not_measured"].items():
        assert f"not measured: {name}: {why}" in printed


def test_without_a_device_only_rows_of_the_file_are_kept(result, tmp_path):
    path, _ = result
    out = tmp_path / "kept.json"
    assert "PyTorch finds no device" in run_well("bench_gpu.py", "--cuda-rows", path.parent / "cuda.json", "--out", out)
    assert len(json.loads(out.read_text())["rows"]) == len(json.loads((path.parent / "cuda.json").read_text())["rows"])


def test_a_run_without_rows_fails(tmp_path):
    out = tmp_path / "none.json"
    done = run("bench_gpu.py", "--cuda-rows", tmp_path / "missing.json", "--out", out)
    assert done.returncode != 0
    assert "no rows" in done.stderr
    assert not out.exists()


BROKEN = [
    ("{", "is not valid JSON"),
    ("[1]", "has no context and rows"),
    ('{"context": {}, "rows": [1]}', "row 0 lacks a valid candidate, type, layout"),
    (json.dumps({"context": {}, "rows": [example_row("a", "4096", 1.0, ratio_to_copy=1.0)]}), "lacks a valid tokens"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
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
    run_well("plot_gpu.py", result[0], "--out", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begin)


def test_plot_of_a_sweep(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        example_row(name, tokens, 2.0, ratio_to_copy=0.9, **({"heads_per_thread": heads} if heads else {}))
        for name in ("device copy", "append", "ropewalk, in place")
        for tokens in (4096, 32768)
        for heads in (0, 1, 2)
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"context": {"device": "example"}, "rows": rows}))
    run_well("plot_gpu.py", tmp_path / "sweep.json")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_folders_are_removed_from_reasons():
    from bench_common import without_folders

    assert without_folders("OSError: /opt/lib/x.so: undefined, in '/home/me/y.py', a/b, 1/2") == (
        "OSError: x.so: undefined, in 'y.py', a/b, 1/2"
    )


@pytest.mark.parametrize("name", ["gpu.xyz", "gpu"])
def test_other_file_types_are_refused(result, tmp_path, name):
    pytest.importorskip("matplotlib")
    done = run("plot_gpu.py", result[0], "--out", tmp_path / name)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"expected a file name ending in .png or .svg, got '{tmp_path / name}'" in done.stderr


def test_nan_results_have_a_large_error():
    import torch
    from bench_gpu import TOLERANCE, Buffers, candidates_of

    data = Buffers("f32", (2, 1), 3, "cpu")
    next(c for c in candidates_of(data, "half_split", False, {}) if c.name.startswith("ropewalk")).run(0)
    q, k = data.inputs(0)
    assert data.error(q, k, "half_split") <= TOLERANCE["f32"]
    k[1] = torch.nan
    assert not data.error(q, k, "half_split") <= TOLERANCE["f32"]


@pytest.mark.parametrize("rotated", [(0, 1), (0,), (1,)])
def test_a_peer_on_the_cpu_must_rotate_queries_and_keys(rotated):
    from bench_peers import TOLERANCE, Case, rw

    case = Case("f32", 3)
    encoding = rw.encoding("default", head_dim=128, layout="half_split")

    def run():
        for index in rotated:
            rw.rotate_(case.both[index], encoding=encoding, offset=1000)

    assert (case.error(run, "half_split") <= TOLERANCE["f32"]) == (rotated == (0, 1))


def test_a_plot_needs_rows(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "empty.json").write_text('{"context": {}, "rows": []}')
    done = run("plot_gpu.py", tmp_path / "empty.json")
    assert done.returncode != 0
    assert "no rows of bf16 half_split" in done.stderr
