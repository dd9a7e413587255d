"""ropewalk.jax, compared with float64 math, under jit, grad and vmap. Skipped without JAX (pip install jax)."""

import numpy as np
import pytest
import ropewalk as rw
from rope_reference import LAYOUTS

jax = pytest.importorskip("jax")
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp  # noqa: E402
import ropewalk.jax  # noqa: E402

rotate = rw.jax.rotate
LENGTH = 7


def heads(shape, dtype=jnp.float32, seed=0):
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32).astype(dtype)


def expected(x, encoding, positions, inverse=False):
    """Pairs of x [tokens, heads, head_dim] rotated in float64 by jax.numpy."""
    x = jnp.asarray(x, jnp.float64)
    angle = jnp.asarray(positions, jnp.float64)[:, None, None] * jnp.asarray(encoding.inv_freq)
    cos, sin = jnp.cos(angle) * encoding.attention_factor, jnp.sin(angle) * encoding.attention_factor
    if inverse:
        cos, sin = jnp.cos(angle) / encoding.attention_factor, -jnp.sin(angle) / encoding.attention_factor
    if encoding.layout == "half_split":
        a, b = jnp.split(x, 2, axis=-1)
        return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    a, b = x[..., 0::2], x[..., 1::2]
    return jnp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape)


def close(ours, reference, tolerance):
    np.testing.assert_allclose(np.asarray(ours, np.float64), np.asarray(reference), rtol=0, atol=tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.float64, 1e-13), (jnp.float16, 4e-3), (jnp.bfloat16, 3e-2)]
)
def test_types_and_layouts(layout, dtype, tolerance):
    encoding = rw.encoding("yarn:4,original_length=4096", head_dim=32, base=5e5, layout=layout)
    q, k = heads((LENGTH, 4, 32), dtype), heads((LENGTH, 2, 32), dtype, 1)
    for call in (rotate, jax.jit(rotate, static_argnames=("encoding", "offset", "inverse"))):
        out = call(q, k, encoding=encoding, offset=100)
        for x, y in zip(out, (q, k)):
            assert x.dtype == dtype
            close(x, expected(y, encoding, 100 + np.arange(LENGTH)), tolerance)
        back = call(None, out[1], encoding=encoding, offset=100, inverse=True)
        close(back, k.astype(jnp.float64), 2 * tolerance)


@pytest.mark.parametrize("order", ["bshd", "bhsd", "sbhd"])
def test_orders_and_positions_per_row(order):
    encoding = rw.encoding("default", head_dim=16)
    rows = heads((3, LENGTH, 4, 16))
    ids = jnp.arange(3 * LENGTH).reshape(3, LENGTH) ** 2
    to = [("bshd".index(axis)) for axis in order]
    given = rows.transpose(to)
    reference = jnp.stack([expected(row, encoding, row_ids) for row, row_ids in zip(rows, ids)]).transpose(to)
    for dtype in (jnp.int32, jnp.int64, jnp.int16):
        close(rotate(given, encoding=encoding, positions=ids.astype(dtype), order=order), reference, 2e-6)
    shared = rotate(given, encoding=encoding, positions=ids[0], order=order).transpose(np.argsort(to))
    close(shared[1], expected(rows[1], encoding, ids[0]), 2e-6)


def test_three_positions_per_token():
    """The compiled module is tested for M-RoPE, so it is the reference."""
    encoding = rw.encoding("mrope:[2,3,3]", head_dim=16)
    q = heads((LENGTH, 4, 16))
    ids = np.arange(3 * LENGTH).reshape(3, LENGTH)
    reference = rw.rotate(np.asarray(q), encoding=encoding, positions=ids)
    close(rotate(q, encoding=encoding, positions=ids), reference, 0)
    close(rotate(q[None], encoding=encoding, positions=ids[:, None])[0], reference, 0)
    with pytest.raises(rw.Error, match="could be t, h and w or a batch of 3"):
        rotate(heads((3, LENGTH, 4, 16)), encoding=encoding, positions=ids)


def test_a_decode_loop_compiles_once():
    encoding = rw.encoding("linear:8", head_dim=16)
    x = heads((20, 2, 16))
    traces = []

    @jax.jit
    def step(token, position):
        traces.append(position)
        return rotate(token, encoding=encoding, offset=position)

    tokens = [step(x[i : i + 1], jnp.int32(i)) for i in range(20)]
    assert len(traces) == 1
    close(jnp.concatenate(tokens), expected(x, encoding, np.arange(20)), 2e-6)
    scanned = jax.lax.scan(lambda i, token: (i + 1, rotate(token[None], encoding=encoding, offset=i)[0]), 0, x)[1]
    close(scanned, expected(x, encoding, np.arange(20)), 2e-6)


def test_gradients():
    """Of an attention score, with derivatives of derivatives, compared with those of the float64 math."""
    encoding = rw.encoding("yarn:4,original_length=4096", head_dim=16)
    q, k = heads((LENGTH, 2, 16), jnp.float64), heads((LENGTH, 2, 16), jnp.float64, 1)
    ids = jnp.arange(LENGTH) * 11

    def score(rotation, q, k):
        q, k = rotation(q, k)
        return jnp.tanh(jnp.einsum("qhd,khd->hqk", q, k)).sum()

    def ours(q, k):
        return rotate(q, k, encoding=encoding, positions=ids)

    def reference(q, k):
        return expected(q, encoding, ids), expected(k, encoding, ids)

    for argument in (0, 1):
        first = [jax.jit(jax.grad(lambda q, k: score(f, q, k), argument)) for f in (ours, reference)]  # noqa: B023
        close(first[0](q, k), first[1](q, k), 1e-12)
        second = [jax.grad(lambda q, k: (g(q, k) ** 2).sum(), argument) for g in first]  # noqa: B023
        close(second[0](q, k), second[1](q, k), 1e-11)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda q: rotate(q, encoding=encoding), (q,), (q,))


