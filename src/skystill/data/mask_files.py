"""Open a mask file: its numbers or its colours, as they are stored. Every error names the file."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from skystill.errors import DataError
from skystill.raster.files import check_regular
from skystill.raster.size_cap import check_size

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

GEOTIFF = frozenset({".tif", ".tiff"})
PICTURE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "JPEG2000")
"""What Pillow may take a file for. A mask is a picture whatever its name is; EPS, PDF and others are none."""
_MAYBE_LOSSY = ("WEBP", "JPEG2000")
_ROWS = 256  # of a large picture, taken at once
_COLOR_BANDS = 3  # numbers are looked up as colours, so that masks of numbers take as much memory
T = TypeVar("T")
Picture = npt.NDArray[np.uint8]
Index = npt.NDArray[np.integer[Any]]
Valid = npt.NDArray[np.bool_]
_GREYS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


@dataclass(frozen=True)
class MaskPixels:
    """The pixels of a mask file, before a class is looked up.

    Args:
        index: (H, W) integers, the numbers in a mask of one band; None in a mask of three bands.
        colors: uint8 RGB as a viewer shows it: the picture (H, W, 3) if there is no index, otherwise the table (N, 3)
            with the colour of every number of the index. An empty table means that numbers such as 1,000 are no
            colours.
        valid: (H, W) bool, False where a raster has no data; None if all pixels have data.
        lossy: whether the file is compressed in a way that changes colours and numbers, such as JPEG, or may be.
    """

    index: Index | None
    colors: Picture
    valid: Valid | None = None
    lossy: bool = False

    @property
    def picture(self) -> Picture:
        """(H, W, 3) uint8 RGB. The numbers of the mask must be colours (`has_colors`)."""
        return self.colors if self.index is None else self.colors[self.index]

    @property
    def has_colors(self) -> bool:
        """Whether the pixels are colours, as far as can be seen from the file."""
        return self.index is None or len(self.colors) > 0

    @property
    def is_grey(self) -> bool:
        """Whether all colours are greys."""
        parts = (self.colors[top : top + _ROWS] for top in range(0, len(self.colors), _ROWS))
        return all(bool((part == part[..., :1]).all()) for part in parts)

    @property
    def has_palette(self) -> bool:
        """Whether the numbers have a colour table that holds more than greys."""
        return self.index is not None and not self.is_grey


def read_mask(path: Path) -> MaskPixels:
    """Read the pixels of a mask file. Transparency is not looked at.

    Raises:
        DataError: the file is missing, damaged or too large (`check_size`), or it has a number or a type of bands that
            no mask has.
    """
    if path.suffix.lower() in GEOTIFF:
        return _of_raster(path, partial(_raster_pixels, path))
    opened = open_picture(path)
    bits = _bits_of_png(path)
    if bits == 16 and opened.mode != "I;16":
        return _of_raster(path, partial(_raster_pixels, path))  # Pillow would keep the upper 8 bits of colours
    lossy = opened.format == "JPEG" or (opened.format in _MAYBE_LOSSY and _of_raster(path, _says_lossy))
    ImageOps.exif_transpose(opened, in_place=True)  # as viewers show it
    if opened.mode == "LA":
        opened = opened.getchannel("L")
    if opened.mode not in ("P", "1", "L", "I", "I;16"):
        opened = opened if opened.mode == "RGB" else opened.convert("RGB")  # which would copy an RGB picture, too
        return MaskPixels(None, _bytes_of(opened), lossy=lossy)
    index = np.asarray(opened)
    if opened.mode == "P":
        table = np.array(opened.getpalette() or [], np.uint8).reshape(-1, 3)
        return MaskPixels(index, _whole_table(table, index), lossy=lossy)
    if opened.mode == "1":
        return MaskPixels(index.astype(np.uint8), _GREYS[::255], lossy=lossy)
    # Pillow stretches greys of 2 and 4 bits to 0..255; the file holds 0..3 and 0..15.
    step = {2: 85, 4: 17}.get(bits, 1)
    return MaskPixels(index // step, _GREYS[::step] if step > 1 else _grey_table(index), lossy=lossy)


def _bytes_of(picture: Image.Image) -> Picture:
    """Return an RGB picture as an array. Pillow would convert all of it at once, by way of two copies."""
    pixels = np.empty((picture.height, picture.width, 3), np.uint8)
    for top in range(0, picture.height, _ROWS):
        bottom = min(top + _ROWS, picture.height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, picture.width, bottom)))
    return pixels


def _whole_table(table: Picture, index: Index) -> Picture:
    """Return a colour table that covers all numbers of an index. Those beyond the end of the given one are black."""
    beyond = int(index.max(initial=0)) + 1 - len(table)
    return np.pad(table, ((0, beyond), (0, 0))) if beyond > 0 else table


def _grey_table(index: Index) -> Picture:
    """Return the greys 0 to 255 if the numbers are within, otherwise an empty table."""
    fits = index.dtype == np.uint8 or (index.size > 0 and index.min() >= 0 and index.max() <= 255)
    return _GREYS if fits else _GREYS[:0]


def open_picture(path: Path) -> Image.Image:
    """Open an image and decode all of it: a truncated file must fail here and not in the middle of training.

    Raises:
        DataError: the file is missing, damaged, too large or not an image.
    """
    check_regular(path)
    try:
        with warnings.catch_warnings():
            # Aerial images are large. At twice the number of pixels of this warning, Pillow still raises an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=PICTURE_FORMATS) as picture:
                check_size(path, picture.height, picture.width, _COLOR_BANDS)
                picture.load()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: cannot be read as an image ({error}); replace the file or take the pair out."
        ) from error
    return picture


def _says_lossy(source: "DatasetReader") -> bool:
    """Return whether numbers may be others than those that were written.

    JPEG 2000 without loss and with a part of its bits left out look the same: "LOSSLESS (possibly)".
    """
    said = source.tags(ns="IMAGE_STRUCTURE")
    return (
        said.get("COMPRESSION") in ("JPEG", "YCbCr JPEG")
        or said.get("COMPRESSION_REVERSIBILITY", "LOSSLESS") != "LOSSLESS"
        or float(said.get("MAX_Z_ERROR", "0")) >= 1  # of LERC
    )


def _bits_of_png(path: Path) -> int:
    """Return the bits per band (or per palette index) of a PNG file, 0 for other files."""
    with open(path, "rb") as file:
        head = file.read(25)
    return head[24] if head.startswith(b"\x89PNG") and len(head) == 25 else 0


def _of_raster(path: Path, ask: Callable[["DatasetReader"], T]) -> T:
    """Return the answer to a question on an open data set of rasterio.

    Raises:
        DataError: the file cannot be read.
    """
    from rasterio.errors import NotGeoreferencedWarning, RasterioError  # takes 0.4 s, so only for rasters

    from skystill.raster.opening import NO_TEXT, open_raster
    from skystill.raster.source import gdal_environment  # which bounds GDAL's cache

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a TIFF may have no position
            with gdal_environment(), open_raster(path) as source:
                return ask(source)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read: {NO_TEXT}") from error
    except RasterioError as error:
        raise DataError(f"{path}: cannot be read ({error}); replace the file or take the pair out.") from error


def _raster_pixels(path: Path, source: "DatasetReader") -> MaskPixels:
    """Return the pixels of an open data set of rasterio."""
    from rasterio.enums import ColorInterp, MaskFlags

    from skystill.raster.turned import read_orientation, turn

    count = source.count - (source.colorinterp[-1] == ColorInterp.alpha)
    if count not in (1, 3) and source.count != 4:
        raise DataError(
            f"{path}: {source.count} bands; a mask has one band of numbers, or three of colours. Write the band with "
            "the numbers alone."
        )
    chosen = [1] if count == 1 else [1, 2, 3]
    for height, width in (source.shape, source.block_shapes[0]):
        check_size(path, height, width, _COLOR_BANDS, np.dtype(source.dtypes[0]).itemsize)
    orientation = read_orientation(str(path), source)
    bands = turn(source.read(chosen), orientation)  # as its image is turned, and pictures of other formats are
    flags = source.mask_flag_enums[0]
    valid: Valid | None = None
    if not {MaskFlags.all_valid, MaskFlags.alpha} & set(flags) and source.driver != "PNG":
        valid = source.read_masks(chosen[0]) != 0
        for band in chosen[1:]:  # one at a time: they take as much memory as the bands
            valid |= source.read_masks(band) != 0
        valid = turn(valid, orientation)
    lossy = _says_lossy(source)
    if len(chosen) == 3:
        return MaskPixels(None, _bytes(path, bands).transpose(1, 2, 0), valid, lossy)
    index, valid = _whole_numbers(path, bands[0], valid)
    try:
        table = source.colormap(1)
    except ValueError:
        greys = _grey_table(index)
        is_negative = source.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"  # 0 is shown as white
        return MaskPixels(index, greys[::-1] if is_negative else greys, valid, lossy)
    colors = np.zeros((max(table) + 1, 3), np.uint8)
    for value, color in table.items():
        colors[value] = color[:3]
    return MaskPixels(index, _whole_table(colors, index), valid, lossy)


def _bytes(path: Path, bands: npt.NDArray[Any]) -> Picture:
    """Return colours of any type as bytes: 0 to 255 as they are, and 16 bits in which 255 is written as 65,535."""
    if bands.dtype == np.uint8:
        return bands
    wide, _ = _whole_numbers(path, bands, None)
    low, high = int(wide.min()), int(wide.max())
    if low >= 0 and high <= 255:
        return wide.astype(np.uint8)
    if low >= 0 and high <= 65535 and not (wide % 257).any():
        return (wide // 257).astype(np.uint8)
    raise DataError(
        f"{path}: colours of {bands.dtype} from {low:,} to {high:,}; a mask has colours from 0 to 255. "
        "Save it with 8 bits per band, or as one band of numbers."
    )


def _whole_numbers(path: Path, band: npt.NDArray[Any], valid: Valid | None) -> tuple[Index, Valid | None]:
    """Return the numbers of a band as integers, and where they are valid. Numbers of a float raster that are no data,
    and NaN, become 0.
    """
    if np.issubdtype(band.dtype, np.integer):
        return band, valid
    if np.issubdtype(band.dtype, np.complexfloating):
        raise DataError(f"{path}: {band.dtype} pixels; a mask holds whole numbers.")
    valid = ~np.isnan(band) if valid is None else valid & ~np.isnan(band)
    numbers = np.where(valid, band, 0).astype(np.float64)
    bad = numbers[~((numbers == np.floor(numbers)) & (np.abs(numbers) < 2**53))]
    if bad.size:
        raise DataError(
            f"{path}: {bad.size:,} pixels of {band.dtype} are no whole numbers, such as {bad[0]:g}; a mask holds whole "
            "numbers. Round them, or set the nodata value of pixels without a label."
        )
    return numbers.astype(np.int64), valid
