"""The Llama stack against Transformers with the same small random weights: states, tokens, files, errors."""

import contextlib
import json

import llama_checkpoints as lc
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        not lc.STATES.exists() or not lc.GIRAFFE.exists(),
        reason=f"the Llama stack is not built: {lc.STATES} or {lc.GIRAFFE} is missing",
    ),
]

TOKENS = 40
IDS = lc.random_ids(TOKENS)
# float32 against float64. Transformers in float32 differs from its float64 by 1e-6.
BOUND = 5e-6
HEADS = {"mha": 6, "gqa": 2, "mqa": 1}
# Transformers' dynamic NTK depends on lengths above max_position_embeddings.
CHANGES = {"dynamic": {"max_position_embeddings": 20}}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """get(policy, key heads) -> folder, configuration, the same model in float64. Each is made once."""
    made = {}

    def get(policy, kv_heads=6):
        key = policy, kv_heads
        if key not in made:
            folder = tmp_path_factory.mktemp(f"{policy}-{kv_heads}")
            config = lc.make_config(policy, num_key_value_heads=kv_heads, **CHANGES.get(policy, {}))
            model = lc.make_model(config)
            model.save_pretrained(folder)
            made[key] = folder, config, model.double()
        return made[key]

    return get


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("policy", lc.POLICIES)
def test_states_at_once_in_chunks_and_token_by_token(models, policy, heads, tmp_path):
    folder, config, model = models(policy, HEADS[heads])
    theirs = lc.expected(model, IDS)
    for chunks in ([], [5, 3, 1, 1], [17, 16], [30] + 10 * [1]):
        ours = lc.states(folder, IDS, config, tmp_path, chunks=lc.joined(chunks))
        assert lc.error(ours, theirs) < BOUND, chunks


@pytest.mark.parametrize("heads", ["mha", "gqa"])
@pytest.mark.parametrize("policy", lc.POLICIES)
@pytest.mark.parametrize("chunks", [[], [4, 1, 1, 9]], ids=["at once", "in steps"])
def test_sequences_of_different_lengths_in_one_batch(models, policy, heads, chunks, tmp_path):
    folder, config, model = models(policy, HEADS[heads])
    lengths = [7, 22, 1, 10]
    parts = np.split(np.array(IDS), np.cumsum(lengths)[:-1])
    theirs = lc.together([lc.expected(model, part.tolist()) for part in parts])
    ours = lc.states(folder, IDS, config, tmp_path, lengths=lc.joined(lengths), chunks=lc.joined(chunks))
    assert lc.error(ours, theirs) < BOUND


@pytest.mark.parametrize("policy", lc.EXPRESSIONS)
def test_scaling_replaces_the_policy_of_the_configuration(models, policy, tmp_path):
    folder, config, model = models("llama3" if policy != "llama3" else "linear")
    other = lc.make_config(policy, **CHANGES.get(policy, {}))
    with_policy = LlamaForCausalLM(other).double().eval()
    with_policy.load_state_dict(model.state_dict())
    theirs = lc.expected(with_policy, IDS)
    ours = lc.states(folder, IDS, config, tmp_path, scaling=lc.EXPRESSIONS[policy], chunks="25,6")
    assert lc.error(ours, theirs) < BOUND
    assert lc.error(ours, lc.expected(model, IDS)) > 0.02  # positions matter to these models


def test_shards_and_their_index(models, tmp_path):
    _, config, model = models("linear", 2)
    model.float().save_pretrained(tmp_path, max_shard_size="200KB")
    model.double()
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    assert not (tmp_path / "model.safetensors").exists()
    assert lc.error(lc.states(tmp_path, IDS, config, tmp_path), lc.expected(model, IDS)) < BOUND


def test_tied_embeddings(tmp_path):
    config = lc.make_config("default", tie_word_embeddings=True)
    model = lc.make_model(config)
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert lc.error(lc.states(tmp_path, IDS, config, tmp_path), lc.expected(model.double(), IDS)) < BOUND


