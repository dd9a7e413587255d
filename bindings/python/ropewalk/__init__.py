"""Rotary position encodings for attention: every published context extension, exact at any position.

    import ropewalk as rw

    enc = rw.encoding("linear:8", head_dim=128)              # or rw.Linear(8), or rw.from_config("config.json")
    rw.rotate_(q, k, encoding=enc)                           # NumPy arrays or torch tensors, in place
    q2, k2 = rw.rotate(q, k, encoding=enc, positions=ids)    # new ones

Pair j of the token at position p turns by `p * enc.inv_freq[j]` radians. Which two elements are a pair is the layout:
`half_split` (j, j + rotary_dim/2) for Llama on Hugging Face, `interleaved` (2j, 2j + 1) for GPT-J and Meta's own Llama.
`rw.policies()` names the policies; each is a class here, such as `rw.Truncated`, and they compose with `|`.
`python -m ropewalk inspect yarn:8,original_length=4096` shows what one does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ropewalk import (
    _openmp,  # first: it chooses the runtime that the next one finds
    _ropewalk,
)
from ropewalk._encoding import encoding, from_config, to_hf_config
from ropewalk._ropewalk import (
    Encoding,
    Error,
    Policy,
    __version__,
    alibi_slopes,
    instruction_set,
    instruction_sets,
    policies,
    policy,
    query_temperature,
)
from ropewalk._rotate import rerotate_, rotate, rotate_

# What takes NumPy or torch is imported when it is asked for: import ropewalk shall be quick.
_LATER = {
    "Inspection": "_inspect",
    "RotaryEmbedding": "_modules",
    "apply_rotary_transformers": "_huggingface",
    "inspect": "_inspect",
    "patch": "_huggingface",
    "unpatch": "_huggingface",
}

if TYPE_CHECKING:
    from ropewalk._huggingface import apply_rotary_transformers, patch, unpatch
    from ropewalk._inspect import Inspection, inspect
    from ropewalk._modules import RotaryEmbedding
    from ropewalk._policies import *  # noqa: F403 - the classes below

else:

    def __getattr__(name):
        if name not in _LATER:
            raise AttributeError(f"module 'ropewalk' has no attribute {name!r}")
        try:
            return getattr(import_module(f"ropewalk.{_LATER[name]}"), name)
        except ModuleNotFoundError as missing:
            if missing.name is None or missing.name.startswith("ropewalk"):
                raise
            raise AttributeError(f"ropewalk.{name} needs {missing.name}, which is not installed") from missing

    def __dir__():
        return sorted({*globals(), *_LATER})


# One class for each policy that the library was compiled with.
globals().update({one.__name__: one for one in _ropewalk.policy_classes})

__all__ = [
    "Encoding",
    "Error",
    "Inspection",
    "Policy",
    "RotaryEmbedding",
    "__version__",
    "alibi_slopes",
    "apply_rotary_transformers",
    "encoding",
    "from_config",
    "inspect",
    "instruction_set",
    "instruction_sets",
    "patch",
    "policies",
    "policy",
    "query_temperature",
    "rerotate_",
    "rotate",
    "rotate_",
    "to_hf_config",
    "unpatch",
    *(one.__name__ for one in _ropewalk.policy_classes),
]

if not TYPE_CHECKING and not _openmp.has_torch():  # import * takes what there is
    __all__ = [name for name in __all__ if _LATER.get(name) not in ("_huggingface", "_modules")]
