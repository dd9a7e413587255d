"""Scores of rotated heads, by the rotation of every kind of model of the installed Transformers and by ours.

Scores, since some models reorder a head while they turn it, queries and keys alike.
"""

import importlib
import inspect

import pytest
import ropewalk as rw

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: E402

# Where neighbours turn as a pair; of these the rotation must have been compared.
NEIGHBOURS = {
    "blt_global_transformer",
    "blt_local_decoder",
    "blt_local_encoder",
    "blt_patcher",
    "cohere",
    "deepseek_v3",
    "deepseek_v4",
    "mistral4",
    "mistral_large4_text",
    "openai_privacy_filter",
    "pe_audio_encoder",
    "pe_audio_video_encoder",
    "pe_video_encoder",
}
POSITIONS = torch.tensor([[0, 1, 2, 7, 31, 64]])


def parts(kind):
    """The configuration of a kind of model, its rotary embeddings and the functions that turn by them."""
    try:
        config = CONFIG_MAPPING[kind]().get_text_config()
        module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    except Exception:  # needs a package that is not here, or has no default configuration
        return None, [], []
    ours = [(name, one) for name, one in vars(module).items() if getattr(one, "__module__", None) == module.__name__]
    skipped = ("Vision", "Audio", "Speech") if not kind.startswith("pe_") else ()
    classes = [
        one
        for name, one in ours
        if inspect.isclass(one) and name.endswith("RotaryEmbedding") and not any(word in name for word in skipped)
    ]
    turns = [one for name, one in ours if name.startswith("apply_rotary_") and "vision" not in name]
    return config, classes, turns


def layer_types(rope):
    names = [name for name, _ in rope.named_buffers() if name.endswith("inv_freq") and "original" not in name]
    return [None if name == "inv_freq" else name[: -len("_inv_freq")] for name in names]


def turned(turn, q, k, cos, sin):
    if list(inspect.signature(turn).parameters)[1] == "cos":
        return turn(q, cos, sin), turn(k, cos, sin)
    return turn(q, k, cos, sin)


def differences(kind, compared):
    """Of the scores, by layer type: the least among the module's functions, some of which it does not call."""
    config, classes, turns = parts(kind)
    for one in classes:
        try:
            rope = one(config)
            types = layer_types(rope)
        except Exception:  # belongs to another part of the model
            continue
        for layer_type in types:
            keywords = {"layer_type": layer_type} if layer_type else {}
            try:
                encoding = rw.from_config(config, layer_type=layer_type)
                table = rope(torch.zeros(1, 1), POSITIONS, **keywords)
            except Exception:  # refused here, or asks for other positions there
                continue
            width = encoding.rotary_dim
            narrow = rw.encoding(encoding.expression, width, encoding.base, layout=encoding.layout)
            if "mrope" in narrow.expression or not isinstance(table, tuple):
                continue
            q, k = torch.randn(2, 1, 2, POSITIONS.shape[1], width)
            mine = rw.rotate(q, k, encoding=narrow, positions=POSITIONS, order="bhsd")
            found = []
            for turn in turns:
                try:
                    theirs = turned(turn, q, k, *table)
                    scores = [a @ b.transpose(-1, -2) for a, b in (mine, theirs)]
                    found.append(float((scores[0] - scores[1]).abs().max()))
                except Exception:  # of another shape
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
    assert {kind: compared.get(kind) for kind in NEIGHBOURS} == dict.fromkeys(NEIGHBOURS, "interleaved")
