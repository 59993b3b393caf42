"""What a page is made of, in one file or in a folder: scripts, models, and what comes with skystill-web."""

import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template
from types import ModuleType
from typing import Any

from PIL import Image

from skystill import __version__
from skystill.data.scenes import paint_scene
from skystill.errors import SettingsError, visible
from skystill.predict.web.models import Held, describe, facts_of
from skystill.raster.input_spec import InputSpec

_SHARED = ("strings.js", "names.js", "png.js")
PAGE = (*_SHARED, "ground.js", "grid.js", "labels.js", "save.js", "zip.js", "view.js", "pool.js", "work.js", "parts.js",
        "compare.js", "show.js", "folders.js", "page.js")  # fmt: skip
READER = (*_SHARED, "picture.js", "tiff.js", "blocks.js", "reading.js")
POLYGONS = ("strings.js", "names.js", "ground.js", "labels.js", "polygons.js")
NETWORK = ("strings.js", "ground.js", "labels.js", "network.js")
ISOLATE = "isolate.js"
_WORKERS = {"reader": READER, "network": NETWORK, "polygons": POLYGONS}
_EXAMPLE_SIDE, _EXAMPLE_SEED = 512, 11  # larger scenes take many seconds to paint
_BUILT = {"wasm": "ort.wasm", "ort": "ort.js", "geotiff": "geotiff.js", "licences-packed": "licences.txt"}
"""The parts of skystill-web by their names in the page."""


@dataclass(frozen=True)
class Form:
    """How the text of a page refers to what belongs to it.

    Args:
        policy: its content security policy.
        connects: a sentence on what the page connects to.
        opening: what is seen until the script runs.
        style, script: elements.
        data: elements that hold data.
    """

    policy: str
    connects: str
    opening: str
    style: str
    script: str
    data: Sequence[str]


def page_text(models: Sequence[Held], built: ModuleType, form: Form) -> str:
    """Return the page.

    Args:
        models: the model, and a second one that may be compared with it.
        built: the package `skystill_web`.
        form: what differs between a page in one file and a page in a folder.
    """
    model, info = models[0], models[0].info
    cards = "".join(f"<pre>{_plain(held.card)}</pre>" for held in models if held.card)
    fields = {
        "version": _plain(__version__),
        "policy": form.policy,
        "connects": form.connects,
        "opening": form.opening,
        "title": _plain(f"Class maps by {model.name}"),
        "classes_line": _plain(f"It gives each pixel one of the classes {', '.join(info.classes.names)}."),
        "takes": _plain(_takes(info.input_spec)),
        "about": _rows([fact for held in models for fact in facts_of(held)]),
        "card": cards,
        "software": _rows([("SkyStill", f"{__version__}, MIT"), *_packages(built.read_manifest()["packages"])]),
        "style": form.style,
        "script": form.script,
        "data": "\n".join(form.data),
    }
    return Template(source(("page.html",))).substitute(fields)


def packed_parts(models: Sequence[Held], built: ModuleType) -> dict[str, bytes]:
    """Return what is packed with gzip, by its name in the page: the models, the runtime, and the licences.

    Raises:
        SettingsError: skystill-web is damaged.
    """
    try:
        found: dict[str, bytes] = {part: built.read_packed(name) for part, name in _BUILT.items()}
    except ValueError as error:
        raise SettingsError(f'{error}. Install it again: pip install --force-reinstall "skystill[html]".') from error
    raw = zip(("model", "other-model"), (held.path.read_bytes() for held in models), strict=False)
    return found | {name: gzip.compress(content, mtime=0) for name, content in raw}


def worker_scripts() -> dict[str, str]:
    """Return the scripts of the workers, by their names in the page."""
    return {f"{name}-code": source(scripts) for name, scripts in _WORKERS.items()}


def example_image() -> bytes:
    """Return a procedural scene as JPEG."""
    content = io.BytesIO()
    Image.fromarray(paint_scene(_EXAMPLE_SIDE, _EXAMPLE_SEED)[0]).save(content, "JPEG", quality=88)
    return content.getvalue()


def about_element(models: Sequence[Held], files: Mapping[str, Any] | None) -> str:
    """Return what the scripts know of the models and of the files of the page, as an element."""
    about = json.dumps(describe(models) | {"files": files}, allow_nan=False).replace("<", "\\u003c")
    return element("application/json", "about-model", about)


def element(kind: str, name: str, text: str) -> str:
    """Return a script element that a browser does not run: it holds data."""
    return f'<script type="{kind}" id="{name}">{text}</script>'


def find_built() -> ModuleType:
    """Return the package `skystill_web`.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import skystill_web
    except ImportError as error:
        raise SettingsError('skystill-web is not installed; install it with pip install "skystill[html]".') from error
    return skystill_web


def source(names: Iterable[str]) -> str:
    """Return the texts of some files of this package, one after the other."""
    folder = resources.files("skystill.predict.web")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _takes(spec: InputSpec) -> str:
    if spec.is_colors:
        return "JPEG, PNG, WebP, TIFF and GeoTIFF, in 8 bits. Several at once are labelled one after the other."
    return f"TIFF and GeoTIFF of {spec.dtype} with the bands {spec.labels}. Several at once are labelled in turn."


def _packages(packages: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    return [(name, f"{about['version']}, {about['license']}") for name, about in packages.items()]


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f'<tr><th scope="row">{_plain(name)}</th><td>{_plain(value)}</td></tr>' for name, value in rows)


def _plain(text: str) -> str:
    return escape(visible(text))
