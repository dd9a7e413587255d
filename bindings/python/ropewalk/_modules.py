"""Rotary position encoding as a PyTorch module."""

from __future__ import annotations

from typing import Any

import torch

from ropewalk import (
    _ropewalk,
    _torch,  # noqa: F401 - registers the operators
)
from ropewalk._encoding import encoding as make_encoding
from ropewalk._rotate import rotate


class RotaryEmbedding(torch.nn.Module):
    """Encodes queries and keys. Has no parameters, and its state_dict is empty.

    A process that loads a saved program (torch.export.load) must access this class first, to register the operators.

    Args:
        head_dim: Elements per head.
        policy: An expression such as "linear:8", a policy object, or an Encoding, which has its own geometry.
        **geometry: base, rotary_dim, rotary_offset, layout and sequence_length; see encoding().

    Raises:
        Error: A parameter is invalid, or a geometry is passed together with an Encoding.
    """

    def __init__(
        self, head_dim: int, policy: str | _ropewalk.Policy | _ropewalk.Encoding = "default", **geometry: Any
    ) -> None:
        super().__init__()
        if isinstance(policy, _ropewalk.Encoding):
            if geometry or policy.head_dim != head_dim:
                raise _ropewalk.Error(
                    f"ropewalk: the encoding has head_dim {policy.head_dim} and its own geometry, got head_dim "
                    f"{head_dim} and {geometry}; pass the head_dim of the encoding and no geometry"
                )
            self.encoding = policy
        else:
            self.encoding = make_encoding(policy, head_dim, **geometry)

    def forward(self, q: Any, k: Any = None, positions: Any = None, **arguments: Any) -> Any:
        """Return new tensors: q, k or (q, k). The arguments are those of ropewalk.rotate(), for example offset=."""
        return rotate(q, k, encoding=self.encoding, positions=positions, **arguments)

    def extra_repr(self) -> str:
        return repr(self.encoding).removeprefix("ropewalk.Encoding(").removesuffix(")")
