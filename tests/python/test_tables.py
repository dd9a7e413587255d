"""Foreign cosines and sines, and agreement with an installed Transformers."""

import numpy as np
import pytest
import ropewalk as rw
import torch
from rope_reference import assert_close, exact, make, plain, turn

ENCODING = rw.encoding("default", head_dim=32)
LAYOUTS = ["half_split", "interleaved"]


def table(rows, layout="half_split", columns=32):
    """Cosines and sines of an angle that no encoding here has."""
    angle = np.arange(rows)[:, None] * plain(32, 50.0)
    if columns == 32:
        angle = np.concatenate([angle, angle], 1) if layout == "half_split" else np.repeat(angle, 2, 1)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


@pytest.mark.parametrize("columns", [16, 32])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_by_index(layout, columns):
    encoding = rw.encoding("linear:3", head_dim=32, layout=layout)
    q, k = make("numpy", "float32", (2, 6, 4, 32), 1), make("numpy", "float32", (2, 6, 2, 32), 2)
    ids = np.array([[5, 0, 9, 2, 2, 1], [0, 1, 2, 3, 4, 5]])
    turned = rw.rotate(q, k, encoding=encoding, positions=ids, table=table(10, layout, columns))
    for ours, x in zip(turned, (q, k)):
        assert_close(ours, turn(x, plain(32, 50.0), ids, layout), "float32")


@pytest.mark.parametrize("batch", [1, 2])
def test_rows_by_token(batch):
    q = make("torch", "float32", (2, 6, 4, 32))
    cos, sin = (torch.from_numpy(x[None].repeat(batch, 0)) for x in table(6))
    expected = turn(exact(q), plain(32, 50.0), np.arange(6)[None])
    assert_close(exact(rw.rotate(q, encoding=ENCODING, table=(cos, sin))), expected, "float32")


def test_bfloat16_and_strided_table():
    q = make("torch", "bfloat16", (1, 6, 4, 32))
    both = torch.from_numpy(np.concatenate(table(6), 1)).bfloat16()
    turned = rw.rotate(q, encoding=ENCODING, table=(both[:, :32], both[:, 32:]))
    c, s = exact(both)[:, None, :16], exact(both)[:, None, 32:48]
    a, b = exact(q)[..., :16], exact(q)[..., 16:]
    assert_close(exact(turned), np.concatenate([a * c - b * s, b * c + a * s], -1), "bfloat16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, s: (c[:3], s[:3]), "position 3 lies outside the table of 3 rows"),
        (lambda c, s: (c[:, ::2], s[:, ::2]), r"cos float32 \[9, 16\] of strides \[32, 2\].*last stride 1"),
        (lambda c, s: (c[:, :20], s[:, :20]), "16 or 32 columns, got 20"),
        (lambda c, s: (c, s[:4]), r"same type, shape and strides, got cos .*\[9, 32\].* and sin .*\[4, 32\]"),
        (lambda c, s: (c.astype(np.float64), s.astype(np.float64)), "cos float64.*expected float32 or bfloat16"),
        (lambda c, s: (c[None, :3], s[None, :3]), "3 rows for 4 tokens"),
        (lambda c, s: (np.stack([c] * 3), np.stack([s] * 3)), "3 batches for 1"),
        (lambda c, s: c, "table must be a pair .* got numpy.ndarray"),
        (lambda c, s: (c[0], s[0]), r"cos float32 \[32\]"),
        (
            lambda c, s: tuple(
                np.frombuffer(b"x" + x.tobytes(), np.int8)[1:].view(np.float32).reshape(9, 32) for x in (c, s)
            ),
            "not aligned",
        ),
    ],
)
def test_errors_write_nothing(change, message):
    q = make("numpy", "float32", (4, 2, 32))
    before = q.copy()
    with pytest.raises(rw.Error, match=message):
        rw.rotate_(q, encoding=ENCODING, table=change(*table(9)))
    np.testing.assert_array_equal(q, before)


class MakesItsArrays:
    """A pair whose members nobody else keeps."""

    def __init__(self, members):
        self.members = members

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.members[index].copy()


