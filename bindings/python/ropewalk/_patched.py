"""The modules and arguments of a patched Hugging Face model."""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Any

import torch

from ropewalk import _ropewalk
from ropewalk._encoding import encoding as make_encoding
from ropewalk._operators import LAYOUT, decompose
from ropewalk._rotate import rotate
from ropewalk._trial import Fit, Rotation, deinterleave, has_axes

Fits = dict[tuple[str, int], tuple[Fit, _ropewalk.Encoding]]


class _HandmadeError(_ropewalk.Error, AttributeError):
    """The error of RotaryInput. Also an AttributeError, so that hasattr() answers False."""


class RotaryInput:
    """The argument of the layers of a patched model in place of cos and sin: positions, or a table of both."""

    def __init__(
        self,
        name: str,
        fits: Fits,
        positions: torch.Tensor | None,
        table: Any = None,
        encoding: _ropewalk.Encoding | None = None,
        adjoint: bool = False,
    ) -> None:
        self.name = name  # of the rotary module
        self.fits = fits
        self.positions = positions
        self.table = table
        self.encoding = encoding  # that of this length or draw; None for the one of the fits
        self.adjoint = adjoint

    def _with(self, positions: Any, table: Any, adjoint: bool) -> RotaryInput:
        return RotaryInput(self.name, self.fits, positions, table, self.encoding, adjoint)

    def rotate(self, key: str, heads: list[Any], axis: int) -> Any:
        """Rotate as the function `key` of the model does, for heads in the order of that function."""
        width = int(heads[0].shape[-1])
        if (key, width) not in self.fits:
            raise _HandmadeError(
                f"ropewalk: {self.name} is patched, but its trial did not cover {key}() for heads of {width} elements; "
                "call rw.unpatch(model)"
            )
        fit, encoding = self.fits[key, width]
        encoding = encoding if self.encoding is None else fit.shape(self.encoding)
        order = order_of(axis) if fit.order is None else fit.order
        if fit.deinterleaves:
            heads = [x if x is None else deinterleave(x) for x in heads]
        heads = [x if x is None or x.stride(-1) == 1 else x.contiguous() for x in heads]  # Zaya has convolutions
        q, k = heads if len(heads) == 2 else (heads[0], None)
        return rotate(
            q, k, encoding=encoding, positions=self.positions, order=order, table=self.table, adjoint=self.adjoint
        )

    def to(self, *arguments: Any, device: Any = None, non_blocking: bool = False, **_: Any) -> RotaryInput:
        """Copy to a device, for libraries that spread a model over devices and move the arguments of each layer.

        A type is ignored, because rotate() returns the type of the heads.
        """
        for one in arguments:
            if isinstance(one, (str, int, torch.device)) and not isinstance(one, bool):
                device = one
            elif isinstance(one, torch.Tensor):
                device = one.device
        if device is None:
            return self
        positions = None if self.positions is None else self.positions.to(device, non_blocking=non_blocking)
        table = None if self.table is None else tuple(x.to(device, non_blocking=non_blocking) for x in self.table)
        return self._with(positions, table, self.adjoint)

    def _same(self, *_: Any, **__: Any) -> RotaryInput:
        return self

    float = half = bfloat16 = double = type = type_as = contiguous = detach = clone = _same

    def __neg__(self) -> RotaryInput:
        """Return the input of the opposite rotation, for layers that pass -sin."""
        return self._with(self.positions, self.table, not self.adjoint)

    def __getitem__(self, index: Any) -> RotaryInput:
        """Return the input of some tokens: Gemma-4 drops those that later layers do not need."""
        everything = slice(None)
        tokens = index[1] if isinstance(index, tuple) and len(index) == 3 else None
        if tokens is None or index[0] != everything or index[2] != everything:
            raise self.handmade("[]")
        if self.table is not None:
            return self._with(self.positions, tuple(x[:, tokens] for x in self.table), self.adjoint)
        if self.positions is None:
            raise self.handmade("[] of randomized positions")
        return self._with(self.positions[..., tokens], None, self.adjoint)

    def handmade(self, operation: str) -> _HandmadeError:
        functions = ", ".join(f"{key}()" for key in dict.fromkeys(key for key, _ in self.fits))
        return _HandmadeError(
            f"ropewalk: {self.name} is patched and passes positions, but the attention of this model"
            f"{_calling_module()} uses cos and sin itself ('{operation}') instead of {functions}; call "
            "rw.unpatch(model)"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.handmade(name)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise self.handmade("an operator")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __matmul__ = __rmatmul__ = __pow__ = __len__ = __iter__ = _refuse

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        pending = [*arguments, *(named or {}).values()]
        while not isinstance(pending[0], RotaryInput):  # also in lists, as for torch.cat()
            one = pending.pop(0)
            pending += one if isinstance(one, (list, tuple)) else ()
        raise pending[0].handmade(getattr(function, "__name__", str(function)))


def _calling_module() -> str:
    """Return the class of the module that is running, in parentheses, or ""."""
    frame = None if torch.compiler.is_compiling() else inspect.currentframe()
    while frame is not None:
        module = frame.f_locals.get("self")
        if isinstance(module, torch.nn.Module):
            return f" ({type(module).__name__})"
        frame = frame.f_back
    return ""


class Schedule:
    """The encoding of the layers of one type: that of the configuration, or the one of a policy, at any length."""

    def __init__(self, name: str, encodings: list[_ropewalk.Encoding], fits: dict[tuple[str, int], Fit]) -> None:
        self.name = name
        self.encoding, self.short, self.long = encodings
        self.fixed = without_draws(self.encoding)
        self.fits = {key: (fit, fit.shape(self.fixed)) for key, fit in fits.items()}
        self.axes = has_axes(self.encoding)
        self.follows_length = self.short.stage != self.long.stage
        moving = [p for p in _parts(self.encoding) if isinstance(p, (_ropewalk.LongRope, _ropewalk.DynamicNtk))]
        # The last length of the first of two stages. None for more stages: dynamic has one per length.
        has_two_stages = [type(p) for p in moving] == [_ropewalk.LongRope]
        self.last_short = moving[0].original_length if has_two_stages else None
        self.has_table = not self.encoding.magnitude_rates.any()

    def input(self, x: torch.Tensor, positions: torch.Tensor, passes: torch.Tensor, training: bool) -> RotaryInput:
        """Return what a layer is passed. `passes` selects the draw of randomized positions."""
        if self.axes:
            positions = positions.expand(3, -1, -1)
        elif positions.dim() > 2:
            raise _ropewalk.Error(
                f"ropewalk: {self.name} is passed positions {list(positions.shape)}, but its configuration has one "
                "position per token; call rw.unpatch(model)"
            )
        draws = self.encoding.draws_positions and training
        if draws:
            self._draw(passes)
        if not draws and not self.follows_length:
            return RotaryInput(self.name, self.fits, positions)
        if torch.compiler.is_compiling() and self.has_table:
            return RotaryInput(self.name, self.fits, None, self._table(x, positions, passes if draws else None))
        if draws:
            drawn = _with_draw(self.encoding, int(passes), positions.shape[-1])
            return RotaryInput(self.name, self.fits, None, None, drawn)
        # Like Transformers, this leaves the keys of the cache as they are: see ropewalk.rerotate_().
        return RotaryInput(self.name, self.fits, positions, None, self.of_length(int(positions.max()) + 1))

    @staticmethod
    def _draw(passes: torch.Tensor) -> None:
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() >= 0:
            raise _ropewalk.Error(
                "ropewalk: a checkpoint repeats rotary_emb in backward, which would draw other randomized positions; "
                "checkpoint layers only, as model.gradient_checkpointing_enable() does"
            )
        passes.add_(1)

    def of_length(self, length: int) -> _ropewalk.Encoding:
        if self.last_short is None:
            return with_length(self.fixed, length)
        return self.long if length > self.last_short else self.short

    def _table(self, x: torch.Tensor, positions: torch.Tensor, passes: torch.Tensor | None) -> Any:
        """Return cos and sin of every token. A graph cannot make encodings, but it can select between tables."""
        if passes is not None:
            rows = positions.expand(x.shape[0], -1)  # every batch row has its own draw
            return torch.ops.ropewalk.late_cos_sin(rows, passes, self.encoding.key)
        if self.last_short is None:
            return torch.ops.ropewalk.late_cos_sin(positions, None, self.fixed.key)
        is_long = positions.max() >= self.last_short
        both = zip(_cos_sin(self.long, positions), _cos_sin(self.short, positions))
        return tuple(torch.where(is_long, long, short) for long, short in both)


class PatchedRotaryEmbedding(torch.nn.Module):
    """Replaces `rotary_emb` of a model. It has the tensors of the original, and so the same keys in a state_dict."""

    def __init__(
        self,
        original: torch.nn.Module,
        schedules: dict[str | None, Schedule],
        functions: list[tuple[str, str]],
        returns_pair: bool,
    ) -> None:
        super().__init__()
        # Not registered as a submodule, which would rename the keys: both modules have the same dictionaries.
        self.__dict__["original"] = original
        for kind in ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules"):
            self.__dict__[kind] = original.__dict__[kind]
        self.schedules = schedules
        self.functions = functions  # names of modules, and of their functions
        self.returns_pair = returns_pair  # cos and sin, or freqs_cis
        self.written: list[tuple[Any, dict[str, Any]]] = []  # configurations, and their values before patch()
        with torch.inference_mode(False):
            # Number of forward passes in training, which selects the draw of randomized positions. A tensor, so that
            # torch.compile does not specialize on its value. Not a buffer: reading one on a device would wait for it.
            self.passes = torch.zeros((), dtype=torch.int64, device="cpu")

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None) -> Any:
        if layer_type not in self.schedules:
            raise _ropewalk.Error(
                f"ropewalk: {type(self.original).__name__} has layer types {list(self.schedules)}, got {layer_type!r}"
            )
        rotary = self.schedules[layer_type].input(x, position_ids, self.passes, self.training)
        return (rotary, rotary) if self.returns_pair else rotary

    def __getattr__(self, name: str) -> Any:
        """Return public attributes of the original module: GraniteSWA, for example, reads `config`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "original" not in self.__dict__:
                raise
            return getattr(self.__dict__["original"], name)

    def __setstate__(self, state: Any) -> None:
        """Unpickle in a process that may never have called patch()."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        install(self.functions)

    def extra_repr(self) -> str:
        return "\n".join(
            f"{'' if layer_type is None else layer_type + ': '}{schedule.encoding!r}"
            for layer_type, schedule in self.schedules.items()
        )


