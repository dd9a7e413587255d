"""Trial of a Hugging Face model's own rotation, before patch() replaces it.

The configuration says which frequencies a model has. The trial checks them, and finds out what else a rotation function
does: the layout, the order of the axes, and the elements of a head that it is passed.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Optional

import torch
from torch._subclasses import FakeTensor

from ropewalk import _ropewalk
from ropewalk._encoding import encoding as make_encoding
from ropewalk._rotate import rotate

AtLength = Callable[[Optional[int]], _ropewalk.Encoding]
_NEAR = (0, 1, 2, 7, 31)
_FAR = tuple((1 << n) - 1 for n in (10, 12, 15, 17, 20))  # for the slow pairs
_TOLERANCE = 1e-3  # of the largest element; a model in bfloat16 still computes its angles in float32
_ANGLE = 2.0**-20  # of every angle: the rounding of its float32 frequency and of the product with the position
_TABLES = ("cos", "sin", "freqs_cis")


class Rotation:
    """A function of a model's code that rotates heads by tables, and the roles of its parameters."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.key = f"{function.__module__}.{function.__qualname__}"
        self.parameters = tuple(inspect.signature(function).parameters)
        self.tables = tuple(name for name in self.parameters if name in _TABLES)
        self.heads = self.parameters[: self.parameters.index(self.tables[0])]
        self.has_axis = "unsqueeze_dim" in self.parameters

    @staticmethod
    def of(function: Any) -> Rotation | None:
        """Return the rotation that a function is, judged by its parameters, or None."""
        original = getattr(function, "ropewalk_original", function)
        if not inspect.isfunction(original) or not set(_TABLES) & set(original.__code__.co_varnames):
            return None
        parameters = inspect.signature(original).parameters
        tables = [name for name in parameters if name in _TABLES]
        if sorted(tables) not in (["cos", "sin"], ["freqs_cis"]):
            return None
        heads = list(parameters).index(tables[0])
        others = [one for name, one in list(parameters.items())[heads:] if name not in tables]
        required = [one for one in others if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
        return Rotation(original) if heads in (1, 2) and not required else None

    def __call__(self, heads: Iterable[torch.Tensor], tables: dict[str, torch.Tensor], order: str) -> Any:
        named: dict[str, Any] = {"unsqueeze_dim": 1 if order == "bhsd" else 2} if self.has_axis else {}
        if "position_ids" in self.parameters:  # without effect, or else the trial fails
            named["position_ids"] = torch.zeros(next(iter(tables.values())).shape[:2], dtype=torch.int64)
        rotated = self.function(*heads, **tables, **named)
        return rotated if isinstance(rotated, tuple) else (rotated,)


class Fit(NamedTuple):
    """The encoding and the order of the axes with which rotate() equals a Rotation for heads of one width."""

    layout: str
    width: int
    rotary_offset: int
    order: str | None  # None: unsqueeze_dim decides
    deinterleaves: bool  # moves the even elements of a head before the odd ones, and rotates these halves

    def shape(self, encoding: _ropewalk.Encoding) -> _ropewalk.Encoding:
        """Return an encoding with these frequencies for the heads that the Rotation is passed."""
        return _shaped(encoding, self.layout, self.width, self.rotary_offset)


@functools.lru_cache(maxsize=256)
def _shaped(encoding: _ropewalk.Encoding, layout: str, width: int, rotary_offset: int) -> _ropewalk.Encoding:
    e = encoding
    if (e.layout, e.head_dim, e.rotary_offset) == (layout, width, rotary_offset):
        return e
    return make_encoding(e.expression, width, e.base, e.rotary_dim, rotary_offset, layout, e.sequence_length)


def deinterleave(x: torch.Tensor) -> torch.Tensor:
    """Move the even elements of each head before the odd ones."""
    pairs: torch.Tensor = x.reshape(*x.shape[:-1], -1, 2)
    return pairs.transpose(-1, -2).flatten(-2)


def has_axes(encoding: _ropewalk.Encoding) -> bool:
    """Return whether each token has three positions (M-RoPE)."""
    return any(hasattr(_ropewalk.policy(part), "sections") for part in encoding.expression.split("|"))


def _is_rounded(held: torch.Tensor, exact: torch.Tensor) -> bool:
    """Return whether these are the exact numbers rounded to 16 bits, in that type or converted to a wider one."""
    if held.shape != exact.shape or not held.is_floating_point():
        return False
    wide, exact = held.detach().cpu().double(), exact.double()
    for dtype in (torch.bfloat16, torch.float16):
        numbers = torch.finfo(dtype)
        # Slightly more than half a step, since the model's numbers were float32 before.
        half_step = 0.5005 * numbers.eps * exact.abs().clamp(min=numbers.tiny)
        if torch.equal(wide.to(dtype).double(), wide) and bool(((wide - exact).abs() <= half_step).all()):
            return True
    return False


def made_again(child: torch.nn.Module, config: Any) -> Any:
    """Return a new module of the same class on the CPU."""
    make: Any = type(child)
    with torch.device("cpu"):
        return make(config)


class Trial:
    """A copy of the rotary module of a model, which returns tables for positions."""

    def __init__(self, child: torch.nn.Module, config: Any, layer_type: str | None) -> None:
        self.name, self.layer_type = type(child).__name__, layer_type
        buffers = list(child.buffers())
        if any(isinstance(x, FakeTensor) for x in buffers):  # copying one corrupts the heap (PyTorch 2.13)
            raise _ropewalk.Error(f"ropewalk: {self.name} is fake; call patch() outside of FakeTensorMode")
        self.device = next((x.device for x in buffers), torch.device("cpu"))
        if self.device.type == "meta":
            self.device = torch.device("cpu")
            self.module = self._with_numbers(child, config)
        else:
            self.module = self._restored(child, config)

    def _with_numbers(self, child: torch.nn.Module, config: Any) -> Any:
        try:
            return made_again(child, config)
        except Exception as problem:
            raise _ropewalk.Error(
                f"ropewalk: {self.name} is on the device meta and cannot be made from its config for a trial; "
                f"call patch() once the weights are loaded ({type(problem).__name__}: {problem})"
            ) from problem

    @staticmethod
    def _restored(child: torch.nn.Module, config: Any) -> Any:
        """Return a copy of the module with the numbers that its configuration makes.

        model.to(torch.bfloat16) rounds the frequencies too. The weights were trained without that.
        """
        module = copy.deepcopy(child)
        try:
            exact = made_again(child, config)._buffers
        except Exception:  # a class with other arguments keeps the numbers that it has
            return module
        for name, held in list(module._buffers.items()):
            if held is not None and exact.get(name) is not None and _is_rounded(held, exact[name]):
                module._buffers[name] = exact[name].to(held.device)
        return module

    def _run(self, positions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        layer_type = () if self.layer_type is None else (self.layer_type,)
        made = self.module(torch.zeros(1, device=self.device), positions.to(self.device), *layer_type)
        made = made if isinstance(made, tuple) else (made,)
        return tuple(x.detach().cpu().to(torch.complex64 if x.is_complex() else torch.float32) for x in made)

    def start(self, axes: bool) -> tuple[str, ...]:
        """Return the names of the tables in the order in which the module returns them: cos is not 0 at position 0.

        This also resets the length that a module with dynamic scaling remembers.
        """
        first = self._run(torch.zeros((3, 1, 1) if axes else (1, 1), dtype=torch.int64))
        if len(first) == 1 and first[0].is_complex():
            return ("freqs_cis",)
        if len(first) == 2 and not any(x.is_complex() for x in first):
            return ("sin", "cos") if bool(first[1].any()) and not bool(first[0].any()) else ("cos", "sin")
        raise _ropewalk.Error(
            f"ropewalk: {self.name} returns {len(first)} tables; patch() supports cos and sin, or freqs_cis"
        )

    def count_axes(self) -> int:
        """Return the number of positions per token that the module takes: rows of positions that end in one table."""
        one = self._run(torch.zeros((1, 2), dtype=torch.int64))[0]
        for axes in (3, 2):
            try:
                if self._run(torch.zeros((axes, 1, 2), dtype=torch.int64))[0].shape == one.shape:
                    return axes
            except Exception:  # not as many, or none
                continue
        return 1

    def tables(self, names: tuple[str, ...], positions: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(names, self._run(positions)))


class Trials:
    """The trials of one rotary module, for one layer type, with each of the model's rotation functions."""

    def __init__(self, child: torch.nn.Module, config: Any, layer_type: str | None, own: AtLength) -> None:
        self.first = own(1)
        self.own, self.axes = own, has_axes(self.first)
        self.trial = Trial(child, config, layer_type)
        self.names = self.trial.start(self.axes)
        axes = 1 if self.axes else self.trial.count_axes()
        if axes > 1:
            raise _ropewalk.Error(
                f"ropewalk: {self.trial.name} takes {axes} positions per token, but from_config() reads one from its "
                "configuration; patch() does not support this kind of model"
            )
        self.problem = ""
        # GPT-J has a table of the trained length. Beyond it, an index on a GPU would end the process.
        tables = [x.shape[0] for x in self.trial.module.buffers() if x.dim() == 2]
        self.near = tuple(position for position in _NEAR if position < min(tables, default=1 << 62))
        self.far = tuple(position for position in _FAR if position < min(tables, default=1 << 62))

    def _positions(self, near: tuple[int, ...]) -> torch.Tensor:
        positions = torch.tensor([near])
        if not self.axes:
            return positions
        return torch.stack((positions, positions // 2 + 3, positions // 3 + 1))

    def _shapes(self, head_dims: Iterable[int]) -> list[tuple[int, int]]:
        """Return every width of a head and offset of its rotary part: whole heads, and that part alone."""
        e = self.first
        shapes = [(e.head_dim, e.rotary_offset), (e.rotary_dim, 0)]
        for width in head_dims:  # the rotary part of DeepSeek-V4 is the last one
            shapes += [(width, 0), (width, width - e.rotary_dim)]
        return [shape for shape in dict.fromkeys(shapes) if shape[0] >= shape[1] + e.rotary_dim]

    def _layouts(self) -> list[tuple[str, bool]]:
        other = "half_split" if self.first.layout == "interleaved" else "interleaved"
        return [(self.first.layout, False), (other, False), ("half_split", True)]

    def of(self, rotation: Rotation, head_dims: Iterable[int]) -> dict[int, Fit]:
        """Return the fits of a rotation by the width of its heads."""
        if set(rotation.tables) != set(self.names):
            return {}
        fits: dict[int, Fit] = {}
        positions = self._positions(self.near)
        tables = self.trial.tables(self.names, positions)
        for width, offset in self._shapes(head_dims):
            orders = [order for order in ("bhsd", "bshd") if self._runs(rotation, width, tables, order)]
            for layout, deinterleaves in self._layouts() if orders and width not in fits else ():
                fit = Fit(layout, width, offset, None if rotation.has_axis else orders[0], deinterleaves)
                differences = [self._compare(rotation, fit, tables, positions, order) for order in orders]
                if all(excess <= 0 for _, excess in differences):
                    fits[width] = fit
                    break
                if (layout, deinterleaves) == (self.first.layout, False):
                    self._differ(differences[0][0], self.near[-1])
        return fits

    def check_near(self, rotation: Rotation, fit: Fit) -> bool:
        positions = self._positions(self.near)
        tables = self.trial.tables(self.names, positions)
        return self._compare(rotation, fit, tables, positions, fit.order or "bhsd")[1] <= 0

    def check_far(self, rotation: Rotation, fit: Fit) -> bool:
        """Return whether the rotation has the frequencies of the configuration also far from the first token."""
        for position in self.far:
            # Only distances of the first stage: PhiMoE of Transformers, for example, keeps the short list beyond it.
            if self.own(position + 1).stage != self.first.stage:
                continue
            positions = self._positions((position,))
            tables = self.trial.tables(self.names, positions)
            error, excess = self._compare(rotation, fit, tables, positions, fit.order or "bhsd")
            if excess > 0:
                self._differ(error, position)
                return False
        return True

    def _differ(self, error: float, position: int) -> None:
        self.problem = (
            f"differs from {self.first.expression} of its configuration by up to {error:.2g} at positions up to "
            f"{position}"
        )

    @staticmethod
    def _heads(rotation: Rotation, width: int, tokens: int, order: str) -> list[torch.Tensor]:
        shape = (1, 2, tokens, width) if order == "bhsd" else (1, tokens, 2, width)
        generator = torch.Generator("cpu").manual_seed(0)
        return [torch.randn(shape, generator=generator) for _ in rotation.heads]

    def _runs(self, rotation: Rotation, width: int, tables: dict[str, torch.Tensor], order: str) -> bool:
        heads = self._heads(rotation, width, len(self.near), order)
        try:
            return all(x.shape == y.shape for x, y in zip(rotation(heads, tables, order), heads))
        except (RuntimeError, AttributeError, IndexError):  # the shapes do not match
            return False

    def _compare(
        self, rotation: Rotation, fit: Fit, tables: dict[str, torch.Tensor], positions: torch.Tensor, order: str
    ) -> tuple[float, float]:
        """Return the largest difference of both rotations of random heads, and its excess over float32 rounding."""
        e = fit.shape(self.own(int(positions.max()) + 1))
        heads = self._heads(rotation, fit.width, positions.shape[-1], order)
        theirs = rotation(heads, tables, order)
        at = positions if self.axes else positions[0]
        ours = [
            rotate(deinterleave(x) if fit.deinterleaves else x, encoding=e, positions=at, order=order) for x in heads
        ]
        angles = positions.reshape(-1, positions.shape[-1]).amax(0)[:, None] * torch.from_numpy(e.inv_freq)
        angles = angles.repeat(1, 2) if e.layout == "half_split" else angles.repeat_interleave(2, 1)
        rest = e.rotary_offset, e.head_dim - e.rotary_offset - e.rotary_dim
        rounding = torch.nn.functional.pad(angles, rest)
        rounding = rounding if order == "bhsd" else rounding[:, None]
        tolerance = (_TOLERANCE + _ANGLE * rounding) * float(theirs[0].abs().max())
        error = torch.stack([(a - b).abs() for a, b in zip(ours, theirs)])
        return float(error.max()), float((error - tolerance).max())


def fitted(
    child: torch.nn.Module,
    config: Any,
    layer_type: str | None,
    own: AtLength,
    rotations: list[Rotation],
    head_dims: Iterable[int],
) -> dict[tuple[str, int], Fit]:
    """Return the fits of a rotary module by rotation and width of the heads.

    Runs the module's own tables and the functions of the model on random heads. If no function equals `own`, the
    encoding of the configuration, patch() would silently give wrong results.
    """
    try:
        with torch.no_grad(), torch.device("cpu"):  # whatever the default device is
            trials = Trials(child, config, layer_type, own)
            fits = {
                (rotation.key, width): (rotation, fit)
                for rotation in rotations
                for width, fit in trials.of(rotation, head_dims).items()
            }
            if fits and trials.check_far(*next(iter(fits.values()))):
                return {key: fit for key, (_, fit) in fits.items()}
        problem = trials.problem or "expects heads of another shape"
    except _ropewalk.Error:
        raise
    except Exception as error:  # of code that is not of Transformers
        problem = f"fails in the trial of its rotation: {type(error).__name__}: {error}"
    name = type(child).__name__ + ("" if layer_type is None else f" ({layer_type})")
    raise _ropewalk.Error(f"ropewalk: {name} {problem}; patch() does not support this kind of model")


def expresses(
    child: torch.nn.Module, config: Any, layer_type: str | None, at: AtLength, rotation: Rotation, fit: Fit
) -> bool:
    """Return whether a module that is made of another configuration has the encoding `at`."""
    with torch.no_grad(), torch.device("cpu"):
        trials = Trials(made_again(child, config), config, layer_type, at)
        return trials.check_near(rotation, fit) and trials.check_far(rotation, fit)
