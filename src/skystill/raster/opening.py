"""The one way to open a raster: which drivers of GDAL may open a file is decided by its name, never by its content.

A VRT, a WMS description or a PDF that is called photo.jpg is refused. Only names that end in .vrt are read as VRTs, and
`vrt` checks every file that one names. GDAL opens overviews and masks beside a raster by their content; these must be
TIFFs.
"""

import functools
import os
import re
import stat
from pathlib import Path

from rasterio._err import CPLE_BaseError  # GDAL's own errors, which rasterio does not always wrap
from rasterio.env import ensure_env_with_credentials, getenv, hasenv
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from skystill.raster.around import too_much_around
from skystill.raster.files import special_beside, special_kind
from skystill.raster.grid_files import path_in_crs_of

PICTURE_DRIVERS = (
    "GTiff", "LIBERTIFF", "JPEG", "PNG", "BMP", "WEBP", "GIF", "BIGGIF", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID",
)  # fmt: skip
"""Drivers of GDAL for pictures. Each of these files may have the name of another: a PNG may be called photo.jpg."""

FILE_DRIVERS = (
    *PICTURE_DRIVERS, "HFA", "AAIGrid", "GRASSASCIIGrid", "GSAG", "GSBG", "GS7BG", "netCDF", "GRIB", "NITF", "ENVI",
    "EHdr", "DTED", "SRTMHGT", "USGSDEM", "PNM", "SGI", "PCRaster", "SAGA", "RMF", "RST", "XYZ", "BT", "GTX", "ECW",
    "MrSID", "JPEGXL", "AVIF", "HEIF",
)  # fmt: skip
"""Drivers for names with any other extension, which only the user can name: their pixels are in the file itself, or in
a file of the same name beside it. Services are left out, and drivers that follow names in a file, as HDF5 does."""

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".j2k", ".gif"})
VRT_SUFFIX = ".vrt"

NO_TEXT = "its metadata hold bytes that are no text in UTF-8. Write it again: gdal_translate IN OUT.tif."
"""The reason for a raster of which rasterio raises UnicodeDecodeError: GDAL hands on, and quotes, what is in a file."""
_REMOTE = re.compile(
    r"(?i)(^|\+)(https?|ftp|s3|gs|az|oss)://|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs|rsync)\b|/vsi\w+_streaming/"
)
_SERVER_OPTIONS = {
    "GDAL_HTTP_CONNECTTIMEOUT": "20", "GDAL_HTTP_LOW_SPEED_TIME": "20", "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "3", "GDAL_HTTP_RETRY_DELAY": "1",
}  # fmt: skip
"""How rasters on servers are read. Without them GDAL waits for five minutes for a server that does not answer, and for
ever for one that stops in the middle of an answer, and asks a busy one only once."""
_SIDE_FILES = (".ovr", ".OVR", ".msk", ".MSK")
_BASE = ":::BASE:::"  # GDAL's word for "beside the raster"
_HEAD_BYTES = 4096  # GDAL looks for the words below in the first 1,024
_OPENS_OTHERS = re.compile(rb"<(VRTDataset|GDALTileIndexDataset|GDAL_WMS|GDAL_WMTS|WMS|WCS|MRF_META)", re.IGNORECASE)


LISTING = "GDAL_DISABLE_READDIR_ON_OPEN"
"""GDAL's option for the files beside a raster."""
NOTHING_BESIDE = "EMPTY_DIR"
"""Its value with which GDAL looks for no file beside a raster."""


class RasterRefused(RasterioError):  # type: ignore[misc]  # rasterio carries no types
    """A raster that is not opened, because its content does not fit its name or names what it may not."""


def listing_of_folders() -> str:
    """Return the value of `LISTING`: folders are not listed. Inside an environment of `NOTHING_BESIDE` it is kept."""
    outer = getenv() if hasenv() else {}
    return NOTHING_BESIDE if outer.get(LISTING) == NOTHING_BESIDE else "TRUE"


def is_remote(name: str) -> bool:
    """Return whether a name of GDAL is that of a file on a server."""
    return _REMOTE.search(name) is not None


def reading_options() -> dict[str, str]:
    """Return the options of GDAL for folders, which are not listed, and those for servers that nobody else sets.

    World files are still found.
    """
    servers = {name: value for name, value in _SERVER_OPTIONS.items() if name not in os.environ}
    return {LISTING: listing_of_folders(), **servers}


