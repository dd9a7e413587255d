"""Tensors on a CUDA device: equal to the same call on the CPU, on torch's stream, in graphs, compiled and in models."""

import pytest
import rope_reference as reference
import ropewalk as rw
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
BATCH, TOKENS, DIM = 2, 33, 64
TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def pair(type_name="float32", order="bshd"):
    batch = 1 if order == "thd" else BATCH
    return [
        reference.arrange(reference.make("torch", type_name, (batch, TOKENS, heads, DIM), seed=heads), order)
        for heads in (8, 2)
    ]


def assert_close(there, here):
    """Both lie within one rounding of exact arithmetic, so within two of each other."""
    assert there.is_cuda and there.dtype == here.dtype and there.shape == here.shape
    step = max(2 * reference.HALF_ULP[str(here.dtype).split(".")[1]], 2.0**-20)
    torch.testing.assert_close(there.cpu().double(), here.double(), rtol=step, atol=step)


def compare(call, *tensors, moved=True):
    """The call on the CPU and on the device, with whatever tensors it is given."""
    here = call(*(one.clone() for one in tensors))
    there = call(*(one.cuda() for one in tensors))
    for ours, theirs in zip(there, here):
        assert_close(ours, theirs)
    if moved:
        assert not torch.equal(here[0], tensors[0])


@pytest.mark.parametrize("order", list(reference.AXES))
@pytest.mark.parametrize("layout", ["half_split", "interleaved"])
@pytest.mark.parametrize("type_name", TYPES)
def test_both_ways(type_name, layout, order):
    encoding = rw.encoding("yarn:8,original_length=64", head_dim=DIM, layout=layout)
    q, k = pair(type_name, order)
    compare(lambda q, k: rw.rotate_(q, k, encoding=encoding, offset=1 << 20, order=order), q, k)
    compare(lambda q, k: rw.rotate(q, k, encoding=encoding, offset=-9, order=order), q, k)


def test_against_the_formula():
    encoding = rw.encoding("linear:8", head_dim=DIM)
    q, _ = pair()
    ids = torch.arange(TOKENS) * 7 - 20
    ours = rw.rotate(q.cuda(), encoding=encoding, positions=ids.cuda())
    exact = reference.turn(q.numpy(), reference.plain(DIM) / 8, ids[None].numpy())
    reference.assert_close(reference.exact(ours.cpu()), exact, "float32")


@pytest.mark.parametrize("rotary_dim", [16, 30, 62])
def test_partial_width(rotary_dim):
    encoding = rw.encoding("default", head_dim=DIM, rotary_dim=rotary_dim)
    compare(lambda q, k: rw.rotate(q, k, encoding=encoding, offset=5), *pair("bfloat16"))


@pytest.mark.parametrize("ids_type", [torch.int32, torch.int64])
@pytest.mark.parametrize("policy", ["default", "xpos:64"])
def test_positions(policy, ids_type):
    encoding = rw.encoding(policy, head_dim=DIM)
    # Not farther: xPos stretches keys, and CPU kernels without fused multiplications round once more.
    ids = torch.randint(-20, 20, (BATCH, TOKENS), generator=torch.Generator().manual_seed(7)).to(ids_type)
    compare(lambda q, k, ids: rw.rotate_(q, k, encoding=encoding, positions=ids), *pair(), ids)


@pytest.mark.parametrize("kind", ["list", "numpy", "cpu", "strided", "pinned"])
def test_positions_from_elsewhere(kind):
    encoding = rw.encoding("default", head_dim=DIM)
    ids = torch.randint(0, 999, (TOKENS,))
    given = {
        "list": ids.tolist(),
        "numpy": ids.numpy(),
        "cpu": ids,
        "strided": torch.stack((ids, ids), dim=1).cuda()[:, 0],
        "pinned": ids.pin_memory(),
    }[kind]
    q, k = pair()
    there = rw.rotate(q.cuda(), k.cuda(), encoding=encoding, positions=given)
    for ours, theirs in zip(there, rw.rotate(q, k, encoding=encoding, positions=ids)):
        assert_close(ours, theirs)


def test_pinned_positions_may_change_once_the_call_is_back():
    encoding = rw.encoding("default", head_dim=DIM)
    q, _ = pair()
    x, ids = q.cuda(), torch.arange(TOKENS).pin_memory()
    expected = rw.rotate(q, encoding=encoding)
    torch.cuda._sleep(200_000_000)  # about 0.1 s, for which the copy would wait
    rw.rotate_(x, encoding=encoding, positions=ids)
    ids.zero_()
    assert_close(x, expected)


def test_ragged_batches():
    encoding = rw.encoding("default", head_dim=DIM)
    starts = torch.tensor([0, 5, 5, 30, TOKENS], dtype=torch.int32)
    q, k = pair(order="thd")
    compare(lambda q, k, starts: rw.rotate_(q, k, encoding=encoding, cu_seqlens=starts), q, k, starts)
    there = rw.rotate(q.cuda(), encoding=encoding, cu_seqlens=starts.tolist())
    assert_close(there, rw.rotate(q, encoding=encoding, cu_seqlens=starts))


def test_several_positions_a_token():
    encoding = rw.encoding("mrope:[16,8,8]", head_dim=DIM)
    ids = torch.randint(0, 99, (3, BATCH, TOKENS))
    compare(lambda q, k, ids: rw.rotate_(q, k, encoding=encoding, positions=ids), *pair(), ids)


@pytest.mark.parametrize("given", [False, True])
def test_drawn_positions(given):
    encoding = rw.encoding("randomized:4096,seed=3", head_dim=DIM, sequence_length=TOKENS)
    ids = torch.randperm(TOKENS)

    def call(q, k, ids):
        return rw.rotate(q, k, encoding=encoding, positions=ids if given else None)

    compare(call, *pair(), ids)


@pytest.mark.parametrize("columns", [DIM, DIM // 2])
@pytest.mark.parametrize("type_name", ["float32", "bfloat16"])
def test_tables(type_name, columns):
    encoding = rw.encoding("default", head_dim=DIM)
    cos, sin = (torch.randn(1, TOKENS, columns).to(TYPES[type_name]) for _ in range(2))
    compare(lambda q, k, cos, sin: rw.rotate(q, k, encoding=encoding, table=(cos, sin)), *pair(), cos, sin)
    q, k = (one.transpose(1, 2).cuda() for one in pair())
    if columns == DIM:
        both = rw.apply_rotary_transformers(q, k, cos.cuda(), sin.cuda())
        here = rw.apply_rotary_transformers(q.cpu(), k.cpu(), cos, sin)
        for ours, theirs in zip(both, here):
            assert_close(ours, theirs)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_directions(inverse, adjoint):
    encoding = rw.encoding("xpos:64", head_dim=DIM)
    compare(lambda q, k: rw.rotate_(q, k, encoding=encoding, offset=5, inverse=inverse, adjoint=adjoint), *pair())


def test_rerotation():
    old, new = rw.encoding("linear:8", head_dim=DIM), rw.encoding("xpos:64", head_dim=DIM)
    _, k = pair()
    compare(lambda k: [rw.rerotate_(k, old, new, offset=3, new_offset=-4)], k)


def test_views_and_outputs():
    encoding = rw.encoding("default", head_dim=DIM)
    whole = torch.randn(BATCH, TOKENS, 6, DIM + 3)
    compare(lambda whole: [rw.rotate_(whole[:, 1:, 1:5, 3:], encoding=encoding, offset=9), whole], whole, moved=False)
    q, k = (one.cuda() for one in pair())
    outs = torch.empty_like(q), torch.empty_like(k)
    assert rw.rotate(q, k, encoding=encoding, out=outs) == outs
    assert torch.equal(outs[0], rw.rotate(q, k, encoding=encoding)[0])
    expanded = q[:, :, :1].expand(-1, -1, 4, -1)
    assert torch.equal(rw.rotate(expanded, encoding=encoding), rw.rotate(expanded.contiguous(), encoding=encoding))
    with pytest.raises(rw.Error, match="share memory"):
        rw.rotate_(expanded, encoding=encoding)


@pytest.mark.parametrize("which", ["both", "q", "k", "in place"])
def test_gradients(which):
    encoding = rw.encoding("xpos:64", head_dim=DIM)
    weights = pair()

    def call(q, k, *weights):
        q.requires_grad_(which != "k")
        k.requires_grad_(which != "q")
        if which == "in place":
            done = rw.rotate_(q * 1, k * 1, encoding=encoding, positions=list(range(TOKENS)))
        else:
            done = rw.rotate(q, k, encoding=encoding, positions=list(range(TOKENS)))
        sum((one * weight).sum() for one, weight in zip(done, weights) if one.requires_grad).backward()
        return [one.grad for one in (q, k) if one.grad is not None]

    compare(call, *(one + 1 for one in pair()), *weights)


def test_compiled_without_a_break():
    encoding = rw.encoding("linear:8", head_dim=DIM)

    def step(q, k, ids):
        q, k = rw.rotate(q * 2, k, encoding=encoding, positions=ids)
        return rw.rotate_(q + 1, k + 1, encoding=encoding)

    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for tokens in (4, 9, TOKENS):
        q, k = (one[:, :tokens].cuda() for one in pair())
        ids = torch.arange(tokens, device="cuda") + 3
        for ours, theirs in zip(compiled(q, k, ids), step(q.cpu(), k.cpu(), ids.cpu())):
            assert_close(ours, theirs)


@pytest.mark.parametrize("policy", ["linear:8", "xpos:64"])  # the parameters of the second have more than 4 KB
def test_graphs_replay_with_new_numbers(policy):
    encoding = rw.encoding(policy, head_dim=DIM)
    q, k = (one.cuda() for one in pair())
    ids = torch.arange(TOKENS, device="cuda")
    rw.rotate_(q.clone(), k.clone(), encoding=encoding, positions=ids)  # loads the kernels
    rw.rotate(q, k, encoding=encoding, positions=ids)
    graph = torch.cuda.CUDAGraph()
    x, y = q.clone(), k.clone()
    with torch.cuda.graph(graph):
        new = rw.rotate(x, y, encoding=encoding, positions=ids)
        rw.rotate_(x, y, encoding=encoding, positions=ids)
    for shift in (0, 100):
        x.copy_(q), y.copy_(k), ids.copy_(torch.arange(TOKENS) + shift)
        graph.replay()
        expected = rw.rotate(q, k, encoding=encoding, offset=shift)
        for ours, theirs, changed in zip(new, expected, (x, y)):
            assert torch.equal(ours, theirs) and torch.equal(changed, theirs)


def test_calls_join_the_current_stream():
    """What waits in a stream before the call has happened when it runs, and the call does not wait for it."""
    encoding = rw.encoding("linear:8", head_dim=DIM)
    q, _ = pair()
    x = torch.zeros_like(q, device="cuda")
    source = q.pin_memory()
    rw.rotate_(x, encoding=encoding)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # about 0.1 s
        x.copy_(source, non_blocking=True)
        rw.rotate_(x, encoding=encoding, offset=4)
        assert not side.query()  # nobody has waited
    side.synchronize()
    assert_close(x, rw.rotate(q, encoding=encoding, offset=4))


def test_places_do_not_mix():
    encoding = rw.encoding("default", head_dim=DIM)
    q, k = pair()
    for call in (rw.rotate, rw.rotate_):
        with pytest.raises(rw.Error, match="k is on the CPU, and the call runs on cuda:0"):
            call(q.cuda(), k, encoding=encoding)
        with pytest.raises(rw.Error, match="positions is on cuda:0, and the call runs on the CPU"):
            call(q, k, encoding=encoding, positions=torch.arange(TOKENS, device="cuda"))
    with pytest.raises(rw.Error, match="cos is on the CPU, and the call runs on cuda:0"):
        rw.rotate(q.cuda(), encoding=encoding, table=(torch.ones(TOKENS, DIM), torch.ones(TOKENS, DIM)))
    with pytest.raises(rw.Error, match="head_dim"):
        rw.rotate_(q.cuda()[..., :32], encoding=encoding)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_the_second_device():
    encoding = rw.encoding("default", head_dim=DIM)
    q, k = pair()
    there = rw.rotate(q.to("cuda:1"), k.to("cuda:1"), encoding=encoding, positions=list(range(TOKENS)))
    assert torch.cuda.current_device() == 0 and there[0].device.index == 1
    assert_close(there[0], rw.rotate(q, k, encoding=encoding)[0])


@pytest.mark.parametrize("policy", [None, "linear:8", "xpos:64"])
def test_patched_models(policy):
    from transformers import LlamaConfig, LlamaForCausalLM

    if not rw._ropewalk.reads_config:
        pytest.skip("this build of ropewalk reads no config.json")
    torch.manual_seed(5)
    shape = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=2)).eval()
    ids = torch.randint(3, 97, (2, 40))
    with torch.no_grad():
        here = rw.patch(model, policy)(ids).logits
        there = model.cuda()(ids.cuda()).logits
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-4)
