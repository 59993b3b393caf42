"""Class rasters on disk: a journal of finished units, GeoTIFFs that appear whole, and what goes with them."""

import itertools
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import rasterio
from filelock import FileLock, Timeout
from rasterio._err import CPLE_BaseError  # GDAL's own words, where rasterio does not wrap them
from rasterio.errors import RasterioError
from rasterio.shutil import copy as convert
from rasterio.windows import Window

from skystill.classes import VOID, ClassMap
from skystill.errors import DiskFull, RunFolderError
from skystill.run_folder import write_json, write_text, written_whole
from skystill.tiling import Unit

Arrays = Mapping[str, npt.NDArray[np.uint8]]
"""Layer name to (bands, H, W) uint8."""

NODATA = VOID
PROBABILITY_SCALE = 1 / 250
"""Probabilities are stored as bytes, 0 to 250 for 0 to 1; the raster carries this scale, 255 is nodata."""
_BLOCK = 512
_CHECKERS = 2
_HEAD = struct.Struct("<cQ")
_FORMATS = {".tif": "GTiff", ".tiff": "GTiff", ".png": "PNG"}


@dataclass(frozen=True)
class Layer:
    """One raster to write.

    Args:
        name: key in the arrays.
        path: where it goes; .tif or .png.
        bands: names of its bands.
        is_classes: True for labels with colours, False for probabilities.
        cog: write a Cloud Optimized GeoTIFF.
    """

    name: str
    path: Path
    bands: tuple[str, ...]
    is_classes: bool = False
    cog: bool = False


class RasterOutput:
    """Writes units into rasters. After a crash the journal still has all finished units.

    Args:
        layers: what to write; the first one's path names the journal.
        height, width: of the rasters.
        crs, transform: as rasterio's; None and the identity for a plain image.
        classes: names and colours.
    """

    def __init__(
        self, layers: Sequence[Layer], height: int, width: int, crs: object, transform: object, classes: ClassMap
    ) -> None:
        self.layers = tuple(layers)
        self.height, self.width = height, width
        self.classes = classes
        self._grid = (
            {"crs": crs, "transform": transform}
            if crs is not None or transform != rasterio.Affine(1, 0, 0, 0, 1, 0)
            else {}
        )
        target = layers[0].path
        self.journal = target.with_name(f".unfinished-{target.name}")
        self._files: dict[str, rasterio.io.DatasetWriter] = {}

    def begun_with(self) -> dict[str, Any]:
        """The settings of an unfinished journal; empty where there is none."""
        about = self.journal / "settings.json"
        return dict(json.loads(about.read_text(encoding="utf-8"))) if about.exists() else {}

    @contextmanager
    def opened(self, settings: Mapping[str, Any], resume: bool) -> Iterator[list[int]]:
        """Begin or go on; inside, units can be written. On success the rasters take their names.

        Args:
            settings: all that decides the result; a journal made with others is refused. Keys that begin with "_" may
                differ.
            resume: go on with an unfinished journal. Without it one is refused.

        Yields:
            indices of the units that are done.

        Raises:
            RunFolderError: another process is at it; or a journal is there that cannot be gone on with.
            DiskFull: no room, or no permission.
        """
        try:
            self.journal.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskFull(self.journal, error.strerror or str(error)) from error
        with self._locked():
            done = self._begin(settings, resume)
            try:
                self._open_files()
                yield done
                self._finish()
            except (RasterioError, CPLE_BaseError) as error:
                raise DiskFull(self.layers[0].path, str(error)) from error
            finally:
                for file in self._files.values():
                    file.close()
                self._files = {}

    def write(self, unit: Unit, arrays: Arrays) -> None:
        """Keep a unit in the journal, then put it into the rasters.

        Raises:
            DiskFull: no room; the units before are kept.
        """
        path = self._entry(unit.index)
        with written_whole(path) as part:
            part.write_bytes(b"".join(_pack(arrays[layer.name]) for layer in self.layers))
        self._put(unit, arrays)

    def replay(self, unit: Unit) -> None:
        """Put a unit of the journal into the rasters.

        Raises:
            RunFolderError: the entry is damaged.
        """
        path = self._entry(unit.index)
        shape = (unit.bottom - unit.top, unit.right - unit.left)
        arrays: dict[str, npt.NDArray[np.uint8]] = {}
        try:
            content = memoryview(path.read_bytes())
            for layer in self.layers:
                array, content = _unpack(content)
                arrays[layer.name] = array.reshape(len(layer.bands), *shape)
        except (zlib.error, ValueError, OSError, struct.error) as error:
            raise RunFolderError(f"{path} is damaged ({error}); delete {self.journal} and begin again.") from error
        self._put(unit, arrays)

    def _put(self, unit: Unit, arrays: Arrays) -> None:
        window = Window(unit.left, unit.top, unit.right - unit.left, unit.bottom - unit.top)
        for layer in self.layers:
            try:
                self._files[layer.name].write(arrays[layer.name], window=window)
            except (RasterioError, CPLE_BaseError) as error:
                raise DiskFull(layer.path, str(error)) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.journal / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunFolderError(f"another process is writing {self.layers[0].path}; wait for it.") from error
        try:
            yield
        finally:
            lock.release()

    def _begin(self, settings: Mapping[str, Any], resume: bool) -> list[int]:
        about = self.journal / "settings.json"
        for part in self.journal.glob(".part-*"):  # of a killed process
            part.unlink(missing_ok=True)
        entries = sorted(self.journal.glob("*.unit"))
        if entries and about.exists():
            if not resume:
                raise RunFolderError(
                    f"an earlier prediction of {self.layers[0].path} was interrupted. Go on with --resume, or delete "
                    f"{self.journal} to begin again."
                )
            before = self.begun_with()
            now = json.loads(json.dumps(settings))
            changed = [key for key in now if not key.startswith("_") and before.get(key) != now[key]]
            if changed:
                raise RunFolderError(
                    f"the interrupted prediction of {self.layers[0].path} had other settings ({', '.join(changed)}). "
                    f"Use the same ones, or delete {self.journal} to begin again."
                )
            return [int(entry.stem) for entry in entries]
        write_json(about, settings)
        return []

    def _entry(self, index: int) -> Path:
        return self.journal / f"{index:08d}.unit"

    def _part(self, layer: Layer) -> Path:
        return self.journal / f"{layer.name}.tif"

    def _open_files(self) -> None:
        for layer in self.layers:
            self._part(layer).unlink(missing_ok=True)  # of a killed process: GDAL would look into it first
            file = rasterio.open(
                self._part(layer),
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
                zlevel=1,  # level 6 takes three times as long for a quarter less
                bigtiff="if_safer",
                **self._grid,
            )
            self._files[layer.name] = file
            for index, name in enumerate(layer.bands, 1):
                file.set_band_description(index, name)
            if layer.is_classes:
                file.write_colormap(1, {label: (*color, 255) for label, color in enumerate(self.classes.colors)})
                file.update_tags(1, **{f"CLASS_{label}": name for label, name in enumerate(self.classes.names)})
            else:
                file.scales = (PROBABILITY_SCALE,) * len(layer.bands)

    def _finish(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}
        for layer in self.layers:
            made = self._part(layer)
            _check_whole(made)
            if layer.cog:
                made = self.journal / f"{layer.name}-cog.tif"
                # Nearest: a mean of labels is no label. One thread and GDAL's small cache keep the conversion bounded.
                convert(self._part(layer), made, driver="COG", compress="DEFLATE", overview_resampling="NEAREST")
            elif _FORMATS[layer.path.suffix.lower()] == "PNG":
                made = self.journal / f"{layer.name}.png"
                convert(self._part(layer), made, driver="PNG")
            try:
                with made.open("rb") as file:
                    os.fsync(file.fileno())
                made.replace(layer.path)
            except OSError as error:
                raise DiskFull(layer.path, error.strerror or str(error)) from error
            if layer.is_classes and layer.path.suffix.lower() != ".png":
                _write_category_names(layer.path, self.classes)
        shutil.rmtree(self.journal, ignore_errors=True)


