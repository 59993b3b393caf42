"""The 8 symmetries of the square: quarter turns and mirrors, and the way back."""

from typing import Any

import numpy as np
import numpy.typing as npt

SYMMETRIES = 8
"""Four quarter turns, each plain or mirrored: the dihedral group D4."""


TEST_TIME_VIEWS = {1: (0,), 2: (0, 6), 4: (0, 2, 4, 6), 8: tuple(range(SYMMETRIES))}
"""Symmetries to average over, by how many: up to four of them leave an oblong its shape."""


def turned(array: npt.NDArray[Any], symmetry: int, axes: tuple[int, int] = (0, 1)) -> npt.NDArray[Any]:
    """One of the 8 symmetries over two axes (rows, columns), as a view: nothing is copied."""
    quarter = np.rot90(array, symmetry % 4, axes)
    return np.flip(quarter, axes[1]) if symmetry >= 4 else quarter


def inverse(symmetry: int) -> int:
    """The symmetry that undoes this one."""
    return symmetry if symmetry >= 4 else -symmetry % 4  # a mirror undoes itself


def transform(array: npt.NDArray[Any], symmetry: int) -> npt.NDArray[Any]:
    """Apply one of the 8 symmetries to the first two axes (H, W, ...) of a square or oblong array."""
    if array.ndim == 3 and array.strides[2] == array.itemsize:
        # A pixel moves as one value of so many bytes: half the time of its channels one by one.
        pixels = array.view(np.dtype((np.void, array.shape[2] * array.itemsize)))[..., 0]
        return transform(pixels, symmetry)[..., None].view(array.dtype)
    return np.ascontiguousarray(turned(array, symmetry))


def transform_back(array: npt.NDArray[Any], symmetry: int) -> npt.NDArray[Any]:
    """Undo `transform`."""
    return transform(array, inverse(symmetry))
