"""patch() on models that are cast, pickled, compiled or on the meta device, and the models that it refuses."""

import copy
import sys
import types
import warnings

import pytest
import ropewalk as rw
import torch
from checks import run_python
from tiny_model import IDS, ORIGINAL, ROPES, SHAPE, assert_same_gradients, build, gradients, logits, transformers
from torch._subclasses import FakeTensorMode
from transformers.models.llama import modeling_llama

pytestmark = pytest.mark.usefixtures("one_thread")


def refuses(message, *arguments):
    """patch() raises an error with a matching message."""
    with pytest.raises(rw.Error, match=message):
        rw.patch(*arguments)


CASTS = {
    "bfloat16": lambda model: model.to(torch.bfloat16),
    "half": lambda model: model.half(),
    "bfloat16 and back": lambda model: model.bfloat16().float(),
    "half and back": lambda model: model.half().float(),
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("rope", ["default", "yarn", "dynamic", "longrope"])
def test_a_cast_model_rotates_by_exact_frequencies(rope, cast):
    """`to(dtype)` rounds inv_freq with the weights. The oracle is the same model with only the weights rounded."""
    model = CASTS[cast](build(rope=rope))
    oracle = build(rope=rope)
    for held, rounded in zip(oracle.parameters(), model.parameters()):
        held.data = rounded.data
    # The angles of either model are rounded to the type of the weights once or not at all.
    tolerance = {torch.float32: 2e-4, torch.float16: 0.03, torch.bfloat16: 0.3}[model.dtype]
    torch.testing.assert_close(logits(rw.patch(model)), logits(oracle), rtol=0, atol=tolerance)


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("factor", [-1, 1.01])
def test_a_cast_model_with_other_frequencies_is_refused(factor, cast):
    model = build()
    model.model.rotary_emb.inv_freq.mul_(factor)
    refuses("LlamaRotaryEmbedding differs from", CASTS[cast](model))


def test_slightly_different_frequencies_are_refused():
    """Half a step of bfloat16 is 0.4 %, but float32 frequencies must be more exact."""
    model = build()
    model.model.rotary_emb.inv_freq.mul_(1.002)
    refuses("differs from default", model)


@pytest.mark.parametrize(("base", "first"), [(1e6, 48), (1e7, 44), (1e7, 63)])
def test_different_frequencies_of_slow_pairs_are_refused(base, first):
    """Slow pairs differ little within a few tokens, and by radians within the 131072 tokens of these models."""
    rope = {"rope_type": "default", "rope_theta": base}
    config = {"head_dim": 128, "max_position_embeddings": 131072, "rope_parameters": rope}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        rw.patch(build(**config).to(dtype))
    model = build(**config)
    for inv_freq in (model.model.rotary_emb.inv_freq, model.model.rotary_emb.original_inv_freq):
        inv_freq[first:] *= 0.25
    refuses(r"differs from default .* at positions up to \d{4,}; ", model)


LATENT = {
    **{"num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16},
    **{"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16},
}
SOFTMAX = {"rope_type": "yarn", **ORIGINAL, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0}
SOFTMAX_POLICY = "yarn:40,original_length=16,mscale=1,mscale_all_dim=1"


def test_a_policy_with_another_softmax_factor_is_refused():
    """Attention modules multiply the factor into their scale on construction, where patch() cannot change it."""

    def latent(rope):
        return build("MiniCPM3", **LATENT, rope_parameters=copy.deepcopy(rope))

    own = latent(SOFTMAX)
    expected = logits(own)
    refuses(r"'default' has a softmax factor of 1, but .*MiniCPM3\w+ has 1.87385, which", own, "default")
    assert torch.equal(logits(own), expected)
    torch.testing.assert_close(logits(rw.patch(own, SOFTMAX_POLICY)), expected, rtol=0, atol=2e-4)
    for model in (latent(ROPES["default"]), build()):
        refuses(r"has a softmax factor of 1.87385, but .*RotaryEmbedding has 1, which", model, SOFTMAX_POLICY)
        rw.patch(model, "yarn:40,original_length=16")


def test_phimoe_uses_the_long_magnitude_above_its_original_length():
    """The lists are equal because Transformers always uses the short one, see the docstring of patch()."""
    factors = [1.0 + j / 8 for j in range(8)]
    rope = {**ROPES["longrope"], "short_factor": factors, "long_factor": factors}
    rope |= {"short_mscale": 1.2, "long_mscale": 1.5}
    model = build("Phimoe", rope_parameters=rope, num_local_experts=2, num_experts_per_tok=1)
    lengths = 12, 16, 17, 40
    expected = [logits(model, IDS[:, :tokens]) for tokens in lengths]
    rotary = rw.patch(model).model.rotary_emb
    schedule = rotary.schedules[None]
    assert (schedule.short.attention_factor, schedule.long.attention_factor) == (1.2, 1.5)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    for tokens, theirs in zip(lengths, expected):
        for ours in (model, compiled):
            torch.testing.assert_close(logits(ours, IDS[:, :tokens].contiguous()), theirs, rtol=0, atol=2e-4)


@pytest.mark.parametrize("rope", ["default", "dynamic"])
def test_a_model_in_float64(rope):
    """Transformers has angles in float32, which the tolerance allows for."""
    model, single = build(rope=rope).double(), rw.patch(build(rope=rope))
    expected, expected_gradients = logits(model), gradients(model)
    assert logits(rw.patch(model)).dtype == torch.float64
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=2e-5)
    assert_same_gradients(gradients(model), expected_gradients)
    assert (logits(single) - logits(model)).abs().max() < 1e-5


def test_a_pickled_model_works_in_a_process_without_patch(tmp_path):
    model = rw.patch(build(), "linear:8")
    torch.save((model, IDS, logits(model)), tmp_path / "whole.pt")
    program = """
import sys, torch
torch.set_num_threads(1)
model, ids, expected = torch.load(sys.argv[1], weights_only=False)
with torch.no_grad():
    assert torch.equal(model(ids, use_cache=False).logits, expected)
import ropewalk
ropewalk.unpatch(model)(ids)
"""
    run_python(program, tmp_path / "whole.pt")
    assert torch.equal(logits(copy.deepcopy(model)), logits(model))


class Graphs:
    """A backend of torch.compile that counts its graphs."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        from torch._dynamo.backends.debugging import aot_eager

        self.count += 1
        return aot_eager(graph, inputs)


LONG_ROPE = rw.LongRope([1.0] * 8, long_factor=[3.0] * 8, factor=4, original_length=16)
HALF_LONG_ROPE = rw.LongRope([1.0] * 4, long_factor=[3.0, 4.0, 5.0, 6.0], factor=4, original_length=16)
LENGTH_DEPENDENT = {
    "longrope": ("Llama", "longrope", None, {}),
    "longrope, half of a head, interleaved": ("Glm", "default", HALF_LONG_ROPE, {"partial_rotary_factor": 0.5}),
    "longrope and truncated": ("Llama", "default", LONG_ROPE | rw.Truncated(64), {}),
    "dynamic": ("Llama", "dynamic", None, {}),
    "longrope and dynamic": ("Llama", "default", LONG_ROPE | "dynamic:4,original_length=24", {}),
}


@pytest.mark.parametrize("case", LENGTH_DEPENDENT)
def test_length_dependent_policies_compile_to_one_graph_for_all_lengths(case):
    family, rope, policy, config = LENGTH_DEPENDENT[case]
    torch._dynamo.reset()
    model, graphs = rw.patch(build(family, rope, **config), policy), Graphs()
    compiled = torch.compile(model, fullgraph=True, backend=graphs)
    for tokens in (12, 16, 17, 40, 9):
        ids = IDS[:, :tokens].contiguous()
        torch.testing.assert_close(logits(compiled, ids), logits(model, ids), rtol=0, atol=2e-5)
    assert graphs.count == 2  # one for the first length, one for all others
    short, long = logits(model, IDS[:, :16]), logits(model, IDS)[:, :16]
    assert (short - long).abs().max() > 1e-3  # the frequencies depend on the length


def test_gradients_of_a_compiled_length_dependent_policy():
    torch._dynamo.reset()
    model = rw.patch(build(rope="longrope"))
    eager = gradients(model)
    model.compile(fullgraph=True, backend="aot_eager")
    assert_same_gradients(gradients(model), eager)


def test_randomized_training_compiles_to_one_graph():
    torch._dynamo.reset()
    eager, graphs = rw.patch(build(), "randomized:seed=3|linear:2").train(), Graphs()
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend=graphs)
    steps = [(logits(compiled), logits(eager)) for _ in range(12)]
    for ours, same in steps:
        torch.testing.assert_close(ours, same, rtol=0, atol=2e-5)
    assert graphs.count == 1
    assert not torch.equal(steps[0][0], steps[1][0])
    twice = logits(rw.patch(build(), "randomized:seed=3").train(), IDS[:1].expand(2, -1))
    assert not torch.equal(twice[0], twice[1])  # each row of the batch has a draw of its own


def test_policies_that_break_the_graph_work_without_fullgraph():
    torch._dynamo.reset()
    model = rw.patch(build(), "dynamic:4,original_length=16|xpos:64")
    compiled = torch.compile(model, backend="aot_eager")
    for tokens in (12, 40):
        ids = IDS[:, :tokens]
        torch.testing.assert_close(logits(compiled, ids), logits(model, ids), rtol=0, atol=2e-5)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_apply_rotary_transformers_compiles_without_a_graph_break(backend):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(rw.apply_rotary_transformers, fullgraph=True, backend=backend)
    for tokens, head_dim in ((9, 16), (12, 16), (40, 16), (9, 32)):
        q, k = torch.randn(1, 4, tokens, head_dim), torch.randn(1, 2, tokens, head_dim)
        angles = rw.encoding("linear:8", head_dim).cos_sin(torch.arange(tokens), elementwise=True)
        cos, sin = (x[None] for x in angles)
        for ours, eager in zip(compiled(q, k, cos, sin), rw.apply_rotary_transformers(q, k, cos, sin)):
            assert torch.equal(ours, eager)
    compiles = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiles <= 3  # the first length, other lengths, the other head_dim


@pytest.mark.parametrize("family", ["GraniteSWA", "GraniteMoeSWA"])
@pytest.mark.parametrize("bases", [None, [10000.0, 500000.0], [10000.0, 0]])
def test_models_that_read_their_rotary_module(family, bases):
    """They read rotary_emb.config, and have one module per base."""
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1} if "Moe" in family else {}
    model = build(family, layer_rope_theta=bases, **experts)
    expected = logits(model)
    rotary = rw.patch(model).model.rotary_embs[0]
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=2e-4)
    assert rotary.config is rotary.original.config
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rotary.nothing
    assert torch.equal(logits(rw.unpatch(model)), expected)


def test_a_policy_with_three_positions_per_token_is_refused():
    refuses(r"'mrope:\[2,3,3\]' needs three positions per token, but LlamaRotaryEmbedding", build(), "mrope:[2,3,3]")


def test_patch_does_not_change_the_original_module():
    model = build(rope="dynamic")
    logits(model)
    rotary = model.model.rotary_emb
    before = {name: x.clone() for name, x in rotary.named_buffers()}
    longest = int(rotary.max_seq_len_cached)
    rw.patch(model)
    assert longest == 40 == int(rotary.max_seq_len_cached)
    assert all(torch.equal(before[name], x) for name, x in rotary.named_buffers())


def test_dynamic_follows_the_current_length():
    """Transformers keeps the frequencies of the longest sequence, see the docstring of patch()."""
    model = build(rope="dynamic")
    fresh = logits(model, IDS[:, :20])
    logits(model)
    stale = logits(model, IDS[:, :20])
    assert (stale - fresh).abs().max() > 1e-3
    logits(rw.patch(model))
    torch.testing.assert_close(logits(model, IDS[:, :20]), fresh, rtol=0, atol=2e-4)


@pytest.mark.parametrize("rope", ["default", "dynamic"])
def test_patch_ignores_the_default_device(rope):
    model = build(rope=rope)
    expected = logits(model)
    torch.set_default_device("meta")
    try:
        rw.patch(model)
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=2e-4)


def test_a_module_with_several_names_is_replaced_under_each():
    model = build()
    rotary = model.model.rotary_emb
    model.model.again, model.elsewhere = rotary, rotary
    rw.patch(model)
    assert model.model.again is model.model.rotary_emb is model.elsewhere is not rotary
    rw.unpatch(model)
    assert model.model.again is model.model.rotary_emb is model.elsewhere is rotary


def subclass_of(kind, name="OtherRotaryEmbedding", **members):
    """A rotary embedding that appears to be in the module of Transformers."""
    return type(name, (kind,), {"__module__": kind.__module__, **members})


def fails(self, x, position_ids, layer_type=None):
    raise NotImplementedError("no tables")


def takes_a_length(self, x, seq_len=None):
    return None


def returns_one(self, x, position_ids):
    return x.new_ones(*position_ids.shape, 16)


def two_axes(self, x, position_ids):
    first, second = position_ids.expand(2, -1, -1)[..., None].float()
    angles = torch.cat((first * self.inv_freq, second * self.inv_freq), -1)
    return angles.cos(), angles.sin()


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (fails, r"fails in the trial of its rotation: NotImplementedError: no tables; patch\(\) does not"),
        (
            takes_a_length,
            r"takes \['x', 'seq_len'\]; patch\(\) supports rotary modules that take \['x', 'position_ids'",
        ),
        (returns_one, r"returns 1 tables; patch\(\) supports cos and sin, or freqs_cis"),
        (two_axes, r"takes 2 positions per token, but from_config\(\) reads one"),
    ],
)
def test_a_rotary_module_of_another_kind_is_refused(forward, message):
    model = build()
    model.model.rotary_emb = subclass_of(type(model.model.rotary_emb), forward=forward)(model.config)
    refuses(message, model)


def test_a_model_without_a_rotation_function_is_refused():
    """Its rotary module has tables, but no class of its modules can call a function that takes them."""

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rotary_emb = type("TableRotaryEmbedding", (torch.nn.Module,), {"forward": returns_one})()

    refuses("no function of Attention takes heads, cos and sin; patch", Attention())


@pytest.mark.parametrize(
    ("family", "head", "config", "message"),
    [
        ("GPT2", "LMHeadModel", {}, "GPT2LMHeadModel has no rotary_emb that patch"),
        ("RoFormer", "Model", {}, "RoFormerModel rotates in its attention modules, without a rotary_emb; patch"),
        ("PixtralVision", "Model", {"image_size": 16, "patch_size": 4}, r"rotary embeddings in towers only \(Pixtral"),
        (
            "Falcon",
            "ForCausalLM",
            {"head_dim": None, "alibi": True},
            "alibi is true: the model has no rotary",
        ),
        ("Lfm3", "ForCausalLM", {"layer_types": ["conv", "conv"]}, "no layer type of Lfm3RotaryEmbedding rotates"),
    ],
)
def test_models_without_rotary_embeddings_are_refused(family, head, config, message):
    refuses(message, build(family, None, head=head, num_key_value_heads=None, **config))


def module_of(source, name):
    """An importable module, as remote code is."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(source, module.__dict__)
    return module


HANDMADE = """
import torch
from transformers.models.llama.modeling_llama import LlamaAttention, apply_rotary_pos_emb

class Attention(LlamaAttention):
    def forward(self, hidden_states, position_embeddings=None, **rest):
        cos, sin = position_embeddings
        q = self.q_proj(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        return self.handmade(q, cos, sin), None

class Importing(LlamaAttention):
    def forward(self, hidden_states, position_embeddings=None, **rest):
        q, k, v = (p(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
                   for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).flatten(2)), None
"""
OPERATIONS = {
    "unsqueeze": lambda q, cos, sin: q * cos.unsqueeze(1),
    "mul": lambda q, cos, sin: q * cos,
    "an operator": lambda q, cos, sin: cos * q,
    "cat": lambda q, cos, sin: torch.cat([cos, cos], -1),
    r"\[\]": lambda q, cos, sin: cos[..., :4],
    "shape": lambda q, cos, sin: cos.shape[-1],
    "add": lambda q, cos, sin: q + cos.float(),
    "-": lambda q, cos, sin: modeling_llama.apply_rotary_pos_emb(q, q, -cos, sin),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_attention_that_uses_cos_and_sin_itself_is_told_what_to_do(operation):
    model = build()
    attention = module_of(HANDMADE, "handmade_attention").Attention
    attention.handmade = staticmethod(OPERATIONS[operation])
    for layer in model.model.layers:
        layer.self_attn.__class__ = attention
    rw.patch(model)
    message = (
        rf"LlamaRotaryEmbedding is patched .* attention of this model \(Attention\) uses cos and sin itself "
        rf"\('{operation}'\) instead of .*apply_rotary_pos_emb\(\); call rw.unpatch\(model\)"
    )
    with pytest.raises(rw.Error, match=message):
        logits(model)


def test_functions_that_another_module_imported_are_wrapped_there_too():
    model = build()
    module = module_of(HANDMADE, "importing_attention")
    original = module.apply_rotary_pos_emb
    module.apply_rotary_pos_emb = getattr(original, "ropewalk_original", original)  # as imported before any patch()
    for layer in model.model.layers:
        layer.self_attn.__class__ = module.Importing
    expected = logits(model)
    assert not torch.equal(logits(rw.patch(model)), expected)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=2e-5)


OTHER_FUNCTION = """
import torch
from transformers.models.llama import modeling_llama as llama

def rotate(q, k, cos, sin, position_ids=None, scale=1.0):
    cos, sin = cos[:, None], sin[:, None]
    q, k = llama.rotate_half(q) * sin + q * cos, llama.rotate_half(k) * sin + k * cos
    return q * scale, k * scale

def indexed(q, k, cos, sin, position_ids):
    return rotate(q, k, cos[position_ids], sin[position_ids])

class Attention(llama.LlamaAttention):
    pass
"""


def test_an_argument_that_the_trial_did_not_cover_is_refused():
    module = module_of(OTHER_FUNCTION, "other_function")
    model = build()
    model.model.layers[0].self_attn.__class__ = module.Attention
    cos, sin = rw.patch(model).model.rotary_emb(torch.zeros(1), torch.arange(4)[None])
    q, k = torch.randn(2, 1, 2, 4, 16, generator=torch.Generator().manual_seed(0))
    expected = modeling_llama.apply_rotary_pos_emb(q, k, cos, sin)
    for ours, same in zip(module.rotate(q, k, cos, sin, torch.arange(4)[None]), expected):
        assert torch.equal(ours, same)
    with pytest.raises(rw.Error, match=r"uses cos and sin itself \('other_function.rotate\(scale=\)'\)"):
        module.rotate(q, k, cos, sin, scale=2.0)
    with pytest.raises(rw.Error, match=r"uses cos and sin itself"):
        module.indexed(q, k, cos, sin, torch.arange(4)[None])


def test_heads_of_another_width_are_refused():
    model = build()
    cos, _ = rw.patch(model).model.rotary_emb(torch.zeros(1), torch.arange(4)[None])
    with pytest.raises(
        rw.Error, match=r"did not cover .*apply_rotary_pos_emb\(\) for heads of 8 elements; call rw.unp"
    ):
        modeling_llama.apply_rotary_pos_emb(torch.zeros(1, 2, 4, 8), torch.zeros(1, 2, 4, 8), cos, cos)


def test_a_conversion_leaves_positions_as_they_are():
    positions = torch.arange(4)[None]
    cos, _ = rw.patch(build()).model.rotary_emb(torch.zeros(1), positions)
    for same in (
        cos.to(torch.float32),
        cos.float(),
        cos.bfloat16(),
        cos.to("cpu", torch.float16),
        cos.to(torch.ones(1)),
    ):
        assert torch.equal(same.positions, positions) and same.positions.dtype == torch.int64
    assert cos.to("meta").positions.is_meta
    assert not hasattr(cos, "shape") and isinstance(cos, type(copy.deepcopy(cos)))


TWO_TYPES = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}


def expressions(model):
    return {key: schedule.encoding.expression for key, schedule in model.model.rotary_emb.schedules.items()}


def test_a_policy_changes_full_attention_and_a_dict_any_layer_type():
    def patched(policy):
        return rw.patch(build("Gemma3", None, **TWO_TYPES), policy)

    assert expressions(patched("linear:2")) == {"full_attention": "linear:2", "sliding_attention": "default"}
    both = {"full_attention": "linear:2", "sliding_attention": rw.Linear(4)}
    assert expressions(patched(both)) == {"full_attention": "linear:2", "sliding_attention": "linear:4"}
    sliding = {"sliding_attention": "linear:4"}
    assert expressions(patched(sliding)) == {"full_attention": "default", "sliding_attention": "linear:4"}
    twin = build("Gemma3", None, **TWO_TYPES, rope_parameters=patched(both).config.rope_parameters)
    torch.testing.assert_close(logits(patched(both)), logits(twin), rtol=0, atol=2e-5)
    assert (logits(patched(both)) - logits(patched("linear:2"))).abs().max() > 1e-3


def test_errors_of_policies_by_layer_type():
    gemma = build("Gemma3", None, **TWO_TYPES)
    refuses(
        r"policy has the layer types \['full'\], but Gemma3RotaryEmbedding has \['full_attention', 'sliding_att",
        *(gemma, {"full": "linear:2"}),
    )
    refuses("but LlamaRotaryEmbedding has one encoding for all layers; pass one policy", build(), {"a": "linear:2"})
    local = build("Gemma3", None, **{**TWO_TYPES, "layer_types": ["sliding_attention"] * 2})
    refuses(
        r"changes the layers with full attention, but .* such as \{'sliding_attention': 'linear:2'\}", local, "linear:2"
    )
    assert expressions(rw.patch(local, {"sliding_attention": "linear:2"})) == {"sliding_attention": "linear:2"}
    with pytest.raises(rw.Error, match=r"has layer types .*, got 'chunked'"):
        local.model.rotary_emb(torch.zeros(1), torch.arange(4)[None], "chunked")


def saved_and_loaded(model, folder):
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder).eval()


