"""`skystill export --format html`: one file that labels images in a browser, without a server and without a network."""

import base64
import gzip
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from types import ModuleType
from typing import Any

from PIL import Image

from skystill import __version__
from skystill.data.scenes import paint_scene
from skystill.errors import ModelFileError, SettingsError, visible
from skystill.model.file import ModelInfo, is_foreign, open_session, read_info
from skystill.model.trial import try_once
from skystill.predict.plan import tile_shape
from skystill.predict.web.check import check_page
from skystill.progress import Note, OnProgress, ignore_progress, phase
from skystill.raster.input_spec import InputSpec
from skystill.raster.overwriting import check_outputs
from skystill.raster.shown import shown_places
from skystill.run_folder import RunFolder, hold_output, written_whole
from skystill.settings import ExportSettings
from skystill.tiling import PHASE

_SHARED = ("strings.js", "names.js", "png.js")
PAGE = (*_SHARED, "ground.js", "grid.js", "labels.js", "save.js", "view.js", "pool.js", "work.js", "compare.js",
        "show.js", "page.js")  # fmt: skip
READER = (*_SHARED, "picture.js", "tiff.js", "blocks.js", "reading.js")
POLYGONS = ("strings.js", "names.js", "ground.js", "labels.js", "polygons.js")
NETWORK = ("strings.js", "ground.js", "labels.js", "network.js")
_WORKERS = {"reader": READER, "network": NETWORK, "polygons": POLYGONS}
_EXAMPLE_SIDE, _EXAMPLE_SEED = 512, 11  # larger scenes take many seconds to paint


def export_page(settings: ExportSettings, on_progress: OnProgress = ignore_progress) -> Path:
    """Write a page that holds a model file, and try it in a browser where Chromium or Chrome is found.

    Args:
        settings: the run or the model file, and the page to write.
        on_progress: receives a `Progress` while the page is written, and a `Note` on how it does in the browser.

    Returns:
        The path of the page.

    Raises:
        RunFolderError: the folder is not a run, or another process writes the page.
        ModelFileError: there is no model file, it is damaged, SkyStill did not write it, or the page does not give its
            classes in the browser.
        SettingsError: the suffix of the page does not fit, a setting is for other formats, the page would replace a
            file of the run, or skystill-web is not installed.
    """
    if settings.out.suffix.lower() != ".html":
        raise SettingsError(f"--out {settings.out}: a file for html ends in .html.")
    if settings.stac or settings.resolution is not None:
        given = "--stac" if settings.stac else "--resolution"
        raise SettingsError(f"{given} is for model files; leave it out. A page holds a model file as it is.")
    runs = [settings.run, *([settings.with_] if settings.with_ else [])]
    models = [_find_model(run) for run in runs]
    check_outputs([("page", settings.out)], [file for _, own in models for file in own])
    built = find_built()
    held = [open_model(path, _name(run, path)) for run, (path, _) in zip(runs, models, strict=True)]
    if len(held) == 2:
        _check_alike(*held)
    with hold_output(settings.out, on_progress), written_whole(settings.out) as part:
        with phase(f"writing {settings.out.name}", on_progress):
            part.write_text(make_page(held, built), encoding="utf-8", errors="backslashreplace")
        with phase(f"trying {settings.out.name} in a browser", on_progress):
            said = check_page(part, [model.path for model in held])
    on_progress(Note(said))
    return settings.out


@dataclass(frozen=True)
class Held:
    """A model that a page holds.

    Args:
        path: the model file.
        name: what the page calls it.
        info: its metadata.
        tensor: data type that its graph takes.
    """

    path: Path
    name: str
    info: ModelInfo
    tensor: str

    @property
    def card(self) -> str:
        """The model card as HTML, if one lies beside the file."""
        card = self.path.with_suffix(".md")
        if not card.is_file():
            return ""
        return f"<pre>{_plain(card.read_text(encoding='utf-8', errors='replace'))}</pre>"


