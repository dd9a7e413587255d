"""Gradients, operators and torch.compile, against plain PyTorch in float64."""

import copy
import subprocess
import sys

import pytest
import ropewalk as rw
import torch
from torch.utils._python_dispatch import TorchDispatchMode

TOKENS, Q_HEADS, K_HEADS, DIM = 7, 4, 2, 16
POLICIES = ["default", "linear:8", "yarn:8,original_length=64", "xpos:64", "truncated:256"]


def reference(x, encoding, positions, sign=1.0):
    """Half-split rotation in the type of x from the float64 frequencies; sign: 1 for queries, -1 for keys."""
    frequencies = torch.from_numpy(encoding.inv_freq)
    angle = positions.double()[:, None] * frequencies
    zeta = (torch.arange(0, DIM, 2, dtype=torch.float64) / DIM + 0.4) / 1.4
    decay = -torch.log2(zeta) / 64 if "xpos" in encoding.expression else 0 * frequencies
    stretch = encoding.attention_factor * torch.exp2(-sign * positions.double()[:, None] * decay)
    cos, sin = (stretch * angle.cos())[:, None], (stretch * angle.sin())[:, None]
    a, b = x.double().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def make(policy):
    return rw.encoding(policy, head_dim=DIM)


def tensors(requires_grad=True, seed=0):
    torch.manual_seed(seed)
    q = torch.randn(TOKENS, Q_HEADS, DIM, requires_grad=requires_grad)
    k = torch.randn(TOKENS, K_HEADS, DIM, requires_grad=requires_grad)
    return q, k, torch.tensor([3, 0, 9, 9, 100, 41, 5])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("which", ["both", "q", "k"])
def test_gradients_equal_those_of_the_formula(policy, which):
    encoding = make(policy)
    q, k, positions = tensors()
    parts = {"both": (q, k), "q": (q, None), "k": (None, k)}[which]
    results = rw.rotate(*parts, encoding=encoding, positions=positions)
    results = results if which == "both" else (results,)
    given = [(x, s) for x, s in zip(parts, (1.0, -1.0)) if x is not None]
    for (x, sign), ours in zip(given, results):
        exact = reference(x, encoding, positions, sign)
        torch.testing.assert_close(ours.double(), exact, rtol=0, atol=2e-6)
        weights = torch.randn_like(ours)
        (expected,) = torch.autograd.grad((exact * weights.double()).sum(), x)
        (found,) = torch.autograd.grad((ours * weights).sum(), x, retain_graph=True)
        torch.testing.assert_close(found, expected.float(), rtol=0, atol=4e-6)


@pytest.mark.parametrize("flags", [{}, {"inverse": True}, {"adjoint": True}, {"inverse": True, "adjoint": True}])
def test_backward_is_the_transpose_in_every_direction(flags):
    encoding = make("xpos:64|yarn:4,original_length=64")
    q, k, positions = tensors()
    for x, slot in ((q, 0), (k, 1)):
        parts = (x, None) if slot == 0 else (None, x)
        y = rw.rotate(*parts, encoding=encoding, positions=positions, **flags)
        v = torch.randn_like(y)
        (transposed,) = torch.autograd.grad(y, x, v)
        left, right = (y.double() * v.double()).sum(), (x.double() * transposed.double()).sum()
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("policy", ["linear:8", "xpos:64"])
@pytest.mark.filterwarnings("ignore:Input .* not a double precision")
def test_gradcheck(policy):
    """The map is linear, so that a step of 1 is exact but for float32's rounding."""
    encoding = rw.encoding(policy, head_dim=8)
    q, k = torch.randn(3, 2, 8, requires_grad=True), torch.randn(3, 1, 8, requires_grad=True)
    positions = torch.tensor([5, 0, 77])

    def both(q, k):
        return rw.rotate(q, k, encoding=encoding, positions=positions)

    def in_place(q):
        return rw.rotate_(q * 1, encoding=encoding, positions=positions)

    bounds = {"eps": 1.0, "atol": 1e-5, "rtol": 1e-5}
    assert torch.autograd.gradcheck(both, (q, k), **bounds)
    assert torch.autograd.gradcheck(in_place, (q,), **bounds)
    assert torch.autograd.gradgradcheck(both, (q, k), **bounds)


