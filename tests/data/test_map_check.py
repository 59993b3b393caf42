"""What `data check` says of a map: shares, notes, and every problem with its values."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely

from skystill.api import check
from skystill.data.prepare import CheckedData
from skystill.errors import UserError
from skystill.raster import picture
from tests.maps import LEFT, TOP, box, write_classes, write_layer, write_raster

SIDE = 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A map of 1,024 x 1,024 pixels of one metre without labels: 4 x 4 windows."""
    write_raster(
        tmp_path / "ortho.tif", SIDE, SIDE, tiled=True, compress="deflate", values=np.ones((3, SIDE, SIDE), np.uint8)
    )
    return tmp_path


def transform_of(root: Path) -> Any:
    with rasterio.open(root / "ortho.tif") as file:
        return file.transform


def add(root: Path, layer: str, *boxes: tuple[float, float, float, float], **fields: Any) -> None:
    transform = transform_of(root)
    write_layer(root / "labels.gpkg", [box(transform, *one) for one in boxes], layer, **fields)


def checked(root: Path, how: str = "blocks:256/20") -> CheckedData:
    return check(data=root, split=how)


def said(found: CheckedData) -> str:
    return "\n".join((*found.check.problems, *found.notes))


def spread(step: int = 128) -> list[tuple[float, float, float, float]]:
    """Squares of 10 x 10 pixels, one in each square of a step."""
    return [(top, top + 10, left, left + 10) for top in range(20, SIDE, step) for left in range(20, SIDE, step)]


def test_shares_are_those_of_the_polygons(root: Path) -> None:
    add(root, "roofs", *spread())
    write_classes(root, {"Land": "rest", "Roof": "{layer: roofs}"})
    found = checked(root)
    assert found.check.problems == ()
    assert found.check.counts[[0, 1, 255]].tolist() == [SIDE**2 - 6400, 6400, 0]
    assert "there is no layer area, so that the whole raster is taken for completely labelled: the 99.4 %" in said(
        found
    )
    total = sum(int(pixels.sum()) for pixels in found.parts.pixels.values())
    assert f"{SIDE**2 - total:,} of 1,048,576 labelled pixels" in said(found)
    areas = {part: sum((p.bounds[1] - p.bounds[0]) * (p.bounds[3] - p.bounds[2]) for p in getattr(found.split, part))
             for part in ("train", "validation", "test")}  # fmt: skip
    assert {part: int(pixels.sum()) for part, pixels in found.parts.pixels.items()} == areas


