"""Gradients of torch.compile, exported programs, traces, and operators that are called directly."""

import functools
import io

import pytest
import ropewalk as rw
import torch
from checks import run_python
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch_heads import (
    DIM,
    IDS,
    TOKENS,
    assert_same_gradients,
    compiled,
    graphs_of,
    heads,
    learning,
    operator_arguments,
)

ENCODING = rw.encoding("xpos:64|linear:8", head_dim=DIM)


@pytest.mark.parametrize("k_learns", [False, True])
def test_in_place_in_a_compiled_function(k_learns):
    """Keys without a gradient are written also if queries have one, as with LoRA on the queries."""

    def energy(q, k):
        q, k = q * 2, k * 3
        rw.rotate_(q, k, encoding=ENCODING, positions=IDS.tolist())
        return (q[:, :1] * k).pow(2).sum()

    q, k = learning(), heads(1, 1).requires_grad_(k_learns)
    expected, found = energy(q, k), compiled(energy)(q, k)
    torch.testing.assert_close(found, expected)
    inputs = [x for x in (q, k) if x.requires_grad]
    for ours, theirs in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs)):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("positions", [IDS.tolist(), tuple(IDS.tolist()), range(5, 9)])
def test_lists_and_one_tensor_twice_in_a_compiled_function(positions):
    def energy(x):
        q, k = rw.rotate(x, x, encoding=ENCODING, positions=positions)
        return (q * k.sin()).sum()

    assert_same_gradients(energy, compiled(energy), learning())


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


def traced(path):
    torch.jit.trace(Layer(), (heads(),)).save(path)
    return torch.jit.load(path)


def exported(path, strict, decomposed):
    program = torch.export.export(Layer(), (heads(),), strict=strict)
    return (program.run_decompositions() if decomposed else program).module()


FLAGS = [(strict, decomposed) for strict in (False, True) for decomposed in (False, True)]
EXPORTS = [traced, *(functools.partial(exported, strict=strict, decomposed=decomposed) for strict, decomposed in FLAGS)]


@pytest.mark.parametrize("convert", EXPORTS)
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_exported_programs_and_traces_learn(convert, tmp_path):
    layer, other = Layer(), convert(tmp_path / "layer.pt")
    for module in (layer, other):
        module(heads(2, 5)).backward()
    torch.testing.assert_close(other.weight.grad, layer.weight.grad, rtol=1e-5, atol=1e-4)


def test_reading_rotary_embedding_registers_the_operators():
    """A process that loads an exported program needs the operators."""
    program = "import ropewalk, torch; ropewalk.RotaryEmbedding; print(torch.ops.ropewalk.rotate.default)"
    assert run_python(program) == "ropewalk.rotate.default"


def test_operators_that_are_called_directly_have_gradients():
    rest = operator_arguments(ENCODING)
    operators = torch.ops.ropewalk

    def plain(q, k):
        return sum(x.pow(3).sum() for x in rw.rotate(q, k, encoding=ENCODING, positions=IDS))

    def together(q, k):
        return sum(x.pow(3).sum() for x in operators.rotate(q, k, *rest))

    def apart(q, k):
        return sum(operators.rotate(*pair, *rest)[0].pow(3).sum() for pair in ((q, None), (None, k)))

    def in_place(q, k):
        q, k = q * 1, k * 1
        operators.rotate_(q, k, *rest)
        return q.pow(3).sum() + k.pow(3).sum()

    def apart_in_place(q, k):
        q, k = q * 1, k * 1
        operators.rotate_(q, None, *rest)
        operators.rotate_(None, k, *rest)
        return q.pow(3).sum() + k.pow(3).sum()

    recorded = make_fx(together)(heads(), heads(1))
    for function in (together, apart, in_place, apart_in_place, recorded):
        assert_same_gradients(plain, function, learning(), learning(1, 1))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(heads(), heads(seed=1))
        tangent = forward_ad.unpack_dual(operators.rotate(dual, None, *rest)[0]).tangent
        assert torch.equal(tangent, operators.rotate(heads(seed=1), None, *rest)[0])
        with pytest.raises(rw.Error, match="rotate_ has no derivatives in forward mode"):
            operators.rotate_(dual * 1, None, *rest)


