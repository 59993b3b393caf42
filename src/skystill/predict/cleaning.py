"""Clean a class raster: smooth it, and merge small components into their neighbours, in bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window

from skystill.classes import Labels
from skystill.predict.lengths import Grid, pixel_m2_at, smallest_component
from skystill.predict.sieve import Sweep, sieve_limits
from skystill.predict.smooth import most_common_around
from skystill.progress import OnProgress, ignore_progress, tracked
from skystill.raster.opening import open_raster
from skystill.settings import RasterSettings

_WINDOW = 1024  # a whole number of blocks of class rasters
_EVEN = 1.05  # spread of the areas of pixels in one raster above which a note is given

CreateRaster = Callable[[Path], DatasetWriter]


@dataclass
class Cleaning:
    """What is done to a class raster after its prediction. It is a `Rework` of `RasterOutput`.

    Args:
        smooth: side in pixels of the squares whose most common class is taken; None smooths nothing.
        min_pixels: smallest number of pixels of a component; None merges nothing.
        on_progress: called with a `Progress` after each window.
        notes: what the user should know. A call adds what was done.
    """

    smooth: int | None
    min_pixels: int | None
    on_progress: OnProgress = ignore_progress
    notes: list[str] = field(default_factory=list)

    def __call__(self, raster: Path, create: CreateRaster) -> Path:
        """Return a cleaned class raster, which takes the place of `raster`.

        Args:
            raster: the class raster, a GeoTIFF. It is removed.
            create: creates a class raster of the same form. New rasters lie beside `raster`.
        """
        if self.smooth:
            raster = self._smoothed(raster, create, self.smooth)
        if self.min_pixels:
            raster = self._sieved(raster, create, self.min_pixels)
        return raster

    def _smoothed(self, raster: Path, create: CreateRaster, side: int) -> Path:
        changed = 0
        made = raster.with_name(f"{raster.stem}-smooth.tif")
        with open_raster(raster) as source, create(made) as target:
            for window in tracked(_windows(source), "smoothing", self.on_progress):
                read, inside = _with_margin(window, side // 2, source.height, source.width)
                around = source.read(1, window=read)
                labels = most_common_around(around, side)[inside]
                changed += int((labels != around[inside]).sum())
                target.write(labels, 1, window=window)
            pixels = source.height * source.width
        raster.unlink()
        self.notes.append(
            f"--smooth {side}: {changed:,} of {pixels:,} pixels of the class raster took the most common class of the "
            f"{side} x {side} pixels around them."
        )
        return made

    def _sieved(self, raster: Path, create: CreateRaster, min_pixels: int) -> Path:
        limits, merged, number = sieve_limits(min_pixels), 0, 0
        while True:
            limit = limits[min(number, len(limits) - 1)]
            made = raster.with_name(f"{raster.stem.split('-')[0]}-sieve{number}.tif")
            sweep = self._swept(raster, made, create, limit)
            merged += sweep.merged
            if sweep.merged:
                raster.unlink()
                raster = made
            number += 1
            # The last limit is repeated: components that have grown can take further ones.
            if number >= len(limits) and not sweep.merged:
                break
        stay = f" {sweep.left:,} smaller ones stay, because no larger one touches them." if sweep.left else ""
        self.notes.append(
            f"--min-area: {merged:,} components below {min_pixels:,} pixels of the class raster took the class of a "
            f"neighbour.{stay}"
        )
        return raster

    def _swept(self, raster: Path, made: Path, create: CreateRaster, limit: int) -> Sweep:
        """Sweep over `raster`, and write the result to `made` if anything changes."""
        table_path = made.with_suffix(".table")
        with open_raster(raster) as source, table_path.open("w+b") as table:
            sweep = Sweep(source.height, source.width, limit, table)
            for window, labels in self._read(source, f"components below {limit} pixels"):
                sweep.add(window, labels)
            sweep.end_row()
            if sweep.merged:
                with create(made) as target:
                    for window, labels in self._read(source, "merging components"):
                        target.write(sweep.changed(window, labels), 1, window=window)
        table_path.unlink()
        return sweep

    def _read(self, source: DatasetReader, task: str) -> Iterator[tuple[Window, Labels]]:
        for window in tracked(_windows(source), task, self.on_progress):
            yield window, source.read(1, window=window)


def choose_cleaning(settings: RasterSettings, name: str, grid: Grid, on_progress: OnProgress) -> Cleaning | None:
    """Return what the settings ask for, or None if they ask for nothing.

    Args:
        settings: settings with `smooth` and `min_area`.
        name: the raster, for messages.
        grid: height and width of the class raster in pixels, its CRS and its transform.
        on_progress: called with a `Progress` after each window.

    Raises:
        SettingsError: `min_area` does not fit the raster.
    """
    if settings.smooth is None and settings.min_area is None:
        return None
    height, width = grid[:2]
    min_pixels = None
    if settings.min_area is not None:
        pixel_m2 = pixel_m2_at(grid, width / 2, height / 2)
        min_pixels = smallest_component(settings.min_area, name, pixel_m2, height * width)
    chosen = Cleaning(settings.smooth, min_pixels, on_progress)
    if settings.min_area is not None and not settings.min_area.endswith("px"):
        places = [(0, 0), (width, 0), (0, height), (width, height)]
        areas = [area for area in (pixel_m2_at(grid, *place) for place in places) if area is not None]
        if max(areas, default=0) > _EVEN * min(areas, default=0):
            chosen.notes.append(
                f"--min-area {settings.min_area} is {min_pixels:,} pixels in the middle of {name}; its pixels are "
                f"{min(areas):.3g} to {max(areas):.3g} square metres on the ground, so it is more or less elsewhere."
            )
    return chosen


def _windows(source: DatasetReader) -> list[Window]:
    return [
        Window(left, top, min(_WINDOW, source.width - left), min(_WINDOW, source.height - top))
        for top in range(0, source.height, _WINDOW)
        for left in range(0, source.width, _WINDOW)
    ]


def _with_margin(window: Window, margin: int, height: int, width: int) -> tuple[Window, tuple[slice, slice]]:
    """Return a window with a margin, cut at the edge of the raster, and the place of the window in it."""
    left, top = max(0, window.col_off - margin), max(0, window.row_off - margin)
    right = min(width, window.col_off + window.width + margin)
    bottom = min(height, window.row_off + window.height + margin)
    row, column = window.row_off - top, window.col_off - left
    inside = (slice(row, row + window.height), slice(column, column + window.width))
    return Window(left, top, right - left, bottom - top), inside
