"""Smooth a class raster: each pixel takes the most common class of the pixels around it."""

import numpy as np
import numpy.typing as npt

from skystill.classes import VOID, Labels


def most_common_around(labels: Labels, side: int) -> Labels:
    """Return the most common class of the `side` x `side` pixels around each pixel.

    Nodata has no vote and stays nodata, and neither have pixels outside the array. A pixel keeps its own class unless
    exactly one other class has more votes than all others.

    Args:
        labels: (H, W) uint8; 255 is nodata.
        side: odd number of pixels, 3 to 255. (255 x 255 votes fit 16 bits.)

    Returns:
        (H, W) uint8.
    """
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[:VOID])
    best = np.zeros(labels.shape, np.uint16)
    result, tied = labels.copy(), np.zeros(labels.shape, bool)
    for label in present:
        own = labels == label
        votes = _box_sums(own, side)
        ahead = votes > best
        tied = (tied & ~ahead) | (votes == best)
        result[ahead] = label
        best = np.maximum(best, votes)
    return np.where(tied | (labels == VOID), labels, result)


def _box_sums(marked: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.uint16]:
    """Return how many of the `side` x `side` pixels around each pixel are marked.

    Running sums are subtracted from each other. They wrap around in 16 bits, but their differences stay right.
    """
    sums: npt.NDArray[np.uint16] = marked.astype(np.uint16)
    for axis in (0, 1):
        size, reach = sums.shape[axis], side // 2
        margins = [(0, 0), (0, 0)]
        margins[axis] = (reach + 1, reach)
        running = np.moveaxis(np.cumsum(np.pad(sums, margins), axis=axis, dtype=np.uint16), axis, 0)
        sums = np.moveaxis(running[side : side + size] - running[:size], 0, axis)
    return sums
