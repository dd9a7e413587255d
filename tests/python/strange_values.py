"""Values that no argument expects, and every public callable with valid arguments, of which tests replace one."""

import decimal
import fractions
import functools
from typing import NamedTuple

import numpy as np
import ropewalk as rw
import torch


class OwnError(Exception):
    """An exception of the caller, which may pass through the library."""


class Raising:
    def __index__(self):
        raise OwnError

    __float__ = __len__ = __fspath__ = __iter__ = __index__

    def __repr__(self):
        raise OwnError


class Unprintable:
    def __repr__(self):
        return "\ud800"


def deep(levels):
    inner = []
    for _ in range(levels):
        inner = [inner]
    return inner


def cyclic():
    inner = []
    inner += [inner, inner]
    return inner


HUGE = 10**5000  # more digits than Python writes
NUMBERS = {
    "huge": HUGE,
    "minus huge": -HUGE,
    "2**63": 2**63,
    "-2**63": -(2**63),
    "2**62": 2**62,
    "zero": 0,
    "minus one": -1,
    "nan": float("nan"),
    "infinity": float("inf"),
    "minus infinity": -float("inf"),
    "1e300": 1e300,
    "1e-300": 1e-300,
    "half": 0.5,
    "decimal": decimal.Decimal("1.5"),
    "signalling nan": decimal.Decimal("snan"),
    "fraction": fractions.Fraction(3, 2),
    "huge fraction": fractions.Fraction(HUGE, 3),
}
BOOLEANS = {
    "true": True,
    "numpy true": np.True_,
    "array of bool": np.array(True),
    "tensor of bool": torch.tensor(True),
    "tensor of one bool": torch.tensor([True]),
}
COMPLEX = {
    "complex": 1j,
    "complex64": np.complex64(1),
    "complex128": np.complex128(1),
    "clongdouble": np.clongdouble(1),
    "array of complex": np.array(1j),
    "tensor of complex": torch.tensor(1j),
}
MASKED = {
    "masked": np.ma.masked,
    "masked number": np.ma.array(3, mask=True),
    "masked array": np.ma.array([1, 2, 3, 4], mask=[0, 1, 0, 0]),
    "list of masked": [np.ma.array([1, 2, 3, 4], mask=[0, 1, 0, 0])],
    "list with masked": [1, 2, np.ma.masked, 4],
}
KINDS = [kind for kind in dict.fromkeys(np.sctypeDict.values()) if not issubclass(kind, np.bool_)]
OTHERS = {
    **{f"array of {kind.__name__}": np.zeros((), kind) for kind in KINDS},
    "surrogate": "\ud800",
    "zero byte": "a\0b",
    "digit": "8",
    "empty text": "",
    "long text": "x" * 100_000,
    "bytes": b"8",
    "bytearray": bytearray(8),
    "memoryview": memoryview(bytes(32)),
    "none": None,
    "raising": Raising(),
    "unprintable": Unprintable(),
    "list": [],
    "tuple": (),
    "rows of two lengths": [[1], [2, 3]],
    "deep list": deep(100_000),
    "cyclic list": cyclic(),
    "dict": {},
    "list of text": ["a"],
    "list of surrogates": ["\ud800"],
    "list of raising": [Raising()] * 4,
    "set": {1},
    "range": range(3),
    "ellipsis": ...,
    "class": int,
    "function": len,
    "array of objects": np.array([object()], dtype=object),
    "array of text": np.array(["a"]),
    "array of structs": np.zeros(4, [("a", "i4")]),
    "tensor": torch.ones(4),
    "meta tensor": torch.ones(4, device="meta"),
    "sparse tensor": torch.ones(4).to_sparse(),
    "policy": rw.Linear(2),
    "encoding": rw.encoding("default", head_dim=8),
}
VALUES = {**NUMBERS, **BOOLEANS, **COMPLEX, **MASKED, **OTHERS}


class Entry(NamedTuple):
    function: object
    arguments: dict  # by name, all valid; a callable makes its argument for each call

    def call(self, name, value):
        made = {
            other: make() if isinstance(make, functools.partial) else make for other, make in self.arguments.items()
        }
        return self.function(**{**made, name: value})


