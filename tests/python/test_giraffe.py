"""The Giraffe lab: its rows, its rules, and all of its stages with a tiny model."""

import copy
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.giraffe import __main__ as program  # noqa: E402
from benchmarks.giraffe import data, experiment, report, verdicts  # noqa: E402
from benchmarks.giraffe.methods import methods  # noqa: E402

VOCABULARY = data.Vocabulary()


@pytest.fixture
def generator():
    return data.Generator(VOCABULARY, seed=7, language=3)


def read_lines(row, context):
    """The lines before the questions as [(place of the value, key, value)], by a scan for marks."""
    return [(i + 2, row[i + 1], row[i + 2]) for i in range(context) if row[i] == data.LINE]


@pytest.mark.parametrize(("length", "lines", "questions"), [(128, 20, 8), (300, 7, 7), (90, 20, 10)])
def test_lines(generator, length, lines, questions):
    tokens, weight, distance = generator.lines(50, length, lines, questions)
    context = length - 3 * questions
    assert tokens.shape == weight.shape == (50, length) and distance.shape == (50, questions)
    np.testing.assert_allclose(weight.sum(axis=1), 1)
    for row, of_tokens, of_questions in zip(tokens, weight, distance):
        written = read_lines(row, context)
        values = {key: (place, value) for place, key, value in written}
        assert len(written) == len(values) == lines  # no overlap, unique keys
        asked = row[context:].reshape(questions, 3)
        assert (asked[:, 0] == data.ASK).all() and len({*asked[:, 1]}) == questions
        for (_, key, answer), d in zip(asked, of_questions):
            place, value = values[key]
            assert value == answer and d == context - place
        answers = of_tokens[context + 2 :: 3]
        assert np.ptp(answers) == 0 and answers.sum() == pytest.approx(0.5)


