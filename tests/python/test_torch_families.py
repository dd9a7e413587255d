"""patch() on one small model with random weights of each kind: forward, backward, and the cache."""

import pytest
import ropewalk as rw
import torch
import transformers
from tiny_model import SHAPE

pytestmark = pytest.mark.usefixtures("one_thread")

# What sets each apart: GPT-NeoX and GLM turn part of a head, Cohere and GLM pairs of neighbours, Phi and StableLM cut
# that part out beforehand, Phi-3 keeps q, k and v in one projection, Gemma scales its queries, Qwen3 and OLMo-2
# normalise queries and keys before the rotation.
FAMILIES = {
    "Cohere": {},
    "Gemma2": {"sliding_window": 16},
    "Glm": {"partial_rotary_factor": 0.5},
    "GPTNeoX": {"rotary_pct": 0.25},
    "Mistral": {"sliding_window": 16},
    "Olmo2": {},
    "Phi": {"partial_rotary_factor": 0.5},
    "Phi3": {},
    "Qwen2": {},
    "Qwen3": {},
    "StableLm": {"partial_rotary_factor": 0.25},
}
IDS = torch.randint(3, 97, (2, 24), generator=torch.Generator().manual_seed(1))


def build(family):
    torch.manual_seed(5)
    config = getattr(transformers, f"{family}Config")(**SHAPE, **FAMILIES[family])
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for parameter in model.parameters():  # the default initialisation makes attention all but uniform
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.12)
    return model


def forward_and_backward(model):
    model.zero_grad()
    done = model(IDS, labels=IDS)
    done.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return done.logits.detach(), gradients


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_backward_and_generate_are_those_of_the_family(family):
    model = build(family)
    greedy = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": -1}
    logits, gradients = forward_and_backward(model)
    tokens = model.generate(IDS[:, :9], **greedy)
    assert rw.patch(model) is model
    ours, our_gradients = forward_and_backward(model)
    assert not torch.equal(ours, logits)  # some last bits differ: it is our rotation that ran
    torch.testing.assert_close(ours, logits, rtol=0, atol=2e-4)
    assert our_gradients.keys() == gradients.keys()
    for name, expected in gradients.items():
        torch.testing.assert_close(our_gradients[name], expected, rtol=1e-3, atol=2e-5, msg=name)
    assert torch.equal(model.generate(IDS[:, :9], **greedy), tokens)
    with torch.no_grad():
        prefill = model(tokens).logits
        assert torch.equal(prefill[:, 8:-1].argmax(-1), tokens[:, 9:])  # token by token is the whole at once
        assert torch.equal(rw.unpatch(model)(IDS).logits, logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_policy_is_felt(family):
    model = build(family)
    with torch.no_grad():
        plain, scaled = model(IDS).logits, rw.patch(model, "linear:8")(IDS).logits
    assert (plain - scaled).abs().max() > 0.02 * plain.abs().max()


@pytest.mark.parametrize(
    ("policy", "scheme"),
    [
        (rw.DynamicNtk(4, original_length=16), {"rope_type": "dynamic", "factor": 4.0}),
        (
            rw.LongRope([1.0] * 8, long_factor=[3.0] * 8, factor=4, original_length=16),
            {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [3.0] * 8, "factor": 4.0},
        ),
    ],
)
def test_schemes_that_follow_the_length_leave_the_cache_as_it_is(policy, scheme):
    """As in Transformers: beyond the original length new tokens turn otherwise, and cached keys are not turned."""
    parameters = {**scheme, "rope_theta": 10000.0, "original_max_position_embeddings": 16}
    shape = {**SHAPE, "max_position_embeddings": 16 if scheme["rope_type"] == "dynamic" else 64}
    torch.manual_seed(5)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, rope_parameters=parameters)).eval()

    def with_a_cache():
        first = model(IDS[:, :12], use_cache=True)
        second = model(IDS[:, 12:], past_key_values=first.past_key_values, use_cache=True)
        return torch.cat((first.logits, second.logits), 1)

    with torch.no_grad():
        theirs, at_once = with_a_cache(), model(IDS).logits
        rw.patch(model, policy)
        ours = with_a_cache()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)
        torch.testing.assert_close(model(IDS).logits, at_once, rtol=0, atol=2e-4)
    assert (theirs - at_once).abs().max() > 1e-3  # which is why the cache matters


def test_a_model_that_turns_otherwise_is_refused():
    """NanoChat rotates backwards, which its configuration does not say: patched, it would be wrong in silence."""
    torch.manual_seed(5)
    model = transformers.NanoChatForCausalLM(transformers.NanoChatConfig(**SHAPE)).eval()
    with torch.no_grad():
        before = model(IDS).logits
        with pytest.raises(rw.Error, match="model_type 'nanochat' rotates backwards"):
            rw.patch(model)
        assert torch.equal(model(IDS).logits, before)
