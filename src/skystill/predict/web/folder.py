"""A page as a folder for a web server: files whose names hold digests of their content, and `index.html`.

Only `index.html` and the service worker have names that stay, so that all other files may be cached for ever.
"""

import base64
import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from skystill.errors import SettingsError
from skystill.predict.web.models import Held
from skystill.predict.web.parts import (
    ISOLATE,
    PAGE,
    Form,
    about_element,
    example_image,
    packed_parts,
    page_text,
    source,
    worker_scripts,
)
from skystill.run_folder import naming_failed_writes, sync

INDEX = "index.html"
POLICY = (
    "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; worker-src 'self' blob:; "
    "script-src 'self' 'wasm-unsafe-eval'; style-src 'self'"
)
"""Only the parts of the page are loaded, and only from its own server. Workers inherit it, as they are blobs."""
_CONNECTS = "Your images stay on this computer: this page loads its own parts from its server, and sends nothing."
_OPENING = "This page works only from a web server: its parts cannot be loaded from a file, or are still to come."
_DIGITS = 16  # of the digest in a name
_OWN = re.compile(rf"[a-z-]+\.[0-9a-f]{{{_DIGITS}}}\.(?:js|css|jpg|bin)|{re.escape(INDEX)}|{re.escape(ISOLATE)}")
_MADE = b'<meta name="generator" content="SkyStill '


def make_folder(models: Sequence[Held], built: ModuleType) -> dict[str, bytes]:
    """Return the files of a page by their names.

    Args:
        models: the model, and a second one that may be compared with it.
        built: the package `skystill_web`.

    Raises:
        SettingsError: skystill-web is damaged.
    """
    contents = {(name, "bin"): content for name, content in packed_parts(models, built).items()}
    contents |= {(name, "js"): text.encode() for name, text in worker_scripts().items()}
    contents |= {("page", "js"): source(PAGE).encode(), ("style", "css"): source(("style.css",)).encode()}
    if models[0].info.input_spec.is_colors:
        contents["example-image", "jpg"] = example_image()
    files = {name: _named(name, ending, content) for (name, ending), content in contents.items()}
    page, style = files["page"], files["style"]
    form = Form(
        POLICY,
        _CONNECTS,
        _OPENING,
        f'<link rel="stylesheet" href="{style["file"]}" integrity="{style["integrity"]}">',
        f'<script src="{page["file"]}" integrity="{page["integrity"]}"></script>',
        [about_element(models, files)],
    )
    index = page_text(models, built, form).encode(errors="backslashreplace")
    named = {files[name]["file"]: content for (name, _), content in contents.items()}
    return named | {ISOLATE: source((ISOLATE,)).encode(), INDEX: index}


def _named(name: str, ending: str, content: bytes) -> dict[str, str]:
    digest = hashlib.sha256(content)
    return {
        "file": f"{name}.{digest.hexdigest()[:_DIGITS]}.{ending}",
        "integrity": f"sha256-{base64.b64encode(digest.digest()).decode()}",
    }


def check_folder(folder: Path) -> None:
    """Check that a folder does not exist, is empty, or holds nothing but a page that was written before.

    Raises:
        SettingsError: it is a file, or holds other files.
    """
    if folder.suffix.lower() in (".html", ".htm") or (folder.exists() and not folder.is_dir()):
        raise SettingsError(f"--out {folder}: web writes a folder. Give the name of a folder, or --format html.")
    if not folder.exists() or not (names := sorted(path.name for path in folder.iterdir())):
        return
    others = [name for name in names if not _OWN.fullmatch(name) or (folder / name).is_dir()]
    if not others and INDEX in names and _MADE in (folder / INDEX).read_bytes():
        return
    shown = ", ".join((others or names)[:5])
    raise SettingsError(
        f"--out {folder} holds other files ({shown}), and the folder of a page holds nothing else. Choose another "
        "--out."
    )


@contextmanager
def folder_whole(folder: Path) -> Iterator[Path]:
    """Write a folder atomically: it appears complete or not at all. One that is there is replaced.

    Yields:
        An empty folder beside it. It is renamed to `folder` on success and deleted on failure.

    Raises:
        DiskFull: the folder cannot be written, or the disk is full.
    """
    part, old = (folder.with_name(f".{what}-{os.getpid()}-{folder.name}") for what in ("part", "old"))
    try:
        with naming_failed_writes(folder):
            _clear(folder)
            part.mkdir(parents=True)
            yield part
            for path in part.iterdir():
                sync(path)
            if folder.exists():
                folder.rename(old)
            try:
                part.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
    finally:
        for one in (part, old):
            shutil.rmtree(one, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Put in order what a process left that was killed: a folder that was to be replaced gets its name back."""
    for left in folder.parent.glob(f".*-{glob.escape(folder.name)}"):
        kind = re.fullmatch(rf"\.(part|old)-\d+-{re.escape(folder.name)}", left.name)
        if kind and kind[1] == "old" and not folder.exists():
            left.rename(folder)
        elif kind:
            shutil.rmtree(left)
