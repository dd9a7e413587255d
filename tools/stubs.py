"""Writes the type stubs of the policy classes from the installed package: `tools/stubs.py [--check]`.

The classes come from the C++ registry. With --check the program writes nothing and fails where the file differs.
"""

import argparse
import inspect
import re
import subprocess
import sys
from pathlib import Path

import ropewalk as rw

PATH = Path(__file__).resolve().parents[1] / "bindings" / "python" / "ropewalk" / "_policies.pyi"
HEAD = '''"""The policy classes for type checkers, written by tools/stubs.py. This module does not exist at run time."""

from collections.abc import Sequence
from typing import ClassVar

from ropewalk._ropewalk import Policy
'''
# pybind11 names the types that it accepts; the stub names the type after conversion.
ACCEPTED = {
    "typing.SupportsFloat | typing.SupportsIndex": "float",
    "typing.SupportsInt | typing.SupportsIndex": "int",
    "collections.abc.": "",
}
KNOWN = re.compile(r"(float|int|bool|str|Sequence\[(float|int)\])( \| None)?")


def parameters_of(cls):
    """[(name, type, default or "")] from the first line of the constructor's documentation."""
    signature = inspect.getdoc(cls.__init__).splitlines()[0]
    for long, short in ACCEPTED.items():
        signature = signature.replace(long, short)
    inside = re.fullmatch(r"__init__\(self: [\w.]+(?:, )?(.*)\) -> None", signature).group(1)
    found = re.findall(r"(\w+): ([^=,]+)(?: = (\[\]|[^,]+))?(?:, |$)", inside)
    for name, kind, _ in found:
        if not KNOWN.fullmatch(kind):
            raise SystemExit(f"tools/stubs.py: {cls.__name__}.{name} has the type '{kind}', unknown to this program")
    return found


def text_of(cls):
    parameters = parameters_of(cls)
    lines = [f"class {cls.__name__}(Policy):"]
    about = getattr(cls, "about", None)
    if about:
        lines += [f'    """{about}"""', ""]
    lines += ["    name: ClassVar[str]", *(["    about: ClassVar[str]"] if about else [])]
    arguments = ", ".join(
        ["self", *(f"{name}: {kind}" + (f" = {default}" if default else "") for name, kind, default in parameters)]
    )
    lines.append(f"    def __init__({arguments}) -> None: ...")
    for name, kind, _ in parameters:
        lines += ["    @property", f"    def {name}(self) -> {kind.replace('Sequence', 'list')}: ..."]
    if hasattr(cls, "example"):
        lines += ["    @staticmethod", f"    def example() -> {cls.__name__}: ..."]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing and fail if the file differs")
    checking = parser.parse_args().check
    text = "\n\n".join([HEAD, *(text_of(cls) for cls in rw._ropewalk.policy_classes)])
    for command in (["check", "--quiet", "--select", "I,F", "--fix"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(PATH), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    if not checking:
        PATH.write_text(text, encoding="utf-8")
    elif not PATH.is_file() or PATH.read_text(encoding="utf-8") != text:
        sys.exit(f"{PATH.name} differs from the policies: run {Path(sys.executable).name} tools/stubs.py")


if __name__ == "__main__":
    main()
