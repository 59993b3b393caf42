"""Refuses images whose values are on another scale than those that a network was trained on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from skystill.errors import DataError
from skystill.raster.input_spec import InputSpec
from skystill.raster.picture import off_scale

_LOOKED_AT = 16
"""So many files are looked at, evenly spread: a wrong scale is that of all of them."""


def check_each_scale(images: Sequence[Path], spec: InputSpec) -> None:
    """Compare the values of each image without labels with those of the training images. Colours in bytes pass.

    Args:
        images: the files. Those that cannot be opened are passed over.
        spec: what the network is fed, with the statistics of its training images.

    Raises:
        DataError: nearly all values of a band lie outside those of the training images. The message lists the files.
    """
    files = [] if spec.is_colors else list(dict.fromkeys(images))
    problems = [f"{said} Write it on the scale of the training images" for path in files
                if (said := off_scale(path, spec))]  # fmt: skip
    if problems:
        raise DataError(
            f"{len(problems)} of {len(files)} file(s) cannot teach:",
            problems,
            "Take them out of the folder, or name the others.",
        )


def check_scale(images: Sequence[Path], spec: InputSpec, whose: str) -> None:
    """Compare the values of images with those that a network was trained on. Colours in bytes pass.

    Args:
        images: the files. Those that cannot be opened are passed over.
        spec: what the network was fed, with the statistics of its training images.
        whose: the network, for the message.

    Raises:
        DataError: in most files nearly all values of a band lie outside those of its training images.
    """
    if spec.is_colors or not images:
        return
    files = list(dict.fromkeys(images))
    places = np.linspace(0, len(files) - 1, min(len(files), _LOOKED_AT)).round().astype(int)
    looked_at = [files[place] for place in places]
    found = [said for path in looked_at if (said := off_scale(path, spec))]
    if 2 * len(found) > len(looked_at):
        raise DataError(
            f"{whose} was trained on other values ({len(found)} of {len(looked_at)} images that were looked at): "
            f"{found[0]} Write the images on the scale of its training images, or do without it."
        )
