"""Patched Hugging Face models with random weights: forward, backward, generation and caches."""

import pytest
import ropewalk as rw
import torch
from tiny_model import IDS, ORIGINAL, ROPES, SHAPE, assert_same_gradients, build, gradients, logits

pytestmark = pytest.mark.usefixtures("one_thread")

# GPT-NeoX, GLM, Phi and StableLM rotate a part of each head; Phi and StableLM pass only that part. Cohere and GLM have
# interleaved pairs. Phi-3 has one projection for q, k and v. Gemma scales its queries. Qwen3 and OLMo-2 normalise
# queries and keys before the rotation. GPT-J and CodeGen have a table of sin and cos, and rotate q and k apart.
# DeepSeek-V2 and Llama-4 multiply complex numbers. DeepSeek-V3 moves the even elements of a head before the odd ones.
LATENT = {
    **{"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16},
    **{"num_key_value_heads": 4, "head_dim": None, "n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1},
    **{"topk_group": 1, "moe_intermediate_size": 32, "n_shared_experts": 1, "first_k_dense_replace": 1},
}
EXPERTS = {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
ONE_ENCODING = {
    "CodeGen": {"rotary_dim": 8},
    "Cohere": {"logit_scale": 1.0},
    "Cohere2": {"logit_scale": 1.0, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16},
    "DeepseekV2": LATENT,
    "DeepseekV3": LATENT,
    "Ernie4_5": {},
    "Falcon": {"head_dim": None, "alibi": False},
    "GPTJ": {"rotary_dim": 8},
    "GPTNeoX": {"rotary_pct": 0.25},
    "Gemma2": {"sliding_window": 16},
    "Glm": {"partial_rotary_factor": 0.5},
    "GptOss": EXPERTS,
    "Helium": {},
    "Llama": {},
    "Llama4": {**EXPERTS, "intermediate_size_mlp": 96, "no_rope_layers": [1, 0], "floor_scale": 4},
    "Mistral": {"sliding_window": 16},
    "Olmo2": {},
    "Persimmon": {},
    "Phi": {"partial_rotary_factor": 0.5},
    "Phi3": {},
    "Qwen2": {},
    "Qwen3": {},
    "StableLm": {"partial_rotary_factor": 0.25},
}
TWO_TYPES = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
SEVERAL_ENCODINGS = {
    "Gemma3": TWO_TYPES,
    # Other head_dim and proportional frequencies in full attention; the last two layers have the keys of the first two.
    "Gemma4": {
        **{"num_hidden_layers": 4, "layer_types": TWO_TYPES["layer_types"] * 2, "num_kv_shared_layers": 2},
        **{"sliding_window": 8, "global_head_dim": 32, "num_global_key_value_heads": 2},
        **{"vocab_size_per_layer_input": 97, "hidden_size_per_layer_input": 8},
    },
    "Laguna": {
        **{**TWO_TYPES, **EXPERTS, "shared_expert_intermediate_size": 32},
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 0.5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    "MiMoV2Flash": {**TWO_TYPES, "head_dim": 24, "v_head_dim": 16, "n_routed_experts": 2, "num_experts_per_tok": 1},
    "ModernBertDecoder": TWO_TYPES,
    "Olmo3": {
        **TWO_TYPES,
        "rope_parameters": {
            "full_attention": {"rope_type": "yarn", **ORIGINAL},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
}
FAMILIES = {**ONE_ENCODING, **SEVERAL_ENCODINGS}
MODELS = {
    **{family: (family, None, config) for family, config in FAMILIES.items()},
    "Llama without groups": ("Llama", None, {"num_key_value_heads": 4}),
    **{f"Llama {rope}": ("Llama", rope, {}) for rope in ("linear", "yarn", "llama3")},
}


def model_of(name):
    family, rope, config = MODELS[name]
    return build(family, rope, **config)


def difference(a, b):
    return (a - b).abs().max()


def generated(model, prompt):
    """Greedy tokens, with the second prompt padded on the left by a third."""
    prompt, mask = prompt.clone(), torch.ones_like(prompt)
    prompt[1, : prompt.shape[1] // 3] = mask[1, : prompt.shape[1] // 3] = 0
    return model.generate(prompt, attention_mask=mask, max_new_tokens=6, do_sample=False, eos_token_id=-1)


@pytest.mark.parametrize("name", MODELS)
def test_forward_backward_and_generate_equal_those_of_the_model(name):
    model, ids = model_of(name), IDS[:, :24]
    expected, expected_gradients = logits(model, ids), gradients(model, ids)
    tokens = generated(model, ids[:, :9])
    assert rw.patch(model) is model
    ours = logits(model, ids)
    assert not torch.equal(ours, expected)  # some last bits differ, which shows that ropewalk's rotation ran
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5)
    assert_same_gradients(gradients(model, ids), expected_gradients)
    assert torch.equal(generated(model, ids[:, :9]), tokens)
    prefill = logits(model, tokens[:1])
    assert torch.equal(prefill[:, 8:-1].argmax(-1), tokens[:1, 9:])  # decode and prefill agree
    assert torch.equal(logits(rw.unpatch(model).eval(), ids), expected)


@pytest.mark.parametrize("family", ["ModernBert", "EuroBert"])
def test_an_encoder_with_padding(family):
    model = build(family, None, head="ForMaskedLM", **(TWO_TYPES if family == "ModernBert" else {}))
    ids, mask = IDS[:, :24].contiguous(), torch.ones(2, 24, dtype=torch.long)
    mask[1, :7] = 0

    def results():
        model.zero_grad()
        out = model(ids, attention_mask=mask, labels=ids)
        out.loss.backward()
        return out.logits.detach(), {name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None}

    expected, expected_gradients = results()
    rw.patch(model)
    ours, our_gradients = results()
    torch.testing.assert_close(ours[0], expected[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(ours[1, 7:], expected[1, 7:], rtol=0, atol=2e-5)
    assert_same_gradients(our_gradients, expected_gradients)


def test_embeddings_of_both_directions():
    """EmbeddingGemma is a Gemma-3 whose tokens attend to both directions."""
    model = build("Gemma3", None, **TWO_TYPES, use_bidirectional_attention=True).model
    with torch.no_grad():
        expected = model(IDS).last_hidden_state
        assert not torch.equal(rw.patch(model)(IDS).last_hidden_state, expected)
        torch.testing.assert_close(model(IDS).last_hidden_state, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["Llama", "Gemma3", "DeepseekV3"])
def test_gradient_checkpoints_of_layers(name):
    model, ids = model_of(name), IDS[:, :24]
    expected = gradients(model, ids)
    rw.patch(model).gradient_checkpointing_enable()
    assert_same_gradients(gradients(model.train(), ids), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_policy_changes_the_logits(family):
    model = model_of(family)
    plain = logits(model)
    changed = difference(plain, logits(rw.patch(model, "linear:8")))
    assert changed > 5e-3 * plain.abs().max()
    assert family != "Llama" or changed > 0.5
    assert torch.equal(logits(rw.unpatch(model)), plain)


@pytest.mark.parametrize("family", ["Llama", "GPTNeoX", "Qwen2"])
def test_a_policy_replaces_that_of_the_configuration(family):
    model = model_of(family)
    config = model.config.to_dict()
    config["rope_parameters"] = {**config["rope_parameters"], **ROPES["linear"]}
    twin = type(model)(type(model.config)(**config)).eval()
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(logits(rw.patch(model, "linear:8")), logits(twin), rtol=0, atol=2e-4)


@pytest.mark.parametrize("policy", [None, "linear:8", "truncated:128", "power:0.5", "xpos:64"])
@pytest.mark.parametrize("family", ["Llama", "GPTNeoX"])
def test_decode_with_a_cache_equals_prefill(family, policy):
    model = rw.patch(model_of(family), policy)
    cache, parts = None, []
    with torch.no_grad():
        for chunk in (IDS[:, :7], *IDS[:, 7:].split(1, dim=1)):
            step = model(chunk, past_key_values=cache, use_cache=True)
            cache, _ = step.past_key_values, parts.append(step.logits)
    torch.testing.assert_close(torch.cat(parts, 1), logits(model), rtol=0, atol=2e-4)


LONG_ROPE = rw.LongRope(ROPES["longrope"]["short_factor"], long_factor=[3.0] * 8, factor=4, original_length=16)


@pytest.mark.parametrize(
    ("rope", "policy", "config"),
    [
        ("dynamic", rw.DynamicNtk(4, original_length=16), {}),
        (
            "longrope",
            LONG_ROPE,
            {"max_position_embeddings": 64, "rope_parameters": {**ROPES["longrope"], "long_factor": [3.0] * 8}},
        ),
    ],
)
def test_length_dependent_policies_do_not_change_the_cache(rope, policy, config):
    """As in Transformers, tokens above the original length have other frequencies. Cached keys do not change."""
    model = build("Llama", rope, **config)

    def logits_with_a_cache():
        with torch.no_grad():
            first = model(IDS[:, :12], use_cache=True)
            second = model(IDS[:, 12:24], past_key_values=first.past_key_values, use_cache=True)
        return torch.cat((first.logits, second.logits), 1)

    cached, whole = logits_with_a_cache(), logits(model, IDS[:, :24])
    rw.patch(model, policy)
    torch.testing.assert_close(logits_with_a_cache(), cached, rtol=0, atol=2e-4)
    torch.testing.assert_close(logits(model, IDS[:, :24]), whole, rtol=0, atol=2e-4)
    assert difference(cached, whole) > 1e-3  # otherwise the test would show nothing


def test_a_model_that_rotates_backwards_is_refused():
    """The configuration of NanoChat does not say so."""
    model = build("NanoChat", None)
    before = logits(model)
    with pytest.raises(rw.Error, match="model_type 'nanochat' rotates backwards"):
        rw.patch(model)
    assert torch.equal(logits(model), before)


def test_generation_with_left_padding():
    model = build()
    prompt, mask = IDS[:, :12].clone(), torch.ones(2, 12, dtype=torch.long)
    prompt[1, :5], mask[1, :5] = 0, 0
    arguments = {"max_new_tokens": 20, "do_sample": False, "attention_mask": mask}
    expected = model.generate(prompt, **arguments)
    found = rw.patch(model).generate(prompt, **arguments)
    assert torch.equal(found, expected)
    alone = model.generate(prompt[1:, 5:], max_new_tokens=20, do_sample=False)
    assert torch.equal(alone[0, 7:], found[1, 12 : 12 + alone.shape[1] - 7])


def test_xpos_depends_on_the_distance_alone():
    model, positions = rw.patch(build(), "xpos:64"), torch.arange(40)[None]
    near, far = (logits(model, position_ids=positions + shift) for shift in (0, 900))
    torch.testing.assert_close(far, near, rtol=0, atol=5e-4)


def test_each_training_step_draws_new_randomized_positions():
    model = rw.patch(build(), "randomized:seed=3|linear:2")
    assert torch.equal(logits(model), logits(model))
    assert torch.equal(logits(model), logits(rw.patch(build(), "linear:2")))
    model.train()
    assert not torch.equal(logits(model), logits(model))
    model.gradient_checkpointing_enable()  # backward repeats the forward pass with the same draw
    assert all(torch.isfinite(x).all() for x in gradients(model).values())


def test_dynamic_equals_ntk_of_the_length():
    model = rw.patch(build(), "dynamic:4,original_length=16")
    dynamic = logits(model)
    fixed = logits(rw.patch(rw.unpatch(model), f"ntk:{4 * 40 / 16 - 3}"))
    torch.testing.assert_close(dynamic, fixed, rtol=0, atol=2e-5)


def test_compiled_without_a_graph_break():
    model = rw.patch(build(), "linear:8")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(logits(compiled), logits(model), rtol=0, atol=2e-5)


def test_other_models_of_the_same_module_keep_their_rotation():
    patched, other = rw.patch(build(), "linear:8"), build()
    logits(patched)
    assert torch.equal(logits(other), logits(build()))


def test_errors_of_patch():
    model = build()
    with pytest.raises(rw.Error, match="unknown policy 'liner'"):
        rw.patch(model, "liner:8")
    assert rw.unpatch(model) is model and type(model.model.rotary_emb).__name__ == "LlamaRotaryEmbedding"
    rw.patch(model)
    with pytest.raises(rw.Error, match="already patched"):
        rw.patch(model)
    with pytest.raises(rw.Error, match="Linear has no rotary_emb"):
        rw.patch(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_apply_rotary_transformers(dtype):
    """The function has the signature of kernels on the Hugging Face Hub."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    torch.manual_seed(2)
    q, k = torch.randn(2, 4, 9, 32, dtype=dtype), torch.randn(2, 2, 9, 32, dtype=dtype)
    cos, sin = (t.to(dtype)[None] for t in rw.encoding("linear:8", 32).cos_sin(torch.arange(9), elementwise=True))
    transposed = rw.apply_rotary_transformers(q.transpose(1, 2), k.transpose(1, 2), cos, sin, unsqueeze_dim=2)
    results = rw.apply_rotary_transformers(q, k, cos, sin), [x.transpose(1, 2) for x in transposed]
    for result in results:
        for ours, theirs in zip(result, apply_rotary_pos_emb(q, k, cos, sin)):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 if dtype == torch.float32 else 0.05)
    with pytest.raises(rw.Error, match="unsqueeze_dim must be 1 or 2, got 3"):
        rw.apply_rotary_transformers(q, k, cos, sin, unsqueeze_dim=3)


@pytest.mark.parametrize("policy", ["linear:8", "randomized:64"])
def test_arguments_of_layers_move_between_devices(policy):
    """With device_map, Accelerate moves each argument that has to() before the layer runs."""
    model, seen = build(), []

    def move(layer, arguments, named):
        named["position_embeddings"] = tuple(x.to("cpu", non_blocking=True) for x in named["position_embeddings"])
        seen.append(named["position_embeddings"][0].to("meta"))
        return arguments, named

    rw.patch(model, policy).train()
    expected = model(IDS).logits
    for layer in model.model.layers:
        layer.register_forward_pre_hook(move, with_kwargs=True)
    model.model.rotary_emb.passes.zero_()
    assert torch.equal(model(IDS).logits, expected)
    assert all(x.positions is None or x.positions.is_meta for x in seen) and len(seen) == SHAPE["num_hidden_layers"]
