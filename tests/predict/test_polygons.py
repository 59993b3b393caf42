"""Polygons, areas and overlays of a class raster."""

import contextlib
import csv
import json
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize, shapes
from rasterio.transform import from_origin

from skystill.classes import DUBAI
from skystill.predict import polygons as vector
from skystill.predict.polygons import write_polygons
from skystill.predict.summary import write_areas, write_overlay
from skystill.progress import Event, Progress
from skystill.raster.styles import style_document
from skystill.settings import RasterSettings

UTM_SCALE = 0.9996 * (1 + (200_000 / 0.9996) ** 2 / (2 * 6_365_000**2))
"""Of the raster below, 200 km from the central meridian: 1 + x^2 / 2R^2, with R for 25 degrees north."""

pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")


@pytest.fixture
def labels() -> np.ndarray:
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 4, (25, 31)).astype(np.uint8)
    labels = np.repeat(np.repeat(coarse, 9, axis=0), 7, axis=1)
    labels[60:80, :] = 5  # a band through all windows
    labels[100:120, 30:60] = 255
    return labels


@pytest.fixture
def raster(tmp_path: Path, labels: np.ndarray) -> Path:
    path = tmp_path / "classes.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=labels.shape[0], width=labels.shape[1], count=1, dtype="uint8", nodata=255,
        crs="EPSG:32640", transform=from_origin(300_000, 2_800_000, 0.5, 0.5),
    ) as file:  # fmt: skip
        file.write(labels, 1)
    return path


