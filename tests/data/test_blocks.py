"""Splits of maps in space: the gap, the parts, the keys, and the layer split."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skystill.classes import read_classes
from skystill.data import Pair, Split, find_named, find_pairs, mask_areas, split_pairs
from skystill.data.blocks import with_gap
from skystill.data.maps import block_of, map_windows, window_key, window_of
from skystill.data.pairs import count_known, sheets_of
from skystill.data.split import PARTS
from skystill.data.split_map import split_map
from skystill.errors import DataError, SettingsError
from tests.maps import box, write_classes, write_layer, write_raster


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A map of 2,048 x 2,048 pixels of half a metre: 8 x 8 windows of 256. Roofs lie in the upper left quarter."""
    values = np.zeros((3, 2048, 2048), np.uint8)
    transform = write_raster(tmp_path / "ortho.tif", 2048, 2048, 0.5, values=values, tiled=True, compress="deflate")
    roofs = [
        box(transform, top, top + 40, left, left + 40) for top in range(20, 900, 180) for left in range(20, 900, 150)
    ]
    write_layer(tmp_path / "labels.gpkg", roofs, "roofs")
    write_classes(tmp_path, {"Land": "rest", "Roof": "{layer: roofs}"})
    return tmp_path


def split_of(root: Path, how: str, seed: int = 0) -> Split:
    classes = read_classes(root / "classes.yaml")
    return split_pairs(find_pairs(root).pairs, how, seed, lambda pairs: mask_areas(pairs, classes))


def distances(split: Split) -> list[tuple[int, int]]:
    """Rows and columns between all windows of different parts; negative where they overlap."""
    found = []
    for one, other in itertools.combinations(PARTS, 2):
        for a, b in itertools.product(getattr(split, one), getattr(split, other)):
            found.append((max(a.bounds[0], b.bounds[0]) - min(a.bounds[1], b.bounds[1]),
                          max(a.bounds[2], b.bounds[2]) - min(a.bounds[3], b.bounds[3])))  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("height", "width", "side", "count"),
    [(60_000, 60_000, 1024, 59 * 59), (8192, 8192, 1024, 64), (8000, 8000, 1024, 64), (4096, 4096, 512, 64),
     (1500, 1500, 256, 36), (100, 100, 256, 1), (300, 10_000, 256, 39), (1, 1, 256, 1)],
)  # fmt: skip
def test_windows_cover_a_raster_once(height: int, width: int, side: int, count: int) -> None:
    (windows,) = map_windows((height, width))
    assert len(windows) == count
    assert sum((bottom - top) * (right - left) for top, bottom, left, right in windows) == height * width
    assert all(top % side == 0 and left % side == 0 for top, _, left, _ in windows)
    assert all(bottom - top < 1.5 * side and right - left < 1.5 * side for top, bottom, left, right in windows)
    keys = [window_key("ortho", bounds, (height, width)) for bounds in windows]
    assert keys == sorted(keys)
    assert [window_of(key) for key in keys] == [("ortho", bounds) for bounds in windows]


@pytest.mark.parametrize(("how", "rows"), [("auto", 128), ("blocks", 128), ("blocks:128", 128), ("blocks:256/30", 60),
                                           ("blocks:128/0", 0), ("blocks:100.5/7.3", 15)])  # fmt: skip
def test_parts_are_never_closer_than_the_gap(root: Path, how: str, rows: int) -> None:
    split = split_of(root, how)
    assert all(getattr(split, part) for part in PARTS)
    assert all(max(apart) >= rows for apart in distances(split))
    assert min(max(apart) for apart in distances(split)) == rows  # and no farther than that


windows = st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from(PARTS))


@given(
    st.lists(windows, min_size=2, max_size=36, unique_by=lambda one: one[:2]), st.integers(0, 90), st.integers(0, 90)
)
@settings(max_examples=60, deadline=None)
def test_the_gap_holds_for_any_parts(made: Sequence[tuple[int, int, str]], down: int, across: int) -> None:
    placed = [
        (
            Pair(
                "x[000:100,000:100]",
                Path("x"),
                Path("x"),
                bounds=(100 * row, 100 * row + 100, 100 * column, 100 * column + 100),
            ),
            part,
        )
        for row, column, part in made
    ]
    kept = with_gap(placed, (down, across), sheets_of(pair for pair, _ in placed))
    split = Split("", *(tuple(pair for pair, where in kept if where == part) for part in PARTS))
    assert all(rows >= down or columns >= across for rows, columns in distances(split))
    before = {pair.bounds for pair, part in placed if part == "test"}
    assert {pair.bounds for pair in split.test} == before
    for pair, part in kept:
        own = [p.bounds for p, where in placed if where == part]
        assert any(o[0] <= pair.bounds[0] < pair.bounds[1] <= o[1] and o[2] <= pair.bounds[2] < pair.bounds[3] <= o[3]
                   for o in own)  # fmt: skip


def test_a_split_depends_on_the_seed_and_spreads_the_classes(root: Path) -> None:
    one, same, other = split_of(root, "blocks"), split_of(root, "blocks"), split_of(root, "blocks", 1)
    assert one == same
    assert one.to_dict() != other.to_dict()
    classes = read_classes(root / "classes.yaml")
    for split in (one, other):
        assert all((mask_areas(getattr(split, part), classes).sum(axis=0) > 0).all() for part in PARTS)


