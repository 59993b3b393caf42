from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from skystill.classes import DUBAI, ClassMap
from skystill.model_file import open_session, read_info
from skystill.predict import Predictor
from skystill.scenes import paint_scene
from skystill.train import export as export_module
from skystill.train.export import ExportDiffers, describe, export_network
from skystill.train.models import NETWORKS, build_network


def trained_a_little(name: str) -> nn.Module:
    """BatchNorm statistics away from their start, or folding them could go wrong unseen."""
    torch.manual_seed(0)
    network = build_network(name, 6)
    with torch.no_grad():
        for seed in range(3):
            image, _ = paint_scene(96, seed)
            network(torch.from_numpy(image).permute(2, 0, 1)[None])
    return network.eval()


@pytest.mark.parametrize("name", ["unet-bn", "kite", "two-level"])
def test_the_file_gives_torchs_logits_at_any_size(name: str, tmp_path: Path) -> None:
    network = trained_a_little(name)
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
    classes = ClassMap(tuple("abcdef"), DUBAI.colors)
    network = trained_a_little("kite")
    export_network(network, describe("kite", network, classes), tmp_path / "model.onnx")
    predictor = Predictor(tmp_path / "model.onnx")
    image = np.tile(paint_scene(325, 7)[0], (4, 4, 1))
    found = predictor.probabilities(image[:, :1100])
    whole = predictor._logits(image[:, :1100])
    assert found.shape == (6, 1300, 1100)
    assert found.sum(axis=0) == pytest.approx(np.ones((1300, 1100)), abs=1e-5)
    assert (found.argmax(axis=0) == whole.argmax(axis=0)).mean() > 0.9999
    assert np.array_equal(predictor.labels(image[:, :1100]), found.argmax(axis=0))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_work_is_counted_without_memory(name: str) -> None:
    work = export_module.multiply_adds_per_megapixel(name, 6)
    assert 10**9 < work < 10**11
