"""Sphinx configuration: `make docs` builds the site in build/docs.

Decision: Sphinx reads the docstrings, so the reference says what help() says. The site has its own
search and fetches nothing: the theme is furo, which uses the fonts of the reader's system.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import write_reference

from fastnet._version import __version__

project = "fastnet"
author = "The fastnet authors"
copyright = author
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"fastnet {__version__}"
html_copy_source = False
html_show_sphinx = False
templates_path: list[str] = []

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
myst_heading_anchors = 3
nitpicky = False
suppress_warnings = ["misc.highlighting_failure"]

write_reference.write()