ENCODING = rw.encoding("default", head_dim=8)
CONFIG = {"head_dim": 8, "rope_theta": 1e4}
array = functools.partial(np.zeros, (4, 2, 8), np.float32)
tensor = functools.partial(torch.zeros, 4, 2, 8)
ROTATE = {
    **{"q": array, "k": array, "encoding": ENCODING, "positions": None, "offset": 0, "cu_seqlens": None},
    **{"padded_tail": False, "k_positions": None, "k_offset": None, "order": None, "inverse": False},
    **{"adjoint": False, "table": None, "threads": None},
}
SLOTS = {
    **{"slot_mapping": [0, 1, 2, 3], "page_table": None, "kv_indptr": None, "kv_indices": None},
    **{"last_page_len": None, "entries": None},
}
PLACES = {"positions": None, "offset": 0, "cu_seqlens": None, "order": None, "table": None, "threads": None}
cache = functools.partial(np.zeros, (2, 4, 2, 8), np.float32)
NORMS = {
    **{"q": array, "k": array, "encoding": ENCODING, "q_weight": np.ones(8, np.float32)},
    **{"k_weight": np.ones(8, np.float32), "epsilon": 1e-6, "one_plus": False, **PLACES},
}
APPEND = {
    **{"q": array, "k": array, "v": array, "encoding": ENCODING, "k_cache": cache, "v_cache": cache, **SLOTS},
    **{**PLACES, "cache_order": "nhd", "cache_dtype": None, "k_scale": None, "v_scale": None},
}
MLA = {
    **{"q_rope": array, "k_rope": functools.partial(np.zeros, (4, 8), np.float32)},
    **{"latent": functools.partial(np.zeros, (4, 16), np.float32), "encoding": ENCODING},
    **{"cache": functools.partial(np.zeros, (2, 4, 24), np.float32), **SLOTS, **PLACES},
    **{"cache_dtype": None, "scale": None},
}
GEOMETRY = {
    **{"head_dim": 8, "base": 1e4, "rotary_dim": None, "rotary_offset": 0, "layout": "half_split"},
    **{"sequence_length": None},
}
HEADS = functools.partial(torch.zeros, 1, 2, 4, 8)


def with_key(**keys):
    return rw.from_config({**CONFIG, **keys})


def parameters(kind):
    example = kind.example()
    return {name: getattr(example, name) for name, value in vars(kind).items() if isinstance(value, property)}


def no_model(model=None, policy=None):
    return rw.patch(torch.nn.Linear(1, 1) if model is None else model, policy)


