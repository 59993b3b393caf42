"""The page of the service for browsers: a form for one image, and the classes of the result."""

import base64
import hashlib
from html import escape
from importlib import resources

from skystill.classes import ClassMap


def _part(name: str) -> str:
    return (resources.files("skystill.serve") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_SCRIPT, _STYLE = _part("page.js"), _part("page.css")
CONTENT_POLICY = (
    f"default-src 'none'; script-src '{_digest(_SCRIPT)}'; style-src '{_digest(_STYLE)}'; img-src blob:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
"""The page runs its own script only, and speaks to the service only."""


def page(classes: ClassMap) -> str:
    """Return the page.

    Args:
        classes: the classes of the model.
    """
    rows = "".join(
        f'<li><svg viewBox="0 0 1 1"><rect width="1" height="1" fill="#{red:02x}{green:02x}{blue:02x}"/></svg> '
        f"{escape(name)}</li>"
        for name, (red, green, blue) in zip(classes.names, classes.colors, strict=True)
    )
    text = _part("page.html").replace("<!-- classes -->", rows)
    return text.replace("/* style */", _STYLE).replace("/* script */", _SCRIPT)
