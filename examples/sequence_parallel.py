"""Sequence parallelism: each process rotates its own tokens at their global positions.

    torchrun --nproc-per-node 2 examples/sequence_parallel.py [--tokens 64] [--policy yarn:8,original_length=4096]

Every rank holds two slices of the sequence, one from either end ("zigzag", which balances causal attention). It rotates
its queries and keys with its own ids, gathers the keys and values of all ranks, and attends. Positions are global, so
the ranks exchange nothing about the encoding. Rank 0 compares outputs and gradients with a single process. Then a small
Llama, patched and sharded by FSDP, must have the same loss as the unsharded model.
"""

import argparse
import os
import sys

import ropewalk as rw
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

HEADS, HEAD_DIM = 4, 64


def zigzag(tokens: int, ranks: int) -> list[torch.Tensor]:
    """The token ids of each rank r: slices r and 2 · ranks - 1 - r of 2 · ranks slices."""
    slices = torch.arange(tokens).chunk(2 * ranks)
    return [torch.cat((slices[r], slices[2 * ranks - 1 - r])) for r in range(ranks)]


class Gather(torch.autograd.Function):
    """Concatenates the shards of all ranks. The gradient of a shard is the sum of the gradients of all ranks."""

    @staticmethod
    def forward(ctx, x):
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def attend(q, k, v, q_ids, k_ids):
    """Attention with a causal mask by position, for tokens in any order."""
    scores = torch.einsum("qhd,khd->hqk", q, k) / HEAD_DIM**0.5
    scores = scores.masked_fill(k_ids[None, None, :] > q_ids[None, :, None], float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


def whole(x, encoding):
    """A single process: the output of every token, and the gradients of the sum of its squares."""
    x = x.clone().requires_grad_()
    ids = torch.arange(x.shape[1])
    q, k = rw.rotate(x[0], x[1], encoding=encoding, positions=ids)
    out = attend(q, k, x[2], ids, ids)
    out.square().sum().backward()
    return out.detach(), x.grad


def sharded(x, encoding, shards, rank):
    """The part of one rank: the output of its tokens and their gradients."""
    ids = shards[rank]
    own = x[:, ids].clone().requires_grad_()
    q, k = rw.rotate(own[0], own[1], encoding=encoding, positions=ids)
    keys, values = Gather.apply(k), Gather.apply(own[2])
    out = attend(q, keys, values, ids, torch.cat(shards))
    out.square().sum().backward()
    return out.detach(), own.grad


def compare_attention(policy: str, tokens: int, rank: int, ranks: int) -> float:
    encoding = rw.encoding(policy, HEAD_DIM)
    torch.manual_seed(0)
    x = torch.randn(3, tokens, HEADS, HEAD_DIM)
    shards = zigzag(tokens, ranks)
    out, gradient = sharded(x, encoding, shards, rank)
    expected, expected_gradient = whole(x, encoding)
    expected_shard, expected_part = expected[shards[rank]], expected_gradient[:, shards[rank]]
    difference = max((out - expected_shard).abs().max(), (gradient - expected_part).abs().max())
    dist.all_reduce(difference, dist.ReduceOp.MAX)
    return float(difference)


def compare_fsdp(policy: str) -> float:
    def build():
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=61, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
        )
        return rw.patch(LlamaForCausalLM(config), policy)

    ids = torch.arange(40)[None] % 61
    expected = build()(ids, labels=ids).loss
    model = build()
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    loss = model(ids, labels=ids).loss
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    return float((loss - expected).detach().abs())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--policy", default="yarn:8,original_length=4096")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if arguments.tokens % (2 * ranks) != 0:
        parser.error(f"--tokens must be a multiple of {2 * ranks}, got {arguments.tokens}")
    attention = compare_attention(arguments.policy, arguments.tokens, rank, ranks)
    fsdp = compare_fsdp(arguments.policy)
    if rank == 0:
        print(f"{ranks} ranks, {arguments.tokens} tokens, largest difference from a single process:")
        print(f"attention and its gradients {attention:.1e}, loss under FSDP {fsdp:.1e}")
    dist.barrier()
    dist.destroy_process_group()
    agree = attention <= 1e-4 and fsdp <= 1e-5
    if not agree:
        print("the shards differ from a single process", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # os._exit, because threads that torch 2.13 leaves running sometimes abort a normal exit.
    os._exit(0 if agree else 1)


if __name__ == "__main__":
    main()
