"""Rasters on servers: a part that does not come is asked for again, and is never taken for damage of the file."""

import time
from collections.abc import Callable
from typing import TypeVar

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from skystill.errors import DataError
from skystill.raster.opening import gdal_reason, is_remote, open_raster

PAUSES = (1.0, 5.0, 15.0)
"""Seconds before each further attempt. GDAL itself asks again only where a server says that it is busy."""
UNCACHED = ":".join(f"/vsi{name}/" for name in ("curl", "s3", "gs", "az", "adls", "oss", "swift"))
"""GDAL forgets all files of a system that is named when one of them is closed."""
_Read = TypeVar("_Read")


class ServerFailed(DataError):
    """A part of a raster on a server cannot be read."""


def open_or_ask_again(path: str) -> DatasetReader:
    """Open a raster; one on a server a second time where it fails.

    Raises:
        RasterioError: it cannot be opened.
    """
    try:
        return open_raster(path)
    except RasterioError:
        if not is_remote(path):
            raise
    _forget(path)
    return open_raster(path)


def _forget(path: str) -> None:
    """Let GDAL forget what it keeps of a raster on a server: it keeps an answer that was cut, too."""
    with rasterio.Env(CPL_VSIL_CURL_NON_CACHED=UNCACHED):
        open_raster(path).close()


def patiently(ask: Callable[[], _Read], failed: Callable[[_Read], bool]) -> _Read:
    """Return an answer of a server, or what it gives in the end: where it has failed, it is asked after each pause."""
    for seconds in PAUSES:
        answer = ask()
        if not failed(answer):
            return answer
        time.sleep(seconds)
    return ask()


def asked_again(path: str, reopen: Callable[[], None], read: Callable[[], _Read], reason: str) -> _Read:
    """Read what a server did not deliver, after each pause of `PAUSES`.

    Args:
        path: the raster.
        reopen: opens it again.
        read: reads the part.
        reason: why it failed before.

    Raises:
        ServerFailed: it fails each time.
    """
    for seconds in PAUSES:
        time.sleep(seconds)
        try:
            _forget(path)
            reopen()
            return read()
        except RasterioError as error:
            reason = gdal_reason(error)
        except DataError as error:  # it cannot even be opened
            reason = str(error).removeprefix(f"{path}: ").rstrip(".")
    raise ServerFailed(
        f"{path}: the server did not deliver a part of it, asked {1 + len(PAUSES)} times ({reason}). What is done is "
        "kept: run the same command later, with --resume. If the file itself is damaged, copy it to this computer, and "
        "predict the copy: damaged parts of local files are left out."
    )
