"""Kinds of images that are taken, forms of results that are given, and how a request says which it means."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers

from skystill.serve.problems import Problem


@dataclass(frozen=True)
class Kind:
    """A kind of image that is taken.

    Args:
        name: its name for messages.
        suffix: extension of its file, which decides what opens it.
        media_types: what Content-Type may say.
        drivers: the drivers of GDAL for it.
    """

    name: str
    suffix: str
    media_types: tuple[str, ...]
    drivers: tuple[str, ...]


TIFF = Kind("a TIFF", ".tif", ("image/tiff",), ("GTiff", "COG"))
PNG = Kind("a PNG", ".png", ("image/png",), ("PNG",))
JPEG = Kind("a JPEG", ".jpg", ("image/jpeg", "image/jpg"), ("JPEG",))
WEBP = Kind("a WebP", ".webp", ("image/webp",), ("WEBP",))
KINDS = (TIFF, PNG, JPEG, WEBP)
ANY = "application/octet-stream"
"""What Content-Type says of bytes of no stated kind."""
HEAD_BYTES = 16
_TAKEN = (
    "Send a TIFF, PNG, JPEG or WebP as the body, with image/tiff, image/png, image/jpeg or image/webp as Content-Type"
)


@dataclass(frozen=True)
class Form:
    """A form of a result.

    Args:
        name: what `f` says.
        suffix: extension of the file.
        media_type: its Content-Type.
    """

    name: str
    suffix: str
    media_type: str


AS_PNG = Form("png", ".png", "image/png")
AS_TIFF = Form("tif", ".tif", "image/tiff; application=geotiff")
AS_GEOJSON = Form("geojson", ".geojson", "application/geo+json")
FORMS = (AS_TIFF, AS_PNG, AS_GEOJSON)


def offered_forms() -> tuple[Form, ...]:
    """Return the forms that this installation can write: polygons need an extra."""
    return FORMS if importlib.util.find_spec("shapely") else FORMS[:2]


def kind_of_head(head: bytes) -> Kind | None:
    """Return the kind of image that begins with these bytes, or None."""
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return TIFF
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return PNG
    if head[:3] == b"\xff\xd8\xff":
        return JPEG
    return WEBP if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def stated_kind(content_type: str | None) -> Kind | None:
    """Return the kind that a Content-Type states. None if there is none, or it is that of any bytes.

    Raises:
        Problem: it is that of something else.
    """
    media_type = (content_type or ANY).split(";")[0].strip().lower()
    if media_type in (ANY, ""):
        return None
    found = next((kind for kind in KINDS if media_type in kind.media_types), None)
    if found is None:
        hint = " (curl: --data-binary @FILE -H 'Content-Type: image/tiff')" if "form" in media_type else ""
        raise Problem(415, f"Content-Type is {media_type}. {_TAKEN}{hint}.")
    return found


def check_kind(head: bytes, stated: Kind | None) -> Kind:
    """Return the kind of an image by its first bytes.

    Args:
        head: its first `HEAD_BYTES`.
        stated: the kind that Content-Type states.

    Raises:
        Problem: it is no image that is taken, or of another kind than is stated.
    """
    found = kind_of_head(head)
    if found is None:
        raise Problem(415, f"The body begins as none of the kinds of images that are taken. {_TAKEN}.")
    if stated is not None and stated is not found:
        raise Problem(
            415, f"Content-Type states {stated.name}, and the body begins as {found.name}. Correct one of them."
        )
    return found


def named_form(name: str) -> Form:
    """Return the form of the parameter `f`.

    Raises:
        Problem: there is none of this name.
    """
    offered = offered_forms()
    found = next((form for form in FORMS if form.name == name), None)
    if found is None:
        raise Problem(400, f"f is {name}; it may be {', '.join(form.name for form in offered)}.")
    return _offered(found, offered)


def form_of_media_type(media_type: str) -> Form:
    """Return the form of a media type, which may have parameters.

    Raises:
        Problem: there is none.
    """
    wanted = media_type.split(";")[0].strip().lower()
    found = next((form for form in FORMS if _bare(form) == wanted), None)
    if found is None:
        raise Problem(
            400, f"mediaType is {media_type}; it may be {', '.join(form.media_type for form in offered_forms())}."
        )
    return _offered(found, offered_forms())


def accepted_form(accept: str | None) -> Form | None:
    """Return the form that an Accept header likes best. None leaves the choice to the service.

    Raises:
        Problem: it accepts none.
    """
    if accept is None or not accept.strip():
        return None
    offered, told = offered_forms(), dict(_qualities(accept))
    others = told.get("*/*", 0.0)
    pictures = told.get("image/*", others)
    qualities = {form: told.get(_bare(form), others if form is AS_GEOJSON else pictures) for form in offered}
    best = max(qualities.values())
    if best == 0:
        names = ", ".join(form.media_type for form in offered)
        raise Problem(406, f"Accept allows none of {names}. Leave it out, or say f=tif, f=png or f=geojson.")
    liked = {_bare(form): form for form in offered if qualities[form] == best}
    named = [liked[media_type] for media_type in told if media_type in liked]
    if not named and {AS_TIFF, AS_PNG} <= set(liked.values()):
        return None
    return [*named, *liked.values()][0]


def joined(headers: Headers, name: str) -> str | None:
    """Return the value of a header that is a list: one that stands there several times is one list. None without it.

    Args:
        headers: those of a request.
        name: the header.
    """
    return ", ".join(headers.getlist(name)) or None


def accepts_html(accept: str | None) -> bool:
    """Return whether an Accept header likes HTML best, as that of a browser does."""
    found = dict(_qualities(accept or ""))
    html = found.get("text/html", 0.0)
    return html > 0 and html >= max(found.get("application/json", 0.0), found.get("*/*", 0.0))


def default_form(georeferenced: bool) -> Form:
    """Return the form that `skystill predict` writes: a GeoTIFF for a raster with a position, otherwise a PNG."""
    return AS_TIFF if georeferenced else AS_PNG


def source_name(kind: Kind) -> Path:
    """Return the name that the service gives an image."""
    return Path(f"image{kind.suffix}")


def _offered(form: Form, offered: tuple[Form, ...]) -> Form:
    if form not in offered:
        raise Problem(
            406,
            f'{form.name} is not offered: the service lacks a package. There: pip install "skystill[vector]".',
        )
    return form


def _bare(form: Form) -> str:
    return form.media_type.split(";")[0]


def _qualities(accept: str) -> list[tuple[str, float]]:
    """Return the media types of an Accept header with their weights. What is no weight counts as 0."""
    found = []
    for part in accept.split(","):
        media_type, *parameters = (word.strip().lower() for word in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                digits = parameter[2:]
                quality = float(digits) if digits.replace(".", "", 1).isdecimal() and digits.isascii() else 0.0
        found.append((media_type, min(quality, 1.0)))
    return found
