"""Which pixels of a raster hold a measurement: nodata values, masks, transparency and values that are not finite."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import MaskFlags
from rasterio.windows import Window

Valid = npt.NDArray[np.bool_]


class Validity:
    """The rules by which pixels of a raster are valid. They do not depend on the data type.

    A pixel is valid if its mask is set, it is not fully transparent, and all its bands are finite. Of nodata, a pixel
    of colours is valid if at least one of its bands is not nodata (as in GDAL: black in one colour is a colour), and a
    pixel of values if none of them is (a network would be fed -9999 as a measurement).

    Args:
        file: the raster, which need not stay open.
        numbers: numbers of the bands that are read.
        alpha: number of the band of transparency, or None.
        resampled: whether windows are read at another resolution. Nodata cannot be found in averaged values then, so
            that GDAL's masks are read.
        every: whether no band may be nodata, as for values; otherwise not all of them may be, as for colours.
    """

    def __init__(
        self,
        file: rasterio.DatasetReader,
        numbers: Sequence[int],
        alpha: int | None,
        resampled: bool,
        every: bool = False,
    ) -> None:
        self._joined = np.all if every else np.any
        self._alpha = alpha
        flags = [set(file.mask_flag_enums[number - 1]) for number in numbers]
        self._nodata: list[Any] | None = None
        self._masks: list[int] = []
        if all(found == {MaskFlags.nodata} for found in flags) and not resampled:
            kinds = [np.dtype(file.dtypes[number - 1]) for number in numbers]
            self._nodata = [_exact(file.nodatavals[n - 1], kind) for n, kind in zip(numbers, kinds, strict=True)]
        elif not all(MaskFlags.all_valid in found or MaskFlags.alpha in found for found in flags):
            one_for_all = all(MaskFlags.per_dataset in found for found in flags)
            self._masks = [numbers[0]] if one_for_all else list(numbers)

    def of(
        self, file: rasterio.DatasetReader, values: npt.NDArray[Any], window: Window, shape: tuple[int, int]
    ) -> Valid | None:
        """Return which pixels of a window are valid.

        Args:
            file: the raster.
            values: (B, H, W), the values of the bands in this window.
            window: the window in source pixels, column-first (rasterio).
            shape: H and W.

        Returns:
            (H, W) bool, or None if all pixels are valid by these rules.
        """
        parts: list[Valid] = []
        if self._nodata is not None:
            parts.append(self._differs(values, self._nodata))
        if self._masks:
            masks = file.read_masks(self._masks, window=window, out_shape=(len(self._masks), *shape))
            parts.append(np.asarray(self._joined(masks > 0, axis=0)))
        if self._alpha is not None:
            # GDAL itself takes transparency for a mask only in rasters of uint8 and uint16.
            parts.append(file.read(self._alpha, window=window, out_shape=shape) > 0)
        if values.dtype.kind == "f":
            parts.append(_joined_bands(np.logical_and, (np.isfinite(band) for band in values)))
        valid = parts[0] if parts else None
        for part in parts[1:]:
            valid = part if valid is None else valid & part
        return valid

    def _differs(self, values: npt.NDArray[Any], nodata: Sequence[Any]) -> Valid:
        join = np.logical_and if self._joined is np.all else np.logical_or
        return _joined_bands(join, (np.asarray(band != value) for band, value in zip(values, nodata, strict=True)))


def _joined_bands(join: np.ufunc, bands: Iterator[Valid]) -> Valid:
    """Join (H, W) bool of all bands, one after the other: all at once would take a byte for each value."""
    found = next(bands)
    for band in bands:
        join(found, band, out=found)
    return found


def _exact(nodata: float | None, kind: np.dtype[Any]) -> Any:  # noqa: ANN401 - a scalar of this kind
    """Return a nodata value in the data type of its band. A value that the type cannot hold stays as it is."""
    if nodata is None or np.isnan(nodata):
        return np.nan  # no value equals it; values that are not finite are found on their own
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return kind.type(nodata)
    limits = np.iinfo(kind)
    return kind.type(nodata) if limits.min <= nodata <= limits.max and nodata == int(nodata) else float(nodata)
