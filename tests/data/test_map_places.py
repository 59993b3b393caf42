"""Features of any CRS, shape and spelling: pixels are those of an independent rasterization, or the map is refused."""

import json
import re
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine

from skystill.classes import read_classes
from skystill.data import find_pairs
from skystill.data.map_check import check_map
from skystill.data.map_labels import open_map
from skystill.data.maps import find_labels
from skystill.errors import DataError
from tests.maps import LEFT, TOP, UTM, box, write_classes, write_layer, write_raster

SIDE = 200
RINGS = [
    ((20.31, 20.17), (150.73, 30.91), (120.37, 160.53), (40.77, 120.19)),
    ((110.1, 120.3), (190.7, 110.2), (180.9, 190.1)),
]
LAEA_FEET = (
    'PROJCS["own",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433]],PROJECTION["Lambert_Azimuthal_Equal_Area"],PARAMETER["latitude_of_center",45],'
    'PARAMETER["longitude_of_center",15],PARAMETER["false_easting",0],PARAMETER["false_northing",0],'
    'UNIT["US survey foot",0.304800609601219]]'
)
# With its own shift to WGS 84, 100 m to the north and 100 m to the east; "UNSHIFTED" is the same without it.
SHIFTED = "+proj=tmerc +lon_0=12 +x_0=4500000 +ellps=bessel +towgs84=598.1,73.7,418.2,0.202,0.045,-2.455,6.7 +units=m"
UNSHIFTED = "+proj=tmerc +lon_0=12 +x_0=4500000 +ellps=bessel +units=m"
TO = Affine(1, 0, LEFT, 0, -1, TOP)
DEGREES = Affine(1e-5, 0, 15.0, 0, -1e-5, 45.15)


def moved(shape: Any, source: str, target: str) -> Any:
    to = pyproj.Transformer.from_crs(source, target, always_xy=True)
    return shapely.transform(shape, lambda points: np.stack(to.transform(*points.T), axis=1))


def shapes_of(to: Affine) -> list[Any]:
    return [shapely.Polygon([to * place for place in ring]) for ring in RINGS]


