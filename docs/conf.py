"""Sphinx's settings. ``make docs`` builds these pages, and every warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import housemap  # noqa: E402

import wsthreads  # noqa: E402

project = "wsthreads"
author = "The wsthreads authors"
copyright = author
version = release = wsthreads.__version__

extensions = ["sphinx.ext.autodoc"]
autodoc_member_order = "bysource"
default_role = "code"
highlight_language = "text"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_title = f"wsthreads {release}"
exclude_patterns = ["_build"]

housemap.draw(HERE.parent / "wsthreads", HERE / "_map.svg")
