"""The 8 symmetries of the square (rotations by 90 degrees and flips) and their inverses."""

from typing import Any

import numpy as np
import numpy.typing as npt

SYMMETRIES = 8
"""Size of the dihedral group D4: rotations by 0, 90, 180 and 270 degrees, each with and without a flip."""


TEST_TIME_VIEWS = {1: (0,), 2: (0, 6), 4: (0, 2, 4, 6), 8: tuple(range(SYMMETRIES))}
"""The symmetries that are averaged, by the number of test-time views.

With up to 4 views, height and width are not swapped, so a rectangle keeps its shape.
"""


def turned(array: npt.NDArray[Any], symmetry: int, axes: tuple[int, int] = (0, 1)) -> npt.NDArray[Any]:
    """Apply one of the 8 symmetries and return a numpy view; nothing is copied.

    Args:
        array: any layout and dtype.
        symmetry: 0 to 7. The array is rotated by `symmetry % 4` times 90 degrees and then, from 4 up, its columns are
            reversed.
        axes: the axes of rows and columns.
    """
    quarter = np.rot90(array, symmetry % 4, axes)
    return np.flip(quarter, axes[1]) if symmetry >= 4 else quarter


def inverse(symmetry: int) -> int:
    """Return the inverse of a symmetry, 0 to 7."""
    return symmetry if symmetry >= 4 else -symmetry % 4  # each symmetry with a flip is its own inverse


def transform(array: npt.NDArray[Any], symmetry: int) -> npt.NDArray[Any]:
    """Apply one of the 8 symmetries to the first two axes of an array (H, W, ...); the result is contiguous."""
    if array.ndim == 3 and array.strides[2] == array.itemsize:
        # All channels of a pixel are copied as one value. This takes half the time of copying channel by channel.
        pixels = array.view(np.dtype((np.void, array.shape[2] * array.itemsize)))[..., 0]
        return transform(pixels, symmetry)[..., None].view(array.dtype)
    return np.ascontiguousarray(turned(array, symmetry))


def transform_back(array: npt.NDArray[Any], symmetry: int) -> npt.NDArray[Any]:
    """Apply the inverse of `transform` with the same symmetry."""
    return transform(array, inverse(symmetry))
