"""write_hf_config() on copies of real configurations: what changes, what stays, and what is refused."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import ropewalk as rw
from ropewalk import _write

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
CHANGED = {"rope_parameters", "rope_scaling", "rope_theta", "original_max_position_embeddings", "abacus_scale"}
LLAMA = {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32}


def copy_of(name, folder):
    path = folder / "config.json"
    path.write_text((CONFIGS / f"{name}.json").read_text())
    return path


def config(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps({**LLAMA, **entries}))
    return path


def model_of(path):
    entries = json.loads(path.read_text())
    return entries.get("text_config", entries)


def assert_unchanged(path, call, message):
    """The call raises rw.Error, and the folder is as before."""
    before = path.read_bytes()
    with pytest.raises(rw.Error, match=message):
        call()
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("policy", ["yarn:4,original_length=4096", "power:0.5", "default"])
@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.json")))
def test_real_configurations(name, policy, tmp_path):
    """Either all layers get the policy, or those of the type that the call names."""
    path = copy_of(name, tmp_path)
    choices = {}
    if name.startswith("gemma"):
        with pytest.raises(rw.Error, match="layer_type"):
            rw.write_hf_config(rw.encoding(policy, head_dim=256), path)
        choices = {"layer_type": "full_attention"}
        others = rw.from_config(path, layer_type="sliding_attention")
    encoding = rw.from_config(path, policy=policy, **choices)
    before = model_of(path)
    path.chmod(0o640)
    assert rw.write_hf_config(encoding, tmp_path, **choices) == path
    again = rw.from_config(path, **choices)
    np.testing.assert_allclose(again.inv_freq, encoding.inv_freq, rtol=1e-12, atol=1e-29)
    assert again.attention_factor == pytest.approx(encoding.attention_factor, rel=1e-12)
    assert (again.layout, again.base, again.rotary_dim) == (encoding.layout, encoding.base, encoding.rotary_dim)
    if choices:
        assert rw.from_config(path, layer_type="sliding_attention") == others
    after = model_of(path)
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} <= CHANGED
    assert [key for key in after if key in before] == [key for key in before if key in after]
    assert {*before} - {*after} <= {"abacus_scale"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 and os.listdir(tmp_path) == ["config.json"]
    first = path.read_bytes()
    rw.write_hf_config(encoding, path, **choices)
    assert path.read_bytes() == first


@pytest.mark.parametrize("old", [{}, {"rope_scaling": {"type": "linear", "factor": 8.0}}, {"rope_theta": 10000.0}])
def test_transformers_reads_what_is_written(old, tmp_path):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    path = config(tmp_path, **old)
    encoding = rw.encoding("yarn:16,original_length=4096", head_dim=128, base=5e5)
    rw.write_hf_config(encoding, path)
    read = transformers.AutoConfig.from_pretrained(tmp_path)
    assert read.rope_parameters["rope_type"] == "yarn"
    inv_freq, factor = ROPE_INIT_FUNCTIONS["yarn"](read, "cpu")
    np.testing.assert_allclose(inv_freq.double().numpy(), encoding.inv_freq, rtol=1e-6)
    assert factor == pytest.approx(encoding.attention_factor)


def test_superseded_keys(tmp_path):
    path = config(tmp_path, rope_scaling={"type": "linear", "factor": 8.0}, rope_theta=1e4, abacus_scale=8, other=[1])
    rw.write_hf_config(rw.encoding("default", head_dim=128, base=1e6), path)
    after = json.loads(path.read_text())
    assert after["rope_scaling"] is None and after["rope_theta"] == 1e6 and after["other"] == [1]
    assert "abacus_scale" not in after and not {"head_dim", "partial_rotary_factor"} & after.keys()


YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_each_spelling_that_the_file_has(new, old, tmp_path):
    """Transformers 5 writes rope_parameters, with the rotary part in it. Both, if present, have the same content."""
    transformers = pytest.importorskip("transformers")
    part = {"partial_rotary_factor": 0.5}
    entries = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, **part}} if new else part
    entries = {**entries, **({"rope_scaling": None, "rope_theta": 1e4} if old else {})}
    path = config(tmp_path, **{**entries, "model_type": "glm", "head_dim": 128})
    encoding = rw.encoding("yarn:4,original_length=4096", 128, 1e6, 64, layout="interleaved")
    rw.write_hf_config(encoding, path)
    after = json.loads(path.read_text())
    if new:
        assert after["rope_parameters"] == {**YARN, **part, "rope_theta": 1e6}
    if old or not new:
        section = {"type" if key == "rope_type" else key: value for key, value in YARN.items()}
        assert after["rope_scaling"] == ({**section, **part} if new else section) and after["rope_theta"] == 1e6
    keys = {key for key in ("rope_parameters", "rope_scaling", "rope_theta") if key in after}
    assert keys == {*(["rope_parameters"] if new else []), *(["rope_scaling", "rope_theta"] if old or not new else [])}
    read = transformers.AutoConfig.from_pretrained(tmp_path).rope_parameters
    assert (read["rope_type"], read["factor"], read["rope_theta"], read["partial_rotary_factor"]) == (
        "yarn",
        4,
        1e6,
        0.5,
    )


def test_the_base_under_another_name(tmp_path):
    path = copy_of("pythia-1.4b", tmp_path)
    own = rw.from_config(path)
    assert model_of(path)["rotary_emb_base"] == own.base
    rw.write_hf_config(rw.encoding("linear:2", own.head_dim, 5e5, own.rotary_dim), path)
    assert model_of(path)["rotary_emb_base"] == model_of(path)["rope_theta"] == 5e5


def test_a_base_of_one_layer_type(tmp_path):
    path = copy_of("gemma-4", tmp_path)
    own = rw.from_config(path, layer_type="sliding_attention")
    other = rw.from_config(path, layer_type="full_attention")
    encoding = rw.encoding("linear:8", own.head_dim, 5e4)
    rw.write_hf_config(encoding, path, layer_type="sliding_attention")
    assert rw.from_config(path, layer_type="sliding_attention") == encoding
    assert rw.from_config(path, layer_type="full_attention") == other


@pytest.mark.parametrize(
    ("expression", "geometry", "message"),
    [
        ("linear:8", {"head_dim": 64}, "has head_dim 128, which belongs to the weights, but the encoding has 64"),
        ("linear:8", {"head_dim": 128, "rotary_dim": 64}, "has rotary_dim 128"),
        ("linear:8", {"head_dim": 128, "layout": "interleaved"}, "has layout half_split"),
        ("xpos:512", {"head_dim": 128}, "'xpos' has magnitudes|'xpos:512' has magnitudes"),
        ("dynamic:4,original_length=4096|linear:2", {"head_dim": 128}, "depends on the sequence length"),
    ],
)
def test_what_a_file_cannot_express(expression, geometry, message, tmp_path):
    path = config(tmp_path)
    assert_unchanged(path, lambda: rw.write_hf_config(rw.encoding(expression, **geometry), path), message)


@pytest.mark.parametrize("kind", ["gptj", "codegen"])
def test_models_whose_code_reads_no_scaling(kind, tmp_path):
    path = config(tmp_path, model_type=kind, rotary_dim=64)
    encoding = rw.from_config(path, policy="linear:2")
    assert_unchanged(path, lambda: rw.write_hf_config(encoding, path), f"the code of {kind} reads no scaling method")


def test_sections_of_the_model_stay(tmp_path):
    path = copy_of("qwen2-vl-7b", tmp_path)
    text_only = rw.encoding("linear:8", head_dim=128, base=1e6)
    assert_unchanged(
        path, lambda: rw.write_hf_config(text_only, path), r"has mrope:\[16,24,24\], but the encoding has no mrope"
    )


def test_one_encoding_for_all_layers(tmp_path):
    path = config(tmp_path, layer_types=["full_attention", "sliding_attention"])
    encoding = rw.encoding("linear:8", head_dim=128)
    assert_unchanged(
        path,
        lambda: rw.write_hf_config(encoding, path, layer_type="full_attention"),
        "the layers of type sliding_attention would change, too",
    )


def test_the_new_file_is_read_back(tmp_path, monkeypatch):
    """A fault of the writer leaves the file unchanged."""
    path = config(tmp_path)
    encoding, other = rw.encoding("linear:8", head_dim=128), rw.encoding("linear:4", head_dim=128)
    keys = rw.to_hf_config(other)
    monkeypatch.setattr(_write, "to_hf_config", lambda _: keys)
    assert_unchanged(path, lambda: rw.write_hf_config(encoding, path), "would be read as linear:4")


def test_a_failure_of_the_disk_leaves_the_file(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    path = config(tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        rw.write_hf_config(rw.encoding("linear:8", head_dim=128), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["config.json"]


def test_a_link_to_a_shared_cache(tmp_path):
    blob, link = tmp_path / "blob", tmp_path / "config.json"
    blob.write_text(json.dumps(LLAMA))
    link.symlink_to(blob)
    rw.write_hf_config(rw.encoding("linear:8", head_dim=128), link)
    assert json.loads(blob.read_text()) == LLAMA and not link.is_symlink()
    assert rw.from_config(link) == rw.encoding("linear:8", head_dim=128)


def test_files_that_cannot_be_read(tmp_path):
    encoding = rw.encoding("linear:8", head_dim=128)
    with pytest.raises(FileNotFoundError):
        rw.write_hf_config(encoding, tmp_path / "config.json")
    with pytest.raises(TypeError, match="encoding must be"):
        rw.write_hf_config("linear:8", tmp_path)
    path = tmp_path / "config.json"
    path.write_text("{")
    assert_unchanged(path, lambda: rw.write_hf_config(encoding, path), "is not valid JSON")
