"""M-RoPE, with three positions per token, compared with Qwen2-VL (chunked) and Qwen3-VL (interleaved)."""

import functools

import numpy as np
import pytest
import ropewalk as rw
import torch
from checks import assert_refused
from rope_reference import LIBRARIES, TYPES, assert_close, exact, make, plain
from transformers import Qwen2VLTextConfig, Qwen3VLTextConfig
from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen2
from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen3

HEAD_DIM, TOKENS, BATCH, Q_HEADS, KV_HEADS = 128, 50, 2, 4, 2


def model_of(config_class, embedding_class, module, base, sections, interleaved):
    """The model's rotary embedding, the function that applies it, and the encoding."""
    rope = {"rope_type": "default", "rope_theta": base, "mrope_section": sections}
    shape = {"hidden_size": Q_HEADS * HEAD_DIM, "num_attention_heads": Q_HEADS, "num_key_value_heads": KV_HEADS}
    if interleaved:
        rope["mrope_interleaved"] = True
    config = config_class(**shape, head_dim=HEAD_DIM, rope_parameters=rope)
    encoding = rw.encoding(rw.MRope(sections, interleaved=interleaved), HEAD_DIM, base=base)
    return embedding_class(config), module.apply_rotary_pos_emb, encoding


def qwen2_vl(*sections):
    return model_of(Qwen2VLTextConfig, qwen2.Qwen2VLRotaryEmbedding, qwen2, 1e6, list(sections), False)


def qwen3_vl(*sections):
    return model_of(Qwen3VLTextConfig, qwen3.Qwen3VLTextRotaryEmbedding, qwen3, 5e6, list(sections), True)


MODELS = {
    "qwen2_vl": lambda: qwen2_vl(16, 24, 24),
    "qwen3_vl": lambda: qwen3_vl(24, 20, 20),
    "chunked 8 8 48": lambda: qwen2_vl(8, 8, 48),
    "chunked 60 1 3": lambda: qwen2_vl(60, 1, 3),
    "interleaved 40 4 20": lambda: qwen3_vl(40, 4, 20),
}
# Float32 angles of up to 4096 radians have a spacing of 2.4e-4 and are rounded twice.
FLOAT32_ANGLE = 4e-4


def random_positions(limit=4096, shape=(3, BATCH, TOKENS)):
    return torch.from_numpy(np.random.default_rng(11).integers(0, limit, shape))