def _cos_sin(encoding: _ropewalk.Encoding, positions: torch.Tensor, drawn: bool = False) -> Any:
    """Return tables [batch, tokens, rotary_dim/2] by rotating pairs (1, 0), on any device and also in a graph."""
    e = encoding
    axis, pairs = (-2, (2, -1)) if e.layout == "half_split" else (-1, (-1, 2))
    head: Any = torch.zeros(*positions.shape[-2:], 1, e.head_dim, dtype=torch.float32, device=positions.device)
    head.narrow(-1, e.rotary_offset, e.rotary_dim).unflatten(-1, pairs).select(axis, 0).fill_(1.0)
    rotated = rotate(head, encoding=e, positions=None if drawn else positions, order="bshd")[:, :, 0]
    tables = rotated.narrow(-1, e.rotary_offset, e.rotary_dim).unflatten(-1, pairs).unbind(axis)
    # Copies: the two results of an operator must not share memory, and for one token both views are contiguous.
    return tuple(table.clone(memory_format=torch.contiguous_format) for table in tables)


def _late_cos_sin(positions: torch.Tensor, draw: torch.Tensor | None, key: str) -> Any:
    """Run _cos_sin() with an encoding that depends on the length or the draw, which a graph cannot contain."""
    encoding = _ropewalk.Encoding.from_key(key)
    if draw is None:
        encoding = with_length(encoding, int(positions.max()) + 1)
    else:
        encoding = _with_draw(encoding, int(draw), positions.shape[-1])
    return _cos_sin(encoding, positions, draw is not None)


