"""Rasters that are refused before anything is read: bombs, huge blocks, and VRTs whose sources are gone."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from skystill.errors import DataError
from skystill.raster.opening import open_raster
from skystill.raster.size_cap import VARIABLE, max_image_values
from skystill.raster.turned import is_interlaced, is_progressive

_BOMB_PIXELS, _BOMB_RATIO = 2**28, 2_000  # deflate in PNG packs at most 1,032 bytes into one: 344 RGB pixels per byte
# A block of 8 x 8 pixels takes at least a bit of a JPEG, and deflate packs at most 1,032 bytes into one. Small pictures
# that were cut are cheap to read, with nodata for what is missing.
_WRITTEN_OUT = ("AAIGrid", "GRASSASCIIGrid", "GSAG")
_MANY_PIXELS, _JPEG_RATIO, _DEFLATE_RATIO = 2**24, 512, 1032
DECODER_BYTES = 2**31
"""Most memory in bytes that the decoder of a progressive JPEG may take."""


def refuse_unreadable(file: rasterio.DatasetReader, path: str) -> int:
    """Refuse files that no reader can read, or only with more memory than is sensible.

    Args:
        file: the raster.
        path: its name.

    Returns:
        the memory in bytes that the decoder holds besides the decoded blocks.

    Raises:
        DataError: the file is such a file.
    """
    _refuse_bombs(file, path)
    if file.driver in _WRITTEN_OUT:
        _read_in_order(file, path)
    if gone := _missing_sources(file, {path}):
        more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
        raise DataError(f"{path} is made of files that do not exist: {', '.join(gone[:3])}{more}. Bring them back.")
    if file.driver != "JPEG" or not Path(path).is_file():
        whole = file.driver in ("WEBP", "GIF", "BIGGIF") or (file.driver == "PNG" and is_interlaced(path))
        kind = np.dtype(file.dtypes[0]).itemsize if file.count else 1
        return 2 * file.count * kind * file.height * file.width if whole else 0
    held = 2 * file.count * file.height * file.width if is_progressive(path) else 0
    if held > DECODER_BYTES:
        raise DataError(
            f"{path} is a progressive JPEG of {file.width}x{file.height} pixels, whose decoder takes "
            f"{held / 2**30:.1f} GiB. Write it as a tiled GeoTIFF on a larger machine: "
            f"gdal_translate --config JPEGMEM {held // 2**20 + 1}M -co TILED=YES -co COMPRESS=DEFLATE IN OUT."
        )
    return held


def _missing_sources(file: rasterio.DatasetReader, seen: set[str]) -> list[str]:
    """Return the local files that a VRT, and the VRTs in it, are made of and that do not exist."""
    if file.driver != "VRT":
        return []
    gone: list[str] = []
    for name in file.files:
        if name in seen or ":" in name or name.startswith("/vsi"):
            continue
        seen.add(name)
        if not Path(name).exists():
            gone.append(name)
        elif name.lower().endswith(".vrt"):
            try:
                with open_raster(name) as inner:
                    gone.extend(_missing_sources(inner, seen))
            except RasterioError:
                continue  # the read says why
    return gone


def _read_in_order(file: rasterio.DatasetReader, path: str) -> None:
    """Read all rows of a grid that is written as text, from the first to the last.

    GDAL finds a row by reading all rows before it whose place it does not know. Behind a row that cannot be read it
    tries each of them again for each of the next: 30 rows further down that takes hours.

    Raises:
        DataError: a row cannot be read.
    """
    for row in range(file.height):
        try:
            file.read(1, window=((row, row + 1), (0, file.width)))
        except RasterioError as error:
            raise DataError(
                f"{path}: row {row} of {file.height} cannot be read ({error.__cause__ or error}). A grid that is "
                "written as text is read in order, so that nothing behind it can be. Get a whole copy."
            ) from error


def _least_bytes(file: rasterio.DatasetReader) -> float:
    """Return the least number of bytes that all pixels of a JPEG, a PNG or a grid in text take; 0 for other files."""
    pixels = float(file.height) * float(file.width)
    if file.driver == "JPEG":
        return pixels / _JPEG_RATIO
    if file.driver in _WRITTEN_OUT:
        return 2 * pixels  # a digit and a space
    if file.driver != "PNG":
        return 0
    bits = int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * np.dtype(file.dtypes[0]).itemsize))
    return pixels * int(file.count) * bits / 8 / _DEFLATE_RATIO


def _refuse_bombs(file: rasterio.DatasetReader, path: str) -> None:
    pixels = file.height * file.width
    if pixels == 0:
        raise DataError(f"{path} has no pixels ({file.width}x{file.height}).")
    if file.count == 0:
        raise DataError(f"{path} has no bands; give one of its subdatasets: {', '.join(file.subdatasets[:3])}.")
    on_disk = Path(path).stat().st_size if Path(path).is_file() else pixels
    if file.driver not in ("GTiff", "COG", "VRT") and pixels > _BOMB_PIXELS and pixels > _BOMB_RATIO * on_disk:
        raise DataError(
            f"{path} says it has {file.width}x{file.height} pixels in {on_disk:,} bytes: a decompression bomb. "
            "Convert it to a tiled GeoTIFF if it is real."
        )
    if pixels > _MANY_PIXELS and _least_bytes(file) > on_disk:
        raise DataError(
            f"{path} says it has {file.width}x{file.height} pixels, of which {on_disk:,} bytes of {file.driver} hold "
            "a small part at most: it was cut. Get a whole copy."
        )
    rows, columns = file.block_shapes[0]
    block = int(rows) * int(columns) * file.count * np.dtype(file.dtypes[0]).itemsize
    if block > max_image_values():  # in bytes: a block is held up to five times while it is decoded
        raise DataError(
            f"{path} is stored in blocks of {columns}x{rows} pixels, {block / 2**30:.2f} GiB when decoded, and is read "
            "with several times that. Rewrite it in tiles on a larger machine: gdal_translate -co TILED=YES "
            f"-co COMPRESS=DEFLATE IN OUT. With enough memory, {VARIABLE}={block} in the environment lets it pass."
        )
