"""Keras, transformers, segmentation_models_pytorch, torchvision: a real file of each, made here."""

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
import torchvision
import transformers
from safetensors.torch import save_file

from skystill.classes import ClassMap
from skystill.data.scenes import paint_scene
from skystill.errors import CheckpointError, SettingsError
from skystill.train.teachers.origins import find_teachers
from skystill.train.teachers.teacher import Teacher

ABC = ClassMap(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
IMAGES = torch.from_numpy(np.stack([paint_scene(72, seed)[0] for seed in (1, 2)])).permute(0, 3, 1, 2)
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def load(text: str) -> Teacher:
    (teacher,) = find_teachers([text], None, ABC).load()
    return teacher


def test_a_unet_of_segmentation_models_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = smp.Unet("resnet18", encoder_weights=None, classes=3).eval()
    torch.save(network.state_dict(), tmp_path / "unet.pth")
    save_file(network.state_dict(), tmp_path / "unet.safetensors")
    images = IMAGES[:, :, :64, :64]
    with torch.no_grad():
        expected = network((images / 255 - MEAN) / STD)
    for name in ("unet.pth", "unet.safetensors"):
        teacher = load(f"smp:Unet/resnet18?classes=3&weights={tmp_path / name}")
        assert torch.allclose(teacher(images), expected, atol=1e-4)
        assert teacher(IMAGES).shape == (2, 3, 72, 72)  # no multiple of 32
    with pytest.raises(CheckpointError, match="is of another network"):
        load(f"smp:Unet/resnet34?classes=3&weights={tmp_path / 'unet.pth'}")
    with pytest.raises(SettingsError, match="has no Unett"):
        load(f"smp:Unett/resnet18?classes=3&weights={tmp_path / 'unet.pth'}")


def test_a_network_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.get_model(
        "lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=3
    )
    torch.save(network.eval().state_dict(), tmp_path / "lraspp.pth")
    with torch.no_grad():
        expected = network((IMAGES / 255 - MEAN) / STD)["out"]
    teacher = load(f"torchvision:lraspp_mobilenet_v3_large?classes=3&weights={tmp_path / 'lraspp.pth'}")
    assert torch.allclose(teacher(IMAGES), expected, atol=1e-4)


def test_an_auxiliary_head_is_loaded_where_the_weights_have_one(tmp_path: Path) -> None:
    network = torchvision.models.get_model(
        "fcn_resnet50", weights=None, weights_backbone=None, num_classes=3, aux_loss=True
    )
    torch.save(network.state_dict(), tmp_path / "fcn.pth")
    teacher = load(f"torchvision:fcn_resnet50?classes=3&weights={tmp_path / 'fcn.pth'}")
    assert teacher(IMAGES).shape == (2, 3, 72, 72)


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    config = transformers.SegformerConfig(
        num_labels=3, depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16, id2label={0: "c", 1: "b", 2: "a"}, label2id={"c": 0, "b": 1, "a": 2},
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path / "t")
    teacher = load(f"hf:{tmp_path / 't'}")
    images = IMAGES[:, :, :64, :64]
    with torch.no_grad():
        expected = network((images / 255 - MEAN) / STD).logits
    assert expected.shape[2:] == (16, 16)
    expected = F.interpolate(expected, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(teacher(images), expected[:, [2, 1, 0]], atol=1e-4)
    assert teacher(IMAGES).shape == (2, 3, 72, 72)


OLD_NUMPY = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in Keras itself


@OLD_NUMPY
@pytest.mark.parametrize("name", ["t.keras", "t.h5", "t.hdf5"])
def test_a_keras_model_with_a_custom_loss(tmp_path: Path, name: str) -> None:

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


def test_an_hdf5_file_as_keras_2_wrote_them(tmp_path: Path) -> None:
    """Config and names of Keras 2.4 on TensorFlow, compiled with a loss that only its author has."""
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
def test_a_keras_model_with_code_in_it_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs))
    for name in ("t.keras", "t.h5"):
        model.save(tmp_path / name)
        with pytest.raises(CheckpointError, match="Keras cannot load it in safe mode"):
            load(str(tmp_path / name))
