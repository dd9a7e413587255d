"""Messages in docs/howto/troubleshooting.md: each one is that of the call that it describes."""

import re
from pathlib import Path

import numpy as np
import pytest
import ropewalk as rw
import torch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "troubleshooting.md").read_text(encoding="utf-8")
ROWS = [row.split(" | ") for row in PAGE.split("## Errors")[1].split("##")[0].splitlines() if row.startswith("| `")]
ENCODING = rw.encoding("default", head_dim=128)
CONFIGS = ROOT / "examples" / "configs"


def q(*shape, **kind):
    return torch.zeros(*(shape or (4, 2, 128)), **kind)


def leaf():
    return q(requires_grad=True)


def read_only():
    x = q().numpy()
    x.flags.writeable = False
    return x


def rotate(*arrays, encoding=ENCODING, **arguments):
    return lambda: rw.rotate_(*arrays, encoding=encoding, **arguments)


def autocast():
    rw.rotate(q(), q().bfloat16(), encoding=ENCODING)


CALLS = [
    rotate(q(1, 32, 128, 128), q(1, 8, 128, 128)),
    rotate(q(1, 32, 128, 128), positions=range(128)),
    rotate(q(4, 2, 64)),
    autocast,
    rotate(q(4, 128, 2).transpose(1, 2)),
    rotate(leaf()),
    rotate((leaf() * 1).unbind(1)[0][:, None]),
    rotate(read_only()),
    rotate(q(8, 2, 128), offset=torch.tensor([3, 4])),
    rotate(q(), positions=range(4), cu_seqlens=[0, 4]),
    rotate(q(3, 4, 2, 128), encoding=rw.encoding("mrope:[16,24,24]", 128), positions=np.zeros((3, 4), int)),
    lambda: rw.encoding("yarn:4", 128),
    lambda: rw.encoding("longrope", 128),
    lambda: rw.from_config({"model_type": "llama", "head_dim": 128, "rope_theta": 1e4, "rope_nonsense": 1}),
    lambda: rw.from_config(CONFIGS / "gemma-4.json"),
    lambda: rw.patch(torch.nn.Linear(2, 2)),
]
IN_SOURCES = {  # without JAX, PyTorch and nlohmann/json
    "q is a DynamicJaxprTracer without memory": "{} is a {} without memory",
    "ropewalk.patch needs torch, which is not installed": "ropewalk.{name} needs {missing.name}, which is not inst",
    "this build cannot read or write config.json": "this build cannot read or write config.json",
}


def message_of(row):
    return row[0].removeprefix("| ").strip("`")


def test_every_message_has_a_call():
    assert [message_of(row) for row in ROWS[len(CALLS) :]] == list(IN_SOURCES)
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bindings" / "python").rglob("*.[cp][py]*"))
    assert all(text in sources for text in IN_SOURCES.values())


@pytest.mark.parametrize("row", range(len(CALLS)))
def test_messages(row):
    """The three dots of the page stand for shapes and names."""
    pattern = ".*".join(map(re.escape, message_of(ROWS[row]).split("…")))
    with pytest.raises((rw.Error, TypeError), match=pattern):
        CALLS[row]()
