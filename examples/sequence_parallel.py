"""A sequence shared by several processes: each encodes its own tokens at their global positions.

    torchrun --nproc-per-node 2 examples/sequence_parallel.py [--tokens 64] [--policy yarn:8,original_length=4096]

Every rank holds two slices of the sequence, one from either end ("zigzag", which balances causal attention), rotates
its queries and keys with its own ids, gathers the keys and values of all, and attends. Positions are global, so nothing
about the encoding is shared or sent. Rank 0 compares with one process that does everything, gradients included; then
a small Llama, patched and sharded by FSDP, must have the loss of the same model in one piece.
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
    """The ids of each rank: slices r and 2 · ranks - 1 - r of 2 · ranks."""
    slices = torch.arange(tokens).chunk(2 * ranks)
    return [torch.cat((slices[r], slices[2 * ranks - 1 - r])) for r in range(ranks)]


class Gather(torch.autograd.Function):
    """The shards of all ranks in a row; the gradient of a shard is the sum of what all ranks have for it."""

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
    """Causal by position, whatever the order of the tokens."""
    scores = torch.einsum("qhd,khd->hqk", q, k) / HEAD_DIM**0.5
    scores = scores.masked_fill(k_ids[None, None, :] > q_ids[None, :, None], float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


def whole(x, encoding):
    """One process: the output at every token, and the gradients of its mean square."""
    x = x.clone().requires_grad_()
    ids = torch.arange(x.shape[1])
    q, k = rw.rotate(x[0], x[1], encoding=encoding, positions=ids)
    out = attend(q, k, x[2], ids, ids)
    out.square().sum().backward()
    return out.detach(), x.grad


def sharded(x, encoding, shards, rank):
    """This rank's part of the same."""
    ids = shards[rank]
    mine = x[:, ids].clone().requires_grad_()
    q, k = rw.rotate(mine[0], mine[1], encoding=encoding, positions=ids)
    keys, values = Gather.apply(k), Gather.apply(mine[2])
    out = attend(q, keys, values, ids, torch.cat(shards))
    out.square().sum().backward()
    return out.detach(), mine.grad


def compare_attention(policy: str, tokens: int, rank: int, ranks: int) -> float:
    encoding = rw.encoding(policy, HEAD_DIM)
    torch.manual_seed(0)
    x = torch.randn(3, tokens, HEADS, HEAD_DIM)
    shards = zigzag(tokens, ranks)
    out, gradient = sharded(x, encoding, shards, rank)
    expected, expected_gradient = whole(x, encoding)
    worst = max((out - expected[shards[rank]]).abs().max(), (gradient - expected_gradient[:, shards[rank]]).abs().max())
    dist.all_reduce(worst, dist.ReduceOp.MAX)
    return float(worst)


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
        print(
            f"{ranks} ranks, {arguments.tokens} tokens: attention and its gradients differ from one process by at most"
        )
        print(f"{attention:.1e}, the loss under FSDP by {fsdp:.1e}")
    dist.barrier()
    dist.destroy_process_group()
    agree = attention <= 1e-4 and fsdp <= 1e-5
    if not agree:
        print("the shards do not agree with the whole", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads that torch 2.13 leaves behind now and then abort the interpreter's own way out.
    os._exit(0 if agree else 1)


if __name__ == "__main__":
    main()
