"""Features of torch that observe a call: versions of tensors, traces, forward-mode derivatives and torch.func."""

import functools

import numpy as np
import pytest
import ropewalk as rw
import torch
from checks import assert_refused
from ropewalk import _torch  # noqa: F401
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch_heads import DIM, ENCODING, IDS, TOKENS, compiled, heads, learning, operator_arguments

OTHER = rw.encoding("default", head_dim=DIM)


def rotate(x, **options):
    return rw.rotate(x, encoding=ENCODING, positions=IDS, **options)


def rotate_by_operator(x):
    return torch.ops.ropewalk.rotate(x, None, *operator_arguments())[0]


def test_lazy_and_meta_tensors_use_the_kernels_of_torch():
    x = heads()
    assert torch.equal(rotate_by_operator(torch._neg_view(x)), rotate_by_operator(-x))
    assert rotate_by_operator(x.to("meta")).is_meta


WRITES = {
    "rotate_": lambda x: rw.rotate_(x, encoding=ENCODING),
    "out": lambda x: rw.rotate(heads(seed=1), encoding=ENCODING, out=x),
    "rerotate_": lambda x: rw.rerotate_(x, ENCODING, OTHER),
    "operator": lambda x: torch.ops.ropewalk.rotate_(x, heads(seed=1), *operator_arguments()),
    "operator of one tensor": lambda x: torch.ops.ropewalk.rotate_(x, None, *operator_arguments()),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_each_write_increments_the_version_once(write, mode):
    x = heads()
    with mode():
        WRITES[write](x)
    assert x._version == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_backward_detects_a_write_in_place(mode):
    x, weight = heads(), torch.ones((), requires_grad=True)
    loss = (weight * x).sum()
    with mode():
        rw.rotate_(x, encoding=ENCODING)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_tensors_of_inference_mode_have_no_version():
    with torch.inference_mode():
        x = heads()
        expected = rotate(x)
        assert torch.equal(rw.rotate_(x, encoding=ENCODING, positions=IDS), expected)
        torch.ops.ropewalk.rotate_(x, None, *operator_arguments())


@pytest.mark.parametrize("trace", [lambda f, q: make_fx(f)(q), lambda f, q: torch.jit.trace(f, (q,))])
def test_traces_contain_the_rotation(trace):
    def in_place(q):
        return rw.rotate_(q * 1, encoding=ENCODING, positions=IDS)

    def both(q):
        return sum(rw.rotate(q, 2 * q, encoding=ENCODING, positions=IDS))

    for function in (rotate, in_place, both):
        recorded, other = trace(function, heads()), heads(seed=1)
        assert torch.equal(recorded(other), function(other))


def test_derivatives_in_forward_mode():
    q, v = heads(), heads(seed=1)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(q, v)
        result = forward_ad.unpack_dual(rotate(dual))
        both = rw.rotate(dual, heads(1), encoding=ENCODING, positions=IDS)
        assert torch.equal(result.primal, rotate(q)) and torch.equal(result.tangent, rotate(v))
        assert torch.equal(forward_ad.unpack_dual(both[0]).tangent, rotate(v))
        with pytest.raises(rw.Error, match="rotate_ has no derivatives in forward mode"):
            rw.rotate_(dual * 1, encoding=ENCODING)
    assert torch.equal(torch.func.jvp(rotate, (q,), (v,))[1], rotate(v))
    result, linear = torch.func.linearize(rotate, q)
    assert torch.equal(result, rotate(q)) and torch.equal(linear(v), rotate(v))


def test_transforms_of_torch_func():
    q, v = heads(), heads(seed=1)
    adjoint = rotate(v, adjoint=True)
    assert torch.equal(torch.func.grad(lambda x: (rotate(x) * v).sum())(q), adjoint)
    assert torch.equal(torch.func.vjp(rotate, q)[1](v)[0], adjoint)
    # This gradient is that of a tensor that is not rotated.
    assert torch.equal(torch.func.grad(lambda x: (x * rotate(q)).sum())(v), rotate(q))

    def energy(x, y):
        return sum((z * v).sum() for z in rw.rotate(x, y, encoding=ENCODING, positions=IDS))

    for gradient in torch.func.grad(energy, argnums=(0, 1))(q, 2 * q):
        assert torch.equal(gradient, adjoint)
    twice = torch.func.grad(lambda x: (torch.func.grad(lambda y: (rotate(y) ** 3).sum())(x) * v).sum())(q)
    torch.testing.assert_close(twice, rotate(6 * rotate(q) * rotate(v), adjoint=True))


def test_both_tensors_are_checked_before_the_first_is_written():
    base = torch.randn(6, 2, DIM, requires_grad=True) * 1
    wrong = {
        "q and k overlap": (base[:4], base[2:]),
        "q and k must have the same batch and tokens": (learning(3) * 1, base[:3]),
        "the encoding is for head_dim 16": (base[:4], torch.randn(4, 2, 8)),
        "q is f32 but k is f16": (base[:4], heads().half()),
        "cannot be written|read-only": (base[:4], heads(1)[:, :1].expand(4, 2, DIM)),
    }
    for message, (q, k) in wrong.items():
        assert_refused(message, lambda q=q, k=k: rw.rotate_(q, k, encoding=ENCODING), base)
    x = learning() * 1
    with pytest.raises(rw.Error, match="q and k overlap"):
        rw.rotate_(x, x, encoding=ENCODING)


def test_views_of_one_projection_in_place():
    packed = torch.randn(TOKENS, 6, DIM, requires_grad=True)
    both = packed * 1
    q, k = rw.rotate_(both[:, :4], both[:, 4:], encoding=ENCODING, positions=IDS)
    assert torch.equal(torch.cat([q, k], 1), rotate(packed.detach()))
    (q.sum() + k.sum()).backward()
    assert torch.equal(packed.grad, rotate(torch.ones_like(packed), adjoint=True))


def test_outputs_with_gradients_are_refused():
    with pytest.raises(rw.Error, match=r"out of q.*requires grad, and rotate would lose its gradient"):
        rw.rotate(heads(), encoding=ENCODING, out=torch.zeros(TOKENS, 2, DIM, requires_grad=True))


def test_later_writes_to_positions_do_not_change_gradients():
    x, ids = learning(), np.arange(TOKENS)
    result = rw.rotate(x, encoding=ENCODING, positions=ids)
    ids += 5
    result.sum().backward()
    assert torch.equal(x.grad, rw.rotate(torch.ones_like(x.detach()), encoding=ENCODING, adjoint=True))
    assert torch.equal(rw.rotate(x, encoding=ENCODING, positions=np.arange(4)[::-1]).detach()[3], x.detach()[3])
    assert rw.rotate(x[:0], encoding=ENCODING, positions=[]).shape == (0, 2, DIM)


def test_keys_without_a_gradient_get_none():
    q, k = rw.rotate(learning(), heads(1), encoding=ENCODING)
    assert q.requires_grad and not k.requires_grad


def nested(layout):
    return torch.nested.nested_tensor([heads(), heads()[:2]], layout=layout)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"encoding": "linear:8"}, TypeError, "encoding must be a ropewalk.Encoding, got str"),
        ({"table": torch.ones(2, 4, 16)}, rw.Error, r"table \[2, 4, 16\] must be .* or a pair"),
        ({"q": heads(), "threads": 1.5}, TypeError, "threads must be an integer, got float"),
        ({"q": heads(), "order": 3}, TypeError, "order must be text, got int"),
        ({"q": heads().to("meta")}, rw.Error, "the device meta"),
        ({"positions": {1, 2, 3, 4}}, rw.Error, r"positions object \[\]: expected int64"),
        ({"positions": "abcd"}, rw.Error, r"positions <U4 \[\]: expected int64"),
        ({"positions": np.arange(4).astype(">i8")}, rw.Error, r"positions >i8 \[4\]: expected int64"),
        ({"q": nested(torch.strided)}, rw.Error, "q has no strided memory, like sparse, nested"),
        ({"q": nested(torch.jagged)}, rw.Error, r"q is a nested tensor; pass its values\(\)"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    with pytest.raises(error, match=message):
        rw.rotate(**{"q": learning(), "encoding": ENCODING, **change})


@pytest.mark.parametrize("policy", ["linear:8", "mrope:[2,3,3]", "randomized:64"])
@pytest.mark.parametrize("order", [None, "bshd", "bhsd", "sbhd"])
def test_an_offset_may_be_an_array_of_one_integer(policy, order):
    """Also where autograd records an operator, and in a graph, where positions take the place of the number."""
    encoding, plain = rw.encoding(policy, head_dim=DIM), heads(2) if order is None else heads(2).expand(3, -1, -1, -1)
    call = functools.partial(rw.rotate, encoding=encoding, order=order)
    expected = call(plain, offset=5)
    for offset in (torch.tensor(5), torch.tensor([5], dtype=torch.int32), np.int16(5), np.array(5)):
        assert torch.equal(call(plain, offset=offset), expected)
        assert torch.equal(call(plain.clone().requires_grad_(), offset=offset), expected)
    if order == "sbhd":
        assert torch.equal(compiled(call)(plain, offset=torch.tensor(5)), expected)


@pytest.mark.parametrize("make", [heads, learning])
@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (torch.tensor([5, 9]), "offset has 2 entries for 1 batch row; packed sequences need cu_seqlens="),
        (np.array([5, 9]), "offset has 2 entries for 1 batch row; packed sequences need cu_seqlens="),
        ([5, 9], "offset has 2 entries for 1 batch row; packed sequences need cu_seqlens="),
        (torch.tensor(5.0), r"offset must be one integer, got tensor\(5\.\)"),
        (5.0, "offset must be an integer, got float"),
        (None, "offset must be an integer, got NoneType"),
    ],
)
def test_offsets_that_are_no_integer(make, offset, message):
    with pytest.raises((rw.Error, TypeError), match=message):
        rw.rotate(make(), encoding=ENCODING, offset=offset)
    with pytest.raises((rw.Error, TypeError), match=message):
        rw.rotate_(make() * 1, encoding=ENCODING, offset=offset)


