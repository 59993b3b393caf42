"""Join class rasters into one on a grid of its own, window by window. A window can be computed in any process."""

import functools
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from skystill.classes import VOID, ClassMap, Labels
from skystill.errors import SettingsError
from skystill.predict.cleaning import choose_cleaning
from skystill.predict.layers import empty_notes
from skystill.predict.mosaic_grid import MosaicGrid, Place, find_place
from skystill.progress import Message, OnProgress, Progress, ignore_progress
from skystill.raster.ground import find_ground
from skystill.raster.layer import Layer
from skystill.raster.opening import open_raster
from skystill.raster.output import RasterOutput
from skystill.raster.source import gdal_environment
from skystill.raster.states import FileStates
from skystill.raster.steps import FurtherFiles
from skystill.settings import RasterSettings
from skystill.tiling import Unit

_SIDE = 2048  # of a window; a whole number of the blocks in which it is written
_WARP_MB = 64
_EXACT = 1e-3  # pixels: how far places may be from exact ones. 1e-6 takes four times as long; rasterio cannot take 0
_TURN = 360.0
_EVERY_PLACE = {"SAMPLE_GRID": "YES", "SAMPLE_STEPS": "ALL", "SOURCE_EXTRA": "2"}  # corners of pixels are sampled
"""How the part of a raster of longitudes is found that a window shows: from 180 to -180 degrees, places jump."""


@dataclass(frozen=True)
class MosaicFile:
    """A mosaic to write.

    Args:
        path: the class raster, .tif.
        classes: names and colours of the labels.
        settings: how the class raster is cleaned (`smooth`, `min_area`); the rest is not used.
        further: what is made from the complete class raster.
    """

    path: Path
    classes: ClassMap
    settings: RasterSettings = field(default_factory=RasterSettings)
    further: FurtherFiles = field(default_factory=FurtherFiles)

    @property
    def layers(self) -> list[Layer]:
        """The raster that is written: a Cloud Optimized GeoTIFF."""
        if self.path.suffix.lower() not in (".tif", ".tiff"):
            raise SettingsError(f"{self.path}: a mosaic is a GeoTIFF; name it .tif.")
        return [Layer("classes", self.path, ("class",), is_classes=True, cog=True)]


def place_rasters(rasters: Sequence[str | Path], grid: MosaicGrid) -> list[Place]:
    """Find where class rasters lie on a grid. Those that cannot touch it are left out.

    Raises:
        DataError: a raster has no CRS or no transform.
        RasterioError: a raster cannot be opened.
    """
    places = [find_place(str(raster), grid.crs) for raster in rasters]
    return [place for place in places if place.touches(grid.bounds, reached=True)]


