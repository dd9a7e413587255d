"""Small random models of every kind that patch() takes, and their table in docs/reference/patched_models.md.

`python tests/python/patched_models.py` writes the table.
"""

import contextlib
import copy
import sys
from pathlib import Path

import ropewalk as rw
import torch
import transformers
from ropewalk._patched import PatchedRotaryEmbedding, RotaryInput
from tiny_model import IDS, SHAPE, randomize
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "patched_models.md"
INTRODUCTION = f"""# Models that patch() takes

`tests/python/patched_models.py` writes this page, and the tests check it with Transformers {transformers.__version__}:
for a small random model of each kind, the logits after `rw.patch(model)` are within 2e-5 of those before.

- **Encodings**: the layout. "8 of 16" means that the model's function is passed 16 elements per head and rotates 8 of
  them. "Reordered" means that it also moves interleaved pairs into the order of half split. "Three positions" are those
  of M-RoPE. Models with several encodings have one per layer type.
- **A policy changes**: the layer types that `rw.patch(model, "linear:8")` changes. Sliding layers keep their encoding;
  `rw.patch(model, {{"sliding_attention": "linear:8"}})` changes theirs.

In a model with images or audio, patch() changes the language model only. Models that are not in the table also work if
they have the structure of one that is: patch() compares their own rotation with ropewalk's, and refuses what differs.
"""
EXPERTS = {
    **{"num_local_experts": 2, "num_experts": 2, "n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1},
    **{"topk_group": 1, "n_shared_experts": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1},
    **{"shared_expert_intermediate_size": 32, "expert_intermediate_size": 32},
}
LATENT = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
PER_LAYER = {
    **{"sliding_window": 16, "global_head_dim": 32, "num_global_key_value_heads": 2},
    **{"vocab_size_per_layer_input": 97, "hidden_size_per_layer_input": 8},
}
SIZES = {**EXPERTS, **LATENT, **PER_LAYER}
SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
HALF_SECTIONS = {**SECTIONS, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
TWO_TYPES = {"layer_types": ["sliding_attention", "full_attention"]}
LAYERS = {"layer_types": ["full_attention"] * 2}
# Keys that differ from the sizes above or from the default layer types. None drops a key.
SPECIAL = {
    "bailing_hybrid": {**LAYERS, "num_key_value_heads": 4, "head_dim": None, "num_experts": 16},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8},
    "codegen": {"rotary_dim": 8},
    "esm": {"position_embedding_type": "rotary"},
    "esmc": {"num_key_value_heads": 4},
    "falcon": {"head_dim": None, "alibi": False},
    "gemma3n_text": {
        **{"num_hidden_layers": 4, "layer_types": TWO_TYPES["layer_types"] * 2, "num_kv_shared_layers": 2},
        **{"laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 4, "altup_num_inputs": 2},
    },
    "flint": {"layer_types": ["sliding_attention"] * 2},
    "gptj": {"rotary_dim": 8},
    "lfm2_moe": LAYERS,
    "lfm3": TWO_TYPES,
    "mimo_v2_flash": {"head_dim": 24},
    "minimax_m3_vl_text": {
        **{"rotary_dim": 8, "dense_intermediate_size": 32, "shared_intermediate_size": 32},
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    },
    "qwen3_5_moe_text": {"rope_parameters": HALF_SECTIONS, **LAYERS},
    "qwen3_5_text": {"rope_parameters": HALF_SECTIONS, **LAYERS},
    "qwen3_next": LAYERS,
    "zamba2": {
        **{"layers_block_type": ["mamba", "hybrid"], "use_mem_rope": True, "n_mamba_heads": 8, "mamba_headdim": 16},
        **{"mamba_ngroups": 1, "mamba_d_state": 8},
    },
    "zaya": {"layer_types": None},
}
TOWER = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGES = {**TOWER, "image_size": 16, "patch_size": 4}
AUDIO = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
GRID = {
    **{"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 4, "image_size": 16},
    **{"spatial_merge_size": 2, "temporal_patch_size": 1, "out_hidden_size": 64},
}
TOKENS = {
    **{"image_token_id": 90, "video_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93},
    **{"image_start_token_id": 92, "image_end_token_id": 93, "video_start_token_id": 94, "video_end_token_id": 95},
}
THREE = {"text_config": {**SHAPE, "rope_parameters": SECTIONS}, **TOKENS}
# Composites: the class of the model without ForConditionalGeneration, and the configurations of its parts.
COMPOSITES = {
    "Exaone4_5_": {"text_config": {**SHAPE, "model_type": "exaone4"}, "vision_config": GRID},
    "Gemma3": {"text_config": {**SHAPE, **TWO_TYPES, "sliding_window": 16}, "vision_config": IMAGES},
    "Gemma4": {
        "text_config": {
            **SHAPE,
            **TWO_TYPES,
            **{key: SIZES[key] for key in SIZES if "global" in key or "per_l" in key},
        },
        "vision_config": {**IMAGES, "head_dim": 16, "num_key_value_heads": 2},
    },
    "Glm4v": {**THREE, "vision_config": GRID},
    "Glm4vMoe": {
        "text_config": {**SHAPE, **EXPERTS, "rope_parameters": HALF_SECTIONS},
        **{**TOKENS, "vision_config": GRID},
    },
    "GlmOcr": {**THREE, "vision_config": GRID},
    "InternVL": {
        "text_config": {**SHAPE, "model_type": "qwen2"},
        "vision_config": {**IMAGES, "image_size": [16, 16], "patch_size": [4, 4]},
    },
    "Llava": {
        "text_config": {**SHAPE, "model_type": "llama"},
        "vision_config": {**IMAGES, "model_type": "clip_vision_model"},
    },
    "Mistral3": {
        "text_config": {**SHAPE, "model_type": "mistral"},
        "vision_config": {**IMAGES, "model_type": "pixtral", "head_dim": 16},
    },
    "PaliGemma": {
        "text_config": {**SHAPE, "model_type": "gemma"},
        "vision_config": {**IMAGES, "model_type": "siglip_vision_model"},
    },
    "Qwen2_5OmniThinker": {
        **{"text_config": THREE["text_config"], "vision_config": GRID},
        "audio_config": {**AUDIO, "output_dim": 64},
    },
    "Qwen2Audio": {
        "text_config": {**SHAPE, "model_type": "qwen2"},
        "audio_config": AUDIO,
    },
    "Qwen2VL": {**THREE, "vision_config": {**GRID, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}},
    "Qwen2_5_VL": {**THREE, "vision_config": {**GRID, "window_size": 16, "fullatt_block_indexes": [0]}},
    "Qwen3VL": {
        **{**THREE, "text_config": {**SHAPE, "rope_parameters": {**SECTIONS, "mrope_interleaved": True}}},
        "vision_config": {**GRID, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
    },
    "Qwen3VLMoe": {
        "text_config": {**SHAPE, **EXPERTS, "rope_parameters": {**SECTIONS, "mrope_interleaved": True}},
        "vision_config": {**GRID, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
    },
    "Qwen3_5": {
        "text_config": {**SHAPE, **LAYERS, "rope_parameters": HALF_SECTIONS},
        "vision_config": {**GRID, "deepstack_visual_indexes": [], "num_position_embeddings": 16},
    },
    "T5Gemma": {
        "encoder": {**SHAPE, **TWO_TYPES, "sliding_window": 16},
        "decoder": {**SHAPE, **TWO_TYPES, "sliding_window": 16, "cross_attention_hidden_size": 64},
        "vocab_size": 97,
    },
    "T5Gemma2": {
        "encoder": {"text_config": {**SHAPE, **TWO_TYPES, "sliding_window": 16}, "vision_config": IMAGES},
        "decoder": {**SHAPE, **TWO_TYPES, "sliding_window": 16},
    },
    "Voxtral": {"text_config": {**SHAPE, "model_type": "llama"}, "audio_config": {**TOWER, "d_model": 32}},
}


def text_classes():
    """The class of the model with a language head, by kind."""
    names = {}
    for mapping in (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES):
        for kind, name in mapping.items():
            names.setdefault(kind, name if isinstance(name, str) else name[0])
    return names


def sizes_of(kind, config_class):
    default = config_class()
    fields = set(default.to_dict())
    sizes = {**SHAPE, **{key: value for key, value in SIZES.items() if key in fields}}
    if "qk_rope_head_dim" in fields:
        sizes |= {"head_dim": None, "num_key_value_heads": 4}
    sections = getattr(default, "rope_parameters", None) or {}
    types = [key for key, section in sections.items() if isinstance(section, dict)]
    if types and "layer_types" in fields and kind != "deepseek_v4":
        sizes["layer_types"] = (types * 2)[:2]
    sizes |= SPECIAL.get(kind, {})
    return {key: value for key, value in sizes.items() if value is not None}


def tiny(name):
    """A small model of a kind, or of a composite, with random weights."""
    torch.manual_seed(5)
    if name in COMPOSITES:
        suffix = "Config" if hasattr(transformers, f"{name}Config") else "_Config"
        config = getattr(transformers, name + suffix)(**copy.deepcopy(COMPOSITES[name]))
        return randomize(getattr(transformers, f"{name}ForConditionalGeneration")(config))
    config_class = CONFIG_MAPPING[name]
    config = config_class(**copy.deepcopy(sizes_of(name, config_class)))
    with torch.device("meta"):
        size = sum(x.numel() for x in getattr(transformers, text_classes()[name])(config).parameters())
    if size > 8e6:
        raise ValueError(f"{name} has {size} parameters")
    return randomize(getattr(transformers, text_classes()[name])(config))


def logits_of(model):
    ids = IDS[:, :24]
    arguments = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(ids, use_cache=False, **arguments).logits


@contextlib.contextmanager
def counted_rotations(rotated):
    """Appends the function and the width of the heads of each rotation of a patched model."""
    original = RotaryInput.rotate

    def rotate(self, key, heads, axis):
        rotated.append((key, heads[0].shape[-1]))
        return original(self, key, heads, axis)

    RotaryInput.rotate = rotate
    try:
        yield
    finally:
        RotaryInput.rotate = original


def encoding_text(schedule, rotated):
    texts = []
    for key, (fit, encoding) in schedule.fits.items():
        if key in rotated:
            layout = "interleaved, reordered" if fit.deinterleaves else fit.layout.replace("_", " ")
            part = "" if encoding.rotary_dim == fit.width else f", {encoding.rotary_dim} of {fit.width}"
            three = ", three positions" if schedule.axes else ""
            texts.append(f"{layout}{part}{three}")
    return " or ".join(dict.fromkeys(texts))


def row_of(name):
    """Patch a model and return its row of the table. Throws if the logits change."""
    model = tiny(name)
    before, rotated = logits_of(model), []
    rw.patch(model)
    with counted_rotations(rotated):
        torch.testing.assert_close(logits_of(model), before, rtol=0, atol=2e-5)
    assert rotated, f"{name} does not rotate"
    modules = [x for x in model.modules() if isinstance(x, PatchedRotaryEmbedding)]
    encodings = dict.fromkeys(
        (f"{layer_type}: " if layer_type else "") + encoding_text(schedule, rotated)
        for module in modules
        for layer_type, schedule in module.schedules.items()
    )
    return f"| {name} | {type(model).__name__} | {'; '.join(encodings)} | {changed_by_a_policy(rw.unpatch(model))} |"


def changed_by_a_policy(model):
    try:
        rw.patch(model, "linear:8")
    except rw.Error as refusal:
        assert "a policy changes the layers with full attention" in str(refusal)
        return "none"
    modules = [x for x in model.modules() if isinstance(x, PatchedRotaryEmbedding)]
    changed = [key for x in modules for key, one in x.schedules.items() if "linear:8" in one.encoding.expression]
    return ", ".join(dict.fromkeys(key or "all layers" for key in changed))


def table():
    """Write the table, and the kinds that it lacks with the reason to stderr."""
    rows = []
    for name in sorted([*text_classes(), *COMPOSITES], key=str.lower):
        try:
            rows.append(row_of(name))
        except Exception as problem:
            print(name, type(problem).__name__, str(problem).replace("\n", " ")[:160], file=sys.stderr)
    head = "| Model | Class | Encodings | A policy changes |\n|---|---|---|---|\n"
    PAGE.write_text(f"{INTRODUCTION}\n{head}" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    table()
