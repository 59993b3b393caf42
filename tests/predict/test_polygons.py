"""Polygons, areas and overlays of a class raster."""

import csv
import json
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


@pytest.mark.parametrize("window", [16, 50, 4096])
def test_polygons_are_those_of_the_whole_raster(
    tmp_path: Path, raster: Path, labels: np.ndarray, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector, "_WINDOW", window)
    made = write_polygons(raster, tmp_path / "out.gpkg", DUBAI)
    whole = list(shapes(labels, mask=labels != 255, connectivity=4))
    assert (made.count, made.split) == (len(whole), 0)
    about, _, geometry, (names, numbers, areas) = pyogrio.raw.read(tmp_path / "out.gpkg")
    assert about["crs"] == "EPSG:32640"
    found = shapely.from_wkb(geometry)
    assert shapely.is_valid(found).all()
    assert shapely.area(found) / UTM_SCALE**2 == pytest.approx(areas, rel=1e-5)
    assert [DUBAI.names[number] for number in numbers] == list(names)
    with rasterio.open(raster) as file:
        back = rasterize(zip(found, numbers, strict=True), labels.shape, fill=255, transform=file.transform)
    assert np.array_equal(back, labels)


def test_what_is_too_large_to_hold_is_split_and_counted(
    tmp_path: Path, raster: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector, "_WINDOW", 16)
    monkeypatch.setattr(vector, "_HELD_VERTICES", 20)
    made = write_polygons(raster, tmp_path / "out.gpkg", DUBAI)
    assert made.split > 0
    _, _, geometry, (_, numbers, _) = pyogrio.raw.read(tmp_path / "out.gpkg")
    with rasterio.open(raster) as file:
        parts = zip(shapely.from_wkb(geometry), numbers, strict=True)
        back = rasterize(parts, labels.shape, fill=255, transform=file.transform)
    assert np.array_equal(back, labels)


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
