"""The encodings of configurations against those of the installed Transformers, in float32.

Where we differ on purpose:
- A scheme's section with a key that is not known is an error here; Transformers logs a warning and ignores the key.
- YaRN's `attn_factor`, of the authors' own code, is read here and ignored there.
- `truncate` of YaRN is read from the section; Transformers reads it from the outer dict where sections are nested by
  layer type, and so misses it.
- PhiMoE beyond the original length turns by `long_factor` here; its class in Transformers asks for the frequencies
  without a length and so always has the short ones, with `long_mscale`.
- Cohere2Moe's `rope_scaling`, which its class there keeps as an attribute and never looks at, is read here.
- `rotary_dim` is the width here for every model; MiniMax-M3's class there reads `partial_rotary_factor` alone, and
  `partial_rotary_factor` is one for Llama and others whose class ignores it there unless a scheme is scaled.
- Keys that contradict each other are an error here; there those of `rope_parameters` win.
- A scheme under its old name `type`, which OLMo-3, ModernBERT and Step-3.5 overlook there beside a `rope_type` of their
  own making, is read here.
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
TOLERANCE = 1e-6  # of what float32 arithmetic makes of it


def plain(name):
    return json.loads((CONFIGS / f"{name}.json").read_text())


def configuration(config):
    """A configuration object of Transformers."""
    fields = copy.deepcopy(config)
    scaling = fields.get("rope_scaling")
    if scaling and scaling.get("type") == "su":  # the old name, which its validation no longer gets through
        scaling["type"] = "longrope"
    return AutoConfig.for_model(fields.pop("model_type"), **fields).get_text_config()


def function_of(config, sequence_length=None):
    """inv_freq and attention factor of the scheme's function in Transformers."""
    made = configuration(config)
    function = ROPE_INIT_FUNCTIONS[made.rope_parameters["rope_type"]]
    inv_freq, attention_factor = function(made, "cpu", seq_len=sequence_length)
    return inv_freq.double().numpy(), attention_factor


def embedding(config, kind):
    """The rotary embedding of the model's own class."""
    module = importlib.import_module(f"transformers.models.{kind[0]}.modeling_{kind[0]}")
    return getattr(module, kind[1])(configuration(config))


