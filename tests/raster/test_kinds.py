"""Pictures and rasters of every kind: training and prediction read the same pixels, and the right ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.enums import ColorInterp as Interp
from rasterio.transform import from_origin

from skystill.errors import DataError, SettingsError
from skystill.raster.picture import read_size, read_whole
from skystill.raster.source import RasterSource, gdal_environment

HEIGHT, WIDTH = 30, 44
COARSE = np.random.default_rng(4).integers(0, 256, (5, 7, 3), np.uint8)
RGB = np.asarray(Image.fromarray(COARSE).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
GREY = RGB[..., 1]
SEEN = np.ones((HEIGHT, WIDTH), bool)
SEEN[:9, 5:20] = False
ALPHA = np.where(SEEN, 255, 0).astype(np.uint8)


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def tiff(path: Path, bands: np.ndarray, **options: Any) -> rasterio.io.DatasetWriter:
    """Write (B, H, W), and return the file, still open."""
    profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    file = rasterio.open(path, "w", **{**profile, "dtype": bands.dtype, **options})
    file.write(bands)
    return file


def read_by_prediction(path: Path, **options: Any) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Read in windows, as prediction does: (H, W, 3), (H, W) or None, and notes."""
    with gdal_environment():
        source = RasterSource(str(path), **options)
        parts = [
            [source.read(top, min(top + 13, source.height), left, min(left + 11, source.width))
             for left in range(0, source.width, 11)]
            for top in range(0, source.height, 13)
        ]  # fmt: skip
        source.close()
    image = np.concatenate([np.concatenate([planes for planes, _ in row], axis=2) for row in parts], axis=1)
    valid = np.block([[np.ones(p.shape[1:], bool) if v is None else v for p, v in row] for row in parts])
    return image.transpose(1, 2, 0), None if valid.all() else valid, source.notes


def pil(name: str, mode: str = "RGB", **options: Any) -> Callable[[Path], None]:
    return lambda folder: Image.fromarray(RGB).convert(mode).save(folder / name, **options)


def turned(name: str, orientation: int, **options: Any) -> Callable[[Path], None]:
    """A picture that is stored so that its orientation turns it into RGB."""
    exif = Image.Exif()
    exif[274] = orientation
    inverse = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[inverse]  # Pillow's Transpose

    def write(folder: Path) -> None:
        Image.fromarray(RGB).transpose(Image.Transpose(turn)).save(folder / name, exif=exif, **options)

    return write


def rgba(name: str, **options: Any) -> Callable[[Path], None]:
    return lambda folder: Image.fromarray(np.dstack([RGB, ALPHA])).save(folder / name, **options)


def palette(name: str, colors: int, **options: Any) -> Callable[[Path], None]:
    return lambda folder: Image.fromarray(RGB).quantize(colors).save(folder / name, **options)


