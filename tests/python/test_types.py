"""Stubs of the compiled module. `tools/lint types` checks the Python files of the package with mypy."""

import ast
import functools
import inspect
import re
import shutil
import sys
from pathlib import Path

import ropewalk as rw
import typed_user
from checks import run

ROOT = Path(__file__).parents[2]
STUB = ROOT / "bindings" / "python" / "ropewalk" / "_ropewalk.pyi"
# stubtest skips the classes because pybind11 gives them a metaclass.
CLASSES = ["Encoding", "Policy", *(policy.__name__ for policy in rw._ropewalk.policy_classes)]


def assert_succeeds(*command, **environment):
    done = run(sys.executable, *command, **environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_stub_has_the_names_of_the_module(tmp_path):
    """Reads only these stubs: the annotations of NumPy and PyTorch would take half a minute more."""
    package, allowed, settings = tmp_path / "ropewalk", tmp_path / "allowed.txt", tmp_path / "mypy.ini"
    package.mkdir()
    (package / "__init__.pyi").touch()
    for stub in STUB.parent.glob("*.pyi"):
        shutil.copy(stub, package)
    settings.write_text("[mypy]\n[mypy-numpy.*]\nfollow_imports = skip\nfollow_imports_for_stubs = true\n")
    allowed.write_text(rf"ropewalk\._ropewalk\.({'|'.join(CLASSES)})")
    options = ["--allowlist", str(allowed), "--mypy-config-file", str(settings)]
    assert_succeeds("-m", "mypy.stubtest", "ropewalk._ropewalk", *options, MYPYPATH=str(tmp_path))


def test_the_policies_of_the_stub_are_those_of_the_registry():
    assert_succeeds(ROOT / "tools" / "stubs.py", "--check")


def functions():
    """(name, node) of every function that the hand-written stub defines."""
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        for part in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(part, ast.FunctionDef) and "property" not in "".join(map(ast.dump, part.decorator_list)):
                yield part.name if part is node else f"{node.name}.{part.name}", part


def test_parameters_have_the_names_of_the_module():
    """pybind11 writes the names only into docstrings, which stubtest does not read."""
    checked = []
    for name, node in functions():
        function = functools.reduce(getattr, name.split("."), rw._ropewalk)
        first_line = (inspect.getdoc(function) or "").partition("\n")[0]
        names = re.findall(r"(\w+): ", first_line.rpartition(" -> ")[0])
        if not all(re.fullmatch(r"self|arg\d+", parameter) for parameter in names):  # pybind11 has no names for others
            assert [parameter.arg for parameter in node.args.args] == names, name
            checked.append(name)
    assert {"Encoding.__init__", "Encoding.cos_sin", "Policy.__init__", "policy", "query_temperature"} <= set(checked)


def test_the_typed_program_runs():
    typed_user.main()
