"""Gradients, operators and torch.compile, compared with PyTorch in float64."""

import copy

import pytest
import ropewalk as rw
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch_heads import DIM, assert_same_gradients, compiled, operator_arguments

TOKENS, Q_HEADS, K_HEADS = 7, 4, 2
POLICIES = ["default", "linear:8", "yarn:8,original_length=64", "xpos:64", "truncated:256"]


def reference(x, encoding, positions, sign=1.0):
    """Half-split rotation in float64 from the frequencies of the encoding; sign is 1 for queries, -1 for keys."""
    frequencies = torch.from_numpy(encoding.inv_freq)
    angle = positions.double()[:, None] * frequencies
    zeta = (torch.arange(0, DIM, 2, dtype=torch.float64) / DIM + 0.4) / 1.4
    rate = -torch.log2(zeta) / 64 if "xpos" in encoding.expression else 0 * frequencies
    magnitude = encoding.attention_factor * torch.exp2(-sign * positions.double()[:, None] * rate)
    cos, sin = (magnitude * angle.cos())[:, None], (magnitude * angle.sin())[:, None]
    a, b = x.double().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def encode(policy):
    return rw.encoding(policy, head_dim=DIM)


def tensors(requires_grad=True):
    torch.manual_seed(0)
    q, k = (torch.randn(TOKENS, heads, DIM, requires_grad=requires_grad) for heads in (Q_HEADS, K_HEADS))
    return q, k, torch.tensor([3, 0, 9, 9, 100, 41, 5])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("names", ["qk", "q", "k"])
def test_gradients_equal_those_of_the_formula(policy, names):
    encoding = encode(policy)
    q, k, positions = tensors()
    given = [x if name in names else None for name, x in (("q", q), ("k", k))]
    results = rw.rotate(*given, encoding=encoding, positions=positions)
    pairs = [(x, sign) for x, sign in zip(given, (1.0, -1.0)) if x is not None]
    for (x, sign), ours in zip(pairs, results if names == "qk" else (results,)):
        exact = reference(x, encoding, positions, sign)
        torch.testing.assert_close(ours.double(), exact, rtol=0, atol=2e-6)
        weights = torch.randn_like(ours)
        (expected,) = torch.autograd.grad((exact * weights.double()).sum(), x)
        (found,) = torch.autograd.grad((ours * weights).sum(), x, retain_graph=True)
        torch.testing.assert_close(found, expected.float(), rtol=0, atol=4e-6)


@pytest.mark.parametrize("flags", [{}, {"inverse": True}, {"adjoint": True}, {"inverse": True, "adjoint": True}])
def test_backward_is_the_transpose_in_every_direction(flags):
    encoding = encode("xpos:64|yarn:4,original_length=64")
    q, k, positions = tensors()
    for x, given in ((q, (q, None)), (k, (None, k))):
        y = rw.rotate(*given, encoding=encoding, positions=positions, **flags)
        v = torch.randn_like(y)
        (transposed,) = torch.autograd.grad(y, x, v)
        left, right = (y.double() * v.double()).sum(), (x.double() * transposed.double()).sum()
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("policy", "layout"), [("linear:8", "half_split"), ("yarn:4,original_length=64|xpos:64", "interleaved")]
)
def test_gradcheck(policy, layout):
    """In float64, in both modes, also with batches of gradients."""
    encoding = rw.encoding(policy, head_dim=8, layout=layout)
    torch.manual_seed(4)
    q, k = (torch.randn(3, heads, 8, dtype=torch.float64, requires_grad=True) for heads in (2, 1))
    positions = torch.tensor([5, 0, 77])

    def both(q, k):
        return rw.rotate(q, k, encoding=encoding, positions=positions)

    def in_place(q):
        return rw.rotate_(q * 1, encoding=encoding, positions=positions)

    def operator(q, k):
        return torch.ops.ropewalk.rotate(q, k, encoding.key, positions)

    batched = {"check_batched_grad": True, "fast_mode": False}
    for function in (both, operator):
        assert gradcheck(function, (q, k), check_forward_ad=True, check_batched_forward_grad=True, **batched)
        assert gradgradcheck(function, (q, k), **batched)
    assert gradgradcheck(both, (q, k), check_fwd_over_rev=True, **batched)
    assert gradcheck(in_place, (q,), **batched) and gradgradcheck(in_place, (q,), **batched)


def test_double_backward():
    encoding = encode("xpos:64")
    q, _, positions = tensors()

    def second_gradient(y):
        (first,) = torch.autograd.grad((y**3).sum(), q, create_graph=True)
        return torch.autograd.grad((first.double() ** 2).sum(), q)[0]

    ours = second_gradient(rw.rotate(q, encoding=encoding, positions=positions))
    torch.testing.assert_close(ours, second_gradient(reference(q, encoding, positions)), rtol=1e-4, atol=1e-3)


def test_incoming_gradients_may_be_expanded_or_transposed():
    q, _, positions = tensors()
    y = rw.rotate(q, encoding=encode("linear:8"), positions=positions)
    (plain,) = torch.autograd.grad(y, q, torch.ones_like(y), retain_graph=True)
    (expanded,) = torch.autograd.grad(y.sum(), q, retain_graph=True)  # stride 0
    (transposed,) = torch.autograd.grad(y, q, torch.ones(DIM, Q_HEADS, TOKENS).permute(2, 1, 0))
    assert torch.equal(plain, expanded) and torch.equal(plain, transposed)


