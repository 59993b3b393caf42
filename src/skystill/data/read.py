"""Read one image as uint8, and pairs of images and labels. Every error names the file.

Images are read by `skystill.raster`, as in prediction.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skystill.classes import VOID, ClassMap, Labels
from skystill.data.masks import MaskReading, read_pair_labels
from skystill.data.pairs import Pair
from skystill.errors import DataError
from skystill.raster.picture import Picture, read_whole


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image as RGB, with the pixels that prediction sees. A grey image is repeated over three channels.

    Args:
        path: the image file.

    Returns:
        (H, W, 3) uint8 RGB, 0 to 255. `skystill.raster.picture.read_whole` also gives which pixels are valid.

    Raises:
        DataError: the file is missing, damaged, or not an image that can be read as RGB.
    """
    return read_whole(path).image


def read_pair(pair: Pair, classes: ClassMap) -> tuple[Picture, MaskReading]:
    """Read an image and its mask. Pixels of the image that are not valid are void in the labels.

    Args:
        pair: the image and its mask.
        classes: classes with which the mask is read.

    Raises:
        DataError: the image or the mask cannot be read, or they have different sizes.
    """
    picture = read_whole(pair.image)
    reading = read_pair_labels(pair, classes, (picture.image.shape[0], picture.image.shape[1]))
    return picture, replace(reading, labels=void_unseen(reading.labels, picture))


def void_unseen(labels: Labels, picture: Picture) -> Labels:
    """Return labels that are void where the image is not valid.

    Args:
        labels: (H, W) uint8, 255 = void.
        picture: the image, of the same size.
    """
    return labels if picture.valid is None else np.where(picture.valid, labels, np.uint8(VOID))


def read_pairs(pairs: Iterable[Pair], classes: ClassMap) -> Iterator[tuple[str, npt.NDArray[np.uint8], Labels]]:
    """Read images and masks, one pair at a time.

    Args:
        pairs: what to read.
        classes: classes with which the masks are read.

    Yields:
        key, image (H, W, 3) uint8 RGB and labels (H, W) uint8 of each pair. Labels are void where the image is not
        valid.

    Raises:
        DataError: an image or a mask cannot be read, or a mask holds colours or numbers of no class.
    """
    for pair in pairs:
        picture, reading = read_pair(pair, classes)
        if reading.unknown:
            most = max(reading.unknown, key=lambda found: reading.unknown[found])
            raise DataError(
                f"{pair.mask}: {most} ({reading.unknown[most]:,} pixels) belongs to no class of {classes.source}.",
                mend="Look at the data with: skystill data check DATA",
            )
        yield pair.key, picture.image, reading.labels
