"""Gradients of graphs: those of torch.compile, of exported programs, and of whoever calls an operator by itself."""

import copy
import subprocess
import sys

import pytest
import ropewalk as rw
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

DIM, TOKENS = 16, 4
ENCODING = rw.encoding("xpos:64|linear:8", head_dim=DIM)
IDS = [3, -1, 40, 7]


def heads(count=2, seed=0, requires_grad=False):
    x = torch.randn(TOKENS, count, DIM, generator=torch.Generator().manual_seed(seed))
    return x.requires_grad_(requires_grad)


def compiled(function, fullgraph=True):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=fullgraph, backend="aot_eager")


def assert_same_gradients(function, ours, *of):
    for expected, found in zip(*(torch.autograd.grad(f(*of), of) for f in (function, ours))):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lets_k_learn", [False, True])
def test_in_place_in_a_compiled_function(lets_k_learn):
    """Keys that have no gradient beside queries that have, as with LoRA on the queries, are written too."""

    def energy(q, k):
        q, k = q * 2, k * 3
        rw.rotate_(q, k, encoding=ENCODING, positions=IDS)
        return (q[:, :1] * k).pow(2).sum()

    q, k = heads(requires_grad=True), heads(1, 1, lets_k_learn)
    learning = [x for x in (q, k) if x.requires_grad]
    expected, found = energy(q, k), compiled(energy)(q, k)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(torch.autograd.grad(found, learning), torch.autograd.grad(expected, learning)):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("positions", [IDS, tuple(IDS), range(5, 9)])
def test_lists_and_one_tensor_twice_in_a_compiled_function(positions):
    def energy(x):
        q, k = rw.rotate(x, x, encoding=ENCODING, positions=positions)
        return (q * k.sin()).sum()

    assert_same_gradients(energy, compiled(energy), heads(requires_grad=True))


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.weight = torch.nn.Parameter(torch.randn(DIM, DIM))
        self.rotary = rw.RotaryEmbedding(DIM, ENCODING)

    def forward(self, x):
        q, k = self.rotary(x @ self.weight, x[:, :1] @ self.weight.sin(), offset=3)
        rw.rotate_(q, encoding=ENCODING, positions=torch.arange(TOKENS))
        return (q * k + self.rotary(x @ self.weight)).pow(2).sum()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("decomposed", [False, True])
def test_an_exported_program_learns(strict, decomposed):
    layer = Layer()
    program = torch.export.export(copy.deepcopy(layer), (heads(),), strict=strict)
    exported = (program.run_decompositions() if decomposed else program).module()
    for one in (layer, exported):
        one(heads(2, 5)).backward()
    torch.testing.assert_close(exported.weight.grad, layer.weight.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_trace_of_what_learns_is_saved_and_learns(tmp_path):
    layer = Layer()
    torch.jit.trace(layer, (heads(),)).save(tmp_path / "layer.pt")
    traced = torch.jit.load(tmp_path / "layer.pt")
    for one in (layer, traced):
        one(heads(2, 5)).backward()
    torch.testing.assert_close(traced.weight.grad, layer.weight.grad, rtol=1e-5, atol=1e-4)


def test_naming_the_module_brings_the_operators_to_a_process_that_loads_a_program():
    program = "import ropewalk, torch; ropewalk.RotaryEmbedding; print(torch.ops.ropewalk.rotate.default)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "ropewalk.rotate.default\n", done.stderr


def test_operators_by_themselves_have_gradients():
    rest = (ENCODING.key, torch.tensor(IDS), 0, None, None, False, False, None, None, None)
    operators = torch.ops.ropewalk

    def plain(q, k):
        return sum(x.pow(3).sum() for x in rw.rotate(q, k, encoding=ENCODING, positions=IDS))

    def by_two(q, k):
        return sum(x.pow(3).sum() for x in operators.rotate(q, k, *rest))

    def by_one(q, k):
        return sum(operators.rotate(*one, *rest)[0].pow(3).sum() for one in ((q, None), (None, k)))

    def in_place(q, k):
        q, k = q * 1, k * 1
        operators.rotate_(q, k, *rest)
        return q.pow(3).sum() + k.pow(3).sum()

    def one_in_place(q, k):
        q, k = q * 1, k * 1
        operators.rotate_(q, None, *rest)
        operators.rotate_(None, k, *rest)
        return q.pow(3).sum() + k.pow(3).sum()

    q, k = heads(requires_grad=True), heads(1, 1, True)
    for function in (by_two, by_one, in_place, one_in_place):
        assert_same_gradients(plain, function, q, k)
    recorded = make_fx(by_two)(heads(), heads(1))
    assert_same_gradients(plain, recorded, q, k)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(heads(), heads(seed=1))
        tangent = forward_ad.unpack_dual(operators.rotate(dual, None, *rest)[0]).tangent
        assert torch.equal(tangent, operators.rotate(heads(seed=1), None, *rest)[0])
        with pytest.raises(rw.Error, match="rotate_ has no derivatives in forward mode"):
            operators.rotate_(dual * 1, None, *rest)


def test_torch_func_in_a_compiled_function_is_refused_or_left_to_python():
    """Its derivatives were all zero: the operator in the graph had none."""

    def gradient(q):
        return torch.func.grad(lambda x: rw.rotate(x, encoding=ENCODING, positions=IDS).pow(3).sum())(q)

    def derivative(q):
        return torch.func.jvp(lambda x: rw.rotate(x, encoding=ENCODING, positions=IDS).pow(3), (q,), (q,))[1]

    for function in (gradient, derivative):
        torch.testing.assert_close(compiled(function, fullgraph=False)(heads()), function(heads()))
        with pytest.raises(Exception, match=r"no derivatives by torch\.func inside of a graph"):
            compiled(function)(heads())
