"""Right angles for polygons of some classes: `--square`."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin

from skystill.classes import DUBAI, ClassMap
from skystill.errors import SettingsError
from skystill.predict import polygons as vector
from skystill.predict import square
from skystill.predict.polygons import Polygons, write_polygons
from skystill.predict.right_angles import main_direction, square_ring
from skystill.predict.square import find_square_labels
from skystill.progress import Event, Note
from skystill.settings import PredictSettings, build_settings
from tests.class_rasters import write_classes

pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")

BUILDING, LAND = 0, 1
UTM, METRES = "EPSG:32640", from_origin(500_000, 2_800_000, 1, 1)


def write(path: Path, labels: np.ndarray, transform: Affine = METRES, crs: str | None = UTM) -> Path:
    return write_classes(path, labels, crs, transform)


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polygons, labels and areas of a GeoPackage."""
    _, _, geometry, (_, labels, areas) = pyogrio.raw.read(path, layer="classes")
    return shapely.from_wkb(geometry), labels, areas


def squared(folder: Path, labels: np.ndarray, transform: Affine = METRES, crs: str | None = UTM) -> list[object]:
    """The polygons of buildings after --square, in the coordinates of the GeoPackage."""
    write_polygons(write(folder / "a.tif", labels, transform, crs), folder / "a.gpkg", DUBAI, square=(BUILDING,))
    found, numbers, _ = read(folder / "a.gpkg")
    return list(found[numbers == BUILDING])


def picture(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (60, 60), without: tuple = ()) -> np.ndarray:
    """Labels with a building in boxes of left, top, right, bottom, without other boxes; the rest is land."""
    labels = np.full(size, LAND, np.uint8)
    for value, some in ((BUILDING, boxes), (LAND, without)):
        for left, top, right, bottom in some:
            labels[top:bottom, left:right] = value
    return labels


def disc(radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:80, :80] - 40.0
    return np.where(rows**2 + columns**2 <= radius**2, BUILDING, LAND).astype(np.uint8)


L_SHAPE = ((10, 10, 20, 40), (10, 30, 40, 40))
COURT = (10, 10, 40, 40)
SHAPES = {
    "one pixel": (picture((10, 10, 11, 11)), [[(10, 10), (11, 10), (11, 11), (10, 11)]]),
    "a line of pixels": (picture((10, 10, 11, 50)), [[(10, 10), (11, 10), (11, 50), (10, 50)]]),
    "a square": (picture(COURT), [[(10, 10), (40, 10), (40, 40), (10, 40)]]),
    # The bump of 5 pixels moves the wall of 30 pixels by 5 / 30.
    "an L with a bump": (
        picture(*L_SHAPE, (20, 40, 25, 41)),
        [[(10, 10), (20, 10), (20, 30), (40, 30), (40, 40 + 1 / 6), (10, 40 + 1 / 6)]],
    ),
    # Stairs cut 3 pixels off the corner at (40, 30). The wall of 20 pixels that ends there moves by 3 / 20.
    "an L with stairs": (
        picture(*L_SHAPE, without=((38, 30, 40, 31), (39, 31, 40, 32))),
        [[(10, 10), (20, 10), (20, 30.15), (40, 30.15), (40, 40), (10, 40)]],
    ),
    # Edges of 4 pixels are long enough to stay.
    "a step of 4 pixels": (
        picture((10, 10, 30, 30), (14, 30, 34, 40)),
        [[(10, 10), (30, 10), (30, 30), (34, 30), (34, 40), (14, 40), (14, 30), (10, 30)]],
    ),
    "a chimney of 2 x 6 pixels": (picture(COURT, (20, 4, 22, 10)), [[(10, 10), (40, 10), (40, 40), (10, 40)]]),
    "a courtyard": (
        picture(COURT, without=((20, 20, 28, 30),)),
        [[(10, 10), (40, 10), (40, 40), (10, 40)], [(20, 20), (28, 20), (28, 30), (20, 30)]],
    ),
    "a courtyard of 2 pixels": (
        picture(COURT, without=((20, 20, 22, 30),)),
        [[(10, 10), (40, 10), (40, 40), (10, 40)]],
    ),
}


