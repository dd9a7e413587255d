"""Losses by giraffe_13b --perplexity against Transformers: tiny checkpoints, and SmolLM2 where it is present."""

import json
import math
import os
from pathlib import Path

import llama_checkpoints as lc
import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not lc.GIRAFFE.exists(), reason=f"{lc.GIRAFFE} is not built"),
]

IDS = lc.random_ids(301)
# Float32 against float64.
BOUND = 2e-5
# Transformers' dynamic NTK depends on lengths above max_position_embeddings.
CHANGES = {"dynamic": {"max_position_embeddings": 20}}


def losses_of(logits, ids):
    """Cross-entropies, in nats, of ids[i + 1] for the logits of ids[i]."""
    following = torch.tensor(ids[1:], dtype=torch.int64)
    return functional.cross_entropy(logits[: len(following)].double(), following, reduction="none").numpy()


def transformers_losses(model, ids):
    with torch.no_grad():
        states = model.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0]
        parts = [
            losses_of(model.lm_head(states[start : start + 256]), ids[start : start + 257])
            for start in range(0, len(ids) - 1, 256)
        ]
    return np.concatenate(parts)


def freshly_encoded_losses(model, ids, turns):
    """Losses of a conversation whose cache holds keys before the rotation. Every call rotates them from the beginning
    by the encoding of its length."""
    cached = [([], []) for _ in model.model.layers]
    groups = model.config.num_attention_heads // model.config.num_key_value_heads

    def rotated(x, cos, sin):
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    def attention(layer, states, past, cos, sin):
        heads = lambda x: x.unflatten(-1, (-1, model.config.head_dim)).transpose(0, 1)  # noqa: E731
        keys, values = cached[layer.self_attn.layer_idx]
        keys.append(heads(layer.self_attn.k_proj(states)))
        values.append(heads(layer.self_attn.v_proj(states)))
        q = rotated(heads(layer.self_attn.q_proj(states)), cos[past:], sin[past:])
        k = rotated(torch.cat(keys, dim=1), cos, sin).repeat_interleave(groups, dim=0)
        v = torch.cat(values, dim=1).repeat_interleave(groups, dim=0)
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(past)
        mixed = functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask)[0]
        return layer.self_attn.o_proj(mixed.transpose(0, 1).flatten(1))

    losses, past = [], 0
    with torch.no_grad():
        for turn in turns:
            x, whole = model.model.embed_tokens(torch.tensor(ids[past : past + turn])), past + turn
            cos, sin = (table[0] for table in model.model.rotary_emb(x, torch.arange(whole)[None]))
            for layer in model.model.layers:
                x = x + attention(layer, layer.input_layernorm(x), past, cos, sin)
                x = x + layer.mlp(layer.post_attention_layernorm(x))
            losses.append(losses_of(model.lm_head(model.model.norm(x)), ids[past : whole + 1]))
            past = whole
    return np.concatenate(losses)