def bits(name: str, number: int, driver: str, **options: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tiff(folder / name, (GREY >> (8 - number))[None], driver=driver, nbits=number, **options).close()

    return write


def by_tags(name: str, interps: list[Interp] | None, texts: list[str] | None, **options: Any) -> Callable[[Path], None]:
    """Blue, green, red and near-infrared, in this order."""

    def write(folder: Path) -> None:
        bands = np.concatenate([RGB.transpose(2, 0, 1)[::-1], np.zeros((1, HEIGHT, WIDTH), np.uint8)])
        with tiff(folder / name, bands, **options) as file:
            if interps:
                file.colorinterp = interps
            if texts:
                file.descriptions = texts

    return write


def plain_tiff(name: str, **options: Any) -> Callable[[Path], None]:
    return lambda folder: tiff(folder / name, RGB.transpose(2, 0, 1), **options).close()


def ink(name: str) -> Callable[[Path], None]:
    """Inks of 16 bits, which GDAL does not convert: no black, and the complements of the colours."""

    def write(folder: Path) -> None:
        inks = np.concatenate([255 - RGB.transpose(2, 0, 1), np.zeros((1, HEIGHT, WIDTH), np.uint8)])
        tiff(folder / name, inks.astype(np.uint16) * 257, photometric="cmyk").close()

    return write


def opened(name: str) -> Callable[[Path], np.ndarray]:
    return lambda folder: np.asarray(Image.open(folder / name).convert("RGB"))


def exactly(image: np.ndarray) -> Callable[[Path], np.ndarray]:
    return lambda _: image


def stretched(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (2, 98))
    return three(np.clip(np.rint((values - low) * (255 / (high - low))), 0, 255).astype(np.uint8))


def deep(name: str, driver: str) -> Callable[[Path], None]:
    return lambda folder: tiff(folder / name, (GREY.astype(np.uint16) * 200)[None], driver=driver).close()


def inverted(name: str, number: int) -> Callable[[Path], None]:
    values = 255 - GREY if number == 8 else 1 - (GREY >> 7)
    return lambda folder: tiff(folder / name, values[None], photometric="miniswhite", nbits=number).close()


BGR = [Interp.blue, Interp.green, Interp.red, Interp.undefined]
NAMES = ["blue", "green", "red", "nir"]
KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], np.ndarray] | None, int]] = {
    # name: how it is written, its right pixels (None: those of the decoder), and the largest difference from them
    "rgb.png": (pil("rgb.png"), exactly(RGB), 0),
    "rgb.bmp": (pil("rgb.bmp"), exactly(RGB), 0),
    "rgb.webp": (pil("rgb.webp", lossless=True), exactly(RGB), 0),
    "lossy.webp": (pil("lossy.webp", quality=80), opened("lossy.webp"), 0),
    "rgb.jpg": (pil("rgb.jpg", quality=95, subsampling=0), opened("rgb.jpg"), 2),
    "subsampled.jpg": (pil("subsampled.jpg", quality=90), None, 0),
    "progressive.jpg": (pil("progressive.jpg", quality=95, subsampling=0, progressive=True), exactly(RGB), 16),
    "grey.jpg": (pil("grey.jpg", "L", quality=95), opened("grey.jpg"), 1),
    "cmyk.jpg": (pil("cmyk.jpg", "CMYK", quality=95, subsampling=0), opened("cmyk.jpg"), 2),
    "cmyk.tif": (pil("cmyk.tif", "CMYK"), exactly(RGB), 0),
    "cmyk16.tif": (ink("cmyk16.tif"), exactly(RGB), 0),
    "ycbcr.tif": (pil("ycbcr.tif", "YCbCr"), exactly(RGB), 3),
    "jpeg.tif": (pil("jpeg.tif", compression="jpeg", quality=95), opened("jpeg.tif"), 1),
    "rgb.tif": (plain_tiff("rgb.tif"), exactly(RGB), 0),
    "planes.tif": (plain_tiff("planes.tif", interleave="band", compress="lzw"), exactly(RGB), 0),
    "interlaced.png": (plain_tiff("interlaced.png", driver="PNG"), exactly(RGB), 0),
    "grey.png": (pil("grey.png", "L"), opened("grey.png"), 0),
    "grey16.png": (deep("grey16.png", "PNG"), exactly(stretched(GREY.astype(float) * 200)), 1),
    "grey16.tif": (deep("grey16.tif", "GTiff"), exactly(stretched(GREY.astype(float) * 200)), 1),
    "bit1.png": (bits("bit1.png", 1, "PNG"), exactly(three((GREY >> 7) * 255)), 0),
    "bit2.png": (bits("bit2.png", 2, "PNG"), exactly(three((GREY >> 6) * 85)), 0),
    "bit4.png": (bits("bit4.png", 4, "PNG"), exactly(three((GREY >> 4) * 17)), 0),
    "bit1.tif": (bits("bit1.tif", 1, "GTiff"), exactly(three((GREY >> 7) * 255)), 0),
    "bit2.tif": (bits("bit2.tif", 2, "GTiff"), exactly(three((GREY >> 6) * 85)), 0),
    "bit4.tif": (bits("bit4.tif", 4, "GTiff"), exactly(three((GREY >> 4) * 17)), 0),
    "bit1.bmp": (pil("bit1.bmp", "1"), opened("bit1.bmp"), 0),
    "fax.tif": (pil("fax.tif", "1", compression="group4"), opened("fax.tif"), 0),
    "miniswhite8.tif": (inverted("miniswhite8.tif", 8), exactly(three(GREY)), 0),
    "miniswhite1.tif": (inverted("miniswhite1.tif", 1), exactly(three((GREY >> 7) * 255)), 0),
    "palette2.png": (palette("palette2.png", 4, bits=2), opened("palette2.png"), 0),
    "palette4.png": (palette("palette4.png", 16), opened("palette4.png"), 0),
    "palette8.png": (palette("palette8.png", 200), opened("palette8.png"), 0),
    "palette.tif": (palette("palette.tif", 99), opened("palette.tif"), 0),
    "palette.bmp": (palette("palette.bmp", 16), opened("palette.bmp"), 0),
    "rgba.png": (rgba("rgba.png"), exactly(RGB), 0),
    "rgba.webp": (rgba("rgba.webp", lossless=True, exact=True), exactly(RGB), 0),
    "rgba.tif": (rgba("rgba.tif"), exactly(RGB), 0),
    "la.png": (lambda f: Image.fromarray(np.dstack([GREY, ALPHA])).save(f / "la.png"), exactly(three(GREY)), 0),
    "tags.tif": (by_tags("tags.tif", BGR, None, photometric="minisblack"), exactly(RGB), 0),
    "names.tif": (by_tags("names.tif", None, NAMES, photometric="minisblack"), exactly(RGB), 0),
    "names-rgb.tif": (by_tags("names-rgb.tif", None, NAMES), exactly(RGB), 0),
    "turned2.jpg": (turned("turned2.jpg", 2, quality=95, subsampling=0), exactly(RGB), 16),
    "turned6.jpg": (turned("turned6.jpg", 6, quality=95, subsampling=0), exactly(RGB), 16),
    "turned8.jpg": (turned("turned8.jpg", 8, quality=95, subsampling=0), exactly(RGB), 16),
    **{f"turned{n}.png": (turned(f"turned{n}.png", n), exactly(RGB), 0) for n in range(2, 9)},
    "turned6.webp": (turned("turned6.webp", 6, lossless=True), exactly(RGB), 0),
    "turned6.tif": (turned("turned6.tif", 6), exactly(RGB), 0),
    "turned3.tif": (turned("turned3.tif", 3), exactly(RGB), 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_training_and_prediction_read_the_same_right_pixels(tmp_path: Path, name: str) -> None:
    write, right, most = KINDS[name]
    write(tmp_path)
    picture = read_whole(tmp_path / name)
    image, valid, _ = read_by_prediction(tmp_path / name)
    assert picture.image.shape == (HEIGHT, WIDTH, 3)
    assert read_size(tmp_path / name) == (HEIGHT, WIDTH)
    if name.endswith(".jpg"):  # two decoders, see skystill.raster.picture: the same picture, not the same bytes
        assert np.abs(picture.image.astype(int) - image).mean() < 3
    else:
        assert np.array_equal(picture.image, image)
    assert (picture.valid is None) == (valid is None)
    if name.startswith(("rgba", "la")):
        assert np.array_equal(picture.valid, SEEN) and np.array_equal(valid, SEEN)
    else:
        assert valid is None
    if right is not None:
        assert np.abs(image.astype(int) - right(tmp_path)).max() <= most
    assert any("turned upright" in note for note in picture.notes) == name.startswith("turned")


def test_a_part_of_a_turned_picture_is_a_part_of_the_upright_one(tmp_path: Path) -> None:
    turned("a.png", 6)(tmp_path)
    part = read_whole(tmp_path / "a.png", (3, 20, 10, 40))
    assert np.array_equal(part.image, RGB[3:20, 10:40])
    assert part.notes == (
        f"{tmp_path / 'a.png'}: turned upright by its EXIF orientation 6, as viewers show it: 44x30 pixels, stored as "
        "30x44.",
    )


def test_a_large_turned_picture_is_copied_stripe_by_stripe(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1100, 1300, 3), np.uint8)
    exif = Image.Exif()
    for orientation in range(2, 9):
        exif[274] = orientation
        Image.fromarray(noise).save(tmp_path / "a.png", exif=exif, compress_level=0)
        with gdal_environment():
            source = RasterSource(str(tmp_path / "a.png"))
            planes, valid = source.read(0, source.height, 0, source.width)
            source.close()
        assert valid is None
        whole = read_whole(tmp_path / "a.png").image
        assert np.array_equal(planes.transpose(1, 2, 0), whole)


def test_a_raster_with_a_position_is_never_turned(tmp_path: Path) -> None:
    turned("a.jpg", 6)(tmp_path)
    (tmp_path / "a.jgw").write_text("0.5\n0\n0\n-0.5\n300000\n2800000\n")
    assert read_size(tmp_path / "a.jpg") == (WIDTH, HEIGHT)
    assert read_whole(tmp_path / "a.jpg").notes == ()


TYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")


def without_data(path: Path, dtype: str, how: str) -> Path:
    """RGB from 1 on as this type, with pixels that are said to hold no data in some way, and 0 or NaN there."""
    options: dict[str, Any] = {"crs": "EPSG:32640", "transform": from_origin(300_000, 2_800_000, 0.5, 0.5)}
    bands = np.where(SEEN, np.maximum(RGB.transpose(2, 0, 1), 1), 0).astype(dtype)
    if how == "nodata":
        options["nodata"] = 0
    if how == "nan":
        bands[:, ~SEEN] = np.nan
        options["nodata"] = np.nan
    if how == "infinite":
        bands[1, ~SEEN] = np.inf
    if how == "alpha":
        bands = np.concatenate([bands, ALPHA[None].astype(dtype)])
        options |= {"photometric": "rgb", "alpha": "yes"}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=how == "internal mask"), tiff(path, bands, **options) as file:
        if how in ("internal mask", "external mask"):
            file.write_mask(ALPHA)
    assert path.with_name(path.name + ".msk").exists() == (how == "external mask")
    return path


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("how", ["nodata", "alpha", "internal mask", "external mask", "nan", "infinite"])
def test_what_holds_no_data_is_not_valid_in_any_type(tmp_path: Path, dtype: str, how: str) -> None:
    if how in ("nan", "infinite") and "float" not in dtype:
        pytest.skip("only floats have such values")
    path = without_data(tmp_path / "a.tif", dtype, how)
    expected = np.maximum(RGB, 1)
    options: dict[str, Any] = {} if dtype == "uint8" else {"scale": (0, 255)}
    image, valid, _ = read_by_prediction(path, **options)
    assert np.array_equal(valid, SEEN)
    assert np.array_equal(image[SEEN], expected[SEEN])
    picture = read_whole(path)
    assert np.array_equal(picture.valid, SEEN)
    image, _, _ = read_by_prediction(path)
    assert np.array_equal(picture.image, image)
    with gdal_environment():
        halved = RasterSource(str(path), factors=(3.0, 4.0))
        _, valid = halved.read(0, halved.height, 0, halved.width)
        halved.close()
    assert valid is not None and not valid[:3, 2:5].any() and valid[3:].all() and valid[:, 5:].all()