def test_an_area_leaves_the_rest_void(root: Path) -> None:
    add(root, "roofs", *spread())
    add(root, "area", (0, 512, 0, SIDE))
    write_classes(root, {"Land": "rest", "Roof": "{layer: roofs}"})
    found = checked(root, "blocks:256/0")
    assert found.check.counts[[0, 1, 255]].tolist() == [SIDE**2 // 2 - 3200, 3200, SIDE**2 // 2]
    assert "524,288 of 1,048,576 pixels (50.0 %) of ortho.tif are void" in said(found)
    assert "nor scored: 524,288 lie outside of the area." in said(found)
    assert "no layer area" not in said(found)
    bottoms = [p.bounds[1] for p in (*found.split.train, *found.split.validation, *found.split.test)]
    assert max(bottoms) == 512
    assert len(bottoms) == 8


def test_without_area_and_rest_the_share_without_labels_is_said(root: Path) -> None:
    add(root, "roofs", *spread())
    add(root, "roads", (100, 110, 0, SIDE))
    write_classes(root, {"Road": "{layer: roads}", "Roof": "{layer: roofs}"})
    text = said(checked(root, "blocks:256/0"))
    assert f"{SIDE**2 - 6400 - 10 * SIDE:,} of 1,048,576 pixels (98.4 %) of ortho.tif are void" in text
    assert "no class from: rest, so that pixels between features teach nothing" in text


def test_pixels_without_data_are_void(root: Path) -> None:
    values = np.ones((3, SIDE, SIDE), np.uint8)
    values[:, :, 512:] = 0
    write_raster(root / "ortho.tif", SIDE, SIDE, values=values, nodata=0, tiled=True, compress="deflate")
    add(root, "roofs", *spread())
    write_classes(root, {"Land": "rest", "Roof": "{layer: roofs}"})
    found = checked(root, "blocks:256/0")
    assert found.check.counts[[0, 1, 255]].tolist() == [SIDE**2 // 2 - 3200, 3200, SIDE**2 // 2]
    assert {p.bounds[2] for p in (*found.split.train, *found.split.validation, *found.split.test)} == {0, 256}
    assert "are void, which is neither trained on nor scored: 524,288 would have a label, but the raster has no data " \
           "there." in said(found)  # fmt: skip


def test_the_reasons_of_void_pixels_are_told_apart(root: Path) -> None:
    values = np.ones((3, SIDE, SIDE), np.uint8)
    values[:, 100:200, :300] = 0
    write_raster(root / "ortho.tif", SIDE, SIDE, values=values, nodata=0, tiled=True, compress="deflate")
    add(root, "roofs", (0, 512, 0, 256))
    add(root, "walls", (0, 256, 256, 300))
    add(root, "area", (0, 512, 0, 512))
    write_classes(root, {"Wall": "{layer: walls}", "Roof": "{layer: roofs}"})
    outside, bare, unseen = SIDE**2 - 512**2, 512 * 256 - 256 * 44, 100 * 300
    assert (
        f"{outside + bare + unseen:,} of 1,048,576 pixels (89.3 %) of ortho.tif are void, which is neither trained on "
        f"nor scored: {outside:,} lie outside of the area; {bare:,} are covered by no feature; {unseen:,} would have a "
        "label, but the raster has no data there." in said(checked(root, "blocks:256/0"))
    )


def test_what_is_wrong_with_features_is_noted(root: Path) -> None:
    to = transform_of(root)
    bow = shapely.Polygon([to * p for p in ((0, 0), (20, 20), (20, 0), (0, 20))])
    shapes = [*(box(to, *one) for one in spread()), bow, None, box(to, -50, -20, 0, 9), box(to, 500.6, 500.9, 7.1, 7.4)]
    kinds = ["roof"] * 64 + ["roof", "roof", "shed", "roof"]
    write_layer(root / "labels.gpkg", shapes, "areas", kind=kinds)
    write_layer(root / "labels.gpkg", [box(to, 25, 35, 0, SIDE)], "roads")
    write_layer(root / "labels.gpkg", [box(to, 90, 99, 0, SIDE)], "aoi")
    write_classes(
        root, {"Land": "rest", "Roof": "{layer: areas, field: kind, values: [roof, tower]}", "Road": "{layer: roads}"}
    )
    found = checked(root)
    assert found.check.problems == ()
    text = said(found)
    name = f"{root / 'labels.gpkg'} (layer areas): "
    for line in (
        f"{name}1 geometries are not valid and are mended (feature 65: Self-intersection[500010 4999990]).",
        f"{name}1 features have no geometry.",
        f"{name}1 of 68 features lie outside of the raster.",
        f"{name}1 polygons are smaller than a pixel",
        f"{name}no class takes the features with kind = shed (1); they are not drawn: what they cover alone is Land.",
        f"{name}class Roof takes kind = tower, which no feature has.",
        f"{root / 'labels.gpkg'} (layer aoi): no class takes its 1 features, and they are not drawn",
        "Road covers Roof on 400 pixels (400 m2); the order of the classes file decides.",  # 8 roofs of 5 x 10
    ):
        assert line in text, line


def far(root: Path) -> None:
    write_layer(root / "labels.gpkg", [shapely.box(LEFT + 5000, TOP, LEFT + 6000, TOP + 50)], "roofs")


def empty(root: Path) -> None:
    write_layer(root / "labels.gpkg", [None, shapely.Polygon()], "roofs")


def other_value(root: Path) -> None:
    add(root, "roofs", *spread(), kind=["a"] * 64)
    write_classes(root, {"Land": "rest", "Roof": "{layer: roofs, field: kind, values: [b, c]}"})


def below_pixels(root: Path) -> None:
    add(root, "roofs", (10.6, 10.9, 10.6, 10.9))


def outside_area(root: Path) -> None:
    add(root, "roofs", (10, 20, 10, 20))
    add(root, "area", (30, 100, 30, 1000))


def area_elsewhere(root: Path) -> None:
    add(root, "roofs", *spread())
    write_layer(root / "area.gpkg", [shapely.box(0, 0, 1, 1)])


def area_of_lines(root: Path) -> None:
    add(root, "roofs", *spread())
    write_layer(root / "area.gpkg", [shapely.LineString([(LEFT, TOP), (LEFT + 100, TOP - 100)])])


def one_class(root: Path) -> None:
    add(root, "roofs", *spread())
    write_classes(root, {"Roof": "{layer: roofs}"})


def no_buffer(root: Path) -> None:
    points = [shapely.Point(LEFT + left, TOP - top) for top, _, left, _ in spread()]  # one in each window and more
    write_layer(root / "labels.gpkg", [*points, shapely.Point(LEFT - 99, TOP)], "roofs")


PROBLEMS: list[tuple[Callable[[Path], None], str]] = [
    (far, "no feature lies in the raster. In its CRS, ortho.tif covers x 500000 to 501024, y 4998976 to 5000000, and "
          "the features x 505000 to 506000, y 5000000 to 5000050."),
    (empty, "no feature lies in the raster"),
    (other_value, "class Roof takes kind = b, c, which no feature has."),
    (below_pixels, "Roof: no pixel of the raster has this class"),
    (outside_area, "Roof: no pixel of the raster has this class"),
    (area_elsewhere, "area.gpkg (layer area): no feature lies in the raster"),
    (area_of_lines, "area.gpkg (layer area): 1 features are lines or points, or hold some, which cover no pixel "
                    "(feature 1 is a LineString). Draw polygons."),
    (one_class, "Roof is the only class: a network that answers nothing else scores 100 %"),
    (no_buffer, "64 features of class Roof are lines or points, or hold some, which cover no pixel (feature 1 is a "
                "Point). Give Roof a width in the classes file: from: {layer: roofs, buffer: METRES}."),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), PROBLEMS, ids=[make.__name__ for make, _ in PROBLEMS])
def test_problems_are_named(root: Path, make: Callable[[Path], None], message: str) -> None:
    write_classes(root, {"Land": "rest", "Roof": "{layer: roofs}"})
    make(root)
    found = checked(root)
    assert found.split is None
    assert sum(message in problem for problem in found.check.problems) == 1, said(found)


def test_other_spellings_of_values_are_problems(root: Path) -> None:
    written = ["roof"] * 58 + ["Roof", " roof ", "1000001", "no", "10", "cafe\u0301"]
    add(root, "roofs", *spread(), kind=written)
    values = {"Roof": "[roof]", "Code": "[1000002.0, 1000001.0, '10.0']", "Without": "[no]", "Bar": "[caf\u00e9]"}
    write_classes(root, {name: f"{{field: kind, values: {one}}}" for name, one in values.items()} | {"Land": "rest"})
    found = [line for line in checked(root).check.problems if " features have " in line]
    told = [line.partition("1 features have kind = ")[2].partition(":")[0] for line in found]
    assert sorted(told) == [
        "' roof ', and class Roof takes kind = roof",
        "10, and class Code takes kind = 10.0",
        "Roof, and class Roof takes kind = roof",
        "cafe\u0301, and class Bar takes kind = caf\u00e9",
        "no, and class Without takes kind = false",
    ]


def no_classes(root: Path) -> None:
    (root / "classes.yaml").unlink()


def classes_of_masks(root: Path) -> None:
    (root / "classes.yaml").write_text("classes: [{name: Land}, {name: Roof}]")


def some_without(root: Path) -> None:
    (root / "classes.yaml").write_text("classes: [{name: Land}, {name: Roof, from: {layer: roofs}}]")


def two_files(root: Path) -> None:
    write_layer(root / "labels.geojson", [shapely.box(0, 0, 1, 1)])


def no_raster(root: Path) -> None:
    (root / "ortho.tif").unlink()


def no_vector(root: Path) -> None:
    (root / "labels.gpkg").write_bytes(b"SQLite format 3\0" + b"x" * 2000)


def another_kind(root: Path) -> None:
    (root / "labels.gpkg").write_bytes(b"<OGRVRTDataSource><OGRVRTLayer/></OGRVRTDataSource>")


def a_virtual_table(root: Path) -> None:
    with sqlite3.connect(root / "labels.gpkg") as file:
        file.execute("create virtual table notes using fts4(text)")


def not_georeferenced(root: Path) -> None:
    write_raster(root / "ortho.tif", 10, 10, crs=None)


def another_name(root: Path) -> None:
    (root / "labels.gpkg").rename(root / "roofs.gpkg")


def unknown_kind(root: Path) -> None:
    (root / "labels.gpkg").rename(root / "labels.gml")


REFUSED: list[tuple[Callable[[Path], None], str]] = [
    (no_classes, "has no classes.yaml"),
    (no_classes, "layer roofs: 64 features; attributes kind"),
    (classes_of_masks, "give each class a from"),
    (some_without, "class Land has no from, others have"),
    (two_files, "labels.geojson and labels.gpkg"),
    (no_raster, "no raster directly in it"),
    (no_vector, "cannot be read as a GeoPackage"),
    (another_kind, "does not begin as a file of GPKG"),
    (a_virtual_table, "its table notes is a virtual one"),
    (not_georeferenced, "has no CRS with a transform"),
    (another_name, "If roofs.gpkg holds features that label a raster, call it labels.gpkg."),
    (unknown_kind, "If labels.gml holds features that label a raster: ogr2ogr labels.gpkg labels.gml"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_maps_that_cannot_be_read_are_refused(root: Path, make: Callable[[Path], None], message: str) -> None:
    add(root, "roofs", *spread(), kind=["a"] * 64)
    write_classes(root, {"Land": "rest", "Roof": "{layer: roofs}"})
    make(root)
    with pytest.raises(UserError, match=message):
        checked(root)


def test_a_vrt_goes_before_the_files_it_is_made_of(root: Path) -> None:
    add(root, "roofs", *spread())
    write_classes(root, {"Land": "rest", "Roof": "{layer: roofs}"})
    to = transform_of(root)
    (root / "map.vrt").write_text(
        f"<VRTDataset rasterXSize='{SIDE}' rasterYSize='{SIDE}'><SRS>EPSG:32633</SRS>"
        f"<GeoTransform>{to.c},{to.a},0,{to.f},0,{to.e}</GeoTransform>"
        + "".join(
            f"<VRTRasterBand dataType='Byte' band='{band}'><SimpleSource><SourceFilename relativeToVRT='1'>ortho.tif"
            f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
            for band in (1, 2, 3)
        )
        + "</VRTDataset>"
    )
    found = checked(root)
    assert found.check.problems == ()
    assert {record.pair.image.name for record in found.check.records} == {"map.vrt"}
    write_raster(root / "stray.tif", 300, 300, origin=(LEFT + 1000, TOP))
    assert {record.pair.image.name for record in checked(root).check.records} == {"map.vrt", "stray.tif"}


def test_masks_go_before_features_as_they_always_did(tmp_path: Path) -> None:
    from PIL import Image

    for place in range(4):
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / f"{place}.png")
        mask = np.zeros((40, 40), np.uint8)
        mask[:20] = 1
        Image.fromarray(mask).save(tmp_path / f"{place}_mask.png")
    (tmp_path / "labels.gpkg").write_bytes(b"anything")
    (tmp_path / "classes.yaml").write_text("classes: [{name: a}, {name: b}]")
    found = check(data=tmp_path)
    assert len(found.check.records) == 4
    assert f"{tmp_path / 'labels.gpkg'} is not used: there are masks, and they win." in found.notes


def test_a_raster_in_compressed_strips_is_copied_into_tiles(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raster(root / "ortho.tif", 64, 5000, compress="deflate", tiled=False)
    add(root, "roofs", (0, 30, 0, 5000))
    write_classes(root, {"Land": "rest", "Roof": "{layer: roofs}"})
    with rasterio.open(root / "ortho.tif") as file:
        values = file.read()
    found = check(data=root, split="blocks")
    assert "ortho.tif is compressed in blocks of 5,000 x" in said(found)
    assert "So this command made a tiled copy of 1 MB in" in said(found)
    monkeypatch.setattr(picture, "open_source", lambda *_: pytest.fail("the strips are decoded again"))
    for record in found.check.records:
        top, bottom, left, right = record.pair.bounds or (0, 0, 0, 0)
        image = picture.read_whole(record.pair.image, record.pair.bounds).image
        assert np.array_equal(image.transpose(2, 0, 1), values[:, top:bottom, left:right])


def test_strips_are_not_copied_for_a_small_area(root: Path) -> None:
    write_raster(root / "ortho.tif", 64, 5000, compress="deflate", tiled=False)
    add(root, "roofs", (0, 30, 0, 5000))
    add(root, "area", (0, 64, 0, 500))  # two of twenty windows
    write_classes(root, {"Land": "rest", "Roof": "{layer: roofs}"})
    assert "A tiled copy is read faster: gdal_translate" in said(check(data=root, split="blocks:256/0"))
