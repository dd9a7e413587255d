"""Fused calls as a PyTorch operator: opcheck, torch.compile, the unfused composition, and refused gradients."""

import pytest
import ropewalk as rw
import torch
from torch.func import vmap
from torch_heads import compiled

DIM, TOKENS, Q_HEADS, KV_HEADS, PAGES, PAGE = 16, 5, 4, 2, 4, 3
ENCODING = rw.encoding("yarn:8,original_length=64", head_dim=DIM)
INTERLEAVED = rw.encoding("default", head_dim=DIM, layout="interleaved")
MAPPING = torch.tensor([7, -1, 0, 11, 4])
WEIGHT = torch.linspace(0.5, 2, DIM)


def heads(dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.randn(TOKENS, count, DIM).to(dtype) for count in (Q_HEADS, KV_HEADS, KV_HEADS)]


def pages(dtype=torch.float32):
    """Keys and values in one tensor."""
    return torch.ones(PAGES, 2, PAGE, KV_HEADS, DIM).to(dtype)


def store(cache, x, scale=1.0):
    """The tokens in their slots, by index copies."""
    flat = torch.arange(PAGES * PAGE).view(PAGES, PAGE)
    for token, slot in enumerate(MAPPING.tolist()):
        if slot >= 0:
            page, entry = (flat == slot).nonzero()[0].tolist()
            cache[page, entry] = (x[token].float() / scale).to(cache.dtype)


def append(q, k, v, cache, **options):
    return rw.append(
        *(q, k, v), encoding=ENCODING, k_cache=cache[:, 0], v_cache=cache[:, 1], slot_mapping=MAPPING, **options
    )


def norm_and_store(q, k, v, cache, weight, scale):
    """Norms, new queries in bfloat16, keys and values in a cache of 8-bit floats."""
    return rw.fused(
        *(q, k, v),
        **{"encoding": ENCODING, "positions": [3, 1, 4, 1, 5], "q_weight": weight, "k_weight": weight},
        **{"k_cache": cache[:, 0], "v_cache": cache[:, 1], "slot_mapping": MAPPING, "dtype": torch.bfloat16},
        **{"k_scale": scale, "v_scale": 0.5},
    )[0]


