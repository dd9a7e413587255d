"""Scores of rotated heads for every kind of model of the installed Transformers, compared with its own rotation.

The test compares scores because some models permute the elements of queries and keys while they rotate them.
"""

import inspect

import pytest
import ropewalk as rw

torch = pytest.importorskip("torch")
from transformers_models import CONFIG_MAPPING, frequencies, members_of, rotary_embeddings  # noqa: E402

# Kinds of models with interleaved pairs. The test must compare each of them.
INTERLEAVED = {
    *("blt_global_transformer", "blt_local_decoder", "blt_local_encoder", "blt_patcher", "cohere", "deepseek_v3"),
    *("deepseek_v4", "mistral4", "openai_privacy_filter"),
    *("pe_audio_encoder", "pe_audio_video_encoder", "pe_video_encoder"),
}
POSITIONS = torch.tensor([[0, 1, 2, 7, 31, 64]])


def apply(function, q, k, cos, sin):
    if list(inspect.signature(function).parameters)[1] == "cos":
        return function(q, cos, sin), function(k, cos, sin)
    return function(q, k, cos, sin)


def differences(kind, compared):
    """Layer types and differences of the scores: the least of the module's functions, some of which are unused."""
    config, members = members_of(kind)
    functions = [x for name, x in members.items() if name.startswith("apply_rotary_") and "vision" not in name]
    skipped = () if kind.startswith("pe_") else ("Vision", "Audio", "Speech")
    for rope in rotary_embeddings(members, config, skipped):
        for layer_type in frequencies(rope):
            try:
                encoding = rw.from_config(config, layer_type=layer_type)
                table = rope(torch.zeros(1, 1), POSITIONS, **({"layer_type": layer_type} if layer_type else {}))
            except Exception:  # ropewalk refuses the configuration, or the class needs other positions
                continue
            width = encoding.rotary_dim
            narrow = rw.encoding(encoding.expression, width, encoding.base, layout=encoding.layout)
            if "mrope" in narrow.expression or not isinstance(table, tuple):
                continue
            q, k = torch.randn(2, 1, 2, POSITIONS.shape[1], width)
            ours = rw.rotate(q, k, encoding=narrow, positions=POSITIONS, order="bhsd")
            found = []
            for function in functions:
                try:
                    theirs = apply(function, q, k, *table)
                    scores = [a @ b.transpose(-1, -2) for a, b in (ours, theirs)]
                    found.append(float((scores[0] - scores[1]).abs().max()))
                except Exception:  # the function needs other shapes
                    continue
            if found:
                compared.setdefault(config.model_type, encoding.layout)
                yield layer_type, min(found)


def test_scores_of_every_kind_of_model():
    torch.manual_seed(7)
    compared, problems = {}, {}
    for kind in CONFIG_MAPPING:
        for layer_type, difference in differences(kind, compared):
            if difference > 1e-3:
                problems[kind, layer_type] = difference
    assert problems == {}
    assert len(compared) > 120
    assert {kind: compared.get(kind) for kind in INTERLEAVED} == dict.fromkeys(INTERLEAVED, "interleaved")
