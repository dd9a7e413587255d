"""Intervals, tests, tables, sentences and plots of evaluations, on made-up results."""

import math

import pytest
from ropewalk.evaluation._intervals import mean_interval, t_quantile, t_within, wilson
from ropewalk.evaluation._report import sentences
from ropewalk.evaluation._results import Answer, Block, Bucket, Cell


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3; and Brown, Cai and DasGupta (2001) for the ends.
@pytest.mark.parametrize(
    ("successes", "samples", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson(successes, samples, low, high):
    assert wilson(successes, samples) == pytest.approx((low, high), abs=5e-5)
    assert wilson(samples - successes, samples) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_ends_solve_the_equation_of_the_score_test():
    """The ends are the shares p with |successes / samples - p| = z sqrt(p (1 - p) / samples)."""
    for successes, samples in ((1, 1), (3, 7), (19, 20), (400, 1000)):
        for end in wilson(successes, samples):
            if 0 < end < 1:
                error = math.sqrt(end * (1 - end) / samples)
                assert abs(successes / samples - end) == pytest.approx(1.9599640 * error, rel=1e-6)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (10**5, 1.960)]
)
def test_quantiles_of_student_t(degrees, quantile):
    assert t_quantile(degrees) == pytest.approx(quantile, abs=5e-4)
    # 2.5758 and 63.657 are the 0.995 quantiles of many and of one degree.
    assert t_within(0, degrees) == 0


def test_student_t_of_other_levels():
    assert t_within(63.657, 1) == pytest.approx(0.99, abs=1e-6)
    assert t_within(9.925, 2) == pytest.approx(0.99, abs=1e-5)
    assert t_within(3.169, 10) == pytest.approx(0.99, abs=1e-5)
    assert t_within(1.440, 6) == pytest.approx(0.8, abs=1e-4)


def test_mean_interval():
    """Student's own data, ten gains of sleep (Biometrika 6, 1908), with the interval of R's t.test."""
    gains = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert mean_interval(gains) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert mean_interval(gains, [256] * 10) == pytest.approx(mean_interval(gains), rel=1e-12)
    assert mean_interval([3.5]) == (-math.inf, math.inf)


def losses(policy, values, length=1024, texts=1, task="perplexity"):
    """A cell of blocks with these losses, one text after the other."""
    each = len(values) // texts
    blocks = [Block(i // each, i % each * 256, i % each * 256 + 256, x) for i, x in enumerate(values)]
    mean = sum(values) / len(values)
    ends = [math.exp(end) for end in mean_interval(values)]
    buckets = [Bucket(0, 256 * each, mean)] if task == "perplexity" else []
    return Cell(policy, task, length, math.exp(mean), *ends, texts, 1.0, (), tuple(blocks), tuple(buckets))


def answers(policy, correct, length=2048, task="lines"):
    """A cell of answers, "1" for a correct one and "0" for a wrong one."""
    rows = [Answer(str(i), str(i), x == "1", (i + 0.5) / len(correct), length) for i, x in enumerate(correct)]
    count = correct.count("1")
    return Cell(policy, task, length, count / len(rows), *wilson(count, len(rows)), len(rows), 1.0, tuple(rows))


def test_a_clear_winner():
    cells = [answers("default", "1" * 2 + "0" * 18), answers("yarn:4", "1" * 18 + "0" * 2)]
    assert sentences(cells) == ["yarn:4 has the highest accuracy on lines at 2,048 tokens, 0.80 above default"]


def test_a_tie():
    cells = [answers("default", "10" * 10), answers("yarn:4", "1110" * 5)]
    assert sentences(cells) == [
        "accuracy on lines at 2,048 tokens: default and yarn:4 cannot be told apart (20 samples)"
    ]
