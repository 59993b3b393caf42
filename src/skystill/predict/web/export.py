"""`skystill export --format html` and `--format web`: a page that labels images in a browser, and keeps them there."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from skystill.errors import SettingsError
from skystill.predict.web.check import check_page
from skystill.predict.web.folder import check_folder, folder_whole, make_folder
from skystill.predict.web.models import Held, check_alike, find_model, name_of, open_model
from skystill.predict.web.parts import (
    PAGE,
    Form,
    about_element,
    element,
    example_image,
    find_built,
    packed_parts,
    page_text,
    source,
    worker_scripts,
)
from skystill.progress import Note, OnProgress, ignore_progress, phase
from skystill.raster.overwriting import check_outputs
from skystill.run_folder import hold_output, written_whole
from skystill.settings import ExportSettings

_CONNECTS = "Your images stay on this computer: this page cannot connect to anything."


def export_page(settings: ExportSettings, on_progress: OnProgress = ignore_progress) -> Path:
    """Write a page that holds a model file, and try it in a browser where Chromium or Chrome is found.

    Args:
        settings: the run or the model file, and the page to write: one file, or a folder for a web server.
        on_progress: receives a `Progress` while the page is written, and a `Note` on how it does in the browser.

    Returns:
        The path of the page or of the folder.

    Raises:
        RunFolderError: the folder is not a run, or another process writes the page.
        ModelFileError: there is no model file, it is damaged, SkyStill did not write it, or the page does not give its
            classes in the browser.
        SettingsError: the suffix of the page does not fit, the folder holds other files, a setting is for other
            formats, the page would replace a file of the run, or skystill-web is not installed.
    """
    in_folder = settings.format == "web"
    _check_settings(settings)
    runs = [settings.run, *([settings.with_] if settings.with_ else [])]
    models = [find_model(run) for run in runs]
    check_outputs([("page", settings.out)], [file for _, own in models for file in own])
    built = find_built()
    held = [open_model(path, name_of(run, path)) for run, (path, _) in zip(runs, models, strict=True)]
    if len(held) == 2:
        check_alike(*held)
    out = settings.out.resolve() if in_folder else settings.out
    with hold_output(out, on_progress), (folder_whole if in_folder else written_whole)(out) as part:
        with phase(f"writing {settings.out.name}", on_progress):
            if in_folder:
                for name, content in make_folder(held, built).items():
                    (part / name).write_bytes(content)
            else:
                part.write_text(make_page(held, built), encoding="utf-8", errors="backslashreplace")
        with phase(f"trying {settings.out.name} in a browser", on_progress):
            said = check_page(part, [model.path for model in held])
    on_progress(Note(said))
    return settings.out


def _check_settings(settings: ExportSettings) -> None:
    """Check the settings that do not fit a page."""
    if settings.format == "web":
        check_folder(settings.out)
    elif settings.out.suffix.lower() != ".html":
        raise SettingsError(f"--out {settings.out}: a file for html ends in .html.")
    if settings.stac or settings.resolution is not None:
        given = "--stac" if settings.stac else "--resolution"
        raise SettingsError(f"{given} is for model files; leave it out. A page holds a model file as it is.")


def make_page(models: Sequence[Held], built: ModuleType) -> str:
    """Return a page in one file.

    Args:
        models: the model, and a second one that may be compared with it.
        built: the package `skystill_web`.

    Raises:
        SettingsError: skystill-web is damaged.
    """
    script, style = source(PAGE), source(("style.css",))
    content = packed_parts(models, built)
    if models[0].info.input_spec.is_colors:
        content["example-image"] = example_image()
    data = [
        *(element("application/octet-stream", name, base64.b64encode(raw).decode()) for name, raw in content.items()),
        about_element(models, files=None),
        *(element("text/plain", name, text) for name, text in worker_scripts().items()),
    ]
    styled, scripted = f"<style>{style}</style>", f"<script>{script}</script>"
    return page_text(models, built, Form(_policy(script, style), _CONNECTS, "", styled, scripted, data))


def _policy(script: str, style: str) -> str:
    """Return the content security policy: nothing is fetched or sent, and no other script and style runs."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        "default-src 'none'; connect-src 'none'; base-uri 'none'; form-action 'none'; worker-src blob:; "
        f"script-src 'sha256-{digests[0]}' 'wasm-unsafe-eval'; style-src 'sha256-{digests[1]}'"
    )
