"""Sweep over every configuration class of the installed Transformers, compared with the rotary classes themselves.

Each class is read with its defaults and with every scaling method that it takes, for every layer type. The result has
the frequencies, the attention factor and the rotated scores of the model's own code, or is refused with a reason that
REFUSED lists. The same holds for the short form of a file, which omits what the class has by default, and for a policy
that replaces the scaling. Where the class itself contradicts its file, INTENDED says so.
"""

import contextlib
import copy
import functools
import importlib.util
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import ropewalk as rw

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
ROOT = Path(__file__).parents[2]


def load_tool():
    spec = importlib.util.spec_from_file_location("model_table", ROOT / "tools" / "model_table.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


tool = load_tool()
MADE_FROM = re.search(r'"Transformers ([^"]+)"', tool.PATH.read_text())[1]
pytestmark = pytest.mark.skipif(
    transformers.__version__ != MADE_FROM,
    reason=f"model_table.hpp is made from Transformers {MADE_FROM}, installed is {transformers.__version__}",
)

IDS = torch.tensor([[0, 1, 2, 7, 15, 31]])
GRID = torch.stack([IDS, IDS * 3 % 17, IDS * 5 % 23])  # three positions per token
LENGTH = 4096  # the trained length of the scaled configurations
torch.manual_seed(7)
HEADS = torch.randn(2, 1, 2, IDS.shape[1], 1024) / 32


# Keys that switch the rotation on in models that do not rotate by default.
SWITCHES = {
    "esm": {"position_embedding_type": "rotary"},
    "granitemoehybrid": {"position_embedding_type": "rope"},
    "zamba2": {"use_mem_rope": True},
}


def sections(pairs):
    """A section of each scaling method, for heads with a number of pairs."""
    trained = {"original_max_position_embeddings": LENGTH}
    short, long = ([1 + step * j for j in range(pairs)] for step in (0.01, 0.1))
    longrope = {"rope_type": "longrope", "factor": 8.0, "short_factor": short, "long_factor": long, **trained}
    return {
        "linear": {"rope_type": "linear", "factor": 4.0},
        "dynamic": {"rope_type": "dynamic", "factor": 4.0},
        "yarn": {"rope_type": "yarn", "factor": 8.0, **trained},
        "yarn mscale": {"rope_type": "yarn", "factor": 8.0, "mscale": 0.7, "mscale_all_dim": 0.9, **trained},
        "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **trained},
        "longrope": longrope,
        "longrope mscale": {**longrope, "short_mscale": 1.1, "long_mscale": 1.2},
        "proportional": {"rope_type": "proportional", "partial_rotary_factor": 0.5},
    }


def variants(config):
    """(name, keys of a file): none, another hidden size, and a section of each scaling method."""
    yield "default", {}
    switch = SWITCHES.get(config.model_type, {})
    hidden = tool.value_of(config, "hidden_size")
    if isinstance(hidden, int):
        yield "hidden size", {config.attribute_map.get("hidden_size", "hidden_size"): 2 * hidden, **switch}
    own = getattr(config, "rope_parameters", None)
    modules = list(tool.rotary_modules(config))
    if not isinstance(own, dict) or not modules:
        return
    yield "base", {"rope_theta": 12345.0, **switch}
    pairs = len(next(iter(tool.frequencies(modules[0]).values())))
    for name, section in sections(pairs).items():
        if ("short_mscale" in section) != (config.model_type == "phimoe" and name.startswith("longrope")):
            continue  # PhiMoE alone has a magnitude per list
        longer = switch if name == "dynamic" else {"max_position_embeddings": 8 * LENGTH, **switch}
        yield name, {"rope_parameters": section, **longer}
        yield f"{name}, old key", {"rope_scaling": section, **longer}
        if tool.parts_of(own):
            nested = {kind: {**part, **section} for kind, part in tool.parts_of(own).items()}
            yield f"{name}, by layer type", {"rope_parameters": nested, **longer}


class Oracle:
    """One rotary class of one configuration, and the functions with which its attention rotates."""

    def __init__(self, rope, kind, functions):
        self.rope, self.kind, self.functions = rope, kind, functions
        self.ids = GRID if hasattr(rope, "mrope_section") else IDS
        self.table = tool.table_of(rope, self.ids, kind)

    def extend(self, tokens):
        """Makes the class compute the frequencies of a sequence."""
        tool.table_of(self.rope, torch.tensor([[tokens - 1]]), self.kind)

    def attention_factor(self):
        """The factor of cos and sin: cos of the first position, which is 0."""
        parts = self.table if isinstance(self.table, tuple) else (self.table.real, self.table.imag)
        return max(float(x.reshape(-1)[0].abs()) for x in parts)

    def problem(self, encoding, scores=True):
        """The difference of an encoding from the rotary class, or "" if they are equal."""
        expected = tool.frequencies(self.rope)[self.kind].numpy()
        if encoding.inv_freq.shape != expected.shape:
            return f"width {encoding.rotary_dim}, expected {2 * len(expected)}"
        if not np.allclose(encoding.inv_freq, expected, rtol=1e-6, atol=0):
            return "frequencies"
        factor = self.attention_factor() if scores else encoding.attention_factor
        if not np.isclose(encoding.attention_factor, factor, rtol=1e-6, atol=0):
            return f"attention factor {encoding.attention_factor}, expected {factor}"
        return self.problem_of_scores(encoding) if scores else ""

    def problem_of_scores(self, encoding):
        q, k = HEADS[..., : encoding.head_dim]
        axes = self.ids if "mrope" in encoding.expression else self.ids[0]
        rotated = rw.rotate(q, k, encoding=encoding, positions=axes, order="bhsd")
        inside = slice(encoding.rotary_offset, encoding.rotary_offset + encoding.rotary_dim)
        for function in self.functions:
            theirs = tool.rotated(function, q[..., inside], k[..., inside], self.table)
            ours, expected = (a @ b.mT for a, b in ((x[..., inside] for x in rotated), theirs))
            if not torch.allclose(ours, expected, rtol=0, atol=1e-5):
                return f"scores of {function.__name__}"
        return ""


def read(fields, **options):
    """An encoding, or the message of a refusal."""
    try:
        return rw.from_config(fields, **options)
    except rw.Error as error:
        return str(error).removeprefix("ropewalk: ")


def result_of(oracle, fields, scores=True, **options):
    encoding = read(fields, **options)
    return ("refused", encoding) if isinstance(encoding, str) else ("different", oracle.problem(encoding, scores))


def forms_of(config, fields):
    """The texts of a file: with all keys, with those that differ from the defaults, and as it was before Transformers
    added its own keys. Equal ones count once."""
    short = {"model_type": config.model_type, **copy.deepcopy(fields)}
    found = {}
    for name, keys in (("whole", config.to_dict()), ("saved", config.to_diff_dict()), ("short", short)):
        if keys not in found.values():
            found[name] = keys
    return found


def layer_types(config, rope):
    """(layer type to ask for, layer type in the rotary class)."""
    own = tool.frequencies(rope)
    if None not in own:
        return [(kind, kind) for kind in own]
    stated = getattr(config, "layer_types", None)
    kinds = set(stated) - {"linear_attention", "conv"} if isinstance(stated, list) else ()
    return [(None, None), *((kind, None) for kind in sorted(kinds))]


def oracles(config):
    """(layer type, Oracle) of a configuration whose rotary class runs."""
    functions = tool.apply_functions(config)
    own_width = getattr(config, "qk_rope_head_dim", None) if config.model_type != "deepseek_v4" else None
    for rope in tool.rotary_modules(config):
        for layer_type, own in layer_types(config, rope):
            if own_width and 2 * len(tool.frequencies(rope)[own]) != own_width:
                continue  # the attention fails: it applies a table of another width
            with contextlib.suppress(Exception):  # the class does not take this section, or its sections do not fit
                yield layer_type, Oracle(rope, own, functions)


def rotating_configs():
    for kind, config in tool.all_configs().items():
        if not tool.text_part(config) and tool.rotates(config):
            yield kind, config


def outcomes():
    """(model type, variant, form, layer type, kind of result, message) of every case; no message stands for equal."""
    for kind, default in rotating_configs():
        for variant, fields in variants(default):
            config = tool.attempt(type(default), **fields)
            if config is None:
                continue
            forms = forms_of(config, fields)
            for layer_type, oracle in oracles(config):
                for form, keys in forms.items():
                    yield kind, variant, form, layer_type, *result_of(oracle, keys, layer_type=layer_type)
                tokens = {"dynamic": 2 * getattr(config, "max_position_embeddings", 0), "longrope": 2 * LENGTH}
                if variant in tokens:
                    oracle.extend(tokens[variant])
                    options = {"layer_type": layer_type, "sequence_length": tokens[variant]}
                    result = result_of(oracle, forms["whole"], False, **options)
                    yield kind, f"{variant}, long", "whole", layer_type, *result


def with_base(section, base):
    """A rope section with another base in all its parts."""
    if not isinstance(section, dict):
        return section
    return {key: base if key == "rope_theta" else with_base(part, base) for key, part in section.items()}


def composites():
    """(model type, configuration, path of the language model in it, language model)."""
    for kind, config in tool.all_configs().items():
        path, text = [], config
        while part := tool.text_part(text):
            path += part[0].split(".")
            text = part[1]
        if path and tool.rotates(text):
            yield kind, config, path, text


def outcomes_of_composites():
    """The same for models that have their language model in a part of the configuration."""
    for kind, default, path, text in composites():
        cases = [("composite", default, text, forms_of(default, {}))]
        whole = default.to_dict()
        part = functools.reduce(dict.__getitem__, path, whole)
        if isinstance(part.get("rope_parameters"), dict):
            part["rope_parameters"] = with_base(part["rope_parameters"], 12345.0)
            config = tool.attempt(type(default), **copy.deepcopy(whole))
            if config is not None:
                inner = functools.reduce(getattr, path, config)
                cases.append(("composite, base", config, inner, forms_of(config, {})))
                del cases[-1][3]["short"]
        # A part without keys has the defaults of its own type, not those of the composite.
        bare = {path[0]: {"model_type": text.model_type}} if len(path) == 1 else None
        config = tool.attempt(type(default), **copy.deepcopy(bare)) if bare else None
        if config is not None:
            cases.append(("bare part", config, tool.text_part(config)[1], {"short": {"model_type": kind, **bare}}))
        for variant, _, inner, forms in cases:
            for layer_type, oracle in oracles(inner):
                for form, keys in forms.items():
                    yield kind, variant, form, layer_type, *result_of(oracle, keys, layer_type=layer_type)


def linear_section(section):
    """The section of the model's own code with linear scaling by 2 in place of its scaling method."""
    parts = tool.parts_of(section)
    if parts:
        return {kind: linear_section(part) for kind, part in parts.items()}
    kept = ("rope_theta", "partial_rotary_factor", "mrope_section")
    rope_type = "proportional" if section["rope_type"] == "proportional" else "linear"
    return {key: section[key] for key in kept if key in section} | {"rope_type": rope_type, "factor": 2.0}


def outcomes_of_policies():
    """The same for a policy that replaces the scaling: the base and the width stay those of the model's own code."""
    for kind, default in rotating_configs():
        section = getattr(default, "rope_parameters", None)
        config = tool.attempt(type(default), rope_parameters=linear_section(section)) if section else None
        for layer_type, oracle in oracles(config) if config else ():
            for form, keys in forms_of(default, {}).items():
                result = result_of(oracle, keys, layer_type=layer_type, policy="linear:2")
                yield kind, "policy", form, layer_type, *result


# Reasons of refusals, as a part of the message, and the model types that may be refused with them.
REFUSED = {
    "have no rotary positions": {
        *("afmoe", "aya_vision", "cohere2", "cohere2_moe", "cohere2_vision", "exaone4", "exaone4_5", "exaone_moe"),
        *("flint", "kolibri1", "lara_mini", "llama4", "llama4_text", "muse_glimmer", "muse_glimmer_text"),
        *("muse_spark", "muse_spark_text"),
    },
    # The default configuration does not rotate; SWITCHES has the key that changes it.
    "position_embedding_type is": {"esm", "granitemoehybrid"},
    "has no rotary positions unless use_mem_rope": {"zamba2"},
    "orders the pairs of M-RoPE in its own way": {"ernie4_5_vl_moe", "ernie4_5_vl_moe_text"},
    # The class divides without a remainder; published files have head_dim.
    "must be a multiple of num_attention_heads": {
        *("glm4_moe", "qwen3_omni_moe", "qwen3_omni_moe_text", "qwen3_omni_moe_thinker"),
    },
    "lacks 'attention_head_dim'": {"zamba2"},
    # Keys that the class accepts and does not use.
    "ignores rope_theta": {
        *("apertus", "apertus1p5_text", "beam", "cosmos3_edge_text", "cwm", "diffusion_gemma_text", "dory"),
        *("dots3_note_text", "embedding_gemma2_text", "gemma4_text", "gemma4_unified_text", "gpt_neox"),
        *("gpt_neox_japanese", "higgs_audio_v2", "laguna", "lfm3", "mellum", "ministral3", "mistral4", "modernbert"),
        *("modernbert-decoder", "moonshine_streaming", "muse_spark_text", "nemotron3_5_transcribe_asr_audio"),
        *("nemotron3_5_transcribe_word_timestamp", "zaya"),
    },
    "ignores rope_parameters": {"gemma3_text", "gemma3n_text", "olmo3", "step3p5", "t5gemma2_decoder", "t5gemma2_text"},
    "is not known for a section with one part per layer type": {
        *("gemma3_text", "gemma3n_text", "olmo3", "t5gemma2_decoder", "t5gemma2_text"),
    },
    "ignores rope_scaling": {"cohere2_moe"},
    "ignores rotary_dim": {"minimax_m3_vl", "minimax_m3_vl_text"},
    # Keys that contradict each other.
    "in the code of": {"gpt_oss", "hy_v4_vl_text", "openai_privacy_filter"},  # rope_theta, and a section of the code
    "but 12345 in the configuration": {"gpt_neox", "gpt_neox_japanese"},
    "in layer_rope_theta": {"muse_glimmer", "muse_spark"},
    "outside text_config disagrees with it": {"musicflamingo"},  # the audio encoder has keys at the top level
}
# Cases in which the class contradicts its file: (model type, variant, form).
INTENDED = {
    # Published files are flat, and their own code reads rope_theta, which the class ignores.
    ("mimo_v2_flash", "base", "short"),
    # The class replaces the part of the section by its own.
    *(("deepseek_v4", variant, "short") for variant in ("proportional", "proportional, old key")),
}
NOT_ROTATING = re.compile(
    r"has no rotary positions|has relative positions|has ALiBi|rotates (by|backwards|the|in)|learned factor"
    r"|orders the pairs|positions of different axes|in encoder_config"
)


def check(results, least):
    """Asserts that every case is equal, or refused with a reason on the list, and that the list has no more."""
    counts, problems, used = Counter(), {}, set()
    for kind, variant, form, layer_type, result, message in results:
        counts[form, result if message else "equal"] += 1
        if message and result == "refused":
            reasons = [reason for reason, kinds in REFUSED.items() if reason in message and kind in kinds]
            used.update((reason, kind) for reason in reasons)
            if not reasons:
                problems[kind, variant, form, layer_type] = message
        elif message and (kind, variant, form) not in INTENDED:
            problems[kind, variant, form, layer_type] = f"different {message}"
    print(dict(sorted(counts.items())))
    assert problems == {}
    assert counts["whole", "equal"] >= least
    return used


def test_every_configuration_class_is_equal_or_refused():
    used = check(outcomes(), 4600)
    used |= check(outcomes_of_composites(), 290)
    used |= check(outcomes_of_policies(), 250)
    assert used == {(reason, kind) for reason, kinds in REFUSED.items() for kind in kinds}


def test_classes_without_rotation_are_refused():
    """Neither their defaults nor the keys of a Llama make an encoding of a model that does not rotate."""
    llama = {"hidden_size": 1024, "num_attention_heads": 16, "head_dim": 64, "rope_theta": 10000.0}
    count = 0
    for kind, config in tool.all_configs().items():
        if tool.text_part(config) or tool.rotates(config):
            continue
        for keys in ({"model_type": kind}, {"model_type": kind, **llama}, config.to_dict()):
            message = read(keys)
            assert isinstance(message, str), (kind, message)
            assert NOT_ROTATING.search(message), (kind, message)
        count += 1
    assert count > 400


LATE = {"rope_theta": 12345.0, "rope_scaling": {"type": "linear", "factor": 3.0}}  # keys at the top level of a file
SIZES = {"hidden_size": 1024, "num_attention_heads": 8, "num_hidden_layers": 2}
# Some files of these models have no text_config; the keys at their top level are those of the text model.
FLAT = ["fuyu", "paddleocr_vl", "qwen2_5_vl", "qwen2_vl"]


def test_keys_around_a_text_config_agree_with_it():
    """Transformers ignores keys at the top level of a file that has a text_config."""
    compared = 0
    for kind, default, path, text in composites():
        fields = {"text_config": {"model_type": text.model_type}, **copy.deepcopy(LATE)}
        config = tool.attempt(type(default), **fields) if path == ["text_config"] else None
        if config is None or not getattr(text, "rope_parameters", None):
            continue
        assert "12345" not in str(config.text_config.rope_parameters), kind
        plain = {"model_type": text.model_type, "hidden_size": 1024, "num_attention_heads": 8, "head_dim": 128}
        whole = {"model_type": kind, "text_config": {**plain, "rope_theta": 7e5}}
        encoding = read(whole)
        if isinstance(encoding, str):  # for example, the model has a scaling method of its own
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
    text = tool.CONFIG_MAPPING[kind](**SIZES, **copy.deepcopy(keys)).text_config
    expected, encoding = rw.from_config(text.to_dict()), rw.from_config({"model_type": kind, **SIZES, **keys})
    assert encoding == expected
    assert encoding.base == text.rope_parameters["rope_theta"]


def test_the_table_of_models_is_that_of_the_installed_transformers():
    difference = tool.difference()
    assert not difference, f"run tools/model_table.py; the committed table differs:\n{difference}"
