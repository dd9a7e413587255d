"""ONNX models from torch.onnx.export, run by onnxruntime."""

import collections

import numpy as np
import pytest
import ropewalk as rw
import torch
from rope_reference import plain, rotate_exactly

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

DIM, FAR = 8, 2**31 - 1
ENCODINGS = {
    "half_split": rw.encoding("default", DIM),
    "interleaved": rw.encoding("default", DIM, layout="interleaved"),
    "part": rw.encoding("default", DIM, rotary_dim=4, rotary_offset=2),
    "yarn": rw.encoding("yarn:8,original_length=64", DIM),
    "xpos": rw.encoding("xpos:64", DIM),
    "mrope": rw.encoding("mrope:[1,1,2]", DIM),
}


def export(model, inputs, shapes=None, optimize=False):
    """Return a function that runs the ONNX model of a module, and the number of its nodes by operator."""
    options = {"dynamic_shapes": shapes, "optimize": optimize, "dynamo": True, "verbose": False}
    program = torch.onnx.export(model.eval(), inputs, **options)
    assert {node.domain for node in program.model.graph} == {""}, "operators of other domains"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)
    names = [node.name for node in session.get_inputs()]

    def run(*inputs):
        return session.run(None, {name: x.numpy() for name, x in zip(names, inputs)})

    return run, collections.Counter(node.op_type for node in program.model.graph)


class Variants(torch.nn.Module):
    """Every kind of call, in one model because an export takes seconds."""

    def forward(self, q, k, ids, rows, starts):
        for encoding in ENCODINGS.values():
            yield rw.rotate(q, encoding=encoding, positions=ids)
        # A symbolic offset, as for the length of a cache.
        yield from rw.rotate(q, k, encoding=ENCODINGS["xpos"], offset=3 * q.shape[1], inverse=True)
        encoding = ENCODINGS["half_split"]
        bhsd, sbhd = q.transpose(1, 2), q.transpose(0, 1)
        yield rw.rotate(bhsd, encoding=encoding, positions=rows, order="bhsd").transpose(1, 2)
        yield rw.rotate(sbhd, encoding=encoding, positions=rows.int(), order="sbhd").transpose(0, 1)
        yield rw.rotate(q[0], encoding=encoding, cu_seqlens=starts)
        yield rw.rotate(q[0], encoding=encoding, cu_seqlens=starts, offset=starts[1:] * 2)
        yield rw.rotate(q, encoding=ENCODINGS["mrope"], positions=torch.stack((rows, rows + 1, 2 * rows)))
        yield rw.rotate(
            q, encoding=encoding, table=(ids[:, None].expand(-1, DIM).cos(), ids[:, None].expand(-1, DIM).sin())
        )
        yield rw.rotate_(q * 2, encoding=encoding)
        yield rw.rotate(q.half(), encoding=encoding).float()
        yield rw.rotate(q.bfloat16(), encoding=encoding).float()


class AsTuple(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        return tuple(self.model(*inputs))


def variants_input(batch, tokens):
    torch.manual_seed(tokens)
    q, k = torch.randn(batch, tokens, 4, DIM), torch.randn(batch, tokens, 2, DIM)
    return q, k, torch.arange(tokens) * 3, torch.randint(0, 300, (batch, tokens)), torch.tensor([0, 3, tokens])


@pytest.mark.filterwarnings("ignore")
def test_every_kind_of_call(one_thread):
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    rows = {0: batch, 1: tokens}
    shapes = ((rows, rows, {0: tokens}, rows, {}),)
    other = variants_input(3, 11)
    run, _ = export(AsTuple(Variants()), variants_input(2, 7), shapes)
    outputs, expected = run(*other), list(Variants()(*other))
    assert len(outputs) == len(expected) == 17
    for ours, theirs in zip(outputs, expected):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-6, atol=2e-6)


class Rotation(torch.nn.Module):
    def forward(self, q, k, ids):
        return rw.rotate(q, k, encoding=ENCODINGS["half_split"], positions=ids)


@pytest.mark.filterwarnings("ignore")
def test_positions_up_to_2_to_the_31(one_thread):
    """No table limits the positions. The reference is exact below about 2^20; the kernel is compared beyond."""
    tokens, ids = torch.export.Dim("tokens"), torch.export.Dim("ids")
    q, k = torch.randn(9, 4, DIM), torch.randn(9, 2, DIM)
    near, far = torch.randint(-(2**18), 2**18, (9,)), torch.tensor([FAR, -FAR, 2**30, 5, -1, 0, 123456789, 7, FAR - 1])
    shapes = {0: tokens}, {0: tokens}, {0: ids}
    run, nodes = export(Rotation(), (q[:5], k[:5], near[:5]), shapes, optimize=True)
    for x, ours in zip((q, k), run(q, k, near)):
        np.testing.assert_allclose(ours, rotate_exactly(x, plain(DIM), near), rtol=0, atol=2e-6)
    for ours, theirs in zip(run(q, k, far), Rotation()(q, k, far)):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=2e-6)
    assert nodes["Cos"] == nodes["Sin"] == 1  # queries and keys share them


@pytest.mark.filterwarnings("ignore")
def test_positions_outside_a_table_are_refused(one_thread):
    """A negative position does not count from the end."""

    class Table(torch.nn.Module):
        def forward(self, q, ids, table):
            return rw.rotate(q, encoding=ENCODINGS["half_split"], positions=ids, table=(table, table))

    q, ids, table = torch.randn(5, 4, DIM), torch.arange(5), torch.randn(9, DIM)
    run, _ = export(Table(), (q, ids, table))
    run(q, ids + 4, table)
    for wrong in (ids - 1, ids + 5):
        with pytest.raises(Exception, match="indices element out of data bounds"):
            run(q, wrong, table)


@pytest.mark.parametrize("rope", ["llama3", "dynamic"])
@pytest.mark.filterwarnings("ignore")
def test_a_patched_model(rope, one_thread):
    from tiny_model import IDS, build

    model = rw.patch(build(rope=rope, num_hidden_layers=2 if rope == "llama3" else 1))

    class Logits(torch.nn.Module):
        def forward(self, ids, mask):
            return model(ids, attention_mask=mask, use_cache=False).logits

    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", min=2, max=128)
    shapes = {0: batch, 1: tokens}, {0: batch, 1: tokens}
    mask = torch.ones_like(IDS)
    mask[0, :3] = 0  # left padding
    inputs = [(IDS[:, :n], mask[:, :n]) for n in (20, 5, 40)]
    run, nodes = export(Logits(), inputs[0], shapes, optimize=rope == "llama3")
    for ids, padding in inputs:
        (ours,) = run(ids, padding)
        with torch.no_grad():
            expected = Logits()(ids, padding).numpy()
        np.testing.assert_allclose(ours[padding.numpy() == 1], expected[padding.numpy() == 1], rtol=0, atol=2e-5)
    if rope == "llama3":
        assert nodes["Cos"] == nodes["Sin"] == 1, "layers do not share cosines and sines"


@pytest.mark.filterwarnings("ignore")
def test_errors_of_an_export_name_the_cause():
    class Random(torch.nn.Module):
        def forward(self, q):
            return rw.rotate(q, encoding=rw.encoding("randomized:64", DIM))

    with pytest.raises(Exception, match="'randomized:64' draws random positions") as problem:
        torch.onnx.export(Random().eval(), (torch.randn(5, 2, DIM),), dynamo=True, verbose=False)
    assert "ropewalk" in str(problem.value)
