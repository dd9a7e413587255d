"""torch.vmap, jacrev and jacfwd, compared with one call per element."""

import functools

import pytest
import ropewalk as rw
import torch
from checks import assert_refused
from torch.func import grad, hessian, jacfwd, jacrev, vmap
from torch_heads import DIM, compiled

ENCODING = rw.encoding("xpos:64|linear:8", head_dim=DIM)
SIZE, BATCH, TOKENS, Q_HEADS, K_HEADS = 3, 2, 5, 4, 2
POLICIES = ["xpos:64|linear:8", "mrope:[2,3,3]", "randomized:64"]
ORDERS = ["thd", "bshd", "bhsd", "sbhd"]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_ids(*shape):
    return torch.randint(-50, 50, shape, generator=torch.Generator().manual_seed(7))


def heads_of(order, heads, axis, seed=0):
    """A tensor in this order, with the mapped axis at `axis`, or without one."""
    sizes = {"t": TOKENS, "s": TOKENS, "b": BATCH, "h": heads, "d": DIM}
    shape = [sizes[letter] for letter in order]
    return random(*shape, seed=seed) if axis is None else random(SIZE, *shape, seed=seed).movedim(0, axis)


def assert_equals_a_loop(function, axes, *tensors, **arguments):
    function = functools.partial(function, **arguments)
    elements = [
        function(*(x if axis is None else x.select(axis, i) for x, axis in zip(tensors, axes))) for i in range(SIZE)
    ]
    results = vmap(function, axes)(*tensors)
    if isinstance(results, torch.Tensor):
        results, elements = (results,), [(x,) for x in elements]
    for ours, expected in zip(results, zip(*elements)):
        assert torch.equal(ours, torch.stack(expected))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("axes", [(0, 0), (1, None), (None, 2), (-1, 0)])
def test_queries_and_keys(policy, order, axes):
    encoding = rw.encoding(policy, head_dim=DIM)
    q, k = heads_of(order, Q_HEADS, axes[0]), heads_of(order, K_HEADS, axes[1], seed=1)
    calls = [{}, {"offset": 3, "inverse": True}, {"positions": random_ids(TOKENS).abs()}]
    if order == "thd":
        calls.append({"cu_seqlens": torch.tensor([0, 2, TOKENS])})
    for arguments in calls:
        assert_equals_a_loop(rw.rotate, axes, q, k, encoding=encoding, order=order, **arguments)
    assert_equals_a_loop(rw.rotate, (0,), heads_of(order, 1, 0), encoding=encoding, order=order)
    assert_equals_a_loop(
        lambda k, **named: rw.rotate(None, k, **named), (-1,), heads_of(order, 1, -1), encoding=encoding, order=order
    )


def at_positions(q, k, ids, **named):
    return rw.rotate(q, k, positions=ids, **named)


@pytest.mark.parametrize("policy", POLICIES[:2])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("axes", [(0, 0), (1, None), (None, None)])
def test_positions(policy, order, axes):
    encoding = rw.encoding(policy, head_dim=DIM)
    q, k = heads_of(order, Q_HEADS, axes[0]), heads_of(order, K_HEADS, axes[1], seed=1)
    shapes = [(TOKENS,), (1, TOKENS)]
    if "b" in order:
        shapes.append((BATCH, TOKENS))
    if encoding.has_axes:
        shapes += [(1, 1, TOKENS), (3, 1, TOKENS), (3, BATCH, TOKENS) if "b" in order else (3, TOKENS)]
    for shape in shapes:
        for axis in (0, -1):
            ids = random_ids(SIZE, *shape).movedim(0, axis)
            assert_equals_a_loop(
                lambda q, k, ids: rw.rotate(q, k, encoding=encoding, order=order, positions=ids),
                (*axes, axis),
                q,
                k,
                ids,
            )


def test_offsets():
    assert_equals_a_loop(
        lambda x, start: rw.rotate(x, encoding=ENCODING, offset=start),
        (0, 0),
        heads_of("thd", 2, 0),
        torch.tensor([4, -1, 70]),
    )


@pytest.mark.parametrize("rows", [1, BATCH])
def test_tables_are_shared(rows):
    encoding = rw.encoding("linear:4", head_dim=DIM)
    by_position = encoding.cos_sin(torch.arange(64))
    by_token = tuple(x[: rows * TOKENS].view(rows, TOKENS, -1) for x in by_position)
    ids, q = random_ids(SIZE, TOKENS).abs(), heads_of("bhsd", 2, 0)
    for table in (by_position, by_token):
        named = {"encoding": encoding, "table": table, "order": "bhsd"}
        assert_equals_a_loop(rw.rotate, (0,), q, **named)
        assert_equals_a_loop(at_positions, (0, 0, 0), q, q + 1, ids, **named)
    with pytest.raises(rw.Error, match=r"cos cannot be mapped by torch\.vmap.*call once per element"):
        vmap(lambda cos: rw.rotate(q[0], encoding=encoding, table=(cos, by_token[1]), order="bhsd"))(
            by_token[0].expand(SIZE, -1, -1, -1)
        )


def test_nested():
    x, outer, inner = random(2, 3, 4, TOKENS, 2, DIM), random_ids(2, TOKENS), random_ids(3, 1)

    def function(x, outer):
        return vmap(lambda y, inner: vmap(lambda z: rw.rotate(z, encoding=ENCODING, positions=outer + inner), 1, 2)(y))(
            x.movedim(1, 2), inner
        )

    for i, found in enumerate(vmap(function)(x, outer)):
        for j in range(3):
            expected = rw.rotate(x[i, j], encoding=ENCODING, positions=(outer[i] + inner[j])[None])
            assert torch.equal(found[j].movedim(2, 0), expected)


