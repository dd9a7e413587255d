"""Rotary encodings in float64 NumPy, written from the papers. This module uses no code of ropewalk."""

import ml_dtypes
import numpy as np
import torch

# Half a unit in the last place, relative to a value slightly above a power of two.
HALF_ULP = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 2.0**-53}
NUMPY_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64}
TYPES = list(NUMPY_TYPES)
DEVICE_TYPES = TYPES[:3]
LIBRARIES = ["numpy", "torch"]
LAYOUTS = ["half_split", "interleaved"]
AXES = {"thd": "thd", "bshd": "bthd", "bhsd": "bhtd", "sbhd": "tbhd"}  # t names the token axis
ORDERS = list(AXES)


def plain(rotary_dim, base=10000.0):
    """theta_j = base^(-2j/d)."""
    return base ** (-2.0 * np.arange(rotary_dim // 2) / rotary_dim)


def power(theta, k):
    j = np.arange(len(theta))
    return theta * (1 - j / len(theta)) ** k


def truncated(theta, length):
    upper = 2 * np.pi / length
    return np.where(theta >= upper, theta, np.where(theta >= upper / 8, upper / 16, 0.0))


def rotate_exactly(x, theta, positions, layout="half_split", start=0, magnitude=None):
    """x [..., tokens, heads, head_dim] at positions [tokens] or [batch, tokens]; exact below about 2^20."""
    x, positions = exact(x), np.asarray(positions, np.float64)[..., None, None]
    result, pairs = x.copy(), len(theta)
    j = np.arange(pairs)
    first, second = (j, j + pairs) if layout == "half_split" else (2 * j, 2 * j + 1)
    scale = 1.0 if magnitude is None else magnitude(positions, j)
    cos, sin = np.cos(positions * theta) * scale, np.sin(positions * theta) * scale
    a, b = x[..., start + first], x[..., start + second]
    result[..., start + first] = a * cos - b * sin
    result[..., start + second] = b * cos + a * sin
    return result


def xpos(rotary_dim, sign, scale_base=512.0, gamma=0.4):
    """The magnitude of queries (sign +1) or keys (-1)."""

    def magnitude(positions, j):
        zeta = (2 * j / rotary_dim + gamma) / (1 + gamma)
        return zeta ** (sign * positions / scale_base)

    return magnitude


def make(library, type_name, shape, seed=0):
    """Random numbers as a NumPy array or a torch tensor."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(NUMPY_TYPES[type_name])
    return values if library == "numpy" else as_torch(values)


def as_torch(x):
    """A tensor on the memory of a NumPy array."""
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def exact(x):
    """The values as float64 NumPy, a copy."""
    if isinstance(x, torch.Tensor):
        x = x.detach().double().cpu().numpy()
    return np.array(x, np.float64)


def type_of(x):
    """The element type of an array or a tensor, such as "float32"."""
    return str(x.dtype).removeprefix("torch.")


def arrange(x, order):
    """[batch, tokens, heads, head_dim] with the axes of `order` in memory; "thd" needs a batch of one."""
    if order == "thd":
        return x[0]
    axes = ["bthd".index(axis) for axis in AXES[order]]
    return x.permute(axes).contiguous() if isinstance(x, torch.Tensor) else np.ascontiguousarray(x.transpose(axes))


def restore(x, order):
    """The inverse of arrange(), in float64."""
    return exact(x)[None] if order == "thd" else exact(x).transpose([AXES[order].index(axis) for axis in "bthd"])


def assert_close(ours, expected, type_name=None):
    """Within one rounding of the exact result, and 3e-7 of the vector's norm (float32 arithmetic).

    float64: within 1e-10 of the norm, the error of an angle of 1e5 radians in the reference.
    """
    type_name = type_name or type_of(ours)
    norm = np.linalg.norm(expected, axis=-1, keepdims=True)
    arithmetic = 1e-10 if type_name == "float64" else 3e-7
    bound = HALF_ULP[type_name] * np.abs(expected) + arithmetic * norm + (2.0**-25 if type_name == "float16" else 0)
    worst = (np.abs(exact(ours) - expected) - bound).max(initial=-np.inf)
    assert worst <= 0, f"the error exceeds its bound by {worst}"
