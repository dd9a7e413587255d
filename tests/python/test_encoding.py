"""Encodings and policies as Python objects."""

import copy
import pickle

import numpy as np
import pytest
import ropewalk as rw
import torch
from checks import assert_refused
from rope_reference import LAYOUTS, plain


def test_attributes():
    encoding = rw.encoding("linear:8", head_dim=128, base=500000.0)
    np.testing.assert_allclose(encoding.inv_freq, plain(128, 500000.0) / 8, rtol=1e-15)
    assert encoding.inv_freq.dtype == np.float64 and encoding.inv_freq.shape == (64,)
    assert encoding.steps.dtype == np.uint64
    np.testing.assert_allclose(encoding.steps / 2.0**64, encoding.inv_freq / (2 * np.pi), rtol=1e-12)
    assert encoding.attention_factor == 1.0 and encoding.stage == 0
    assert (encoding.head_dim, encoding.rotary_dim, encoding.rotary_offset) == (128, 128, 0)
    assert (encoding.base, encoding.layout, encoding.sequence_length) == (500000.0, "half_split", None)
    assert encoding.expression == "linear:8" and encoding.policy == rw.Linear(8)
    with pytest.raises(AttributeError):
        encoding.base = 1.0


def test_frequencies_are_a_copy():
    encoding = rw.encoding("default", head_dim=8)
    encoding.inv_freq[:] = 0
    encoding.steps[:] = 0
    assert encoding.inv_freq[0] == 1 and encoding.steps[0] != 0


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [
        (rw.encoding("linear:8", head_dim=128), '"linear:8", head_dim=128, base=10000.0, layout="half_split"'),
        (
            rw.encoding(rw.Linear(4) | rw.Truncated(4096), 64, 1e6, 32, 16, "interleaved", 8192),
            '"linear:4|truncated:4096", head_dim=64, base=1000000.0, rotary_dim=32, '
            'rotary_offset=16, layout="interleaved", sequence_length=8192',
        ),
    ],
)
def test_repr_pickle_and_equality(encoding, arguments):
    text = f"ropewalk.Encoding({arguments})"
    assert repr(encoding) == text
    again = eval(text, {"ropewalk": rw})
    for other in (again, pickle.loads(pickle.dumps(encoding)), copy.deepcopy(encoding)):
        assert other == encoding and hash(other) == hash(encoding) and repr(other) == text
        np.testing.assert_array_equal(other.steps, encoding.steps)
    assert encoding != rw.encoding("default", head_dim=8) and encoding != "linear:8"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        (rw.encoding("linear:8", head_dim=128), "linear:8 (head_dim 128, base 10000, half_split)"),
        (
            rw.encoding("default", 64, 1e6, 32, 16, "interleaved", 8192),
            "default (head_dim 64, rotary_dim 32, rotary_offset 16, base 1000000, interleaved, sequence_length 8192)",
        ),
        (
            rw.encoding(rw.LongRope([1.5] * 63 + [2.25], original_length=4096), head_dim=128),
            "longrope:[1.5,...,2.25],original_length=4096 (head_dim 128, base 10000, half_split)",
        ),
    ],
)
def test_str_is_one_short_line(encoding, text):
    assert str(encoding) == f"{encoding}" == text


def test_every_policy_is_a_class():
    import ropewalk._ropewalk as module

    assert rw.policies() == [policy.name for policy in module.policy_classes]
    assert {"default", "linear", "power", "truncated", "xpos", "randomized", "randomized_sorted"} <= set(rw.policies())
    for policy in module.policy_classes:
        assert getattr(rw, policy.__name__) is policy and policy.__name__ in rw.__all__
        assert policy.__module__ == "ropewalk" and policy.__name__.lower().startswith(policy.name.replace("_", ""))
        example = policy.example()
        assert rw.policy(str(example)) == example and isinstance(example, rw.Policy)
        assert type(rw.policy(policy.name)) is policy


@pytest.mark.parametrize(
    "policy",
    [rw.Linear, rw.Power, rw.Ntk, rw.DynamicNtk, rw.Yarn, rw.Proportional, rw.RandomizedSorted, rw.MRope],
)
def test_a_policy_without_a_natural_default_needs_its_parameter(policy):
    with pytest.raises(TypeError, match="incompatible constructor arguments"):
        policy()
    with pytest.raises(rw.Error, match=f"{policy.name} needs .*: write {policy.name}:"):
        rw.encoding(policy.name, head_dim=128)


@pytest.mark.parametrize(
    ("policy", "text", "expression"),
    [
        (rw.Default(), "Default()", "default"),
        (rw.Linear(8), "Linear(factor=8.0)", "linear:8"),
        (rw.Linear(factor=2.5), "Linear(factor=2.5)", "linear:2.5"),
        (rw.Power(k=0.1), "Power(k=0.1)", "power:0.1"),
        (rw.Truncated(length=4096), "Truncated(length=4096.0)", "truncated:4096"),
        (rw.Truncated(a=0, b=0.5, rho=0.25), "Truncated(a=0.0, b=0.5, rho=0.25)", "truncated:a=0,b=0.5,rho=0.25"),
        (rw.XPos(), "XPos(scale_base=512.0)", "xpos"),
        (rw.XPos(256, length=8192), "XPos(scale_base=256.0, length=8192)", "xpos:256,length=8192"),
        (rw.Randomized(16384, seed=1), "Randomized(length=16384, seed=1)", "randomized:16384,seed=1"),
        (rw.Linear(8) | rw.Truncated(4096), "Linear(factor=8.0) | Truncated(length=4096.0)", "linear:8|truncated:4096"),
        ("linear:8" | rw.Truncated(4096) | "xpos", None, "linear:8|truncated:4096|xpos"),
    ],
)
def test_policy_objects(policy, text, expression):
    assert str(policy) == expression
    if text is not None:
        assert repr(policy) == text
        assert eval(text, vars(rw)) == policy
    for other in (rw.policy(expression), pickle.loads(pickle.dumps(policy)), copy.copy(policy)):
        assert other == policy and hash(other) == hash(policy) and type(other) is type(policy)
    assert policy != rw.Linear(3) and policy != expression