def test_double_backward():
    encoding = make("xpos:64")
    q, _, positions = tensors()
    y = rw.rotate(q, encoding=encoding, positions=positions)
    (first,) = torch.autograd.grad((y**3).sum(), q, create_graph=True)
    (second,) = torch.autograd.grad((first**2).sum(), q)
    exact = reference(q, encoding, positions)
    (first_exact,) = torch.autograd.grad((exact**3).sum(), q, create_graph=True)
    (second_exact,) = torch.autograd.grad((first_exact.double() ** 2).sum(), q)
    torch.testing.assert_close(second, second_exact, rtol=1e-4, atol=1e-3)


def test_gradients_through_expanded_and_transposed_gradients():
    q, _, positions = tensors()
    y = rw.rotate(q, encoding=make("linear:8"), positions=positions)
    (plain,) = torch.autograd.grad(y, q, torch.ones_like(y), retain_graph=True)
    (expanded,) = torch.autograd.grad(y.sum(), q, retain_graph=True)  # stride 0
    column = torch.ones(DIM, Q_HEADS, TOKENS).permute(2, 1, 0)
    (transposed,) = torch.autograd.grad(y, q, column)
    assert torch.equal(plain, expanded) and torch.equal(plain, transposed)


def test_in_place_with_gradients():
    encoding = make("linear:8")
    q, k, positions = tensors()
    q2, k2 = q * 2, k * 3
    rq, rk = rw.rotate_(q2, k2, encoding=encoding, positions=positions)
    (gq, gk) = torch.autograd.grad(rq.sum() + 2 * rk.sum(), (q, k))
    oq, ok = rw.rotate(q * 2, k * 3, encoding=encoding, positions=positions)
    (eq, ek) = torch.autograd.grad(oq.sum() + 2 * ok.sum(), (q, k))
    assert torch.equal(rq, oq) and torch.equal(rk, ok) and torch.equal(gq, eq) and torch.equal(gk, ek)
    with pytest.raises(rw.Error, match="is a leaf that requires grad"):
        rw.rotate_(q, encoding=encoding)


