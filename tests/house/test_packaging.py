"""Versions of the packages: each is that of include/ropewalk/version.h, which CMake and the Conan recipe read."""

import json
import re

from common import ROOT


def version():
    header = (ROOT / "include" / "ropewalk" / "version.h").read_text(encoding="utf-8")
    numbers = re.findall(r"^#define ROPEWALK_VERSION_(MAJOR|MINOR|PATCH) (\d+)$", header, re.MULTILINE)
    assert [name for name, _ in numbers] == ["MAJOR", "MINOR", "PATCH"]
    return ".".join(number for _, number in numbers)


def test_python_package():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "([^"]+)"$', text, re.MULTILINE)[1] == version()


def test_vcpkg_port():
    port = json.loads((ROOT / "packaging" / "vcpkg" / "ropewalk" / "vcpkg.json").read_text(encoding="utf-8"))
    assert port["version"] == version()
    names = [item if isinstance(item, str) else item["name"] for item in port["dependencies"]]
    assert names == sorted(names)


def test_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", text, re.MULTILINE)[1] == version()


def test_cmake_reads_the_header():
    lists = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    pattern = re.search(r'string\(REGEX MATCH "([^"]+)" ROPEWALK_VERSION', lists)[1]
    header = (ROOT / "include" / "ropewalk" / "version.h").read_text(encoding="utf-8")
    assert ".".join(re.search(pattern, header, re.DOTALL).groups()) == version()
    # The name of the shared library in the installation pages contains the version of the binary interface.
    major, minor, _ = version().split(".")
    interface = f"0.{minor}" if major == "0" else major
    assert f"libropewalk.so.{interface}`" in (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
