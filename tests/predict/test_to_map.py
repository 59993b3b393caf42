"""Polygons and areas on the map: right hand, antimeridian, poles, and the same area as the pixels have."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine, from_origin

from skystill.classes import DUBAI
from skystill.errors import DataError
from skystill.predict.polygons import write_polygons
from skystill.predict.summary import write_areas
from tests.class_rasters import write_classes

shapely = pytest.importorskip("shapely")
pyogrio = pytest.importorskip("pyogrio")
pyproj = pytest.importorskip("pyproj")

MERCATOR_60 = 8_399_737.89
"""y of 60 degrees north in web Mercator."""
WORLD = 20_037_508.342789244
TURNED = Affine.translation(500_000, 5_000_000) @ Affine.rotation(33) @ Affine.scale(0.3, -0.3)


def pattern(height: int, width: int) -> np.ndarray:
    """Blocks of four labels with holes and void."""
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 4, (-(-height // 9), -(-width // 7))).astype(np.uint8)
    labels = np.repeat(np.repeat(coarse, 9, axis=0), 7, axis=1)[:height, :width].copy()
    labels[height // 3 : height // 3 + 5] = 255
    return labels


def annulus(height: int, width: int) -> np.ndarray:
    """A ring of label 1 around a disk of label 0, a hole that is void in both, and label 2 around them."""
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - height / 2 + 0.5, columns - width / 2 + 0.5)
    labels = np.where(distance < height / 8, 0, np.where(distance < height / 3, 1, 2)).astype(np.uint8)
    labels[height // 4 - 4 : height // 4 + 4, width // 2 - 3 : width // 2 + 4] = 255
    labels[height // 2 + 1 : height // 2 + 3, width // 2 + 1 : width // 2 + 3] = 255
    return labels


def whole(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width), np.uint8)


def corner(height: int, width: int) -> np.ndarray:
    """Three quarters of the raster: if the pole is in the middle, it is a corner of the polygon."""
    labels = np.zeros((height, width), np.uint8)
    labels[: height // 2, : width // 2] = 1
    return labels


def half(height: int, width: int) -> np.ndarray:
    labels = np.zeros((height, width), np.uint8)
    labels[:, : width // 2] = 1
    return labels


PLACES: dict[str, tuple[Any, str, Affine]] = {
    "UTM": (pattern, "EPSG:32640", from_origin(300_000, 2_800_000, 0.5, 0.5)),
    "UTM, turned": (pattern, "EPSG:32633", TURNED),
    "UTM, upside down": (pattern, "EPSG:32633", from_origin(500_000, 5_000_000, 0.5, -0.5)),
    "web Mercator": (pattern, "EPSG:3857", from_origin(0, MERCATOR_60, 1, 1)),
    "US survey feet": (pattern, "EPSG:2263", from_origin(980_000, 200_000, 0.5, 0.5)),
    "degrees": (pattern, "EPSG:4326", from_origin(10, 60, 1e-5, 2e-5)),
    "degrees, large": (pattern, "EPSG:4326", from_origin(10, 80, 0.1, 0.05)),
    "an older datum": (pattern, "EPSG:4267", from_origin(-100, 40, 0.001, 0.001)),
    "degrees beyond 180": (pattern, "EPSG:4326", from_origin(179.95, -17, 0.001, 0.001)),
    "degrees beyond -180": (annulus, "EPSG:4326", from_origin(-180.05, -17, 0.001, 0.001)),
    "degrees, 0 to 360": (pattern, "EPSG:4326", from_origin(0, 80, 3.6, 1.5)),
    "the whole Earth in degrees": (whole, "EPSG:4326", from_origin(-180, 90, 3.6, 1.8)),
    "the whole Earth in Mercator": (whole, "EPSG:3857", from_origin(-WORLD, WORLD, WORLD / 50, WORLD / 50)),
    "UTM at the antimeridian": (pattern, "EPSG:32601", from_origin(150_000, 8_000_000, 1000, 1000)),
    "UTM at the antimeridian, rings": (annulus, "EPSG:32601", from_origin(130_000, 8_000_000, 1000, 1000)),
    "Mercator at the antimeridian": (annulus, "EPSG:3832", from_origin(3_300_000, -2_000_000, 1000, 1000)),
    "the north pole in a pixel": (annulus, "EPSG:3413", from_origin(-50_500, 49_500, 1000, 1000)),
    "the north pole on a corner": (annulus, "EPSG:3413", from_origin(-50_000, 50_000, 1000, 1000)),
    "the north pole, pattern": (pattern, "EPSG:3413", from_origin(-50_000, 50_000, 1000, 1000)),
    "the south pole": (annulus, "EPSG:3031", from_origin(-500_000, 500_000, 10_000, 10_000)),
    "the south pole, whole": (whole, "EPSG:3031", from_origin(-500_000, 500_000, 10_000, 10_000)),
    "the pole is a corner of polygons": (corner, "EPSG:3995", from_origin(-50_000, 50_000, 1000, 1000)),
    "the pole is on an edge of polygons": (half, "EPSG:3995", from_origin(-50_000, 50_000, 1000, 1000)),
    "beside the pole": (pattern, "EPSG:3413", from_origin(2_000, 50_000, 1000, 1000)),
    "a long edge near the pole": (half, "EPSG:3413", from_origin(-2_000_000, -300_000, 30_000, 10_000)),
}


@pytest.fixture(params=PLACES.values(), ids=PLACES)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    labels, crs, transform = request.param
    raster = write_classes(tmp_path / "classes.tif", labels(100, 100), crs, transform)
    write_polygons(raster, tmp_path / "out.geojson", DUBAI)
    return raster, json.loads((tmp_path / "out.geojson").read_text())["features"]


def test_polygons_are_as_rfc_7946_asks(written: tuple[Path, list[dict[str, Any]]]) -> None:
    for feature in written[1]:
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid and shape.geom_type in ("Polygon", "MultiPolygon")
        west, south, east, north = shape.bounds
        assert -180 <= west < east <= 180 and -90 <= south < north <= 90
        for part in shapely.get_parts(shape):
            assert part.exterior.is_ccw and not any(ring.is_ccw for ring in part.interiors)


def test_polygons_have_the_area_that_they_say_and_that_the_pixels_have(
    written: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """The area of longitude and latitude is computed in the cylindrical equal-area projection."""
    raster, features = written
    to_plane = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:6933", always_xy=True)
    by_class = dict.fromkeys(DUBAI.names, 0.0)
    for feature in features:
        shape = shapely.segmentize(shapely.geometry.shape(feature["geometry"]), 0.05)
        plane = shapely.transform(shape, lambda points: np.column_stack(to_plane.transform(points[:, 0], points[:, 1])))
        about = feature["properties"]
        assert shapely.area(plane) == pytest.approx(about["area_m2"], rel=2e-3)
        by_class[about["class"]] += about["area_m2"]
    write_areas(raster, tmp_path / "areas.csv", DUBAI)
    with (tmp_path / "areas.csv").open() as file:
        for row in csv.DictReader(file):
            if row["class"] in by_class:
                assert float(row["hectares"]) == pytest.approx(by_class[row["class"]] / 1e4, rel=5e-4, abs=1e-3)


def test_neighbours_neither_overlap_nor_leave_gaps(tmp_path: Path) -> None:
    """The long straight border of the polar raster is a curve on the map, where one side has more vertices."""
    labels = half(100, 100)
    labels[40:60, :50] = 2
    raster = write_classes(
        tmp_path / "classes.tif", labels, "EPSG:3413", from_origin(-2_000_000, -300_000, 30_000, 10_000)
    )
    write_polygons(raster, tmp_path / "out.geojson", DUBAI)
    features = json.loads((tmp_path / "out.geojson").read_text())["features"]
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    total = sum(shape.area for shape in shapes)
    assert shapely.union_all(shapes).area == pytest.approx(total, rel=2e-4)


def test_a_known_place_over_the_antimeridian_by_hand(tmp_path: Path) -> None:
    """Four pixels of one degree from 179 to 181 degrees east: two squares, one on each side."""
    raster = write_classes(tmp_path / "a.tif", whole(2, 2), "EPSG:4326", from_origin(179, 1, 1, 1))
    write_polygons(raster, tmp_path / "out.geojson", DUBAI)
    geometry = json.loads((tmp_path / "out.geojson").read_text())["features"][0]["geometry"]
    assert geometry["type"] == "MultiPolygon"
    shape = shapely.geometry.shape(geometry)
    assert sorted(part.bounds for part in shape.geoms) == [(-180, -1, -179, 1), (179, -1, 180, 1)]


def test_without_a_crs_there_are_no_hectares_and_no_longitudes(tmp_path: Path) -> None:
    raster = write_classes(tmp_path / "classes.tif", half(10, 20), None, from_origin(300_000, 2_800_000, 0.5, 0.5))
    write_areas(raster, tmp_path / "areas.csv", DUBAI)
    with (tmp_path / "areas.csv").open() as file:
        assert {row["hectares"] for row in csv.DictReader(file)} == {""}
    write_polygons(raster, tmp_path / "out.geojson", DUBAI)
    features = json.loads((tmp_path / "out.geojson").read_text())["features"]
    assert {feature["properties"]["area_m2"] for feature in features} == {None}
    bounds = sorted(shapely.geometry.shape(feature["geometry"]).bounds for feature in features)
    assert bounds == [(300_000, 2_799_995, 300_005, 2_800_000), (300_005, 2_799_995, 300_010, 2_800_000)]


def test_a_crs_without_longitudes_is_refused_and_kept_by_gpkg(tmp_path: Path) -> None:
    """The Moon has longitudes of its own, which are not those of the Earth. Its hectares are right all the same."""
    moon = "+proj=longlat +R=1737400 +no_defs"
    raster = write_classes(tmp_path / "classes.tif", whole(10, 10), moon, from_origin(0, 0.5, 0.1, 0.1))
    with rasterio.open(raster, "r+") as file:
        file.crs = rasterio.CRS.from_string("IAU_2015:30100")
    with pytest.raises(DataError, match=r"classes\.tif cannot be written in longitude and latitude.*--vector gpkg"):
        write_polygons(raster, tmp_path / "out.geojson", DUBAI)
    assert not (tmp_path / "out.geojson").exists()
    write_polygons(raster, tmp_path / "out.gpkg", DUBAI)
    areas = pyogrio.raw.read(tmp_path / "out.gpkg", layer="classes")[3][2]
    assert areas[0] == pytest.approx((1_737_400 * np.pi / 180) ** 2 * np.sin(np.pi / 360) / (np.pi / 360), rel=1e-4)


def test_a_local_crs_has_no_longitudes_but_areas(tmp_path: Path) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    raster = write_classes(tmp_path / "classes.tif", whole(10, 10), local, from_origin(500, 900, 2.0, 2.0))
    with pytest.raises(DataError, match=r"classes\.tif cannot be written in longitude and latitude.*CRS is local"):
        write_polygons(raster, tmp_path / "out.geojson", DUBAI)
    assert not (tmp_path / "out.geojson").exists()
    write_polygons(raster, tmp_path / "out.gpkg", DUBAI)
    assert pyogrio.raw.read(tmp_path / "out.gpkg", layer="classes")[3][2] == pytest.approx([400.0])
