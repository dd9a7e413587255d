"""patch() on one small model of every kind in docs/reference/patched_models.md, and on models with images."""

import pytest
import ropewalk as rw
import torch
from patched_models import GRID, PAGE, logits_of, row_of, tiny, transformers
from tiny_model import IDS, assert_same_gradients

HEADS = {"num_hidden_layers": 2, "num_attention_heads": 4}
pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = {line.split(" | ")[0][2:]: line for line in PAGE.read_text().splitlines() if line.startswith("| ")}
ROWS.pop("Model")


@pytest.mark.parametrize("name", ROWS)
def test_the_table_is_current(name):
    """Also that the logits of the patched model are within 2e-5: see row_of()."""
    if f"Transformers {transformers.__version__}" not in PAGE.read_text():
        pytest.skip("the table is of another version of Transformers")
    assert row_of(name) == ROWS[name]


def image_inputs():
    """Two prompts of 16 tokens with an image of 2 x 2 tokens each."""
    ids = IDS[:, :16].clamp(max=80).clone()
    ids[:, 3], ids[:, 4:8], ids[:, 8] = 92, 90, 93
    patches = torch.randn(32, 3 * GRID["patch_size"] ** 2, generator=torch.Generator().manual_seed(3))
    return {
        **{"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == 90).int()},
        **{"pixel_values": patches, "image_grid_thw": torch.tensor([[1, 4, 4]] * 2)},
    }


def padded(inputs):
    """The same with a third token of padding on the left of the second prompt."""
    rows = {"input_ids": 0, "attention_mask": 0, "mm_token_type_ids": 0}
    moved = {key: torch.nn.functional.pad(inputs[key], (2, 0), value=value) for key, value in rows.items()}
    for x in moved.values():
        x[0, :14], x[0, 14:] = x[0, 2:16].clone(), 5 if x is moved["input_ids"] else 1
    moved["mm_token_type_ids"][0, 14:] = 0
    return {**inputs, **moved}


def run(model, inputs):
    """Logits, gradients of their sum of squares, and greedy tokens."""
    model.zero_grad()
    logits = model(**inputs, use_cache=False).logits
    logits.square().mean().backward()
    gradients = {name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None}
    tokens = model.generate(**inputs, max_new_tokens=5, do_sample=False, eos_token_id=-1)
    return logits.detach(), gradients, tokens


@pytest.mark.parametrize("name", ["Qwen2VL", "Qwen2_5_VL", "Qwen3VL", "Glm4v"])
def test_text_and_images_have_three_positions_per_token(name):
    model, seen = tiny(name), []
    hook = model.model.language_model.rotary_emb.register_forward_pre_hook(
        lambda module, given, named: seen.append(given[1] if len(given) > 1 else named["position_ids"]),
        with_kwargs=True,
    )
    for inputs in (image_inputs(), padded(image_inputs())):
        expected = run(model, inputs)
        t, h, w = seen[0]
        assert not torch.equal(t, h) and not torch.equal(h, w)
        tower = model.model.visual.rotary_pos_emb
        rw.patch(model)
        assert model.model.visual.rotary_pos_emb is tower
        ours = run(model, inputs)
        torch.testing.assert_close(ours[0], expected[0], rtol=0, atol=2e-5)
        assert_same_gradients(ours[1], expected[1])
        assert torch.equal(ours[2], expected[2])
        rw.unpatch(model)
    hook.remove()


@pytest.mark.parametrize("name", ["Qwen2VL", "Gemma3", "Mistral3"])
def test_a_composite_and_its_language_model_are_patched_alike(name):
    model = tiny(name)
    plain, text = logits_of(model), model.model.language_model
    whole = logits_of(rw.patch(model, "linear:8"))
    rw.unpatch(model)
    rw.patch(text, "linear:8")
    assert torch.equal(logits_of(model), whole)
    assert (whole - plain).abs().max() > 1e-3


def test_an_encoder_of_audio_without_a_language_model():
    """Moonshine has one configuration for encoder and decoder, with another name for num_attention_heads."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 97, "pad_token_id": 0}
    layers = {f"{part}_{key}": n for part in ("encoder", "decoder") for key, n in HEADS.items()}
    torch.manual_seed(5)
    model = transformers.MoonshineForConditionalGeneration(transformers.MoonshineConfig(**sizes, **layers)).eval()
    inputs = {"input_values": torch.randn(2, 4000), "decoder_input_ids": IDS[:, :12]}
    with torch.no_grad():
        expected = model(**inputs).logits
        rw.patch(model)
        assert not torch.equal(model(**inputs).logits, expected)
        torch.testing.assert_close(model(**inputs).logits, expected, rtol=0, atol=2e-5)
        for module in (model.model.encoder.rotary_emb, model.model.decoder.rotary_emb):
            assert type(module).__name__ == "PatchedRotaryEmbedding"
