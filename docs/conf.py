"""How the documentation is built: `make docs`. Nothing is fetched while it is."""

from sphinx.application import Sphinx

from undrift import __version__

project = "undrift"
author = "The undrift authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

myst_heading_anchors = 3

# Every reference must lead somewhere, but for what other projects document.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|concurrent|pathlib|typing|types|numpy|np|asyncio|os)\..*"),
    (r"py:.*", r"(bool|bytes|dict|float|frozenset|int|list|object|optional|str|tuple|type|None)"),
    # Not for users of the package, though a signature names them.
    (
        r"py:.*",
        r"undrift\.(render\.Renderer|search_index\.SearchIndex|ports\.DocumentEditor|state\.State)",
    ),
    (r"py:.*", r"undrift\.(recipe|scan)\..*"),
    (r"py:.*", r"(Vectors|Purpose)"),
]
# Pygments knows no crontab, and no emoji in a console.
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # signatures have the types
napoleon_custom_sections = ["Shape", "Units", "Order", "Safety", "Source"]

# In a console only what follows a prompt is a command.
copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = f"undrift {version}"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
highlight_language = "text"


def _readable(*event: object) -> tuple[object, object]:
    """A dataclass's signature without ``<factory>``, which Sphinx cannot parse."""
    *_, signature, returns = event
    if isinstance(signature, str):
        signature = signature.replace("<factory>", "...")
    return signature, returns


def setup(app: Sphinx) -> None:
    """Connect what the settings above cannot say."""
    app.connect("autodoc-process-signature", _readable)