def test_in_place_with_gradients():
    encoding = encode("linear:8")
    q, k, positions = tensors()
    results = []
    for function in (rw.rotate_, rw.rotate):
        y, z = function(q * 2, k * 3, encoding=encoding, positions=positions)
        results.append((y, z, *torch.autograd.grad(y.sum() + 2 * z.sum(), (q, k))))
    assert all(torch.equal(ours, expected) for ours, expected in zip(*results))
    with pytest.raises(rw.Error, match="is a leaf that requires grad"):
        rw.rotate_(q, encoding=encoding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(dtype, requires_grad):
    q, k, positions = tensors(requires_grad)
    q, k = q.to(dtype, copy=True), k.to(dtype, copy=True)
    rest = operator_arguments(encode("xpos:64|linear:8"), positions)
    operators = torch.ops.ropewalk
    rw.rotate(torch.zeros(1, 1, DIM, requires_grad=True), encoding=encode("linear:8"))  # registers the operators
    torch.library.opcheck(operators.rotate.default, (q, k, *rest))
    torch.library.opcheck(operators.rotate_.default, (q, k, *rest))
    torch.library.opcheck(operators.rotate.default, (q, None, *rest))
    torch.library.opcheck(operators.rotate_.default, (None, k, *rest))


def test_compiled_without_a_graph_break_for_every_length():
    encoding = encode("yarn:8,original_length=64")
    graphs = []

    def backend(module, inputs):
        graphs.append(module)
        return module.forward

    def layer(q, k, positions):
        q, k = rw.rotate(q * 1.5, k, encoding=encoding, positions=positions)
        return q.sum(-1), k + 1

    function = torch.compile(layer, fullgraph=True, dynamic=True, backend=backend)
    for tokens in (3, 5, 8, 13, 200):
        q, k = torch.randn(tokens, Q_HEADS, DIM), torch.randn(tokens, K_HEADS, DIM)
        positions = torch.arange(tokens) * 7
        for ours, plain in zip(function(q, k, positions), layer(q, k, positions)):
            torch.testing.assert_close(ours, plain, rtol=0, atol=0)
    assert len(graphs) == 1


def test_a_compiled_function_distinguishes_encodings():
    def rotate(q, encoding):
        return rw.rotate(q, encoding=encoding, offset=50)

    function = compiled(rotate)
    q = torch.randn(TOKENS, Q_HEADS, DIM)
    for policy in POLICIES:
        assert torch.equal(function(q, encode(policy)), rotate(q, encode(policy)))


def test_compiled_training_step():
    def loss(q, k):
        q, k = rw.rotate(q, k, encoding=encoding)
        return torch.einsum("thd,shd->ths", q[:, :K_HEADS], k).square().sum()

    encoding = encode("linear:8")
    q, k, _ = tensors()
    assert_same_gradients(loss, compiled(loss), q, k, atol=1e-4)


def test_dispatch_modes_see_the_operators_of_forward_and_backward():
    seen = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    q, encoding = torch.randn(3, 2, DIM, requires_grad=True), encode("linear:2")
    (expected,) = torch.autograd.grad(rw.rotate(q, encoding=encoding).sin().sum(), q)
    with Mode():
        (found,) = torch.autograd.grad(rw.rotate(q, encoding=encoding).sin().sum(), q)
    assert seen.count("ropewalk.rotate.default") == 2  # forward and backward
    assert torch.equal(expected, found)


def test_tables_ragged_batches_and_orders_with_gradients():
    encoding = encode("default")
    torch.manual_seed(1)
    packed, batch = torch.randn(TOKENS, Q_HEADS, DIM), torch.randn(2, Q_HEADS, TOKENS, DIM)
    for x, arguments in (
        (packed, {"cu_seqlens": torch.tensor([0, 3, TOKENS])}),
        (packed, {"table": encoding.cos_sin(torch.arange(64), elementwise=True), "offset": 3}),
        (batch, {"order": "bhsd", "positions": torch.randint(0, 64, (2, TOKENS))}),
        (packed, {"positions": list(range(TOKENS))}),
    ):
        plain = rw.rotate(x, encoding=encoding, **arguments)
        ours = rw.rotate(x.clone().requires_grad_(), encoding=encoding, **arguments)
        assert ours.requires_grad and torch.equal(ours, plain)


def test_errors_with_gradients():
    q, _, _ = tensors()
    encoding = encode("default")
    with pytest.raises(rw.Error, match="out= is not supported with gradients"):
        rw.rotate(q, encoding=encoding, out=torch.empty_like(q))
    with pytest.raises(rw.Error, match="requires grad, and rerotate_ would lose its gradient"):
        rw.rerotate_(q, encoding, encode("linear:2"))


def test_a_key_restores_its_encoding():
    for policy in [*POLICIES, "linear:4|truncated:4096", "mrope:[2,3,3],interleaved=true"]:
        encoding = rw.encoding(policy, head_dim=16, base=5e5, layout="interleaved", sequence_length=777)
        assert rw.Encoding.from_key(encoding.key) == encoding
        assert copy.deepcopy(encoding) == encoding
    with pytest.raises(rw.Error, match="not the key of an encoding"):
        rw.Encoding.from_key("linear:8")
