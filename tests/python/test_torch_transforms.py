"""Export, functionalization, checkpoints and autocast, and tensors that are empty or expanded."""

import functools

import pytest
import ropewalk as rw
import torch
from checks import assert_refused
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from torch_heads import DIM, ENCODING, IDS, compiled, heads, learning

HEADS = 4


def rotate(x):
    return rw.rotate(x, encoding=ENCODING)


def test_export_for_every_length():
    module = rw.RotaryEmbedding(DIM, "linear:8")
    tokens = torch.export.Dim("tokens")
    q, k = heads(tokens=7), heads(tokens=7) + 1
    program = torch.export.export(module, (q, k), dynamic_shapes=({0: tokens}, {0: tokens}))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("ropewalk" in name for name in names) == 1, names
    for length in (2, 7, 300):
        q, k = heads(tokens=length), heads(tokens=length) * 2
        for ours, plain in zip(program.module()(q, k), module(q, k)):
            assert torch.equal(ours, plain)


def test_functionalized():
    def function(x):
        return rw.rotate(x.sin(), 2 * x, encoding=ENCODING, offset=3)[1]

    x = heads()
    assert torch.equal(torch.func.functionalize(function)(x), function(x))
    in_place = torch.func.functionalize(lambda x: rw.rotate_(x, encoding=ENCODING))
    # torch does not functionalize operators of this kind.
    assert_refused("ropewalk::rotate_", lambda: in_place(x), x, error=RuntimeError)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("policy", ["linear:8", "xpos:64"])
def test_checkpoints(policy, use_reentrant):
    def block(q, k):
        q, k = rw.rotate(q.sin(), k.cos(), encoding=encoding, positions=IDS)
        return (q * k).square().sum()

    encoding = rw.encoding(policy, head_dim=DIM)
    assert_checkpoint_has_the_same_gradients(block, use_reentrant=use_reentrant)


@pytest.mark.parametrize("choice", [CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE])
@pytest.mark.parametrize("both", [False, True])
def test_selective_checkpoints_of_calls_in_place(both, choice):
    """The policies save results, and an operator in place has none."""

    def policy(context, operator, *arguments, **named):
        return choice if "ropewalk" in str(operator) else CheckpointPolicy.PREFER_RECOMPUTE

    def block(q, k):
        q, k = q.sin(), k.cos()
        rw.rotate_(q, k if both else None, encoding=ENCODING, offset=11)
        return (q * k).square().sum()

    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    assert_checkpoint_has_the_same_gradients(block, use_reentrant=False, context_fn=contexts)


def assert_checkpoint_has_the_same_gradients(block, **options):
    q, k = learning(), learning(seed=1)
    expected = torch.autograd.grad(block(q, k), (q, k))
    checkpoint(block, q, k, **options).backward()
    assert torch.equal(q.grad, expected[0]) and torch.equal(k.grad, expected[1])


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("shape", [(0, HEADS, DIM), (5, 0, DIM), (0, 7, HEADS, DIM), (2, 0, HEADS, DIM)])
def test_empty_tensors_have_gradients(shape, is_compiled):
    function = compiled(rotate) if is_compiled else rotate
    x = torch.zeros(shape, requires_grad=True)
    y = function(x)
    assert y.shape == shape
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.shape == shape
    assert rw.rotate_(torch.zeros(shape), encoding=ENCODING).shape == shape


def test_gradients_of_an_expanded_tensor_are_summed():
    row, weights = learning(HEADS, tokens=1), heads(HEADS, tokens=6)
    expanded = row.expand(6, HEADS, DIM)
    rotated = rotate(expanded)
    assert torch.equal(rotated, rotate(expanded.detach().contiguous()))
    (found,) = torch.autograd.grad((rotated * weights).sum(), row)
    expected = rw.rotate(weights, encoding=ENCODING, adjoint=True).sum(0, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_expanded_tensors_are_not_written(requires_grad):
    row = heads(HEADS, tokens=1).requires_grad_(requires_grad) * 2
    message = "share memory along the token axis, so it cannot be written"
    assert_refused(message, lambda: rw.rotate_(row.expand(6, HEADS, DIM), encoding=ENCODING), row)


def test_autocast_keeps_the_type_of_each_tensor():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = learning()
        assert rotate(q).dtype == torch.float32
        projected = q @ torch.eye(DIM)
        rotated = rotate(projected)
        with pytest.raises(rw.Error, match="q is f32 but k is bf16"):
            rw.rotate(q, projected, encoding=ENCODING)
    assert projected.dtype == rotated.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(rotated.float().square().sum() / 2, q)
    torch.testing.assert_close(gradient, q.detach(), rtol=0, atol=0.05)  # a rotation keeps the norm
