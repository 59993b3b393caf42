"""Labels from features: which pixels get which class, compared with shapely and with values worked out by hand."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyogrio
import pyproj
import pytest
import shapely
from rasterio.features import shapes
from rasterio.transform import Affine

from skystill.classes import VOID, ClassMap, read_classes
from skystill.data import vectors
from skystill.data.map_labels import MapLabels, open_map
from skystill.errors import ClassesError, DataError
from tests.maps import LEFT, TOP, UTM, box, centres, write_classes, write_layer, write_raster

SIZE = 40


def burnt(root: Path, bounds: tuple[int, int, int, int] = (0, SIZE, 0, SIZE)) -> npt.NDArray[np.uint8]:
    """The labels of a window; features that are found in memory and by the index of the file give the same."""
    whole, classes = opened(root)
    labels = whole.burn(bounds, classes).labels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "_SMALL_BYTES", 0)
        assert np.array_equal(whole.burn(bounds, classes).labels, labels)
    return labels


def opened(root: Path) -> tuple[MapLabels, ClassMap]:
    labels = next(root.glob("labels.*"))
    for suffix in (".gpkg", ".geojson", ".fgb", ".shp"):
        labels = root / f"labels{suffix}" if (root / f"labels{suffix}").exists() else labels
    whole, classes = open_map(root / "ortho.tif", labels), read_classes(root / "classes.yaml")
    whole.layers.check_classes(classes)
    return whole, classes


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".shp"])
def test_a_pixel_has_the_class_of_the_polygon_over_its_centre(tmp_path: Path, suffix: str) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    # 10.4 to 20.6: the centres 10.5 to 20.5 are inside, 11 rows. 3.5 to 7.6: 3.5 is on the edge; 4.5 to 7.5, or 3.5 too
    write_layer(tmp_path / f"labels{suffix}", [box(transform, 10.4, 20.6, 3.6, 7.6)], type=["a"])
    write_classes(tmp_path, {"Land": "rest", "Roof": "{}"})
    labels = burnt(tmp_path)
    expected = np.zeros((SIZE, SIZE), np.uint8)
    expected[10:21, 4:8] = 1
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857", "EPSG:32634"])
def test_features_of_any_crs_are_brought_to_the_raster(tmp_path: Path, crs: str) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE, 0.25)
    shapes = [
        shapely.Polygon([transform * p for p in ((2.2, 3.1), (30.3, 8.4), (25.7, 33.9), (6.6, 21.2))],
                        [[transform * p for p in ((11.1, 11.2), (18.3, 12.4), (15.2, 19.6))]]),
        shapely.MultiPolygon([box(transform, 30.2, 36.1, 1.3, 5.2), box(transform, 2.3, 4.4, 33.1, 39.9)]),
    ]  # fmt: skip
    moved = pyproj.Transformer.from_crs(UTM, crs, always_xy=True)
    write_layer(
        tmp_path / "labels.gpkg",
        [shapely.transform(s, lambda p: np.stack(moved.transform(*p.T), axis=1)) for s in shapes],
        "areas",
        crs,
        type=["a", "b"],
    )
    write_classes(tmp_path, {"Land": "rest", "A": "{field: type, values: [a]}", "B": "{field: type, values: [b]}"})
    x, y = centres(transform, SIZE, SIZE)
    expected = np.where(shapely.contains_xy(shapes[1], x, y), 2, shapely.contains_xy(shapes[0], x, y).astype(int))
    labels = burnt(tmp_path)
    assert np.array_equal(labels, expected)
    assert (labels == 1).sum() == pytest.approx(shapes[0].area / 0.25**2, rel=0.03)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0, LEFT, 0, -0.5, TOP),
        Affine(0.5, 0, LEFT, 0, 0.5, TOP),
        Affine(0, -0.5, LEFT, -0.5, 0, TOP),
        Affine(0.4, 0.3, LEFT, 0.3, -0.4, TOP),
        Affine(0.5, 0, LEFT, 0, -2.0, TOP),
    ],
    ids=["north up", "south up", "turned", "slanted", "long pixels"],
)
def test_rasters_that_lie_in_any_way(tmp_path: Path, transform: Affine) -> None:
    write_raster(tmp_path / "ortho.tif", SIZE, SIZE, transform=transform)
    shape = shapely.Polygon([transform * p for p in ((2.2, 3.1), (30.3, 8.4), (25.7, 33.9), (6.6, 21.2))])
    write_layer(tmp_path / "labels.gpkg", [shape], "areas")
    write_classes(tmp_path, {"Land": "rest", "A": "{layer: areas}"})
    assert np.array_equal(burnt(tmp_path), shapely.contains_xy(shape, *centres(transform, SIZE, SIZE)))


def test_windows_have_the_labels_of_the_whole(tmp_path: Path) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    rng = np.random.default_rng(1)
    points = rng.uniform(0, SIZE, (30, 2))
    lines = [shapely.LineString([transform * p for p in rng.uniform(-5, SIZE + 5, (3, 2))]) for _ in range(4)]
    trees = [shapely.Point(transform * p).buffer(2) for p in points]
    bow = shapely.Polygon([transform * p for p in ((9, 12), (16, 20), (16, 12), (9, 20))])  # across windows
    write_layer(tmp_path / "labels.gpkg", [*trees[:9], shapely.MultiPolygon([*trees[9:], bow])], "trees")
    write_layer(tmp_path / "labels.gpkg", lines, "roads")
    write_layer(tmp_path / "labels.gpkg", [box(transform, 3, 35, 2, 39)], "area")
    write_classes(tmp_path, {"Land": "rest", "Tree": "{layer: trees}", "Road": "{layer: roads, buffer: 1.3}"})
    whole = burnt(tmp_path)
    assert {0, 1, 2, VOID} == set(np.unique(whole).tolist())
    for bounds in ((0, 13, 0, 17), (13, 40, 17, 40), (7, 9, 30, 40), (39, 40, 0, 40)):
        assert np.array_equal(burnt(tmp_path, bounds), whole[bounds[0] : bounds[1], bounds[2] : bounds[3]])


@pytest.mark.parametrize(
    ("crs", "place", "metres_of_unit"),
    [
        (UTM, (LEFT, TOP), (1.0, 1.0)),
        ("EPSG:4326", (10.0, 60.0), (55_800.0, 111_412.0)),  # of a degree at 60 north, to the east and to the north
        ("EPSG:3857", (1_000_000.0, 8_399_737.9), (0.50126, 0.50042)),  # Mercator stretches to twice at 60 north
        ("EPSG:2263", (1_000_000.0, 200_000.0), (0.3048006, 0.3048006)),  # feet
    ],
)
def test_a_buffer_is_metres_on_the_ground(
    tmp_path: Path, crs: str, place: tuple[float, float], metres_of_unit: tuple[float, float]
) -> None:
    across, down = metres_of_unit
    transform = Affine(0.5 / across, 0, place[0], 0, -0.5 / down, place[1])  # pixels of half a metre
    write_raster(tmp_path / "ortho.tif", 100, 100, crs=crs, transform=transform)
    write_layer(tmp_path / "labels.gpkg", [shapely.Point(transform * (50, 50))], "trees", crs)
    write_classes(tmp_path, {"Land": "rest", "Tree": "{layer: trees, buffer: 10}"})
    labels = burnt(tmp_path, (0, 100, 0, 100))
    rows, columns = np.nonzero(labels)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 69, 30, 69)  # 20 pixels each way
    assert len(rows) == pytest.approx(math.pi * 20**2, rel=0.01)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0.25, LEFT, 0, -0.5, TOP),
        Affine(0.5, 0.1, LEFT, -0.6, -0.5, TOP),
        Affine(0.3, 0.4, LEFT, 0.8, -0.6, TOP),
    ],
    ids=["sheared", "sheared and turned", "turned and long"],
)
def test_a_buffer_is_round_on_the_ground(tmp_path: Path, transform: Affine) -> None:
    write_raster(tmp_path / "ortho.tif", 100, 100, transform=transform)
    line = shapely.LineString([transform * (50, 45), transform * (50, 60)])
    write_layer(tmp_path / "labels.gpkg", [line], "roads")
    write_classes(tmp_path, {"Land": "rest", "Road": "{layer: roads, buffer: 8}"})
    x, y = centres(transform, 100, 100)
    away = np.abs(shapely.distance(line, shapely.points(x, y)) - 8) > 0.05  # an arc becomes 16 lines
    expected = shapely.dwithin(line, shapely.points(x, y), 8)
    assert np.array_equal(burnt(tmp_path, (0, 100, 0, 100))[away], expected[away])
    for bounds in ((0, 40, 0, 100), (30, 45, 60, 90)):
        here = np.s_[bounds[0] : bounds[1], bounds[2] : bounds[3]]
        assert np.array_equal(burnt(tmp_path, bounds)[away[here]], expected[here][away[here]])


def test_a_line_has_the_width_of_twice_its_buffer(tmp_path: Path) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    write_layer(tmp_path / "labels.gpkg", [shapely.LineString([transform * (-10, 20), transform * (50, 20)])], "roads")
    write_classes(tmp_path, {"Land": "rest", "Road": "{layer: roads, buffer: 3}"})
    expected = np.zeros((SIZE, SIZE), np.uint8)
    expected[17:23] = 1
    assert np.array_equal(burnt(tmp_path), expected)


ORDERS = [
    ({"A": "{layer: a}", "B": "{layer: b}"}, 0, 1, 1),
    ({"B": "{layer: b}", "A": "{layer: a}"}, 1, 0, 1),
    ({"A": "{layer: a, order: 1}", "B": "{layer: b}"}, 0, 1, 0),
    ({"A": "{layer: a, order: -1}", "B": "{layer: b, order: -2}"}, 0, 1, 0),
]


@pytest.mark.parametrize(("classes", "of_a", "of_b", "of_both"), ORDERS)
def test_later_classes_and_higher_orders_cover(
    tmp_path: Path, classes: dict[str, str], of_a: int, of_b: int, of_both: int
) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    write_layer(tmp_path / "labels.gpkg", [box(transform, 0, 20, 0, 20)], "a")
    write_layer(tmp_path / "labels.gpkg", [box(transform, 10, 30, 10, 30)], "b")
    write_classes(tmp_path, classes)
    whole, read = opened(tmp_path)
    found = whole.burn((0, SIZE, 0, SIZE), read)
    expected = np.full((SIZE, SIZE), VOID)
    expected[:20, :20], expected[10:30, 10:30], expected[10:20, 10:20] = of_a, of_b, of_both
    assert np.array_equal(found.labels, expected)
    loser = of_a if of_both == of_b else of_b
    assert found.overlaps == {(loser, of_both): 100}


def test_outside_of_the_area_everything_is_void(tmp_path: Path) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    write_layer(tmp_path / "labels.gpkg", [box(transform, 5, 15, 5, 15)], "roofs")
    write_classes(tmp_path, {"Land": "rest", "Roof": "{layer: roofs}"})
    write_layer(tmp_path / "area.geojson", [box(transform, 0, 10, 0, SIZE)])
    expected = np.full((SIZE, SIZE), VOID)
    expected[:10], expected[5:10, 5:15] = 0, 1
    assert np.array_equal(burnt(tmp_path), expected)
    assert (burnt(tmp_path, (20, 30, 0, 10)) == VOID).all()


@pytest.mark.parametrize(
    ("values", "listed", "taken"),
    [
        (["a", "b", "a"], "[a]", [0, 2]),
        (["a", "b", "c"], "[a, c]", [0, 2]),
        ([1, 2, 3], "[1, 3]", [0, 2]),
        ([1, 2, 3], '["1", "3"]', [0, 2]),
        ([1.0, 2.5, 3.0], "[1, 2.5]", [0, 1]),
        ([True, False, True], "[true]", [0, 2]),
        (["x", None, None], "[null]", [1, 2]),
        (["01", "1", "x"], '["01"]', [0]),
        (["a", "b", "a"], "a", [0, 2]),
    ],
)
def test_values_of_attributes(tmp_path: Path, values: list[object], listed: str, taken: list[int]) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    shapes = [box(transform, 0, SIZE, 10 * place, 10 * place + 5) for place in range(3)]
    write_layer(tmp_path / "labels.gpkg", shapes, "areas", type=values)
    write_classes(tmp_path, {"Land": "rest", "Own": f"{{layer: areas, field: type, values: {listed}}}"})
    row = burnt(tmp_path)[0]
    assert [place for place in range(3) if row[10 * place]] == taken


@pytest.mark.parametrize(
    ("column", "value", "same"),
    [
        (np.array([True, False, False]), "true", [0]),
        (np.array([True, False, False]), "false", [1]),
        (np.array([7, 8, 0]), "7", [0]),
        (np.array([2**53, 2**53 + 1, 0]), str(2**53), None),  # a float holds one of the two
    ],
)
def test_null_beside_values_of_an_attribute_changes_none_of_them(
    tmp_path: Path, column: np.ndarray, value: str, same: list[int] | None
) -> None:
    transform = write_raster(tmp_path / "ortho.tif", 64, 64)
    shapes = [box(transform, 0, 64, 20 * at, 20 * at + 20) for at in range(3)]
    pyogrio.raw.write(
        tmp_path / "labels.gpkg", shapely.to_wkb(np.array(shapes, object)), [column], ["kind"], layer="a", crs=UTM,
        field_mask=[np.array([False, False, True])], geometry_type="Polygon", driver="GPKG",
    )  # fmt: skip
    write_classes(tmp_path, {"A": f"{{layer: a, field: kind, values: [{value}]}}", "Rest": "rest"})
    classes = read_classes(tmp_path / "classes.yaml")
    whole = open_map(tmp_path / "ortho.tif", tmp_path / "labels.gpkg")
    if same is None:
        with pytest.raises(DataError, match="beside null"):
            whole.burn((0, 64, 0, 64), classes)
        return
    labels = whole.burn((0, 64, 0, 64), classes).labels
    assert [at for at in range(3) if labels[0, 20 * at] == 0] == same


def test_invalid_polygons_are_mended(tmp_path: Path) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    bow = shapely.Polygon([transform * p for p in ((0, 0), (20, 20), (20, 0), (0, 20))])  # crosses itself at (10, 10)
    write_layer(tmp_path / "labels.gpkg", [bow, None, shapely.Polygon()], "areas")
    write_classes(tmp_path, {"Land": "rest", "Own": "{layer: areas}"})
    labels = burnt(tmp_path)
    rows, columns = np.mgrid[:20, :20] + 0.5
    expected = np.where(columns < 10, np.abs(rows - 10) < 10 - columns, np.abs(rows - 10) < columns - 10)
    on_edge = np.abs(np.abs(rows - 10) - np.abs(columns - 10)) < 1e-9
    assert np.array_equal(labels[:20, :20][~on_edge], expected[~on_edge])
    assert labels.sum() == labels[:20, :20].sum()


def test_a_class_of_several_sources(tmp_path: Path) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    write_layer(tmp_path / "labels.gpkg", [box(transform, 0, 5, 0, 5)], "squares")
    write_layer(tmp_path / "labels.gpkg", [shapely.LineString([transform * (0, 20), transform * (40, 20)])], "roads")
    write_classes(tmp_path, {"Land": "rest", "Road": "[{layer: squares}, {layer: roads, buffer: 1}]"})
    labels = burnt(tmp_path)
    assert labels.sum() == 25 + 2 * SIZE


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"A": "{layer: houses}"}, r"no layer houses.*layer roofs: 1 features; attributes type, height"),
        ({"A": "{layer: roofs, field: kind, values: [a]}"}, "no attribute kind; there are type, height"),
        ({"A": "{field: type, values: [a]}"}, "names no layer"),
        ({"A": "rest", "B": "rest"}, "A, B are all from: rest"),
        ({"A": "{layer: roofs, field: type}"}, "field and values go together"),
        ({"A": "{layer: roofs, values: [a]}"}, "field and values go together"),
        ({"A": "{layer: roofs, buffer: -1}"}, "buffer: -1"),
        ({"A": "{layer: roofs, buffer: wide}"}, "buffer: 'wide'"),
        ({"A": "{layer: roofs, buffer: .inf}"}, "inf"),
        ({"A": "{layer: roofs, order: first}"}, "order: 'first'"),
        ({"A": "{layer: roofs, colour: 1}"}, "colour is not understood; there are layer, field"),
        ({"A": "{layer: 3}"}, "3 is not a name"),
        ({"A": "roofs"}, "from: 'roofs' is not understood"),
        ({"A": "[]"}, "is not understood"),
        ({"A": "{layer: roofs, field: type, values: [{a: 1}]}"}, "a list such as"),
    ],
)
def test_classes_that_do_not_fit_are_refused(tmp_path: Path, sources: dict[str, str], message: str) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    write_layer(tmp_path / "labels.gpkg", [box(transform, 0, 5, 0, 5)], "roofs", type=["a"], height=[3.0])
    write_layer(tmp_path / "labels.gpkg", [box(transform, 0, 5, 0, 5)], "roads")
    write_classes(tmp_path, sources)
    with pytest.raises(ClassesError, match=f"(?s){message}"):
        opened(tmp_path)


def test_lines_without_a_buffer_are_refused(tmp_path: Path) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    write_layer(tmp_path / "labels.gpkg", [shapely.LineString([transform * (0, 20), transform * (40, 20)])], "roads")
    write_classes(tmp_path, {"Land": "rest", "Road": "{layer: roads}"})
    with pytest.raises(DataError, match=r"feature 1 is a LineString.*\n.*buffer: METRES"):
        burnt(tmp_path)


@pytest.mark.parametrize("crs", [None, UTM])
def test_a_raster_without_a_place_is_refused(tmp_path: Path, crs: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_raster(tmp_path / "ortho.tif", SIZE, SIZE, crs=crs, transform=Affine.scale(1 if crs else 2))
    write_layer(tmp_path / "labels.gpkg", [shapely.box(0, 0, 5, 5)], "a")
    with pytest.raises(DataError, match="has no CRS with a transform"):
        open_map(tmp_path / "ortho.tif", tmp_path / "labels.gpkg")


def test_features_without_a_crs_are_refused(tmp_path: Path) -> None:
    write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    with pytest.warns(UserWarning, match="crs"):
        write_layer(tmp_path / "labels.shp", [shapely.box(0, 0, 5, 5)], crs=None, type=["a"])
    with pytest.raises(DataError, match=r"layer labels has no CRS.*\n.*a_srs"):
        open_map(tmp_path / "ortho.tif", tmp_path / "labels.shp")


def test_two_areas_are_refused(tmp_path: Path) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    for layer in ("roofs", "area"):
        write_layer(tmp_path / "labels.gpkg", [box(transform, 0, 5, 0, 5)], layer)
    write_layer(tmp_path / "area.fgb", [box(transform, 0, 5, 0, 5)])
    with pytest.raises(DataError, match="2 layers for area"):
        open_map(tmp_path / "ortho.tif", tmp_path / "labels.gpkg")


def test_a_changed_file_is_opened_again(tmp_path: Path) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE)
    write_classes(tmp_path, {"Land": "rest", "A": "{}"})
    for right in (10, 20):
        (tmp_path / "labels.geojson").unlink(missing_ok=True)
        write_layer(tmp_path / "labels.geojson", [box(transform, 0, SIZE, 0, right)], crs=UTM)
        assert burnt(tmp_path).sum() == SIZE * right


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_the_polygons_of_a_mask_give_the_mask_back(tmp_path: Path, crs: str) -> None:
    noise = np.random.default_rng(5).normal(size=(90, 90)).cumsum(axis=0).cumsum(axis=1)
    mask = np.digitize(noise, np.quantile(noise, (0.3, 0.5, 0.8))).astype(np.uint8)
    mask[30:33, 30:60] = VOID
    mask[::7, ::5] = 2  # islands and holes of one pixel
    transform = write_raster(tmp_path / "ortho.tif", 90, 90, 0.2)
    found = [
        (shapely.geometry.shape(shape), int(label)) for shape, label in shapes(mask, mask != VOID, transform=transform)
    ]
    assert any(shape.interiors for shape, _ in found)
    moved = pyproj.Transformer.from_crs(UTM, crs, always_xy=True)
    write_layer(
        tmp_path / "labels.gpkg",
        [shapely.transform(shape, lambda p: np.stack(moved.transform(*p.T), axis=1)) for shape, _ in found],
        "areas",
        crs,
        label=[label for _, label in found],
    )
    write_classes(tmp_path, {f"c{label}": f"{{field: label, values: [{label}]}}" for label in range(4)})
    whole, classes = opened(tmp_path)
    burnt_again = whole.burn((0, 90, 0, 90), classes)
    assert np.array_equal(burnt_again.labels, mask)
    assert burnt_again.overlaps == {}


def test_the_example_of_the_documentation_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/maps.md").read_text(encoding="utf-8")
    example = page.split("## Which features have which class\n\n")[1].split("\n\n")[0]
    (tmp_path / "classes.yaml").write_text("\n".join(line[4:] for line in example.splitlines()), encoding="utf-8")
    classes = read_classes(tmp_path / "classes.yaml")
    assert classes.names == ("Land", "Building", "Road", "Tree")
    assert [len(sources) for sources in classes.sources] == [1, 1, 1, 2]
    assert classes.sources[2][0].buffer_m == 3.0


@pytest.mark.parametrize("step", [3, 7])
def test_labels_of_squares_are_those_of_their_centres(tmp_path: Path, step: int) -> None:
    to = write_raster(tmp_path / "ortho.tif", 200, 310)
    rng = np.random.default_rng(0)
    shapes = [box(to, y, y + 21.3, x, x + 33.7) for y, x in rng.uniform(-10, 300, (60, 2))]
    write_layer(tmp_path / "labels.gpkg", shapes, "roofs")
    write_layer(tmp_path / "labels.gpkg", [box(to, 5.2, 190.1, 7.7, 280.2)], "area")
    write_classes(tmp_path, {"Land": "rest", "Roof": "{layer: roofs}"})
    whole, classes = open_map(tmp_path / "ortho.tif", tmp_path / "labels.gpkg"), read_classes(tmp_path / "classes.yaml")
    bounds = 0, 189, 21, 231  # multiples of both steps
    labels = whole.burn(bounds, classes).labels[step // 2 :: step, step // 2 :: step]
    assert np.array_equal(whole.burn(bounds, classes, step).labels, labels)
    assert set(np.unique(labels)) == {0, 1, 255}
    assert whole.burn((0, 200, 0, 310), classes, 64).labels.shape == (4, 5)


@pytest.mark.parametrize("listed", [["x", "y"], [1, 2]])
def test_an_attribute_of_lists_tells_no_class(tmp_path: Path, listed: list[object]) -> None:
    transform = write_raster(tmp_path / "ortho.tif", SIZE, SIZE, crs=UTM)
    ring = shapely.geometry.mapping(box(transform, 5, 20, 5, 20))
    feature = {"type": "Feature", "properties": {"tags": listed}, "geometry": ring}
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{UTM[5:]}"}}
    collection = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
    (tmp_path / "labels.geojson").write_text(json.dumps(collection))
    write_classes(tmp_path, {"Land": "rest", "Own": "{field: tags, values: [x]}"})
    with pytest.raises(DataError, match=r"tags holds lists \(list.*make it text or a number"):
        burnt(tmp_path)
