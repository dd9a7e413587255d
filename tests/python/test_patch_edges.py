"""patch() where something is missing: a configuration, numbers, a model, the time to import."""

import subprocess
import sys

import pytest
import ropewalk as rw
from tiny_model import SHAPE

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

IDS = torch.arange(2, 14)[None]


def build(device="cpu", **more):
    torch.manual_seed(0)
    with torch.device(device):
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE, **more)).eval()


def test_a_module_without_config_has_that_of_the_model():
    expected = build(rope_theta=5e5)(IDS).logits
    for device in ("cpu", "meta"):
        model = build(device, rope_theta=5e5)
        del model.model.rotary_emb.config
        rw.patch(model)
        if device == "meta":
            model.to_empty(device="cpu").load_state_dict(build(rope_theta=5e5).state_dict())
        torch.testing.assert_close(model(IDS).logits, expected, rtol=0, atol=2e-4)


def test_a_module_on_meta_that_cannot_be_made_again_is_refused():
    class OtherRotaryEmbedding(type(build().model.rotary_emb)):
        def __init__(self, config, scaled):
            super().__init__(config)

    OtherRotaryEmbedding.__module__ = "transformers.models.llama.modeling_llama"
    model = build("meta")
    with torch.device("meta"):
        model.model.rotary_emb = OtherRotaryEmbedding(model.config, scaled=True)
    with pytest.raises(rw.Error, match=r"is on the device meta and cannot be made .* once the weights .*'scaled'"):
        rw.patch(model)
    assert type(model.model.rotary_emb) is OtherRotaryEmbedding


def test_a_model_with_a_scheme_for_each_kind_of_layer_is_told_what_it_lacks():
    """Not a layer_type, which patch() has no argument for."""
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**SHAPE))
    with pytest.raises(rw.Error, match=r"takes \['x', 'position_ids', 'layer_type'\] .* does not support this kind"):
        rw.patch(model)


@pytest.mark.parametrize("model", [None, "meta-llama", transformers.LlamaConfig(**SHAPE)])
@pytest.mark.parametrize("function", [rw.patch, rw.unpatch])
def test_what_is_no_model(function, model):
    with pytest.raises(TypeError, match=rf"ropewalk: model must be a torch.nn.Module, got {type(model).__name__}"):
        function(model)


@pytest.mark.parametrize("policy", [8, rw.encoding("linear:8", head_dim=16), ["linear:8"]])
def test_what_is_no_policy(policy):
    model = build()
    for function in (lambda: rw.patch(model, policy), lambda: rw.from_config(model.config, policy=policy)):
        with pytest.raises(TypeError, match=f"policy must be an expression such as .*, got .*{type(policy).__name__}"):
            function()


# torch.compiler is what takes the time.
INTERRUPTED = """
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


def test_an_interrupted_import_can_be_repeated():
    made = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (made.stdout, made.stderr) == ("patch\n", "")
