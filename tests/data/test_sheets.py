"""Maps of several rasters: labels of each, and that no ground is in two parts of a split."""

import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine

from skystill.api import check
from skystill.classes import read_classes
from skystill.data import Pair, Split, find_named, find_pairs, read_pair, split_pairs
from skystill.data.map_check import check_map
from skystill.data.map_rest import count_rest, find_rest
from skystill.data.maps import block_of
from skystill.data.pairs import count_known
from skystill.data.prepare import CheckedData
from skystill.data.split import PARTS
from skystill.data.split_map import split_map
from skystill.data.unlabeled import find_unlabeled
from skystill.errors import SettingsError, UserError
from skystill.report import map_overview
from skystill.report.check_page import write_check_page
from tests.maps import LEFT, TOP, UTM, write_classes, write_layer, write_raster

SIDE, PIXEL = 520, 0.5
OTHER = "EPSG:32632"  # the zone to the west


def moved(shape: Any, source: str, target: str) -> Any:
    to = pyproj.Transformer.from_crs(source, target, always_xy=True)
    return shapely.transform(shape, lambda points: np.stack(to.transform(*points.T), axis=1))


def placed(crs: str, x: float, y: float, pixel: float = PIXEL, turn: float = 0.0) -> Affine:
    """The transform of a raster whose upper left corner is x and y metres from that of the map."""
    (east, north), (further, _) = (
        moved(shapely.Point(LEFT + x + far, TOP - y), UTM, crs).coords[0] for far in (0.0, pixel)
    )
    side = further - east if crs == "EPSG:4326" else pixel
    down = moved(shapely.Point(LEFT + x, TOP - y - pixel), UTM, crs).y - north if crs == "EPSG:4326" else -pixel
    return Affine.translation(east, north) * Affine.rotation(turn) * Affine.scale(side, down)


ALIKE = [(UTM, 0, 0), (UTM, 230, 0), (UTM, 0, 250), (UTM, 230.2, 260.3)]
MIXED = [(UTM, 0, 0), (OTHER, 200, 10), ("EPSG:4326", 30, 220), (UTM, 250, 260, 0.4, 20.0), ("EPSG:3857", 420, 0, 0.7)]


def make(root: Path, sheets: Sequence[Sequence[Any]], **more: Any) -> Path:
    """A map of some rasters, and roofs of 8 x 8 m every 40 m."""
    for number, (crs, *place) in enumerate(sheets):
        write_raster(root / f"sheet_{number}.tif", SIDE, SIDE, crs=crs, transform=placed(crs, *place), **more)
    roofs = [shapely.box(LEFT + x, TOP - y - 8, LEFT + x + 8, TOP - y)
             for x in range(-60, 700, 40) for y in range(-60, 600, 40)]  # fmt: skip
    write_layer(root / "labels.gpkg", roofs, "roofs")
    write_classes(root, {"Land": "rest", "Roof": "{layer: roofs}"})
    return root


def outline(pair: Pair, image: Path | None = None) -> Any:
    """What a window shows of the ground, in the CRS of the map."""
    with rasterio.open(image or pair.image) as file:
        top, bottom, left, right = pair.bounds or (0, 0, 0, 0)
        corners = shapely.segmentize(shapely.box(left, top, right, bottom), 8)
        ground = shapely.transform(corners, lambda p: np.stack(file.transform * (p[:, 0], p[:, 1]), axis=1))
        return moved(ground, file.crs.to_wkt(), UTM)


def apart(split: Split) -> list[tuple[Any, Any]]:
    """What windows of different parts show of the ground, each with each."""
    ground = {part: [outline(pair) for pair in getattr(split, part)] for part in PARTS}
    return [
        both
        for one, other in itertools.combinations(PARTS, 2)
        for both in itertools.product(ground[one], ground[other])
    ]


def nearest(split: Split) -> float:
    """Metres between the windows of different parts that are nearest to each other."""
    return min(shapely.distance(one, other) for one, other in apart(split))


def shared(split: Split) -> float:
    """The largest area in square metres that windows of two parts show both."""
    return max(shapely.area(shapely.intersection(one, other)) for one, other in apart(split))


