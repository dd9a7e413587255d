"""Intervals, tests, tables, sentences and plots of evaluations, on made-up results."""

import math
import struct
from fractions import Fraction
from itertools import product
from xml.etree import ElementTree

import numpy as np
import pytest
from ropewalk.evaluation._intervals import compare, mean_interval, sign_test, t_quantile, t_within, welch_test, wilson
from ropewalk.evaluation._plots import by_depth, looks_by_policy, plot
from ropewalk.evaluation._report import labels, sentences, table
from ropewalk.evaluation._results import Answer, Block, Bucket, Cell


def answers(policy, correct, length=2048, task="lines"):
    """Return a cell of answers: "1" is a correct one and "0" a wrong one. Depths go from 0 to 1."""
    rows = [Answer(str(i), str(i), x == "1", i / max(1, len(correct) - 1), length) for i, x in enumerate(correct)]
    count = correct.count("1")
    return Cell(policy, task, length, count / len(rows), *wilson(count, len(rows)), len(rows), 1.0, tuple(rows))


def losses(policy, texts, task="perplexity"):
    """Return a cell of blocks with these losses per text. Buckets double from 256 tokens on."""
    values = np.array(texts, dtype=float)
    length = 256 * values.shape[1]
    blocks = [
        Block(text, 256 * i, 256 * i + 256, float(x)) for text, row in enumerate(values) for i, x in enumerate(row)
    ]
    edges = [0, *(2**k for k in range(8, 20) if 2**k < length), length]
    buckets = [
        Bucket(a, b, float(values[:, a // 256 : b // 256].mean()))
        for a, b in zip(edges, edges[1:])
        if task == "perplexity"
    ]
    ends = [math.exp(x) for x in (values.mean(), *mean_interval(values.ravel()))]
    return Cell(policy, task, length, *ends, len(values), 1.0, (), tuple(blocks), tuple(buckets))


def prose(blocks, texts=1, above=0.0, from_block=None, noise=0.02, seed=0):
    """Return losses of the same made-up texts, with an offset from a block on and noise of the policy."""
    shared = np.random.default_rng(7).normal(3, 0.3, (texts, blocks))
    own = np.random.default_rng(seed).normal(0, noise, (texts, blocks))
    return shared + own + np.where(np.arange(blocks) >= (from_block or 0), above, 0)


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
@pytest.mark.parametrize(
    ("successes", "samples", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson(successes, samples, low, high):
    assert wilson(successes, samples) == pytest.approx((low, high), abs=5e-5)
    assert wilson(samples - successes, samples) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize(("successes", "samples"), [(1, 1), (3, 7), (19, 20), (400, 1000)])
def test_the_ends_of_wilson_solve_the_equation_of_the_score_test(successes, samples):
    """|successes / samples - p| = z sqrt(p (1 - p) / samples) at both ends p inside (0, 1)."""
    for p in wilson(successes, samples):
        if p < 1:
            error = math.sqrt(p * (1 - p) / samples)
            assert abs(successes / samples - p) == pytest.approx(1.9599640 * error, rel=1e-6)


@pytest.mark.parametrize(("successes", "samples"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_shares(successes, samples):
    with pytest.raises(ValueError, match=f"got {successes} of {samples}"):
        wilson(successes, samples)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (10**5, 1.960)]
)
def test_quantiles_of_student_t(degrees, quantile):
    assert t_quantile(degrees) == pytest.approx(quantile, abs=5e-4)


@pytest.mark.parametrize(
    ("t", "degrees", "within"), [(63.657, 1, 0.99), (9.925, 2, 0.99), (3.169, 10, 0.99), (1.440, 6, 0.8), (0, 5, 0)]
)
def test_probabilities_of_student_t(t, degrees, within):
    assert t_within(t, degrees) == pytest.approx(within, abs=1e-4)


def test_student_t_is_the_integral_of_its_density():
    for degrees in range(1, 12):
        x = np.linspace(0, 1.7, 2001)
        density = math.gamma((degrees + 1) / 2) / math.gamma(degrees / 2) / math.sqrt(degrees * math.pi)
        density = density * (1 + x**2 / degrees) ** (-(degrees + 1) / 2)
        integral = 2 * (density[1:] + density[:-1]).sum() / 2 * (x[1] - x[0])
        assert t_within(1.7, degrees) == pytest.approx(integral, abs=1e-6)


def test_mean_interval():
    """Student's own data, ten gains of sleep (Biometrika 6, 1908), with the interval of R's t.test."""
    gains = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert mean_interval(gains) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert mean_interval(gains, [256] * 10) == pytest.approx(mean_interval(gains), rel=1e-12)
    assert mean_interval([3.5]) == (-math.inf, math.inf)
    assert mean_interval([2.5, 2.5, 2.5]) == (2.5, 2.5)


def test_weights_of_a_mean():
    """A value with a negligible weight does not move the interval's centre."""
    low, high = mean_interval([1, 2, 3, 100], [256, 256, 256, 1e-9])
    assert (low + high) / 2 == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("values", [[], [1.0, 2.0]])
def test_weights_must_match(values):
    with pytest.raises(ValueError, match=f"got {len(values)} and 3"):
        mean_interval(values, [1, 1, 1])


@pytest.mark.parametrize("trend", [0, 5])
@pytest.mark.parametrize(("correlation", "least"), [(0, 0.93), (0.35, 0.88)])
def test_intervals_of_correlated_blocks_cover_the_mean(correlation, least, trend):
    random = np.random.default_rng(3)
    noise = random.normal(size=(300, 64))
    series = noise.copy()
    for i in range(1, 64):
        series[:, i] = correlation * series[:, i - 1] + math.sqrt(1 - correlation**2) * noise[:, i]
    mean = np.linspace(0, trend, 64) ** 2
    intervals = [mean_interval(row + mean) for row in series]
    covered = [low <= mean.mean() <= high for low, high in intervals]
    assert least < sum(covered) / len(intervals) < 0.985 + trend
    assert np.mean([high - low for low, high in intervals]) < (1.7 if trend else 0.8)


def test_sign_test():
    for wins, total in ((0, 6), (1, 9), (5, 10), (40, 100), (3, 3)):
        chances = [Fraction(math.comb(total, k), 2**total) for k in range(total + 1)]
        extreme = sum(p for p in chances if p <= chances[wins])  # the two-sided definition of R's binom.test
        assert (
            sign_test(wins, total - wins) == sign_test(total - wins, wins) == pytest.approx(float(extreme), rel=1e-12)
        )
    assert sign_test(0, 0) == 1
    with pytest.raises(ValueError, match="got -1 and 3"):
        sign_test(-1, 3)


def test_welch_test():
    """Gains of two drugs (Student 1908): R's t.test without pairs gives p = 0.07939."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    assert 0.07939 < welch_test(first, second) < 0.081  # degrees of freedom are rounded down, here from 17.8
    assert welch_test([1.0], second) == 1
    assert welch_test([1.0, 1.0], [2.0, 2.0]) == 0


def test_comparison_of_answers():
    result = compare(answers("a", "1" * 9 + "0" * 11), answers("b", "0" * 8 + "11" + "0" * 10))
    assert result.difference == pytest.approx(0.35) and result.pairs == 20
    assert result.p == pytest.approx(float(Fraction(2 * (1 + 9), 2**9)))  # 8 wins, 1 loss


def test_comparison_of_blocks():
    """Paired data of ten patients: R's t.test gives p = 0.002833."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    result = compare(losses("a", [first]), losses("b", [second]))
    assert result.difference == pytest.approx(-1.58)
    assert result.p == pytest.approx(0.002833, abs=1e-6)
    assert result.pairs == 10
    assert compare(losses("a", [first]), losses("b", [first])).p == 1


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (answers("b", "1010"), r"a and b have different rows of lines at 2048 tokens \(3 and 4\)"),
        (answers("b", "101", length=4096), "lines at 2048 and lines at 4096"),
        (answers("b", "101", task="qa"), "lines at 2048 and qa at 2048"),
    ],
)
def test_cells_without_pairs(second, message):
    with pytest.raises(ValueError, match=message):
        compare(answers("a", "110"), second)


def test_blocks_of_different_texts():
    with pytest.raises(ValueError, match=r"different blocks of perplexity at 1024 tokens \(4 and 8\)"):
        compare(losses("a", [[3, 3, 3, 3]]), losses("b", [[3, 3, 3, 3], [2, 2, 2, 2]]))


FEW, HALF, MOST = "1" * 2 + "0" * 18, "10" * 10, "1" * 18 + "0" * 2


def test_a_clear_winner():
    cells = [answers("default", FEW), answers("yarn:4", MOST)]
    assert sentences(cells) == ["yarn:4 has the highest accuracy on lines at 2,048 tokens, 0.80 above default"]


def test_a_tie():
    cells = [answers("default", HALF), answers("yarn:4", "1110" * 5)]
    expected = "accuracy on lines at 2,048 tokens: default and yarn:4 cannot be told apart (20 samples)"
    assert sentences(cells) == [expected]


def test_one_sample_has_no_winner():
    cells = [answers("default", "0"), answers("yarn:4", "1")]
    assert sentences(cells) == ["accuracy on lines at 2,048 tokens: default and yarn:4 cannot be told apart (1 sample)"]


def test_the_level_is_divided_by_the_number_of_comparisons():
    """Six wins of six have p = 0.031: enough against one policy, and not against two."""
    cells = [answers("a", "0" * 6), answers("b", "1" * 6)]
    assert sentences(cells)[0].startswith("b has the highest accuracy")
    cells.append(answers("c", "0" * 6))
    assert sentences(cells) == ["accuracy on lines at 2,048 tokens: a, b and c cannot be told apart (6 samples)"]


def test_a_winner_at_some_lengths():
    found = []
    for length, (default, yarn) in {
        1024: (MOST, HALF),
        2048: (HALF, HALF),
        4096: (FEW, MOST),
        8192: (FEW, "1" * 20),
    }.items():
        found += [answers("yarn:4", yarn, length), answers("default", default, length)]
    assert sentences(found) == [
        "default has the highest accuracy on lines at 1,024 tokens, 0.40 above yarn:4",
        "accuracy on lines at 2,048 tokens: yarn:4 and default cannot be told apart (20 samples)",
        "yarn:4 has the highest accuracy on lines from 4,096 to 8,192 tokens, at least 0.80 above the next policy",
    ]


def test_lengths_with_other_policies_are_not_merged():
    """At 4096 tokens one of three policies is missing, so the outcomes differ in what they compare."""
    cells = [answers(policy, correct) for policy, correct in (("a", FEW), ("b", MOST), ("c", FEW))]
    cells += [answers(policy, correct, 4096) for policy, correct in (("a", FEW), ("b", MOST))]
    cells += [answers("a", FEW, 8192)]
    assert sentences(cells) == [
        "b has the highest accuracy on lines at 2,048 tokens, 0.80 above a",
        "b has the highest accuracy on lines at 4,096 tokens, 0.80 above a",
    ]


def test_part_of_many_policies():
    cells = [answers("bad", "0" * 20), answers("x", MOST), answers("y", MOST)]
    expected = "the best are x and y, which cannot be told apart (20 samples)"
    assert sentences(cells) == [f"accuracy on lines at 2,048 tokens: {expected}"]
    cells += [answers(name, MOST) for name in "zuv"]
    assert sentences(cells) == ["accuracy on lines at 2,048 tokens: all but bad cannot be told apart (20 samples)"]
    expected = "accuracy on lines at 2,048 tokens: the 5 policies cannot be told apart (20 samples)"
    assert sentences(cells[1:]) == [expected]


def test_perplexity_is_compared_in_pairs():
    """The intervals of both overlap, since the texts differ by 0.3 nats, and the paired test sees 0.05 nats."""
    cells = [losses("default", prose(16, 3, above=0.05)), losses("yarn:4", prose(16, 3, seed=1))]
    assert cells[1].high > cells[0].low
    share = f"{100 * (1 - cells[1].value / cells[0].value):.1f}"
    assert 4 < float(share) < 6
    assert sentences(cells) == [f"yarn:4 has the lowest perplexity at 4,096 tokens, {share} % below default"]
    cells = [losses("default", prose(16, 3)), losses("yarn:4", prose(16, 3, seed=1))]
    assert sentences(cells) == ["perplexity at 4,096 tokens: default and yarn:4 cannot be told apart (3 texts)"]


def test_rounding_is_not_a_win():
    """A difference of 1e-5 nats in all blocks is significant, and meaningless."""
    cells = [losses("default", prose(16)), losses("linear:1", prose(16) + 1e-5)]
    assert compare(*cells).p < 1e-6
    assert sentences(cells) == ["perplexity at 4,096 tokens: default and linear:1 cannot be told apart (1 text)"]


def test_the_mean_decides_and_not_most_blocks():
    """A policy that is a little better in three of four blocks, and breaks down in the last, does not win."""
    broken = prose(32, 2, above=-0.02)
    broken[:, 24:] += 3
    cells = [losses("default", broken), losses("yarn:4", prose(32, 2, seed=1))]
    first, *others = sentences(cells)
    assert first == "yarn:4 has the lowest perplexity at 8,192 tokens, 52 % below default"  # 1 - exp(-0.73)
    assert others == ["loss in 8,192 tokens: from position 4,096 on, it rises relative to yarn:4: default by 1.53 nats"]


def test_a_harder_end_of_the_text_is_no_rise():
    """Losses of all policies rise by one nat, so the text is harder."""
    harder = np.where(np.arange(32) >= 16, 1, 0)
    cells = [losses("default", prose(32, 2) + harder), losses("yarn:4", prose(32, 2, seed=1) + harder)]
    assert sentences(cells) == ["perplexity at 8,192 tokens: default and yarn:4 cannot be told apart (2 texts)"]


def test_a_policy_that_is_worse_everywhere_does_not_rise():
    cells = [losses("default", prose(32, 2)), losses("linear:4", prose(32, 2, above=1, seed=1))]
    assert len(sentences(cells)) == 1


def test_sentences_of_one_policy():
    assert sentences([answers("default", HALF), losses("default", prose(16))]) == []
    assert sentences([]) == []


TABLE = """\
perplexity by length in tokens, 2 texts each
                                   1,024
default               11.02 [7.65, 15.9]
yarn:4,original_l...  10.62 [7.14, 15.8]*

loss in nats by position, in 1,024 tokens
                      <256   <512   <1,024
default               3.00*  2.55     2.02
yarn:4,original_l...  3.05   2.45*    1.98*

accuracy on lines by length in tokens, 20 samples each
                                  2,048               4,096               8,192              16,384
default               0.90 [0.70, 0.97]*  0.10 [0.03, 0.30]   0.10 [0.03, 0.30]   0.00 [0.00, 0.16]*
yarn:4,original_l...                  -   0.50 [0.30, 0.70]*  0.50 [0.30, 0.70]*                  -
linear:4              0.90 [0.70, 0.97]*                  -                   -   0.00 [0.00, 0.16]*

* best of the column; in brackets: 95 % interval
yarn:4,original_l... = yarn:4,original_length=4096"""
YARN = "yarn:4,original_length=4096"


def test_table():
    """Four lengths fit into 100 columns with a shortened name."""
    cells = [
        losses("default", [[3, 2.5, 2, 2], [3, 2.6, 2, 2.1]]),
        losses(YARN, [[3.1, 2.5, 2, 1.9], [3, 2.4, 2, 2]]),
        *(answers("default", *row) for row in ((MOST, 2048), (FEW, 4096), (FEW, 8192), ("0" * 20, 16384))),
        *(answers(YARN, HALF, length) for length in (4096, 8192)),
        *(answers("linear:4", *row) for row in ((MOST, 2048), ("0" * 20, 16384))),
    ]
    assert table(cells) == TABLE
    assert max(map(len, TABLE.split("\n"))) <= 100


def test_columns_beyond_the_width_continue_below():
    cells = [answers("default", HALF, length) for length in (1024, 2048, 4096)]
    lines = table(cells, width=55).split("\n")
    assert [line.split() for line in lines[1:5]] == [
        ["1,024", "2,048"],
        ["default", "0.50", "[0.30,", "0.70]", "0.50", "[0.30,", "0.70]"],
        ["4,096"],
        ["default", "0.50", "[0.30,", "0.70]"],
    ]
    assert max(map(len, lines)) <= 55


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.345, "2.35 [2.34, 2.37]"), (45.678, "45.68 [45.5, 46.1]"), (123.45, "123.5 [123, 125]"), (5e4, "50,000 [49,8")],
)
def test_digits_of_perplexities(value, text):
    cell = Cell("default", "sliding", 2048, value, value * 0.997, value * 1.01, 9, 1.0)
    assert text in table([cell])
    assert "9 windows each" in table([cell])


