"""The policy classes for type checkers, written by tools/stubs.py. This module does not exist at run time."""

from collections.abc import Sequence
from typing import ClassVar

from ropewalk._ropewalk import Policy

class Default(Policy):
    """Plain RoPE: pair j rotates by base^(-2j/d) radians per token."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(self) -> None: ...
    @staticmethod
    def example() -> Default: ...

class Linear(Policy):
    """Position interpolation: every pair rotates factor times slower."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(self, factor: float) -> None: ...
    @property
    def factor(self) -> float: ...
    @staticmethod
    def example() -> Linear: ...

class Power(Policy):
    """Scales frequency j by (1 - 2j/d)^k: the fastest hardly change, the slowest nearly stop."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(self, k: float) -> None: ...
    @property
    def k(self) -> float: ...
    @staticmethod
    def example() -> Power: ...

class Truncated(Policy):
    """Keeps high frequencies, sets medium ones to a single low frequency and low ones to zero."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(
        self, length: float | None = None, a: float | None = None, b: float | None = None, rho: float | None = None
    ) -> None: ...
    @property
    def length(self) -> float | None: ...
    @property
    def a(self) -> float | None: ...
    @property
    def b(self) -> float | None: ...
    @property
    def rho(self) -> float | None: ...
    @staticmethod
    def example() -> Truncated: ...

class Ntk(Policy):
    """A larger base: the fastest pair stays, the slowest rotates alpha times slower."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(self, alpha: float) -> None: ...
    @property
    def alpha(self) -> float: ...
    @staticmethod
    def example() -> Ntk: ...

class DynamicNtk(Policy):
    """NTK scaling that grows as the sequence exceeds the original length."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(self, factor: float, original_length: int = 0) -> None: ...
    @property
    def factor(self) -> float: ...
    @property
    def original_length(self) -> int: ...
    @staticmethod
    def example() -> DynamicNtk: ...

class Yarn(Policy):
    """Keeps high frequencies, slows low ones by factor and sharpens attention."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(
        self,
        factor: float,
        original_length: int = 0,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        truncate: bool = True,
        attention_factor: float | None = None,
        mscale: float | None = None,
        mscale_all_dim: float | None = None,
    ) -> None: ...
    @property
    def factor(self) -> float: ...
    @property
    def original_length(self) -> int: ...
    @property
    def beta_fast(self) -> float: ...
    @property
    def beta_slow(self) -> float: ...
    @property
    def truncate(self) -> bool: ...
    @property
    def attention_factor(self) -> float | None: ...
    @property
    def mscale(self) -> float | None: ...
    @property
    def mscale_all_dim(self) -> float | None: ...
    @staticmethod
    def example() -> Yarn: ...

class Llama3(Policy):
    """Keeps short wavelengths, slows long ones by factor and interpolates between the two."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(
        self,
        factor: float = 8.0,
        low_freq_factor: float = 1.0,
        high_freq_factor: float = 4.0,
        original_length: int = 8192,
    ) -> None: ...
    @property
    def factor(self) -> float: ...
    @property
    def low_freq_factor(self) -> float: ...
    @property
    def high_freq_factor(self) -> float: ...
    @property
    def original_length(self) -> int: ...
    @staticmethod
    def example() -> Llama3: ...

class LongRope(Policy):
    """Divides each frequency by its own factor, from a second list beyond the original length."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(
        self,
        short_factor: Sequence[float] = [],
        long_factor: Sequence[float] = [],
        factor: float = 1.0,
        original_length: int = 0,
        attention_factor: float | None = None,
    ) -> None: ...
    @property
    def short_factor(self) -> list[float]: ...
    @property
    def long_factor(self) -> list[float]: ...
    @property
    def factor(self) -> float: ...
    @property
    def original_length(self) -> int: ...
    @property
    def attention_factor(self) -> float | None: ...
    @staticmethod
    def example() -> LongRope: ...

class Proportional(Policy):
    """Rotates only the first part of the pairs and leaves the others unchanged."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(self, partial_rotary_factor: float, factor: float = 1.0) -> None: ...
    @property
    def partial_rotary_factor(self) -> float: ...
    @property
    def factor(self) -> float: ...
    @staticmethod
    def example() -> Proportional: ...

class XPos(Policy):
    """Scales queries up and keys down along the sequence, so that scores decay with the distance."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(self, scale_base: float = 512.0, gamma: float = 0.4, length: int = 0) -> None: ...
    @property
    def scale_base(self) -> float: ...
    @property
    def gamma(self) -> float: ...
    @property
    def length(self) -> int: ...
    @staticmethod
    def example() -> XPos: ...

class Randomized(Policy):
    """Ascending random positions that never exceed the length, for training."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(self, length: int = 0, epsilon: float = 0.0, seed: int = 0, draw: int = 0) -> None: ...
    @property
    def length(self) -> int: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def draw(self) -> int: ...
    @staticmethod
    def example() -> Randomized: ...

class RandomizedSorted(Policy):
    """Sorted random integer positions from a longer range, for training."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(self, range: int, seed: int = 0, draw: int = 0) -> None: ...
    @property
    def range(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def draw(self) -> int: ...
    @staticmethod
    def example() -> RandomizedSorted: ...

class MRope(Policy):
    """Three positions per token (time, height, width), each used by its own section of pairs."""

    name: ClassVar[str]
    about: ClassVar[str]
    def __init__(self, sections: Sequence[int], interleaved: bool = False) -> None: ...
    @property
    def sections(self) -> list[int]: ...
    @property
    def interleaved(self) -> bool: ...
    @staticmethod
    def example() -> MRope: ...
