"""Sizes and areas of pixels on the ground, against pyproj's geodesics and against values worked out by hand."""

import math

import numpy as np
import pyproj
import pytest
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin

from skystill.raster.ground import Control, Ground, find_ground, snap_factor

MERCATOR_60 = 8_399_737.89
"""y of 60 degrees north in web Mercator."""

FOOT = 1200 / 3937
TURNED = Affine.translation(500_000, 5_000_000) @ Affine.rotation(33) @ Affine.scale(0.3, -0.3)

PLACES = {
    "web Mercator at 60 degrees": ("EPSG:3857", from_origin(0, MERCATOR_60 + 200, 1, 1)),
    "degrees": ("EPSG:4326", from_origin(10, 60, 1e-5, 1e-5)),
    "degrees, half a degree per pixel": ("EPSG:4326", from_origin(10, 80, 0.1, 0.05)),
    "degrees and heights": ("EPSG:4979", from_origin(10, 60, 1e-5, 1e-5)),
    "gradians from Paris": ("EPSG:4807", from_origin(0, 54, 1e-4, 1e-4)),
    "US survey feet": ("EPSG:2263", from_origin(980_000, 200_000, 0.5, 0.5)),
    "US survey feet and heights": ("EPSG:2263+6360", from_origin(980_000, 200_000, 0.5, 0.5)),
    "polar, north": ("EPSG:3413", from_origin(-1_000_000, 1_000_000, 1000, 1000)),
    "polar, south": ("EPSG:3031", from_origin(-1_000_000, 1_500_000, 1000, 500)),
    "UTM": ("EPSG:32640", from_origin(300_000, 2_800_000, 0.5, 0.5)),
    "UTM, turned": ("EPSG:32633", TURNED),
    "UTM, turned by 90 degrees": ("EPSG:32633", Affine(0, 0.3, 500_000, 0.3, 0, 5_000_000)),
    "UTM, sheared": ("EPSG:32633", Affine(0.5, 0.2, 500_000, 0.1, -0.5, 5_000_000)),
    "UTM, not square": ("EPSG:32633", from_origin(500_000, 5_000_000, 0.5, 2)),
    "UTM, pixels of centimetres": ("EPSG:32633", from_origin(500_000, 5_000_000, 0.02, 0.02)),
    "UTM, upside down": ("EPSG:32633", from_origin(500_000, 5_000_000, 0.5, -0.5)),
    "south-oriented axes": ("EPSG:2048", from_origin(0, -3_000_000, 1, 1)),
    "northing before easting": ("EPSG:2193", from_origin(1_600_000, 5_500_000, 1, 1)),
    "across the antimeridian, degrees": ("EPSG:4326", from_origin(179.9, -17, 0.001, 0.001)),
    "across the antimeridian, UTM": ("EPSG:32601", from_origin(150_000, 8_000_000, 100, 100)),
    "across the antimeridian, Mercator": ("EPSG:3832", from_origin(3_300_000, -2_000_000, 1000, 1000)),
    "equal area": ("EPSG:3035", from_origin(4_000_000, 3_000_000, 10, 10)),
    "another ellipsoid": ("EPSG:27700", from_origin(400_000, 300_000, 1, 1)),
}


def ground_at(crs: str, transform: Affine, height: int = 400, width: int = 300) -> Ground:
    found = find_ground(CRS.from_user_input(crs), transform, height, width)
    assert found is not None
    return found


