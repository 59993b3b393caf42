"""`predict --stac`: items and collection, read by pystac, with outlines worked out by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from pyproj import Transformer
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from rasterio.transform import from_bounds, from_origin

from skystill import api
from skystill.classes import DUBAI
from skystill.errors import DataError, SettingsError
from skystill.predict.stac_results import footprint
from tests.channel_model import INFO, write_model


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_model(tmp_path / "m.onnx", replace(INFO, tile_size=96, overlap=16).to_metadata())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def raster(path: Path, crs: Any = "EPSG:32640", transform: Any = None, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    place = {"crs": crs, "transform": transform or from_origin(300_000, 2_800_000, 0.5, 0.5)}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", **(place if crs else {})
    ) as file:
        file.write(np.full((3, height, width), 9, np.uint8))
    return path


def predict(*inputs: object, **settings: object) -> None:
    api.predict(inputs=[str(name) for name in inputs], model=Path("m.onnx"), threads=1, stac=True, **settings)


def valid(path: Path) -> pystac.Item:
    """An item that keeps to the schema of items. Those of extensions are on the web; pystac reads their fields."""
    item = pystac.Item.from_file(str(path))
    plain = item.full_copy()
    plain.stac_extensions = []
    assert plain.validate()
    return item


def test_a_folder_gets_items_and_a_collection(here: Path) -> None:
    raster(here / "in/a.tif")
    raster(here / "in/north/b.tif", transform=from_origin(301_000, 2_801_000, 0.5, 0.5))
    settings = {"confidence": True, "areas": True, "vector": "gpkg", "cog": True}
    predict("in", out=Path("out"), recursive=True, **settings)
    collection = pystac.Collection.from_file("out/collection.json")
    collection.validate()
    items = sorted(collection.get_items(recursive=True), key=lambda item: item.id)
    assert [item.id for item in items] == ["a", "north-b"]
    assert all(item.get_collection() is collection and item.collection_id == collection.id for item in items)
    to = Transformer.from_crs("EPSG:32640", "EPSG:4326", always_xy=True)
    corners = [to.transform(x, y) for x in (300_000, 300_004) for y in (2_799_997, 2_800_000)]
    west, south = np.min(corners, axis=0)
    east, north = np.max(corners, axis=0)
    item = valid(Path("out/a.stac.json"))
    np.testing.assert_allclose(item.bbox, [west, south, east, north], atol=2e-7)
    (union,) = collection.extent.spatial.bboxes
    np.testing.assert_allclose(union[:2], [west, south], atol=2e-7)
    assert union[2] > east + 0.005 and union[3] > north + 0.005
    assert {key: asset.href for key, asset in item.assets.items()} == {
        "classes": "./a.tif", "confidence": "./a-confidence.tif", "areas": "./a-areas.csv", "polygons": "./a.gpkg",
    }  # fmt: skip
    for one in items:
        for asset in one.assets.values():
            assert Path(str(asset.get_absolute_href())).is_file()
    classes = item.assets["classes"]
    assert classes.media_type == pystac.MediaType.COG and classes.roles == ["data"]
    named = ClassificationExtension.ext(classes).classes
    assert (named[0].value, named[0].title, named[0].color_hint) == (0, DUBAI.names[0], "3C1098")
    assert [one.title for one in named] == list(DUBAI.names)
    band = classes.extra_fields["bands"][0]
    assert (band["data_type"], band["nodata"]) == ("uint8", 255)
    assert item.assets["confidence"].extra_fields["bands"][0]["raster:scale"] == 1 / 250
    place = ProjectionExtension.ext(item)
    assert (place.code, place.shape, place.transform) == ("EPSG:32640", [6, 8], [0.5, 0, 300_000, 0, -0.5, 2_800_000])
    assert {url.split("/")[3] for url in item.stac_extensions} == {"projection", "classification", "raster"}


def test_one_file_gets_an_item_and_no_collection(here: Path) -> None:
    raster(here / "a.tif")
    predict("a.tif", out=Path("out/r.tif"))
    item = valid(Path("out/r.stac.json"))
    assert (item.id, item.links) == ("r", []) or [link.rel for link in item.links] == ["self"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["r.qml", "r.stac.json", "r.tif", "r.tif.aux.xml"]
    assert item.assets["classes"].media_type == pystac.MediaType.GEOTIFF
    age = datetime.now(UTC) - item.datetime if item.datetime else None
    assert age is not None and abs(age.total_seconds()) < 3600


def test_a_picture_without_a_place(here: Path, write_picture: Callable[..., Path]) -> None:
    write_picture(here / "in/a b.png")
    predict("in", out=Path("out"))
    item = valid(Path("out/a b.stac.json"))
    assert item.geometry is None and item.bbox is None
    assert item.assets["classes"].href == "./a b.png" and item.assets["classes"].media_type == pystac.MediaType.PNG
    assert "proj:code" not in item.properties
    pystac.Collection.from_file("out/collection.json").validate()


def test_the_date_is_that_of_the_list(here: Path) -> None:
    raster(here / "a.tif")
    raster(here / "b.tif")
    Path("list.csv").write_text("image,datetime\na.tif,2026-03-01T10:00:00+02:00\nb.tif,2025-01-01\n")
    predict("list.csv", out=Path("out"))
    assert valid(Path("out/a.stac.json")).datetime == datetime(2026, 3, 1, 8, tzinfo=UTC)
    (interval,) = pystac.Collection.from_file("out/collection.json").extent.temporal.intervals
    assert interval == [datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, 8, tzinfo=UTC)]


def test_an_input_that_fails_is_not_in_the_collection(here: Path) -> None:
    raster(here / "in/a.tif")
    (here / "in/b.tif").write_bytes(b"no raster")
    with pytest.raises(DataError, match=r"b\.tif"):
        predict("in", out=Path("out"))
    assert [item.id for item in pystac.Collection.from_file("out/collection.json").get_items()] == ["a"]
    assert not Path("out/b.stac.json").exists()


def test_items_overwrite_neither_inputs_nor_each_other(here: Path, write_picture: Callable[..., Path]) -> None:
    raster(here / "a.tif")
    write_picture(here / "a.png")
    with pytest.raises(SettingsError, match=r"a\.stac\.json would be written twice"):
        predict("a.tif", "a.png", out=Path("out"))
    raster(here / "out/b.tif")
    (here / "out/collection.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "stac_version": "1.0.0", "id": "x",
                    "assets": {"image": {"href": "../a.tif"}}}]})
    )  # fmt: skip
    with pytest.raises(SettingsError, match=r"out/collection\.json \(STAC collection\) is an input"):
        predict("out/collection.json", out=Path("out"))
    Path("list").mkdir()
    Path("list/collection.json").symlink_to("../out/collection.json")
    with pytest.raises(SettingsError, match="is the same file as the input"):
        predict("out/collection.json", out=Path("list"))
    assert "FeatureCollection" in Path("out/collection.json").read_text()


LAEA = "+proj=laea +lat_0=90 +lon_0=0 +datum=WGS84"


@pytest.mark.parametrize(
    ("crs", "bounds", "box", "kind"),
    [
        ("EPSG:4326", (10, 20, 12, 21), (10, 20, 12, 21), "Polygon"),
        ("EPSG:4326", (179, -1, 181, 1), (179, -1, -179, 1), "MultiPolygon"),
        ("EPSG:4326", (181, -1, 183, 1), (-179, -1, -177, 1), "Polygon"),
        ("EPSG:4326", (-181, -1, -179, 1), (179, -1, -179, 1), "MultiPolygon"),
        ("EPSG:4326", (-180, -90, 180, 90), (-180, -90, 180, 90), "Polygon"),
        ("EPSG:3832", (3_300_000, -100_000, 3_400_000, 100_000), None, "MultiPolygon"),  # Pacific: across 180 degrees
        (LAEA, (-1e5, -1e5, 1e5, 1e5), (-180, None, 180, 90), "Polygon"),
        (None, None, None, None),
    ],
)
def test_outlines(here: Path, crs: Any, bounds: Any, box: Any, kind: str | None) -> None:
    path = raster(here / "a.tif", crs, bounds and from_bounds(*bounds, 40, 40), (40, 40))
    with rasterio.open(path) as file:
        geometry, found = footprint(file)
    if kind is None:
        assert geometry is None and found is None
        return
    assert geometry is not None and found is not None and geometry["type"] == kind
    if crs == "EPSG:3832":
        to = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        (west, east), _ = to.transform([bounds[0], bounds[2]], [0, 0])
        box = (west, found[1], east, found[3])
        assert west > 0 > east
    if crs == LAEA:
        south = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(1e5, 1e5)[1]
        box = (-180, south, 180, 90)
    np.testing.assert_allclose(found, box, atol=2e-7)
    if kind == "Polygon" and crs == "EPSG:4326":
        ring = np.array(geometry["coordinates"])[0]  # type: ignore[arg-type]
        assert (ring[0] == ring[-1]).all()
        area = np.sum(ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]) / 2
        assert area == pytest.approx((bounds[2] - bounds[0]) * (bounds[3] - bounds[1]))  # to the left: RFC 7946