def _like_late_cos_sin(positions: torch.Tensor, draw: Any, key: str) -> Any:
    columns = _ropewalk.Encoding.from_key(key).rotary_dim // 2
    return tuple(positions.new_empty((*positions.shape[-2:], columns), dtype=torch.float32) for _ in range(2))


def with_policy(encoding: _ropewalk.Encoding, policy: str, length: int | None) -> _ropewalk.Encoding:
    e = encoding
    return make_encoding(policy, e.head_dim, e.base, e.rotary_dim, e.rotary_offset, e.layout, length)


@functools.lru_cache(maxsize=64)
def with_length(encoding: _ropewalk.Encoding, length: int) -> _ropewalk.Encoding:
    return with_policy(encoding, encoding.expression, length)


def _parts(encoding: _ropewalk.Encoding) -> list[_ropewalk.Policy]:
    return [_ropewalk.policy(part) for part in encoding.expression.split("|")]


@functools.lru_cache(maxsize=8)
def without_draws(encoding: _ropewalk.Encoding) -> _ropewalk.Encoding:
    if not encoding.draws_positions:
        return encoding
    rest = [str(part) for part in _parts(encoding) if not hasattr(part, "draw")]
    return with_policy(encoding, "|".join(rest) or "default", encoding.sequence_length)


