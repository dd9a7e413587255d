"""Writes include/ropewalk/io/model_table.hpp from the installed Transformers: `tools/model_table.py [--check]`.

Every configuration class is instantiated, with its defaults and with other sizes, and its rotary class is run: the
layout, the sections of M-RoPE and the width come from experiments. What no experiment can decide is in OVERRIDES, and
model types that only remote code has are in REMOTE, each with its reason. With --check the program writes nothing and
fails where the header differs.
"""

import argparse
import ast
import contextlib
import copy
import difflib
import functools
import importlib
import inspect
import json
import re
import sys
import warnings
from pathlib import Path

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

PATH = Path(__file__).resolve().parents[1] / "include" / "ropewalk" / "io" / "model_table.hpp"
MODELS = Path(transformers.__file__).parent / "models"
ROTARY = re.compile(r"(?i)rotary|rope(?![a-z])|rotate_half|rotate_every")
# Keys whose defaults the reader of configurations uses, by their canonical names.
SIZES = ("hidden_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings")
KEYS = (
    *("qk_rope_head_dim", "kv_channels", "attention_head_dim", "rotary_dim", "original_max_position_embeddings"),
    *("sliding_window", "use_sliding_window", "use_mem_rope", "no_rope_layer_interval", "compress_rope_theta"),
    *(
        "rope_interleave",
        "position_embedding_type",
        "prefix_dense_sliding_window_pattern",
        "num_sliding_attention_heads",
    ),
)
POSITIONS = torch.tensor([[0, 1, 2, 7, 31, 64]])
SCALED = {"rope_type": "linear", "factor": 2.0}

torch.set_num_threads(1)
transformers.logging.set_verbosity(transformers.logging.CRITICAL)
warnings.filterwarnings("ignore", category=FutureWarning)

