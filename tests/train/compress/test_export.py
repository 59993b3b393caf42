from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio
import torch
from torch import nn

from skystill.classes import DUBAI, ClassMap
from skystill.data.scenes import paint_scene
from skystill.model.file import open_session, read_info
from skystill.model.quantize import quantize_model
from skystill.predict import Predictor
from skystill.raster.input_spec import RGB, InputSpec
from skystill.settings import RasterSettings
from skystill.train.compress import export as export_module
from skystill.train.compress.export import ExportDiffers, describe, export_network
from skystill.train.networks.start import start_network
from skystill.train.networks.table import NETWORKS, build_network
from skystill.train.networks.weights import NetworkRecord, read_network, write_network

DARK = replace(RGB, zero=37, unit=16.0)


def trained_a_little(name: str, spec: InputSpec = RGB) -> nn.Module:
    """BatchNorm statistics away from their start, or folding them could go wrong unseen."""
    torch.manual_seed(0)
    network = build_network(name, 6, spec)
    with torch.no_grad():
        for seed in range(3):
            image, _ = paint_scene(96, seed)
            network(torch.from_numpy(image).permute(2, 0, 1)[None])
    return network.eval()


@pytest.mark.parametrize(("name", "spec"), [("unet-bn", RGB), ("kite", DARK), ("two-level", RGB)])
def test_the_file_gives_torchs_logits_at_any_size(name: str, spec: InputSpec, tmp_path: Path) -> None:
    network = trained_a_little(name, spec)
    info = export_network(network, describe(name, network, DUBAI), tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx")
    for height, width, count in ((1, 1, 1), (75, 141, 1), (64, 64, 3)):
        images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
        with torch.no_grad():
            expected = network(images).numpy()
        found = session.run(None, {"image": images.numpy()})[0]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    read = read_info(session, tmp_path / "model.onnx")
    assert (read.classes.names, read.classes.colors) == (DUBAI.names, DUBAI.colors)
    assert (read.input_spec.zero, read.input_spec.unit) == (spec.zero, spec.unit)
    assert (read.network, read.parameters, read.version) == (name, info.parameters, info.version)
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)


def test_a_wrong_export_never_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "TOLERANCE", -1.0)
    path = tmp_path / "model.onnx"
    with pytest.raises(ExportDiffers, match="was not written"):
        network = trained_a_little("two-level")
        export_network(network, describe("two-level", network, DUBAI), path)
    assert list(tmp_path.iterdir()) == []


def test_tiles_equal_the_whole_image(tmp_path: Path) -> None:
    """With margin enough, class maps are identical; blended, and with the default margin, nearly."""
    network = trained_a_little("kite")
    classes = ClassMap(tuple("abcdef"), DUBAI.colors)
    info = replace(describe("kite", network, classes), tile_size=512, overlap=256)
    export_network(network, info, tmp_path / "model.onnx")
    predictor = Predictor(tmp_path / "model.onnx")
    image = np.tile(paint_scene(325, 7)[0], (3, 3, 1))[:900, :800]
    planes = image.transpose(2, 0, 1)
    whole = predictor._infer(planes).argmax(axis=0)
    found = predictor.probabilities(image)
    assert found.shape == (6, 900, 800)
    assert found.sum(axis=0) == pytest.approx(np.ones((900, 800)), abs=1e-5)
    assert np.array_equal(predictor.labels(image), found.argmax(axis=0))
    with rasterio.open(tmp_path / "in.tif", "w", driver="GTiff", height=900, width=800, count=3, dtype="uint8") as file:
        file.write(planes)
    for settings, least in (
        (RasterSettings(), 1.0),
        (RasterSettings(mode="blend"), 0.999),
        (RasterSettings(overlap=128), 0.999),
    ):
        predictor.predict(tmp_path / "in.tif", tmp_path / "out.tif", settings)
        with rasterio.open(tmp_path / "out.tif") as file:
            assert (file.read(1) == whole).mean() >= least


@pytest.mark.parametrize("name", list(NETWORKS))
def test_work_is_counted_without_memory(name: str) -> None:
    work = export_module.multiply_adds_per_megapixel(build_network(name, 6))
    assert 10**8 < work < 10**11


def test_weights_of_imagenet_come_back_from_a_file_and_survive_int8(tmp_path: Path) -> None:
    name = "lite?blocks=5&up_blocks=(1,1)"  # strides of 3x3 and 5x5 and a residual block; all of it takes a minute
    torch.manual_seed(0)
    network = start_network(name, 6)
    scenes = [paint_scene(128, seed)[0] for seed in range(6)]
    with torch.no_grad():
        for image in scenes * 3:  # the statistics of the decoder; those of the encoder hardly move
            network(torch.from_numpy(image).permute(2, 0, 1)[None])
    write_network(tmp_path / "w.safetensors", network.eval(), NetworkRecord(name, DUBAI))
    read, _ = read_network(tmp_path / "w.safetensors")
    info = describe(name, read, DUBAI)
    export_network(read, info, tmp_path / "float.onnx", scenes[:1])  # which compares the logits with torch's
    quantize_model(tmp_path / "float.onnx", tmp_path / "int8.onnx", scenes, lambda path: 0.0)
    kinds = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    # ReLU6 is part of the scales, the padding of strides part of the convolutions: one Pad is that of the image
    assert kinds.count("Clip") == 0 and kinds.count("Pad") == 1
    image = torch.from_numpy(paint_scene(160, 9)[0]).permute(2, 0, 1)[None].contiguous()
    with torch.no_grad():
        expected = network(image).numpy()
    exact, near = (
        open_session(tmp_path / f"{kind}.onnx").run(None, {"image": image.numpy()})[0] for kind in ("float", "int8")
    )
    assert np.abs(exact - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    assert np.corrcoef(near.ravel(), expected.ravel())[0, 1] > 0.99