def giraffe(folder, ids, tmp_path, *flags, wrapped=False):
    """The report of a run, whose means are checked."""
    path, out = tmp_path / "ids.json", tmp_path / "report.json"
    path.write_text(json.dumps({"tokens": ids, "source": "random"} if wrapped else ids))
    done = lc.run(
        lc.GIRAFFE, "--weights", folder, "--perplexity", path, "--dtype", "f32", "--threads", 1, "--json", out, *flags
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    losses = np.array(report["losses"])
    assert len(losses) == len(ids) - 1
    assert report["loss"] == pytest.approx(losses.mean(), rel=1e-12)
    assert report["perplexity"] == pytest.approx(math.exp(losses.mean()), rel=1e-12)
    ends = [256 * 2**power for power in range(20)]
    for bucket, start, stop in zip(report["buckets"], [0, *ends], ends):
        assert bucket["start"] == start and bucket["stop"] == min(stop, len(losses))
        assert bucket["loss"] == pytest.approx(losses[start:stop].mean(), rel=1e-12)
        assert f"positions {start:7} to {bucket['stop'] - 1:7}: loss {bucket['loss']:.5f}" in done.stdout
    assert report["buckets"][-1]["stop"] == len(losses)
    assert f"perplexity {report['perplexity']:.4f}" in done.stdout
    return report


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied"])
@pytest.mark.parametrize("policy", lc.POLICIES)
def test_losses_equal_those_of_transformers(policy, tied, tmp_path):
    config = lc.make_config(policy, num_key_value_heads=2, tie_word_embeddings=tied, **CHANGES.get(policy, {}))
    model = lc.make_model(config)
    model.save_pretrained(tmp_path)
    theirs = transformers_losses(model.double(), IDS)
    assert theirs.std() > 0.5
    for flags, wrapped in ([], False), (["--chunk", 7], True):
        report = giraffe(tmp_path, IDS, tmp_path, *flags, wrapped=wrapped)
        assert np.abs(np.array(report["losses"]) - theirs).max() < BOUND
    assert report["prefill_parts"]["tokens"] == len(IDS) and report["tokens"] == []
    assert [bucket["stop"] for bucket in report["buckets"]] == [256, 300]


@pytest.mark.parametrize("policy", ["dynamic", "longrope", "linear"])
def test_a_conversation_equals_one_whose_keys_are_encoded_afresh(policy, tmp_path):
    config = lc.make_config(policy, num_key_value_heads=2, **CHANGES.get(policy, {}))
    model = lc.make_model(config)
    model.save_pretrained(tmp_path)
    turns = [15, 3, 1, 1, 40, 40, 40, 40, 40, 40, 40, 1]
    theirs = freshly_encoded_losses(model.double(), IDS, turns)
    report = giraffe(tmp_path, IDS, tmp_path, "--turns", "15,3,1,1,40", "--chunk", 16)
    assert np.abs(np.array(report["losses"]) - theirs).max() < BOUND
    at_once = np.array(giraffe(tmp_path, IDS, tmp_path)["losses"])
    changes = np.abs(at_once - theirs).max()
    assert changes < BOUND if policy == "linear" else changes > 1e-3  # early tokens have seen other encodings


ERRORS = {
    "a missing file": (None, [], "cannot read "),
    "no JSON": ("[1, 2", [], "ids.json is not valid JSON"),
    "neither list nor object": ('"1,2"', [], "must be a list of token ids or an object with a list 'tokens'"),
    "an object without tokens": (
        '{"ids": [1, 2]}',
        [],
        "must be a list of token ids or an object with a list 'tokens'",
    ),
    "one token": ("[1]", [], "ids.json has 1 tokens, a loss needs 2 or more"),
    "a fraction": ("[1, 2.5]", [], "token 1 must be a whole number from 0 to 2147483647, got 2.5"),
    "a negative id": ("[-1, 2]", [], "token 0 must be a whole number from 0 to 2147483647, got -1"),
    "a large id": ("[1, 18446744073709551615]", [], "token 1 must be a whole number from 0 to 2147483647"),
    "an id outside the vocabulary": ("[1, 2, 128]", [], "token id 128 is not among the 128 of the vocabulary"),
    "a text longer than the context": ("[1, 2, 3]", ["--context", 2], "has 3 tokens, --context allows 2"),
    "generation": ("[1, 2]", ["--generate", 4], "cannot be combined with --generate"),
    "decoding": ("[1, 2]", ["--decode", 4], "cannot be combined with --decode"),
    "a prompt": ("[1, 2]", ["--prompt-ids", "1"], "cannot be combined with --prompt-ids"),
    "a turn of nothing": ("[1, 2]", ["--turns", "0"], "--turns needs a whole number from 1"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("default")
    lc.make_model(lc.make_config()).save_pretrained(path)
    return path


@pytest.mark.parametrize("what", ERRORS)
def test_errors_are_one_line(what, folder, tmp_path):
    content, flags, message = ERRORS[what]
    path = tmp_path / "ids.json"
    if content is not None:
        path.write_text(content)
    done = lc.run(lc.GIRAFFE, "--weights", folder, "--perplexity", path, *flags)
    assert done.returncode == 1 and done.stderr.startswith("giraffe_13b: ropewalk: ")
    assert done.stderr.count("\n") == 1 and message in done.stderr


def test_turns_need_a_text(folder):
    done = lc.run(lc.GIRAFFE, "--weights", folder, "--turns", "4")
    assert done.returncode == 1 and "--turns needs --perplexity" in done.stderr


def test_weights_that_are_not_finite(tmp_path):
    model = lc.make_model(lc.make_config())
    model.model.embed_tokens.weight.data[9, 5] = math.inf
    model.save_pretrained(tmp_path)
    (tmp_path / "ids.json").write_text("[1, 5, 2, 9, 4]")
    done = lc.run(lc.GIRAFFE, "--weights", tmp_path, "--perplexity", tmp_path / "ids.json", "--chunk", 1)
    assert done.returncode == 1 and "the logits of the token at position 3 are not finite" in done.stderr


# A folder of SmolLM2-135M-Instruct with safetensors in float32.
SMOLLM2 = Path(os.environ.get("ROPEWALK_SMOLLM2", lc.PROGRAMS / "smollm2"))
SMOLLM2_POLICIES = {
    "default": {"rope_type": "default"},
    "linear:2": {"rope_type": "linear", "factor": 2.0},
    "yarn:2": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8192},
    "dynamic:2,original_length=4096": {"rope_type": "dynamic", "factor": 2.0},
}
smollm2 = pytest.mark.skipif(
    not (SMOLLM2 / "model.safetensors").exists(),
    reason=f"no SmolLM2 in {SMOLLM2}: run `make evaluate` or set ROPEWALK_SMOLLM2",
)


def smollm2_with(expression, **changes):
    parameters = {**SMOLLM2_POLICIES[expression], "rope_theta": 100000.0}
    config = LlamaConfig.from_pretrained(SMOLLM2, rope_parameters=parameters, **changes)
    return LlamaForCausalLM.from_pretrained(SMOLLM2, config=config, dtype=torch.float32).eval()


def prose(tokens):
    """Token ids of English prose that every Python carries."""
    topics = pytest.importorskip("pydoc_data.topics").topics
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(SMOLLM2)
    return tokenizer("\n\n".join(topics[name] for name in sorted(topics)))["input_ids"][:tokens]


@smollm2
@pytest.mark.parametrize("expression", ["default", "linear:2", "yarn:2"])
def test_smollm2(expression, tmp_path):
    """Losses of 400 tokens and 64 greedy tokens in float32."""
    model, ids = smollm2_with(expression), prose(400)
    report = giraffe(SMOLLM2, ids, tmp_path, "--scaling", expression)
    assert np.abs(np.array(report["losses"]) - transformers_losses(model, ids)).max() < 1e-3
    prompt = torch.tensor([ids[:100]])
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), min_new_tokens=64, max_new_tokens=64, do_sample=False
    )
    flags = ["--prompt-ids", lc.joined(ids[:100]), "--generate", 64, "--dtype", "f32", "--threads", 1]
    done = lc.run(lc.GIRAFFE, "--weights", SMOLLM2, "--scaling", expression, *flags)
    assert done.stdout.splitlines()[-1] == lc.joined(made[0, 100:].tolist())
