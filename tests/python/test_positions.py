"""Positions of tokens: offsets, ids and ragged batches."""

import numpy as np
import pytest
import ropewalk as rw
import torch
from checks import assert_refused
from numpy.lib.stride_tricks import as_strided
from rope_reference import assert_close, exact, make, plain, rotate_exactly

ENCODING = rw.encoding("default", head_dim=32)
THETA = plain(32)
IDS = [3, 1, 4, 1, -5, 9]


def spellings(values):
    """The same numbers in every accepted form."""
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


IDS_OF_EACH_ROW = np.arange(18).reshape(6, 3).T  # [3, 6], the last stride is 3
SHARED_IDS = {**spellings(IDS), "range": range(10, 22, 2), "expanded": torch.arange(6)[None].expand(3, 6)}
ROW_IDS = {"numpy": IDS_OF_EACH_ROW, "torch": torch.from_numpy(IDS_OF_EACH_ROW), "list": IDS_OF_EACH_ROW.tolist()}


@pytest.mark.parametrize(
    "ids", [*SHARED_IDS.values(), *ROW_IDS.values()], ids=[*SHARED_IDS, *map("{} rows".format, ROW_IDS)]
)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_ids(library, ids):
    q = make(library, "float32", (3, 6, 2, 32))
    assert_close(rw.rotate(q, encoding=ENCODING, positions=ids), rotate_exactly(q, THETA, ids))


@pytest.mark.parametrize("type_name", ["int8", "int16", "uint8", "uint16", "uint32"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_other_integers(library, type_name):
    """The largest and the smallest number of each type, in rows and with strides."""
    limits = np.iinfo(type_name)
    ids = np.array([[limits.max, 0, 1, limits.max - 1], [limits.min, 7, limits.max, 3]], type_name)
    starts = np.array([0, 3, 3, 4], type_name)
    if library == "torch":
        ids, starts = torch.from_numpy(ids), torch.from_numpy(starts)
    q = make(library, "float64", (2, 4, 2, 32))
    # Multiples of 2 pi are as exact in the reference as the angle of the largest number, 2^32 radians.
    for given in (ids, ids[:, ::2], ids[::-1] if library == "numpy" else ids[1:]):
        x = q[: len(given), : given.shape[1]]
        np.testing.assert_allclose(
            rw.rotate(x, encoding=ENCODING, positions=given), rotate_exactly(x, THETA, given.tolist()), atol=1e-5
        )
        wide = rw.rotate(x, encoding=ENCODING, positions=given.tolist())
        np.testing.assert_array_equal(exact(rw.rotate(x, encoding=ENCODING, positions=given)), exact(wide))
    ragged = rw.rotate(q[0], encoding=ENCODING, cu_seqlens=starts)
    assert_close(ragged, rotate_exactly(q[0], THETA, [0, 1, 2, 0]))
    for ours, function in zip(ENCODING.cos_sin(ids[0]), (np.cos, np.sin)):
        np.testing.assert_allclose(ours, function(exact(ids[0])[:, None] * THETA), atol=1e-5)


@pytest.mark.parametrize("spelling", ["int32", "int64", "torch32", "torch64", "list", "strided"])
@pytest.mark.parametrize("offset", [0, 100])
def test_ragged(spelling, offset):
    starts = spellings([0, 3, 3, 10, 11])[spelling]
    q, k = make("torch", "float32", (11, 4, 32), 1), make("torch", "float32", (11, 2, 32), 2)
    positions = np.array([0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 0]) + offset
    for ours, x in zip(rw.rotate(q, k, encoding=ENCODING, cu_seqlens=starts, offset=offset), (q, k)):
        assert_close(ours, rotate_exactly(x, THETA, positions))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positions": [1, 2, 3]}, "3 entries for 4 tokens; set order="),
        (
            {"positions": [0.0, 1.0, 2.0, 3.0]},
            r"positions float64 \[4\] .*expected int64, or integers of at most 32 bits",
        ),
        ({"positions": np.zeros(4, bool)}, "positions bool"),
        ({"positions": np.zeros(4, ">i2")}, "positions >i2"),
        ({"positions": np.zeros(4, np.uint64)}, "positions uint64"),
        ({"positions": torch.zeros(4)}, "positions torch.float32"),
        ({"positions": 5}, "got the number 5; .*offset="),
        ({"positions": np.int64(5)}, r"positions int64 \[\]"),
        ({"positions": np.zeros((1, 1, 4), np.int64)}, r"\[1, 1, 4\].*expected \[tokens\] or \[batch, tokens\]"),
        ({"positions": np.zeros((3, 4), np.int64)}, "3 rows for a batch of 1"),
        ({"positions": [0, 1, 2, 3], "offset": 7}, "offset of 7"),
        ({"positions": [0, 1, 2, 3], "cu_seqlens": [0, 4]}, "positions and cu_seqlens exclude each other"),
        ({"cu_seqlens": [0, 3, 2, 4]}, "ascend, got 2 after 3 at entry 2"),
        ({"cu_seqlens": [1, 4]}, "begin with 0, got 1"),
        ({"cu_seqlens": [0, 3]}, "ends with 3 but there are 4 tokens"),
        ({"cu_seqlens": []}, "begin with 0, got nothing"),
        ({"cu_seqlens": np.zeros((2, 2), np.int64)}, r"expected \[sequences \+ 1\]"),
        ({"offset": 2**63 - 2}, "overflow 64-bit positions"),
        ({"positions": range(2**63, 2**63 + 4)}, "positions cannot be int64: .*too large"),
        ({"positions": as_strided(np.arange(4), (1, 4), (8, 2**62))}, "positions .*must span at most 2"),
    ],
)
def test_errors_write_nothing(arguments, message):
    q = make("numpy", "float32", (4, 2, 32))
    assert_refused(message, lambda: rw.rotate_(q, encoding=ENCODING, **arguments), q)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_rows_of_different_lengths_are_refused(requires_grad):
    q = torch.zeros(2, 2, 2, 32, requires_grad=requires_grad)
    with pytest.raises(rw.Error, match=r"positions cannot be int64: .*inhomogeneous"):
        rw.rotate(q, encoding=ENCODING, positions=[[0, 1], [2]])