@pytest.mark.parametrize(("stored", "name"), [(torch.bfloat16, "bf16"), (torch.float16, "f16")])
def test_half_precision_checkpoints(stored, name, tmp_path):
    config = lc.make_config("linear", num_key_value_heads=2)
    lc.make_model(config).to(stored).save_pretrained(tmp_path)
    theirs = lc.expected(lc.load(tmp_path), IDS)
    for dtype in ("f32", name):  # converted, and in place
        assert lc.error(lc.states(tmp_path, IDS, config, tmp_path, dtype=dtype, chunks="20,1"), theirs) < BOUND


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_weights_are_rounded_when_read(models, stored, tmp_path):
    folder, config, _ = models("default")
    model = lc.load(folder)
    for parameter in model.parameters():
        if parameter.dim() == 2:  # norms stay float32
            parameter.data = parameter.data.to(stored).double()
    name = {torch.bfloat16: "bf16", torch.float16: "f16"}[stored]
    assert lc.error(lc.states(folder, IDS, config, tmp_path, dtype=name), lc.expected(model, IDS)) < BOUND


@pytest.mark.parametrize(("cache", "bound"), [("f16", 2e-3), ("bf16", 2e-2), ("i8", 3e-2)])
def test_narrow_caches_stay_within_their_rounding(models, cache, bound, tmp_path):
    folder, config, model = models("linear", 2)
    theirs = lc.expected(model, IDS)
    ours = lc.states(folder, IDS, config, tmp_path, cache=cache, chunks="11,8,1,1")
    assert 1e-6 < lc.error(ours, theirs) < bound


def generate(model, prompt, count):
    """Greedy tokens of Transformers, and the smallest lead of the likeliest token."""
    with torch.no_grad():
        made = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),  # else token 0 would be padding
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    lead = min(float(one[0].topk(2).values.diff().abs()) for one in made.logits)
    return made.sequences[0, len(prompt) :].tolist(), lead


def prompt_and_greedy(model, length, count):
    """A prompt and its greedy tokens, without a loop of a few tokens and without near ties."""
    for seed in range(20):
        prompt = lc.random_ids(length, seed)
        tokens, lead = generate(model, prompt, count)
        if lead > 1e-4 and len(set(tokens)) > count / 4:
            return prompt, tokens
    raise AssertionError("every prompt ends in a loop or a near tie")


def giraffe(tmp_path, *flags):
    """Output of giraffe_13b and its report."""
    report = tmp_path / "report.json"
    done = lc.run(lc.GIRAFFE, *flags, "--json", report)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(report.read_text())


def printed_tokens(text):
    lines = [line for line in text.splitlines() if line.replace(",", "").isdigit()]
    assert len(lines) == 1, text
    return [int(one) for one in lines[0].split(",")]


@pytest.mark.parametrize("heads", ["mha", "gqa"])
@pytest.mark.parametrize("policy", ["default", "linear", "llama3", "yarn"])
def test_greedy_tokens_are_those_of_transformers(models, policy, heads, tmp_path):
    folder, config, model = models(policy, HEADS[heads])
    prompt, theirs = prompt_and_greedy(model, 9, 64)
    flags = ["--config", folder, "--weights", folder, "--prompt-ids", lc.joined(prompt), "--generate", 64]
    text, report = giraffe(tmp_path, *flags, "--dtype", "f32", "--seed", 3)
    assert report["tokens"] == theirs
    assert printed_tokens(text) == theirs
    assert report["layers"] == config.num_hidden_layers

    expression = lc.EXPRESSIONS[policy]
    other = models("default" if policy != "default" else "linear", HEADS[heads])[0]
    save_file(load_file(folder / "model.safetensors"), tmp_path / "model.safetensors")
    flags = ["--config", other / "config.json", "--weights", tmp_path, "--prompt-ids", lc.joined(prompt)]
    _, report = giraffe(tmp_path, *flags, "--generate", 64, "--dtype", "f32", "--scaling", expression, "--chunk", 4)
    assert report["tokens"] == theirs


