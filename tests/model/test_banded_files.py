"""Model files that are fed any bands: what they say of themselves, what they cost, and their INT8 variants."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pystac
import pytest
from onnx import helper
from pystac.extensions.mlm import MLMExtension

from skystill.errors import ModelFileError
from skystill.model.file import ModelInfo, open_session, read_info
from skystill.model.measure import measure_models
from skystill.model.quantize import quantize_model
from skystill.model.stac import write_stac_item
from skystill.predict import Predictor
from skystill.raster.input_spec import RGB, InputSpec
from tests.banded_model import FOUR, write_banded
from tests.banded_rasters import pixels_of, spec_of

RGBN = spec_of("uint16", 4, ("red", "green", "blue", "nir"))


def with_metadata(path: Path, **changed: str | None) -> Path:
    """Change properties of a file; None takes one away."""
    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props} | changed
    del model.metadata_props[:]
    helper.set_model_props(model, {key: value for key, value in kept.items() if value is not None})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "spec",
    [
        spec_of("float32", 1),
        replace(RGBN, nodata=0.0, resolution_m=0.3, resolution_range_m=(0.28, 0.31)),
        replace(spec_of("int16", 64), nodata=-9999.0),
    ],
)
def test_the_spec_is_in_the_file(spec: InputSpec, tmp_path: Path) -> None:
    path = write_banded(tmp_path / "m.onnx", spec)
    info = read_info(open_session(path), path)
    assert info.input_spec == spec and info.resolution_m == spec.resolution_m
    metadata = {key: json.loads(text) for key, text in info.to_metadata().items()}
    assert metadata["standardization_mean"] == [0.0] * len(spec)
    assert metadata["standardization_std"] == [1.0] * len(spec)
    assert metadata["resolution_m"] == spec.resolution_m
    assert metadata.get("resolution") == (30.0 if spec.resolution_m else None)


@pytest.mark.parametrize(("said", "expected"), [("0.25", 0.25), ("null", None), (None, None)])
def test_a_file_without_a_spec_takes_colours(said: str | None, expected: float | None, tmp_path: Path) -> None:
    path = with_metadata(write_banded(tmp_path / "m.onnx", spec_of("uint8", 3)), input_spec=None, resolution_m=said)
    info = read_info(open_session(path), path)
    assert info.input_spec == replace(RGB, resolution_m=expected) and info.input_spec.is_colors


def test_the_resolution_is_that_of_the_spec() -> None:
    info = ModelInfo(FOUR, "n", 0, 0).with_resolution(0.5)
    assert (info.resolution_m, info.input_spec.resolution_m) == (0.5, 0.5)
    assert info.with_resolution(None).resolution_m is None


def spec_with(**changed: object) -> str:
    return json.dumps(RGBN.to_dict() | changed)


@pytest.mark.parametrize(
    "damaged",
    [
        "{", "[]", "3", "null", "{}", spec_with(dtype="int64"), spec_with(bands=[]), spec_with(bands=[{"name": "red"}]),
        spec_with(bands=[1]), spec_with(bands=[RGBN.to_dict()["bands"][0]] * 4), spec_with(nodata="none"),  # type: ignore[index]
        spec_with(resolution_range_m=[1]),
    ],
)  # fmt: skip
def test_a_damaged_spec_is_refused(damaged: str, tmp_path: Path) -> None:
    path = with_metadata(write_banded(tmp_path / "m.onnx", RGBN), input_spec=damaged)
    with pytest.raises(ModelFileError, match="its metadata is damaged") as raised:
        Predictor(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (spec_of("uint16", 3), "takes 4 bands; its metadata names 3"),
        (spec_of("int16", 4), r"takes tensor\(uint16\); for band 1, .*tensor\(int16\) or tensor\(float\) was expected"),
    ],
)
def test_metadata_of_another_network_is_refused(spec: InputSpec, message: str, tmp_path: Path) -> None:
    path = with_metadata(write_banded(tmp_path / "m.onnx", RGBN), input_spec=json.dumps(spec.to_dict()))
    with pytest.raises(ModelFileError, match=message):
        Predictor(path)


@pytest.mark.parametrize(("dtype", "count"), [("uint16", 6), ("float32", 13), ("int16", 1)])
def test_a_file_of_any_bands_is_measured(dtype: str, count: int, tmp_path: Path) -> None:
    cost = measure_models([write_banded(tmp_path / "m.onnx", spec_of(dtype, count))], threads=1)[0]
    assert cost.latency_ms_per_mp > 0 and cost.peak_rss_bytes > 10**7


@pytest.mark.parametrize("spec", [RGBN, spec_of("float32", 13), spec_of("uint8", 4), spec_of("uint8", 3), RGB])
def test_the_stac_item_names_bands_and_scaling(spec: InputSpec, tmp_path: Path) -> None:
    path = write_banded(tmp_path / "m.onnx", spec)
    write_stac_item(path, tmp_path / "m.stac.json")
    item = pystac.Item.from_file(str(tmp_path / "m.stac.json"))
    plain = item.full_copy()
    plain.stac_extensions = []
    assert plain.validate()
    taken = MLMExtension.ext(item).input[0]
    labels = [band.label for band in spec.bands]
    assert [band if isinstance(band, str) else band.name for band in taken.bands] == labels
    # mlm 1.4 asks for bands in the properties, and STAC 1.1 allows them there if an asset has them.
    listed = [{"name": label, "data_type": spec.dtype} for label in labels]
    assert item.properties["bands"] == item.assets["model"].extra_fields["bands"] == listed
    assert (taken.input.shape, taken.input.data_type) == ([-1, len(spec), -1, -1], spec.dtype)
    scaling: list[dict[str, Any]] | None = item.properties["mlm:input"][0].get("value_scaling")
    wanted = [{"type": "z-score", "mean": band.mean, "stddev": band.std} for band in spec.bands]
    assert scaling == (None if spec.is_three_bytes else wanted)


@pytest.mark.parametrize(("dtype", "count"), [("uint8", 4), ("uint16", 6), ("int16", 2), ("float32", 13)])
def test_int8_gives_nearly_the_same_classes(dtype: str, count: int, tmp_path: Path) -> None:
    """A network of two convolutions, calibrated on noise as it is scored on."""
    spec = spec_of(dtype, count)
    path = write_banded(tmp_path / "m.onnx", spec, hidden=16)
    images = [pixels_of(spec, 96, 96, seed).transpose(1, 2, 0) for seed in range(4)]
    expected = [Predictor(path).labels(image) for image in images]

    def score(file: Path) -> float:
        predictor = Predictor(file)
        return float(np.mean([predictor.labels(i) == labels for i, labels in zip(images, expected, strict=True)]))

    result = quantize_model(path, tmp_path / "int8.onnx", images, score, max_drop=0.03)
    assert result.float_score == 1.0 and result.score > 0.97 and result.layers == 2 and not result.kept
    assert score(tmp_path / "int8.onnx") == result.score
    info = Predictor(tmp_path / "int8.onnx").info
    assert (info.precision, info.input_spec) == ("int8", spec)
    kinds = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert kinds.index("Div") < kinds.index("QuantizeLinear")