AXIAL = "rotates by two coordinates per patch"
NONE = "has no rotary positions"
RELATIVE = "has relative positions, or rotates hidden states before their projections"
# Model types that no experiment decides: (rotation, note) of those that ropewalk refuses, else (layout, defaults,
# sections, interleaved).
OVERRIDES = {
    "blt": ("interleaved", {}),  # the parts of the model rotate; a file has their sizes in sections of its own
    "clvp_decoder": ("none", NONE),  # its attention is shared with the encoder, which rotates
    "clvp_encoder": ("unsupported", "rotates the values too"),
    "clvp": ("unsupported", "rotates the values too"),
    # The rotary classes of CodeGen and GPT-J have tables instead of frequencies.
    "codegen": ("interleaved", {}),
    "gptj": ("interleaved", {}),
    # The default configuration has no section, and the model then fails. The sections are those of the rotary class.
    "cohere_compass_text": ("half_split", {}, (24, 20, 20), True),
    "deepseek_ocr2_vision": ("unsupported", "keeps the heads of its encoder in encoder_config"),
    "dinov3_vit": ("unsupported", AXIAL),
    "efficientloftr": ("unsupported", "rotates by two coordinates per feature"),
    "eomt_dinov3": ("unsupported", AXIAL),
    "esmfold2": ("unsupported", "rotates by the coordinates of atoms"),
    "hunyuan_vl_text": ("unsupported", "gives the two elements of a pair positions of different axes"),
    "inkling2_text": ("none", "has relative positions"),  # the vision tower rotates
    "lightglue": ("unsupported", "rotates by learned combinations of two coordinates"),
    "llama4_vision_model": ("unsupported", AXIAL),
    "minimax_m3_vl_vision": ("unsupported", "rotates by three coordinates per patch"),
    "mistral_large4_text": ("unsupported", "scales the frequencies by a learned factor"),
    "nanochat": (
        "unsupported",
        "rotates backwards: make an encoding from head_dim and rope_theta, and rotate with inverse=True",
    ),
    "neomme": ("unsupported", "rotates by rows and columns"),  # alternating pairs
    "nemotron3_diarization": ("unsupported", "rotates in its audio encoder only"),
    "qwen2_5_omni_dit": ("unsupported", "rotates the first of its heads only"),
    "qwen3_omni_moe_audio_encoder": ("none", NONE),  # the talker rotates
    # A class without a rotary module: its function repeats every angle twice in a row.
    "roformer": ("interleaved", {"rope_theta": 10000}),
    "sapiens2": ("unsupported", AXIAL),
    "seamless_m4t": ("unsupported", RELATIVE),
    "vjepa2": ("unsupported", "rotates by three coordinates per patch"),
    "wav2vec2-bert": ("unsupported", RELATIVE),
    "wav2vec2-conformer": ("unsupported", RELATIVE),
}
# The rotary class of configurations that several take.
ROTARY_CLASSES = {
    "qwen3_omni_moe_talker_code_predictor": "Qwen3OmniMoeRotaryEmbedding",
    "qwen3_omni_moe_talker_text": "Qwen3OmniMoeTalkerRotaryEmbedding",
}
# Defaults that the experiments do not find; None removes a default. The layers that do not rotate are those whose
# attention has a condition on its rotation, or gets no table from its model.
NOT_FULL = {"unrotated_layers": ["full_attention"]}
ONLY_SLIDING = {**NOT_FULL, "rotates_without_sliding_window": True}
DEFAULTS = {
    "afmoe": NOT_FULL,
    "cohere2": NOT_FULL,
    "cohere2_moe": NOT_FULL,  # its leading dense layers rotate
    "deepseek_v4": {"qk_rope_head_dim": None, "head_dim": 512},  # the last elements of a head of 512 rotate
    # A base without a section applies to the other layers only, and one of a section to all.
    "dots3_note_text": {"ignores": ["rope_theta"]},
    "exaone4": ONLY_SLIDING,
    "exaone_moe": ONLY_SLIDING,
    "flint": NOT_FULL,
    "granitemoehybrid": {"position_embedding_type": "nope"},  # it rotates only for "rope", and the default is null
    "kolibri1": ONLY_SLIDING,
    "lara_mini": NOT_FULL,
    "llama4_text": NOT_FULL,  # every fourth layer has full attention, and does not rotate
    # Its files are flat: the remote code reads the keys that the class ignores.
    "mimo_v2_flash": {
        **{"rope_theta": 5000000, "swa_rope_theta": 10000, "partial_rotary_factor": 0.334},
        "ignores": None,
    },
    "muse_glimmer_text": NOT_FULL,  # every fourth layer, from the last, has full attention and does not rotate
    "muse_spark_text": NOT_FULL,
    "zamba2": {"kv_channels": None, "attention_head_dim": None, "requires": "attention_head_dim"},  # 2 hidden / heads
}
# Model types that only remote code has, with the defaults of their configuration classes.
REMOTE = {
    # Transformers has these, but their default configurations fail.
    "gemma4_assistant": ("half_split", "", {"text_config": {"model_type": "gemma4_text"}}),
    "nougat": ("none", NONE, {}),
    # BAAI/Aquila-7B: the code of LLaMA.
    "aquila": ("half_split", "", {"rope_theta": 10000}),
    # baichuan-inc/Baichuan2: 7B (hidden size 4096) rotates, 13B (5120) has ALiBi.
    "baichuan": ("half_split", "", {"rope_theta": 10000}),
    # inclusionAI/Ling-lite: the code of LLaMA.
    "bailing_moe": ("half_split", "", {"rope_theta": 600000}),
    # THUDM/chatglm3-6b, glm-4-9b: half of kv_channels rotates, with the base 10000 * rope_ratio.
    "chatglm": ("interleaved", "", {"rope_theta": 10000, "rope_ratio": 1, "partial_rotary_factor": 0.5}),
    # deepseek-ai/deepseek-moe-16b: the code of LLaMA.
    "deepseek": ("half_split", "", {"rope_theta": 10000}),
    # tiiuae/Falcon-Perception: half of a head rotates by the row and the column of a patch.
    "falcon_perception": ("unsupported", "rotates by rows and columns in half of a head", {}),
    # tencent/Tencent-Hunyuan-Large: the code of LLaMA, and a fixed alpha.
    "hunyuan": ("half_split", "", {"rope_theta": 10000}),
    # internlm/internlm-7b and internlm2-7b: the code of LLaMA.
    "internlm": ("half_split", "", {"rope_theta": 10000}),
    "internlm2": ("half_split", "", {"rope_theta": 10000}),
    # inceptionai/jais-13b: position_embedding_type is "alibi".
    "jais": ("none", "has ALiBi", {}),
    # moonshotai/Kimi-K2: the code of DeepSeek-V3.
    "kimi_k2": ("interleaved", "", {"qk_rope_head_dim": 64, "rope_theta": 50000, "softmax_scaling": True}),
    # XiaomiMiMo/MiMo-7B: the code of Qwen-2.
    "mimo": ("half_split", "", {"rope_theta": 10000}),
    # openbmb/MiniCPM-2B: the code of LLaMA.
    "minicpm": ("half_split", "", {"rope_theta": 10000}),
    # Alibaba-NLP/gte-large-en-v1.5: rope_scaling `ntk` scales the first pair too.
    "new": ("half_split", "", {"rope_theta": 10000}),
    # OrionStarAI/Orion-14B: the code of LLaMA.
    "orion": ("half_split", "", {"rope_theta": 10000}),
    # microsoft/Phi-3-small: rope_embedding_base, and rope_position_scale.
    "phi3small": ("half_split", "", {"rope_theta": 1000000}),
    # Qwen/Qwen-7B: kv_channels is 128, rotary_emb_base 10000 and rotary_pct 1.
    "qwen": ("half_split", "", {"kv_channels": 128, "rope_theta": 10000}),
    # tiiuae/falcon-7b before Transformers had Falcon.
    "RefinedWeb": ("half_split", "", {"rope_theta": 10000}),
    "RefinedWebModel": ("half_split", "", {"rope_theta": 10000}),
    # Skywork/Skywork-13B: the code of LLaMA.
    "skywork": ("half_split", "", {"rope_theta": 10000}),
    # stabilityai/stablelm-3b-4e1t: rope_pct 0.25.
    "stablelm_epoch": ("half_split", "", {"partial_rotary_factor": 0.25, "rope_theta": 10000}),
    # stepfun-ai/Step-Audio-Chat: a bias by the square root of the distance.
    "step1": ("none", "has ALiBi", {}),
    # xverse/XVERSE-13B: the code of LLaMA.
    "xverse": ("half_split", "", {"rope_theta": 10000}),
    # 01-ai/Yi-6B: the code of LLaMA.
    "Yi": ("half_split", "", {"rope_theta": 5000000}),
    # IEITYuan/Yuan2-2B: the rotation of LLaMA.
    "yuan": ("half_split", "", {"rope_theta": 10000}),
}


