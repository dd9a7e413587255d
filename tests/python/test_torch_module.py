"""RotaryEmbedding: its arguments, its state and its orders of axes."""

import copy
import inspect
import pickle

import pytest
import ropewalk as rw
import torch
from torch_heads import DIM, ENCODING, IDS, compiled, heads


def test_module():
    module = rw.RotaryEmbedding(64, "linear:8", base=5e5, layout="interleaved")
    q, k = torch.randn(5, 4, 64, requires_grad=True), torch.randn(5, 2, 64)
    ids = torch.tensor([4, 4, 0, 1, 2])
    expected = rw.rotate(q, k, encoding=rw.encoding("linear:8", 64, 5e5, layout="interleaved"), positions=ids)
    for ours, plain in zip(module(q, k, ids), expected):
        assert torch.equal(ours, plain)
    assert torch.equal(module(q, offset=3), rw.rotate(q, encoding=module.encoding, offset=3))
    assert not module.state_dict() and '"linear:8", head_dim=64' in repr(module)
    assert "rotary_offset=8" in repr(rw.RotaryEmbedding(64, rotary_offset=8))
    assert torch.equal(rw.RotaryEmbedding(64, module.encoding)(q), module(q))
    with pytest.raises(rw.Error, match=r"has head_dim 64.*got head_dim 32"):
        rw.RotaryEmbedding(32, module.encoding)
    with pytest.raises(rw.Error, match=r"its own geometry, got head_dim 64 and \{'base': 10000\.0\}"):
        rw.RotaryEmbedding(64, module.encoding, base=10000.0)
    assert torch.equal(compiled(module)(q, k, ids)[0], expected[0])


def test_every_argument_of_rotate_is_one_of_the_module():
    """Explicit names, so that an unknown one is an error of Python, which names the function."""
    forward = inspect.signature(rw.RotaryEmbedding.forward).parameters
    made = inspect.signature(rw.RotaryEmbedding).parameters
    for parameters, function in ((forward, rw.rotate), (made, rw.encoding)):
        assert all(x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY) for x in parameters.values())
        assert inspect.signature(function).parameters.keys() - {"encoding"} <= parameters.keys()
    with pytest.raises(TypeError, match=r"RotaryEmbedding.*unexpected keyword argument 'bse'"):
        rw.RotaryEmbedding(DIM, bse=5e5)
    with pytest.raises(TypeError, match=r"forward\(\) got an unexpected keyword argument 'ofset'"):
        rw.RotaryEmbedding(DIM)(heads(), ofset=3)


def test_arguments_of_forward_reach_rotate():
    module, x = rw.RotaryEmbedding(DIM, ENCODING), heads()
    table = rw.encoding("linear:4", DIM).cos_sin(torch.arange(9))
    for arguments in (
        {"cu_seqlens": [0, 1, 4]},
        {"inverse": True, "positions": IDS},
        {"adjoint": True, "offset": 5},
        {"table": table, "threads": 1},
        {"out": torch.empty_like(x)},
    ):
        assert torch.equal(module(x, **arguments), rw.rotate(x, encoding=ENCODING, **arguments))


@pytest.mark.parametrize("order", ["thd", "bshd", "bhsd", "sbhd"])
def test_order_of_every_call(order):
    shape = {"thd": (3, 2), "bshd": (2, 3, 4), "bhsd": (2, 4, 3), "sbhd": (3, 2, 4)}[order]
    x = torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(4))
    module = rw.RotaryEmbedding(DIM, "linear:8", order=order)
    for other in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module)), compiled(module)):
        assert torch.equal(other(x, offset=7), rw.rotate(x, encoding=module.encoding, offset=7, order=order))
    assert repr(module).endswith(f', order="{order}")')
    one = torch.randn(5, 3, DIM)
    assert torch.equal(module(one, order="thd"), rw.rotate(one, encoding=module.encoding))
    if order != "thd":
        with pytest.raises(rw.Error, match=f"q .* has 3 axes, but the order '{order}' names 4"):
            module(one)


@pytest.mark.parametrize("order", ["bhds", "", "bshdd"])
def test_an_order_is_checked_when_the_module_is_made(order):
    with pytest.raises(rw.Error, match=f"order must be 'thd'.* got '{order}'"):
        rw.RotaryEmbedding(DIM, order=order)
    with pytest.raises(TypeError, match="order must be text, got int"):
        rw.RotaryEmbedding(DIM, order=4)


class OldRotary(torch.nn.Module):
    """A rotary embedding whose frequencies are in the state_dict, as in older releases of Transformers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("inv_freq", 10000.0 ** -(torch.arange(0, DIM, 2) / DIM))


class Attention(torch.nn.Module):
    def __init__(self, rotary):
        super().__init__()
        self.projection, self.rotary_emb = torch.nn.Linear(4, 4), rotary


@pytest.mark.parametrize("assign", [False, True])
def test_strict_loading_ignores_old_frequencies(assign):
    new, old = (torch.nn.Sequential(Attention(x), Attention(x)) for x in (rw.RotaryEmbedding(DIM), OldRotary()))
    assert not [name for name in new.state_dict() if "rotary" in name]
    saved = old.state_dict()
    assert "0.rotary_emb.inv_freq" in saved
    result = new.load_state_dict(saved, strict=True, assign=assign)
    assert not result.missing_keys and not result.unexpected_keys
    assert torch.equal(new[1].projection.weight, old[1].projection.weight) and "0.rotary_emb.inv_freq" in saved
    assert not rw.RotaryEmbedding(DIM).load_state_dict(OldRotary().state_dict()).unexpected_keys
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"0\.rotary_emb\.other"'):
        new.load_state_dict({**saved, "0.rotary_emb.other": torch.ones(1)})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"0\.inv_freq"'):
        new.load_state_dict({**saved, "0.inv_freq": torch.ones(1)})
