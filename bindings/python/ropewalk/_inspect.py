"""Numbers that describe the effect of an encoding on the pairs of a head."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
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
MAX_DISTANCES = 2**20  # more than these are sampled evenly
ERROR_SAMPLES = 512


@dataclass(frozen=True)
class Inspection:
    """The result of inspect().

    Lengths, distances and wavelengths are in tokens. Arrays have one entry per pair. A full turn is 2 pi radians.
    """

    expression: str
    about: tuple[str, ...]  # one sentence per policy
    head_dim: int
    rotary_dim: int
    rotary_offset: int
    base: float
    layout: str
    sequence_length: int | None
    original_length: int
    length: int
    inv_freq: NDArray[np.float64]  # radians per token
    wavelength: NDArray[np.float64]  # 2 pi / inv_freq; infinite for a frequency of 0
    ratio: NDArray[np.float64]  # inv_freq divided by that of plain RoPE
    shortest_wavelength: float | None  # of the pairs with a finite one
    longest_wavelength: float | None
    full_turns_within_original: int  # number of pairs that complete a full turn
    full_turns_within_length: int
    never_rotating: int  # number of pairs with a frequency of 0
    most_changed_pair: int | None  # the first pair with the largest change of frequency; None without a change
    attention_factor: float
    softmax_factor: float
    stage: int
    draws_positions: bool  # if so, distances are those between the positions drawn
    max_position: dict[str, int] | None  # per element type; None without xPos
    mean_score_beyond_original: float | None  # mean |score| for distances in (original_length, length]
    float32_error_original: float  # largest error of cos and sin of float32(p) * float32(inv_freq)
    float32_error_length: float
    error_original: float  # the same for the library's own cos and sin
    error_length: float

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON: lists for arrays, None for infinity."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    def __str__(self) -> str:
        """Return one line: the encoding, the lengths and the largest change."""
        from ropewalk import _card

        return f"{_card.brief(self.expression)}: {_card.lengths_of(self)}; {_card.change_of(self)}"

    def _repr_html_(self) -> str:
        from ropewalk import _html

        return _html.of_inspection(self)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(float(number)) for number in value]
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def inspect(encoding: _ropewalk.Encoding, original_length: int | None = None, length: int | None = None) -> Inspection:
    """Compute the effect of an encoding on its pairs within the original and within the extended length.

    Errors are the largest ones over all pairs and up to 512 positions of the upper half of the length, compared with
    64-bit phases in float64.

    Args:
        encoding: From encoding() or from_config().
        original_length: Tokens of the original training. The default is the policies' own original_length, or 4096.
        length: Tokens of the extended context. The default is original_length times the policies' factor.

    Returns:
        Frequencies, wavelengths, scores and errors; to_dict() makes them JSON.

    Raises:
        Error: A length is not in [1, 2^31).
        TypeError: encoding is no Encoding, or a length is no integer.
    """
    check_encoding(encoding)
    original_length, length = lengths(encoding, original_length, length)
    theta, plain = encoding.inv_freq, default_like(encoding).inv_freq
    ratio = theta / plain
    wavelength = wavelengths(encoding)
    with np.errstate(divide="ignore"):
        moved = np.abs(np.log(ratio))
    finite = wavelength[np.isfinite(wavelength)]
    fixed = without_draws(encoding)
    beyond = mean_scores(fixed, sampled_distances(original_length + 1, length))
    float32_original, ours_original = angle_errors(fixed, original_length)
    float32_length, ours_length = angle_errors(fixed, length)
    return Inspection(
        **{name: getattr(encoding, name) for name in OF_ENCODING},
        about=tuple(policy.about for policy in policies_of(encoding) if hasattr(policy, "about")),
        original_length=original_length,
        length=length,
        wavelength=wavelength,
        ratio=ratio,
        shortest_wavelength=float(finite.min()) if finite.size else None,
        longest_wavelength=float(finite.max()) if finite.size else None,
        full_turns_within_original=int((wavelength <= original_length).sum()),
        full_turns_within_length=int((wavelength <= length).sum()),
        never_rotating=int((theta == 0).sum()),
        most_changed_pair=int(moved.argmax()) if moved.max() > 1e-12 else None,
        max_position={name: encoding.max_position(name) for name in TYPES} if encoding.magnitude_rates.any() else None,
        mean_score_beyond_original=float(np.abs(beyond).mean()) if beyond.size else None,
        float32_error_original=float32_original,
        float32_error_length=float32_length,
        error_original=ours_original,
        error_length=ours_length,
    )


def policies_of(encoding: _ropewalk.Encoding) -> Iterator[_ropewalk.Policy]:
    """Return the policy objects in order."""
    return map(_ropewalk.policy, encoding.expression.split("|"))


def default_like(encoding: _ropewalk.Encoding) -> _ropewalk.Encoding:
    """Return plain RoPE of the same geometry."""
    return like(encoding, "default")


def like(
    encoding: _ropewalk.Encoding, policy: str, sequence_length: int | None = None, base: float | None = None
) -> _ropewalk.Encoding:
    """Return another policy with the geometry of this encoding, or with another base."""
    return _ropewalk.Encoding(
        policy,
        encoding.head_dim,
        encoding.base if base is None else base,
        encoding.rotary_dim,
        encoding.rotary_offset,
        encoding.layout,
        sequence_length,
    )


def without_draws(encoding: _ropewalk.Encoding) -> _ropewalk.Encoding:
    """Return the encoding without the policies that draw positions."""
    if not encoding.draws_positions:
        return encoding
    kept = [str(policy) for policy in policies_of(encoding) if not like(encoding, str(policy)).draws_positions]
    return like(encoding, "|".join(kept) or "default", encoding.sequence_length)


def factor_of(encoding: _ropewalk.Encoding) -> float:
    """Return the product of the policies' factors, by which they extend the context."""
    return math.prod(getattr(policy, "factor", getattr(policy, "alpha", 1.0)) for policy in policies_of(encoding))


