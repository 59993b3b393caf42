"""Where pixels lie on the ground: their size and area on the ellipsoid, and their longitude and latitude, for any CRS.

Sizes come from the ellipsoid of the CRS and not from its plane: a metre of web Mercator is half a metre on the ground
at 60 degrees north, and a degree of longitude shrinks towards the poles. pyproj is imported only for rasters with a
CRS.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine

if TYPE_CHECKING:
    import pyproj

Floats = npt.NDArray[np.float64]

_MERCATOR = ("Mercator", "Popular Visualisation Pseudo Mercator")  # and not Transverse Mercator
_REACH_M = 50.0  # PROJ inverts projections to about 1e-10 radians, 0.6 mm: 6e-6 of this distance each way
_EVEN = 1e-4  # relative spread of pixel areas below which one area serves all pixels
_SMOOTH = 0.2  # relative spread up to which a polynomial of degree 4 is exact to 1e-5
_NODES = 5
_ALIKE = 1e-4  # variation across, as part of that down: below it, all columns have the same areas
_UPRIGHT = 0.02  # cosine of the angle between rows and columns that map projections have
_SMALL = 16  # side of windows in which each pixel is computed by itself
_WHOLE = 0.001  # map projections stretch by up to this much inside their zone: UTM by 0.04 % to 0.1 %


class Ground:
    """The ground below the pixels of one raster. `find_ground` makes it.

    Places are column and row in pixels from the top left corner of the raster: the centre of the first pixel is
    (0.5, 0.5).

    Args:
        crs: horizontal CRS of the raster: projected, geographic, or a local one.
        transform: place in pixels to coordinates of the CRS.
        height: rows of the raster.
        width: columns of the raster.
        shifted: the CRS with the shift from its datum to another one that the raster gives (TOWGS84), if it does.
    """

    def __init__(
        self, crs: "pyproj.CRS", transform: Affine, height: int, width: int, shifted: "pyproj.CRS | None" = None
    ) -> None:
        import pyproj

        self.shifted = shifted or crs
        """The CRS from which, and to which, places are brought from other CRSs."""
        self.crs, self.transform, self.height, self.width = crs, transform, height, width
        self.geographic = bool(crs.is_geographic and not crs.is_derived)
        self.local = bool(crs.is_engineering)
        self._unit = float(crs.axis_info[0].unit_conversion_factor)  # metres, or radians, in one unit of the CRS
        self._to_base: pyproj.Transformer | None = None
        self._to_wgs84: pyproj.Transformer | None = None
        nominal = self._unit
        if not self.local:
            base = crs.geodetic_crs if not crs.is_geographic else crs.source_crs or crs
            assert base is not None and crs.ellipsoid is not None  # noqa: S101 - only local CRSs have none
            self._base_unit = float(base.axis_info[0].unit_conversion_factor)
            self._a, b = crs.ellipsoid.semi_major_metre, crs.ellipsoid.semi_minor_metre
            self._e2 = 1 - (b / self._a) ** 2
            if not self.geographic:
                self._to_base = pyproj.Transformer.from_crs(crs, base, always_xy=True)
            nominal = self._unit if crs.is_projected else self._unit * self._a
        self.nominal_pixel_m = (
            math.hypot(transform.b, transform.e) * nominal,
            math.hypot(transform.a, transform.d) * nominal,
        )
        nodes = self._nodes(0, height, 0, width)
        even = bool(np.isfinite(nodes).all()) and np.ptp(nodes) <= _EVEN * nodes.mean()
        self.even_pixel_m2 = float(nodes.mean()) if even else None
        """Area of a pixel in square metres, if it is the same everywhere in the raster; otherwise None."""

    @functools.cached_property
    def turn(self) -> float | None:
        """Step of x once round the Earth, after which places are the same; None in a CRS in which that has no meaning.

        It is known for geographic CRSs and for Mercator projections with the middle at longitude 0.
        """
        if self.geographic:
            return 2 * math.pi / self._unit
        operation = self.crs.coordinate_operation
        if self._to_base is None or operation is None or not operation.method_name.startswith(_MERCATOR):
            return None
        quarter = math.pi / 2 / self._base_unit
        (middle, side), _ = self._to_base.transform([0.0, quarter], [0.0, 0.0], direction="INVERSE")
        return float(4 * side) if middle == 0 else None

    def pixel_metres(self, column: float, row: float) -> tuple[float, float]:
        """Return the height and the width in metres on the ground of the pixel at a place.

        Both are NaN where the CRS has no place on the ground.
        """
        down, across = self._sides(np.array([column], float), np.array([row], float))
        return float(np.linalg.norm(down)), float(np.linalg.norm(across))

    def pixel_frame(self, column: float, row: float) -> tuple[float, float, float]:
        """Return how steps in pixels become metres on the plane that touches the ground at a place.

        A step of one column is (across, 0), and a step of one row is (along, down). `along` is 0 unless the raster is
        sheared: in rasters that are turned or stretched, rows and columns are at right angles.

        Returns:
            across, along and down. All are NaN where the CRS has no place on the ground.
        """
        down, across = (side[0] for side in self._sides(np.array([column], float), np.array([row], float)))
        width, height = float(np.linalg.norm(across)), float(np.linalg.norm(down))
        along = float(down @ across) / width if width else math.nan
        if abs(along) <= _UPRIGHT * height:
            return width, 0.0, height
        return width, along, math.sqrt(max(0.0, height**2 - along**2))

    @functools.cached_property
    def uprightness(self) -> float:
        """The sine of the angle between rows and columns on the ground at the middle; 1 unless they are sheared."""
        frame = self.pixel_frame(self.width / 2, self.height / 2)
        return frame[2] / math.hypot(frame[1], frame[2]) if frame[1] else 1.0

    def pixel_areas_m2(self, columns: Floats, rows: Floats) -> Floats:
        """Return the area in square metres of pixels at places; NaN where the CRS has no place on the ground."""
        down, across = self._sides(columns.ravel(), rows.ravel())
        with np.errstate(invalid="ignore"):
            return np.asarray(np.linalg.norm(np.cross(down, across), axis=1).reshape(columns.shape), np.float64)

    def window_areas_m2(
        self, top: int, bottom: int, left: int, right: int
    ) -> Iterator[tuple[slice, slice, Floats | float]]:
        """Divide a window into parts, and yield the area of the pixels in each.

        Args:
            top: first row.
            bottom: the row after the last one.
            left: first column.
            right: the column after the last one.

        Yields:
            rows and columns of a part, counted from the top left corner of the window, and the area of its pixels in
            square metres: one number where it varies by less than 0.01 %, otherwise (H, W) float64. Pixels without a
            place on the ground have no area.
        """
        height, width = bottom - top, right - left
        if self.even_pixel_m2 is not None:
            yield slice(0, height), slice(0, width), self.even_pixel_m2
            return
        nodes = self._nodes(top, bottom, left, right)
        spread = np.ptp(nodes) / nodes.mean() if np.isfinite(nodes).all() and nodes.any() else math.inf
        if spread <= _EVEN:
            yield slice(0, height), slice(0, width), float(nodes.mean())
            return
        rows_vary, columns_vary = _largest(np.ptp(nodes, axis=0)), _largest(np.ptp(nodes, axis=1))
        if columns_vary <= _ALIKE * rows_vary < math.inf:  # degrees, Mercator: one column shows all
            middles = np.arange(top, bottom, dtype=np.float64) + 0.5
            column = np.nan_to_num(self.pixel_areas_m2(np.full(height, left + 0.5), middles))
            yield slice(0, height), slice(0, width), np.broadcast_to(column[:, None], (height, width))
        elif spread <= _SMOOTH:
            yield slice(0, height), slice(0, width), _lagrange(height) @ nodes @ _lagrange(width).T
        elif max(height, width) <= _SMALL:
            rows, columns = np.mgrid[top:bottom, left:right] + 0.5
            yield slice(0, height), slice(0, width), np.nan_to_num(self.pixel_areas_m2(columns, rows))
        else:
            for first, last in _halves(height, rows_vary >= columns_vary or width <= _SMALL):
                for begin, end in _halves(width, columns_vary >= rows_vary or height <= _SMALL):
                    for down, across, areas in self.window_areas_m2(top + first, top + last, left + begin, left + end):
                        here = slice(first + down.start, first + down.stop)
                        yield here, slice(begin + across.start, begin + across.stop), areas

    def lonlat(self, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Return longitude and latitude (WGS 84) in degrees of places.

        The longitudes of a geographic CRS go on beyond 180 degrees, as in the raster. All others are within 180. Both
        are infinite where the CRS has no place on the ground.

        Raises:
            pyproj.exceptions.ProjError: the CRS cannot be converted, such as that of another planet.
        """
        import pyproj

        if self._to_wgs84 is None:
            self._to_wgs84 = pyproj.Transformer.from_crs(self.shifted, "EPSG:4326", always_xy=True)
        x, y = self._map(columns, rows)
        if not self.geographic:
            longitudes, latitudes = self._to_wgs84.transform(x, y)
            return np.asarray(longitudes), np.asarray(latitudes)
        pole = math.pi / 2 / self._unit  # pixels whose centre is on the pole reach beyond it
        longitudes, latitudes = self._to_wgs84.transform(x, np.clip(y, -pole, pole))
        turns = np.round((np.degrees(x * self._unit) - longitudes) / 360)
        return longitudes + 360 * turns, np.asarray(latitudes)

    def plane_at(self, column: float, row: float) -> Floats:
        """Return the matrix (2, 2) from steps in pixels, column first, to steps on a plane.

        The plane is that of the CRS, in its units. For degrees, it is the plane that touches the ellipsoid at the
        place, in metres to the east and to the north: an angle between degrees is not one on the ground.
        """
        to = self.transform
        steps = np.array([[to.a, to.b], [to.d, to.e]])
        if not self.crs.is_geographic:
            return steps
        latitude = (to.d * column + to.e * row + to.f) * self._unit
        curved = 1 - self._e2 * math.sin(latitude) ** 2
        radii = np.array([math.cos(latitude), (1 - self._e2) / curved]) * self._a / math.sqrt(curved)
        return np.asarray(steps * radii[:, None] * self._unit)

    def poles(self) -> list[tuple[float, float]]:
        """Return the columns and rows of the poles that lie inside the raster of a CRS that is not geographic."""
        if self._to_base is None:
            return []
        quarter = math.pi / 2 / self._base_unit
        found = [self._to_base.transform(0.0, latitude, direction="INVERSE") for latitude in (quarter, -quarter)]
        places = [~self.transform * place for place in found if np.isfinite(place).all()]
        return [(c, r) for c, r in places if -1 <= c <= self.width + 1 and -1 <= r <= self.height + 1]

    def _map(self, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
        to = self.transform
        return to.a * columns + to.b * rows + to.c, to.d * columns + to.e * rows + to.f

    def _sides(self, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Return the vectors (N, 3) in metres from one pixel to the next one down and across."""
        count = len(columns)
        down, across = (_REACH_M / size for size in self.nominal_pixel_m)
        steps = np.array([[0, down], [0, -down], [across, 0], [-across, 0]])
        points = self._points(
            (columns + steps[:, :1]).ravel(),
            (rows + steps[:, 1:]).ravel(),
        ).reshape(4, count, 3)
        with np.errstate(invalid="ignore"):
            return (points[0] - points[1]) / (2 * down), (points[2] - points[3]) / (2 * across)

    def _points(self, columns: Floats, rows: Floats) -> Floats:
        """Return the points (N, 3) in metres of places in space: the ellipsoid has neither poles nor a date line."""
        x, y = self._map(columns, rows)
        if self.local:
            return np.stack([x * self._unit, y * self._unit, np.zeros_like(x)], axis=1)
        unit = self._unit
        if self._to_base is not None:
            x, y = self._to_base.transform(x, y)
            unit = self._base_unit
        with np.errstate(invalid="ignore"):
            longitude, latitude = x * unit, y * unit
            normal = self._a / np.sqrt(1 - self._e2 * np.sin(latitude) ** 2)
            flat = normal * np.cos(latitude)
            points = [
                flat * np.cos(longitude),
                flat * np.sin(longitude),
                normal * (1 - self._e2) * np.sin(latitude),
            ]
        return np.stack(points, axis=1)

    def _nodes(self, top: int, bottom: int, left: int, right: int) -> Floats:
        """Return the areas of pixels at Chebyshev nodes between the first and the last pixel of a window."""
        at = (chebyshev.chebpts2(_NODES) + 1) / 2
        columns, rows = np.meshgrid(left + 0.5 + at * (right - left - 1), top + 0.5 + at * (bottom - top - 1))
        return self.pixel_areas_m2(columns, rows)


def find_ground(crs: Any, transform: Affine, height: int, width: int) -> Ground | None:  # noqa: ANN401
    """Return the ground below a raster, or None if it has no CRS that says so.

    Args:
        crs: rasterio's CRS, or None.
        transform: place in pixels to coordinates of the CRS.
        height: rows of the raster.
        width: columns of the raster.
    """
    if not crs or transform.is_identity or not transform.determinant:
        return None
    import pyproj

    try:
        found, shifted = _horizontal(pyproj.CRS.from_wkt(crs.to_wkt(version="WKT2_2019")))
        usable = found.is_projected or found.is_geographic or found.is_engineering
        return Ground(found, transform, height, width, shifted) if usable and found.axis_info else None
    except pyproj.exceptions.ProjError:  # a projection that PROJ does not have
        return None


def snap_factor(factor: float) -> float:
    """Return the whole number, or the fraction 1/n, that a factor of resampling is within 0.1 % of.

    Map projections stretch by about as much. Without this, 0.5 m pixels of UTM would be resampled to "0.5 m on the
    ground", which blurs them and gains nothing.
    """
    whole = max(1, round(factor)) if factor >= 1 else 1 / max(1, round(1 / factor))
    return float(whole) if abs(factor / whole - 1) <= _WHOLE else factor


@dataclass(frozen=True)
class Control:
    """Ground control points and rational polynomial coefficients (RPCs): a position without a transform.

    Args:
        gcps: ground control points.
        crs: rasterio's CRS of their x and y.
        rpcs: rational polynomial coefficients.
    """

    gcps: tuple[GroundControlPoint, ...] = ()
    crs: Any = None
    rpcs: RPC | None = None

    def __bool__(self) -> bool:
        return bool(self.gcps) or self.rpcs is not None

    def resampled(self, down: float, across: float) -> "Control":
        """Return the same position for a raster whose pixels are larger by these factors."""
        gcps = tuple(
            GroundControlPoint(gcp.row / down, gcp.col / across, gcp.x, gcp.y, gcp.z, gcp.id, gcp.info)
            for gcp in self.gcps
        )
        rpcs = None
        if self.rpcs is not None:
            rpcs = RPC(**self.rpcs.to_dict())
            # Lines and samples of RPCs count from the centre of the first pixel.
            rpcs.line_off, rpcs.line_scale = (rpcs.line_off + 0.5) / down - 0.5, rpcs.line_scale / down
            rpcs.samp_off, rpcs.samp_scale = (rpcs.samp_off + 0.5) / across - 0.5, rpcs.samp_scale / across
        return replace(self, gcps=gcps, rpcs=rpcs)

    def __str__(self) -> str:
        parts = [f"{len(self.gcps)} ground control points"] if self.gcps else []
        return " and ".join([*parts, *(["RPCs"] if self.rpcs is not None else [])])


def _horizontal(crs: "pyproj.CRS") -> "tuple[pyproj.CRS, pyproj.CRS | None]":
    """Return the part of a CRS that says where things lie, without heights, and that with its datum shift or None."""
    shifted = None
    while crs.is_bound or crs.is_compound:
        shifted = shifted or (crs if crs.is_bound else None)
        inner = crs.source_crs if crs.is_bound else crs.sub_crs_list[0]
        assert inner is not None  # noqa: S101 - a bound CRS has a source
        crs = inner
    return crs.to_2d() if len(crs.axis_info) == 3 and not crs.is_geocentric else crs, shifted


def _lagrange(count: int) -> Floats:
    """Return the matrix (count, nodes) from values at Chebyshev nodes to `count` pixels, both ends included."""
    to_coefficients = np.linalg.inv(chebyshev.chebvander(chebyshev.chebpts2(_NODES), _NODES - 1))
    return np.asarray(chebyshev.chebvander(np.linspace(-1, 1, count), _NODES - 1) @ to_coefficients, np.float64)


def _largest(values: Floats) -> float:
    return float(np.nan_to_num(values, nan=math.inf).max())


def _halves(size: int, wanted: bool) -> list[tuple[int, int]]:
    return [(0, size // 2), (size // 2, size)] if wanted and size > _SMALL else [(0, size)]
