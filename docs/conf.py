"""The site's settings: Sphinx, because the reference comes from numpydoc docstrings.

Sphinx reads those natively, napari's own documentation is built with it, and MyST keeps every page
plain Markdown that GitHub shows too. mkdocs-material, the other choice, announced its maintenance
mode in November 2025 (squidfunk/mkdocs-material issue 8523).
"""

from importlib.metadata import version as installed

project = "napari-nucprune"
author = copyright = "The napari-nucprune authors"
release = version = installed("napari-nucprune")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autosummary_generate = True
autosummary_imported_members = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "napari-nucprune"
templates_path = ["_templates"]
