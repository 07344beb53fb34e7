"""Sphinx: Markdown by MyST, one page a question, warnings are errors (`make docs`)."""

from importlib.metadata import version as installed_version

project = "fhirpath-otel"
author = "The fhirpath-otel authors"
copyright = author  # noqa: A001  Sphinx's own name for it
release = installed_version("fhirpath-otel")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
default_role = "code"  # docstrings are written with single backticks

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "fhirpath-otel"
