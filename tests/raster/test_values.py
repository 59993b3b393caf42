"""Bands read as values: data types, nodata, damage, windows, turning, and the range of the training images."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from skystill.data.read import void_unseen
from skystill.errors import DataError, SettingsError
from skystill.raster.input_spec import Band, InputSpec, spec_from
from skystill.raster.picture import read_manner, read_size, read_whole
from skystill.raster.source import RasterSource, gdal_environment
from tests.banded_rasters import pixels_of, spec_of, write_bands

STORED = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64", "complex64")
FITS = {
    "uint8": {"uint8"},
    "uint16": {"uint16", "int16", "uint32", "int32"},
    "int16": {"uint16", "int16", "uint32", "int32"},
    "float32": {"float32", "float64"},
}
"""The data types in which a raster may be stored, for each that a network is fed."""


def source_of(path: Path, spec: InputSpec, **options: Any) -> RasterSource:
    with gdal_environment():
        return RasterSource(str(path), spec=spec, **options)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("wanted", FITS)
def test_every_pair_of_stored_and_wanted_type(stored: str, wanted: str, tmp_path: Path) -> None:
    values = (np.arange(2 * 3 * 5) * 7 % 101).reshape(2, 3, 5).astype(stored)  # fit into all of them
    path = write_bands(tmp_path / "a.tif", values)
    spec = spec_of(wanted, 2)
    if stored in FITS[wanted]:
        picture = read_whole(path, spec=spec)
        assert picture.image.dtype == wanted and picture.valid is None
        assert np.array_equal(picture.image.transpose(2, 0, 1), values)
        return
    expected = "complex" if stored == "complex64" else f"holds {stored} and the network is fed {wanted}"
    with pytest.raises(DataError, match=expected) as raised:
        read_whole(path, spec=spec)
    assert raised.value.exit_code == 2


OUTSIDE = [
    ("int16", "uint16", -1, "holds values from -1 to"), ("uint16", "int16", 32768, "to 32768; the network is fed"),
    ("int32", "uint16", 65536, "to 65536; the network is fed uint16, 0 to 65535"), ("uint32", "int16", 40000, "to 4"),
    ("int32", "int16", -32769, "from -32769"), ("float64", "float32", 1e300, "1e\\+300"),
]  # fmt: skip


@pytest.mark.parametrize(("stored", "wanted", "value", "message"), OUTSIDE)
def test_a_value_that_the_type_cannot_hold_is_refused(
    stored: str, wanted: str, value: float, message: str, tmp_path: Path
) -> None:
    values = np.full((2, 3, 5), 3, stored)
    values[1, 2, 4] = value
    with pytest.raises(DataError, match=message):
        read_whole(write_bands(tmp_path / "a.tif", values), spec=spec_of(wanted, 2))
    # as nodata of both bands it is no value
    values[:, 2, 4] = value
    spec = spec_of(wanted, 2)
    picture = read_whole(write_bands(tmp_path / "b.tif", values, nodata=value), spec=spec)
    assert picture.valid is not None and not picture.valid[2, 4] and picture.valid.sum() == 14
    assert np.array_equal(picture.image[2, 4], spec.fill) and (picture.image[picture.valid] == 3).all()


def spec_with_means(dtype: str, *means: float) -> InputSpec:
    return InputSpec(tuple(Band("", number, mean) for number, mean in enumerate(means, 1)), dtype)


@pytest.mark.parametrize(
    ("stored", "wanted", "mean"), [("uint16", "int16", -250.4), ("int16", "uint16", 41000.6), ("int32", "uint16", 9.5)]
)
def test_the_mean_fills_whatever_can_be_stored(stored: str, wanted: str, mean: float, tmp_path: Path) -> None:
    values = np.full((1, 4, 4), 17, stored)
    values[0, 0, :2] = 0
    picture = read_whole(write_bands(tmp_path / "a.tif", values, nodata=0), spec=spec_with_means(wanted, mean))
    assert picture.image[0, :, 0].tolist() == [round(mean), round(mean), 17, 17]


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", 0), ("uint8", 255), ("uint16", 65535), ("int16", -32768), ("int16", 0), ("float32", -9999.0),
        ("float32", math.nan), ("float32", np.finfo(np.float32).min.item()), ("float64", -1.7976931348623157e308),
    ],
)  # fmt: skip
def test_nodata_is_void_and_filled_with_the_mean(dtype: str, nodata: float, tmp_path: Path) -> None:
    spec = spec_of("float32" if dtype == "float64" else dtype, 3)
    planes = pixels_of(spec, 7, 9).astype(dtype)
    planes[planes == nodata] += 1
    before = planes.copy()
    planes[:, 2:4, 1:5] = nodata
    if dtype != "float64":  # its nodata would be too large as a value
        planes[0, 6, 8] = nodata  # one of three bands: the network would be fed it as a measurement
    picture = read_whole(write_bands(tmp_path / "a.tif", planes, nodata=nodata), spec=spec)
    empty = np.zeros((7, 9), bool)
    empty[2:4, 1:5] = True
    empty[6, 8] = dtype != "float64"
    assert picture.valid is not None and np.array_equal(picture.valid, ~empty)
    assert np.array_equal(picture.image[empty], np.tile(spec.fill, (int(empty.sum()), 1)))
    assert np.array_equal(picture.image[~empty], before.transpose(1, 2, 0)[~empty].astype(spec.kind))
    labels = void_unseen(np.zeros((7, 9), np.uint8), picture)
    assert np.array_equal(labels == 255, empty)


def test_an_internal_mask_transparency_and_infinity(tmp_path: Path) -> None:
    spec = spec_of("uint16", 2)
    planes = pixels_of(spec, 6, 8)
    path = write_bands(tmp_path / "mask.tif", planes)
    empty = np.zeros((6, 8), bool)
    empty[1:3, 2:7] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(~empty)
    opaque = np.where(empty, 0, 65535).astype(np.uint16)
    with_alpha = write_bands(tmp_path / "alpha.tif", np.concatenate([planes, opaque[None]]))
    with rasterio.open(with_alpha, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha)
    for made in (path, with_alpha):
        picture = read_whole(made, spec=spec)
        assert picture.valid is not None and np.array_equal(picture.valid, ~empty)
        assert np.array_equal(picture.image[empty], np.tile(spec.fill, (10, 1)))
        assert np.array_equal(picture.image[~empty], planes.transpose(1, 2, 0)[~empty])
    of_floats = spec_of("float32", 2)
    floats = pixels_of(of_floats, 6, 8)
    floats[1, empty] = np.inf
    picture = read_whole(write_bands(tmp_path / "inf.tif", floats), spec=of_floats)
    assert picture.valid is not None and np.array_equal(picture.valid, ~empty)
    assert np.array_equal(picture.image[empty], np.tile(of_floats.fill, (10, 1)))


def test_bands_are_read_in_the_order_of_the_spec(tmp_path: Path) -> None:
    spec = spec_of("int16", 3, ("red", "nir", "blue"))
    planes = pixels_of(spec_of("int16", 4), 5, 6)
    path = write_bands(tmp_path / "a.tif", planes, ("nir", "green", "blue", "red"))
    picture = read_whole(path, spec=spec)
    assert np.array_equal(picture.image, planes[[3, 0, 2]].transpose(1, 2, 0))
    assert "bands 4, 1, 3 of 4 are red, nir, blue by their names" in picture.notes[0]
    manner = read_manner(path, spec)
    other = replace(spec, bands=(spec.bands[0], replace(spec.bands[1], mean=-900.0), spec.bands[2]))
    assert manner and read_manner(path, other) != manner


@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}], ids=["strips", "tiles"])
def test_windows_equal_the_whole(layout: dict[str, Any], tmp_path: Path) -> None:
    spec = spec_of("float32", 5)
    planes = pixels_of(spec, 50, 70)
    planes[:, 10:20, 30:40] = -1
    path = write_bands(tmp_path / "a.tif", planes, nodata=-1, **layout)
    whole = read_whole(path, spec=spec)
    assert read_size(path, spec) == (50, 70) and whole.valid is not None
    for top, bottom, left, right in ((0, 50, 0, 70), (7, 23, 25, 33), (49, 50, 69, 70), (0, 5, 0, 70)):
        part = read_whole(path, (top, bottom, left, right), spec)
        assert np.array_equal(part.image, whole.image[top:bottom, left:right])
        valid = np.ones((bottom - top, right - left), bool) if part.valid is None else part.valid
        assert np.array_equal(valid, whole.valid[top:bottom, left:right])


def test_a_damaged_block_is_refused_in_training_and_not_valid_in_prediction(tmp_path: Path) -> None:
    spec = spec_of("uint16", 4)
    planes = pixels_of(spec, 64, 64)
    path = write_bands(
        tmp_path / "a.tif", planes, tiled=True, blockxsize=32, blockysize=32, compress="deflate", interleave="pixel"
    )
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as an image.*rows 32 to 63, columns 32 to 63"):
        read_whole(path, spec=spec)
    with gdal_environment():
        source = RasterSource(str(path), spec=spec)
        found, valid = source.read(0, 64, 0, 64)
    assert valid is not None and not valid[32:, 32:].any() and valid.sum() == 3 * 32 * 32
    assert np.array_equal(found[:, valid], planes[:, valid])
    assert np.array_equal(found[:, 32:, 32:], np.broadcast_to(spec.fill[:, None, None], (4, 32, 32)))


def test_resampled_values_are_means_of_valid_pixels(tmp_path: Path) -> None:
    spec = spec_with_means("float32", 5.0, 6.0)
    planes = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6)
    planes[:, 0, 0] = planes[:, 2:4, 4:6] = -1
    path = write_bands(tmp_path / "a.tif", planes, nodata=-1)
    with gdal_environment():
        found, valid = RasterSource(str(path), factors=(2.0, 2.0), spec=spec).read(0, 2, 0, 3)
    assert valid is not None and valid.tolist() == [[True, True, True], [True, True, False]]
    assert found[0].tolist() == [[pytest.approx((1 + 6 + 7) / 3), 5.5, 7.5], [15.5, 17.5, 5.0]]
    assert found[1, 1, 2] == 6.0


def turned_by_hand(image: np.ndarray, orientation: int) -> np.ndarray:
    """The eight orientations of EXIF 2.32, table 6: what must be done with the stored picture."""
    made = {
        1: image, 2: image[:, ::-1], 3: image[::-1, ::-1], 4: image[::-1], 5: image.swapaxes(0, 1),
        6: np.rot90(image, -1), 7: image[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(image, 1),
    }  # fmt: skip
    return made[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_of_16_bits_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    stored = np.random.default_rng(1).integers(0, 65536, (6, 9)).astype(np.uint16)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(stored).save(tmp_path / "a.tif", tiffinfo={274: orientation})
    spec = spec_with_means("uint16", 100.0)
    expected = turned_by_hand(stored, orientation)
    for path in (tmp_path / "a.png", tmp_path / "a.tif"):
        assert np.array_equal(read_whole(path, spec=spec).image[..., 0], expected)
        assert read_size(path, spec) == expected.shape
        part = read_whole(path, (1, 5, 2, 6), spec).image[..., 0]
        assert np.array_equal(part, expected[1:5, 2:6])
        with gdal_environment():
            source = RasterSource(str(path), spec=spec)
            planes, valid = source.read(0, source.height, 0, source.width)
            with pytest.raises(DataError, match="another scale"):  # the range is that of upright values, too
                source.check_range()
        assert np.array_equal(planes[0], expected) and valid is None


def test_indices_of_colours_are_no_values(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((4, 4), np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(tmp_path / "a.png")
    with pytest.raises(DataError, match="indices of colours, and the network is fed values"):
        read_whole(tmp_path / "a.png", spec=spec_with_means("uint8", 3.0))


def test_scale_and_too_few_bands_are_refused(tmp_path: Path) -> None:
    spec = spec_of("uint16", 4)
    path = write_bands(tmp_path / "a.tif", pixels_of(spec, 5, 5))
    with pytest.raises(SettingsError, match="--scale is for networks that are fed colours"):
        source_of(path, spec, scale=(0.0, 4000.0))
    with pytest.raises(SettingsError, match=r"--bands names 3 band\(s\); the network is fed 4"):
        source_of(path, spec, bands=[1, 2, 3])


RANGE: dict[str, tuple[list[float], str, str]] = {
    "as in training": ([100, 150, 200], "", ""),
    "a third outside": ([100, 150, 300], "", ""),
    "two thirds outside": ([150, 300, 301], "67% of the values of band 1 lie outside.*100 to 200; the middle one", ""),
    "another scale": ([0.1, 0.2, 0.3], "", "band 1 is about 0.2, and was 100 to 200 in the training images"),
    "all nodata": ([-1, -1, -1], "", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", RANGE)
def test_values_are_compared_with_the_training_images(case: str, tmp_path: Path) -> None:
    values, note, error = RANGE[case]
    spec = InputSpec((Band("", 1, 150.0, 30.0, 100.0, 200.0),), "float32")
    planes = np.tile(np.array(values, np.float32), (1, 3, 100))
    path = write_bands(tmp_path / "a.tif", planes, nodata=-1)
    source = source_of(path, spec)
    known = len(source.notes)
    if error:
        with pytest.raises(DataError, match=error):
            source.check_range()
        told = source_of(path, spec, bands=[1])  # the user says that it is right
        told.check_range()
        assert "100% of the values of band 1 lie outside" in told.notes[-1]
        return
    source.check_range()
    assert len(source.notes) - known == bool(note)
    assert source.notes[-1].startswith(f"{path}: ")
    assert re.search(note, source.notes[-1])


def test_transparent_pixels_do_not_count_in_the_range(tmp_path: Path) -> None:
    spec = InputSpec((Band("", 1, 150.0, 30.0, 100.0, 200.0),), "uint16")
    planes = np.full((2, 40, 50), 150, np.uint16)
    planes[0, 2:], planes[1, 2:] = 9999, 0
    source = source_of(write_bands(tmp_path / "a.tif", planes, alpha="yes"), spec)
    known = len(source.notes)
    source.check_range()
    assert len(source.notes) == known


def test_a_spec_as_text_and_back() -> None:
    for nodata in (None, 0.0, -3.4028234663852886e38):
        spec = replace(spec_of("int16", 3, ("red", "", "b8a")), nodata=nodata, resolution_m=0.3)
        assert spec_from(spec.to_dict()) == spec
    found = spec_from(replace(spec, nodata=math.nan, resolution_range_m=(0.1, 0.2)).to_dict())
    assert found.nodata is not None and math.isnan(found.nodata) and found.resolution_range_m == (0.1, 0.2)
    for content in ({}, {"bands": [], "dtype": "uint8"}, {"bands": [{"name": "red"}], "dtype": "uint8"}):
        with pytest.raises((KeyError, ValueError)):
            spec_from(content)
