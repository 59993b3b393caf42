"""`skystill predict`: predict every input, and write further files beside each result."""

import contextlib
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

from skystill.classes import ClassMap, read_classes
from skystill.errors import (
    DamagedSource,
    DataError,
    InputFailed,
    InputsFailed,
    NotEnoughMemory,
    PredictionStopped,
    SettingsError,
    SkystillError,
    SourceChanged,
    UserError,
    first_few,
)
from skystill.model.bundled import bundled_model
from skystill.model.measure import cores
from skystill.predict.inputs import check_targets, find_inputs, name_targets, possible_files, side_files
from skystill.predict.layers import wanted_layers
from skystill.predict.lengths import pixel_m2_at, tolerance_in_pixels
from skystill.predict.predictor import Prediction, Predictor
from skystill.predict.several import run_in_order
from skystill.progress import Event, Message, OnProgress, Progress, ignore_progress, report_notes
from skystill.raster.band_names import pick_bands, wanted_bands
from skystill.raster.opening import NO_TEXT, is_text, open_raster
from skystill.raster.output import journal_of
from skystill.raster.overwriting import source_files
from skystill.raster.scratch import clear_scratch
from skystill.raster.source import gdal_environment, gdal_reason
from skystill.raster.states import FileStates
from skystill.raster.steps import FurtherFiles, Step
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


@dataclass(frozen=True)
class _Shapes:
    """How polygons are shaped: the tolerance of `--simplify` in pixels, and the labels of `--square`."""

    tolerance: float | None
    square: tuple[int, ...]


def predict_inputs(
    settings: PredictSettings, resume: bool = False, on_progress: OnProgress = ignore_progress
) -> Iterator[PredictedInput]:
    """Predict every input. If one fails, for whatever reason, the others are still predicted.

    Several small images are in work at the same time: one is read or written while the network computes another.

    Args:
        settings: settings of the command.
        resume: continue predictions that were interrupted.
        on_progress: called with a `Note` about masks and sub-folders that are passed over, with a `Progress` in pixels
            for each input, and with a `Message` where a prediction goes on. With small images, the calls come from
            several threads, but never at the same time.

    Yields:
        each input when it is finished.

    Raises:
        UserError: some inputs were not found, are damaged or failed. This is raised at the end and names all of them.
            A folder without images, an --out that does not fit, and a result that would overwrite an input or another
            result are refused before the first prediction. So is a class of --square that the model does not have.
        InputFailed, InputsFailed: an input failed in a way that SkyStill does not expect. This, too, is raised at the
            end.
        PredictionStopped: the user pressed Ctrl-C.
    """
    if settings.vector:
        # The packages that it needs may be missing: fail now and not after hours of work.
        polygons = importlib.import_module("skystill.predict.polygons")
        if settings.vector == "gpkg":
            polygons.check_geopackages()
    clear_scratch()
    predictor = open_predictor(settings)
    found = find_inputs(settings)
    targets = name_targets(found.sources, settings)
    check_targets(targets, settings, predictor)
    report_notes((*predictor.notes, *found.notes), on_progress)
    for line in _what_is_unfinished(targets) if resume else ():
        on_progress(Message(line))
    on_progress = tell = _Telling(on_progress)
    failed: list[SkystillError] = []
    predict = partial(_predict_one, predictor, settings, _square(settings, predictor.classes), resume, on_progress)
    waiting = deque(target for _, target in targets)
    at_a_time = 1 if resume else _images_at_a_time(settings, len(targets))
    try:
        for (source, target), outcome in run_in_order(targets, predict, partial(_is_small, predictor), at_a_time):
            waiting.popleft()
            if isinstance(outcome, PredictedInput):
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
    _raise_failed(failed, len(targets))


def predict_one(
    predictor: Predictor, settings: PredictSettings, resume: bool, on_progress: OnProgress, job: tuple[str, Path]
) -> PredictedInput:
    """Predict one input with a model that is open, and write what the settings ask for beside its result.

    Args:
        predictor: the model.
        settings: what is written, and how. Its `inputs` and `out` are not used.
        resume: continue an interrupted prediction.
        on_progress: as in `predict_inputs`.
        job: the input, and the path of its result.

    Raises:
        SkystillError: as in `Predictor.predict`. Any other exception is turned into one by `as_failure`.
    """
    return _predict_one(predictor, settings, _square(settings, predictor.classes), resume, on_progress, job)


def open_predictor(settings: PredictSettings) -> Predictor:
    """Open the model of the settings.

    Raises:
        ModelFileError, SettingsError: as in `Predictor`.
        ClassesError: the classes cannot be read.
    """
    classes = read_classes(settings.classes) if settings.classes else None
    path, bands = settings.model or bundled_model(), wanted_bands(settings.bands)
    return Predictor(path, settings.threads, settings.runtime, classes, settings.input, bands)


def _images_at_a_time(settings: PredictSettings, count: int) -> int:
    """Return how many small images are read, predicted and written at the same time. The network takes them in turn.

    Only class rasters, confidence and probabilities are made like that: further files take memory of their own.
    """
    bounded = settings.max_memory is not None or settings.resolution is not None
    further = settings.areas or settings.overlay or settings.vector
    if bounded or further or count == 1:
        return 1
    return settings.threads or cores()