def is_plain(name: str) -> bool:
    """Return whether a name is a path, and neither a URL nor another name of GDAL, such as /vsizip/."""
    return "://" not in name and not name.startswith("/vsi")


def is_text(name: str) -> bool:
    """Return whether a name can be written in UTF-8. The names of files may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def suffix_of(name: str) -> str:
    """Return the extension of a name of GDAL in lower case, without what follows the question mark of a URL."""
    return os.path.splitext(name.split("?", 1)[0] if "://" in name else name)[1].lower()  # noqa: PTH122 - fast


def drivers_of(name: str) -> tuple[str, ...]:
    """Return the drivers of GDAL that may open a file of this name."""
    suffix = suffix_of(name)
    if suffix == VRT_SUFFIX:
        return ("VRT",)
    return PICTURE_DRIVERS if suffix in PICTURE_SUFFIXES else FILE_DRIVERS


def open_raster(name: str | os.PathLike[str]) -> DatasetReader:
    """Open a raster to read it. Every reader of rasters opens them here.

    Args:
        name: a path, a URL, or another name of GDAL, as the user wrote it or as it was found in a folder.

    Raises:
        RasterioError: there is no such file, or the drivers for its name cannot open it.
        RasterRefused: its name is no UTF-8, it names files that it may not (`skystill.raster.vrt`), a file beside it is
            no TIFF, it is a named pipe, a socket or a device, one lies in the place of a file beside it, or too much
            stands around its pixels (`skystill.raster.around`).
    """
    name = os.fspath(name)
    if not is_text(name):
        raise RasterRefused("the bytes of its name are no text in UTF-8, which GDAL cannot open. Rename it.")
    _refuse_special(name)
    if is_plain(name) and os.path.isfile(name) and (reason := too_much_around(name)):  # noqa: PTH113
        raise RasterRefused(reason)
    if suffix_of(name) == VRT_SUFFIX and not is_remote(name):
        from skystill.raster.vrt import check_vrt  # it opens the sources here

        check_vrt(name)
    return _open(name, drivers_of(name))


def check_named(name: str, by: str) -> None:
    """Check a file that another file names, or that lies beside it, and that GDAL will open by its content.

    Args:
        name: the file. It exists.
        by: the file that names it.

    Raises:
        RasterRefused: the drivers for its name cannot open it, or its content could be taken for that of another kind.
    """
    try:
        if is_plain(name):
            state = os.stat(name)  # noqa: PTH116 - a VRT may name many thousands
            if not stat.S_ISREG(state.st_mode):
                raise RasterRefused(f"it is {special_kind(name) or 'no file'}")
            _check_named(name, state.st_mtime_ns, state.st_size, state.st_ino)
        else:
            _check_named(name, 0, 0, 0)
    except (RasterioError, OSError) as error:
        raise RasterRefused(f"{by} uses {name}, which is not what its name says: {error}") from error


@functools.lru_cache(maxsize=2**16)
def _check_named(name: str, changed: int, size: int, inode: int) -> None:  # the numbers are only part of the key
    head = _head(Path(name), _HEAD_BYTES) if is_plain(name) and suffix_of(name) != VRT_SUFFIX else b""
    if _OPENS_OTHERS.search(head):
        raise RasterRefused(f"{name} begins as a file that names other files.")
    tiff = name.endswith(_SIDE_FILES)
    (_open(name, PICTURE_DRIVERS[:2]) if tiff else open_raster(name)).close()


@ensure_env_with_credentials  # type: ignore[untyped-decorator]  # as rasterio.open does
def _open(name: str, drivers: tuple[str, ...]) -> DatasetReader:
    """Open a raster with one of these drivers, and check what GDAL opens with it."""
    plain = is_plain(name)
    try:
        # rasterio.open takes only one driver
        file = DatasetReader(Path(name) if plain and os.path.exists(name) else name, driver=list(drivers))  # noqa: PTH110
    except UnicodeDecodeError as error:
        raise RasterRefused(NO_TEXT) from error
    except RasterioError as error:
        hint = _hint(name, drivers) if plain and Path(name).is_file() else ""
        raise RasterRefused(f"{str(error).rstrip('.')}{hint}") from error
    try:
        _check_beside(name, file)
    except UnicodeDecodeError as error:
        file.close()
        raise RasterRefused(NO_TEXT) from error
    except CPLE_BaseError as error:
        file.close()
        raise RasterRefused(f"its metadata are damaged: {error}") from error
    except BaseException:
        file.close()
        raise
    return file


def _check_beside(name: str, file: DatasetReader) -> None:
    """Check the files that GDAL opens with a raster."""
    file.colorinterp  # noqa: B018 - GDAL parses metadata now, and a message that quotes bytes of them raises
    if grid := path_in_crs_of(file.crs, file.gcps[1]):
        raise RasterRefused(
            f"its CRS names the grid file {grid[:200]}, which is a path; it may name those that come with PROJ only. "
            "Give it another: gdal_translate -a_srs EPSG:CODE IN OUT.tif."
        )
    if is_plain(name):
        for suffix in _SIDE_FILES:
            if os.path.exists(name + suffix):  # noqa: PTH110 - four times for each image
                check_named(name + suffix, name)
    overviews = file.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if overviews:
        _check_overviews(name, overviews)
    if file.driver == "netCDF":
        _check_classic(name, file.files)
    if file.driver == "VRT" and is_remote(name):
        from skystill.raster.vrt import check_remote_vrt

        check_remote_vrt(name, file.tags(ns="xml:VRT").get("xml:VRT", ""))


def files_of(file: DatasetReader) -> list[str]:
    """Return all files that are read for a raster: itself, the files beside it, and the sources of a VRT.

    Args:
        file: the raster. A source that cannot be opened counts as one file of that name.
    """
    found: dict[str, None] = dict.fromkeys(file.files)
    waiting = [name for name in found if name.lower().endswith(VRT_SUFFIX) and name != file.name]
    while waiting:
        try:
            with open_raster(waiting.pop()) as inner:
                files = [name for name in inner.files if name not in found]
        except Exception:  # noqa: BLE001 - what is wrong with a source, its reading reports
            continue
        found.update(dict.fromkeys(files))
        waiting.extend(name for name in files if name.lower().endswith(VRT_SUFFIX))
    return list(found)


def gdal_reason(error: BaseException) -> str:
    """Return GDAL's own words for an error. Rasterio's "see previous exception" stands before them."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).rstrip(".")


