"""What `skystill predict` makes from the class raster of one input, and the checks that the settings fit the input."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import rasterio

from skystill.classes import ClassMap
from skystill.errors import SettingsError, SourceChanged
from skystill.predict.inputs import possible_files, side_files
from skystill.predict.lengths import pixel_m2_at, tolerance_in_pixels
from skystill.predict.predictor import Predictor
from skystill.progress import OnProgress, Progress
from skystill.raster.band_names import pick_bands, wanted_bands
from skystill.raster.opening import is_text, open_raster
from skystill.raster.source import gdal_environment
from skystill.raster.source_states import source_states
from skystill.raster.states import FileStates
from skystill.raster.steps import FurtherFiles, Step
from skystill.settings import PredictSettings


@dataclass(frozen=True)
class Shapes:
    """How polygons are shaped.

    Args:
        tolerance: that of `--simplify` in pixels, or None.
        square: labels of `--square`.
    """

    tolerance: float | None
    square: tuple[int, ...]


def check_one(
    predictor: Predictor, settings: PredictSettings, on_progress: OnProgress, job: tuple[str, Path]
) -> "Further":
    """Check that the settings fit an input, and return what is made from its class raster.

    The tolerance and --show may not fit the source: this fails before hours of work, and not after. The arguments and
    the errors are those of `predict_one`.
    """
    source, target = job
    shapes = Shapes(_tolerance(source, settings), square_labels(settings, predictor.classes))
    _check_shown(source, settings)
    _check_name(target)
    return Further(source, target, predictor, settings, shapes, on_progress)


@dataclass
class Further:
    """Makes areas, overlay and polygons from the class raster. Confidence and probabilities come together with it."""

    source: str
    target: Path
    predictor: Predictor
    settings: PredictSettings
    shapes: Shapes
    on_progress: OnProgress
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._states = source_states(self.source) if self.settings.overlay else FileStates(())
        self._states.ask_servers()

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
        self._states.check_all("the overlay")
        write_overlay(
            self.source, self.target, path, self.predictor.classes, self.settings.for_raster(),
            self.predictor.info.input_spec, self.settings.show,
        )  # fmt: skip
        try:
            self._states.check_all("the overlay")
        except SourceChanged:
            path.unlink(missing_ok=True)
            raise
        self.on_progress(Progress(task, 1, 1))

    def _polygons(self, path: Path) -> None:
        from skystill.predict.polygons import write_polygons

        shapes = self.shapes
        write_polygons(self.target, path, self.predictor.classes, self.on_progress, shapes.tolerance, shapes.square)


def square_labels(settings: PredictSettings, classes: ClassMap) -> tuple[int, ...]:
    """Return the labels of `--square`.

    Args:
        settings: settings of the command.
        classes: classes of the model.

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
