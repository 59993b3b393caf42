"""Read a picture, or a window of a raster, into memory: what training, evaluation and quantisation see.

The pixels come from `RasterSource`, as in prediction.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.errors import DataError
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.kept_open import open_source
from skystill.raster.opening import NO_TEXT
from skystill.raster.size_cap import check_size
from skystill.raster.source import RasterSource, gdal_environment, upright_size
from skystill.raster.tiled_copy import find_copy
from skystill.raster.turned import UPRIGHT, turn, turned_note, turned_size
from skystill.raster.validity import Valid

Bounds = tuple[int, int, int, int]
"""Top, bottom, left and right in pixels, ends exclusive."""

_CACHED_BYTES = 2**18  # of rows that are copied band by band: they stay in the cache of a core


@dataclass(frozen=True)
class Picture:
    """A picture in memory, upright.

    Args:
        image: (H, W, B) in the data type of the spec.
        valid: (H, W) bool, False on nodata and on fully transparent pixels; None if all pixels are valid.
        notes: how bands, bit depth and orientation were handled. Each names the file.
    """

    image: npt.NDArray[Any]
    valid: Valid | None
    notes: tuple[str, ...]


def read_whole(path: Path, bounds: Bounds | None = None, spec: InputSpec = RGB) -> Picture:
    """Read a picture or a window of it.

    Args:
        path: the file.
        bounds: the window, in pixels of the upright picture; None reads all of it.
        spec: what the network is fed.

    Raises:
        DataError: the file is missing, damaged or too large (`check_size`), or not an image that can be read by the
            spec.
    """
    copy = find_copy(path, spec)
    if copy is not None and bounds is not None:
        planes, valid = copy.read(bounds, spec)
        return Picture(interleaved(planes), valid, ())
    with gdal_environment(), _reading(path, spec, bounds is not None) as source:
        stored, orientation = (source.height, source.width), source.orientation
        upright = turned_size(*stored, orientation)
        window = bounds if bounds and orientation == UPRIGHT else None
        top, bottom, left, right = window or (0, stored[0], 0, stored[1])
        # A block is decoded as a whole, and may be larger than the image.
        for height, width in ((bottom - top, right - left), *(() if window else (source.block_shape,))):
            check_size(path, height, width, source.planes, source.kind.itemsize)
        planes, valid = source.read(top, bottom, left, right)
        source.states.check("what is read")
    if source.damaged:
        raise DataError(
            f"{path}: cannot be read as an image ({source.reason}; {source.damaged[0]}); replace the file or take it "
            "out."
        )
    notes = list(source.notes)
    if orientation != UPRIGHT:
        notes.append(turned_note(str(path), orientation, stored, upright))
        planes, valid = turn(planes, orientation), None if valid is None else turn(valid, orientation)
        if bounds:
            here = np.s_[bounds[0] : bounds[1], bounds[2] : bounds[3]]
            planes, valid = planes[:, *here], None if valid is None else valid[here]
    return Picture(interleaved(planes), valid, tuple(notes))


def interleaved(planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return planes (B, H, W) as an image (H, W, B). Row by row, it takes a quarter of the time of numpy's own copy."""
    image = np.empty((*planes.shape[1:], len(planes)), planes.dtype)
    rows = max(1, _CACHED_BYTES * len(image) // max(1, image.nbytes))
    for top in range(0, len(image), rows):
        for band, plane in enumerate(planes):
            image[top : top + rows, :, band] = plane[top : top + rows]
    return image


def read_size(path: Path, spec: InputSpec = RGB) -> tuple[int, int]:
    """Return height and width of a picture as `read_whole` gives it, without decoding it.

    Args:
        path: the file.
        spec: what the network is fed.

    Raises:
        DataError: the file is missing, or not an image that can be read by the spec.
    """
    return read_size_and_stretch(path, spec)[0]


def read_size_and_stretch(path: Path, spec: InputSpec = RGB) -> tuple[tuple[int, int], bool]:
    """Return what `read_size` does, and whether bands of more than 8 bits are stretched to be read as colours.

    The arguments and the errors are those of `read_size`.
    """
    source = _described(path, spec)
    stretched = source.depth > 8 and source.scale not in (None, (0.0, 2.0**source.depth - 1))  # a palette is not
    return turned_size(source.height, source.width, source.orientation), stretched


def raster_size(path: Path) -> tuple[int, int]:
    """Return height and width of a picture or raster of any bands, upright, without decoding it.

    Raises:
        DataError: the file is missing, or not a raster.
    """
    with gdal_environment():
        return upright_size(str(path))


def read_manner(path: Path, spec: InputSpec = RGB) -> str:
    """Return how the bands of a file become pixels, for keys of caches: two files of the same bytes may differ in it.

    It is an empty string for colours of which the first band, or the first three, are read as they are stored.

    Args:
        path: the file.
        spec: what the network is fed.

    Raises:
        DataError: the file is missing, or not an image that can be read by the spec.
    """
    source = _described(path, spec)
    if source.plain:
        return ""
    manner = f"bands {source.bands}, {source.depth} bits, orientation {source.orientation}"
    return f"{manner}, {spec.reading}" if spec.reading else manner


def off_scale(path: Path, spec: InputSpec) -> str | None:
    """Return in a sentence why the values of a file are not on the scale of the training images of a network.

    Args:
        path: the file.
        spec: what the network is fed, with the statistics of its training images. Colours in bytes pass.

    Returns:
        None if they are on this scale, or the file cannot be opened, which is said elsewhere.
    """
    try:
        with gdal_environment(), _reading(path, spec, keep=False) as source:
            return source.off_scale()
    except DataError:
        return None


def is_jpeg(path: Path) -> bool:
    """Return whether a file begins as a JPEG does."""
    with open(path, "rb") as file:
        return file.read(2) == b"\xff\xd8"


def _described(path: Path, spec: InputSpec) -> RasterSource:
    """Open a file and close it again: its size, bands and orientation are known afterwards, its pixels are not."""
    with gdal_environment(), _reading(path, spec, keep=False) as source:
        return source


@contextlib.contextmanager
def _reading(path: Path, spec: InputSpec, keep: bool) -> Iterator[RasterSource]:
    try:
        with open_source(path, spec, keep) as source:
            yield source
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as an image: {NO_TEXT}") from error
