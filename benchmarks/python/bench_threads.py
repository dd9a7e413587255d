"""Benchmark of alternating calls of PyTorch and ropewalk on the same threads.

python benchmarks/python/bench_threads.py [--tokens 16,128,4096] [--threads 1,2]

Times an operation of PyTorch, the rotation of the queries and keys of Llama-2-13B (40 + 40 heads of 128, float32, in
place), and one after the other on the same memory. The ratio is the sum of the two separate times divided by the time
of both in turn. It is 1 without a loss, and less if the threads of one hinder those of the other or must wake up. The
operations are an in-place scale, on PyTorch's OpenMP threads, and a product of the tokens with a 1024 x 1024 matrix,
from PyTorch's linear algebra library.
"""

import argparse
from pathlib import Path

import ropewalk as rw
import torch
from bench_common import check_writable, counts
from bench_peers import BASE, HALF, HEAD_DIM, OFFSET, Case, save, time_candidates


def operations(case):
    """[(name, run)] of the PyTorch operations."""
    factors = [2.0, 0.5]
    tokens = torch.randn(case.tokens, 1024)
    weight, product = torch.randn(1024, 1024), torch.empty_like(tokens)

    def scale():
        case.both.mul_(factors[0])
        factors.reverse()

    def matmul():
        torch.mm(tokens, weight, out=product)

    return [("in-place scale", scale), ("matrix product", matmul)]


def measure(tokens, threads):
    torch.set_num_threads(threads)
    case = Case("f32", tokens)
    encoding = rw.encoding("default", head_dim=HEAD_DIM, base=BASE)

    def rotate():
        rw.rotate_(case.q, case.k, encoding=encoding, offset=OFFSET)

    def in_turn(operation):
        def both():
            operation()
            rotate()

        return both

    error = case.error(rotate, HALF)
    if not error <= 2e-6:
        raise SystemExit(f"{tokens} tokens: the error of the rotation is {error:.2e} of the norm")
    named = operations(case)
    alone = [("rotate", HALF, rotate), *((name, None, run) for name, run in named)]
    times = time_candidates(case, alone + [(f"{name}, rotate", None, in_turn(run)) for name, run in named])
    return [
        {
            "operation": name,
            "tokens": tokens,
            "threads": threads,
            "milliseconds": times[name] * 1e3,
            "rotate_milliseconds": times["rotate"] * 1e3,
            "in_turn_milliseconds": times[f"{name}, rotate"] * 1e3,
            "ratio": (times[name] + times["rotate"]) / times[f"{name}, rotate"],
        }
        for name, _ in named
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=counts, default="16,128,4096")
    parser.add_argument("--threads", type=counts, default="1,2")
    parser.add_argument("--out", type=Path, default=Path("build/threads.json"))
    options = parser.parse_args()
    check_writable(parser, options.out)
    rows = []
    titles = ("threads", "tokens", "alone", "rotate", "in turn", "ratio")
    print(f"{'milliseconds':16s}", *(f"{title:>8s}" for title in titles))
    for threads in options.threads:
        for tokens in options.tokens:
            for row in measure(tokens, threads):
                rows.append(row)
                times = (row[name] for name in ("milliseconds", "rotate_milliseconds", "in_turn_milliseconds"))
                numbers = (f"{number:8.3f}" for number in (*times, row["ratio"]))
                print(f"{row['operation']:16s} {threads:8d} {tokens:8d}", *numbers)
    save(rows, options.out)


if __name__ == "__main__":
    main()
