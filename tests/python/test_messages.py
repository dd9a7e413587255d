"""What is said of arguments of the wrong kind and of policies, and the package where there is no torch."""

import subprocess
import sys

import numpy as np
import pytest
import ropewalk as rw

ENCODING = rw.encoding("default", head_dim=64)


def q(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize("ids", [np.arange(11), np.tile(np.arange(11), (2, 1)), np.arange(9)])
def test_ids_name_every_token_and_no_other(ids):
    with pytest.raises(rw.Error, match=rf"positions has {ids.shape[-1]} entries for 10 tokens; set order="):
        rw.rotate(q(2, 10, 4, 64), encoding=ENCODING, positions=ids)


def test_heads_are_not_taken_for_tokens():
    ids = np.tile(np.arange(100), (2, 1))
    with pytest.raises(rw.Error, match="positions has 100 entries for 32 tokens"):
        rw.rotate(q(2, 32, 100, 64), encoding=ENCODING, positions=ids)
    rw.rotate(q(2, 32, 100, 64), encoding=ENCODING, positions=ids, order="bhsd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"new_positions": np.arange(9)}, "new_positions has 9 entries for 10 tokens"),
        ({"new_positions": np.arange(10), "new_offset": 5}, "new_positions and an offset exclude each other"),
        ({"offset": 2**63}, "offset must be an integer of 64 bits, got 9223372036854775808"),
    ],
)
def test_rerotate_names_the_argument(arguments, message):
    with pytest.raises(rw.Error, match=message):
        rw.rerotate_(q(10, 2, 64), old_encoding=ENCODING, new_encoding=rw.encoding("linear:2", 64), **arguments)


def test_rerotate_between_layouts():
    other = rw.encoding("default", 64, layout="interleaved")
    with pytest.raises(rw.Error, match="old_encoding is for half_split, but new_encoding is for interleaved"):
        rw.rerotate_(q(10, 2, 64), old_encoding=ENCODING, new_encoding=other)
    with pytest.raises(TypeError, match="offset must be an integer, got float"):
        rw.rerotate_(q(10, 2, 64), old_encoding=ENCODING, new_encoding=ENCODING, offset=1.5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"head_dim": 128.0}, TypeError, "head_dim must be an integer, got float"),
        ({"base": "1e4"}, TypeError, "base must be a number, got '1e4'"),
        ({"sequence_length": 1.5}, TypeError, "sequence_length must be an integer, got float"),
        ({"layout": None}, rw.Error, "layout must be 'half_split' or 'interleaved', got 'None'"),
        ({"head_dim": 2**70}, rw.Error, "head_dim must be an integer of 64 bits, got 1180591620717411303424"),
        ({"rotary_dim": 0}, rw.Error, "rotary_dim must be even and positive, got 0"),
    ],
)
def test_an_encoding_names_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        rw.encoding("linear:8", **{"head_dim": 128, **arguments})


def test_configurations_of_other_kinds(tmp_path):
    for wrong in (None, b"x", [], 3):
        with pytest.raises(TypeError, match=f"config must be a path, a dict or .* got {type(wrong).__name__}"):
            rw.from_config(wrong)
    with pytest.raises(rw.Error, match="policy is empty"):
        rw.from_config({"head_dim": 64, "rope_theta": 1e4}, policy="")
    path = tmp_path / "config.json"
    path.write_bytes(b'{"model_type": "\xff"}')
    with pytest.raises(rw.Error, match=r"config\.json is not UTF-8 text"):
        rw.from_config(path)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_temperature_is_finite(scale):
    with pytest.raises(rw.Error, match=f"scale must be finite, got {scale}"):
        rw.query_temperature([8192], scale=scale)


def test_reprs_of_infinity_are_python():
    assert repr(rw.XPos(scale_base=float("inf"))) == "XPos(scale_base=float('inf'))"


def test_without_torch():
    """All of the package but what works on models."""
    program = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import ropewalk as rw
from ropewalk import *
assert rw.inspect is inspect and "inspect" in dir(rw) and not hasattr(rw, "patch")
try:
    rw.patch
except AttributeError as problem:
    print(problem)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "ropewalk.patch needs torch, which is not installed"