def make_page(models: Sequence[Held], built: ModuleType) -> str:
    """Return the page.

    Args:
        models: the model, and a second one that may be compared with it.
        built: the package `skystill_web`.

    Raises:
        SettingsError: skystill-web is damaged.
    """
    model, info = models[0], models[0].info
    script, style = _source(PAGE), _source(("style.css",))
    content = {name: held.path.read_bytes() for name, held in zip(("model", "other-model"), models, strict=False)}
    packed = _packed(built) | {name: gzip.compress(raw, mtime=0) for name, raw in content.items()}
    if info.input_spec.is_colors:
        packed["example-image"] = _example()
    about = json.dumps(_about(models), allow_nan=False).replace("<", "\\u003c")
    data = [
        *(_element("application/octet-stream", part, base64.b64encode(raw).decode()) for part, raw in packed.items()),
        _element("application/json", "about-model", about),
        *(_element("text/plain", f"{name}-code", _source(scripts)) for name, scripts in _WORKERS.items()),
    ]
    facts = [fact for other, raw in zip(models, content.values(), strict=True) for fact in _facts(other, raw)]
    fields = {
        "policy": _policy(script, style),
        "title": _plain(f"Class maps by {model.name}"),
        "classes_line": _plain(f"It gives each pixel one of the classes {', '.join(info.classes.names)}."),
        "takes": _plain(_takes(info.input_spec)),
        "about": _rows(facts),
        "card": "".join(other.card for other in models),
        "software": _rows([("SkyStill", f"{__version__}, MIT"), *_packages(built.read_manifest()["packages"])]),
    }
    return Template(_source(("page.html",))).substitute(fields, style=style, script=script, data="\n".join(data))


def _name(run: Path, model: Path) -> str:
    return run.resolve().name if run.is_dir() else model.stem


def _check_alike(model: Held, other: Held) -> None:
    """Refuse a second model whose classes or bands are others: a page reads an image once, for both."""
    specs = [held.info.input_spec for held in (model, other)]
    fed = [f"{spec.labels} in {spec.dtype}" for spec in specs]
    if fed[0] != fed[1] or specs[0].is_colors != specs[1].is_colors:
        raise SettingsError(
            f"--with {other.path} is fed {fed[1]}, and {model.path} {fed[0]}: give a model that is fed the same."
        )
    names = [held.info.classes.names for held in (model, other)]
    if sorted(names[0]) != sorted(names[1]):
        raise SettingsError(
            f"--with {other.path} has the classes {', '.join(names[1])}, and {model.path} {', '.join(names[0])}: give "
            "a model of the same classes."
        )


def open_model(model: Path, name: str) -> Held:
    """Open a model file, and check that a page can run it."""
    try_once(model)
    session = open_session(model)
    if is_foreign(session):
        raise ModelFileError(
            f"{model} was not exported by SkyStill, and a page knows only the form of its model files. Give a run, or "
            "a file that skystill export or quantize wrote."
        )
    info, taken = read_info(session, model), session.get_inputs()[0].type
    spec = info.input_spec
    if taken not in ("tensor(float)", f"tensor({spec.dtype})"):
        raise ModelFileError(f"{model} takes {taken}; for {spec.labels}, tensor({spec.dtype}) was expected.")
    if info.tile_size < PHASE + info.overlap // 2 * 2:
        raise ModelFileError(
            f"{model}: tiles of {info.tile_size} pixels that share {info.overlap} leave no middle of {PHASE} pixels. "
            "Export the run again."
        )
    return Held(model, name, info, "float32" if taken == "tensor(float)" else spec.dtype)


def _packed(built: ModuleType) -> dict[str, bytes]:
    try:
        return {part: built.read_packed(name) for part, name in _BUILT.items()}
    except ValueError as error:
        raise SettingsError(f'{error}. Install it again: pip install --force-reinstall "skystill[html]".') from error


def _element(kind: str, name: str, text: str) -> str:
    """Return a script element that a browser does not run: it holds data."""
    return f'<script type="{kind}" id="{name}">{text}</script>'


_BUILT = {"wasm": "ort.wasm", "ort": "ort.js", "geotiff": "geotiff.js", "licences-packed": "licences.txt"}
"""The parts of skystill-web by their names in the page."""


def _find_model(run: Path) -> tuple[Path, list[Path]]:
    """Return the model file of a run, or the file itself, and all files that are read or belong to the run."""
    if not run.is_dir():
        return run, [run]
    folder = RunFolder(run)
    folder.read_config()
    for model in (folder.model_int8, folder.model):
        if model.is_file():
            return model, folder.own_files
    raise ModelFileError(f"{run} has no model file, {folder.model.name}: the run has not finished. Use --resume.")


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


