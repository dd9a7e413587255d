"""Decompositions of the operators into standard ones, compared with the kernels."""

import pytest
import ropewalk as rw
import torch
from rope_reference import LAYOUTS, ORDERS, arrange

DIM, BATCH, TOKENS, FAR = 16, 2, 7, 2**31 - 1
POLICIES = ["default", "yarn:8,original_length=64", "xpos:64,length=128"]
WIDTHS = {"whole": (None, 0), "part": (12, 2)}  # rotary_dim, rotary_offset


TABLE = rw.decompositions()  # registers the operators
ROTATE, LATE = (TABLE[getattr(torch.ops.ropewalk, name).default] for name in ("rotate", "late_cos_sin"))
PLAIN, SPREAD = rw.encoding("default", DIM), rw.encoding("linear:2", DIM, layout="interleaved")
NARROW = rw.encoding("yarn:8,original_length=64", DIM, rotary_dim=8)


def heads(order="bshd", dtype=torch.float32):
    """Queries and keys, in memory of another order."""
    torch.manual_seed(0)
    batch = 1 if order == "thd" else BATCH
    return [arrange(torch.randn(batch, TOKENS, count, DIM), order).to(dtype) for count in (4, 2)]


def places(order, encoding):
    """Arguments that state positions, by kind. Magnitudes of xpos limit the distance."""
    far = 100 if encoding.magnitude_rates.any() else FAR
    rows = (BATCH, TOKENS) if order != "thd" else (1, TOKENS)
    torch.manual_seed(1)
    near = torch.rand(TOKENS).mul(60).long()
    axis, pairs = encoding.rotary_dim, encoding.rotary_dim // 2
    table = torch.randn(2, 64, pairs)
    by_token = torch.randn(2, *rows, axis)
    yield {}
    yield {"offset": far - 20}
    yield {"positions": torch.randint(0, far, (TOKENS,))}
    yield {"positions": torch.randint(0, far, rows).int()}
    if far == FAR:
        yield {"positions": -torch.randint(0, far, (TOKENS,))}
        yield {"positions": near, "cos": table[0], "sin": table[1]}
        yield {"cos": by_token[0].bfloat16(), "sin": by_token[1].bfloat16()}
    if order == "thd":
        yield {"cu_seqlens": torch.tensor([0, 3, 3, TOKENS]), "offset": 5}


def assert_equal(q, k, encoding, **arguments):
    """Within 6e-7 of the norm of a head, and for 16-bit types within one rounding more."""
    exact = torch.ops.ropewalk.rotate(q, k, encoding.key, **arguments)
    for ours, theirs in zip(ROTATE(q, k, encoding.key, **arguments), exact):
        assert ours.dtype == theirs.dtype and ours.stride() == theirs.stride()
        norm = theirs.float().norm(dim=-1, keepdim=True)
        bound = 6e-7 * norm + torch.finfo(ours.dtype).eps * theirs.float().abs() * (ours.dtype != torch.float32)
        worst = ((ours.float() - theirs.float()).abs() - bound).max()
        assert worst <= 0, f"{encoding}, {arguments}: the error exceeds its bound by {worst}"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("order", ORDERS)
def test_decomposed_equals_the_kernel(policy, layout, width, order):
    rotary_dim, rotary_offset = WIDTHS[width]
    encoding = rw.encoding(policy, DIM, rotary_dim=rotary_dim, rotary_offset=rotary_offset, layout=layout)
    q, k = heads(order)
    for place in places(order, encoding):
        for inverse in (False, True):
            for adjoint in (False, True):
                assert_equal(q, k, encoding, order=order, inverse=inverse, adjoint=adjoint, **place)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_types(dtype):
    for layout in LAYOUTS:
        assert_equal(*heads(dtype=dtype), rw.encoding("default", DIM, layout=layout), offset=10**9)


