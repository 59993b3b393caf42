"""What a server says of a file, by which a change of it is found: no pixel is read for it."""

import contextlib
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import rasterio

from skystill.errors import SettingsError, first_few
from skystill.raster.gdal_functions import with_credentials
from skystill.raster.names import parts_of
from skystill.raster.opening import VRT_SUFFIX, files_of, is_remote, open_raster, reading_options, suffix_of
from skystill.raster.servers import PAUSES

_ARCHIVE = re.compile(r".*?\.(?:zip|kmz|tar|tgz|gz|7z|rar)(?=/|$)")
_STREAMING = re.compile(r"^(/vsi\w+)_streaming/")


class RemoteState(NamedTuple):
    """What a server says of a file. Each of these is empty if the server does not say it.

    Args:
        etag: the ETag, which changes with the content.
        modified: the Last-Modified.
        size: the length in bytes.
    """

    etag: str = ""
    modified: str = ""
    size: str = ""

    @property
    def is_certain(self) -> bool:
        """Whether a file of the same length would have another state."""
        return bool(self.etag or self.modified)

    def differs(self, other: "RemoteState") -> bool:
        """Return whether the server says something else now. What it does not say both times does not count."""
        return any(before and now and before != now for before, now in zip(self, other, strict=True))


def remote_file(name: str) -> str:
    """Return GDAL's name for a file on a server, or for the archive on a server that holds it.

    Args:
        name: a URL, or another name of GDAL, of a file on a server (`is_remote`).
    """
    found = parts_of(name)
    path = found.path if not found.before or found.path.startswith("/") else f"/{found.path}"
    archive = _ARCHIVE.match(path) if found.before and not found.before.endswith("{") else None
    return _STREAMING.sub(r"\1/", archive[0] if archive else path)


def ask_server(file: str, name: str) -> RemoteState:
    """Ask a server what it says of a file: one request without content, or a second one if no answer comes.

    Args:
        file: result of `remote_file`.
        name: the file or the raster as the user named it, by which credentials are found.
    """
    try:
        with rasterio.Env(**reading_options()):
            headers = with_credentials(name, _headers, file)
            if not headers:
                time.sleep(PAUSES[0])
                headers = with_credentials(name, _headers, file)
    except SettingsError:  # Windows
        headers = {}
    part = headers.get("content-range", "").rpartition("/")[2]
    return RemoteState(
        headers.get("etag", ""), headers.get("last-modified", ""), part or headers.get("content-length", "")
    )


def forget_kept(name: str) -> None:
    """Let GDAL forget what it keeps of a raster on a server, which may have been replaced since: it does not look.

    Args:
        name: the raster. Other names make no difference. Of a VRT, everything that servers sent is forgotten.
    """
    if not is_remote(name):
        return
    file = "" if suffix_of(name) == VRT_SUFFIX else remote_file(name)
    with contextlib.suppress(SettingsError):  # Windows
        with_credentials(name, _forget, file)


def files_on_servers(source: str) -> list[str]:
    """Return the files on servers of a raster there that is not open: itself and, if it is a VRT, what it is made of.

    Files beside it are left out: to find them takes several requests.
    """
    if not is_remote(source) or suffix_of(source) != VRT_SUFFIX:
        return [source]
    try:
        with rasterio.Env(**reading_options()), open_raster(source) as file:
            return [source, *files_of(file)]
    except Exception:  # noqa: BLE001 - what is wrong with an input, its reading reports
        return [source]


def uncertain_notes(files: Sequence[str], work: str | os.PathLike[str]) -> list[str]:
    """Return a note for unfinished work that goes on though nobody can know whether its source has changed.

    Args:
        files: files on servers that say nothing by which a change is found; no note if there are none.
        work: the folder of the unfinished work.
    """
    if not files:
        return []
    return [
        f"nobody could look whether {', '.join(first_few(files))} changed since the work was interrupted: the server "
        f"gives neither an ETag nor a Last-Modified. If it may have changed, delete {Path(work)} and begin again."
    ]


def _forget(library: Any, file: str) -> None:  # noqa: ANN401
    if file:
        library.VSICurlPartialClearCache(file.encode())
    else:
        library.VSICurlClearCache()


def _headers(library: Any, file: str) -> dict[str, str]:  # noqa: ANN401
    """Return the headers of the answer of a server, by their names in lower case. None if it does not answer."""
    found, headers = library.VSIGetFileMetadata(file.encode(), b"HEADERS", None), {}
    try:
        for line in _texts(found):
            key, _, value = line.partition("=")
            headers[key.lower()] = value.strip()
    finally:
        library.CSLDestroy(found)
    return headers


def _texts(found: Any) -> list[str]:  # noqa: ANN401 - a list of GDAL, which ends with nothing
    texts: list[str] = []
    while found and (one := found[len(texts)]) is not None:
        texts.append(one.decode(errors="backslashreplace"))
    return texts
