"""Read one image as uint8, and pairs of images and labels. Every error names the file."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skystill.classes import ClassMap, Labels
from skystill.data.mask_files import GEOTIFF, open_picture
from skystill.data.masks import read_pair_labels
from skystill.data.pairs import Pair
from skystill.errors import DataError


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image as RGB. An alpha channel is dropped, and a grey image is repeated over three channels.

    Args:
        path: the image file.

    Returns:
        (H, W, 3) uint8 RGB, 0 to 255.

    Raises:
        DataError: the file is missing, damaged or not an image, or a TIFF has two bands or is not 8 bits per band.
    """
    if path.suffix.lower() in GEOTIFF:
        bands = _read_tiff(path)
        if bands.dtype != np.uint8:
            raise DataError(f"{path}: {bands.dtype} pixels; convert the image to 8 bits a band.")
        if bands.shape[0] == 2:
            raise DataError(f"{path}: two bands; an image has three (RGB), or one (grey).")
        rgb = bands[:3] if bands.shape[0] >= 3 else np.repeat(bands[:1], 3, axis=0)
        return np.ascontiguousarray(rgb.transpose(1, 2, 0))
    return np.asarray(open_picture(path).convert("RGB"))


def read_pairs(pairs: Iterable[Pair], classes: ClassMap) -> Iterator[tuple[str, npt.NDArray[np.uint8], Labels]]:
    """Read images and masks, one pair at a time.

    Args:
        pairs: what to read.
        classes: classes with which the masks are read.

    Yields:
        key, image (H, W, 3) uint8 RGB and labels (H, W) uint8 of each pair.

    Raises:
        DataError: an image or a mask cannot be read, or a mask holds colours or numbers of no class.
    """
    for pair in pairs:
        image = read_image(pair.image)
        reading = read_pair_labels(pair, classes, (image.shape[0], image.shape[1]))
        if reading.unknown:
            most = max(reading.unknown, key=lambda found: reading.unknown[found])
            raise DataError(
                f"{pair.mask}: {most} ({reading.unknown[most]:,} pixels) belongs to no class of {classes.source}.",
                mend="Look at the data with: skystill data check DATA",
            )
        yield pair.key, image, reading.labels


def _read_tiff(path: Path) -> npt.NDArray[np.generic]:
    """Return the bands (B, H, W)."""
    import rasterio  # takes 0.4 s, so it is imported only for TIFFs
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a TIFF may have no position
            with rasterio.open(path) as source:
                return np.asarray(source.read())
    except RasterioError as error:
        raise DataError(
            f"{path}: cannot be read as a TIFF ({error}); replace the file or take the pair out."
        ) from error
