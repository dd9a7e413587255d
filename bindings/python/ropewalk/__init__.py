"""Rotary position encodings for attention: every published context extension, exact at any position.

    import ropewalk as rw

    enc = rw.encoding("linear:8", head_dim=128)              # or from a model: rw.from_config("config.json")
    rw.rotate_(q, k, encoding=enc)                           # NumPy arrays or PyTorch tensors, in place
    q2, k2 = rw.rotate(q, k, encoding=enc, positions=ids)    # into new arrays
    model = rw.patch(model, "linear:8")                      # a Hugging Face model

An encoding holds the frequencies of one head shape: rotate() rotates pair j of the token at position p by
`p * enc.inv_freq[j]` radians. The layout says which two elements are pair j: (j, j + rotary_dim/2) for `half_split`, as
in Llama on Hugging Face, and (2j, 2j + 1) for `interleaved`, as in GPT-J and Meta's own Llama.

Three axes are [tokens, heads, head_dim], and four are [batch, tokens, heads, head_dim]. For the tensors of Hugging Face
models, [batch, heads, tokens, head_dim], pass order="bhsd".

A policy extends the context: `linear:8` divides all frequencies by 8. `rw.policies()` lists the names. Each policy is
also a class, such as `rw.Linear`, and policies compose with `|`. `python -m ropewalk inspect linear:8` shows the effect
of one, and `python -m ropewalk compare linear:8 ntk:8` compares several.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ropewalk import _interpreter  # isort: skip  # noqa: F401 - before _ropewalk: it refuses subinterpreters
from ropewalk import (
    _openmp,  # before _ropewalk: it selects the OpenMP runtime that _ropewalk finds
    _ropewalk,
)
from ropewalk._encoding import encoding, from_config, to_hf_config, to_llama_cpp_flags, to_vllm_overrides
from ropewalk._fused import append, append_mla, fused, norm_rotate, norm_rotate_, split_qkv
from ropewalk._rerotate_cache import rerotate_cache_
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
    tuning_profile,
)
from ropewalk._rotate import rerotate_, rotate, rotate_

# Imported on first use, since NumPy and PyTorch take seconds to import.
_LAZY = {
    "Inspection": "_inspect",
    "RotaryEmbedding": "_modules",
    "apply_cos_sin_cache_": "_cos_sin_cache",
    "apply_rotary_transformers": "_huggingface",
    "cos_sin_cache": "_cos_sin_cache",
    "decompositions": "_decompositions",
    "evaluation": "evaluation",  # not in __all__: import * would import Transformers
    "inspect": "_inspect",
    "patch": "_huggingface",
    "unpatch": "_huggingface",
    "write_hf_config": "_write",
}

if TYPE_CHECKING:
    from ropewalk import evaluation as evaluation
    from ropewalk._cos_sin_cache import apply_cos_sin_cache_, cos_sin_cache
    from ropewalk._decompositions import decompositions
    from ropewalk._huggingface import apply_rotary_transformers, patch, unpatch
    from ropewalk._inspect import Inspection, inspect
    from ropewalk._modules import RotaryEmbedding
    from ropewalk._policies import *  # noqa: F403 - the policy classes
    from ropewalk._write import write_hf_config

else:

    def __getattr__(name):
        if name not in _LAZY:
            raise AttributeError(f"module 'ropewalk' has no attribute {name!r}")
        try:
            module = import_module(f"ropewalk.{_LAZY[name]}")
            return module if name == _LAZY[name] else getattr(module, name)
        except ModuleNotFoundError as missing:
            if missing.name is None or missing.name.startswith("ropewalk"):
                raise
            raise AttributeError(f"ropewalk.{name} needs {missing.name}, which is not installed") from missing

    def __dir__():
        return sorted(__all__)


globals().update({policy_class.__name__: policy_class for policy_class in _ropewalk.policy_classes})

__all__ = [
    "Encoding",
    "Error",
    "Inspection",
    "Policy",
    "RotaryEmbedding",
    "__version__",
    "alibi_slopes",
    "append",
    "append_mla",
    "apply_cos_sin_cache_",
    "apply_rotary_transformers",
    "cos_sin_cache",
    "decompositions",
    "encoding",
    "from_config",
    "fused",
    "inspect",
    "instruction_set",
    "instruction_sets",
    "norm_rotate",
    "norm_rotate_",
    "patch",
    "policies",
    "policy",
    "query_temperature",
    "rerotate_",
    "rerotate_cache_",
    "rotate",
    "rotate_",
    "split_qkv",
    "to_hf_config",
    "to_llama_cpp_flags",
    "to_vllm_overrides",
    "tuning_profile",
    "unpatch",
    "write_hf_config",
    *(policy_class.__name__ for policy_class in _ropewalk.policy_classes),
]

if not TYPE_CHECKING and not _openmp.has_torch():  # without PyTorch, import * skips the functions that need it
    __all__ = [name for name in __all__ if _LAZY.get(name) not in ("_decompositions", "_huggingface", "_modules")]
