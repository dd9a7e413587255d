"""Fused calls on the CPU: results against float64, slots, types, and errors that write nothing."""

import fused_calls
import numpy as np
import pytest
import rope_reference as reference
import ropewalk as rw
import torch
from checks import assert_refused
from fused_calls import (
    CACHE_TYPES,
    DIM,
    ENCODING,
    KV_HEADS,
    PAGE,
    PAGES,
    Q_HEADS,
    SLOTS,
    TOKENS,
    assert_cache,
    assert_stored,
    heads,
    normed,
    rotated,
)

BYTES = ("float8_e4m3fn", "float8_e5m2", "int8")
WEIGHT = np.linspace(0.5, 2, DIM).astype(np.float32)


def as_library(library, *arrays):
    if library == "numpy":
        return list(arrays)
    return [None if x is None else as_tensor(x) for x in arrays]


def as_tensor(x):
    if x.dtype.name.startswith("float8"):
        return torch.from_numpy(x.view(np.uint8)).view(getattr(torch, x.dtype.name))
    return reference.as_torch(x)


def values_of(x):
    """A NumPy array with the values of an array or a tensor, with its type."""
    if isinstance(x, np.ndarray):
        return x
    name = reference.type_of(x)
    types = {"bfloat16": torch.int16, "float8_e4m3fn": torch.uint8, "float8_e5m2": torch.uint8}
    return x.view(types.get(name, x.dtype)).numpy().view(CACHE_TYPES[name])


def scale_for(cache):
    """The scale of the cache as an argument: a divisor, or scales for int8."""
    name = reference.type_of(cache)
    if name == "int8":
        return np.ones(cache.shape[:-1], np.float32)
    return 0.25 if name in BYTES else None


@pytest.mark.parametrize("library", reference.LIBRARIES)
@pytest.mark.parametrize("name", SLOTS)
def test_append_by_every_kind_of_slots(name, library):
    slots = SLOTS[name]
    q, k, v = as_library(library, *heads())
    caches = [fused_calls.cache("float32", pages=slots.pages, page_size=slots.page_size) for _ in range(2)]
    k_cache, v_cache = as_library(library, *caches)
    before = [reference.exact(x) for x in (q, k, v)]
    arguments = {
        key: torch.from_numpy(x) if library == "torch" and isinstance(x, np.ndarray) else x
        for key, x in slots.arguments.items()
    }
    assert rw.append(q, k, v, encoding=ENCODING, k_cache=k_cache, v_cache=v_cache, **arguments) is q
    assert_stored(values_of(q), rotated(before[0], slots.positions))
    assert np.array_equal(reference.exact(k), before[1]) and np.array_equal(reference.exact(v), before[2])
    assert_cache(values_of(k_cache), "nhd", slots, rotated(before[1], slots.positions))
    assert_cache(values_of(v_cache), "nhd", slots, before[2])