@functools.cache
def default_configs():
    """The default configuration of every model type; a few cannot be made without arguments."""
    found = {}
    for kind in CONFIG_MAPPING:
        with contextlib.suppress(Exception):
            found[kind] = CONFIG_MAPPING[kind]()
    return found


def attempt(cls, **fields):
    """A configuration with some keys of a config.json, or None if the class refuses them."""
    try:
        return cls(**copy.deepcopy(fields))
    except Exception:
        return None


@functools.cache
def sources(folder):
    return {path.stem: path.read_text() for path in sorted((MODELS / folder).glob("modeling_*.py"))}


def folder_of(config):
    """The folder of the modules of a configuration class: its own, or that of the class that the Auto classes name."""
    folder = type(config).__module__.split(".")[-2]
    if sources(folder):
        return folder
    for names in (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, modeling_auto.MODEL_MAPPING_NAMES):
        name = names.get(config.model_type)
        if isinstance(name, str):
            return getattr(transformers, name).__module__.split(".")[-2]
    return folder


@functools.cache
def members(folder):
    """Functions and classes of the modules of a folder, by name."""
    found = {}
    for stem, text in sources(folder).items():
        if not ROTARY.search(text):
            continue
        try:
            module = importlib.import_module(f"transformers.models.{folder}.{stem}")
        except Exception:  # an optional package is missing
            continue
        found.update({name: x for name, x in vars(module).items() if getattr(x, "__module__", "") == module.__name__})
    return found


def annotation(cls):
    """The name of the configuration class that the constructor of a module names, or ""."""
    try:
        parameters = inspect.signature(cls.__init__).parameters
    except (TypeError, ValueError):
        return ""
    for name in ("config", "atom_config"):
        if name in parameters:
            kind = parameters[name].annotation
            return (kind if isinstance(kind, str) else getattr(kind, "__name__", "")).strip('"').split(" ")[0]
    return ""


@functools.cache
def identifiers(folder):
    """For every class of the modules of a folder: its name, the configuration class of its constructor and the names
    and texts in its body. Decorators do not count: they name functions that the body does not use."""
    found = []
    for text in sources(folder).values():
        for node in ast.parse(text).body if ROTARY.search(text) else ():
            if not isinstance(node, ast.ClassDef) or node.name.endswith("PreTrainedModel"):
                continue
            makers = [x for x in node.body if isinstance(x, ast.FunctionDef) and x.name == "__init__"]
            kinds = [
                ast.unparse(a.annotation) for m in makers for a in m.args.args if a.annotation and "config" in a.arg
            ]
            inside = [x for statement in node.body for x in ast.walk(statement)]
            names = {x.id for x in inside if isinstance(x, ast.Name)} | {node.name}
            names |= {x.attr for x in inside if isinstance(x, ast.Attribute)}
            names |= {x.value for x in inside if isinstance(x, ast.Constant) and isinstance(x.value, str)}
            found.append((kinds[0].strip("'\"").split(" ")[0] if kinds else "", node.name, names))
    return found


def mentions(config, pattern):
    """Returns whether a class of the modules of a configuration class names something. A class whose constructor names
    no configuration counts for all of its folder, and those of another folder count for all that borrow them."""
    folder = folder_of(config)
    borrowed = folder != type(config).__module__.split(".")[-2]
    return any(
        any(re.search(pattern, name) for name in names)
        for kind, _, names in identifiers(folder)
        if borrowed or kind in (type(config).__name__, "")
    )


ROTATES = r"^(?=\w+$)(?i:\w*rotary|rope_|\w*rotate_half|\w*rope(position|attention))"


SIDES = ("Vision", "Audio", "Speech", "DiT")


