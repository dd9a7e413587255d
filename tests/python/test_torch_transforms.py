"""Around the operators: export, vmap, checkpoints, and tensors without tokens or with elements that share memory."""

import functools

import pytest
import ropewalk as rw
import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

DIM, HEADS = 16, 4
ENCODING = rw.encoding("linear:8", head_dim=DIM)


def heads(tokens=7):
    return torch.randn(tokens, HEADS, DIM, generator=torch.Generator().manual_seed(tokens))


def test_export_for_every_length():
    module = rw.RotaryEmbedding(DIM, "linear:8")
    tokens = torch.export.Dim("tokens")
    q, k = heads(7), heads(7) + 1
    program = torch.export.export(module, (q, k), dynamic_shapes=({0: tokens}, {0: tokens}))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("ropewalk" in name for name in names) == 1, names
    for length in (2, 7, 300):
        q, k = heads(length), heads(length) * 2
        for ours, plain in zip(program.module()(q, k), module(q, k)):
            assert torch.equal(ours, plain)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("function", [rw.rotate, rw.rotate_])
def test_vmap_is_refused_and_writes_nothing(function, requires_grad):
    batch = torch.randn(3, 7, HEADS, DIM)
    before = batch.clone()
    with pytest.raises(rw.Error, match=r"q has no strided memory.*torch.vmap .*a batch is an axis of q and k"):
        torch.vmap(lambda x: function(x * 1 if requires_grad else x, encoding=ENCODING))(
            batch.requires_grad_(requires_grad)
        )
    assert torch.equal(batch, before)


def test_vmap_over_positions_is_refused():
    q = heads()
    with pytest.raises(rw.Error, match="positions has no strided memory"):
        torch.vmap(lambda ids: rw.rotate(q, encoding=ENCODING, positions=ids))(torch.arange(21).view(3, 7))


def test_functionalized():
    def turn(x):
        return rw.rotate(x.sin(), 2 * x, encoding=ENCODING, offset=3)[1]

    assert torch.equal(torch.func.functionalize(turn)(heads()), turn(heads()))
    written = heads()
    with pytest.raises(RuntimeError, match="ropewalk::rotate_"):  # torch functionalizes no such operator
        torch.func.functionalize(lambda x: rw.rotate_(x, encoding=ENCODING))(written)
    assert torch.equal(written, heads())


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("policy", ["linear:8", "xpos:64"])
def test_checkpoints_of_both_kinds(policy, use_reentrant):
    encoding = rw.encoding(policy, head_dim=DIM)
    q, k = heads(5).requires_grad_(), (heads(5) + 1).requires_grad_()

    def block(q, k):
        q, k = rw.rotate(q.sin(), k.cos(), encoding=encoding, offset=11)
        return (q * k).square().sum()

    expected = torch.autograd.grad(block(q, k), (q, k))
    checkpoint(block, q, k, use_reentrant=use_reentrant).backward()
    assert torch.equal(q.grad, expected[0]) and torch.equal(k.grad, expected[1])


@pytest.mark.parametrize("choice", [CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE])
@pytest.mark.parametrize("both", [False, True])
def test_selective_checkpoints_of_what_is_written_in_place(both, choice):
    """Their policies save results, of which an operator in place has none."""

    def policy(context, operator, *arguments, **keywords):
        return choice if "ropewalk" in str(operator) else CheckpointPolicy.PREFER_RECOMPUTE

    def block(q, k):
        q, k = q.sin(), k.cos()
        rw.rotate_(q, k if both else None, encoding=ENCODING, offset=11)
        return (q * k).square().sum()

    q, k = heads(5).requires_grad_(), (heads(5) + 1).requires_grad_()
    expected = torch.autograd.grad(block(q, k), (q, k))
    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    checkpoint(block, q, k, use_reentrant=False, context_fn=contexts).backward()
    assert torch.equal(q.grad, expected[0]) and torch.equal(k.grad, expected[1])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shape", [(0, HEADS, DIM), (5, 0, DIM), (0, 7, HEADS, DIM), (2, 0, HEADS, DIM)])
def test_no_tokens_and_their_gradient(shape, compiled):
    def turn(x):
        return rw.rotate(x, encoding=ENCODING)

    function = torch.compile(turn, fullgraph=True, backend="aot_eager") if compiled else turn
    x = torch.zeros(shape, requires_grad=True)
    y = function(x)
    assert y.shape == shape
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.shape == shape
    assert rw.rotate_(torch.zeros(shape), encoding=ENCODING).shape == shape


def test_expanded_tensors_are_read_and_their_gradients_added():
    row = heads(1).requires_grad_()
    many = row.expand(6, HEADS, DIM)
    turned = rw.rotate(many, encoding=ENCODING)
    assert torch.equal(turned, rw.rotate(many.detach().contiguous(), encoding=ENCODING))
    weights = heads(6)
    (found,) = torch.autograd.grad((turned * weights).sum(), row)
    expected = rw.rotate(weights, encoding=ENCODING, adjoint=True).sum(0, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_expanded_tensors_are_not_written(requires_grad):
    row = heads(1).requires_grad_(requires_grad) * 2
    before = row.detach().clone()
    with pytest.raises(rw.Error, match="share memory along the token axis, so it cannot be written"):
        rw.rotate_(row.expand(6, HEADS, DIM), encoding=ENCODING)
    assert torch.equal(row, before)


def test_autocast_leaves_the_type_of_each_tensor():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = heads().requires_grad_()
        assert rw.rotate(q, encoding=ENCODING).dtype == torch.float32
        projected = q @ torch.eye(DIM)
        turned = rw.rotate(projected, encoding=ENCODING)
        with pytest.raises(rw.Error, match="q is f32 but k is bf16"):
            rw.rotate(q, projected, encoding=ENCODING)
    assert turned.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(turned.float().square().sum() / 2, q)
    torch.testing.assert_close(gradient, q.detach(), rtol=0, atol=0.05)  # a rotation keeps the norm