def _with_draw(encoding: _ropewalk.Encoding, draw: int, tokens: int) -> _ropewalk.Encoding:
    def drawn(part: _ropewalk.Policy) -> str:
        if not hasattr(part, "draw"):
            return str(part)
        make, parameters = part.__reduce__()
        return str(make(*parameters[:-1], parameters[-1] + draw))  # draw is the last parameter

    return with_policy(encoding, "|".join(drawn(part) for part in _parts(encoding)), tokens)


def _dispatching(rotation: Rotation) -> Any:
    """Wrap a function of a model: RotaryInput goes to rotate(), anything else to the original."""
    original, key, parameters, heads = rotation.function, rotation.key, rotation.parameters, rotation.heads
    defaults = {name: one.default for name, one in inspect.signature(original).parameters.items()}
    # Functions that need k return a pair also for None.
    returns_pair = len(heads) == 2 and defaults[heads[1]] is not None
    known = {*heads, *rotation.tables, "unsqueeze_dim", "position_ids"}  # position_ids have no effect: see Rotation
    first, last = sorted(rotation.tables)[0], sorted(rotation.tables)[-1]  # cos and sin, or freqs_cis

    def apply(*arguments: Any, **named: Any) -> Any:
        given = {**dict(zip(parameters, arguments)), **named}
        rotary = given.get(first)
        if not isinstance(rotary, RotaryInput):
            return original(*arguments, **named)
        if rotary.adjoint:
            raise rotary.handmade("-")
        for name in given.keys() - known:
            if given[name] is not defaults.get(name):
                raise rotary.handmade(f"{key}({name}=)")
        axis = given.get("unsqueeze_dim", defaults.get("unsqueeze_dim", 1))
        rotated = given[last].rotate(key, [given.get(name) for name in heads], axis)
        return (rotated, None) if returns_pair and given.get(heads[1]) is None else rotated

    dispatching: Any = functools.wraps(original)(apply)
    dispatching.ropewalk_original = original
    return dispatching


def order_of(unsqueeze_dim: int) -> str:
    """Return the order of the axes: the heads follow the batch, or the tokens."""
    if type(unsqueeze_dim) is not int:
        unsqueeze_dim = _ropewalk.as_int(unsqueeze_dim, "unsqueeze_dim")
    if unsqueeze_dim not in (1, 2):
        raise _ropewalk.Error(f"ropewalk: unsqueeze_dim must be 1 or 2, got {_ropewalk.repr_of(unsqueeze_dim)}")
    return "bhsd" if unsqueeze_dim == 1 else "bshd"


def install(functions: list[tuple[str, str]]) -> None:
    """Wrap functions of modules, once."""
    for module_name, name in functions:
        module = importlib.import_module(module_name)
        function = getattr(module, name)
        if not hasattr(function, "ropewalk_original"):
            setattr(module, name, _dispatching(Rotation(function)))


# Registered at the end of the module: after an interrupt above, the module is imported again, and PyTorch does not
# register an operator twice.
_operators: Any = torch.library  # not annotated
_library = _operators.Library("ropewalk", "FRAGMENT")
_library.define("late_cos_sin(Tensor positions, Tensor? draw, str encoding) -> (Tensor, Tensor)", tags=LAYOUT)
for _device in ("CPU", "CUDA"):
    _library.impl("late_cos_sin", _late_cos_sin, _device)
decompose(_library, "late_cos_sin", _like_late_cos_sin)