def entries(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "head_dim": 8, "rope_theta": 10000.0}')
    gradients = functools.partial(torch.zeros, 4, 2, 8, requires_grad=True)
    module = rw.RotaryEmbedding(8)
    found = {
        "rotate_": Entry(rw.rotate_, ROTATE),
        "rotate": Entry(rw.rotate, {**ROTATE, "out": None}),
        "rotate of tensors": Entry(rw.rotate, {**ROTATE, "q": tensor, "k": tensor, "out": None}),
        "rotate_ of tensors": Entry(rw.rotate_, {**ROTATE, "q": tensor, "k": tensor}),
        "rotate with gradients": Entry(rw.rotate, {**ROTATE, "q": gradients, "k": gradients, "out": None}),
        "rotate of sequences": Entry(
            rw.rotate, {**ROTATE, "cu_seqlens": [0, 2, 4], "offset": [1, 2], "padded_tail": True}
        ),
        "rotate of keys apart": Entry(rw.rotate, {**ROTATE, "k_offset": 2}),
        "rotate of packed": Entry(
            rw.rotate,
            {**ROTATE, "q": functools.partial(np.zeros, (4, 3, 2, 8), np.float32), "k": None, "order": "t3hd"},
        ),
        "cos_sin_cache": Entry(
            rw.cos_sin_cache, {"encoding": ENCODING, "length": 4, "dtype": "float32", "device": "cpu"}
        ),
        "apply_cos_sin_cache_": Entry(
            rw.apply_cos_sin_cache_,
            {
                **{"positions": functools.partial(np.arange, 4), "query": array, "key": array, "head_size": 8},
                **{"cos_sin_cache": functools.partial(np.ones, (4, 8), np.float32), "is_neox": True},
            },
        ),
        "rotate_ by one table": Entry(
            rw.rotate_,
            {**ROTATE, "positions": [0, 1, 2, 3], "table": functools.partial(np.ones, (4, 8), np.float32)},
        ),
        "rotate of rows with offsets": Entry(rw.rotate, {**ROTATE, "cu_seqlens": [0, 2, 4], "offset": [1, 2]}),
        "rerotate_": Entry(
            rw.rerotate_,
            {
                **{"k": array, "old_encoding": ENCODING, "new_encoding": ENCODING, "positions": None, "offset": 0},
                **{"new_positions": None, "new_offset": None, "order": None, "threads": None},
            },
        ),
        "append": Entry(rw.append, APPEND),
        "append of tensors": Entry(rw.append, {**APPEND, "q": tensor, "k": tensor, "v": tensor}),
        "append_mla": Entry(rw.append_mla, MLA),
        "norm_rotate_": Entry(rw.norm_rotate_, NORMS),
        "norm_rotate": Entry(rw.norm_rotate, NORMS),
        "fused": Entry(rw.fused, {**NORMS, **APPEND, "q_scale": None, "dtype": "float16", "out": None}),
        "split_qkv": Entry(
            rw.split_qkv,
            {
                **{"packed": functools.partial(np.zeros, (4, 8), np.float32), "q_heads": 2, "kv_heads": 1},
                "head_dim": 2,
            },
        ),
        "rerotate_cache_": Entry(
            rw.rerotate_cache_,
            {
                **{"k_cache": functools.partial(np.zeros, (1, 4, 2, 8), np.float32), "old_encoding": ENCODING},
                **{"new_encoding": ENCODING, "slot_mapping": [1, 0, 2, 3], "page_table": None, "kv_indptr": None},
                **{"kv_indices": None, "entries": None, "positions": None, "offset": 0, "new_positions": None},
                **{"new_offset": None, "cache_order": "nhd", "cache_dtype": None, "k_scale": None, "threads": None},
            },
        ),
        "encoding": Entry(rw.encoding, {"policy": "default", **GEOMETRY}),
        "Encoding": Entry(rw.Encoding, {"policy": "default", **GEOMETRY}),
        "Encoding.from_key": Entry(rw.Encoding.from_key, {"key": ENCODING.key}),
        "Encoding.cos_sin": Entry(ENCODING.cos_sin, {"positions": [1, 2], "elementwise": False, "threads": None}),
        "Encoding.max_position": Entry(ENCODING.max_position, {"dtype": "float32"}),
        "from_config": Entry(
            rw.from_config,
            {"config": CONFIG, "layer_type": None, "sequence_length": None, "layout": None, "policy": None},
        ),
        "from_config of keys": Entry(with_key, {**CONFIG, "rope_scaling": None, "text_config": None}),
        "write_hf_config": Entry(rw.write_hf_config, {"encoding": ENCODING, "path": tmp_path, "layer_type": None}),
        "inspect": Entry(rw.inspect, {"encoding": ENCODING, "original_length": 16, "length": 32}),
        "policy": Entry(rw.policy, {"expression": "linear:8"}),
        "Policy": Entry(rw.Policy, {"expression": "linear:8"}),
        "Policy.__or__": Entry(lambda policy: rw.Linear(2) | policy, {"policy": "linear:8"}),
        "alibi_slopes": Entry(rw.alibi_slopes, {"heads": 4}),
        "query_temperature": Entry(rw.query_temperature, {"positions": [1, 2], "scale": 0.1, "length": 8}),
        "RotaryEmbedding": Entry(rw.RotaryEmbedding, {"policy": "default", **GEOMETRY, "order": None}),
        "RotaryEmbedding.forward": Entry(
            module.forward,
            {name: value for name, value in ROTATE.items() if name != "encoding"} | {"q": tensor, "k": tensor},
        ),
        "apply_rotary_transformers": Entry(
            rw.apply_rotary_transformers,
            {
                **{"q": HEADS, "k": HEADS, "cos": functools.partial(torch.ones, 1, 4, 8)},
                **{"sin": functools.partial(torch.zeros, 1, 4, 8), "unsqueeze_dim": 1},
            },
        ),
        "patch": Entry(no_model, {"model": None}),
        "unpatch": Entry(rw.unpatch, {"model": functools.partial(torch.nn.Linear, 1, 1)}),
    }
    for name in ("to_hf_config", "to_vllm_overrides", "to_llama_cpp_flags"):
        found[name] = Entry(getattr(rw, name), {"encoding": ENCODING})
    for kind in rw._ropewalk.policy_classes:
        found[kind.__name__] = Entry(kind, parameters(kind) if hasattr(kind, "example") else {})
    return found
