"""Caller-supplied cosines and sines, and agreement with the installed Transformers."""

import numpy as np
import pytest
import ropewalk as rw
import torch
from checks import assert_refused
from rope_reference import LAYOUTS, assert_close, exact, make, plain, rotate_exactly

ENCODING = rw.encoding("default", head_dim=32)
THETA = plain(32, 50.0)  # frequencies that no encoding of this file has


def table(rows, layout="half_split", columns=32):
    """Cosines and sines of the angles of THETA."""
    angle = np.arange(rows)[:, None] * THETA
    if columns == 32:
        angle = np.concatenate([angle, angle], 1) if layout == "half_split" else np.repeat(angle, 2, 1)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


@pytest.mark.parametrize("columns", [16, 32])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_positions_select_rows(layout, columns):
    encoding = rw.encoding("linear:3", head_dim=32, layout=layout)
    q, k = make("numpy", "float32", (2, 6, 4, 32), 1), make("numpy", "float32", (2, 6, 2, 32), 2)
    ids = np.array([[5, 0, 9, 2, 2, 1], [0, 1, 2, 3, 4, 5]])
    rotated = rw.rotate(q, k, encoding=encoding, positions=ids, table=table(10, layout, columns))
    for ours, x in zip(rotated, (q, k)):
        assert_close(ours, rotate_exactly(x, THETA, ids, layout))


@pytest.mark.parametrize("batch", [1, 2])
def test_one_row_per_token(batch):
    q = make("torch", "float32", (2, 6, 4, 32))
    cos, sin = (torch.from_numpy(x[None].repeat(batch, 0)) for x in table(6))
    assert_close(rw.rotate(q, encoding=ENCODING, table=(cos, sin)), rotate_exactly(q, THETA, np.arange(6)))


@pytest.mark.parametrize(
    ("type_name", "table_type"),
    [
        ("bfloat16", torch.bfloat16),
        *((name, torch.float16) for name in ("float32", "bfloat16", "float64")),
        *(("float64", dtype) for dtype in (torch.float32, torch.float64)),
    ],
)
def test_strided_tables_of_every_type(type_name, table_type):
    q = make("torch", type_name, (1, 6, 4, 32))
    both = torch.from_numpy(np.concatenate(table(6), 1)).to(table_type)
    ours = rw.rotate(q, encoding=ENCODING, table=(both[:, :32], both[:, 32:]))
    c, s = exact(both)[:, None, :16], exact(both)[:, None, 32:48]
    a, b = exact(q)[..., :16], exact(q)[..., 16:]
    assert_close(ours, np.concatenate([a * c - b * s, b * c + a * s], -1))


def unaligned(x):
    return np.frombuffer(b"x" + x.tobytes(), np.int8)[1:].view(x.dtype).reshape(x.shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, s: (c[:3], s[:3]), "position 3 lies outside the table of 3 rows"),
        (lambda c, s: (c[:, ::2], s[:, ::2]), r"cos float32 \[9, 16\] of strides \[32, 2\].*last stride 1"),
        (lambda c, s: (c[:, :20], s[:, :20]), "16 or 32 columns, got 20"),
        (lambda c, s: (c, s[:4]), r"same type, shape and strides, got cos .*\[9, 32\].* and sin .*\[4, 32\]"),
        (lambda c, s: (c.astype(np.float64), s.astype(np.float64)), "a table of f64 needs tensors of f64, got f32"),
        (lambda c, s: (c.astype(np.int32), s.astype(np.int32)), "cos int32.*expected float32"),
        (lambda c, s: (c, s.astype(np.float16)), "same type, shape and strides"),
        (lambda c, s: (c[None, :3], s[None, :3]), "3 rows for 4 tokens"),
        (lambda c, s: (np.stack([c] * 3), np.stack([s] * 3)), "3 batches for 1"),
        (lambda c, s: (c[0], s[0]), r"cos float32 \[32\]"),
        (lambda c, s: (unaligned(c), unaligned(s)), "not aligned"),
    ],
)
def test_errors_write_nothing(change, message):
    q = make("numpy", "float32", (4, 2, 32))
    assert_refused(message, lambda: rw.rotate_(q, encoding=ENCODING, table=change(*table(9))), q)