def image_positions():
    """[3, batch, tokens]: text, an image whose patches share a time, and more text. Batch rows differ."""
    t = np.concatenate([np.arange(10), np.full(30, 10), np.arange(10) + 20])
    h = np.concatenate([np.arange(10), 10 + np.arange(30) // 6, np.arange(10) + 20])
    w = np.concatenate([np.arange(10), 10 + np.arange(30) % 6, np.arange(10) + 20])
    return torch.from_numpy(np.stack([t, h, w])[:, None] + 1000 * np.arange(BATCH)[None, :, None])


@pytest.mark.parametrize("model", MODELS)
def test_cos_sin_equal_those_of_the_model(model):
    embedding, _, encoding = MODELS[model]()
    for ids in (image_positions(), random_positions()):
        expected = embedding(torch.zeros(1), ids)
        for row in range(BATCH):
            ours = encoding.cos_sin(ids[:, row], elementwise=True)
            for x, theirs in zip(ours, expected):
                torch.testing.assert_close(x, theirs[row], rtol=0, atol=FLOAT32_ANGLE)
        # The test detects exchanged axes.
        exchanged = encoding.cos_sin(ids[:, 1].flip(0), elementwise=True)
        assert (exchanged[0] - expected[0][1]).abs().max() > 0.1


@pytest.mark.parametrize("type_name", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_rotation_equals_that_of_the_model(model, type_name):
    embedding, apply, encoding = MODELS[model]()
    ids = random_positions()
    q = make("torch", type_name, (BATCH, Q_HEADS, TOKENS, HEAD_DIM), 1)
    k = make("torch", type_name, (BATCH, KV_HEADS, TOKENS, HEAD_DIM), 2)
    # In float32, so that only the error of the angle and one rounding of the result remain.
    cos, sin = embedding(torch.zeros(1), ids)
    expected = apply(q.float(), k.float(), cos, sin)
    rw.rotate_(q, k, encoding=encoding, positions=ids, order="bhsd")
    tolerance = 2**-8 if type_name == "bfloat16" else 0
    for ours, theirs in zip((q, k), expected):
        torch.testing.assert_close(ours.float(), theirs, rtol=tolerance, atol=8 * FLOAT32_ANGLE)


def exactly(x, ids):
    """x [batch, tokens, heads, 32] in float64 for the sections [4, 6, 6]; ids [3, batch, tokens]."""
    axes = [0] * 4 + [1] * 6 + [2] * 6
    angle = np.stack([ids[axis] * theta for theta, axis in zip(plain(32, 1e6), axes)], axis=-1)[:, :, None]
    a, b = np.split(exact(x), 2, axis=-1)
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("ids_type", [np.int32, np.int64])
def test_rotation_is_exact(library, type_name, ids_type):
    encoding = rw.encoding("mrope:[4,6,6]", head_dim=32, base=1e6)
    ids = np.random.default_rng(5).integers(-100000, 100000, (3, 2, 7)).astype(ids_type)
    q, k = make(library, type_name, (2, 7, 3, 32), 3), make(library, type_name, (2, 7, 1, 32), 4)
    rotated = rw.rotate(q, k, encoding=encoding, positions=ids)
    for ours, x in zip(rotated, (q, k)):
        assert_close(ours, exactly(x, ids.astype(np.float64)))
    # One row for the whole batch, and ids whose last stride is not 1.
    shared = rw.rotate(q, encoding=encoding, positions=ids[:, :1])
    assert_close(shared, exactly(q, np.repeat(ids[:, :1], 2, axis=1).astype(np.float64)))
    strided = np.ascontiguousarray(ids.transpose(2, 1, 0)).transpose(2, 1, 0)
    np.testing.assert_array_equal(exact(rw.rotate(q, encoding=encoding, positions=strided)), exact(rotated[0]))


def test_equal_axes_give_the_plain_rotation():
    q = make("torch", "bfloat16", (2, 7, 3, 32))
    encoding = rw.encoding("mrope:[4,6,6]", head_dim=32)
    expected = rw.rotate(q, encoding=rw.encoding("default", head_dim=32), offset=100)
    ids = torch.arange(100, 107)
    for positions in (ids, ids.expand(3, 1, 7), ids.expand(3, 2, 7)):
        assert torch.equal(rw.rotate(q, encoding=encoding, positions=positions), expected)
    assert torch.equal(rw.rotate(q, encoding=encoding, offset=100), expected)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_text_ids_of_a_batch(library, batch):
    """Ids [batch, tokens] and [1, batch, tokens] are the same positions for t, h and w, whatever the batch is."""
    encoding, text = rw.encoding("mrope:[4,6,6]", head_dim=32), rw.encoding("default", head_dim=32)
    q, k = make(library, "float32", (batch, 7, 3, 32), 3), make(library, "float32", (batch, 7, 1, 32), 4)
    ids = np.random.default_rng(batch).integers(0, 1000, (batch, 7))
    expected = rw.rotate(q, k, encoding=text, positions=ids)
    for positions in [ids[None]] if batch == 3 else [ids[None], ids]:
        for ours, plainly in zip(rw.rotate(q, k, encoding=encoding, positions=positions), expected):
            np.testing.assert_array_equal(exact(ours), exact(plainly))
    if batch == 3:
        message = (
            r"positions int64 \[3, 7\].*could be t, h and w or a batch of 3.*positions\[:, None\].*positions\[None\]"
        )
        assert_refused(message, lambda: rw.rotate(q, k, encoding=encoding, positions=ids))
    one_row = rw.rotate(q, encoding=encoding, positions=ids[:1])
    np.testing.assert_array_equal(exact(one_row), exact(rw.rotate(q, encoding=text, positions=ids[:1])))


def test_two_axes_of_ids_mean_axes_only_without_a_batch():
    encoding, ids = rw.encoding("mrope:[4,6,6]", head_dim=32), np.random.default_rng(6).integers(0, 1000, (3, 7))
    packed = make("torch", "float32", (7, 3, 32))
    expected = rw.rotate(packed, encoding=encoding, positions=ids)
    assert not torch.equal(expected, rw.rotate(packed, encoding=encoding, positions=ids[0]))
    views = {
        "bshd": lambda x: x[None],
        "sbhd": lambda x: x[:, None],
        "bhsd": lambda x: x.transpose(0, 1)[None],
    }
    for order, view in views.items():
        x = view(packed)
        rotate_ = functools.partial(rw.rotate_, x, encoding=encoding, order=order)
        assert_refused("could be t, h and w or a batch of 3", functools.partial(rotate_, positions=ids), x)
        assert torch.equal(rw.rotate(x, encoding=encoding, positions=ids[:, None], order=order), view(expected))
    one = rw.rotate(packed, encoding=encoding, positions=ids[:1])
    assert torch.equal(one, rw.rotate(packed, encoding=encoding, positions=ids[0]))


def test_rerotate_between_sections():
    raw = make("torch", "float32", (2, 7, 3, 32))
    old, new = rw.encoding("mrope:[4,6,6]", head_dim=32), rw.encoding("mrope:[6,5,5],interleaved=true", head_dim=32)
    ids, other = random_positions(1000, (2, 3, 2, 7))
    cached = rw.rotate(raw, encoding=old, positions=ids)
    assert rw.rerotate_(cached, old, new, positions=ids, new_positions=other) is cached
    torch.testing.assert_close(cached, rw.rotate(raw, encoding=new, positions=other), rtol=0, atol=3e-6)


@pytest.mark.parametrize(
    ("policy", "shape", "message"),
    [
        ("default", (3, 1, 4), r"positions int64 \[3, 1, 4\]"),
        ("xpos", (3, 1, 4), r"expected \[tokens\] or \[batch, tokens\]"),
        ("randomized:64", (3, 1, 4), r"positions int64 \[3, 1, 4\]"),
        ("mrope:[4,6,6]", (2, 4), r"positions int64 \[2, 4\].*\[3, tokens\]"),
        ("mrope:[4,6,6]", (4, 1, 4), r"positions int64 \[4, 1, 4\].*\[1 or 3, batch, tokens\]"),
        ("mrope:[4,6,6]", (3, 2, 4), "2 rows for a batch of 1"),
        ("mrope:[4,6,6]", (3, 3), "3 entries for 4 tokens"),
        ("mrope:[4,6,6]", (1, 3, 1, 4), r"positions int64 \[1, 3, 1, 4\]"),
    ],
)
def test_wrong_positions_write_nothing(policy, shape, message):
    q, encoding = make("numpy", "float32", (4, 2, 32)), rw.encoding(policy, head_dim=32)
    assert_refused(message, lambda: rw.rotate_(q, encoding=encoding, positions=np.zeros(shape, np.int64)), q)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("mrope:[16,24,24]|xpos", "magnitudes"),
        ("mrope:[16,24,24]|randomized:64", "drawn positions"),
        ("mrope:[16,24]", "2 entries, expected 3"),
        ("mrope:[16,24,23]", "16, 24 and 23 must sum to the 64 pairs"),
    ],
)
def test_wrong_sections(policy, message):
    with pytest.raises(rw.Error, match=message):
        rw.encoding(policy, head_dim=128)
