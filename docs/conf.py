"""Settings of the documentation site; ``make docs`` builds it."""

import sys
from pathlib import Path

from pygments.lexers.python import Python3Lexer
from sphinx.application import Sphinx

import lsdask

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "lsdask"
author = "The lsdask developers"
project_copyright = author
version = release = lsdask.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "rooms", "command", "names"]
exclude_patterns = ["_build", "extensions"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
napoleon_google_docstring = False
napoleon_custom_sections = ["Source", ("Attributes", "params_style")]
napoleon_use_param = False
napoleon_use_rtype = False

# Nothing is fetched at build time, so other projects' names lead nowhere; each name of lsdask's own must be found.
nitpick_ignore_regex = [("py:.*", r"(?!lsdask\.).*")]

html_theme = "pydata_sphinx_theme"
html_title = "lsdask"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "navigation_depth": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "performance": [], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
}


def setup(app: Sphinx) -> None:
    """Take what is shown and not run, as it needs a cluster, for the Python that it is."""
    app.add_lexer("py-template", Python3Lexer)
