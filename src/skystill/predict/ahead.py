"""What a prediction will cost: megapixels are counted, and one window is measured."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # GDAL's own errors, which rasterio does not always wrap

from skystill.errors import DataError
from skystill.predict.batch import open_predictor
from skystill.predict.inputs import check_targets, find_inputs, name_targets
from skystill.predict.layers import wanted_layers
from skystill.predict.mosaic_batch import mosaic_sources
from skystill.predict.opening import open_source
from skystill.predict.predictor import Predictor
from skystill.progress import OnProgress, ignore_progress, report_notes, tracked
from skystill.raster.entries import pack_entry
from skystill.raster.opening import open_raster
from skystill.raster.scratch import scratch_folder
from skystill.raster.source import RasterSource, gdal_environment
from skystill.raster.spool import RowSpool
from skystill.raster.steps import FurtherFiles
from skystill.settings import PredictSettings
from skystill.tiling import Grid

_MOST_OPENED = 1000
"""Inputs that are opened. Of more, as many are taken at even distances, and stand for all."""
_UNREADABLE = (rasterio.errors.RasterioError, CPLE_BaseError, OSError, TypeError, DataError)


@dataclass(frozen=True)
class Ahead:
    """What a prediction will cost.

    Args:
        inputs: number of inputs.
        opened: number of those that were opened to be counted.
        megapixels: megapixels of all inputs.
        read_bytes: bytes of all inputs as they are stored; of a raster that is no local file, as they are decoded.
        written_bytes: bytes of the results, about: those of the measured window, for all pixels.
        megapixels_per_second: rate of one worker on the measured window, or of this process.
    """

    inputs: int
    opened: int
    megapixels: float
    read_bytes: int
    written_bytes: int
    megapixels_per_second: float

    def hours(self, workers: int = 1) -> float:
        """Return the hours that this number of workers takes, if each keeps the rate."""
        return self.megapixels / self.megapixels_per_second / 3600 / workers


@dataclass(frozen=True)
class Sizes:
    """The inputs, counted.

    Args:
        sample: an input to measure a window of: the largest that was opened.
        pixels, read_bytes: of all inputs.
        opened: number of inputs that were opened.
    """

    sample: str
    pixels: int
    read_bytes: int
    opened: int


def count_ahead(settings: PredictSettings, on_progress: OnProgress = ignore_progress) -> Ahead:
    """Count the inputs of a prediction, and measure one window of the largest in this process. Nothing is written.

    Args:
        settings: settings of the command.
        on_progress: receives a `Progress` while inputs are counted.

    Raises:
        UserError: the command would be refused, or no input can be opened.
    """
    predictor = open_predictor(settings)
    sources = check_inputs(predictor, settings, on_progress)
    sizes = count_pixels(sources, on_progress)
    return cost_of(len(sources), sizes, measure_window(predictor, sizes.sample, settings))


def check_inputs(predictor: Predictor, settings: PredictSettings, on_progress: OnProgress) -> list[str]:
    """Return the inputs, of a mosaic those that touch it, and refuse what the command would refuse before it begins.

    Args:
        predictor: the model.
        settings: settings of the command.
        on_progress: receives a `Note` about what is passed over.
    """
    if settings.mosaic is not None:
        report_notes(predictor.notes, on_progress)
        return mosaic_sources(settings, predictor, on_progress)
    found = find_inputs(settings)
    check_targets(name_targets(found.sources, settings), settings, predictor)
    report_notes((*predictor.notes, *found.notes), on_progress)
    return list(found.sources)


def count_pixels(sources: Sequence[str], on_progress: OnProgress) -> Sizes:
    """Count pixels and bytes of inputs.

    Args:
        sources: the inputs.
        on_progress: receives a `Progress` for each that is opened.

    Raises:
        DataError: none of them can be opened.
    """
    step = max(1, -(-len(sources) // _MOST_OPENED))
    opened = pixels = size = 0
    sample, largest = "", 0
    for source in tracked(list(sources[::step]), "counting", on_progress):
        with (
            contextlib.suppress(rasterio.errors.RasterioError, CPLE_BaseError, OSError, TypeError, DataError),
            gdal_environment(),
        ):
            with open_raster(source) as file:
                here = int(file.height) * int(file.width)
                decoded = here * sum(np.dtype(kind).itemsize for kind in file.dtypes)
            path = Path(source)
            size += path.stat().st_size if path.is_file() else decoded
            opened, pixels = opened + 1, pixels + here
            if here > largest:
                sample, largest = source, here
    if not opened:
        raise DataError(f"none of the inputs can be opened ({sources[0]}, ...).")
    each = len(sources) / opened
    return Sizes(sample, round(pixels * each), round(size * each), opened)


def measure_window(predictor: Predictor, source: str, settings: PredictSettings) -> tuple[float, int, int]:
    """Predict one unit in the middle of a raster, which is read and packed, but not written.

    Args:
        predictor: the model.
        source: the raster.
        settings: settings of the command.

    Returns:
        seconds, bytes of the packed unit, and the number of its pixels in the raster as it is stored.
    """
    raster = predictor.with_own_bands(settings.for_raster())
    with gdal_environment(), contextlib.closing(open_source(source, raster, predictor.info)) as opened:
        plan = predictor.plan_begun(opened, raster, {}, Path(), FurtherFiles())
        names = tuple(layer.name for layer in wanted_layers(Path("ahead.tif"), raster, predictor.classes))
        units = list(plan.grid.units())
        middle = units[len(units) // 2]
        # Rows of a striped raster are decoded for all lanes.
        wanted = {unit.index for unit in units if unit is middle or (plan.grid.rows_first and unit.row == middle.row)}
        for _ in range(2):  # the first call of a network takes longer
            began = time.monotonic()
            with contextlib.ExitStack() as stack:
                rows = _rows(opened, plan.grid, stack)
                found = list(predictor.stream(rows, plan, raster, names).compute(wanted))
            packed = sum(len(pack_entry([arrays[name] for name in names])) for _, arrays in found)
            seconds = time.monotonic() - began
        if plan.grid.blend and middle.row:
            seconds /= 2  # the row above was computed, too
        pixels = sum((unit.bottom - unit.top) * (unit.right - unit.left) for unit, _ in found)
        stored = opened.factors[0] * opened.factors[1]
    return seconds, packed, round(pixels * stored)


def _rows(source: RasterSource, grid: Grid, stack: contextlib.ExitStack) -> RasterSource | RowSpool:
    if not grid.rows_first:
        return source
    lanes = [unit.read[2:] for unit in grid.units() if unit.row == 0]
    spool = RowSpool(source, grid.tile_height, lanes, stack.enter_context(scratch_folder()))
    stack.callback(spool.close)
    return spool


def cost_of(inputs: int, sizes: Sizes, measured: tuple[float, int, int]) -> Ahead:
    """Return the cost of all inputs by that of one window.

    Args:
        inputs: number of inputs.
        sizes: result of `count_pixels`.
        measured: result of `measure_window`.
    """
    seconds, packed, pixels = measured
    rate = pixels / 1e6 / max(seconds, 1e-6)
    return Ahead(inputs, sizes.opened, sizes.pixels / 1e6, sizes.read_bytes, sizes.pixels * packed // pixels, rate)
