"""Sphinx extension: lets autodoc read docstrings that are plain text with Markdown's code spans.

Names such as rotate_ and expressions such as base**(-2j/d) mean something else in reStructuredText: they are escaped.
A span in single backticks becomes a literal. Indented examples after a line that ends in "::" stay as they are.
Signatures of compiled functions lose the types of pybind11, which the docstrings state with their shapes.
"""

import re

SPAN = re.compile(r"(``?)(.+?)\1")
SPECIAL = re.compile(r"(?<=\w)_(?!\w)|[*|]")


def escape(line):
    """One line of prose in reStructuredText."""
    parts, last = [], 0
    for span in SPAN.finditer(line):
        parts += [SPECIAL.sub(r"\\\g<0>", line[last : span.start()]), f"``{span.group(2)}``"]
        last = span.end()
    return "".join([*parts, SPECIAL.sub(r"\\\g<0>", line[last:])])


def process(app, what, name, obj, options, lines):
    if what in ("attribute", "property") and lines:
        lines[0] = lines[0].replace(": ", " \N{EN DASH} ", 1)  # Napoleon takes the text before a colon for a type
    literal = None  # indentation of the line that introduced a literal block
    for i, line in enumerate(lines):
        indentation = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indentation <= literal:
            literal = None
        if literal is None:
            lines[i] = escape(line)
            if line.rstrip().endswith("::"):
                literal = indentation


def plain_signature(app, what, name, obj, options, signature, result):
    if signature and ": " in signature:
        without_self = re.sub(r"^\(self: [^,)]+(?:, )?", "(", signature)
        return re.sub(r"(\w+): [\w.\[\]]+", r"\1", without_self), None
    return None


def setup(app):
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("autodoc-process-signature", plain_signature)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
