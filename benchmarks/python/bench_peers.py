"""CPU benchmark of ropewalk and of other rotary implementations for PyTorch.

python benchmarks/python/bench_peers.py [--tokens 1,128,4096,32768] [--threads 1,2] [--types f32,bf16]

Rotates the queries and keys of Llama-2-13B (40 + 40 heads of 128). Every candidate is first checked against float64.
Then all candidates and PyTorch's in-place float32 scale of as many bytes run alternately, 9 times in a random order.
The ratio is the median time of the scale divided by that of the candidate. The tables of the peers are precomputed in
the type of the tensor, like in Transformers, and not timed; ropewalk computes its angles in every call. After
`cmake --build build --target bench_kernel` the C++ kernel is also timed on the same memory without Python. PyTorch's
allocator provides the results out of place, except for `out=`, whose pages are mapped before.
"""

import argparse
import ctypes
import json
import platform
import random
import statistics
import time
from collections import defaultdict
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path

import ropewalk as rw
import torch
from bench_common import (
    BASE,
    HALF,
    HEAD_DIM,
    INTERLEAVED,
    OFFSET,
    check_writable,
    commit,
    counts,
    installed,
    pairs_of,
    types_among,
)

HEADS = 40
ROUNDS = 9
SAMPLE_SECONDS = 2e-3
LONG_SECONDS = 0.2  # longer passes are not warmed up
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
# Relative to the norm of a pair. The bfloat16 table of the peers alone has an error of 4e-3.
TOLERANCE = {"f32": 2e-6, "bf16": 2e-2}

KERNEL = Path(__file__).resolve().parents[2] / "build/benchmarks/libbench_kernel.so"


