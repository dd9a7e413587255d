"""rotate_ and rotate against the float64 reference."""

import numpy as np
import pytest
import ropewalk as rw
import torch
from rope_reference import arrange, assert_close, exact, make, plain, power, restore, truncated, turn, xpos

LIBRARIES = ["numpy", "torch"]
TYPES = ["float32", "float16", "bfloat16"]
LAYOUTS = ["half_split", "interleaved"]
ORDERS = ["thd", "bshd", "bhsd", "sbhd"]
POSITIONS = np.array([[5, 0, -3, 4000, 17], [1, 2, 3, 4, 100000]])


@pytest.mark.parametrize("mode", ["in_place", "new", "out"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("library", LIBRARIES)
def test_against_reference(library, type_name, layout, order, mode):
    batch = 1 if order == "thd" else 2
    positions = POSITIONS[:batch]
    encoding = rw.encoding("linear:4", head_dim=48, layout=layout)
    q, k = make(library, type_name, (batch, 5, 6, 48), 1), make(library, type_name, (batch, 5, 2, 48), 2)
    expected = [turn(exact(x), plain(48) / 4, positions, layout) for x in (q, k)]
    q, k = arrange(q, order), arrange(k, order)
    before = exact(q), exact(k)
    if mode == "in_place":
        result = rw.rotate_(q, k, encoding=encoding, positions=positions, order=order)
        assert result[0] is q and result[1] is k
    elif mode == "new":
        result = rw.rotate(q, k, encoding=encoding, positions=positions, order=order)
    else:
        out = (q * 0, k * 0)
        result = rw.rotate(q, k, encoding=encoding, positions=positions, order=order, out=out)
        assert result[0] is out[0] and result[1] is out[1]
    if mode != "in_place":
        np.testing.assert_array_equal(exact(q), before[0])
        np.testing.assert_array_equal(exact(k), before[1])
    for ours, reference, given in zip(result, expected, (q, k)):
        assert type(ours) is type(given) and ours.dtype == given.dtype and ours.shape == given.shape
        assert_close(restore(ours, order), reference, type_name)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("head_dim", [2, 6, 30, 64, 80, 96, 128, 256])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_head_dims(library, head_dim, layout):
    encoding = rw.encoding("default", head_dim=head_dim, layout=layout, base=500000.0)
    q = make(library, "float32", (1, 33, 3, head_dim))
    expected = turn(exact(q), plain(head_dim, 500000.0), np.arange(7, 40)[None], layout)
    assert_close(exact(rw.rotate(q, encoding=encoding, offset=7)), expected, "float32")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("rotary_dim", "rotary_offset"), [(16, 0), (16, 48), (10, 3)])
def test_partial_width(layout, rotary_dim, rotary_offset):
    encoding = rw.encoding("default", 64, rotary_dim=rotary_dim, rotary_offset=rotary_offset, layout=layout)
    q = make("torch", "float32", (2, 9, 3, 64))
    expected = turn(exact(q), plain(rotary_dim), np.arange(9)[None], layout, rotary_offset)
    turned = exact(rw.rotate(q, encoding=encoding))
    assert_close(turned, expected, "float32")
    others = [i for i in range(64) if not rotary_offset <= i < rotary_offset + rotary_dim]
    np.testing.assert_array_equal(turned[..., others], exact(q)[..., others])


@pytest.mark.parametrize(
    ("policy", "frequencies"),
    [
        ("default", lambda theta: theta),
        (rw.Linear(8), lambda theta: theta / 8),
        (rw.Power(0.5), lambda theta: power(theta, 0.5)),
        (rw.Truncated(4096), lambda theta: truncated(theta, 4096)),
        (rw.Linear(4) | rw.Truncated(4096), lambda theta: truncated(theta / 4, 4096)),
        (rw.Linear(4) | "power:0.1", lambda theta: power(theta / 4, 0.1)),
    ],
)
def test_policies(policy, frequencies):
    encoding = rw.encoding(policy, head_dim=128)
    theta = frequencies(plain(128))
    np.testing.assert_allclose(encoding.inv_freq, theta, rtol=1e-14, atol=0)
    q = make("numpy", "float32", (1, 64, 2, 128))
    assert_close(rw.rotate(q, encoding=encoding, offset=1000), turn(q, theta, np.arange(1000, 1064)[None]), "float32")


@pytest.mark.parametrize("what", ["q", "k", "both"])
def test_alone_and_together(what):
    encoding = rw.encoding("xpos:512", head_dim=32, layout="interleaved")
    q, k = make("torch", "float32", (1, 40, 4, 32), 1), make("torch", "float32", (1, 40, 2, 32), 2)
    given = {"q": (q, None), "k": (None, k), "both": (q, k)}[what]
    places = np.arange(100, 140)[None]
    expected = {
        "q": turn(exact(q), plain(32), places, "interleaved", magnitude=xpos(32, 1)),
        "k": turn(exact(k), plain(32), places, "interleaved", magnitude=xpos(32, -1)),
    }
    result = rw.rotate(*given, encoding=encoding, offset=100)
    assert isinstance(result, tuple) == (what == "both")
    for name, ours in zip("qk" if what == "both" else what, result if what == "both" else (result,)):
        assert_close(exact(ours), expected[name], "float32")
    copies = tuple(None if x is None else x.clone() for x in given)
    in_place = rw.rotate_(*copies, encoding=encoding, offset=100)
    for a, b in zip(in_place if what == "both" else (in_place,), result if what == "both" else (result,)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("policy", ["linear:2", "xpos:512"])
def test_inverse_and_adjoint(policy):
    encoding = rw.encoding(policy, head_dim=64)
    q, k = make("numpy", "float32", (2, 50, 4, 64), 1), make("numpy", "float32", (2, 50, 4, 64), 2)
    back = rw.rotate(*rw.rotate(q, k, encoding=encoding, offset=9), encoding=encoding, offset=9, inverse=True)
    np.testing.assert_allclose(back[0], q, atol=2e-6)
    np.testing.assert_allclose(back[1], k, atol=2e-6)
    # <R q, g> = <q, R^T g>, for queries and for keys
    g = make("numpy", "float32", (2, 50, 4, 64), 3).astype(np.float64)
    forward = rw.rotate(q, k, encoding=encoding, offset=9)
    adjoint = rw.rotate(g.astype(np.float32), g.astype(np.float32), encoding=encoding, offset=9, adjoint=True)
    for x, y, z in zip((q, k), forward, adjoint):
        np.testing.assert_allclose((y * g).sum(), (x * z.astype(np.float64)).sum(), rtol=1e-5)


def test_rerotate_takes_keys_to_another_encoding_and_place():
    old, new = rw.encoding("default", head_dim=64), rw.encoding("linear:4", head_dim=64)
    k = make("torch", "float32", (1, 30, 2, 64))
    ids = torch.arange(30) * 3
    cached = rw.rotate(k, encoding=old, positions=ids)
    assert rw.rerotate_(cached, old, new, positions=ids) is cached
    assert_close(exact(cached), turn(exact(k), plain(64) / 4, ids.numpy()[None]), "float32")
    rw.rerotate_(cached, new, new, positions=ids, new_offset=5)
    assert_close(exact(cached), turn(exact(k), plain(64) / 4, np.arange(5, 35)[None]), "float32")
    rw.rerotate_(cached, new, old, offset=5, new_positions=[7] * 30)
    assert_close(exact(cached), turn(exact(k), plain(64), np.full((1, 30), 7)), "float32")


def test_scores_depend_on_the_distance_alone():
    encoding = rw.encoding("default", head_dim=64)
    q, k = make("numpy", "float32", (1, 1, 64), 1), make("numpy", "float32", (1, 1, 64), 2)
    scores = []
    for start in (0, 12345, 2**31 - 100, -(2**40)):
        turned = rw.rotate(q, encoding=encoding, offset=start + 57), rw.rotate(k, encoding=encoding, offset=start)
        scores.append(float((turned[0].astype(np.float64) * turned[1]).sum()))
    np.testing.assert_allclose(scores, scores[0], rtol=0, atol=1e-5)


def test_randomized_positions_are_the_same_every_time():
    q = make("numpy", "float32", (3, 200, 2, 32))
    one = rw.encoding(rw.Randomized(length=200, seed=3), head_dim=32)
    first = rw.rotate(q, encoding=one)
    np.testing.assert_array_equal(first, rw.rotate(q, encoding=one, threads=2))
    other = rw.encoding(rw.Randomized(length=200, seed=3, draw=1), head_dim=32)
    assert np.abs(first - rw.rotate(q, encoding=other)).max() > 0.1
