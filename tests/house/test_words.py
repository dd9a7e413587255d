"""The check of words finds each banned word and pattern, at its line, and accepts plain sentences."""

from pathlib import Path

import pytest
import words


def problems_of(text, name="include/ropewalk/core/a.hpp"):
    return words.check_text(name, Path(name), text)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("for whoever calls it", "name the subject"),
        ("Somebody else's table", "name the subject"),
        ("a token behind it", "'after' or 'following'"),
        ("beside the copy", "'next to' or 'together with'"),
        ("and that besides", "'also' or 'in addition'"),
        ("three positions a token", "'per' instead of 'a'"),
        ("Positions\n// a token", "'per' instead of 'a'"),
        ("once an axis", "'per' instead of 'a'"),
        ("800 KiB a token", "'per' instead of 'a'"),
        ("int x = turn_by(3);", "'rotate'"),
        ("the elements that turn", "'rotate'"),
        ("if (p.unturn) {}", "'source'"),
        ("past_caches = true;", "'streaming'"),
        ("#include <ropewalk/core/config.hpp>", "'core/compiler.hpp'"),
        ("namespace rt = ropewalk::runtime;", "'dispatch'"),
        ("encoding.epoch", "'stage'"),
    ],
)
def test_what_is_banned(line, advice):
    (problem,) = problems_of(f"// Views of tensors.\n\n// {line}\n")
    assert problem.startswith("include/ropewalk/core/a.hpp:3: ") and advice in problem


@pytest.mark.parametrize(
    "line",
    [
        "three positions per token",
        "one turn is 2^64",
        "2^64 per turn, and turns of a circle",
        "Calls a function with the type of an element.",
        "a list of a few tokens, one of which is a row",
        "training, decode and memory: no new word",
    ],
)
def test_what_is_accepted(line):
    assert problems_of(f"// Views of tensors.\n\n// {line}\n") == []


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("include/ropewalk/a.hpp", "// Launch parameters of the rotation kernel.\n", True),
        ("include/ropewalk/a.hpp", "// In-place rotations.\n", True),
        ("include/ropewalk/a.hpp", "// What a kernel takes.\n", False),
        ("include/ropewalk/a.hpp", "// In place.\n", False),
        ("include/ropewalk/a.hpp", "/// @file  Which tensors are there.\n", False),
        ("include/ropewalk/a.hpp", "#pragma once\n", False),
        ("tests/a.cpp", "#include <vector>\n", True),
        ("tests/a.py", '"""Whether heads fit."""\n', False),
        ("tests/a.py", '"""Tests of heads."""\n', True),
        ("cmake/a.cmake", "# How it is built.\n", False),
        ("tools/a", "#!/usr/bin/env bash\n# Everything at once.\n", False),
        ("tools/a", "#!/usr/bin/env bash\n# Runs all tests.\n", True),
    ],
)
def test_openings(name, text, accepted):
    assert (problems_of(text, name) == []) == accepted


def test_paths_restrict_the_check(tmp_path):
    for name in ("core/a.hpp", "cpu/a.hpp"):
        path = tmp_path / "include" / "ropewalk" / name
        path.parent.mkdir(parents=True)
        path.write_text("// What is here.\n", encoding="utf-8")
    assert len(words.check(tmp_path)[0]) == 2
    problems, count = words.check(tmp_path, ["include/ropewalk/cpu/"])
    assert problems == ["include/ropewalk/cpu/a.hpp:1: opens with 'What': open with a noun phrase or a verb"]
    assert count == "1 texts"


def test_the_changelog_may_name_what_was_renamed():
    assert problems_of("`ropewalk::runtime` is now `ropewalk::dispatch`.\n", "CHANGELOG.md") == []
    assert len(problems_of("For whoever calls it.\n", "CHANGELOG.md")) == 1
