"""The tables of speeds in the documentation are those of the recorded results, and the errors too."""

import json
import re
from pathlib import Path

import pytest
from common import ROOT

RESULTS = ROOT / "benchmarks" / "results"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "docs" / "speed.md")}
KERNELS = re.compile(r"(f32|f16|bf16) (half_split|interleaved)")
# What the tables call a candidate of PyTorch's users, and what the results do.
CANDIDATES = {
    "Hugging Face, eager": "Hugging Face, eager",
    "Hugging Face under torch.compile, written back": "torch.compile, written back",
    "Hugging Face under torch.compile": "Hugging Face, torch.compile",
    "complex product, in place, interleaved": "complex product, in place",
    "complex product, interleaved": "complex product",
    "**ropewalk**, half_split, in place": "ropewalk, half_split",
    "**ropewalk**, interleaved, in place": "ropewalk, interleaved",
    "**ropewalk**, half_split": "ropewalk, half_split",
    "**ropewalk**, interleaved": "ropewalk, interleaved",
}


def load(name):
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def tables(text):
    """[[cells of a line]] of each table, the heading first."""
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in one.splitlines()] for one in blocks]


def wrong(told, value):
    """Whether a number, as it is written, is not the value rounded to as many digits."""
    if "e" in told:
        return float(told) != float(f"{value:.1e}")
    digits = len(told.partition(".")[2])
    return abs(float(told) - value) > 0.5000001 * 10**-digits


def kernel_figures(text):
    """(where, what the text says, what was measured) of the tables of kernels."""
    sets = {one: {row["name"]: row for row in load(f"zen4_{one}.json")["benchmarks"]} for one in ("avx512", "avx2")}
    for heading, _, *lines in tables(text):
        for name, *cells in lines:
            if match := KERNELS.fullmatch(name):
                columns = list(zip(heading[1:], cells))
                threads = dict(columns).get("threads", "1")
                for title, cell in (one for one in columns if one[0] != "threads"):
                    measured = sets["avx2" if "AVX2" in title else "avx512"]
                    row = measured[
                        f"rotate/{match[1]}/{match[2]}/40x40/{int(re.match(r'[0-9]+', title)[0])}/threads:{threads}"
                    ]
                    told = re.findall(r"[0-9.]+", cell)
                    for number, key in zip(told, ("ratio_to_scale", "ratio_to_convert")):
                        yield row["name"], number, row[key]


def peer_figures(text):
    """The same of the tables which have one and two threads in a cell: ratios, or milliseconds of training."""
    ratios = {"key": "ratio_to_scale", "rows": load("zen4_peers.json")["rows"]}
    training = {"key": "milliseconds", "rows": load("zen4_training.json")["rows"]}
    for heading, _, *lines in tables(text):
        kind = ratios if "in-place scale" in heading[0] else training
        for name, *cells in lines:
            type_name, _, candidate = name.partition(": ")
            for title, cell in zip(heading[1:], cells) if candidate in CANDIDATES else []:
                for threads, number in enumerate(cell.split(" / "), 1):
                    wanted = (CANDIDATES[candidate], type_name, int(title.split()[0]), threads)
                    (row,) = (
                        r for r in kind["rows"] if (r["candidate"], r["type"], r["tokens"], r["threads"]) == wanted
                    )
                    yield wanted, number, row[kind["key"]]


def exactness_figures(text):
    found = load("exactness.json")
    for heading, _, *lines in tables(text):
        for below, *cells in lines if heading[0] == "positions below" else []:
            at = found["positions_below"].index(2**31 if below == "2^31" else int(below.replace(",", "")))
            for (name, errors), cell in zip(found["errors"].items(), cells):
                yield (below, name), cell, errors[at]


@pytest.mark.parametrize(
    ("document", "figures", "least"),
    [
        ("README.md", kernel_figures, 20),
        ("speed.md", kernel_figures, 96),
        ("README.md", peer_figures, 56),
        ("speed.md", peer_figures, 108),
        ("README.md", exactness_figures, 20),
    ],
)
def test_figures(document, figures, least):
    all_of_them = list(figures(TEXTS[document]))
    assert len(all_of_them) >= least
    assert [one for one in all_of_them if wrong(one[1], one[2])] == []


def test_what_is_wrong():
    assert not wrong("0.95", 0.9549) and not wrong(".95", 0.9451) and not wrong("207", 207.4)
    assert not wrong("6.3e-4", 6.27e-4) and wrong("6.3e-4", 6.37e-4)
    assert wrong("0.95", 0.956) and wrong(".94", 0.9451) and wrong("207", 208)


def test_results_name_their_machine():
    for path in RESULTS.glob("*.json"):
        context = json.loads(path.read_text(encoding="utf-8"))["context"]
        assert {"date", "machine"} <= context.keys() or {"date", "device"} <= context.keys(), Path(path).name