def _source(names: Iterable[str]) -> str:
    folder = resources.files("skystill.predict.web")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _policy(script: str, style: str) -> str:
    """Return the content security policy: nothing is fetched or sent, and no other script and style runs."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        "default-src 'none'; connect-src 'none'; base-uri 'none'; form-action 'none'; worker-src blob:; "
        f"script-src 'sha256-{digests[0]}' 'wasm-unsafe-eval'; style-src 'sha256-{digests[1]}'"
    )


def _about(models: Sequence[Held]) -> dict[str, Any]:
    """Return what the scripts of the page know of the models."""
    model, others = models[0], models[1:]
    spec, classes = model.info.input_spec, model.info.classes
    bands = [
        {"name": band.name, "number": band.number, "label": band.label, "low": _finite(band.low),
         "high": _finite(band.high), "fill": fill}
        for band, fill in zip(spec.bands, spec.fill.tolist(), strict=True)
    ]  # fmt: skip
    about = {
        "classes": [
            {"name": visible(name), "rgb": color} for name, color in zip(classes.names, classes.colors, strict=True)
        ],
        "spec": {
            "isColors": spec.is_colors,
            "dtype": spec.dtype,
            "bands": bands,
            "shown": _shown(spec),
            "resolution": spec.resolution_m,
        },
    }
    places = [[classes.names.index(name) for name in other.info.classes.names] for other in others]
    compared = [_run(other) | {"places": place} for other, place in zip(others, places, strict=True)]
    return about | _run(model) | {"other": compared[0] if compared else None}


def _run(model: Held) -> dict[str, Any]:
    """Return how the page runs a model."""
    info, margin = model.info, model.info.overlap // 2
    rows, columns = tile_shape(info.tile_size, margin)
    return {
        "name": visible(model.name),
        "grid": {"rows": rows, "columns": columns, "margin": margin},
        "input": {"tensor": model.tensor, "bands": len(info.input_spec), "classes": len(info.classes)},
    }


def _finite(value: float) -> float:
    """Return a limit that JSON can hold."""
    return value if math.isfinite(value) else math.copysign(1.7e308, value)


def _shown(spec: InputSpec) -> list[int]:
    """Return the three bands that are painted. One band is painted grey."""
    places = shown_places(spec)
    return places if len(places) == 3 else places * 3


def _takes(spec: InputSpec) -> str:
    if spec.is_colors:
        return "JPEG, PNG, WebP, TIFF and GeoTIFF, in 8 bits. Several at once are labelled one after the other."
    return f"TIFF and GeoTIFF of {spec.dtype} with the bands {spec.labels}. Several at once are labelled in turn."


def _example() -> bytes:
    """Return a procedural scene as JPEG."""
    content = io.BytesIO()
    Image.fromarray(paint_scene(_EXAMPLE_SIDE, _EXAMPLE_SEED)[0]).save(content, "JPEG", quality=88)
    return content.getvalue()


def _facts(model: Held, content: bytes) -> list[tuple[str, str]]:
    """Return the rows about a model: what it is fed and gives, how good it is, and which file it is."""
    info, spec = model.info, model.info.input_spec
    facts = [
        ("Model", model.name),
        ("Classes", ", ".join(info.classes.names)),
        ("Fed", f"{spec.labels}, {spec.dtype}"),
        ("Ground resolution", f"{spec.resolution_m:g} m per pixel" if spec.resolution_m else "not known"),
        ("Trained on", info.data or "not known"),
        ("Scores", ", ".join(f"{name} {value:g}" for name, value in info.scores.items()) or "not known"),
        ("Network", f"{info.network}, {info.parameters:,} parameters, {info.precision}"),
        ("Model file", f"{len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}"),
        ("Written by", f"SkyStill {info.version}"),
    ]
    return facts


def _packages(packages: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    return [(name, f"{about['version']}, {about['license']}") for name, about in packages.items()]


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f'<tr><th scope="row">{_plain(name)}</th><td>{_plain(value)}</td></tr>' for name, value in rows)


def _plain(text: str) -> str:
    return escape(visible(text))
