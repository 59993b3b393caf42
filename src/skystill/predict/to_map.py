"""Polygons of pixels as polygons on the map: coordinates of the written file, and areas in square metres.

GeoJSON is in longitude and latitude (WGS 84). There, long edges get further vertices where straight lines of the raster
are curves, and polygons are cut at the antimeridian, as RFC 7946 asks for (sections 3.1.6 and 3.1.9). Needs shapely.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely

from skystill.errors import DataError
from skystill.raster.ground import Floats, Ground, find_ground

_CURVE_PIXELS = 0.1
_LONGEST_M = 2_000_000  # far below half of the Earth: the side to which an edge turns must be known
_AT_POLE = 1e-7  # degrees: one centimetre
_CURVED = 5e-4  # relative; the area of the pixel at the centroid is exact for pixel areas that vary linearly
_SMALL = 4
_POLE_PIXELS, _POLE_EDGE = 32, 0.25  # one pixel from the pole, an edge of one pixel turns by 53 degrees of longitude
_EARTH_M_PER_DEGREE = 111_320.0

Geometry = Any  # shapely has no type annotations


class ToMap:
    """Converts pixel coordinates to those of the written file, and computes areas in square metres.

    Args:
        source: the class raster.
        lonlat: whether the file is in longitude and latitude. Without effect if the raster has no CRS.

    Raises:
        DataError: longitude and latitude are asked for, and the CRS has none.
    """

    def __init__(self, source: rasterio.DatasetReader, lonlat: bool) -> None:
        self._path = source.name
        self._transform = source.transform
        self._ground = find_ground(source.crs, source.transform, source.height, source.width)
        if lonlat and source.crs and not source.transform.is_identity and self._ground is None:
            raise self._no_lonlat(f"its CRS ({source.crs}) has none")
        if lonlat and self._ground is not None and self._ground.local:
            raise self._no_lonlat("its CRS is local, without a place on the Earth")
        self._lonlat = self._ground if lonlat else None
        self._poles = [] if self._lonlat is None else self._lonlat.poles()
        self._longest = 0.0 if self._lonlat is None else self._longest_edge(self._lonlat)

    def areas(self, geometries: list[Geometry]) -> list[float | None]:
        """Return the area of each polygon on the ground in square metres, or None if the raster has no CRS."""
        if self._ground is None:
            return [None] * len(geometries)
        pixels = shapely.area(geometries)
        if self._ground.even_pixel_m2 is not None:
            return [float(area) for area in pixels * self._ground.even_pixel_m2]
        centres = shapely.get_coordinates(shapely.centroid(geometries))
        left, top, right, bottom = shapely.bounds(geometries).T
        columns = np.stack([centres[:, 0], left, right, left, right, (left + right) / 2])
        rows = np.stack([centres[:, 1], top, top, bottom, bottom, (top + bottom) / 2])
        densities = self._ground.pixel_areas_m2(columns, rows)
        areas = pixels * np.nan_to_num(densities[0])
        uneven = ~(_curvature(densities[1:]) <= _CURVED * densities[0])
        for number in np.flatnonzero(uneven & (np.maximum(right - left, bottom - top) > _SMALL)):
            areas[number] = _area_in_parts(geometries[number], self._ground)
        return [float(area) for area in areas]

    def __call__(self, geometries: list[Geometry]) -> list[Geometry]:
        """Return the polygons in the coordinates of the written file. Those of GeoJSON follow the right-hand rule.

        Raises:
            DataError: a polygon reaches a place without longitude and latitude.
        """
        shapes = np.asarray(geometries, object)
        if self._lonlat is None:
            moved: list[Geometry] = list(shapely.transform(shapes, self._to_plane))
            return moved
        ground = self._lonlat
        shapes = shapely.segmentize(shapes, self._longest_edges(shapes))
        shapes = shapely.transform(shapes, lambda points: np.column_stack(ground.lonlat(points[:, 0], points[:, 1])))
        points, owners = shapely.get_coordinates(shapes, return_index=True)
        if not np.isfinite(points).all():
            raise self._no_lonlat("a polygon reaches beyond the ground that its projection shows")
        turns = (np.abs(np.diff(points[:, 0])) > 180) & (owners[1:] == owners[:-1]) & (not ground.geographic)
        beyond = (np.abs(points[:, 0]) > 180) | ((np.abs(points[:, 1]) > 90 - _AT_POLE) & (not ground.geographic))
        for number in np.union1d(owners[1:][turns], owners[beyond]):
            shapes[number] = cut_at_antimeridian(shapes[number], unwrap=not ground.geographic)
        return list(shapely.orient_polygons(shapes))

    def _to_plane(self, points: Floats) -> Floats:
        to, column, row = self._transform, points[:, 0], points[:, 1]
        return np.column_stack([to.a * column + to.b * row + to.c, to.d * column + to.e * row + to.f])

    def _longest_edges(self, shapes: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
        """Return the longest edge in pixels of each polygon. It is shorter near a pole."""
        longest = np.full(len(shapes), self._longest)
        for pole in self._poles:
            longest[shapely.distance(shapes, shapely.Point(pole)) < _POLE_PIXELS] = _POLE_EDGE
        return longest

    def _no_lonlat(self, why: str) -> DataError:
        return DataError(
            f"{self._path} cannot be written in longitude and latitude: {why}. Take --vector gpkg, which keeps the CRS."
        )

    def _longest_edge(self, ground: Ground) -> float:
        """Return the longest edge in pixels whose middle is within 0.1 pixels of the straight line on the map."""
        import pyproj

        if self._poles:
            return 1.0
        size = np.array([ground.width, ground.height], float)
        length = min(size.max(), _LONGEST_M / max(ground.nominal_pixel_m))
        if ground.geographic:
            length = size.max()  # the map is linear but for a shift of the datum
        try:
            while length > 1 and _sagitta(ground, size, length) > _CURVE_PIXELS:
                length /= 2
        except pyproj.exceptions.ProjError as error:
            raise self._no_lonlat(str(error)) from error
        return max(1.0, float(length))


def cut_at_antimeridian(polygon: Geometry, unwrap: bool) -> Geometry:
    """Cut a polygon in longitude and latitude at the antimeridian.

    Args:
        polygon: its edges are shorter than half of the Earth.
        unwrap: True if all longitudes are within 180 degrees, so that an edge across the antimeridian jumps by 360.
            False if they go on beyond 180 degrees.

    Returns:
        the parts within -180 to 180 degrees. A polygon around a pole reaches to the pole along the antimeridian.
    """
    rings = [polygon.exterior, *polygon.interiors]
    points = [shapely.get_coordinates(ring) for ring in rings]
    if unwrap:
        pole = math.copysign(90.0, float(points[0][:, 1].mean()))
        points = [_unwrapped(ring, pole) for ring in points]
    flat = [_polygonal(shapely.make_valid(shapely.Polygon(ring))) for ring in points]
    # Each ring is cut by itself, because a hole may lie one turn away from its polygon.
    whole = _polygonal(shapely.difference(_within_180(flat[0]), shapely.union_all([_within_180(h) for h in flat[1:]])))
    parts = [part for part in shapely.get_parts(whole) if shapely.area(part) > 0]
    return parts[0] if len(parts) == 1 else shapely.multipolygons(parts)


def _within_180(polygons: Geometry) -> Geometry:
    """Return all parts of polygons, moved by whole turns to between -180 and 180 degrees."""
    west, _, east, _ = shapely.bounds(polygons)
    parts = []
    for turn in range(math.floor((west + 180) / 360), math.ceil((east - 180) / 360) + 1):
        box = shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90)
        parts.append(_shifted(_polygonal(shapely.intersection(polygons, box)), -360.0 * turn))
    return shapely.union_all(parts)


def _polygonal(geometry: Geometry) -> Geometry:
    """Return the polygons of a geometry as one, without the lines and points that cutting leaves behind."""
    parts = shapely.get_parts(shapely.get_parts(geometry))  # a collection may hold multipolygons
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def _unwrapped(ring: Floats, pole: float) -> Floats:
    """Return a closed ring whose longitudes are continuous. A ring around the pole is closed along it.

    A vertex on the pole has no longitude: it becomes two, with the longitudes of its neighbours.
    """
    ring = ring[:-1]
    at_pole = np.abs(ring[:, 1]) > 90 - _AT_POLE
    if at_pole.any():
        ring = np.roll(ring, -int(np.flatnonzero(~at_pole)[0]), axis=0)  # begin with a vertex that has a longitude
        ring = _doubled(ring)
    steps = np.diff(ring[:, 0], append=ring[:1, 0])
    steps = (steps + 180) % 360 - 180
    longitudes = ring[0, 0] + np.concatenate([[0.0], np.cumsum(steps)])
    latitudes = np.append(ring[:, 1], ring[0, 1])
    closed = np.column_stack([longitudes, latitudes])
    if abs(longitudes[-1] - longitudes[0]) < 180:
        closed[-1] = closed[0]
        return closed
    return np.concatenate([closed, [[longitudes[-1], pole], [longitudes[0], pole]], closed[:1]])


def _doubled(ring: Floats) -> Floats:
    """Replace each vertex on a pole by two, with the longitudes of the vertices before and after it."""
    found: list[npt.NDArray[np.float64]] = []
    for before, here, after in zip(np.roll(ring, 1, axis=0), ring, np.roll(ring, -1, axis=0), strict=True):
        if abs(here[1]) > 90 - _AT_POLE:
            found += [np.array([before[0], here[1]]), np.array([after[0], here[1]])]
        else:
            found.append(here)
    return np.array(found)


def _shifted(geometry: Geometry, degrees: float) -> Geometry:
    return shapely.transform(geometry, lambda points: points + np.array([degrees, 0.0]))


def _sagitta(ground: Ground, size: Floats, length: float) -> float:
    """Return how far the middle of edges of a length is from the straight line on the map, in pixels, at most."""
    at = np.linspace(0, 1, 5)
    worst = 0.0
    for axis in (0, 1):
        reach = np.array([0.0, 0.0])
        reach[axis] = min(length, size[axis])
        starts = np.stack(np.meshgrid(*(at * (size - reach)[:, None])), axis=-1).reshape(-1, 2)
        places = np.stack([starts, starts + reach / 2, starts + reach])
        longitudes, latitudes = ground.lonlat(places[..., 0].ravel(), places[..., 1].ravel())
        with np.errstate(invalid="ignore"):
            lon, lat = longitudes.reshape(3, -1), latitudes.reshape(3, -1)
            off_lon = ((lon[0] - lon[1] + 180) % 360 - 180) + ((lon[2] - lon[1] + 180) % 360 - 180)
            off_lat = lat[0] + lat[2] - 2 * lat[1]
            metres = np.hypot(off_lon * np.cos(np.radians(lat[1])), off_lat) / 2 * _EARTH_M_PER_DEGREE
        metres = metres[np.isfinite(metres)]
        if not metres.size:
            return math.inf
        pixel_m = min(ground.pixel_metres(*(size / 2)))
        worst = max(worst, float(metres.max()) / pixel_m)
    return worst


def _curvature(densities: Floats) -> Floats:
    """Return how far values at four corners and in their middle, on axis 0, are from a linear function."""
    corners, middle = densities[:4], densities[4]
    twist = corners[0] + corners[3] - corners[1] - corners[2]
    return np.asarray(np.maximum(np.abs(corners.mean(axis=0) - middle), np.abs(twist) / 4), np.float64)


def _area_in_parts(polygon: Geometry, ground: Ground) -> float:
    """Return the area in square metres of a polygon in pixels. It is divided until pixels of a part have one area."""
    left, top, right, bottom = shapely.bounds(polygon)
    columns, rows = np.meshgrid(np.linspace(left, right, 3), np.linspace(top, bottom, 3))
    densities = ground.pixel_areas_m2(columns, rows)
    curvature = _curvature(np.stack([*densities[::2, ::2].ravel(), densities[1, 1]]))
    even = bool(np.isfinite(densities).all()) and curvature <= _CURVED * densities.mean()
    if even or max(right - left, bottom - top) <= _SMALL:
        centre = shapely.get_coordinates(shapely.centroid(polygon))[0]
        density = ground.pixel_areas_m2(centre[:1], centre[1:])[0]
        return float(shapely.area(polygon) * density) if np.isfinite(density) else 0.0
    varies_across = np.nan_to_num(np.ptp(densities, axis=1), nan=np.inf).max()
    varies_down = np.nan_to_num(np.ptp(densities, axis=0), nan=np.inf).max()
    prefer_across = varies_across > varies_down or (varies_across == varies_down and right - left > bottom - top)
    if right - left > _SMALL and (prefer_across or bottom - top <= _SMALL):
        middle = round((left + right) / 2)
        halves = (shapely.box(left, top, middle, bottom), shapely.box(middle, top, right, bottom))
    else:
        middle = round((top + bottom) / 2)
        halves = (shapely.box(left, top, right, middle), shapely.box(left, middle, right, bottom))
    parts = (shapely.intersection(polygon, half) for half in halves)
    return sum(_area_in_parts(part, ground) for part in parts if shapely.area(part) > 0)
