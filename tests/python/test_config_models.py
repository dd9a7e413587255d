"""Default configurations of every causal language model of the installed Transformers."""

import copy

import numpy as np
import pytest
import ropewalk as rw
from transformers_models import CONFIG_MAPPING, frequencies, members_of, rotary_embeddings

models = pytest.importorskip("transformers.models.auto.modeling_auto")

# Kinds of models that ropewalk refuses, or reads differently from Transformers.
REFUSED = {
    "ernie4_5_vl_moe_text": "its pairs have a different order",
    "granitemoehybrid": "rotates only if position_embedding_type is 'rope', and the default is null",
    "glm4_moe": "the default hidden_size is not a multiple of the heads; the published models have head_dim",
    "glm4v_moe_text": "as glm4_moe",
    "qwen3_omni_moe_text": "as glm4_moe",
    "moonshine": "encoder and decoder have different heads",
    "nanochat": "rotates backwards",
    "zamba2": "has no rotary positions in its default configuration",
}
DIFFERENT = {
    "minimax_m3_vl_text": "the default rotary_dim is half of the head, but its code reads partial_rotary_factor",
}
# Models whose code sets values that model_table.hpp does not have.
UNSTATED = {"bamba", "csm_depth_decoder_model", "moonshine", "jetmoe", "zamba2", "blt", "step3p5"}


def problem_of(fields, layer_type, expected):
    try:
        encoding = rw.from_config(fields, layer_type=layer_type)
    except rw.Error as error:
        return f"refused: {error}"
    same = expected.shape == encoding.inv_freq.shape and np.allclose(encoding.inv_freq, expected, rtol=1e-6, atol=0)
    return "" if same else "different"


LATE = {"rope_theta": 12345.0, "rope_scaling": {"type": "linear", "factor": 3.0}}  # keys at the top level of a file
SIZES = {"hidden_size": 1024, "num_attention_heads": 8, "num_hidden_layers": 2}
# Some files of these models have no text_config; the keys at their top level are those of the text model.
FLAT = ["fuyu", "paddleocr_vl", "qwen2_5_vl", "qwen2_vl"]


def composite_kinds():
    """Kinds of models with a text_config, and that configuration when the file also has keys at the top level."""
    for kind in CONFIG_MAPPING:
        try:
            text_type = CONFIG_MAPPING[kind]().text_config.model_type
            text = CONFIG_MAPPING[kind](text_config={"model_type": text_type}, **copy.deepcopy(LATE)).text_config
        except Exception:  # the kind has no text_config, or requires more of it
            continue
        if getattr(text, "rope_parameters", None):
            yield kind, text


def test_keys_around_a_text_config_agree_with_it():
    """Transformers ignores keys at the top level of a file that has a text_config."""
    compared = 0
    for kind, text in composite_kinds():
        assert "12345" not in str(text.rope_parameters), kind
        plain = {"model_type": text.model_type, "hidden_size": 1024, "num_attention_heads": 8, "head_dim": 128}
        whole = {"model_type": kind, "text_config": {**plain, "rope_theta": 7e5}}
        try:
            encoding = rw.from_config(whole)
        except rw.Error:  # for example, the model has a scaling method of its own
            continue
        assert encoding.base == 7e5, kind
        assert rw.from_config({**whole, "rope_theta": 7e5}) == encoding
        for late in LATE:
            with pytest.raises(rw.Error, match=f"'{late}' .* outside text_config disagrees with it"):
                rw.from_config({**whole, late: LATE[late]})
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
    for kind in models.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        config, members = members_of(kind)
        if not getattr(config, "rope_parameters", None):
            continue
        rope = next(rotary_embeddings(members, config, ("Vision", "Audio")), None)
        for layer_type, expected in frequencies(rope).items() if rope else ():
            compared += 1
            fields, kind = config.to_dict(), config.model_type
            problem = problem_of(fields, layer_type, expected)
            if problem and kind not in (REFUSED if problem.startswith("refused") else DIFFERENT):
                problems[kind, layer_type] = problem
            # Without the values that the model's code sets, the result is the same or an error, never different.
            keys = ("model_type", "hidden_size", "num_attention_heads", "qk_rope_head_dim", "num_hidden_layers")
            short = {key: fields[key] for key in keys if fields.get(key) is not None}
            own = fields == type(config)().to_dict()  # not the configuration of a larger model
            skipped = UNSTATED | DIFFERENT.keys()
            if own and kind not in skipped and problem_of(short, layer_type, expected) == "different":
                problems[kind, layer_type, "short"] = short
    assert problems == {}
    assert compared > 80
