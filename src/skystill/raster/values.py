"""Bands read as values: what stands in the raster is what the network is fed."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, Resampling

from skystill.errors import DataError, SettingsError
from skystill.raster.band_names import BandMatch, alpha_of, match_bands
from skystill.raster.colors import Samples
from skystill.raster.input_spec import Band, InputSpec
from skystill.raster.validity import Valid

_SAME_UNIT, _PART_OUTSIDE = 0.01, 0.5  # fractions of a raster's values that lie in the range of the training images
_INTEGERS = ("uint16", "int16", "uint32", "int32")


class Values:
    """How the bands of one raster are read for a network that is fed its own values, as (B, H, W).

    Args:
        file: the raster.
        path: its name for messages.
        bands: numbers of its bands, in the order of the spec; None finds them by name or by place.
        spec: what the network is fed.

    Raises:
        DataError: the values are of a data type that is not that of the spec, or they are indices of colours.
        SettingsError: as `match_bands`, or `bands` are not as many as the spec has.
    """

    depth = 0
    plain = False

    def __init__(self, file: rasterio.DatasetReader, path: str, bands: Sequence[int] | None, spec: InputSpec) -> None:
        self._path, self._spec = path, spec
        if bands is not None and len(bands) != len(spec):
            raise SettingsError(f"--bands names {len(bands)} band(s); the network is fed {len(spec)}: {spec.labels}.")
        match = match_bands(file, path, spec) if bands is None else BandMatch(tuple(bands))
        self.numbers = match.numbers
        alpha = alpha_of(file)
        self.alpha = None if alpha in self.numbers else alpha
        self.notes = [f"{path}: {note}" for note in match.notes]
        self.planes, self.kind = len(spec), spec.kind
        self.stored = np.result_type(*(file.dtypes[number - 1] for number in self.numbers))
        if any(file.colorinterp[number - 1] == ColorInterp.palette for number in self.numbers):
            raise DataError(f"{path} holds indices of colours, and the network is fed values: {spec.labels}.")
        if not _fits(str(self.stored), spec.dtype) and not (_is_open(spec) and self.stored.kind in "uif"):
            raise DataError(
                f"{path} holds {self.stored} and the network is fed {spec.dtype}: its values are probably on another "
                "scale. Write it on the scale of the training images, in their data type (gdal_translate -ot -scale)."
            )

    def read_type(self, resampled: bool) -> np.dtype[Any]:
        """Return the data type as which values are read: as they are stored."""
        return self.stored

    def resampling(self, how: Resampling) -> Resampling:
        """Return how pixels are resampled: as `how` says."""
        return how

    def convert(self, values: npt.NDArray[Any], valid: Valid | None) -> tuple[npt.NDArray[Any], Valid | None]:
        """Convert values (B, H, W) as read into planes (B, H, W) of the spec's data type.

        Pixels that are not valid become the mean of the training images.

        Raises:
            DataError: a value does not fit into the data type of the spec.
        """
        seen = None if valid is None or valid.all() else valid
        if values.dtype != self.kind:
            self._check_limits(values, seen)
            with np.errstate(over="ignore"):  # nodata of floats is often the largest number that there is
                values = values.astype(self.kind)
        elif seen is not None:
            values = values.copy()
        if seen is not None:
            values[:, ~seen] = self._spec.fill[:, None]
        return values, valid

    def _check_limits(self, values: npt.NDArray[Any], seen: Valid | None) -> None:
        """Refuse values that the data type of the spec cannot hold."""
        limits = np.finfo(self.kind) if self.kind.kind == "f" else np.iinfo(self.kind)
        parts = (band if seen is None else band[seen] for band in values)
        ranges = [(part.min(), part.max()) for part in parts if part.size]
        low = min((found[0] for found in ranges), default=limits.min)
        high = max((found[1] for found in ranges), default=limits.min)
        if low < limits.min or high > limits.max:
            raise DataError(
                f"{self._path} holds values from {low:.9g} to {high:.9g}; the network is fed {self.kind}, "
                f"{limits.min:.9g} to {limits.max:.9g}. Write it on the scale of the training images."
            )

    def notes_on_range(self, samples: Samples, told: bool) -> list[str]:
        """Compare samples of the raster with the training images, and return a note on each band that lies outside.

        Args:
            samples: reads the samples.
            told: whether the user said which bands to take.

        Raises:
            DataError: nearly all values of a band lie outside the range of the training images, and the user did not
                say which bands to take.
        """
        notes: list[str] = []
        for band, inside, middle in self._on_range(samples):
            if inside < _SAME_UNIT and not told:
                raise DataError(
                    f"{self._other_scale(band, middle)} Write the raster on the scale of the training images. If it is "
                    "right as it is, such as a scene of clouds alone, name its bands: --bands "
                    f"{','.join(map(str, self.numbers))}."
                )
            if inside < _PART_OUTSIDE:
                notes.append(
                    f"{self._path}: {1 - inside:.0%} of the values of {band.label} lie outside those of the training "
                    f"images ({band.low:g} to {band.high:g}; the middle one is {middle:g})."
                )
        return notes

    def off_scale(self, samples: Samples) -> str | None:
        """Return a sentence if nearly all values of a band lie outside the range of the training images, or None."""
        found = (self._other_scale(band, middle) for band, inside, middle in self._on_range(samples)
                 if inside < _SAME_UNIT)  # fmt: skip
        return next(found, None)

    def _other_scale(self, band: Band, middle: float) -> str:
        return (
            f"{self._path}: {band.label} is about {middle:g}, and was {band.low:g} to {band.high:g} in the training "
            f"images (mean {band.mean:g}): its values are on another scale, or it is another band."
        )

    def _on_range(self, samples: Samples) -> Iterator[tuple[Band, float, float]]:
        """Yield for each band the fraction of its values in the range of the training images, and the middle value."""
        if _is_open(self._spec):
            return
        values = samples(self.numbers, self.alpha)
        for band, sampled in zip(self._spec.bands, values, strict=True):
            own = sampled.compressed()
            if own.size:
                yield band, float(((own >= band.low) & (own <= band.high)).mean()), float(np.median(own))


def _is_open(spec: InputSpec) -> bool:
    """Whether a spec takes numbers of any data type on any scale, as floats: no range is known of any band.

    This is so for files of other programs of which the user says that they are fed the raster's values.
    """
    return spec.dtype == "float32" and all(band.low == -math.inf and band.high == math.inf for band in spec.bands)


def _fits(stored: str, wanted: str) -> bool:
    """Whether values of a data type are on the scale of another: the same type, or another width of the same kind."""
    if stored == wanted:
        return True
    if wanted == "float32":
        return stored in ("float64", "float16")
    return wanted != "uint8" and stored in _INTEGERS
