"""Demonstration of ropewalk on PyTorch tensors. Needs the installed package and PyTorch, and no other file.

python demo_torch.py [tokens]

Rotates queries and keys of Llama-2-13B in place with several policies and compares tokens with float64. Measures the
time, with that of an in-place scale of the same memory and of the usual rotation in PyTorch. Fails if a result differs.
"""

import argparse
import sys
import time

import ropewalk as rw
import torch

HEADS, HEAD_DIM = 40, 128
POLICIES = (
    "default",
    "linear:8",
    "power:0.5",
    "truncated:4096",
    "linear:4|truncated:4096",
    "yarn:8,original_length=4096",
)
TOLERANCE = {torch.float32: 0.0, torch.bfloat16: 2.0**-8}  # relative: one rounding
REPEATS = 3


def rotate_half(x, cos, sin):
    """The rotation that most models write in PyTorch, in the layout half_split."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def exact(x, enc, positions):
    """The encoding of x [tokens, heads, head_dim] in float64."""
    angle = positions.double()[:, None, None] * torch.from_numpy(enc.inv_freq)
    cos, sin = (torch.cat((part, part), dim=-1) * enc.attention_factor for part in (angle.cos(), angle.sin()))
    return rotate_half(x.double(), cos, sin)


def milliseconds(call):
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def run(policy, dtype, tokens):
    """Rotates, compares and measures. Returns whether the result is right."""
    enc = rw.encoding(policy, head_dim=HEAD_DIM)
    q, k = (torch.randn(tokens, HEADS, HEAD_DIM, dtype=dtype) for _ in range(2))
    positions = torch.tensor([0, 1, tokens // 3, tokens - 1])
    expected = exact(q[positions], enc, positions)
    rw.rotate_(q, k, encoding=enc)
    error = (q[positions].double() - expected).abs()
    correct = bool((error <= TOLERANCE[dtype] * expected.abs() + 5e-6).all())
    ours = milliseconds(lambda: rw.rotate_(q, k, encoding=enc))
    scale = milliseconds(lambda: (q.mul_(1.0), k.mul_(1.0)))
    cos, sin = (part.to(dtype)[:, None] for part in enc.cos_sin(torch.arange(tokens), elementwise=True))
    usual = milliseconds(lambda: (rotate_half(q, cos, sin), rotate_half(k, cos, sin)))
    name = str(dtype).removeprefix("torch.")
    print(
        f"{policy:28s} {name:9s} {ours:8.1f} ms  {scale / ours:5.2f} of the scale  {usual / ours:5.1f} x PyTorch  "
        f"largest error {error.max():.1e}{'' if correct else '  WRONG'}",
        flush=True,
    )
    return correct


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=int, nargs="?", default=4096)
    tokens = parser.parse_args().tokens
    if tokens < 1:
        parser.error(f"tokens must be positive, got {tokens}")
    torch.manual_seed(0)
    print(
        f"ropewalk {rw.__version__}, PyTorch {torch.__version__}, {rw.instruction_set()}, "
        f"{torch.get_num_threads()} threads; q and k [{tokens}, {HEADS}, {HEAD_DIM}]"
    )
    results = [run(policy, dtype, tokens) for dtype in TOLERANCE for policy in POLICIES]
    if not all(results):
        sys.exit("a result differs from float64")


if __name__ == "__main__":
    main()