def checked(root: Path, how: str = "blocks:128/20") -> CheckedData:
    return check(data=root, split=how)


@pytest.mark.parametrize("sheets", [ALIKE, MIXED], ids=["alike", "mixed"])
def test_each_raster_has_the_labels_of_its_place(tmp_path: Path, sheets: Sequence[Sequence[Any]]) -> None:
    make(tmp_path, sheets)
    classes = read_classes(tmp_path / "classes.yaml")
    pairs = find_pairs(tmp_path).pairs
    assert {pair.image.stem for pair in pairs} == {f"sheet_{number}" for number in range(len(sheets))}
    roofs = shapely.MultiPolygon([shapely.box(LEFT + x, TOP - y - 8, LEFT + x + 8, TOP - y)
                                  for x in range(-60, 700, 40) for y in range(-60, 600, 40)])  # fmt: skip
    for image in {pair.image for pair in pairs}:
        labels = np.zeros((SIDE, SIDE), np.uint8)
        for pair in [pair for pair in pairs if pair.image == image]:
            top, bottom, left, right = pair.bounds
            labels[top:bottom, left:right] = read_pair(pair, classes)[1].labels
        with rasterio.open(image) as file:
            expected = rasterize([moved(roofs, UTM, file.crs.to_wkt())], (SIDE, SIDE), transform=file.transform)
        assert (labels != expected).sum() <= 2  # a centre on an edge
        assert 0.02 < labels.mean() < 0.08


@pytest.mark.parametrize("how", ["blocks:128/20", "blocks", "blocks:200/0"])
@pytest.mark.parametrize("sheets", [ALIKE, MIXED], ids=["alike", "mixed"])
def test_no_ground_is_in_two_parts(tmp_path: Path, sheets: Sequence[Sequence[Any]], how: str) -> None:
    found = checked(make(tmp_path, sheets), how)
    assert found.check.problems == ()
    split = found.split
    assert all(getattr(split, part) for part in PARTS)
    assert len({pair.image for part in PARTS for pair in getattr(split, part)}) == len(sheets)
    gap_m = {"blocks:128/20": 20, "blocks:200/0": 0}.get(how, 128 * PIXEL)
    assert nearest(split) >= 0.99 * gap_m - 0.01 and shared(split) < PIXEL**2
    assert any("rasters show the same ground (sheet_0.tif and sheet_1.tif, " in note for note in found.notes)


def test_windows_of_different_rasters_share_a_block(tmp_path: Path) -> None:
    found = checked(make(tmp_path, [(UTM, 0, 0), (UTM, 64, 0), (UTM, 300, 0)]), "blocks:128/0")
    windows = [pair for part in PARTS for pair in getattr(found.split, part)]
    assert all(pair.key.startswith(f"{pair.image.stem}/map#") for pair in windows)
    parts: dict[str, set[str]] = {}
    rasters: dict[str, set[str]] = {}
    for part in PARTS:
        for pair in getattr(found.split, part):
            parts.setdefault(block_of(pair.key), set()).add(part)
            rasters.setdefault(block_of(pair.key), set()).add(pair.image.stem)
    assert all(len(one) == 1 for one in parts.values())
    assert {"sheet_0", "sheet_1"} in rasters.values()
    assert found.parts.images == {part: len({block_of(p.key) for p in getattr(found.split, part)}) for part in PARTS}
    assert json.loads(json.dumps(split_map(found.split)))["features"][0]["properties"]["block"].startswith("map#")


def test_a_split_of_rasters_is_read_again(tmp_path: Path) -> None:
    split = checked(make(tmp_path, MIXED)).split
    (tmp_path / "again").mkdir()
    (tmp_path / "again/split.json").write_text(json.dumps(split.to_dict()), encoding="utf-8")
    pairs = find_pairs(tmp_path).pairs
    assert split_pairs(pairs, str(tmp_path / "again/split.json")) == split
    assert count_known(split.test, [pair.key for pair in split.train], pairs) == 0
    assert count_known(split.test, [pair.key for pair in pairs], pairs) == len(split.test)
    assert find_named(pairs, ["sheet_9[000:256,000:256]", "sheet_0/map[000:256,000:256]/x", "sheet_0#x"]) == {}


