"""Read one image, and pairs of images and labels. Every error names the file.

Images are read by `skystill.raster`, as in prediction.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.classes import VOID, ClassMap, Labels
from skystill.data.masks import MaskReading, read_pair_labels
from skystill.data.pairs import Pair
from skystill.errors import DataError
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.picture import Bounds, Picture, read_whole


def read_image(path: Path, spec: InputSpec = RGB, bounds: Bounds | None = None) -> npt.NDArray[Any]:
    """Read an image, with the pixels that prediction sees. A grey image becomes three equal colours.

    Args:
        path: the image file.
        spec: what the network is fed; red, green and blue in bytes by default.
        bounds: the window to read; None for all of it.

    Returns:
        (H, W, B) in the data type of the spec. `skystill.raster.picture.read_whole` also gives which pixels are valid.

    Raises:
        DataError: the file is missing, damaged, or not an image that can be read by the spec.
    """
    return read_whole(path, bounds, spec).image


def read_pair(pair: Pair, classes: ClassMap, spec: InputSpec = RGB) -> tuple[Picture, MaskReading]:
    """Read an image and its mask. Pixels of the image that are not valid are void in the labels.

    Args:
        pair: the image and its mask.
        classes: classes with which the mask is read.
        spec: what the network is fed.

    Raises:
        DataError: the image or the mask cannot be read, or they have different sizes.
    """
    picture = read_whole(pair.image, pair.bounds, spec)
    reading = read_pair_labels(pair, classes, (picture.image.shape[0], picture.image.shape[1]))
    return picture, replace(reading, labels=void_unseen(reading.labels, picture))


def void_unseen(labels: Labels, picture: Picture) -> Labels:
    """Return labels that are void where the image is not valid.

    Args:
        labels: (H, W) uint8, 255 = void.
        picture: the image, of the same size.
    """
    return labels if picture.valid is None else np.where(picture.valid, labels, np.uint8(VOID))


def read_pairs(
    pairs: Iterable[Pair], classes: ClassMap, spec: InputSpec = RGB
) -> Iterator[tuple[str, npt.NDArray[Any], Labels]]:
    """Read images and masks, one pair at a time.

    Args:
        pairs: what to read.
        classes: classes with which the masks are read.
        spec: what the network is fed.

    Yields:
        key, image (H, W, B) in the data type of the spec, and labels (H, W) uint8 of each pair. Labels are void where
        the image is not valid.

    Raises:
        DataError: an image or a mask cannot be read, or a mask holds colours or numbers of no class.
    """
    for pair in pairs:
        picture, reading = read_pair(pair, classes, spec)
        if reading.unknown:
            most = max(reading.unknown, key=lambda found: reading.unknown[found])
            raise DataError(
                f"{pair.mask}: {most} ({reading.unknown[most]:,} pixels) belongs to no class of {classes.source}.",
                mend="Look at the data with: skystill data check DATA",
            )
        yield pair.key, picture.image, reading.labels
