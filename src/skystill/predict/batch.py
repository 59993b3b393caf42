"""`skystill predict`: predict every input, and write further files beside each result."""

import importlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import rasterio
from rasterio._err import CPLE_BaseError  # GDAL's own errors, which rasterio does not always wrap

from skystill.classes import read_classes
from skystill.errors import (
    DamagedSource,
    DataError,
    InputFailed,
    InputsFailed,
    NotEnoughMemory,
    PredictionStopped,
    SkystillError,
    UserError,
    first_few,
)
from skystill.model.bundled import bundled_model
from skystill.model.measure import cores
from skystill.predict.archive_folder import check_free
from skystill.predict.further import check_one, square_labels
from skystill.predict.inputs import check_targets, find_inputs, name_targets, side_files
from skystill.predict.layers import wanted_layers
from skystill.predict.predictor import Prediction, Predictor
from skystill.predict.several import run_in_order
from skystill.predict.stac_results import StacItems, stac_files
from skystill.progress import Event, Message, OnProgress, ignore_progress, report_notes
from skystill.raster.band_names import wanted_bands
from skystill.raster.opening import NO_TEXT, gdal_reason, open_raster
from skystill.raster.output import journal_of
from skystill.raster.scratch import clear_scratch
from skystill.raster.source import gdal_environment
from skystill.settings import PredictSettings


@dataclass(frozen=True)
class PredictedInput:
    """One input that was predicted.

    Args:
        source: the input.
        prediction: its result.
        seconds: duration of the prediction, without the polygons, areas and overlay.
        beside: other files that were written for this input.
    """

    source: str
    prediction: Prediction
    seconds: float
    beside: tuple[Path, ...]


Predict = Callable[[PredictSettings, bool, OnProgress], Iterator[PredictedInput]]
"""Predicts into local files as `predict_inputs` does: here, on a cluster, or as a mosaic of all inputs."""


def predict_inputs(
    settings: PredictSettings, resume: bool = False, on_progress: OnProgress = ignore_progress
) -> Iterator[PredictedInput]:
    """Predict every input. If one fails, for whatever reason, the others are still predicted.

    Several small images are in work at the same time: one is read or written while the network computes another.

    Args:
        settings: settings of the command, without a mosaic.
        resume: continue predictions that were interrupted.
        on_progress: called with a `Note` about what is passed over, a `Progress` in pixels for each input, and a
            `Message` where a prediction goes on; with small images from several threads, but never at the same time.

    Yields:
        each input when it is finished.

    Raises:
        UserError: some inputs were not found, are damaged or failed: raised at the end, with all of them. A folder
            without images, an --out that does not fit or that a cluster works on, a result that would overwrite an
            input or another, and an unknown class of --square are refused before the first prediction.
        InputFailed, InputsFailed: an input failed in a way that SkyStill does not expect. Raised at the end, too.
        PredictionStopped: the user pressed Ctrl-C.
    """
    check_packages(settings)
    clear_scratch()
    check_free(settings.out)
    predictor = open_predictor(settings)
    found = find_inputs(settings)
    targets = name_targets(found.sources, settings)
    check_targets(targets, settings, predictor, stac_files(targets, settings))
    report_notes((*predictor.notes, *found.notes), on_progress)
    for line in _what_is_unfinished(targets) if resume else ():
        on_progress(Message(line))
    on_progress = tell = _Telling(on_progress)
    failed: list[SkystillError] = []
    items = StacItems(settings, predictor.classes, found.dates)
    square_labels(settings, predictor.classes)  # it may name a class that there is not
    predict = partial(predict_one, predictor, settings, resume, on_progress)
    waiting = deque(target for _, target in targets)
    at_a_time = 1 if resume else images_at_a_time(settings, len(targets))
    try:
        for (source, target), outcome in run_in_order(targets, predict, partial(is_small, predictor), at_a_time):
            waiting.popleft()
            if isinstance(outcome, PredictedInput):
                items.add(source, target)
                yield outcome
                if outcome.prediction.damaged:
                    failed.append(DamagedSource(source, target, outcome.prediction.damaged))
            elif tell.cancelled or isinstance(outcome, ImportError | PredictionStopped):
                raise outcome  # with ImportError, a package is at fault, or Ctrl-C while it was imported
            else:
                failed.append(as_failure(source, outcome))
    except (PredictionStopped, KeyboardInterrupt) as error:
        report_notes(first_few([str(error) for error in failed]), on_progress)  # nobody else would tell them
        if isinstance(error, KeyboardInterrupt):
            raise PredictionStopped(waiting[0]) from error
        raise
    items.finish()
    raise_failed(failed, len(targets))


def open_predictor(settings: PredictSettings) -> Predictor:
    """Open the model of the settings.

    Raises:
        ModelFileError, SettingsError: as in `Predictor`.
        ClassesError: the classes cannot be read.
    """
    classes = read_classes(settings.classes) if settings.classes else None
    path, bands = settings.model or bundled_model(), wanted_bands(settings.bands)
    return Predictor(path, settings.threads, settings.runtime, classes, settings.input, bands)


