"""Which token is where: offsets, ids, ragged batches."""

import numpy as np
import pytest
import ropewalk as rw
import torch
from numpy.lib.stride_tricks import as_strided
from rope_reference import assert_close, exact, make, plain, turn

ENCODING = rw.encoding("default", head_dim=32)
THETA = plain(32)
IDS = [3, 1, 4, 1, -5, 9]


def kinds(values):
    """The same numbers in every form that is taken."""
    doubled = np.repeat(values, 2)
    return {
        "int64": np.array(values, np.int64),
        "int32": np.array(values, np.int32),
        "torch64": torch.tensor(values),
        "torch32": torch.tensor(values, dtype=torch.int32),
        "list": list(values),
        "tuple": tuple(values),
        "strided": doubled[::2],
        "strided32": torch.tensor(doubled, dtype=torch.int32)[::2],
        "reversed": np.array(values[::-1])[::-1],
        "odd address": np.frombuffer(b"x" + np.array(values, np.int64).tobytes(), np.int8)[1:].view(np.int64),
    }


@pytest.mark.parametrize("kind", list(kinds(IDS)))
def test_ids(kind):
    q = make("torch", "float32", (2, 6, 3, 32))
    turned = rw.rotate(q, encoding=ENCODING, positions=kinds(IDS)[kind])
    assert_close(exact(turned), turn(exact(q), THETA, np.array([IDS, IDS])), "float32")


def test_range():
    q = make("numpy", "float32", (6, 3, 32))
    turned = rw.rotate(q, encoding=ENCODING, positions=range(10, 22, 2))
    assert_close(turned[None], turn(q[None], THETA, np.arange(10, 22, 2)[None]), "float32")


@pytest.mark.parametrize("library", ["numpy", "torch", "list"])
def test_ids_of_each_row(library):
    q = make("numpy", "float32", (3, 6, 2, 32))
    ids = np.arange(18).reshape(6, 3).T  # [3, 6] whose last stride is 3
    given = {"numpy": ids, "torch": torch.from_numpy(ids), "list": ids.tolist()}[library]
    assert_close(rw.rotate(q, encoding=ENCODING, positions=given), turn(q, THETA, ids), "float32")


def test_expanded_ids():
    q = make("torch", "float32", (3, 6, 2, 32))
    ids = torch.arange(6)[None].expand(3, 6)
    expected = turn(exact(q), THETA, np.arange(6)[None])
    assert_close(exact(rw.rotate(q, encoding=ENCODING, positions=ids)), expected, "float32")


@pytest.mark.parametrize("kind", ["int32", "int64", "torch32", "torch64", "list", "strided"])
@pytest.mark.parametrize("offset", [0, 100])
def test_ragged(kind, offset):
    starts = [0, 3, 3, 10, 11]
    q, k = make("torch", "float32", (11, 4, 32), 1), make("torch", "float32", (11, 2, 32), 2)
    places = np.array([[0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 0]]) + offset
    turned = rw.rotate(q, k, encoding=ENCODING, cu_seqlens=kinds(starts)[kind], offset=offset)
    for ours, x in zip(turned, (q, k)):
        assert_close(exact(ours)[None], turn(exact(x)[None], THETA, places), "float32")


def test_offset_takes_whole_numbers_of_any_library():
    q = make("numpy", "float32", (2, 2, 32))
    expected = rw.rotate(q, encoding=ENCODING, offset=2**40)
    for offset in (np.int64(2**40), torch.tensor(2**40)):
        np.testing.assert_array_equal(rw.rotate(q, encoding=ENCODING, offset=offset), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positions": [1, 2, 3]}, "3 entries for 4 tokens"),
        ({"positions": [0.0, 1.0, 2.0, 3.0]}, r"positions float64 \[4\] .*expected int32 or int64"),
        ({"positions": np.zeros(4, np.int16)}, "positions int16"),
        ({"positions": np.zeros(4, np.uint64)}, "positions uint64"),
        ({"positions": torch.zeros(4)}, "positions torch.float32"),
        ({"positions": 5}, "got the number 5.*offset="),
        ({"positions": np.int64(5)}, r"positions int64 \[\]"),
        ({"positions": np.zeros((1, 1, 4), np.int64)}, r"\[1, 1, 4\].*expected \[tokens\] or \[batch, tokens\]"),
        ({"positions": np.zeros((3, 4), np.int64)}, "3 rows for a batch of 1"),
        ({"positions": [0, 1, 2, 3], "offset": 7}, "offset of 7"),
        ({"positions": [0, 1, 2, 3], "cu_seqlens": [0, 4]}, "either positions or cu_seqlens"),
        ({"cu_seqlens": [0, 3, 2, 4]}, "ascend, got 2 after 3 at entry 2"),
        ({"cu_seqlens": [1, 4]}, "begin with 0, got 1"),
        ({"cu_seqlens": [0, 3]}, "ends with 3 but there are 4 tokens"),
        ({"cu_seqlens": []}, "begin with 0, got nothing"),
        ({"cu_seqlens": np.zeros((2, 2), np.int64)}, r"expected \[sequences \+ 1\]"),
        ({"offset": 2**63 - 2}, "leave the 64-bit positions"),
        ({"positions": range(2**63, 2**63 + 4)}, "positions cannot be int32 or int64: .*too large"),
        ({"positions": as_strided(np.arange(4), (1, 4), (8, 2**62))}, "positions .*strides lead further than 2"),
    ],
)
def test_errors_write_nothing(arguments, message):
    q = make("numpy", "float32", (4, 2, 32))
    before = q.copy()
    with pytest.raises(rw.Error, match=message):
        rw.rotate_(q, encoding=ENCODING, **arguments)
    np.testing.assert_array_equal(q, before)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_rows_of_several_lengths(requires_grad):
    q = torch.zeros(2, 2, 2, 32, requires_grad=requires_grad)
    with pytest.raises(rw.Error, match=r"positions cannot be int32 or int64: .*inhomogeneous"):
        rw.rotate(q, encoding=ENCODING, positions=[[0, 1], [2]])