SAVED = [
    "linear:8",
    "yarn:4,original_length=16",
    "dynamic:4,original_length=16",
    "llama3:4,original_length=16",
    "ntk:4",
]
SAVED += ["power:0.5", "linear:2|truncated:64", LONG_ROPE, "default"]
SAVED_MODELS = {
    "Llama": ("Llama", "linear", {}),
    "Glm": ("Glm", None, {"partial_rotary_factor": 0.5}),
    "Gemma3": ("Gemma3", None, TWO_TYPES),
}


@pytest.mark.parametrize("policy", SAVED, ids=str)
def test_a_saved_model_has_the_policy(policy, tmp_path):
    family, rope, config = SAVED_MODELS["Gemma3" if policy == "linear:8" else "Llama"]
    model = build(family, rope, **config)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        loaded = saved_and_loaded(rw.patch(model, policy), tmp_path)
    assert not [x for x in seen if "ropewalk" in str(x.message)]
    assert type(loaded.model.rotary_emb).__name__ == f"{family}RotaryEmbedding"
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", SAVED_MODELS)
def test_unpatch_restores_the_configuration(name):
    """Other models may have the same configuration object, which patch() leaves as it is."""
    family, rope, config = SAVED_MODELS[name]
    model = build(family, rope, **config)
    shared, before = model.config, model.config.to_dict()
    rw.patch(model, "linear:3")
    assert shared.to_dict() == before and model.config.to_dict() != before
    assert model.config is model.model.config is model.model.layers[0].self_attn.config
    assert (
        rw.from_config(model.config, layer_type="full_attention" if name == "Gemma3" else None).expression == "linear:3"
    )
    rw.unpatch(copy.deepcopy(model))
    assert model.config.to_dict() != before
    rw.unpatch(model)
    assert model.config.to_dict() == before and model.model.rotary_emb.config is model.config
    rw.patch(model)
    assert model.config.to_dict() == before


