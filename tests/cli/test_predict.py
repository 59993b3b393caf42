"""`skystill predict`: another resolution, several inputs, the runtime of a small computer."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine, from_origin

from skystill.predict import Predictor
from tests.channel_model import INFO, write_model
from tests.cli.conftest import Done

Cli = Callable[..., Done]
UTM, WEST, NORTH = "EPSG:32640", 300_000, 2_800_000
HALF_METRE = from_origin(WEST, NORTH, 0.5, 0.5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The class of a pixel is its brightest band; in tiles of 96 pixels, so that the rasters here need several."""
    return write_model(tmp_path / "m.onnx", replace(INFO, tile_size=96, overlap=16).to_metadata())


def smooth(height: int, width: int) -> np.ndarray:
    """(3, H, W) uint8: three waves of different lengths, so that classes change every few pixels and have no ties."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 5 + columns / 9), np.sin(rows / 7 - columns / 6 + 2), np.cos(rows / 11 + columns / 4)]
    return np.stack([np.rint(127 + 120 * wave) for wave in waves]).astype(np.uint8)


def write(path: Path, bands: np.ndarray, crs: str | None = UTM, transform: Affine = HALF_METRE, **more: object) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=bands.shape[1], width=bands.shape[2], count=3, dtype="uint8", crs=crs,
        transform=transform, **more,
    ) as file:  # fmt: skip
        file.write(bands)
    return path


def resampled(path: Path, height: int, width: int, how: Resampling) -> np.ndarray:
    """The whole raster at another size, by rasterio alone: (H, W, 3)."""
    with rasterio.open(path) as file:
        return np.asarray(file.read(out_shape=(3, height, width), resampling=how)).transpose(1, 2, 0)


def test_a_coarser_resolution_is_the_mean_of_the_pixels(tmp_path: Path, model: Path, skystill: Cli) -> None:
    """0.5 m to 1.5 m: each pixel of the result is the mean of 3x3."""
    bands = smooth(270, 360)
    source = write(tmp_path / "in.tif", bands)
    done = skystill(
        "predict", source, "--model", model, "--out", tmp_path / "out.tif", "--resolution", 1.5, "--areas", "--overlay"
    )
    assert done.code == 0, done.err
    means = np.floor(bands.reshape(3, 90, 3, 120, 3).mean(axis=(2, 4)) + 0.5).astype(np.uint8)
    with rasterio.open(tmp_path / "out.tif") as out:
        found = out.read(1)
        assert (out.shape, out.res, out.crs) == ((90, 120), (1.5, 1.5), CRS.from_string(UTM))
        assert out.transform == from_origin(WEST, NORTH, 1.5, 1.5)
    assert np.array_equal(found, means.argmax(axis=0))
    image = resampled(source, 90, 120, Resampling.average)
    assert np.array_equal(found, Predictor(model).labels(image))
    assert set(np.unique(found)) == {0, 1, 2}
    with (tmp_path / "out-areas.csv").open() as file:
        areas = [float(row["hectares"]) for row in csv.DictReader(file) if row["hectares"]]
    scale = 0.9996 * (1 + (200_000 / 0.9996) ** 2 / (2 * 6_365_000**2))  # of UTM, 200 km from its central meridian
    assert sum(areas) == pytest.approx(180 * 135 / scale**2 / 10_000, abs=2e-4)  # as large as it was
    with Image.open(tmp_path / "out-overlay.png") as picture:
        assert picture.size == (120, 90)


def test_a_finer_resolution_is_bilinear_and_tiles_do_not_show(tmp_path: Path, model: Path, skystill: Cli) -> None:
    source = write(tmp_path / "in.tif", smooth(100, 130), tiled=True, blockxsize=64, blockysize=64)
    done = skystill("predict", source, "--model", model, "--out", tmp_path / "out.tif", "--resolution", 0.25)
    assert done.code == 0, done.err
    with rasterio.open(tmp_path / "out.tif") as out:
        found = out.read(1)
        assert out.transform == from_origin(WEST, NORTH, 0.25, 0.25)
    image = resampled(source, 200, 260, Resampling.bilinear)
    assert np.array_equal(found, Predictor(model).labels(image))


def test_a_resolution_that_does_not_divide_keeps_the_extent(tmp_path: Path, model: Path, skystill: Cli) -> None:
    """60 x 50 m at 0.7 m: 85.7 x 71.4 pixels, so 86 x 71, and a pixel is the extent over that."""
    source = write(tmp_path / "in.tif", smooth(100, 120))
    done = skystill("predict", source, "--model", model, "--out", tmp_path / "out.tif", "--resolution", 0.7)
    assert done.code == 0, done.err
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(source) as given:
        assert out.shape == (71, 86)
        assert out.bounds == pytest.approx(given.bounds)
        assert out.res == pytest.approx((60 / 86, 50 / 71))


def test_the_resolution_is_in_metres_whatever_the_unit_of_the_raster(
    tmp_path: Path, model: Path, skystill: Cli
) -> None:
    """EPSG:2263 is in US survey feet of 1200/3937 m: pixels of 1 foot to pixels of 3 feet."""
    bands = smooth(90, 60)
    source = write(tmp_path / "in.tif", bands, "EPSG:2263", from_origin(980_000, 200_000, 1, 1))
    done = skystill("predict", source, "--model", model, "--out", tmp_path / "o.tif", "--resolution", 3 * 1200 / 3937)
    assert done.code == 0, done.err
    with rasterio.open(tmp_path / "o.tif") as out:
        assert (out.shape, out.res, out.crs) == ((30, 20), (3.0, 3.0), CRS.from_epsg(2263))
        means = np.floor(bands.reshape(3, 30, 3, 20, 3).mean(axis=(2, 4)) + 0.5)
        assert np.array_equal(out.read(1), means.argmax(axis=0))


def test_pixels_without_data_stay_so_at_another_resolution(tmp_path: Path, model: Path, skystill: Cli) -> None:
    bands = np.maximum(smooth(120, 120), 1)
    bands[:, 30:60, 60:90] = 0  # whole pixels of the coarser raster
    source = write(tmp_path / "in.tif", bands, nodata=0)
    done = skystill("predict", source, "--model", model, "--out", tmp_path / "out.tif", "--resolution", 1.5)
    assert done.code == 0, done.err
    expected = np.floor(bands.reshape(3, 40, 3, 40, 3).mean(axis=(2, 4)) + 0.5).argmax(axis=0)
    expected[10:20, 20:30] = 255
    with rasterio.open(tmp_path / "out.tif") as out:
        assert np.array_equal(out.read(1), expected)


def test_a_raster_without_metres_cannot_be_resampled(tmp_path: Path, model: Path, skystill: Cli) -> None:
    """Its transform has a number for the size of a pixel, but without a CRS that number has no unit."""
    source = write(tmp_path / "in.tif", smooth(20, 20), None, HALF_METRE)
    before = set(tmp_path.iterdir())
    flags = ("--model", model, "--out", tmp_path / "out.tif")
    done = skystill("predict", source, *flags, "--resolution", 1.5)
    assert done.code == 2
    assert f"{source} does not say how large its pixels are in metres" in " ".join(done.err.split())
    assert set(tmp_path.iterdir()) == before
    assert skystill("predict", source, *flags).code == 0  # as it is, it can be predicted


def test_a_photograph_cannot_be_resampled(photos: list[Path], tmp_path: Path, model: Path, skystill: Cli) -> None:
    done = skystill("predict", photos[0], "--model", model, "--out", tmp_path / "out.png", "--resolution", 0.3)
    assert done.code == 2
    assert f"{photos[0]} does not say how large its pixels are" in " ".join(done.err.split())
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("degrees", [30, 90])
def test_a_turned_raster_is_resampled_as_one_that_is_not(
    degrees: int, tmp_path: Path, model: Path, skystill: Cli
) -> None:
    """Its pixels are 0.5 m along their sides, wherever these point: at 1 m there are half as many rows and columns."""
    bands, turned = smooth(60, 80), Affine.rotation(degrees)
    transform = Affine.translation(WEST, NORTH) @ turned @ Affine.scale(0.5, -0.5)
    source = write(tmp_path / "in.tif", bands, transform=transform)
    done = skystill("predict", source, "--model", model, "--out", tmp_path / "out.tif", "--resolution", 1)
    assert done.code == 0, done.err
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.shape == (30, 40)
        assert out.transform.almost_equals(Affine.translation(WEST, NORTH) @ turned @ Affine.scale(1, -1), 1e-6)


def test_pixels_that_are_not_square_become_square(tmp_path: Path, model: Path, skystill: Cli) -> None:
    """0.5 m wide and 1 m high, to 2 m."""
    bands = smooth(40, 80)
    source = write(tmp_path / "in.tif", bands, transform=from_origin(WEST, NORTH, 0.5, 1))
    done = skystill("predict", source, "--model", model, "--out", tmp_path / "out.tif", "--resolution", 2)
    assert done.code == 0, done.err
    with rasterio.open(tmp_path / "out.tif") as out:
        assert (out.res, out.shape) == ((2.0, 2.0), (20, 20))
        means = np.floor(bands.reshape(3, 20, 2, 20, 4).mean(axis=(2, 4)) + 0.5)
        assert np.array_equal(out.read(1), means.argmax(axis=0))


@pytest.mark.parametrize(("trained_at", "is_said"), [(0.5, False), (0.3, False), (0.2, True), (1.1, True)])
def test_a_raster_of_another_resolution_than_the_models_is_told(
    trained_at: float, is_said: bool, tmp_path: Path, skystill: Cli
) -> None:
    model = write_model(tmp_path / "m.onnx", replace(INFO, tile_size=96).with_resolution(trained_at).to_metadata())
    source = write(tmp_path / "in.tif", smooth(20, 20))
    done = skystill("predict", source, "--model", model, "--out", tmp_path / "out.tif")
    assert done.code == 0, done.err
    assert (f"--resolution {trained_at:g} resamples" in " ".join(done.err.split())) == is_said


@pytest.fixture
def photos(tmp_path: Path, write_picture: Callable[..., Path]) -> list[Path]:
    """Two photographs of one name in two folders: one red, one green."""
    return [
        write_picture(tmp_path / "a/photo.jpg", (250, 0, 0)),
        write_picture(tmp_path / "b/photo.jpg", (0, 250, 0)),
    ]


def test_two_inputs_of_one_name_are_refused_by_name(
    photos: list[Path], tmp_path: Path, model: Path, skystill: Cli
) -> None:
    for inputs in (photos, [photos[0].parent, photos[1].parent], [f"{tmp_path}/*/photo.jpg"]):
        done = skystill("predict", *inputs, "--model", model, "--out", tmp_path / "out")
        assert done.code == 2
        assert "several inputs would be written to photo.png; predict them into two folders" in " ".join(
            done.err.split()
        )
        assert not (tmp_path / "out").exists()


def test_two_inputs_of_one_name_go_into_two_folders(
    photos: list[Path], tmp_path: Path, model: Path, skystill: Cli
) -> None:
    for photo, label in zip(photos, (0, 1), strict=True):
        out = tmp_path / "out" / photo.parent.name
        done = skystill("predict", photo, "--model", model, "--out", out)
        assert done.code == 0, done.err
        assert sorted(path.name for path in out.iterdir()) == ["photo.png", "photo.qml"]
        with Image.open(out / "photo.png") as picture:
            assert np.unique(np.asarray(picture)).tolist() == [label]


def test_one_input_named_twice_is_done_once(photos: list[Path], tmp_path: Path, model: Path, skystill: Cli) -> None:
    done = skystill("predict", photos[0], photos[0].parent, photos[0], "--model", model, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert done.out.count("photo.png: ") == 1
