"""Encodings of configurations, compared with those of the installed Transformers in float32.

docs/reference/configurations.md lists the intended differences.
"""

import copy
import importlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import ropewalk as rw

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
from transformers import AutoConfig  # noqa: E402
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
TOLERANCE = 1e-6  # relative, for float32 arithmetic


def plain(name):
    return json.loads((CONFIGS / f"{name}.json").read_text())


def configuration(config):
    """A configuration object of Transformers."""
    fields = copy.deepcopy(config)
    scaling = fields.get("rope_scaling")
    if scaling and scaling.get("type") == "su":  # an old name that Transformers no longer accepts
        scaling["type"] = "longrope"
    return AutoConfig.for_model(fields.pop("model_type"), **fields).get_text_config()


def function_of(config, sequence_length=None):
    """inv_freq and attention factor from the scaling function of Transformers."""
    config = configuration(config)
    function = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]]
    inv_freq, attention_factor = function(config, "cpu", seq_len=sequence_length)
    return inv_freq.double().numpy(), attention_factor


CLASSES = {
    **{"deepseek_v3": "DeepseekV3", "deepseek_v4": "DeepseekV4", "gemma3": "Gemma3", "gemma4": "Gemma4Text"},
    **{"gpt_neox": "GPTNeoX", "gpt_oss": "GptOss", "hunyuan_v1_dense": "HunYuanDenseV1", "llama": "Llama"},
    **{"mistral": "Mistral", "modernbert": "ModernBert", "olmo3": "Olmo3", "phi3": "Phi3", "qwen2": "Qwen2"},
    **{"qwen2_vl": "Qwen2VL", "qwen3_vl": "Qwen3VLText", "step3p7": "Step3p7"},
}


def embedding(config, kind):
    """The rotary embedding of the model's own class."""
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    return getattr(module, f"{CLASSES[kind]}RotaryEmbedding")(configuration(config))


MODELS = [
    *((name, "llama", None) for name in ("llama-2-13b", "llama-2-7b-32k", "giraffe-v2-70b", "giraffe-13b-32k-v3")),
    *((name, "llama", None) for name in ("yarn-llama-2-7b-64k", "llama-3.1-8b", "llama-3-giraffe-70b")),
    *((name, "mistral", None) for name in ("mistral-7b-v0.1", "mistral-7b-v0.2")),
    ("qwen2.5-7b-yarn", "qwen2", None),
    ("phi-3-mini-128k", "phi3", None),
    ("pythia-1.4b", "gpt_neox", None),
    ("deepseek-v3", "deepseek_v3", None),
    ("gpt-oss-20b", "gpt_oss", None),
    ("qwen2-vl-7b", "qwen2_vl", None),
    ("qwen3-vl-8b", "qwen3_vl", None),
    *(("gemma-3-12b", "gemma3", layer_type) for layer_type in ("full_attention", "sliding_attention")),
    *(("gemma-4", "gemma4", layer_type) for layer_type in ("full_attention", "sliding_attention")),
]


def check(encoding, inv_freq, attention_factor):
    np.testing.assert_allclose(encoding.inv_freq, inv_freq, rtol=TOLERANCE, atol=0)
    assert encoding.attention_factor == pytest.approx(attention_factor, rel=TOLERANCE)


@pytest.mark.parametrize(("name", "kind", "layer_type"), MODELS)
def test_real_configurations(name, kind, layer_type):
    rope = embedding(plain(name), kind)
    prefix = f"{layer_type}_" if layer_type else ""
    encoding = rw.from_config(plain(name), layer_type=layer_type)
    check(encoding, getattr(rope, f"{prefix}inv_freq").double().numpy(), getattr(rope, f"{prefix}attention_scaling"))
    # Transformers writes the same configuration with its current names.
    assert rw.from_config(configuration(plain(name)), layer_type=layer_type) == encoding


