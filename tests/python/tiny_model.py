"""Models of Transformers with random weights, small enough for a test."""

import copy

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

SHAPE = {
    **{"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
ORIGINAL = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
ROPES = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0},
    "yarn": {"rope_type": "yarn", **ORIGINAL},
    "llama3": {"rope_type": "llama3", **ORIGINAL, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    "longrope": {
        **{"rope_type": "longrope", **ORIGINAL},
        **{"short_factor": [1 + j / 8 for j in range(8)], "long_factor": [3.0 + j for j in range(8)]},
    },
}
IDS = torch.randint(3, 97, (2, 40), generator=torch.Generator().manual_seed(1))


def randomize(model):
    """Give a model weights with which attention is not almost uniform, and return it in evaluation mode."""
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.12)
    return model.eval()


def build(family="Llama", rope="default", device="cpu", head="ForCausalLM", **config):
    """A small model, by default a causal language model, with equal weights for equal arguments.

    A key of the configuration that is None is left out.
    """
    torch.manual_seed(5)
    shape = SHAPE if rope != "dynamic" else {**SHAPE, "max_position_embeddings": 16}
    scaling = {"rope_parameters": copy.deepcopy(ROPES[rope])} if rope else {}  # configurations write to the dict
    keys = {**shape, **scaling, **config}
    kind = getattr(transformers, f"{family}TextConfig", None) or getattr(transformers, f"{family}Config")
    with torch.device(device):
        config = kind(**{key: value for key, value in keys.items() if value is not None})
        return randomize(getattr(transformers, f"{family}{head}")(config))


def logits(model, ids=IDS, **arguments):
    with torch.no_grad():
        return model(ids, **{"use_cache": False, **arguments}).logits


def gradients(model, ids=IDS):
    """Gradients of the loss by name of the parameter, for the model in its current mode."""
    model.zero_grad()
    model(ids, labels=ids, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-3, atol=2e-5, msg=name)