@pytest.mark.parametrize("policy", POLICIES)
def test_float64(policy):
    encoding = rw.encoding(policy, DIM)
    q, k = heads(dtype=torch.float64)
    far = 100 if encoding.magnitude_rates.any() else FAR - 20
    arguments = {"offset": far, "inverse": True}
    for ours, theirs in zip(
        ROTATE(q, k, encoding.key, **arguments), torch.ops.ropewalk.rotate(q, k, encoding.key, **arguments)
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_orders_of_two_axes():
    q, k = (x[0] for x in heads("thd"))
    assert_equal(q, k, PLAIN, order="hd", offset=7)
    assert_equal(q, None, PLAIN, order="td", positions=torch.tensor([5, 900, 2, 1]))


@pytest.mark.parametrize("policy", ["mrope:[2,3,3]", "mrope:[4,2,2],interleaved=true"])
def test_three_positions_per_token(policy):
    encoding = rw.encoding(policy, DIM)
    positions = torch.randint(0, FAR, (3, BATCH, TOKENS), generator=torch.Generator().manual_seed(2))
    q, k = heads()
    for given in (None, positions[0, 0], positions[:, :1], positions, positions[:1]):
        assert_equal(q, k, encoding, positions=given)
    packed, _ = heads("thd")
    assert_equal(packed, packed, encoding, positions=positions[:, 0])


def test_one_tensor_as_queries_and_keys_has_both_magnitudes():
    q, _ = heads()
    assert_equal(q, q, rw.encoding("xpos:64", DIM), offset=50)
    assert_equal(None, q, rw.encoding("xpos:64", DIM), offset=50)


class Attention(torch.nn.Module):
    """Heads that are transposed in memory, as in most models."""

    def forward(self, x, positions):
        q, k = (x[..., part : part + 4, :].transpose(1, 2) for part in (0, 4))
        q, k = rw.rotate(q, k, encoding=NARROW, positions=positions, order="bhsd")
        k = rw.rotate(k, encoding=SPREAD, order="bhsd", offset=9)
        return (q.sin() + k).transpose(1, 2).view(*x.shape[:2], -1)  # a view that depends on the strides


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_without_the_operators(strict):
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    inputs = torch.randn(2, 5, 8, DIM), torch.arange(5)
    shapes = {0: batch, 1: tokens}, {0: tokens}
    program = torch.export.export(Attention(), inputs, dynamic_shapes=shapes, strict=strict)
    assert any("ropewalk" in str(node.target) for node in program.graph.nodes)
    table = torch.export.default_decompositions()
    table.update(TABLE)
    standard = program.run_decompositions(table)
    assert not any("ropewalk" in str(node.target) for node in standard.graph.nodes)
    x, positions = torch.randn(3, 11, 8, DIM), torch.randint(-FAR, FAR, (11,))
    results, gradients = [], []
    for model in (standard.module(), Attention()):
        learning = x.clone().requires_grad_()
        results.append(model(learning, positions))
        gradients.append(torch.autograd.grad(results[-1].square().sum(), learning)[0])
    torch.testing.assert_close(*results, rtol=0, atol=2e-6)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


def test_graphs_keep_the_operator():
    """The entry in PyTorch's table of decompositions is not used for fake tensors, whose strides could differ."""
    targets = []

    def backend(module, inputs):
        targets.extend(str(node.target) for node in module.graph.nodes)
        return module.forward

    x = torch.randn(2, 4, 5, DIM).transpose(1, 2)
    torch._dynamo.reset()
    rotated = torch.compile(rw.rotate, backend=backend, dynamic=True)(x, encoding=PLAIN)
    assert "ropewalk.rotate" in targets and rotated.stride() == x.stride()


@pytest.mark.parametrize("family, rope", [("Phi3", "longrope"), ("Llama", "dynamic")])
def test_an_exported_patched_model_follows_the_length(family, rope, one_thread):
    from tiny_model import IDS, build, logits

    model = rw.patch(build(family, rope, num_hidden_layers=1))

    class Logits(torch.nn.Module):
        def forward(self, ids):
            return model(ids, use_cache=False).logits

    shapes = ({1: torch.export.Dim("tokens", min=2, max=128)},)
    exported = torch.export.export(Logits(), (IDS[:, :10].clone(),), dynamic_shapes=shapes).module()
    for tokens in (5, 16, 17, 40):  # the original length is 16
        ids = IDS[:, :tokens].clone()
        torch.testing.assert_close(exported(ids), logits(model, ids), rtol=0, atol=2e-5)


@pytest.mark.parametrize("policy", ["dynamic:4,original_length=16", "dynamic:4,original_length=16|linear:2"])
def test_frequencies_that_follow_the_length(policy):
    encoding = rw.encoding(policy, DIM)
    for last in (3, 15, 16, 40, 100_000):
        positions = torch.tensor([[0, 1, last], [2, last // 2, 5]])
        for ours, theirs in zip(
            LATE(positions, None, encoding.key), torch.ops.ropewalk.late_cos_sin(positions, None, encoding.key)
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=4e-7)


def test_refused():
    q, k = heads()
    ids = torch.arange(TOKENS)
    for message, arguments, encoding in (
        ("draws random positions", {}, rw.encoding("randomized:64", DIM)),
        ("the encoding is for head_dim 32", {}, rw.encoding("default", 32)),
        ("positions has 3 entries for 7 tokens", {"positions": torch.arange(3)}, PLAIN),
        ("positions has 1 entries for 7 tokens", {"positions": torch.arange(1)}, PLAIN),
        ("positions has 3 rows for a batch of 2", {"positions": ids.expand(3, -1)}, PLAIN),
        (r"positions \[2, 1, 7\]: unexpected axes", {"positions": ids.expand(2, 1, -1)}, PLAIN),
        (
            r"positions \[3, 7\] of a batch: expected",
            {"positions": ids.expand(3, -1)},
            rw.encoding("mrope:[2,3,3]", DIM),
        ),
        ("exclude each other", {"positions": ids, "cu_seqlens": ids}, PLAIN),
        ("the order 'thd' names 3", {"order": "thd"}, PLAIN),
        ("order 'hdbs' is unknown", {"order": "hdbs"}, PLAIN),
        ("the table must have 8 or 16 columns", {"cos": torch.ones(9, 4), "sin": torch.ones(9, 4)}, PLAIN),
        ("the table has 1 rows for 7 tokens", {"cos": torch.ones(2, 1, 8), "sin": torch.ones(2, 1, 8)}, PLAIN),
    ):
        with pytest.raises(rw.Error, match=message):
            ROTATE(q, k, encoding.key, **arguments)
    with pytest.raises(rw.Error, match=r"same batch and tokens, got .* bshd; did you mean order='bhsd'\?$"):
        ROTATE(torch.zeros(2, 8, TOKENS, DIM), torch.zeros(2, 2, TOKENS, DIM), PLAIN.key)
    with pytest.raises(rw.Error, match=r"same batch and tokens, got .* in the order bhsd$"):
        ROTATE(torch.zeros(2, 8, TOKENS, DIM), torch.zeros(2, 2, 3, DIM), PLAIN.key, order="bhsd")
    with pytest.raises(rw.Error, match="export the model in evaluation mode"):
        LATE(ids, torch.tensor(1), PLAIN.key)
    for policy in (
        "longrope:short_factor=[2,2,2,2,2,2,2,2],long_factor=[3,3,3,3,3,3,3,3],original_length=16",
        "default",
    ):
        with pytest.raises(rw.Error, match="depends on the length"):
            LATE(ids, None, rw.encoding(policy, DIM).key)