WEIGHTS = random(TOKENS, 2, DIM)


def energy(x, ids):
    return (rw.rotate(x, 2 * x, encoding=ENCODING, positions=ids)[1] * WEIGHTS).pow(3).sum()


def test_gradients_per_element():
    x, ids = heads_of("thd", 2, 0), random_ids(SIZE, TOKENS)
    expected = torch.stack([grad(energy)(*pair) for pair in zip(x, ids)])
    torch.testing.assert_close(vmap(grad(energy))(x, ids), expected)
    torch.testing.assert_close(grad(lambda x: vmap(energy)(x, ids).sum())(x), expected)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(vmap(energy)(leaf, ids).sum(), leaf)[0], expected)
    batched = vmap(grad(energy), (2, None), 1)(x.movedim(0, 2), ids[0])
    torch.testing.assert_close(batched[:, 1], grad(energy)(x[1], ids[0]))


def test_jacobians_equal_the_rotation_of_one_hot_vectors():
    x, ids = random(3, 2, DIM), random_ids(3)

    def function(x):
        return rw.rotate(x, encoding=ENCODING, positions=ids)

    n = x.numel()
    matrix = rw.rotate(torch.eye(n).view(n, *x.shape), encoding=ENCODING, positions=ids).view(n, n).T
    assert (matrix != 0).sum() == 2 * n  # each element depends on a pair
    for found in (jacfwd(function)(x), jacrev(function)(x), jacrev(function, chunk_size=5)(x)):
        torch.testing.assert_close(found.reshape(n, n), matrix, rtol=1e-6, atol=1e-6)
    second = hessian(lambda x: function(x).pow(3).sum())(x)
    expected = matrix.T @ torch.diag(6 * function(x).flatten()) @ matrix
    torch.testing.assert_close(second.reshape(n, n), expected, rtol=1e-5, atol=1e-5)


def test_the_older_vmap_of_autograd():
    """jacobian(vectorize=True) and grad(is_grads_batched=True)."""
    x, k, ids = random(3, 2, DIM), random(3, 1, DIM, seed=1), random_ids(3)

    def function(x):
        q, rotated = rw.rotate(x, k, encoding=ENCODING, positions=ids)
        return q * rotated

    expected = jacrev(function)(x)
    for strategy in ("reverse-mode", "forward-mode"):
        found = torch.autograd.functional.jacobian(function, x, vectorize=True, strategy=strategy)
        torch.testing.assert_close(found, expected)
    x.requires_grad_()
    rows = random(4, 3, 2, DIM, seed=2)
    (found,) = torch.autograd.grad(function(x), x, rows, is_grads_batched=True)
    torch.testing.assert_close(found, torch.stack([torch.autograd.grad(function(x), x, row)[0] for row in rows]))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_operators_and_graphs(requires_grad):
    """Also a batching rule of the operator, which graphs contain."""
    x, ids = heads_of("thd", 2, 0).requires_grad_(requires_grad), random_ids(SIZE, TOKENS)

    def by_operator(x, ids):
        return torch.ops.ropewalk.rotate(x, None, ENCODING.key, ids)[0]

    def function(x, ids):
        return rw.rotate(x, encoding=ENCODING, positions=ids)

    def nested(x, ids):
        return vmap(lambda i: vmap(lambda y: function(y, i) * 1)(x))(ids)

    expected = [vmap(function)(x, ids), nested(x, ids)]
    for other in (vmap(by_operator), compiled(vmap(function))):
        assert torch.equal(other(x, ids), expected[0])
    for other in (vmap(vmap(by_operator, (0, None)), (None, 0)), compiled(nested)):
        assert torch.equal(other(x, ids), expected[1])
        if requires_grad:
            gradients = [
                torch.autograd.grad(y.pow(3).sum(), x, retain_graph=True) for y in (other(x, ids), expected[1])
            ]
            torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("rotate_ .* does not run under torch.func", lambda x, ids: rw.rotate_(x, encoding=ENCODING, positions=ids)),
        (
            "rotate_ .* does not run under torch.func",
            lambda x, ids: torch.ops.ropewalk.rotate_(x, None, ENCODING.key, ids),
        ),
        ("cu_seqlens cannot be mapped", lambda x, ids: rw.rotate(x, encoding=ENCODING, cu_seqlens=ids)),
        (
            "draws positions .* cannot map positions",
            lambda x, ids: rw.rotate(x, encoding=rw.encoding("randomized:64", DIM), positions=ids),
        ),
        (r"q .* has 3 axes, but the order 'bhsd'", lambda x, ids: rw.rotate(x, encoding=ENCODING, order="bhsd")),
        ("order must be .* got 'dht'", lambda x, ids: rw.rotate(x, encoding=ENCODING, order="dht")),
        (r"positions .*: expected", lambda x, ids: rw.rotate(x, encoding=ENCODING, positions=ids[0])),
        (r"positions .*: expected", lambda x, ids: rw.rotate(x, encoding=ENCODING, positions=ids[None, None])),
        ("positions has 4 entries for 5 tokens", lambda x, ids: rw.rotate(x, encoding=ENCODING, positions=ids[1:])),
        ("2 rows for a batch of 1", lambda x, ids: rw.rotate(x, encoding=ENCODING, positions=ids.expand(2, -1))),
        (
            "could be t, h and w or a batch of 3",
            lambda x, ids: rw.rotate(x[None], encoding=rw.encoding("mrope:[2,3,3]", DIM), positions=ids.expand(3, -1)),
        ),
    ],
)
def test_errors(message, call):
    x = heads_of("thd", 2, 0)
    assert_refused(message, lambda: vmap(call)(x, random_ids(SIZE, TOKENS)), x)
