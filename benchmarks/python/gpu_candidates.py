"""Candidates of bench_gpu.py: ropewalk and the installed packages that rotate queries and keys on a GPU.

Each follows the public documentation of its package and uses the memory layout that suits the package best.
"""

import torch
from bench_common import BASE, HALF, HEAD_DIM, INTERLEAVED, OFFSET, pairs_of, without_folders


class Buffers:
    """Several sets of queries and keys in contiguous memory. Every token has the same elements."""

    def __init__(self, kind, heads, tokens, device):
        self.kind, self.heads, self.tokens, self.device = kind, heads, tokens, device
        self.dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
        self.width = sum(heads) * HEAD_DIM
        self.bytes = tokens * self.width * self.dtype.itemsize
        l2 = torch.cuda.get_device_properties(0).L2_cache_size if device == "cuda" else 0
        self.sets = max(4, min(64, 2 * l2 // self.bytes + 1))
        generator = torch.Generator().manual_seed(2308)
        self.head = torch.randn(HEAD_DIM, generator=generator, dtype=torch.float64).to(self.dtype)
        self.flat_in = torch.empty(self.sets, tokens * self.width, dtype=self.dtype, device=device)
        self.flat_out = torch.empty_like(self.flat_in)
        self.fill()
        positions = OFFSET + torch.arange(tokens, dtype=torch.float64)
        self.theta = BASE ** (-torch.arange(HEAD_DIM // 2, dtype=torch.float64) * 2 / HEAD_DIM)
        angles = torch.outer(positions, self.theta)
        self.cos, self.sin = (f(angles).to(device) for f in (torch.cos, torch.sin))  # float64 [tokens, 64]
        self.positions = positions.to(torch.int64).to(device)

    def fill(self):
        self.flat_in.view(-1, HEAD_DIM)[:] = self.head.to(self.device)

    def pair(self, flat):
        """q and k [tokens, heads, head_dim] of one set."""
        split = self.tokens * self.heads[0] * HEAD_DIM
        q, k = flat[:split], flat[split:]
        return q.view(self.tokens, self.heads[0], HEAD_DIM), k.view(self.tokens, self.heads[1], HEAD_DIM)

    def inputs(self, number):
        return self.pair(self.flat_in[number])

    def outputs(self, number):
        return self.pair(self.flat_out[number])

    def table(self, dtype):
        """cos and sin [tokens, head_dim] in the order of Hugging Face."""
        return tuple(torch.cat((values, values), dim=-1).to(dtype) for values in (self.cos, self.sin))

    def error(self, q, k, layout):
        """The largest error at some tokens and heads, relative to the norm of the pair. NaN if a result is NaN."""
        x, y = pairs_of(self.head, layout)
        errors = []
        for token in (0, self.tokens // 2, self.tokens - 1):
            cos, sin = self.cos[token].cpu(), self.sin[token].cpu()
            for tensor in (q, k):
                for head in (0, tensor.shape[1] - 1):
                    first, second = pairs_of(tensor[token, head].cpu(), layout)
                    error = torch.hypot(first - (x * cos - y * sin), second - (x * sin + y * cos))
                    errors.append(error / torch.hypot(x, y))
        return torch.stack(errors).max().item()


class Candidate:
    """A candidate. run(set) rotates the queries and keys of a set, and returns them if it does not work in place."""

    def __init__(self, name, layout, run, in_place):
        self.name, self.layout, self.run, self.in_place = name, layout, run, in_place


def ropewalk(data, layout):
    import ropewalk as rw

    encoding = rw.encoding("default", head_dim=HEAD_DIM, base=BASE, layout=layout)

    def in_place(number):
        q, k = data.inputs(number)
        rw.rotate_(q, k, encoding=encoding, offset=OFFSET)

    def into_buffers(number):
        q, k = data.inputs(number)
        return rw.rotate(q, k, encoding=encoding, offset=OFFSET, out=data.outputs(number))

    return [
        Candidate("ropewalk, Python, in place", layout, in_place, True),
        Candidate("ropewalk, Python, out of place", layout, into_buffers, False),
    ]


def huggingface(data, compiled):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    cos, sin = (values[None] for values in data.table(data.dtype))

    def out_of_place(function):
        def run(number):
            q, k = function(*(x[None] for x in data.inputs(number)), cos, sin)
            return q[0], k[0]

        return run

    def expression(q, k, cos, sin):
        return apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=2)

    def written_back(q, k, cos, sin):
        new_q, new_k = expression(q, k, cos, sin)
        q.copy_(new_q)
        k.copy_(new_k)

    eager = Candidate("Hugging Face, eager", HALF, out_of_place(expression), False)
    if not compiled:
        return [eager]
    torch._dynamo.reset()
    compiled_back = torch.compile(written_back, dynamic=False)

    def in_place(number):
        compiled_back(*(x[None] for x in data.inputs(number)), cos, sin)

    return [
        eager,
        Candidate("torch.compile", HALF, out_of_place(torch.compile(expression, dynamic=False)), False),
        Candidate("torch.compile, written back", HALF, in_place, True),
    ]


def liger(data):
    from liger_kernel.transformers.rope import liger_rotary_pos_emb

    cos, sin = (values[None] for values in data.table(data.dtype))

    def run(number):  # takes views [batch, heads, tokens, head_dim], transposes them and writes in place
        q, k = (x[None].transpose(1, 2) for x in data.inputs(number))
        q, k = liger_rotary_pos_emb(q, k, cos, sin)
        return q.transpose(1, 2)[0], k.transpose(1, 2)[0]

    return [Candidate("Liger", HALF, run, True)]


def flash_attn(data, layout):
    from flash_attn.ops.triton.rotary import apply_rotary

    cos, sin = (values.to(data.dtype) for values in (data.cos, data.sin))

    def run(number):
        for x in data.inputs(number):
            apply_rotary(x[None], cos, sin, interleaved=layout == INTERLEAVED, inplace=True)

    return [Candidate("flash-attn's Triton rotary, in place", layout, run, True)]


def flashinfer(data, layout):
    import flashinfer

    cache = torch.cat((data.cos, data.sin), dim=-1).to(torch.float32)
    rows = torch.arange(data.tokens, device=data.device)
    positions = data.positions.to(torch.int32)

    def with_table(number):
        q, k = data.inputs(number)
        flashinfer.apply_rope_with_cos_sin_cache_inplace(
            rows, q.view(data.tokens, -1), k.view(data.tokens, -1), HEAD_DIM, cache, is_neox=layout == HALF
        )

    def on_the_fly(number):
        q, k = data.inputs(number)
        flashinfer.apply_rope_pos_ids_inplace(q, k, positions, interleave=layout == INTERLEAVED, rope_theta=BASE)

    return [
        Candidate("FlashInfer, table, in place", layout, with_table, True),
        Candidate("FlashInfer, on the fly, in place", layout, on_the_fly, True),
    ]


def vllm(data, layout):
    from vllm import _custom_ops

    cache = torch.cat((data.cos, data.sin), dim=-1).to(data.dtype)
    rows = torch.arange(data.tokens, device=data.device)

    def run(number):
        q, k = data.inputs(number)
        q, k = q.view(data.tokens, -1), k.view(data.tokens, -1)
        _custom_ops.rotary_embedding(rows, q, k, HEAD_DIM, cache, layout == HALF)

    return [Candidate("vLLM, in place", layout, run, True)]


def complex_product(data):
    """Product of complex numbers, in place, like Meta's Llama: interleaved pairs, float32 only."""
    unit = torch.complex(data.cos, data.sin).to(torch.complex64)[:, None]

    def run(number):
        for x in data.inputs(number):
            torch.view_as_complex(x.view(*x.shape[:2], HEAD_DIM // 2, 2)).mul_(unit)

    return [Candidate("complex product, in place", INTERLEAVED, run, True)]


def candidates_of(data, layout, compiled, missing):
    """The candidates that are installed. Prints the others once, and adds them to `missing`."""
    sources = {"ropewalk": lambda: ropewalk(data, layout)}
    if layout == HALF:
        sources["transformers"] = lambda: huggingface(data, compiled)
        sources["liger-kernel"] = lambda: liger(data)
    elif data.kind == "f32":
        sources["complex product"] = lambda: complex_product(data)
    for name, make in (("flash-attn", flash_attn), ("flashinfer", flashinfer), ("vllm", vllm)):
        sources[name] = lambda make=make: make(data, layout)
    found = []
    for name, make in sources.items():
        try:
            found += make()
        except (ImportError, AttributeError, OSError, RuntimeError) as problem:
            if name not in missing:
                missing[name] = without_folders(f"{type(problem).__name__}: {problem}".splitlines()[0])
                print(f"not measured: {name}: {missing[name]}")
    return found