@pytest.mark.parametrize(("window", "pixel"), [(16, 1.0), (4096, 0.25), (4096, 8.0)])
@pytest.mark.parametrize(("labels", "rings"), SHAPES.values(), ids=SHAPES)
def test_shapes_worked_out_by_hand(
    labels: np.ndarray, rings: list, window: int, pixel: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector, "_WINDOW", window)
    expected = shapely.Polygon(rings[0], rings[1:])
    (found,) = squared(tmp_path, labels, from_origin(500_000, 2_800_000, pixel, pixel))
    in_pixels = shapely.transform(found, lambda points: (points - [500_000, 2_800_000]) / [pixel, -pixel])
    assert shapely.get_num_coordinates(found) == shapely.get_num_coordinates(expected)
    assert shapely.equals_exact(in_pixels.normalize(), expected.normalize(), 1e-6)


def test_parts_that_touch_stay_apart(tmp_path: Path) -> None:
    """At a corner, and across a wall of another class of one pixel."""
    labels = picture((5, 5, 20, 20), (20, 20, 40, 40), (41, 20, 55, 40))
    found = squared(tmp_path, labels)
    assert sorted(shapely.area(found)) == pytest.approx([225, 280, 400])
    assert shapely.union_all(found).area == pytest.approx(905)


@pytest.mark.parametrize("radius", [6, 10.3, 20, 35.5])
def test_circles_stay_as_they_are(tmp_path: Path, radius: float) -> None:
    """A circle has 0.83 in common with the square of its area, which is less than 0.85."""
    source = write(tmp_path / "a.tif", disc(radius))
    notes: list[Event] = []
    plain = write_polygons(source, tmp_path / "plain.gpkg", DUBAI)
    made = write_polygons(source, tmp_path / "out.gpkg", DUBAI, notes.append, square=(BUILDING,))
    assert (made.squared, made.kept) == (0, 1)
    assert made == Polygons(tmp_path / "out.gpkg", plain.count, 0, 0, 1)
    assert shapely.equals_exact(read(tmp_path / "plain.gpkg")[0], read(tmp_path / "out.gpkg")[0]).all()
    assert [event.text for event in notes if isinstance(event, Note)] == [
        "--square Building: 0 of 1 polygons have right angles; right angles would not fit the other 1, which stay as "
        "they are."
    ]


STEP = [(10, 10), (30, 10), (30, 30), (32, 30), (32, 40), (10, 40)]


@pytest.mark.parametrize(
    ("shortest", "expected"),
    [
        (2, STEP),
        # Walls of 20 and 10 pixels at x = 30 and x = 32 become one at 30 + 2 / 3.
        (2.1, [(10, 10), (30 + 2 / 3, 10), (30 + 2 / 3, 40), (10, 40)]),
        (50, [(10, 10), (30 + 2 / 3, 10), (30 + 2 / 3, 40), (10, 40)]),  # four walls stay in any case
    ],
)
@pytest.mark.parametrize("degrees", [0, 33, -120])
def test_edges_below_a_length_are_merged(shortest: float, expected: list, degrees: float) -> None:
    turn = math.radians(degrees)
    to = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    found = square_ring(STEP @ to, turn, shortest)
    assert found is not None
    polygons = (shapely.normalize(shapely.Polygon(ring)) for ring in (found @ to.T, expected))
    assert shapely.equals_exact(*polygons, 1e-9)


def test_the_longest_edges_give_the_direction() -> None:
    """4 edges along 20 degrees, and one that cuts off a corner. Edges of 80 degrees are those of -10."""
    turn = math.radians(20)
    to = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    ring = np.array([(0, 0), (40, 0), (40, 20), (15, 20), (0, 10)]) @ to
    assert math.degrees(main_direction(ring, 1)) == pytest.approx(20)
    assert math.degrees(main_direction(ring * [1, -1], 1)) % 90 == pytest.approx(70)


def test_a_ring_without_four_walls_is_not_squared() -> None:
    assert square_ring(np.array([(0, 0), (40, 1), (80, 0)]), 0, 3) is None


# ---- planes


