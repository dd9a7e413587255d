"""Rotary encodings once more, in float64 NumPy and from the papers alone: nothing here is ropewalk's."""

import ml_dtypes
import numpy as np
import torch

# Half a unit in the last place, relative to a value just above a power of two.
HALF_ULP = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
NUMPY_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
AXES = {"thd": "thd", "bshd": "bthd", "bhsd": "bhtd", "sbhd": "tbhd"}  # t: tokens, in whatever order they lie


def plain(rotary_dim, base=10000.0):
    """theta_j = base^(-2j/d)."""
    return base ** (-2.0 * np.arange(rotary_dim // 2) / rotary_dim)


def power(theta, k):
    j = np.arange(len(theta))
    return theta * (1 - j / len(theta)) ** k


def truncated(theta, length):
    upper = 2 * np.pi / length
    return np.where(theta >= upper, theta, np.where(theta >= upper / 8, upper / 16, 0.0))


def turn(x, theta, positions, layout="half_split", start=0, sign=1, magnitude=None):
    """x [batch, tokens, heads, head_dim] at positions [batch or 1, tokens]; exact for |p| < 2^20 or so."""
    x = np.asarray(x, np.float64)
    result = x.copy()
    pairs = len(theta)
    j = np.arange(pairs)
    first, second = (j, j + pairs) if layout == "half_split" else (2 * j, 2 * j + 1)
    angle = sign * np.asarray(positions, np.float64)[:, :, None, None] * theta
    scale = 1.0 if magnitude is None else magnitude(np.asarray(positions, np.float64)[:, :, None, None], j)
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    a, b = x[..., start + first], x[..., start + second]
    result[..., start + first] = a * c - b * s
    result[..., start + second] = b * c + a * s
    return result


def xpos(rotary_dim, sign, scale_base=512.0, gamma=0.4, centre=0):
    """The magnitude of queries (sign +1) or keys (-1)."""

    def magnitude(positions, j):
        zeta = (2 * j / rotary_dim + gamma) / (1 + gamma)
        return zeta ** (sign * (positions - centre) / scale_base)

    return magnitude


def make(kind, type_name, shape, seed=0):
    """Random numbers as a NumPy array or a torch tensor."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(NUMPY_TYPES[type_name])
    if kind == "numpy":
        return values
    if type_name == "bfloat16":
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def exact(x):
    """The values as float64 NumPy, a copy."""
    if isinstance(x, torch.Tensor):
        x = x.detach().double().numpy()
    return np.array(x, np.float64)


def arrange(x, order):
    """[batch, tokens, heads, head_dim] in memory as `order` names its axes; "thd" needs a batch of one."""
    if order == "thd":
        return x[0]
    axes = ["bthd".index(axis) for axis in AXES[order]]
    moved = x.permute(axes).contiguous() if isinstance(x, torch.Tensor) else np.ascontiguousarray(x.transpose(axes))
    return moved


def restore(x, order):
    """The inverse of arrange(), in float64."""
    x = exact(x)
    if order == "thd":
        return x[None]
    return x.transpose([AXES[order].index(axis) for axis in "bthd"])


def assert_close(ours, expected, type_name):
    """Within one rounding of the exact result, and 3e-7 of the vector's norm (float32 arithmetic)."""
    norm = np.linalg.norm(expected, axis=-1, keepdims=True)
    bound = HALF_ULP[type_name] * np.abs(expected) + 3e-7 * norm + (2.0**-25 if type_name == "float16" else 0)
    worst = (np.abs(ours - expected) - bound).max(initial=-np.inf)
    assert worst <= 0, f"beyond the bound by {worst}"
