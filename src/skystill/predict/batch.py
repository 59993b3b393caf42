"""`skystill predict`: from inputs to files. Which files, what each is called, and what goes beside it."""

import glob
import importlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rasterio

from skystill.classes import read_classes
from skystill.errors import DamagedSource, DataError, PredictionStopped, SettingsError, UserError
from skystill.model.bundled import bundled_model
from skystill.predict.predictor import Prediction, Predictor, wanted_layers
from skystill.progress import OnProgress, ignore_progress
from skystill.raster.source import gdal_environment, is_georeferenced
from skystill.settings import PredictSettings

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".vrt", ".jp2", ".webp", ".bmp"})
_FILES = (".tif", ".tiff", ".png")


@dataclass(frozen=True)
class PredictedInput:
    """One input, done.

    Args:
        source: the input.
        prediction: what came of it.
        seconds: it took.
        beside: other files written.
    """

    source: str
    prediction: Prediction
    seconds: float
    beside: tuple[Path, ...]


def predict_inputs(
    settings: PredictSettings, resume: bool = False, on_progress: OnProgress = ignore_progress
) -> Iterator[PredictedInput]:
    """Predict every input; one that fails does not keep the others from being done.

    Args:
        settings: of the command.
        resume: go on with what was interrupted.
        on_progress: follows the pixels of each input.

    Yields:
        each input as it is done.

    Raises:
        UserError: inputs that were not found, or failed, all of them named; at the end.
        PredictionStopped: Ctrl-C.
    """
    if settings.vector:
        importlib.import_module(
            "skystill.predict.polygons"
        )  # what it needs may be missing: say so before hours of work
    classes = read_classes(settings.classes) if settings.classes else None
    # Opening a second runtime to compare costs 100 MB and more: not where memory is short.
    runtime = "onnxruntime" if settings.runtime == "auto" and settings.max_memory else settings.runtime
    predictor = Predictor(settings.model or bundled_model(), settings.threads, runtime, classes)
    targets = name_targets(find_inputs(settings.inputs), settings)
    failed: list[UserError] = []
    for source, target in targets:
        try:
            began = time.monotonic()
            prediction = predictor.predict(source, target, settings.for_raster(), resume, on_progress)
            seconds = time.monotonic() - began
            yield PredictedInput(
                source, prediction, seconds, _write_beside(source, target, predictor, settings, on_progress)
            )
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


def find_inputs(inputs: list[str]) -> list[str]:
    """Files of folders and patterns; everything else as it is, for GDAL to open.

    Raises:
        DataError: a folder without images, or a pattern that fits nothing.
    """
    found: list[str] = []
    for name in inputs:
        if Path(name).is_dir():
            here = [str(path) for path in sorted(Path(name).iterdir()) if path.suffix.lower() in _SUFFIXES]
        elif glob.has_magic(name) and not Path(name).exists() and "://" not in name:
            here = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - a user's own pattern, absolute too
        else:
            here = [name]
        if not here:
            raise DataError(f"{name}: no images there ({', '.join(sorted(_SUFFIXES))}).")
        found.extend(path for path in here if path not in found)
    return found


def name_targets(sources: list[str], settings: PredictSettings) -> list[tuple[str, Path]]:
    """What each result is called: --out itself for one input where it names a file, otherwise a name in that folder.

    Raises:
        SettingsError: one file for several inputs, or two inputs with one name.
        DataError: an input cannot be opened.
    """
    out = settings.out
    if out.suffix.lower() in _FILES:
        if len(sources) > 1:
            raise SettingsError(f"--out {out} is one file, and there are {len(sources)} inputs; give a folder.")
        return [(sources[0], out)]
    if len(sources) == 1 and out.suffix and not out.is_dir():
        raise SettingsError(f"--out {out}: name it .tif (GeoTIFF) or .png, or give a folder.")
    targets = [(source, out / (Path(source).stem + _suffix(source, settings))) for source in sources]
    names = [target.name for _, target in targets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"several inputs would be written to {', '.join(twice)}; predict them into two folders.")
    return targets


def _suffix(source: str, settings: PredictSettings) -> str:
    """A plain image becomes a PNG, a raster that knows where it lies a GeoTIFF."""
    if settings.cog:
        return ".tif"
    try:
        with gdal_environment(), rasterio.open(source) as file:
            return ".tif" if is_georeferenced(file) else ".png"
    except rasterio.errors.RasterioError:
        return ".png"  # said in full when it is predicted


def _write_beside(
    source: str, target: Path, predictor: Predictor, settings: PredictSettings, on_progress: OnProgress
) -> tuple[Path, ...]:
    """Confidence and probabilities are there already; polygons, areas and overlay are made from the class raster."""
    raster = settings.for_raster()
    made = [layer.path for layer in wanted_layers(target, raster, predictor.classes)[1:]]
    if settings.areas:
        from skystill.predict.summary import write_areas

        made.append(target.with_name(f"{target.stem}-areas.csv"))
        write_areas(target, made[-1], predictor.classes)
    if settings.overlay:
        from skystill.predict.summary import write_overlay

        made.append(target.with_name(f"{target.stem}-overlay.png"))
        write_overlay(source, target, made[-1], predictor.classes, raster)
    if settings.vector:
        from skystill.predict.polygons import write_polygons

        made.append(target.with_suffix(f".{settings.vector}"))
        write_polygons(target, made[-1], predictor.classes, on_progress)
    return tuple(made)
