"""Calls that consist of simpler ones: keys with positions of their own, sequences with offsets, packed q, k and v."""

import numpy as np
import pytest
import rope_reference as reference
import ropewalk as rw
import torch
from checks import assert_refused
from rope_reference import LIBRARIES, assert_close, exact, make, plain, rotate_exactly

ENCODING = rw.encoding("linear:2", head_dim=32)
THETA = plain(32) / 2
Q_IDS, K_IDS = [[7, 0, -3], [1, 2, 90]], [[5, 4, 3, 2, 1], [9, 9, 0, 7, 6]]


def cross(library, order="bshd", type_name="float32"):
    """q [2, 3, 4, 32] and k [2, 5, 2, 32]."""
    q, k = make(library, type_name, (2, 3, 4, 32), 1), make(library, type_name, (2, 5, 2, 32), 2)
    return reference.arrange(q, order), reference.arrange(k, order)


@pytest.mark.parametrize("mode", ["in_place", "new", "out"])
@pytest.mark.parametrize("order", ["bshd", "bhsd", "sbhd"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_keys_have_positions_of_their_own(library, order, mode):
    for q_at, k_at, given in (
        (Q_IDS, K_IDS, {"positions": Q_IDS, "k_positions": K_IDS}),
        ([9, 10, 11], range(5), {"offset": 9, "k_offset": 0}),
        ([9, 10, 11], K_IDS[0], {"offset": 9, "k_positions": np.array(K_IDS[0], np.uint8)}),
        ([2, 0, 4], [-6, -5, -4, -3, -2], {"positions": torch.tensor([2, 0, 4]), "k_offset": -6}),
    ):
        q, k = cross(library, order)
        expected = [rotate_exactly(reference.restore(x, order), THETA, at) for x, at in ((q, q_at), (k, k_at))]
        before = exact(q), exact(k)
        if mode == "in_place":
            result = rw.rotate_(q, k, encoding=ENCODING, order=order, **given)
            assert result[0] is q and result[1] is k
        else:
            out = (q * 0, k * 0) if mode == "out" else None
            result = rw.rotate(q, k, encoding=ENCODING, order=order, out=out, **given)
            assert mode == "new" or (result[0] is out[0] and result[1] is out[1])
            np.testing.assert_array_equal(exact(q), before[0])
            np.testing.assert_array_equal(exact(k), before[1])
        for ours, exactly in zip(result, expected):
            assert_close(reference.restore(ours, order), exactly, "float32")


def test_keys_of_a_longer_cache_by_xpos_a_table_and_the_inverse():
    encoding = rw.encoding("xpos:512", head_dim=32)
    q, k = cross("numpy")
    given = {"encoding": encoding, "offset": 100, "k_offset": 98}
    rotated = rw.rotate(q, k, **given)
    for ours, x, first, sign in zip(rotated, (q, k), (100, 98), (1, -1)):
        at = np.arange(first, first + x.shape[1])
        assert_close(ours, rotate_exactly(x, plain(32), at, magnitude=reference.xpos(32, sign)))
    for ours, x in zip(rw.rotate(*rotated, **given, inverse=True), (q, k)):
        np.testing.assert_allclose(ours, x, atol=2e-6)
    angle = np.arange(8)[:, None] * plain(32, 50.0)
    table = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    for ours, x, at in zip(
        rw.rotate(q, k, encoding=ENCODING, table=table, offset=5, k_positions=[7, 0, 1, 1, 6]),
        (q, k),
        ([5, 6, 7], [7, 0, 1, 1, 6]),
    ):
        assert_close(ours, rotate_exactly(x, plain(32, 50.0), at))


def test_gradients_flow_to_queries_and_keys_of_different_lengths():
    q, k = (make("torch", "float64", shape, 1).requires_grad_() for shape in ((1, 2, 2, 6), (1, 3, 1, 6)))
    encoding = rw.encoding("xpos:512", head_dim=6)
    assert torch.autograd.gradcheck(lambda q, k: rw.rotate(q, k, encoding=encoding, offset=3, k_offset=1), (q, k))
    q_new, k_new = rw.rotate_(q * 1, k * 1, encoding=encoding, offset=3, k_offset=1)
    for ours, new in zip(rw.rotate(q, k, encoding=encoding, offset=3, k_offset=1), (q_new, k_new)):
        assert new.requires_grad and torch.equal(ours, new)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "3 tokens of q and 5 of k.*k_positions= or k_offset="),
        ({"k_positions": [1, 2, 3]}, "k_positions has 3 entries for 5 tokens"),
        ({"k_positions": [0.0] * 5}, "k_positions float64"),
        ({"k_positions": range(5), "k_offset": 3}, "k_positions and an offset exclude each other.* offset of 3"),
        ({"positions": [1, 2], "k_offset": 3}, "positions has 2 entries for 3 tokens"),
        ({"k_offset": 2**63 - 3}, "overflow 64-bit positions"),
        ({"k": None, "k_offset": 0}, "k_positions and k_offset need q and k"),
        ({"q": None, "k_offset": 0}, "k_positions and k_offset need q and k"),
        ({"cu_seqlens": [0, 3], "k_offset": 0}, "cu_seqlens excludes k_positions"),
        ({"table": (np.ones((1, 5, 16), np.float32),) * 2, "k_offset": 0}, "row per token excludes"),
        ({"table": (np.ones((5, 16), np.float32),) * 2, "k_offset": 1}, "position 5 lies outside the table of 5 rows"),
        ({"k": np.zeros((3, 5, 2, 32), np.float32), "k_offset": 0}, "same batch, got 2 and 3"),
        ({"k": np.zeros((2, 5, 3, 32), np.float32), "k_offset": 0}, "multiple of those of k, got 4 and 3"),
        ({"k": np.zeros((2, 5, 2, 32), np.float16), "k_offset": 0}, "q is f32 but k is f16"),
        ({"k": np.zeros((2, 5, 2, 16), np.float32), "k_offset": 0}, "the encoding is for head_dim 32"),
    ],
)
def test_nothing_is_written_unless_both_calls_are_valid(change, message):
    q, k = cross("numpy")
    arguments = {"q": q, "k": k, "encoding": ENCODING, **change}
    written = [x for x in (arguments["q"], arguments["k"]) if x is not None]
    assert_refused(message, lambda: rw.rotate_(**arguments), *written)
    if change.get("q", True) is not None and change.get("k", True) is not None:
        out = q * 0, arguments["k"] * 0
        assert_refused(message, lambda: rw.rotate(**arguments, out=out), *out)


