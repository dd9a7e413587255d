"""What a scheme does to the pairs of a head, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from ropewalk import _ropewalk
from ropewalk._encoding import check_encoding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import SupportsIndex

    from numpy.typing import NDArray

DEFAULT_ORIGINAL_LENGTH = 4096
OF_ENCODING = (
    "expression",
    "head_dim",
    "rotary_dim",
    "rotary_offset",
    "base",
    "layout",
    "sequence_length",
    "inv_freq",
    "attention_factor",
    "softmax_factor",
    "stage",
    "draws_positions",
)
TYPES = ("float32", "bfloat16", "float16")
MOST_DISTANCES = 2**20  # beyond as many, scores are sampled evenly
ERROR_SAMPLES = 512


@dataclass(frozen=True)
class Inspection:
    """The numbers of inspect(). Lengths, distances and wavelengths are tokens; arrays have one entry a pair."""

    expression: str
    about: tuple[str, ...]  # a sentence for each policy
    head_dim: int
    rotary_dim: int
    rotary_offset: int
    base: float
    layout: str
    sequence_length: int | None
    original_length: int
    length: int
    inv_freq: NDArray[np.float64]  # radians a token
    wavelength: NDArray[np.float64]  # 2 pi / inv_freq; infinite for a pair that never turns
    ratio: NDArray[np.float64]  # inv_freq over that of plain RoPE
    shortest_wavelength: float | None  # of the pairs that turn
    longest_wavelength: float | None
    turning_within_original: int  # pairs that complete a full turn
    turning_within_length: int
    never_turning: int
    most_changed_pair: int | None  # the first of those whose frequency moved furthest; None where none moved
    attention_factor: float
    softmax_factor: float
    stage: int
    draws_positions: bool  # then distances are those between the numbers drawn
    max_position: dict[str, int] | None  # by element type; None without xPos
    mean_score_beyond_original: float | None  # mean |score| for distances in (original_length, length]
    float32_error_original: float  # the largest error of cos and sin of float32(p) * float32(inv_freq)
    float32_error_length: float
    error_original: float  # the same for the library's own cos and sin
    error_length: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: lists for arrays, None for what is infinite."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(float(one)) for one in value]
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def inspect(encoding: _ropewalk.Encoding, original_length: int | None = None, length: int | None = None) -> Inspection:
    """Work out what an encoding does to its pairs within the original and within the extended length.

    original_length: tokens of the training before; by default the policies' own original_length, or 4096.
    length: tokens of the extended context; by default original_length times the policies' factor.

    A pair turns fully within n tokens where n * inv_freq >= 2 pi. Errors are the largest over all pairs and up to 512
    positions of the upper half of the length, against 64-bit phases in float64. Throws Error unless both lengths are
    positive, and TypeError unless they are whole numbers.
    """
    check_encoding(encoding)
    original_length, length = lengths(encoding, original_length, length)
    theta, plain = encoding.inv_freq, default_like(encoding).inv_freq
    ratio = theta / plain
    wavelength = wavelengths(encoding)
    with np.errstate(divide="ignore"):
        moved = np.abs(np.log(ratio))
    turning = wavelength[np.isfinite(wavelength)]
    placed = without_draws(encoding)
    beyond = mean_scores(placed, spread(original_length + 1, length))
    float32_original, ours_original = angle_errors(placed, original_length)
    float32_length, ours_length = angle_errors(placed, length)
    return Inspection(
        **{name: getattr(encoding, name) for name in OF_ENCODING},
        about=tuple(one.about for one in policies_of(encoding) if hasattr(one, "about")),
        original_length=original_length,
        length=length,
        wavelength=wavelength,
        ratio=ratio,
        shortest_wavelength=float(turning.min()) if turning.size else None,
        longest_wavelength=float(turning.max()) if turning.size else None,
        turning_within_original=turning_within(wavelength, original_length),
        turning_within_length=turning_within(wavelength, length),
        never_turning=int((theta == 0).sum()),
        most_changed_pair=int(moved.argmax()) if moved.max() > 1e-12 else None,
        max_position={name: encoding.max_position(name) for name in TYPES} if encoding.magnitude_rates.any() else None,
        mean_score_beyond_original=float(np.abs(beyond).mean()) if beyond.size else None,
        float32_error_original=float32_original,
        float32_error_length=float32_length,
        error_original=ours_original,
        error_length=ours_length,
    )


def policies_of(encoding: _ropewalk.Encoding) -> Iterator[_ropewalk.Policy]:
    """One object for each policy, in order."""
    return map(_ropewalk.policy, encoding.expression.split("|"))


def default_like(encoding: _ropewalk.Encoding) -> _ropewalk.Encoding:
    """Plain RoPE of the same geometry."""
    return like(encoding, "default")


def like(encoding: _ropewalk.Encoding, policy: str, sequence_length: int | None = None) -> _ropewalk.Encoding:
    """Another policy with the geometry of this encoding."""
    return _ropewalk.Encoding(
        policy,
        encoding.head_dim,
        encoding.base,
        encoding.rotary_dim,
        encoding.rotary_offset,
        encoding.layout,
        sequence_length,
    )


def without_draws(encoding: _ropewalk.Encoding) -> _ropewalk.Encoding:
    """The same turns at the positions that are given, where policies would draw others."""
    if not encoding.draws_positions:
        return encoding
    kept = [str(one) for one in policies_of(encoding) if not like(encoding, str(one)).draws_positions]
    return like(encoding, "|".join(kept) or "default", encoding.sequence_length)


def factor_of(encoding: _ropewalk.Encoding) -> float:
    """How many times longer the policies make the context, as far as their parameters say."""
    factor = 1.0
    for one in policies_of(encoding):
        factor *= getattr(one, "factor", getattr(one, "alpha", 1.0))
    return factor


def original_length_of(encoding: _ropewalk.Encoding) -> int | None:
    """The first original_length that a policy states."""
    stated = (getattr(one, "original_length", 0) for one in policies_of(encoding))
    return next(filter(None, stated), None)


def lengths(
    encoding: _ropewalk.Encoding, original_length: int | None = None, length: int | None = None
) -> tuple[int, int]:
    """The original and the extended length, where not given."""
    if original_length is None:
        original_length = original_length_of(encoding) or DEFAULT_ORIGINAL_LENGTH
    original_length = in_range("original_length", original_length)
    if length is not None:
        return original_length, in_range("length", length)
    factor = factor_of(encoding)
    if not original_length * factor < 2**31 - 0.5:
        raise _ropewalk.Error(
            f"ropewalk: length must lie in [1, 2^31), got {original_length * factor:g}, the original length of "
            f"{original_length} times the policies' factor of {factor:g}: state length (--length on the command line)"
        )
    return original_length, max(original_length, round(original_length * factor))


def in_range(name: str, value: SupportsIndex) -> int:
    try:
        whole = index(value)
    except TypeError:
        raise TypeError(f"ropewalk: {name} must be a whole number of tokens, got {value!r}") from None
    if not 0 < whole < 2**31:
        raise _ropewalk.Error(f"ropewalk: {name} must lie in [1, 2^31), got {whole}")
    return whole


def wavelengths(encoding: _ropewalk.Encoding) -> NDArray[np.float64]:
    """[pairs], tokens; infinite for a pair that never turns."""
    with np.errstate(divide="ignore"):
        return 2 * np.pi / encoding.inv_freq


def turning_within(wavelength: NDArray[np.float64], length: int) -> int:
    return int((wavelength <= length).sum())


def spread(first: int, last: int) -> NDArray[np.int64]:
    """The distances first ... last, evenly thinned out to at most MOST_DISTANCES."""
    return np.arange(first, last + 1, max(1, -(-(last - first + 1) // MOST_DISTANCES)), dtype=np.int64)


def mean_scores(encoding: _ropewalk.Encoding, distances: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean over the pairs of what two like tokens so far apart add to a score.

    cos(d * inv_freq) * 2**(-d * decay) * attention_factor**2; the score of two equal vectors of equal pairs is
    proportional to it (RoFormer, arXiv 2104.09864, section 3.4.3).
    """
    decay = encoding.magnitude_rates
    scores = np.empty(len(distances))
    for start in range(0, len(distances), 8192):
        some = distances[start : start + 8192]
        cos, _ = encoding.cos_sin(some)
        if decay.any():
            cos = cos * np.exp2(-some[:, None] * decay)
        scores[start : start + len(some)] = cos.mean(axis=1, dtype=np.float64)
    return scores * encoding.attention_factor**2


def angle_errors(encoding: _ropewalk.Encoding, length: int) -> tuple[float, float]:
    """The largest error of cos and sin near the end of the length: of the float32 product, and of the library."""
    positions = np.unique(np.linspace(length // 2, length - 1, ERROR_SAMPLES).astype(np.int64))
    # Products of unsigned integers wrap, which is the reduction to one turn.
    phases = (positions.astype(np.uint64)[:, None] * encoding.steps).astype(np.int64)
    exact = phases * (2.0**-64 * 2 * np.pi)
    product = (positions.astype(np.float32)[:, None] * encoding.inv_freq.astype(np.float32)).astype(np.float64)
    ours = encoding.cos_sin(positions)
    worst = [0.0, 0.0]
    for i, (cos, sin) in enumerate(((np.cos(product), np.sin(product)), ours)):
        worst[i] = max(float(np.abs(cos - np.cos(exact)).max()), float(np.abs(sin - np.sin(exact)).max()))
    return worst[0], worst[1]
