"""Memory of the Llama stack by context: only the cache grows."""

import json
from itertools import pairwise

import llama_checkpoints as lc
import pytest

pytestmark = pytest.mark.skipif(not lc.GIRAFFE.exists(), reason=f"{lc.GIRAFFE} is not built")

CONTEXTS = [2048, 4096, 8192]


@pytest.mark.parametrize("cache", ["f32", "f16"])
def test_peak_memory_is_linear_in_the_context(tmp_path, cache):
    shape = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = lc.make_config("linear", **shape, num_hidden_layers=4, head_dim=64)
    (tmp_path / "config.json").write_text(config.to_json_string(use_diff=False))
    peaks, report = [], tmp_path / "report.json"
    for context in CONTEXTS:
        flags = ["--config", tmp_path, "--context", context, "--decode", 1, "--cache", cache, "--json", report]
        done = lc.run(lc.GIRAFFE, *flags)
        assert done.returncode == 0, done.stderr
        result = json.loads(report.read_text())
        peaks.append(result["peak_memory_bytes"])
    growth = [(after - before) / 2**20 for before, after in pairwise(peaks)]
    expected = [(more - less) * result["cache_bytes_per_token"] / 2**20 for less, more in pairwise(CONTEXTS)]
    # All scores of one head would take 256 MiB at the last context. The allocator rounds to its own pieces.
    print(f"{cache}: {growth} MiB more, expected {expected}")
    assert growth == pytest.approx(expected, rel=0.1, abs=2)
