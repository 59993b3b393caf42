"""The polygons that the page saves, against those of GDAL, PROJ and `skystill predict`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio import warp
from rasterio.features import rasterize, shapes
from rasterio.transform import from_origin

from skystill.classes import DUBAI
from skystill.predict.polygons import write_polygons
from tests.web.browser import Browser
from tests.web.images import POINTS, UTM, scene, write_tiff

pytestmark = pytest.mark.slow

WIDE = {"crs": "EPSG:32640", "transform": from_origin(330000, 2790000, 10, 10)}
TURNED = {"crs": "EPSG:32640", "transform": from_origin(330000, 2790000, 3, 3) @ rasterio.Affine.rotation(20)}
PLACES: dict[str, dict[str, Any]] = {
    "utm": WIDE,
    "south": {"crs": "EPSG:32733", "transform": from_origin(180000, 6200000, 30, 30)},
    "etrs": {"crs": "EPSG:25832", "transform": from_origin(610000, 5500000, 0.2, 0.2)},
    "degrees": {"crs": "EPSG:4326", "transform": from_origin(24, 61, 0.001, 0.0005)},
    "mercator": {"crs": "EPSG:3857", "transform": from_origin(2600000, 8400000, 20, 20)},
    "turned": TURNED,
    "point": {**UTM, "tags": {"AREA_OR_POINT": "Point"}},
    "plane": {"transform": from_origin(100, 900, 2, 2)},
}


def noise() -> np.ndarray[Any, Any]:
    """(3, 70, 300) uint8: pixels of three classes, some of one and some without data, so that every corner occurs."""
    rng = np.random.default_rng(8)
    planes = np.zeros((3, 70, 300), np.uint8)
    planes[0] = 200
    planes[:, :20, :50] = np.eye(3, dtype=np.uint8)[rng.integers(0, 3, (20, 50))].transpose(2, 0, 1) * 200
    planes[:, 30:50, 20:70][:, rng.random((20, 50)) < 0.4] = np.array([[0], [150], [0]])
    planes[1, 55:65, 100:290] = 250  # an edge that is longer than 128 pixels
    planes[:, 30:40, 200:230][:, rng.random((10, 30)) < 0.5] = 0
    return planes


def saved(browser: Browser, image: Path) -> tuple[list[dict[str, Any]], np.ndarray[Any, Any]]:
    """The features, and the labels."""
    assert browser.label(image) == "done", browser.status
    content = json.loads(browser.save("save-geojson", f"{image.stem}-classes.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    with rasterio.open(browser.save("save-tif", f"{image.stem}-classes.tif")) as file:
        return content["features"], file.read(1)


def in_pixels(features: list[dict[str, Any]], raster: Path) -> Any:
    """The polygons in columns and rows, by way of PROJ."""
    with rasterio.open(raster) as file:
        crs, transform = file.crs, file.transform

    def back(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        x, y = warp.transform("EPSG:4326", crs, *points.T) if crs else points.T
        return np.stack(~transform * (np.array(x), np.array(y)), 1)

    return shapely.transform(shapely.from_geojson([json.dumps(one["geometry"]) for one in features]), back)


def test_polygons_are_those_of_predict(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    browser.open(pages["channel"])
    for name, place in PLACES.items():
        image = write_tiff(tmp_path / f"{name}.tif", noise(), photometric="rgb", nodata=0, **place)
        features, labels = saved(browser, image)
        polygons = in_pixels(features, image)
        values = [feature["properties"]["label"] for feature in features]
        assert [feature["properties"]["class"] for feature in features] == [DUBAI.names[value] for value in values]
        burnt = rasterize(zip(polygons, values, strict=True), labels.shape, 255, dtype="uint8")
        assert np.array_equal(burnt, labels), name
        wanted = [
            (value, shapely.area(shapely.geometry.shape(one)))
            for one, value in shapes(labels, mask=labels != 255, connectivity=4)
        ]
        found = list(zip(values, shapely.area(polygons), strict=True))
        assert len(found) == len(wanted) > 300, name
        assert np.allclose(sorted(found), sorted(wanted), rtol=1e-3, atol=0.01), name
        assert shapely.is_valid(shapely.set_precision(polygons, 1e-3)).all(), name
        if "crs" in place:
            shown = shapely.from_geojson([json.dumps(one["geometry"]) for one in features])
            assert all(ring.is_ccw for ring in shapely.get_exterior_ring(shown)), name
        if name in ("utm", "south", "degrees"):
            check_areas(browser.folder / f"{name}-classes.tif", features, tmp_path)


def check_areas(raster: Path, features: list[dict[str, Any]], folder: Path) -> None:
    write_polygons(raster, folder / "wanted.geojson", DUBAI)
    wanted = json.loads((folder / "wanted.geojson").read_text())["features"]
    found, other = (
        sorted((one["properties"]["label"], one["properties"]["area_m2"]) for one in all_)
        for all_ in (features, wanted)
    )
    assert np.allclose(found, other, rtol=1e-4), raster.name


def test_polygons_of_a_photograph_are_in_pixels(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    planes = np.zeros((3, 70, 90), np.uint8)
    planes[0], planes[0, 20:40, 30:60], planes[1, 20:40, 30:60] = 200, 0, 200
    Image.fromarray(planes.transpose(1, 2, 0)).save(tmp_path / "photo.png")
    browser.open(pages["channel"])
    features, _ = saved(browser, tmp_path / "photo.png")
    features.sort(key=lambda feature: feature["properties"]["label"])
    browser.save("save-geojson", "photo-classes.geojson")
    assert "the polygons are in pixels" in browser.status
    outer, inner = (feature["geometry"]["coordinates"] for feature in features)
    assert [feature["properties"] for feature in features] == [
        {"class": "Building", "label": 0, "area_m2": None},
        {"class": "Land", "label": 1, "area_m2": None},
    ]
    assert {tuple(xy) for xy in outer[0]} == {(0, 0), (90, 0), (90, 70), (0, 70)}
    assert {tuple(xy) for xy in outer[1]} == {(30, 20), (60, 20), (60, 40), (30, 40)} == {tuple(xy) for xy in inner[0]}
    assert len(inner) == 1


def test_places_that_the_page_cannot_convert_are_refused(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    planes = scene(60, 70)
    browser.open(pages["channel"])
    for name, place, said in (
        ("lambert", {"crs": "EPSG:2154", "transform": from_origin(700000, 6600000, 1, 1)}, "this is EPSG:2154"),
        ("nad", {"crs": "EPSG:26917", "transform": from_origin(600000, 4000000, 1, 1)}, "this is EPSG:26917"),
        ("points", {"gcps": POINTS, "crs": "EPSG:4326"}, "this is control points"),
        ("turn", {"crs": "EPSG:4326", "transform": from_origin(179.99, 10, 0.001, 0.001)}, "beyond longitude 180"),
    ):
        image = write_tiff(tmp_path / f"{name}.tif", planes, photometric="rgb", **place)
        assert browser.label(image) == "done", browser.status
        browser.click("save-geojson")
        assert browser.wait("refused") == "refused"
        assert f"{name}-classes.geojson was not saved: " in browser.status
        assert said in browser.status
