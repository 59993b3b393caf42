"""Images that are made up to try a network or to measure it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.raster.input_spec import InputSpec

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Numbers of pixels that a network may want the sides of its images to be divisible by, as they are tried."""
LARGEST_REDUCTION = 32
"""A network of another program gives one answer for each square of at most so many pixels per side."""
_ROWS, _COLUMNS = 131, 97  # pixels, about; both odd, so that a network that halves its input cannot fit
_SPREADS = 2.0  # standard deviations from the mean, down and up


def trial_size(multiple: int) -> tuple[int, int]:
    """Return height and width of an image to try a network on: odd numbers of times `multiple`, which differ."""
    return _near(_ROWS, multiple, 3), _near(_COLUMNS, multiple, 1)


def _near(size: int, multiple: int, least: int) -> int:
    return multiple * max(least, size // multiple // 2 * 2 + 1)


def random_image(spec: InputSpec, height: int, width: int) -> npt.NDArray[Any]:
    """Return planes (B, H, W): random bytes, or random values within two standard deviations of each band's mean."""
    rng, shape = np.random.default_rng(0), (len(spec), height, width)
    if spec.dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return _around_mean(spec, rng.uniform(-_SPREADS, _SPREADS, shape))


def even_images(spec: InputSpec, height: int, width: int) -> list[npt.NDArray[Any]]:
    """Return two images of planes (B, H, W): a dark one and a bright one, each with the same value everywhere."""
    shape = (len(spec), height, width)
    if spec.dtype == "uint8":
        return [np.full(shape, value, np.uint8) for value in (0, 255)]
    return [_around_mean(spec, np.full(shape, spread)) for spread in (-_SPREADS, _SPREADS)]


def _around_mean(spec: InputSpec, spreads: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Return planes (B, H, W) that are as many standard deviations from the mean of each band."""
    mean, std = (np.array([getattr(band, key) for band in spec.bands])[:, None, None] for key in ("mean", "std"))
    values = mean + std * spreads
    if spec.kind.kind == "f":
        return np.asarray(values, spec.kind)
    limits = np.iinfo(spec.kind)
    return np.asarray(np.clip(np.rint(values), limits.min, limits.max), spec.kind)