def _is_small(predictor: Predictor, job: tuple[str, Path]) -> bool:
    """Return whether an input is a local file of a single tile."""
    source = job[0]
    if not Path(source).is_file():
        return False
    try:
        with gdal_environment(), open_raster(source) as file:
            return bool(max(file.height, file.width) <= predictor.info.tile_size)
    except (rasterio.errors.RasterioError, CPLE_BaseError, OSError):
        return False  # the prediction reports it


def _predict_one(
    predictor: Predictor,
    settings: PredictSettings,
    square: tuple[int, ...],
    resume: bool,
    on_progress: OnProgress,
    job: tuple[str, Path],
) -> PredictedInput:
    source, target = job
    # The tolerance and --show may not fit the source: fail now and not after hours of work.
    shapes = _Shapes(_tolerance(source, settings), square)
    _check_shown(source, settings)
    _check_name(target)
    further = _Further(source, target, predictor, settings, shapes, on_progress)
    began = time.monotonic()
    prediction = predictor.predict(source, target, settings.for_raster(), resume, on_progress, further.files())
    seconds = time.monotonic() - began - further.seconds
    return PredictedInput(source, prediction, seconds, _files_beside(target, predictor, settings))


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
    """Return the error to raise at the end for what an input raised."""
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


def _raise_failed(failed: list[SkystillError], total: int) -> None:
    """Raise one error about all inputs that failed. Its exit code is 2 only if the user can mend all of them."""
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


@dataclass
class _Further:
    """Makes areas, overlay and polygons from the class raster. Confidence and probabilities come together with it."""

    source: str
    target: Path
    predictor: Predictor
    settings: PredictSettings
    shapes: _Shapes
    on_progress: OnProgress
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._states = FileStates(map(str, source_files(self.source) if self.settings.overlay else ()))

    def files(self) -> FurtherFiles:
        """Return what is wanted."""
        wanted = self.settings
        about = {"areas": None, "overlay": wanted.show, "polygons": [wanted.simplify, wanted.square]}
        makers = {"areas": self._areas, "overlay": self._overlay, "polygons": self._polygons}
        steps = [
            Step(name, path, about[name], partial(self._timed, makers[name], path))
            for name, path in side_files(self.target, wanted).items()
        ]
        return FurtherFiles(tuple(steps), possible_files(self.target))

    def _timed(self, make: Callable[[Path], None], path: Path) -> None:
        began = time.monotonic()
        make(path)
        self.seconds += time.monotonic() - began

    def _areas(self, path: Path) -> None:
        from skystill.predict.summary import write_areas

        write_areas(self.target, path, self.predictor.classes, self.on_progress)

    def _overlay(self, path: Path) -> None:
        from skystill.predict.summary import write_overlay

        task = f"overlay of {self.target.name}"
        self.on_progress(Progress(task, 0, 1))
        self._states.check("the overlay")
        write_overlay(
            self.source, self.target, path, self.predictor.classes, self.settings.for_raster(),
            self.predictor.info.input_spec, self.settings.show,
        )  # fmt: skip
        try:
            self._states.check("the overlay")
        except SourceChanged:
            path.unlink(missing_ok=True)
            raise
        self.on_progress(Progress(task, 1, 1))

    def _polygons(self, path: Path) -> None:
        from skystill.predict.polygons import write_polygons

        shapes = self.shapes
        write_polygons(self.target, path, self.predictor.classes, self.on_progress, shapes.tolerance, shapes.square)


def _files_beside(target: Path, predictor: Predictor, settings: PredictSettings) -> tuple[Path, ...]:
    """Return the paths of all files beside a class raster that the settings ask for."""
    layers = wanted_layers(target, settings.for_raster(), predictor.classes)[1:]
    return (*(layer.path for layer in layers), *side_files(target, settings).values())


def _square(settings: PredictSettings, classes: ClassMap) -> tuple[int, ...]:
    """Return the labels of `--square`.

    Raises:
        SettingsError: the model has no class of a name.
    """
    if settings.square is None:
        return ()
    from skystill.predict.square import find_square_labels

    return find_square_labels(settings.square, classes)


def _check_shown(source: str, settings: PredictSettings) -> None:
    """Check that a raster has the bands of `--show`.

    Raises:
        SettingsError: it lacks one.
    """
    wanted = wanted_bands(settings.show, "--show")
    if wanted is None:
        return
    with contextlib.suppress(rasterio.errors.RasterioError), gdal_environment(), open_raster(source) as file:
        pick_bands(file, source, wanted)  # what cannot be opened, the prediction reports in full


def _check_name(target: Path) -> None:
    """Check that GDAL can write a file of this name.

    Raises:
        SettingsError: it cannot.
    """
    if not is_text(str(target)):
        raise SettingsError(
            f"{target}: the bytes of this name are no text in UTF-8. Rename the input, or choose another --out."
        )


def _tolerance(source: str, settings: PredictSettings) -> float | None:
    """Return the tolerance of `--simplify` in pixels of the result, or None if polygons are not simplified.

    Raises:
        SettingsError: the size of the pixels is needed and not known, or the tolerance is too small for any effect.
    """
    if settings.simplify is None:
        return None
    try:
        with gdal_environment(), open_raster(source) as file:
            grid = (file.height, file.width, file.crs, file.transform)
            pixel_m2 = pixel_m2_at(grid, file.width / 2, file.height / 2)
    except rasterio.errors.RasterioError:
        return None  # the prediction reports the error in full
    if pixel_m2 is not None and settings.resolution is not None:
        pixel_m2 = settings.resolution**2
    return tolerance_in_pixels(settings.simplify, source, pixel_m2)
