"""What the training images offer to a network: find their bands, and make the `InputSpec` from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import RasterioError

from skystill.errors import DataError, SettingsError
from skystill.raster.band_names import alpha_of, band_name, describe_bands, names_of, pick_bands, wanted_bands
from skystill.raster.bands import choose_bands
from skystill.raster.input_spec import DTYPES, RGB, UNITS, Band, InputSpec
from skystill.raster.opening import open_raster
from skystill.raster.source import gdal_environment
from skystill.raster.validity import Valid

ALL = "all"
_READ_AS: Mapping[str, str] = {**{kind: kind for kind in DTYPES}, "float64": "float32"}
_COLORS = ("red", "green", "blue")
_PART = 2**22  # values whose statistics are computed at once


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of the bands of one image over its valid pixels.

    Args:
        count: number of valid pixels.
        mean, squares: (B,) float64, the mean, and the sum of squared distances from it.
        low, high: (B,) float64, the smallest and the largest value. Without valid pixels infinite.
    """

    count: int
    mean: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def find_spec(images: Sequence[Path], wanted: str | None, band_names: Sequence[str] = ()) -> InputSpec:
    """Find out which bands of the training images a network is fed, and in which data type.

    By default these are red, green and blue, or a single band: in bytes as colours, and in more bits or in floats as
    the values that are there. Images of which some have bytes and some more bits are colours, too.

    Args:
        images: the training images. Those that cannot be opened are passed over.
        wanted: value of `--bands`: numbers, names, or "all" for all bands but transparency; None for the default.
        band_names: names of the bands of images that do not name them.

    Returns:
        The spec, without the statistics of its bands.

    Raises:
        SettingsError: an image has no such band, or its data type cannot be fed to a network.
    """
    opened = [facts for path in images if (facts := _facts(path)) is not None]
    if not opened:
        return RGB
    path = opened[0].path
    with gdal_environment(), open_raster(path) as file:
        names = _unique_names(file, band_names)
        numbers = (
            _default_numbers(file, opened, names)
            if wanted is None
            else _wanted_numbers(file, str(path), wanted, names, band_names)
        )
        if numbers is None:
            return RGB
        stored = str(np.result_type(*(file.dtypes[number - 1] for number in numbers)))
    if stored not in _READ_AS:
        raise SettingsError(
            f"{path} holds {stored}; a network is fed {', '.join(DTYPES)}. Write the images in one of these: "
            "gdal_translate -ot Float32 IN OUT."
        )
    # Bands that are only taken for colours by their place have no names: another raster may name them otherwise.
    named = [names[number - 1] for number in numbers]
    shared = {str(facts.nodata) for facts in opened}  # as text, NaN equals NaN
    try:
        return InputSpec(
            tuple(Band(name, number) for name, number in zip(named, numbers, strict=True)),
            _READ_AS[stored],
            opened[0].nodata if len(shared) == 1 else None,
        )
    except ValueError as error:
        raise SettingsError(f"--bands {wanted}: {error}.") from error


def image_statistics(image: npt.NDArray[Any], valid: Valid | None) -> BandStatistics:
    """Return the statistics of an image.

    Args:
        image: (H, W, B).
        valid: (H, W) bool; None if all pixels are valid.
    """
    bands = range(image.shape[2])
    count = image.shape[0] * image.shape[1] if valid is None else int(valid.sum())
    if not count:
        none = np.zeros(len(bands))
        return BandStatistics(0, none, none, none + np.inf, none - np.inf)
    found = np.array([_statistics(image[..., band], valid) for band in bands]).T
    return BandStatistics(count, *found)