MANY = 2**40  # entries whose copy would need more memory than a machine has


def far_too_many(*shape, dtype=np.int64):
    return np.broadcast_to(np.zeros(1, dtype), shape)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("default", {"positions": far_too_many(MANY)}, f"positions has {MANY} entries for 4 tokens"),
        ("default", {"positions": far_too_many(MANY, dtype=np.int8)}, f"positions has {MANY} entries for 4 tokens"),
        ("default", {"positions": range(MANY)}, f"positions has {MANY} entries for 4 tokens"),
        ("default", {"positions": [0] * 1000}, "positions has 1000 entries for 4 tokens"),
        ("default", {"positions": far_too_many(MANY, 4, dtype=np.int8)}, f"positions has {MANY} rows for a batch of 1"),
        ("mrope:[6,5,5]", {"positions": far_too_many(MANY, 1, 4, dtype=np.int8)}, r"needs \[tokens\]"),
        ("mrope:[6,5,5]", {"positions": far_too_many(3, 1, MANY)}, f"positions has {MANY} entries for 4 tokens"),
        ("default", {"cu_seqlens": far_too_many(MANY)}, "cu_seqlens ends with 0 but there are 4 tokens"),
        ("default", {"cu_seqlens": far_too_many(MANY, dtype=np.uint8)}, "cu_seqlens ends with 0 but"),
        ("default", {"cu_seqlens": np.broadcast_to(np.int64(4), MANY)}, "cu_seqlens must begin with 0, got 4"),
        ("default", {"cu_seqlens": range(MANY)}, f"cu_seqlens has {MANY} entries for 4 tokens"),
    ],
)
def test_counts_are_compared_before_a_copy(name, arguments, message):
    q = make("numpy", "float32", (4, 2, 32))
    encoding = rw.encoding(name, head_dim=32)
    assert_refused(message, lambda: rw.rotate_(q, encoding=encoding, **arguments), q)
    if "positions" in arguments:
        assert_refused(message, lambda: rw.rerotate_(q, encoding, encoding, **arguments), q)
        x = torch.zeros(4, 2, 32, requires_grad=True)
        with pytest.raises(rw.Error, match=r"positions has 10.* entries"):
            rw.rotate(x, encoding=encoding, **arguments)


def test_repeated_rows_and_axes_are_copied_once():
    """Broadcast int8 positions give the result of int64 ones."""
    q = make("numpy", "float32", (2, 4, 2, 32))
    ids = np.array([3, 1, 4, 1], np.int8)
    mrope = rw.encoding("mrope:[6,5,5]", head_dim=32)
    for encoding, shape in (
        (ENCODING, (2, 4)),
        (ENCODING, (1, 4)),
        (mrope, (3, 2, 4)),
        (mrope, (3, 1, 4)),
        (mrope, (1, 2, 4)),
    ):
        narrow = np.broadcast_to(ids, shape)
        ours = rw.rotate(q, encoding=encoding, positions=narrow)
        np.testing.assert_array_equal(ours, rw.rotate(q, encoding=encoding, positions=narrow.astype(np.int64)))
        assert_close(ours, rotate_exactly(q, THETA, ids.tolist()))


def test_many_empty_sequences():
    x = np.zeros((0, 2, 32), np.float32)
    assert rw.rotate(x, encoding=ENCODING, cu_seqlens=far_too_many(MANY)).shape == x.shape
