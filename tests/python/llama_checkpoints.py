"""Small random Llamas: folders for the Llama stack, and the results of Transformers for the same weights."""

import dataclasses
import os
import pathlib
import subprocess

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = pathlib.Path(os.environ.get("ROPEWALK_BUILD_DIR", ROOT / "build"))
STATES = PROGRAMS / "tests" / "llama_states"
GIRAFFE = PROGRAMS / "examples" / "giraffe_13b"

SHAPE = {
    "vocab_size": 128,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": None,
    "tie_word_embeddings": False,
}

# With original lengths this short, every branch of a policy has pairs of a head of 16.
POLICIES = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 8.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "longrope": {
        "rope_type": "longrope",
        "factor": 4.0,
        "original_max_position_embeddings": 20,
        "short_factor": [1 + 0.1 * pair for pair in range(8)],
        "long_factor": [1 + 0.5 * pair for pair in range(8)],
    },
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
}
EXPRESSIONS = {
    "default": "default",
    "linear": "linear:8",
    "llama3": "llama3:8,original_length=64",
    "yarn": "yarn:4,original_length=32",
    "dynamic": "dynamic:4,original_length=20",
}


def parameters(policy, base=10000.0):
    return {**POLICIES[policy], "rope_theta": base}


def make_config(policy="default", **changes):
    changes.setdefault("rope_parameters", parameters(policy))
    return LlamaConfig(**{**SHAPE, **changes}, attn_implementation="eager")


def make_model(config, seed=0):
    """A model whose matrices keep the variance of their inputs, so that attention is not uniform. Norms are random."""
    model = LlamaForCausalLM(config).eval()
    numbers = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5, generator=numbers)
            else:
                parameter.uniform_(0.5, 1.5, generator=numbers)
    return model


def load(folder, dtype=torch.float64, **changes):
    """A folder read by Transformers. Its angles are float32 for any type of weights."""
    config = LlamaConfig.from_pretrained(folder, attn_implementation="eager", **changes)
    return LlamaForCausalLM.from_pretrained(folder, config=config, dtype=dtype, attn_implementation="eager").eval()


@dataclasses.dataclass
class States:
    """States of every token after the last layer, the same normalised, and logits."""

    hidden: np.ndarray
    normed: np.ndarray
    logits: np.ndarray


def expected(model, ids):
    """States of one sequence by Transformers."""
    raw = []
    hook = model.model.norm.register_forward_pre_hook(lambda _, inputs: raw.append(inputs[0]))
    with torch.no_grad():
        normed = model.model(torch.tensor([ids]), use_cache=False).last_hidden_state
        logits = model.lm_head(normed)
    hook.remove()
    return States(*(x[0].double().numpy() for x in (raw[0], normed, logits)))


def together(parts):
    return States(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("hidden", "normed", "logits")))


def joined(numbers):
    return ",".join(str(number) for number in numbers)


def run(program, *arguments):
    command = [str(program), *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def states(folder, ids, config, tmp_path, **options):
    """States of the ids by the stack: llama_states with --options."""
    out = tmp_path / "states.bin"
    flags = [text for name, value in options.items() for text in (f"--{name}", value)]
    done = run(STATES, "--model", folder, "--ids", joined(ids), "--out", out, *flags)
    assert done.returncode == 0, done.stderr
    hidden, vocabulary = len(ids) * config.hidden_size, len(ids) * config.vocab_size
    parts = np.split(np.fromfile(out, np.float32), [hidden, 2 * hidden])
    assert parts[2].size == vocabulary
    return States(*(part.reshape(len(ids), -1).astype(np.float64) for part in parts))


def error(ours, theirs):
    """Largest difference relative to the largest number, the worst of the three."""
    pairs = [(getattr(ours, name), getattr(theirs, name)) for name in ("hidden", "normed", "logits")]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def random_ids(count, seed=1, vocabulary=SHAPE["vocab_size"]):
    return np.random.default_rng(seed).integers(0, vocabulary, count).tolist()
