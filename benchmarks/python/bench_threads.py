"""PyTorch and ropewalk in turn, on the same threads: what going from one to the other costs.

python benchmarks/python/bench_threads.py [--tokens 16,128,4096] [--threads 1,2]

An operation of PyTorch and the rotation of Llama-2-13B's queries and keys (40 + 40 heads of 128, float32, in place) run
alone and one after the other on the same memory; they take turns, at least 7 times, and medians are compared. The ratio
is the time of both alone divided by the time of the two in turn: 1 where nothing is lost, less where threads of one
hinder those of the other or have to be woken. The scale is element by element, on PyTorch's OpenMP threads; the product
is that of the tokens with a 1024 x 1024 matrix, from the linear algebra library below PyTorch.
"""

import argparse
from pathlib import Path

import ropewalk as rw
import torch
from bench_common import check_writable, counts
from bench_peers import BASE, HALF, HEAD_DIM, OFFSET, Case, contest, save


def operations(case):
    """[(name, run)]: what PyTorch does before each rotation."""
    turns = [2.0, 0.5]
    tokens = torch.randn(case.tokens, 1024)
    weight, product = torch.randn(1024, 1024), torch.empty_like(tokens)

    def scale():
        case.both.mul_(turns[0])
        turns.reverse()

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
        raise SystemExit(f"{tokens} tokens: the rotation is wrong by {error:.2e} of the norm")
    named = operations(case)
    alone = [("rotate", HALF, rotate), *((name, None, run) for name, run in named)]
    times = contest(case, alone + [(f"{name}, rotate", None, in_turn(run)) for name, run in named])
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
