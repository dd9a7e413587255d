"""Rotary position encoding as a module of PyTorch."""

from __future__ import annotations

from typing import Any

import torch

from ropewalk import (
    _ropewalk,
    _torch,  # noqa: F401 - brings the operators
)
from ropewalk._encoding import encoding as make_encoding
from ropewalk._rotate import rotate


class RotaryEmbedding(torch.nn.Module):
    """Encodes queries and keys; has no parameters and nothing in its state_dict.

    A process that loads a saved program (torch.export.load) names this class first, which brings torch the operators.

    head_dim: elements a head.
    policy: an expression such as "linear:8", a policy object, or an Encoding, which then says everything else.
    base, rotary_dim, rotary_offset, layout, sequence_length: those of ropewalk.encoding().
    """

    def __init__(
        self, head_dim: int, policy: str | _ropewalk.Policy | _ropewalk.Encoding = "default", **geometry: Any
    ) -> None:
        super().__init__()
        if isinstance(policy, _ropewalk.Encoding):
            if geometry or policy.head_dim != head_dim:
                raise _ropewalk.Error(
                    f"ropewalk: the encoding given is for head_dim {policy.head_dim} and has a geometry of its own, "
                    f"got head_dim {head_dim} and {geometry}"
                )
            self.encoding = policy
        else:
            self.encoding = make_encoding(policy, head_dim, **geometry)

    def forward(self, q: Any, k: Any = None, positions: Any = None, **arguments: Any) -> Any:
        """New tensors: q, k or (q, k). The arguments are those of ropewalk.rotate(): offset=, order=, cu_seqlens=."""
        return rotate(q, k, encoding=self.encoding, positions=positions, **arguments)

    def extra_repr(self) -> str:
        return repr(self.encoding).removeprefix("ropewalk.Encoding(").removesuffix(")")
