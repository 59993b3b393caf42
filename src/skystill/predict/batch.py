"""`skystill predict`: find the inputs, name the results, predict, and write further files beside each result."""

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


def predict_inputs(
    settings: PredictSettings, resume: bool = False, on_progress: OnProgress = ignore_progress
) -> Iterator[PredictedInput]:
    """Predict every input. If one fails, the others are still predicted.

    Args:
        settings: settings of the command.
        resume: continue predictions that were interrupted.
        on_progress: called with a `Progress` in pixels for each input.

    Yields:
        each input when it is finished.

    Raises:
        UserError: some inputs were not found, are damaged or failed. This is raised at the end and names all of them.
            A folder without images, or an --out that does not fit, is refused before the first prediction.
        PredictionStopped: the user pressed Ctrl-C.
    """
    if settings.vector:
        # The packages that it needs may be missing: fail now and not after hours of work.
        importlib.import_module("skystill.predict.polygons")
    classes = read_classes(settings.classes) if settings.classes else None
    # Opening a second runtime for a comparison takes 100 MB and more, so it is not done under a memory limit.
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
    """Replace folders and patterns by the files in them.

    Args:
        inputs: files, folders, patterns and anything else that GDAL opens, such as URLs. Files and URLs stay
            as they are.

    Returns:
        all inputs, each of them once.

    Raises:
        DataError: a folder has no images, or a pattern matches nothing.
    """
    found: list[str] = []
    for name in inputs:
        if Path(name).is_dir():
            here = [str(path) for path in sorted(Path(name).iterdir()) if path.suffix.lower() in _SUFFIXES]
        elif glob.has_magic(name) and not Path(name).exists() and "://" not in name:
            here = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        else:
            here = [name]
        if not here:
            raise DataError(f"{name}: no images there ({', '.join(sorted(_SUFFIXES))}).")
        found.extend(path for path in here if path not in found)
    return found


def name_targets(sources: list[str], settings: PredictSettings) -> list[tuple[str, Path]]:
    """Choose the path of each result.

    If --out names a file, it is the path of the result of the only input. Otherwise --out is a folder, and each result
    gets the name of its input there.

    Args:
        sources: result of `find_inputs`.
        settings: settings of the command.

    Returns:
        each input with the path of its result.

    Raises:
        SettingsError: --out is one file for several inputs, has an unknown extension, or two inputs would get the same
            path.
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
    """Return .png for an image without a position, and .tif for a georeferenced raster."""
    if settings.cog:
        return ".tif"
    try:
        with gdal_environment(), rasterio.open(source) as file:
            return ".tif" if is_georeferenced(file) else ".png"
    except rasterio.errors.RasterioError:
        return ".png"  # the prediction reports the error in full


def _write_beside(
    source: str, target: Path, predictor: Predictor, settings: PredictSettings, on_progress: OnProgress
) -> tuple[Path, ...]:
    """Write areas, overlay and polygons from the class raster, and return the paths of all files beside it.

    Confidence and probabilities were written together with the class raster.
    """
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
