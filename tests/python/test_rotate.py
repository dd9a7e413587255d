"""rotate_, rotate and rerotate_ compared with the float64 reference."""

import numpy as np
import pytest
import rope_reference as reference
import ropewalk as rw
import torch
from rope_reference import LAYOUTS, LIBRARIES, ORDERS, TYPES, assert_close, exact, make, plain, rotate_exactly

POSITIONS = np.array([[5, 0, -3, 4000, 17], [1, 2, 3, 4, 100000]])


@pytest.mark.parametrize("mode", ["in_place", "new", "out"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("library", LIBRARIES)
def test_against_reference(library, type_name, layout, order, mode):
    batch = 1 if order == "thd" else 2
    options = {"encoding": rw.encoding("linear:4", head_dim=48, layout=layout), "positions": POSITIONS[:batch]}
    given = make(library, type_name, (batch, 5, 6, 48), 1), make(library, type_name, (batch, 5, 2, 48), 2)
    expected = [rotate_exactly(x, plain(48) / 4, POSITIONS[:batch], layout) for x in given]
    q, k = (reference.arrange(x, order) for x in given)
    before = exact(q), exact(k)
    if mode == "in_place":
        result = rw.rotate_(q, k, **options, order=order)
        assert result[0] is q and result[1] is k
    else:
        out = (q * 0, k * 0) if mode == "out" else None
        result = rw.rotate(q, k, **options, order=order, out=out)
        assert mode == "new" or (result[0] is out[0] and result[1] is out[1])
        np.testing.assert_array_equal(exact(q), before[0])
        np.testing.assert_array_equal(exact(k), before[1])
    for ours, exactly, x in zip(result, expected, (q, k)):
        assert type(ours) is type(x) and ours.dtype == x.dtype and ours.shape == x.shape
        assert_close(reference.restore(ours, order), exactly, type_name)


@pytest.mark.parametrize("policy", ["linear:4", "xpos:512"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_float64(library, layout, policy):
    """Near position 0, where the reference has all digits: a float32 anywhere would cost half of them."""
    encoding = rw.encoding(policy, head_dim=96, rotary_dim=64, rotary_offset=16, layout=layout)
    theta, ids = plain(64) / (4 if policy == "linear:4" else 1), np.array([[-9, 3, 0, 31, 1], [2, 2, 5, 30, 7]])
    q, k = make(library, "float64", (2, 5, 6, 96), 1), make(library, "float64", (2, 5, 2, 96), 2)
    before = exact(q), exact(k)
    rotated = rw.rotate(q, k, encoding=encoding, positions=ids)
    for ours, x, sign in zip(rotated, (q, k), (1, -1)):
        magnitude = reference.xpos(64, sign) if policy == "xpos:512" else None
        expected = rotate_exactly(x, theta, ids, layout, 16, magnitude)
        assert ours.dtype == x.dtype
        np.testing.assert_allclose(exact(ours), expected, rtol=0, atol=5e-14)
    again = rw.rotate(*rotated, encoding=encoding, positions=ids, inverse=True)
    for ours, x in zip(again, before):
        np.testing.assert_allclose(exact(ours), x, rtol=0, atol=1e-14)
    rw.rerotate_(rotated[1], encoding, rw.encoding("default", 96, rotary_dim=64, rotary_offset=16, layout=layout), ids)
    np.testing.assert_allclose(exact(rotated[1]), rotate_exactly(k, plain(64), ids, layout, 16), rtol=0, atol=5e-14)


@pytest.mark.parametrize("policy", ["yarn:8,original_length=64", "xpos:512"])
@pytest.mark.parametrize("order", ["bshd", "bhsd"])
def test_gradcheck(order, policy):
    encoding = rw.encoding(policy, head_dim=16)
    q, k = (make("torch", "float64", shape, 3).requires_grad_() for shape in [(2, 4, 4, 16), (2, 4, 2, 16)])
    if order == "bhsd":
        q, k = (x.detach().transpose(1, 2).clone().requires_grad_() for x in (q, k))

    def rotate(q, k):
        return rw.rotate(q, k, encoding=encoding, offset=5, order=order)

    assert torch.autograd.gradcheck(rotate, (q, k))
    assert torch.autograd.gradgradcheck(rotate, (q, k))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("head_dim", [2, 6, 30, 64, 80, 96, 128, 256])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_head_dims(library, head_dim, layout):
    encoding = rw.encoding("default", head_dim=head_dim, layout=layout, base=500000.0)
    q = make(library, "float32", (1, 33, 3, head_dim))
    expected = rotate_exactly(q, plain(head_dim, 500000.0), np.arange(7, 40), layout)
    assert_close(rw.rotate(q, encoding=encoding, offset=7), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("rotary_dim", "rotary_offset"), [(16, 0), (16, 48), (10, 3)])
def test_partial_width(layout, rotary_dim, rotary_offset):
    encoding = rw.encoding("default", 64, rotary_dim=rotary_dim, rotary_offset=rotary_offset, layout=layout)
    q = make("torch", "float32", (2, 9, 3, 64))
    ours = rw.rotate(q, encoding=encoding)
    assert_close(ours, rotate_exactly(q, plain(rotary_dim), np.arange(9), layout, rotary_offset))
    others = [i for i in range(64) if not rotary_offset <= i < rotary_offset + rotary_dim]
    assert torch.equal(ours[..., others], q[..., others])


@pytest.mark.parametrize(
    ("policy", "frequencies"),
    [
        ("default", lambda theta: theta),
        (rw.Linear(8), lambda theta: theta / 8),
        (rw.Power(0.5), lambda theta: reference.power(theta, 0.5)),
        (rw.Truncated(4096), lambda theta: reference.truncated(theta, 4096)),
        (rw.Linear(4) | rw.Truncated(4096), lambda theta: reference.truncated(theta / 4, 4096)),
        (rw.Linear(4) | "power:0.1", lambda theta: reference.power(theta / 4, 0.1)),
    ],
)
def test_policies(policy, frequencies):
    encoding = rw.encoding(policy, head_dim=128)
    theta = frequencies(plain(128))
    np.testing.assert_allclose(encoding.inv_freq, theta, rtol=1e-14, atol=0)
    q = make("numpy", "float32", (1, 64, 2, 128))
    assert_close(rw.rotate(q, encoding=encoding, offset=1000), rotate_exactly(q, theta, np.arange(1000, 1064)))


@pytest.mark.parametrize("names", ["q", "k", "qk"])
def test_queries_and_keys_alone_and_together(names):
    encoding = rw.encoding("xpos:512", head_dim=32, layout="interleaved")
    tensors = {"q": make("torch", "float32", (1, 40, 4, 32), 1), "k": make("torch", "float32", (1, 40, 2, 32), 2)}
    given = [tensors[name] if name in names else None for name in "qk"]
    result = rw.rotate(*given, encoding=encoding, offset=100)
    in_place = rw.rotate_(*(None if x is None else x.clone() for x in given), encoding=encoding, offset=100)
    assert isinstance(result, tuple) == isinstance(in_place, tuple) == (names == "qk")
    if names != "qk":
        result, in_place = (result,), (in_place,)
    for name, ours, written in zip(names, result, in_place):
        magnitude = reference.xpos(32, 1 if name == "q" else -1)
        expected = rotate_exactly(tensors[name], plain(32), np.arange(100, 140), "interleaved", magnitude=magnitude)
        assert_close(ours, expected)
        assert torch.equal(ours, written)


@pytest.mark.parametrize("policy", ["linear:2", "xpos:512"])
def test_inverse_and_adjoint(policy):
    options = {"encoding": rw.encoding(policy, head_dim=64), "offset": 9}
    q, k, g = (make("numpy", "float32", (2, 50, 4, 64), seed) for seed in (1, 2, 3))
    forward = rw.rotate(q, k, **options)
    adjoint = rw.rotate(g, g, **options, adjoint=True)
    # <R x, g> = <x, R^T g>, for queries and for keys
    for x, y, restored, z in zip((q, k), forward, rw.rotate(*forward, **options, inverse=True), adjoint):
        np.testing.assert_allclose(restored, x, atol=2e-6)
        np.testing.assert_allclose((y * exact(g)).sum(), (x * exact(z)).sum(), rtol=1e-5)


def test_rerotate_moves_keys_to_another_encoding_and_position():
    old, new = rw.encoding("default", head_dim=64), rw.encoding("linear:4", head_dim=64)
    k = make("torch", "float32", (1, 30, 2, 64))
    ids = torch.arange(30) * 3
    cached = rw.rotate(k, encoding=old, positions=ids)
    assert rw.rerotate_(cached, old, new, positions=ids) is cached
    assert_close(cached, rotate_exactly(k, plain(64) / 4, ids))
    rw.rerotate_(cached, new, new, positions=ids, new_offset=5)
    assert_close(cached, rotate_exactly(k, plain(64) / 4, np.arange(5, 35)))
    rw.rerotate_(cached, new, old, offset=5, new_positions=[7] * 30)
    assert_close(cached, rotate_exactly(k, plain(64), np.full(30, 7)))


def test_scores_depend_on_the_distance_alone():
    encoding = rw.encoding("default", head_dim=64)
    q, k = make("numpy", "float32", (1, 1, 64), 1), make("numpy", "float32", (1, 1, 64), 2)
    scores = []
    for start in (0, 12345, 2**31 - 100, -(2**40)):
        rotated_q, rotated_k = (rw.rotate(x, encoding=encoding, offset=start + n) for x, n in ((q, 57), (k, 0)))
        scores.append((exact(rotated_q) * rotated_k).sum())
    np.testing.assert_allclose(scores, scores[0], rtol=0, atol=1e-5)


def test_a_draw_of_randomized_positions_is_reproducible():
    q = make("numpy", "float32", (3, 200, 2, 32))
    first, second = (rw.encoding(rw.Randomized(length=200, seed=3, draw=n), head_dim=32) for n in (0, 1))
    rotated = rw.rotate(q, encoding=first)
    np.testing.assert_array_equal(rotated, rw.rotate(q, encoding=first, threads=2))
    assert np.abs(rotated - rw.rotate(q, encoding=second)).max() > 0.1


def test_heads_without_elements_take_no_time():
    q, encoding = np.zeros((2**40, 0, 8), np.float32), rw.encoding("xpos:512", head_dim=8)
    assert rw.rotate(q, encoding=encoding).shape == q.shape
    rw.rotate_(q, encoding=encoding)