def test_blocks_hold_whole_windows(root: Path) -> None:
    split = split_of(root, "blocks:256")  # 512 pixels: 2 x 2 windows
    parts: dict[str, set[str]] = {}
    for part in PARTS:
        for pair in getattr(split, part):
            parts.setdefault(block_of(pair.key), set()).add(part)
    assert all(len(found) == 1 for found in parts.values())
    assert len(parts) == 16
    assert {pair.bounds[0] // 512 for pair in split.test if block_of(pair.key).startswith("ortho#01-")} <= {1}


def test_a_block_smaller_than_a_window_is_refused(root: Path) -> None:
    with pytest.raises(SettingsError, match=r"a block of 20 m is smaller than a window, which has 128 m. Give 128 or"):
        split_of(root, "blocks:20/5")


@pytest.mark.parametrize("how", ["0.7/0.15/0.15", "block", "blocks:", "blocks:a", "blocks:10/", "blocks:-5", "auto:5"])
def test_other_splits_of_a_map_are_refused(root: Path, how: str) -> None:
    with pytest.raises(SettingsError, match="blocks:SIDE/GAP"):
        split_of(root, how)


def test_a_split_is_read_again_from_its_keys(root: Path, tmp_path: Path) -> None:
    split = split_of(root, "blocks:128/40")
    (tmp_path / "split.json").write_text(json.dumps(split.to_dict()), encoding="utf-8")
    again = split_of(root, str(tmp_path / "split.json"))
    assert again == split


@pytest.mark.parametrize(
    "key", ["ortho[0000:0256,0000:9999]", "other[0000:0256,0000:0256]",
            "other#00-00[0000:0256,0000:0256]", "ortho[0256:0256,0000:0256]", "ortho", "",
            "ortho[0:256,0:256]", "ortho#1[0000:0256,0000:0256]"],
)  # fmt: skip
def test_keys_of_no_window(root: Path, key: str) -> None:
    assert find_named(find_pairs(root).pairs, [key]) == {}


def test_a_file_whose_parts_overlap_is_refused(root: Path, tmp_path: Path) -> None:
    parts = {"train": ["ortho[0000:0256,0000:0256]"], "test": ["ortho[0255:0300,0255:0300]"]}
    (tmp_path / "split.json").write_text(json.dumps(parts), encoding="utf-8")
    with pytest.raises(SettingsError, match="1 test windows overlap with windows of other parts"):
        split_of(root, str(tmp_path / "split.json"))


def test_windows_that_overlap_are_known(root: Path) -> None:
    pairs = find_pairs(root).pairs
    assert count_known(pairs, ["ortho#00-00[0200:0300,0000:0100]"]) == 2
    assert count_known(pairs, ["ortho#00-00[0256:0300,0000:0100]"]) == 1
    assert count_known(pairs, ["elsewhere"]) == 0


def test_a_layer_split_decides(root: Path) -> None:
    transform = write_raster(root / "small.tif", 1, 1, 0.5)
    (root / "small.tif").unlink()
    shapes = [
        box(transform, 0, 2048, 0, 1024),
        box(transform, 0, 1024, 1100, 2048),
        box(transform, 1024, 2048, 1100, 2048),
    ]
    write_layer(root / "split.geojson", shapes, split=["train", "val", "Test "])
    split = split_of(root, "blocks:256")
    assert split.rule == f"by {root / 'split.geojson'} (layer split)"
    assert {pair.bounds[2] for pair in split.train} == {0, 256, 512, 768}
    assert {pair.bounds[2] for pair in split.validation} == {
        1280,
        1536,
        1792,
    }  # the window from 1,024 on is cut by 1,100
    assert {pair.bounds[0] for pair in split.test} == {1024, 1280, 1536, 1792}
    assert len({block_of(pair.key) for pair in split.train}) == len(split.train) == 32


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"split": ["train", "tset"]}, "split is tset; train, validation or test"), ({}, "it has no attributes"),
     ({"a": ["train", "test"], "b": ["x", "y"]}, "it has a, b"), ({"part": ["train", None]}, "part is null")],
)  # fmt: skip
def test_a_layer_that_says_no_part_is_refused(root: Path, fields: dict[str, list[str]], message: str) -> None:
    transform = find_transform(root)
    write_layer(root / "split.fgb", [box(transform, 0, 1024, 0, 2048), box(transform, 1024, 2048, 0, 2048)], **fields)
    with pytest.raises(DataError, match=message):
        split_of(root, "auto")


def find_transform(root: Path):  # noqa: ANN201
    import rasterio

    with rasterio.open(root / "ortho.tif") as file:
        return file.transform


def test_the_split_is_a_map(root: Path) -> None:
    import pyproj
    import shapely

    split = split_of(root, "blocks:256/20")
    written = split_map(split)
    assert len(written["features"]) == sum(len(getattr(split, part)) for part in PARTS)
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True)
    first, pair = written["features"][0], split.train[0]
    assert first["properties"] == {"part": "train", "key": pair.key, "block": block_of(pair.key)}
    shape = shapely.from_geojson(json.dumps(first["geometry"]))
    assert shape.exterior.is_ccw
    back = shapely.transform(shape, lambda p: np.stack(to_utm.transform(*p.T), axis=1))
    assert back.area == pytest.approx(shapely.box(0, 0, 0.5 * (pair.bounds[3] - pair.bounds[2]),
                                                  0.5 * (pair.bounds[1] - pair.bounds[0])).area, rel=1e-4)  # fmt: skip
    assert back.symmetric_difference(box(find_transform(root), *pair.bounds)).area < 1
