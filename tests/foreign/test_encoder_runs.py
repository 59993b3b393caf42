"""Runs of networks with the encoders of other libraries: trained, resumed, opened again, quantised, teaching."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from skystill import api
from skystill.data.scenes import paint_scene
from skystill.errors import CheckpointError, SettingsError
from skystill.model.quantize import quantize_model
from skystill.progress import EpochEnd, Event, Note
from skystill.run_folder import RunFolder
from skystill.settings import TrainSettings
from skystill.train.compress import export
from skystill.train.libraries import imports
from skystill.train.networks.weights import read_network
from skystill.train.runs import train_run

TINY: dict[str, Any] = {
    "epochs": 2, "crop": 64, "batch_size": 2, "crops_per_image": 1, "split": "0.5/0.25/0.25", "precision": "32",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes with masks of two classes."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for index in range(4):
        image = paint_scene(80, index)[0]
        Image.fromarray(image).save(folder / f"images/{index}.png")
        Image.fromarray((image[:, :, 1] > 110).astype(np.uint8)).save(folder / f"masks/{index}.png")
    (folder / "classes.yaml").write_text("classes: [low, high]\n")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_convnext").state_dict(), path)
    return path


@pytest.fixture
def without_export(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Leave the export out, which takes longer than all the rest. Returns the names of what would be tried."""
    tried: list[str] = []
    monkeypatch.setattr(export, "export_network", lambda network, info, path, images: path.write_bytes(b""))
    monkeypatch.setattr(export, "check_export", lambda network, name, classes: tried.append(name))
    return tried


def stop(event: Event) -> None:
    if isinstance(event, EpochEnd):
        raise RuntimeError("the plug is pulled")


def state_of(run: RunFolder) -> dict[str, torch.Tensor]:
    return read_network(run.weights)[0].state_dict()


# ---- the whole way, with one real export


@pytest.fixture(scope="module")
def run(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    events: list[Event] = []
    tried: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "check_export", lambda network, name, classes: tried.append(name))
        folder = api.train(
            data=data, network=f"timm:test_convnext?weights={weights}", out=tmp_path_factory.mktemp("run") / "run",
            freeze=2, encoder_rate=0.1, on_progress=events.append, report=False, **TINY,
        )  # fmt: skip
    assert tried == ["timm:test_convnext"]
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any(
        note.startswith(f"timm:test_convnext: the encoder begins with the weights of {weights}") for note in notes
    )
    return folder


def test_a_run_is_opened_without_its_weights_and_gives_the_same_logits(
    run: RunFolder, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf", lambda *a, **m: pytest.fail("the hub was asked")
    )
    network, record = read_network(run.weights)
    assert record.network == "timm:test_convnext"
    frozen = timm.create_model("test_convnext", features_only=True, pretrained=False).state_dict().keys()
    published = {name.replace(".", "_"): value for name, value in load_file(weights).items()}
    moved = {
        name
        for name in frozen
        if not torch.equal(network.state_dict()[f"timm.{name}"], published[name.replace(".", "_")])
    }
    assert moved == {name for name in frozen if name.startswith(("stages_2", "stages_3"))}
    session = ort.InferenceSession(run.model)
    for height, width in ((37, 50), (64, 96), (1, 1)):
        image = np.random.default_rng(height).integers(0, 256, (1, 3, height, width), np.uint8)
        with torch.no_grad():
            expected = network(torch.from_numpy(image)).numpy()
        found = session.run(None, {"image": image})[0]
        assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    nodes = onnx.load(run.model).graph.node
    chain, tensor = [], "image"
    while len(chain) < 5:
        node = next(node for node in nodes if node.input and node.input[0] == tensor and node.op_type != "Shape")
        chain.append(node.op_type)
        tensor = node.output[0]
    assert chain == ["Pad", "DequantizeLinear", "Mul", "Add", "Conv"]  # normalised, then on the scale of the weights


def test_it_is_quantised(run: RunFolder, tmp_path: Path) -> None:
    made = tmp_path / "int8.onnx"
    quantize_model(run.model, made, [paint_scene(80, seed)[0] for seed in range(3)], score=lambda path: 0.5)
    kinds = [node.op_type for node in onnx.load(made).graph.node]
    assert kinds.count("QuantizeLinear") > 20
    planes = np.ascontiguousarray(paint_scene(80, 9)[0].transpose(2, 0, 1))[None]
    whole, rounded = (ort.InferenceSession(path).run(None, {"image": planes})[0] for path in (run.model, made))
    assert (whole.argmax(axis=1) == rounded.argmax(axis=1)).mean() > 0.9


def test_it_teaches(run: RunFolder, data: Path, tmp_path: Path, without_export: list[str]) -> None:
    student = api.distill(
        data=data, teacher=[str(run.path)], student="kite-nano", out=tmp_path / "student", alone=False, report=False,
        distillation_loss="kl+0.5*pkd", **TINY,
    )  # fmt: skip
    assert student.weights.is_file()
    assert not without_export


# ---- stopped runs


