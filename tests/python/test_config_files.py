"""Published config.json files, reduced to the keys of shapes and positions, and the answer of each model's own code.

tests/io/real_models.json has one row per file and layer type. The answer is derived from the code that `source` names,
and the frequencies are computed here by the formulas of the papers.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import ropewalk as rw
from rope_reference import plain

ROWS = json.loads((Path(__file__).parents[1] / "io" / "real_models.json").read_text())
READ = [row for row in ROWS if "expect" in row]
LONG = [row for row in READ if row["expect"]["policy"].startswith(("dynamic", "longrope"))]
REFUSED = [row for row in ROWS if "refused" in row]


def name_of(row):
    return f"{row['name']}-{row['layer_type']}" if "layer_type" in row else row["name"]


def parse(expression):
    """The name of one policy, its bare value and its parameters."""
    name, _, values = expression.partition(":")
    bare, parameters = None, {}
    for key, value in re.findall(r"(?:(\w+)=)?(\[[^]]*]|[^,]+)", values):
        if key:
            parameters[key] = value
        else:
            bare = value
    return name, bare, parameters


def number(parameters, key, default):
    return float(parameters.get(key, default))


def yarn(theta, factor, base, parameters):
    """Interpolation by parts between two numbers of turns (arXiv 2309.00071, section 3.2)."""
    d, length = 2 * len(theta), number(parameters, "original_length", 0)
    turns = number(parameters, "beta_fast", 32), number(parameters, "beta_slow", 1)
    low, high = (d * math.log(length / (2 * math.pi * n)) / (2 * math.log(base)) for n in turns)
    if parameters.get("truncate") != "false":
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d - 1)
    ramp = np.clip((np.arange(len(theta)) - low) / ((high - low) or 0.001), 0, 1)
    return theta / factor * ramp + theta * (1 - ramp)


def llama3(theta, factor, parameters):
    """Smooth interpolation of waves between two fractions of the trained length (Llama 3.1)."""
    length = number(parameters, "original_length", 8192)
    low, high = number(parameters, "low_freq_factor", 1), number(parameters, "high_freq_factor", 4)
    turns = length * theta / (2 * np.pi)
    kept = (turns > low) * 1.0 if low == high else np.clip((turns - low) / (high - low), 0, 1)
    return theta * kept + theta / factor * (1 - kept)


def proportional(head_dim, base, part):
    """Plain RoPE in the first pairs of a whole head, and frequency 0 in the others (Gemma 4)."""
    theta = plain(head_dim, base)
    return np.where(np.arange(len(theta)) < int(part * head_dim / 2), theta, 0)


def gte(theta, factor):
    """The base times the factor, and all frequencies divided so that the last one becomes θ/factor (GTE v1.5)."""
    d = 2 * len(theta)
    return theta * factor ** (-2.0 * (np.arange(len(theta)) + 1) / d)


def find(config, key):
    """The value of a key at any level of a configuration."""
    if key in config:
        return config[key]
    values = (find(value, key) for value in config.values() if isinstance(value, dict))
    return next((value for value in values if value is not None), None)


def frequencies(row):
    """Radians per token of a sequence that is shorter than the trained length."""
    expect = row["expect"]
    theta = plain(expect["rotary_dim"], expect["base"])
    if row["config"].get("model_type") == "new":
        return gte(theta, row["config"]["rope_scaling"]["factor"])
    name, bare, parameters = parse(expect["policy"])
    if name in ("default", "dynamic", "mrope"):
        return theta
    if name == "linear":
        return theta / float(bare)
    if name == "ntk":
        d = expect["rotary_dim"]
        return plain(d, expect["base"] * float(bare) ** (d / (d - 2)))
    if name == "yarn":
        return yarn(theta, float(bare), expect["base"], parameters)
    if name == "llama3":
        return llama3(theta, float(bare or 8), parameters)
    if name == "proportional":
        return proportional(expect["rotary_dim"], expect["base"], float(bare))
    assert name == "longrope"
    return theta / np.array(find(row["config"], "short_factor"))


NUMBER = r"(?<=[:=,\[])-?[\d.]+(?:e[-+]?\d+)?"


def terms(expression):
    """Words and numbers of an expression without attention_factor, which the test compares apart."""
    expression = re.sub(r",attention_factor=[^,|]*", "", expression)
    return re.sub(NUMBER, "#", expression), [float(value) for value in re.findall(NUMBER, expression)]


@pytest.mark.parametrize("row", READ, ids=name_of)
def test_published_files(row):
    expect, layer_type = row["expect"], row.get("layer_type")
    encoding = rw.from_config(row["config"], layer_type=layer_type)
    if expect["policy"] == "longrope":
        assert encoding.expression.startswith("longrope:")
    else:
        words, numbers = terms(expect["policy"])
        assert terms(encoding.expression) == (words, pytest.approx(numbers, rel=1e-12))
    assert encoding.base == expect["base"]
    assert encoding.layout == expect["layout"]
    sizes = (encoding.head_dim, encoding.rotary_dim, encoding.rotary_offset)
    assert sizes == (expect["head_dim"], expect["rotary_dim"], expect.get("rotary_offset", 0))
    factors = (encoding.attention_factor, encoding.softmax_factor)
    assert factors == pytest.approx((expect.get("attention_factor", 1), expect.get("softmax_factor", 1)), rel=1e-12)
    np.testing.assert_allclose(encoding.inv_freq, frequencies(row), rtol=1e-12, atol=0)


@pytest.mark.parametrize("row", LONG, ids=name_of)
def test_published_files_with_a_long_sequence(row):
    expect = row["expect"]
    name, bare, parameters = parse(expect["policy"])
    trained = find(row["config"], "original_max_position_embeddings") or number(parameters, "original_length", 0)
    length = 4 * int(trained)
    d = expect["rotary_dim"]
    if name == "dynamic":
        stretch = float(bare) * length / trained - (float(bare) - 1)
        expected = plain(d, expect["base"] * stretch ** (d / (d - 2)))
    else:
        expected = plain(d, expect["base"]) / np.array(find(row["config"], "long_factor"))
    encoding = rw.from_config(row["config"], sequence_length=length)
    np.testing.assert_allclose(encoding.inv_freq, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("row", REFUSED, ids=name_of)
def test_published_files_that_are_refused(row):
    with pytest.raises(rw.Error, match=row["refused"]):
        rw.from_config(row["config"], layer_type=row.get("layer_type"))


def test_enough_files_are_compared():
    assert len({row["name"] for row in ROWS}) >= 120
    assert len(READ) >= 120
    assert len(REFUSED) >= 10
    assert len({name_of(row) for row in ROWS}) == len(ROWS)
    assert all(row["source"] for row in ROWS)
