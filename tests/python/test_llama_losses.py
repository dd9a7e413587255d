"""Losses by giraffe_13b --perplexity against Transformers: tiny checkpoints, and SmolLM2 where it is present."""

import json
import math
import os
import sys
from pathlib import Path

import llama_checkpoints as lc
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.append(str(lc.ROOT / "benchmarks" / "llama"))
from conversation import freshly_encoded_losses, losses_of, prose

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not lc.GIRAFFE.exists(), reason=f"{lc.GIRAFFE} is not built"),
]

IDS = lc.random_ids(301)
# Float32 against float64.
BOUND = 2e-5
# Transformers' dynamic NTK depends on lengths above max_position_embeddings.
CHANGES = {"dynamic": {"max_position_embeddings": 20}}


def transformers_losses(model, ids):
    with torch.no_grad():
        return losses_of(model, model.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0], ids)


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
    assert (
        done.returncode == 1
        and "the hidden state of the token at position 3 is not finite before layer 0" in done.stderr
    )


# A folder of SmolLM2-135M-Instruct with safetensors in float32.
SMOLLM2 = Path(os.environ.get("ROPEWALK_SMOLLM2", lc.PROGRAMS / "smollm2"))
SMOLLM2_POLICIES = {
    "default": {"rope_type": "default"},
    "linear:2": {"rope_type": "linear", "factor": 2.0},
    "yarn:2": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8192},
}
smollm2 = pytest.mark.skipif(
    not (SMOLLM2 / "model.safetensors").exists(),
    reason=f"no SmolLM2 in {SMOLLM2}: run `make evaluate` or set ROPEWALK_SMOLLM2",
)


@smollm2
@pytest.mark.parametrize("expression", ["default", "linear:2", "yarn:2"])
def test_smollm2(expression, tmp_path):
    """Losses of 400 tokens and 64 greedy tokens in float32."""
    parameters = {**SMOLLM2_POLICIES[expression], "rope_theta": 100000.0}
    config = LlamaConfig.from_pretrained(SMOLLM2, rope_parameters=parameters)
    model = LlamaForCausalLM.from_pretrained(SMOLLM2, config=config, dtype=torch.float32).eval()
    ids = prose(SMOLLM2, 400)
    report = giraffe(SMOLLM2, ids, tmp_path, "--scaling", expression)
    assert np.abs(np.array(report["losses"]) - transformers_losses(model, ids)).max() < 1e-3
    prompt = torch.tensor([ids[:100]])
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), min_new_tokens=64, max_new_tokens=64, do_sample=False
    )
    flags = ["--prompt-ids", lc.joined(ids[:100]), "--generate", 64, "--dtype", "f32", "--threads", 1]
    done = lc.run(lc.GIRAFFE, "--weights", SMOLLM2, "--scaling", expression, *flags)
    assert done.stdout.splitlines()[-1] == lc.joined(made[0, 100:].tolist())
