"""Whether a raster was written in full: GDAL says nothing if the disk was full when it closed a file."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import rasterio

from skystill.errors import DiskFull
from skystill.raster.opening import open_raster

_CHECKERS = 2
_SMALL = 2**18  # pixels; a thread would take longer to start than to read them
_PNG_END = b"IEND\xaeB`\x82"


def check_whole(path: Path) -> None:
    """Read every block of a raster, on two threads, and look for the blocks of its overviews.

    A block that GDAL could not write may be missing from the index of a GeoTIFF. It would be read as zeros.

    Args:
        path: a GeoTIFF without sparse blocks, or a PNG.

    Raises:
        DiskFull: a part is missing.
        RasterioError: a block cannot be read.
    """
    if path.suffix.lower() == ".png":
        with open(path, "rb") as file:
            file.seek(-min(len(_PNG_END), path.stat().st_size), 2)
            if file.read() != _PNG_END:
                raise DiskFull(path, "its end is missing")
        return
    with open_raster(path) as file:
        small = math.prod(file.shape) <= _SMALL
        if small:
            file.read()
        for level in (None, *range(len(file.overviews(1)))):
            _check_places(path, file, level)
    if not small:
        with ThreadPoolExecutor(_CHECKERS) as pool:
            list(pool.map(lambda part: _read_blocks(path, part), range(_CHECKERS)))


def _read_blocks(path: Path, part: int) -> None:
    """Read every block whose number, modulo the number of threads, is `part`."""
    with open_raster(path) as file:
        for _, window in itertools.islice(file.block_windows(1), part, None, _CHECKERS):
            file.read(window=window)


def _check_places(path: Path, file: rasterio.DatasetReader, level: int | None) -> None:
    """Check that every block of a level, None for the raster itself, has its place within the file."""
    factor = 1 if level is None else file.overviews(1)[level]
    sizes = [math.ceil(pixels / factor) for pixels in file.shape]
    rows, columns = (math.ceil(pixels / block) for pixels, block in zip(sizes, file.block_shapes[0], strict=True))
    size = path.stat().st_size
    for band, row, column in itertools.product(file.indexes, range(rows), range(columns)):
        begin, count = (
            file.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=band, ovr=level)
            for what in ("OFFSET", "SIZE")
        )
        if begin is None or count is None or int(begin) + int(count) > size:
            raise DiskFull(path, f"its block {column}, {row} is missing")
