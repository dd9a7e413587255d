"""Trial of a Hugging Face model's own rotation against its configuration, before patch() replaces it."""

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
_FAR = tuple((1 << n) - 1 for n in (10, 12, 15, 17, 20))  # for the slow pairs
_TOLERANCE = 1e-3  # of the largest element; a model in bfloat16 still computes its angles in float32
_ANGLE = 2.0**-20  # of every angle: the rounding of its float32 frequency and of the product with the position


def _is_rounded(held: torch.Tensor, exact: torch.Tensor) -> bool:
    """Return whether these are the exact frequencies rounded to 16 bits, in that type or converted to a wider one."""
    if held.shape != exact.shape or not held.is_floating_point():
        return False
    wide = held.detach().cpu().double()
    for dtype in (torch.bfloat16, torch.float16):
        numbers = torch.finfo(dtype)
        # Slightly more than half a step, since the model's frequencies were float32 before.
        half_step = 0.5005 * numbers.eps * exact.abs().clamp(min=numbers.tiny)
        if torch.equal(wide.to(dtype).double(), wide) and bool(((wide - exact).abs() <= half_step).all()):
            return True
    return False


def _restored(child: torch.nn.Module, own: AtLength) -> Any:
    """Return a copy of the module as its configuration makes it. The trial leaves the module unchanged.

    model.to(torch.bfloat16) rounds the frequencies too. The weights were trained without that, so the copy has the
    exact frequencies.
    """
    module = copy.deepcopy(child)
    for length in (1, 1 << 40):
        exact = torch.from_numpy(own(length).inv_freq)
        for name, held in list(module._buffers.items()):
            if held is not None and _is_rounded(held, exact):
                module._buffers[name] = exact.float().to(held.device)
    return module


def _with_numbers(child: torch.nn.Module, config: Any) -> torch.nn.Module:
    """Return a copy on the CPU, with values, of a module on the meta device."""
    make: Any = type(child)
    try:
        with torch.device("cpu"):
            return make(config)  # type: ignore[no-any-return]
    except Exception as problem:
        raise _ropewalk.Error(
            f"ropewalk: {type(child).__name__} is on the device meta and cannot be made from its config for a trial; "
            f"call patch() once the weights are loaded ({type(problem).__name__}: {problem})"
        ) from problem


def fitted(child: torch.nn.Module, config: Any, apply: Any, own: AtLength, wanted: list[_ropewalk.Encoding]) -> Any:
    """Return `wanted` for what the module passes: whole heads, or their rotary part (Phi, StableLM, Persimmon).

    Runs the module's own rotation on random heads. If it differs from `own`, the encoding of its configuration, patch()
    would silently give wrong results.
    """
    if any(isinstance(x, FakeTensor) for x in child.buffers()):  # copying one corrupts the heap (PyTorch 2.13)
        raise _ropewalk.Error(f"ropewalk: {type(child).__name__} is fake; call patch() outside of FakeTensorMode")
    device = next((x.device for x in child.buffers()), torch.device("cpu"))
    if device.type == "meta":
        child, device = _with_numbers(child, config), torch.device("cpu")
    name, problem, first = type(child).__name__, "expects heads of another shape", own(1)
    # Only distances of the first stage: PhiMoE of Transformers, for example, keeps the short list beyond it.
    far = [(position,) for position in _FAR if own(position + 1).stage == first.stage]
    with torch.no_grad(), torch.device("cpu"):  # whatever the default device is
        module, x = _restored(child, own), torch.zeros(1, device=device)
        module(x, torch.zeros(1, 1, dtype=torch.int64, device=device))  # resets the length that dynamic remembers
        for width in dict.fromkeys((first.head_dim, first.rotary_dim)):
            for tried in (_NEAR, *far):
                positions = torch.tensor([tried])
                cos, sin = (table.detach().float().cpu() for table in module(x, positions.to(device)))
                try:
                    error, excess = _compare(apply, cos, sin, _of_width(own(tried[-1] + 1), width), positions)
                except RuntimeError:  # the shapes do not match
                    break
                if excess > 0:
                    problem = (
                        f"differs from {first.expression} of its configuration by up to {error:.2g} at positions up to "
                        f"{tried[-1]}"
                    )
                    break
            else:
                return [_of_width(encoding, width) for encoding in wanted]
    raise _ropewalk.Error(f"ropewalk: {name} {problem}; patch() does not support this kind of model")


def _compare(apply: Any, cos: Any, sin: Any, own: _ropewalk.Encoding, positions: torch.Tensor) -> tuple[float, float]:
    """Return the largest difference between both rotations of random heads, and its excess over float32 rounding."""
    e, tokens = own, positions.shape[1]
    q, k = torch.randn(2, 1, 2, tokens, e.head_dim, generator=torch.Generator("cpu").manual_seed(0))
    theirs, ours = apply(q, k, cos, sin), rotate(q, k, encoding=e, positions=positions, order="bhsd")
    angles = positions[0, :, None] * torch.from_numpy(e.inv_freq)
    angles = angles.repeat(1, 2) if e.layout == "half_split" else angles.repeat_interleave(2, 1)
    rest = e.rotary_offset, e.head_dim - e.rotary_offset - e.rotary_dim
    tolerance = (_TOLERANCE + _ANGLE * torch.nn.functional.pad(angles, rest)) * float(theirs[0].abs().max())
    error = torch.stack([(a - b).abs() for a, b in zip(ours, theirs)])
    return float(error.max()), float((error - tolerance).max())


def _of_width(encoding: _ropewalk.Encoding, width: int) -> _ropewalk.Encoding:
    e = encoding
    if width == e.head_dim:
        return e
    return make_encoding(e.expression, width, e.base, e.rotary_dim, e.rotary_offset, e.layout, e.sequence_length)
