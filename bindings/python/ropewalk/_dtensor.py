"""Rotation of DTensors: each rank rotates its shard at the global positions of its tokens.

Heads, batch and tokens may be sharded, in another way for q than for k. Only positions and tables that are sharded
differently are communicated.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from ropewalk import _ropewalk
from ropewalk._operators import Arguments

_AXES = {"b": "batch", "t": "tokens", "h": "heads", "d": "head_dim"}


def rotate(function: Any, q: Any, k: Any, arguments: Arguments, encoding: _ropewalk.Encoding) -> Any:
    """Call `function(q, k, arguments)`, which rotates local tensors, for the shards of this rank."""
    results = []
    for name, x in (("q", q), ("k", k)):
        if x is None:
            continue
        if not isinstance(x, DTensor):
            _fail(f"{name} is a {type(x).__name__}, but the other one is a DTensor; distribute both")
        local = x.to_local(grad_placements=x.placements)
        pair = (local, None) if name == "q" else (None, local)
        result = function(*pair, _Shards(name, x, arguments, encoding).arguments())[0]
        stride = x.stride()
        if result.stride() != local.stride():  # the shards are not dense
            result, stride = result.contiguous(), torch.empty(x.shape, device="meta").stride()
        results.append(
            DTensor.from_local(result, x.device_mesh, x.placements, run_check=False, shape=x.shape, stride=stride)
        )
    return results[0] if len(results) == 1 else tuple(results)


def rotate_(function: Any, q: Any, k: Any, arguments: Arguments, encoding: _ropewalk.Encoding) -> Any:
    """Do the same in place, where `function` rotates into new tensors. Nothing is written unless both are valid."""
    given = [x for x in (q, k) if x is not None]
    for x in given:
        if torch.is_grad_enabled() and x.requires_grad and x.is_leaf:
            _fail(
                f"a DTensor {list(x.shape)} is a leaf that requires grad, and rotate_ would overwrite it; use rotate()"
            )
    results = rotate(function, q, k, arguments, encoding)
    for x, result in zip(given, results if isinstance(results, tuple) else (results,)):
        x.copy_(result)
    return given[0] if len(given) == 1 else tuple(given)


def _fail(message: str) -> NoReturn:
    raise _ropewalk.Error(f"ropewalk: {message}")


class _Shards:
    """The sharding of q or k, and the other arguments for the shard of this rank."""

    def __init__(self, name: str, x: DTensor, arguments: Arguments, encoding: _ropewalk.Encoding) -> None:
        order = arguments.order or {3: "thd", 4: "bthd"}.get(x.dim(), "")
        self.letters = order.replace("s", "t")
        if len(self.letters) != x.dim():
            _fail(f"{name} has {x.dim()} axes, but the order '{arguments.order}' names {len(self.letters)}")
        self.name, self.x, self.given, self.encoding = name, x, arguments, encoding
        self.sharded = [self._letter(placement) for placement in x.placements]  # of each axis of the mesh

    def _letter(self, placement: Any) -> str:
        """Return the axis that an axis of the mesh divides, or "" if it divides none."""
        if placement.is_replicate():
            return ""
        if not isinstance(placement, Shard):
            _fail(f"{self.name} is {placement}; redistribute it to Replicate() or Shard() first")
        letter = self.letters[placement.dim]
        if letter == "d":
            _fail(f"{self.name} is sharded along head_dim, whose elements form pairs; redistribute it")
        if type(placement) is not Shard and letter != "h":
            _fail(f"{self.name} is {placement}, which is supported for heads only; redistribute it to Shard()")
        return letter

    def arguments(self) -> Arguments:
        given, encoding = self.given, self.encoding
        by_place = [letter for letter in self.sharded if letter in ("b", "t")]
        if encoding.draws_positions and by_place:
            _fail(
                f"'{encoding.expression}' draws positions for a whole batch, but {self.name} is sharded along "
                f"{_AXES[by_place[0]]}; redistribute it"
            )
        positions, offset, cu_seqlens, offsets = given.positions, given.offset, given.cu_seqlens, given.offsets
        if positions is not None:
            several = positions.dim() == 3 or (positions.dim() == 2 and "b" not in self.letters and len(positions) == 3)
            names = {1: "t", 2: "bt"}[positions.dim() - several]
            positions = self.own("positions", positions, ("*" if several else "") + names)
        elif "t" in self.sharded:
            if cu_seqlens is not None:
                _fail(
                    f"cu_seqlens needs all tokens, but {self.name} is sharded along tokens; pass the positions of all "
                    "tokens as a DTensor"
                )
            x, mesh = self.x, self.x.device_mesh
            index = torch.arange(x.shape[self.letters.index("t")], device=x.device)
            if offsets is None:
                index = index + offset
            else:
                index = index + (offsets.full_tensor() if isinstance(offsets, DTensor) else offsets).reshape(-1, 1)
            everywhere = DTensor.from_local(index, mesh, [Replicate()] * mesh.ndim, run_check=False)
            positions, offset, offsets = self.own("positions", everywhere, "bt"[-index.dim() :]), 0, None
        elif cu_seqlens is not None:
            cu_seqlens = self.own("cu_seqlens", cu_seqlens, "*")
        if offsets is not None:
            offsets = self.own("offset", offsets, "*" if cu_seqlens is not None else "b"[: offsets.dim()])
        cos, sin = given.cos, given.sin
        if cos is not None and sin is not None:
            names = "bt*" if cos.dim() == 3 else "**"
            cos, sin = self.own("cos", cos, names), self.own("sin", sin, names)
        return given._replace(
            positions=positions, offset=offset, cu_seqlens=cu_seqlens, cos=cos, sin=sin, offsets=offsets
        )

    def own(self, name: str, tensor: Tensor, letters: str) -> Tensor:
        """Return the part of a tensor for this rank. `letters` names its axes."""
        x, placements = self.x, []
        for letter in self.sharded:
            axis = letters.find(letter) if letter else -1
            is_divided = axis >= 0 and (letter == "t" or tensor.shape[axis] != 1)  # one row is for the whole batch
            if is_divided and tensor.shape[axis] != x.shape[self.letters.index(letter)]:
                _fail(
                    f"{name} {list(tensor.shape)} does not fit {self.name} {list(x.shape)}, which is sharded along "
                    f"{_AXES[letter]}: pass those of all {_AXES[letter]}, as a DTensor"
                )
            placements.append(Shard(axis) if is_divided else Replicate())
        if isinstance(tensor, DTensor):
            if tensor.device_mesh != x.device_mesh:
                _fail(f"{name} is on {tensor.device_mesh}, but {self.name} is on {x.device_mesh}")
            return tensor.redistribute(x.device_mesh, placements).to_local()
        if any(placement.is_shard() for placement in placements):
            _fail(
                f"{name} is a torch.Tensor, but {self.name} is sharded along "
                f"{' and '.join(_AXES[letter] for letter in self.sharded if letter in ('b', 't'))}; pass {name} as a "
                "DTensor, so that each rank gets its part"
            )
        return tensor