def test_a_write_in_place_is_seen_by_autograd():
    x = torch.randn(TOKENS, Q_HEADS, DIM)
    weight = torch.randn((), requires_grad=True)
    loss = (weight * x).sum()
    rw.rotate_(x, encoding=make("default"))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with torch.inference_mode():
        rw.rotate_(torch.randn(TOKENS, Q_HEADS, DIM), encoding=make("default"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(dtype, requires_grad):
    q, k, positions = tensors(requires_grad)
    q, k, key = q.to(dtype, copy=True), k.to(dtype, copy=True), make("xpos:64|linear:8").key
    rest = (key, positions, 0, None, None, False, False, None, None, None)
    operators = torch.ops.ropewalk
    rw.rotate(torch.zeros(1, 1, DIM, requires_grad=True), encoding=make("linear:8"))  # brings the operators
    torch.library.opcheck(operators.rotate.default, (q, k, *rest))
    torch.library.opcheck(operators.rotate_.default, (q, k, *rest))
    torch.library.opcheck(operators.rotate.default, (q, None, *rest))
    torch.library.opcheck(operators.rotate_.default, (None, k, *rest))


def test_compiled_without_a_graph_break_for_every_length():
    encoding = make("yarn:8,original_length=64")
    traced = []

    def counting(module, inputs):
        traced.append(module)
        return module.forward

    def layer(q, k, positions):
        q, k = rw.rotate(q * 1.5, k, encoding=encoding, positions=positions)
        return q.sum(-1), k + 1

    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counting)
    for tokens in (3, 5, 8, 13, 200):
        q, k = torch.randn(tokens, Q_HEADS, DIM), torch.randn(tokens, K_HEADS, DIM)
        positions = torch.arange(tokens) * 7
        for ours, plain in zip(compiled(q, k, positions), layer(q, k, positions)):
            torch.testing.assert_close(ours, plain, rtol=0, atol=0)
    assert len(traced) == 1


def test_a_compiled_function_tells_encodings_apart():
    def turn(q, encoding):
        return rw.rotate(q, encoding=encoding, offset=50)

    compiled = torch.compile(turn, fullgraph=True, backend="aot_eager")
    q = torch.randn(TOKENS, Q_HEADS, DIM)
    for policy in POLICIES:
        assert torch.equal(compiled(q, make(policy)), turn(q, make(policy)))


def test_compiled_training_step():
    encoding = make("linear:8")

    def loss(q, k):
        q, k = rw.rotate(q, k, encoding=encoding)
        return torch.einsum("thd,shd->ths", q[:, :K_HEADS], k).square().sum()

    q, k, _ = tensors()
    expected = torch.autograd.grad(loss(q, k), (q, k))
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(q, k), (q, k))
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def test_who_listens_for_operators_sees_those_of_training():
    seen = []

    class Listener(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    enc = rw.encoding("linear:2", head_dim=16)
    q = torch.randn(3, 2, 16, requires_grad=True)
    alone = torch.autograd.grad(rw.rotate(q, encoding=enc).sin().sum(), q)
    with Listener():
        heard = torch.autograd.grad(rw.rotate(q, encoding=enc).sin().sum(), q)
    assert seen.count("ropewalk.rotate.default") == 2  # forward and backward
    assert torch.equal(alone[0], heard[0])


def test_checkpoint_and_autocast():
    encoding = make("linear:8")
    q, _, positions = tensors()

    def block(x):
        return rw.rotate(x.sin(), encoding=encoding, positions=positions).square().sum()

    (expected,) = torch.autograd.grad(block(q), q)
    (found,) = torch.autograd.grad(torch.utils.checkpoint.checkpoint(block, q, use_reentrant=False), q)
    assert torch.equal(found, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = q @ torch.eye(DIM)
        assert projected.dtype == torch.bfloat16
        assert rw.rotate(projected, encoding=encoding).dtype == torch.bfloat16


def test_tables_ragged_batches_and_orders_go_through_the_operator():
    encoding = make("default")
    torch.manual_seed(1)
    packed = torch.randn(TOKENS, Q_HEADS, DIM)
    lengths = torch.tensor([0, 3, TOKENS])
    cos, sin = encoding.cos_sin(torch.arange(64), elementwise=True)
    batch = torch.randn(2, Q_HEADS, TOKENS, DIM)
    ids = torch.randint(0, 64, (2, TOKENS))
    for x, arguments in (
        (packed, {"cu_seqlens": lengths}),
        (packed, {"table": (cos, sin), "offset": 3}),
        (batch, {"order": "bhsd", "positions": ids}),
        (packed, {"positions": list(range(TOKENS))}),
    ):
        plain = rw.rotate(x, encoding=encoding, **arguments)
        traced = rw.rotate(x.clone().requires_grad_(), encoding=encoding, **arguments)
        assert traced.requires_grad and torch.equal(traced, plain)


def test_refusals():
    q, _, _ = tensors()
    encoding = make("default")
    with pytest.raises(rw.Error, match="out= is not supported with gradients"):
        rw.rotate(q, encoding=encoding, out=torch.empty_like(q))
    table = encoding.cos_sin(torch.arange(64))
    with pytest.raises(rw.Error, match="cos requires grad, but a table gets no gradient"):
        rw.rotate(q, encoding=encoding, table=(table[0].requires_grad_(), table[1]))
    with pytest.raises(rw.Error, match="requires grad, and rerotate_ would lose its gradient"):
        rw.rerotate_(q, encoding, make("linear:2"))
    with pytest.raises(rw.Error, match="no strided memory"):
        torch.vmap(lambda x: rw.rotate(x, encoding=encoding))(torch.randn(3, TOKENS, Q_HEADS, DIM, requires_grad=True))


def test_a_key_makes_its_encoding_again():
    for policy in [*POLICIES, "linear:4|truncated:4096", "mrope:[2,3,3],interleaved=true"]:
        encoding = rw.encoding(policy, head_dim=16, base=5e5, layout="interleaved", sequence_length=777)
        assert rw.Encoding.from_key(encoding.key) == encoding
        assert copy.deepcopy(encoding) == encoding
    with pytest.raises(rw.Error, match="not the key of an encoding"):
        rw.Encoding.from_key("linear:8")


def test_importing_the_package_does_not_import_torch():
    program = "import sys, ropewalk; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
