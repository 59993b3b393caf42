"""An array that is read as an open raster is, so that the one reader's rules hold for it: `RasterSource` over an array.

The array may be one of numpy or one of dask. Of the latter, only the windows that are asked for are computed.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.windows import Window

from skystill.errors import DataError
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.source import RasterSource

_BLOCK = 512  # pixels; an array has no blocks
_REACH = 4  # target pixels, or source pixels if these are larger, around a window that is resampled: GDAL uses them


@dataclass(frozen=True)
class ArrayRaster:
    """An array with the attributes and methods of an open raster (rasterio's `DatasetReader`) that readers use.

    Args:
        name: its name for messages.
        values: (B, h, w), of numpy or dask: all bands of the raster, or of a window those that `places` names.
        height, width: size of the raster in pixels.
        descriptions: name of each band of the raster, or None. A band that is called alpha is transparency.
        dtype: data type of the values. If it is one of integers and the array holds floats, these were converted from
            it, and NaN stands for pixels without a measurement.
        nodata: value of pixels without a measurement, or None.
        crs: rasterio's CRS, or None.
        transform: place in pixels to coordinates of the CRS.
        places: index in `values` of the bands of these numbers; None for all bands.
        top, left: the first row and column of the raster that `values` holds.
    """

    name: str
    values: Any
    height: int
    width: int
    descriptions: tuple[str | None, ...]
    dtype: np.dtype[Any]
    nodata: float | None = None
    crs: Any = None
    transform: Affine = field(default_factory=Affine.identity)
    places: dict[int, int] | None = None
    top: int = 0
    left: int = 0

    driver = "MEM"
    files = ()
    gcps = ((), None)
    rpcs = None
    block_shapes = ((_BLOCK, _BLOCK),)

    @property
    def count(self) -> int:
        """Number of bands of the raster."""
        return len(self.descriptions)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Data type of each band."""
        return (self.dtype.name,) * self.count

    @property
    def nodatavals(self) -> tuple[float | None, ...]:
        """Nodata value of each band."""
        return (self.nodata,) * self.count

    @property
    def colorinterp(self) -> tuple[ColorInterp, ...]:
        """What each band is: transparency, or not known."""
        return tuple(
            ColorInterp.alpha if (text or "").strip().lower() == "alpha" else ColorInterp.undefined
            for text in self.descriptions
        )

    @property
    def mask_flag_enums(self) -> tuple[list[MaskFlags], ...]:
        """How pixels without a measurement are marked, as in rasterio."""
        flags = [MaskFlags.all_valid]
        if self.nodata is not None:
            flags = [MaskFlags.nodata]
        elif self._is_converted:
            flags = []  # a mask for each band
        elif ColorInterp.alpha in self.colorinterp:
            flags = [MaskFlags.per_dataset, MaskFlags.alpha]
        return (flags,) * self.count

    def tags(self, *_: object, **__: object) -> dict[str, str]:
        """Return no tags."""
        return {}

    def close(self) -> None:
        """Do nothing: an array is not closed."""

    def read(
        self,
        indexes: int | Sequence[int],
        window: Window | None = None,
        out_shape: Sequence[int] | None = None,
        resampling: Resampling = Resampling.nearest,
        out_dtype: npt.DTypeLike | None = None,
        masked: bool = False,
    ) -> npt.NDArray[Any]:
        """Return the values of bands in a window, as rasterio's `read`.

        Raises:
            DataError: the values are no integers, though the array says that they were converted from some.
        """
        numbers = [indexes] if isinstance(indexes, int) else list(indexes)
        if out_shape is not None and window is not None and not _is_whole(window, out_shape):
            found = self._resampled("read", numbers, window, out_shape, resampling=resampling, out_dtype=out_dtype)
        else:
            values = self._stored(numbers, window)
            found = values if out_dtype is None else values.astype(out_dtype, copy=False)
        if masked:
            found = np.ma.masked_array(found, mask=self.read_masks(numbers, window) == 0)
        return found[0] if isinstance(indexes, int) else found

    def read_masks(
        self, indexes: Sequence[int], window: Window | None = None, out_shape: Sequence[int] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Return 255 where a band holds a measurement in a window, otherwise 0, as rasterio's `read_masks`."""
        if out_shape is not None and window is not None and not _is_whole(window, out_shape):
            return np.asarray(self._resampled("read_masks", list(indexes), window, out_shape))
        return self._masks(self._raw(list(indexes), window))

    def within(self, values: npt.NDArray[Any] | None, places: dict[int, int], top: int, left: int) -> "ArrayRaster":
        """Return the same raster over the values of one of its windows."""
        return replace(self, values=values, places=places, top=top, left=left)

    @property
    def _is_converted(self) -> bool:
        return self.dtype.kind != "f" and self.values is not None and self.values.dtype.kind == "f"

    def _raw(self, numbers: list[int], window: Window | None) -> npt.NDArray[Any]:
        """Return values (B, H, W) as the array holds them, of the part of a window that lies in the raster."""
        rows, columns = (0, self.height), (0, self.width)
        if window is not None:
            top, left = round(window.row_off), round(window.col_off)
            rows = top, min(self.height, top + round(window.height))
            columns = left, min(self.width, left + round(window.width))
        here = slice(rows[0] - self.top, rows[1] - self.top), slice(columns[0] - self.left, columns[1] - self.left)
        at = [number - 1 if self.places is None else self.places[number] for number in numbers]
        if isinstance(self.values, np.ndarray):
            return np.stack([self.values[index][here] for index in at])  # an index of several bands would copy them all
        return np.asarray(self.values[(at, *here)])

    def _masks(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        seen = np.ones(raw.shape, bool)
        if self._is_converted:
            seen = ~np.isnan(raw)
        if self.nodata is not None:
            seen &= raw != self.nodata
        return np.where(seen, np.uint8(255), np.uint8(0))

    def _stored(self, numbers: list[int], window: Window | None) -> npt.NDArray[Any]:
        """Return values (B, H, W) in the data type of the raster."""
        raw = self._raw(numbers, window)
        if not self._is_converted:
            return raw.astype(self.dtype, copy=False)
        filled = np.where(np.isnan(raw), 0 if self.nodata is None else self.nodata, raw)
        limits = np.iinfo(self.dtype)
        low, high = (filled.min(), filled.max()) if filled.size else (0, 0)
        if low < limits.min or high > limits.max or not np.array_equal(np.rint(filled), filled):
            raise DataError(
                f"{self.name} says in its encoding that its values were {self.dtype} before they became {raw.dtype}; "
                f"they are no such integers ({low:g} to {high:g}). If they were changed since, delete the encoding: "
                "da.drop_encoding()."
            )
        return filled.astype(self.dtype)

    def _resampled(
        self, what: str, numbers: list[int], window: Window, out_shape: Sequence[int], **how: object
    ) -> npt.NDArray[Any]:
        """Let GDAL resample a window, from a raster in memory that holds the pixels around it."""
        top, bottom = _around(window.row_off, window.height, out_shape[-2], self.height)
        left, right = _around(window.col_off, window.width, out_shape[-1], self.width)
        alpha = [number for number, color in enumerate(self.colorinterp, 1) if color == ColorInterp.alpha]
        held = sorted({*numbers, *(n for n in alpha if self.places is None or n in self.places)})
        part = Window(left, top, right - left, bottom - top)
        profile = {"count": len(held), "dtype": self.dtype.name, "nodata": self.nodata, "photometric": "minisblack"}
        profile["transform"] = self.transform  # without one, GDAL would warn
        with MemoryFile() as memory:
            with memory.open(driver="GTiff", height=bottom - top, width=right - left, **profile) as file:
                file.colorinterp = [ColorInterp.alpha if n in alpha else ColorInterp.gray for n in held]
                file.write(self._stored(held, part))
                if self._is_converted and self.nodata is None:
                    file.write_mask(self._masks(self._raw(held, part)).min(axis=0))
            here = Window(window.col_off - left, window.row_off - top, window.width, window.height)
            with memory.open() as file:
                at = [held.index(number) + 1 for number in numbers]
                return np.asarray(getattr(file, what)(at, window=here, out_shape=out_shape, **how))


class ArraySource(RasterSource):
    """An array that is read by the rules of `RasterSource`, which has the meaning of all arguments but the first.

    Args:
        raster: the array.
        bands: numbers or names of its bands, in the order of the spec.
        scale: values that become 0 and 255, for colours only.
        factors: source pixels per target pixel, down and across.
        spec: what the network is fed.

    Raises:
        DataError, SettingsError: as `RasterSource`.
    """

    def __init__(
        self,
        raster: ArrayRaster,
        bands: Sequence[int | str] | None = None,
        scale: tuple[float, float] | None = None,
        factors: tuple[float, float] = (1.0, 1.0),
        spec: InputSpec = RGB,
    ) -> None:
        self._raster = raster
        super().__init__(raster.name, bands, scale, factors, spec=spec)

    def _opened(self) -> rasterio.DatasetReader:
        return self._raster

    @property
    def read_bands(self) -> list[int]:
        """Numbers of the bands that are read, in increasing order: those that the network is fed, and transparency."""
        alpha = self._reading.alpha
        return sorted({*self.bands, *([] if alpha is None else [alpha])})

    def values_for(self, top: int, bottom: int, left: int, right: int) -> tuple[Any, int, int]:
        """Return the values of `read_bands` that a window needs, and the row and column of the first, in source pixels.

        Args:
            top: first row of the window, in target pixels.
            bottom: the row after the last one.
            left: first column.
            right: the column after the last one.
        """
        rows, columns = (top, bottom), (left, right)
        if self.factors != (1.0, 1.0):
            window = self._window(top, bottom, left, right)
            rows = _around(window.row_off, window.height, bottom - top, self._raster.height)
            columns = _around(window.col_off, window.width, right - left, self._raster.width)
        at = [number - 1 for number in self.read_bands]
        return self._raster.values[(at, slice(*rows), slice(*columns))], rows[0], columns[0]

    def within(self, values: npt.NDArray[Any] | None, top: int = 0, left: int = 0) -> "ArraySource":
        """Return the same source over the values of one of its windows, or over none.

        Args:
            values: (B, h, w), of `read_bands`.
            top: first row of the window in the raster, in source pixels.
            left: its first column.
        """
        other = copy.copy(self)
        places = {number: index for index, number in enumerate(self.read_bands)}
        other._raster = other._file = self._raster.within(values, places, top, left)
        return other


def _is_whole(window: Window, out_shape: Sequence[int]) -> bool:
    """Whether a window is of whole pixels, and not resampled."""
    sides = window.row_off, window.col_off, window.height, window.width
    return all(side == round(side) for side in sides) and (window.height, window.width) == tuple(out_shape[-2:])


def _around(start: float, length: float, target: int, size: int) -> tuple[int, int]:
    """Return the first pixel of one axis that the resampling of a window takes, and the one after the last."""
    reach = _REACH * max(1.0, length / target)
    return max(0, math.floor(start - reach)), min(size, math.ceil(start + length + reach))
