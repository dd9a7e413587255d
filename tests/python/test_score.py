"""ALiBi slopes and query temperatures, compared with their formulas in float64."""

import numpy as np
import pytest
import ropewalk as rw
import torch


@pytest.mark.parametrize("heads", [1, 2, 8, 32, 128, 3, 12, 40, 71])
def test_alibi_slopes(heads):
    """The slopes of the largest power of two that is not above `heads`, then every second slope of twice that."""
    below = 2 ** int(np.log2(heads))
    more = 2.0 ** (-8 * np.arange(1, 2 * below + 1) / (2 * below))
    expected = np.append(2.0 ** (-8 * np.arange(1, below + 1) / below), more[::2])[:heads]
    np.testing.assert_allclose(rw.alibi_slopes(heads), expected, rtol=1e-15, strict=True)


@pytest.mark.parametrize("heads", [0, -3])
def test_alibi_refuses_a_count_below_one(heads):
    with pytest.raises(rw.Error, match=f"heads must lie in .*, got {heads}"):
        rw.alibi_slopes(heads)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint32, torch.int64, list])
def test_query_temperature(kind):
    positions = np.array([0, 1, 8190, 8191, 8192, 16382, 16383, 131071, 10_000_000])
    if kind is torch.int64:
        given = torch.from_numpy(positions)
    else:
        given = positions.tolist() if kind is list else positions.astype(kind)
    temperature = rw.query_temperature(given)
    assert temperature.dtype == np.float64
    np.testing.assert_allclose(temperature, 1 + 0.1 * np.log(1 + (positions + 1) // 8192), rtol=1e-15)
    assert temperature[2] == 1 and temperature[3] > 1


def test_query_temperature_of_a_strided_array():
    positions = np.arange(24, dtype=np.int64).reshape(4, 6)[:, ::2]
    temperature = rw.query_temperature(positions, scale=0.5, length=4)
    np.testing.assert_allclose(temperature, 1 + 0.5 * np.log(1 + (positions + 1) // 4), rtol=1e-15)
    assert rw.query_temperature(7, length=4).shape == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, -1],), "position must lie in .*, got -1"),
        (([1], 0.1, 0), "length must be positive, got 0"),
        (([1.5],), "positions must be int64, .*, got float64"),
        ((np.zeros(2, bool),), "positions must be int64, .*, got bool"),
    ],
)
def test_query_temperature_refuses(arguments, message):
    with pytest.raises(rw.Error, match=message):
        rw.query_temperature(*arguments)
