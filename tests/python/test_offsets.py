"""One offset per batch row or per packed sequence."""

import copy

import numpy as np
import pytest
import ropewalk as rw
import torch
from checks import assert_refused
from rope_reference import LIBRARIES, arrange, assert_close, exact, make, plain, restore, rotate_exactly, xpos

ENCODING = rw.encoding("linear:2", head_dim=32)
THETA = plain(32) / 2
ROWS = [7, -3, 900]
AT = [[first + t for t in range(4)] for first in ROWS]
BOUNDS, OFFSETS = [0, 3, 3, 7, 8], [10, 5, 0, -2]
PACKED_AT = [10, 11, 12, 0, 1, 2, 3, -2]
SPELLINGS = {
    "list": list,
    "tuple": tuple,
    "numpy": np.array,
    "int16": lambda x: np.array(x, np.int16),
    "int32": lambda x: np.array(x, np.int32),
    "strided": lambda x: np.repeat(np.array(x), 2)[::2],
    "torch": torch.tensor,
    "torch int32": lambda x: torch.tensor(x, dtype=torch.int32),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("order", ["bshd", "bhsd", "sbhd"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_batch_row_has_an_offset(library, order, spelling):
    q, k = (make(library, "float32", (3, 4, heads, 32), heads) for heads in (4, 2))
    q, k = arrange(q, order), arrange(k, order)
    given = {"encoding": ENCODING, "order": order, "offset": SPELLINGS[spelling](ROWS)}
    for ours, x in zip(rw.rotate(q, k, **given), (q, k)):
        assert_close(restore(ours, order), rotate_exactly(restore(x, order), THETA, AT), "float32")
    expected = exact(rw.rotate(q, **given))
    assert rw.rotate_(q, **given) is q
    np.testing.assert_array_equal(exact(q), expected)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_sequence_has_an_offset(library, spelling):
    q, k = (make(library, "float32", (8, heads, 32), heads) for heads in (4, 2))
    given = {"encoding": ENCODING, "cu_seqlens": BOUNDS, "offset": SPELLINGS[spelling](OFFSETS)}
    for ours, x in zip(rw.rotate(q, k, **given), (q, k)):
        assert_close(ours, rotate_exactly(x, THETA, PACKED_AT))


@pytest.mark.parametrize("one", [[6], np.array([6]), torch.tensor([6]), torch.tensor(6), np.int64(6), np.array(6)])
def test_one_entry_is_shared(one):
    packed, batch = make("torch", "float32", (8, 4, 32)), make("torch", "float32", (3, 4, 2, 32))
    for x, given in ((packed, {"cu_seqlens": BOUNDS}), (packed, {}), (batch, {})):
        ours = rw.rotate(x, encoding=ENCODING, offset=one, **given)
        assert torch.equal(ours, rw.rotate(x, encoding=ENCODING, offset=6, **given))


def test_magnitudes_tables_drawn_positions_and_rerotation():
    x = make("numpy", "float32", (3, 4, 2, 32))
    encoding = rw.encoding("xpos:512", head_dim=32)
    expected = rotate_exactly(x, plain(32), AT, magnitude=xpos(32, 1))
    assert_close(rw.rotate(x, encoding=encoding, offset=ROWS), expected)
    cos, sin = ENCODING.cos_sin(np.arange(1000))
    ids = np.array(AT) + 3
    ours = rw.rotate(x, encoding=ENCODING, table=(cos, sin), offset=np.array(ROWS) + 3)
    np.testing.assert_array_equal(ours, rw.rotate(x, encoding=ENCODING, table=(cos, sin), positions=ids))
    drawn = rw.encoding("randomized:2048", head_dim=32, sequence_length=1024)
    ours = rw.rotate(x, encoding=drawn, offset=[7, 0, 900])
    np.testing.assert_array_equal(
        ours, rw.rotate(x, encoding=drawn, positions=[[f, f + 1, f + 2, f + 3] for f in (7, 0, 900)])
    )
    moved = rw.rotate(x, encoding=ENCODING, offset=ROWS)
    rw.rerotate_(moved, ENCODING, ENCODING, offset=ROWS, new_offset=[1, 2, 3])
    np.testing.assert_allclose(moved, rw.rotate(x, encoding=ENCODING, offset=[1, 2, 3]), atol=2e-6)
    q, k = rw.rotate(x, x[:, :3], encoding=ENCODING, offset=ROWS, k_offset=torch.tensor([5, 6, 7]))
    np.testing.assert_array_equal(q, rw.rotate(x, encoding=ENCODING, offset=ROWS))
    np.testing.assert_array_equal(k, rw.rotate(x[:, :3], encoding=ENCODING, offset=[5, 6, 7]))


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((3, 4, 2, 32), {"offset": [1, 2]}, "offset has 2 entries for 3 batch rows"),
        ((3, 4, 2, 32), {"offset": range(10**12)}, "offset has 1000000000000 entries for 3 batch rows"),
        ((4, 2, 32), {"offset": [1, 2]}, "offset has 2 entries for 1 batch row; packed sequences need cu_seqlens="),
        ((4, 2, 32), {"offset": []}, "offset has 0 entries"),
        ((4, 2, 32), {"offset": [[1]]}, r"offset int64 \[1, 1\].*expected an integer or \[sequences\]"),
        ((4, 2, 32), {"offset": [1.5]}, r"offset float64 \[1\].*expected int64"),
        ((4, 2, 32), {"cu_seqlens": [0, 4], "offset": [1, 2]}, "offset has 2 entries for 1 sequence of cu_seqlens"),
        ((4, 2, 32), {"cu_seqlens": [0, 1, 4], "offset": [1, 2**63 - 2]}, "3 tokens of sequence 1 overflow 64-bit"),
        ((3, 4, 2, 32), {"offset": [0, 0, 2**63 - 4]}, "4 tokens of sequence 2 overflow 64-bit"),
        ((3, 4, 2, 32), {"offset": [1, 2, 3], "positions": [0, 1, 2, 3]}, "exclude each other"),
        ((3, 4, 2, 32), {"k_offset": [1, 2]}, "k_offset has 2 entries for 3 batch rows"),
    ],
)
@pytest.mark.parametrize("library", LIBRARIES)
def test_offsets_that_do_not_fit_write_nothing(library, shape, arguments, message):
    q = make(library, "float32", shape)
    k = q * 1 if "k_offset" in arguments else None
    assert_refused(
        message, lambda: rw.rotate_(q, k, encoding=ENCODING, **arguments), *(x for x in (q, k) if x is not None)
    )


def test_gradients_and_later_writes_to_the_offsets():
    x = make("torch", "float64", (3, 4, 2, 32)).requires_grad_()
    offsets = np.array(ROWS)
    result = rw.rotate(x, encoding=ENCODING, offset=offsets)
    offsets += 5
    result.backward(torch.ones_like(result))
    expected = rw.rotate(torch.ones(3, 4, 2, 32, dtype=torch.float64), encoding=ENCODING, offset=ROWS, adjoint=True)
    assert torch.equal(x.grad, expected)
    small = rw.encoding("xpos:64", head_dim=4)
    for shape, given in (
        ((2, 2, 1, 4), {"offset": torch.tensor([3, -1])}),
        ((3, 1, 4), {"cu_seqlens": torch.tensor([0, 1, 3]), "offset": [4, 2]}),
    ):
        y = make("torch", "float64", shape).requires_grad_()
        assert torch.autograd.gradcheck(lambda y, given=given: rw.rotate(y, encoding=small, **given), y)
        assert torch.autograd.gradcheck(lambda y, given=given: rw.rotate_(y * 1, encoding=small, **given), y)


@pytest.mark.parametrize("packed", [False, True])
def test_one_graph_and_the_checks_of_the_operator(packed):
    x = make("torch", "float32", (8, 2, 32) if packed else (3, 4, 2, 32))
    bounds, offsets = (torch.tensor(BOUNDS), torch.tensor(OFFSETS)) if packed else (None, torch.tensor(ROWS))

    def call(x, offset):
        return rw.rotate(x, encoding=ENCODING, cu_seqlens=bounds, offset=offset)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    for given in (offsets, offsets[:1]):
        assert torch.equal(compiled(x, given), call(x, given))
    y = x.clone().requires_grad_()
    compiled(y, offsets).sum().backward()
    assert torch.equal(
        y.grad, rw.rotate(torch.ones_like(x), encoding=ENCODING, cu_seqlens=bounds, offset=offsets, adjoint=True)
    )
    operator = torch.ops.ropewalk.rotate.default
    torch.library.opcheck(operator, (y, None, ENCODING.key), {"cu_seqlens": bounds, "offsets": offsets})


def test_vmap_over_offsets():
    x = make("torch", "float32", (3, 4, 2, 32))
    ours = torch.vmap(lambda x, offset: rw.rotate(x, encoding=ENCODING, offset=offset))(x, torch.tensor(ROWS))
    assert torch.equal(ours, rw.rotate(x, encoding=ENCODING, offset=ROWS))
    batch, offsets = x.expand(2, -1, -1, -1, -1), torch.tensor([ROWS, [1, 2, 3]])
    ours = torch.vmap(lambda x, offset: rw.rotate(x, encoding=ENCODING, offset=offset))(batch, offsets)
    for one, given in zip(ours, offsets):
        assert torch.equal(one, rw.rotate(x, encoding=ENCODING, offset=given))
    shared = torch.vmap(lambda x: rw.rotate(x, encoding=ENCODING, offset=offsets[0]))(batch)
    assert torch.equal(shared[1], rw.rotate(x, encoding=ENCODING, offset=ROWS))


def test_decompositions():
    from ropewalk import _decompositions

    batch, packed = make("torch", "float32", (3, 4, 2, 32)), make("torch", "float32", (8, 2, 32))
    for x, given in (
        (batch, {"offsets": torch.tensor(ROWS)}),
        (batch, {"offsets": torch.tensor(5)}),
        (packed, {"cu_seqlens": torch.tensor(BOUNDS), "offsets": torch.tensor(OFFSETS)}),
        (packed, {"cu_seqlens": torch.tensor(BOUNDS), "offsets": torch.tensor([7])}),
    ):
        (ours,) = _decompositions.rotate(x, None, ENCODING.key, **given)
        (expected,) = torch.ops.ropewalk.rotate(x, None, ENCODING.key, **given)
        torch.testing.assert_close(ours, expected, atol=2e-6, rtol=0)
        assert torch.equal(
            expected, rw.rotate(x, encoding=ENCODING, cu_seqlens=given.get("cu_seqlens"), offset=given["offsets"])
        )


def test_modules_take_offsets():
    module = rw.RotaryEmbedding(32)
    x = make("torch", "float32", (3, 4, 2, 32))
    assert torch.equal(copy.deepcopy(module)(x, offset=ROWS), rw.rotate(x, encoding=module.encoding, offset=ROWS))