def rotary_modules(config):
    """Instances of the rotary classes of a configuration: those that name its class, else those that take it."""
    classes = {
        name: cls
        for name, cls in members(folder_of(config)).items()
        if inspect.isclass(cls) and re.search(r"(Rotary|Rope|RoPE)\w*Embedding$", name)
    }
    own = {name: cls for name, cls in classes.items() if annotation(cls) == type(config).__name__}
    if not own:
        side = next((word for word in SIDES if word in type(config).__name__), None)
        own = {name: cls for name, cls in classes.items() if not any(word in name for word in SIDES if word != side)}
    own = {name: cls for name, cls in own.items() if name == ROTARY_CLASSES.get(config.model_type, name)}
    for cls in own.values():
        try:
            yield cls(config)
        except Exception:  # the class belongs to another part of the model
            continue


def frequencies(rope):
    """The inverse frequencies by layer type; the type is None for models with one kind of layer."""
    buffers = {name: x for name, x in rope.named_buffers() if name.endswith("inv_freq") and "original" not in name}
    return {name.removesuffix("inv_freq").removesuffix("_") or None: x.double() for name, x in buffers.items()}


def scaling_of(rope, layer_type):
    return float(getattr(rope, f"{layer_type}_attention_scaling" if layer_type else "attention_scaling", 1.0))


def apply_functions(config):
    """The functions with which the attention of a configuration class rotates queries and keys."""
    folder = folder_of(config)
    functions = {
        name: x
        for name, x in members(folder).items()
        if inspect.isfunction(x) and re.match(r"apply_(rotary|rope)", name)
    }
    attentions = [(kind, names) for kind, cls, names in identifiers(folder) if "Attention" in cls]
    own = [names for kind, names in attentions if kind == type(config).__name__] or [
        names for kind, names in attentions if not kind or kind.removesuffix("Config") in type(config).__name__
    ]
    used = {name: x for name, x in functions.items() if any(name in names for names in own)}
    if not used:
        used = {name: x for name, x in functions.items() if ("vision" in name) == ("Vision" in type(config).__name__)}
    if len(used) > 1 and hasattr(config, "rope_interleave"):  # DeepSeek-V3 has one function per layout
        used = {name: x for name, x in used.items() if name.endswith("interleave") == bool(config.rope_interleave)}
    return list(used.values())


def rotated(function, q, k, table):
    """Queries and keys [batch, heads, tokens, dim] after the function of a module; its table is of any form."""
    names = list(inspect.signature(function).parameters)
    if not isinstance(table, tuple):  # complex numbers; Llama-4 has heads after tokens
        if "[:, :, None" in inspect.getsource(function):
            return [x.transpose(1, 2) for x in function(q.transpose(1, 2), k.transpose(1, 2), table)]
        return function(q, k, table)
    if names[1:3] == ["sin", "cos"]:  # GPT-J has heads after tokens
        return [function(x.transpose(1, 2), *table).transpose(1, 2) for x in (q, k)]
    if names[1] in ("cos", "freqs_cos"):
        return [function(x, *table) for x in (q, k)]
    return function(q, k, *table)[:2]


def expected(x, angles, layout):
    """x [batch, heads, tokens, dim] rotated by angles [tokens, pairs] in a layout."""
    cos, sin = angles.cos().float(), angles.sin().float()
    a, b = x.chunk(2, -1) if layout == "half_split" else (x[..., 0::2], x[..., 1::2])
    pairs = (a * cos - b * sin, b * cos + a * sin)
    return torch.cat(pairs, -1) if layout == "half_split" else torch.stack(pairs, -1).flatten(-2)


def table_of(rope, positions, layer_type):
    x = torch.zeros(1, positions.shape[-1], 1)
    return rope(x, positions, **({"layer_type": layer_type} if layer_type else {}))


def axes_of(rope, pairs, layer_type):
    """The axis of every pair of an M-RoPE class: a position of one axis moves only the pairs of this axis."""
    found = [-1] * pairs
    for axis in range(3):
        positions = torch.zeros(3, 1, 1, dtype=torch.long)
        positions[axis] = 1
        sin = table_of(rope, positions, layer_type)[1].reshape(-1)
        # The second half of a table repeats the first, or every entry stands twice in a row.
        once = sin if len(sin) == pairs else sin[:pairs] if torch.equal(sin[:pairs], sin[pairs:]) else sin[0::2]
        found = [axis if moves else old for moves, old in zip((once != 0).tolist(), found)]
    return found


def sections_of(axes):
    """(sections, interleaved) of M-RoPE from the axis of every pair, or None if it is in another order."""
    sections = [axes.count(axis) for axis in range(3)]
    if axes == sorted(axes):
        return tuple(sections), False
    woven = [a if (a := pair % 3) and pair < 3 * sections[a] else 0 for pair in range(len(axes))]
    return (tuple(sections), True) if axes == woven else None


