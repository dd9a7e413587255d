"""Tables in one array, as inference engines keep them, and the gradients of tables."""

import ml_dtypes
import numpy as np
import pytest
import ropewalk as rw
import torch
from checks import assert_refused
from rope_reference import LAYOUTS, LIBRARIES, assert_close, exact, make, plain, rotate_exactly

THETA = plain(24, 50.0)  # frequencies that no encoding of this file has
IDS = np.array([5, 0, 9, 2, 2, 1])


def encode(layout="half_split", head_dim=32, rotary_dim=24, policy="default", **geometry):
    return rw.encoding(policy, head_dim=head_dim, rotary_dim=rotary_dim, layout=layout, **geometry)


def cache_of(rows, theta=THETA, dtype=torch.float32):
    angle = np.arange(rows)[:, None] * theta
    return torch.from_numpy(np.concatenate([np.cos(angle), np.sin(angle)], 1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_one_array_equals_the_pair_of_its_halves(library, layout, dtype):
    q, k = (make(library, "float32", (6, heads, 32), heads) for heads in (4, 2))
    cache = cache_of(10, dtype=dtype)
    pair = cache[:, :12], cache[:, 12:]
    if library == "numpy":
        cache = cache.float().numpy().astype(ml_dtypes.bfloat16) if dtype == torch.bfloat16 else cache.numpy()
        pair = cache[:, :12], cache[:, 12:]
    encoding = encode(layout)
    ours = rw.rotate(q, k, encoding=encoding, table=cache, positions=IDS)
    for one, other, x in zip(ours, rw.rotate(q, k, encoding=encoding, table=pair, positions=IDS), (q, k)):
        np.testing.assert_array_equal(exact(one), exact(other))
        if dtype == torch.float32:
            assert_close(one, rotate_exactly(x, THETA, IDS, layout))


def test_an_array_of_two_rows_is_no_pair():
    """Two positions in one array, and a pair of two rows in a list."""
    x = make("numpy", "float32", (2, 3, 32))
    cache = cache_of(2).numpy()
    assert_close(rw.rotate(x, encoding=encode(), table=cache), rotate_exactly(x, THETA, [0, 1]))
    pair = [np.ascontiguousarray(cache[:, :12]), np.ascontiguousarray(cache[:, 12:])]
    assert_close(rw.rotate(x, encoding=encode(), table=pair), rotate_exactly(x, THETA, [0, 1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:4], "position 9 lies outside the table of 4 rows"),
        (lambda c: c[:, :22], r"table .*\[10, 22\].*24"),
        (lambda c: c[None], r"table .*\[1, 10, 24\].*24"),
        (lambda c: c[0], r"table .*\[24\].*24"),
        (lambda c: np.repeat(c, 2, 1), r"table .*\[10, 48\].*24"),
        (lambda c: np.repeat(c, 2, 1)[:, ::2], "last stride 1|contiguous"),
        (lambda c: c.astype(np.int32), "table int32.*expected float32"),
        (lambda c: [c], "table must be a pair|must be a pair"),
        (lambda c: "table", "table must be a pair"),
    ],
)
def test_tables_that_do_not_fit_write_nothing(change, message):
    q = make("numpy", "float32", (6, 2, 32))
    cache = cache_of(10).numpy()
    assert_refused(message, lambda: rw.rotate_(q, encoding=encode(), positions=IDS, table=change(cache)), q)


@pytest.mark.parametrize("policy", ["linear:2", "yarn:8,original_length=64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cos_sin_cache_has_the_nearest_numbers(layout, policy):
    encoding = encode(layout, policy=policy, rotary_offset=4)
    angle = np.arange(9000)[:, None] * encoding.inv_freq
    expected = np.concatenate([np.cos(angle), np.sin(angle)], 1) * encoding.attention_factor
    np.testing.assert_allclose(rw.cos_sin_cache(encoding, 9000, "float64"), expected, atol=1e-11)
    for dtype, bits in ((torch.float32, 24), (torch.float16, 11), (torch.bfloat16, 8)):
        cache = rw.cos_sin_cache(encoding, 9000, dtype=dtype)
        assert cache.dtype == dtype and cache.shape == (9000, 24)
        np.testing.assert_allclose(exact(cache), expected, rtol=1.01 * 2.0**-bits, atol=1e-7)
    x = make("torch", "float32", (9000, 1, 32))
    ours = rw.rotate(x, encoding=encoding, table=rw.cos_sin_cache(encoding, 9000, device="cpu"))
    torch.testing.assert_close(ours, rw.rotate(x, encoding=encoding), atol=2e-6, rtol=0)


def test_cos_sin_cache_in_numpy_and_its_errors():
    encoding = encode()
    assert rw.cos_sin_cache(encoding, 3).dtype == np.float32
    assert rw.cos_sin_cache(encoding, 3, ml_dtypes.bfloat16).dtype == ml_dtypes.bfloat16
    assert rw.cos_sin_cache(encoding, 3, "bfloat16").dtype == ml_dtypes.bfloat16
    assert rw.cos_sin_cache(encoding, 0).shape == (0, 24)
    for arguments, message in (
        ((encode(policy="xpos"), 3), "'xpos.*' scales queries and keys"),
        ((encode(policy="randomized:64"), 3), "'randomized.*' draws random positions"),
        ((encoding, -1), "length must be from 0 to 2.31 - 1, got -1"),
        ((encoding, 3, "int8"), "dtype must be one of float32"),
        ((encoding, 3, torch.int8), "dtype must be one of float32"),
    ):
        with pytest.raises(rw.Error, match=message):
            rw.cos_sin_cache(*arguments)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("is_neox", [True, False])
def test_the_call_of_inference_engines(library, is_neox, flat):
    layout = LAYOUTS[0] if is_neox else LAYOUTS[1]
    qkv = make(library, "float32", (6, 8, 32))
    q, k = qkv[:, :4], qkv[:, 4:6]
    expected = [rotate_exactly(x, THETA, IDS, layout) for x in (q, k)]
    if flat:
        rows = qkv.reshape(6, 256)
        q, k = rows[:, :128], rows[:, 128:192]
    cache, ids = cache_of(10), torch.from_numpy(IDS)
    if library == "numpy":
        cache, ids = cache.numpy(), IDS
    result = rw.apply_cos_sin_cache_(ids, q, k, 32, cache, is_neox)
    assert result[0] is q and result[1] is k
    for ours, exactly in zip(result, expected):
        assert_close(ours.reshape(exactly.shape), exactly)
    batched = make(library, "float32", (2, 3, 4, 32))
    exactly = rotate_exactly(batched, THETA, IDS.reshape(2, 3), layout)
    assert rw.apply_cos_sin_cache_(ids.reshape(2, 3), batched, None, 32, cache, is_neox) is batched
    assert_close(batched, exactly)


def test_the_call_of_inference_engines_refuses_other_shapes():
    q, cache = make("numpy", "float32", (6, 128)), cache_of(10).numpy()
    for arguments, message in (
        ((IDS, q, None, 30, cache), r"query \[6, 128\] must have the 1 axes of positions, then heads \* 30"),
        ((IDS, q, None, 16, cache), r"cos_sin_cache \[10, 24\] must be .* at most head_size 16"),
        ((IDS, q, None, 32, cache[0]), r"cos_sin_cache \[24\]"),
        ((IDS, q[0], None, 32, cache), r"query \[128\]"),
        ((IDS[:, None, None], q, None, 32, cache), "positions has 3 axes"),
        ((IDS[:5], q, None, 32, cache), "positions has 5 entries for 6 tokens"),
    ):
        assert_refused(message, lambda arguments=arguments: rw.apply_cos_sin_cache_(*arguments), q)


# Gradients


def composed(x, cos, sin, layout, start, pairs):
    """The rotation by PyTorch's operators, for x [..., tokens, heads, head_dim] and rows [..., tokens, pairs]."""
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    part = x[..., start : start + 2 * pairs]
    a, b = (part[..., :pairs], part[..., pairs:]) if layout == "half_split" else (part[..., ::2], part[..., 1::2])
    first, second = a * cos - b * sin, b * cos + a * sin
    joined = torch.cat((first, second), -1) if layout == "half_split" else torch.stack((first, second), -1).flatten(-2)
    return torch.cat((x[..., :start], joined, x[..., start + 2 * pairs :]), -1)


@pytest.mark.parametrize("form", ["cache", "pair", "doubled", "by token", "by token shared"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_equal_those_of_a_composition(layout, form):
    encoding = rw.encoding("default", head_dim=10, rotary_dim=6, rotary_offset=2, layout=layout)
    q, k = (make("torch", "float64", (2, 4, heads, 10), heads).requires_grad_() for heads in (4, 2))
    ids = torch.tensor([[0, 3, 3, 1], [2, 2, 0, 3]])
    rows = {"by token": (2, 5), "by token shared": (1, 5)}.get(form, (6,))
    leaf = make("torch", "float64", (*rows, 12 if form == "doubled" else 6), 9).requires_grad_()
    half = leaf.shape[-1] // 2
    pair = leaf[..., :half], leaf[..., half:]
    table = leaf if form == "cache" else pair
    given = {"encoding": encoding, "table": table} | ({} if "token" in form else {"positions": ids})
    cos, sin = pair
    if form == "doubled":
        cos, sin = (x[:, :3] if layout == "half_split" else x[:, ::2] for x in pair)
    cos, sin = (x[:, :4] if "token" in form else x[ids] for x in (cos, sin))
    expected = [composed(x, cos, sin, layout, 2, 3) for x in (q, k)]
    for function in (rw.rotate, lambda q, k, **given: rw.rotate_(q * 1, k * 1, **given)):
        ours = function(q, k, **given)
        wanted = torch.autograd.grad(sum((x.sin() * 3).sum() for x in expected), (q, k, leaf), retain_graph=True)
        found = torch.autograd.grad(sum((x.sin() * 3).sum() for x in ours), (q, k, leaf), retain_graph=True)
        for a, b in zip((*ours, *found), (*expected, *wanted)):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("direction", [{}, {"inverse": True}, {"adjoint": True}, {"inverse": True, "adjoint": True}])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradcheck(layout, direction):
    encoding = rw.encoding("default", head_dim=6, rotary_dim=4, layout=layout)
    x, cache = (
        make("torch", "float64", (3, 2, 6)).requires_grad_(),
        make("torch", "float64", (3, 4), 1).requires_grad_(),
    )

    def call(x, cache):
        return rw.rotate(x, encoding=encoding, table=cache, positions=[2, 0, 2], **direction)

    assert torch.autograd.gradcheck(call, (x, cache))
    assert torch.autograd.gradgradcheck(call, (x, cache))
    assert torch.autograd.gradcheck(lambda cache: call(x.detach(), cache), cache)


@pytest.mark.parametrize("given", [{"offset": torch.tensor([1, 0])}, {"order": "bhsd"}, {"order": "sbhd"}, {}])
def test_offsets_and_orders(given):
    encoding = rw.encoding("default", head_dim=4)
    order = given.get("order", "bshd")
    x = make("torch", "float64", (2, 2, 2, 4)).requires_grad_()
    cache = make("torch", "float64", (5, 4), 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, cache: rw.rotate(x, encoding=encoding, table=cache, **given), (x, cache))
    packed = x.detach()[0]
    bounds = {"cu_seqlens": [0, 1, 2], "offset": [3, 2]}
    assert order and torch.autograd.gradcheck(
        lambda cache: rw.rotate(packed, encoding=encoding, table=cache, **bounds), cache
    )


def test_sums_are_float32_and_two_calls_add_up():
    encoding, tokens = rw.encoding("default", head_dim=4), 3000
    x = torch.ones(tokens, 1, 4, dtype=torch.bfloat16)
    cache = torch.zeros(1, 4, dtype=torch.bfloat16, requires_grad=True)
    given = {"encoding": encoding, "table": cache, "positions": torch.zeros(tokens, dtype=torch.int64)}
    rw.rotate(x, **given).sum().backward()
    assert cache.grad[0, :2].tolist() == [torch.tensor(2.0 * tokens).bfloat16().item()] * 2
    cache.grad = None
    (rw.rotate(x, **given).sum() + rw.rotate(None, x, **given).sum()).backward()
    assert cache.grad[0, :2].tolist() == [torch.tensor(4.0 * tokens).bfloat16().item()] * 2


def test_one_graph_and_the_checks_of_the_operator():
    encoding = encode()
    q, k = (make("torch", "float32", (6, heads, 32), heads) for heads in (4, 2))
    ids = torch.from_numpy(IDS)
    results = []
    for compiles in (False, True):
        cache = cache_of(10).requires_grad_()

        def call(q, k, cache):
            return rw.rotate(q, k, encoding=encoding, table=cache, positions=ids)

        if compiles:
            call = torch.compile(call, backend="aot_eager", fullgraph=True)
        ours = call(q, k, cache)
        sum(x.sin().sum() for x in ours).backward()
        results.append((*ours, cache.grad))
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)
    cos, sin = (half.requires_grad_() for half in (cache_of(10)[:, :12], cache_of(10)[:, 12:]))
    operator = torch.ops.ropewalk.rotate.default
    torch.library.opcheck(operator, (q, k, encoding.key, ids), {"cos": cos, "sin": sin})
    with pytest.raises(rw.Error, match=r"no derivatives in forward mode and by torch\.func"):
        torch.func.grad(lambda cache: rw.rotate(q, encoding=encoding, table=cache, positions=ids).sum())(cache_of(10))


def test_a_table_that_requires_grad_may_be_used_without_gradients():
    cache = cache_of(10).requires_grad_()
    x = make("torch", "float32", (6, 2, 32))
    with torch.no_grad():
        assert not rw.rotate(x, encoding=encode(), table=cache, positions=IDS).requires_grad
    with pytest.raises(rw.Error, match="requires grad"):
        rw.rotate(x.numpy(), encoding=encode(), table=cache, positions=IDS)