@pytest.mark.parametrize("changes", [1, 40, 300_000])
@pytest.mark.parametrize("window", [16, 50, 4096])
def test_polygons_are_those_of_the_whole_raster(
    tmp_path: Path, raster: Path, labels: np.ndarray, window: int, changes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In windows of any size, and in strips of them where classes change often."""
    monkeypatch.setattr(vector, "_WINDOW", window)
    monkeypatch.setattr(vector, "_CHANGES", changes)
    made = write_polygons(raster, tmp_path / "out.gpkg", DUBAI)
    whole = list(shapes(labels, mask=labels != 255, connectivity=4))
    assert (made.count, made.split) == (len(whole), 0)
    about, _, geometry, (names, numbers, areas) = pyogrio.raw.read(tmp_path / "out.gpkg", layer="classes")
    assert about["crs"] == "EPSG:32640"
    found = shapely.from_wkb(geometry)
    assert shapely.is_valid(found).all()
    assert shapely.area(found) / UTM_SCALE**2 == pytest.approx(areas, rel=1e-5)
    assert [DUBAI.names[number] for number in numbers] == list(names)
    with rasterio.open(raster) as file:
        back = rasterize(zip(found, numbers, strict=True), labels.shape, fill=255, transform=file.transform)
    assert np.array_equal(back, labels)


def test_work_within_a_window_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One window of 24,000 polygons: it tells in between, and ends when told so."""
    monkeypatch.setattr(vector, "_WRITTEN", 1000)
    noise = np.random.default_rng(4).integers(0, 4, (200, 200)).astype(np.uint8)
    with rasterio.open(
        tmp_path / "noise.tif", "w", driver="GTiff", height=200, width=200, count=1, dtype="uint8",
        crs="EPSG:32640", transform=from_origin(300_000, 2_800_000, 0.5, 0.5),
    ) as file:  # fmt: skip
        file.write(noise, 1)
    seen: list[Event] = []

    def end(event: Event) -> None:
        seen.append(event)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_polygons(tmp_path / "noise.tif", tmp_path / "out.geojson", DUBAI, end)
    assert seen == 3 * [Progress("polygons of noise.tif", 0, 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["noise.tif"]
    made = write_polygons(tmp_path / "noise.tif", tmp_path / "parts.gpkg", DUBAI)
    monkeypatch.setattr(vector, "_WRITTEN", 10**9)
    assert write_polygons(tmp_path / "noise.tif", tmp_path / "whole.gpkg", DUBAI).count == made.count > 20_000
    whole, parts = (pyogrio.raw.read(tmp_path / f"{name}.gpkg", layer="classes")[2] for name in ("whole", "parts"))
    assert whole.tolist() == parts.tolist()


@pytest.mark.parametrize("changes", [20, 300_000])
def test_what_is_too_large_to_hold_is_split_and_counted(
    tmp_path: Path, raster: Path, labels: np.ndarray, changes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector, "_WINDOW", 16)
    monkeypatch.setattr(vector, "_CHANGES", changes)
    monkeypatch.setattr(vector, "_HELD_VERTICES", 20)
    made = write_polygons(raster, tmp_path / "out.gpkg", DUBAI)
    assert made.split > 0
    _, _, geometry, (_, numbers, _) = pyogrio.raw.read(tmp_path / "out.gpkg", layer="classes")
    with rasterio.open(raster) as file:
        parts = zip(shapely.from_wkb(geometry), numbers, strict=True)
        back = rasterize(parts, labels.shape, fill=255, transform=file.transform)
    assert np.array_equal(back, labels)


def smooth_labels(rng: np.random.Generator) -> np.ndarray:
    """Blobs with curved borders, islands in islands, and nodata."""
    rows, columns = np.mgrid[0:150, 0:170]
    waves = sum(np.sin(rows * a + columns * b + c) for a, b, c in rng.uniform(-0.2, 0.2, (6, 3)) * [1, 1, 20])
    labels = np.digitize(waves, [-1, 0, 1.2]).astype(np.uint8)
    labels[20:24, 30:33] = 4  # all of its borders are straight
    labels[60:75, 100:120] = 255
    labels[149, 169] = 5
    return labels


def distance_to_borders(labels: np.ndarray, polygons: list[object]) -> float:
    """The largest distance of a vertex or the middle of an edge from the borders between labels, in pixels."""
    found = shapes(labels, connectivity=4)
    borders = shapely.union_all([shapely.geometry.shape(shape).boundary for shape, _ in found])
    points = [shapely.segmentize(polygon.boundary, 1.5) for polygon in polygons]  # type: ignore[attr-defined]
    return float(shapely.distance(shapely.points(shapely.get_coordinates(points)), borders).max())


@pytest.mark.parametrize(
    ("window", "changes", "tolerance"),
    [
        (16, 300000, 2.0),
        *[(50, 300000, t) for t in (0.75, 5.0)],
        *[(4096, 300000, t) for t in (0.75, 2.0)],
        (50, 60, 2.0),
        (4096, 60, 0.75),
        (4096, 500, 5.0),
    ],
)
def test_simplified_polygons_share_their_borders(
    tmp_path: Path, window: int, changes: int, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector, "_WINDOW", window)
    monkeypatch.setattr(vector, "_CHANGES", changes)
    labels = smooth_labels(np.random.default_rng(int(tolerance)))
    profile = {"driver": "GTiff", "height": 150, "width": 170, "count": 1, "dtype": "uint8", "nodata": 255}
    with rasterio.open(
        tmp_path / "a.tif", "w", transform=from_origin(0, 150, 1, 1), crs="EPSG:32640", **profile
    ) as file:
        file.write(labels, 1)
    before = write_polygons(tmp_path / "a.tif", tmp_path / "plain.gpkg", DUBAI)
    made = write_polygons(tmp_path / "a.tif", tmp_path / "out.gpkg", DUBAI, tolerance=tolerance)
    assert made.count == before.count  # no polygon is lost, torn or joined
    _, _, geometry, _ = pyogrio.raw.read(tmp_path / "out.gpkg", layer="classes")
    found = shapely.from_wkb(geometry)
    areas = shapely.area(found)
    assert shapely.is_valid(found).all() and (areas > 0).all()
    # No gap and no overlap between neighbours: areas add up to that of the union, whose only hole is the nodata.
    whole = shapely.union_all(found)
    assert areas.sum() == pytest.approx(whole.area, rel=1e-12)
    assert len(whole.interiors) == 1 and whole.envelope.area == 150 * 170
    assert (np.mod(shapely.get_coordinates(found), 1) == 0).all()  # vertices are corners of pixels
    _, _, geometry, _ = pyogrio.raw.read(tmp_path / "plain.gpkg", layer="classes")
    plain = shapely.from_wkb(geometry)
    most = 0.9 if window == 16 or changes == 60 or tolerance < 1 else 0.6  # vertices on borders of windows stay
    assert shapely.get_num_coordinates(found).sum() < most * shapely.get_num_coordinates(plain).sum()
    flipped = shapely.transform(found, lambda points: points * [1, -1] + [0, 150])
    assert distance_to_borders(labels, list(flipped)) < 2 * tolerance
    if window == 4096 and changes == 300_000:
        assert shapely.coverage_is_valid(found)


def test_a_diagonal_becomes_a_straight_line(tmp_path: Path) -> None:
    # 78 of 144 pixels are below the diagonal of 12 x 12. The staircase between the corners becomes one edge, and both
    # triangles have its two ends; areas stay, because the ends of the staircase are half a step off the diagonal.
    profile = {"driver": "GTiff", "height": 12, "width": 12, "count": 1, "dtype": "uint8", "nodata": 255}
    with rasterio.open(
        tmp_path / "a.tif", "w", transform=from_origin(0, 12, 1, 1), crs="EPSG:32640", **profile
    ) as file:
        file.write(np.tri(12, dtype=np.uint8), 1)
    write_polygons(tmp_path / "a.tif", tmp_path / "out.gpkg", DUBAI, tolerance=1.0)
    _, _, geometry, (_, numbers, _) = pyogrio.raw.read(tmp_path / "out.gpkg", layer="classes")
    found = shapely.from_wkb(geometry)
    assert dict(zip(numbers.tolist(), shapely.area(found).tolist(), strict=True)) == {0: 66, 1: 78}
    assert sorted(shapely.get_num_coordinates(found)) == [5, 7]


def test_a_geopackage_carries_the_colors(tmp_path: Path, raster: Path) -> None:
    write_polygons(raster, tmp_path / "out.gpkg", DUBAI)
    with contextlib.closing(sqlite3.connect(tmp_path / "out.gpkg")) as base:
        base.row_factory = sqlite3.Row
        (style,) = base.execute("SELECT * FROM layer_styles").fetchall()
        kinds = dict(base.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall())
        columns = {row["name"]: row["type"] for row in base.execute("PRAGMA table_info(layer_styles)")}
        (column,) = base.execute(
            "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = 'classes'"
        ).fetchone()
    assert kinds == {"classes": "features", "layer_styles": "attributes"}
    # QGIS asks for the row with these values, compared as texts, and takes the one with useAsDefault.
    assert (style["f_table_catalog"], style["f_table_schema"], style["f_table_name"]) == ("", "", "classes")
    assert (style["f_geometry_column"], style["useAsDefault"]) == (column, 1)
    assert style["styleQML"] == style_document(DUBAI, raster=False)
    assert list(columns) == [
        "id", "f_table_catalog", "f_table_schema", "f_table_name", "f_geometry_column", "styleName", "styleQML",
        "styleSLD", "useAsDefault", "description", "owner", "ui", "update_time",
    ]  # fmt: skip
    assert (columns["useAsDefault"], columns["update_time"]) == ("BOOLEAN", "DATETIME")


def test_older_programs_read_a_geopackage_without_warnings(tmp_path: Path, raster: Path) -> None:
    """GDAL 3.6 warns of versions above 1.3, and of times that are not written as in the standard: UTC, milliseconds."""
    write_polygons(raster, tmp_path / "out.gpkg", DUBAI)
    with contextlib.closing(sqlite3.connect(tmp_path / "out.gpkg")) as base:
        assert base.execute("PRAGMA user_version").fetchone() == (10200,)
        ((time,),) = base.execute("SELECT update_time FROM layer_styles").fetchall()
    written = datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert re.fullmatch(r".*T\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert abs((datetime.now(UTC) - written).total_seconds()) < 60


@pytest.mark.parametrize("tolerance", [None, 2.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (30, 20)])
def test_rasters_without_data_have_no_polygons(tmp_path: Path, size: tuple[int, int], tolerance: float | None) -> None:
    profile = {"driver": "GTiff", "height": size[0], "width": size[1], "count": 1, "dtype": "uint8", "nodata": 255}
    for value, count in ((255, 0), (3, 1)):
        with rasterio.open(
            tmp_path / "a.tif", "w", transform=from_origin(0, 9, 1, 1), crs="EPSG:32640", **profile
        ) as file:
            file.write(np.full((1, *size), value, np.uint8))
        for name in ("out.gpkg", "out.geojson"):
            made = write_polygons(tmp_path / "a.tif", tmp_path / name, DUBAI, tolerance=tolerance)
            assert made.count == count
        found = pyogrio.raw.read(tmp_path / "out.gpkg", layer="classes")[2]
        assert [shapely.area(shapely.from_wkb(wkb)) for wkb in found] == [size[0] * size[1]] * count


def test_geojson_is_in_longitude_and_latitude(tmp_path: Path, raster: Path) -> None:
    write_polygons(raster, tmp_path / "out.geojson", DUBAI)
    content = json.loads((tmp_path / "out.geojson").read_text())
    west, south, east, north = shapely.total_bounds(
        [shapely.geometry.shape(f["geometry"]) for f in content["features"]]
    )
    assert 54 < west < east < 56 and 25 < south < north < 26
    there = {DUBAI.names[label] for label in (0, 1, 2, 3, 5)}  # of the labels above; 4 is nowhere, 255 is no data
    assert {feature["properties"]["class"] for feature in content["features"]} == there


def test_areas_are_in_hectares(tmp_path: Path, raster: Path, labels: np.ndarray) -> None:
    write_areas(raster, tmp_path / "areas.csv", DUBAI)
    with (tmp_path / "areas.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    for label, name in enumerate(DUBAI.names):
        pixels = int((labels == label).sum())
        assert int(rows[name]["pixels"]) == pixels
        assert float(rows[name]["hectares"]) == pytest.approx(pixels * 0.25 / UTM_SCALE**2 / 10_000, abs=6e-5)
    assert int(rows["no data"]["pixels"]) == 600


def test_the_overlay_mixes_image_and_colors(tmp_path: Path, raster: Path, labels: np.ndarray) -> None:
    from PIL import Image

    image = np.full((*labels.shape, 3), 200, np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    write_overlay(str(tmp_path / "photo.png"), raster, tmp_path / "overlay.png", DUBAI, RasterSettings())
    with Image.open(tmp_path / "overlay.png") as picture:
        found = np.asarray(picture).astype(float)
    expected = np.where((labels == 255)[..., None], 200.0, 200 * 0.55 + DUBAI.paint(labels) * 0.45)
    assert np.abs(found - expected).max() <= 0.51
