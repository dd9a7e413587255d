"""patch() on models that were cast, pickled, compiled or used before, and on those that it must refuse."""

import copy
import subprocess
import sys

import pytest
import ropewalk as rw
import torch
import transformers
from tiny_model import SHAPE
from torch._subclasses import FakeTensorMode

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = torch.randint(3, 97, (2, 40), generator=torch.Generator().manual_seed(1))
BASE = {"rope_theta": 10000.0, "original_max_position_embeddings": 16, "factor": 4.0}
ROPES = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "yarn": {"rope_type": "yarn", **BASE},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    "longrope": {
        "rope_type": "longrope",
        **BASE,
        "short_factor": [1.0 + j / 8 for j in range(8)],
        "long_factor": [3.0 + j for j in range(8)],
    },
}


def build(family="Llama", rope="default", **more):
    torch.manual_seed(5)
    shape = {**SHAPE, "rope_parameters": copy.deepcopy(ROPES[rope]), **more}  # which configurations write to
    if rope == "dynamic":
        shape["max_position_embeddings"] = 16
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**shape)).eval()
    for parameter in model.parameters():  # the default initialisation makes attention all but uniform
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.12)
    return model


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(ids, use_cache=False).logits


CASTS = {
    "bfloat16": lambda model: model.to(torch.bfloat16),
    "half": lambda model: model.half(),
    "bfloat16 and back": lambda model: model.bfloat16().float(),
    "half and back": lambda model: model.half().float(),
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("rope", ROPES)
def test_a_model_that_was_cast_turns_by_exact_frequencies(rope, cast):
    """.to(dtype) rounds inv_freq with the weights; the oracle is the same model with the weights alone rounded."""
    model = CASTS[cast](build(rope=rope))
    oracle = build(rope=rope)
    for held, rounded in zip(oracle.parameters(), model.parameters()):
        held.data = rounded.data
    # The angles are ours or theirs, rounded once to the type of the weights or not at all.
    tolerance = {torch.float32: 2e-4, torch.float16: 0.03, torch.bfloat16: 0.3}[model.dtype]
    torch.testing.assert_close(logits(rw.patch(model)), logits(oracle), rtol=0, atol=tolerance)


@pytest.mark.parametrize("cast", CASTS)
def test_a_model_that_was_cast_and_turns_otherwise_is_still_refused(cast):
    for factor in (-1, 1.01):
        model = build()
        model.model.rotary_emb.inv_freq.mul_(factor)
        with pytest.raises(rw.Error, match="LlamaRotaryEmbedding differs from"):
            rw.patch(CASTS[cast](model))


def test_frequencies_a_little_off_are_refused():
    """Half a step of bfloat16 is 0.4%: no excuse for numbers that have more bits."""
    model = build()
    model.model.rotary_emb.inv_freq.mul_(1.002)
    with pytest.raises(rw.Error, match="differs from default"):
        rw.patch(model)


@pytest.mark.parametrize(("base", "first"), [(1e6, 48), (1e7, 44), (1e7, 63)])
def test_slow_pairs_that_turn_otherwise_are_refused(base, first):
    """They hardly move within a few tokens, and by radians within the 131072 that these models take."""
    rope = {"rope_type": "default", "rope_theta": base}
    more = {"head_dim": 128, "max_position_embeddings": 131072, "rope_parameters": rope}
    for cast in (torch.float32, torch.bfloat16, torch.float16):
        rw.patch(build(**more).to(cast))
    model = build(**more)
    for held in (model.model.rotary_emb.inv_freq, model.model.rotary_emb.original_inv_freq):
        held[first:] *= 0.25
    with pytest.raises(rw.Error, match=r"differs from default .* at positions up to \d{4,}; "):
        rw.patch(model)


LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}
SOFTMAX = {"rope_type": "yarn", **BASE, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0}
SOFTMAX_POLICY = "yarn:40,original_length=16,mscale=1,mscale_all_dim=1"


