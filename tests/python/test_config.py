"""from_config and to_hf_config on fragments of real models. tests/io tests the reader itself."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import ropewalk as rw

LLAMA = {"hidden_size": 5120, "num_attention_heads": 40, "max_position_embeddings": 4096, "rope_scaling": None}
TOGETHER = {
    **{"hidden_size": 4096, "num_attention_heads": 32, "max_position_embeddings": 32768},
    "rope_scaling": {"factor": 8.0, "type": "linear"},
}


def test_path_folder_dict_and_object(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TOGETHER))
    expected = rw.encoding("linear:8", head_dim=128)
    for source in (tmp_path / "config.json", str(tmp_path / "config.json"), tmp_path, TOGETHER):
        assert rw.from_config(source) == expected
    assert rw.from_config(LLAMA) == rw.encoding("default", head_dim=128)
    assert rw.from_config(LLAMA, sequence_length=100).sequence_length == 100
    assert rw.from_config(LLAMA, layout="interleaved").layout == "interleaved"


def test_configuration_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0})
    assert rw.from_config(config) == rw.encoding("linear:4", head_dim=128, base=500000.0)
    neox = transformers.GPTNeoXConfig(hidden_size=512, num_attention_heads=8)
    assert rw.from_config(neox) == rw.encoding("default", head_dim=64, rotary_dim=16)
    assert rw.from_config(transformers.GPTJConfig()).layout == "interleaved"


def test_layer_types():
    scaling = {"factor": 8.0, "rope_type": "linear"}
    gemma = {"head_dim": 256, "rope_local_base_freq": 10000, "rope_scaling": scaling, "rope_theta": 1000000}
    assert rw.from_config(gemma) == rw.encoding("linear:8", 256, 1e6)
    assert rw.from_config(gemma, layer_type="full_attention") == rw.encoding("linear:8", 256, 1e6)
    assert rw.from_config(gemma, layer_type="sliding_attention") == rw.encoding("default", 256, 1e4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**LLAMA, "rope_scaling": {"type": "linaer", "factor": 16.0}}, "rope_type 'linaer' is not supported"),
        ({**LLAMA, "rope_scaling": {"type": "linear", "factor": 8.0, "foo": 1}}, "key 'foo' is not known for linear"),
        ({**LLAMA, "rope_scaling": {"type": "linear"}}, "rope_scaling lacks 'factor'"),
        ({**LLAMA, "rope_scaling": {"type": "linear", "factor": "8"}}, 'rope_scaling.factor must be a number, got "8"'),
        ({}, "lacks 'head_dim'"),
    ],
)
def test_errors(config, message):
    with pytest.raises(rw.Error, match=message) as caught:
        rw.from_config(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"layer_type": 3}, "layer_type must be text, got int"),
        ({"layout": 3}, "layout must be text, got int"),
        ({"sequence_length": "4096"}, "sequence_length must be an integer, got str"),
        ({"policy": 8}, "policy must be an expression .*, got int"),
    ],
)
def test_errors_name_the_argument(argument, message):
    with pytest.raises(TypeError, match=f"^ropewalk: {message}$"):
        rw.from_config(LLAMA, **argument)


def test_an_explicit_policy():
    yarn = "yarn:8,original_length=4096"
    expected = rw.encoding(yarn, 128)
    assert rw.from_config(TOGETHER, policy=yarn) == expected
    assert rw.from_config(TOGETHER, policy=rw.Yarn(8, original_length=4096)) == expected
    with pytest.raises(rw.Error, match="at character 8"):
        rw.from_config(TOGETHER, policy="linear:x")


def test_to_hf_config():
    encoding = rw.encoding("linear:8", head_dim=128)
    written = rw.to_hf_config(encoding)
    assert written["rope_scaling"] == {"type": "linear", "factor": 8.0}
    assert written["rope_parameters"] == {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0}
    assert written.keys() == {"rope_scaling", "rope_parameters", "rope_theta", "head_dim", "partial_rotary_factor"}
    assert rw.to_vllm_overrides(encoding) == {"rope_parameters": written["rope_parameters"]}
    assert rw.to_llama_cpp_flags(encoding) == "--rope-scaling linear --rope-scale 8 --rope-freq-base 10000"
    assert rw.from_config(written) == encoding
    assert rw.from_config({**TOGETHER, **written}) == encoding
    power = rw.encoding("power:0.5", head_dim=128)
    written = rw.to_hf_config(power)
    np.testing.assert_allclose(
        written["rope_parameters"]["long_factor"], rw.encoding("default", 128).inv_freq / power.inv_freq, rtol=1e-14
    )
    np.testing.assert_allclose(rw.from_config(written).inv_freq, power.inv_freq, rtol=1e-12)
    with pytest.raises(rw.Error, match=r"llama\.cpp has no flags for 'power'"):
        rw.to_llama_cpp_flags(power)
    for function in (rw.to_hf_config, rw.to_vllm_overrides, rw.to_llama_cpp_flags):
        with pytest.raises(rw.Error, match="xpos"):
            function(rw.encoding("xpos:512", head_dim=128))
        with pytest.raises(TypeError, match="encoding"):
            function("linear:8")


def test_unreadable_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        rw.from_config(tmp_path / "nothing.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(rw.Error, match=r"broken\.json is not valid JSON"):
        rw.from_config(tmp_path / "broken.json")


def special_files(folder):
    os.mkfifo(folder / "fifo.json")
    yield folder / "fifo.json", "a FIFO"
    yield Path("/dev/zero"), "a character device"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs and devices")
def test_only_regular_files_are_read(tmp_path):
    for path, kind in special_files(tmp_path):
        with pytest.raises(rw.Error, match=f"{path} is {kind}, expected a file"):
            rw.from_config(path)
        with pytest.raises(rw.Error, match=f"{path} is {kind}, expected a file"):
            rw.write_hf_config(rw.encoding("linear:8", head_dim=8), path)
    long = tmp_path / "long.json"
    with long.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(rw.Error, match=r"long\.json has 1099511627776 bytes, the limit is 16777216"):
        rw.from_config(long)
