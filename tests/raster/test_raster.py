"""Geometry of windows, and reading any kind of raster as RGB bytes."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from skystill.errors import DataError, SettingsError
from skystill.raster.source import RasterSource, gdal_environment
from skystill.raster.spool import RowSpool
from skystill.tiling import Grid

Writer = Callable[..., Path]

UTM_SCALE = 0.9996 * (1 + (200_000 / 0.9996) ** 2 / (2 * 6_365_000**2))
"""Of the raster below, 200 km from the central meridian: 1 + x^2 / 2R^2, with R for 25 degrees north."""


@pytest.fixture
def write_raster(tmp_path: Path) -> Writer:
    """Write (bands, H, W) as a GeoTIFF of 0.5 m."""

    def write(bands: np.ndarray, name: str = "in.tif", **options: object) -> Path:
        profile = {
            "driver": "GTiff", "height": bands.shape[1], "width": bands.shape[2], "count": len(bands),
            "dtype": bands.dtype, "crs": "EPSG:32640", "transform": from_origin(300_000, 2_800_000, 0.5, 0.5),
        }  # fmt: skip
        with rasterio.open(tmp_path / name, "w", **{**profile, **options}) as file:
            file.write(bands)
        return tmp_path / name

    return write


def noise(bands: int, height: int, width: int, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (bands, height, width)).astype(kind)


grids = st.builds(
    Grid,
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    tile_height=st.integers(256, 900),
    tile_width=st.integers(256, 900),
    margin=st.sampled_from([0, 16, 64]),
    lane_width=st.integers(64, 4000),
    rows_first=st.booleans(),
    blend=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(grids)
def test_units_write_every_pixel_once_and_read_enough_for_it(grid: Grid) -> None:
    written = np.zeros((grid.height, grid.width), np.uint8)
    for index, unit in enumerate(grid.units()):
        assert unit.index == index
        written[unit.top : unit.bottom, unit.left : unit.right] += 1
        top, bottom, left, right = unit.read
        assert left <= unit.left and unit.right <= right
        assert top <= unit.top and unit.bottom <= bottom
        for tile in unit.tiles:
            assert tile.read_bottom - tile.read_top <= max(grid.tile_height, 64 + 4 * grid.margin)
            assert tile.read_top in (0, tile.top - grid.margin) and tile.read_left in (0, tile.left - grid.margin)
            assert tile.top % 64 == tile.left % 64 == 0  # in phase with the network's down-sampling
    assert (written == 1).all()


def test_an_eight_bit_rgb_raster_comes_back_as_it_is(write_raster: Writer) -> None:
    bands = noise(3, 50, 70)
    with gdal_environment():
        source = RasterSource(str(write_raster(bands)))
        planes, valid = source.read(10, 40, 5, 65)
    assert np.array_equal(planes, bands[:, 10:40, 5:65])
    assert valid is None
    assert source.resolution_m == pytest.approx(0.5 / UTM_SCALE, rel=1e-6)


def test_bands_are_chosen_by_name_by_hand_or_the_first_three(write_raster: Writer) -> None:
    bands = noise(4, 8, 8)
    with gdal_environment():
        source = RasterSource(str(write_raster(bands, photometric="minisblack")))
        assert source.bands == [1, 2, 3]
        assert "bands 1, 2, 3 of 4 are taken as RGB" in source.notes[0]
        chosen = RasterSource(str(write_raster(bands)), bands=[4, 2, 1])
        assert np.array_equal(chosen.read(0, 8, 0, 8)[0], bands[[3, 1, 0]])
        with pytest.raises(SettingsError, match="has 4 band"):
            RasterSource(str(write_raster(bands)), bands=[1, 2, 5])
        grey = RasterSource(str(write_raster(bands[:1])))
        assert np.array_equal(grey.read(0, 8, 0, 8)[0], np.repeat(bands[:1], 3, axis=0))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("B02", "B03", "B04"), "bands 1, 2, 3 of 3 are taken as RGB, and are called B02, B03, B04 (--bands)."),
        (("NIR", "Red", "Green"), "and are called NIR, Red, Green (--bands)."),  # the infrared would be seen as red
        (("Band 3", "Band 2", "Band 1"), "and are called Band 3, Band 2, Band 1 (--bands)."),
        (("", "", "nir"), "and are called nothing, nothing, nir (--bands)."),
        (("Band 1", "Band 2", "Band 3"), None),
        (("1", "2", "03"), None),
        (("R", "G", "B"), None),
        (("Red", "Green", "Blue"), None),
        (("", "", ""), None),
    ],
)
def test_bands_that_are_taken_by_place_against_their_names_are_told(
    write_raster: Writer, names: tuple[str, ...], said: str | None
) -> None:
    path = write_raster(noise(3, 8, 8))
    with rasterio.open(path, "r+") as file:
        file.descriptions = names
    with gdal_environment():
        notes = RasterSource(str(path)).notes
    assert [note.endswith(said or "") for note in notes] == ([True] if said else [])


def test_sixteen_bits_are_stretched_and_it_is_said(write_raster: Writer) -> None:
    bands = np.linspace(0, 4000, 3 * 64 * 64).reshape(3, 64, 64).astype(np.uint16)
    with gdal_environment():
        automatic = RasterSource(str(write_raster(bands)))
        assert automatic.scale == pytest.approx((80, 3920), abs=2)
        assert "--scale LOW,HIGH" in automatic.notes[0]
        by_hand = RasterSource(str(write_raster(bands)), scale=(0, 4000))
        planes, _ = by_hand.read(0, 64, 0, 64)
    assert np.array_equal(planes, np.rint(bands.astype(np.float32) * (255 / 4000)).astype(np.uint8))


def test_the_stretch_is_found_once_for_each_state_of_a_file(
    write_raster: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    samples = RasterSource._samples
    monkeypatch.setattr(RasterSource, "_samples", lambda self, *which: read.append(self.path) or samples(self, *which))
    bands = np.linspace(0, 4000, 3 * 64 * 64).reshape(3, 64, 64).astype(np.uint16)
    with gdal_environment():
        path = write_raster(bands)
        first, second = RasterSource(str(path)), RasterSource(str(path))
        assert len(read) == 1 and (first.scale, first.notes) == (second.scale, second.notes)
        assert RasterSource(str(path), bands=[3]).scale != first.scale and len(read) == 2
        write_raster(2 * bands)
        os.utime(path, ns=(0, 0))  # the clock of a file system may be coarse
        assert RasterSource(str(path)).scale == pytest.approx((160, 7840), abs=4) and len(read) == 3


def test_nodata_alpha_and_nan_are_not_valid(write_raster: Writer) -> None:
    bands = noise(3, 20, 20) // 2 + 1
    bands[:, :5] = 0
    with gdal_environment():
        _, valid = RasterSource(str(write_raster(bands, nodata=0))).read(0, 20, 0, 20)
        assert valid is not None and not valid[:5].any() and valid[5:].all()
        with_alpha = np.concatenate([bands, np.full((1, 20, 20), 255, np.uint8)])
        with_alpha[3, :, :7] = 0
        path = write_raster(with_alpha, photometric="rgb", alpha="yes")
        _, valid = RasterSource(str(path)).read(0, 20, 0, 20)
        assert valid is not None and not valid[:, :7].any() and valid[:, 7:].all()
        floats = bands.astype(np.float32)
        floats[1, 3, 3] = np.nan
        _, valid = RasterSource(str(write_raster(floats))).read(0, 20, 0, 20)
        assert valid is not None and not valid[3, 3] and valid.sum() == 399


def test_another_resolution_is_resampled(write_raster: Writer) -> None:
    bands = np.repeat(np.repeat(noise(3, 10, 12), 2, axis=1), 2, axis=2)
    with gdal_environment():
        source = RasterSource(str(write_raster(bands)), factors=(2.0, 2.0))
        planes, _ = source.read(0, 10, 0, 12)
    assert (source.height, source.width) == (10, 12)
    assert np.array_equal(planes, bands[:, ::2, ::2])
    assert source.transform.a == 1.0


def test_damage_is_named_and_the_rest_is_read(write_raster: Writer) -> None:
    bands = noise(3, 64, 96)
    path = write_raster(bands, tiled=True, blockxsize=32, blockysize=32, compress="deflate", interleave="pixel")
    content = bytearray(path.read_bytes())
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
    content[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(content)
    with gdal_environment():
        source = RasterSource(str(path))
        planes, valid = source.read(0, 64, 0, 96)
    assert source.damaged == ["rows 0 to 31, columns 32 to 63"]
    assert valid is not None and not valid[:32, 32:64].any() and valid.sum() == 64 * 96 - 32 * 32
    assert np.array_equal(planes[:, valid], bands[:, valid])


def test_what_cannot_be_a_raster_is_refused_in_words(tmp_path: Path, write_raster: Writer) -> None:
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    with gdal_environment():
        with pytest.raises(DataError, match="no such file"):
            RasterSource(str(tmp_path / "none.tif"))
        with pytest.raises(DataError, match="cannot be opened as a raster"):
            RasterSource(str(text))


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    bomb = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with gdal_environment(), pytest.raises(DataError, match="a decompression bomb"):
        RasterSource(str(bomb))


@pytest.mark.parametrize("start", [0, 128])
def test_the_spool_gives_what_the_source_gives(write_raster: Writer, tmp_path: Path, start: int) -> None:
    bands = noise(3, 500, 300)
    bands[:, 100:110] = 0
    grid = Grid(500, 300, 192, 192, 32, 128, rows_first=True)
    with gdal_environment():
        source = RasterSource(str(write_raster(bands, nodata=0, blockysize=3)))
        lanes = [unit.read[2:] for unit in grid.units() if unit.row == 0]
        spool = RowSpool(source, grid.tile_height, lanes, tmp_path)
        spool._step, spool._capacity = 12, 204  # a ring that ends in the middle of windows
        for unit in grid.units():
            if unit.top < start:
                continue
            planes, valid = spool.read(*unit.read)
            expected, expected_valid = source.read(*unit.read)
            assert np.array_equal(planes, expected)
            assert (valid is None) == (expected_valid is None)
            assert valid is None or np.array_equal(valid, expected_valid)
        spool.close()