# The file has one scaling method, which the model's code applies to each kind of layer.
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}
BOTH = {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"], "rope_scaling": YARN}
STEP = {"rope_theta": [5e6, 1e4], "partial_rotary_factors": [0.5, 1.0], **BOTH}
DEEPSEEK_YARN = {**YARN, "beta_fast": 32, "beta_slow": 1}
DEEPSEEK = {"head_dim": 512, "qk_rope_head_dim": 64, "rope_scaling": DEEPSEEK_YARN, "compress_rope_theta": 160000}


@pytest.mark.parametrize(
    ("model_type", "fields", "kind"),
    [
        ("olmo3", BOTH, "olmo3"),
        ("modernbert", BOTH, "modernbert"),
        ("step3p5", STEP, "step3p7"),
        ("deepseek_v4", DEEPSEEK, "deepseek_v4"),
    ],
)
def test_one_scaling_method_for_several_kinds_of_layers(model_type, fields, kind):
    shape = {"hidden_size": 1024, "num_attention_heads": 8, "max_position_embeddings": 65536}
    config = {"model_type": model_type, **shape, **fields}
    rope = embedding(config, kind)
    for layer_type in ("main", "compress") if kind == "deepseek_v4" else ("full_attention", "sliding_attention"):
        inv_freq = getattr(rope, f"{layer_type}_inv_freq").double().numpy()
        check(rw.from_config(config, layer_type=layer_type), inv_freq, getattr(rope, f"{layer_type}_attention_scaling"))


def test_all_real_configurations_are_compared():
    assert {path.stem for path in CONFIGS.glob("*.json")} == {name for name, *_ in MODELS}


@pytest.mark.parametrize(
    ("name", "kind", "lengths"),
    [
        ("phi-3-mini-128k", "phi3", (4096, 4097, 131072)),
        ("llama-3-giraffe-70b", "llama", (1, 8192, 8193, 10000, 32768)),
    ],
)
def test_encodings_follow_the_sequence_length(name, kind, lengths):
    config = plain(name)
    for tokens in lengths:
        rope = embedding(config, kind)
        rope(torch.zeros(1, 1, 1), torch.arange(tokens - 1, tokens)[None])
        encoding = rw.from_config(config, sequence_length=tokens)
        check(encoding, rope.inv_freq.double().numpy(), rope.attention_scaling)
        if kind == "phi3":
            assert encoding.stage == int(tokens > 4096)


def test_deepseek_softmax():
    config = plain("deepseek-v3")
    config.update(num_hidden_layers=1, hidden_size=64, num_attention_heads=2, q_lora_rank=16, kv_lora_rank=16)
    module = importlib.import_module("transformers.models.deepseek_v3.modeling_deepseek_v3")
    attention = module.DeepseekV3Attention(configuration(config), 0)
    plain_scale = (config["qk_nope_head_dim"] + config["qk_rope_head_dim"]) ** -0.5
    assert rw.from_config(config).softmax_factor == pytest.approx(attention.scaling / plain_scale, rel=TOLERANCE)


@pytest.mark.parametrize(("name", "kind"), [("qwen2-vl-7b", "qwen2_vl"), ("qwen3-vl-8b", "qwen3_vl")])
def test_mrope_sections(name, kind):
    encoding = rw.from_config(plain(name))
    ids = np.stack([np.arange(50), np.arange(50) * 3 % 17, np.arange(50) * 5 % 23]).astype(np.int64)
    cos, sin = encoding.cos_sin(ids)
    expected = embedding(plain(name), kind)(torch.zeros(1, 1, 128), torch.from_numpy(ids)[:, None])
    for mine, other in zip((cos, sin), expected, strict=True):
        np.testing.assert_allclose(mine, other[0, :, :64].numpy(), rtol=0, atol=2e-5)


def shape(rng):
    head_dim = rng.choice([32, 64, 80, 96, 128, 160, 256])
    return {
        "model_type": "llama",
        "head_dim": head_dim,
        "hidden_size": 8 * head_dim,
        "num_attention_heads": 8,
        "rope_theta": rng.choice([1e4, 25e3, 5e5, 1e6, 8e6]),
        "max_position_embeddings": rng.choice([2048, 4096, 8192, 40960]),
    }


def random_factors(rng, pairs):
    return [round(rng.uniform(1, 60), 3) for _ in range(pairs)]


def random_parameters(rope_type, rng, config):
    """Parameters of one rope type, different from those of real models."""
    pairs = config["head_dim"] // 2
    factor = rng.choice([1.0, 1.7, 2, 8.0, 33.3])
    original = rng.choice([512, 1000, 4096])
    parameters = {"rope_type": rope_type, "factor": factor}
    if rope_type in ("yarn", "llama3", "longrope"):
        parameters["original_max_position_embeddings"] = original
    if rope_type == "yarn":
        optional = {
            "beta_fast": rng.choice([16, 32.0, 48]),
            "beta_slow": rng.choice([0.5, 1, 2.0]),
            "truncate": rng.choice([True, False]),
            "attention_factor": rng.choice([0.5, 1.0, 1.3]),
            "mscale": rng.choice([0.707, 1.0]),
            "mscale_all_dim": rng.choice([0.5, 1.0]),
        }
        parameters.update({key: value for key, value in optional.items() if rng.random() < 0.5})
    elif rope_type == "llama3":
        parameters.update(low_freq_factor=rng.choice([0.5, 1, 1.5]), high_freq_factor=rng.choice([2, 4.0, 9]))
    elif rope_type == "longrope":
        parameters.update(short_factor=random_factors(rng, pairs), long_factor=random_factors(rng, pairs))
        if rng.random() < 0.5:
            del parameters["factor"]
        if rng.random() < 0.3:
            parameters["attention_factor"] = 1.19
    elif rope_type == "proportional":
        parameters["partial_rotary_factor"] = rng.choice([0.25, 0.3, 0.5, 1.0])
    if rope_type not in ("proportional", "longrope") and rng.random() < 0.3:
        parameters["partial_rotary_factor"] = 0.5
    return parameters


ROPE_TYPES = sorted(ROPE_INIT_FUNCTIONS)


def test_every_rope_type_is_supported():
    assert ROPE_TYPES == ["dynamic", "linear", "llama3", "longrope", "proportional", "yarn"]


@pytest.mark.parametrize("rope_type", ROPE_TYPES)
@pytest.mark.parametrize("seed", range(12))
def test_random_parameters(rope_type, seed):
    rng = random.Random(f"{rope_type} {seed}")
    config = shape(rng)
    parameters = random_parameters(rope_type, rng, config)
    new = {**config, "rope_parameters": {**parameters, "rope_theta": config["rope_theta"]}}
    old_names = {("type" if key == "rope_type" else key): value for key, value in parameters.items()}
    old = {**config, "rope_scaling": old_names}
    for tokens in (None, 900, config["max_position_embeddings"] + 700):
        expected = function_of(new, tokens)
        encoding = rw.from_config(new, sequence_length=tokens)
        check(encoding, *expected)
        assert rw.from_config(old, sequence_length=tokens) == encoding


# longrope calls .float(), which cannot be replaced by float64.
@pytest.mark.parametrize("rope_type", [name for name in ROPE_TYPES if name != "longrope"])
def test_random_parameters_in_float64(rope_type, monkeypatch):
    """In float32, Transformers differs from its own formula by up to 2e-6 where the ramp of llama3 or yarn cancels."""
    for seed in range(50):
        rng = random.Random(f"float64 {rope_type} {seed}")
        config = shape(rng)
        config["rope_parameters"] = {**random_parameters(rope_type, rng, config), "rope_theta": config["rope_theta"]}
        tokens = rng.choice([900, config["max_position_embeddings"] + 700])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "float", torch.float64)
            patch.setattr(torch, "float32", torch.float64)
            inv_freq, _ = function_of(config, tokens)
        np.testing.assert_allclose(
            rw.from_config(config, sequence_length=tokens).inv_freq, inv_freq, rtol=1e-12, atol=0
        )


