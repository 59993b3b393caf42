"""`Predictor`: predicts the labels of an image, or a class raster from a raster of any size, without torch."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill import __version__
from skystill.allocator import return_large_arrays, use_one_heap
from skystill.classes import VOID, ClassMap, Labels
from skystill.errors import (
    AnswersNotFinite,
    DataError,
    PredictionStopped,
    RunFolderError,
)
from skystill.model.choice import Choice, read_choice
from skystill.model.engine import Infer, average_test_time_views, open_engine
from skystill.model.external import model_digest
from skystill.parsing import built_from
from skystill.predict.cleaning import choose_cleaning
from skystill.predict.discarding import discarding
from skystill.predict.images import Image, logits_of_tiles, planes_of
from skystill.predict.layers import empty_notes, style_notes, wanted_layers, written_rasters
from skystill.predict.opening import open_source
from skystill.predict.plan import NetworkMemory, Plan, choose_plan, measure_network_memory, memory_of_steps
from skystill.predict.stream import Stream, most_likely, softmax
from skystill.progress import Message, Note, OnProgress, Progress, ignore_progress, report_notes
from skystill.raster.beside import shares_style
from skystill.raster.damage import DamageRecord
from skystill.raster.output import RasterOutput
from skystill.raster.overwriting import check_outputs, check_replaced, source_files
from skystill.raster.remote_states import uncertain_notes
from skystill.raster.source import Planes, RasterSource, gdal_environment
from skystill.raster.spool import RowSpool
from skystill.raster.steps import FurtherFiles
from skystill.settings import RasterSettings
from skystill.tiling import Grid

_SAYS_SO = "its nodata value, mask or transparency says so: gdalinfo shows them"
_TRIAL_SIDE = 256  # pixels; a trial on a larger tile could itself exceed a small limit of memory


@dataclass(frozen=True)
class Prediction:
    """The result for one raster.

    Args:
        path: the class raster.
        pixels: number of pixels of the class raster, including those without data.
        damaged: places in the source that could not be read. They are nodata in the result.
        notes: how bands, bit depth and resolution were handled, and how the class raster was cleaned.
    """

    path: Path
    pixels: int
    damaged: tuple[str, ...]
    notes: tuple[str, ...]


class Predictor:
    """A model file that is ready to run.

    Args:
        path: a file that SkyStill exported or, with `classes`, any segmentation model in ONNX.
        threads: number of threads; 0 uses all cores.
        runtime: onnxruntime, openvino or auto, which is the one that `skystill measure --choose` recorded beside the
            file, otherwise onnxruntime.
        classes: classes of a file without SkyStill's metadata; not used for other files.
        input_scale: scale of the pixels that a file of another program expects: "0..1", "0..255", "imagenet", or
            "values?divide=10000&mean=...&std=...". None takes what its metadata says, otherwise 0..255.
        bands: bands of the rasters that the network is fed, numbers or names, such as ["blue", "green", "red", "nir"],
            if the settings of a prediction name none. A file of another program must be told here if these are not
            red, green and blue.

    The attribute `info.input_spec` says what the network is fed. The attribute `notes` says how a file of another
    program is run, and what the record of a runtime says.

    Raises:
        ModelFileError: the file cannot be opened, SkyStill did not export it and `classes` is None, or its input or
            its answers are not those of a segmentation model.
        SettingsError: there is no such runtime, or it is not installed; or `input_scale` is given for a SkyStill file,
            or is not understood.
    """

    def __init__(
        self,
        path: Path | str,
        threads: int = 0,
        runtime: str = "onnxruntime",
        classes: ClassMap | None = None,
        input_scale: str | None = None,
        bands: Sequence[int | str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.threads = threads
        self._foreign = classes, input_scale, bands
        self._is_named = runtime != "auto"
        chosen = Choice(runtime) if self._is_named else read_choice(self.path)
        engine = open_engine(self.path, self.threads, chosen.runtime, *self._foreign)
        self._infer, self.info, self.runtime = engine.infer, engine.info, engine.runtime
        self.notes = (*engine.notes, *chosen.notes)
        self.classes = self.info.classes
        self._others: dict[str, Predictor] = {}
        self._whole = engine.whole_tiles
        self._single: Infer | None = self._infer if self.threads == 1 else None
        self._opening = Lock()
        self._memory: dict[int, NetworkMemory] = {}
        # Images of a single tile take turns here, so that the memory of the network is that of one.
        self._one_by_one = ThreadPoolExecutor(1)

    def probabilities(self, image: Image, views: int = 1) -> npt.NDArray[np.float32]:
        """Return the class probabilities of an image.

        A large image is computed in overlapping tiles, and only the valid centre of each tile is kept. The memory
        besides the result therefore does not grow with the image.

        Args:
            image: (H, W, B) in the data type of `info.input_spec`; (H, W, 3) uint8 RGB, 0 to 255, by default. Or a
                DataArray of xarray, which is read as by `predict_dataarray`; one of dask is computed.
            views: number of flipped and rotated views of each tile whose logits are averaged: 1, 2, 4 or 8. The time
                grows by this factor.

        Returns:
            (C, H, W) float32, which sums to 1 over C; NaN where a DataArray has no data.

        Raises:
            DataError, SettingsError: the image is not such an array, or it has no pixels.
            ModelFileError: the model file fails on the image, or answers with values that are not finite.
        """
        planes, valid = planes_of(image, self)
        result = np.empty((len(self.classes), *planes.shape[1:]), np.float32)
        for here, logits in self._tiles(planes, views):
            if not np.isfinite(logits).all():
                raise AnswersNotFinite(self.path)
            result[:, *here] = softmax(logits)
        if valid is not None:
            result[:, ~valid] = np.nan
        return result

    def labels(self, image: Image, views: int = 1) -> Labels:
        """Return the most probable class of each pixel. The image is computed as in `probabilities`.

        Args:
            image: (H, W, B) in the data type of `info.input_spec`; (H, W, 3) uint8 RGB, 0 to 255, by default. Or a
                DataArray of xarray, which is read as by `predict_dataarray`; one of dask is computed.
            views: number of flipped and rotated views of each tile whose logits are averaged: 1, 2, 4 or 8. The time
                grows by this factor.

        Returns:
            (H, W) uint8, 0 to C - 1; 255 where a DataArray has no data.

        Raises:
            DataError, SettingsError: the image is not such an array, or it has no pixels.
            ModelFileError: the model file fails on the image, or answers with values that are not finite.
        """
        planes, valid = planes_of(image, self)
        result = np.empty(planes.shape[1:], np.uint8)
        try:
            for here, logits in self._tiles(planes, views):
                result[here] = most_likely(logits)
        except FloatingPointError as error:
            raise AnswersNotFinite(self.path) from error
        if valid is not None:
            result[~valid] = VOID
        return result

    def predict(
        self,
        source: str | Path,
        target: str | Path,
        settings: RasterSettings | None = None,
        resume: bool = False,
        on_progress: OnProgress = ignore_progress,
        further: FurtherFiles = FurtherFiles(),  # noqa: B008 - frozen
    ) -> Prediction:
        """Predict a raster of any size window by window, and write a class raster.

        Args:
            source: anything that GDAL opens.
            target: the class raster, .tif (GeoTIFF) or .png. It holds labels as uint8 with the colours of the classes,
                and 255 where there is no data.
            settings: how the raster is read and predicted; None uses the defaults.
            resume: continue an interrupted prediction of the same target.
            on_progress: called with a `Progress` in pixels after each unit (a row of tiles), and with a `Message` that
                says where a resumed prediction goes on.
            further: what is made from the complete rasters. If that fails, `resume` goes on there.

        Returns:
            the class raster, and notes about the source.

        Raises:
            DataError: the source cannot be opened, has no pixels, or no block of it can be read.
            SourceChanged: a file of the source was replaced, written, cut or removed while it was read. Nothing is
                kept.
            SettingsError: the bands, the tiles, the resolution, the memory limit, the smallest area or the target
                cannot be used, or a file to write is the source, one of its parts, the model file, or an image that
                is no class raster.
            RunFolderError: there is an interrupted prediction that is not continued or has other settings, or another
                process is writing the same target.
            DiskFull: the disk is full, or the files cannot be written. Finished units are kept for `resume`.
            ModelFileError: the model file fails on a tile, or answers with values that are not finite. Nothing is kept.
            PredictionStopped: the user pressed Ctrl-C. Finished units are kept for `resume`.
        """
        settings = settings or RasterSettings()
        if settings.max_memory is not None:
            use_one_heap()
            return_large_arrays()
        settings = self.with_own_bands(settings)
        check_outputs(
            written_rasters(str(source), Path(target), settings, self.classes), [self.path, *source_files(str(source))]
        )
        check_replaced([(str(source), Path(target))])
        with gdal_environment():
            opened = open_source(str(source), settings, self.info)
            try:
                return self._predict(opened, Path(target), settings, resume, on_progress, further)
            except KeyboardInterrupt as error:
                raise PredictionStopped(Path(target)) from error
            finally:
                opened.close()

    def _predict(
        self,
        source: RasterSource,
        target: Path,
        settings: RasterSettings,
        resume: bool,
        on_progress: OnProgress,
        further: FurtherFiles,
    ) -> Prediction:
        layers = wanted_layers(target, settings, self.classes)
        place = (source.height, source.width, source.crs, source.transform)
        output = RasterOutput(layers, *place, self.classes, source.control)
        begun = output.begun_with() if resume else {}
        if not self._is_named and begun.get("runtime", self.runtime) != self.runtime:
            other = self._in_runtime(str(begun["runtime"]))
            on_progress(Note(f"{source.path} was begun with --runtime {other.runtime}, and goes on with it."))
            return other._predict(source, target, settings, resume, on_progress, further)
        plan = self.plan_begun(source, settings, begun, output.journal, further)
        output.rework = cleaning = choose_cleaning(settings, source.path, place, on_progress)
        output.styled = not shares_style(source.path, target)
        output.further, output.on_progress = further, on_progress
        output.keeps_units = bool(further.steps or cleaning or settings.cog) or plan.grid.count > 1
        names = tuple(layer.name for layer in layers)
        name, total, finished = Path(source.path).name, source.height * source.width, 0

        def on_pixels(pixels: int) -> None:
            nonlocal finished
            finished += pixels
            on_progress(Progress(name, finished, total, "pixels"))

        with (
            discarding(output.journal, self.path),
            output.opened(self.identity(source, settings, plan), resume) as done,
            contextlib.ExitStack() as stack,
        ):
            damage = DamageRecord(source, output.journal)
            damage.begin(continued=bool(done) or output.has_units)
            if output.has_units or done:
                on_progress(Message(output.where_it_goes_on(len(done), plan.grid.count)))
                report_notes(uncertain_notes(source.states.uncertain, output.journal), on_progress)
            rows: RasterSource | RowSpool = source
            if plan.grid.rows_first and not output.has_units:
                lanes = [unit.read[2:] for unit in plan.grid.units() if unit.row == 0]
                rows = RowSpool(source, plan.grid.tile_height, lanes, output.journal)
                stack.callback(rows.close)
            if not output.has_units:
                self.stream(rows, plan, settings, names).predict(output, done, on_pixels, damage.keep)
                source.states.check_all()
            if source.damaged_pixels >= total:
                output.abandon()
                raise DataError(f"{source.path}: no block of it can be read ({source.reason}). Nothing was written.")
        empty = empty_notes(output, f"no pixel of {source.path} has data ({_SAYS_SO})")
        notes = (*source.notes, *(cleaning.notes if cleaning else ()), *style_notes(output), *empty)
        return Prediction(target, total, tuple(source.damaged), notes)

    def with_own_bands(self, settings: RasterSettings) -> RasterSettings:
        """Return settings with the bands of the file of another program, if they name none."""
        bands = self._foreign[2] if settings.bands is None else None
        return settings if bands is None else settings.model_copy(update={"bands": ",".join(map(str, bands))})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the arguments: another process opens the file again."""
        return Predictor, (self.path, self.threads, self.runtime if self._is_named else "auto", *self._foreign)

    def stream(
        self, source: RasterSource | RowSpool, plan: Plan, settings: RasterSettings, layers: tuple[str, ...]
    ) -> Stream:
        """Return what runs the network on a raster.

        Args:
            source: the raster that is read.
            plan: how it is cut and computed.
            settings: test-time views, and whether memory is limited.
            layers: names of the arrays to compute: "classes", "confidence", "probabilities".
        """
        lean = settings.max_memory is not None
        in_turn = not lean and plan.grid.is_one_tile
        infer, worker = (self._infer, self._one_by_one) if in_turn else (self.single_threaded(), None)
        infer = average_test_time_views(infer, int(settings.views))
        return Stream(infer, plan.grid, source, len(self.classes), plan.threads, layers, lean, worker)

    def _in_runtime(self, runtime: str) -> "Predictor":
        """Return the same model in another runtime."""
        if runtime not in self._others:
            self._others[runtime] = Predictor(self.path, self.threads, runtime, *self._foreign)
        return self._others[runtime]

    def single_threaded(self) -> Infer:
        """Return the network with one thread per call, for several calls at the same time."""
        with self._opening:  # tasks of dask begin at the same time
            if self._single is None:
                self._single = open_engine(self.path, 1, self.runtime, *self._foreign).infer
            return self._single

    def plan_begun(
        self, source: RasterSource, settings: RasterSettings, begun: dict[str, Any], folder: Path, further: FurtherFiles
    ) -> Plan:
        """Return the plan of a raster: with a memory limit that of its journal, if there is one.

        Args:
            source: the raster that is read.
            settings: as in `predict`.
            begun: what the journal was begun with (`RasterOutput.begun_with`).
            folder: the journal, for messages.
            further: as in `predict`.
        """
        if "grid" in begun and settings.max_memory:  # measured memory varies, but the grid must stay the same
            return built_from(
                begun,
                lambda found: Plan(Grid(**found["grid"]), int(found["_threads"])),
                lambda why: RunFolderError(f"{folder} is damaged ({why}). Delete it and begin again."),
            )
        cost = self._network_memory(int(settings.views)) if settings.max_memory else None
        if cost is not None:
            layers = 1 + settings.confidence + settings.probabilities * len(self.classes)
            steps = memory_of_steps((step.name for step in further.steps), settings)
            cost = replace(cost, layers=layers, least_bytes=steps)
        return self.plan(source, settings, cost)

    def plan(self, source: RasterSource, settings: RasterSettings, cost: NetworkMemory | None = None) -> Plan:
        """Choose how a raster is cut and computed, as `choose_plan`.

        Args:
            source: the raster that is read.
            settings: tiles, overlap, blending and the memory limit.
            cost: memory of the network, which only a memory limit needs.
        """
        tile = settings.tile or self.info.tile_size
        overlap = self.info.overlap if settings.overlap is None else settings.overlap
        plan = choose_plan(source, tile, overlap, len(self.classes), self.threads, settings, cost)
        return replace(plan, grid=replace(plan.grid, whole=self._whole))

    def _network_memory(self, views: int) -> NetworkMemory:
        if views not in self._memory:
            self.single_threaded()  # it is part of what is there before a raster
            copies = [average_test_time_views(open_engine(self.path, 1, self.runtime, *self._foreign).infer, views)]
            side = self.info.tile_size if self._whole else _TRIAL_SIDE
            self._memory[views] = measure_network_memory(copies, self.info.input_spec, side)
        return self._memory[views]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the model, as `model_digest` gives it."""
        return model_digest(self.path)

    def identity(self, source: RasterSource, settings: RasterSettings, plan: Plan) -> dict[str, object]:
        """Return everything that determines the result.

        An interrupted prediction is continued only if all of it is the same. Values of keys that begin with "_" may
        differ. The arguments are those of `plan_begun`, and its result.
        """
        input_scale = self._foreign[1]
        return {
            "source": source.path,
            "source_state": [source.height, source.width, source.states.shared_digest],
            "model": self.digest,
            "version": __version__,
            "runtime": self.runtime,
            "grid": asdict(plan.grid),
            "_threads": plan.threads,
            **settings.model_dump(mode="json", exclude={"max_memory"}),
            **({} if input_scale is None else {"input": input_scale}),
            **({} if self.info.input_spec.is_colors else {"fed": self.info.input_spec.reading}),
        }

    def _tiles(self, planes: Planes, views: int) -> Iterator[tuple[Any, npt.NDArray[np.float32]]]:
        (height, width), size = planes.shape[1:], self.info.tile_size
        grid = Grid(height, width, size, size, self.info.overlap // 2, width, whole=self._whole)
        return logits_of_tiles(planes, average_test_time_views(self._infer, views), grid)
