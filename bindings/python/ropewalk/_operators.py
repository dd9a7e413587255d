"""Rotations as the PyTorch operators `torch.ops.ropewalk.rotate` and `rotate_`, without gradients.

torch.compile, torch.export and fake tensors record these operators. ropewalk._torch adds the gradients.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import checkpoint

from ropewalk import _ropewalk


class Arguments(NamedTuple):
    """Arguments of an operator after q and k, in the order of its schema."""

    encoding: str  # Encoding.key
    positions: Tensor | None = None
    offset: int = 0
    cu_seqlens: Tensor | None = None
    order: str | None = None
    inverse: bool = False
    adjoint: bool = False
    cos: Tensor | None = None
    sin: Tensor | None = None
    threads: int | None = None
    offsets: Tensor | None = None  # in place of offset: one per batch row or sequence


_SCHEMA = (
    "str encoding, Tensor? positions=None, SymInt offset=0, Tensor? cu_seqlens=None, str? order=None, "
    "bool inverse=False, bool adjoint=False, Tensor? cos=None, Tensor? sin=None, SymInt? threads=None, "
    "Tensor? offsets=None"
)
_library = torch.library.Library("ropewalk", "DEF")
# Layout of inputs in Inductor: the strides that the call was traced with, its default for operators without a
# decomposition.
LAYOUT = (getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order),)
# The results of q and k, without those of None
_library.define(f"rotate(Tensor? q, Tensor? k, {_SCHEMA}) -> Tensor[]", tags=LAYOUT)
_library.define(f"rotate_(Tensor(a!)? q, Tensor(b!)? k, {_SCHEMA}) -> ()")

# Returns the innermost transform of torch.func, or None. PyTorch has no public function for it.
_functorch = getattr(torch._C, "_functorch", None)
transform = getattr(_functorch, "peek_interpreter_stack", lambda: None)

# Maps a key to its encoding, also in a process that never made the encoding. The cache is bounded because every draw of
# randomized positions has its own key.
encoding_of = functools.lru_cache(maxsize=1024)(_ropewalk.Encoding.from_key)


def present(q: Tensor | None, k: Tensor | None) -> list[Tensor]:
    """Return those of q and k that are not None."""
    return [x for x in (q, k) if x is not None]


def learned(q: Tensor | None, k: Tensor | None, arguments: Arguments) -> list[Tensor]:
    """Return the tensors of a call that may have gradients."""
    return [x for x in (q, k, arguments.cos, arguments.sin) if x is not None]


def _call(function: Any, q: Any, k: Any, arguments: tuple[Any, ...], *last: Any) -> Any:
    encoding, positions, offset, cu_seqlens, order, inverse, adjoint, cos, sin, threads, offsets = Arguments(*arguments)
    table = None if cos is None else (cos, sin)
    first = offset if offsets is None else offsets
    e = encoding_of(encoding)
    return function(q, k, e, positions, first, cu_seqlens, order, inverse, adjoint, table, threads, *last)


_BATCHED: Any = torch._C._parse_dispatch_key("Batched")


def is_batched(x: Any) -> bool:
    """Return whether the older vmap, of jacobian(vectorize=True) and grad(is_grads_batched=True), made a tensor."""
    return isinstance(x, Tensor) and torch._C._dispatch_keys(x).has(_BATCHED)


def rotate(q: Tensor | None, k: Tensor | None, *arguments: Any, inside: bool = True) -> Any:
    """Run the kernel and return a tuple of the results.

    Returns NotImplemented if PyTorch must see the call and it is not `inside` an operator.
    """
    try:
        done = _call(_ropewalk.rotate, q, k, arguments, None, inside)
    except _ropewalk.Error:
        if inside or not (is_batched(q) or is_batched(k)):
            raise
        return NotImplemented
    return done if done is NotImplemented or isinstance(done, tuple) else (done,)


def rotate_(q: Tensor | None, k: Tensor | None, *arguments: Any, inside: bool = True) -> Any:
    """The same in place, without results."""
    done = _call(_ropewalk.rotate_, q, k, arguments, inside)
    return done if done is NotImplemented else None


_KERNELS: dict[str, Any] = {"rotate": rotate, "rotate_": rotate_}
for _name, _kernel in _KERNELS.items():
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _kernel, _device)


def _like_rotate(q: Tensor | None, k: Tensor | None, *arguments: Any) -> list[Tensor]:
    return [torch.empty_like(x) for x in present(q, k)]


@torch.library.register_fake("ropewalk::rotate_", lib=_library)
def _(*arguments: Any) -> None:
    return None


def decompose(library: Any, name: str, fake: Any) -> None:
    """Register the fake function of an operator, and its decomposition where torch.onnx finds it.

    The module of the decompositions is imported when it is needed. Fake tensors would also run a decomposition in place
    of the fake function, unless there is one in the table for meta tensors. Inductor calls the operator, but refuses
    operators that have a decomposition and are not in its list where the environment variable CI is set.
    """
    operator = getattr(torch.ops.ropewalk, name).default

    def decomposition(*arguments: Any, **named: Any) -> Any:
        return getattr(import_module("ropewalk._decompositions"), name)(*arguments, **named)

    def like(*arguments: Any, **named: Any) -> Any:
        # Inductor is imported by its first compilation, which calls this function before it looks at the list.
        lowering = sys.modules.get("torch._inductor.lowering")
        getattr(lowering, "FALLBACK_ALLOW_LIST", set()).add(operator._schema.name)
        return fake(*arguments, **named)

    torch.library.register_fake(f"ropewalk::{name}", like, lib=library)
    torch._decomp.decomposition_table[operator] = decomposition
    torch._decomp.meta_table[operator] = like


decompose(_library, "rotate", _like_rotate)

# A selective checkpoint skips operators whose results its policy saves. rotate_ has no results, and its writes would be
# missing in backward: it runs again whatever the policy says.
_always_recomputed: set[Any] = getattr(checkpoint, "SAC_IGNORED_OPS", set())
_always_recomputed.add(torch.ops.ropewalk.rotate_.default)


def check_no_gradients(named: Iterable[tuple[str, Any]], hint: str) -> None:
    """Refuse tensors that require grad, where autograd records."""
    if not torch.is_grad_enabled():
        return
    for name, x in named:
        if isinstance(x, Tensor) and x.requires_grad:
            raise _ropewalk.Error(f"ropewalk: {name} {list(x.shape)} requires grad, and {hint}")


def add_without_gradients(library: Any, name: str, kernel: Any, hint: str, batched: str) -> None:
    """Register what an operator of the library does that writes its arguments and has no gradients.

    `hint` ends the messages of calls that need gradients, and `batched` is that of calls under torch.vmap.
    """
    operator = getattr(torch.ops.ropewalk, name).default
    names = [argument.name for argument in operator._schema.arguments]

    def run_without_gradients(keys: Any, *arguments: Any, **named: Any) -> None:
        given = {**dict(zip(names, arguments)), **named}
        if _has_tangents(*given.values()):
            raise _ropewalk.Error(f"ropewalk: a tensor has a tangent, and {hint}")
        check_no_gradients(given.items(), hint)
        operator.redispatch(keys & torch._C._after_autograd_keyset, *arguments, **named)

    def refuse_vmap(*arguments: Any, **named: Any) -> NoReturn:
        raise _ropewalk.Error(f"ropewalk: {batched}")

    for device in ("CPU", "CUDA"):
        library.impl(name, kernel, device)
    torch.library.register_fake(f"ropewalk::{name}", lambda *arguments, **named: None, lib=library)
    library.impl(name, run_without_gradients, "Autograd", with_keyset=True)
    library.impl(name, refuse_vmap, "Batched")
    torch.library.register_vmap(f"ropewalk::{name}", refuse_vmap, lib=library)
    _always_recomputed.add(operator)


def differentiate(name: str, function: Any) -> None:
    """Make `function(q, k, arguments)` run in place of the operator for arguments with derivatives."""
    operator, kernel = getattr(torch.ops.ropewalk, name).default, _KERNELS[name]
    below_autograd = torch._C._after_autograd_keyset  # there is no public name for the keys of the devices' kernels

    def run_or_record(keys: Any, q: Tensor | None, k: Tensor | None, *arguments: Any) -> Any:
        within: Any = transform()
        if within is not None and within.key().name in ("Grad", "Jvp"):
            # At this level a Function would record nothing. The error breaks the graph, if torch.compile allows that.
            raise NotImplementedError(
                "ropewalk: a rotation has no derivatives by torch.func inside of a graph; leave that function "
                "uncompiled, or use torch.autograd.grad()"
            )
        if _has_tangents(q, k, *arguments):
            if name == "rotate_":
                raise _ropewalk.Error("ropewalk: rotate_ has no derivatives in forward mode; use rotate()")
            return function(q, k, Arguments(*arguments))
        if torch.is_grad_enabled() and any([x.requires_grad for x in learned(q, k, Arguments(*arguments))]):
            return function(q, k, Arguments(*arguments))
        # The direct call saves 2 us of 10 us. Tensors without numbers of their own are left to PyTorch.
        if not any([x.is_meta or x.is_neg() for x in present(q, k)]):
            done = kernel(q, k, *arguments, inside=False)
            if done is not NotImplemented:
                return done
        return operator.redispatch(keys & below_autograd, q, k, *arguments)

    _library.impl(name, run_or_record, "Autograd", with_keyset=True)


def batch(name: str, function: Any) -> None:
    """Make `function(info, axes, q, k, arguments)` run in place of the operator under torch.vmap."""

    def rule(info: Any, axes: Any, q: Any, k: Any, *arguments: Any) -> Any:
        return function(info, axes, q, k, Arguments(*arguments))

    torch.library.register_vmap(f"ropewalk::{name}", rule, lib=_library)

    def run(*arguments: Any) -> Any:  # the older vmap has no rules in Python
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        moved = [torch._remove_batch_dim(x, level, 1, 0) if is_batched(x) else None for x in arguments]
        size = max(len(x) for x in moved if x is not None)
        axes = [None if x is None or len(x) != size else 0 for x in moved]
        rest = (x if axis is None else to for x, to, axis in zip(arguments, moved, axes))
        results, axis = rule(SimpleNamespace(batch_size=size), axes, *rest)
        # PyTorch takes tangents with the mapped axis in front in memory only.
        return [torch._add_batch_dim(x.movedim(axis, 0).contiguous(), 0, level) for x in results]

    _library.impl(name, run, "Batched")


def _has_tangents(*arguments: Any) -> bool:
    if forward_ad._current_level < 0:  # 0.5 us less than unpack_dual() of q and k
        return False
    return any(isinstance(one, Tensor) and forward_ad.unpack_dual(one).tangent is not None for one in arguments)
