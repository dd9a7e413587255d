"""Whether a model of Hugging Face turns heads as its configuration says, tried before patch() changes it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses import FakeTensor

from ropewalk import _ropewalk
from ropewalk._encoding import encoding as make_encoding
from ropewalk._rotate import rotate

AtLength = Callable[[int], _ropewalk.Encoding]
_NEAR = (0, 1, 2, 7, 31)
_FAR = tuple((1 << n) - 1 for n in (10, 12, 15, 17, 20))  # where the slow pairs turn
_ALIKE = 1e-3  # of the largest element; a model in bfloat16 still makes its angles in float32
_ANGLE = 2.0**-20  # of every angle: what its float32 frequency and the product with the position may lose


def _is_rounded(held: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether these are our frequencies in 16 bits, by half a step at most; the type may be wider again by now."""
    if held.shape != exact.shape or not held.is_floating_point():
        return False
    wide = held.detach().cpu().double()
    for dtype in (torch.bfloat16, torch.float16):
        numbers = torch.finfo(dtype)
        half_step = 0.5005 * numbers.eps * exact.abs().clamp(min=numbers.tiny)  # theirs were float32 before
        if torch.equal(wide.to(dtype).double(), wide) and bool(((wide - exact).abs() <= half_step).all()):
            return True
    return False


def _as_made(child: torch.nn.Module, own: AtLength) -> Any:
    """A copy of the module as its configuration makes it, to be tried without a trace in the module itself.

    model.to(torch.bfloat16) rounds the frequencies too, which the weights were not trained with: they are ours again.
    """
    made = copy.deepcopy(child)
    for length in (1, 1 << 40):
        exact = torch.from_numpy(own(length).inv_freq)
        for name, held in list(made._buffers.items()):
            if held is not None and _is_rounded(held, exact):
                made._buffers[name] = exact.float().to(held.device)
    return made


def _with_numbers(child: torch.nn.Module, config: Any) -> torch.nn.Module:
    """One as it will be, for a module on the device meta, which holds no numbers."""
    made: Any = type(child)
    try:
        with torch.device("cpu"):
            return made(config)  # type: ignore[no-any-return]
    except Exception as problem:
        raise _ropewalk.Error(
            f"ropewalk: {type(child).__name__} is on the device meta and cannot be made from its config to be tried: "
            f"call patch() once the weights are loaded ({type(problem).__name__}: {problem})"
        ) from problem


def fitted(child: torch.nn.Module, config: Any, apply: Any, own: AtLength, wanted: list[_ropewalk.Encoding]) -> Any:
    """`wanted` for heads as the module hands them over: whole, or what turns of them (Phi, StableLM, Persimmon).

    The module's own rotation is tried on random heads: where `own`, which its configuration asks for, does otherwise,
    ours would be wrong in silence.
    """
    if any(isinstance(one, FakeTensor) for one in child.buffers()):  # copies of which break the heap (torch 2.13)
        raise _ropewalk.Error(f"ropewalk: {type(child).__name__} is fake: call patch() outside of FakeTensorMode")
    device = next((one.device for one in child.buffers()), torch.device("cpu"))
    if device.type == "meta":
        child, device = _with_numbers(child, config), torch.device("cpu")
    name, problem, first = type(child).__name__, "takes heads of another shape", own(1)
    # Not far where the length moves the frequencies: PhiMoE of Transformers keeps the short list, say.
    far = [(place,) for place in _FAR if own(place + 1).stage == first.stage]
    with torch.no_grad(), torch.device("cpu"):  # whatever the default device is
        made, x = _as_made(child, own), torch.zeros(1, device=device)
        made(x, torch.zeros(1, 1, dtype=torch.int64, device=device))  # dynamic: forgets the long sequence served last
        for width in dict.fromkeys((first.head_dim, first.rotary_dim)):
            for tried in (_NEAR, *far):
                places = torch.tensor([tried])
                cos, sin = (one.detach().float().cpu() for one in made(x, places.to(device)))
                try:
                    off, excess = _compared(apply, cos, sin, _of_width(own(tried[-1] + 1), width), places)
                except RuntimeError:  # the shapes do not go together
                    break
                if excess > 0:
                    problem = (
                        f"turns heads otherwise than {first.expression} of its configuration, by up to {off:.2g} at "
                        f"positions up to {tried[-1]}"
                    )
                    break
            else:
                return [_of_width(one, width) for one in wanted]
    raise _ropewalk.Error(f"ropewalk: {name} {problem}: patch() does not know this kind of model")


def _compared(apply: Any, cos: Any, sin: Any, own: _ropewalk.Encoding, places: torch.Tensor) -> tuple[float, float]:
    """How far their rotation of random heads is from ours at most, and by how much more than float32 explains."""
    e, tokens = own, places.shape[1]
    q, k = torch.randn(2, 1, 2, tokens, e.head_dim, generator=torch.Generator("cpu").manual_seed(0))
    theirs, ours = apply(q, k, cos, sin), rotate(q, k, encoding=e, positions=places, order="bhsd")
    angles = places[0, :, None] * torch.from_numpy(e.inv_freq)
    angles = angles.repeat(1, 2) if e.layout == "half_split" else angles.repeat_interleave(2, 1)
    rest = e.rotary_offset, e.head_dim - e.rotary_offset - e.rotary_dim
    room = (_ALIKE + _ANGLE * torch.nn.functional.pad(angles, rest)) * float(theirs[0].abs().max())
    off = torch.stack([(a - b).abs() for a, b in zip(ours, theirs)])
    return float(off.max()), float((off - room).max())


def _of_width(encoding: _ropewalk.Encoding, width: int) -> _ropewalk.Encoding:
    e = encoding
    if width == e.head_dim:
        return e
    return make_encoding(e.expression, width, e.base, e.rotary_dim, e.rotary_offset, e.layout, e.sequence_length)
