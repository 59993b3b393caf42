"""Find a map in a data folder: one raster with a vector file that labels it, presented as windows."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rasterio.errors import RasterioError

from skystill.data.vector_files import DRIVERS
from skystill.errors import DataError
from skystill.raster.opening import VRT_SUFFIX, open_raster
from skystill.raster.picture import Bounds
from skystill.raster.source import files_of, gdal_environment

LABELS = "labels"
"""Name of the vector file without its extension."""
SIDES = (1024, 512, 256)
_MANY_WINDOWS = 64
_BLOCK = re.compile(r"#\d+-\d+$")
_WINDOW_KEY = re.compile(r"(?P<name>.*)\[(\d+):(\d+),(\d+):(\d+)\]")


def find_labels(root: Path) -> list[Path]:
    """Return the vector files in a folder that would label a raster. A map has one."""
    return [path for suffix in DRIVERS if (path := root / (LABELS + suffix)).is_file()]


def find_raster(root: Path, images: Sequence[Path], labels: Sequence[Path]) -> Path:
    """Return the raster of a map: the only image directly in the folder, or the only VRT, made of all others.

    Args:
        root: the data folder.
        images: all images in it.
        labels: the vector files.

    Raises:
        DataError: there is none, it is not clear which one it is, or there are several vector files.
    """
    if len(labels) > 1:
        raise DataError(f"{root} holds {' and '.join(path.name for path in labels)}.", mend="Keep one of them.")
    here = [path for path in images if path.parent == root]
    virtual = [path for path in here if path.suffix.lower() == VRT_SUFFIX]
    chosen = here if len(here) == 1 else virtual
    if len(chosen) == 1 and not (others := _not_part(here, chosen[0])):
        return chosen[0]
    found = f"{len(here)} rasters that it could label" if here else "no raster directly in it"
    if len(chosen) == 1:
        found = f"{chosen[0].name}, which is not made of {', '.join(path.name for path in others[:5])}"
    raise DataError(
        f"{root} holds {labels[0].name}, and {found}.",
        mend="Keep one raster there, or make one of all: gdalbuildvrt -addalpha map.vrt *.tif",
    )


def _not_part(files: Sequence[Path], raster: Path) -> list[Path]:
    """Return the files that a raster is not read from."""
    try:
        with gdal_environment(), open_raster(raster) as file:
            parts = {Path(name).resolve() for name in files_of(file)}
    except RasterioError as error:
        raise DataError(f"{raster}: cannot be opened as a raster ({error}).") from error
    return [path for path in files if path.resolve() not in parts]


def map_windows(height: int, width: int) -> list[Bounds]:
    """Return windows that cover a raster, row by row.

    Their side is the largest of 1,024, 512 and 256 pixels of which there are at least 64, so that there is something to
    split. They begin at multiples of the side, as the blocks of a file do. The last ones are up to half shorter or
    longer.
    """
    cuts = [(_cuts(height, side), _cuts(width, side)) for side in SIDES]
    rows, columns = next((c for c in cuts if (len(c[0]) - 1) * (len(c[1]) - 1) >= _MANY_WINDOWS), cuts[-1])
    return [(top, bottom, left, right) for top, bottom in pairwise(rows) for left, right in pairwise(columns)]


def _cuts(size: int, side: int) -> list[int]:
    return [*range(0, max(1, int(size / side + 0.5)) * side, side), size]


def window_key(name: str, bounds: Bounds, size: tuple[int, int]) -> str:
    """Return the key of a window, such as ortho[0000:1024,2048:3072]: rows, then columns. Keys sort as they are read.

    Args:
        name: name of the raster.
        bounds: the window.
        size: height and width of the raster.
    """
    return _key(name, bounds, len(str(max(size))))


def cut_key(key: str, bounds: Bounds, name: str | None = None) -> str:
    """Return the key of another window of the same raster.

    Args:
        key: of a window.
        bounds: the other window.
        name: what stands before the brackets; None keeps it.
    """
    known = _WINDOW_KEY.fullmatch(key)
    assert known is not None, key  # noqa: S101 - only windows are cut
    return _key(known["name"] if name is None else name, bounds, len(known[2]))


def _key(name: str, bounds: Bounds, digits: int) -> str:
    top, bottom, left, right = (f"{value:0{digits}}" for value in bounds)
    return f"{name}[{top}:{bottom},{left}:{right}]"


def window_of(key: str) -> tuple[str, Bounds] | None:
    """Return the name of the raster and the bounds of a key of a window, or None if it is another key."""
    found = _WINDOW_KEY.fullmatch(key)
    if found is None:
        return None
    top, bottom, left, right = (int(value) for value in found.groups()[1:])
    return found["name"], (top, bottom, left, right)


def block_name(name: str, row: int, column: int) -> str:
    """Return the name that a split gives to the windows of a block, such as ortho#03-11."""
    return f"{name}#{row:02}-{column:02}"


def block_of(key: str) -> str:
    """Return the name of the block of a window, or the key itself of anything else."""
    named = window_of(key)
    return named[0] if named and _BLOCK.search(named[0]) else key


def share_a_pixel(one: Bounds, other: Bounds) -> bool:
    """Return whether two windows overlap."""
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