def mosaic_units(grid: MosaicGrid) -> Iterator[Unit]:
    """Yield the windows of a mosaic, row by row."""
    starts = [(top, left) for top in range(0, grid.height, _SIDE) for left in range(0, grid.width, _SIDE)]
    for index, (top, left) in enumerate(starts):
        bottom, right = min(top + _SIDE, grid.height), min(left + _SIDE, grid.width)
        yield Unit(index, left // _SIDE, top // _SIDE, top, bottom, left, right, ())


def mosaic_window(places: Sequence[Place], grid: MosaicGrid, unit: Unit) -> Labels:
    """Return the labels of one window. It opens the rasters itself, so that any process may call it.

    Each pixel takes the label at its centre from the first raster that has data there.

    Args:
        places: class rasters, the one on top first.
        grid: the grid.
        unit: the window.

    Returns:
        (H, W) uint8, 255 where no raster has data.

    Raises:
        RasterioError: a raster cannot be read.
    """
    labels = np.full((unit.bottom - unit.top, unit.right - unit.left), VOID, np.uint8)
    box = grid.box(unit.top, unit.bottom, unit.left, unit.right)
    with gdal_environment():
        for place in places:
            if not place.touches(box, reached=True):
                continue
            with open_raster(place.source) as source:
                for turn in _turns(source, grid, box):
                    missing = labels == VOID
                    labels[missing] = _warped(source, turn, grid, unit)[missing]
            if not (labels == VOID).any():
                break
    return labels


def write_mosaic(
    rasters: Sequence[str | Path],
    grid: MosaicGrid,
    file: MosaicFile,
    resume: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> list[str]:
    """Join class rasters into one, in bounded memory.

    Args:
        rasters: class rasters of the same classes, the one on top first. They are not changed.
        grid: the pixels of the mosaic. Labels are taken by nearest neighbour.
        file: what is written.
        resume: go on with a mosaic of the same rasters that was interrupted.
        on_progress: called with a `Progress` in pixels after each window.

    Returns:
        notes on how the class raster was cleaned, and on a mosaic without a label.

    Raises:
        DataError: a raster has no CRS or no transform.
        SettingsError: the name of the file, or the smallest area, cannot be used.
        RunFolderError: there is an interrupted mosaic that is not continued, or another process writes the same file.
        DiskFull: the disk is full, or the files cannot be written. Finished windows are kept for `resume`.
    """
    output, identity = _output(rasters, grid, file, resume)
    place = (grid.height, grid.width, grid.crs, grid.transform)
    output.rework = cleaning = choose_cleaning(file.settings, str(file.path), place, on_progress)
    output.further, output.on_progress = file.further, on_progress
    with gdal_environment(), output.opened(identity, resume) as done:
        units = list(mosaic_units(grid))
        if done or output.is_complete:
            on_progress(Message(output.where_it_goes_on(len(done), len(units))))
        if not output.is_complete:
            _write_units(output, place_rasters(rasters, grid), grid, frozenset(done))
    empty = empty_notes(output, "none of its pixels has its centre where an input has data")
    return [*(cleaning.notes if cleaning else ()), *empty]


def begin_mosaic(rasters: Sequence[str | Path], grid: MosaicGrid, file: MosaicFile) -> tuple[Path, list[int]]:
    """Begin the journal of a mosaic, or go on with that of an interrupted one, so that any process may fill it.

    The arguments and the errors are those of `write_mosaic` with `resume`, which writes the mosaic of a full journal.

    Returns:
        the folder of the journal, and the indices of the windows that are not in it.
    """
    output, identity = _output(rasters, grid, file, resume=True)
    done = set(output.begin(identity))
    return output.journal, [] if output.is_complete else [u.index for u in mosaic_units(grid) if u.index not in done]


def _output(
    rasters: Sequence[str | Path], grid: MosaicGrid, file: MosaicFile, resume: bool
) -> tuple[RasterOutput, dict[str, object]]:
    """Return what writes a mosaic, and what its journal is begun with. A journal of other rasters is deleted."""
    output = RasterOutput(file.layers, grid.height, grid.width, grid.crs, grid.transform, file.classes)
    identity = _identity(rasters, grid, file.settings)
    begun = output.begun_with() if resume else {}
    if begun and begun.get("mosaic") != identity["mosaic"]:
        shutil.rmtree(output.journal, ignore_errors=True)  # those that are there have changed
    return output, identity


def _write_units(output: RasterOutput, places: Sequence[Place], grid: MosaicGrid, done: frozenset[int]) -> None:
    task, total, pixels = f"mosaic {output.layers[0].path.name}", grid.height * grid.width, 0
    for unit in mosaic_units(grid):
        if unit.index in done:
            output.replay(unit)
        else:
            output.write(unit, {"classes": mosaic_window(places, grid, unit)[None]})
        pixels += (unit.bottom - unit.top) * (unit.right - unit.left)
        output.on_progress(Progress(task, pixels, total, "pixels"))


def _identity(rasters: Sequence[str | Path], grid: MosaicGrid, settings: RasterSettings) -> dict[str, object]:
    names = [str(raster) for raster in rasters]
    about = [names, FileStates(names).shared_digest, grid.crs.to_wkt(), list(grid.transform), grid.height, grid.width]
    digest = hashlib.sha256(json.dumps(about).encode(errors="surrogateescape")).hexdigest()
    return {"mosaic": digest, "smooth": settings.smooth, "min_area": settings.min_area}


def _turns(source: DatasetReader, grid: MosaicGrid, box: tuple[float, float, float, float]) -> Iterator[float]:
    """Yield by how much x of a raster is moved: it may go on beyond 180 degrees, or the grid may.

    A place is found in the raster by its longitude, which is between -180 and 180 degrees if the CRSs differ, and as in
    the grid if they do not. In a Mercator projection, x is longitude in metres.
    """
    once = _TURN if source.crs.is_geographic else _turn_of(source.crs.to_wkt())
    if once is None or (grid.crs == source.crs and not source.crs.is_geographic):  # then x is not converted
        yield 0.0
        return
    west, east = sorted((source.bounds.left, source.bounds.right))  # rows may run from east to west
    is_alike = grid.crs.is_geographic and source.crs.is_geographic
    ranges = [(-once / 2, once / 2), *([(box[0], box[2])] if is_alike else [])]
    first, last = min(low for low, _ in ranges), max(high for _, high in ranges)
    for turn in range(math.ceil((first - east) / once), math.floor((last - west) / once) + 1):
        if any(west + turn * once < high and east + turn * once > low for low, high in ranges):
            yield turn * once


@functools.lru_cache(maxsize=64)
def _turn_of(crs: str) -> float | None:
    """Return the step of x once round the Earth in a projection; None if that has no meaning in it."""
    ground = find_ground(CRS.from_wkt(crs), Affine.scale(1000.0, -1000.0), 1, 1)
    return None if ground is None else ground.turn


def _jumps(source: DatasetReader, grid: MosaicGrid) -> bool:
    """Whether places in the raster jump at 180 degrees, as the window goes on."""
    if source.crs.is_geographic:
        return not grid.crs.is_geographic
    once = _turn_of(source.crs.to_wkt())
    return once is not None and max(abs(source.bounds.left), abs(source.bounds.right)) > once / 2


def _warped(source: DatasetReader, turn: float, grid: MosaicGrid, unit: Unit) -> Labels:
    """Return the labels of a window from one raster; 255 where it has none."""
    own, to = source.transform, grid.transform
    moved = Affine(own.a, own.b, own.c + turn, own.d, own.e, own.f)
    with WarpedVRT(
        source,
        crs=grid.crs,
        src_transform=moved,
        transform=to * Affine.translation(unit.left, unit.top),
        height=unit.bottom - unit.top,
        width=unit.right - unit.left,
        resampling=Resampling.nearest,
        src_nodata=VOID,
        nodata=VOID,
        tolerance=_EXACT,
        warp_mem_limit=_WARP_MB,
        **(_EVERY_PLACE if _jumps(source, grid) else {}),
    ) as warped:
        labels: Labels = warped.read(1)
    return labels
