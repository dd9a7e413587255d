"""Every causal language model of the installed Transformers: its default configuration, read here and there."""

import copy
import importlib
import inspect

import numpy as np
import pytest
import ropewalk as rw

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: E402
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # noqa: E402

# What is not read as it is there, by kind of model.
REFUSED = {
    "ernie4_5_vl_moe_text": "an order of pairs of its own",
    "glm4_moe": "a default hidden_size that is no multiple of the heads; the published models have head_dim",
    "glm4v_moe_text": "the same",
    "qwen3_omni_moe_text": "the same",
    "moonshine": "different heads in encoder and decoder",
    "nanochat": "rotates backwards",
    "zamba2": "has no rotary positions in its default configuration",
}
DIFFERENT = {
    "minimax_m3_vl_text": "the default rotary_dim is half of the head, but its code reads partial_rotary_factor",
}
# What the code of these fills in is not in model_defaults.hpp.
UNSTATED = {"bamba", "csm_depth_decoder_model", "moonshine", "jetmoe", "zamba2", "blt", "step3p5"}


def tables(kind):
    """(layer type, inv_freq) of a kind of model, and its configuration."""
    try:
        config = CONFIG_MAPPING[kind]().get_text_config()
        module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    except Exception:  # needs a package that is not here, or has no default configuration
        return None, []
    if not getattr(config, "rope_parameters", None):
        return config, []
    for name, one in vars(module).items():
        here = inspect.isclass(one) and one.__module__ == module.__name__
        if here and name.endswith("RotaryEmbedding") and "Vision" not in name and "Audio" not in name:
            try:
                buffers = dict(one(config).named_buffers())
            except Exception:  # belongs to another part of the model
                continue
            found = {key: value for key, value in buffers.items() if key.endswith("inv_freq") and "original" not in key}
            return config, [(key[: -len("_inv_freq")] or None, value.double().numpy()) for key, value in found.items()]
    return config, []


def problem_of(fields, layer_type, expected):
    try:
        encoding = rw.from_config(fields, layer_type=layer_type)
    except rw.Error as error:
        return f"refused: {error}"
    same = expected.shape == encoding.inv_freq.shape and np.allclose(encoding.inv_freq, expected, rtol=1e-6, atol=0)
    return "" if same else "different"


LATE = {"rope_theta": 12345.0, "rope_scaling": {"type": "linear", "factor": 3.0}}  # at the top level of a file
SIZES = {"hidden_size": 1024, "num_attention_heads": 8, "num_hidden_layers": 2}
# There are files of these without a text_config: keys at their top level are the text model's.
FLAT = ["fuyu", "paddleocr_vl", "qwen2_5_vl", "qwen2_vl"]


def composite_kinds():
    """Kinds of models with a text_config, and that as it is beside keys at the top level."""
    for kind in CONFIG_MAPPING:
        try:
            text_type = CONFIG_MAPPING[kind]().text_config.model_type
            text = CONFIG_MAPPING[kind](text_config={"model_type": text_type}, **copy.deepcopy(LATE)).text_config
        except Exception:  # has none, or wants more of it
            continue
        if getattr(text, "rope_parameters", None):
            yield kind, text


def test_a_text_config_wins_over_keys_beside_it():
    compared = 0
    for kind, text in composite_kinds():
        assert "12345" not in str(text.rope_parameters), kind
        plain = {"model_type": text.model_type, "hidden_size": 1024, "num_attention_heads": 8, "head_dim": 128}
        whole = {"model_type": kind, **LATE, "text_config": {**plain, "rope_theta": 7e5}}
        try:
            encoding = rw.from_config(whole)
        except rw.Error:  # has a scheme of its own, say
            continue
        assert (encoding.base, encoding.expression) == (7e5, "default"), kind
        compared += 1
    assert compared > 60


@pytest.mark.parametrize("kind", FLAT)
@pytest.mark.parametrize("keys", [{}, {"rope_theta": 12345.0}, LATE])
def test_flat_configurations_of_composite_models(kind, keys):
    text = CONFIG_MAPPING[kind](**SIZES, **copy.deepcopy(keys)).text_config
    expected, encoding = rw.from_config(text.to_dict()), rw.from_config({"model_type": kind, **SIZES, **keys})
    assert encoding == expected
    assert encoding.base == text.rope_parameters["rope_theta"]


def test_default_configurations():
    compared, problems = 0, {}
    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        config, found = tables(kind)
        for layer_type, expected in found:
            compared += 1
            fields = config.to_dict()
            kind = config.model_type
            problem = problem_of(fields, layer_type, expected)
            if problem and kind not in (REFUSED if problem.startswith("refused") else DIFFERENT):
                problems[kind, layer_type] = problem
            # With all that the code fills in left out: the same, or an error, but never something else in silence.
            keys = ("model_type", "hidden_size", "num_attention_heads", "qk_rope_head_dim", "num_hidden_layers")
            short = {key: fields[key] for key in keys if fields.get(key) is not None}
            own = fields == type(config)().to_dict()  # and not those of a larger model around it
            if own and kind not in UNSTATED and problem_of(short, layer_type, expected) == "different":
                problems[kind, layer_type, "short"] = short
    assert problems == {}
    assert compared > 80
