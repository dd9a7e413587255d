"""Pages of the recorded results, and the record of benchmark runs."""

import json
import sys

import pytest
from common import ROOT

sys.path.append(str(ROOT / "benchmarks" / "python"))
import record_runs
import results_page


def test_pages_are_current():
    machines = results_page.machines()
    assert {path.stem for path in results_page.PAGES.glob("*.md")} == {machine.key for machine in machines}
    for machine in machines:
        written = (results_page.PAGES / f"{machine.key}.md").read_text(encoding="utf-8")
        assert written == results_page.page(machine), f"run make bench-plot: docs/results/{machine.key}.md is outdated"


def test_page_has_the_recorded_figures():
    result = json.loads((ROOT / "benchmarks/results/zen4_loops_avx512.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in result["benchmarks"]}
    page = (ROOT / "docs/results/zen4.md").read_text(encoding="utf-8")
    section = page.partition("### Loops of engines, AVX-512")[2]
    cells = next(line for line in section.splitlines() if line.startswith("| f32 half_split: ggml |")).split("|")
    for cell, tokens in zip(cells[2:-1], (1, 16, 128, 4096, 32768), strict=True):
        for threads, written in enumerate(cell.split("/"), 1):
            measured = rows[f"peers/f32/half_split/40x40/{tokens}/threads:{threads}"]["ratio_to_scale_ggml"]
            assert abs(float(written) - measured) <= 0.00501


def test_another_machine_has_a_page(tmp_path):
    context = {"machine": "Processor", "date": "2026-01-02T03:04:05+00:00", "instruction_set": "avx2", "runs": 2}
    names = ("rotate/f32/half_split/40x40/4096/threads:1", "rotate/bf16/interleaved/40x40/16/threads:2")
    rows = [{"name": name, "ratio_to_scale": 0.5, "ratio_to_convert": 0.75, "runs": [0.4, 0.5]} for name in names]
    path = tmp_path / "new_avx2.json"
    path.write_text(json.dumps({"context": context, "benchmarks": rows}), encoding="utf-8")
    page = results_page.page(results_page.Machine("new", [path]))
    assert page.startswith("# Results: new\n") and "| f32 half_split | 1 | - | - | - | 0.50 | - |" in page
    assert "| bf16 interleaved | 2 | - | 0.50 (0.75) | - | - | - |" in page
    assert (
        "| `new_avx2`, 2 runs | memory | 1 | 22% | 22% | 22% (`rotate/f32/half_split/40x40/4096/threads:1`) |" in page
    )


def run_of(folder, number, ratio, **changes):
    """A file as --benchmark_out writes it."""
    row = {"name": "rotate/a", "iterations": 1, "cpu_time": 1.0, "real_time": ratio, "time_unit": "us"}
    context = {"host_name": "h", "machine": "m", "date": f"day {number}", "commit": "c", **changes.pop("context", {})}
    path = folder / f"{number}.json"
    path.write_text(json.dumps({"context": context, "benchmarks": [row | {"ratio_to_scale": ratio} | changes]}))
    return record_runs.read_run(path)


def test_record_has_medians_and_every_run(tmp_path):
    context, rows = record_runs.record([run_of(tmp_path, i, ratio) for i, ratio in enumerate((0.5, 0.123456, 0.75))])
    assert context == {"machine": "m", "date": "day 2", "commit": "c", "runs": 3}
    row = {"name": "rotate/a", "real_time": 0.5, "time_unit": "us", "ratio_to_scale": 0.5}
    assert rows == [row | {"runs": [0.5, 0.1235, 0.75]}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": {"commit": "d"}}, "the runs differ in commit: c, d"),
        ({"name": "rotate/b"}, "the runs differ in 2 rows, such as rotate/a"),
        ({"error_message": "drifted"}, "rows that failed:\nrotate/a: drifted"),
    ],
)
def test_record_refuses_unlike_runs(tmp_path, changes, message):
    with pytest.raises(SystemExit, match=message):
        record_runs.record([run_of(tmp_path, 1, 0.5), run_of(tmp_path, 2, 0.5, **changes)])


def test_record_refuses_other_files(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("[1]")
    with pytest.raises(SystemExit, match="is not an output of --benchmark_out"):
        record_runs.read_run(path)