@pytest.mark.parametrize("library", reference.LIBRARIES)
@pytest.mark.parametrize("order", ["nhd", "hnd"])
@pytest.mark.parametrize("cache_type", CACHE_TYPES)
@pytest.mark.parametrize("type_name", reference.DEVICE_TYPES)
def test_append_to_caches_of_every_type(type_name, cache_type, order, library):
    slots = SLOTS["mapping of int64"]
    q, k, v = heads(type_name)
    k_cache, v_cache = (fused_calls.cache(cache_type, order) for _ in range(2))
    scales = [scale_for(x) for x in (k_cache, v_cache)]
    given = as_library(library, q, k, v, k_cache, v_cache)
    q, k, v, k_cache, v_cache = given
    before = [reference.exact(x) for x in (q, k, v)]
    k_scale, v_scale = (torch.from_numpy(x) if library == "torch" and np.ndim(x) else x for x in scales)
    arguments = {"cache_order": order, "k_scale": k_scale, "v_scale": v_scale}
    rw.append(q, k, v, encoding=ENCODING, k_cache=k_cache, v_cache=v_cache, **slots.arguments, **arguments)
    assert_stored(values_of(q), rotated(before[0], slots.positions))
    k_scale, v_scale = (1.0 if x is None else x for x in scales)
    assert_cache(values_of(k_cache), order, slots, rotated(before[1], slots.positions), k_scale)
    assert_cache(values_of(v_cache), order, slots, before[2], v_scale)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_uint8_caches_and_scales_in_memory(dtype):
    """vLLM holds 8-bit floats as uint8. A scale in memory is read by the call."""
    q, k, v = (torch.from_numpy(x) for x in heads())
    caches = [torch.ones(PAGES, PAGE, KV_HEADS, DIM).to(getattr(torch, dtype)) for _ in range(4)]
    slots = SLOTS["mapping of int64"].arguments
    names = {"float8_e4m3fn": "fp8", "float8_e5m2": torch.float8_e5m2}
    rw.append(q.clone(), k, v, encoding=ENCODING, k_cache=caches[0], v_cache=caches[1], k_scale=0.5, v_scale=2, **slots)
    rw.append(
        *(q.clone(), k, v),
        **{"encoding": ENCODING, "k_cache": caches[2].view(torch.uint8), "v_cache": caches[3].view(torch.uint8)},
        **{"k_scale": torch.tensor([0.5]), "v_scale": torch.tensor(2.0), "cache_dtype": names[dtype]},
        **slots,
    )
    for expected, found in zip(caches[:2], caches[2:]):
        assert torch.equal(expected.view(torch.uint8), found.view(torch.uint8))


def test_keys_and_values_in_one_tensor_and_packed_projections():
    """As FlashInfer and vLLM hold them: [pages, 2, page_size, heads, head_dim]."""
    slots = SLOTS["page table"]
    packed = torch.randn(TOKENS, (Q_HEADS + 2 * KV_HEADS) * DIM).bfloat16()
    before = packed.clone()
    q, k, v = rw.split_qkv(packed, Q_HEADS, KV_HEADS, DIM)
    assert q.data_ptr() == packed.data_ptr() and v.shape == (TOKENS, KV_HEADS, DIM)
    pages = torch.ones(PAGES, 2, PAGE, KV_HEADS, DIM, dtype=torch.bfloat16)
    rw.append(q, k, v, encoding=ENCODING, k_cache=pages[:, 0], v_cache=pages[:, 1], **slots.arguments)
    parts = rw.split_qkv(before, Q_HEADS, KV_HEADS, DIM)
    assert torch.equal(packed[:, Q_HEADS * DIM :], before[:, Q_HEADS * DIM :])
    assert_stored(values_of(q.contiguous()), rotated(parts[0], slots.positions))
    assert_cache(values_of(pages[:, 0].contiguous()), "nhd", slots, rotated(parts[1], slots.positions))
    assert_cache(values_of(pages[:, 1].contiguous()), "nhd", slots, reference.exact(parts[2]))


def test_split_qkv():
    packed = np.arange(2 * 3 * 24).reshape(2, 3, 24)
    q, k, v = rw.split_qkv(packed, 4, 1, 4)
    assert q.shape == (2, 3, 4, 4) and k.shape == v.shape == (2, 3, 1, 4)
    for x in (q, k, v, rw.split_qkv(packed[:, ::2], 4, 1, 4)[1]):
        assert np.shares_memory(x, packed)
    assert (q[1, 2, 3] == packed[1, 2, 12:16]).all() and (v[0, 1, 0] == packed[0, 1, 20:]).all()
    with pytest.raises(rw.Error, match=r"packed \[2, 3, 24\] is not 4 \+ 2 \* 2 heads of 4"):
        rw.split_qkv(packed, 4, 2, 4)