def with_pairs_for_sections(config):
    """The configuration, with heads of the width that the sections of M-RoPE of its rotary class need."""
    for rope in rotary_modules(config):
        sections = getattr(rope, "mrope_section", None)
        for inv_freq in frequencies(rope).values():
            if isinstance(sections, list) and sum(sections) != len(inv_freq):
                plain = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
                return type(config)(head_dim=2 * sum(sections), rope_parameters=plain)
    return config


def rotation_of(config):
    """(layout, sections, interleaved sections) by experiment, or the reason why no ropewalk encoding is equal."""
    outcomes = set()
    torch.manual_seed(7)
    for rope in rotary_modules(with_pairs_for_sections(config)):
        for layer_type, inv_freq in frequencies(rope).items():
            sections = None
            if hasattr(rope, "mrope_section"):
                sections = sections_of(axes_of(rope, len(inv_freq), layer_type))
                if sections is None:
                    outcomes.add("orders the pairs of M-RoPE in its own way")
                    continue
            q, k = torch.randn(2, 1, 1, POSITIONS.shape[1], 2 * len(inv_freq))
            table = table_of(rope, POSITIONS, layer_type)
            angles, scale = POSITIONS.double()[0, :, None] * inv_freq, scaling_of(rope, layer_type) ** 2
            for function in apply_functions(config):
                theirs = rotated(function, q, k, table)
                equal = [
                    layout
                    for layout in ("half_split", "interleaved")
                    if torch.allclose(theirs[0] @ theirs[1].mT, scores(q, k, angles, layout) * scale, atol=1e-3)
                ]
                outcomes.add((equal[0], *(sections or (None, None))) if equal else "rotates in a way that is unknown")
    return outcomes


def scores(q, k, angles, layout):
    return expected(q, angles, layout) @ expected(k, angles, layout).mT