def tilted(degrees: float, size: tuple[float, float], centre: tuple[float, float]) -> np.ndarray:
    """The corners (4, 2) of a rectangle that is turned about its centre."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size / 2
    turn = math.radians(degrees)
    return np.asarray(
        corners @ [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]] + np.array(centre)
    )


def angles_of(corners: np.ndarray) -> np.ndarray:
    """The angle in degrees at each vertex of a ring, without the first vertex again at the end."""
    ahead, behind = np.roll(corners, -1, axis=0) - corners, np.roll(corners, 1, axis=0) - corners
    cosines = (ahead * behind).sum(axis=1) / np.linalg.norm(ahead, axis=1) / np.linalg.norm(behind, axis=1)
    return np.degrees(np.arccos(cosines))


PLANES: dict[str, tuple[str | None, Affine, float]] = {
    # CRS, transform, and size of a pixel of the rectangle of 60 x 30 pixels
    "UTM": (UTM, from_origin(500_000, 2_800_000, 0.5, 0.5), 0.5),
    "pixels that are not square": (UTM, from_origin(500_000, 2_800_000, 0.5, 1.25), 1.25),
    "turned": (UTM, Affine.translation(500_000, 2_800_000) @ Affine.rotation(17) @ Affine.scale(0.5, -0.5), 0.5),
    "turned and not square": (
        UTM, Affine.translation(500_000, 2_800_000) @ Affine.rotation(-71) @ Affine.scale(0.3, -0.6), 0.6,
    ),
    "sheared": (UTM, Affine(0.5, 0.2, 500_000, 0, -0.5, 2_800_000), 0.5),
    "web Mercator": ("EPSG:3857", from_origin(1_000_000, 8_399_737, 0.5, 0.5), 0.5),
    "US survey feet": ("EPSG:2263", from_origin(980_000, 200_000, 1, 1), 1),
    "without a CRS": (None, from_origin(0, 0, 0.5, 0.5), 0.5),
    "a picture": (None, Affine.identity(), 1),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:'crs' was not provided", "ignore:.*Affine.identity")
@pytest.mark.parametrize("degrees", [0, 30, 45, 80.5])
@pytest.mark.parametrize(("crs", "transform", "pixel"), PLANES.values(), ids=PLANES)
def test_a_rectangle_is_found_on_the_plane_of_the_crs(
    crs: str | None, transform: Affine, pixel: float, degrees: float, tmp_path: Path
) -> None:
    truth = shapely.Polygon(tilted(degrees, (60 * pixel, 30 * pixel), transform * (150, 150)))
    labels = rasterize([(truth, BUILDING)], (300, 300), fill=LAND, transform=transform, dtype="uint8")
    (found,) = squared(tmp_path, labels, transform, crs)
    corners = shapely.get_coordinates(found)[:-1]
    assert len(corners) == 4
    assert angles_of(corners) == pytest.approx(np.full(4, 90), abs=1e-6)
    overlap = found.intersection(truth).area / found.union(truth).area  # type: ignore[attr-defined]
    assert overlap >= 0.93
    areas = read(tmp_path / "a.gpkg")
    area = areas[2][areas[1] == BUILDING][0]
    if crs == UTM:  # 0.9996 at the central meridian
        assert area == pytest.approx(found.area / 0.9996**2, rel=1e-4)  # type: ignore[attr-defined]
    assert math.isnan(area) == (crs is None)


@pytest.mark.parametrize("degrees", [0, 30, 45, 80.5])
@pytest.mark.parametrize("latitude", [0, 60, -75])
def test_in_degrees_angles_are_those_on_the_ground(latitude: float, degrees: float, tmp_path: Path) -> None:
    """At 60 degrees, a degree of longitude is half as long as one of latitude."""
    import pyproj

    geod = pyproj.Geod(ellps="WGS84")
    corners = tilted(degrees, (60.0, 30.0), (0, 0))
    bearings = np.degrees(np.arctan2(corners[:, 0], corners[:, 1]))
    longitudes, latitudes, _ = geod.fwd([10.0] * 4, [latitude] * 4, bearings, np.hypot(*corners.T))
    truth = shapely.Polygon(np.column_stack([longitudes, latitudes]))
    pixel = 8e-6, 5e-6  # 0.9 m and 0.55 m at the equator
    transform = from_origin(10 - 150 * pixel[0], latitude + 150 * pixel[1], *pixel)
    labels = rasterize([(truth, BUILDING)], (300, 300), fill=LAND, transform=transform, dtype="uint8")
    (found,) = squared(tmp_path, labels, transform, "EPSG:4326")
    assert found.intersection(truth).area / found.union(truth).area > 0.93  # type: ignore[attr-defined]
    lon, lat = shapely.get_coordinates(found)[:-1].T
    assert len(lon) == 4
    ahead, _, lengths = geod.inv(lon, lat, np.roll(lon, -1), np.roll(lat, -1))
    behind, _, _ = geod.inv(lon, lat, np.roll(lon, 1), np.roll(lat, 1))
    assert np.abs((ahead - behind + 180) % 360 - 180) == pytest.approx(np.full(4, 90), abs=0.01)
    if latitude == 60 and degrees == 45:
        assert np.abs(angles_of(shapely.get_coordinates(found)[:-1]) - 90).min() > 20
    areas = read(tmp_path / "a.gpkg")
    assert areas[2][areas[1] == BUILDING][0] == pytest.approx(lengths[0] * lengths[1], rel=1e-4)


def test_geojson_holds_the_same_polygon(tmp_path: Path) -> None:
    import pyproj

    truth = shapely.Polygon(tilted(30, (60, 30), (500_100, 2_799_900)))
    labels = rasterize([(truth, BUILDING)], (200, 200), fill=LAND, transform=METRES, dtype="uint8")
    (expected,) = squared(tmp_path, labels)
    write_polygons(tmp_path / "a.tif", tmp_path / "a.geojson", DUBAI, square=(BUILDING,))
    (feature,) = (
        feature
        for feature in json.loads((tmp_path / "a.geojson").read_text())["features"]
        if feature["properties"]["class"] == "Building"
    )
    polygon = shapely.geometry.shape(feature["geometry"])
    assert polygon.exterior.is_ccw
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", UTM, always_xy=True)
    back = shapely.transform(polygon, lambda points: np.column_stack(to_utm.transform(*points.T)))
    assert shapely.equals_exact(back.normalize(), expected.normalize(), 1e-5)  # type: ignore[attr-defined]
    assert feature["properties"]["area_m2"] == pytest.approx(expected.area / 0.9996**2, rel=1e-4)  # type: ignore[attr-defined]


# ---- the whole raster


def town() -> np.ndarray:
    """Houses of all sizes at all angles, some with a courtyard, on land with a pond."""
    rng = np.random.default_rng(3)
    labels = np.full((240, 260), LAND, np.uint8)
    labels[100:140, 100:150] = 4
    for row in range(30, 240, 60):
        for column in range(30, 260, 60):
            corners = tilted(rng.uniform(0, 90), tuple(rng.uniform(12, 40, 2)), (column, row))
            house = shapely.Polygon(corners)
            house = house.difference(house.buffer(-8)) if rng.uniform() < 0.3 else house
            if not house.is_empty:
                rasterize([(house, BUILDING)], out=labels)
    labels[rng.uniform(size=labels.shape) < 0.01] = 3
    labels[200:, 240:] = 255
    return labels


@pytest.mark.parametrize("tolerance", [None, 2.0])
def test_the_windows_do_not_show_and_other_classes_do_not_change(
    tmp_path: Path, tolerance: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "a.tif", town())
    found = {}
    for window in (50, 4096) if tolerance is None else (4096,):
        monkeypatch.setattr(vector, "_WINDOW", window)
        plain = write_polygons(source, tmp_path / "plain.gpkg", DUBAI, tolerance=tolerance)
        made = write_polygons(source, tmp_path / "out.gpkg", DUBAI, tolerance=tolerance, square=(BUILDING,))
        assert (made.count, made.split) == (plain.count, 0)
        (before, labels, _), (after, same, _) = read(tmp_path / "plain.gpkg"), read(tmp_path / "out.gpkg")
        assert np.array_equal(labels, same)
        houses = labels == BUILDING
        assert made.squared + made.kept == houses.sum() > 15 and made.squared > 12
        assert shapely.equals_exact(before[~houses], after[~houses]).all()
        assert shapely.is_valid(after).all()
        assert shapely.equals_exact(before[houses], after[houses]).sum() <= made.kept + 5  # pixels are squares
        common = shapely.area(shapely.intersection(before, after))
        assert (common >= 0.85 * (shapely.area(before) + shapely.area(after) - common) * (1 - 1e-9)).all()
        assert (
            shapely.get_num_coordinates(after[houses]).sum() < 0.5 * shapely.get_num_coordinates(before[houses]).sum()
        )
        found[window] = sorted(shapely.normalize(shapely.set_precision(after, 1e-5)), key=lambda one: one.wkt)
    if tolerance is None:
        pairs = zip(found[50], found[4096], strict=True)
        assert all(shapely.equals_exact(one, other, 2e-5) for one, other in pairs)


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "a.tif", town())
    for name in ("a.geojson", "b.geojson"):
        write_polygons(source, tmp_path / name, DUBAI, square=(BUILDING, 4))
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_polygons_that_are_written_in_parts_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right angle within a part would tear it from the next one."""
    monkeypatch.setattr(vector, "_WINDOW", 16)
    monkeypatch.setattr(vector, "_HELD_VERTICES", 4)
    labels = picture((10, 10, 80, 70), (30, 9, 40, 10), size=(100, 100))
    labels[labels == LAND] = 255
    made = write_polygons(write(tmp_path / "a.tif", labels), tmp_path / "a.gpkg", DUBAI, square=(BUILDING,))
    assert made.split > 0 and made.count > 1 and (made.squared, made.kept) == (0, made.count)
    back = rasterize(read(tmp_path / "a.gpkg")[0], labels.shape, fill=255, default_value=BUILDING, transform=METRES)
    assert np.array_equal(back, labels)


