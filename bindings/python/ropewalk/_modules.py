"""Rotary position encoding as a PyTorch module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from ropewalk import (
    _ropewalk,
    _torch,  # noqa: F401 - registers the operators
)
from ropewalk._encoding import encoding as make_encoding
from ropewalk._rotate import rotate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ropewalk._rotate import Array, Positions, Table


class RotaryEmbedding(torch.nn.Module):
    """Encodes queries and keys. Has no parameters, and its state_dict is empty.

    A state_dict of another module may have the buffer `inv_freq`, which load_state_dict() ignores: the frequencies are
    those of the encoding. A process that loads a saved program (torch.export.load) must access this class first, to
    register the operators.

    Args:
        head_dim: Elements per head.
        policy: An expression such as "linear:8", a policy object, or an Encoding, which has its own geometry.
        base: Base of the frequencies; see encoding(). The default is 10000.
        rotary_dim: Elements of a head to rotate. The default is all from rotary_offset on.
        rotary_offset: The first element to rotate. The default is 0.
        layout: "half_split" (the default) or "interleaved".
        sequence_length: Tokens of the sequence, for policies that depend on it.
        order: Order of the axes of q and k in every call that passes no other one; see rotate_(). The default for 4
            axes is "bshd". Queries and keys of Hugging Face models need "bhsd".

    Raises:
        Error: A parameter is invalid, or a geometry is passed together with an Encoding.
    """

    def __init__(
        self,
        head_dim: int,
        policy: str | _ropewalk.Policy | _ropewalk.Encoding = "default",
        *,
        base: float | None = None,
        rotary_dim: int | None = None,
        rotary_offset: int | None = None,
        layout: Literal["half_split", "interleaved"] | None = None,
        sequence_length: int | None = None,
        order: str | None = None,
    ) -> None:
        super().__init__()
        every: dict[str, Any] = {
            **{"base": base, "rotary_dim": rotary_dim, "rotary_offset": rotary_offset},
            **{"layout": layout, "sequence_length": sequence_length},
        }
        geometry = {name: value for name, value in every.items() if value is not None}
        if isinstance(policy, _ropewalk.Encoding):
            if geometry or policy.head_dim != head_dim:
                raise _ropewalk.Error(
                    f"ropewalk: the encoding has head_dim {policy.head_dim} and its own geometry, got head_dim "
                    f"{head_dim} and {geometry}; pass the head_dim of the encoding and no geometry"
                )
            self.encoding = policy
        else:
            self.encoding = make_encoding(policy, head_dim, **geometry)
        self.order = order
        if order is not None and not isinstance(order, str):
            raise TypeError(f"ropewalk: order must be text, got {type(order).__name__}")
        if order is not None:  # a call without elements checks it
            axes = [int(letter) if letter.isdigit() else 0 for letter in order[:-1][:6]]
            rotate(torch.empty(*axes, head_dim, device="cpu"), encoding=self.encoding, order=order)

    def forward(
        self,
        q: torch.Tensor | None,
        k: torch.Tensor | None = None,
        positions: Positions = None,
        *,
        offset: int | Array | Sequence[int] = 0,
        cu_seqlens: Positions = None,
        padded_tail: bool = False,
        k_positions: Positions = None,
        k_offset: int | Array | Sequence[int] | None = None,
        order: str | None = None,
        inverse: bool = False,
        adjoint: bool = False,
        table: Table = None,
        threads: int | None = None,
        out: Any = None,
    ) -> Any:
        """Return new tensors: q, k or (q, k). The arguments are those of ropewalk.rotate()."""
        return rotate(
            q,
            k,
            encoding=self.encoding,
            positions=positions,
            offset=offset,
            cu_seqlens=cu_seqlens,
            padded_tail=padded_tail,
            k_positions=k_positions,
            k_offset=k_offset,
            order=self.order if order is None else order,
            inverse=inverse,
            adjoint=adjoint,
            table=table,
            threads=threads,
            out=out,
        )

    def extra_repr(self) -> str:
        geometry = repr(self.encoding).removeprefix("ropewalk.Encoding(").removesuffix(")")
        return geometry if self.order is None else f'{geometry}, order="{self.order}"'

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, missing: Any, unexpected: Any, errors: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        if prefix + "inv_freq" in unexpected:
            unexpected.remove(prefix + "inv_freq")