def test_a_file_that_puts_the_same_ground_in_two_parts_is_refused(tmp_path: Path) -> None:
    make(tmp_path, [(UTM, 0, 0), (OTHER, 60, 0)])
    parts = {"train": ["sheet_0[000:256,000:256]"], "test": ["sheet_1[000:256,000:256]"]}  # half of it is shared
    (tmp_path / "split.json").write_text(json.dumps(parts), encoding="utf-8")
    with pytest.raises(SettingsError, match="1 test windows overlap"):
        split_pairs(find_pairs(tmp_path).pairs, str(tmp_path / "split.json"))


def test_a_layer_split_decides_for_all_rasters(tmp_path: Path) -> None:
    make(tmp_path, MIXED)
    shapes = [shapely.box(LEFT + left, TOP - 900, LEFT + right, TOP + 200)
              for left, right in ((-100, 205), (205, 390), (390, 900))]  # fmt: skip
    write_layer(tmp_path / "split.gpkg", shapes, split=["train", "validation", "test"])
    split = checked(tmp_path).split
    for part, shape in zip(PARTS, shapes, strict=True):
        assert getattr(split, part)
        assert all(shape.buffer(0.1).covers(outline(pair)) for pair in getattr(split, part))
    assert shared(split) < PIXEL**2


def test_the_rest_keeps_away_from_what_other_rasters_show(tmp_path: Path) -> None:
    make(tmp_path, [(UTM, 0, 0), (UTM, 130, 0), (UTM, 900, 0)])  # the first two share half of their ground
    write_layer(tmp_path / "area.gpkg", [shapely.box(LEFT, TOP - 140, LEFT + 500, TOP)])
    search = find_pairs(tmp_path)
    found = check_map(search, read_classes(tmp_path / "classes.yaml"))
    split = split_pairs(search.pairs, "blocks:128/10", areas=found.areas_of)
    rest = find_rest(found, split)
    assert {window.path.stem for window in rest} == {"sheet_0", "sheet_1", "sheet_2"}
    held = shapely.union_all([outline(pair) for pair in (*split.validation, *split.test)])
    away = [outline(Pair("", window.path, window.path, bounds=window.bounds)) for window in rest]
    assert min(shapely.distance(held, one) for one in away) >= 128 * PIXEL - 0.01
    labeled = shapely.box(LEFT, TOP - 140, LEFT + 500, TOP)
    exact = sum(one.difference(labeled).area for one in away) / PIXEL**2
    assert count_rest(found, split).pixels == pytest.approx(exact, rel=1e-6)
    again = find_unlabeled([tmp_path], [*split.validation, *split.test], find_rest=lambda: rest, maps=found.maps)
    assert again == rest  # no raster of the map is taken for another image, though the last one is in no part


def test_what_is_said_of_rasters(tmp_path: Path) -> None:
    make(tmp_path, [(UTM, 0, 0), (UTM, 300, 0), (UTM, 3000, 0), (UTM, 3300, 0)])
    found = checked(tmp_path)
    text = "\n".join(found.notes)
    assert "no feature covers a pixel of 2 of 4 rasters: sheet_2.tif, sheet_3.tif. All that counts of sheet_2.tif, " \
           "sheet_3.tif is Land (from: rest)." in text  # fmt: skip
    assert "show the same ground" not in text
    assert found.check.problems == ()


def test_the_page_draws_some_of_many_rasters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, ALIKE)
    monkeypatch.setattr(map_overview, "_MOST", 3)
    write_check_page(tmp_path / "check.html", tmp_path, checked(tmp_path))
    page = (tmp_path / "check.html").read_text(encoding="utf-8")
    assert re.findall(r"Overview of (\w+\.tif)", page) == ["sheet_0.tif", "sheet_1.tif", "sheet_2.tif"]
    assert "3 of 4 rasters are drawn." in page
    assert "sheet_0.tif, sheet_1.tif, sheet_2.tif, and 1 more: 16 windows" in page