class MakesItsMemory:
    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        return self.array.copy().__dlpack__(**options)


@pytest.mark.parametrize("give", [MakesItsArrays, lambda pair: [MakesItsMemory(one) for one in pair]])
def test_a_table_that_nobody_else_keeps(give):
    """Of a size that goes back to the system as soon as nobody has it."""
    pair = np.full((1 << 20, 16), 0.6, np.float32), np.full((1 << 20, 16), 0.8, np.float32)
    q, ids = make("numpy", "float32", (3, 1, 32)), [0, 1 << 19, (1 << 20) - 1]
    turned = rw.rotate(q, encoding=ENCODING, positions=ids, table=give(pair))
    np.testing.assert_array_equal(turned, rw.rotate(q, encoding=ENCODING, positions=ids, table=pair))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(("missing", "name"), [(0, "cos"), (1, "sin")])
def test_a_pair_without_a_member_is_no_missing_table(missing, name, requires_grad):
    pair = [torch.from_numpy(one) for one in table(4)]
    pair[missing] = None
    with pytest.raises(TypeError, match=f"ropewalk: {name} must be .*, got NoneType"):
        rw.rotate(torch.zeros(4, 2, 32, requires_grad=requires_grad), encoding=ENCODING, table=pair)


def llama(scaling):
    """The rotary embedding of Transformers' own Llama, and the function that applies it."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    config = transformers.LlamaConfig(
        hidden_size=4 * 128,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_theta": 10000.0, **scaling},
    )
    return config, LlamaRotaryEmbedding(config), apply_rotary_pos_emb


SCALINGS = [({"rope_type": "default"}, "default"), ({"rope_type": "linear", "factor": 8.0}, "linear:8")]


@pytest.mark.parametrize(("scaling", "expression"), SCALINGS)
def test_output_of_transformers(scaling, expression):
    config, embedding, apply = llama(scaling)
    encoding = rw.from_config(config)
    assert encoding == rw.encoding(expression, head_dim=128)
    np.testing.assert_allclose(encoding.inv_freq, embedding.inv_freq.double().numpy(), rtol=3e-7)
    q, k = make("torch", "float32", (1, 4, 4096, 128), 1), make("torch", "float32", (1, 2, 4096, 128), 2)
    ids = torch.arange(4096)[None]
    theirs = apply(q, k, *embedding(q, ids))
    ours = rw.rotate(q, k, encoding=encoding, positions=ids, order="bhsd")
    for a, b, x in zip(ours, theirs, (q, k)):
        # Theirs rounds the angle to float32: 2.4e-4 radians at 4095, less where a factor divides it.
        assert ((a - b).norm(dim=-1) / x.norm(dim=-1)).max() < 3e-4
        near = slice(0, 32)
        assert ((a - b)[:, :, near].norm(dim=-1) / x[:, :, near].norm(dim=-1)).max() < 3e-6


@pytest.mark.parametrize(("scaling", "expression"), SCALINGS)
def test_table_of_transformers_is_used_exactly(scaling, expression):
    _, embedding, apply = llama(scaling)
    encoding = rw.encoding(expression, head_dim=128)
    ids = torch.tensor([[0, 1, 7, 4095, 100000], [5, 4, 3, 2, 1]])
    # A pair (1, 0) turns into (cos, sin), a pair (0, 1) into (-sin, cos): every entry of the table comes out as it is.
    q = torch.zeros(2, 4, 5, 128)
    q[:, :2, :, :64] = 1
    q[:, 2:, :, 64:] = 1
    cos, sin = embedding(q, ids)
    ours = rw.rotate(q, encoding=encoding, table=(cos, sin), order="bhsd")
    assert torch.equal(ours, apply(q, q, cos, sin)[0])
    # And of random vectors the result differs by the rounding of the last addition alone.
    q, k = make("torch", "float32", (2, 4, 5, 128), 1), make("torch", "float32", (2, 2, 5, 128), 2)
    for a, b in zip(rw.rotate(q, k, encoding=encoding, table=(cos, sin), order="bhsd"), apply(q, k, cos, sin)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