@pytest.mark.parametrize(
    ("family", "policy", "reason"),
    [
        ("Llama", "xpos:64", "'xpos:64' has magnitudes that depend on the position"),
        ("Llama", "randomized:seed=3", "'randomized:seed=3' draws positions in training"),
        ("GPTJ", "linear:8", "GPTJConfig has no rope_parameters"),
        ("GraniteSWA", "linear:8", "GraniteSWAConfig that is not in the one of the model"),
        ("Ministral3", "yarn:4,original_length=16", "llama_4_scaling_beta of the attention depends on original_max"),
    ],
)
def test_saving_warns_of_a_policy_that_the_configuration_does_not_have(family, policy, reason, tmp_path):
    model = build(family, None, rotary_dim=8 if family == "GPTJ" else None)
    plain = logits(model)
    rw.patch(model, policy)
    with pytest.warns(UserWarning, match=f"{reason}.*; patch the model again once it is loaded"):
        loaded = saved_and_loaded(copy.deepcopy(model), tmp_path)
    torch.testing.assert_close(logits(loaded), plain, rtol=0, atol=2e-5)
    torch.testing.assert_close(logits(rw.patch(loaded, policy)), logits(model), rtol=0, atol=2e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rw.unpatch(model).save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "policy", "rope_type"),
    [
        ("Qwen2VL", "linear:8", "linear"),  # keeps mrope_section
        ("deepseek_v4", "linear:8", "linear"),  # of the last elements of a head
        ("gemma4_text", "linear:8", "proportional"),
        ("ministral3", "linear:8", "linear"),  # its attention reads other keys of the section
        ("phi3", "linear:8", "longrope"),
        ("phi3", "yarn:4,original_length=16", "longrope"),
    ],
)
def test_policies_are_saved_in_the_form_that_the_model_reads(name, policy, rope_type, tmp_path):
    from patched_models import logits_of, tiny

    model = tiny(name)
    plain = logits_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = saved_and_loaded(rw.patch(model, policy), tmp_path)
    assert (logits_of(model) - plain).abs().max() > 1e-3
    torch.testing.assert_close(logits_of(loaded), logits_of(model), rtol=0, atol=2e-5)
    sections = loaded.config.get_text_config().rope_parameters
    sections = sections if "rope_type" not in sections else {"all": sections}
    assert rope_type in [section["rope_type"] for section in sections.values()]


