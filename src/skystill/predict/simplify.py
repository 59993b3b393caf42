"""Simplify the polygons of one window of a class raster, so that neighbours keep sharing their borders.

The polygons of a window, those without data included, cover it without gaps. GEOS simplifies each border between two of
them once, for both. The border of the window stays as it is, so that polygons join with those of the next window. Needs
shapely 2.1.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import shapes

from skystill.classes import VOID, Labels

Ring = npt.NDArray[np.float64]


def simplified_rings(labels: Labels, left: int, top: int, tolerance: float) -> Iterator[tuple[list[Ring], int]]:
    """Yield the rings of each simplified polygon, the outer one first, and its label.

    All vertices are corners of pixels. The areas of polygons change by about the tolerance times their outline at most.

    Args:
        labels: (H, W) uint8 of the window; 255 is nodata, whose polygons are not yielded.
        left: column of the window in the raster.
        top: its row.
        tolerance: in pixels. A vertex goes if its triangle with the vertices beside it is smaller than its square.
    """
    nodes = _nodes(labels)
    polygons, values = [], []
    for shape, value in shapes(labels, connectivity=4):
        rings = [_with_nodes(np.asarray(ring, int), nodes) for ring in shape["coordinates"]]
        polygons.append(shapely.Polygon(rings[0], rings[1:]))
        values.append(int(value))
    for polygon, value in zip(
        shapely.coverage_simplify(polygons, tolerance, simplify_boundary=False), values, strict=True
    ):
        if value != VOID:
            outlines = (polygon.exterior, *polygon.interiors)
            yield [np.asarray(ring.coords) + np.array([left, top]) for ring in outlines], value


def _nodes(labels: Labels) -> npt.NDArray[np.bool_]:
    """Return (H + 1, W + 1) bool, True for the corners of pixels where three or more borders meet."""
    around = np.pad(labels.astype(np.int16), 1, constant_values=-1)
    a, b, c, d = around[:-1, :-1], around[:-1, 1:], around[1:, :-1], around[1:, 1:]
    borders = [(one != other).astype(np.uint8) for one, other in ((a, b), (c, d), (a, c), (b, d))]
    return np.asarray(sum(borders) >= 3)


def _with_nodes(ring: npt.NDArray[np.int_], nodes: npt.NDArray[np.bool_]) -> npt.NDArray[np.int_]:
    """Add the nodes that lie on the edges of a ring. GDAL leaves them out where an edge goes straight on.

    Args:
        ring: (N, 2) x and y of a closed ring along the edges of pixels.
        nodes: result of `_nodes`.
    """
    steps = np.diff(ring, axis=0)
    lengths = np.abs(steps).sum(axis=1)
    along = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    points = np.repeat(ring[:-1], lengths, axis=0) + along[:, None] * np.repeat(np.sign(steps), lengths, axis=0)
    kept = points[(along == 0) | nodes[points[:, 1], points[:, 0]]]
    return np.concatenate([kept, kept[:1]])
