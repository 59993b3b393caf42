"""Class rasters on disk: a journal of finished units, and rasters that appear only when they are complete."""

import contextlib
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError  # GDAL's own errors, which rasterio does not always wrap
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter
from rasterio.shutil import copy as convert

from skystill.classes import VOID, ClassMap
from skystill.errors import DiskFull, RunFolderError, shortened
from skystill.locks import hold_lock, lock_files
from skystill.progress import OnProgress, Progress, ignore_progress
from skystill.raster.beside import category_names_of, place_png, style_of, write_category_names
from skystill.raster.blocks import BlockWriter
from skystill.raster.entries import (
    SETTINGS,
    check_settings,
    entry_path,
    pack_entry,
    read_entry,
    read_settings,
    write_settings,
)
from skystill.raster.ground import Control
from skystill.raster.layer import Layer
from skystill.raster.steps import FinishedSteps, FurtherFiles, remove_parts
from skystill.raster.styles import style_document
from skystill.raster.whole import check_whole
from skystill.run_folder import sync, write_text, written_whole
from skystill.tiling import Unit

Arrays = Mapping[str, npt.NDArray[np.uint8]]
"""Arrays by the name of their layer, each (bands, H, W) uint8."""

Rework = Callable[[Path, Callable[[Path], DatasetWriter]], Path]
"""Changes a complete class raster, a GeoTIFF, before it gets its name. It takes the raster and a function that creates
rasters of the same form, and returns the raster to keep. All of them lie in the folder of the journal."""

NODATA = VOID
PROBABILITY_SCALE = 1 / 250
"""Scale of stored probabilities, which is also written into the raster. Bytes 0 to 250 mean 0 to 1; 255 is nodata."""
_BLOCK = 512
_RASTERS, _JOINED = "rasters", "joined"
_FORMATS = {".tif": "GTiff", ".tiff": "GTiff", ".png": "PNG"}


def journal_of(target: Path) -> Path:
    """Return the folder that holds the unfinished work of a raster. It is deleted when the raster is complete."""
    return target.with_name(f".unfinished-{target.name}")