def test_a_policy_with_another_softmax_factor_is_refused():
    """Attention modules took the factor into their scaling when they were made, which no rotation changes."""

    def latent(rope):
        return build("MiniCPM3", **LATENT, rope_parameters=copy.deepcopy(rope))

    own = latent(SOFTMAX)
    expected = logits(own)
    with pytest.raises(rw.Error, match=r"'default' has a softmax factor of 1, but .*MiniCPM3\w+ has 1.87385, which"):
        rw.patch(own, "default")
    assert torch.equal(logits(own), expected)
    torch.testing.assert_close(logits(rw.patch(own, SOFTMAX_POLICY)), expected, rtol=0, atol=2e-4)
    for model in (latent(ROPES["default"]), build()):
        with pytest.raises(rw.Error, match=r"has a softmax factor of 1.87385, but .*RotaryEmbedding has 1, which"):
            rw.patch(model, SOFTMAX_POLICY)
        rw.patch(model, "yarn:40,original_length=16")


def test_phimoe_takes_the_long_magnitude_beyond_its_original_length():
    """Equal lists: Transformers keeps the short one for PhiMoE, as the docstring of patch() says."""
    factors = [1.0 + j / 8 for j in range(8)]
    rope = {**ROPES["longrope"], "short_factor": factors, "long_factor": factors}
    rope |= {"short_mscale": 1.2, "long_mscale": 1.5}
    model = build("Phimoe", rope_parameters=rope, num_local_experts=2, num_experts_per_tok=1)
    lengths = 12, 16, 17, 40
    expected = [logits(model, IDS[:, :tokens]) for tokens in lengths]
    rotary = rw.patch(model).model.rotary_emb
    assert (rotary.short.attention_factor, rotary.long.attention_factor) == (1.2, 1.5)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    for tokens, theirs in zip(lengths, expected):
        for ours in (model, compiled):
            torch.testing.assert_close(logits(ours, IDS[:, :tokens].contiguous()), theirs, rtol=0, atol=2e-4)


def test_a_model_in_float64_is_refused():
    model = build().double()
    with pytest.raises(rw.Error, match=r"LlamaForCausalLM is in float64; patch\(\) supports float32"):
        rw.patch(model)
    assert logits(model).dtype == torch.float64  # unchanged


