"""The grid of a mosaic: what its file says, where rasters lie on it, and in which order they are laid."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine

from skystill.errors import DataError, SettingsError, first_few, shortened
from skystill.parsing import built_from, read_yaml
from skystill.raster.grid_files import path_in_crs
from skystill.raster.opening import open_raster
from skystill.raster.source import gdal_environment

Box = tuple[float, float, float, float]
"""Left, bottom, right and top in the CRS of a grid."""
Floats = npt.NDArray[np.float64]
Order = Literal["first", "last", "newest", "oldest"]

_ORDERS = ("first", "last", "newest", "oldest")
_KEYS = frozenset({"crs", "resolution", "extent", "order"})
_MOST_SIDE = 20_000_000  # pixels: the Earth at 2 m
_WHOLE = 1e-6  # of a pixel: how far an extent may be from a whole number of pixels, for each pixel of its side
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")  # 5e-06, which YAML 1.1 takes for a text
_CELLS = 32  # cells of the lattice, across and down, by which the place of a raster is found


@dataclass(frozen=True)
class GridFile:
    """What the file of `--mosaic` says.

    Args:
        path: the file.
        crs: CRS of the mosaic.
        resolution: width and height of a pixel in units of the CRS.
        extent: bounds of the mosaic; None for those of all rasters together.
        order: which raster is on top: the first or the last one given, the newest or the oldest.
    """

    path: Path
    crs: CRS
    resolution: tuple[float, float]
    extent: Box | None
    order: Order


@dataclass(frozen=True)
class MosaicGrid:
    """The pixels of a mosaic, with north at the top.

    Args:
        crs: its CRS.
        transform: place in pixels to coordinates of the CRS.
        height: rows.
        width: columns.
    """

    crs: CRS
    transform: Affine
    height: int
    width: int

    def box(self, top: int, bottom: int, left: int, right: int) -> Box:
        """Return the bounds of a window, which is given by its rows and columns; ends are exclusive."""
        to = self.transform
        return to.c + left * to.a, to.f + bottom * to.e, to.c + right * to.a, to.f + top * to.e

    @property
    def bounds(self) -> Box:
        """The bounds of all of it."""
        return self.box(0, self.height, 0, self.width)


@dataclass(frozen=True)
class Place:
    """Where a raster lies in the CRS of a grid.

    Args:
        source: the raster.
        box: its bounds there, by points at even distances; None if none of them has a place there. Longitudes may lie
            beyond 180 degrees.
        reach: how far it may reach beyond its bounds between these points, across and down.
        turn: a whole turn in units of the CRS, by which the raster may also be moved; 0 if the CRS is no geographic
            one.
    """

    source: str
    box: Box | None
    reach: tuple[float, float]
    turn: float

    def touches(self, other: Box, reached: bool = False) -> bool:
        """Return whether the raster overlaps with bounds.

        Args:
            other: the bounds.
            reached: whether to count what it may reach. Then no pixel is missed, and some are not there.
        """
        if self.box is None:
            return False
        left, bottom, right, top = self.box
        across, down = self.reach if reached else (0.0, 0.0)
        if bottom - down >= other[3] or top + down <= other[1]:
            return False
        turns: tuple[float, ...] = (0.0,)
        if self.turn:
            middle = ((other[0] + other[2]) - (left + right)) / 2
            nearest = round(middle / self.turn)
            turns = tuple(self.turn * (nearest + step) for step in (-1, 0, 1))
        return any(left + turn - across < other[2] and right + turn + across > other[0] for turn in turns)


def read_grid_file(path: Path) -> GridFile:
    """Read the file of `--mosaic`.

    Raises:
        SettingsError: it cannot be read, or a value cannot be used.
    """

    def refuse(reason: str) -> SettingsError:
        return SettingsError(
            f"--mosaic {path}: {reason}. Write crs (such as EPSG:32632) and resolution, and perhaps extent (left, "
            "bottom, right, top) and order (first, last, newest, oldest)."
        )

    if not path.is_file():
        raise refuse("no such file")
    content = read_yaml(path, refuse)
    if not isinstance(content, dict) or not {"crs", "resolution"} <= set(content):
        raise refuse("it lacks crs or resolution")
    if unknown := sorted(str(key) for key in content if key not in _KEYS):
        raise refuse(f"it has no use for {shortened(', '.join(unknown))}")
    return built_from(content, lambda found: _build(path, found), refuse)


def _build(path: Path, content: Mapping[str, Any]) -> GridFile:
    """Return the content of a grid file; raises a ValueError with the reason if a value cannot be used."""
    resolution = _numbers(content["resolution"], "resolution", (1, 2))
    if min(resolution) <= 0:
        raise ValueError("its resolution is not above 0")
    across, down = resolution[0], resolution[-1]
    order = content.get("order", "first")
    if order not in _ORDERS:
        raise ValueError(f"its order is {shortened(repr(order), 60)}")
    extent = None
    if content.get("extent") is not None:
        left, bottom, right, top = extent = _box(_numbers(content["extent"], "extent", (4,)))
        if not (left < right and bottom < top):
            raise ValueError(f"its extent {list(extent)} is empty")
        for size, pixel, side in ((right - left, across, "wide"), (top - bottom, down, "high")):
            if abs(size / pixel - round(size / pixel)) > _WHOLE * max(1.0, size / pixel) or round(size / pixel) < 1:
                raise ValueError(
                    f"its extent is {size:.10g} {side}, which is no whole number of pixels of {pixel:.10g}"
                )
    return GridFile(path, _crs(content["crs"]), (across, down), extent, order)


def _numbers(value: object, name: str, counts: Sequence[int]) -> list[float]:
    found = value if isinstance(value, list) else [value]
    found = [float(one) if isinstance(one, str) and _EXPONENT.fullmatch(one) else one for one in found]
    numbers = [float(one) for one in found if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) < len(found) or len(found) not in counts or not all(map(math.isfinite, numbers)):
        wanted = " or ".join(map(str, counts))
        raise ValueError(f"its {name} is {shortened(repr(value), 80)}; {wanted} numbers are needed")
    return numbers


def _box(values: Sequence[float]) -> Box:
    left, bottom, right, top = values
    return left, bottom, right, top


def _crs(value: object) -> CRS:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"its crs is {shortened(repr(value), 80)}")
    if grid := path_in_crs(str(value)):
        raise ValueError(f"its crs names the grid file {shortened(grid)}, which is a path")
    try:
        with gdal_environment():
            crs = CRS.from_epsg(value) if isinstance(value, int) else CRS.from_user_input(value)
    except (CRSError, RasterioError) as error:
        raise ValueError(f"its crs {shortened(repr(value), 80)} is not known ({shortened(error)})") from error
    if not (crs.is_projected or crs.is_geographic):
        raise ValueError(f"its crs {shortened(repr(value), 80)} is neither projected nor in degrees")
    return crs


def fit_grid(file: GridFile, places: Sequence[Place]) -> MosaicGrid:
    """Return the grid of a mosaic.

    Args:
        file: what its file says.
        places: the rasters, for a grid without an extent. It is then the smallest one that holds all of them, and its
            edges are whole numbers of pixels from the origin of the CRS.

    Raises:
        SettingsError: it would be too large, or no raster has a place in the CRS.
    """
    across, down = file.resolution
    left, bottom, right, top = file.extent or _union(places, file)
    if file.extent is None:
        left, right = math.floor(left / across + _WHOLE) * across, math.ceil(right / across - _WHOLE) * across
        bottom, top = math.floor(bottom / down + _WHOLE) * down, math.ceil(top / down - _WHOLE) * down
    width, height = max(1, round((right - left) / across)), max(1, round((top - bottom) / down))
    if max(width, height) > _MOST_SIDE:
        raise SettingsError(
            f"--mosaic {file.path}: the mosaic would have {width:,} x {height:,} pixels, from {left:.10g} to "
            f"{right:.10g} and from {bottom:.10g} to {top:.10g} in its CRS; at most {_MOST_SIDE:,} a side are written. "
            "Give a coarser resolution, in units of the CRS, or an extent."
        )
    return MosaicGrid(file.crs, Affine(across, 0.0, left, 0.0, -down, top), height, width)


def _union(places: Sequence[Place], file: GridFile) -> Box:
    boxes = [(place.box, place.turn) for place in places if place.box is not None]
    if not boxes:
        raise SettingsError(f"--mosaic {file.path}: none of the inputs has a place in {file.crs}; give another CRS.")
    first = boxes[0][0]
    moved = []
    for box, turn in boxes:  # as near to the first one as whole turns bring them
        by = turn * round((first[0] + first[2] - box[0] - box[2]) / 2 / turn) if turn else 0.0
        moved.append((box[0] + by, box[1], box[2] + by, box[3]))
    left, bottom = (min(box[side] for box in moved) for side in (0, 1))
    right, top = (max(box[side] for box in moved) for side in (2, 3))
    return left, bottom, right, top


def find_place(source: str, crs: CRS) -> Place:
    """Find where a raster lies in a CRS.

    Args:
        source: the raster.
        crs: the CRS.

    Raises:
        DataError: the raster has no CRS or no transform, or its CRS cannot be converted.
        RasterioError: it cannot be opened.
    """
    import pyproj

    with gdal_environment(), open_raster(source) as file:
        own, to, height, width = file.crs, file.transform, file.height, file.width
    if own is None or to.is_identity:
        raise DataError(f"{source} has no {'CRS' if own is None else 'transform'}.")
    try:
        convert = pyproj.Transformer.from_crs(_pyproj(own), _pyproj(crs), always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise DataError(f"{source} has a CRS that cannot be converted ({shortened(error)}).") from error
    columns, rows = np.meshgrid(np.linspace(0, width, _CELLS + 1), np.linspace(0, height, _CELLS + 1))
    x, y = convert.transform(to.a * columns + to.b * rows + to.c, to.d * columns + to.e * rows + to.f)
    x, y = np.asarray(x), np.asarray(y)
    known = np.isfinite(x) & np.isfinite(y)
    turn = 2 * math.pi / _pyproj(crs).axis_info[0].unit_conversion_factor if crs.is_geographic else 0.0
    if not known.any():
        return Place(source, None, (0.0, 0.0), turn)
    x, y = np.where(known, x, np.nan), np.where(known, y, np.nan)
    if turn:
        middle = x[_CELLS // 2, _CELLS // 2] if known[_CELLS // 2, _CELLS // 2] else x[known][0]
        x = middle + (x - middle + turn / 2) % turn - turn / 2
    box = tuple(float(value) for value in (np.nanmin(x), np.nanmin(y), np.nanmax(x), np.nanmax(y)))
    return Place(source, _box(box), (_longest_step(x), _longest_step(y)), turn)


def _pyproj(crs: CRS) -> Any:  # noqa: ANN401 - a CRS of pyproj, which is loaded late
    import pyproj

    return pyproj.CRS.from_wkt(crs.to_wkt(version="WKT2_2019"))


def _longest_step(values: Floats) -> float:
    """Return the largest difference of neighbours on a lattice, and the range of all where neighbours are missing."""
    steps = [np.abs(np.diff(values, axis=axis)).ravel() for axis in (0, 1)]
    every = np.concatenate(steps)
    if np.isnan(every).any():
        return float(np.nanmax(values) - np.nanmin(values)) + float(np.nanmax(every, initial=0.0))
    return float(every.max())


def in_order(sources: Sequence[str], order: Order, dates: Mapping[str, datetime]) -> list[str]:
    """Return rasters in the order in which they count: a pixel is that of the first one that has data there.

    Args:
        sources: the rasters, as they are given.
        order: which of them comes first.
        dates: when they were taken.

    Raises:
        SettingsError: the order is by date, and the date of a raster is not known.
    """
    if order in ("first", "last"):
        return list(sources) if order == "first" else list(reversed(sources))
    without = [source for source in sources if source not in dates]
    if without:
        raise SettingsError(
            f"the order of the mosaic is {order}, and {len(without):,} inputs have no date: "
            f"{', '.join(first_few(without))}. Name the inputs in a list with dates (STAC, or a table with the column "
            "datetime), or write order: first."
        )
    return sorted(sources, key=lambda source: dates[source], reverse=order == "newest")
