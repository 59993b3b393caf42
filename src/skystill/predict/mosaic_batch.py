"""`skystill predict --mosaic`: every input is predicted, and the class rasters become one."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rasterio._err import CPLE_BaseError  # GDAL's own errors, which rasterio does not always wrap
from rasterio.errors import RasterioError

from skystill.allocator import trim_heap
from skystill.errors import (
    ClusterError,
    DataError,
    PredictionStopped,
    RunFolderError,
    SettingsError,
    SkystillError,
    first_few,
)
from skystill.locks import hold_lock
from skystill.model.external import model_digest
from skystill.predict.batch import Predict, PredictedInput, open_predictor, predict_inputs
from skystill.predict.cleaning import choose_cleaning
from skystill.predict.further import Further, Shapes, square_labels
from skystill.predict.inputs import FoundInputs, check_targets, find_inputs, name_targets, side_files
from skystill.predict.layers import is_raster_name
from skystill.predict.lengths import pixel_m2_at, tolerance_in_pixels
from skystill.predict.mosaic import MosaicFile, write_mosaic
from skystill.predict.mosaic_grid import GridFile, MosaicGrid, Place, find_place, fit_grid, in_order, read_grid_file
from skystill.predict.plan import check_memory_of_steps
from skystill.predict.predictor import Prediction, Predictor
from skystill.predict.stac_results import StacItems, stac_files
from skystill.progress import Note, OnProgress, ignore_progress, report_notes, tracked
from skystill.raster.overwriting import source_files
from skystill.raster.remote_states import uncertain_notes
from skystill.raster.scratch import empty_folder
from skystill.raster.source_states import source_states
from skystill.raster.steps import FinishedSteps
from skystill.settings import PredictSettings

_NAME = "mosaic.tif"
_LOCK = "lock"


Join = Callable[[Sequence[str | Path], MosaicGrid, MosaicFile, bool, OnProgress], list[str]]
"""Joins class rasters into one as `write_mosaic` does: here, or on a cluster."""


@dataclass(frozen=True)
class _Plan:
    """What is predicted for a mosaic.

    Args:
        grid: the pixels of the mosaic.
        sources: inputs that touch it, the one on top first.
        passed_over: inputs that do not touch it.
        dates: when inputs were taken, where that is known.
    """

    grid: MosaicGrid
    sources: tuple[str, ...]
    passed_over: tuple[str, ...]
    dates: Mapping[str, datetime]


def predict_mosaic(
    settings: PredictSettings,
    resume: bool = False,
    on_progress: OnProgress = ignore_progress,
    predict: Predict = predict_inputs,
    join: Join | None = None,
) -> Iterator[PredictedInput]:
    """Predict every input that touches the grid of `--mosaic`, and write one class raster of all of them.

    The class rasters of the inputs lie in a folder beside the mosaic until it is complete.

    Args:
        settings: settings of the command.
        resume: go on with a mosaic that was interrupted. Inputs that are done are not predicted again.
        on_progress: as in `predict_inputs`.
        predict: predicts the inputs.
        join: writes the mosaic, as `write_mosaic`, which does it by default.

    Yields:
        the mosaic.

    Raises:
        UserError: the grid cannot be used, no input touches it, an input has no place, or a result would overwrite an
            input: all of this before anything is predicted. Or some inputs failed: the mosaic is made of the others,
            this is raised at the end, and their class rasters are kept for `resume`.
        InputFailed, InputsFailed: an input failed in a way that SkyStill does not expect. Raised at the end, too.
        PredictionStopped: the user pressed Ctrl-C. What is done is kept.
    """
    assert settings.mosaic is not None  # noqa: S101 - the caller looks at it
    began = time.monotonic()
    target, work, predictor = mosaic_target(settings.out), work_folder(settings.out), open_predictor(settings)
    square = square_labels(settings, predictor.classes)
    plan = _checked_plan(settings, predictor, on_progress)
    further = Further(
        str(settings.mosaic), target, predictor, settings, Shapes(_tolerance(plan.grid, settings), square), on_progress
    )
    _check_memory(further, target, settings)
    with _held(work, target, resume, on_progress) as finished:
        failure, rasters = _predict_sources(plan, (work, finished), settings, predict, (resume, on_progress))
        gc.collect()  # the network that predicted them, and its memory
        trim_heap()
        output = MosaicFile(target, predictor.classes, settings.for_raster(), further.files())
        try:
            notes = (join or write_mosaic)(rasters, plan.grid, output, resume, on_progress)
        except KeyboardInterrupt as error:
            raise PredictionStopped(target) from error
        _write_item(plan, target, settings, predictor)
        beside = tuple(side_files(target, settings).values())
        prediction = Prediction(target, plan.grid.height * plan.grid.width, (), tuple(notes))
        yield PredictedInput(str(settings.mosaic), prediction, time.monotonic() - began, beside)
        if failure is not None:
            again = "the same command" if settings.on_cluster else "--resume"
            on_progress(Note(f"the class rasters that are done are kept in {work}; {again} predicts the others."))
            raise failure
        empty_folder(work, but=_LOCK)


def mosaic_target(out: Path) -> Path:
    """Return the path of the mosaic: --out if it names a file, otherwise mosaic.tif in that folder."""
    return out if is_raster_name(out) else out / _NAME


def work_folder(out: Path) -> Path:
    """Return the folder of an --out in which the class rasters of the inputs of a mosaic lie until it is complete."""
    target = mosaic_target(out)
    return target.with_name(f".mosaic-{target.stem}")


def mosaic_sources(settings: PredictSettings, predictor: Predictor, on_progress: OnProgress) -> list[str]:
    """Return the inputs that touch the grid of `--mosaic`, and refuse what `predict_mosaic` would refuse."""
    return list(_checked_plan(settings, predictor, on_progress).sources)


def _checked_plan(settings: PredictSettings, predictor: Predictor, on_progress: OnProgress) -> _Plan:
    """Find what is predicted for a mosaic, and check what will be written."""
    assert settings.mosaic is not None  # noqa: S101 - the caller looks at it
    file, found = read_grid_file(settings.mosaic), find_inputs(settings)
    plan = _plan(file, found, on_progress)
    _check(plan, mosaic_target(settings.out), work_folder(settings.out), settings, predictor)
    report_notes((*found.notes, *_notes(plan)), on_progress)
    return plan


def _plan(file: GridFile, found: FoundInputs, on_progress: OnProgress) -> _Plan:
    """Find the grid, and which inputs touch it.

    Raises:
        DataError: inputs have no CRS or no transform.
        SettingsError: none touches it, or the order is by date and dates are missing.
    """
    sources = in_order(list(found.sources), file.order, found.dates)
    places: dict[str, Place] = {}
    problems = []
    for source in tracked(sources, "places of the inputs", on_progress):
        try:
            places[source] = find_place(source, file.crs)
        except DataError as error:
            problems.append(str(error))
        except (RasterioError, CPLE_BaseError, OSError):
            continue  # the prediction reports it in full
    if problems:
        raise DataError(
            f"{len(problems):,} of {len(sources):,} inputs cannot be placed on the mosaic. Nothing was predicted:",
            problems,
            "Write the CRS and the transform into the file (gdal_edit, gdalwarp), or leave it out.",
        )
    grid = fit_grid(file, list(places.values()))
    outside = tuple(name for name, place in places.items() if not place.touches(grid.bounds, reached=True))
    if places and not any(place.touches(grid.bounds) for place in places.values()):
        raise _outside(file, grid, list(places.values()))
    return _Plan(grid, tuple(name for name in sources if name not in outside), outside, found.dates)


def _outside(file: GridFile, grid: MosaicGrid, places: Sequence[Place]) -> SettingsError:
    boxes = [place.box for place in places if place.box is not None]
    if boxes:
        lows, highs = (
            [min(box[side] for box in boxes) for side in (0, 1)],
            [max(box[side] for box in boxes) for side in (2, 3)],
        )
        where = f"the inputs reach {_shown((*lows, *highs))}"
    else:
        where = "the inputs have no place in this CRS"
    return SettingsError(
        f"--mosaic {file.path}: no input touches the grid. The grid reaches {_shown(grid.bounds)} and {where} (left, "
        f"bottom, right, top in {file.crs.to_string()}). Nothing was predicted; correct the extent or the CRS, or "
        "leave the extent out."
    )


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.10g}" for value in values)


def _notes(plan: _Plan) -> list[str]:
    grid, count = plan.grid, len(plan.passed_over)
    notes = [
        f"the mosaic has {grid.width:,} x {grid.height:,} pixels, {_shown(grid.bounds)} in {grid.crs.to_string()}."
    ]
    if count:
        names = ", ".join(first_few(plan.passed_over))
        notes.append(f"{count:,} inputs do not touch the mosaic, and are not predicted: {names}.")
    return notes


def _check(plan: _Plan, target: Path, work: Path, settings: PredictSettings, predictor: Predictor) -> None:
    """Check what will be written against what is read.

    Raises:
        SettingsError: the mosaic is no .tif, or would overwrite an input, or --min-area does not fit it.
    """
    MosaicFile(target, predictor.classes).layers  # noqa: B018 - it checks the name
    grid = plan.grid
    choose_cleaning(settings, str(target), (grid.height, grid.width, grid.crs, grid.transform), ignore_progress)
    jobs = [(str(settings.mosaic), target)]
    read = [path for source in plan.sources for path in source_files(source)]
    check_targets(jobs, settings, predictor, [*stac_files(jobs, settings), ("unfinished work", work)], read)


def _check_memory(further: Further, target: Path, settings: PredictSettings) -> None:
    """Check that the mosaic, and what is made of it, stays below the memory limit.

    Raises:
        SettingsError: it does not. The message names the smallest possible limit.
    """
    steps = ("mosaic", "cog", *(step.name for step in further.files().steps))
    check_memory_of_steps(steps, settings.for_raster(), f"the mosaic {target}")


def _write_item(plan: _Plan, target: Path, settings: PredictSettings, predictor: Predictor) -> None:
    """Write the STAC item of the mosaic. Its date is the latest of its inputs."""
    name = str(settings.mosaic)
    dates = [plan.dates[source] for source in plan.sources if source in plan.dates]
    cog = settings.model_copy(update={"cog": True})
    items = StacItems(cog, predictor.classes, {name: max(dates)} if dates else {})
    items.add(name, target)
    items.finish()


@contextlib.contextmanager
def _held(work: Path, target: Path, resume: bool, on_progress: OnProgress) -> Iterator[FinishedSteps]:
    """Hold the folder of the class rasters for one writer, and yield the record of those that are done.

    Raises:
        RunFolderError: another process writes the same mosaic, or one was interrupted that is not continued.
    """
    finished = FinishedSteps(work)
    try:
        with hold_lock(work / _LOCK, str(target), on_progress):
            if finished.path.exists() and not resume:
                raise RunFolderError(
                    f"an earlier mosaic {target} was interrupted. Go on with --resume, or delete {work} to begin again."
                )
            yield finished
    finally:
        with contextlib.suppress(OSError):
            work.rmdir()  # it stays if there is work to continue


def _predict_sources(
    plan: _Plan,
    where: tuple[Path, FinishedSteps],
    settings: PredictSettings,
    predict: Predict,
    how: tuple[bool, OnProgress],
) -> tuple[SkystillError | None, list[Path]]:
    """Predict what is not done yet.

    Args:
        plan: the inputs.
        where: the folder of the class rasters, and the record of those that are done.
        settings: settings of the command.
        predict: predicts inputs.
        how: whether to resume, and the callback.

    Returns:
        what failed, and the class rasters that are there, the one on top first.
    """
    work, finished = where
    inner = _inner(settings, work)
    states = {source: source_states(source) for source in tracked(plan.sources, "states of the inputs", how[1])}
    alike = [_model_digest(settings), inner.for_raster().model_dump(mode="json")]
    about = {source: [*alike, found.shared_digest] for source, found in states.items()}
    targets = dict(name_targets(dict.fromkeys(plan.sources, Path()), inner))
    left = [one for one in plan.sources if not finished.has(targets[one].name, about[one], [targets[one]])]
    kept = [name for source in sorted({*states}.difference(left)) for name in states[source].uncertain]
    report_notes(uncertain_notes(kept, work), how[1])
    for source in left:
        targets[source].unlink(missing_ok=True)  # of other settings, or of a file that has changed
    by_name = {path.name: source for source, path in targets.items()}
    failure: SkystillError | None = None
    begun = how[0] and any(work.glob(".unfinished-*"))
    try:
        for done in predict(inner.model_copy(update={"inputs": left}), begun, how[1]) if left else ():
            source = by_name[done.prediction.path.name]  # a cluster names sources by absolute paths
            if not done.prediction.damaged:
                finished.add(targets[source].name, about[source], [targets[source]])
    except (PredictionStopped, ClusterError):  # without the other inputs, which the same command predicts
        raise
    except SkystillError as error:
        failure = error
    rasters = [path for path in targets.values() if path.exists()]
    if failure is not None and not rasters:
        raise failure
    return failure, rasters


def _inner(settings: PredictSettings, work: Path) -> PredictSettings:
    """Return the settings with which the inputs are predicted. What is made of the mosaic is left out."""
    off: dict[str, object] = dict.fromkeys(("vector", "simplify", "square", "smooth", "min_area", "asset"))
    off |= dict.fromkeys(("areas", "cog", "stac", "recursive"), False)
    return settings.model_copy(update={**off, "out": work})


def _model_digest(settings: PredictSettings) -> str:
    from skystill.model.bundled import bundled_model

    return model_digest(settings.model or bundled_model())


def _tolerance(grid: MosaicGrid, settings: PredictSettings) -> float | None:
    """Return the tolerance of `--simplify` in pixels of the mosaic, or None if polygons are not simplified."""
    if settings.simplify is None:
        return None
    place = (grid.height, grid.width, grid.crs, grid.transform)
    return tolerance_in_pixels(
        settings.simplify, str(settings.mosaic), pixel_m2_at(place, grid.width / 2, grid.height / 2)
    )