def test_errors_of_functions_in_place():
    with pytest.raises(rw.Error, match=r"q is a ndarray, but the other one is a torch\.Tensor"):
        rw.rotate_(np.ones((4, 2, 16)), learning(), encoding=ENCODING)
    with pytest.raises(TypeError, match="new_offset must be"):
        rw.rerotate_(heads(), ENCODING, ENCODING, new_offset=1.5)


def test_functions_that_are_not_operators_cannot_be_traced():
    """Without the error, a trace would not contain rerotate_, and one of cos_sin would return uninitialised memory."""

    def angles(ids):
        return ENCODING.cos_sin(ids)[0] * 1

    def moved(x):
        return rw.rerotate_(x * 1, ENCODING, OTHER)

    for trace in (make_fx, lambda f: lambda x: torch.jit.trace(f, (x,))):
        with pytest.raises(rw.Error, match="cos_sin cannot be traced"):
            trace(angles)(IDS)
        with pytest.raises(rw.Error, match="rerotate_ cannot be traced"):
            trace(moved)(heads())
    with pytest.raises(rw.Error, match="outside of modes, traces and"):
        torch.func.jvp(moved, (heads(),), (heads(),))
    with FakeTensorMode(), pytest.raises(rw.Error, match="cos_sin cannot be traced"):
        angles(torch.arange(TOKENS))
    with forward_ad.dual_level():  # integers have no derivatives
        assert angles(IDS).shape == (TOKENS, DIM // 2)


class Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_views_that_autograd_refuses_are_not_written():
    leaf = torch.randn(TOKENS, 6, DIM, requires_grad=True)
    whole = leaf * 1
    for message, q, k in (
        ("q .* is a view of a leaf that requires grad", leaf[:, :2], None),
        ("k .* is a view of a leaf that requires grad", heads(), leaf[:, :2]),
        (r"q .* by a call with several results, like split\(\)", *whole.split((4, 2), 1)),
        ("q .* by a call with several results", whole.view(TOKENS, 2, 3, DIM).unbind(1)[0], None),
        ("k .* by a call with several results", whole[:, :2], whole.chunk(3, 1)[1]),
        ("q .* by an autograd.Function", Identity.apply(whole), None),
    ):
        call = lambda q=q, k=k: rw.rotate_(q, k, encoding=ENCODING, positions=IDS)  # noqa: E731
        assert_refused(message, call, leaf, whole)