def test_lines_cover_the_context(generator):
    """The distances of questions are uniform: every quarter of the context has its share."""
    _, _, distance = generator.lines(400, 1024, 20, 8)
    counts = np.bincount(distance.ravel() * 4 // 1000, minlength=4)
    assert counts.sum() == 3200 and (abs(counts - 800) < 120).all()


def test_lines_that_do_not_fit(generator):
    with pytest.raises(ValueError, match="30 lines and 8 questions do not fit into 100 tokens"):
        generator.lines(1, 100, 30, 8)
    with pytest.raises(ValueError, match="do not fit into 10000 tokens with 64 keys"):
        generator.lines(1, 10000, 65, 8)


def test_entropy_of_text():
    """The entropy of counted transitions is the stated one, and all symbols occur equally often."""
    vocabulary = data.Vocabulary(symbols=8)
    generator = data.Generator(vocabulary, seed=7, language=3)
    tokens, weight = generator.text(500, 1000)
    symbols = tokens - vocabulary.first_symbol
    assert symbols.min() == 0 and symbols.max() == 7
    counts = np.zeros((8, 8, 8))
    np.add.at(counts, tuple(symbols[:, i : 998 + i].ravel() for i in range(3)), 1)
    after = counts / counts.sum(axis=2, keepdims=True).clip(1)
    assert -(counts * np.log(after.clip(1e-9))).sum() / counts.sum() == pytest.approx(generator.entropy(), abs=3e-3)
    assert (abs(counts.sum(axis=(0, 1)) * 8 / counts.sum() - 1) < 0.05).all()
    assert (weight[:, 0] == 0).all() and np.allclose(weight.sum(axis=1), 1)
    other = data.Generator(vocabulary, seed=8, language=3)
    assert (other.successors[0] == generator.successors[0]).all()  # one language for training and evaluation


def test_repeats(generator):
    tokens, weight = generator.repeats(40, 128)
    periods = set()
    for row, of_tokens in zip(tokens, weight):
        period = int(np.argmax(of_tokens > 0))
        assert (row[period:] == row[:-period]).all() and of_tokens.sum() == pytest.approx(1)
        periods.add(period)
    assert len(periods) > 10 and 4 <= min(periods) <= max(periods) < 64


def test_expressions_of_methods():
    by_name = {method.name: method for method in methods(128)}
    assert by_name["linear 4"].expression(3) == "linear:12"
    assert by_name["YaRN 4"].expression(2) == "yarn:8,original_length=128"
    assert by_name["truncated"].expression(2) == "linear:2|truncated:128"
    assert by_name["plain"].expression() == "default" and by_name["plain"].expression(4) == "linear:4"
    assert by_name["xPos, interleaved"].layout == "interleaved"


def run_tiny(store, **changes):
    settings = dataclasses.replace(experiment.TINY, **changes)
    return experiment.Experiment(settings, 1, "cpu", store, quiet=True)


def test_all_stages(tmp_path, one_thread):
    """The command writes results; its second run, after a method was lost, repeats that one only."""
    words = ["--settings", "tiny", "--threads", "1", "--store", str(tmp_path / "store"), "--out"]
    program.main([*words, str(tmp_path / "giraffe_seed1.json")])
    first = json.loads((tmp_path / "giraffe_seed1.json").read_text(encoding="utf-8"))
    assert [method["method"] for method in first["methods"]] == [method.name for method in methods(64)]
    assert all(len(method["rows"]) == 16 for method in first["methods"])
    (tmp_path / "store" / "power_0.5.json").unlink()
    program.main([*words, str(tmp_path / "giraffe_seed2.json")])
    second = json.loads((tmp_path / "giraffe_seed2.json").read_text(encoding="utf-8"))
    for before, after in zip(first["methods"], second["methods"]):
        assert (before == after) == (before["method"] != "power 0.5")
        assert [row["accuracy"] for row in before["rows"]] == [row["accuracy"] for row in after["rows"]]

    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{report.START}\nold\n{report.END}\n\nafter\n", encoding="utf-8")
    for _ in range(2):
        report.report(tmp_path.glob("giraffe_seed*.json"), page, tmp_path / "plot.png")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "\nold\n" not in text
    assert text.count("## Conclusions") == 1 and "| linear 16 | `linear:16` |" in text
    assert (tmp_path / "plot.png").stat().st_size > 10000


def test_retrieval_must_emerge(tmp_path, monkeypatch, one_thread):
    """The command ends with a message, thus with exit code 1. Stored weights are checked again."""
    monkeypatch.setitem(program.SETTINGS, "tiny", dataclasses.replace(experiment.TINY, emerged=0.9))
    words = ["--settings", "tiny", "--threads", "1", "--store", str(tmp_path), "--out", str(tmp_path / "out.json")]
    for _ in range(2):
        with pytest.raises(SystemExit, match=r"retrieval did not emerge: accuracy 0\.\d\d at 64 tokens") as stopped:
            program.main(words)
        assert isinstance(stopped.value.code, str)
    assert (tmp_path / "pretrained.pt").exists() and not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seed -1", "--seed must not be negative, got -1"),
        ("--threads 0", "--threads must be positive, got 0"),
        ("--out /dev/null/x.json", "cannot write /dev/null/x.json"),
    ],
)
def test_refused_arguments(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        program.arguments(words.split())
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_bfloat16(tmp_path, one_thread):
    """The path of the large model."""
    tiny = run_tiny(tmp_path, autocast=True)
    weights, record = tiny.pretrained()
    assert np.isfinite(record["loss"])
    result = tiny.measured(tiny.methods[2], weights)
    assert all(row["perplexity"] > 1 for row in result["rows"])


def test_last_tokens_alone(one_thread):
    """Computing the last layer for the last tokens only changes no state of theirs."""
    import torch

    torch.manual_seed(0)
    from benchmarks.giraffe.model import TinyLlama

    model = TinyLlama(50, 2, 32, 2, 32, 625.0)
    tokens = torch.randint(50, (3, 40))
    torch.testing.assert_close(model(tokens, 7), model(tokens)[:, -7:])


# Made-up figures: accuracy by method at 1x, 2x, 4x, 8x and 16x.
CURVES = {
    "none": (1, 0.4, 0.1, 0, 0),
    "none, interleaved": (0.1, 0, 0, 0, 0),
    "plain": (1, 1, 0.3, 0.1, 0),
    "linear 4": (1, 1, 0.9, 0.3, 0),
    "linear 16": (1, 1, 1, 0.9, 0.6),
    "truncated": (1, 1, 0.9, 0.6, 0.3),
    "randomized": (0.5, 0.8, 0.9, 0.5, 0),
    "xPos": (1, 1, 0.3, 0.1, 0),
    "xPos, interleaved": (0.1, 0.1, 0, 0, 0),
    "YaRN 16": (1, 1, 1, 1, 1),
}
PAPER = ("linear 4", "linear 16", "truncated", "randomized", "xPos, interleaved")


# The same of linear 4 at 2, 3 and 4 times its scale.
SCALED = {2: (1, 1, 1, 0.9, 0.3), 3: (1, 1, 0.9, 0.8, 0.4), 4: (0.4, 0.4, 0.3, 0.2, 0.1)}


def figures(change=None, scaled=None, far=None):
    """Figures with changes: {method: curve}, {ratio: curve} of linear 4, and {method: curve} in the far quarter."""
    curves = {**CURVES, **(change or {})}
    scaled = {1: curves["linear 4"], **SCALED, **(scaled or {})}
    found = []
    for name, curve in curves.items():
        by_ratio = scaled if name == "linear 4" else {1: curve}
        rows = [
            {
                "policy": name,
                "ratio": ratio,
                "multiple": 2**i,
                "accuracy": value,
                "quarters": [1, 1, 1, (far or {}).get(name, values)[i]],
                "perplexity": 4 - value,
            }
            for ratio, values in by_ratio.items()
            for i, value in enumerate(values)
        ]
        training = {"steps": 800 if name == "linear 16" else 200, "loss": 0.5 + len(name) / 100}
        found.append({"method": name, "paper": name in PAPER, "ratio": 1, "rows": rows, "training": training})
    return verdicts.Figures({"methods": found, "context": {"seed": 1}})


(BEST, BEST_FAR, BEST_SCALED, BEST_EQUAL, FALLS, SCALE, LIMIT, TRUNCATION, MISRANKS, DESTROYS, BROKEN) = (
    verdicts.CONCLUSIONS
)
HOLD = [BEST, BEST_FAR, BEST_SCALED, BEST_EQUAL, FALLS, SCALE, LIMIT, TRUNCATION, DESTROYS, BROKEN]


@pytest.mark.parametrize("conclusion", HOLD, ids=lambda conclusion: conclusion.judge.__name__)
def test_verdicts_that_hold(conclusion):
    assert verdicts.verdict(conclusion, [figures(), figures()])[0] == "reproduced"


@pytest.mark.parametrize(
    ("conclusion", "change", "outcome"),
    [
        (BEST, {"truncated": (1, 1, 1, 1, 0.8)}, "not reproduced"),
        (BEST, {"truncated": (1, 1, 1, 0.9, 0.5)}, "undecided"),
        (BEST_SCALED, {"truncated": (1, 1, 1, 1, 0.8)}, "not reproduced"),
        (BEST_EQUAL, {"truncated": (1, 1, 1, 0.7, 0.5)}, "undecided"),
        (BEST_EQUAL, {"truncated": (1, 1, 1, 0.8, 0.7)}, "not reproduced"),
        (FALLS, {"truncated": (0.9, 1, 1, 1, 1)}, "undecided"),
        (FALLS, {"truncated": (0.2, 0.2, 0.2, 0.2, 0.2)}, "reproduced"),
        (SCALE, {"linear 4": (1, 1, 1, 0.9, 0.3)}, "not reproduced"),
        (SCALE, {"linear 4": (0, 0, 0, 0, 0)}, "not reproduced"),
        (TRUNCATION, {"truncated": (1, 1, 0.9, 0.1, 0)}, "undecided"),
        (TRUNCATION, {"truncated": (1, 1, 0.1, 0, 0)}, "not reproduced"),
        (MISRANKS, {}, "not reproduced"),
        (DESTROYS, {"none, interleaved": (0.6, 0, 0, 0, 0)}, "not reproduced"),
        (BROKEN, {"xPos, interleaved": (0.93, 0, 0, 0, 0)}, "reproduced"),
        (BROKEN, {"xPos, interleaved": (0.95, 0, 0, 0, 0)}, "not reproduced"),
    ],
)
def test_verdicts_that_fail(conclusion, change, outcome):
    assert verdicts.verdict(conclusion, [figures(change)] * 2)[0] == outcome


@pytest.mark.parametrize("curve", [(1, 1, 1, 1, 0.6), (0.2, 0.2, 0.4, 0.9, 0.9)])
def test_scale_without_a_limit(curve):
    assert verdicts.verdict(LIMIT, [figures(scaled={4: curve})])[0] == "not reproduced"


def test_best_scale_of_linear():
    """Linear 4 loses as fine-tuned, and wins at twice its scale."""
    changed = figures({"linear 16": (1, 1, 0.5, 0, 0), "truncated": (1, 1, 0.9, 0.6, 0.3)})
    assert verdicts.verdict(BEST, [changed])[0] == "not reproduced"
    expected = "linear 4 .733 at 2 times its scale, truncated .600 at 1 times its scale"
    for conclusion in (BEST_SCALED, BEST_EQUAL):
        assert verdicts.verdict(conclusion, [changed]) == ("reproduced", [expected])
    largest = figures(scaled={4: (1, 1, 1, 1, 1)})
    text = verdicts.verdict(BEST_EQUAL, [largest])[1][0]
    assert text.startswith("linear 4 1.000 at 4 times its scale (the largest), truncated .600 at")


def test_equal_steps():
    """Linear 16 (.833) leads at 4 times the steps, and is not compared when steps are equal."""
    changed = figures({"truncated": (1, 1, 1, 0.8, 0.45)})
    assert verdicts.verdict(BEST_SCALED, [changed])[0] == "reproduced"
    outcome, (text,) = verdicts.verdict(BEST_EQUAL, [changed])
    assert outcome == "undecided" and text.startswith("linear 4 .733 at 2 times its scale, truncated .750")


@pytest.mark.parametrize(
    ("curve", "outcome"),
    [((1, 1, 1, 1, 1), "not reproduced"), ((1, 1, 1, 0.9, 0.5), "undecided"), ((1, 1, 0, 0, 0), "reproduced")],
)
def test_best_in_the_far_quarter(curve, outcome):
    """The far quarter decides alone: over all questions, the figures are unchanged."""
    changed = figures(far={"truncated": curve})
    assert verdicts.verdict(BEST, [changed])[0] == "reproduced"
    assert verdicts.verdict(BEST_FAR, [changed])[0] == outcome


def test_interleaved_xpos_shows_the_losses():
    """A loss of .5 plus .01 per letter of the name is made up."""
    text = verdicts.verdict(BROKEN, [figures()])[1][0]
    assert text.endswith("final training loss .54 and .67")


def test_misranking_needs_a_quarter_of_the_pairs():
    """At 16x YaRN 16 (1) is decided against 9 methods, linear 16 (.6) against 8, truncated (.3) against 7: 24 pairs."""
    every = figures()
    every.row("YaRN 16", 16)["perplexity"] = 100
    outcome, (text,) = verdicts.verdict(MISRANKS, [every])
    assert outcome == "reproduced" and text.startswith("9 of 24 pairs; in the far quarter 9 of 24 pairs, such as")
    every.row("YaRN 16", 16)["perplexity"] = 3.55  # worse than linear 16 only
    assert verdicts.verdict(MISRANKS, [every])[0] == "not reproduced"


def test_misranking_in_the_far_quarter():
    """YaRN 16 is misranked over all questions. It fails in the far quarter, where perplexity ranks it well."""
    every = figures(far={"YaRN 16": (1, 1, 1, 1, 0)})
    every.row("YaRN 16", 16)["perplexity"] = 100
    assert verdicts.verdict(MISRANKS, [every]) == (
        "not reproduced",
        ["9 of 24 pairs; in the far quarter 0 of 17 pairs"],
    )
    every.row("truncated", 16)["perplexity"] = 200
    text = verdicts.verdict(MISRANKS, [every])[1][0]
    assert "truncated .30 at perplexity 200.00" in text  # the example is of the far quarter
    assert "in the far quarter 8 of 17 pairs" in text


def test_margin_and_sampling():
    """Sentences on the spread of the seeds, on the error of a cell, and on guesses."""
    pair = [figures(), figures({"truncated": (0.8, 1, 0.9, 0.8, 0.35)})]
    assert "in 1 of 30 cells of the first table, by up to .20. A verdict" in report.margin(pair)
    assert "more in" not in report.margin([figures()] * 2)
    every = figures()
    every.result["settings"] = {"questions": 8, "lines": 20, "vocabulary": {"values": 32}}
    every.row("none", 1)["queries"] = 768
    text = report.sampling([every])
    assert "768 questions per cell, from 96 rows" in text
    # z / (2 sqrt(n + z^2)) is half of the Wilson interval of one half: .0353 for 768, and .0700 for 192.
    assert "at most .035." in text and "about 192 questions, it is .070." in text
    assert "a guess among the values of the row with .08." in text  # (1 + 19 / 32) / 20


def test_seeds_that_disagree():
    pair = [figures(), figures({"truncated": (1, 1, 1, 1, 0.8)})]
    assert verdicts.verdict(BEST, pair)[0] == "differs between seeds (reproduced / not reproduced)"
    count, found = verdicts.disagreements(pair)
    assert count == 50 and [(name, multiple) for name, multiple, _ in found] == [
        ("truncated", 4),
        ("truncated", 8),
        ("truncated", 16),
    ]


def test_reach():
    assert figures({"plain": (1, 0.5, 0, 0, 0)}).reach("plain", 1) == pytest.approx(2)
    assert figures().reach("linear 4", 1) == pytest.approx(2 ** (2 + 0.4 / 0.6))
    assert figures().reach("YaRN 16", 1) == 16 and figures().reach("xPos, interleaved", 1) == 0
    assert figures({"plain": (0.2, 0.3, 0.6, 0.4, 0)}).reach("plain", 1) == pytest.approx(4 * 2**0.5)


def test_page_shows_the_recorded_results():
    """The tables of docs/giraffe.md are those of benchmarks/results."""
    text = report.PAGE.read_text(encoding="utf-8")
    written = text.partition(report.START)[2].partition(report.END)[0].strip()
    every = [report.Figures(result) for result in report.load(report.RESULTS.glob("giraffe_seed*.json"))]
    assert len(every) >= 2 and written == report.generated(every).strip()
    changed = copy.deepcopy(every)
    changed[0].row("linear 4", 8)["accuracy"] += 0.1
    assert written != report.generated(changed).strip()