def test_batches_and_their_orders():
    batch = 3
    for order in reference.ORDERS[1:]:
        q, k, v = (torch.from_numpy(x) for x in heads(batch=batch))
        expected = [rotated(x, np.arange(TOKENS) + 2) for x in (q, k)]
        arranged = [torch.from_numpy(reference.arrange(x.numpy(), order)) for x in (q, k, v)]
        k_cache, v_cache = (torch.ones(batch, 12, KV_HEADS, DIM) for _ in range(2))
        rw.append(*arranged, encoding=ENCODING, k_cache=k_cache, v_cache=v_cache, offset=2, order=order)
        for row in range(batch):
            assert_stored(k_cache[row, 2 : 2 + TOKENS].numpy(), expected[1][row])
            assert torch.equal(v_cache[row, 2 : 2 + TOKENS], v[row])
        assert (k_cache[:, :2] == 1).all() and (v_cache[:, 2 + TOKENS :] == 1).all()


@pytest.mark.parametrize("library", reference.LIBRARIES)
@pytest.mark.parametrize("one_plus", [False, True])
def test_norms(library, one_plus):
    q, k, _ = heads("bfloat16")
    expected = [rotated(normed(x, WEIGHT, 1e-3, one_plus), np.arange(TOKENS) + 9) for x in (q, k)]
    given = as_library(library, q, k, WEIGHT)
    weights = {"q_weight": given[2], "k_weight": given[2], "epsilon": 1e-3, "one_plus": one_plus}
    before = [reference.exact(x) for x in given[:2]]
    new = rw.norm_rotate(*given[:2], encoding=ENCODING, offset=9, **weights)
    for x, exact in zip(new, expected):
        assert_stored(values_of(x), exact)
    assert all(np.array_equal(reference.exact(x), y) for x, y in zip(given, before))
    found = rw.norm_rotate_(*given[:2], encoding=ENCODING, offset=9, **weights)
    for x, y, same in zip(found, new, given):
        assert x is same and np.array_equal(reference.exact(x), reference.exact(y))


def test_a_norm_of_one_side_and_single_arguments():
    q, k, _ = (torch.from_numpy(x) for x in heads())
    weight = torch.from_numpy(WEIGHT).half()
    expected = rotated(normed(k, weight, 1e-6), np.arange(TOKENS))
    assert_stored(rw.norm_rotate(None, k, encoding=ENCODING, k_weight=weight).numpy(), expected)
    plain, both = rw.norm_rotate(q, k, encoding=ENCODING, k_weight=weight)
    assert_stored(both.numpy(), expected)
    assert_stored(plain.numpy(), rotated(q, np.arange(TOKENS)))
    assert rw.norm_rotate_(q, encoding=ENCODING, q_weight=weight) is q