def without_crs(root: Path) -> None:
    write_raster(root / "sheet_1.tif", 40, 40, crs=None, transform=Affine.scale(2, -2))


def two_without_crs(root: Path) -> None:
    without_crs(root)
    write_raster(root / "sheet_2.tif", 40, 40, crs=None, transform=Affine.scale(2, -2))


def damaged(root: Path) -> None:
    (root / "sheet_1.tif").write_bytes(b"II*\0" + b"x" * 400)


def alone_and_damaged(root: Path) -> None:
    (root / "sheet_0.tif").unlink()
    damaged(root)


def coarse(root: Path) -> None:
    write_raster(root / "sheet_1.tif", 300, 300, 1.1, origin=(LEFT + 300, TOP))


def same_name(root: Path) -> None:
    (root / "sheet_0.jp2").write_bytes((root / "sheet_0.tif").read_bytes())


def nothing_near(root: Path) -> None:
    (root / "labels.gpkg").unlink()
    write_layer(root / "labels.gpkg", [shapely.box(LEFT + 5000, TOP, LEFT + 5010, TOP + 50)], "roofs")


REFUSED = [
    (without_crs, r"sheet_1\.tif has no CRS with a transform"),
    (two_without_crs, r"2 of 3 rasters cannot be used:\n.*sheet_1\.tif has no CRS.*\n.*sheet_2\.tif has no CRS"),
    (damaged, r"sheet_1\.tif: cannot be opened as a raster \("),
    (alone_and_damaged, r"sheet_1\.tif: cannot be opened as a raster \("),
    (coarse, r"sheet_0\.tif has 0\.5 m per pixel, and sheet_1\.tif 1\.1 m: the rasters of a map may differ by a factor "
             r"of 2\. .*gdalwarp -tr"),
    (same_name, r"the same name but for folder or extension: .*sheet_0\.jp2, .*sheet_0\.tif"),
    (nothing_near, r"no feature lies in any raster\. In the CRS of sheet_0\.tif, the 2 rasters cover x 500000 to "
                   r"500560, y 4999740 to 5000000, and the features x 505000 to 505010"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), REFUSED, ids=[spoil.__name__ for spoil, _ in REFUSED])
def test_rasters_that_make_no_map_are_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    make(tmp_path, [(UTM, 0, 0), (UTM, 300, 0)])
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        checked(tmp_path).check.raise_problems(tmp_path)


def test_rasters_on_both_sides_of_the_antimeridian(tmp_path: Path) -> None:
    side = 2e-5
    for name, west in (("a", 180 - 300 * side), ("b", -180 - 300 * side), ("c", -180 + 100 * side)):
        write_raster(tmp_path / f"{name}.tif", SIDE, SIDE, crs="EPSG:4326",
                     transform=Affine(side, 0, west, 0, -side, 10))  # fmt: skip
    places = [180 + x * side for x in range(-300, 600, 40)]
    roofs = [shapely.box(x - 360 * (x > 180), 10 - y * side, x - 360 * (x > 180) + 9 * side, 10 - (y - 9) * side)
             for x in places for y in range(20, 500, 40)]  # fmt: skip
    write_layer(tmp_path / "labels.gpkg", roofs, "roofs", "EPSG:4326")
    write_classes(tmp_path, {"Land": "rest", "Roof": "{layer: roofs}"})
    search = find_pairs(tmp_path)
    split = checked(tmp_path, "blocks:570/30").split
    ground = {
        part: [
            shapely.box(*(((180 - 300 * side if p.image.stem in "ab" else 180 + 100 * side) + column * side) % 360
                          if which else -row * side for which, row, column in
                          ((1, 0, p.bounds[2]), (0, p.bounds[1], 0), (1, 0, p.bounds[3]), (0, p.bounds[0], 0))))
            for p in getattr(split, part)
        ]
        for part in PARTS
    }  # fmt: skip
    assert len(search.pairs) == 12 and math.isclose(side * 111_320, 2.2264)
    for one, other in itertools.combinations(PARTS, 2):
        for a, b in itertools.product(ground[one], ground[other]):
            assert shapely.distance(a, b) >= 13 * side  # 30 m are 13.5 pixels
