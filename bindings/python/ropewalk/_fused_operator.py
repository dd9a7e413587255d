"""Fused calls as the PyTorch operator `torch.ops.ropewalk.fused_`, without gradients."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from ropewalk import _operators, _ropewalk
from ropewalk._fused import Arguments
from ropewalk._torch import _as_tensor, _indices, _prepare

# A result goes to q, k or v, and comes from q_in, k_in or v_in; without these the call is in place.
_TENSORS_WRITTEN = ("q", "k", "v", "k_cache", "v_cache", "q_scales", "k_scales", "v_scales")
_TENSORS_READ = (
    *("q_in", "k_in", "v_in", "q_scale_at", "k_scale_at", "v_scale_at", "positions", "cu_seqlens", "cos", "sin"),
    *("q_weight", "k_weight", "slot_mapping", "page_table", "kv_indptr", "kv_indices", "last_page_len", "entries"),
    "offsets",
)
_OTHERS = (
    "str encoding, float? q_scale=None, float? k_scale=None, float? v_scale=None, SymInt offset=0, str? order=None, "
    "float epsilon=1e-06, bool one_plus=False, SymInt? first_entry=None, str cache_order='nhd', "
    "str? cache_dtype=None, bool latent=False, SymInt? threads=None"
)
_NAMES = (*_TENSORS_WRITTEN, *_TENSORS_READ, *(part.split()[-1].partition("=")[0] for part in _OTHERS.split(", ")))
# PyTorch leaves out the last arguments of a call that have their default.
_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(_NAMES),
    **{"offset": 0, "epsilon": 1e-6, "one_plus": False, "cache_order": "nhd", "latent": False},
}

_library = torch.library.Library("ropewalk", "FRAGMENT")
_library.define(
    "fused_("
    + ", ".join(f"Tensor({letter}!)? {name}" for letter, name in zip("abcdefgh", _TENSORS_WRITTEN))
    + "".join(f", Tensor? {name}" for name in _TENSORS_READ)
    + f", {_OTHERS}) -> ()"
)


def _fused(*given: Any) -> None:
    """Run the kernel."""
    of: dict[str, Any] = {**_DEFAULTS, **dict(zip(_NAMES, given))}

    def scale(name: str) -> Any:
        return next(
            (x for x in (of[f"{name}_scales"], of[f"{name}_scale_at"], of[f"{name}_scale"]) if x is not None), None
        )

    shared = {name: of[name] for name in Arguments._fields if name in of and name not in ("q", "k", "v")}
    arguments = Arguments(
        **{
            **shared,
            **{f"{x}_out": of[x] for x in "qkv"},
            **{x: of[f"{x}_in"] for x in "qkv"},
            **{f"{x}_scale": scale(x) for x in "qkv"},
            "encoding": _operators.encoding_of(of["encoding"]),
            "table": None if of["cos"] is None else (of["cos"], of["sin"]),
            "offset": of["offset"] if of["offsets"] is None else of["offsets"],
            "entries": of["first_entry"] if of["entries"] is None else of["entries"],
        }
    )
    _ropewalk.fused(arguments, True)


_HINT = (
    "fused calls have no gradients; train with torch.nn.functional.rms_norm() and rotate(), or call under "
    "torch.no_grad()"
)
_operators.add_without_gradients(
    *(_library, "fused_", _fused, _HINT),
    "fused calls do not run under torch.vmap; the batch is an axis of q, k and v",
)


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def run(arguments: Arguments) -> None:
    """ropewalk.fused() of tensors through the operator."""
    kind: Any = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", ())
    for name, x in zip(Arguments._fields, arguments):
        is_heads = name in ("q", "k", "v", "q_out", "k_out", "v_out", "k_cache", "v_cache")
        if is_heads and x is not None and not isinstance(x, Tensor):
            raise _ropewalk.Error(f"ropewalk: {name} is a {type(x).__name__}, but another argument is a torch.Tensor")
        if isinstance(x, kind):
            raise _ropewalk.Error(f"ropewalk: {name} is a DTensor; pass {name}.to_local()")
        if isinstance(x, Tensor) and x.is_nested:
            raise _ropewalk.Error(
                f"ropewalk: {name} is a nested tensor; pass its values(), and cu_seqlens=its offsets()"
            )
    _operators.check_no_gradients(zip(Arguments._fields, arguments), _HINT)
    of = dict(_DEFAULTS)
    of.update({name: x for name, x in zip(Arguments._fields, arguments) if name in of})
    for x in "qkv":
        source, to = getattr(arguments, x), getattr(arguments, f"{x}_out")
        of[x] = to
        of[f"{x}_in"] = None if source is to else source
        scale = getattr(arguments, f"{x}_scale")
        of[f"{x}_scale"] = None
        if isinstance(scale, Tensor):
            stored = [y for y in (to, None if x == "q" else getattr(arguments, f"{x}_cache")) if y is not None]
            to_int8 = any(y.dtype == torch.int8 for y in stored)
            of[f"{x}_scales" if to_int8 else f"{x}_scale_at"] = scale
        elif scale is not None:
            of[f"{x}_scale"] = scale if _is_number(scale) else _ropewalk.as_double(scale, f"{x}_scale")
    q: Any = arguments.q if arguments.q_out is None else arguments.q_out
    k: Any = arguments.k if arguments.k_out is None else arguments.k_out
    a = arguments
    prepared = _prepare(
        q, k, a.encoding, a.positions, a.offset, a.cu_seqlens, a.order, False, False, a.table, a.threads
    )
    entries = arguments.entries
    is_first = isinstance(entries, (int, torch.SymInt)) and not isinstance(entries, bool)
    of.update({name: x for name, x in zip(prepared._fields, prepared) if name in of})
    of["first_entry"] = entries if is_first else None
    of["entries"] = _as_tensor(None if is_first else entries, "entries", "int64")
    for name in ("slot_mapping", "page_table", "kv_indptr", "kv_indices", "last_page_len"):
        of[name] = _indices(of[name], name, narrow=name != "slot_mapping")
    torch.ops.ropewalk.fused_(*of.values())
