"""CPU benchmark of forward and backward passes through PyTorch: ropewalk and other rotary implementations.

python benchmarks/python/bench_training.py [--tokens 128,4096] [--threads 1,2] [--types f32,bf16]

Rotates the queries and keys of Llama-2-13B (40 + 40 heads of 128), out of place as autograd requires. A pass is the
rotation of both and the backward pass of a gradient. Candidates run alternately in a random order, and medians are
compared with PyTorch's in-place scale of as many bytes. The tables of the peers are precomputed and not timed.
Gradients are first checked against float64.
"""

import argparse
from pathlib import Path

import ropewalk as rw
import torch
from bench_common import check_writable, counts, types_among
from bench_peers import BASE, HALF, HEAD_DIM, INTERLEAVED, OFFSET, Case, print_table, save, time_candidates

# Relative to the largest element of the gradient. A bfloat16 table alone has an error of 4e-3, and peers round twice.
TOLERANCE = {"f32": 1e-5, "bf16": 4e-2}


def through(case, rotate):
    """A forward pass, and a backward pass from precomputed gradients."""
    q, k = (x.detach().clone().requires_grad_() for x in (case.q, case.k))
    gradients = (case.q.clone(), case.k.clone())

    def run():
        return torch.autograd.grad(rotate(q, k), (q, k), gradients)

    return run


def exact_gradient(case, layout):
    """The exact backward pass of gradients equal to q and k, at the last token."""
    x = case.both[:, -1].double()
    cos, sin = case.angles[-1].cos(), case.angles[-1].sin()
    if layout == HALF:
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos + b * sin, b * cos - a * sin), dim=-1).flatten(-2)


def candidates_of(case, threads):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    def eager(q, k):
        q, k = apply_rotary_pos_emb(q[None], k[None], case.cos, case.sin, unsqueeze_dim=2)
        return q[0], k[0]

    def complex_product(q, k):
        unit = case.unit[:, None]
        pairs = (torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)) * unit for x in (q, k))
        return tuple(torch.view_as_real(x).flatten(-2) for x in pairs)

    def ropewalk(layout):
        enc = rw.encoding("default", head_dim=HEAD_DIM, base=BASE, layout=layout)
        return lambda q, k: rw.rotate(q, k, encoding=enc, offset=OFFSET, threads=threads)

    torch._dynamo.reset()
    named = [
        ("Hugging Face, eager", HALF, eager),
        ("Hugging Face, torch.compile", HALF, torch.compile(eager)),
        ("ropewalk, half_split", HALF, ropewalk(HALF)),
        ("ropewalk, interleaved", INTERLEAVED, ropewalk(INTERLEAVED)),
    ]
    if case.name == "f32":
        named.insert(2, ("complex product", INTERLEAVED, complex_product))
    return [(name, layout, through(case, rotate)) for name, layout, rotate in named]


def measure(name, tokens, threads):
    torch.set_num_threads(threads)
    case = Case(name, tokens)
    candidates = candidates_of(case, threads)
    rows = []
    for label, layout, run in candidates:
        exact = exact_gradient(case, layout)
        found = torch.stack([x[-1] for x in run()]).double()
        error = float((found - exact).abs().max() / exact.abs().max())
        if not error <= TOLERANCE[name]:
            raise SystemExit(f"{label}, {name}, {tokens} tokens: the error of the gradient is {error:.2e}")
        rows.append({"candidate": label, "layout": layout, "type": name, "tokens": tokens, "threads": threads})
    times = time_candidates(case, candidates)
    for row in rows:
        row["milliseconds"] = times[row["candidate"]] * 1e3
        row["ratio_to_scale"] = times["scale"] / times[row["candidate"]]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=counts, default="128,4096")
    parser.add_argument("--threads", type=counts, default="1,2")
    parser.add_argument("--types", type=types_among(TOLERANCE.keys()), default="f32,bf16")
    parser.add_argument("--out", type=Path, default=Path("build/training.json"))
    options = parser.parse_args()
    check_writable(parser, options.out)
    tokens = options.tokens
    rows = []
    for name in options.types:
        for threads in options.threads:
            part = [row for n in tokens for row in measure(name, n, threads)]
            print_table(part, tokens)
            rows += part
    save(rows, options.out)


if __name__ == "__main__":
    main()
