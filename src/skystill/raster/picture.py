"""Read a picture, or a window of a raster, into memory: what training, evaluation and quantisation see.

The pixels come from `RasterSource`, as in prediction, except those of whole JPEG files.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from skystill.errors import DataError, SettingsError
from skystill.raster.source import RasterSource, gdal_environment, turned_note
from skystill.raster.turned import UPRIGHT, turn, turned_size
from skystill.raster.validity import Valid

Bounds = tuple[int, int, int, int]
"""Top, bottom, left and right in pixels, ends exclusive."""


@dataclass(frozen=True)
class Picture:
    """A picture in memory, upright.

    Args:
        image: (H, W, 3) uint8 RGB, 0 to 255.
        valid: (H, W) bool, False on nodata and on fully transparent pixels; None if all pixels are valid.
        notes: how bands, bit depth and orientation were handled. Each names the file.
    """

    image: npt.NDArray[np.uint8]
    valid: Valid | None
    notes: tuple[str, ...]


def read_whole(path: Path, bounds: Bounds | None = None) -> Picture:
    """Read a picture or a window of it.

    Args:
        path: the file.
        bounds: the window, in pixels of the upright picture; None reads all of it.

    Raises:
        DataError: the file is missing, damaged, or not an image that can be read as RGB.
    """
    with gdal_environment():
        source = _open_stored(path)
        try:
            stored, orientation = (source.height, source.width), source.orientation
            upright = turned_size(*stored, orientation)
            top, bottom, left, right = bounds if bounds and orientation == UPRIGHT else (0, stored[0], 0, stored[1])
            planes, valid = source.read(top, bottom, left, right)
        finally:
            source.close()
    if source.damaged:
        raise DataError(
            f"{path}: cannot be read as an image ({source.reason}; {source.damaged[0]}); replace the file or take it "
            "out."
        )
    if bounds is None and _is_jpeg(path) and planes.shape[0] == 3 and source.depth == 8:
        planes = _decode_jpeg(path)
    notes = list(source.notes)
    if orientation != UPRIGHT:
        notes.append(turned_note(str(path), orientation, stored, upright))
        planes, valid = turn(planes, orientation), None if valid is None else turn(valid, orientation)
        if bounds:
            here = np.s_[bounds[0] : bounds[1], bounds[2] : bounds[3]]
            planes, valid = planes[:, *here], None if valid is None else valid[here]
    return Picture(np.ascontiguousarray(planes.transpose(1, 2, 0)), valid, tuple(notes))


def _is_jpeg(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\xff\xd8"


def _decode_jpeg(path: Path) -> npt.NDArray[np.uint8]:
    """Decode a JPEG file by Pillow, as stored: (3, H, W).

    Its chroma differs from GDAL's, which prediction uses, where it is subsampled (docs/log.md). One decoder for both
    changes every training on JPEG files and every cached logit of them, and so is a step of its own.
    """
    with warnings.catch_warnings(), Image.open(path) as picture:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


def read_size(path: Path) -> tuple[int, int]:
    """Return height and width of a picture as `read_whole` gives it, without decoding it.

    Args:
        path: the file.

    Raises:
        DataError: the file is missing, or not an image that can be read as RGB.
    """
    source = _described(path)
    return turned_size(source.height, source.width, source.orientation)


def read_manner(path: Path) -> str:
    """Return how the bands of a file become pixels, as far as its colour tags, its bits and its orientation decide.

    It is an empty string if the first band, or the first three, are read as they are stored.

    Args:
        path: the file.

    Raises:
        DataError: the file is missing, or not an image that can be read as RGB.
    """
    source = _described(path)
    return "" if source.plain else f"bands {source.bands}, {source.depth} bits, orientation {source.orientation}"


def _described(path: Path) -> RasterSource:
    """Open a file and close it again: its size, bands and orientation are known afterwards, its pixels are not."""
    with gdal_environment():
        source = _open_stored(path)
        source.close()
    return source


def _open_stored(path: Path) -> RasterSource:
    try:
        return RasterSource(str(path), as_stored=True)
    except SettingsError as error:
        raise DataError(str(error)) from error
