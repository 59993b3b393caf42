"""Rasters that stay open between windows: pixels are always those of the file as it is."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio

from skystill.errors import DataError
from skystill.raster import kept_open
from skystill.raster.picture import read_whole
from skystill.raster.source import RasterSource
from tests.maps import write_raster

WINDOW = (8, 24, 4, 30)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the rasters that were opened."""
    names: list[str] = []

    def open_one(path: str, **more: object) -> RasterSource:
        names.append(Path(path).name)
        return RasterSource(path, **more)

    monkeypatch.setattr(kept_open, "RasterSource", open_one)
    return names


def test_windows_of_a_raster_are_read_from_one_that_is_open(tmp_path: Path, opened: list[str]) -> None:
    values = np.random.default_rng(1).integers(0, 255, (3, 40, 40)).astype(np.uint8)
    write_raster(tmp_path / "a.tif", 40, 40, values=values)
    for top in range(0, 40, 10):
        image = read_whole(tmp_path / "a.tif", (top, top + 10, 3, 33)).image
        assert np.array_equal(image, values.transpose(1, 2, 0)[top : top + 10, 3:33]) and image.flags.c_contiguous
    assert opened == ["a.tif"]
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(read_whole(tmp_path / "a.tif", WINDOW).image))
    thread.start()
    thread.join()
    assert np.array_equal(found[0], read_whole(tmp_path / "a.tif", WINDOW).image) and len(opened) == 2
    assert read_whole(tmp_path / "a.tif").valid is None and len(opened) == 3  # whole ones are not kept


def test_another_process_opens_its_own(tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_raster(tmp_path / "a.tif", 40, 40)
    read_whole(tmp_path / "a.tif", WINDOW)
    own = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: own + 1)  # as after a fork
    read_whole(tmp_path / "a.tif", WINDOW)
    assert len(opened) == 2


def test_a_file_that_changed_is_opened_again(tmp_path: Path, opened: list[str]) -> None:
    for value in (7, 9):
        write_raster(tmp_path / "a.tif", 40, 40, values=np.full((3, 40, 40), value, np.uint8))
        os.utime(tmp_path / "a.tif", ns=(value, value))  # the clock of a file system may be coarse
        assert (read_whole(tmp_path / "a.tif", WINDOW).image == value).all()
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.write_mask(np.arange(40)[:, None].repeat(40, axis=1) < 12)
    os.utime(tmp_path / "a.tif", ns=(9, 9))
    assert (tmp_path / "a.tif.msk").exists()
    valid = read_whole(tmp_path / "a.tif", WINDOW).valid
    assert valid is not None and valid[:4].all() and not valid[4:].any() and len(opened) == 3


def test_few_stay_open_and_none_that_is_damaged(tmp_path: Path, opened: list[str]) -> None:
    for number in range(kept_open._MOST + 1):
        write_raster(tmp_path / f"{number}.tif", 40, 40)
    names = sorted(path.name for path in tmp_path.iterdir())
    for name in [*names, *names[::-1]]:
        read_whole(tmp_path / name, WINDOW)
    assert opened == [*names, names[0]]  # the first one had to go
    write_raster(tmp_path / "cut.tif", 256, 256, tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    os.truncate(tmp_path / "cut.tif", (tmp_path / "cut.tif").stat().st_size - 2000)
    for _ in range(2):
        with pytest.raises(DataError, match=r"cut\.tif: cannot be read as an image"):
            read_whole(tmp_path / "cut.tif", (200, 256, 200, 256))
    assert opened[-2:] == ["cut.tif"] * 2