def test_a_model_pickled_whole_works_in_a_process_that_never_called_patch(tmp_path):
    model = rw.patch(build(), "linear:8")
    torch.save((model, IDS, logits(model)), tmp_path / "whole.pt")
    program = (
        "import sys, torch\n"
        "torch.set_num_threads(1)\n"
        "model, ids, expected = torch.load(sys.argv[1], weights_only=False)\n"
        "with torch.no_grad():\n"
        "    assert torch.equal(model(ids, use_cache=False).logits, expected)\n"
        "import ropewalk\n"
        "ropewalk.unpatch(model)(ids)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "whole.pt"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert torch.equal(logits(copy.deepcopy(model)), logits(model))


class Graphs:
    """A backend of torch.compile that counts the graphs it is given."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        from torch._dynamo.backends.debugging import aot_eager

        self.count += 1
        return aot_eager(graph, inputs)


FOLLOWING = {
    "longrope": ("Llama", "longrope", None, {}),
    "longrope, half of a head in pairs": (
        "Glm",
        "default",
        rw.LongRope([1.0] * 4, long_factor=[3.0, 4.0, 5.0, 6.0], factor=4, original_length=16),
        {"partial_rotary_factor": 0.5},
    ),
    "longrope beside truncated": (
        "Llama",
        "default",
        rw.LongRope([1.0] * 8, long_factor=[3.0] * 8, factor=4, original_length=16) | rw.Truncated(64),
        {},
    ),
    "dynamic": ("Llama", "dynamic", None, {}),
    "two that follow": (
        "Llama",
        "default",
        rw.LongRope([1.0] * 8, long_factor=[3.0] * 8, factor=4, original_length=16) | "dynamic:4,original_length=24",
        {},
    ),
}


@pytest.mark.parametrize("case", FOLLOWING)
def test_schemes_that_follow_the_length_compile_to_one_graph_for_all_lengths(case):
    family, rope, policy, more = FOLLOWING[case]
    torch._dynamo.reset()
    model, graphs = rw.patch(build(family, rope, **more), policy), Graphs()
    compiled = torch.compile(model, fullgraph=True, backend=graphs)
    for tokens in (12, 16, 17, 40, 9):
        ids = IDS[:, :tokens].contiguous()
        torch.testing.assert_close(logits(compiled, ids), logits(model, ids), rtol=0, atol=2e-5)
    assert graphs.count == 2  # the first length, and then any
    short, long = logits(model, IDS[:, :16]), logits(model, IDS)[:, :16]
    assert (short - long).abs().max() > 1e-3  # or there would be nothing to follow


def test_gradients_through_a_compiled_scheme_that_follows_the_length():
    torch._dynamo.reset()
    model = rw.patch(build(rope="longrope"))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")

    def gradients(one, ids):
        model.zero_grad()
        one(ids, labels=ids, use_cache=False).loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    for ours, eager in zip(gradients(compiled, IDS), gradients(model, IDS)):
        torch.testing.assert_close(ours, eager, rtol=1e-3, atol=2e-5)


def test_randomized_training_compiles_once_for_all_draws():
    torch._dynamo.reset()
    eager, graphs = rw.patch(build(), "randomized:seed=3|linear:2").train(), Graphs()
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend=graphs)
    steps = [(logits(compiled), logits(eager)) for _ in range(12)]
    for ours, same in steps:
        torch.testing.assert_close(ours, same, rtol=0, atol=2e-5)
    assert graphs.count == 1
    assert not torch.equal(steps[0][0], steps[1][0])
    twice = logits(rw.patch(build(), "randomized:seed=3").train(), IDS[:1].expand(2, -1))
    assert not torch.equal(twice[0], twice[1])  # every row of the batch draws its own, which the test above compares


def test_what_the_docstring_says_breaks_the_graph_still_works_without_fullgraph():
    torch._dynamo.reset()
    model = rw.patch(build(), "dynamic:4,original_length=16|xpos:64")
    compiled = torch.compile(model, backend="aot_eager")
    for tokens in (12, 40):
        ids = IDS[:, :tokens]
        torch.testing.assert_close(logits(compiled, ids), logits(model, ids), rtol=0, atol=2e-5)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_the_contract_of_hub_kernels_compiles_without_a_graph_break(backend):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(rw.apply_rotary_transformers, fullgraph=True, backend=backend)
    for tokens, head_dim in ((9, 16), (12, 16), (40, 16), (9, 32)):
        q, k = torch.randn(1, 4, tokens, head_dim), torch.randn(1, 2, tokens, head_dim)
        angles = rw.encoding("linear:8", head_dim).cos_sin(torch.arange(tokens), elementwise=True)
        cos, sin = (one[None] for one in angles)
        for ours, eager in zip(compiled(q, k, cos, sin), rw.apply_rotary_transformers(q, k, cos, sin)):
            assert torch.equal(ours, eager)
    compiles = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiles <= 3  # the first length, any length, the other head_dim


@pytest.mark.parametrize("family", ["GraniteSWA", "GraniteMoeSWA"])
@pytest.mark.parametrize("bases", [None, [10000.0, 500000.0], [10000.0, 0]])
def test_models_that_ask_their_rotary_module(family, bases):
    """They read rotary_emb.config, and have a module for every base."""
    more = {"num_local_experts": 2, "num_experts_per_tok": 1} if "Moe" in family else {}
    model = build(family, layer_rope_theta=bases, **more)
    expected = logits(model)
    rotary = rw.patch(model).model.rotary_embs[0]
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=2e-4)
    assert rotary.config is rotary.original.config
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rotary.nothing
    assert torch.equal(logits(rw.unpatch(model)), expected)


def test_three_positions_a_token_are_refused():
    with pytest.raises(rw.Error, match=r"'mrope:\[2,3,3\]' needs three positions per token, but LlamaRotaryEmbedding"):
        rw.patch(build(), "mrope:[2,3,3]")
    text = {**SHAPE, "rope_parameters": {**ROPES["default"], "mrope_section": [2, 3, 3]}}
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "deepstack_visual_indexes": [0]}
    for family in ("Qwen2VL", "Qwen3VL"):
        config = getattr(transformers, f"{family}Config")(
            text_config=copy.deepcopy(text), vision_config={**vision, "out_hidden_size": 64}
        )
        whole = getattr(transformers, f"{family}ForConditionalGeneration")(config)
        for model in (whole, whole.model.language_model):
            for policy in (None, "linear:8"):
                with pytest.raises(rw.Error, match=rf"{family}\w*RotaryEmbedding has M-RoPE; .*not support models"):
                    rw.patch(model, policy)


def test_patch_leaves_the_module_that_it_tries_as_it_is():
    model = build(rope="dynamic")
    logits(model)
    rotary = model.model.rotary_emb
    before = {name: one.clone() for name, one in rotary.named_buffers()}
    served = int(rotary.max_seq_len_cached)
    rw.patch(model)
    assert served == 40 == int(rotary.max_seq_len_cached)
    assert all(torch.equal(before[name], one) for name, one in rotary.named_buffers())


def test_dynamic_follows_the_length_at_hand():
    """Transformers keeps the frequencies of the longest sequence; the docstring of patch() says how ours differ."""
    model = build(rope="dynamic")
    fresh = logits(model, IDS[:, :20])
    logits(model)
    stale = logits(model, IDS[:, :20])
    assert (stale - fresh).abs().max() > 1e-3
    logits(rw.patch(model))
    torch.testing.assert_close(logits(model, IDS[:, :20]), fresh, rtol=0, atol=2e-4)


@pytest.mark.parametrize("rope", ["default", "dynamic"])
def test_a_default_device_does_not_matter(rope):
    model = build(rope=rope)
    expected = logits(model)
    torch.set_default_device("meta")
    try:
        rw.patch(model)
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=2e-4)


def test_one_module_under_two_names_is_replaced_under_both():
    model = build()
    rotary = model.model.rotary_emb
    model.model.again, model.elsewhere = rotary, rotary
    rw.patch(model)
    assert model.model.again is model.model.rotary_emb is model.elsewhere is not rotary
    rw.unpatch(model)
    assert model.model.again is model.model.rotary_emb is model.elsewhere is rotary


def test_the_message_for_a_function_of_another_shape():
    class OtherRotaryEmbedding(type(build().model.rotary_emb)):
        def forward(self, x, position_ids, layer_type=None):
            raise NotImplementedError

    OtherRotaryEmbedding.__module__ = "transformers.models.llama.modeling_llama"
    model = build()
    model.model.rotary_emb = OtherRotaryEmbedding(model.config)
    with pytest.raises(rw.Error, match="'layer_type'] and its module has an apply_rotary_pos_emb; patch"):
        rw.patch(model)


@pytest.mark.parametrize(("family", "more"), [("Llama", {}), ("Phi", {"partial_rotary_factor": 0.5})])
def test_a_model_without_numbers_is_tried_as_it_will_be(family, more):
    """Phi hands over the part of a head that turns, which no configuration says."""
    full = build(family, **more)
    with torch.device("meta"):
        model = type(full)(full.config).eval()
    kind = type(model.model.rotary_emb)
    rw.patch(model).to_empty(device="cpu").load_state_dict(full.state_dict())
    torch.testing.assert_close(logits(model), logits(full), rtol=0, atol=2e-4)

    class BackwardRotaryEmbedding(kind):
        def forward(self, x, position_ids):
            return super().forward(x, -position_ids)

    BackwardRotaryEmbedding.__module__ = kind.__module__
    with torch.device("meta"):
        model.model.rotary_emb = BackwardRotaryEmbedding(full.config)
    with pytest.raises(rw.Error, match="BackwardRotaryEmbedding differs from"):
        rw.patch(model)


def test_a_fake_model_is_refused():
    with FakeTensorMode(), pytest.raises(rw.Error, match="LlamaRotaryEmbedding is fake; call"):
        rw.patch(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpoint_that_would_draw_other_positions_in_backward_is_refused(use_reentrant):
    model = rw.patch(build(), "randomized:seed=3").train()
    weights = model.get_input_embeddings().weight

    def loss(weights):
        return torch.func.functional_call(model, {"model.embed_tokens.weight": weights}, (IDS,)).logits.sum()

    done = torch.utils.checkpoint.checkpoint(loss, weights, use_reentrant=use_reentrant)
    with pytest.raises(rw.Error, match=r"a checkpoint repeats rotary_emb in backward, .* checkpoint layers only"):
        done.backward()
    model.eval()
    torch.utils.checkpoint.checkpoint(loss, weights, use_reentrant=use_reentrant).backward()