@pytest.mark.parametrize("policy", [None, "linear:8"])
def test_the_keys_of_the_state_stay_the_same(policy):
    """Older models and remote code have a persistent inv_freq."""
    model = build()
    model.model.rotary_emb._non_persistent_buffers_set.discard("inv_freq")
    state = {key: value.clone() for key, value in model.state_dict().items()}
    assert "model.rotary_emb.inv_freq" in state
    rw.patch(model, policy)
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state, strict=True)
    saved = model.state_dict()
    twin = copy.deepcopy(model).model.rotary_emb
    assert twin.original.inv_freq is twin.inv_freq is not model.model.rotary_emb.inv_freq
    rw.unpatch(model).load_state_dict(saved, strict=True)
    assert rw.patch(model, policy).to("meta").model.rotary_emb.original.inv_freq.is_meta


@pytest.mark.parametrize(("family", "rope"), [("Llama", "default"), ("Llama", "dynamic"), ("Gemma3", None)])
def test_a_decode_loop_with_a_static_cache_compiles_once(family, rope):
    """The cache of sliding layers has an integer for which Transformers compiles every step, patched or not."""
    torch._dynamo.reset()
    model = rw.patch(build(family, rope, layer_types=["full_attention"] * 2 if family == "Gemma3" else None))
    graphs = Graphs()
    compiled = torch.compile(model, fullgraph=True, backend=graphs, dynamic=False)

    def decode(step):
        cache, steps = transformers.StaticCache(config=model.config, max_cache_len=80), []
        with torch.no_grad():
            model(IDS[:1, :8], cache=cache, use_cache=True)
            for position in range(8, 72):
                ids = IDS[:1, position % 40, None]
                positions = torch.tensor([[position]])
                steps.append(step(ids, cache=cache, use_cache=True, position_ids=positions).logits)
        return torch.cat(steps, 1)

    torch.testing.assert_close(decode(compiled), decode(model), rtol=0, atol=2e-5)
    assert graphs.count == 1


