"""`skystill predict`: predict every input, and write further files beside each result."""

import contextlib
import importlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rasterio

from skystill.classes import ClassMap, read_classes
from skystill.errors import DamagedSource, DataError, PredictionStopped, UserError
from skystill.model.bundled import bundled_model
from skystill.predict.inputs import check_targets, find_inputs, name_targets, side_files
from skystill.predict.lengths import pixel_m2_at, tolerance_in_pixels
from skystill.predict.opening import wanted_bands
from skystill.predict.predictor import Prediction, Predictor, wanted_layers
from skystill.progress import Note, OnProgress, ignore_progress
from skystill.raster.band_names import pick_bands
from skystill.raster.opening import open_raster
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


@dataclass(frozen=True)
class _Shapes:
    """How polygons are shaped: the tolerance of `--simplify` in pixels, and the labels of `--square`."""

    tolerance: float | None
    square: tuple[int, ...]


def predict_inputs(
    settings: PredictSettings, resume: bool = False, on_progress: OnProgress = ignore_progress
) -> Iterator[PredictedInput]:
    """Predict every input. If one fails, the others are still predicted.

    Args:
        settings: settings of the command.
        resume: continue predictions that were interrupted.
        on_progress: called with a `Note` about masks and sub-folders that are passed over, and with a `Progress` in
            pixels for each input.

    Yields:
        each input when it is finished.

    Raises:
        UserError: some inputs were not found, are damaged or failed. This is raised at the end and names all of them.
            A folder without images, an --out that does not fit, and a result that would overwrite an input or another
            result are refused before the first prediction. So is a class of --square that the model does not have.
        PredictionStopped: the user pressed Ctrl-C.
    """
    if settings.vector:
        # The packages that it needs may be missing: fail now and not after hours of work.
        importlib.import_module("skystill.predict.polygons")
    classes = read_classes(settings.classes) if settings.classes else None
    # Opening a second runtime for a comparison takes 100 MB and more, so it is not done under a memory limit.
    runtime = "onnxruntime" if settings.runtime == "auto" and settings.max_memory else settings.runtime
    predictor = Predictor(
        settings.model or bundled_model(), settings.threads, runtime, classes, settings.input,
        wanted_bands(settings.bands),
    )  # fmt: skip
    square = _square(settings, predictor.classes)
    found = find_inputs(settings)
    targets = name_targets(found.sources, settings)
    check_targets(targets, settings, predictor)
    for note in (*predictor.notes, *found.notes):
        on_progress(Note(note))
    failed: list[UserError] = []
    for source, target in targets:
        try:
            # The tolerance and --show may not fit the source: fail now and not after hours of work.
            shapes = _Shapes(_tolerance(source, settings), square)
            _check_shown(source, settings)
            began = time.monotonic()
            prediction = predictor.predict(source, target, settings.for_raster(), resume, on_progress)
            seconds = time.monotonic() - began
            beside = _write_beside(source, target, predictor, settings, shapes, on_progress)
            yield PredictedInput(source, prediction, seconds, beside)
            if prediction.damaged:
                failed.append(DamagedSource(source, target, prediction.damaged))
        except PredictionStopped:
            raise
        except UserError as error:
            failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise DataError(f"{len(failed)} of {len(targets)} inputs had problems:", [str(error) for error in failed])


def _write_beside(
    source: str,
    target: Path,
    predictor: Predictor,
    settings: PredictSettings,
    shapes: _Shapes,
    on_progress: OnProgress,
) -> tuple[Path, ...]:
    """Write areas, overlay and polygons from the class raster, and return the paths of all files beside it.

    Confidence and probabilities were written together with the class raster.
    """
    raster = settings.for_raster()
    beside = side_files(target, settings)
    if settings.areas:
        from skystill.predict.summary import write_areas

        write_areas(target, beside["areas"], predictor.classes)
    if settings.overlay:
        from skystill.predict.summary import write_overlay

        write_overlay(
            source, target, beside["overlay"], predictor.classes, raster, predictor.info.input_spec, settings.show
        )
    if settings.vector:
        from skystill.predict.polygons import write_polygons

        write_polygons(target, beside["polygons"], predictor.classes, on_progress, shapes.tolerance, shapes.square)
    layers = wanted_layers(target, raster, predictor.classes)[1:]
    return (*(layer.path for layer in layers), *beside.values())


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