@pytest.mark.parametrize("network", ["timm:test_efficientnet", "smp:FPN/tu-test_resnet"])
def test_a_stopped_training_ends_in_the_same_weights(
    data: Path, tmp_path: Path, without_export: list[str], network: str
) -> None:
    """FPN has a layer of dropout. The weights are gone when it goes on: the checkpoint holds all of them."""
    path = tmp_path / "w.safetensors"
    save_file(timm.create_model(network.rpartition("/")[2].rpartition(":")[2].removeprefix("tu-")).state_dict(), path)
    given = {"data": data, "network": f"{network}?weights={path}", "freeze": 1, "report": False, **TINY}
    whole = api.train(out=tmp_path / "whole", **given)
    with pytest.raises(RuntimeError, match="plug"):
        api.train(out=tmp_path / "stopped", on_progress=stop, **given)
    path.unlink()
    stopped = api.train(out=tmp_path / "stopped", resume=True, **given)
    one, other = state_of(whole), state_of(stopped)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert without_export == [network] * 2  # not tried again
    with pytest.raises(SettingsError, match=r"w\.safetensors: no such file"):
        api.train(out=tmp_path / "new", **given)
    assert not (tmp_path / "new").exists()


def test_a_student_of_another_library_begins_from_its_own_file(
    run: RunFolder, data: Path, tmp_path: Path, without_export: list[str]
) -> None:
    student = api.distill(
        data=data, teacher=[str(run.path)], student=str(run.weights), out=tmp_path / "student", alone=False,
        freeze=2, report=False, **TINY,
    )  # fmt: skip
    assert read_network(student.weights)[1].network == "timm:test_convnext"
    before, after = state_of(run), state_of(student)
    moved = [name for name in before if name.startswith("timm") and not torch.equal(before[name], after[name])]
    assert {name.split(".")[1] for name in moved} == {"stages_2", "stages_3"}


# ---- what is refused, before anything is written


@pytest.mark.parametrize(
    ("network", "more", "says"),
    [
        ("timm:test_resnet", {"freeze": 1}, r"timm:test_resnet begins with random weights.*resnet\?weights"),
        ("timm:test_convnext?weights=W", {"freeze": 5}, r"encoder of timm:test_convnext has 4 levels"),
        ("timm:test_convnext?weights=W", {"from_scratch": True}, "Leave one of them out"),
        ("timm:resnet10", {}, "near it are resnet10t"),
        ("timm:resnet10t?weights=W", {}, r"w\.safetensors does not hold the weights of timm:resnet10t"),
        ("smp:Unet/resnet18?classes=3", {}, "there is no option classes; there is weights"),
        ("timm:vit_tiny_patch16_224", {}, "does not take images of any size"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(
    data: Path, weights: Path, tmp_path: Path, without_export: list[str], network: str, more: dict[str, Any], says: str
) -> None:
    with pytest.raises((SettingsError, CheckpointError), match=says) as error:
        api.train(data=data, network=network.replace("=W", f"={weights}"), out=tmp_path / "run", **{**TINY, **more})
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_what_needs_plain_layers_is_refused(
    run: RunFolder, data: Path, tmp_path: Path, without_export: list[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SettingsError, match=r"Leave --devices and --nodes at 1"):
        train_run(TrainSettings(data=data, network="timm:test_convnext", out=out, devices=2, batch_size=2))
    assert not torch.distributed.is_initialized()  # the second rank would run all these tests again
    with pytest.raises(SettingsError, match=r"which it cannot round.*skystill quantize RUN/student.onnx"):
        api.distill(data=data, teacher=[str(run.path)], student=str(run.weights), out=out, quantize=True, alone=False)
    with pytest.raises(SettingsError, match=r"whose channels cannot be removed"):
        api.prune(run=run.path, data=data, out=out, max_size="1MB", split="0.5/0.25/0.25")
    for given in (
        {"teacher": str(run.path), "student": "kite-nano"},
        {"teacher": "lite0", "student": "timm:test_convnext"},
    ):
        with pytest.raises(SettingsError, match=r"is made of layers of timm; skystill pretrain compares"):
            api.pretrain(images=[data / "images"], out=tmp_path / "pre", **given)


def test_a_network_that_cannot_be_exported_is_not_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise RuntimeError("aten.nothing has no translation\nmore")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(SettingsError, match=r"cannot be written as a model file.*\(RuntimeError: aten.nothing has no"):
        api.train(data=data, network="timm:test_resnet", out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("library", ["timm", "segmentation_models_pytorch"])
def test_a_run_cannot_be_opened_without_its_library(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    real: Callable[[str], Any] = imports.importlib.import_module

    def missing(name: str) -> Any:
        if name == library:
            raise ModuleNotFoundError(name, name=name)
        return real(name)

    monkeypatch.setattr(imports.importlib, "import_module", missing)
    if library == "timm":
        with pytest.raises(SettingsError, match=r"network timm:test_convnext needs timm.*pip install timm"):
            read_network(run.weights)
    else:
        read_network(run.weights)