def test_the_original_length_at_the_top_level_takes_precedence():
    rng = random.Random(3)
    config = {**shape(rng), "original_max_position_embeddings": 777}
    for rope_type in ("yarn", "llama3", "longrope"):
        parameters = random_parameters(rope_type, rng, config)
        full = {**config, "rope_scaling": parameters}
        check(rw.from_config(full), *function_of(full))
        del parameters["original_max_position_embeddings"]
        check(rw.from_config(full), *function_of(full))
        del full["original_max_position_embeddings"]  # the default is max_position_embeddings
        check(rw.from_config(full), *function_of(full))


def test_hunyuan_has_a_constant_alpha():
    config = {
        "model_type": "hunyuan_v1_dense",
        **{"hidden_size": 1024, "num_attention_heads": 8, "head_dim": 128, "max_position_embeddings": 32768},
        "rope_parameters": {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0, "rope_theta": 10000.0},
    }
    rope = embedding(config, "hunyuan_v1_dense")
    check(rw.from_config(config), rope.inv_freq.double().numpy(), 1.0)
    full = {"beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0, "type": "dynamic"}
    config["rope_parameters"].update(full)
    assert rw.from_config(config) == rw.encoding("ntk:1000", 128)


WRITTEN = [
    "default",
    "linear:8",
    "power:0.1",
    "power:0.5",
    "truncated:4096",
    "linear:4|truncated:4096",
    "linear:4|power:0.5|truncated:2048",
    "ntk:8",
    "dynamic:4,original_length=2048",
    "yarn:16,original_length=4096",
    "yarn:16,original_length=4096,beta_fast=20,truncate=false,attention_factor=1.5",
    "yarn:40,original_length=4096,mscale=1,mscale_all_dim=0.7",
    "yarn:4,original_length=2048|power:0.2",
    "llama3",
    "llama3:32,original_length=4096,high_freq_factor=8",
    "longrope:factor=32,original_length=4096",
    "proportional:0.25",
]


@pytest.mark.parametrize("expression", WRITTEN)
@pytest.mark.parametrize("spelling", ["rope_parameters", "rope_scaling"])
def test_transformers_reads_to_hf_config(expression, spelling):
    tokens = 5000
    encoding = rw.encoding(expression, head_dim=128, base=500000.0, sequence_length=tokens)
    written = rw.to_hf_config(encoding)
    config = {"model_type": "llama", "hidden_size": 1024, "num_attention_heads": 8, "max_position_embeddings": 131072}
    for key in ("head_dim", "rope_theta", "max_position_embeddings", "partial_rotary_factor", spelling):
        if key in written:
            config[key] = written[key]
    if expression == "default":
        inv_freq, factor = embedding(config, "llama").inv_freq.double().numpy(), 1.0
    else:
        inv_freq, factor = function_of(config, tokens)
    np.testing.assert_allclose(
        inv_freq, encoding.inv_freq, rtol=TOLERANCE, atol=1e-29
    )  # to_hf_config writes 0 as 1e-30
    assert factor == pytest.approx(encoding.attention_factor, rel=TOLERANCE)


def test_transformers_reads_a_partial_width():
    written = rw.to_hf_config(rw.encoding("linear:2", head_dim=80, rotary_dim=32))
    config = {"model_type": "llama", "hidden_size": 640, "num_attention_heads": 8, "head_dim": 80}
    inv_freq, _ = function_of({**config, "rope_parameters": written["rope_parameters"]})
    np.testing.assert_allclose(inv_freq, rw.encoding("linear:2", 80, rotary_dim=32).inv_freq, rtol=TOLERANCE)
