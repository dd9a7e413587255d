"""Sphinx extension: runs Doxygen over the public headers, and shows one header by the directive `header`.

    ```{header} core/view.hpp
    ```

The directive is Breathe's doxygenfile without the frame that each namespace puts around its members.
"""

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

from breathe.directives.file import DoxygenFileDirective
from sphinx import addnodes
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "build" / "doxygen"
HEADERS = ("include", "cuda", "bindings/dispatch/include")


def newest(paths):
    return max(path.stat().st_mtime for path in paths)


def generate(app, config):
    configuration = Path(app.srcdir) / "Doxyfile"
    headers = [path for folder in HEADERS for path in (ROOT / folder).rglob("*.*h*")]
    complete = OUTPUT / "complete"
    if complete.exists() and complete.stat().st_mtime > newest([configuration, *headers]):
        return
    program = shutil.which("doxygen")
    if program is None:
        raise ExtensionError("doxygen is missing: run tools/setup docs")
    shutil.rmtree(OUTPUT, ignore_errors=True)
    # Breathe remembers the XML files that pages read, and fails if one of them is gone.
    Path(app.doctreedir, "environment.pickle").unlink(missing_ok=True)
    OUTPUT.mkdir(parents=True)
    result = subprocess.run([program, str(configuration)], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode or result.stderr:
        raise ExtensionError(f"doxygen failed:\n{result.stdout}{result.stderr}")
    name_by_path(OUTPUT / "xml" / "index.xml")
    complete.touch()


def name_by_path(index):
    """Replaces the names of files in Doxygen's index by their paths: two files have the name cache.hpp."""
    tree = ElementTree.parse(index)
    for compound in tree.getroot().iter("compound"):
        if compound.get("kind") == "file":
            location = ElementTree.parse(index.with_name(f"{compound.get('refid')}.xml")).find(
                ".//compounddef/location"
            )
            compound.find("name").text = location.get("file")
    tree.write(index, encoding="utf-8", xml_declaration=True)


def is_namespace(node):
    return isinstance(node, addnodes.desc) and node.astext().lstrip().startswith("namespace ")


def without_namespaces(children):
    """The nodes, with the content of a namespace in place of the namespace."""
    for node in children:
        if is_namespace(node):
            content = next(child for child in node.children if isinstance(child, addnodes.desc_content))
            yield from without_namespaces(content.children)
        else:
            yield node


class Header(DoxygenFileDirective):
    """The directive `header`."""

    def run(self):
        paths = [Path(folder, "ropewalk", self.arguments[0]) for folder in HEADERS]
        found = [path for path in paths if (ROOT / path).exists()]
        if not found:
            raise self.error(f"header: there is no {self.arguments[0]}")
        self.arguments[0] = str(found[0])
        return list(without_namespaces(super().run()))


def setup(app):
    app.connect("config-inited", generate)
    app.setup_extension("breathe")
    app.add_directive("header", Header)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