def test_perplexities_without_an_interval_and_without_bound():
    assert table([losses("default", [[3]])]).split("\n")[2].split() == ["default", "20.09"]
    assert "1.0e+40 [1.0e+39, 1.0e+41]" in table([Cell("default", "sliding", 2048, 1e40, 1e39, 1e41, 9, 1.0)])


def test_shortened_names_stay_distinct():
    names = labels(["linear:4", "yarn:4,original_length=2048", "yarn:4,original_length=4096", "linear:4"], 12)
    assert names == {
        "linear:4": "linear:4",
        "yarn:4,original_length=2048": "yarn:4,or...",
        "yarn:4,original_length=4096": "yarn:4,...#2",
    }


def test_table_of_nothing():
    assert table([]) == ""


def made_up(tasks, policies=("default", "yarn:4"), lengths=(1024, 2048)):
    cells = []
    for task, policy, length in product(tasks, policies, lengths):
        if task in ("lines", "qa"):
            cells.append(answers(policy, HALF if policy == "default" else MOST, length, task))
        else:
            cells.append(losses(policy, prose(length // 256, seed=len(policy)), task))
    return cells


TASKS = [
    ("perplexity",),
    ("sliding",),
    ("lines",),
    ("qa",),
    ("sliding", "qa"),
    ("perplexity", "sliding", "lines", "qa"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("tasks", TASKS, ids="-".join)
def test_plots_of_tasks(tasks, tmp_path):
    path = tmp_path / "plot.svg"
    plot(made_up(tasks), path, trained_length=1024)
    content = path.read_text()
    assert ElementTree.fromstring(content).tag.endswith("svg")
    titles = {
        "perplexity": (
            "Loss by position, in 2,048 tokens",
            "Loss above the lowest of all policies",
            "Perplexity by length",
        ),
        "sliding": ("Sliding-window perplexity by length",),
        "lines": ("Accuracy on lines by length", "by length and depth of the asked line"),
        "qa": ("Accuracy on qa by length",),
    }
    for task, texts in titles.items():
        assert all((f"<!-- {text}" in content or f"{text} -->" in content) == (task in tasks) for text in texts)
    assert "<!-- yarn:4 -->" in content and "<!-- trained" in content


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("kind", "task"), [("png", "lines"), ("svg", "perplexity")])
def test_plots_are_reproducible(kind, task, tmp_path):
    cells = made_up((task,))
    for name in ("one", "two"):
        plot(cells, tmp_path / f"{name}.{kind}")
    content = (tmp_path / f"one.{kind}").read_bytes()
    assert content == (tmp_path / f"two.{kind}").read_bytes()
    if kind == "png":
        width, height = struct.unpack(">II", content[16:24])
        assert 800 <= width <= 1400 and 400 <= height <= 1400


@pytest.mark.filterwarnings("error")
def test_plot_of_one_policy_and_length(tmp_path):
    """One block has no interval, an answer no depth, and a length is odd."""
    answer = Answer("7", "7", True, None, 300)
    cells = [losses("default", [[3.0]]), Cell("default", "qa", 301, 1.0, *wilson(1, 1), 1, 1.0, (answer,))]
    plot(cells, str(tmp_path / "plot.png"), trained_length=8192)
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_many_policies_have_different_lines():
    looks = looks_by_policy(["default", *(f"linear:{k}" for k in range(2, 20))])
    assert len({(look["color"], look.get("linestyle")) for look in looks.values()}) == 19


def test_accuracy_by_depth():
    cell = answers("default", "1100000000" + "1" * 10)  # depths 0, 1/19, ..., 1
    np.testing.assert_allclose(by_depth(cell, 5), [0.5, 0, 0.5, 1, 1])
    assert by_depth(answers("default", "01"), 5)[[0, 4]].tolist() == [0, 1]
    assert np.isnan(by_depth(answers("default", "01"), 5)[1:4]).all() and np.isnan(by_depth(None, 10)).all()


@pytest.mark.parametrize(
    ("cells", "name", "message"),
    [([], "plot.png", "at least one cell"), (made_up(("qa",)), "plot.pdf", "got '.*plot.pdf'")],
)
def test_plots_that_cannot_be_made(cells, name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plot(cells, tmp_path / name)
    assert not (tmp_path / name).exists()
