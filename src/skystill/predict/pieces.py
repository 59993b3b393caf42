"""Pieces of one raster, computed by several processes into one journal, from which `Predictor.predict` writes results.

A piece is some units of the grid, in the order of the grid. Its entries are those that `Predictor.predict` would have
written, so the rasters made of them are the same. One process may write the entries into the rasters while others
compute (`join_units`), as the pen of one machine does; `Predictor.predict` then has only the rest to do.
"""

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from skystill.errors import RunFolderError
from skystill.predict.discarding import discarding
from skystill.predict.layers import wanted_layers
from skystill.predict.opening import open_source
from skystill.predict.plan import Plan
from skystill.predict.predictor import Predictor
from skystill.raster.damage import DamageRecord
from skystill.raster.entries import check_settings, write_entry
from skystill.raster.output import RasterOutput, journal_of
from skystill.raster.source import RasterSource, gdal_environment
from skystill.raster.spool import RowSpool
from skystill.raster.steps import FurtherFiles
from skystill.settings import RasterSettings
from skystill.tiling import Unit

_END = "no-more-units"
_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 10.0  # disks of the network show new files late


@dataclass(frozen=True)
class BegunRaster:
    """A raster whose journal is begun.

    Args:
        units: number of its units.
        missing: indices of the units that are not in the journal, in order.
        pixels: number of pixels of the result.
    """

    units: int
    missing: tuple[int, ...]
    pixels: int


def begin_raster(
    predictor: Predictor, source: str, target: Path, settings: RasterSettings, further: FurtherFiles
) -> BegunRaster:
    """Begin the journal of a raster, or check that an unfinished one can be continued.

    The arguments and the errors are those of `Predictor.predict`.
    """
    settings = predictor.with_own_bands(settings)
    with gdal_environment(), contextlib.closing(open_source(source, settings, predictor.info)) as opened:
        output = _output(predictor, opened, target, settings)
        plan = predictor.plan_begun(opened, settings, output.begun_with(), output.journal, further)
        done = set(output.begin(predictor.identity(opened, settings, plan)))
        (output.journal / _END).unlink(missing_ok=True)
        if not done:
            DamageRecord(opened, output.journal).begin(continued=output.has_units)
        count, pixels = plan.grid.count, opened.height * opened.width
    missing = () if output.has_units else tuple(index for index in range(count) if index not in done)
    return BegunRaster(count, missing, pixels)


def compute_units(
    predictor: Predictor,
    source: str,
    target: Path,
    settings: RasterSettings,
    wanted: Collection[int],
    on_unit: Callable[[Unit, bytes], None],
) -> None:
    """Compute units of a raster whose journal is begun, and write their entries.

    Args:
        predictor: the model.
        source: as in `Predictor.predict`.
        target: as in `Predictor.predict`.
        settings: as in `Predictor.predict`.
        wanted: indices of the units.
        on_unit: called before the entry of each unit is written, with no bytes, and after it, with its bytes. What it
            raises ends the work.

    Raises:
        RunFolderError: the journal is not begun, or was begun with other settings or another source.
        UserError: as `Predictor.predict`.
    """
    settings = predictor.with_own_bands(settings)
    with gdal_environment(), contextlib.closing(open_source(source, settings, predictor.info)) as opened:
        output, plan = _begun(predictor, opened, target, settings)
        names = tuple(layer.name for layer in output.layers)
        damage = DamageRecord(opened, output.journal, part=f"-{min(wanted):08d}")
        rows: RasterSource | RowSpool = opened
        with contextlib.ExitStack() as stack:
            stack.enter_context(discarding(output.journal, predictor.path))
            if plan.grid.rows_first:
                lanes = [unit.read[2:] for unit in plan.grid.units() if unit.row == 0]
                rows = RowSpool(opened, plan.grid.tile_height, lanes, output.journal)
                stack.callback(rows.close)
            stream = predictor.stream(rows, plan, settings, names)
            for unit, arrays in stream.compute(set(wanted)):
                on_unit(unit, b"")
                damage.keep()
                on_unit(unit, write_entry(output.journal, unit.index, [arrays[name] for name in names]))


def join_units(
    predictor: Predictor, source: str, target: Path, settings: RasterSettings, on_wait: Callable[[], None]
) -> list[Path]:
    """Write the units of a raster into its rasters while other processes compute them.

    Args:
        predictor: the model.
        source: as in `Predictor.predict`.
        target: as in `Predictor.predict`.
        settings: as in `Predictor.predict`.
        on_wait: called before each unit, and while it is waited for. What it raises ends the work.

    Returns:
        the rasters, which lie in the journal. None if a unit did not come until some time after `end_units`.

    Raises:
        RunFolderError: as `compute_units`, or an entry is damaged.
        InUse: another process writes the rasters.
        DiskFull: they cannot be written.
    """
    settings = predictor.with_own_bands(settings)
    with gdal_environment():
        with contextlib.closing(open_source(source, settings, predictor.info)) as opened:
            output, plan = _begun(predictor, opened, target, settings)
            identity = predictor.identity(opened, settings, plan)

        def wait_for(entry: Path) -> bool:
            on_wait()
            last = None
            while not entry.exists():
                if last is None and (output.journal / _END).exists():
                    last = time.monotonic() + _PATIENCE_SECONDS
                if last is not None and time.monotonic() > last:
                    return False
                time.sleep(_POLL_SECONDS)
                on_wait()
            return True

        return output.join(identity, plan.grid.units(), wait_for)


def end_units(target: Path) -> None:
    """Tell `join_units` that no process computes units of a raster any more.

    Args:
        target: as in `Predictor.predict`.
    """
    with contextlib.suppress(OSError):  # the journal has gone
        (journal_of(target) / _END).touch()


def _begun(
    predictor: Predictor, source: RasterSource, target: Path, settings: RasterSettings
) -> tuple[RasterOutput, Plan]:
    """Return the output of a raster whose journal is begun, and its plan.

    Raises:
        RunFolderError: the journal is not begun, or was begun with other settings or another source.
    """
    output = _output(predictor, source, target, settings)
    begun = output.begun_with()
    if not begun:
        raise RunFolderError(
            f"{output.journal} has gone while {source.path} was predicted. Run the same command again."
        )
    plan = predictor.plan_begun(source, settings, begun, output.journal, FurtherFiles())
    check_settings(begun, predictor.identity(source, settings, plan), target, output.journal)
    return output, plan


def _output(predictor: Predictor, source: RasterSource, target: Path, settings: RasterSettings) -> RasterOutput:
    layers = wanted_layers(target, settings, predictor.classes)
    place = (source.height, source.width, source.crs, source.transform)
    return RasterOutput(layers, *place, predictor.classes, source.control)
