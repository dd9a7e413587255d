"""Sphinx extension: the directive `run` executes code while the site is built and shows what it prints.

    ```{run} python            cells of one page share their names, in order
    ```{run} console           commands after "$ " run in the repository's root
    ```{run} cpp               the option `file` names a program next to the page, which is compiled and run

The option `image` names a picture that the code writes, in the working directory of the page or, for commands, in the
repository's root; `alt` describes it. A cell that fails stops the build. Hugging Face libraries are offline.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
COMPILER_FLAGS = ("-std=c++20", "-O1", "-fopenmp", "-Iinclude")
LIMIT_SECONDS = 300

INTERPRETER = """
import contextlib, io, json, os, sys, traceback
replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # output of libraries stays out of the protocol
names = {"__name__": "__main__"}
for line in sys.stdin:
    cell, output, problem = json.loads(line), io.StringIO(), None
    try:
        with contextlib.redirect_stdout(output):
            exec(compile(chr(10) * cell["line"] + cell["code"], cell["page"], "exec"), names)
    except BaseException:
        problem = traceback.format_exc()
    replies.write(json.dumps({"output": output.getvalue(), "problem": problem}) + chr(10))
    replies.flush()
"""


def environment():
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join(folders),
        "MPLBACKEND": "Agg",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "COLUMNS": "100",
        "NO_COLOR": "1",
    }


class Session:
    """The interpreter of one page, and its working directory."""

    def __init__(self, page):
        self.page = page
        self.folder = tempfile.TemporaryDirectory(prefix="ropewalk-docs-")
        self.process = subprocess.Popen(
            [sys.executable, "-c", INTERPRETER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=self.folder.name,
            env=environment(),
        )

    def run(self, code, line):
        self.process.stdin.write(json.dumps({"code": code, "line": line, "page": self.page}) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        if not reply:
            raise ExtensionError(f"{self.page}:{line}: the interpreter of the page ended")
        result = json.loads(reply)
        if result["problem"]:
            raise ExtensionError(f"{self.page}:{line}: a cell fails:\n{result['problem']}")
        return result["output"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()
        self.folder.cleanup()


sessions = {}


def run_command(command, shown, where, **options):
    """The output of a command; a failure stops the build."""
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(), timeout=LIMIT_SECONDS, **options
    )
    if result.returncode:
        raise ExtensionError(f"{where}: '{shown}' fails:\n{result.stdout}{result.stderr}")
    return result.stdout


class Run(SphinxDirective):
    """The directive `run`."""

    has_content = True
    required_arguments = 1
    option_spec: ClassVar = {
        "file": directives.unchanged,
        "image": directives.unchanged,
        "alt": directives.unchanged,
        "lines": directives.nonnegative_int,
    }

    def run(self):
        language = self.arguments[0]
        actions = {"python": self.run_python, "console": self.run_console, "cpp": self.run_cpp}
        if language not in actions:
            raise self.error(f"run: expected python, console or cpp, got {language}")
        return actions[language]("\n".join(self.content))

    @property
    def where(self):
        return f"{self.env.docname}:{self.lineno}"

    def run_python(self, code):
        page = self.env.docname
        if page not in sessions:
            sessions[page] = Session(page)
        output = sessions[page].run(code, self.lineno)
        shown = [self.block(code, "python")]
        if output:
            shown.append(self.output(output))
        return shown + self.pictures(Path(sessions[page].folder.name))

    def run_console(self, text):
        """Commands and their output in one block, as a terminal shows them."""
        lines = []
        for command in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            lines.append(f"$ {command.rstrip()}")
            output = run_command(["bash", "-c", command], command, self.where, cwd=ROOT)
            lines += self.shortened(output).splitlines()
        return [self.block("\n".join(lines), "console"), *self.pictures(ROOT)]

    def run_cpp(self, _text):
        source = Path(self.env.srcdir) / Path(self.env.docname).parent / self.options["file"]
        self.env.note_dependency(str(source))
        with tempfile.TemporaryDirectory(prefix="ropewalk-docs-") as folder:
            program = Path(folder) / source.stem
            compiler = [*filter(None, [shutil.which("ccache")]), os.environ.get("CXX", "c++"), *COMPILER_FLAGS]
            objects = f"{program}.o"
            run_command([*compiler, "-c", str(source), "-o", objects], source.name, self.where, cwd=ROOT)
            run_command([*compiler, objects, "-o", str(program)], source.name, self.where, cwd=ROOT)
            output = run_command([str(program)], source.stem, self.where)
        command = f"$ g++ {' '.join(COMPILER_FLAGS)} {source.name} -o {source.stem} && ./{source.stem}"
        return [self.block(f"{command}\n{output.rstrip()}", "console")]

    def shortened(self, output):
        """The first lines of an output where the option `lines` says how many."""
        lines = output.rstrip().splitlines()
        limit = self.options.get("lines", len(lines))
        return "\n".join(lines[:limit] + ["…"] * (len(lines) > limit))

    def block(self, text, language):
        node = nodes.literal_block(text, text, language=language)
        self.set_source_info(node)
        return node

    def output(self, text):
        node = self.block(textwrap.dedent(self.shortened(text)), "text")
        return nodes.container("", node, classes=["cell-output"])

    def pictures(self, folder):
        """The picture that the option `image` names, as part of the page; none without the option."""
        if "image" not in self.options:
            return []
        path = folder / self.options["image"]
        kind = {".png": "png", ".svg": "svg+xml"}[path.suffix]
        data = base64.b64encode(path.read_bytes()).decode()
        alt = self.options.get("alt", path.stem)
        return [nodes.raw("", f'<img src="data:image/{kind};base64,{data}" alt="{alt}">', format="html")]


def end_session(app, doctree):
    session = sessions.pop(app.env.docname, None)
    if session is not None:
        session.close()


def end_all(app, problem):
    for page in list(sessions):
        sessions.pop(page).close()


def setup(app):
    app.add_directive("run", Run)
    app.connect("doctree-read", end_session)
    app.connect("build-finished", end_all)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
