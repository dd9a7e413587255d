"""Tests of the wheel check with good and bad wheels and source distributions."""

import zipfile

import pytest
import wheel

MODULE = "ropewalk/_ropewalk.cpython-311-x86_64-linux-gnu.so"
GOOD = {
    "ropewalk/__init__.py": "",
    "ropewalk/_ropewalk.pyi": "",
    "ropewalk/py.typed": "",
    MODULE: "",
    "ropewalk-0.1.0.dist-info/METADATA": "Name: ropewalk\nRequires-Dist: numpy\nRequires-Dist: rich; extra == 'x'\n",
    "ropewalk-0.1.0.dist-info/RECORD": "",
    "ropewalk-0.1.0.dist-info/licenses/LICENSE": "",
}


def problems_of(folder, files):
    package = folder / "checkout" / "bindings" / "python" / "ropewalk"
    package.mkdir(parents=True)
    for name in ("__init__.py", "_ropewalk.pyi", "py.typed"):
        (package / name).touch()
    path = folder / "ropewalk-0.1.0.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel.check_contents(path, folder / "checkout")


def test_a_good_wheel(tmp_path):
    assert problems_of(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ropewalk/notes.md": ""}, "holds ropewalk/notes.md, unknown to the package"),
        ({"include/ropewalk/ropewalk.hpp": ""}, "holds include/ropewalk/ropewalk.hpp"),
        ({"ropewalk/py.typed": None}, "lacks ropewalk/py.typed"),
        ({"ropewalk/_ropewalk.pyi": None}, "lacks ropewalk/_ropewalk.pyi"),
        ({MODULE: None}, "lacks the compiled module"),
        ({"ropewalk-0.1.0.dist-info/METADATA": "Requires-Dist: numpy\nRequires-Dist: torch\n"}, "['numpy', 'torch']"),
        ({MODULE: "x" * wheel.LARGEST}, "expected fewer than 5000000"),
    ],
)
def test_a_bad_wheel(tmp_path, change, complaint):
    files = {name: text for name, text in {**GOOD, **change}.items() if text is not None}
    (problem,) = problems_of(tmp_path, files)
    assert complaint in problem


SOURCES = {"bindings/a.cpp", "cmake/b.cmake", *wheel.OTHER_SOURCES}


def test_sources_without_tests_and_results():
    assert wheel.check_source_names(SOURCES, {"bindings/a.cpp"}) == []


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (SOURCES | {"tests/core/half.cpp"}, "holds tests/core/half.cpp"),
        (SOURCES | {"benchmarks/results/zen4.json"}, "holds benchmarks/results/zen4.json"),
        (SOURCES - {"bindings/a.cpp"}, "lacks bindings/a.cpp"),
        (SOURCES - {"LICENSE"}, "lacks LICENSE"),
    ],
)
def test_bad_sources(names, complaint):
    (problem,) = wheel.check_source_names(names, {"bindings/a.cpp"})
    assert complaint in problem