MODELS = [
    ("llama-2-13b", ("llama", "LlamaRotaryEmbedding"), None),
    ("llama-2-7b-32k", ("llama", "LlamaRotaryEmbedding"), None),
    ("giraffe-v2-70b", ("llama", "LlamaRotaryEmbedding"), None),
    ("giraffe-13b-32k-v3", ("llama", "LlamaRotaryEmbedding"), None),
    ("yarn-llama-2-7b-64k", ("llama", "LlamaRotaryEmbedding"), None),
    ("llama-3.1-8b", ("llama", "LlamaRotaryEmbedding"), None),
    ("qwen2.5-7b-yarn", ("qwen2", "Qwen2RotaryEmbedding"), None),
    ("phi-3-mini-128k", ("phi3", "Phi3RotaryEmbedding"), None),
    ("pythia-1.4b", ("gpt_neox", "GPTNeoXRotaryEmbedding"), None),
    ("deepseek-v3", ("deepseek_v3", "DeepseekV3RotaryEmbedding"), None),
    ("gpt-oss-20b", ("gpt_oss", "GptOssRotaryEmbedding"), None),
    ("gemma-3-12b", ("gemma3", "Gemma3RotaryEmbedding"), "full_attention"),
    ("gemma-3-12b", ("gemma3", "Gemma3RotaryEmbedding"), "sliding_attention"),
    ("gemma-4", ("gemma4", "Gemma4TextRotaryEmbedding"), "full_attention"),
    ("gemma-4", ("gemma4", "Gemma4TextRotaryEmbedding"), "sliding_attention"),
    ("qwen2-vl-7b", ("qwen2_vl", "Qwen2VLRotaryEmbedding"), None),
    ("qwen3-vl-8b", ("qwen3_vl", "Qwen3VLTextRotaryEmbedding"), None),
    ("llama-3-giraffe-70b", ("llama", "LlamaRotaryEmbedding"), None),
    ("mistral-7b-v0.1", ("mistral", "MistralRotaryEmbedding"), None),
    ("mistral-7b-v0.2", ("mistral", "MistralRotaryEmbedding"), None),
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
    # and as Transformers writes the same configuration itself, in today's spelling
    assert rw.from_config(configuration(plain(name)), layer_type=layer_type) == encoding


# One scheme in the file, which the model's code spreads over its kinds of layers.
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}
BOTH = {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"], "rope_scaling": YARN}
SPREAD = [
    ({"model_type": "olmo3", **BOTH}, ("olmo3", "Olmo3RotaryEmbedding")),
    ({"model_type": "modernbert", **BOTH}, ("modernbert", "ModernBertRotaryEmbedding")),
    (
        {"model_type": "step3p5", "rope_theta": [5e6, 1e4], "partial_rotary_factors": [0.5, 1.0], **BOTH},
        ("step3p7", "Step3p7RotaryEmbedding"),
    ),
    (
        {
            "model_type": "deepseek_v4",
            "head_dim": 512,
            "qk_rope_head_dim": 64,
            "rope_scaling": {**YARN, "beta_fast": 32, "beta_slow": 1},
            "compress_rope_theta": 160000,
        },
        ("deepseek_v4", "DeepseekV4RotaryEmbedding"),
    ),
]


@pytest.mark.parametrize(("fields", "kind"), SPREAD)
def test_schemes_that_the_code_spreads(fields, kind):
    layer_types = ("main", "compress") if kind[0] == "deepseek_v4" else ("full_attention", "sliding_attention")
    config = {"hidden_size": 1024, "num_attention_heads": 8, "max_position_embeddings": 65536, **fields}
    rope = embedding(config, kind)
    for layer_type in layer_types:
        inv_freq = getattr(rope, f"{layer_type}_inv_freq").double().numpy()
        check(rw.from_config(config, layer_type=layer_type), inv_freq, getattr(rope, f"{layer_type}_attention_scaling"))


def test_all_real_configurations_are_compared():
    assert {path.stem for path in CONFIGS.glob("*.json")} == {name for name, *_ in MODELS}


def test_phi_3_switches_strictly_beyond_its_original_length():
    config = plain("phi-3-mini-128k")
    rope = embedding(config, ("phi3", "Phi3RotaryEmbedding"))
    x = torch.zeros(1, 1, 96)
    for tokens in (4096, 4097, 131072):
        rope(x, torch.arange(tokens - 1, tokens)[None])
        encoding = rw.from_config(config, sequence_length=tokens)
        check(encoding, rope.inv_freq.double().numpy(), rope.attention_scaling)
        assert encoding.stage == int(tokens > 4096)


def test_dynamic_follows_the_sequence_length():
    config = plain("llama-3-giraffe-70b")
    for tokens in (1, 8192, 8193, 10000, 32768):
        rope = embedding(config, ("llama", "LlamaRotaryEmbedding"))
        rope(torch.zeros(1, 1, 128), torch.arange(tokens - 1, tokens)[None])
        check(rw.from_config(config, sequence_length=tokens), rope.inv_freq.double().numpy(), rope.attention_scaling)


def test_deepseek_softmax():
    config = plain("deepseek-v3")
    config.update(num_hidden_layers=1, hidden_size=64, num_attention_heads=2, q_lora_rank=16, kv_lora_rank=16)
    module = importlib.import_module("transformers.models.deepseek_v3.modeling_deepseek_v3")
    attention = module.DeepseekV3Attention(configuration(config), 0)
    plain_scale = (config["qk_nope_head_dim"] + config["qk_rope_head_dim"]) ** -0.5
    assert rw.from_config(config).softmax_factor == pytest.approx(attention.scaling / plain_scale, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("qwen2-vl-7b", ("qwen2_vl", "Qwen2VLRotaryEmbedding")),
        ("qwen3-vl-8b", ("qwen3_vl", "Qwen3VLTextRotaryEmbedding")),
    ],
)
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


def parts(rng, pairs):
    return [round(rng.uniform(1, 60), 3) for _ in range(pairs)]


def random_scheme(rope_type, rng, config):
    """Parameters of one rope type that no model has."""
    pairs = config["head_dim"] // 2
    factor = rng.choice([1.0, 1.7, 2, 8.0, 33.3])
    original = rng.choice([512, 1000, 4096])
    chosen = {"rope_type": rope_type, "factor": factor}
    if rope_type == "yarn":
        chosen["original_max_position_embeddings"] = original
        optional = {
            "beta_fast": rng.choice([16, 32.0, 48]),
            "beta_slow": rng.choice([0.5, 1, 2.0]),
            "truncate": rng.choice([True, False]),
            "attention_factor": rng.choice([0.5, 1.0, 1.3]),
            "mscale": rng.choice([0.707, 1.0]),
            "mscale_all_dim": rng.choice([0.5, 1.0]),
        }
        chosen.update({key: value for key, value in optional.items() if rng.random() < 0.5})
    elif rope_type == "llama3":
        chosen["low_freq_factor"] = rng.choice([0.5, 1, 1.5])
        chosen["high_freq_factor"] = rng.choice([2, 4.0, 9])
        chosen["original_max_position_embeddings"] = original
    elif rope_type == "longrope":
        chosen["short_factor"], chosen["long_factor"] = parts(rng, pairs), parts(rng, pairs)
        chosen["original_max_position_embeddings"] = original
        if rng.random() < 0.5:
            del chosen["factor"]
        if rng.random() < 0.3:
            chosen["attention_factor"] = 1.19
    elif rope_type == "proportional":
        chosen["partial_rotary_factor"] = rng.choice([0.25, 0.3, 0.5, 1.0])
    if rope_type != "proportional" and rope_type != "longrope" and rng.random() < 0.3:
        chosen["partial_rotary_factor"] = 0.5
    return chosen


