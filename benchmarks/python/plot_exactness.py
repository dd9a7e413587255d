"""Plot of the largest error of cos and sin over the position, compared with exact arithmetic.

python benchmarks/python/plot_exactness.py [--out benchmarks/results/exactness]    writes .png and .json

The values of ropewalk come from the Python module. Other libraries are emulated in NumPy, following their sources:

- float32 product: float32(position) * float32(inv_freq) (Transformers, FlashInfer, vLLM)
- iterated float32: the angle of pair j + 1 is that of pair j times a constant (ggml)
- float64 product rounded to float32 before the cosine and sine

The exact phase is an integer, position * round(2^128 * inv_freq / 2 pi) modulo 2^128, with inv_freq from mpmath.
"""

import argparse
import json
import platform
from datetime import datetime, timezone
from pathlib import Path

import matplotlib
import mpmath
import numpy as np
import ropewalk as rw
from bench_common import check_writable

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HEAD_DIM, BASE = 128, 10000
PAIRS = HEAD_DIM // 2
SAMPLES = 600
BITS = 128


def exact_frequencies():
    """inv_freq in radians per token (mpmath), and in units of 2^-128 turns per token (integers)."""
    mpmath.mp.prec = 256
    radians = [mpmath.mpf(BASE) ** (-mpmath.mpf(2 * j) / HEAD_DIM) for j in range(PAIRS)]
    return radians, [int(mpmath.nint(theta / (2 * mpmath.pi) * 2**BITS)) for theta in radians]


def exact_angles(positions, steps):
    """float64 [positions, pairs] in [-pi, pi), with an error of at most 2^-52."""
    turns = np.empty((len(positions), PAIRS))
    for i, position in enumerate(positions.tolist()):
        for j, step in enumerate(steps):
            phase = position * step % 2**BITS
            turns[i, j] = (phase - 2**BITS if phase >= 2 ** (BITS - 1) else phase) / 2**BITS
    return turns * (2 * np.pi)


def float32_product(positions, inv_freq):
    return np.float32(positions)[:, None] * np.float32(inv_freq)


def iterated_float32(positions, inv_freq):
    angles = np.empty((len(positions), PAIRS), np.float32)
    ratio = np.float32(BASE) ** np.float32(-2.0 / HEAD_DIM)
    angles[:, 0] = positions
    for j in range(1, PAIRS):
        angles[:, j] = angles[:, j - 1] * ratio
    return angles


def float64_product(positions, inv_freq):
    return np.float32(positions[:, None] * inv_freq)


PEERS = {
    "iterated float32 (ggml)": iterated_float32,
    "float32 product (Transformers, FlashInfer, vLLM)": float32_product,
    "float64 product rounded to float32": float64_product,
}
OURS = "64-bit phase (ropewalk)"


def largest(cos, sin):
    """The largest difference of cos or sin, or NaN."""
    return np.maximum(np.abs(cos), np.abs(sin)).max()


def measure():
    """{name: errors}, with one error per power of two: the largest for positions in its upper half."""
    radians, steps = exact_frequencies()
    inv_freq = np.array([float(theta) for theta in radians])
    encoding = rw.encoding("default", head_dim=HEAD_DIM, base=float(BASE))
    random = np.random.default_rng(2308)
    below = [2**n for n in range(8, 32)]
    errors = {name: [] for name in [*PEERS, OURS]}
    for limit in below:
        positions = np.append(random.integers(limit // 2, limit, SAMPLES), limit - 1)
        angles = exact_angles(positions, steps)
        cos, sin = np.cos(angles), np.sin(angles)
        for name, form in PEERS.items():
            peer = form(positions, inv_freq).astype(np.float64)
            errors[name].append(largest(np.cos(peer) - cos, np.sin(peer) - sin))
        our_cos, our_sin = (np.asarray(values, np.float64) for values in encoding.cos_sin(positions))
        errors[OURS].append(largest(our_cos - cos, our_sin - sin))
    return below, {name: [float(error) for error in values] for name, values in errors.items()}


def plot(below, errors, path):
    plt.rcParams.update({"font.size": 9, "font.family": "DejaVu Sans"})
    figure, axes = plt.subplots(figsize=(7.2, 3.7), dpi=120)
    styles = {OURS: ("#0b6e4f", 2.4)}
    colours = iter(("#c44900", "#d98e04", "#7a7a7a"))
    for name, values in errors.items():
        colour, width = styles.get(name) or (next(colours), 1.5)
        axes.loglog(below, values, color=colour, linewidth=width, label=name)
    axes.axhline(2, color="#bbbbbb", linewidth=0.8, linestyle=":")
    axes.text(below[0], 2.3, "no information left", color="#888888", fontsize=8)
    ticks = {2**12: "4k", 2**15: "32k", 2**17: "128k", 2**20: "1M", 2**24: "16M", 2**31: "2$^{31}$"}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set(ylim=(2e-8, 12), xlabel="position", ylabel="largest error of cos and sin")
    axes.set_title(f"head_dim {HEAD_DIM}, base {BASE}", fontsize=9, color="#555555", loc="right")
    axes.grid(True, axis="y", color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1.0, 0.3))
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/exactness"))
    out = parser.parse_args().out
    if not out.name:
        parser.error(f"--out must be a file name, got {str(out)!r}")
    for suffix in (".png", ".json"):
        check_writable(parser, out.with_suffix(suffix))
    below, errors = measure()
    out.parent.mkdir(parents=True, exist_ok=True)
    plot(below, errors, out.with_suffix(".png"))
    context = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "instruction_set": rw.instruction_set(),
        "ropewalk": rw.__version__,
        "numpy": np.__version__,
    }
    result = {"context": context, "head_dim": HEAD_DIM, "base": BASE, "positions_below": below, "errors": errors}
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    for name, values in errors.items():
        print(f"{name:50s}", *(f"2^{n}: {values[n - 8]:.1e}  " for n in (12, 15, 17, 20, 30, 31)))


if __name__ == "__main__":
    main()
