"""Configuration of the documentation site, which `make docs` builds into build/docs/index.html."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
BUILD = ROOT / "build"
sys.path.insert(0, str(DOCS / "extensions"))

project = "ropewalk"
author = "the ropewalk authors"
copyright = "the ropewalk authors, Apache-2.0"
release = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split('version = "', 1)[1].split('"', 1)[0]
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.graphviz",
    "sphinx_copybutton",
    "sphinx_design",
    "breathe",
    "doxygen_xml",
    "plain_docstrings",
    "run_code",
]
exclude_patterns = ["**/.*"]
nitpicky = False
language = "en"
pygments_style = "default"

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 3
# Pages of headers repeat their namespace, which Breathe declares each time.
suppress_warnings = ["duplicate_declaration.cpp"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give types with shapes
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = True
napoleon_use_rtype = False

breathe_projects = {"ropewalk": str(BUILD / "doxygen" / "xml")}
breathe_default_project = "ropewalk"
breathe_default_members = ("members",)
breathe_show_include = False
cpp_id_attributes = ["RW_HD", "RW_INLINE", "RW_HIDDEN", "RW_COLD", "RW_NOINLINE"]

graphviz_output_format = "svg"
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"ropewalk {release}"
html_static_path = ["_static"]
html_css_files = ["ropewalk.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "sidebar_hide_name": False,
    "light_css_variables": {"color-brand-primary": "#0b5a70", "color-brand-content": "#0b6b86"},
    "dark_css_variables": {"color-brand-primary": "#6fc3d8", "color-brand-content": "#7fcfe3"},
}