@pytest.mark.parametrize(
    ("dtype", "nodata", "missing"),
    [
        ("uint8", 255, 255), ("int16", -9999, -9999), ("uint16", 65535, 65535), ("int32", -2147483648, -2147483648),
        ("float32", -9999, -9999), ("float32", -3.4028234663852886e38, -3.4028234663852886e38),
        ("float32", 0.1, np.float32(0.1)), ("float64", -1e300, -1e300),
    ],
)  # fmt: skip
def test_a_nodata_value_is_found_whatever_it_is(tmp_path: Path, dtype: str, nodata: float, missing: Any) -> None:
    bands = np.where(SEEN, RGB.transpose(2, 0, 1) // 2 + 1.0, missing).astype(dtype)
    tiff(tmp_path / "a.tif", bands, nodata=nodata).close()
    picture = read_whole(tmp_path / "a.tif")
    assert np.array_equal(picture.valid, SEEN)
    assert dtype == "uint8" or picture.image[SEEN].std() > 40  # the scale comes from the data alone


def test_transparent_colours_of_a_palette_are_not_valid(tmp_path: Path) -> None:
    index = np.arange(12, dtype=np.uint8).reshape(3, 4)
    picture = Image.fromarray(index, "P")
    picture.putpalette(bytes(range(36)))
    picture.save(tmp_path / "a.png", transparency=bytes([0, 255, 9]))
    read = read_whole(tmp_path / "a.png")
    assert read.valid is not None and read.valid.ravel().tolist() == [False] + [True] * 11
    assert read.image.reshape(-1).tolist() == list(range(36))


def test_a_transparent_colour_of_a_png_is_not_valid(tmp_path: Path) -> None:
    image = np.where(SEEN[..., None], np.maximum(RGB, 1), np.uint8(0))
    Image.fromarray(image).save(tmp_path / "rgb.png", transparency=(0, 0, 0))
    Image.fromarray(image[..., 0]).save(tmp_path / "grey.png", transparency=0)
    for name in ("rgb.png", "grey.png"):
        assert np.array_equal(read_whole(tmp_path / name).valid, SEEN), name
        assert np.array_equal(read_by_prediction(tmp_path / name)[1], SEEN), name


def test_a_turned_tiff_of_sixteen_bits_keeps_its_nodata_and_its_scale(tmp_path: Path) -> None:
    values = np.where(SEEN, GREY.astype(np.uint16) * 200 + 1, 0).astype(np.uint16)
    Image.fromarray(np.rot90(values).copy()).save(tmp_path / "a.tif", tiffinfo={274: 6})
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.nodata = 0
    picture = read_whole(tmp_path / "a.tif")
    image, valid, notes = read_by_prediction(tmp_path / "a.tif")
    assert np.array_equal(picture.valid, SEEN) and np.array_equal(valid, SEEN)
    assert np.array_equal(picture.image, image) and picture.notes == tuple(notes) and len(notes) == 2
    low, high = np.percentile(values[SEEN], (2, 98))
    expected = np.clip(np.rint((values[SEEN] - low) * (255 / (high - low))), 0, 255)
    assert np.abs(image[SEEN] - expected[:, None]).max() <= 1


def test_descriptions_win_over_colour_tags_and_it_is_said(tmp_path: Path) -> None:
    by_tags("a.tif", None, NAMES)(tmp_path)  # GDAL calls them red, green, blue and alpha
    _, valid, notes = read_by_prediction(tmp_path / "a.tif")
    assert valid is None  # near-infrared of 0 is not transparency
    assert "bands 3, 2, 1 of 4 are taken as RGB: their descriptions say so, against their colour tags" in notes[0]
    by_tags("b.tif", None, ["red edge", "green", "blue", "nir"], photometric="minisblack")(tmp_path)
    image, _, _ = read_by_prediction(tmp_path / "b.tif")
    assert np.array_equal(image, RGB[..., ::-1])  # no band is called red, so the first three are taken


def test_what_cannot_be_read_as_rgb_is_refused_the_same_way(tmp_path: Path) -> None:
    tiff(tmp_path / "two.tif", np.zeros((2, 4, 4), np.uint8)).close()
    tiff(tmp_path / "complex.tif", np.zeros((1, 4, 4), np.complex64)).close()
    for name, kind, words in (
        ("two.tif", SettingsError, "has two bands; an image has three"),
        ("complex.tif", DataError, r"holds complex numbers \(complex64\)"),
    ):
        with pytest.raises(kind, match=words), gdal_environment():
            RasterSource(str(tmp_path / name))
        with pytest.raises(DataError, match=words):
            read_whole(tmp_path / name)


@pytest.mark.parametrize("name", ["rgb.png", "bit4.tif", "palette8.png", "turned6.jpg"])
def test_a_scale_that_would_do_nothing_is_refused(tmp_path: Path, name: str) -> None:
    KINDS[name][0](tmp_path)
    with pytest.raises(SettingsError, match="so --scale does nothing; leave it out"), gdal_environment():
        RasterSource(str(tmp_path / name), scale=(0, 100))


def test_a_vrt_without_its_source_names_it(tmp_path: Path) -> None:
    plain_tiff("gone.tif")(tmp_path)
    rasterio.shutil.copy(tmp_path / "gone.tif", tmp_path / "a.vrt", driver="VRT")
    assert np.array_equal(read_whole(tmp_path / "a.vrt").image, RGB)
    (tmp_path / "gone.tif").unlink()
    with pytest.raises(DataError, match=r"is made of files that do not exist: .*gone\.tif\. Bring them back"):
        read_whole(tmp_path / "a.vrt")
    inner = (tmp_path / "a.vrt").read_text()
    (tmp_path / "outer.vrt").write_text(inner.replace("gone.tif", "a.vrt"))
    with pytest.raises(DataError, match=r"outer\.vrt is made of files that do not exist: .*gone\.tif"):
        read_whole(tmp_path / "outer.vrt")


def test_a_damaged_file_in_a_vrt_in_a_vrt_is_not_read_as_zeros(tmp_path: Path) -> None:
    """GDAL tells the error of the first read only, and gives zeros in all later ones."""
    bands = np.full((3, 400, 48), 9, np.uint8)
    tiff(tmp_path / "a.tif", bands, compress="deflate", interleave="pixel", blockysize=64).close()
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "inner.vrt", driver="VRT")
    (tmp_path / "outer.vrt").write_text((tmp_path / "inner.vrt").read_text().replace("a.tif", "inner.vrt"))
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with rasterio.open(tmp_path / "a.tif") as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_0_3", "TIFF", bidx=1))
    content[offset : offset + 8] = b"\xff" * 8  # rows 192 to 255
    (tmp_path / "a.tif").write_bytes(content)
    with gdal_environment():
        source = RasterSource(str(tmp_path / "outer.vrt"))
        planes, valid = source.read(0, 400, 0, 48)
        again, valid_again = source.read(0, 400, 0, 48)
        source.close()
    assert valid is not None and not valid[192:256].any() and valid[:192].all() and valid[256:].all()
    assert np.array_equal(valid, valid_again) and np.array_equal(planes, again)
    assert (planes[:, valid] == 9).all()
    assert source.damaged_pixels == 64 * 48 and "Decod" in source.reason
    with pytest.raises(DataError, match=r"outer\.vrt: cannot be read as an image \(.*Decod.*rows 192 to 255"):
        read_whole(tmp_path / "outer.vrt")


