"""One encoding per batch row or per packed sequence."""

import numpy as np
import pytest
import ropewalk as rw
import torch
from checks import assert_refused
from rope_reference import LIBRARIES, arrange, assert_close, exact, make, plain, restore, rotate_exactly

PLAIN, HALF, THIRD = (rw.encoding(f"linear:{factor}", head_dim=32) for factor in (1, 2, 3))
ROWS = [HALF, HALF, THIRD, PLAIN]
FACTORS = [2, 2, 3, 1]
BOUNDS = [0, 3, 3, 7, 8]
OFFSETS = [10, 5, 0, -2]


def by_row(x, at):
    """The rows of a batch, each by its own encoding."""
    return np.stack([rotate_exactly(one, plain(32) / factor, where) for one, factor, where in zip(x, FACTORS, at)])


@pytest.mark.parametrize("given", [{}, {"offset": 5}, {"offset": OFFSETS}, {"positions": np.arange(20).reshape(4, 5)}])
@pytest.mark.parametrize("order", ["bshd", "bhsd", "sbhd"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_rows_of_a_batch(library, order, given):
    q, k = (arrange(make(library, "float32", (4, 5, heads, 32), heads), order) for heads in (4, 2))
    first = np.broadcast_to(given.get("offset", 0), 4)
    at = given.get("positions", first[:, None] + np.arange(5))
    expected = [by_row(restore(x, order), at) for x in (q, k)]
    results = rw.rotate(q, k, encoding=ROWS, order=order, **given)
    for ours, exactly in zip(results, expected):
        assert type(ours) is type(q)
        assert_close(restore(ours, order), exactly, "float32")
    single = rw.rotate(None, k, encoding=tuple(ROWS), order=order, **given)
    np.testing.assert_array_equal(exact(single), exact(results[1]))
    written = rw.rotate_(q, k, encoding=ROWS, order=order, **given)
    assert written[0] is q and written[1] is k
    for ours, exactly in zip(written, expected):
        assert_close(restore(ours, order), exactly, "float32")


@pytest.mark.parametrize("library", LIBRARIES)
def test_packed_sequences(library):
    q, k = (make(library, "float32", (8, heads, 32), heads) for heads in (4, 2))
    for offset in (0, 3, OFFSETS, np.array(OFFSETS), torch.tensor(OFFSETS)):
        ours = rw.rotate(q, k, encoding=ROWS, cu_seqlens=BOUNDS, offset=offset)
        for i, (start, end) in enumerate(zip(BOUNDS, BOUNDS[1:])):
            first = offset if isinstance(offset, int) else int(offset[i])
            for one, x in zip(ours, (q, k)):
                expected = rw.rotate(x[start:end], encoding=ROWS[i], offset=first)
                np.testing.assert_array_equal(exact(one[start:end]), exact(expected))
    out = q * 0, k * 0
    assert rw.rotate(q, k, encoding=ROWS, cu_seqlens=BOUNDS, out=out)[0] is out[0]
    np.testing.assert_array_equal(exact(out[0]), exact(rw.rotate(q, encoding=ROWS, cu_seqlens=BOUNDS)))


@pytest.mark.parametrize(
    ("shape", "change", "message"),
    [
        ((4, 5, 2, 32), {"encoding": ROWS[:3]}, "encoding has 3 entries for a batch of 4"),
        ((8, 2, 32), {}, "encoding has 4 entries for a batch of 1; packed sequences need cu_seqlens="),
        ((8, 2, 32), {"cu_seqlens": BOUNDS[1:]}, "encoding has 4 entries for 3 sequences of cu_seqlens"),
        (
            (8, 2, 32),
            {"cu_seqlens": [0, 3, 3, 7, 9]},
            r"ascend from 0 to the number of tokens 8, got \[0, 3, 3, 7, 9\]",
        ),
        ((8, 2, 32), {"cu_seqlens": BOUNDS, "offset": [1, 2]}, "offset has 2 entries for 4 sequences"),
        ((8, 2, 32), {"cu_seqlens": BOUNDS, "offset": [0, 0, 0, 2**63 - 1]}, "overflow 64-bit positions"),
        ((4, 5, 2, 32), {"encoding": []}, "encoding is empty"),
        ((4, 5, 2, 32), {"encoding": [*ROWS[:3], rw.encoding("default", head_dim=64)]}, "for sequence 3, .*64"),
        ((4, 5, 2, 32), {"encoding": [*ROWS[:3], rw.encoding("randomized:64", head_dim=32)]}, "draws positions"),
        ((4, 5, 2, 32), {"table": PLAIN.cos_sin(np.arange(9))}, "several encodings exclude table"),
        ((4, 5, 2, 32), {"k_offset": 3}, "several encodings exclude k_offset"),
        ((4, 5, 2, 32), {"positions": np.arange(15).reshape(3, 5)}, "3 rows for a batch"),
        ((4, 5, 2, 32), {"encoding": [*ROWS[:3], "linear:2"]}, "encoding must be a ropewalk.Encoding"),
    ],
)
@pytest.mark.parametrize("library", LIBRARIES)
def test_calls_that_do_not_fit_write_nothing(library, shape, change, message):
    q = make(library, "float32", shape)
    error = (rw.Error, TypeError)
    assert_refused(message, lambda: rw.rotate_(q, **{"encoding": ROWS, **change}), q, error=error)


def test_gradients_and_one_graph():
    x = make("torch", "float64", (4, 2, 1, 32)).requires_grad_()

    def call(x):
        return rw.rotate(x, encoding=ROWS, offset=OFFSETS)

    assert torch.autograd.gradcheck(call, x, fast_mode=True)
    assert torch.autograd.gradcheck(lambda x: rw.rotate_(x * 1, encoding=ROWS, offset=OFFSETS), x, fast_mode=True)
    packed = x.detach().flatten(0, 1).requires_grad_()
    given = {"encoding": ROWS, "cu_seqlens": BOUNDS, "offset": OFFSETS}
    assert torch.autograd.gradcheck(lambda x: rw.rotate(x, **given), packed, fast_mode=True)
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x.detach()), call(x.detach()))
    breaks = torch.compile(lambda x: rw.rotate(x, **given), backend="eager")  # bounds of sequences are no constants
    assert torch.equal(breaks(packed.detach()), rw.rotate(packed.detach(), **given))


def test_one_table_serves_several_encodings():
    """The way of vLLM, in one launch on a device: concatenated tables and shifted positions."""
    length = 32
    cache = np.concatenate([rw.cos_sin_cache(e, length) for e in (HALF, THIRD, PLAIN)])
    x = make("numpy", "float32", (4, 5, 2, 32))
    first_row = np.array([0, 0, 1, 2]) * length
    at = np.array([7, 0, 3, 9])[:, None] + np.arange(5)
    ours = rw.rotate(x, encoding=PLAIN, table=cache, positions=at + first_row[:, None])
    np.testing.assert_allclose(ours, rw.rotate(x, encoding=ROWS, positions=at), atol=2e-6)
