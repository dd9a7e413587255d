"""Comparison of the tables in README.md, docs/performance.md and docs/robustness.md with the recorded results."""

import json
import re
from pathlib import Path

import pytest
from common import ROOT

RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "performance.md", ROOT / "docs" / "robustness.md")
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in DOCUMENTS}
# The name of a candidate in the tables, and in the results.
CANDIDATES = {
    "Hugging Face, eager": "Hugging Face, eager",
    "Hugging Face under torch.compile, written back": "torch.compile, written back",
    "complex product, in place, interleaved": "complex product, in place",
    "**ropewalk**, half_split, in place": "ropewalk, half_split",
    "**ropewalk**, interleaved, in place": "ropewalk, interleaved",
}


def load(name):
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def tables(text):
    """Each table as a list of lines, the heading first; a line is a list of cells."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()] for table in found]


def differs(written, measured):
    """True if a written number is not the measured one, rounded to the same digits."""
    if "e" in written:
        return float(written) != float(f"{measured:.1e}")
    digits = len(written.partition(".")[2])
    return abs(float(written) - measured) > 0.5000001 * 10**-digits


def peer_figures(text):
    """(row, written number, measured number) of the table with the ratios of one and two threads per cell."""
    rows = load("zen4_peers.json")["rows"]
    measured = {(r["candidate"], r["type"], r["tokens"], r["threads"]): r["ratio_to_scale"] for r in rows}
    for heading, _, *lines in tables(text):
        for name, *cells in lines:
            type_name, _, candidate = name.partition(": ")
            for title, cell in zip(heading[1:], cells) if candidate in CANDIDATES else []:
                for threads, written in enumerate(cell.split(" / "), 1):
                    key = (CANDIDATES[candidate], type_name, int(title.split()[0]), threads)
                    yield key, written, measured[key]


def exactness_figures(text):
    """The same for the largest errors by position."""
    results = load("exactness.json")
    for heading, _, *lines in tables(text):
        for limit, *cells in lines if heading[0] == "positions below" else []:
            i = results["positions_below"].index(2**31 if limit == "2^31" else int(limit.replace(",", "")))
            for (name, errors), cell in zip(results["errors"].items(), cells):
                yield (limit, name), cell, errors[i]


def compile_figures(text):
    """The same for seconds, memory and code."""
    measured = {(row["unit"], row["optimisation"]): row for row in load("zen4_compile_time.json")["rows"]}
    for heading, _, *lines in tables(text):
        for unit, optimisation, *cells in lines if heading[1] == "optimisation" else []:
            row = measured[unit, optimisation.strip("`")]
            found = (row["seconds"], row["peak_megabytes"], row["text_bytes"] / 1000)
            for cell, value in zip(cells, found):
                yield (unit, optimisation), cell, value


def attack_figures(text):
    """The counts of the tables whose last column is the findings."""
    results = load("attacks.json")
    measured = {row["name"]: row for row in results["first"] + results["second"]}
    shown = set()
    for heading, _, *lines in tables(text):
        for name, *cells in lines if heading[-1] == "findings" else []:
            shown.add(name)
            for column, cell in zip(heading[1:], cells):
                yield (name, column), cell.replace(",", ""), measured[name][column]
    assert shown == set(measured)


@pytest.mark.parametrize(
    ("document", "figures", "minimum"),
    [
        ("README.md", peer_figures, 56),
        ("performance.md", exactness_figures, 20),
        ("performance.md", compile_figures, 36),
        ("robustness.md", attack_figures, 24),
    ],
)
def test_figures(document, figures, minimum):
    found = list(figures(TEXTS[document]))
    assert len(found) >= minimum
    assert [figure for figure in found if differs(figure[1], figure[2])] == []


def test_differs():
    assert not differs("0.95", 0.9549) and not differs(".95", 0.9451) and not differs("207", 207.4)
    assert not differs("6.3e-4", 6.27e-4) and differs("6.3e-4", 6.37e-4)
    assert differs("0.95", 0.956) and differs(".94", 0.9451) and differs("207", 208)


def test_results_name_their_machine():
    for path in RESULTS.glob("*.json"):
        results = json.loads(path.read_text(encoding="utf-8"))
        # `python -m ropewalk evaluate` stores a list, and resumes a run: each row has a context of its own.
        for context in results if isinstance(results, list) else [results["context"]]:
            assert {"date", "machine"} <= context.keys() or {"date", "device"} <= context.keys(), Path(path).name