def to_degrees(crs: str, transform: Affine, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude on the ellipsoid of the CRS itself, from pyproj alone."""
    full = pyproj.CRS.from_user_input(crs)
    base = full.geodetic_crs
    assert base is not None
    x, y = transform * (columns, rows)
    longitude, latitude = pyproj.Transformer.from_crs(full.to_2d(), base.to_2d(), always_xy=True).transform(x, y)
    degrees = math.degrees(base.axis_info[0].unit_conversion_factor)
    return np.asarray(longitude) * degrees, np.asarray(latitude) * degrees


def geodesic_area(crs: str, transform: Affine, window: tuple[int, int, int, int]) -> float:
    """Area of a window as a geodesic polygon with 500 vertices on each side."""
    top, bottom, left, right = window
    along, ones = np.linspace(0, 1, 500), np.ones(500)
    columns = np.concatenate([left + along * (right - left), right * ones, right - along * (right - left), left * ones])
    rows = np.concatenate([top * ones, top + along * (bottom - top), bottom * ones, bottom - along * (bottom - top)])
    geod = pyproj.CRS.from_user_input(crs).get_geod()
    assert geod is not None
    return abs(geod.polygon_area_perimeter(*to_degrees(crs, transform, columns, rows))[0])


def summed(ground: Ground, window: tuple[int, int, int, int]) -> float:
    top, bottom, left, right = window
    areas = np.full((bottom - top, right - left), np.nan)
    for rows, columns, pixel_m2 in ground.window_areas_m2(*window):
        assert np.isnan(areas[rows, columns]).all()
        areas[rows, columns] = pixel_m2
    assert not np.isnan(areas).any()
    return float(areas.sum())


@pytest.mark.parametrize(("crs", "transform"), PLACES.values(), ids=PLACES)
def test_sizes_of_pixels_are_those_of_geodesics(crs: str, transform: Affine) -> None:
    ground = ground_at(crs, transform)
    geod = pyproj.CRS.from_user_input(crs).get_geod()
    assert geod is not None
    rng = np.random.default_rng(0)
    for column, row in [(150.0, 200.0), *rng.uniform((0, 0), (300, 400), (5, 2))]:
        for size, step in zip(ground.pixel_metres(column, row), ((0, 1), (1, 0)), strict=True):
            far = 50 if size < 10 else 0.5  # distances of decimetres are below what a projection is inverted to
            longitudes, latitudes = to_degrees(
                crs, transform, column + np.array([-far, far]) * step[0], row + np.array([-far, far]) * step[1]
            )
            length = geod.inv(longitudes[0], latitudes[0], longitudes[1], latitudes[1])[2] / (2 * far)
            assert size == pytest.approx(length, rel=1e-5)


@pytest.mark.parametrize(("crs", "transform"), PLACES.values(), ids=PLACES)
def test_areas_of_windows_are_those_of_geodesic_polygons(crs: str, transform: Affine) -> None:
    ground = ground_at(crs, transform)
    rng = np.random.default_rng(1)
    windows = [(0, 400, 0, 300), *((top, top + 90, left, left + 70) for top, left in rng.integers(0, 200, (6, 2)))]
    for window in windows:
        assert summed(ground, window) == pytest.approx(geodesic_area(crs, transform, window), rel=1e-4)


def test_values_worked_out_by_hand() -> None:
    """WGS 84 at 60 degrees: N = 1.002520 a and M = 1.000834 a, and a metre of web Mercator is half of M/a and N/a."""
    ground = ground_at("EPSG:3857", from_origin(0, MERCATOR_60 + 200, 1, 1))
    height, width = ground.pixel_metres(150, 200)
    assert (height, width) == (pytest.approx(0.500417, abs=1e-6), pytest.approx(0.501260, abs=1e-6))
    assert summed(ground, (0, 400, 0, 300)) / 10_000 == pytest.approx(3.0101, abs=1e-4)
    feet = ground_at("EPSG:2263", from_origin(984_250, 200_000, 1, 1))
    assert feet.pixel_metres(0, 0) == (pytest.approx(FOOT, rel=1e-4), pytest.approx(FOOT, rel=1e-4))
    degrees = ground_at("EPSG:4326", from_origin(0, 0.5, 1, 1), 1, 1)
    assert degrees.pixel_metres(0.5, 0.5) == (pytest.approx(110_574.3, abs=0.1), pytest.approx(111_319.5, abs=0.1))


@pytest.mark.parametrize("per_degree", [1, 3])
def test_all_pixels_together_are_the_whole_earth(per_degree: int) -> None:
    height, width = 180 * per_degree, 360 * per_degree
    ground = ground_at("EPSG:4326", from_origin(-180, 90, 1 / per_degree, 1 / per_degree), height, width)
    assert summed(ground, (0, height, 0, width)) == pytest.approx(5.10065621724e14, rel=2e-5)
    for window in ((0, 5, 0, width), (height // 2, height // 2 + 7, 3, 9), (height - 1, height, 0, 1)):
        assert summed(ground, window) == pytest.approx(window_on_sphere_of_equal_area(window, per_degree), rel=1e-4), (
            window
        )


def window_on_sphere_of_equal_area(window: tuple[int, int, int, int], per_degree: int) -> float:
    """Areas between parallels, from the cylindrical equal-area projection."""
    top, bottom, left, right = window
    to_plane = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:6933", always_xy=True)
    (west, east), (north, south) = to_plane.transform(
        [left / per_degree - 180, right / per_degree - 180], [90 - top / per_degree, 90 - bottom / per_degree]
    )
    return (east - west) * (north - south)


def test_the_polar_window_that_holds_the_pole_has_no_hole() -> None:
    transform = from_origin(-200_000, 200_000, 1000, 1000)
    ground = ground_at("EPSG:3413", transform, 400, 400)
    to_plane = pyproj.Transformer.from_crs("EPSG:3413", "+proj=laea +lat_0=90 +ellps=WGS84", always_xy=True)
    around = np.linspace(-200_000, 200_000, 1000)
    x = np.concatenate([around, np.full(1000, 2e5), around[::-1], np.full(1000, -2e5)])
    y = np.concatenate([np.full(1000, -2e5), around, np.full(1000, 2e5), around[::-1]])
    x, y = to_plane.transform(x, y)
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert summed(ground, (0, 400, 0, 400)) == pytest.approx(area, rel=1e-4)
    assert ground.poles() == [(pytest.approx(200), pytest.approx(200))]
    assert ground_at("EPSG:3413", from_origin(1e6, 1e6, 1000, 1000)).poles() == []


def test_a_disk_of_the_earth_seen_from_space_ends_at_its_edge() -> None:
    """The corners show no ground: they have no area, and all the rest is 42 % of the Earth and less than a half."""
    crs = "+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84"
    ground = ground_at(crs, from_origin(-5_500_000, 5_500_000, 50_000, 50_000), 220, 220)
    assert 0.40 < summed(ground, (0, 220, 0, 220)) / 5.10065621724e14 < 0.44
    assert summed(ground, (0, 4, 0, 4)) == 0


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (None, from_origin(300_000, 2_800_000, 0.5, 0.5)),
        (CRS(), from_origin(300_000, 2_800_000, 0.5, 0.5)),
        (CRS.from_epsg(32640), Affine.identity()),
        (CRS.from_epsg(4978), from_origin(0, 0, 1, 1)),  # geocentric
    ],
    ids=["no CRS", "an empty CRS", "no transform", "geocentric"],
)
def test_without_a_place_there_is_no_ground(crs: CRS | None, transform: Affine) -> None:
    assert find_ground(crs, transform, 10, 10) is None


def test_a_local_system_is_a_plane() -> None:
    local = CRS.from_wkt('LOCAL_CS["site",UNIT["US survey foot",0.304800609601219]]')
    ground = find_ground(local, from_origin(0, 0, 2, 3), 10, 10)
    assert ground is not None
    assert ground.pixel_metres(5, 5) == (pytest.approx(3 * FOOT), pytest.approx(2 * FOOT))
    assert ground.even_pixel_m2 == pytest.approx(6 * FOOT**2)


def test_longitudes_follow_the_shift_that_a_raster_gives() -> None:
    plain = "+proj=tmerc +lon_0=12 +x_0=4500000 +ellps=bessel +units=m"
    shifted = f"{plain} +towgs84=598.1,73.7,418.2,0.202,0.045,-2.455,6.7 +type=crs"
    transform = from_origin(4_468_000, 5_333_000, 1, 1)
    ground = find_ground(CRS.from_wkt(pyproj.CRS(shifted).to_wkt()), transform, 100, 100)
    assert ground is not None and ground.even_pixel_m2 == pytest.approx(1, rel=1e-3)
    found = np.array(ground.lonlat(np.array([50.0]), np.array([50.0])))
    right = pyproj.Transformer.from_crs(shifted, "EPSG:4326", always_xy=True).transform(4_468_050, 5_332_950)
    wrong = pyproj.Transformer.from_crs(f"{plain} +type=crs", "EPSG:4326", always_xy=True)
    assert found[:, 0] == pytest.approx(right, abs=1e-10)
    assert np.abs(np.array(wrong.transform(4_468_050, 5_332_950)) - right).min() > 5e-4  # 50 m


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(2.0006, 2.0), (0.9996, 1.0), (1.0, 1.0), (0.50002, 0.5), (3.1, 3.1), (0.7, 0.7), (1.002, 1.002), (1.5, 1.5)],
)
def test_factors_near_whole_numbers_are_whole(factor: float, expected: float) -> None:
    assert snap_factor(factor) == expected


def test_control_points_and_rpcs_follow_the_size_of_pixels() -> None:
    """2 rows and 4 columns become one pixel. Line 0 of RPCs is the centre of the first pixel."""
    ones = [1.0] + [0.0] * 19
    rpcs = RPC(0.0, 1.0, 50.0, 1.0, ones, ones, 99.5, 100.0, 10.0, 1.0, ones, ones, 49.5, 50.0, None, None)
    made = Control((GroundControlPoint(20, 80, 1.0, 2.0, 3.0, "id"),), CRS.from_epsg(4326), rpcs).resampled(2, 4)
    assert (made.gcps[0].row, made.gcps[0].col, made.gcps[0].x, made.gcps[0].z) == (10, 20, 1.0, 3.0)
    assert made.rpcs is not None
    assert (made.rpcs.line_off, made.rpcs.line_scale) == (49.5, 50)
    assert (made.rpcs.samp_off, made.rpcs.samp_scale) == (12.0, 12.5)
    assert rpcs.line_off == 99.5
    assert not Control() and made
    assert str(made) == "1 ground control points and RPCs"
