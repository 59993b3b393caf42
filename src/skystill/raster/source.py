"""Read any raster as RGB bytes, window by window.

This module handles the choice of bands, bit depth, nodata, masks, resolution and damaged blocks.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from skystill.errors import DataError, SettingsError
from skystill.raster.ground import Control, Ground, find_ground

Bytes = npt.NDArray[np.uint8]
Valid = npt.NDArray[np.bool_]

CACHE_BYTES = 12 * 2**20
_BOMB_PIXELS, _BOMB_RATIO = 2**28, 2_000  # deflate in PNG packs at most 1,032 bytes into one: 344 RGB pixels per byte
_BLOCK_BYTES = 2**31
_SAMPLES, _SAMPLE_SIDE = 4, 256


@contextlib.contextmanager
def gdal_environment(cache_bytes: int = CACHE_BYTES) -> Iterator[None]:
    """Configure GDAL: a small block cache, errors for damaged files, no warnings about images without a position.

    Args:
        cache_bytes: size of the block cache.
    """
    options: dict[str, Any] = {
        "GDAL_CACHEMAX": cache_bytes,
        "GDAL_ERROR_ON_LIBJPEG_WARNING": True,  # otherwise the rest of a truncated JPEG is grey, without an error
        "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",  # folders and servers are not listed; world files are still found
        "GDAL_PAM_ENABLED": True,
    }
    with rasterio.Env(**options), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def is_georeferenced(source: rasterio.DatasetReader) -> bool:
    """Return whether the raster has a position: a CRS, a transform other than the identity, control points or RPCs."""
    placed = source.crs is not None or not source.transform.is_identity
    return placed or bool(source.gcps[0]) or source.rpcs is not None


class RasterSource:
    """An open raster. Use it from one thread only.

    Args:
        path: anything that GDAL opens: a file, a URL, /vsi...
        bands: numbers of three bands, or of one for grey; the first band is 1. None takes red, green and blue if the
            file names them, otherwise the first three bands, or the first one of a file with one or two.
        scale: values that become 0 and 255. None takes 0 and 255 for 8-bit files, and otherwise the 2nd and the 98th
            percentile of samples.
        factors: source pixels per target pixel, down and across. `height`, `width` and windows are in target pixels.

    Raises:
        DataError: the file is not a raster, is a palette image, has no pixels, or has a size that cannot be handled.
        SettingsError: the file does not have these bands, or its red, green and blue bands are unknown.
    """

    def __init__(
        self,
        path: str,
        bands: Sequence[int] | None = None,
        scale: tuple[float, float] | None = None,
        factors: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        self.path = path
        self.notes: list[str] = []
        self.damaged: list[str] = []
        self.factors = factors
        self._file = _open(path)
        _refuse_bombs(self._file, path)
        self.height = max(1, round(self._file.height / factors[0]))
        self.width = max(1, round(self._file.width / factors[1]))
        self.georeferenced = is_georeferenced(self._file)
        self.crs = self._file.crs
        across, down = self._file.width / self.width, self._file.height / self.height
        own = self._file.transform
        self.transform = Affine(own.a * across, own.b * down, own.c, own.d * across, own.e * down, own.f)
        self.control = self._find_control().resampled(down, across)
        self.bands = self._choose_bands(bands)
        self._masked = any(flags != [MaskFlags.all_valid] for flags in self._file.mask_flag_enums)
        self._nodata = self._simple_nodata()
        self.scale = scale or self._default_scale()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns of one block of the file. A block is always decoded as a whole."""
        rows, columns = self._file.block_shapes[0]
        return int(rows), int(columns)

    @property
    def sequential(self) -> bool:
        """Whether blocks span the whole width. Windows narrower than that decode the same blocks again."""
        return bool(self.block_shape[1] >= self._file.width)

    @property
    def block_row_bytes(self) -> int:
        """Memory in bytes of one row of decoded blocks, with all bands."""
        pixels = self.block_shape[0] * self._file.width
        return int(pixels * self._file.count * np.dtype(self._file.dtypes[0]).itemsize)

    @property
    def pixel_metres(self) -> tuple[float, float] | None:
        """Height and width in metres on the ground of the source pixel at the centre; None if that is not known."""
        centre = self._file.width / 2, self._file.height / 2
        size = None if self._ground is None else self._ground.pixel_metres(*centre)
        return size if size is not None and all(0 < side < math.inf for side in size) else None

    @property
    def resolution_m(self) -> float | None:
        """Side in metres of a square with the area of a source pixel; None if `pixel_metres` is None."""
        return None if self.pixel_metres is None else math.sqrt(math.prod(self.pixel_metres))

    @functools.cached_property
    def _ground(self) -> Ground | None:
        return find_ground(self._file.crs, self._file.transform, self._file.height, self._file.width)

    def _find_control(self) -> Control:
        """Return the control points and RPCs of the file, and note what cannot be done with them.

        Control points of a raster that also has a transform are left out: a GeoTIFF can hold only one of the two.
        """
        gcps, crs = self._file.gcps
        placed = not self._file.transform.is_identity
        if gcps and placed:
            self.notes.append(f"{self.path} has a transform and {len(gcps)} ground control points; only the transform "
                              "is carried over to the result.")  # fmt: skip
            gcps = []
        control = Control(tuple(gcps), crs if gcps else None, self._file.rpcs)
        if control and not placed:
            self.notes.append(
                f"{self.path} is placed by {control} and not by a transform. The result carries them over. Areas in "
                "hectares, polygons on the map and --resolution need a transform: warp the image first with gdalwarp."
            )
        return control

    def read(self, top: int, bottom: int, left: int, right: int) -> tuple[Bytes, Valid | None]:
        """Read a window as RGB.

        Blocks that cannot be read are listed in `damaged`, and their pixels are not valid.

        Args:
            top: first row, in target pixels.
            bottom: the row after the last one.
            left: first column.
            right: the column after the last one.

        Returns:
            planes (3, H, W) uint8 RGB, 0 to 255, and valid (H, W) bool, False where there is no data. `valid` is None
            if all pixels are valid.
        """
        try:
            return self._read(top, bottom, left, right)
        except RasterioError:
            return self._read_around_damage(top, bottom, left, right)

    def _read(self, top: int, bottom: int, left: int, right: int) -> tuple[Bytes, Valid | None]:
        window, shape = self._window(top, bottom, left, right), (bottom - top, right - left)
        how = Resampling.average if max(self.factors) > 1 else Resampling.bilinear
        values = self._file.read(self.bands, window=window, out_shape=(len(self.bands), *shape), resampling=how)
        valid: Valid | None = None
        if self._nodata is not None:
            valid = (values != self._nodata).any(axis=0)
        elif self._masked:
            valid = self._file.dataset_mask(window=window, out_shape=shape) > 0
        if values.dtype != np.uint8:
            finite = np.isfinite(values).all(axis=0) if values.dtype.kind == "f" else None
            valid = finite if valid is None or finite is None else valid & finite
            values = self._to_bytes(values)
        if len(values) == 1:
            values = np.repeat(values, 3, axis=0)
        return values, None if valid is None or valid.all() else valid

    def _to_bytes(self, values: npt.NDArray[Any]) -> Bytes:
        low, high = self.scale
        stretched = (np.nan_to_num(values.astype(np.float32)) - low) * (255 / (high - low))
        return np.asarray(np.clip(np.rint(stretched), 0, 255), np.uint8)

    def _window(self, top: int, bottom: int, left: int, right: int) -> Window:
        down, across = self._file.height / self.height, self._file.width / self.width
        return Window(left * across, top * down, (right - left) * across, (bottom - top) * down)

    def _read_around_damage(self, top: int, bottom: int, left: int, right: int) -> tuple[Bytes, Valid | None]:
        """Read a window block by block. Pixels of blocks that cannot be read are not valid."""
        planes = np.zeros((3, bottom - top, right - left), np.uint8)
        valid = np.ones(planes.shape[1:], bool)
        sides = zip(self.block_shape, self.factors, strict=True)
        rows, columns = (max(1, round(side / factor)) for side, factor in sides)
        for row in range(top // rows * rows, bottom, rows):
            for column in range(left // columns * columns, right, columns):
                part = max(row, top), min(row + rows, bottom), max(column, left), min(column + columns, right)
                here = np.s_[part[0] - top : part[1] - top, part[2] - left : part[3] - left]
                try:
                    planes[:, *here], part_valid = self._read(*part)
                    valid[here] = True if part_valid is None else part_valid
                except RasterioError:
                    valid[here] = False
                    self._note_damage(row, column, rows, columns)
        return planes, valid

    def _note_damage(self, row: int, column: int, rows: int, columns: int) -> None:
        last_row, last_column = min(row + rows, self.height), min(column + columns, self.width)
        place = f"rows {row} to {last_row - 1}, columns {column} to {last_column - 1}"
        if place not in self.damaged:
            self.damaged.append(place)

    def _choose_bands(self, wanted: Sequence[int] | None) -> list[int]:
        count = self._file.count
        if wanted is not None:
            if len(wanted) not in (1, 3) or not all(1 <= band <= count for band in wanted):
                raise SettingsError(
                    f"{self.path} has {count} band(s); --bands {','.join(map(str, wanted))} must name three of them, "
                    "or one for grey."
                )
            return list(wanted)
        colors = list(self._file.colorinterp)
        named = [colors.index(c) + 1 for c in (ColorInterp.red, ColorInterp.green, ColorInterp.blue) if c in colors]
        data = [index for index, color in enumerate(colors, 1) if color != ColorInterp.alpha]
        if ColorInterp.palette in colors:
            raise DataError(
                f"{self.path} is a palette picture; write it as RGB first (gdal_translate -expand rgb IN OUT)."
            )
        if len(named) == 3:
            chosen = named
        elif len(data) in (1, 2) and count <= 2:
            chosen = data[:1]
        elif len(data) >= 3:
            chosen = data[:3]
        else:
            raise SettingsError(f"{self.path} has {count} bands; say which are red, green and blue with --bands 1,2,3.")
        if len(data) > len(chosen):
            self.notes.append(
                f"{self.path}: bands {', '.join(map(str, chosen))} of {count} are taken as RGB (--bands)."
            )
        return chosen

    def _simple_nodata(self) -> float | None:
        """Return the nodata value if it is the only mask of the bands and pixels are not resampled, otherwise None."""
        flags = self._file.mask_flag_enums
        plain = all(set(flags[band - 1]) == {MaskFlags.nodata} for band in self.bands)
        value = self._file.nodata
        return value if plain and self.factors == (1.0, 1.0) and value is not None and not np.isnan(value) else None

    def _default_scale(self) -> tuple[float, float]:
        if self._file.dtypes[0] == "uint8":
            return 0.0, 255.0
        rows = np.linspace(0, max(0, self._file.height - _SAMPLE_SIDE), _SAMPLES).astype(int)
        columns = np.linspace(0, max(0, self._file.width - _SAMPLE_SIDE), _SAMPLES).astype(int)
        seen: list[npt.NDArray[Any]] = []
        for row in rows:
            for column in columns:
                window = Window(column, row, _SAMPLE_SIDE, _SAMPLE_SIDE)
                with contextlib.suppress(RasterioError):
                    values = self._file.read(self.bands, window=window, masked=True).compressed()
                    seen.append(values[np.isfinite(values)])
        values = np.concatenate(seen) if seen else np.zeros(0)
        low, high = (0.0, 1.0) if not values.size else np.percentile(values, (2, 98))
        high = high if high > low else low + 1
        self.notes.append(
            f"{self.path}: {self._file.dtypes[0]} pixels; {low:g} becomes 0 and {high:g} becomes 255 "
            "(2nd and 98th percentile of samples; set it with --scale LOW,HIGH)."
        )
        return float(low), float(high)


def _open(path: str) -> rasterio.DatasetReader:
    local = "://" not in path and not path.startswith("/vsi")
    if local and not Path(path).exists():
        raise DataError(f"{path}: no such file.")
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise DataError(f"{path}: cannot be opened as a raster ({error}).") from error


def _refuse_bombs(file: rasterio.DatasetReader, path: str) -> None:
    pixels = file.height * file.width
    if pixels == 0:
        raise DataError(f"{path} has no pixels ({file.width}x{file.height}).")
    if file.count == 0:
        raise DataError(f"{path} has no bands; give one of its subdatasets: {', '.join(file.subdatasets[:3])}.")
    on_disk = Path(path).stat().st_size if Path(path).is_file() else pixels
    if file.driver not in ("GTiff", "COG", "VRT") and pixels > _BOMB_PIXELS and pixels > _BOMB_RATIO * on_disk:
        raise DataError(
            f"{path} says it has {file.width}x{file.height} pixels in {on_disk:,} bytes: a decompression bomb. "
            "Convert it to a tiled GeoTIFF if it is real."
        )
    rows, columns = file.block_shapes[0]
    block = int(rows) * int(columns) * file.count * np.dtype(file.dtypes[0]).itemsize
    if block > _BLOCK_BYTES:
        raise DataError(
            f"{path} is stored in blocks of {columns}x{rows} pixels, {block / 2**30:.1f} GiB when decoded. Rewrite it "
            "in tiles: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE IN OUT."
        )