class Case:
    """Tensors of one element type and length, and their exact rotation for the checks."""

    def __init__(self, name, tokens):
        self.name, self.tokens, self.dtype = name, tokens, DTYPES[name]
        torch.manual_seed(tokens)
        self.both = torch.empty(2, tokens, HEADS, HEAD_DIM, dtype=self.dtype)
        self.known = (torch.rand(8191) - 0.5).to(self.dtype)
        self.q, self.k = self.both
        theta = BASE ** (-torch.arange(HEAD_DIM // 2, dtype=torch.float64) * 2 / HEAD_DIM)
        self.angles = torch.outer(OFFSET + torch.arange(tokens, dtype=torch.float64), theta)
        doubled = torch.cat((self.angles, self.angles), dim=-1)
        self.cos, self.sin = doubled.cos().to(self.dtype)[None], doubled.sin().to(self.dtype)[None]
        self.unit = torch.polar(torch.ones_like(self.angles), self.angles).to(torch.complex64)
        self.scaled = torch.ones(self.both.nbytes // 4)
        self.fill()

    def fill(self):
        flat = self.both.view(-1)
        whole = flat.numel() // 8191 * 8191
        flat[:whole].view(-1, 8191)[:] = self.known
        flat[whole:] = self.known[: flat.numel() - whole]

    def error(self, run, layout):
        """The largest error of run()'s q and k at some tokens, relative to the norm of the pair."""
        checked = [0, self.tokens // 2, self.tokens - 1]
        self.fill()
        x, y = pairs_of(self.both[:, checked], layout)
        result = run()
        rotated = torch.stack([x[checked] for x in (self.both if result is None else result)])
        cos, sin = self.angles[checked].cos()[:, None], self.angles[checked].sin()[:, None]
        first, second = pairs_of(rotated, layout)
        error = torch.maximum((first - (x * cos - y * sin)).abs(), (second - (x * sin + y * cos)).abs())
        self.fill()
        return (error / torch.hypot(x, y).clamp_min(1e-9)).max().item()


def huggingface(case, compiled):
    """[(name, layout, run)] of the function in Transformers, on [1, tokens, heads, head_dim]."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    def written_back(q, k, cos, sin):
        new_q, new_k = apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=2)
        q.copy_(new_q)
        k.copy_(new_k)

    def candidate(function, in_place=False, **options):
        q, k = case.q[None], case.k[None]

        def run():
            result = function(q, k, case.cos, case.sin, **options)
            return None if in_place else [x[0] for x in result]

        return run

    eager = ("Hugging Face, eager", HALF, candidate(apply_rotary_pos_emb, unsqueeze_dim=2))
    if not compiled:
        return [eager]
    torch._dynamo.reset()
    out_of_place = torch.compile(lambda q, k, cos, sin: apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=2))
    in_place = torch.compile(written_back)
    return [
        eager,
        ("torch.compile, out of place", HALF, candidate(out_of_place)),
        ("torch.compile, written back", HALF, candidate(in_place, in_place=True)),
    ]


def complex_product(case):
    """Product of complex numbers, in place, like Meta's Llama: interleaved pairs, float32 only."""
    q, k = (torch.view_as_complex(x.view(case.tokens, HEADS, HEAD_DIM // 2, 2)) for x in (case.q, case.k))
    unit = case.unit[:, None]

    def run():
        q.mul_(unit)
        k.mul_(unit)

    return ("complex product, in place", INTERLEAVED, run)


def ropewalk(case, threads):
    out = (torch.zeros_like(case.q), torch.zeros_like(case.k))

    def candidates(layout):
        enc = rw.encoding("default", head_dim=HEAD_DIM, base=BASE, layout=layout)

        def in_place():
            rw.rotate_(case.q, case.k, encoding=enc, offset=OFFSET, threads=threads)

        def into_buffers():
            return rw.rotate(case.q, case.k, encoding=enc, offset=OFFSET, threads=threads, out=out)

        return [(f"ropewalk, {layout}", layout, in_place), (f"ropewalk, {layout}, out=", layout, into_buffers)]

    return [*candidates(HALF), *candidates(INTERLEAVED)]


def kernel_alone(case, threads):
    """The C++ kernel without Python, on the same tensors."""
    if not KERNEL.is_file():
        return []
    function = ctypes.CDLL(str(KERNEL)).ropewalk_rotate
    tail = [ctypes.c_int64(n) for n in (case.tokens, HEADS, HEAD_DIM, OFFSET)]
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in (case.q, case.k)]

    def candidate(layout):
        def run(passes=1):
            bf16, interleaved = case.name == "bf16", layout == INTERLEAVED
            if function(*pointers, int(bf16), int(interleaved), *tail, threads, ctypes.c_int64(passes)) != 0:
                raise SystemExit("the C++ kernel failed")

        run.repeats_itself = True
        return (f"C++ kernel, {layout}", layout, run)

    return [candidate(HALF), candidate(INTERLEAVED)]


def settle_allocator():
    """Brings glibc into the state of a long-running process: after a free of 32 MiB it keeps up to 64 MiB.

    Before that, the cost of an allocation depends on the sizes of earlier tensors.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


def seconds_per_pass(run, passes):
    if getattr(run, "repeats_itself", False):
        start = time.perf_counter()
        run(passes)
        return (time.perf_counter() - start) / passes
    start = time.perf_counter()
    for _ in range(passes):
        run()
    return (time.perf_counter() - start) / passes


def time_candidates(case, candidates):
    """{name: median seconds} of interleaved candidates and the scale."""
    factors = [2.0, 0.5]

    def scale():
        case.scaled.mul_(factors[0])
        factors.reverse()

    settle_allocator()
    runs = [("scale", scale)] + [(name, run) for name, _, run in candidates]
    passes, short = {}, set()
    for name, run in runs:
        seconds_per_pass(run, 2)
        seconds = seconds_per_pass(run, 2)
        passes[name] = max(1, min(10000, int(SAMPLE_SECONDS / seconds)))
        if seconds < LONG_SECONDS:
            short.add(name)
    samples = defaultdict(list)
    order = random.Random(case.tokens)
    for _ in range(ROUNDS):
        # A random order, because freeing much memory slows down the next candidate.
        for name, run in order.sample(runs, len(runs)):
            if name in short:
                # cos² + sin² of a bfloat16 table is not exactly 1, so thousands of passes reach denormals or infinity.
                case.fill()
                run()
            samples[name].append(seconds_per_pass(run, passes[name]))
    return {name: statistics.median(values) for name, values in samples.items()}


def measure(name, tokens, threads, compiled, peers):
    torch.set_num_threads(threads)
    case = Case(name, tokens)
    candidates = huggingface(case, compiled) if peers else []
    if name == "f32":
        candidates.append(complex_product(case))
    candidates += ropewalk(case, threads) + kernel_alone(case, threads)
    errors = {}
    for label, layout, run in candidates:
        errors[label] = case.error(run, layout)
        if not errors[label] <= TOLERANCE[name]:
            raise SystemExit(f"{label}, {name}, {tokens} tokens: the error is {errors[label]:.2e} of the norm")
    times = time_candidates(case, candidates)
    return [
        {
            "candidate": label,
            "layout": layout,
            "type": name,
            "tokens": tokens,
            "threads": threads,
            "milliseconds": times[label] * 1e3,
            "ratio_to_scale": times["scale"] / times[label],
            "error_to_norm": errors[label],
        }
        for label, layout, _ in candidates
    ]


def print_table(rows, tokens):
    """Prints the ratios for one element type and number of threads, with one column per length."""
    print(f"\n{rows[0]['type']}, {rows[0]['threads']} thread(s): time of the in-place scale / time of the candidate")
    print(f"{'':36s}" + "".join(f"{n:>10d}" for n in tokens))
    by_name = defaultdict(dict)
    for row in rows:
        by_name[row["candidate"]][row["tokens"]] = row["ratio_to_scale"]
    for name, ratios in by_name.items():
        print(f"{name:36s}" + "".join(f"{ratios[n]:10.2f}" for n in tokens))


def context():
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "machine": models[0] if models else platform.processor(),
        "instruction_set": rw.instruction_set(),
        "torch": torch.__version__,
        "transformers": installed("transformers"),
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def save(rows, path, **more_context):
    def rounded(row):
        return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in row.items()}

    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(rounded(row)) for row in rows)
    path.write_text(f'{{"context": {json.dumps({**context(), **more_context})},\n"rows": [\n{lines}\n]}}\n')
    print(f"\nwritten to {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=counts, default="1,128,4096,32768")
    parser.add_argument("--threads", type=counts, default="1,2")
    parser.add_argument("--types", type=types_among(DTYPES.keys()), default="f32,bf16")
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile, which needs a C++ compiler")
    parser.add_argument("--out", type=Path, default=Path("build/peers.json"))
    options = parser.parse_args()
    check_writable(parser, options.out)
    tokens = options.tokens

    peers = find_spec("transformers") is not None
    if not peers:
        print("transformers is not installed: no rows of Hugging Face's function")
    print("not measured, because they need a GPU: liger-kernel, flash-attn, FlashInfer, vLLM, Transformer Engine")

    rows = []
    for name in options.types:
        for threads in options.threads:
            part = []
            for n in tokens:
                part += measure(name, n, threads, not options.no_compile, peers)
            print_table(part, tokens)
            rows += part
    save(rows, options.out)


if __name__ == "__main__":
    main()