class CopyingPair:
    """A pair that returns a new array on each access and keeps no reference to it."""

    def __init__(self, members):
        self.members = members

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.members[index].copy()


class CopyingArray:
    """An array that exports a new copy of its memory on each call."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        return self.array.copy().__dlpack__(**options)


@pytest.mark.parametrize("make_table", [CopyingPair, lambda pair: [CopyingArray(x) for x in pair]])
def test_a_temporary_table_lives_until_the_call_ends(make_table):
    """The arrays are so large that the system takes their memory back when the last reference goes."""
    pair = np.full((1 << 20, 16), 0.6, np.float32), np.full((1 << 20, 16), 0.8, np.float32)
    q, ids = make("numpy", "float32", (3, 1, 32)), [0, 1 << 19, (1 << 20) - 1]
    rotated = rw.rotate(q, encoding=ENCODING, positions=ids, table=make_table(pair))
    np.testing.assert_array_equal(rotated, rw.rotate(q, encoding=ENCODING, positions=ids, table=pair))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(("missing", "name"), [(0, "cos"), (1, "sin")])
def test_a_table_needs_both_members(missing, name, requires_grad):
    pair = [torch.from_numpy(x) for x in table(4)]
    pair[missing] = None
    with pytest.raises(TypeError, match=f"ropewalk: {name} must be .*, got NoneType"):
        rw.rotate(torch.zeros(4, 2, 32, requires_grad=requires_grad), encoding=ENCODING, table=pair)


def llama(scaling):
    """Llama's configuration and rotary embedding in Transformers, and the function that applies it."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    shape = {"hidden_size": 4 * 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(**shape, rope_parameters={"rope_theta": 10000.0, **scaling})
    return config, LlamaRotaryEmbedding(config), apply_rotary_pos_emb


@pytest.mark.parametrize(
    ("scaling", "expression"),
    [({"rope_type": "default"}, "default"), ({"rope_type": "linear", "factor": 8.0}, "linear:8")],
)
def test_transformers(scaling, expression):
    config, embedding, apply = llama(scaling)
    encoding = rw.from_config(config)
    assert encoding == rw.encoding(expression, head_dim=128)
    np.testing.assert_allclose(encoding.inv_freq, embedding.inv_freq.double().numpy(), rtol=3e-7)
    q, k = make("torch", "float32", (1, 4, 4096, 128), 1), make("torch", "float32", (1, 2, 4096, 128), 2)
    ids = torch.arange(4096)[None]
    theirs = apply(q, k, *embedding(q, ids))
    for a, b, x in zip(rw.rotate(q, k, encoding=encoding, positions=ids, order="bhsd"), theirs, (q, k)):
        # Transformers rounds the angle to float32: 2.4e-4 radians at 4095, less where a factor divides it.
        error = (a - b).norm(dim=-1) / x.norm(dim=-1)
        assert error.max() < 3e-4 and error[:, :, :32].max() < 3e-6

    table = embedding(q, torch.tensor([[0, 1, 7, 4095, 100000], [5, 4, 3, 2, 1]]))
    # Rotation maps a pair (1, 0) to (cos, sin) and (0, 1) to (-sin, cos): each entry of the table appears unchanged.
    q = torch.zeros(2, 4, 5, 128)
    q[:, :2, :, :64] = 1
    q[:, 2:, :, 64:] = 1
    assert torch.equal(rw.rotate(q, encoding=encoding, table=table, order="bhsd"), apply(q, q, *table)[0])
    # For random vectors the result differs only by the rounding of the last addition.
    q, k = make("torch", "float32", (2, 4, 5, 128), 1), make("torch", "float32", (2, 2, 5, 128), 2)
    for a, b in zip(rw.rotate(q, k, encoding=encoding, table=table, order="bhsd"), apply(q, k, *table)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