def burnt(root: Path) -> np.ndarray:
    classes = read_classes(root / "classes.yaml")
    whole = open_map(root / "ortho.tif", find_labels(root)[0])
    whole.layers.check_classes(classes)
    return whole.burn((0, whole.height, 0, whole.width), classes).labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A map of 200 x 200 pixels of a metre, without labels."""
    write_raster(tmp_path / "ortho.tif", SIDE, SIDE)
    write_classes(tmp_path, {"Land": "rest", "A": "{}"})
    return tmp_path


EXPECTED = rasterize(shapes_of(TO), (SIDE, SIDE), transform=TO)


@pytest.mark.parametrize(
    ("crs", "to", "of_features"),
    [
        ("EPSG:4326", DEGREES, UTM),
        (UTM, TO, "EPSG:4326"),
        (UTM, TO, LAEA_FEET),
        (UTM, TO, "EPSG:4979"),
        ("EPSG:32633+5773", TO, "EPSG:4326"),
        (LAEA_FEET, Affine(2, 0, 0, 0, -2, 50_000), "EPSG:4326"),
        ("EPSG:2263", Affine(1, 0, 1e6, 0, -1, 2e5), "EPSG:4326"),
        ("EPSG:3031", Affine(1, 0, -150, 0, -1, 150), "EPSG:4326"),
        ("EPSG:4807", Affine(1e-5, 0, 1, 0, -1e-5, 50), "EPSG:4326"),
        ("EPSG:31468", Affine(1, 0, 4_500_000, 0, -1, 5_400_000), "EPSG:4326"),
        ("EPSG:5513", Affine(1, 0, 600_000, 0, -1, 1_000_000), "EPSG:4326"),
        (UTM, Affine(1, 0, LEFT, 0, 1, TOP - SIDE), "EPSG:3857"),
        (UTM, Affine(0.8, 0.6, LEFT, 0.6, -0.8, TOP), "EPSG:4326"),
        ("EPSG:32601", Affine(10, 0, 165_000, 0, -10, 1_000_000), "EPSG:4326"),
        (pyproj.CRS(SHIFTED).to_wkt(), Affine(1, 0, 4_468_000, 0, -1, 5_333_000), "EPSG:4326"),
        (UTM, TO, pyproj.CRS(SHIFTED).to_wkt("WKT1_GDAL")),
        (pyproj.CRS(SHIFTED).to_wkt(), Affine(1, 0, 4_468_000, 0, -1, 5_333_000), UNSHIFTED),
    ],
    ids=["degrees", "UTM", "own WKT of features", "with heights", "compound", "own WKT in feet", "feet", "pole",
         "grads", "northing first", "southing", "south up", "turned", "antimeridian in UTM",
         "own shift", "own shift of features", "own shift of one"],
)  # fmt: skip
def test_any_crs(tmp_path: Path, crs: str, to: Affine, of_features: str) -> None:
    write_raster(tmp_path / "ortho.tif", SIDE, SIDE, crs=crs, transform=to)
    shapes = shapes_of(to)
    with rasterio.open(tmp_path / "ortho.tif") as file:
        written = [moved(shape, file.crs.to_wkt(), of_features) for shape in shapes]
    write_layer(tmp_path / "labels.gpkg", written, "a", of_features)
    write_classes(tmp_path, {"Land": "rest", "A": "{}"})
    expected = rasterize(shapes, (SIDE, SIDE), transform=to)
    assert (burnt(tmp_path) != expected).sum() <= 2 and 0.1 < expected.mean() < 0.6


@pytest.mark.parametrize(
    ("crs", "side", "west", "turns"),
    [
        ("EPSG:4326", 1e-5, 180 - 100e-5, (0, -360)),
        ("EPSG:4326", 1e-5, -180 - 100e-5, (360, 0)),
        ("EPSG:4326", 1e-5, 190, (-360, -360)),
        ("EPSG:4326", 1e-5, 179, (0, 0)),
        ("EPSG:3857", 10, 20_037_508.342789244 - 1000, (0, -360)),
    ],
    ids=["beyond 180", "below -180", "at 190", "at 179", "Web Mercator"],
)
def test_rasters_beyond_the_antimeridian(
    tmp_path: Path, crs: str, side: float, west: float, turns: tuple[float, float]
) -> None:
    to = Affine(side, 0, west, 0, -side, 10)
    write_raster(tmp_path / "ortho.tif", SIDE, SIDE, crs=crs, transform=to)
    shapes = [box(to, 20.3, 80.2, 10.1, 60.7), box(to, 20.3, 80.2, 120.3, 190.2)]
    metre = 360 / 40_075_016.68557849 if crs == "EPSG:3857" else 1.0
    written = [
        shapely.transform(shape, lambda p, turn=turn: p * metre + [turn, 0])
        for shape, turn in zip(shapes, turns, strict=True)
    ]
    if crs == "EPSG:3857":  # so near to the equator, latitudes are as even as longitudes
        assert moved(shapes[0], crs, "EPSG:4326").equals_exact(written[0], 1e-9)
    write_layer(tmp_path / "labels.gpkg", written, "a", "EPSG:4326")
    write_classes(tmp_path, {"Land": "rest", "A": "{}"})
    assert np.array_equal(burnt(tmp_path), rasterize(shapes, (SIDE, SIDE), transform=to))
    notes = check_map(find_pairs(tmp_path), read_classes(tmp_path / "classes.yaml")).notes
    assert not any("outside of the raster" in note for note in notes)


def circle(root: Path) -> np.ndarray:
    """A circle of arcs, around the middle with a radius of 60 pixels."""
    places = [(40, 100), (100, 40), (160, 100), (100, 160), (40, 100)]
    points = b"".join(struct.pack("<dd", *(TO * place)) for place in places)
    ring = struct.pack("<BII", 1, 8, len(places)) + points  # 8: CIRCULARSTRING, 10: CURVEPOLYGON
    curve = struct.pack("<BII", 1, 10, 1) + ring
    pyogrio.raw.write(root / "labels.gpkg", np.array([curve], object), [], [], layer="a", crs=UTM,
                      geometry_type="Unknown", driver="GPKG")  # fmt: skip
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    return ((rows - 100) ** 2 + (columns - 100) ** 2 < 60**2).astype(np.uint8)


def heights(root: Path) -> np.ndarray:
    shapes = np.array([shapely.force_3d(shape, 7) for shape in shapes_of(TO)], object)
    pyogrio.raw.write(root / "labels.gpkg", shapely.to_wkb(shapes), [], [], layer="a", crs=UTM,
                      geometry_type="Polygon Z", driver="GPKG")  # fmt: skip
    return EXPECTED


def collection(root: Path) -> np.ndarray:
    one, other = shapes_of(TO)
    write_layer(root / "labels.gpkg", [shapely.GeometryCollection([one, shapely.MultiPolygon([other])])], "a")
    return EXPECTED


def overlapping_parts(root: Path) -> np.ndarray:
    parts = [box(TO, 10, 100, 10, 100), box(TO, 50, 150, 50, 150)]
    write_layer(root / "labels.gpkg", [shapely.MultiPolygon(parts)], "a")
    return rasterize(parts, (SIDE, SIDE), transform=TO)


def hole_across_its_ring(root: Path) -> np.ndarray:
    shape = shapely.Polygon(box(TO, 10, 120, 10, 120).exterior, [box(TO, 90, 180, 90, 180).exterior])
    write_layer(root / "labels.gpkg", [shape], "a")
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[10:120, 10:120] = 1
    expected[90:120, 90:120] = 0
    expected[90:180, 120:180] = expected[120:180, 90:180] = 1  # what only one of two rings holds
    return expected


def far_larger(root: Path) -> np.ndarray:
    write_layer(root / "labels.gpkg", [box(TO, -1e6, 70, -1e6, 1e6)], "a")
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[:70] = 1
    return expected


def far_away_too(root: Path) -> np.ndarray:
    write_layer(
        root / "labels.gpkg", [*shapes_of(TO), shapely.box(1e30, 1e30, 2e30, 2e30), None, shapely.Polygon()], "a"
    )
    return EXPECTED


def area_with_a_hole(root: Path) -> np.ndarray:
    return with_area(root, "area.gpkg")


def area_in_capitals(root: Path) -> np.ndarray:
    return with_area(root, "Area.gpkg")


def layer_in_capitals(root: Path) -> np.ndarray:
    write_classes(root, {"Land": "rest", "A": "{layer: a}"})
    return with_area(root, "labels.gpkg", "AREA")


def with_area(root: Path, name: str, layer: str | None = None) -> np.ndarray:
    write_layer(root / "labels.gpkg", shapes_of(TO), "a")
    area = shapely.Polygon(box(TO, 5.2, 180.2, 5.2, 190.2).exterior, [box(TO, 50.2, 90.2, 50.2, 90.2).exterior])
    write_layer(root / name, [area], layer)
    return np.where(rasterize([area], (SIDE, SIDE), transform=TO) > 0, EXPECTED, 255)


def labels_in_capitals(root: Path) -> np.ndarray:
    write_layer(root / "labels.gpkg", shapes_of(TO), "a")
    (root / "labels.gpkg").rename(root / "Labels.GPKG")
    return EXPECTED


def geojson(root: Path, crs: str | None, to: str) -> np.ndarray:
    features = [{"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(moved(shape, UTM, to))}
                for shape in shapes_of(TO)]  # fmt: skip
    named = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    (root / "labels.geojson").write_text(json.dumps({"type": "FeatureCollection", **named, "features": features}))
    return EXPECTED


def geojson_plain(root: Path) -> np.ndarray:
    return geojson(root, None, "EPSG:4326")


def geojson_of_a_latitude_first_name(root: Path) -> np.ndarray:
    return geojson(root, "urn:ogc:def:crs:EPSG::4326", "EPSG:4326")  # longitude is first all the same


def geojson_in_metres(root: Path) -> np.ndarray:
    return geojson(root, "EPSG:32633", UTM)


@pytest.mark.parametrize(
    ("make", "off"),
    [(circle, 20), (heights, 0), (collection, 0), (overlapping_parts, 0), (hole_across_its_ring, 0), (far_larger, 0),
     (far_away_too, 0), (area_with_a_hole, 0), (area_in_capitals, 0), (layer_in_capitals, 0), (labels_in_capitals, 0),
     (geojson_plain, 2), (geojson_of_a_latitude_first_name, 2), (geojson_in_metres, 0)],
)  # fmt: skip
def test_shapes_and_spellings(root: Path, make: Callable[[Path], np.ndarray], off: int) -> None:
    expected = make(root)
    assert (burnt(root) != expected).sum() <= off  # arcs become 90 lines


def point_among_polygons(root: Path) -> None:
    write_layer(root / "labels.gpkg", [*shapes_of(TO), shapely.Point(TO * (5, 5))], "a")


def line_in_a_collection(root: Path) -> None:
    line = shapely.LineString([TO * (0, 0), TO * (50, 50)])
    write_layer(root / "labels.gpkg", [shapely.GeometryCollection([shapes_of(TO)[0], line])], "a")


def metres_taken_for_degrees(root: Path) -> None:
    geojson(root, None, UTM)


def latitude_first(root: Path) -> None:
    shapes = [shapely.transform(moved(shape, UTM, "EPSG:4326"), lambda p: p[:, ::-1]) for shape in shapes_of(TO)]
    write_layer(root / "labels.geojson", shapes, crs="EPSG:4326")


def empty_layer(root: Path) -> None:
    pyogrio.raw.write(root / "labels.gpkg", np.array([], object), [], [], layer="a", crs=UTM, geometry_type="Polygon",
                      driver="GPKG")  # fmt: skip


def no_crs(root: Path, code: int = -1) -> None:
    write_layer(root / "labels.gpkg", shapes_of(TO), "a")
    with sqlite3.connect(root / "labels.gpkg") as file:
        for table in ("gpkg_contents", "gpkg_geometry_columns"):
            file.execute(f"update {table} set srs_id = {code}")
    file.close()


def no_crs_in_degrees(root: Path) -> None:
    no_crs(root, 0)


def two_files(root: Path) -> None:
    write_layer(root / "labels.gpkg", shapes_of(TO), "a")
    write_layer(root / "LABELS.geojson", shapes_of(TO))


REFUSED = [
    (point_among_polygons, r"1 features of class A are lines or points, or hold some.*feature 3 is a Point"),
    (line_in_a_collection, r"1 features of class A are lines or points, or hold some.*1 is a GeometryCollection"),
    (metres_taken_for_degrees, "has no place in the CRS of ortho.tif"),
    (latitude_first, r"no feature lies in the raster. In its CRS, ortho.tif covers x 500000 to 500200"),
    (no_crs, r"layer a has no CRS.*\n.*a_srs"),
    (no_crs_in_degrees, "layer a has no CRS"),
    (empty_layer, "no feature lies in the raster"),
    (two_files, r"holds LABELS\.geojson and labels\.gpkg"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[make.__name__ for make, _ in REFUSED])
def test_what_cannot_be_right_is_refused(root: Path, make: Callable[[Path], None], message: str) -> None:
    make(root)
    with pytest.raises(DataError, match=message):
        check_map(find_pairs(root), read_classes(root / "classes.yaml")).raise_problems(root)


@pytest.mark.parametrize(
    ("of_features", "said"),
    [
        (UNSHIFTED, "problem: PROJ knows no way from the datum of its CRS to that of ortho.tif"),
        ("+proj=utm +zone=33 +ellps=GRS80", ""),  # a datum without a name, on the ellipsoid of the raster
        ("+proj=sinu +R=6371007.181", ""),  # degrees of a sphere are those of the ellipsoid by convention
        ("EPSG:4807", "note: features come to the CRS of ortho.tif to within 2 m, or 2 pixels (.*NTF to WGS 84"),
        ("EPSG:25833", ""),  # ETRS89: to within a metre
    ],
)
def test_guesses_between_datums_are_refused(root: Path, of_features: str, said: str) -> None:
    places = (Affine(1, 0, 448_000, 0, -1, 5_411_000), "EPSG:32631") if of_features == "EPSG:4807" else (TO, UTM)
    write_raster(root / "ortho.tif", SIDE, SIDE, transform=places[0], crs=places[1])
    shapes = [moved(shape, places[1], of_features) for shape in shapes_of(places[0])]
    write_layer(root / "labels.gpkg", shapes, "a", of_features)
    found = check_map(find_pairs(root), read_classes(root / "classes.yaml"))
    lines = [f"problem: {line}" for line in found.problems] + [f"note: {line}" for line in found.notes]
    told = [line.replace(f"{root / 'labels.gpkg'} (layer a): ", "") for line in lines if "CRS of" in line]
    assert len(told) == bool(said) and all(re.match(said.replace("(", r"\("), line) for line in told), lines


@pytest.mark.parametrize(
    ("of_raster", "left", "top", "of_features", "is_guess"),
    [
        ("EPSG:31256", -60_000, 5_340_000, "EPSG:31468", True),  # MGI and DHDN: both on Bessel, 75 m apart
        ("EPSG:31467", 3_500_000, 5_400_000, "EPSG:4289", True),  # DHDN and Amersfoort, 46 m
        ("EPSG:28992", 155_000, 463_000, "+proj=longlat +ellps=bessel", True),  # Amersfoort, and a datum without a name
        ("EPSG:23032", 500_000, 5_400_000, "+proj=longlat +ellps=intl", True),
        ("EPSG:31467", 3_500_000, 5_400_000, "EPSG:4314", False),  # DHDN in metres and in degrees
        ("EPSG:31467", 3_500_000, 5_400_000, "EPSG:31468", False),  # another zone
        ("EPSG:31256", -60_000, 5_340_000, "EPSG:4312", False),
        ("EPSG:25832", 500_000, 5_400_000, "EPSG:3857", False),
        ("EPSG:25832", 500_000, 5_400_000, "EPSG:4283", False),  # ETRS89 and GDA94, both on GRS 80
    ],
)
def test_datums_on_one_ellipsoid_are_different_datums(
    root: Path, of_raster: str, left: float, top: float, of_features: str, is_guess: bool
) -> None:
    place = Affine(1, 0, left, 0, -1, top)
    write_raster(root / "ortho.tif", SIDE, SIDE, transform=place, crs=of_raster)
    write_layer(
        root / "labels.gpkg", [moved(one, of_raster, of_features) for one in shapes_of(place)], "a", of_features
    )
    found = check_map(find_pairs(root), read_classes(root / "classes.yaml"))
    assert any("PROJ knows no way" in problem for problem in found.problems) == is_guess, found.problems
