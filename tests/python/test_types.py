"""The stubs of the compiled module say what is there. `tools/lint types` checks the package's own Python with mypy."""

import ast
import functools
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ropewalk as rw
import typed_user

ROOT = Path(__file__).parents[2]
STUB = ROOT / "bindings" / "python" / "ropewalk" / "_ropewalk.pyi"
# pybind11's classes have a metaclass of its own, which no annotation needs.
CLASSES = ["Encoding", "Policy", *(one.__name__ for one in rw._ropewalk.policy_classes)]


def run(*command, **environment):
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_the_stub_names_what_the_module_has(tmp_path):
    """The stubs alone: reading the annotations of NumPy and PyTorch besides would take half a minute."""
    package, allowed, settings = tmp_path / "ropewalk", tmp_path / "allowed.txt", tmp_path / "mypy.ini"
    package.mkdir()
    (package / "__init__.pyi").touch()
    for stub in STUB.parent.glob("*.pyi"):
        shutil.copy(stub, package)
    settings.write_text("[mypy]\n[mypy-numpy.*]\nfollow_imports = skip\nfollow_imports_for_stubs = true\n")
    allowed.write_text(rf"ropewalk\._ropewalk\.({'|'.join(CLASSES)})")
    options = ["--allowlist", str(allowed), "--mypy-config-file", str(settings)]
    code, text = run("-m", "mypy.stubtest", "ropewalk._ropewalk", *options, MYPYPATH=str(tmp_path))
    assert code == 0, text


def test_the_policies_of_the_stub_are_those_of_the_registry():
    code, text = run(str(ROOT / "tools" / "stubs.py"), "--check")
    assert code == 0, text


def functions():
    """(name, node) of every function that the hand-written stub defines."""
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        parts = node.body if isinstance(node, ast.ClassDef) else [node]
        for part in parts:
            if isinstance(part, ast.FunctionDef) and not any(
                "property" in ast.dump(one) for one in part.decorator_list
            ):
                yield part.name if part is node else f"{node.name}.{part.name}", part


def test_parameters_have_the_names_that_the_module_takes():
    """pybind11 writes them into the documentation alone, where stubtest does not look."""
    checked = []
    for name, node in functions():
        function = functools.reduce(getattr, name.split("."), rw._ropewalk)
        first_line = (inspect.getdoc(function) or "").partition("\n")[0]
        taken = re.findall(r"(\w+): ", first_line.rpartition(" -> ")[0])
        if not all(re.fullmatch(r"self|arg\d+", one) for one in taken):  # positional, named by the package before it
            assert [one.arg for one in node.args.args] == taken, name
            checked.append(name)
    assert {"Encoding.__init__", "Encoding.cos_sin", "Policy.__init__", "policy", "query_temperature"} <= set(checked)


def test_the_typed_program_runs():
    typed_user.main()
