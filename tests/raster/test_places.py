"""Damaged places: neighbours are one place, each pixel counts once, and the record of them stays small."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from skystill.errors import RunFolderError
from skystill.raster.damage import DamageRecord
from skystill.raster.places import Places
from skystill.raster.source import RasterSource, gdal_environment


def test_places_that_touch_or_overlap_are_one() -> None:
    places = Places([(0, 10, 0, 5), (20, 30, 0, 5), (0, 10, 5, 9)])
    assert (places.all(), places.pixels) == ([(0, 10, 0, 5), (0, 10, 5, 9), (20, 30, 0, 5)], 140)
    places.add((20, 30, 0, 5))
    places.add((22, 25, 0, 5))
    assert places.pixels == 140
    places.add((8, 20, 0, 5))
    assert (places.all(), places.pixels) == ([(0, 30, 0, 5), (0, 10, 5, 9)], 190)
    assert places.names() == ["rows 0 to 29, columns 0 to 4", "rows 0 to 9, columns 5 to 8"]


def test_places_are_those_of_a_mask() -> None:
    random = np.random.default_rng(4)
    mask, places = np.zeros(300, bool), Places()
    for top in random.integers(0, 280, 60):
        bottom = int(top + random.integers(1, 20))
        mask[top:bottom] = True
        places.add((int(top), bottom, 3, 4))
        assert places.pixels == mask.sum()
    edges = np.flatnonzero(np.diff(np.pad(mask, 1).astype(int))).reshape(-1, 2)
    assert places.all() == [(int(top), int(bottom), 3, 4) for top, bottom in edges]


def sparse(path: Path, rows: int) -> Path:
    """A TIFF of one column, with a block for each pixel, of which none can be read."""
    profile = {"driver": "GTiff", "width": 1, "height": rows, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, compress="deflate", SPARSE_OK=True, blockysize=200_000):
        pass
    return path


def test_many_damaged_blocks_are_one_place_in_a_small_record(tmp_path: Path) -> None:
    with gdal_environment():
        source = RasterSource(str(sparse(tmp_path / "thin.tif", 5000)))
        assert source.block_shape == (1, 1)
        (tmp_path / "journal").mkdir()
        record, sizes = DamageRecord(source, tmp_path / "journal"), []
        for top in range(0, 5000, 500):  # 100 rows are read twice, as margins are
            source.read(max(0, top - 100), top + 500, 0, 1)
            record.keep()
            sizes.append((tmp_path / "journal/damage.json").stat().st_size)
        assert source.damaged == ["rows 0 to 4999, columns 0 to 0"]
        assert source.damaged_pixels == 5000
        assert max(sizes) < 300


def test_records_of_several_parts_are_joined(tmp_path: Path) -> None:
    path, journal = sparse(tmp_path / "thin.tif", 5000), tmp_path / "journal"
    journal.mkdir()
    with gdal_environment():
        for part, rows in (("-0", (0, 400)), ("-3", (300, 600))):
            source = RasterSource(str(path))
            source.read(*rows, 0, 1)
            DamageRecord(source, journal, part).keep()
        joined = RasterSource(str(path))
        DamageRecord(joined, journal).begin(continued=True)
        assert (joined.damaged, joined.damaged_pixels) == (["rows 0 to 599, columns 0 to 0"], 600)
        assert [note for note in joined.notes if "cannot be read" in note] == [
            f"{path}: a part cannot be read: {source.reason}."
        ]
        for content in ({}, {"places": [[1, 2, 3]], "reason": ""}, {"places": [[5, 5, 0, 1]], "reason": ""}):
            (journal / "damage-0.json").write_text(json.dumps(content))
            with pytest.raises(RunFolderError, match="begin again"):
                DamageRecord(RasterSource(str(path)), journal).begin(continued=True)