class RasterOutput:
    """Writes units into rasters. A journal keeps all finished units after a crash.

    Args:
        layers: the rasters to write. The journal is named after the path of the first one.
        height, width: size of the rasters in pixels.
        crs, transform: position of the rasters, as in rasterio. None and the identity for an image without a position.
        classes: names and colours of the labels.
        control: control points and RPCs of the rasters, if they have any.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        height: int,
        width: int,
        crs: object,
        transform: object,
        classes: ClassMap,
        control: Control = Control(),  # noqa: B008 - frozen
    ) -> None:
        self.layers = tuple(layers)
        self.height, self.width = height, width
        self.classes = classes
        self.rework: Rework | None = None
        """What is done to the complete class raster before it gets its name. By default nothing."""
        self.keeps_units = True
        """Whether finished units are kept for a resume. A single unit is predicted again as fast as it is kept."""
        self.styled = True
        """Whether a style for QGIS is written beside the class raster."""
        self.on_progress: OnProgress = ignore_progress
        """Called with a `Progress` before and after a conversion."""
        self.further = FurtherFiles()
        """What is made from the complete rasters, before the journal is deleted. By default nothing."""
        placed = transform != rasterio.Affine(1, 0, 0, 0, 1, 0)
        self._grid: dict[str, object] = {"crs": crs, "transform": transform} if crs is not None or placed else {}
        if control.gcps and not placed:
            self._grid = {"crs": control.crs or CRS(), "gcps": list(control.gcps)}  # points may lack a CRS
        if control.rpcs is not None:
            self._grid["rpcs"] = control.rpcs
        self.journal = journal_of(layers[0].path)
        self._lock = self.journal / "lock"
        self.finished = FinishedSteps(self.journal)
        self.is_complete = False
        """Whether the rasters are complete already, so that only the further files are missing."""
        self.has_units = False
        """Whether all units are in the rasters already: they are complete, or only lack their names (`join`)."""
        self.holds_labels = False
        """Whether a pixel that was written here has a label."""
        self._files: dict[str, BlockWriter] = {}
        self._abandoned = False

    def abandon(self) -> None:
        """Delete the journal when the context of `opened` ends with an error: there is nothing to continue."""
        self._abandoned = True

    def begun_with(self) -> dict[str, Any]:
        """Return the settings of an unfinished journal, or an empty dictionary if there is none."""
        return read_settings(self.journal)

    @contextmanager
    def opened(self, settings: Mapping[str, Any], resume: bool) -> Iterator[list[int]]:
        """Begin a prediction, or continue one. Units can be written inside the context.

        At the end of the context, the complete rasters get their names, the further files are made of them, and the
        journal is deleted. What fails there is made again with `resume`, from what is finished.

        Args:
            settings: everything that determines the result. A journal with other settings is refused. Keys that begin
                with "_" may differ.
            resume: continue an unfinished journal. Without it, an unfinished journal is refused.

        Yields:
            indices of the units that are finished already. If `has_units` is set, no unit is missing.

        Raises:
            RunFolderError: another process is writing the same rasters, or there is a journal that cannot be continued.
            DiskFull: the disk is full, or the files cannot be written.
        """
        with self._locked():
            self._remove_parts()
            done = self._begin(settings, resume)
            with self._open_files():
                yield done
                self._finish()
            self.further.write(self.finished)
            self._remove_journal()

    def begin(self, settings: Mapping[str, Any]) -> list[int]:
        """Begin the journal, or check that of an interrupted prediction. No raster is opened.

        The arguments, the result and the errors are those of `opened` with `resume`.
        """
        with self._locked():
            return self._begin(settings, resume=True)

    def join(self, settings: Mapping[str, Any], units: Iterable[Unit], wait_for: Callable[[Path], bool]) -> list[Path]:
        """Write units into the rasters while other processes write them into the journal. `opened` goes on from there.

        Args:
            settings: what the journal was begun with.
            units: all units.
            wait_for: waits for the entry of a unit. It returns False if that does not come: `opened` writes all units
                then.

        Returns:
            the rasters, which lie in the folder of the journal; none if a unit did not come.

        Raises:
            RunFolderError, DiskFull: as `opened` and `replay`.
        """
        parts = [self._part(layer) for layer in self.layers]
        with self._locked():
            check_settings(self.begun_with(), settings, self.layers[0].path, self.journal)
            with self._open_files():
                for unit in units:
                    if not wait_for(entry_path(self.journal, unit.index)):
                        return []
                    self.replay(unit)
                for file in self._files.values():
                    file.check_whole()
            for part in parts:
                check_whole(part)
                sync(part)
            self.finished.add(_JOINED, self.classes.to_dict(), parts)
        return parts

    def where_it_goes_on(self, done: int, units: int) -> str:
        """Return the line that says what a resumed prediction has, and what it goes on with."""
        path = self.layers[0].path
        if self.is_complete:
            missing = ", ".join(self.further.missing(self.finished)) or "the removal of its journal"
            return f"{path}: its rasters are complete; it goes on with {missing}."
        if done == units:
            return f"{path}: all {units:,} parts are done; it goes on with the files."
        return f"{path}: {done:,} of {units:,} parts are done ({100 * done // units} %); it goes on with the others."

    def write(self, unit: Unit, arrays: Arrays) -> None:
        """Write a unit into the journal, and then into the rasters.

        Args:
            unit: the unit.
            arrays: (bands, H, W) uint8 for each layer, with the height and width of the unit.

        Raises:
            DiskFull: the disk is full. The units before this one are kept.
        """
        if self.keeps_units:
            with written_whole(entry_path(self.journal, unit.index)) as part:
                part.write_bytes(pack_entry([arrays[layer.name] for layer in self.layers]))
        self._put(unit, arrays)

    def replay(self, unit: Unit) -> None:
        """Write a unit from the journal into the rasters.

        Args:
            unit: the unit, which must be in the journal.

        Raises:
            RunFolderError: the entry of the journal is missing or damaged.
            DiskFull: the disk is full.
        """
        path = entry_path(self.journal, unit.index)
        shape = (unit.bottom - unit.top, unit.right - unit.left)
        arrays: dict[str, npt.NDArray[np.uint8]] = {}
        try:
            sizes = [len(layer.bands) * shape[0] * shape[1] for layer in self.layers]
            found = read_entry(path, sizes)
            for layer, array in zip(self.layers, found, strict=True):
                arrays[layer.name] = array.reshape(len(layer.bands), *shape)
        except (zlib.error, ValueError, OSError, struct.error, MemoryError, OverflowError) as error:
            raise RunFolderError(
                f"{path} is damaged ({shortened(error)}). Delete it, and go on with --resume: this part is predicted "
                "again."
            ) from error
        self._put(unit, arrays)

    def _put(self, unit: Unit, arrays: Arrays) -> None:
        self.holds_labels = self.holds_labels or bool((arrays[self.layers[0].name] != NODATA).any())
        for layer in self.layers:
            try:
                self._files[layer.name].write(arrays[layer.name], unit.top, unit.left)
            except (RasterioError, CPLE_BaseError) as error:
                raise DiskFull(layer.path, error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with hold_lock(self._lock, str(self.layers[0].path), self.on_progress):
                try:
                    yield
                finally:
                    if self._abandoned:
                        self._remove_journal()
        finally:
            with contextlib.suppress(OSError):
                self.journal.rmdir()  # it stays if there is work to continue

    def _begin(self, settings: Mapping[str, Any], resume: bool) -> list[int]:
        about = self.journal / SETTINGS
        for part in self.journal.glob(".part-*"):
            part.unlink(missing_ok=True)  # left by a killed process
        entries = sorted(self.journal.glob("*.unit"))
        parts = [self._part(layer) for layer in self.layers]
        self.is_complete = resume and self.finished.has(_RASTERS, self.classes.to_dict(), self._paths)
        self.has_units = self.is_complete or (resume and self.finished.has(_JOINED, self.classes.to_dict(), parts))
        if (entries or self.has_units) and about.exists():
            if not resume:
                raise RunFolderError(
                    f"an earlier prediction of {self.layers[0].path} was interrupted. Go on with --resume, or delete "
                    f"{self.journal} to begin again."
                )
            check_settings(self.begun_with(), settings, self.layers[0].path, self.journal)
            return [int(entry.stem) for entry in entries if re.fullmatch("[0-9]{8}", entry.stem)]
        self.is_complete = self.has_units = False
        for entry in entries:  # of a journal whose settings are lost: they must not be taken for units of this one
            entry.unlink(missing_ok=True)
        if not self.keeps_units:
            about.unlink(missing_ok=True)
            return []
        write_settings(self.journal, settings)
        return []

    def _part(self, layer: Layer) -> Path:
        return self.journal / f"{layer.name}.tif"

    @property
    def _paths(self) -> list[Path]:
        return [layer.path for layer in self.layers]

    def _remove_parts(self) -> None:
        """Remove what killed processes left of the files that this one writes. Call this with the lock held."""
        first = self.layers[0].path
        own = (*self._paths, category_names_of(first), *self.further.names)
        remove_parts(first.parent, {path.name for path in own}, shared={style_of(first).name})

    def _remove_journal(self) -> None:
        """Delete what the journal holds but its lock. What is finished goes last: a kill on the way costs nothing."""
        last = {self.finished.path.name: 1, SETTINGS: 2}
        entries = sorted(self.journal.iterdir(), key=lambda entry: last.get(entry.name, 0))
        for entry in (one for one in entries if one not in lock_files(self._lock)):
            with contextlib.suppress(OSError):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    @contextmanager
    def _open_files(self) -> Iterator[None]:
        """Hold the rasters open that units are written into, if there are any to write."""
        try:
            if not self.has_units:
                self.finished.clear()
                for layer in self.layers:
                    self._files[layer.name] = BlockWriter(self._create(layer, self._part(layer)), self.journal)
            yield
        except (RasterioError, CPLE_BaseError) as error:
            raise DiskFull(self.layers[0].path, error) from error
        finally:
            for file in self._files.values():
                file.close()
            self._files = {}

    def _create(self, layer: Layer, path: Path) -> DatasetWriter:
        path.unlink(missing_ok=True)  # left by a killed process: GDAL would open it first
        file = rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=self.height,
            width=self.width,
            count=len(layer.bands),
            dtype="uint8",
            nodata=NODATA,
            tiled=True,
            blockxsize=_BLOCK,
            blockysize=_BLOCK,
            interleave="band",
            compress="deflate",
            zlevel=1,  # level 6 takes three times as long and makes files a quarter smaller
            bigtiff="if_safer",
            **self._grid,
        )
        for index, name in enumerate(layer.bands, 1):
            file.set_band_description(index, name)
        if layer.is_classes:
            file.write_colormap(1, {label: (*color, 255) for label, color in enumerate(self.classes.colors)})
            file.update_tags(1, **{f"CLASS_{label}": name for label, name in enumerate(self.classes.names)})
        else:
            file.scales = (PROBABILITY_SCALE,) * len(layer.bands)
        return file

    def _finish(self) -> None:
        if self.is_complete:
            return
        for file in self._files.values():
            file.check_whole()
            file.close()
        self._files = {}
        for layer in self.layers:
            written = made = self._part(layer)
            check_whole(made)
            if layer.is_classes and self.rework is not None:
                try:
                    written = made = self.rework(written, partial(self._create, layer))
                except OSError as error:
                    raise DiskFull(layer.path, error) from error
                check_whole(made)
            if layer.cog:
                made = self.journal / f"{layer.name}-cog.tif"
                self.on_progress(Progress(f"Cloud Optimized GeoTIFF of {layer.path.name}", 0, 1))
                # Nearest neighbour, because the mean of two labels is not a label. One thread and GDAL's small cache
                # bound the memory of the conversion.
                convert(written, made, driver="COG", compress="DEFLATE", overview_resampling="NEAREST")
                check_whole(made)
                self.on_progress(Progress(f"Cloud Optimized GeoTIFF of {layer.path.name}", 1, 1))
            elif _FORMATS[layer.path.suffix.lower()] == "PNG":
                made = self.journal / f"{layer.name}.png"
                convert(written, made, driver="PNG", zlevel=2)  # level 6 takes twice as long; a quarter smaller
                check_whole(made)
            try:
                sync(made)
                made.replace(layer.path)
            except OSError as error:
                raise DiskFull(layer.path, error) from error
            self._write_beside(layer, made)
        if self.further.steps:
            self.finished.add(_RASTERS, self.classes.to_dict(), self._paths)

    def _write_beside(self, layer: Layer, made: Path) -> None:
        if layer.path.suffix.lower() == ".png":
            place_png(made, layer.path, bool(self._grid))
        elif layer.is_classes:
            write_category_names(layer.path, self.classes)
        if layer.is_classes and self.styled:
            write_text(style_of(layer.path), style_document(self.classes))