def test_torch_func_in_a_compiled_function():
    """The graph breaks, or the call raises an error: derivatives of the operator in a graph would be zero."""

    def gradient(q):
        return torch.func.grad(lambda x: rw.rotate(x, encoding=ENCODING, positions=IDS).pow(3).sum())(q)

    def derivative(q):
        return torch.func.jvp(lambda x: rw.rotate(x, encoding=ENCODING, positions=IDS).pow(3), (q,), (q,))[1]

    for function in (gradient, derivative):
        torch.testing.assert_close(compiled(function, fullgraph=False)(heads()), function(heads()))
        with pytest.raises(Exception, match=r"no derivatives by torch\.func inside of a graph"):
            compiled(function)(heads())


MODULE = rw.RotaryEmbedding(DIM, ENCODING)
PLAIN = rw.encoding("default", head_dim=DIM)
TABLE = PLAIN.cos_sin(torch.arange(64), elementwise=True)


def rotate(x, *pair, encoding=ENCODING, **arguments):
    return rw.rotate(x, *pair, encoding=encoding, **arguments)


def rotate_(x, **arguments):
    return rw.rotate_(x * 1, encoding=ENCODING, **arguments)


def apply(x, unsqueeze_dim=1):
    x = x.expand(2, *x.shape)
    axis = 1 - unsqueeze_dim
    cos, sin = (column[: x.shape[2 - axis]][None] for column in TABLE)
    return torch.cat(rw.apply_rotary_transformers(x, x, cos, sin, unsqueeze_dim=unsqueeze_dim))