def append_mla(q, k, latent, cache):
    return rw.append_mla(q, k[:, :1], latent, encoding=INTERLEAVED, cache=cache, slot_mapping=MAPPING, offset=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_append_equals_its_unfused_composition(dtype):
    q, k, v = heads(dtype)
    expected_q, expected_k = rw.rotate(q, k, encoding=ENCODING, offset=9)
    cache, expected = pages(dtype), pages(dtype)
    store(expected[:, 0], expected_k)
    store(expected[:, 1], v)
    versions = q._version, k._version, cache._version
    assert append(q, k, v, cache, offset=9) is q
    torch.testing.assert_close(q, expected_q, rtol=0, atol=0 if dtype != torch.float32 else 1e-6)
    torch.testing.assert_close(cache, expected, rtol=0, atol=0 if dtype != torch.float32 else 1e-6)
    assert q._version > versions[0] and k._version == versions[1] and cache._version > versions[2]


def test_norms_and_8_bit_floats_equal_their_unfused_composition():
    q, k, v = heads()
    scale = torch.tensor([0.25])
    cache, expected = pages(torch.float8_e4m3fn), pages(torch.float8_e4m3fn)
    normed = [torch.nn.functional.rms_norm(x, (DIM,), WEIGHT, 1e-6) for x in (q, k)]
    expected_q, expected_k = rw.rotate(*normed, encoding=ENCODING, positions=[3, 1, 4, 1, 5])
    store(expected[:, 0], expected_k, 0.25)
    store(expected[:, 1], v, 0.5)
    found = norm_and_store(q, k, v, cache, WEIGHT, scale)
    torch.testing.assert_close(found, expected_q.bfloat16(), rtol=2.0**-7, atol=1e-6)
    torch.testing.assert_close(cache.float(), expected.float(), rtol=2.0**-3, atol=2.0**-9)
    assert (cache.float() != expected.float()).float().mean() < 0.01  # ties that another order of roundings breaks


def schema_arguments(**named):
    """The arguments of torch.ops.ropewalk.fused_, in their order."""
    rw.append(*heads(), encoding=ENCODING, k_cache=(c := pages())[:, 0], v_cache=c[:, 1], slot_mapping=MAPPING)
    from ropewalk import _fused_operator

    defaults = {"encoding": ENCODING.key, "offset": 0, "epsilon": 1e-6, "one_plus": False, "cache_order": "nhd"}
    defaults |= {"latent": False}
    assert named.keys() <= set(_fused_operator._NAMES)
    return tuple(named.get(name, defaults.get(name)) for name in _fused_operator._NAMES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype):
    q, k, v = heads(dtype)
    cache = torch.ones(2, PAGES, PAGE, KV_HEADS, DIM, dtype=dtype)
    slots = {"slot_mapping": MAPPING, "k_cache": cache[0].clone(), "v_cache": cache[1].clone()}
    int8 = {name: torch.ones(PAGES, PAGE, KV_HEADS, DIM, dtype=torch.int8) for name in ("k_cache", "v_cache")}
    scales = {name: torch.ones(PAGES, PAGE, KV_HEADS) for name in ("k_scales", "v_scales")}
    f8 = torch.ones(PAGES, PAGE, KV_HEADS, DIM, dtype=torch.uint8)  # opcheck cannot compare 8-bit floats
    mla = {"k_cache": torch.ones(PAGES, PAGE, 2 * DIM, dtype=dtype), "latent": True, "slot_mapping": MAPPING}
    ids, e5m2 = torch.arange(TOKENS), {"cache_dtype": "float8_e5m2"}
    for named in (
        {"q": q, "k_in": k, "v_in": v, **slots},
        {"q": q, "k": k, "positions": ids, "q_weight": WEIGHT, "k_weight": WEIGHT, "one_plus": True},
        {"q": q.clone(), "q_in": q, "k_in": k, "v_in": v, **slots, **int8, **scales, "offset": 3},
        {"k_in": k, "k_cache": f8, "k_scale_at": torch.tensor([2.0]), "slot_mapping": MAPPING, **e5m2},
        {"q": q, "k_in": k[:, 0].contiguous(), "v_in": v[:, 0].contiguous(), **mla},
    ):
        made = {name: x.clone() if isinstance(x, torch.Tensor) else x for name, x in named.items()}
        arguments = schema_arguments(**made)
        torch.library.opcheck(torch.ops.ropewalk.fused_.default, arguments)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_without_a_graph_break(dynamic):
    def layer(packed, cache, weight, scale):
        q, k, v = rw.split_qkv(packed * 2, Q_HEADS, KV_HEADS, DIM)
        rw.norm_rotate_(q, k, encoding=ENCODING, q_weight=weight, k_weight=weight, offset=2)
        new = norm_and_store(q, k, v, cache, weight, scale)
        return append(q, k, v, cache, offset=1).sum(-1), new + 1

    packed = torch.randn(TOKENS, (Q_HEADS + 2 * KV_HEADS) * DIM)
    scale = torch.tensor([0.25])
    caches = [pages(torch.float8_e4m3fn) for _ in range(2)]
    expected = layer(packed, caches[0], WEIGHT, scale)
    found = compiled(layer, dynamic=dynamic)(packed, caches[1], WEIGHT, scale)
    for x, y in zip(found, expected):
        torch.testing.assert_close(x, y, rtol=0, atol=0)
    assert torch.equal(caches[0].view(torch.uint8), caches[1].view(torch.uint8))


def test_mla_compiled():
    q, k, v = heads()
    latent = v[:, 0].contiguous()
    caches = [torch.ones(PAGES, PAGE, 2 * DIM) for _ in range(2)]
    expected = append_mla(q.clone(), k, latent, caches[0])
    found = compiled(append_mla)(q.clone(), k, latent, caches[1])
    assert torch.equal(found, expected) and torch.equal(*caches)
    assert (caches[0] != 1).any()


@pytest.mark.parametrize("name", ["q", "k", "cache", "weight"])
def test_gradients_are_refused(name):
    q, k, v = heads()
    cache, weight = pages(), WEIGHT.clone()
    {"q": q, "k": k, "cache": cache, "weight": weight}[name].requires_grad_()
    before = [x.detach().clone() for x in (q, cache)]
    message = "requires grad, and fused calls have no gradients; train with torch.nn.functional.rms_norm"

    def call():
        rw.fused(
            *(q, k, v),
            **{"encoding": ENCODING, "q_weight": weight, "k_cache": cache[:, 0], "v_cache": cache[:, 1]},
            slot_mapping=MAPPING,
        )

    with pytest.raises(rw.Error, match=message):
        call()
    assert torch.equal(q, before[0]) and torch.equal(cache, before[1])
    with torch.no_grad():
        call()
    assert not torch.equal(cache, before[1])


def test_inference_mode_and_transforms():
    q, k, v = heads()
    cache = pages()
    with torch.inference_mode():
        append(q.clone(), k, v, pages().clone())
        append(q, k, v, cache)
    with pytest.raises(rw.Error, match=r"do not run under torch\.vmap"):
        vmap(lambda x: rw.norm_rotate_(x, encoding=ENCODING))(torch.zeros(2, TOKENS, Q_HEADS, DIM))


def test_tensors_of_other_kinds_are_refused():
    q, k, v = heads()
    with pytest.raises(rw.Error, match="on the device meta"):
        append(q, k, v, pages().to("meta"))
    with pytest.raises(rw.Error, match="nested"):
        rw.norm_rotate_(torch.nested.nested_tensor([q[0], q[1]], layout=torch.jagged), encoding=ENCODING)
