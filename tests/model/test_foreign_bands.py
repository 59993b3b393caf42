"""Model files of other programs that are fed other bands than red, green and blue."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from onnx import TensorProto

from skystill.errors import ModelFileError, SettingsError
from skystill.model.adapters import InputScale, input_scale, parse_input
from skystill.predict import Predictor
from skystill.raster.band_names import wanted_bands
from skystill.settings import RasterSettings
from tests.banded_rasters import write_bands
from tests.foreign_model import THREE, TWO, write_foreign

FLOAT, BYTES, WORDS = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.UINT16
PLANES = np.random.default_rng(5).integers(1, 201, (6, 150, 170))
"""The labels of THREE: the largest of the first band of the network, its second band, and 100."""
NAMES = ("nir", "green", "red", "blue", "swir16", "swir22")


def labels_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(np.stack([first, second, np.full(first.shape, 100)]).argmax(axis=0), np.uint8)


def run(path: Path, planes: np.ndarray, bands: str, scale: str | None, **options: Any) -> np.ndarray:
    source = write_bands(path.with_name("in.tif"), planes, NAMES[: len(planes)], **options)
    predictor = Predictor(path, classes=THREE, input_scale=scale, bands=wanted_bands(bands))
    predictor.predict(source, path.with_name("out.tif"), RasterSettings(bands=bands))
    with rasterio.open(path.with_name("out.tif")) as file:
        return np.asarray(file.read(1))


SHAPES: dict[str, tuple[Any, ...]] = {
    "free": ("n", 4, "h", "w"), "fixed": (1, 4, 64, 64), "bands last": ("n", "h", "w", 4), "any": ("n", "c", "h", "w"),
}  # fmt: skip


@pytest.mark.parametrize("stored", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_in_any_type_become_floats(shape: str, stored: str, tmp_path: Path) -> None:
    model = write_foreign(tmp_path / "m.onnx", SHAPES[shape], bands=4, multiple=8 if shape == "free" else 1)
    found = run(model, PLANES.astype(stored), "blue,green,red,nir", "values")
    assert np.array_equal(found, labels_of(PLANES[3], PLANES[1]))


@pytest.mark.parametrize(
    ("factor", "scale"),
    [(50, "values?divide=50"), (1, "values?mean=20&std=2"), (7, "values?divide=7&mean=20,20,0,1&std=2,2,1,3")],
)
def test_values_are_divided_and_standardised(factor: int, scale: str, tmp_path: Path) -> None:
    """The network sees (value / divide - mean) / std; its threshold is 100."""
    model = write_foreign(tmp_path / "m.onnx", SHAPES["free"], bands=4)
    found = run(model, (PLANES * factor).astype(np.uint16), "2,3,4,1", scale)
    seen = PLANES.astype(float) if "mean" not in scale else (PLANES - 20) / 2
    assert np.array_equal(found, labels_of(seen[1], seen[2]))


def test_padding_and_pixels_without_data_are_the_mean(tmp_path: Path) -> None:
    """An average over 9 x 9 pixels of values whose mean is 150 stays 150 where the raster ends or has no data."""
    extra_kernel = {"kernel_shape": [9, 9], "pads": [4] * 4, "count_include_pad": 0}
    from onnx import helper

    node = helper.make_node("AveragePool", ["values"], ["ended"], **extra_kernel)
    model = write_foreign(tmp_path / "m.onnx", (1, 4, 256, 256), bands=4, scale=1.0, extra=(node,))
    planes = np.full((4, 40, 50), 150, np.int16)
    planes[:, 10:20, 10:20] = -9999
    source = write_bands(tmp_path / "in.tif", planes, nodata=-9999)
    predictor = Predictor(model, classes=THREE, input_scale="values?mean=150", bands=[1, 2, 3, 4])
    seen: list[np.ndarray] = []
    infer = predictor._infer  # a raster of a single tile is computed by all threads
    predictor._infer = lambda tile: (seen.append(tile), infer(tile))[1]
    predictor.predict(source, tmp_path / "out.tif")
    assert all((tile == 150).all() for tile in seen) and seen


def test_three_bands_in_another_order(tmp_path: Path) -> None:
    """They are read as colours, whether the predictor or a prediction is told which they are."""
    model = write_foreign(tmp_path / "m.onnx")
    source = write_bands(tmp_path / "in.tif", PLANES.astype(np.uint8), NAMES)
    bgr: list[int | str] = ["blue", "green", "red"]
    for predictor, settings in (
        (Predictor(model, classes=THREE, bands=bgr), RasterSettings()),
        (Predictor(model, classes=THREE), RasterSettings(bands="blue,green,red")),
        (Predictor(model, classes=THREE, bands=[1, 2, 3]), RasterSettings(bands="4,2,3")),
    ):
        predictor.predict(source, tmp_path / "out.tif", settings)
        with rasterio.open(tmp_path / "out.tif") as file:
            assert np.array_equal(file.read(1), labels_of(PLANES[3], PLANES[1]))


def test_bytes_of_four_bands(tmp_path: Path) -> None:
    for scale, factor in (("0..255", 1.0), (None, 1.0), ("0..1", 255.0)):
        model = write_foreign(tmp_path / "m.onnx", SHAPES["free"], bands=4, scale=factor)
        found = run(model, PLANES.astype(np.uint8), "blue,green,red,nir", scale)
        assert np.array_equal(found, labels_of(PLANES[3], PLANES[1]))


def test_one_band(tmp_path: Path) -> None:
    """Its one answer is red less 100."""
    model = write_foreign(tmp_path / "m.onnx", ("n", 1, "h", "w"), bands=1, channels=1)
    source = write_bands(tmp_path / "in.tif", PLANES.astype(np.uint16), NAMES)
    predictor = Predictor(model, classes=TWO, input_scale="values", bands=["nir"])
    predictor.predict(source, tmp_path / "out.tif", RasterSettings(bands="nir"))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert np.array_equal(file.read(1), PLANES[0] > 100)


def test_a_file_of_integers_takes_its_own_type(tmp_path: Path) -> None:
    model = write_foreign(tmp_path / "m.onnx", SHAPES["free"], bands=4, dtypes=(WORDS, FLOAT))
    found = run(model, PLANES.astype(np.uint16), "blue,green,red,nir", "values")
    assert np.array_equal(found, labels_of(PLANES[3], PLANES[1]))
    for scale, message in ((None, "add --input values"), ("values?divide=2", "asks for floats"), ("0..1", "floats")):
        with pytest.raises(SettingsError, match=message):
            Predictor(model, classes=THREE, input_scale=scale, bands=[1, 2, 3, 4])


def test_the_metadata_of_deepness_has_a_number_for_each_band(tmp_path: Path) -> None:
    """(pixel / 255 - mean) / std, which the network turns back by its weights."""
    said = {"standardization_mean": "[0, 0, 0, 0]", "standardization_std": "[0.5, 0.5, 0.5, 0.5]"}
    model = write_foreign(tmp_path / "m.onnx", SHAPES["free"], bands=4, scale=127.5, metadata=said)
    found = run(model, PLANES.astype(np.uint8), "blue,green,red,nir", None)
    assert np.array_equal(found, labels_of(PLANES[3], PLANES[1]))
    write_foreign(model, SHAPES["free"], bands=4, metadata=said | {"standardization_std": json.dumps([1, 1, 1])})
    with pytest.raises(ModelFileError, match=r"damaged \(3 numbers\); 4 numbers each"):
        Predictor(model, classes=THREE, bands=[1, 2, 3, 4])


@pytest.mark.parametrize("bands", [None, [1, 2, 3], [1]])
def test_a_file_of_four_bands_needs_four(bands: list[int | str] | None, tmp_path: Path) -> None:
    model = write_foreign(tmp_path / "m.onnx", SHAPES["fixed"], bands=4)
    with pytest.raises(ModelFileError, match=r"takes \[1, 4, 64, 64\].*with --bands"):
        Predictor(model, classes=THREE, bands=bands)
    with pytest.raises((ModelFileError, SettingsError), match="--bands"):
        Predictor(model, classes=THREE, bands=bands, input_scale="values")


def test_options_of_the_scale() -> None:
    options = parse_input("values?divide=10000&mean=0.2,0.3&std=0.1,0.2")
    assert options == {"input": "values", "divide": "10000", "mean": "0.2,0.3", "std": "0.1,0.2"}
    assert input_scale(options, 2) == InputScale(10_000.0, (0.2, 0.3), (0.1, 0.2), values=True)
    assert input_scale({**options, "bands": "red,nir"}, 2) == input_scale(options, 2)
    assert input_scale(parse_input("0..1"), 5) == InputScale(255.0)
    applied = input_scale(options, 2).applied(np.array([3000, 2000], np.uint16).reshape(2, 1, 1))
    assert applied.ravel() == pytest.approx([1.0, -0.5], rel=1e-5)


@pytest.mark.parametrize(
    ("text", "bands", "message"),
    [
        ("values?mean=1,2", 3, "mean=1,2: 3 numbers, or one for all bands, were expected"),
        ("values?divide=1,2", 3, "divide=1,2: one number was expected"),
        ("values?std=0", 3, "must be above 0"), ("values?divide=-1", 3, "must be above 0"),
        ("values?mean=nan", 3, "mean=nan"), ("values?mean=x", 3, "mean=x"),
        ("0..1?divide=2", 3, "divide is for values"), ("imagenet", 4, "three bands"),
        ("imagenet?mean=0", 3, "three bands"), ("reflectance", 3, "there are 0..255"),
        ("values?", 3, ""), ("values?mean", 3, "not understood"), ("values?mean=1&mean=2", 3, "not understood"),
        ("values?offset=1", 3, "'offset=1' is not understood"),
    ],
)  # fmt: skip
def test_options_that_are_not_understood(text: str, bands: int, message: str) -> None:
    if not message:
        assert input_scale(parse_input(text), bands) == InputScale(values=True)
        return
    with pytest.raises(SettingsError, match=message):
        input_scale(parse_input(text), bands)