def _statistics(band: npt.NDArray[Any], valid: Valid | None) -> tuple[float, float, float, float]:
    """Return mean, sum of squared distances from it, lowest and highest value of a band, part by part if it is large.

    What numpy computes on the way takes several times the memory of a band of bytes.
    """
    rows = max(1, _PART // band.shape[1]) if band.size > _PART else band.shape[0]
    parts = [band[top : top + rows] for top in range(0, band.shape[0], rows)]
    if valid is not None:
        parts = [part[valid[top : top + rows]] for top, part in zip(range(0, band.shape[0], rows), parts, strict=True)]
    parts = [part for part in parts if part.size]
    sizes = np.array([part.size for part in parts])
    means = np.array([part.mean(dtype=np.float64) for part in parts])
    mean = means[0] if len(parts) == 1 else np.average(means, weights=sizes)
    squares = sum(part.var(dtype=np.float64) * part.size for part in parts) + ((means - mean) ** 2 * sizes).sum()
    return (
        float(mean),
        float(squares),
        float(min(part.min() for part in parts)),
        float(max(part.max() for part in parts)),
    )


def with_statistics(spec: InputSpec, images: Sequence[BandStatistics]) -> InputSpec:
    """Return the spec with the statistics of all images together (Chan, Golub, LeVeque 1979). Without pixels it stays.

    A band of a single value has the standard deviation 1, so that it is normalised to 0.
    """
    seen = [one for one in images if one.count]
    count = sum(one.count for one in seen)
    if not count:
        return spec
    mean = np.sum([one.count / count * one.mean for one in seen], axis=0)
    squares = np.sum([one.squares + one.count * (one.mean - mean) ** 2 for one in seen], axis=0)
    std = np.sqrt(squares / count)
    low, high = np.min([one.low for one in seen], axis=0), np.max([one.high for one in seen], axis=0)
    bands = tuple(
        replace(
            band,
            mean=_rounded(mean[place]),
            std=_rounded(std[place]) if std[place] > 1e-12 * max(1e-12, abs(mean[place])) else 1.0,
            low=float(low[place]),
            high=float(high[place]),
        )
        for place, band in enumerate(spec.bands)
    )
    complete = replace(spec, bands=bands)
    if not complete.is_three_bytes:
        return complete
    zero, unit = byte_scale([(band.mean, band.std) for band in bands])
    return replace(complete, zero=zero, unit=unit)


def byte_scale(bands: Sequence[tuple[float, float]]) -> tuple[int, float]:
    """Return zero and unit of `InputSpec` for bands of bytes.

    These are 128 and 64 unless the images are so dark, so bright or so flat that this would leave them far from mean 0
    and deviation 1: where the mean of all bands is below 64 or above 192, or their deviation below 32. Then they are
    the mean, rounded, and the nearest power of two of the deviation. Six epochs on a dark scene gave 54 instead of 36 %
    mIoU with pixels normalised by their own statistics (docs/results/other-data.md).

    Args:
        bands: mean and standard deviation of each band.
    """
    means, stds = np.array(bands).T
    mean = float(means.mean())
    std = math.sqrt(float((stds**2 + (means - mean) ** 2).mean()))
    if 64 <= mean <= 192 and std >= 32:
        return 128, 64.0
    return round(mean), min(UNITS, key=lambda unit: abs(math.log2(unit) - math.log2(max(std, 1))))


def equal_bands(spec: InputSpec, images: Sequence[BandStatistics]) -> list[str]:
    """Return a note on bands that hold the same values in all images: nothing is learnt from the second of them."""
    found: dict[bytes, list[str]] = {}
    for place, band in enumerate(spec.bands):
        values = [(one.mean[place], one.squares[place], one.low[place], one.high[place]) for one in images]
        found.setdefault(np.array(values).tobytes(), []).append(band.label)
    return [
        f"bands {', '.join(labels)} hold the same values in all training images; one of them is enough (--bands)."
        for labels in found.values()
        if len(labels) > 1 and images
    ]


@dataclass(frozen=True)
class _Facts:
    path: Path
    dtypes: tuple[str, ...]
    nodata: float | None


def _facts(path: Path) -> _Facts | None:
    try:
        with gdal_environment(), open_raster(path) as file:
            nodata = file.nodatavals[0] if file.count else None
            return _Facts(path, tuple(file.dtypes), None if nodata is None else float(nodata))
    except (RasterioError, OSError):
        return None  # the check of the data reports it


def _default_numbers(
    file: rasterio.DatasetReader, opened: Sequence[_Facts], names: Sequence[str]
) -> tuple[int, ...] | None:
    """Return the bands to feed if the user did not say, or None for colours in bytes."""
    kinds = {kind for facts in opened for kind in facts.dtypes}
    if len(kinds) != 1 or _READ_AS.get(kinds.pop(), "uint8") == "uint8":
        return None
    if all(color in names for color in _COLORS):
        return tuple(names.index(color) + 1 for color in _COLORS)
    try:
        choice = choose_bands(file, file.name, None)
    except (DataError, SettingsError):
        return None  # the check of the data reports it
    return choice.numbers if len(choice.numbers) in (1, 3) and choice.palette is None else None


def _wanted_numbers(
    file: rasterio.DatasetReader, path: str, wanted: str, names: Sequence[str], band_names: Sequence[str]
) -> tuple[int, ...] | None:
    """Return the bands that `--bands` means, or None if these are colours in bytes."""
    alpha = alpha_of(file)
    if wanted.strip().lower() == ALL:
        numbers = tuple(number for number in range(1, file.count + 1) if number != alpha)
    else:
        own = {name: number for number, name in enumerate(names, 1) if name}
        asked = wanted_bands(wanted) or []
        if any(isinstance(one, str) for one in asked):
            _refuse_other_names(file, path, band_names)
        numbers = pick_bands(file, path, [own.get(one, one) if isinstance(one, str) else one for one in asked])
    is_colors = tuple(names[number - 1] for number in numbers) == _COLORS
    bytes_only = all(file.dtypes[number - 1] == "uint8" for number in numbers)
    return None if is_colors and bytes_only else numbers


def _unique_names(file: rasterio.DatasetReader, band_names: Sequence[str]) -> list[str]:
    """Return one name for each band, empty where there is none that is its own.

    Bands that the file does not name are called as in `band_names`, if these are as many and agree with the file.
    """
    found = names_of(file)
    if len(band_names) == file.count and not _other_names(file, band_names):
        found = [own or (band_name(name),) for own, name in zip(found, band_names, strict=True)]
    names: list[str] = []
    for place, own in enumerate(found):
        others = {name for other, given in enumerate(found) if other != place for name in given}
        names.append(next((name for name in own if name not in others), ""))
    return names


def _other_names(file: rasterio.DatasetReader, band_names: Sequence[str]) -> bool:
    """Whether a name in the classes file contradicts the file's own name of the same band."""
    pairs = zip(names_of(file), band_names, strict=False)
    return any(own and band_name(name) not in own for own, name in pairs)


def _refuse_other_names(file: rasterio.DatasetReader, path: str, band_names: Sequence[str]) -> None:
    if band_names and _other_names(file, band_names):
        raise SettingsError(
            f"the classes file calls the bands {', '.join(band_names)}, and {path} has {describe_bands(file)}. Correct "
            "one of them, or choose the bands by their numbers (--bands 1,2,3)."
        )


def _rounded(value: float) -> float:
    """Round to seven digits: further ones are those of the arithmetic."""
    return float(f"{value:.7g}")