def test_parameters_are_read_only():
    policy = rw.Truncated(length=4096)
    assert policy.length == 4096.0 and policy.a is None and rw.Linear(8).factor == 8.0
    with pytest.raises(AttributeError):
        policy.length = 1
    with pytest.raises(TypeError, match="factr"):
        rw.Linear(factr=8)
    with pytest.raises(TypeError):
        rw.Randomized(length=1.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("linear:-8", 128), "factor must be a positive number, got -8"),
        (("linear:nan", 128), "got nan"),
        (("linaer:8", 128), "unknown policy 'linaer'.*did you mean 'linear'.*\n  linaer:8\n  \\^"),
        (("linear:8|", 128), "expected the name of a policy, got the end"),
        (("default", 0), "head_dim must be positive, got 0"),
        (("default", 127), "even and positive, got 127"),
        (("default", 2**40), "rotary_dim must not exceed 65536, got 1099511627776"),
        (("default", 64, 10000.0, 128), "exceeds head_dim 64"),
        (("default", 64, 10000.0, 0), "even and positive, got 0"),
        (("default", 64, 1.0), "base must be .* got 1"),
        (("default", 64, 10000.0, None, 0, "gptj"), "'half_split' or 'interleaved', got 'gptj'"),
        (("xpos:512,length=100000", 128), "length must not exceed 71388 tokens .*, got 100000"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(rw.Error, match=message):
        rw.encoding(*arguments)
    assert issubclass(rw.Error, ValueError)


def test_a_number_is_not_a_policy():
    with pytest.raises(TypeError, match=r"'linear:8'.*ropewalk.Linear\(8\), got int"):
        rw.encoding(8, head_dim=128)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cos_sin(layout):
    encoding = rw.encoding("xpos:512", head_dim=64, layout=layout)
    positions = np.array([0, 1, -7, 100000], np.int64)
    angle = positions[:, None] * plain(64)
    for given in (positions, positions.astype(np.int32), positions.tolist()):
        cos, sin = encoding.cos_sin(given)
        assert cos.shape == sin.shape == (4, 32) and cos.dtype == sin.dtype == np.float32
        np.testing.assert_allclose(cos, np.cos(angle), rtol=0, atol=1.2e-7)
        np.testing.assert_allclose(sin, np.sin(angle), rtol=0, atol=1.2e-7)
    elementwise, of_torch = encoding.cos_sin(positions, elementwise=True), encoding.cos_sin(torch.from_numpy(positions))
    for x, wide, tensor in zip((cos, sin), elementwise, of_torch):
        np.testing.assert_array_equal(wide, np.tile(x, 2) if layout == "half_split" else np.repeat(x, 2, 1))
        np.testing.assert_array_equal(tensor.numpy(), x, strict=True)
    assert encoding.cos_sin([])[0].shape == (0, 32)


@pytest.mark.parametrize("positions", [np.zeros(3), None, [[0, 1]], 5])
def test_cos_sin_refuses_other_positions(positions):
    with pytest.raises(rw.Error, match="positions"):
        rw.encoding("default", head_dim=8).cos_sin(positions)


def test_cos_sin_at_the_largest_int32():
    """The oracle computes cos(2147483647) with 40 digits."""
    from mpmath import mp

    cos, sin = rw.encoding("default", head_dim=2).cos_sin([2**31 - 1, -(2**31) + 1])
    mp.dps = 40
    exact_cos, exact_sin = float(mp.cos(2**31 - 1)), float(mp.sin(2**31 - 1))
    np.testing.assert_allclose(cos[:, 0], [exact_cos, exact_cos], rtol=0, atol=1.2e-7)
    np.testing.assert_allclose(sin[:, 0], [exact_sin, -exact_sin], rtol=0, atol=1.2e-7)


def test_max_position():
    encoding = rw.encoding("xpos:512", head_dim=128)
    half = encoding.max_position("float16")
    assert 4500 < half < 4560
    assert half == encoding.max_position(np.float16) == encoding.max_position(torch.float16)
    single = encoding.max_position(np.dtype("float32"))
    assert 35000 < single < 36260 and single == encoding.max_position(torch.bfloat16)
    q = torch.ones(1, 1, 128, dtype=torch.float16)
    rw.rotate_(q, encoding=encoding, offset=half)
    message = f"cannot hold position {half + 1} in f16"
    assert_refused(message, lambda: rw.rotate_(q, encoding=encoding, offset=half + 1), q)
    assert rw.encoding("default", head_dim=128).max_position("bf16") == 2**61
    with pytest.raises(rw.Error, match="got int8"):
        encoding.max_position("int8")
