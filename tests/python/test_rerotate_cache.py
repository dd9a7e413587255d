"""rerotate_cache_ compared with float64 arithmetic, on caches of every type, order and kind of slots."""

import fused_calls
import numpy as np
import pytest
import rope_reference as reference
import ropewalk as rw
import torch
from torch_heads import compiled

DIM, HEADS, PAGES, PAGE, TOKENS = 32, 2, 6, 4, 7
OLD, NEW = rw.encoding("linear:8", head_dim=DIM), rw.encoding("default", head_dim=DIM)
OLD_THETA, NEW_THETA = reference.plain(DIM) / 8, reference.plain(DIM)
POSITIONS, NEW_POSITIONS = np.array([3, 9, 1, 100, 40, 41, 7]), np.arange(TOKENS) + 5
MAPPING = np.array([21, 0, -1, 6, 7, 23, 12])
RNG = np.random.default_rng(0)


def expected(keys, positions=POSITIONS, new_positions=NEW_POSITIONS, theta=OLD_THETA, new_theta=NEW_THETA, start=0):
    plain = reference.rotate_exactly(keys, theta, -np.asarray(positions), start=start)
    return reference.rotate_exactly(plain, new_theta, new_positions, start=start)


def make_cache(type_name, order="nhd"):
    """A cache of random keys, the values of its keys, and its scale."""
    shape = (PAGES, PAGE, HEADS, DIM) if order == "nhd" else (PAGES, HEADS, PAGE, DIM)
    values = RNG.standard_normal(shape)
    if type_name == "int8":
        scale = (np.abs(values).max(-1) / 127).astype(np.float32)
        cache = np.rint(values / scale[..., None]).astype(np.int8)
        return cache, cache.astype(np.float64) * scale[..., None], scale
    scale = 0.05 if type_name.startswith("float8") else 1.0
    cache = (values / scale).astype(fused_calls.CACHE_TYPES[type_name])
    return cache, reference.exact(cache.astype(np.float32)) * scale, scale if scale != 1 else None


def of_slots(cache, mapping, order="nhd"):
    """The heads of the tokens that have slots, [tokens, heads, ...]."""
    rows = cache if order == "nhd" else cache.swapaxes(1, 2)
    rows = rows.reshape(-1, *rows.shape[2:])
    return rows[np.asarray(mapping)[np.asarray(mapping) >= 0]]


@pytest.mark.parametrize("order", ["nhd", "hnd"])
@pytest.mark.parametrize("type_name", fused_calls.CACHE_TYPES)
def test_cached_keys_move_to_other_positions_of_another_encoding(type_name, order):
    cache, values, scale = make_cache(type_name, order)
    before = cache.copy()
    result = rw.rerotate_cache_(
        *(cache, OLD, NEW),
        **{"slot_mapping": MAPPING, "positions": POSITIONS, "new_positions": NEW_POSITIONS},
        **{"cache_order": order, "k_scale": scale},
    )
    assert result is cache
    kept = MAPPING >= 0
    exact = expected(of_slots(values, MAPPING, order), POSITIONS[kept], NEW_POSITIONS[kept])
    stored = of_slots(scale, MAPPING, order) if type_name == "int8" else scale or 1.0
    fused_calls.assert_stored(of_slots(cache, MAPPING, order), exact, stored)
    others = np.setdiff1d(np.arange(PAGES * PAGE), MAPPING)
    assert of_slots(cache, others, order).tobytes() == of_slots(before, others, order).tobytes()


@pytest.mark.parametrize("library", reference.LIBRARIES)
@pytest.mark.parametrize(
    "slots",
    [
        {"page_table": [[4, 1]], "entries": [7, 1, 0, 5, 2, 3, 6]},
        {"page_table": np.array([[4, 1]], np.int32), "entries": 1},
        {"kv_indptr": [0, 2], "kv_indices": [4, 1], "entries": 1},
        {"slot_mapping": [17, 18, 19, 4, 5, 6, 7]},
        {"slot_mapping": np.array([17, 18, 19, 4, 5, 6, 7], np.int32)},
    ],
    ids=["table", "table from 1", "list", "mapping", "mapping of int32"],
)
def test_slots_of_every_kind(slots, library):
    entries = slots.get("entries", 1)
    entries = np.arange(TOKENS) + 1 if isinstance(entries, int) else np.array(entries)
    mapping = np.where(entries < PAGE, 4 * PAGE + entries, PAGE + entries - PAGE)
    cache, values, _ = make_cache("bfloat16")
    given = cache if library == "numpy" else reference.as_torch(cache)
    if library == "torch":
        slots = {k: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for k, x in slots.items()}
    rw.rerotate_cache_(given, OLD, NEW, **slots, positions=POSITIONS, new_offset=5)
    fused_calls.assert_stored(of_slots(cache, mapping), expected(of_slots(values, mapping)))


def test_a_block_moves_to_another_position():
    """Position-independent reuse: keys that were encoded at the start of one prompt continue another one."""
    raw = reference.make("numpy", "float32", (8, HEADS, DIM))
    cache = rw.rotate(raw, encoding=NEW).reshape(2, PAGE, HEADS, DIM)
    rw.rerotate_cache_(cache, NEW, NEW, slot_mapping=np.arange(8), new_offset=1000)
    np.testing.assert_allclose(cache.reshape(raw.shape), rw.rotate(raw, encoding=NEW, offset=1000), atol=2e-6)


