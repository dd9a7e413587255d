"""Paths of the repository that the documentation names: each exists."""

import re

import pytest
from common import ROOT

LIBRARY = ("include", "include/ropewalk", "include/ropewalk/llama", "cuda", "cuda/ropewalk")
BASES = ("", *LIBRARY, "bindings", "bindings/python", "bindings/dispatch/include")
SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"<?((?:[\w.-]+/)+(?:[\w.-]+\.(?:hpp|cuh|cpp|cu|inl|py|pyi|sh|md|json|txt|cmake))?)>?")
OTHERS = ("build/", ".venv/", "slow_tail")  # made by a build, or by a reader
# The changelog names paths of earlier versions.
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]


def paths(text):
    for span in SPAN.findall(text):
        if (match := PATH.fullmatch(span)) and not any(other in span for other in OTHERS):
            yield match[1]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_paths(document):
    missing = [
        path
        for path in paths(document.read_text(encoding="utf-8"))
        if not any((ROOT / base / path).exists() for base in BASES)
    ]
    assert missing == []


def test_what_is_a_path():
    assert list(paths("`core/phase.hpp` `a/b` `<ropewalk/ropewalk.hpp>` `tests/house/` `build/x.json`")) == [
        "core/phase.hpp",
        "ropewalk/ropewalk.hpp",
        "tests/house/",
    ]