def test_queries_and_keys_that_share_memory_are_refused():
    memory = make("numpy", "float32", (2, 8, 2, 32))
    assert_refused(
        "q and k overlap", lambda: rw.rotate_(memory[:, :5], memory[:, 3:], encoding=ENCODING, k_offset=0), memory
    )
    read_only = memory[:, :5].copy()
    read_only.flags.writeable = False
    assert_refused("read-only", lambda: rw.rotate_(memory, read_only, encoding=ENCODING, k_offset=0), memory)
    rw.rotate_(memory[:, :3], memory[:, 3:], encoding=ENCODING, k_offset=0)


def test_expanded_keys_give_new_arrays():
    q, k = torch.randn(3, 4, 32), torch.randn(5, 1, 32).expand(-1, 2, -1)
    given = {"encoding": ENCODING, "offset": 4, "k_offset": 9}
    results = rw.rotate(q, k, **given)
    assert torch.equal(results[0], rw.rotate(q, encoding=ENCODING, offset=4))
    assert torch.equal(results[1], rw.rotate(None, k, encoding=ENCODING, offset=9))
    assert_refused("share memory along the head axis, so it cannot be written", lambda: rw.rotate_(q, k, **given), q)


BOUNDS, OFFSETS = [0, 3, 3, 7, 8], [10, 5, 0, -2]
AT = [10, 11, 12, 0, 1, 2, 3, -2]


