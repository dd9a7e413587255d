"""Configurations and rotary classes of every kind of model in the installed Transformers."""

import importlib
import inspect

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: E402


def members_of(kind):
    """The default configuration of a kind of model, and the functions and classes of its module by name."""
    try:
        config = CONFIG_MAPPING[kind]().get_text_config()
        module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    except Exception:  # the kind needs a package that is not installed, or has no default configuration
        return None, {}
    return config, {name: x for name, x in vars(module).items() if getattr(x, "__module__", None) == module.__name__}


def rotary_embeddings(members, config, skipped):
    """An instance of each class of rotary embeddings whose name has none of the `skipped` words."""
    for name, x in members.items():
        if inspect.isclass(x) and name.endswith("RotaryEmbedding") and not any(word in name for word in skipped):
            try:
                yield x(config)
            except Exception:  # the class belongs to another part of the model
                continue


def frequencies(rope):
    """inv_freq by layer type; the type is None for models with one kind of layer."""
    buffers = {name: x for name, x in rope.named_buffers() if name.endswith("inv_freq") and "original" not in name}
    return {name.removesuffix("inv_freq").removesuffix("_") or None: x.double().numpy() for name, x in buffers.items()}