@pytest.mark.parametrize(("family", "config"), [("Llama", {}), ("Phi", {"partial_rotary_factor": 0.5})])
def test_a_model_on_meta_is_checked_with_real_numbers(family, config):
    """Phi passes only the rotary part of a head, which the configuration does not say."""
    full, model = build(family, **config), build(family, device="meta", **config)
    kind = type(model.model.rotary_emb)
    rw.patch(model).to_empty(device="cpu").load_state_dict(full.state_dict())
    torch.testing.assert_close(logits(model), logits(full), rtol=0, atol=2e-4)

    def forward(self, x, position_ids):
        return kind.forward(self, x, -position_ids)

    with torch.device("meta"):
        model.model.rotary_emb = subclass_of(kind, "BackwardRotaryEmbedding", forward=forward)(full.config)
    refuses("BackwardRotaryEmbedding differs from", model)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_module_without_config_has_that_of_the_model(device):
    full, model = (build(rope=None, device=name, rope_theta=5e5) for name in ("cpu", device))
    del model.model.rotary_emb.config
    rw.patch(model)
    if device == "meta":
        model.to_empty(device="cpu").load_state_dict(full.state_dict())
    torch.testing.assert_close(logits(model), logits(full), rtol=0, atol=2e-4)


def test_a_module_on_meta_that_cannot_be_constructed_again_is_refused():
    model = build(device="meta")
    kind = type(model.model.rotary_emb)
    other = subclass_of(kind, __init__=lambda self, config, scaled: kind.__init__(self, config))
    with torch.device("meta"):
        model.model.rotary_emb = other(model.config, scaled=True)
    refuses(r"is on the device meta and cannot be made .* once the weights .*'scaled'", model)
    assert type(model.model.rotary_emb) is other