@pytest.mark.parametrize("library", LIBRARIES)
def test_padding_after_the_last_sequence_keeps_its_values(library):
    q = make(library, "float32", (11, 4, 32))
    for offset, at in ((0, [0, 1, 2, 0, 1, 2, 3, 0]), (6, [6, 7, 8, 6, 7, 8, 9, 6]), (OFFSETS, AT)):
        ours = rw.rotate(q, encoding=ENCODING, cu_seqlens=BOUNDS, padded_tail=True, offset=offset)
        assert_close(ours[:8], rotate_exactly(q[:8], THETA, at))
        np.testing.assert_array_equal(exact(ours[8:]), exact(q[8:]))
    np.testing.assert_array_equal(exact(rw.rotate(q, encoding=ENCODING, cu_seqlens=[0], padded_tail=True)), exact(q))
    whole = rw.rotate(q, encoding=ENCODING, cu_seqlens=[0, 4, 11], padded_tail=True)
    np.testing.assert_array_equal(exact(whole), exact(rw.rotate(q, encoding=ENCODING, cu_seqlens=[0, 4, 11])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cu_seqlens": [0, 3]}, "ends with 3 but there are 4 tokens; .*padded_tail=True"),
        ({"cu_seqlens": [0, 3], "offset": [1]}, "ends with 3 but there are 4 tokens; .*padded_tail=True"),
        ({"cu_seqlens": [0, 5], "padded_tail": True}, "ends with 5 but there are 4 tokens"),
        ({"cu_seqlens": [1, 4], "offset": [1]}, "begin with 0, got 1"),
        ({"cu_seqlens": [0, 3, 2, 4], "offset": [1, 2, 3]}, "ascend, got 2 after 3 at entry 2"),
        ({"cu_seqlens": [0, 3], "offset": [1, 2], "padded_tail": True}, r"offset \[2\]: .*each of the 1 sequences"),
        ({"cu_seqlens": [0, 3], "offset": [1.0], "padded_tail": True}, r"offset float64 \[1\]: expected int64"),
        ({"cu_seqlens": [0.0, 4.0], "offset": [1]}, "cu_seqlens float64"),
        ({"cu_seqlens": np.array([0, 4], np.uint64), "offset": [1]}, "cu_seqlens uint64"),
        ({"cu_seqlens": np.zeros((2, 2), int), "offset": [1]}, r"cu_seqlens .*\[2, 2\].*: expected \[sequences \+ 1\]"),
        ({"cu_seqlens": [], "padded_tail": True}, r"cu_seqlens (float64 )?\[0\]: expected"),
        ({"padded_tail": True}, "padded_tail needs cu_seqlens"),
        ({"cu_seqlens": [0, 4], "positions": [0, 1, 2, 3], "offset": [1]}, "positions and cu_seqlens exclude"),
        ({"cu_seqlens": [0, 2], "order": "bshd", "padded_tail": True}, r"packed tokens .* got \[4, 2, 32\]"),
    ],
)
@pytest.mark.parametrize("library", LIBRARIES)
def test_sequences_that_do_not_fit_write_nothing(library, arguments, message):
    q = make(library, "float32", (4, 2, 32))
    assert_refused(message, lambda: rw.rotate_(q, encoding=ENCODING, **arguments), q)