def test_polygons_of_too_many_vertices_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = picture((5, 5, 20, 20), *L_SHAPE)  # together 8 vertices, and the first one again
    for most, found in ((8, (0, 1)), (9, (1, 0))):
        monkeypatch.setattr(square, "_MOST_VERTICES", most)
        made = write_polygons(write(tmp_path / "a.tif", labels), tmp_path / "a.gpkg", DUBAI, square=(BUILDING,))
        assert (made.squared, made.kept) == found


@pytest.mark.parametrize("crs", ["+proj=ortho +lat_0=20 +lon_0=10", "EPSG:4326"])
def test_corners_stay_on_the_earth(tmp_path: Path, crs: str) -> None:
    """A turned square at the edge of the raster, which is that of the projection: its corner would lie beyond it."""
    rows, columns = np.mgrid[:60, :60]
    labels = np.where(np.abs(rows - 8) + np.abs(columns - 30) <= 10, BUILDING, 255).astype(np.uint8)
    top = {"EPSG:4326": (9, 90, 0.01)}.get(crs, (-30_000, 6_356_000, 1000))
    source = write(tmp_path / "a.tif", labels, from_origin(top[0], top[1], top[2], top[2]), crs)
    for name in ("a.gpkg", "a.geojson"):
        made = write_polygons(source, tmp_path / name, DUBAI, square=(BUILDING,))
        assert made.count == made.squared + made.kept == 1
    (area,) = read(tmp_path / "a.gpkg")[2]
    assert 0 < area < math.inf