def images_at_a_time(settings: PredictSettings, count: int) -> int:
    """Return how many small images are read, predicted and written at the same time. The network takes them in turn.

    Only class rasters, confidence and probabilities are made like that: further files take memory of their own.

    Args:
        settings: settings of the command.
        count: number of images.
    """
    bounded = settings.max_memory is not None or settings.resolution is not None
    further = settings.areas or settings.overlay or settings.vector
    if bounded or further or count == 1:
        return 1
    return settings.threads or cores()


def is_small(predictor: Predictor, job: tuple[str, Path]) -> bool:
    """Return whether an input is a local file of a single tile.

    Args:
        predictor: the model.
        job: the input, and the path of its result.
    """
    source = job[0]
    if not Path(source).is_file():
        return False
    try:
        with gdal_environment(), open_raster(source) as file:
            return bool(max(file.height, file.width) <= predictor.info.tile_size)
    except (rasterio.errors.RasterioError, CPLE_BaseError, OSError):
        return False  # the prediction reports it


def check_packages(settings: PredictSettings) -> None:
    """Check that the packages are there that polygons need: they must not be missing after hours of work.

    Args:
        settings: settings of the command.

    Raises:
        SettingsError: one is missing.
    """
    if settings.vector:
        polygons = importlib.import_module("skystill.predict.polygons")
        if settings.vector == "gpkg":
            polygons.check_geopackages()


def predict_one(
    predictor: Predictor, settings: PredictSettings, resume: bool, on_progress: OnProgress, job: tuple[str, Path]
) -> PredictedInput:
    """Predict one input, and write what is wanted beside it.

    Args:
        predictor: the model.
        settings: settings of the command. Their inputs are not used.
        resume: continue an interrupted prediction.
        on_progress: as in `Predictor.predict`.
        job: the input, and the path of its result.

    Raises:
        SkystillError: as `Predictor.predict`, or a setting does not fit the input. `as_failure` makes one of any other
            exception.
    """
    source, target = job
    further = check_one(predictor, settings, on_progress, job)
    began = time.monotonic()
    prediction = predictor.predict(source, target, settings.for_raster(), resume, on_progress, further.files())
    seconds = time.monotonic() - began - further.seconds
    return PredictedInput(source, prediction, seconds, files_beside(target, predictor, settings))


class _Telling:
    """Passes events on to a callback, and remembers whether the callback raised an exception to cancel everything.

    Several threads may call it at the same time. The callback gets one event after the other.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._lock = Lock()
        self.cancelled = False

    def __call__(self, event: Event) -> None:
        try:
            with self._lock:
                self._on_progress(event)
        except BaseException:
            self.cancelled = True
            raise


def as_failure(source: str, error: Exception) -> SkystillError:
    """Return the error to raise at the end for what an input raised.

    Args:
        source: the input.
        error: what it raised.
    """
    if isinstance(error, SkystillError):
        return error
    failure: SkystillError
    if isinstance(error, MemoryError):
        failure = NotEnoughMemory(source)
    elif isinstance(error, UnicodeDecodeError):
        failure = DataError(f"{source}: it cannot be predicted: {NO_TEXT}")
    elif isinstance(error, OSError | CPLE_BaseError):  # of the system or of GDAL: the file or the disk is at fault
        failure = DataError(
            f"{source}: it cannot be predicted ({gdal_reason(error)}). See that it is whole and readable."
        )
    else:
        failure = InputFailed(source, error)
    failure.__cause__ = error  # for --debug
    return failure


def raise_failed(failed: list[SkystillError], total: int) -> None:
    """Raise one error about all inputs that failed. Its exit code is 2 only if the user can mend all of them.

    Args:
        failed: the errors, none if no input failed.
        total: number of all inputs.
    """
    if len(failed) == 1:
        raise failed[0]
    problems = [str(error) for error in failed]
    ours = next((error for error in failed if not isinstance(error, UserError)), None)
    if ours is not None:
        raise InputsFailed(total, problems) from ours
    if failed:
        raise DataError(f"{len(failed)} of {total} inputs had problems:", problems)


def _what_is_unfinished(targets: Sequence[tuple[str, Path]]) -> list[str]:
    """Return the lines about what --resume finds."""
    begun = [target for _, target in targets if journal_of(target).is_dir()]
    if not begun:
        return ["--resume: there is no unfinished work; everything is predicted from the beginning."]
    if len(targets) == 1:
        return []  # the prediction says where it goes on
    return [
        f"--resume: {len(begun):,} of {len(targets):,} results have unfinished work ({begun[0]}"
        f"{', ...' if begun[1:] else ''}); the others are predicted from the beginning."
    ]


def files_beside(target: Path, predictor: Predictor, settings: PredictSettings) -> tuple[Path, ...]:
    """Return the paths of all files beside a class raster that the settings ask for.

    Args:
        target: the class raster.
        predictor: the model.
        settings: settings of the command.
    """
    layers = wanted_layers(target, settings.for_raster(), predictor.classes)[1:]
    return (*(layer.path for layer in layers), *side_files(target, settings).values())
