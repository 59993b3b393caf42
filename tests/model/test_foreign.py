"""Model files of other programs: each must give the classes that its graph says, or be refused by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

from skystill.classes import ClassMap
from skystill.errors import ModelFileError, SettingsError
from skystill.model.adapters import Form, InputScale, adapt, resized
from skystill.model.engine import open_engine
from skystill.predict import Predictor
from skystill.settings import RasterSettings
from tests.channel_model import INFO, write_model
from tests.foreign_model import FREE, THREE, TWO, truth, write_foreign
from tests.predict.test_predictor import RGB, read, write

HALF, BYTES, LONG = TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64
FLOAT = TensorProto.FLOAT
NHWC = ("n", "h", "w", 3)
DEEPNESS = {"model_type": '"Segmentor"', "standardization_mean": "[0, 0, 0]", "standardization_std": "[1, 1, 1]"}

HANDLED: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "as today": ({}, None, "from 0 to 255; --input"),
    "free axes": ({"shape": ("n", "c", "h", "w")}, None, "0 to 255"),
    "batch of one": ({"shape": (1, 3, "h", "w")}, None, "0 to 255"),
    "bytes": ({"dtypes": (BYTES, FLOAT)}, None, "bytes from 0 to 255"),
    "half precision": ({"dtypes": (HALF, HALF)}, None, "0 to 255"),
    "double precision": ({"dtypes": (TensorProto.DOUBLE, TensorProto.DOUBLE)}, None, "0 to 255"),
    "fixed 256": ({"shape": (1, 3, 256, 256)}, None, "takes 256 x 256 pixels"),
    "fixed 512": ({"shape": (1, 3, 512, 512)}, None, "takes 512 x 512 pixels"),
    "fixed 768": ({"shape": (1, 3, 768, 768)}, None, "takes 768 x 768 pixels"),
    "fixed 1024, larger than the raster": ({"shape": (1, 3, 1024, 1024)}, None, "takes 1024 x 1024 pixels"),
    "fixed, not square": ({"shape": (1, 3, 192, 320)}, None, "takes 192 x 320 pixels"),
    "fixed, no multiple of 64": ({"shape": (1, 3, 300, 300)}, None, "takes 300 x 300 pixels"),
    "fixed height alone": ({"shape": (1, 3, 256, "w")}, None, "takes 256 x 256 pixels"),
    "fixed, bands last": ({"shape": (1, 256, 256, 3)}, None, "takes 256 x 256 pixels"),
    "multiples of 32": ({"multiple": 32}, None, "multiples of 32 pixels"),
    "multiples of 128": ({"multiple": 128}, None, "multiples of 128 pixels"),
    "bands last": ({"shape": NHWC}, None, "0 to 255"),
    "bands last, answers first": ({"shape": NHWC, "answers_last": False}, None, "0 to 255"),
    "answers last": ({"answers_last": True}, None, "0 to 255"),
    "bands last, free axes": ({"shape": ("n", "h", "w", "c")}, None, "0 to 255"),
    "softmax": ({"end": "Softmax"}, None, "it gives probabilities"),
    "softmax in half precision": ({"end": "Softmax", "dtypes": (HALF, HALF)}, None, "it gives probabilities"),
    "sigmoid for each class": ({"end": "Sigmoid"}, None, "for each class by itself"),
    "0..1": ({"scale": 255.0}, "0..1", "as --input 0..1 says"),
    "0..255 said": ({}, "0..255", "as --input 0..255 says"),
    "Deepness": ({"scale": 255.0, "metadata": DEEPNESS, "end": "Softmax"}, None, "metadata for Deepness says"),
    "Deepness, overruled": ({"metadata": DEEPNESS}, "0..255", "as --input 0..255 says"),
}


@pytest.mark.parametrize("case", HANDLED)
@pytest.mark.parametrize("mode", ["crop", "blend"])
def test_the_whole_raster_gets_the_classes_of_the_graph(case: str, mode: Any, tmp_path: Path) -> None:
    options, scale, note = HANDLED[case]
    path = write_foreign(tmp_path / "m.onnx", **{"shape": FREE, **options})
    predictor = Predictor(path, classes=THREE, input_scale=scale)
    assert len(predictor.notes) == 1 and note in predictor.notes[0] and str(path) in predictor.notes[0]
    done = predictor.predict(write(tmp_path / "in.tif", RGB), tmp_path / "out.tif", RasterSettings(mode=mode))
    wrong = read(done.path) != truth(RGB)
    if "half" in case or "sigmoid" in case or mode == "blend":  # values that are nearly equal are rounded
        sure = np.sort([RGB[0], RGB[1], np.full_like(RGB[0], 100)], axis=0)
        wrong &= sure[2].astype(int) - sure[1] > 4
        wrong &= sure[2] < 200  # a sigmoid of float32 cannot tell large logits apart
    assert not wrong.any()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (31, 300), (256, 256), (257, 40), (300, 1)])
@pytest.mark.parametrize("case", ["fixed 256", "multiples of 32", "fixed, not square", "bands last, free axes"])
def test_images_of_any_size(case: str, height: int, width: int, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "m.onnx", **{"shape": FREE, **HANDLED[case][0]})
    planes = RGB[:, :height, :width]
    infer = open_engine(path, classes=THREE).infer
    logits = infer(planes)
    assert logits.shape == (3, height, width) and logits.dtype == np.float32
    assert np.allclose(logits[:2] * 25, planes[:2], atol=1e-3) and np.allclose(logits[2] * 25, 100)


def test_probabilities_are_the_softmax_of_the_logits_they_become(tmp_path: Path) -> None:
    logits = Predictor(write_foreign(tmp_path / "l.onnx"), classes=THREE)
    softmax = Predictor(write_foreign(tmp_path / "s.onnx", end="Softmax"), classes=THREE)
    image = RGB[:, :90, :120].transpose(1, 2, 0)
    assert np.allclose(logits.probabilities(image), softmax.probabilities(image), atol=1e-6)


@pytest.mark.parametrize("end", ["", "Sigmoid"])
@pytest.mark.parametrize("shape", [FREE, (1, 256, 256, 3)])
def test_one_channel_is_the_second_of_two_classes(end: str, shape: tuple[Any, ...], tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "m.onnx", shape, channels=1, end=end)
    predictor = Predictor(path, classes=TWO)
    assert "its one channel" in predictor.notes[0] and "of building" in predictor.notes[0]
    image = RGB.transpose(1, 2, 0)
    assert np.array_equal(predictor.labels(image), image[:, :, 0] > 100)
    expected = 1 / (1 + np.exp(-(image[:, :, 0].astype(float) - 100) / 25))
    assert np.allclose(predictor.probabilities(image)[1], expected, atol=1e-5)


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("shape", [FREE, (1, 3, 256, 256)])
def test_answers_at_a_part_of_the_resolution_are_resized_as_for_teachers(
    reduction: int, shape: tuple[Any, ...], tmp_path: Path
) -> None:
    path = write_foreign(tmp_path / "m.onnx", shape, reduction=reduction)
    engine = open_engine(path, classes=THREE)
    assert f"1/{reduction} of the resolution" in engine.notes[0]
    planes = RGB[:, :256, :256]
    pooled = F.avg_pool2d(torch.from_numpy(planes.astype(np.float32))[None], reduction)
    expected = F.interpolate(pooled, size=(256, 256), mode="bilinear", align_corners=False)[0].numpy()
    assert np.allclose(engine.infer(planes)[:2] * 25, expected[:2], atol=1e-3)


@pytest.mark.parametrize("size", [(7, 9), (14, 18), (15, 40), (1, 1), (3, 5)])
def test_resizing_is_that_of_torch(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((4, 7, 9), np.float32)
    expected = F.interpolate(torch.from_numpy(values)[None], size=size, mode="bilinear", align_corners=False)[0]
    assert np.allclose(resized(values, *size), expected.numpy(), atol=1e-6)


def test_standardisation_of_imagenet_and_of_deepness(tmp_path: Path) -> None:
    # White: (1 - 0.485) / 0.229 = 2.2489; the graph gives red / 25. With mean 0.5 and deviation 0.25: (1 - 0.5) / 0.25.
    white = np.full((3, 8, 8), 255, np.uint8)
    path = write_foreign(tmp_path / "m.onnx")
    found = open_engine(path, classes=THREE, input_scale="imagenet").infer(white)
    assert found[0] * 25 == pytest.approx(2.2489, abs=1e-4) and found[1] * 25 == pytest.approx(2.4286, abs=1e-4)
    metadata = DEEPNESS | {"standardization_mean": "[0.5, 0.5, 0.5]", "standardization_std": "[0.25, 0.25, 0.25]"}
    engine = open_engine(write_foreign(tmp_path / "d.onnx", metadata=metadata | {"resolution": "30"}), classes=THREE)
    assert engine.infer(white)[0] * 25 == pytest.approx(2.0) and engine.info.resolution_m == 0.3


NAMES_MOVED = {"class_names": json.dumps({"0": "green", "1": "red", "2": "dark"})}
REFUSED: dict[str, tuple[dict[str, Any], ClassMap, str | None, str]] = {
    "classes are numbers": ({"end": "ArgMax", "dtypes": (FLOAT, LONG)}, THREE, None, r"int64.*without the argmax"),
    "other count": ({}, TWO, None, r"gives 3 classes; .* has 2 \(ground, building\)"),
    "other count, fixed": ({"shape": (1, 3, 64, 64)}, TWO, None, "gives 3 classes"),
    "one channel, three classes": ({"channels": 1}, THREE, None, "One channel needs two classes"),
    "other order": ({"metadata": NAMES_MOVED}, THREE, None, "in another order.*red is 1, green is 0"),
    "four images": ({"shape": (4, 3, "h", "w")}, THREE, None, "takes 4 images at once"),
    "odd scale": ({}, THREE, "-1..1", "no scale of the input is called '-1..1'"),
    "floats for bytes": ({"dtypes": (BYTES, FLOAT)}, THREE, "0..1", "takes bytes, and --input 0..1"),
    "damaged metadata": (
        {"metadata": DEEPNESS | {"standardization_std": "[1]"}}, THREE, None, r"damaged \(1 numbers\)"
    ),
    "always not finite": ({"extra": (helper.make_node("Log", ["values"], ["ended"]),)}, THREE, None, "not finite"),
    "1/50": ({"reduction": 50}, THREE, None, "one value for each class and pixel, or for each square"),
    "fixed, 1/50": ({"shape": (1, 3, 256, 256), "reduction": 50}, THREE, None, r"gives \(1, 3, 5, 5\)"),
    "part of the image": (
        {"extra": (helper.make_node("AveragePool", ["values"], ["ended"], kernel_shape=[21, 21]),)},
        THREE, None, "one value for each class and pixel",
    ),
    "never runs": ({"multiple": 256}, THREE, None, r"fails on an input of the shape \(1, 3, 131, 97\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_run_is_refused_before_anything_is_written(case: str, tmp_path: Path) -> None:
    options, classes, scale, message = REFUSED[case]
    path = write_foreign(tmp_path / "m.onnx", **{"shape": FREE, **options})
    with pytest.raises((ModelFileError, SettingsError), match=message) as raised:
        Predictor(path, classes=classes, input_scale=scale)
    assert raised.value.exit_code == 2
    assert scale == "-1..1" or str(path) in str(raised.value)


@pytest.mark.parametrize("bands", [1, 4])
def test_other_numbers_of_bands_are_refused(bands: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_foreign(path, (1, bands, 64, 64))
    with pytest.raises(ModelFileError, match=r"cannot be opened|an image of 3 bands is.*--bands"):
        Predictor(path, classes=THREE)


def test_own_files_know_their_scale(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", INFO.to_metadata())
    assert Predictor(path).notes == ()
    with pytest.raises(SettingsError, match="--input is for model files of other programs"):
        Predictor(path, input_scale="0..1")


def test_later_answers_of_another_kind_or_shape_are_refused() -> None:
    form = Form(
        Path("m.onnx"), 3, np.float32, InputScale(), bands_last=False, classes_last=False, channels=3,
        answer="probabilities", size=None, multiple=1, smallest=1, reduction=1,
    )  # fmt: skip
    with pytest.raises(ModelFileError, match=r"now gives 0.3 to 0.6; .*Export it again with logits"):
        adapt(lambda image: np.float32([0.3, 0.6, 0.6])[None, :, None, None], form)(np.zeros((3, 1, 1), np.uint8))
    with pytest.raises(ModelFileError, match=r"gives \(1, 3, 2, 2\) for an image of 1 x 1 pixels"):
        adapt(lambda image: np.zeros((1, 3, 2, 2), np.float32), form)(np.zeros((3, 1, 1), np.uint8))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("label", [0, 5])
@pytest.mark.parametrize("parameters", [0, 1], ids=["plain", "bound"])
@pytest.mark.parametrize("mode", ["crop", "blend"])
def test_own_answers_that_are_not_finite_make_no_class_map(
    value: float, label: int, parameters: int, mode: Any, tmp_path: Path
) -> None:
    path = write_model(
        tmp_path / "bad.onnx", replace(INFO, parameters=parameters, tile_size=128).to_metadata(), added=(label, value)
    )
    predictor = Predictor(path)
    source = write(tmp_path / "in.tif", RGB[:, :200, :200])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ModelFileError, match="not finite") as raised:
        predictor.predict(source, tmp_path / "out.tif", RasterSettings(mode=mode))
    assert str(path) in str(raised.value) and sorted(tmp_path.iterdir()) == before
    for call in (predictor.labels, predictor.probabilities):
        with pytest.raises(ModelFileError, match="not finite"):
            call(RGB[:, :200, :200].transpose(1, 2, 0))


@pytest.mark.parametrize("parameters", [0, 1], ids=["plain", "bound"])
def test_own_answers_of_another_size_make_no_class_map(parameters: int, tmp_path: Path) -> None:
    path = write_model(
        tmp_path / "bad.onnx", replace(INFO, parameters=parameters, tile_size=128).to_metadata(), pooled=2
    )
    source = write(tmp_path / "in.tif", RGB[:, :200, :200])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ModelFileError, match=r"bad\.onnx (gives|fails on)"):
        Predictor(path).predict(source, tmp_path / "out.tif")
    assert sorted(tmp_path.iterdir()) == before