def test_a_fake_model_is_refused():
    with FakeTensorMode(), pytest.raises(rw.Error, match="LlamaRotaryEmbedding is fake; call"):
        rw.patch(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpoint_of_randomized_positions_is_refused(use_reentrant):
    model = rw.patch(build(), "randomized:seed=3").train()
    weights = model.get_input_embeddings().weight

    def loss(weights):
        return torch.func.functional_call(model, {"model.embed_tokens.weight": weights}, (IDS,)).logits.sum()

    result = torch.utils.checkpoint.checkpoint(loss, weights, use_reentrant=use_reentrant)
    with pytest.raises(rw.Error, match=r"a checkpoint repeats rotary_emb in backward, .* checkpoint layers only"):
        result.backward()
    model.eval()
    torch.utils.checkpoint.checkpoint(loss, weights, use_reentrant=use_reentrant).backward()


@pytest.mark.parametrize("model", [None, "meta-llama", transformers.LlamaConfig(**SHAPE)])
@pytest.mark.parametrize("function", [rw.patch, rw.unpatch])
def test_other_types_are_not_models(function, model):
    with pytest.raises(TypeError, match=rf"ropewalk: model must be a torch.nn.Module, got {type(model).__name__}"):
        function(model)


@pytest.mark.parametrize("policy", [8, rw.encoding("linear:8", head_dim=16), ["linear:8"]])
def test_other_types_are_not_policies(policy):
    model = build()
    for function in (lambda: rw.patch(model, policy), lambda: rw.from_config(model.config, policy=policy)):
        with pytest.raises(TypeError, match=f"policy must be an expression such as .*, got .*{type(policy).__name__}"):
            function()


def test_an_interrupted_import_can_be_repeated():
    """The import of torch.compiler takes most of the time."""
    program = """
import torch
import ropewalk as rw

def interrupt(function):
    raise KeyboardInterrupt

kept, torch.compiler.assume_constant_result = torch.compiler.assume_constant_result, interrupt
try:
    rw.patch
except KeyboardInterrupt:
    torch.compiler.assume_constant_result = kept
    print(rw.patch.__name__)
"""
    assert run_python(program) == "patch"