def test_xpos_has_its_own_adjoint():
    """The transpose, not the inverse: <R x, y> equals <x, R' y>."""
    encoding = rw.encoding("xpos:64", head_dim=16)
    x, y = heads((LENGTH, 2, 16), jnp.float64), heads((LENGTH, 2, 16), jnp.float64, 1)
    product = (rotate(x, encoding=encoding, offset=50) * y).sum()
    close((x * rotate(y, encoding=encoding, offset=50, adjoint=True)).sum(), product, 1e-12)
    _, transpose = jax.vjp(lambda x: rotate(x, encoding=encoding, offset=50), x)
    close(transpose(y)[0], rotate(y, encoding=encoding, offset=50, adjoint=True), 0)


def test_vmap():
    """Over heads and positions, over one of them, and twice."""
    encoding = rw.encoding("linear:2", head_dim=16)
    x = heads((2, 3, LENGTH, 2, 16))
    starts = jnp.arange(6).reshape(2, 3) * 100

    def one(x, start):
        return rotate(x, encoding=encoding, offset=start)

    twice = jax.jit(jax.vmap(jax.vmap(one)))(x, starts)
    for i, j in np.ndindex(2, 3):
        close(twice[i, j], expected(x[i, j], encoding, starts[i, j] + np.arange(LENGTH)), 2e-6)
    close(jax.vmap(one, (0, None))(x[0], starts[1, 1]), jnp.stack([one(y, starts[1, 1]) for y in x[0]]), 0)
    close(jax.vmap(one, (None, 0))(x[0, 0], starts[0]), jnp.stack([one(x[0, 0], s) for s in starts[0]]), 0)
    gradients = jax.vmap(jax.grad(lambda x, start: (one(x, start) ** 3).sum()))(x[0], starts[0])
    alone = jax.grad(lambda x: (one(x, starts[0, 2]) ** 3).sum())(x[0, 2])
    close(gradients[2], alone, 1e-6)


def test_empty_arrays():
    encoding = rw.encoding("default", head_dim=16)
    assert rotate(jnp.zeros((0, 2, 16), jnp.float32), encoding=encoding).shape == (0, 2, 16)


def test_without_x64():
    with jax.enable_x64(False):
        encoding = rw.encoding("default", head_dim=16)
        x = heads((LENGTH, 2, 16))
        out = jax.jit(lambda x, start: rotate(x, encoding=encoding, offset=start))(x, 2**30)
        reference = rw.rotate(np.asarray(x), encoding=encoding, offset=2**30)
        close(out, reference, 0)
        close(rotate(x, encoding=encoding, offset=2**40), rw.rotate(np.asarray(x), encoding=encoding, offset=2**40), 0)


QUERIES = np.zeros((2, 8, 5, 16), np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"q": None}, rw.Error, "both None"),
        ({"encoding": "linear:8"}, TypeError, r"encoding must be a ropewalk\.Encoding, got str"),
        ({"q": QUERIES[..., :8]}, rw.Error, "the encoding is for head_dim 16"),
        ({"q": QUERIES.astype(np.int32)}, rw.Error, "expected float32"),
        ({"k": QUERIES[:, :2]}, rw.Error, r"did you mean order='bhsd'\?"),
        ({"positions": np.arange(5)}, rw.Error, r"positions \[5\] for 8 tokens"),
        ({"positions": np.arange(8.0)}, rw.Error, r"positions float64 \[8\]: expected \[tokens\]"),
        ({"positions": np.arange(8, dtype=np.uint32)}, rw.Error, r"positions uint32 \[8\]"),
        ({"positions": np.arange(8), "offset": 3}, rw.Error, "exclude each other, got an offset of 3"),
        ({"positions": np.arange(8), "offset": jnp.int32(3)}, rw.Error, "exclude each other"),
        ({"offset": 1.5}, TypeError, "offset must be an integer"),
        ({"offset": jnp.arange(2)}, rw.Error, r"offset int64 \[2\]: expected one int32 or int64"),
        ({"order": "hsd"}, rw.Error, "order must be"),
        ({"order": "bs3hd"}, rw.Error, "for JAX arrays, got .bs3hd."),
        ({"threads": 0}, rw.Error, "from 1 to 4096, got 0"),
    ],
)
def test_mistakes(arguments, error, message):
    """Reported when the call is traced."""
    with pytest.raises(error, match=message):
        rotate(**{"q": QUERIES, "encoding": rw.encoding("default", head_dim=16), **arguments})


def test_rotate_names_the_function_for_jit():
    with pytest.raises(rw.Error, match=r"q is a .*Tracer without memory; in jax.jit, .* call ropewalk.jax.rotate\(\)"):
        jax.jit(lambda q: rw.rotate(q, encoding=rw.encoding("default", head_dim=16)))(QUERIES)


def test_a_mistake_that_only_the_values_show():
    encoding = rw.encoding("xpos:512", head_dim=16)
    run = jax.jit(lambda x, start: rotate(x, encoding=encoding, offset=start))
    with pytest.raises(Exception, match="ropewalk: 'xpos' cannot hold position 100000000 in f32"):
        jax.block_until_ready(run(heads((1, 2, 16)), 10**8))
