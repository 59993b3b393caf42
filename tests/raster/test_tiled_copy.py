"""A tiled copy of a raster gives the same pixels as the raster, whatever it holds."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from skystill.errors import SourceChanged
from skystill.progress import ignore_progress
from skystill.raster import tiled_copy
from skystill.raster.input_spec import RGB, Band, InputSpec
from skystill.raster.picture import read_whole
from skystill.raster.tiled_copy import find_copy, make_copy, wide_blocks

HEIGHT, WIDTH = 270, 4200
WINDOWS = [(0, 256, 0, 256), (17, 270, 3900, 4200), (255, 257, 1000, 3000), (269, 270, 0, 1)]
NIR = InputSpec(tuple(Band("", number, 500.0 * number, 9.0, 0.0, 9000.0) for number in (4, 1)), "uint16")
HEIGHTS = InputSpec((Band("", 1, 3.0, 1.0, -9.0, 9.0),), "float32")


def write(path: Path, kind: str, bands: int, **more: Any) -> Path:
    """Write values of a data type in compressed strips; a part of them is 0."""
    colors = more.pop("colorinterp", None)
    values = np.random.default_rng(0).integers(1, 250, (bands, HEIGHT, WIDTH)).astype(kind)
    values[:, 100:200, 50:3000] = 0
    with rasterio.open(path, "w", driver="GTiff", height=HEIGHT, width=WIDTH, count=bands, dtype=kind,
                       crs="EPSG:32633", transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), compress="deflate",
                       **more) as file:  # fmt: skip
        if colors:
            file.colorinterp = colors
        if kind == "float32":
            values[0, 7, 7] = np.nan
        file.write(values)
    return path


CASES: list[tuple[str, int, dict[str, Any], InputSpec]] = [
    ("uint8", 3, {}, RGB),
    ("uint8", 3, {"nodata": 0}, RGB),
    ("uint8", 1, {}, RGB),
    ("uint8", 4, {"colorinterp": [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]}, RGB),
    ("uint16", 3, {}, RGB),
    ("uint16", 4, {"nodata": 0}, NIR),
    ("float32", 1, {}, HEIGHTS),
]


@pytest.mark.parametrize(("kind", "bands", "more", "spec"), CASES)
def test_windows_are_those_of_the_raster(
    tmp_path: Path, kind: str, bands: int, more: dict[str, Any], spec: InputSpec
) -> None:
    path = write(tmp_path / "strips.tif", kind, bands, **more)
    assert wide_blocks(path) is not None and find_copy(path, spec) is None
    before = [read_whole(path, bounds, spec) for bounds in WINDOWS]
    size = make_copy(path, spec, ignore_progress)
    copy = find_copy(path, spec)
    assert copy is not None and copy.path.stat().st_size == size
    after = [read_whole(path, bounds, spec) for bounds in WINDOWS]
    for one, other in zip(before, after, strict=True):
        assert one.image.dtype == other.image.dtype
        assert np.array_equal(one.image, other.image)
        assert (one.valid is None) == (other.valid is None)
        assert one.valid is None or np.array_equal(one.valid, other.valid)
    with rasterio.open(copy.path) as file:
        assert file.block_shapes[0] == (256, 256)


def test_statistics_that_are_known_later_fill_pixels_without_data(tmp_path: Path) -> None:
    path = write(tmp_path / "strips.tif", "uint16", 4, nodata=0)
    first = InputSpec(tuple(Band("", band.number, 0.0, 1.0, 0.0, 9000.0) for band in NIR.bands), "uint16")
    make_copy(path, first, ignore_progress)
    image = read_whole(path, (100, 200, 0, 256), NIR).image
    assert (image[:, 60:] == [2000, 500]).all()


def test_a_raster_that_changes_is_not_read_from_its_copy(tmp_path: Path) -> None:
    path = write(tmp_path / "strips.tif", "uint8", 3)
    make_copy(path, RGB, ignore_progress)
    write(path, "uint8", 3, nodata=0)
    with pytest.raises(SourceChanged, match=r"strips\.tif"):
        read_whole(path, WINDOWS[0])


def test_there_is_no_copy_without_room_or_of_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "strips.tif", "uint8", 3)
    with monkeypatch.context() as patch:
        patch.setattr(tiled_copy.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))  # type: ignore[attr-defined]
        assert make_copy(path, RGB, ignore_progress) is None
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 9000] = b"\xff" * 9000
    path.write_bytes(content)
    assert make_copy(path, RGB, ignore_progress) is None
    assert find_copy(path, RGB) is None


@pytest.mark.parametrize(
    ("options", "wide"),
    [
        ({"tiled": True, "compress": "deflate"}, False),
        ({"blockysize": 1}, False),  # not compressed
        ({"blockysize": 1, "compress": "lzw"}, True),
        ({"blockysize": 270, "compress": "lzw", "width": 3000}, False),
    ],
)
def test_only_wide_compressed_blocks_are_slow(tmp_path: Path, options: dict[str, Any], wide: bool) -> None:
    profile = {"height": HEIGHT, "width": WIDTH, "count": 1, "dtype": "uint8", **options}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", crs="EPSG:32633",
                       transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6), **profile) as file:  # fmt: skip
        file.write(np.ones((1, HEIGHT, profile["width"]), np.uint8))
    assert (wide_blocks(tmp_path / "a.tif") is not None) == wide
