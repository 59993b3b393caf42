"""Connected components of a window of a class raster, computed with numpy only."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skystill.classes import VOID, Labels

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Components:
    """The connected components of a window: pixels of one label that touch along an edge.

    Args:
        numbers: (H, W) int64, number of the component of each pixel, 0 to n - 1 in the order of their first pixels.
        labels: (n,) uint8, label of each component. Nodata (255) forms components, too.
        sizes: (n,) int64, number of pixels of each component.
    """

    numbers: Numbers
    labels: Labels
    sizes: Numbers


def find_components(labels: Labels) -> Components:
    """Return the connected components of a window.

    The runs of equal labels in each row are found first, and then the runs that touch are joined. The number of runs is
    much smaller than that of pixels.

    Args:
        labels: (H, W) uint8, with at least one pixel.
    """
    starts = np.ones(labels.shape, bool)
    starts[:, 1:] = labels[:, 1:] != labels[:, :-1]
    runs = np.cumsum(starts.ravel()).reshape(labels.shape) - 1
    touch = labels[1:] == labels[:-1]
    first = touch.copy()  # the first pixel of each contact between two runs
    first[:, 1:] &= ~touch[:, :-1] | starts[1:, 1:] | starts[:-1, 1:]
    roots = _joined(int(runs[-1, -1]) + 1, runs[:-1][first], runs[1:][first])
    is_root = roots == np.arange(len(roots))
    component_of_run = (np.cumsum(is_root) - 1)[roots]
    lengths = np.diff(np.flatnonzero(starts.ravel()), append=labels.size)
    sizes = np.bincount(component_of_run, weights=lengths).astype(np.int64)
    return Components(component_of_run[runs], labels[starts][is_root], sizes)


def _joined(count: int, one: Numbers, other: Numbers) -> Numbers:
    """Return the smallest node to which each of `count` nodes is connected by the pairs (`one`, `other`)."""
    roots = np.arange(count)
    while True:
        first, second = roots[one], roots[other]
        apart = first != second
        if not apart.any():
            return roots
        one, other = one[apart], other[apart]
        first, second = first[apart], second[apart]
        np.minimum.at(roots, np.maximum(first, second), np.minimum(first, second))
        while not np.array_equal(above := roots[roots], roots):
            roots = above


def find_borders(found: Components) -> tuple[Numbers, Numbers, Numbers]:
    """Return the pairs of components that touch, each pair in both orders, and the lengths of their borders in pixels.

    Components of nodata are left out.
    """
    count = len(found.labels)
    codes = []
    valid = (found.labels != VOID)[found.numbers]
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        differ = (found.numbers[here] != found.numbers[there]) & valid[here] & valid[there]
        one, other = found.numbers[here][differ], found.numbers[there][differ]
        codes.append(np.minimum(one, other) * count + np.maximum(one, other))
    pairs, lengths = np.unique(np.concatenate(codes), return_counts=True)
    one, other = pairs // count, pairs % count
    return np.concatenate([one, other]), np.concatenate([other, one]), np.concatenate([lengths, lengths])
