"""Right angles for the polygons of some classes, such as buildings: the option `--square`. Needs shapely."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely

from skystill.classes import ClassMap
from skystill.errors import SettingsError
from skystill.predict.right_angles import main_direction, square_ring
from skystill.raster.ground import find_ground

_SHORTEST = 3.0  # pixels: the outline of a network wavers by one or two
_LEAST_OVERLAP = 0.85  # a circle and the square that is found for it have 0.83
_MOST_VERTICES = 100_000  # squaring them needs about 50 MB; no building has as many

Geometry = Any  # shapely has no type annotations


def find_square_labels(square: str, classes: ClassMap) -> tuple[int, ...]:
    """Return the labels of the classes that `--square` names.

    Args:
        square: names of classes, separated by commas.
        classes: the classes of the model.

    Raises:
        SettingsError: there is no class of a name.
    """
    names = [square] if square in classes.names else [name.strip() for name in square.split(",")]
    unknown = [name for name in dict.fromkeys(names) if name not in classes.names]
    if unknown:
        raise SettingsError(
            f"--square {square}: the model has no class {' and no class '.join(map(repr, unknown))}. "
            f"Its classes are {', '.join(classes.names)}."
        )
    return tuple(sorted({classes.names.index(name) for name in names}))


class Squarer:
    """Makes the angles of polygons right angles, on the plane of the CRS or, for degrees, on the ground.

    Args:
        source: the class raster.
        labels: labels of the polygons that are squared. Others stay as they are.
        tolerance: tolerance in pixels by which the polygons were simplified before, or None.

    `squared` and `kept` are the numbers of polygons of these labels that were squared, and that stay as they are.
    """

    def __init__(self, source: rasterio.DatasetReader, labels: Sequence[int], tolerance: float | None = None) -> None:
        self._labels = frozenset(labels)
        self._shortest = max(_SHORTEST, tolerance or 0.0)
        self._ground = find_ground(source.crs, source.transform, source.height, source.width)
        to = source.transform
        self._plane = np.array([[to.a, to.b], [to.d, to.e]])
        self.squared = self.kept = 0

    def __call__(self, polygon: Geometry, label: int, whole: bool = True) -> Geometry:
        """Return a polygon with right angles.

        Args:
            polygon: in pixel coordinates (x right, y down).
            label: its label.
            whole: False for a part of a polygon, which stays as it is.

        Returns:
            the squared polygon in pixel coordinates. The polygon itself if it has another label, or if the squared one
            would not be valid or would overlap too little with it.
        """
        if label not in self._labels:
            return polygon
        possible = whole and polygon.geom_type == "Polygon" and shapely.get_num_coordinates(polygon) <= _MOST_VERTICES
        if possible:
            for found in self._candidates(polygon):
                if found is not None and shapely.is_valid(found) and self._fits(polygon, found):
                    self.squared += 1
                    return found
        self.kept += 1
        return polygon

    def note(self, names: Sequence[str]) -> str:
        """Return a text on how many polygons of the classes of these names have right angles now."""
        some = (
            f"--square {','.join(names)}: {self.squared:,} of {self.squared + self.kept:,} polygons have right angles"
        )
        why = f"; right angles would not fit the other {self.kept:,}, which stay as they are" if self.kept else ""
        return f"{some}{why}."

    def _fits(self, polygon: Geometry, found: Geometry) -> bool:
        if _overlap(polygon, found) < _LEAST_OVERLAP:
            return False
        if self._ground is None:
            return True
        columns, rows = shapely.get_coordinates(found).T  # a corner may lie beyond the raster, and off its projection
        return bool(np.isfinite(self._ground.pixel_areas_m2(columns, rows)).all())

    def _candidates(self, polygon: Geometry) -> Iterator[Geometry | None]:
        """Yield the squared polygon along its edges, then along its smallest rectangle; None where there is none."""
        centre = shapely.get_coordinates(shapely.centroid(polygon))[0]
        plane = self._plane if self._ground is None else self._ground.plane_at(*centre)
        pixel = float(np.linalg.norm(plane, axis=0).max())
        if not (np.isfinite(plane).all() and abs(np.linalg.det(plane)) > 1e-6 * pixel**2):
            return  # at a pole of a CRS in degrees
        shortest = self._shortest * pixel
        rings = [_canonical(shapely.get_coordinates(ring), centre) for ring in (polygon.exterior, *polygon.interiors)]
        rings = [(ring - centre) @ plane.T for ring in rings]
        for direction in (main_direction(rings[0], shortest / 2), _rectangle_direction(rings[0])):
            found = [square_ring(ring, direction, shortest) for ring in rings]
            back = np.linalg.inv(plane).T
            holes = [hole @ back + centre for hole in found[1:] if hole is not None and _width(hole) >= shortest]
            yield None if found[0] is None else shapely.Polygon(found[0] @ back + centre, holes)


def _overlap(one: Geometry, other: Geometry) -> float:
    """Return the area that two polygons have in common as part of that of both together."""
    common = float(shapely.area(shapely.intersection(one, other)))
    return common / (float(shapely.area(one)) + float(shapely.area(other)) - common)


def _rectangle_direction(ring: npt.NDArray[np.float64]) -> float:
    """Return the direction in radians of the smallest rectangle around a ring."""
    corners = shapely.get_coordinates(shapely.minimum_rotated_rectangle(shapely.multipoints(ring)))
    across, down = corners[1] - corners[0]
    return math.atan2(down, across)


def _canonical(ring: npt.NDArray[np.float64], centre: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the vertices of a closed ring in one direction of turning, from the one that is farthest from a centre.

    The result is the same wherever the ring began, and it begins at a corner.
    """
    ring = ring[:-1]
    after = np.roll(ring, -1, axis=0)
    if (ring[:, 0] * after[:, 1] - ring[:, 1] * after[:, 0]).sum() < 0:
        ring = ring[::-1]
    distances = np.round(((ring - centre) ** 2).sum(axis=1), 6)
    first = np.lexsort((ring[:, 0], ring[:, 1], -distances))[0]
    return np.roll(ring, -first, axis=0)


def _width(ring: npt.NDArray[np.float64]) -> float:
    """Return the length of the shortest edge of a ring."""
    return float(np.linalg.norm(np.roll(ring, -1, axis=0) - ring, axis=1).min())
