"""Nobody who watches torch misses a rotation: versions of tensors, traces, derivatives in forward mode, torch.func."""

import numpy as np
import pytest
import ropewalk as rw
import torch
from ropewalk import _torch  # noqa: F401
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

DIM, TOKENS = 16, 4
ENCODING = rw.encoding("linear:8", head_dim=DIM)
IDS = torch.tensor([3, -1, 40, 7])


def heads(count=2, seed=0):
    return torch.randn(TOKENS, count, DIM, generator=torch.Generator().manual_seed(seed))


def turned(x, **how):
    return rw.rotate(x, encoding=ENCODING, positions=IDS, **how)


def operator_arguments():
    return (ENCODING.key, IDS, 0, None, None, False, False, None, None, None)


def test_what_is_lazy_is_left_to_torch():
    def by_operator(x):
        return torch.ops.ropewalk.rotate(x, None, *operator_arguments())[0]

    x = heads()
    assert torch.equal(by_operator(torch._neg_view(x)), by_operator(-x))
    assert by_operator(x.to("meta")).is_meta


@pytest.mark.parametrize("write", ["rotate_", "out", "rerotate_", "operator", "operator of one"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_every_write_counts_as_one(write, mode):
    x = heads()
    with mode():
        if write == "rotate_":
            rw.rotate_(x, encoding=ENCODING)
        elif write == "out":
            rw.rotate(heads(seed=1), encoding=ENCODING, out=x)
        elif write == "rerotate_":
            rw.rerotate_(x, ENCODING, rw.encoding("default", head_dim=DIM))
        elif write == "operator":
            torch.ops.ropewalk.rotate_(x, heads(seed=1), *operator_arguments())
        else:
            torch.ops.ropewalk.rotate_(x, None, *operator_arguments())
    assert x._version == 1


def test_a_write_without_gradients_is_seen_by_those_of_before():
    x, weight = heads(), torch.ones((), requires_grad=True)
    loss = (weight * x).sum()
    with torch.no_grad():
        rw.rotate_(x, encoding=ENCODING)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_tensors_of_inference_mode_have_no_version():
    with torch.inference_mode():
        x = heads()
        expected = turned(x)
        assert torch.equal(rw.rotate_(x, encoding=ENCODING, positions=IDS), expected)
        torch.ops.ropewalk.rotate_(x, None, *operator_arguments())


@pytest.mark.parametrize("trace", [lambda f, q: make_fx(f)(q), lambda f, q: torch.jit.trace(f, (q,))])
def test_traces_hold_the_rotation(trace):
    def in_place(q):
        return rw.rotate_(q * 1, encoding=ENCODING, positions=IDS)

    def both(q):
        return sum(rw.rotate(q, 2 * q, encoding=ENCODING, positions=IDS))

    for function in (turned, in_place, both):
        recorded, other = trace(function, heads()), heads(seed=1)
        assert torch.equal(recorded(other), function(other))


def test_derivatives_in_forward_mode():
    q, v = heads(), heads(seed=1)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(q, v)
        result = forward_ad.unpack_dual(turned(dual))
        both = rw.rotate(dual, heads(1), encoding=ENCODING, positions=IDS)
        assert torch.equal(result.primal, turned(q)) and torch.equal(result.tangent, turned(v))
        assert torch.equal(forward_ad.unpack_dual(both[0]).tangent, turned(v))
        with pytest.raises(rw.Error, match="rotate_ has no derivatives in forward mode"):
            rw.rotate_(dual * 1, encoding=ENCODING)
    assert torch.equal(torch.func.jvp(turned, (q,), (v,))[1], turned(v))
    result, linear = torch.func.linearize(turned, q)
    assert torch.equal(result, turned(q)) and torch.equal(linear(v), turned(v))


def test_transforms_of_torch_func():
    q, v = heads(), heads(seed=1)
    adjoint = turned(v, adjoint=True)
    assert torch.equal(torch.func.grad(lambda x: (turned(x) * v).sum())(q), adjoint)
    assert torch.equal(torch.func.vjp(turned, q)[1](v)[0], adjoint)
    # A call whose tensors are not those that are derived by.
    assert torch.equal(torch.func.grad(lambda x: (x * turned(q)).sum())(v), turned(q))

    def energy(x, y):
        return sum((one * other).sum() for one, other in zip(rw.rotate(x, y, encoding=ENCODING, positions=IDS), (v, v)))

    for gradient in torch.func.grad(energy, argnums=(0, 1))(q, 2 * q):
        assert torch.equal(gradient, adjoint)
    twice = torch.func.grad(lambda x: (torch.func.grad(lambda y: (turned(y) ** 3).sum())(x) * v).sum())(q)
    torch.testing.assert_close(twice, turned(6 * turned(q) * turned(v), adjoint=True))


def test_two_tensors_in_place_are_checked_before_the_first_is_written():
    base = torch.randn(6, 2, DIM, requires_grad=True) * 1
    wrong = {
        "q and k overlap": (base[:4], base[2:]),
        "q and k must have the same batch and tokens": (heads(3).requires_grad_() * 1, base[:3]),
        "the encoding is for head_dim 16": (base[:4], torch.randn(4, 2, 8)),
        "q is f32 but k is f16": (base[:4], heads().half()),
        "cannot be written|read-only": (base[:4], heads(1)[:, :1].expand(4, 2, DIM)),
    }
    before = base.detach().clone()
    for message, (q, k) in wrong.items():
        with pytest.raises(rw.Error, match=message):
            rw.rotate_(q, k, encoding=ENCODING)
        assert torch.equal(base, before)
    x = heads().requires_grad_() * 1
    with pytest.raises(rw.Error, match="q and k overlap"):
        rw.rotate_(x, x, encoding=ENCODING)


def test_views_of_one_projection_in_place():
    packed = torch.randn(TOKENS, 6, DIM, requires_grad=True)
    both = packed * 1
    q, k = rw.rotate_(both[:, :4], both[:, 4:], encoding=ENCODING, positions=IDS)
    assert torch.equal(torch.cat([q, k], 1), turned(packed.detach()))
    (q.sum() + k.sum()).backward()
    assert torch.equal(packed.grad, turned(torch.ones_like(packed), adjoint=True))


def test_outputs_and_tables_with_gradients_are_refused():
    with pytest.raises(rw.Error, match=r"out of q.*requires grad, and rotate would lose its gradient"):
        rw.rotate(heads(), encoding=ENCODING, out=torch.zeros(TOKENS, 2, DIM, requires_grad=True))
    cos, sin = ENCODING.cos_sin(torch.arange(TOKENS))
    for q in (heads(), heads().requires_grad_()):
        with pytest.raises(rw.Error, match="sin requires grad, but a table gets no gradient"):
            rw.rotate(q, encoding=ENCODING, table=(cos, sin.requires_grad_()))
    with torch.no_grad():
        rw.rotate(heads(), encoding=ENCODING, table=(cos, sin))


def test_what_the_caller_writes_later_changes_no_gradient():
    x, ids = heads().requires_grad_(), np.arange(TOKENS)
    result = rw.rotate(x, encoding=ENCODING, positions=ids)
    ids += 5
    result.sum().backward()
    assert torch.equal(x.grad, rw.rotate(torch.ones_like(x.detach()), encoding=ENCODING, adjoint=True))
    assert torch.equal(rw.rotate(x, encoding=ENCODING, positions=np.arange(4)[::-1]).detach()[3], x.detach()[3])
    assert rw.rotate(x[:0], encoding=ENCODING, positions=[]).shape == (0, 2, DIM)


def test_keys_without_a_gradient_stay_without():
    q, k = rw.rotate(heads().requires_grad_(), heads(1), encoding=ENCODING)
    assert q.requires_grad and not k.requires_grad


def test_messages_say_what_was_given():
    grown = heads().requires_grad_()

    def turned_at(x, positions):
        return rw.rotate(x, encoding=ENCODING, positions=positions)

    def nested(layout):
        return torch.nested.nested_tensor([heads(), heads()[:2]], layout=layout)

    for problem, message, call in (
        (TypeError, "encoding must be a ropewalk.Encoding, got str", lambda: rw.rotate(grown, encoding="linear:8")),
        (
            rw.Error,
            "q is a ndarray, but the other one is a torch.Tensor",
            lambda: rw.rotate_(np.ones((4, 2, 16)), grown, encoding=ENCODING),
        ),
        (rw.Error, "table must be a pair", lambda: rw.rotate(grown, encoding=ENCODING, table=torch.ones(2, 4, 16))),
        (
            TypeError,
            "threads must be an integer, got float",
            lambda: rw.rotate(heads(), encoding=ENCODING, threads=1.5),
        ),
        (rw.Error, "order must be .* got '3'", lambda: rw.rotate(heads(), encoding=ENCODING, order=3)),
        (TypeError, "new_offset must be", lambda: rw.rerotate_(heads(), ENCODING, ENCODING, new_offset=1.5)),
        (rw.Error, "the device meta", lambda: rw.rotate(heads().to("meta"), encoding=ENCODING)),
        (rw.Error, r"positions object \[\]: expected int32 or int64", lambda: turned_at(grown, {1, 2, 3, 4})),
        (rw.Error, r"positions <U4 \[\]: expected int32", lambda: turned_at(grown, "abcd")),
        (rw.Error, r"positions >i8 \[4\]: expected int32", lambda: turned_at(grown, np.arange(4).astype(">i8"))),
        (rw.Error, "q has no strided memory, like sparse, nested", lambda: turned_at(nested(torch.strided), None)),
        (rw.Error, r"q is a nested tensor; pass its values\(\)", lambda: turned_at(nested(torch.jagged), None)),
    ):
        with pytest.raises(problem, match=message):
            call()


def test_what_is_no_operator_is_left_out_of_no_trace():
    """rerotate_ was missing in traces, and those of cos_sin returned memory that nobody had written."""
    other = rw.encoding("default", head_dim=DIM)
    k = heads()

    def angles(ids):
        return ENCODING.cos_sin(ids)[0] * 1

    def moved(x):
        return rw.rerotate_(x * 1, ENCODING, other)

    for trace in (make_fx, lambda f: lambda x: torch.jit.trace(f, (x,))):
        with pytest.raises(rw.Error, match="cos_sin cannot be traced"):
            trace(angles)(IDS)
        with pytest.raises(rw.Error, match="rerotate_ cannot be traced"):
            trace(moved)(k)
    with pytest.raises(rw.Error, match="outside of modes, traces and"):
        torch.func.jvp(moved, (k,), (k,))
    with FakeTensorMode(), pytest.raises(rw.Error, match="cos_sin cannot be traced"):
        angles(torch.arange(TOKENS))
    with forward_ad.dual_level():  # in which integers have no part
        assert angles(IDS).shape == (TOKENS, DIM // 2)


class Same(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_views_that_autograd_refuses_are_not_written():
    leaf = torch.randn(TOKENS, 6, DIM, requires_grad=True)
    whole = leaf * 1
    before = leaf.detach().clone()
    for message, base, q, k in (
        ("q .* is a view of a leaf that requires grad", leaf, leaf[:, :2], None),
        ("k .* is a view of a leaf that requires grad", leaf, heads(), leaf[:, :2]),
        (r"q .* by a call with several results, like split\(\)", whole, *whole.split((4, 2), 1)),
        ("q .* by a call with several results", whole, whole.view(TOKENS, 2, 3, DIM).unbind(1)[0], None),
        ("k .* by a call with several results", whole, whole[:, :2], whole.chunk(3, 1)[1]),
        ("q .* by an autograd.Function", whole, Same.apply(whole), None),
    ):
        with pytest.raises(rw.Error, match=message):
            rw.rotate_(q, k, encoding=ENCODING, positions=IDS)
        assert torch.equal(base.detach(), before)