def number(value):
    """An integer where a value is whole: the table is read by people."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def plain(value):
    """JSON data without nulls, with whole numbers as integers."""
    if isinstance(value, dict):
        return {key: plain(x) for key, x in value.items() if x is not None}
    if isinstance(value, (list, tuple)):
        return [plain(x) for x in value]
    return number(value)


def value_of(config, key):
    try:
        return getattr(config, key, None)
    except Exception:  # the layers of this model differ in this key; its dictionary has the value of most layers
        return config.to_dict().get(key)


def sizes_of(config):
    """The sizes of a configuration and the other keys that matter, under their canonical names."""
    found = {}
    for key in (*SIZES, *KEYS):
        value = value_of(config, key)
        if isinstance(value, (int, float, str)):
            found[key] = plain(value)
    if found.get("use_sliding_window", True):
        found.pop("use_sliding_window", None)
    else:
        found.pop("sliding_window", None)
    return found


def other_size(config):
    """The configuration with twice the hidden size, or None if the class refuses it."""
    hidden = value_of(config, "hidden_size")
    key = config.attribute_map.get("hidden_size", "hidden_size")
    return attempt(type(config), **{key: 2 * hidden}) if isinstance(hidden, int) else None


def follows_hidden_size(config, key):
    """Returns whether a size follows from the hidden size: then another hidden size gives another value."""
    other = other_size(config)
    return other is not None and value_of(other, key) != value_of(config, key)


def parts_of(section):
    """The parts of a nested section by layer type, or {} for a flat one."""
    return {key: part for key, part in section.items() if isinstance(part, dict)} if section else {}


def ignored_keys(config):
    """Keys of a file that the class accepts and does not use; some classes have another name for the base."""
    cls = type(config)
    probes = {"rope_theta": 12345.0, "rope_parameters": SCALED, "rope_scaling": SCALED}
    ignored = []
    for key, value in probes.items():
        other = getattr(attempt(cls, **{key: value}), "rope_parameters", None)
        used = list(parts_of(other).values()) or [other]
        found = 12345.0 if key == "rope_theta" else SCALED["factor"]
        if other and not any(found in part.values() for part in used):
            ignored.append(key)
    width = value_of(config, "rotary_dim")
    other = attempt(cls, rotary_dim=width // 2) if isinstance(width, int) else None
    if other and widths_of(other) == widths_of(config):
        ignored.append("rotary_dim")
    return ignored


def widths_of(config):
    """The rotated elements of a head by layer type."""
    return {kind: 2 * len(x) for rope in rotary_modules(config) for kind, x in frequencies(rope).items()}


def section_defaults(config):
    """Defaults of the rope section: the base and the width of a section without them, and the section of a
    configuration without any, unless that is plain RoPE."""
    cls = type(config)
    section = copy.deepcopy(config.rope_parameters)
    if parts_of(section):  # some classes take the order of a set
        section = dict(sorted(section.items()))
    stated = None
    for fields in ({"rope_scaling": SCALED}, {"rope_parameters": SCALED}, {"rope_scaling": {"rope_type": "default"}}):
        stated = stated or getattr(attempt(cls, **fields), "rope_parameters", None)
    found, parts = {}, parts_of(stated)
    if parts:
        kinds = sorted(parts)
        first = next((kind for kind in ("full_attention", "main") if kind in kinds), kinds[0])
        found["rope_theta"] = parts[first].get("rope_theta")
        for kind in kinds:
            if kind == "sliding_attention" and kind != first:
                found["rope_local_base_freq"] = parts[kind].get("rope_theta")
        found["scaled_layers"] = [kind for kind in kinds if parts[kind].get("factor")]
        found["partial_rotary_factor"] = parts[first].get("partial_rotary_factor")
    elif stated:
        found["rope_theta"] = stated.get("rope_theta")
        found["partial_rotary_factor"] = stated.get("partial_rotary_factor")
    if found.get("partial_rotary_factor") == 1:
        del found["partial_rotary_factor"]
    simple = {"rope_type": "default", "rope_theta": found.get("rope_theta")}
    if parts_of(section) and not parts:  # the rotary class needs one part per layer type: a flat section fails
        found = {"scaled_layers": []}
    own = {key: value for key, value in section.items() if value is not None}
    if own.get("partial_rotary_factor") in (1, found.get("partial_rotary_factor")):
        own.pop("partial_rotary_factor", None)
    found["ignores"] = ignored_keys(config) or None
    if own != simple or parts_of(section):
        found["rope_parameters"] = section  # nulls stay: they mark layers without rotation
    return found


def defaults_of(config, outcome):
    """The defaults of a model type that rotates."""
    found = sizes_of(config)
    for key in ("head_dim", "kv_channels", "attention_head_dim"):
        value = value_of(config, key)
        hidden = key == "head_dim" and "qk_rope_head_dim" in vars(config)  # the name of another width
        if isinstance(value, int) and not hidden and not follows_hidden_size(config, key):
            found[key] = value
        else:
            found.pop(key, None)
    names = {key: config.attribute_map[key] for key in (*SIZES, "head_dim") if key in config.attribute_map}
    found["names"] = names or None
    if getattr(config, "rope_parameters", None):
        found.update(section_defaults(config))
        widths = widths_of(config)
        if "rotary_dim" in (found["ignores"] or ()):
            del found["rotary_dim"]
        if widths.get("full_attention", 0) > found.get("head_dim", 1 << 30):  # Gemma-4
            found["global_head_dim"] = widths["full_attention"]
    elif not hasattr(config, "rope_parameters"):  # the class has no scaling methods
        found["rope_theta"] = getattr(config, "rope_theta", None)
        found["ignores"] = ["rope_parameters", "rope_scaling"] + ["rope_theta"] * (found["rope_theta"] is None)
    elif getattr(config, "rope_theta", None):
        found["rope_theta"] = config.rope_theta
    kinds = getattr(config, "layer_types", None)
    if isinstance(kinds, list):
        found["layer_kinds"] = sorted(set(kinds))
    if outcome[1] is not None:
        found["mrope_section"], found["mrope_interleaved"] = outcome[1:]
    if mentions(config, "^yarn_apply_mscale$"):
        found["softmax_scaling"] = True
    section = found.pop("rope_parameters", None)
    found = plain(found)
    if section is not None:
        found["rope_parameters"] = json.loads(json.dumps(section), parse_float=lambda text: number(float(text)))
    found.update(DEFAULTS.get(config.model_type, {}))
    return {key: value for key, value in found.items() if value is not None}


def text_part(config):
    """(path, configuration) of the language model inside a composite configuration, or None."""
    try:
        text = config.get_text_config()
    except ValueError:  # an encoder and a decoder, of which the decoder is the language model
        text = config.get_text_config(decoder=True)
    if text is config:
        return None
    for name, part in sub_configs(config):
        if part is text:
            return name, text
        for inner, deeper in sub_configs(part):
            if deeper is text:
                return f"{name}.{inner}", text
    return None


def rotates(config):
    """Returns whether a configuration class rotates with one position per token, or with the axes of M-RoPE."""
    rotation = OVERRIDES.get(config.model_type, ("",))[0]
    if rotation:
        return rotation not in ("none", "unsupported")
    section = getattr(config, "rope_parameters", None)
    if isinstance(section, dict) and section.get("rope_type") == "axial":
        return False
    return bool(section) or mentions(config, ROTATES)


def sub_configs(config):
    return [(name, x) for name, x in vars(config).items() if isinstance(x, transformers.PretrainedConfig)]


def decide(config):
    """(rotation, note, defaults) of a configuration class."""
    override = OVERRIDES.get(config.model_type)
    section = getattr(config, "rope_parameters", None)
    outcomes = set()
    if override and override[0] in ("none", "unsupported"):
        return override[0], override[1], {}
    if not override:
        if isinstance(section, dict) and section.get("rope_type") == "axial":
            return "unsupported", AXIAL, {}
        if not section and not mentions(config, ROTATES):
            return "none", NONE, {}
        outcomes = rotation_of(config)
        if len(outcomes) != 1:
            raise SystemExit(f"tools/model_table.py: {config.model_type} has outcomes {outcomes}: add it to OVERRIDES")
    outcome = next(iter(outcomes)) if outcomes else (override[0], *(override[2:] or (None, None)))
    if isinstance(outcome, str):
        return "unsupported", outcome, {}
    return outcome[0], "", {**defaults_of(config, outcome), **(override[1] if override else {})}


def all_configs():
    """{model type: default configuration} of every configuration class, with those of parts of models."""
    configs = {config.model_type: config for config in default_configs().values() if config.model_type}
    for config in list(configs.values()):  # classes that CONFIG_MAPPING does not have
        configs.update(
            {x.model_type: x for _, x in sub_configs(config) if x.model_type not in configs and x.model_type}
        )
    return configs


def entries():
    """{model type: (rotation, note, defaults)} of every configuration class of Transformers and of REMOTE."""
    configs = all_configs()
    composite = {kind: part for kind, config in configs.items() if (part := text_part(config))}
    table = {kind: decide(config) for kind, config in configs.items() if kind not in composite or kind in OVERRIDES}
    for kind, (path, text) in composite.items():
        if kind in OVERRIDES:
            continue
        while text.model_type in composite:
            inner, text = composite[text.model_type]
            path += "." + inner
        rotation, note, own = table.get(text.model_type, ("none", NONE, {}))
        part = {"model_type": text.model_type}
        bare = attempt(type(configs[kind]), **{path: {"model_type": text.model_type}}) if "." not in path else None
        if own:
            outcome = (rotation, own.get("mrope_section"), own.get("mrope_interleaved"))
            part.update({key: x for key, x in defaults_of(text, outcome).items() if own.get(key) != x})
            sizes = [value_of(text, key) for key in ("head_dim", "hidden_size", "num_attention_heads")]
            follows = "qk_rope_head_dim" in own or not all(isinstance(size, int) for size in sizes)
            if not follows and sizes[0] != own.get("head_dim", sizes[1] // sizes[2]):
                part["head_dim"] = sizes[0]
        found = {"text_config": part}
        if path != "text_config":
            found["text_key"] = path
        if "." not in path and attempt(type(configs[kind]), **{path: {"model_type": "unknown"}}):
            found["fixed_text_type"] = True
        if len(part) > 1 and bare and sizes_of(text_part(bare)[1]) == sizes_of(text):
            found["merges_text_defaults"] = True
        table[kind] = rotation, note, found
    aliases = {
        kind: table[config.model_type] for kind, config in default_configs().items() if config.model_type in table
    }
    return {**aliases, **table, **REMOTE}


PREFERRED = ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", "MODEL_MAPPING_NAMES")


# Classes of remote code, which a file names even if its model_type is that of a fork.
REMOTE_CLASSES = {
    **{"BaichuanForCausalLM": "baichuan", "BaiChuanForCausalLM": "baichuan", "YuanForCausalLM": "yuan"},
    **{"ChatGLMModel": "chatglm", "ChatGLMForConditionalGeneration": "chatglm", "QWenLMHeadModel": "qwen"},
    **{"InternLM2ForCausalLM": "internlm2", "InternLM3ForCausalLM": "internlm3", "JAISLMHeadModel": "jais"},
    **{"MiniCPMForCausalLM": "minicpm", "NomicBertModel": "nomic_bert", "Phi3SmallForCausalLM": "phi3small"},
    **{"StableLMEpochForCausalLM": "stablelm_epoch", "MPTForCausalLM": "mpt", "XverseForCausalLM": "xverse"},
}


def architectures(table):
    """{class name: model type} of the Auto classes. A class of several model types has the one of its own module."""
    found = {}
    names = [name for name in dir(modeling_auto) if name.endswith("_MAPPING_NAMES") and name != "CONFIG_MAPPING_NAMES"]
    for name in (*PREFERRED, *names):
        for kind, classes in getattr(modeling_auto, name, {}).items():
            for cls in (classes,) if isinstance(classes, str) else classes or ():
                if isinstance(cls, str) and kind in table:
                    found.setdefault(cls, []).append(kind)
    chosen = {}
    for cls, kinds in found.items():
        fold = [kind for kind in kinds if cls.lower().startswith(re.sub(r"[-_.]", "", kind).lower())]
        chosen[cls] = max(fold, key=len) if fold else kinds[0]
    return {**chosen, **{cls: kind for cls, kind in REMOTE_CLASSES.items() if kind in table}}


HEAD = """// Position encodings and defaults of model types, by tools/model_table.py from Transformers {version}.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "ropewalk/core/compiler.hpp"

