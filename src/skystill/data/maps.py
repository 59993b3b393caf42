"""Find a map in a data folder: rasters with a vector file that labels them, presented as windows."""

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rasterio.errors import RasterioError

from skystill.data.vector_files import files_called
from skystill.errors import DataError, first_few
from skystill.raster.opening import VRT_SUFFIX, files_of, open_raster
from skystill.raster.picture import Bounds
from skystill.raster.source import gdal_environment

LABELS = "labels"
"""Name of the vector file without its extension."""
SIDES = (1024, 512, 256)
_MANY_WINDOWS = 64
_BLOCK = re.compile(r"#\d+-\d+$")
_SHARED = "/map"  # no name of a file holds a slash
_WINDOW_KEY = re.compile(r"(?P<name>.*)\[(\d+):(\d+),(\d+):(\d+)\]")


def find_labels(root: Path) -> list[Path]:
    """Return the vector files in a folder that would label a raster. A map has one."""
    return files_called(root, LABELS)


def find_rasters(root: Path, images: Sequence[Path], labels: Sequence[Path]) -> list[Path]:
    """Return the rasters of a map: the images directly in the folder, without those that a VRT there is made of.

    Args:
        root: the data folder.
        images: all images in it.
        labels: the vector files.

    Raises:
        DataError: there is none, or one cannot be opened, or there are several vector files.
    """
    if len(labels) > 1:
        raise DataError(f"{root} holds {' and '.join(path.name for path in labels)}.", mend="Keep one of them.")
    here = [path for path in images if path.parent == root]
    virtual = [path for path in here if path.suffix.lower() == VRT_SUFFIX]
    if not here:
        raise DataError(
            f"{root} holds {labels[0].name}, and no raster directly in it.", mend="Put the rasters beside it."
        )
    parts = set().union(*map(_parts, virtual)) if len(here) > 1 else set()
    return [path for path in here if path.resolve() not in parts]


def check_names(rasters: Sequence[Path]) -> None:
    """Check that the rasters of a map have different names, by which their windows are known.

    Raises:
        DataError: some have not.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for raster in rasters:
        by_stem[raster.stem].append(str(raster))
    if same := [", ".join(paths) for paths in by_stem.values() if len(paths) > 1]:
        raise DataError(
            f"rasters of a map have the same name but for folder or extension: {'; '.join(first_few(same, 5))}.",
            mend="Keep one of them, or rename one.",
        )


def name_all(rasters: Sequence[Path]) -> str:
    """Return the names of the rasters of a map in words: the first ones, and how many there are."""
    return ", ".join(first_few([path.name for path in rasters], 3))


def _parts(virtual: Path) -> set[Path]:
    """Return the other files that a VRT is read from."""
    try:
        with gdal_environment(), open_raster(virtual) as file:
            return {Path(name).resolve() for name in files_of(file)} - {virtual.resolve()}
    except RasterioError as error:
        raise DataError(f"{virtual}: cannot be opened as a raster ({error}).") from error


def map_windows(*sizes: tuple[int, int]) -> list[list[Bounds]]:
    """Return windows that cover each of some rasters, row by row.

    Their side is the largest of 1,024, 512 and 256 pixels of which there are at least 64 in all, so that there is
    something to split. They begin at multiples of the side, as the blocks of a file do. The last ones of a raster are
    up to half shorter or longer.

    Args:
        sizes: height and width of each raster.
    """
    for side in SIDES:
        cuts = [(_cuts(height, side), _cuts(width, side)) for height, width in sizes]
        if side == SIDES[-1] or sum((len(c[0]) - 1) * (len(c[1]) - 1) for c in cuts) >= _MANY_WINDOWS:
            break
    return [
        [(top, bottom, left, right) for top, bottom in pairwise(rows) for left, right in pairwise(columns)]
        for rows, columns in cuts
    ]


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


def block_name(name: str, row: int, column: int, shared: bool = False) -> str:
    """Return the name that a split gives to the windows of a block, such as ortho#03-11.

    Args:
        name: name of the raster.
        row: of the block.
        column: of the block.
        shared: whether several rasters have windows in the blocks. The name is then such as sheet_3/map#03-11.
    """
    return f"{name}{_SHARED if shared else ''}#{row:02}-{column:02}"


def block_of(key: str) -> str:
    """Return the name of the block of a window, or the key itself of anything else.

    Blocks of several rasters have names such as map#03-11: windows of different rasters may show the same ground.
    """
    named = window_of(key)
    return named[0].rpartition("/")[2] if named and _BLOCK.search(named[0]) else key


def raster_names(name: str) -> list[str]:
    """Return the names that a raster may have, from what stands before the brackets of a key of one of its windows."""
    without = _BLOCK.sub("", name)
    return list(dict.fromkeys([name, without, without.removesuffix(_SHARED)]))


def share_a_pixel(one: Bounds, other: Bounds) -> bool:
    """Return whether two windows overlap."""
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