def test_report(models, tmp_path):
    folder, config, _ = models("linear", 2)
    flags = ["--config", folder, "--weights", folder, "--prompt-ids", lc.joined(IDS), "--generate", 5, "--dtype", "f32"]
    _, report = giraffe(tmp_path, *flags)
    parts = ["projections", "rope", "attention", "mlp"]
    assert all(isinstance(report[name], float) and report[name] > 0 for name in [*parts, "prefill", "decode"])
    assert sum(report[name] for name in parts) <= report["prefill"] + report["decode"] < 60
    key_bytes = config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert report["cache_bytes_per_token"] == 2 * key_bytes
    # The parent process must not count.
    assert 2**20 < report["peak_memory_bytes"] < 2**28
    assert report["scaling"] == "linear:8"
    assert len(report["tokens"]) == 5
    assert [report[name]["tokens"] for name in ("prefill_parts", "decode_parts")] == [TOKENS, 4]
    for whole, part in (("prefill", "prefill_parts"), ("decode", "decode_parts")):
        assert report[part]["seconds"] == report[whole]


def test_generated_weights_depend_on_the_seed(tmp_path):
    (tmp_path / "config.json").write_text(lc.make_config("linear").to_json_string(use_diff=False))
    flags = ["--config", tmp_path / "config.json", "--prompt-ids", "1,5,9", "--generate", 12, "--dtype", "f32"]
    runs = [giraffe(tmp_path, *flags, "--seed", seed)[1]["tokens"] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_layers_need_no_weights(tmp_path):
    (tmp_path / "config.json").write_text(lc.make_config("linear").to_json_string(use_diff=False))
    _, report = giraffe(tmp_path, "--config", tmp_path, "--layers", 2, "--context", 70, "--decode", 2, "--chunk", 32)
    assert report["layers"] == 2
    assert report["mlp"] == 0 and report["tokens"] == []
    assert report["prefill_parts"]["tokens"] == 70


PUBLISHED = {
    "Giraffe 13b-32k-v3": {"max_position_embeddings": 32768, "rope_scaling": {"factor": 8.0, "type": "linear"}},
    "Giraffe v2, early": {"max_position_embeddings": 4096, "rope_scaling": None, "abacus_scale": 8},
    "Giraffe v2": {
        "max_position_embeddings": 4096,
        "abacus_scale": 8,
        "rope_scaling": {"factor": 8.0, "type": "linear"},
    },
    "Together 7B-32K": {"max_position_embeddings": 32768, "rope_scaling": {"factor": 8.0, "type": "linear"}},
    "Llama-2-13B": {"max_position_embeddings": 4096, "rope_scaling": None},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_at_a_smaller_size(name, tmp_path):
    """The published keys with the sizes of SHAPE. Transformers gets equivalent keys where it does not know one."""
    keys = PUBLISHED[name]
    policy = "linear" if keys["rope_scaling"] or "abacus_scale" in keys else "default"
    model = lc.make_model(lc.make_config(policy, num_key_value_heads=2))
    model.save_pretrained(tmp_path)
    old = {key: value for key, value in {**lc.SHAPE, "num_key_value_heads": 2}.items() if value is not None}
    old.update(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", torch_dtype="float16")
    (tmp_path / "config.json").write_text(json.dumps({**old, "pretraining_tp": 1, "use_cache": True, **keys}))
    prompt, theirs = prompt_and_greedy(model.double(), TOKENS, 16)
    flags = ["--config", tmp_path / "config.json", "--weights", tmp_path, "--prompt-ids", lc.joined(prompt)]
    _, report = giraffe(tmp_path, *flags, "--generate", 16, "--dtype", "f32")
    assert report["tokens"] == theirs
    assert report["scaling"] == lc.EXPRESSIONS[policy]


def test_a_layer_as_wide_as_llama_2_13b(tmp_path):
    """The real widths, MLP included, from a bf16 file of 0.6 GB."""
    wide = {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40, "num_key_value_heads": 40}
    config = lc.make_config("linear", **wide, num_hidden_layers=1, vocab_size=64)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    numbers = torch.Generator().manual_seed(1)
    weights = {}
    for key, there in model.state_dict().items():
        bound = (3 / there.shape[-1]) ** 0.5
        low, high = (-bound, bound) if there.dim() == 2 else (0.5, 1.5)
        weights[key] = torch.empty(there.shape, dtype=torch.bfloat16).uniform_(low, high, generator=numbers)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(tmp_path)
    ids = lc.random_ids(12, vocabulary=64)
    ours = lc.states(tmp_path, ids, config, tmp_path, dtype="bf16", chunks="9,1", threads=0)
    theirs = lc.expected(lc.load(tmp_path, torch.float32), ids)
    (tmp_path / "model.safetensors").unlink()
    assert lc.error(ours, theirs) < BOUND


@pytest.fixture
def broken(models, tmp_path):
    """Runs giraffe_13b on a copy of a good model after change(weights, configuration)."""
    folder, _, _ = models("linear", 2)

    def run(change, *flags):
        weights = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        change(weights, config)
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "config.json").write_text(json.dumps(config))
        return lc.run(lc.GIRAFFE, "--weights", tmp_path, "--prompt-ids", "1,5,9", "--generate", 4, *flags)

    return run


DOWN = "model.layers.1.mlp.down_proj.weight"
ERRORS = {
    "a missing tensor": (lambda w, c: w.pop(DOWN), f"has no tensor '{DOWN}' [96, 160]"),
    "a transposed tensor": (
        lambda w, c: w.update({DOWN: w[DOWN].T.contiguous()}),
        f"'{DOWN}' has the shape [160, 96], expected [96, 160]",
    ),
    "a tensor of integers": (
        lambda w, c: w.update({DOWN: w[DOWN].long()}),
        f"'{DOWN}' is I64, this stack reads F32, F16 and BF16",
    ),
    "more layers than weights": (
        lambda w, c: c.update(num_hidden_layers=4),
        "has no tensor 'model.layers.3.input_layernorm.weight' [96]",
    ),
    "no head": (lambda w, c: w.pop("lm_head.weight"), "has no tensor 'lm_head.weight' [128, 96]"),
    "heads that do not divide": (lambda w, c: c.update(num_key_value_heads=4), "6 query heads cannot share 4 key"),
    "another model": (lambda w, c: c.update(model_type="mistral"), "model_type is 'mistral', this stack computes"),
    "biases": (lambda w, c: c.update(attention_bias=True), "attention_bias is true: biases are not supported"),
    "biases of the MLP": (lambda w, c: c.update(mlp_bias=True), "mlp_bias is true: biases are not supported"),
    "another activation": (lambda w, c: c.update(hidden_act="gelu"), "hidden_act is 'gelu', this stack computes"),
    "no width": (lambda w, c: c.pop("hidden_size"), "hidden_size"),
    "an unknown policy": (
        lambda w, c: c.update(rope_parameters={"rope_type": "abacus", "rope_theta": 1e4}),
        "abacus",
    ),
}


@pytest.mark.parametrize("what", ERRORS)
def test_model_errors_take_one_line(broken, what):
    change, message = ERRORS[what]
    done = broken(change)
    assert done.returncode == 1
    assert done.stderr.startswith("giraffe_13b: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_truncated_shard_is_named(models, tmp_path):
    model = models("linear", 2)[2]
    model.float().save_pretrained(tmp_path, max_shard_size="200KB")
    model.double()
    shard = sorted(tmp_path.glob("model-00002-of-*.safetensors"))[0]
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 1)
    flags = ["--weights", tmp_path, "--prompt-ids", "1", "--generate", 2]
    done = lc.run(lc.GIRAFFE, *flags)
    assert done.returncode == 1 and shard.name in done.stderr and "truncated?" in done.stderr
    shard.unlink()
    done = lc.run(lc.GIRAFFE, *flags)
    assert done.returncode == 1 and shard.name in done.stderr and "missing" in done.stderr


def test_transformers_reads_the_folders(models):
    """Transformers reads the same weights from the folders."""
    folder, _, model = models("yarn", 2)
    assert lc.error(lc.expected(lc.load(folder), IDS), lc.expected(model, IDS)) == 0
    with contextlib.suppress(AttributeError):
        assert LlamaConfig.from_pretrained(folder).rope_parameters["rope_type"] == "yarn"