def test_there_and_back():
    cache, _, _ = make_cache("float32")
    before = cache.copy()
    there = {"slot_mapping": MAPPING, "positions": POSITIONS, "new_positions": NEW_POSITIONS}
    rw.rerotate_cache_(cache, OLD, NEW, **there)
    rw.rerotate_cache_(cache, NEW, OLD, slot_mapping=MAPPING, positions=NEW_POSITIONS, new_positions=POSITIONS)
    np.testing.assert_allclose(cache, before, atol=3e-6)


def test_latent_attention_keeps_the_latent_part():
    encoding = rw.encoding("default", head_dim=576, rotary_dim=64, rotary_offset=512, layout="interleaved")
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        cache = torch.randn(PAGES, PAGE, 576).to(dtype)
        before = cache.clone()
        rw.rerotate_cache_(cache, encoding, encoding, slot_mapping=torch.tensor([5, 9]), new_offset=7)
        flat, old = (x.view(-1, 576).float() for x in (cache, before))
        assert torch.equal(flat[:, :512], old[:, :512])
        moved = [row for row in range(PAGES * PAGE) if not torch.equal(flat[row], old[row])]
        assert moved == [5, 9]


def test_scales_in_memory_and_bytes():
    cache = (torch.randn(PAGES, PAGE, HEADS, DIM) * 8).to(torch.float8_e4m3fn)
    as_bytes, scaled = cache.clone().view(torch.uint8), cache.clone()
    arguments = {"slot_mapping": MAPPING, "new_offset": 9}
    rw.rerotate_cache_(cache, OLD, NEW, k_scale=0.5, **arguments)
    rw.rerotate_cache_(as_bytes, OLD, NEW, k_scale=torch.tensor(0.5), cache_dtype="float8_e4m3fn", **arguments)
    rw.rerotate_cache_(scaled, OLD, NEW, k_scale=0.5, threads=1, **arguments)
    assert torch.equal(cache.view(torch.uint8), as_bytes) and torch.equal(
        cache.view(torch.uint8), scaled.view(torch.uint8)
    )


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("token 1 has slot 24, but the cache has 6 pages of 4 slots", {"slot_mapping": [0, 24]}),
        ("tokens 0 and 2 have the same slot: entry 1 of page 1", {"slot_mapping": [5, 3, 5]}),
        ("the number of tokens is unknown", {"slot_mapping": None, "page_table": [[1]]}),
        ("exclude each other", {"page_table": [[1]]}),
        ("kv_indptr and kv_indices need each other", {"slot_mapping": None, "kv_indptr": [0, 1], "entries": [1]}),
        ("drop entries", {"entries": [0, 1]}),
        ("positions has 3 tokens but slot_mapping has 2", {"positions": [1, 2, 3]}),
        ("cache_order must be 'nhd' or 'hnd', got 'thd'", {"cache_order": "thd"}),
        ("no elements of 8 bits", {"k_scale": 0.5}),
        ("must rotate the same elements", {"old_encoding": rw.encoding("default", head_dim=DIM, rotary_dim=16)}),
        ("is for head_dim 32", {"k_cache": np.zeros((PAGES, PAGE, HEADS, 16), np.float32)}),
        ("need k_scale", {"k_cache": np.zeros((PAGES, PAGE, HEADS, DIM), np.int8)}),
        ("read-only", {"k_cache": np.broadcast_to(np.float32(1), (PAGES, PAGE, HEADS, DIM))}),
        ("requires grad", {"k_cache": torch.zeros(PAGES, PAGE, HEADS, DIM, requires_grad=True)}),
    ],
)
def test_wrong_arguments_change_nothing(message, arguments):
    given = {"k_cache": np.ones((PAGES, PAGE, HEADS, DIM), np.float32), "old_encoding": OLD, "new_encoding": NEW}
    given.update({"slot_mapping": [1, 2], "new_offset": 4, **arguments})
    cache = given.pop("k_cache")
    before = reference.exact(cache)
    with pytest.raises(rw.Error, match=message):
        rw.rerotate_cache_(cache, given.pop("old_encoding"), given.pop("new_encoding"), **given)
    assert np.array_equal(reference.exact(cache), before)


def move(cache, scale, mapping, positions):
    return rw.rerotate_cache_(
        cache, OLD, NEW, slot_mapping=mapping, positions=positions, new_offset=2, cache_order="nhd", k_scale=scale
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8])
def test_compiled_without_a_graph_break(dtype):
    made = torch.randn(PAGES, PAGE, HEADS, DIM) * (20 if dtype == torch.int8 else 1)
    cache, again = (made.to(dtype) for _ in range(2))
    scales = [torch.full((PAGES, PAGE, HEADS), 0.01) if dtype == torch.int8 else None for _ in range(2)]
    mapping, positions = torch.from_numpy(MAPPING), torch.from_numpy(POSITIONS)
    move(cache, scales[0], mapping, positions)
    compiled(move)(again, scales[1], mapping, positions)
    assert torch.equal(cache.view(torch.uint8), again.view(torch.uint8))
    assert dtype != torch.int8 or torch.equal(*scales)


def test_operator():
    from ropewalk import _rerotate_cache_operator  # noqa: F401 - defines the operator

    cache, scales = torch.ones(PAGES, PAGE, HEADS, DIM).to(torch.int8), torch.ones(PAGES, PAGE, HEADS)
    arguments = (cache, scales, None, torch.from_numpy(MAPPING), *[None] * 4, torch.from_numpy(POSITIONS), None)
    torch.library.opcheck(torch.ops.ropewalk.rerotate_cache_.default, (*arguments, OLD.key, NEW.key))
