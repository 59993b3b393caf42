"""Pictures that are stored sideways: the EXIF orientation, and pictures turned as every viewer shows them.

The tags are found by walking through the files. Pillow would decode a whole PNG for them, and refuses large pictures.
"""

import struct
import tempfile
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image, JpegImagePlugin, TiffImagePlugin
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from skystill.errors import DiskFull
from skystill.raster.scratch import make_scratch
from skystill.run_folder import naming_failed_writes

Read = Callable[[int, int], tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]]
"""Reads rows from the first argument up to the second: planes (B, H, W), and valid (H, W) bool or None."""

_Kind = TypeVar("_Kind", bound=np.generic)

UPRIGHT = 1
_ORIENTATION_TAG = 274
_STRIPE = 512
_SWAPS_SIDES = frozenset({5, 6, 7, 8})
_ROWS_REVERSED, _COLUMNS_REVERSED = frozenset({3, 4, 7, 8}), frozenset({2, 3, 6, 7})  # after the sides are swapped


def read_orientation(path: str, file: rasterio.DatasetReader) -> int:
    """Return the EXIF orientation of a picture, 1 to 8.

    It is 1, upright, for a raster with a position and for a file that says nothing: a map is never turned.

    Args:
        path: the file.
        file: the same file, opened.
    """
    if file.crs is not None or not file.transform.is_identity or file.gcps[0] or file.rpcs:
        return UPRIGHT
    found: object = file.tags().get("EXIF_Orientation")  # of a JPEG
    if file.driver in _TAG_READERS and Path(path).is_file():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = _TAG_READERS[file.driver](path)
        except (OSError, SyntaxError, ValueError, KeyError, struct.error):
            return UPRIGHT  # GDAL can read the file, so only the tags are unreadable: no viewer turns it either
    text = str(found).strip()
    return int(text) if text in "12345678" and len(text) == 1 else UPRIGHT


def turned_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Return height and width of the upright picture."""
    return (width, height) if orientation in _SWAPS_SIDES else (height, width)


def turn(array: npt.NDArray[_Kind], orientation: int) -> npt.NDArray[_Kind]:
    """Turn a stored picture upright. The result is a view.

    Args:
        array: (..., H, W) in the order in which it is stored.
        orientation: EXIF orientation, 1 to 8.
    """
    if orientation in _SWAPS_SIDES:
        array = array.swapaxes(-1, -2)
    rows = np.s_[::-1] if orientation in _ROWS_REVERSED else np.s_[:]
    columns = np.s_[::-1] if orientation in _COLUMNS_REVERSED else np.s_[:]
    return array[..., rows, columns]


def turned_note(path: str, orientation: int, stored: tuple[int, int], upright: tuple[int, int]) -> str:
    """Return the note on a picture that was turned. Both sizes are height and width in pixels."""
    return (
        f"{path}: turned upright by its EXIF orientation {orientation}, as viewers show it: "
        f"{upright[1]}x{upright[0]} pixels, stored as {stored[1]}x{stored[0]}."
    )


def write_upright(
    read: Read, bands: tuple[int, np.dtype[Any]], height: int, width: int, orientation: int, owner: object
) -> Path:
    """Write an upright copy of a picture into a scratch file, stripe by stripe, so that memory does not grow with it.

    Args:
        read: reads rows of the stored picture.
        bands: number and data type of its bands.
        height: rows of the stored picture.
        width: its columns.
        orientation: EXIF orientation, 2 to 8.
        owner: the file is deleted with this object, at the latest when the process ends.

    Returns:
        a GeoTIFF of these bands and alpha, all of the same data type.
    """
    count, kind = bands
    with naming_failed_writes(Path(tempfile.gettempdir()), scratch=True):
        path = make_scratch(owner) / "upright.tif"
    tall, wide = turned_size(height, width, orientation)
    profile: dict[str, Any] = {"tiled": True, "blockxsize": _STRIPE, "blockysize": _STRIPE, "bigtiff": "if_safer"}
    backwards = orientation in (_COLUMNS_REVERSED if orientation in _SWAPS_SIDES else _ROWS_REVERSED)
    first = height % _STRIPE if backwards else 0  # so that stripes fill the blocks of the copy
    edges = sorted({0, first, *range(first, height, _STRIPE), height})
    with rasterio.open(
        path, "w", driver="GTiff", height=tall, width=wide, count=count + 1, dtype=kind, photometric="minisblack",
        **profile,
    ) as copy:  # fmt: skip
        copy.colorinterp = [*[ColorInterp.undefined] * count, ColorInterp.alpha]
        for top, bottom in pairwise(edges):
            planes, valid = read(top, bottom)
            shape = (1, bottom - top, width)
            alpha = np.full(shape, 255, kind) if valid is None else valid[None] * kind.type(255)
            stripe = turn(np.concatenate([planes, alpha]), orientation)
            start = height - bottom if backwards else top
            place = (start, 0) if orientation in _SWAPS_SIDES else (0, start)
            copy.write(stripe, window=Window(*place, stripe.shape[2], stripe.shape[1]))
    size, needed = path.stat().st_size, tall * wide * (count + 1) * kind.itemsize
    if size < needed:  # GDAL writes its last blocks when it closes the file, and says nothing if that fails
        raise DiskFull(path, f"{size:,} of at least {needed:,} bytes were written", scratch=True)
    return path


def is_progressive(path: str) -> bool:
    """Return whether a JPEG file is progressive, so that its decoder holds all of it."""
    try:
        with open(path, "rb") as file, JpegImagePlugin.JpegImageFile(file) as picture:
            return bool(picture.info.get("progressive"))
    except (OSError, SyntaxError, ValueError, struct.error):
        return False


def is_interlaced(path: str) -> bool:
    """Return whether a PNG file is interlaced, so that its decoder holds all of it."""
    try:
        with open(path, "rb") as file:
            head = file.read(29)
    except OSError:
        return False
    return head[:4] == b"\x89PNG" and head[28:29] == b"\x01"


def _png_orientation(path: str) -> object:
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            size, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return _exif_orientation(file.read(size))
            file.seek(size + 4, 1)
    return None


def _webp_orientation(path: str) -> object:
    with open(path, "rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            kind, size = struct.unpack("<4sI", head)
            if kind == b"EXIF":
                return _exif_orientation(file.read(size))
            file.seek(size + size % 2, 1)
    return None


def _exif_orientation(content: bytes) -> object:
    exif = Image.Exif()
    exif.load(content)
    return exif.get(_ORIENTATION_TAG)


def _tiff_orientation(path: str) -> object:
    """Read the tag of the first image. Pillow opens only some kinds of TIFF, but reads the tags of all."""
    with open(path, "rb") as file:
        head = file.read(8)
        head += file.read(8) if head[2:4] in (b"\x2b\x00", b"\x00\x2b") else b""  # BigTIFF
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        return tags.get(_ORIENTATION_TAG)


_TAG_READERS: dict[str, Callable[[str], object]] = {
    "GTiff": _tiff_orientation,
    "PNG": _png_orientation,
    "WEBP": _webp_orientation,
}