@pytest.mark.parametrize("order", ["t3hd", "bs3hd", "b3hsd", "sb3hd", "3bhsd"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_packed_queries_keys_and_values(library, order):
    inner, axis = order.replace("3", ""), order.index("3")
    parts = [
        reference.arrange(make(library, "bfloat16", (1 if order == "t3hd" else 2, 5, 4, 32), i), inner)
        for i in range(3)
    ]
    qkv = torch.stack(parts, axis) if library == "torch" else np.stack(parts, axis)
    before = exact(qkv)
    new = rw.rotate(qkv, encoding=ENCODING, offset=7, order=order)
    np.testing.assert_array_equal(exact(qkv), before)
    assert rw.rotate_(qkv, encoding=ENCODING, offset=7, order=order) is qkv
    assert new.dtype == qkv.dtype and new.shape == qkv.shape
    np.testing.assert_array_equal(exact(new), exact(qkv))
    q, k, v = np.moveaxis(exact(qkv), axis, 0)
    for ours, x in zip((q, k), parts):
        expected = rotate_exactly(reference.restore(x, inner), THETA, np.arange(7, 12))
        assert_close(reference.restore(ours, inner), expected, "bfloat16")
    np.testing.assert_array_equal(v, exact(parts[2]))


@pytest.mark.parametrize("library", LIBRARIES)
def test_one_token_and_one_head(library):
    x = make(library, "float32", (5, 32))
    assert_close(rw.rotate(x, encoding=ENCODING, order="hd", offset=9), rotate_exactly(x[None], THETA, [9])[0])
    expected = rotate_exactly(x[:, None], THETA, np.arange(9, 14))[:, 0]
    assert_close(rw.rotate(x, encoding=ENCODING, order="td", offset=9), expected)
    if library == "torch":
        started = rw.rotate(x.clone().requires_grad_(), encoding=ENCODING, order="hd", offset=torch.tensor(9))
        assert_close(started, rotate_exactly(x[None], THETA, [9])[0])
    q, k = rw.rotate_(x * 1, x[:1] * 1, encoding=ENCODING, order="hd", positions=[4])
    assert_close(q, rotate_exactly(x[None], THETA, [4])[0])
    assert_close(k, rotate_exactly(x[None, :1], THETA, [4])[0])


@pytest.mark.parametrize(
    ("shape", "change", "message"),
    [
        ((4, 32), {}, "2 axes, expected .*order='hd' .*'td'"),
        ((2, 4, 3, 2, 32), {}, "5 axes, expected .*order='bs3hd'"),
        ((2, 4, 2, 2, 32), {"order": "bs3hd"}, r"q \[2, 4, 2, 2, 32\] must have 5 axes .*axis 2 must be 3"),
        ((4, 3, 2, 32), {"order": "bs3hd"}, "must have 5 axes"),
        ((4, 3, 2, 32), {"order": "thd3"}, "order must be one of .*got 'thd3'"),
        ((4, 3, 2, 32), {"order": "t33d"}, "order must be one of .*got 't33d'"),
        ((4, 3, 2, 32), {"order": "t3hd", "k": np.zeros((4, 3, 2, 32), np.float32)}, "q, k and v as one array"),
        ((4, 3, 2, 32), {"order": "t3hd", "k_offset": 0}, "q, k and v as one array"),
        ((4, 3, 2, 16), {"order": "t3hd"}, "the encoding is for head_dim 32"),
        ((4, 2, 32), {"order": "dht"}, "order must be 'thd', .*'hd' or 'td', or .* with a 3 .*got 'dht'"),
    ],
)
def test_orders_that_do_not_fit_write_nothing(shape, change, message):
    q = make("numpy", "float32", shape)
    assert_refused(message, lambda: rw.rotate_(q, encoding=ENCODING, **change), q)


def test_gradients_of_packed_arrays_and_of_sequences_with_offsets():
    encoding = rw.encoding("linear:2", head_dim=6)
    qkv = make("torch", "float64", (4, 3, 2, 6)).requires_grad_()
    given = {"encoding": encoding, "cu_seqlens": torch.tensor([0, 2, 3]), "offset": torch.tensor([5, 1])}
    assert torch.autograd.gradcheck(lambda x: rw.rotate(x, order="t3hd", padded_tail=True, **given), qkv)
    written = rw.rotate_(qkv * 1, order="t3hd", padded_tail=True, **given)
    written.backward(torch.ones_like(written))
    assert torch.equal(qkv.grad[:, 2], torch.ones(4, 2, 6, dtype=torch.float64))
    expected = rotate_exactly(np.ones((4, 2, 6)), plain(6) / 2, [-5, -6, -1, 0])
    np.testing.assert_allclose(qkv.grad[:, 0], expected, atol=1e-12)


def test_compiled_calls_make_one_graph():
    bounds, offsets = torch.tensor([0, 3, 6]), torch.tensor([4, 2])

    def attend(qkv, q, k):
        packed = rw.rotate(qkv, encoding=ENCODING, cu_seqlens=bounds, offset=offsets, padded_tail=True, order="t3hd")
        written = rw.rotate_(qkv.clone(), encoding=ENCODING, order="t3hd")
        return packed, written, *rw.rotate(q, k, encoding=ENCODING, k_positions=torch.arange(5) * 2)

    arguments = make("torch", "float32", (8, 3, 2, 32), 3), *cross("torch")
    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    for ours, expected in zip(compiled(*arguments), attend(*arguments)):
        assert torch.equal(ours, expected)