def _refuse_special(name: str) -> None:
    """Refuse named pipes, sockets and devices, also in the place of files that GDAL opens beside a raster."""
    if not is_plain(name):
        return
    for path in (name, special_beside(name, PICTURE_SUFFIXES)):
        if path is not None and (kind := special_kind(path)):
            raise RasterRefused(f"{path} is {kind}, not a file. Write its content to a file, or take it away.")


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _check_classic(name: str, files: list[str]) -> None:
    """Check that a netCDF file is not stored as HDF5, which can take its values from any file that it names."""
    for path in map(Path, files or [name]):
        if not path.is_file() or _head(path, 3) != b"CDF":
            raise RasterRefused(
                f"{path} is stored as HDF5, which can take values from other files that it names, so only netCDF files "
                "of the classic kinds are opened. If you trust the file, convert it: gdal_translate IN OUT.tif."
            )


def _hint(name: str, drivers: tuple[str, ...]) -> str:
    if drivers == ("VRT",):
        return ". A file that ends in .vrt must be a VRT."
    if drivers == PICTURE_DRIVERS:
        return f". A file that ends in {suffix_of(name)} must be a TIFF, JPEG, PNG, BMP, WebP, JPEG 2000 or GIF."
    return ". Convert it: gdal_translate IN OUT.tif."


def _check_overviews(name: str, overviews: str) -> None:
    """Check the file of overviews that the metadata of a raster names. It must lie beside it and be a TIFF."""
    beside = overviews.removeprefix(_BASE)
    if not overviews.startswith(_BASE) or Path(beside).name != beside or not beside.endswith(_SIDE_FILES):
        raise RasterRefused(
            f"its metadata name the file {overviews} for overviews; these must lie beside it, in "
            f"{Path(name).name}.ovr. Write the raster again: gdal_translate IN OUT.tif."
        )
    if is_plain(name) and Path(name).with_name(beside).exists():
        check_named(str(Path(name).with_name(beside)), name)
