"""Program of a user, which mypy --strict checks (`tools/lint types`) and test_types.py runs.

The last lines are mistakes, each with the error that mypy must report: an unused `type: ignore` is an error, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
import ropewalk as rw
import torch
from numpy.typing import NDArray


def encodings() -> list[rw.Encoding]:
    policy: rw.Policy = rw.Linear(4) | rw.Truncated(length=4096) | "xpos:512"
    described = rw.encoding(policy, head_dim=128, base=5e5, rotary_dim=64, layout="interleaved")
    yarn = rw.Yarn(16, original_length=4096, mscale=None)
    steepness: float = yarn.beta_fast + rw.Power(0.5).k
    factors: list[float] = rw.LongRope([1.0, 2.0], long_factor=(4, 8.5)).long_factor
    assert steepness > 0 and factors == [4.0, 8.5]
    configuration: dict[str, Any] = rw.to_hf_config(rw.encoding(yarn, 128))
    overrides: dict[str, Any] = rw.to_vllm_overrides(rw.encoding(yarn, 128))
    flags: str = rw.to_llama_cpp_flags(rw.encoding(yarn, 128))
    assert overrides.keys() <= configuration.keys() and flags.startswith("--rope-scaling")
    read = rw.from_config(
        {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, **configuration}, sequence_length=8192
    )
    return [described, read, rw.encoding("default", head_dim=64, sequence_length=100)]


def numbers(encoding: rw.Encoding) -> NDArray[np.float64]:
    frequencies: NDArray[np.float64] = encoding.inv_freq
    name: str = encoding.policy.__class__.__name__ + encoding.expression + rw.Linear.name
    width: int = encoding.rotary_dim
    assert name and width == 2 * frequencies.size
    return rw.alibi_slopes(8) * encoding.attention_factor


def rotate(q: torch.Tensor, k: NDArray[np.float32], encoding: rw.Encoding) -> None:
    ids = torch.arange(q.shape[0])
    both: tuple[torch.Tensor, torch.Tensor] = rw.rotate(q, q.clone(), encoding=encoding, positions=ids, threads=2)
    keys: NDArray[np.float32] = rw.rotate(None, k, encoding=encoding, out=k.copy())
    parameter: torch.Tensor = rw.rotate(torch.nn.Parameter(q), encoding=encoding, order="thd", table=None)
    half, whole = rw.rotate(k.astype(np.float16), k.astype(np.float16), encoding=encoding)
    dtype: np.dtype[Any] = whole.dtype if half.ndim == 3 else keys.dtype
    in_place: NDArray[np.float32] = rw.rotate_(k, encoding=encoding, positions=[3] * k.shape[0], inverse=True)
    mixed: tuple[torch.Tensor, NDArray[np.float32]] = rw.rotate_(q, torch.ones(5, 2, 64).numpy(), encoding=encoding)
    moved: NDArray[np.float32] = rw.rerotate_(k, encoding, encoding, new_offset=7)
    assert parameter.ndim == 3 and dtype == np.float16 and in_place is k and moved is k and mixed[0] is q
    module: torch.nn.Module = rw.RotaryEmbedding(encoding.head_dim, "linear:8", layout="half_split")
    module = rw.RotaryEmbedding(encoding.head_dim, encoding, order="thd")
    assert len(both) == 2 and module(q).shape == q.shape


def append(packed: torch.Tensor, cache: torch.Tensor, encoding: rw.Encoding) -> None:
    q, k, v = rw.split_qkv(packed, 4, 2, encoding.head_dim)
    slots = torch.arange(q.shape[0])
    same: torch.Tensor = rw.append(
        q, k, v, encoding=encoding, k_cache=cache[:, 0], v_cache=cache[:, 1], slot_mapping=slots, positions=slots
    )
    weight = torch.ones(encoding.head_dim)
    new, *_ = rw.fused(q, k, encoding=encoding, q_weight=weight, epsilon=1e-5, dtype=torch.float8_e4m3fn, q_scale=2.0)
    assert same is q and new.dtype == torch.float8_e4m3fn and rw.norm_rotate_(q, encoding=encoding, offset=3) is q


def refused(value: str) -> str:
    try:
        rw.policy(value)
    except rw.Error as problem:
        return str(problem)
    return ""


def main() -> None:
    first, *_, last = encodings()
    assert numbers(first).shape == (8,)
    rotate(torch.randn(5, 2, 64), np.ones((5, 2, 64), np.float32), last)
    append(torch.randn(5, 8 * 64), torch.zeros(2, 2, 4, 2, 64), last)
    report: rw.Inspection = rw.inspect(last, 4096)
    write: Callable[[rw.Encoding, str], Path] = rw.write_hf_config
    assert report and callable(write) and "unknown policy" in refused("liner:8")


if TYPE_CHECKING:
    rw.Lineer(8)  # type: ignore[attr-defined]
    rw.rotat(torch.zeros(1))  # type: ignore[attr-defined]
    rw.Linear("8")  # type: ignore[arg-type]
    _ = rw.Linear(8).alpha  # type: ignore[attr-defined]
    rw.Yarn(8, original_lenght=4096)  # type: ignore[call-arg]
    rw.encoding(8, head_dim=128)  # type: ignore[arg-type]
    rw.encoding("default")  # type: ignore[call-arg]
    rw.rotate(torch.zeros(1))  # type: ignore[call-overload]
    rw.RotaryEmbedding(64, bse=5e5)  # type: ignore[call-arg]
    rw.RotaryEmbedding(64, layout="interlaced")  # type: ignore[arg-type]
    rw.RotaryEmbedding(64).forward(torch.zeros(1), ofset=3)  # type: ignore[call-arg]
    rw.rotate_(torch.zeros(1), encoding="linear:8")  # type: ignore[arg-type]
    rw.rotate(torch.zeros(1), encoding=rw.encoding("default", 8), layout="half_split")  # type: ignore[call-overload]
    rw.rotate_([1.0], encoding=rw.encoding("default", 8))  # type: ignore[call-overload]
    _ = rw.rotate(torch.zeros(1), encoding=rw.encoding("default", 8)).nothing  # type: ignore[attr-defined]
    _ = rw.rotate_(np.zeros(1), encoding=rw.encoding("default", 8)).cpu()  # type: ignore[attr-defined]
    rw.encoding("default", 128).head_dim = 64  # type: ignore[misc]


if __name__ == "__main__":
    main()
