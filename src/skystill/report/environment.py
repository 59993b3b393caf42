"""What the pages have in common: the templates, how figures are written, and pictures inside a page."""

import base64
import io

import jinja2
import markupsafe
from PIL import Image

from skystill.errors import visible
from skystill.raster.colors import Bytes
from skystill.report.truth import shown_difference, too_narrow


def page_environment() -> jinja2.Environment:
    """Return the templates of the pages. Every value is escaped, and one that is missing raises an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("skystill.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
    )
    environment.filters |= {"percent": percent, "big": big, "megabytes": megabytes, "short": short}
    environment.filters |= {"difference_interval": shown_difference, "too_narrow": too_narrow}
    return environment


def _visible(value: object) -> object:
    """Escape what would turn the order of the letters in a page. Markup stays: its parts have passed here before."""
    return visible(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value


def short(value: object) -> str:
    """Format a float with three significant digits, and anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def percent(fraction: float | None) -> str:
    """Format a fraction as a percentage: 0.6384 becomes "63.8", None becomes a hyphen."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def big(number: int) -> str:
    """Format an integer with separators: 1941190 becomes "1,941,190"."""
    return f"{number:,}"


def megabytes(size: int, digits: int = 0) -> str:
    """Format a number of bytes in MB (10^6 bytes)."""
    return f"{size / 1e6:,.{digits}f}"


def data_url(content: bytes, suffix: str) -> str:
    """Return a picture as a URL that holds it.

    Args:
        content: the bytes of a PNG or JPEG file.
        suffix: .png or .jpg.
    """
    kind = "jpeg" if suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def picture_url(picture: Bytes, suffix: str) -> str:
    """Return a picture in memory as a URL that holds it.

    Args:
        picture: (H, W, 3) uint8 RGB, or (H, W, 4) with opacity.
        suffix: .png, which is exact, or .jpg for photographs.
    """
    content = io.BytesIO()
    options = {"quality": 85} if suffix == ".jpg" else {"optimize": True}
    Image.fromarray(picture).save(content, Image.registered_extensions()[suffix], **options)
    return data_url(content.getvalue(), suffix)
