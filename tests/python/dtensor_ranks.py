"""Rotation of DTensors on two ranks, run by test_distributed.py under torchrun."""

import os
import sys

import pytest
import ropewalk as rw
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor, init_device_mesh

BATCH, TOKENS, DIM = 4, 6, 8
BATCHES, ROWS, HEADS, COPY = Shard(0), Shard(1), Shard(2), Replicate()
XPOS = rw.encoding("xpos:64", DIM)  # queries and keys differ
MROPE = rw.encoding("mrope:[1,1,2]", DIM)


def heads(count, seed):
    return torch.randn(BATCH, TOKENS, count, DIM, generator=torch.Generator().manual_seed(seed))


def check(mesh, placements, arguments=None, local_arguments=None, in_place=False, k_heads=2):
    """Results and gradients equal those of whole tensors. `arguments` are those of the whole ones."""
    arguments = {"encoding": XPOS, **(arguments or {})}
    whole = [heads(4, 1).requires_grad_(), heads(k_heads, 2).requires_grad_()]
    weights = [heads(4, 3), heads(k_heads, 4)]
    results = rw.rotate(*whole, **arguments)
    gradients = torch.autograd.grad(sum((y * w).sum() for y, w in zip(results, weights)), whole)
    parts = [distribute_tensor(x.detach(), mesh, p).requires_grad_() for x, p in zip(whole, placements)]
    inputs, function = ([x * 1 for x in parts], rw.rotate_) if in_place else (parts, rw.rotate)
    ours = function(*inputs, **{**arguments, **(local_arguments or {})})
    for x, y, expected, p in zip(inputs, ours, results, placements):
        assert isinstance(y, DTensor) and y.placements == tuple(p) and y.shape == expected.shape
        assert torch.equal(y.full_tensor(), expected) and (y is x or not in_place)
    loss = sum((y * distribute_tensor(w, mesh, p)).sum() for y, w, p in zip(ours, weights, placements))
    for x, expected, gradient in zip(parts, gradients, torch.autograd.grad(loss, parts)):
        assert gradient.placements == x.placements and torch.equal(gradient.full_tensor(), expected)


def check_shards(mesh):
    for q in (BATCHES, ROWS, HEADS, COPY):
        for k in {q, HEADS}:
            check(mesh, ([q], [k]), {"offset": 5})
            check(mesh, ([q], [k]), {"offset": 5}, in_place=True)
    for uneven in (Shard(2), Shard(1)):
        check(mesh, ([uneven], [HEADS]), k_heads=1)  # a rank without keys


def check_positions(mesh):
    ids, rows = torch.arange(TOKENS) * 7, torch.arange(BATCH * TOKENS).reshape(BATCH, TOKENS)
    for whole, shards in (
        (ids, [COPY, Shard(0)]),
        (ids[None], [COPY, Shard(1)]),
        (rows, [COPY, Shard(0), Shard(1)]),
    ):
        for q in (BATCHES, ROWS, HEADS, COPY):
            for p in shards:
                check(mesh, ([q], [q]), {"positions": whole}, {"positions": distribute_tensor(whole, mesh, [p])})
    check(mesh, ([HEADS], [HEADS]), {"positions": rows})
    check(mesh, ([BATCHES], [COPY]), {"positions": ids})
    three = torch.stack((rows, rows + 1, 2 * rows))
    sharded = {"positions": distribute_tensor(three, mesh, [Shard(2)])}
    check(mesh, ([ROWS], [BATCHES]), {"positions": three, "encoding": MROPE}, sharded)
    table = torch.randn(2, BATCH, TOKENS, DIM, generator=torch.Generator().manual_seed(6))
    plain = {"encoding": rw.encoding("default", DIM)}
    sharded = {"table": [distribute_tensor(t, mesh, [COPY]) for t in table]}
    for q in (BATCHES, ROWS, HEADS):
        check(mesh, ([q], [q]), {"table": tuple(table), **plain}, sharded)
    by_position = tuple(torch.randn(2, 40, DIM, generator=torch.Generator().manual_seed(7)))
    check(mesh, ([ROWS], [HEADS]), {"table": by_position, "offset": 3, **plain})


