"""Bands read as colours: palettes, grey, CMYK and any bit depth become red, green and blue in bytes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling

from skystill.errors import DataError, SettingsError
from skystill.raster.bands import choose_bands, cmyk_to_rgb, look_up
from skystill.raster.validity import Valid

Bytes = npt.NDArray[np.uint8]
Samples = Callable[[Sequence[int], int | None], np.ma.MaskedArray[Any, Any]]
"""Returns values (B, N) of the bands of these numbers, from windows that are spread over a raster. Masked are those
without a measurement and, if the number of a band of transparency is given, those where it is 0."""
Spread = Callable[[Sequence[int], int | None], tuple[float, float]]
"""Returns the 2nd and the 98th percentile of `Samples`."""

_STRIP_VALUES = 2**17  # values of one band that are converted at a time: they fit the cache of a core


class Colors:
    """How the bands of one raster become colours: (3, H, W) uint8, 0 to 255.

    Args:
        file: the raster.
        path: its name for messages.
        bands: numbers of three bands, or of one for grey; None takes those that the file names red, green and blue.
        scale: values that become 0 and 255. None takes 0 and 255 for 8-bit files, and otherwise the 2nd and the 98th
            percentile of samples.
        spread: finds them.

    Raises:
        DataError: the bands cannot become colours.
        SettingsError: as `choose_bands`, or `scale` is given for an image of 8 bits or less.
    """

    planes = 3
    kind = np.dtype(np.uint8)

    def __init__(
        self,
        file: rasterio.DatasetReader,
        path: str,
        bands: Sequence[int] | None,
        scale: tuple[float, float] | None,
        spread: Spread,
    ) -> None:
        choice = choose_bands(file, path, bands)
        self.numbers, self.alpha = choice.numbers, choice.alpha
        self._choice = choice
        self.notes = [f"{path}: {note}" for note in choice.notes]
        self.stored = np.result_type(*(file.dtypes[band - 1] for band in self.numbers))
        self.depth = self._bit_depth(file)
        self._inverted = file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        if scale is not None and (self.depth <= 8 or choice.palette is not None):
            raise SettingsError(f"{path} has {self.depth} bits per band, so --scale does nothing; leave it out.")
        self.scale = scale or self._default_scale(path, spread)

    @property
    def plain(self) -> bool:
        """Whether the bytes of the first band, or of the first three, are read as they are stored."""
        return self._choice.plain and self.depth >= 8 and not self._inverted

    def read_type(self, resampled: bool) -> np.dtype[Any]:
        """Return the data type as which values are read. With `resampled`, they are means of pixels."""
        # The mean of black and white is grey.
        mixed = self.depth < 8 and resampled and self._choice.palette is None
        return np.dtype(np.float32) if mixed else self.stored

    def resampling(self, how: Resampling) -> Resampling:
        """Return how pixels are resampled: as `how` says, but the mean of two indices is another colour."""
        return how if self._choice.palette is None else Resampling.nearest

    def convert(self, values: npt.NDArray[Any], valid: Valid | None) -> tuple[Bytes, Valid | None]:
        """Convert values (B, H, W) as read into planes (3, H, W) uint8.

        `valid` becomes False where the colour of a palette is transparent.
        """
        if self._choice.palette is not None:
            values, seen = look_up(self._choice.palette, values[0])
            valid = seen if valid is None else valid & seen
        elif self.depth != 8 or values.dtype != np.uint8:
            values = self._to_bytes(values)
        if self._inverted and self._choice.palette is None:
            values = 255 - values
        if len(values) == 4:
            values = cmyk_to_rgb(values)
        if len(values) == 1:
            values = np.repeat(values, 3, axis=0)
        return values, valid

    def _to_bytes(self, values: npt.NDArray[Any]) -> Bytes:
        low, high = self.scale
        fine = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
        found = np.empty(values.shape, np.uint8)
        rows = max(1, _STRIP_VALUES // max(1, values.shape[2]))
        for top in range(0, values.shape[1], rows):  # as a whole, the floats would take 50 bytes per pixel
            part = np.s_[:, top : top + rows]
            with np.errstate(over="ignore"):  # nodata of floats is often the largest number that there is
                stretched = (np.nan_to_num(values[part].astype(fine)) - low) * (255 / (high - low))
            found[part] = np.clip(np.rint(stretched), 0, 255)
        return found

    def _bit_depth(self, file: rasterio.DatasetReader) -> int:
        """Return the bits of a band as they are stored: GDAL reads one to seven bits as bytes, from 0 on."""
        bits = file.tags(self.numbers[0], ns="IMAGE_STRUCTURE").get("NBITS")
        return int(bits) if bits and self.stored == np.uint8 else 8 * self.stored.itemsize

    def _default_scale(self, path: str, spread: Spread) -> tuple[float, float]:
        if self.stored.kind == "c":
            raise DataError(f"{path} holds complex numbers ({self.stored}); write their amplitude first.")
        if self.stored == np.uint8 or self._choice.palette is not None:
            return 0.0, float(2**self.depth - 1)
        if len(self.numbers) == 4:
            return 0.0, float(np.iinfo(self.stored).max) if self.stored.kind in "ui" else 1.0  # inks from none to all
        low, high = spread(self.numbers, self.alpha)
        self.notes.append(
            f"{path}: {self.stored} pixels; {low:g} becomes 0 and {high:g} becomes 255 "
            "(2nd and 98th percentile of samples; set it with --scale LOW,HIGH)."
        )
        return low, high