# ---- settings


@pytest.mark.parametrize(
    ("square", "names", "labels"),
    [
        ("Building", DUBAI.names, (0,)),
        ("Water,Building", DUBAI.names, (0, 4)),
        (" Road , Road", DUBAI.names, (2,)),
        ("house, small", ("house, small", "house"), (0,)),
    ],
)
def test_classes_are_named(square: str, names: tuple[str, ...], labels: tuple[int, ...]) -> None:
    classes = ClassMap(names, tuple((label, 0, 0) for label in range(len(names))))
    assert find_square_labels(square, classes) == labels


@pytest.mark.parametrize(
    ("square", "says"),
    [
        ("building", "--square building: the model has no class 'building'. Its classes are Building, Land, Road"),
        ("Building,House,Hut", "no class 'House' and no class 'Hut'"),
        ("Building,", "no class ''"),
        ("", "no class ''"),
        ("0", "no class '0'"),
    ],
)
def test_a_class_that_the_model_does_not_have_is_refused(square: str, says: str) -> None:
    with pytest.raises(SettingsError) as raised:
        find_square_labels(square, DUBAI)
    assert says in str(raised.value)


def test_square_is_for_polygons() -> None:
    with pytest.raises(SettingsError, match="--square is for polygons: add --vector"):
        build_settings(PredictSettings, {"inputs": ["a.tif"], "square": "Building"})
