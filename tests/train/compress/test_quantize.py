"""INT8 files: as good as they say, smaller, and without a conversion that the image does not need."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from skystill.classes import DUBAI
from skystill.data.scenes import paint_scene
from skystill.errors import ModelFileError, SettingsError
from skystill.model.quantize import quantize_model
from skystill.predict import Predictor
from skystill.progress import Event, Message
from skystill.report import int8
from skystill.report.int8 import quantize_on_data
from skystill.settings import QuantizeSettings
from skystill.train.compress.export import describe, export_network
from skystill.train.networks.table import build_network
from tests.model_cost import cost

SPEC = "kite?channels=(8,16)&blocks=(1,1)"


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [paint_scene(160, seed)[0] for seed in range(6)]


@pytest.fixture(scope="module")
def float_file(images: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = build_network(SPEC, 6)
    with torch.no_grad():
        for image in images:
            network(torch.from_numpy(image).permute(2, 0, 1)[None])
    path = tmp_path_factory.mktemp("float") / "student.onnx"
    export_network(network, describe(SPEC, network, DUBAI), path, images[:1])
    return path


def agreement(path: Path, other: Path, images: list[np.ndarray]) -> float:
    one, two = Predictor(path), Predictor(other)
    return float(np.mean([np.mean(one.labels(image) == two.labels(image)) for image in images]))


def test_int8_says_the_same_in_a_smaller_file(float_file: Path, images: list[np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    made = quantize_model(float_file, out, images, lambda path: agreement(path, float_file, images), max_drop=0.05)
    assert made.float_score == 1.0
    assert made.score > 0.95 and made.kept == ()
    assert out.stat().st_size < float_file.stat().st_size * 0.6
    info = Predictor(out).info
    assert (info.precision, info.network, info.classes.names) == ("int8", SPEC, DUBAI.names)
    onnx.checker.check_model(out, full_check=True)
    with pytest.raises(ModelFileError, match="is int8 already"):
        quantize_model(out, tmp_path / "twice.onnx", images, lambda path: 1.0)


def test_bytes_come_in_and_leave_as_bytes(float_file: Path, images: list[np.ndarray], tmp_path: Path) -> None:
    quantize_model(float_file, tmp_path / "int8.onnx", images, lambda path: 1.0)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")  # the graph as ONNX Runtime runs it
    options.log_severity_level = 3
    onnxruntime.InferenceSession(tmp_path / "int8.onnx", options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "run.onnx").graph
    made_by = {name: node for node in graph.node for name in node.output}
    last = made_by[graph.output[0].name]
    assert last.op_type == "DequantizeLinear"  # behind the crop
    assert made_by[last.input[0]].op_type == "Slice"
    kinds = [node.op_type for node in graph.node]
    assert "QuantizeLinear" not in kinds[: kinds.index("QLinearConv")]  # the image is not quantised a second time
    assert kinds.count("DequantizeLinear") <= 2  # at the end, and for the sum that bilinear upsampling needs


def test_odd_sizes_go_through(float_file: Path, images: list[np.ndarray], tmp_path: Path) -> None:
    quantize_model(float_file, tmp_path / "int8.onnx", images, lambda path: 1.0)
    predictor = Predictor(tmp_path / "int8.onnx")
    for height, width in ((1, 1), (75, 141), (16, 16)):
        assert predictor.labels(images[0][:height, :width]).shape == (height, width)


def test_layers_that_hurt_stay_in_float(float_file: Path, images: list[np.ndarray], tmp_path: Path) -> None:
    def score(path: Path) -> float:
        """One hundredth less for each layer with 8-bit weights."""
        tensors = onnx.load(path).graph.initializer
        return 1 - 0.01 * sum(t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4 for t in tensors)

    events: list[Event] = []
    made = quantize_model(float_file, tmp_path / "int8.onnx", images, score, 0.08, events.append)
    assert made.float_score - made.score <= 0.08
    assert len(made.kept) == 4  # 1 and 2 were not enough
    assert made.score == pytest.approx(1 - 0.01 * (made.layers - 4))
    lines = [event.text for event in events if isinstance(event, Message)]
    assert len(lines) == 4 and f"{made.layers} of {made.layers} layers in INT8" in lines[0]


@pytest.mark.parametrize(("took", "warned"), [(60.0, True), (50.0, True), (20.0, False)])
def test_a_slower_file_is_written_with_a_warning(
    scenes: Path, float_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took: float, warned: bool
) -> None:
    """A clock decides what is said, and not what is written."""
    costs = (cost(path="float", latency_ms_per_mp=50.0), cost(path="int8", latency_ms_per_mp=took))
    monkeypatch.setattr(int8, "compare_models", lambda paths, on_progress: costs)
    events: list[Event] = []
    chosen = QuantizeSettings(model=float_file, data=scenes, out=tmp_path / "int8.onnx", max_drop=100, images=4)
    done = quantize_on_data(chosen, events.append)
    assert done.costs == costs and Predictor(tmp_path / "int8.onnx").info.precision == "int8"
    said = [event.text for event in events if isinstance(event, Message) and "warning" in event.text]
    assert len(said) == warned
    assert not said or f"INT8 takes {took:.0f} ms per megapixel on this computer, float 50. Use the float" in said[0]


@pytest.mark.parametrize("out", ["m.onnx", "./link.onnx", "hard.onnx", "image.onnx", "mask.onnx"])
def test_the_int8_file_replaces_no_input(scenes: Path, float_file: Path, tmp_path: Path, out: str) -> None:
    model, data = tmp_path / "m.onnx", tmp_path / "data"
    shutil.copy(float_file, model)
    shutil.copytree(scenes, data)
    (tmp_path / "link.onnx").symlink_to("m.onnx")
    os.link(model, tmp_path / "hard.onnx")
    os.link(data / "images/scene_000.jpg", tmp_path / "image.onnx")
    (tmp_path / "mask.onnx").symlink_to(data / "masks/scene_000.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SettingsError, match=r"\(INT8 file\) is (an input|the same file as the input)"):
        quantize_on_data(QuantizeSettings(model=model, data=data, out=tmp_path / out))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