# Functions of a tensor [4, 2, head_dim] and a number n, which is each integer of each function in turn.
INTEGERS = {
    "offset of rotate": lambda x, n: rotate(x, offset=n),
    "offset of rotate_": lambda x, n: rotate_(x, offset=n),
    "offset of two tensors": lambda x, n: torch.cat(rotate(x, x[:, :1], offset=n), 1),
    "offset of the module": lambda x, n: MODULE(x, offset=n),
    "offset of the operator": lambda x, n: torch.ops.ropewalk.rotate(x, None, ENCODING.key, None, n)[0],
    "offset and cu_seqlens": lambda x, n: rotate(x, offset=n, cu_seqlens=torch.tensor([0, 3, 4])),
    "offset of a table": lambda x, n: rotate(x, offset=n, table=TABLE, encoding=PLAIN),
    "k_offset": lambda x, n: torch.cat(rotate(x, x[:3, :1].expand(-1, 2, -1), offset=2, k_offset=n)),
    "offset of packed q, k and v": lambda x, n: rotate(torch.stack([x, x, x], 1), order="t3hd", offset=n),
    "offset per sequence": lambda x, n: rotate(x, cu_seqlens=torch.tensor([0, 3, 4]), offset=torch.tensor([n, 2 * n])),
    "offset in a tensor": lambda x, n: MODULE(x, offset=torch.full((1,), n, dtype=torch.int32)),
    "negative offset": lambda x, n: MODULE(x, offset=-n),
    "offset from a shape": lambda x, n: MODULE(x, offset=x.new_empty(1, n + 2).shape[1]),
    "positions in a list": lambda x, n: MODULE(x, positions=[n, n + 1, 3, 5 * n]),
    "cu_seqlens in a list": lambda x, n: rotate(x, cu_seqlens=[0, min(n, 4), 4]),
    "threads of rotate": lambda x, n: rotate(x, threads=n + 1),
    "threads of rotate_": lambda x, n: rotate_(x, threads=n + 1),
    "tokens": lambda x, n: MODULE(x[:1].expand(n + 2, -1, -1)),
    "heads": lambda x, n: MODULE(x[:, :1].expand(-1, n + 2, -1)),
    "batch": lambda x, n: MODULE(x.expand(n + 2, -1, -1, -1)),
    "tokens of a table": lambda x, n: apply(x[:, :1].expand(-1, n + 2, -1)),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_two_graphs_for_all_values_of_an_integer(name):
    """The first value is a constant of its graph. The second graph is for all others."""
    assert graphs_of(INTEGERS[name], [(learning(), n) for n in range(6)], "eager") <= 2


def test_one_graph_per_unsqueeze_dim():
    assert graphs_of(apply, [(learning(), axis) for axis in (1, 2, 1, 2)]) == 2


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("make", [heads, learning])
def test_two_graphs_for_all_offsets_of_a_decode_loop(backend, make):
    def step(x, n):
        q, k = rotate(x, x[:, :1], offset=n)
        return torch.cat([q, rotate_(k * 2, offset=n, threads=n + 1)], 1)

    assert graphs_of(step, [(make(tokens=1), n) for n in range(64)], backend) == 2


def test_one_graph_for_a_cache_of_dynamic_length():
    def step(x, cache):
        return MODULE(x, offset=cache.shape[1])

    caches = [torch.empty(2, length, 3) for length in range(5, 20)]
    for cache in caches:
        torch._dynamo.mark_dynamic(cache, 1)
    assert graphs_of(step, [(learning(), cache) for cache in caches]) == 1


class Step(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rotary = MODULE

    def forward(self, x, cache):
        y = rw.rotate_(x * 1, encoding=self.rotary.encoding, offset=cache.shape[1])
        return self.rotary(x, y, offset=cache.shape[1])


@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs_take_the_offset_from_the_length_of_a_cache(strict):
    step, shapes = Step(), (None, {1: torch.export.Dim("length", min=1)})
    program = torch.export.export(step, (heads(), torch.empty(2, 7, 3)), dynamic_shapes=shapes, strict=strict)
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    for module in (program.module(), program.run_decompositions().module(), torch.export.load(saved).module()):
        for length in (1, 7, 500):
            cache = torch.empty(2, length, 3)
            for found, expected in zip(module(heads(), cache), step(heads(), cache)):
                assert torch.equal(found, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_traces_take_the_offset_from_the_length_of_a_cache():
    traced_step = torch.jit.trace(Step(), (heads(), torch.empty(2, 7, 3)))
    recorded = make_fx(Step(), tracing_mode="symbolic")(heads(), torch.empty(2, 7, 3))
    for module in (traced_step, recorded):
        cache = torch.empty(2, 50, 3)
        for found, expected in zip(module(heads(), cache), Step()(heads(), cache)):
            assert torch.equal(found, expected)


def test_a_patched_model_decodes_64_tokens_with_a_static_cache_in_one_graph(one_thread):
    def generate(step):
        """Greedy tokens, by an uncompiled prefill and 64 steps."""
        cache, tokens = transformers.StaticCache(config=model.config, max_cache_len=80), tiny_model.IDS[:, :9]
        with torch.no_grad():
            logits = model(tokens, past_key_values=cache, use_cache=True).logits
            for position in range(9, 73):
                last = logits[:, -1:].argmax(-1)
                tokens = torch.cat([tokens, last], 1)
                at = torch.full((1, 1), position)
                logits = step(last, past_key_values=cache, use_cache=True, position_ids=at).logits
        return tokens

    transformers, tiny_model = pytest.importorskip("transformers"), pytest.importorskip("tiny_model")
    model = tiny_model.build(num_hidden_layers=1)
    expected = generate(model)
    rw.patch(model)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    assert torch.equal(generate(torch.compile(model, fullgraph=True, backend=counter)), expected)
    assert counter.frame_count == 1