@pytest.mark.slow
def test_a_progressive_jpeg_beyond_gdals_guard_is_read(tmp_path: Path) -> None:
    Image.new("L", (17_000, 16_000), 90).save(tmp_path / "a.jpg", progressive=True, quality=40)
    with gdal_environment():
        source = RasterSource(str(tmp_path / "a.jpg"))
        planes, _ = source.read(0, 2, 0, 2)
        held = source.decoder_bytes
        source.close()
    assert np.abs(planes.astype(int) - 90).max() <= 1
    assert held == 3 * 17_000 + 544_000_000  # a row of the file, three times, and two bytes for each coefficient


def test_a_progressive_jpeg_that_takes_too_much_memory_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("L", (20, 20)).save(tmp_path / "a.jpg", progressive=True)
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    place = content.index(b"\xff\xc2") + 5
    content[place : place + 4] = (40_000).to_bytes(2, "big") * 2
    (tmp_path / "a.jpg").write_bytes(content + bytes(4_000_000))  # not small enough for a bomb, or one that was cut
    with pytest.raises(DataError, match=r"a\.jpg is a progressive JPEG of 40000x40000 pixels, .* 3\.0 GiB"):
        read_whole(tmp_path / "a.jpg")


def test_a_block_of_gigabytes_is_refused_and_rows_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """19,984 x 19,984 pixels in one tile took 2 GB; GDAL reads one strip without compression row by row."""
    made: dict[str, Any] = {"driver": "GTiff", "dtype": "uint8", "sparse_ok": True}
    tile, strip = tmp_path / "tile.tif", tmp_path / "strip.tif"
    with rasterio.open(
        tile, "w", width=19_984, height=19_984, count=1, tiled=True, blockxsize=19_984, blockysize=19_984,
        compress="deflate", **made
    ), rasterio.open(
        strip, "w", width=20_000, height=20_000, count=3, blockysize=20_000, interleave="pixel", **made
    ):  # fmt: skip
        pass
    RasterSource(str(strip)).close()
    with pytest.raises(
        DataError, match=r"blocks of 19984x19984 pixels, 0\.37 GiB .*SKYSTILL_MAX_IMAGE_VALUES=399360256"
    ):
        RasterSource(str(tile))
    monkeypatch.setenv("SKYSTILL_MAX_IMAGE_VALUES", "399360256")
    assert RasterSource(str(tile)).block_shape == (19_984, 19_984)
