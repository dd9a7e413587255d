"""RotaryEmbedding, and Hugging Face models with our rotation in place of theirs: small random weights."""

import pytest
import ropewalk as rw
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 500000.0,
}


def build(kind):
    torch.manual_seed(5)
    makers = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
        "llama gqa": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2)),
        "llama linear": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=LINEAR)),
        "llama yarn": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=YARN)),
        "llama llama3": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=LLAMA3)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2)),
        "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, rotary_pct=0.25)),
    }
    model = makers[kind]().eval()
    for parameter in model.parameters():  # the default initialisation makes attention all but uniform
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.12)
    return model


KINDS = ["llama", "llama gqa", "llama linear", "llama yarn", "llama llama3", "mistral", "qwen2", "gpt_neox"]
IDS = torch.randint(3, 97, (2, 40), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_patched_model_is_the_same_model(kind):
    model = build(kind)
    with torch.no_grad():
        before = model(IDS).logits
        assert rw.patch(model) is model
        during = model(IDS).logits
        assert rw.unpatch(model) is model
        after = model(IDS).logits
    assert torch.equal(before, after)
    assert not torch.equal(before, during)  # ours is closer to exact, so some last bits differ
    torch.testing.assert_close(during, before, rtol=0, atol=2e-4)


def test_positions_matter_to_these_models():
    model = build("llama")
    with torch.no_grad():
        plain, scaled = model(IDS).logits, rw.patch(model, "linear:8")(IDS).logits
    assert (plain - scaled).abs().max() > 0.5


@pytest.mark.parametrize("kind", ["llama gqa", "gpt_neox", "qwen2"])
def test_a_policy_replaces_the_scheme_of_the_configuration(kind):
    model = build(kind)
    config = model.config.to_dict()
    config["rope_parameters"] = {**config["rope_parameters"], **LINEAR}
    twin = type(model)(type(model.config)(**config)).eval()
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(rw.patch(model, "linear:8")(IDS).logits, twin(IDS).logits, rtol=0, atol=2e-4)


@pytest.mark.parametrize("kind", ["llama linear", "gpt_neox", "qwen2"])
def test_gradients_of_the_weights(kind):
    model = build(kind)

    def gradients():
        model.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    theirs = gradients()
    rw.patch(model)
    for ours, original in zip(gradients(), theirs):
        torch.testing.assert_close(ours, original, rtol=1e-3, atol=2e-5)
    model.gradient_checkpointing_enable()
    model.train()
    for again, ours in zip(gradients(), theirs):
        torch.testing.assert_close(again, ours, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("policy", [None, "linear:8", "truncated:128", "power:0.5", "xpos:64"])
@pytest.mark.parametrize("kind", ["llama gqa", "gpt_neox"])
def test_token_by_token_with_a_cache_equals_the_whole_at_once(kind, policy):
    model = rw.patch(build(kind), policy)
    with torch.no_grad():
        whole = model(IDS).logits
        cache, parts = None, []
        for chunk in (IDS[:, :7], *IDS[:, 7:].split(1, dim=1)):
            step = model(chunk, past_key_values=cache, use_cache=True)
            cache, _ = step.past_key_values, parts.append(step.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=2e-4)


def test_generation_with_left_padding():
    model = build("llama gqa")
    prompt, mask = IDS[:, :12].clone(), torch.ones(2, 12, dtype=torch.long)
    prompt[1, :5], mask[1, :5] = 0, 0
    arguments = {"max_new_tokens": 20, "do_sample": False, "attention_mask": mask}
    expected = model.generate(prompt, **arguments)
    found = rw.patch(model).generate(prompt, **arguments)
    assert torch.equal(found, expected)
    alone = model.generate(prompt[1:, 5:], max_new_tokens=20, do_sample=False)
    assert torch.equal(alone[0, 7:], found[1, 12 : 12 + alone.shape[1] - 7])


def test_xpos_decays_with_the_distance_only():
    model = rw.patch(build("llama"), "xpos:64")
    with torch.no_grad():
        near = model(IDS, position_ids=torch.arange(40)[None]).logits
        far = model(IDS, position_ids=torch.arange(40)[None] + 900).logits
    torch.testing.assert_close(far, near, rtol=0, atol=5e-4)


def test_randomized_positions_are_drawn_anew_in_training_and_not_otherwise():
    model = rw.patch(build("llama"), "randomized:seed=3|linear:2")
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, model(IDS).logits)
        same = rw.patch(build("llama"), "linear:2")(IDS).logits
        assert torch.equal(model(IDS).logits, same)
        model.train()
        first, second = model(IDS).logits, model(IDS).logits
    assert not torch.equal(first, second)
    model.gradient_checkpointing_enable()
    model(IDS, labels=IDS).loss.backward()  # the forward that backward repeats sees the same draw
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_scheme_that_follows_the_length():
    model = build("llama")
    rw.patch(model, "dynamic:4,original_length=16")
    with torch.no_grad():
        long = model(IDS).logits
        fixed = rw.patch(rw.unpatch(model), f"ntk:{4 * 40 / 16 - 3}")(IDS).logits
    torch.testing.assert_close(long, fixed, rtol=0, atol=2e-5)


def test_compiled_without_a_graph_break():
    model = rw.patch(build("llama gqa"), "linear:8")
    with torch.no_grad():
        eager = model(IDS, use_cache=False).logits
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(IDS, use_cache=False).logits
    torch.testing.assert_close(compiled, eager, rtol=0, atol=2e-5)


def test_other_models_of_the_same_module_keep_their_rotation():
    patched, other = rw.patch(build("llama"), "linear:8"), build("llama")
    with torch.no_grad():
        expected = build("llama")(IDS).logits
        patched(IDS)
        assert torch.equal(other(IDS).logits, expected)


def test_what_patch_refuses():
    model = build("llama")
    with pytest.raises(rw.Error, match="unknown policy 'liner'"):
        rw.patch(model, "liner:8")
    assert rw.unpatch(model) is model and type(model.model.rotary_emb).__name__ == "LlamaRotaryEmbedding"
    rw.patch(model)
    with pytest.raises(rw.Error, match="already patched"):
        rw.patch(model)
    with pytest.raises(rw.Error, match="Linear has no rotary_emb"):
        rw.patch(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_contract_of_hub_kernels(dtype):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    torch.manual_seed(2)
    q, k = torch.randn(2, 4, 9, 32, dtype=dtype), torch.randn(2, 2, 9, 32, dtype=dtype)
    cos, sin = (t.to(dtype)[None] for t in rw.encoding("linear:8", 32).cos_sin(torch.arange(9), elementwise=True))
    tolerance = {"rtol": 0, "atol": 1e-6 if dtype == torch.float32 else 0.05}
    for ours, theirs in zip(rw.apply_rotary_transformers(q, k, cos, sin), apply_rotary_pos_emb(q, k, cos, sin)):
        torch.testing.assert_close(ours, theirs, **tolerance)
    moved = rw.apply_rotary_transformers(q.transpose(1, 2), k.transpose(1, 2), cos, sin, unsqueeze_dim=2)
    for ours, theirs in zip(moved, apply_rotary_pos_emb(q, k, cos, sin)):
        torch.testing.assert_close(ours.transpose(1, 2), theirs, **tolerance)
    with pytest.raises(rw.Error, match="unsqueeze_dim must be 1 or 2, got 3"):
        rw.apply_rotary_transformers(q, k, cos, sin, unsqueeze_dim=3)


def test_module():
    module = rw.RotaryEmbedding(64, "linear:8", base=5e5, layout="interleaved")
    q, k = torch.randn(5, 4, 64, requires_grad=True), torch.randn(5, 2, 64)
    ids = torch.tensor([4, 4, 0, 1, 2])
    expected = rw.rotate(q, k, encoding=rw.encoding("linear:8", 64, 5e5, layout="interleaved"), positions=ids)
    for ours, plain in zip(module(q, k, ids), expected):
        assert torch.equal(ours, plain)
    assert torch.equal(module(q, offset=3), rw.rotate(q, encoding=module.encoding, offset=3))
    assert not module.state_dict() and '"linear:8", head_dim=64' in repr(module)
    assert "rotary_offset=8" in repr(rw.RotaryEmbedding(64, rotary_offset=8))
    assert torch.equal(rw.RotaryEmbedding(64, module.encoding)(q), module(q))
    with pytest.raises(rw.Error, match=r"has head_dim 64.*got head_dim 32"):
        rw.RotaryEmbedding(32, module.encoding)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, ids)[0], expected[0])


@pytest.mark.parametrize("policy", ["linear:8", "randomized:64"])
def test_what_layers_are_given_moves_with_them(policy):
    """As Accelerate does where device_map spreads a model: whatever has to() is moved before each layer."""
    model, seen = build("llama"), []

    def move(layer, arguments, named):
        named["position_embeddings"] = tuple(one.to("cpu", non_blocking=True) for one in named["position_embeddings"])
        seen.append(named["position_embeddings"][0].to("meta"))
        return arguments, named

    rw.patch(model, policy).train()
    expected = model(IDS).logits
    for layer in model.model.layers:
        layer.register_forward_pre_hook(move, with_kwargs=True)
    model.model.rotary_emb.passes.zero_()
    assert torch.equal(model(IDS).logits, expected)
    assert all(one.positions is None or one.positions.is_meta for one in seen) and len(seen) == 3
