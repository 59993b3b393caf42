"""One test an origin of teachers, each with a real file made here. smp and torchvision: tests/foreign."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
import yaml
from onnx import TensorProto, helper
from torch import Tensor, nn

from skystill.classes import DUBAI, ClassMap
from skystill.errors import CheckpointError, ClassCountMismatch, ClassesError, RunFolderError, SettingsError
from skystill.run_folder import RunFolder
from skystill.scenes import paint_scene
from skystill.train.foreign import FixedSize, read_state
from skystill.train.models import build_network, write_network
from skystill.train.origins import find_teachers
from skystill.train.teacher import Teacher

ABC = ClassMap(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
IMAGES = torch.from_numpy(np.stack([paint_scene(72, seed)[0] for seed in (1, 2)])).permute(0, 3, 1, 2)


def load(text: str, classes: ClassMap = ABC, own: str | None = None) -> Teacher:
    (teacher,) = find_teachers([text], own, classes).load()
    return teacher


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.config.write_text(yaml.safe_dump({"network": "kite-small"}))
    torch.manual_seed(0)
    write_network(folder.weights, build_network("kite-small", 6), {"network": "kite-small", "classes": DUBAI.to_dict()})
    return folder.path


def test_a_run(run: Path) -> None:
    teacher = load(str(run), DUBAI)
    assert teacher(IMAGES).shape == (2, 6, 72, 72)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    with pytest.raises(RunFolderError, match="is not a run folder"):
        load(str(run / "nowhere"))


def test_classes_are_mapped_by_name_and_what_is_missing_is_said(run: Path) -> None:
    everything = load(str(run), DUBAI)(IMAGES)
    names = ("water", "Bridge", "Building")
    data = ClassMap(names, ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
    found = find_teachers([str(run)], None, data)
    assert found.teaches == (0, 2)
    assert found.notes == ("no teacher for Bridge: learnt from labels alone.",)
    picked = [DUBAI.names.index("Water"), DUBAI.names.index("Building")]
    assert torch.equal(found.load()[0](IMAGES), everything[:, picked])
    with pytest.raises(ClassesError, match=r"0 of the data's classes \(a, b, c\) are known to the teacher, which has"):
        find_teachers([str(run)], None, ABC)


def onnx_file(path: Path, shape: list[Any], softmax: bool = False, dtype: int = TensorProto.FLOAT) -> Path:
    """A 1x1 convolution (3 to 3 channels), which opset and IR any runtime of the last years reads."""
    weight = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1) / 9
    nodes = [helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Conv", ["floats", "weight"], ["found" if softmax else "logits"]))
    if softmax:
        nodes.append(helper.make_node("Softmax", ["found"], ["logits"], axis=1))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("images", dtype, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], 3, *shape[2:]])],
        [helper.make_tensor("weight", TensorProto.FLOAT, weight.shape, weight.ravel())],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def convolved(images: Tensor) -> Tensor:
    return F.conv2d(images.float(), torch.arange(9.0).reshape(3, 3, 1, 1) / 9)


@pytest.mark.parametrize("softmax", [False, True])
def test_an_onnx_file(tmp_path: Path, softmax: bool) -> None:
    path = onnx_file(tmp_path / "t.onnx", ["N", 3, "H", "W"], softmax)
    found, expected = load(f"{path}")(IMAGES), convolved(IMAGES / 255)  # 0..1 unless told
    assert torch.allclose(found.softmax(dim=1), expected.softmax(dim=1), atol=1e-5)
    bytes_wanted = load(f"{path}?input=0..255")(IMAGES / 64)
    assert torch.allclose(bytes_wanted.softmax(dim=1), convolved(IMAGES / 64).softmax(dim=1), atol=1e-5)


def test_an_onnx_file_of_bytes_and_one_of_fixed_size(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "t.onnx", [1, 3, 32, 48], dtype=TensorProto.UINT8)
    for images in (IMAGES, IMAGES[:, :, :20, :20]):  # larger and smaller than its size
        assert torch.allclose(load(str(path))(images), convolved(images), atol=1e-4)


def test_tiles_of_a_fixed_size_keep_their_valid_centres() -> None:
    network = nn.Conv2d(3, 2, 9, padding=4)
    whole = network(IMAGES.float())
    tiled = FixedSize(network, 40, 40)(IMAGES.float())
    assert torch.allclose(tiled, whole, atol=1e-3)


def test_another_number_of_classes_is_said(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "t.onnx", ["N", 3, "H", "W"])
    with pytest.raises(ClassCountMismatch, match=r"gives 3 classes, not 6\. Name all its classes"):
        load(str(path), DUBAI)
    with pytest.raises(ClassCountMismatch, match="gives 3 classes, not 2"):
        load(str(path), own="a,b")
    assert torch.equal(load(str(path), own="c,x,b")(IMAGES), load(str(path))(IMAGES)[:, [2, 0]])
    assert "are taken to be the data's" in find_teachers([str(path)], None, ABC).notes[0]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 3, padding=1, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


@pytest.mark.parametrize("free", [True, False])
def test_a_program_of_torch_export(tmp_path: Path, free: bool) -> None:
    network = Small().eval()
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if free else None
    program = torch.export.export(network, (torch.zeros(1, 3, 64, 64),), dynamic_shapes=(sizes,) if free else None)
    torch.export.save(program, tmp_path / "t.pt2")
    teacher = load(str(tmp_path / "t.pt2"))
    images = IMAGES[:, :, :64, :64]
    expected = F.interpolate(network(images / 255), size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(teacher(images), expected, atol=1e-4)
    assert teacher(IMAGES).shape == (2, 3, 72, 72)


def test_a_program_with_a_pickled_object_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.export.save(torch.export.export(Small().eval(), (torch.zeros(1, 3, 64, 64),)), tmp_path / "t.pt2")
    evil = io.BytesIO()
    torch.save({"x": Evil()}, evil)
    for name, content in (("weights/weight_9", evil.getvalue()), ("constants/opaque_obj_0", pickle.dumps(Evil()))):
        changed = tmp_path / "evil.pt2"
        changed.write_bytes((tmp_path / "t.pt2").read_bytes())
        with zipfile.ZipFile(changed, "a") as archive:
            archive.writestr(f"t/data/{name}", content)
        with pytest.raises(CheckpointError, match="could run code"):
            load(str(changed))
    assert not (tmp_path / "ran").exists()


def test_weights_that_need_unpickling_are_refused_and_wrappers_seen_through(tmp_path: Path) -> None:
    state = Small().state_dict()
    torch.save(
        {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3}, tmp_path / "l.ckpt"
    )
    assert read_state(tmp_path / "l.ckpt", "t").keys() == state.keys()
    torch.save(Small(), tmp_path / "whole.pth")
    with pytest.raises(CheckpointError, match=r"holds more than weights, and loading it could run code"):
        read_state(tmp_path / "whole.pth", "t")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(tmp_path / "cut.safetensors", "t")


def test_kinds_that_are_not_known_and_files_that_are_missing(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"x")
    with pytest.raises(SettingsError, match=r"of a kind that is not known\. Known: a SkyStill run folder, \.onnx"):
        load(str(tmp_path / "model.tflite"))
    for text in ("none.onnx", "none.keras", "smp:Unet/resnet34?classes=6&weights=none.pth"):
        with pytest.raises(SettingsError, match="no such file"):
            load(text)
    with pytest.raises(SettingsError, match="say how many classes it has and where its weights are"):
        load("smp:Unet/resnet34")
    with pytest.raises(SettingsError, match=r"holds no config\.json"):
        load(f"hf:{tmp_path}")
    with pytest.raises(SettingsError, match=r"input is 0\.\.2; it is one of 0\.\.255"):
        load("x.onnx?input=0..2")
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="ONNX Runtime cannot open it"):
        load(str(tmp_path / "broken.onnx"))


def test_the_key_tells_teachers_apart(run: Path, tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "t.onnx", ["N", 3, "H", "W"])

    def key(text: str, own: str | None = None) -> str:
        found = find_teachers([text], own, ABC)
        return found.origins[0].key(found.channels[0], "how")

    before = key(str(path))
    assert before == key(str(path))
    assert len({before, key(f"{path}?input=0..255"), key(str(path), "c,b,a")}) == 3
    onnx_file(path, ["N", 3, "H", "W"], softmax=True)
    assert key(str(path)) != before


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_labels=3, depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16, id2label={0: "c", 1: "b", 2: "a"}, label2id={"c": 0, "b": 1, "a": 2},
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path / "t")
    teacher = load(f"hf:{tmp_path / 't'}")
    images = IMAGES[:, :, :64, :64]
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = network((images / 255 - mean) / std).logits
    assert expected.shape[2:] == (16, 16)
    expected = F.interpolate(expected, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(teacher(images), expected[:, [2, 1, 0]], atol=1e-4)
    assert teacher(IMAGES).shape == (2, 3, 72, 72)


OLD_NUMPY = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in Keras itself


@OLD_NUMPY
@pytest.mark.parametrize("name", ["t.keras", "t.h5", "t.hdf5"])
def test_a_keras_model_with_a_custom_loss(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")

    def my_loss(truth: Any, found: Any) -> Any:
        return keras.ops.mean((truth - found) ** 2)

    inputs = keras.Input((None, None, 3))
    hidden = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1, activation="softmax")(hidden))
    model.compile("adam", my_loss)
    model.save(tmp_path / ("t.h5" if name == "t.hdf5" else name))
    if name == "t.hdf5":
        (tmp_path / "t.h5").rename(tmp_path / name)
    teacher = load(str(tmp_path / name))
    with torch.no_grad():
        expected = model(IMAGES.permute(0, 2, 3, 1).float() / 255).permute(0, 3, 1, 2).cpu()
    assert torch.allclose(teacher(IMAGES).softmax(dim=1), expected, atol=1e-5)


def test_an_hdf5_file_as_keras_2_wrote_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Config and names of Keras 2.4 on TensorFlow, compiled with a loss that only its author has."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    h5py = pytest.importorskip("h5py")
    shared = {"trainable": True, "dtype": "float32"}
    layers = [
        {
            "class_name": "InputLayer", "name": "images", "inbound_nodes": [],
            "config": {"batch_input_shape": [None, 32, 32, 3], "dtype": "float32", "sparse": False, "ragged": False,
                       "name": "images"},
        },
        {
            "class_name": "Conv2D", "name": "conv2d", "inbound_nodes": [[["images", 0, 0, {}]]],
            "config": {**shared, "name": "conv2d", "filters": 3, "kernel_size": [1, 1], "strides": [1, 1],
                       "padding": "same", "data_format": "channels_last", "dilation_rate": [1, 1], "groups": 1,
                       "activation": "softmax", "use_bias": True,
                       "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
                       "bias_initializer": {"class_name": "Zeros", "config": {}}, "kernel_regularizer": None,
                       "bias_regularizer": None, "activity_regularizer": None, "kernel_constraint": None,
                       "bias_constraint": None},
        },
    ]  # fmt: skip
    config = {
        "name": "model",
        "layers": layers,
        "input_layers": [["images", 0, 0]],
        "output_layers": [["conv2d", 0, 0]],
    }
    kernel = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3) / 9
    with h5py.File(tmp_path / "t.hdf5", "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.4.0", "tensorflow"
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        file.attrs["training_config"] = json.dumps(
            {"loss": "jaccard_loss_of_mine", "metrics": ["jaccard_of_mine"], "weighted_metrics": None,
             "loss_weights": None, "optimizer_config": {"class_name": "Adam", "config": {"learning_rate": 0.001}}}
        )  # fmt: skip
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"], weights.attrs["backend"] = [b"images", b"conv2d"], "tensorflow"
        weights.attrs["keras_version"] = "2.4.0"
        weights.create_group("images").attrs["weight_names"] = np.array([], "S1")
        layer = weights.create_group("conv2d")
        layer.attrs["weight_names"] = [b"conv2d/kernel:0", b"conv2d/bias:0"]
        layer["conv2d/kernel:0"], layer["conv2d/bias:0"] = kernel, np.zeros(3, np.float32)
    found = load(str(tmp_path / "t.hdf5"))(IMAGES)  # 72x72 in tiles of 32x32
    expected = torch.einsum("nchw,ck->nkhw", IMAGES / 255, torch.from_numpy(kernel[0, 0])).softmax(dim=1)
    assert torch.allclose(found.softmax(dim=1), expected, atol=1e-5)


@OLD_NUMPY
def test_a_keras_model_with_code_in_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    for name in ("t.keras", "t.h5"):
        model.save(tmp_path / name)
        with pytest.raises(CheckpointError, match="Keras cannot load it in safe mode"):
            load(str(tmp_path / name))