@pytest.mark.parametrize("library", reference.LIBRARIES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", *BYTES])
def test_quantised_outputs(dtype, library):
    q, k, v = as_library(library, *heads("float32"))
    scales = [
        np.ones(x.shape[:-1], np.float32) if dtype == "int8" else 0.25 if dtype in BYTES else None for x in (q, k, v)
    ]
    given = [torch.from_numpy(x) if library == "torch" and np.ndim(x) else x for x in scales]
    named = dict(zip(("q_scale", "k_scale", "v_scale"), given))
    results = rw.fused(q, k, v, encoding=ENCODING, offset=4, dtype=dtype, **named)
    for x, found, scale, rotates in zip((q, k, v), results, scales, (True, True, False)):
        assert reference.type_of(found) == dtype and found.shape == x.shape
        expected = rotated(x, np.arange(TOKENS) + 4) if rotates else reference.exact(x)
        assert_stored(values_of(found), expected, 1.0 if scale is None else scale)


def test_everything_at_once():
    """Norms, a quantised q, keys in a cache and an output, values in a cache."""
    slots = SLOTS["page tables of sequences"]
    q, k, v = (x.bfloat16() for x in map(torch.from_numpy, heads()))
    k_cache, v_cache = (torch.ones(PAGES, PAGE, KV_HEADS, DIM).to(torch.float8_e4m3fn) for _ in range(2))
    k_out, weight = torch.empty_like(k), torch.from_numpy(WEIGHT)
    found = rw.fused(
        *(q, k, v),
        **{"encoding": ENCODING, "q_weight": weight, "k_weight": weight, "k_cache": k_cache, "v_cache": v_cache},
        **{"q_scale": torch.tensor([0.5]), "k_scale": 0.25, "dtype": torch.float8_e4m3fn, "out": (None, k_out, None)},
        **slots.arguments,
    )
    assert found[1] is k_out and found[2] is None
    expected = [rotated(normed(x, weight, 1e-6), slots.positions) for x in (q, k)]
    assert_stored(values_of(found[0]), expected[0], 0.5)
    assert_stored(values_of(k_out), expected[1])
    assert_cache(values_of(k_cache), "nhd", slots, expected[1], 0.25)
    assert_cache(values_of(v_cache), "nhd", slots, reference.exact(v))


@pytest.mark.parametrize("library", reference.LIBRARIES)
@pytest.mark.parametrize("cache_type", ["bfloat16", "float8_e4m3fn"])
def test_mla(cache_type, library):
    """DeepSeek-V3's shapes: latent vectors of 512, keys of 64 that all heads share."""
    tokens, latent_dim, rope_dim = 5, 512, 64
    encoding = rw.encoding("yarn:40,original_length=4096", head_dim=rope_dim, layout="interleaved")
    make = reference.make
    whole, k = make("numpy", "bfloat16", (tokens, 128, 192), 0), make("numpy", "bfloat16", (tokens, rope_dim), 1)
    latent, ones = make("numpy", "bfloat16", (tokens, latent_dim), 2), np.ones((4, 3, 576), CACHE_TYPES[cache_type])
    whole, k, latent, cache = as_library(library, whole, k, latent, ones)
    mapping = np.array([7, 2, -1, 11, 0])
    scale = 0.5 if cache_type == "float8_e4m3fn" else None
    q = whole[..., 128:]
    expected = [rw.rotate(x, encoding=encoding, offset=70) for x in (q, k[:, None])]
    before = reference.exact(whole)
    assert (
        rw.append_mla(q, k, latent, encoding=encoding, cache=cache, slot_mapping=mapping, offset=70, scale=scale) is q
    )
    assert np.array_equal(reference.exact(q), reference.exact(expected[0]))
    assert np.array_equal(reference.exact(whole)[..., :128], before[..., :128])
    rows = values_of(cache).reshape(12, 576)
    left = reference.exact(rows)
    for token, slot in enumerate(mapping):
        if slot >= 0:
            assert_stored(rows[slot, :latent_dim], reference.exact(latent)[token], scale or 1.0)
            # The expected keys are rounded to bfloat16 already.
            room = 2.0**-8 + (2.0**-4 if scale else 0)
            np.testing.assert_allclose(
                reference.exact(rows[slot, latent_dim:]) * (scale or 1),
                reference.exact(expected[1])[token, 0],
                room,
                1e-2,
            )
            left[slot] = 1
    assert (left == 1).all()


def test_mla_of_whole_rows_and_batches():
    encoding = rw.encoding("default", head_dim=576, rotary_dim=64, rotary_offset=512, layout="interleaved")
    part = rw.encoding("default", head_dim=64, layout="interleaved")
    q, rows = torch.randn(2, 3, 4, 576), torch.randn(2, 3, 576)
    expected = rw.rotate(q, rows[:, :, None], encoding=encoding, offset=6)
    for k in (rows, rows[:, :, None]):
        cache, q_ours = torch.ones(2, 10, 576), q.clone()
        rw.append_mla(q_ours, k, encoding=encoding, cache=cache, offset=6)
        torch.testing.assert_close(q_ours, expected[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(cache[:, 6:9], expected[1][:, :, 0], rtol=0, atol=1e-6)
        assert (cache[:, :6] == 1).all() and (cache[:, 9:] == 1).all()
    cache = torch.ones(2, 10, 576)
    rw.append_mla(
        q[..., 512:].contiguous(), rows[..., 512:], rows[..., :512], encoding=part, cache=cache, offset=6, order="bshd"
    )
    torch.testing.assert_close(cache[:, 6:9], expected[1][:, :, 0], rtol=0, atol=1e-6)


Q, K, V = heads()
CACHE, OTHER = fused_calls.cache("float32"), fused_calls.cache("float32")
READ_ONLY = fused_calls.cache("float32")
READ_ONLY.flags.writeable = False
OK = {"k_cache": CACHE, "v_cache": OTHER, "slot_mapping": np.arange(TOKENS)}
REFUSED = [
    ("k_cache float32 .* expected \\[pages, page_size, heads, head_dim\\]", {"k_cache": CACHE[0]}),
    ("k_cache float64", {"k_cache": CACHE.astype(np.float64)}),
    ("k_cache .*last stride 1", {"k_cache": CACHE[..., ::-1]}),
    ("k_cache .* is read-only", {"k_cache": READ_ONLY}),
    ("heads 2.* does not fit|does not fit", {"k_cache": np.ones((PAGES, PAGE, 3, DIM), np.float32)}),
    ("does not fit", {"k_cache": np.ones((PAGES, PAGE, KV_HEADS, DIM + 1), np.float32)}),
    ("same pages", {"k_cache": np.ones((PAGES + 1, PAGE, KV_HEADS, DIM), np.float32)}),
    ("overlaps", {"k_cache": OTHER}),
    ("share memory", {"k_cache": np.lib.stride_tricks.as_strided(CACHE, CACHE.shape, (0, *CACHE.strides[1:]))}),
    ("cache_order must be 'nhd' or 'hnd', got 'dhn'", {"cache_order": "dhn"}),
    ("does not fit", {"cache_order": "hnd"}),
    ("k_scale is given, but nothing of 8 bits is stored", {"k_scale": 2.0}),
    ("k_scale is missing", {"k_cache": CACHE.astype(np.int8)}),
    ("k_scale must be an array", {"k_cache": CACHE.astype(np.int8), "k_scale": 2.0}),
    ("k_scale .*does not have the shape", {"k_cache": CACHE.astype(np.int8), "k_scale": np.ones(3, np.float32)}),
    ("k_scale float64 .*expected float32", {"k_cache": CACHE.astype(np.int8), "k_scale": np.ones(CACHE.shape[:-1])}),
    ("scale must lie within", {"k_cache": CACHE.astype(CACHE_TYPES["float8_e4m3fn"]), "k_scale": 0.0}),
    (
        "one scale per tensor",
        {"k_cache": CACHE.astype(CACHE_TYPES["float8_e4m3fn"]), "k_scale": np.ones(2, np.float32)},
    ),
    ("uint8 can be the bytes of either", {"k_cache": CACHE.astype(np.uint8)}),
    ("cache_dtype must be 'float8_e4m3fn' or 'float8_e5m2', got 'fp9'", {"cache_dtype": "fp9"}),
    ("slot_mapping, page_table and kv_indptr exclude each other", {"page_table": np.zeros((1, 2), np.int32)}),
    ("slot_mapping has the slots of the tokens already", {"entries": 3}),
    ("slot_mapping has 3 entries for 7 tokens", {"slot_mapping": np.arange(3)}),
    ("slot_mapping .*expected int32 or int64", {"slot_mapping": np.arange(7.0)}),
    ("slot_mapping .*must be contiguous", {"slot_mapping": np.arange(14)[::2]}),
    ("slot", {"slot_mapping": np.array([0, 1, 2, 3, 4, 5, PAGES * PAGE])}),
    ("page_table .*expected int32", {"slot_mapping": None, "page_table": np.zeros((1, 2), np.int64)}),
    ("page_table .*expected \\[sequences, max_pages\\]", {"slot_mapping": None, "page_table": np.zeros(2, np.int32)}),
    ("the page table has 2 rows for 1 sequences", {"slot_mapping": None, "page_table": np.zeros((2, 2), np.int32)}),
    ("7 tokens from entry 2 on", {"slot_mapping": None, "page_table": np.zeros((1, 2), np.int32), "offset": 2}),
    ("kv_indptr and kv_indices need each other", {"slot_mapping": None, "kv_indptr": np.zeros(2, np.int32)}),
    ("last_page_len needs kv_indptr", {"last_page_len": np.zeros(1, np.int32)}),
    ("q, k|k is None|k .*None|a cache of k is given but no k", {"k": None}),
    ("a cache of v is given but no v", {"v": None}),
    ("v has .* nor a cache|neither an output nor a cache", {"v_cache": None}),
    ("tokens", {"k": K[:3]}),
    ("v must have the batch and tokens", {"v": V[:3]}),
    ("v has 1 heads but k has 2", {"v": V[:, :1]}),
    ("k .*float16|float16|k is f16", {"k": K.astype(np.float16)}),
    ("overlap", {"k": CACHE.reshape(-1, KV_HEADS, DIM)[:TOKENS]}),
    ("positions has 3 entries for 7 tokens", {"positions": [1, 2, 3]}),
    ("threads must be from 1 to 4096", {"threads": 0}),
    ("head_dim", {"encoding": rw.encoding("default", head_dim=DIM + 2)}),
]


@pytest.mark.parametrize(("message", "arguments"), REFUSED)
def test_refused_calls_write_nothing(message, arguments):
    given = {"q": Q, "k": K, "v": V, "encoding": ENCODING, **OK, **arguments}
    arrays = [x for x in given.values() if isinstance(x, np.ndarray)]
    assert_refused(message, lambda: rw.append(**given), Q, CACHE, OTHER, *arrays)


def test_other_errors():
    with pytest.raises(rw.Error, match="slot_mapping is given but no cache"):
        rw.fused(Q, encoding=ENCODING, slot_mapping=np.arange(TOKENS))
    with pytest.raises(rw.Error, match="q and k are both None"):
        rw.fused(None, encoding=ENCODING)
    with pytest.raises(rw.Error, match=r"q_weight .*expected \[32\]"):
        rw.norm_rotate_(Q, encoding=ENCODING, q_weight=WEIGHT[:4])
    with pytest.raises(rw.Error, match="epsilon of q must not be negative, got -1"):
        rw.norm_rotate_(Q, encoding=ENCODING, q_weight=WEIGHT, epsilon=-1)
    with pytest.raises(rw.Error, match="one_plus is given but neither"):
        rw.norm_rotate_(Q, encoding=ENCODING, one_plus=True)
    with pytest.raises(rw.Error, match="dtype must be one of"):
        rw.fused(Q, encoding=ENCODING, dtype="float4")
    with pytest.raises(rw.Error, match="out must hold three arrays"):
        rw.fused(Q, encoding=ENCODING, out=Q)
    with pytest.raises(rw.Error, match="out of k is given but k is None"):
        rw.fused(Q, encoding=ENCODING, out=(None, K, None))
    with pytest.raises(rw.Error, match="positions and cu_seqlens together need entries"):
        rw.append(
            *(Q.copy(), K, V),
            **{"encoding": ENCODING, "k_cache": CACHE, "v_cache": OTHER, "page_table": fused_calls.TWO_TABLES},
            **{"positions": np.arange(TOKENS), "cu_seqlens": fused_calls.STARTS},
        )
    mla = rw.encoding("default", head_dim=4)
    rows = np.zeros((TOKENS, 4), np.float32)
    with pytest.raises(rw.Error, match="i8"):
        rw.append_mla(
            None, rows, rows, encoding=mla, cache=np.zeros((2, 4, 8), np.int8), scale=np.zeros((2, 4), np.float32)
        )
    with pytest.raises(rw.Error, match=r"cache .*expected \[pages, page_size, dim\]"):
        rw.append_mla(None, rows, rows, encoding=mla, cache=rows)