namespace ropewalk::detail {{

/// The version that the table is made from. Entries of remote code are written by hand in the tool.
inline constexpr std::string_view model_table_version = "Transformers {version}";

/// Encoding of positions by the attention of a model type: the layout of its rotation, or the absence of one.
enum class model_rotation : std::uint8_t {{ half_split, interleaved, none, unsupported }};

struct model_entry {{
    std::string_view model_type;
    model_rotation rotation;
    /// The reason of `none` and `unsupported`, which ends a sentence: "model_type 'x' has no rotary positions".
    std::string_view note;
    /// Values that the code of the model has for keys that a configuration omits: a JSON object, or "" without any.
    /// Keys have their canonical names, and these have a meaning of their own:
    /// - `names`: names of the file for canonical keys, for example {{"hidden_size": "n_embd"}}.
    /// - `head_dim`: only if it does not follow from hidden_size and num_attention_heads.
    /// - `rope_theta`, `partial_rotary_factor`: of a section without them; of full attention if layers differ.
    /// - `rope_parameters`: the section of a configuration without any; null marks layers without rotation.
    /// - `scaled_layers`: layer types that a section without parts applies to; [] if the code needs parts.
    /// - `ignores`: keys of a file that the code does not use: rope_theta if the file has no rope section,
    ///   rope_parameters if it has no parts, rope_scaling, rotary_dim.
    /// - `layer_kinds`: layer types of the default configuration.
    /// - `mrope_section`, `mrope_interleaved`: sections of the rotary class for a section without them.
    /// - `softmax_scaling`: the attention multiplies the softmax scale by the square of YaRN's m(mscale_all_dim).
    /// - `unrotated_layers`: layer types that do not rotate; they do without a sliding window if
    ///   `rotates_without_sliding_window` is true.
    /// - `requires`: a key without a default that a rule could give.
    /// - `text_config`: the language model of a composite. Its model_type counts if the part of the file names none;
    ///   its other values count if the file has no such part. `text_key` is the path of the part, by default
    ///   "text_config". With `fixed_text_type`, the code ignores the model_type of the part. With
    ///   `merges_text_defaults`, the other values count for keys that the part omits.
    std::string_view defaults;
}};

/// All model types, sorted.
// clang-format off
inline constexpr model_entry model_table[] = {{
"""
MIDDLE = """}};
// clang-format on

/// A class of the Auto models of Transformers, and its model type.
struct architecture_entry {{
    std::string_view architecture, model_type;
}};

/// All architectures, sorted.
// clang-format off
inline constexpr architecture_entry architecture_table[] = {{
"""
TAIL = """}};
// clang-format on

/// Returns the entry of a model type, or nullptr.
constexpr const model_entry* find_model(std::string_view model_type) {{
    const auto* const found =
        std::lower_bound(std::begin(model_table), std::end(model_table), model_type,
                         [](const model_entry& entry, std::string_view name) {{ return entry.model_type < name; }});
    return found != std::end(model_table) && found->model_type == model_type ? found : nullptr;
}}

/// Returns the model type of an architecture, or "".
constexpr std::string_view model_type_of(std::string_view architecture) {{
    const auto* const found = std::lower_bound(
        std::begin(architecture_table), std::end(architecture_table), architecture,
        [](const architecture_entry& entry, std::string_view name) {{ return entry.architecture < name; }});
    return found != std::end(architecture_table) && found->architecture == architecture ? found->model_type : "";
}}

}}  // namespace ropewalk::detail
"""


def text(value):
    return json.dumps(value, separators=(",", ":"))


def header():
    """The text of the header."""
    table = entries()
    lines = [HEAD.format(version=transformers.__version__)]
    for kind, (rotation, note, defaults) in sorted(table.items()):
        own = f'R"({text(defaults)})"' if defaults else '""'
        lines.append(f'    {{"{kind}", model_rotation::{rotation}, "{note}", {own}}},\n')
    lines.append(MIDDLE.format())
    lines += [f'    {{"{name}", "{kind}"}},\n' for name, kind in sorted(architectures(table).items())]
    return "".join(lines) + TAIL.format()


def difference():
    """The difference of the committed header from the one that the installed Transformers gives, or ""."""
    kept = PATH.read_text() if PATH.exists() else ""
    lines = difflib.unified_diff(kept.splitlines(), header().splitlines(), "committed", "generated", lineterm="", n=0)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail where the header differs")
    options = parser.parse_args()
    if not options.check:
        PATH.write_text(header())
        return
    stamp = re.search(r'"Transformers ([^"]+)"', PATH.read_text()) if PATH.exists() else None
    if stamp and stamp[1] != transformers.__version__:
        print(
            f"{PATH.name} is made from Transformers {stamp[1]}, installed is {transformers.__version__}: not compared"
        )
        return
    sys.exit(difference() or None)


if __name__ == "__main__":
    main()