def check_packed(mesh):
    x, starts = heads(4, 1)[0], torch.tensor([0, 2, TOKENS])
    expected = rw.rotate(x, encoding=XPOS, cu_seqlens=starts)
    for given in (starts, distribute_tensor(starts, mesh, [COPY])):
        y = rw.rotate(distribute_tensor(x, mesh, [Shard(1)]), encoding=XPOS, cu_seqlens=given)
        assert torch.equal(y.full_tensor(), expected)
    with torch.inference_mode():
        y = rw.rotate_(distribute_tensor(x, mesh, [Shard(0)]), encoding=XPOS, offset=9, inverse=True)
        assert torch.equal(y.full_tensor(), rw.rotate(x, encoding=XPOS, offset=9, inverse=True))


def check_refused(mesh):
    def shard(placement, x=None):
        return distribute_tensor(heads(4, 1) if x is None else x, mesh, [placement])

    partial = DTensor.from_local(heads(4, 1), mesh, [Partial()])
    ids, rows = torch.arange(TOKENS), torch.zeros(BATCH, TOKENS, dtype=torch.int64)
    drawn = {"encoding": rw.encoding("randomized:64", DIM)}
    for message, q, arguments in (
        (r"q is P.*; redistribute it to Replicate\(\) or Shard\(\) first", partial, {}),
        ("q is sharded along head_dim", shard(Shard(3)), {}),
        ("positions is a torch.Tensor, but q is sharded along tokens", shard(ROWS), {"positions": ids}),
        ("positions is a torch.Tensor, but q is sharded along batch", shard(BATCHES), {"positions": rows}),
        (r"positions \[3\] does not fit q .*, which is sharded along tokens", shard(ROWS), {"positions": ids[:3]}),
        ("cu_seqlens needs all tokens", shard(Shard(0), heads(4, 1)[0]), {"cu_seqlens": torch.tensor([0, TOKENS])}),
        ("draws positions for a whole batch, but q is sharded along tokens", shard(ROWS), drawn),
        ("draws positions for a whole batch, but q is sharded along batch", shard(BATCHES), drawn),
        ("positions is a DTensor, but q and k are not", heads(4, 1).requires_grad_(), {"positions": shard(COPY, ids)}),
        ("positions .* has no memory here, like a DTensor", heads(4, 1), {"positions": shard(COPY, ids)}),
    ):
        with pytest.raises(rw.Error, match=message):
            rw.rotate(q, **{"encoding": XPOS, **arguments})
    with pytest.raises(rw.Error, match="k is a Tensor, but the other one is a DTensor"):
        rw.rotate(shard(HEADS), heads(2, 2), encoding=XPOS)
    with pytest.raises(rw.Error, match="is a leaf that requires grad"):
        rw.rotate_(shard(HEADS).requires_grad_(), encoding=XPOS)
    rw.decompositions()
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode(), pytest.raises(NotImplementedError, match="does not have a sharding strategy"):
            torch.ops.ropewalk.rotate(shard(ROWS), None, XPOS.key)


def check_compiled(mesh):
    def layer(q, k):
        q, k = rw.rotate(q * 2, k, encoding=XPOS, offset=3)
        return q.sin(), k

    torch._dynamo.reset()
    q, k = (distribute_tensor(heads(count, 1), mesh, [ROWS]) for count in (4, 2))
    for ours, theirs in zip(torch.compile(layer, backend="aot_eager", fullgraph=True)(q, k), layer(q, k)):
        assert torch.equal(ours.full_tensor(), theirs.full_tensor())


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    for check_group in (check_shards, check_positions, check_packed, check_refused, check_compiled):
        check_group(mesh)
        if dist.get_rank() == 0:
            print(check_group.__name__, "passed", flush=True)
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data", "heads"))
    check(mesh, ([BATCHES, HEADS], [COPY, ROWS]), {"offset": 2})
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # threads that torch 2.13 leaves running sometimes abort a normal exit


if __name__ == "__main__":
    main()
