"""Read any raster or picture for a network, window by window.

Training and prediction both read through `RasterSource`, so that the same file gives them the same pixels. This module
handles resolution and damaged blocks; `colors`, `values`, `validity` and `turned` beside it handle the rest.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from skystill.errors import DataError, SettingsError
from skystill.raster.band_names import pick_bands
from skystill.raster.colors import Bytes as Bytes
from skystill.raster.colors import Colors
from skystill.raster.ground import Control, Ground, find_ground
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.opening import files_of, gdal_reason, is_remote, open_raster, reading_options
from skystill.raster.places import Place, Places
from skystill.raster.refusals import DECODER_BYTES, refuse_unreadable
from skystill.raster.servers import asked_again, open_or_ask_again
from skystill.raster.spreads import kept_spread
from skystill.raster.states import FileStates
from skystill.raster.turned import UPRIGHT, read_orientation, turned_note, turned_size, write_upright
from skystill.raster.validity import Valid as Valid
from skystill.raster.validity import Validity
from skystill.raster.values import Values

_Read = TypeVar("_Read")
Planes = npt.NDArray[Any]
"""(B, H, W) in the data type of a spec."""

CACHE_BYTES = 12 * 2**20
_SAMPLES, _SAMPLE_SIDE = 4, 256
_ONE_STREAM = frozenset({"JPEG", "PNG"})  # each row is decoded from those above it


@contextlib.contextmanager
def gdal_environment(cache_bytes: int = CACHE_BYTES) -> Iterator[None]:
    """Configure GDAL: a small block cache (in bytes), errors for damage, no warnings about missing positions."""
    options: dict[str, Any] = {
        "GDAL_CACHEMAX": cache_bytes,
        "GDAL_ERROR_ON_LIBJPEG_WARNING": True,  # otherwise the rest of a truncated JPEG is grey, without an error
        "GDAL_PNG_WHOLE_IMAGE_OPTIM": False,  # it reads a truncated PNG as noise, without an error
        "GDAL_PAM_ENABLED": True,
        "JPEGMEM": f"{DECODER_BYTES // 2**20}M",  # a progressive JPEG is held as a whole; GDAL refuses above 500 MB
        **reading_options(),
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
        path: a file, a URL, or another name of GDAL that `skystill.raster.opening` opens.
        bands: numbers or names of its bands, in the order of the spec; the first band is 1. Colours may also have one
            band, which is grey. None finds the bands of the spec by name or by place. Colours are red, green and blue
            if the file names them, otherwise the first three bands, or the only one.
        scale: values that become 0 and 255, for colours only. None takes 0 and 255 for 8-bit files, and otherwise the
            2nd and the 98th percentile of samples.
        factors: source pixels per target pixel, down and across. `height`, `width` and windows are in target pixels.
        as_stored: do not turn a picture upright that has an EXIF orientation. Otherwise an upright copy is kept in a
            scratch file as long as this object exists. Rasters with a position are never turned.
        spec: what the network is fed.

    Raises:
        DataError: the file is not a raster, has no pixels, has a size that cannot be handled, holds complex numbers or
            values that are not those of the spec, or is a VRT whose sources are gone.
        SettingsError: the file lacks a band of the spec or of `bands`, its red, green and blue bands are unknown, or
            `scale` is given for an image of 8 bits or less, or for values.
    """

    def __init__(
        self,
        path: str,
        bands: Sequence[int | str] | None = None,
        scale: tuple[float, float] | None = None,
        factors: tuple[float, float] = (1.0, 1.0),
        as_stored: bool = False,
        spec: InputSpec = RGB,
    ) -> None:
        self.path = path
        self.notes: list[str] = []
        self.damage, self.reason = Places(), ""  # the reason is GDAL's own, for the first damage
        self._lost_from = math.inf  # first row that cannot be decoded, of a file of `_ONE_STREAM`
        self.factors, self.spec, self._told = factors, spec, bands is not None
        self.states = FileStates([path])
        """The files of the raster as they were before its pixels were read."""
        self._file = self._opened()
        self.states.add(files_of(self._file))
        self._held_bytes = refuse_unreadable(self._file, path)
        self.orientation = read_orientation(path, self._file)
        if self.orientation != UPRIGHT and not as_stored:
            self._turn_upright(bands, scale)
            bands, scale = range(1, len(spec) + 1), None
        self.height = max(1, round(self._file.height / factors[0]))
        self.width = max(1, round(self._file.width / factors[1]))
        self.georeferenced = is_georeferenced(self._file)
        self.crs = self._file.crs
        across, down, own = self._file.width / self.width, self._file.height / self.height, self._file.transform
        self.transform = Affine(own.a * across, own.b * down, own.c, own.d * across, own.e * down, own.f)
        self.control = self._find_control().resampled(down, across)
        numbers = None if bands is None else pick_bands(self._file, path, bands)
        self._reading = self._make_reading(numbers, scale)
        self.bands = list(self._reading.numbers)
        self.planes, self.kind = self._reading.planes, self._reading.kind
        self.depth = self._reading.depth
        self.notes.extend(self._reading.notes)
        resampled, values = factors != (1.0, 1.0), isinstance(self._reading, Values)
        self._validity = Validity(self._file, self.bands, self._reading.alpha, resampled, every=values)

    def _make_reading(self, numbers: Sequence[int] | None, scale: tuple[float, float] | None) -> Colors | Values:
        if self.spec.is_colors:
            spread = functools.partial(kept_spread, self.path, self.states, self._samples)
            return Colors(self._file, self.path, numbers, scale, spread)
        if scale is not None:
            raise SettingsError(
                f"--scale is for networks that are fed colours; this one is fed the values of {self.spec.labels}. "
                "Leave it out."
            )
        return Values(self._file, self.path, numbers, self.spec)

    def _opened(self) -> rasterio.DatasetReader:  # an array has its own
        return _open(self.path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def damaged(self) -> list[str]:
        """The places that could not be read, in words. Neighbours are one place."""
        return self.damage.names()

    @property
    def damaged_pixels(self) -> int:
        """Number of their pixels."""
        return self.damage.pixels

    @property
    def scale(self) -> tuple[float, float] | None:
        """The values that become 0 and 255 where bands are read as colours, otherwise None."""
        return self._reading.scale if isinstance(self._reading, Colors) else None

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
    def stored_bytes(self) -> int:
        """Memory in bytes of one pixel of the bands that are read, as they are stored."""
        return len(self.bands) * int(self._reading.stored.itemsize)

    @property
    def decoder_bytes(self) -> int:
        """Memory in bytes that decoding takes besides GDAL's cache.

        A block is held three times: as it is stored, decoded with all bands, and in the cache band by band, which is
        larger than its limit if one block is. Some formats are held as a whole (`refuse_unreadable`).
        """
        rows, columns = self.block_shape
        pixels = min(rows, self._file.height) * min(columns, self._file.width)
        return 3 * int(pixels * self._file.count * np.dtype(self._file.dtypes[0]).itemsize) + self._held_bytes

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

    def check_range(self) -> None:
        """Compare samples of the values with those of the training images, as `Values.notes_on_range`. Colours pass."""
        if isinstance(self._reading, Values):
            self.notes.extend(self._reading.notes_on_range(self._samples, self._told))

    def off_scale(self) -> str | None:
        """Return why the values are not on the scale of the training images, as `Values.off_scale`. Colours pass."""
        return self._reading.off_scale(self._samples) if isinstance(self._reading, Values) else None

    def read(self, top: int, bottom: int, left: int, right: int) -> tuple[Planes, Valid | None]:
        """Read a window.

        Blocks that cannot be read are listed in `damaged`, and their pixels are not valid. On servers, it is an error.

        Args:
            top: first row, in target pixels.
            bottom: the row after the last one.
            left: first column.
            right: the column after the last one.

        Returns:
            planes (B, H, W) in the data type of the spec, and valid (H, W) bool, False where there is no data. `valid`
            is None if all pixels are valid.

        Raises:
            ServerFailed: a file on a server cannot be read.
        """
        if bottom <= self._lost_from:
            found = self._tried(lambda: self._read(top, bottom, left, right))
            if found is not None:
                return found
        return self._read_around_damage(top, bottom, left, right)

    @property
    def plain(self) -> bool:
        """Whether the bytes of the first band, or of the first three, are read as they are stored."""
        return self._reading.plain and self.orientation == UPRIGHT

    def _read(self, top: int, bottom: int, left: int, right: int) -> tuple[Planes, Valid | None]:
        window, shape = self._window(top, bottom, left, right), (bottom - top, right - left)
        how = Resampling.average if max(self.factors) > 1 else Resampling.bilinear
        values = self._file.read(
            self.bands,
            window=window,
            out_shape=(len(self.bands), *shape),
            resampling=self._reading.resampling(how),
            out_dtype=self._reading.read_type(self.factors != (1.0, 1.0)),
        )
        planes, valid = self._reading.convert(values, self._validity.of(self._file, values, window, shape))
        return planes, None if valid is None or valid.all() else valid

    def _turn_upright(self, bands: Sequence[int | str] | None, scale: tuple[float, float] | None) -> None:
        """Continue with an upright copy of the picture, which has the bands of the spec and transparency."""
        stored = RasterSource(self.path, bands, scale, as_stored=True, spec=self.spec)
        height, width = stored.height, stored.width

        def read(top: int, bottom: int) -> tuple[Planes, Valid | None]:
            return stored.read(top, bottom, 0, width)

        try:
            copy = write_upright(read, (stored.planes, stored.kind), height, width, self.orientation, owner=self)
        except RasterioError as error:
            raise DataError(f"{self.path}: no upright copy of it can be written ({gdal_reason(error)}).") from error
        finally:
            stored.close()
        self._file.close()
        self._file = open_raster(copy)
        tall, wide = turned_size(height, width, self.orientation)
        self.notes = [*stored.notes, turned_note(self.path, self.orientation, (height, width), (tall, wide))]
        self.damage, self.reason = stored.damage, stored.reason
        self.damage.frame = " (before it was turned)"

    def _window(self, top: int, bottom: int, left: int, right: int) -> Window:
        down, across = self._file.height / self.height, self._file.width / self.width
        return Window(left * across, top * down, (right - left) * across, (bottom - top) * down)

    def _read_around_damage(self, top: int, bottom: int, left: int, right: int) -> tuple[Planes, Valid | None]:
        """Read a window block by block. Pixels of blocks that cannot be read are not valid."""
        planes = np.zeros((self.planes, bottom - top, right - left), self.kind)
        if not self.spec.is_colors:
            planes += self.spec.fill[:, None, None]
        valid = np.ones(planes.shape[1:], bool)
        sides = zip(self.block_shape, self.factors, strict=True)
        rows, columns = (max(1, round(side / factor)) for side, factor in sides)
        for row in range(top // rows * rows, bottom, rows):
            if row >= self._lost_from:
                valid[max(row, top) - top :] = False
                break
            for column in range(left // columns * columns, right, columns):
                part = max(row, top), min(row + rows, bottom), max(column, left), min(column + columns, right)
                here = np.s_[part[0] - top : part[1] - top, part[2] - left : part[3] - left]
                try:
                    planes[:, *here], part_valid = self._read(*part)
                    valid[here] = True if part_valid is None else part_valid
                except RasterioError as error:
                    valid[here] = False
                    self._note_damage(row, column, rows, columns, gdal_reason(error))
                    self._open_again()
        return planes, valid

    def _open_again(self) -> None:
        """Open a file again if GDAL tells an error once, and then gives zeros (VRT in a VRT), grey or noise (PNG)."""
        if self._file.driver in {"VRT", *_ONE_STREAM}:
            self._reopen()

    def _reopen(self) -> None:
        self._file.close()
        self._file = self._opened()

    def _tried(self, read: Callable[[], _Read]) -> _Read | None:
        """Read, and return None if the file is damaged there. A server is asked again."""
        try:
            return read()
        except RasterioError as error:
            if is_remote(self.path):
                return asked_again(self.path, self._reopen, read, gdal_reason(error))
        self._open_again()
        return None

    def take_damage(self, places: Sequence[Place], reason: str) -> None:
        """Take over damaged places, and why they cannot be read."""
        if places and not self.damage:
            self.reason = reason
            self.notes.append(f"{self.path}: a part cannot be read: {reason}.")
        for place in places:
            self.damage.add(place)

    def _note_damage(self, row: int, column: int, rows: int, columns: int, reason: str) -> None:
        last_row, last_column = min(row + rows, self.height), min(column + columns, self.width)
        if self._file.driver in _ONE_STREAM:
            self._lost_from, last_row, column, last_column = row, self.height, 0, self.width
        self.take_damage([(row, last_row, column, last_column)], reason)

    def _samples(self, numbers: Sequence[int], alpha: int | None) -> "np.ma.MaskedArray[Any, Any]":
        """Return values (B, N) from windows that are spread over the raster; masked where there is no measurement."""
        rows = np.linspace(0, max(0, self._file.height - _SAMPLE_SIDE), _SAMPLES).astype(int)
        columns = np.linspace(0, max(0, self._file.width - _SAMPLE_SIDE), _SAMPLES).astype(int)
        kind = np.result_type(*(self._file.dtypes[number - 1] for number in numbers))
        seen = [np.ma.zeros((len(numbers), 0), kind)]
        for row in rows:
            for column in columns:
                window = Window(column, row, _SAMPLE_SIDE, _SAMPLE_SIDE)
                found = self._tried(functools.partial(self._sample, list(numbers), alpha, window, kind))
                if found is not None:
                    seen.append(found)
        joined = np.ma.concatenate(seen, axis=1)  # type: ignore[no-untyped-call]
        return np.ma.masked_invalid(joined, copy=False)

    def _sample(
        self, numbers: list[int], alpha: int | None, window: Window, kind: np.dtype[Any]
    ) -> "np.ma.MaskedArray[Any, Any]":
        values: np.ma.MaskedArray[Any, Any] = self._file.read(numbers, window=window, masked=True, out_dtype=kind)
        if alpha is not None:
            values[:, self._file.read(alpha, window=window) == 0] = np.ma.masked
        return values.reshape(len(numbers), -1)


def upright_size(path: str) -> tuple[int, int]:
    """Return height and width of a raster in pixels, upright. Its bands may be of any kind.

    Raises:
        DataError: it cannot be opened.
    """
    with _open(path) as file:
        return turned_size(file.height, file.width, read_orientation(path, file))


def _open(path: str) -> rasterio.DatasetReader:
    if "://" not in path and not path.startswith("/vsi") and not Path(path).exists():
        raise DataError(f"{path}: no such file.")
    try:
        return open_or_ask_again(path)
    except RasterioError as error:
        raise DataError(f"{path}: cannot be read: it cannot be opened as a raster ({error}).") from error