def original_length_of(encoding: _ropewalk.Encoding) -> int | None:
    """Return the first original_length that a policy states."""
    stated = (getattr(policy, "original_length", 0) for policy in policies_of(encoding))
    return next(filter(None, stated), None)


def lengths(
    encoding: _ropewalk.Encoding, original_length: int | None = None, length: int | None = None
) -> tuple[int, int]:
    """Return the original and the extended length, with defaults for None."""
    if original_length is None:
        original_length = original_length_of(encoding) or DEFAULT_ORIGINAL_LENGTH
    original_length = in_range("original_length", original_length)
    if length is not None:
        return original_length, in_range("length", length)
    factor = factor_of(encoding)
    if not original_length * factor < 2**31 - 0.5:
        raise _ropewalk.Error(
            f"ropewalk: length must be in [1, 2^31), got {original_length * factor:g}, the original length of "
            f"{original_length} times the policies' factor of {factor:g}; pass length (--length on the command line)"
        )
    return original_length, max(original_length, round(original_length * factor))


def in_range(name: str, value: SupportsIndex) -> int:
    whole = _ropewalk.as_int(value, name)
    if not 0 < whole < 2**31:
        raise _ropewalk.Error(f"ropewalk: {name} must be in [1, 2^31), got {whole}")
    return whole


def wavelengths(encoding: _ropewalk.Encoding) -> NDArray[np.float64]:
    """Return the tokens per full turn: [pairs], infinite for a frequency of 0."""
    with np.errstate(divide="ignore"):
        return 2 * np.pi / encoding.inv_freq


def sampled_distances(first: int, last: int) -> NDArray[np.int64]:
    """Return the distances first ... last, or an even sample of at most MAX_DISTANCES."""
    return np.arange(first, last + 1, max(1, -(-(last - first + 1) // MAX_DISTANCES)), dtype=np.int64)


def mean_scores(encoding: _ropewalk.Encoding, distances: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the score of two identical tokens at each distance, as a mean over the pairs.

    A pair contributes cos(d * inv_freq) * 2**(-d * magnitude_rate) * attention_factor**2. The score of two equal
    vectors of equal pairs is proportional to the mean (RoFormer, arXiv 2104.09864, section 3.4.3).
    """
    rates = encoding.magnitude_rates
    scores = np.empty(len(distances))
    for start in range(0, len(distances), 8192):
        part = distances[start : start + 8192]
        cos, _ = encoding.cos_sin(part)
        if rates.any():
            cos = cos * np.exp2(-part[:, None] * rates)
        scores[start : start + len(part)] = cos.mean(axis=1, dtype=np.float64)
    return scores * encoding.attention_factor**2


def angle_errors(encoding: _ropewalk.Encoding, length: int) -> tuple[float, float]:
    """Return the largest errors of cos and sin in the upper half of the length: of a float32 product, of ropewalk."""
    positions = np.unique(np.linspace(length // 2, length - 1, ERROR_SAMPLES).astype(np.int64))
    # Products of unsigned integers wrap, which reduces the phase to one turn.
    phases = (positions.astype(np.uint64)[:, None] * encoding.steps).astype(np.int64)
    exact = phases * (2.0**-64 * 2 * np.pi)
    product = (positions.astype(np.float32)[:, None] * encoding.inv_freq.astype(np.float32)).astype(np.float64)
    ours = encoding.cos_sin(positions)
    worst = [0.0, 0.0]
    for i, (cos, sin) in enumerate(((np.cos(product), np.sin(product)), ours)):
        worst[i] = max(float(np.abs(cos - np.cos(exact)).max()), float(np.abs(sin - np.sin(exact)).max()))
    return worst[0], worst[1]