def _pack(array: npt.NDArray[np.uint8]) -> bytes:
    """Values and lengths of runs of equal bytes, which class maps are made of; deflate where that is not smaller.

    Finding the runs takes a fifth of deflate's time, and the journal lives for minutes.
    """
    flat = array.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]).astype(np.uint32)
    if 5 * len(starts) < flat.size // 4:
        body = flat[starts].tobytes() + np.diff(starts, append=np.uint32(flat.size)).astype(np.uint32).tobytes()
        return _HEAD.pack(b"R", len(body)) + body
    body = zlib.compress(array.tobytes(), 1)
    return _HEAD.pack(b"Z", len(body)) + body


def _unpack(content: memoryview) -> tuple[npt.NDArray[np.uint8], memoryview]:
    """The first array, flat, and what follows it."""
    kind, size = _HEAD.unpack_from(content)
    body, rest = content[_HEAD.size : _HEAD.size + size], content[_HEAD.size + size :]
    if kind == b"Z":
        return np.frombuffer(zlib.decompress(body), np.uint8), rest
    count = size // 5
    values = np.frombuffer(body[:count], np.uint8)
    return np.repeat(values, np.frombuffer(body[count:], np.uint32)), rest


def _check_whole(path: Path) -> None:
    """Read every block, on two threads: GDAL tells of a disk that was full only now."""
    with ThreadPoolExecutor(_CHECKERS) as pool:
        list(pool.map(lambda part: _read_blocks(path, part), range(_CHECKERS)))


def _read_blocks(path: Path, part: int) -> None:
    with rasterio.open(path) as file:
        for _, window in itertools.islice(file.block_windows(1), part, None, _CHECKERS):
            file.read(window=window)


def _write_category_names(path: Path, classes: ClassMap) -> None:
    """Names of the labels, where GDAL and QGIS look for them; a GeoTIFF itself has no place for them."""
    names = "".join(f"<Category>{escape(name)}</Category>" for name in classes.names)
    write_text(
        path.with_name(path.name + ".aux.xml"),
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>\n',
    )
