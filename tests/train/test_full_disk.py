"""A disk that fills up while something is trained or written: exit code 2, a message, nothing half-written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("resource")

from skystill.classes import DUBAI
from skystill.cli import commands
from skystill.data.scenes import paint_scene, write_scene
from skystill.data.unlabeled import ImageWindow
from skystill.errors import DiskFull
from skystill.model.quantize import quantize_model
from skystill.train.compress.export import describe, export_network
from skystill.train.compress.formats import _export_for_deepness, _export_for_openvino
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import NetworkRecord, write_network
from skystill.train.teachers.logit_cache import LogitCache
from tests.cli.conftest import TINY
from tests.limited import files_of_at_most

SPEC = "kite?channels=(8,16)&blocks=(1,1)"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network(SPEC, 6).eval()


def weights(network: nn.Module, folder: Path) -> None:
    write_network(folder / "out.safetensors", network, NetworkRecord(SPEC, DUBAI))


def cache(network: nn.Module, folder: Path) -> None:
    path = folder.with_name("scene") / "images/scene_000.jpg"
    LogitCache(folder, "out").fill([ImageWindow(path)], network, torch.device("cpu"))


@pytest.mark.parametrize(
    "write",
    [
        weights,
        cache,
        lambda network, folder: export_network(network, describe(SPEC, network, DUBAI), folder / "out.onnx"),
        lambda network, folder: _export_for_deepness(network, describe(SPEC, network, DUBAI), folder / "out.onnx"),
        lambda network, folder: _export_for_openvino(network, describe(SPEC, network, DUBAI), folder / "out.xml"),
    ],
    ids=["weights", "cache", "onnx", "deepness", "openvino"],
)
@pytest.mark.parametrize("most_bytes", [0, 9_000])
def test_what_is_written_of_a_network(
    write: Callable[[nn.Module, Path], None], most_bytes: int, network: nn.Module, tmp_path: Path
) -> None:
    folder = tmp_path / "written"
    write_scene(tmp_path / "scene", 0, 64, seed=1)
    with files_of_at_most(most_bytes), pytest.raises(DiskFull, match=r"cannot write \S*out.*: File too large\."):
        write(network, folder)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("most_bytes", [0, 9_000])
def test_scratch_files_of_quantising(most_bytes: int, network: nn.Module, tmp_path: Path) -> None:
    source, out = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    export_network(network, describe(SPEC, network, DUBAI), source)
    images = [paint_scene(64, 1)[0]]
    with (
        files_of_at_most(most_bytes),
        pytest.raises(DiskFull, match=r"onnx: File too large\. .* set TMPDIR to another folder"),
    ):
        quantize_model(source, out, images, lambda path: 1.0)
    assert not out.exists()


def test_a_file_that_onnx_runtime_cut_without_a_word(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk its steps may write a part of a file only, and succeed."""

    def cut(source: Path, prepared: Path, **_: object) -> None:
        prepared.write_bytes(source.read_bytes()[:-200])

    monkeypatch.setattr("skystill.model.quantize.quant_pre_process", cut)
    source = tmp_path / "float.onnx"
    export_network(network, describe(SPEC, network, DUBAI), source)
    with pytest.raises(DiskFull, match=r"prepared\.onnx: only a part of it was written\."):
        quantize_model(source, tmp_path / "int8.onnx", [paint_scene(64, 1)[0]], lambda path: 1.0)


def test_a_checkpoint_of_a_large_network(tmp_path: Path) -> None:
    """The write of a tensor fails, not that of a small record."""
    from skystill.train.loop.checkpoint import Checkpointer, LoopState
    from tests.train.loop.test_loop import task

    checkpointer = Checkpointer(tmp_path / "resume.pt", lambda rows: None)
    made = task()
    made.average = {"big": torch.zeros(100_000)}  # type: ignore[attr-defined]
    made.stepper.average = {"big": torch.zeros(100_000)}
    checkpointer.save(made, LoopState(epoch=1))
    before = (tmp_path / "resume.pt").read_bytes()
    with files_of_at_most(150_000), pytest.raises(DiskFull, match=r"resume\.pt: File too large"):
        checkpointer.save(made, LoopState(epoch=2))
    assert (tmp_path / "resume.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["resume.pt"]


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["skystill", *map(str, arguments)])
    try:
        commands.main()
    except SystemExit as ended:
        return int(ended.code or 0), capsys.readouterr().err
    return 0, capsys.readouterr().err


@pytest.mark.slow
def test_a_training_and_its_report(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "--data", scenes, "--network", "unet?channels=8&depth=2", "--epochs=1", "--no-report", *TINY]
    assert run(capsys, monkeypatch, *command, "--out", tmp_path / "whole")[0] == 0
    out = tmp_path / "small"  # as long a name as "whole": the weights file holds it, padded to a multiple of 8 bytes
    limits = ((100, "config.yaml"), (5_000, "training.png"), (100_000, "resume.pt"))
    for most_bytes, name in limits:
        with files_of_at_most(most_bytes):
            code, said = run(capsys, monkeypatch, *command, "--out", out, "--resume")
        assert code == 2 and f"{name}: File too large" in " ".join(said.split()).replace("- ", "-"), said
        assert not list(out.rglob(".part-*"))
    assert run(capsys, monkeypatch, *command, "--out", out, "--resume")[0] == 0
    for name in ("checkpoints/model.safetensors", "model.onnx"):
        whole, resumed = ((folder / name).read_bytes() for folder in (tmp_path / "whole", out))
        assert len(whole) == len(resumed)
    for most_bytes in (1_000, 15_000, 40_000):
        with files_of_at_most(most_bytes):
            code, said = run(capsys, monkeypatch, "evaluate", out)
        assert code == 2 and "error: cannot write" in said and "File too large" in said, (most_bytes, said)
        assert not list(out.rglob(".part-*"))
    assert run(capsys, monkeypatch, "evaluate", out)[0] == 0


@pytest.mark.slow
def test_the_data_of_the_demo(tmp_path: Path) -> None:
    with files_of_at_most(1_000), pytest.raises(DiskFull, match=r"scene_000\.jpg: .* Make room|too large"):
        write_scene(tmp_path / "data", 0, 128, seed=1)
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []
