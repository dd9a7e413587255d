"""Tensors on a CUDA device: results as on the CPU, streams, graphs, compiled functions and patched models."""

import pytest
import rope_reference as reference
import ropewalk as rw
import torch
from device_calls import BATCH, CASES, DIM, TOKENS, encode, pair

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def tensors(order="bshd"):
    return [reference.as_torch(x) for x in pair(order=order)]


def assert_close(ours, expected):
    """Both are within one rounding of exact arithmetic, so within two of each other."""
    assert ours.is_cuda and ours.dtype == expected.dtype and ours.shape == expected.shape
    step = max(2 * reference.HALF_ULP[reference.type_of(expected)], 2.0**-20)
    torch.testing.assert_close(ours.cpu().double(), expected.double(), rtol=step, atol=step)


def compare(call, *tensors, moved=True):
    """Compares the call on the CPU with the call on the device, for copies of the tensors."""
    on_cpu = call(*(x.clone() for x in tensors))
    on_device = call(*(x.cuda() for x in tensors))
    for ours, expected in zip(on_device, on_cpu):
        assert_close(ours, expected)
    assert not (moved and torch.equal(on_cpu[0], tensors[0]))


@pytest.mark.parametrize("name", CASES)
def test_results_equal_those_of_the_cpu(name):
    call, arrays = CASES[name]
    compare(call, *map(reference.as_torch, arrays))


def test_against_the_formula():
    q, _ = tensors()
    ids = torch.arange(TOKENS) * 7 - 20
    ours = rw.rotate(q.cuda(), encoding=encode("linear:8"), positions=ids.cuda())
    reference.assert_close(ours, reference.rotate_exactly(q, reference.plain(DIM) / 8, ids))


@pytest.mark.parametrize("kind", ["list", "numpy", "cpu", "strided", "pinned"])
def test_positions_from_elsewhere(kind):
    ids = torch.randint(0, 999, (TOKENS,))
    given = {
        "list": ids.tolist(),
        "numpy": ids.numpy(),
        "cpu": ids,
        "strided": torch.stack((ids, ids), dim=1).cuda()[:, 0],
        "pinned": ids.pin_memory(),
    }[kind]
    q, k = tensors()
    ours = rw.rotate(q.cuda(), k.cuda(), encoding=encode(), positions=given)
    for x, expected in zip(ours, rw.rotate(q, k, encoding=encode(), positions=ids)):
        assert_close(x, expected)


def test_pinned_positions_may_change_after_the_call():
    q, _ = tensors()
    x, ids = q.cuda(), torch.arange(TOKENS).pin_memory()
    expected = rw.rotate(q, encoding=encode())
    torch.cuda._sleep(200_000_000)  # about 0.1 s, for which the copy would wait
    rw.rotate_(x, encoding=encode(), positions=ids)
    ids.zero_()
    assert_close(x, expected)


def test_ragged_batches_from_a_list():
    q, _ = tensors("thd")
    starts = [0, 5, 5, 30, TOKENS]
    ours = rw.rotate(q.cuda(), encoding=encode(), cu_seqlens=starts)
    assert_close(ours, rw.rotate(q, encoding=encode(), cu_seqlens=starts))


@pytest.mark.parametrize("given", [False, True])
def test_drawn_positions(given):
    encoding = encode("randomized:4096,seed=3", sequence_length=TOKENS)

    def call(q, k, ids):
        return rw.rotate(q, k, encoding=encoding, positions=ids if given else None)

    compare(call, *tensors(), torch.randperm(TOKENS))


@pytest.mark.parametrize("type_name", ["float32", "bfloat16"])
def test_apply_rotary_transformers(type_name):
    dtype = getattr(torch, type_name)
    cos, sin = (torch.randn(1, TOKENS, DIM).to(dtype) for _ in range(2))
    compare(rw.apply_rotary_transformers, *(x.transpose(1, 2) for x in tensors()), cos, sin)


def test_views_and_outputs():
    encoding = encode()
    whole = torch.randn(BATCH, TOKENS, 6, DIM + 3)
    compare(lambda whole: [rw.rotate_(whole[:, 1:, 1:5, 3:], encoding=encoding, offset=9), whole], whole, moved=False)
    q, k = (x.cuda() for x in tensors())
    out = torch.empty_like(q), torch.empty_like(k)
    assert rw.rotate(q, k, encoding=encoding, out=out) == out
    assert torch.equal(out[0], rw.rotate(q, k, encoding=encoding)[0])
    expanded = q[:, :, :1].expand(-1, -1, 4, -1)
    assert torch.equal(rw.rotate(expanded, encoding=encoding), rw.rotate(expanded.contiguous(), encoding=encoding))
    with pytest.raises(rw.Error, match="share memory"):
        rw.rotate_(expanded, encoding=encoding)


@pytest.mark.parametrize("learning", ["both", "q", "k", "in place"])
def test_gradients(learning):
    encoding, positions, weights = encode("xpos:64"), list(range(TOKENS)), tensors()

    def call(q, k, *weights):
        q.requires_grad_(learning != "k")
        k.requires_grad_(learning != "q")
        if learning == "in place":
            result = rw.rotate_(q * 1, k * 1, encoding=encoding, positions=positions)
        else:
            result = rw.rotate(q, k, encoding=encoding, positions=positions)
        sum((x * weight).sum() for x, weight in zip(result, weights) if x.requires_grad).backward()
        return [x.grad for x in (q, k) if x.grad is not None]

    compare(call, *(x + 1 for x in tensors()), *weights)


def test_compiled_without_a_graph_break():
    def step(q, k, ids):
        q, k = rw.rotate(q * 2, k, encoding=encoding, positions=ids)
        return rw.rotate_(q + 1, k + 1, encoding=encoding)

    encoding = encode("linear:8")
    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for tokens in (4, 9, TOKENS):
        q, k = (x[:, :tokens].cuda() for x in tensors())
        ids = torch.arange(tokens, device="cuda") + 3
        for ours, expected in zip(compiled(q, k, ids), step(q.cpu(), k.cpu(), ids.cpu())):
            assert_close(ours, expected)


@pytest.mark.parametrize("policy", ["linear:8", "xpos:64"])  # the parameters of xpos exceed 4 KB
def test_graphs_replay_with_new_numbers(policy):
    encoding = encode(policy)
    q, k = (x.cuda() for x in tensors())
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
    """A call runs after the earlier work in the stream, and returns before that work is finished."""
    encoding = encode("linear:8")
    q, _ = tensors()
    x = torch.zeros_like(q, device="cuda")
    source = q.pin_memory()
    rw.rotate_(x, encoding=encoding)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # about 0.1 s
        x.copy_(source, non_blocking=True)
        rw.rotate_(x, encoding=encoding, offset=4)
        assert not side.query()  # the call did not wait
    side.synchronize()
    assert_close(x, rw.rotate(q, encoding=encoding, offset=4))


def test_tensors_on_different_devices_are_refused():
    encoding = encode()
    q, k = tensors()
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
    q, k = tensors()
    ours = rw.rotate(q.to("cuda:1"), k.to("cuda:1"), encoding=encode(), positions=list(range(TOKENS)))
    assert torch.cuda.current_device() == 0 and ours[0].device.index == 1
    assert_close(ours[0], rw.rotate(q, k, encoding=encode())[0])


@pytest.mark.parametrize("policy", [None, "linear:8", "xpos:64"])
def test_patched_models(policy):
    if not rw._ropewalk.reads_config:
        pytest.skip("this build of ropewalk reads no config.json")
    import tiny_model

    model = rw.patch(tiny_model.build(), policy)
    on_cpu = tiny_model.logits(model)
    on_device = tiny_model.logits(model.cuda(), tiny_model.IDS.cuda())
    torch.testing.assert_close(on_device.cpu(), on_cpu, rtol=1e-4, atol=1e-4)