ROPE_TYPES = sorted(ROPE_INIT_FUNCTIONS)


def test_every_rope_type_is_known_here():
    assert ROPE_TYPES == ["dynamic", "linear", "llama3", "longrope", "proportional", "yarn"]


@pytest.mark.parametrize("rope_type", ROPE_TYPES)
@pytest.mark.parametrize("seed", range(12))
def test_random_parameters(rope_type, seed):
    rng = random.Random(f"{rope_type} {seed}")
    config = shape(rng)
    scheme = random_scheme(rope_type, rng, config)
    new = {**config, "rope_parameters": {**scheme, "rope_theta": config["rope_theta"]}}
    old = {**config, "rope_scaling": {("type" if key == "rope_type" else key): value for key, value in scheme.items()}}
    for tokens in (None, 900, config["max_position_embeddings"] + 700):
        expected = function_of(new, tokens)
        encoding = rw.from_config(new, sequence_length=tokens)
        check(encoding, *expected)
        assert rw.from_config(old, sequence_length=tokens) == encoding


# longrope calls .float(), which cannot be made to mean float64
@pytest.mark.parametrize("rope_type", [one for one in ROPE_TYPES if one != "longrope"])
def test_random_parameters_in_float64(rope_type, monkeypatch):
    """Their float32 differs from their own formula by up to 2e-6 where the ramp of llama3 or yarn cancels."""
    for seed in range(50):
        rng = random.Random(f"float64 {rope_type} {seed}")
        config = shape(rng)
        config["rope_parameters"] = {**random_scheme(rope_type, rng, config), "rope_theta": config["rope_theta"]}
        tokens = rng.choice([900, config["max_position_embeddings"] + 700])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "float", torch.float64)
            patch.setattr(torch, "float32", torch.float64)
            inv_freq, _ = function_of(config, tokens)
        np.testing.assert_allclose(
            rw.from_config(config, sequence_length=tokens).inv_freq, inv_freq, rtol=1e-12, atol=0
        )


def test_top_level_original_length_wins():
    rng = random.Random(3)
    config = {**shape(rng), "original_max_position_embeddings": 777}
    for rope_type in ("yarn", "llama3", "longrope"):
        scheme = random_scheme(rope_type, rng, config)
        made = {**config, "rope_scaling": scheme}
        check(rw.from_config(made), *function_of(made))
        del scheme["original_max_position_embeddings"]
        check(rw.from_config(made), *function_of(made))
        del made["original_max_position_embeddings"]  # then it is max_position_embeddings
        check(rw.from_config(made), *function_of(made))


def test_hunyuan_fixes_alpha():
    config = {
        "model_type": "hunyuan_v1_dense",
        "hidden_size": 1024,
        "num_attention_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0, "rope_theta": 10000.0},
    }
    rope = embedding(config, ("hunyuan_v1_dense", "HunYuanDenseV1RotaryEmbedding"))
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
def test_transformers_reads_what_is_written(expression, spelling):
    tokens = 5000
    encoding = rw.encoding(expression, head_dim=128, base=500000.0, sequence_length=tokens)
    written = rw.to_hf_config(encoding)
    config = {"model_type": "llama", "hidden_size": 1024, "num_attention_heads": 8, "max_position_embeddings": 131072}
    for key in ("head_dim", "rope_theta", "max_position_embeddings", "partial_rotary_factor", spelling):
        if key in written:
            config[key] = written[key]
    if expression == "default":
        inv_freq, factor = embedding(config, ("llama", "LlamaRotaryEmbedding")).inv_freq.double().numpy(), 1.0
    else:
        inv_freq, factor = function_of(config, tokens)
    np.testing.assert_allclose(inv_freq, encoding.inv_freq, rtol=TOLERANCE, atol=1e-29)  # a zero is written as 1e-30
    assert factor == pytest.approx(encoding.attention_factor, rel=TOLERANCE)


def test_partial_width_is_read_from_what_is_written():
    written = rw.to_hf_config(rw.encoding("linear:2", head_dim=80, rotary_dim=32))
    config = {"model_type": "llama", "hidden_size": 640, "num_attention_heads": 8, "head_dim": 80}
    inv_freq, _ = function_of({**config, "rope_parameters": written["rope_parameters"]})
    np.testing.assert_allclose(inv_freq, rw.encoding("linear:2", 80, rotary_dim=32).inv_freq, rtol=TOLERANCE)
