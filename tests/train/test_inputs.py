"""A resumed run reads what it began with, or says what has changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skystill.api import distill, pretrain, train
from skystill.classes import DUBAI
from skystill.errors import RunFolderError
from skystill.progress import EpochEnd, Event
from skystill.run_folder import RunFolder

TINY = "kite?channels=(8,8)&blocks=(0,0)"
SHORT: dict[str, object] = {"crop": 64, "batch_size": 2, "crops_per_image": 1}
SPLIT = "0.5/0.1/0.4"
MORE = Path("more")


def save(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (96, 96, 3), np.uint8)).save(path)


def train_teacher(epochs: int) -> None:
    shutil.rmtree("teacher", ignore_errors=True)
    train(data="data", split=SPLIT, network=TINY, out="teacher", epochs=epochs, report=False, **SHORT)


def go_on(**more: object) -> RunFolder:
    return distill(
        data="data", split=SPLIT, teacher="teacher", student=TINY, unlabeled=MORE, out="run", alone=False, epochs=2,
        report=False, resume=True, **SHORT, **more,
    )  # fmt: skip


def stop(event: Event) -> None:
    if isinstance(event, EpochEnd):
        raise RuntimeError("the plug is pulled")


@pytest.fixture(scope="module")
def stopped(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled images in `data`, two others in `more`, and a distillation that was stopped after an epoch of two."""
    place = tmp_path_factory.mktemp("stopped")
    shutil.copytree(scenes, place / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        MORE.mkdir()
        for seed, name in enumerate(("one", "two")):
            save(MORE / f"{name}.png", seed)
        train_teacher(epochs=1)
        with pytest.raises(RuntimeError, match="plug"):
            go_on(on_progress=stop)
    return place


@pytest.fixture
def place(stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it, which the test works in."""
    shutil.copytree(stopped, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")


def paint_a_mask() -> None:
    """All of one mask becomes Water."""
    path = sorted(Path("data").rglob("*mask*/*.png"))[0]
    with Image.open(path) as mask:
        Image.new("RGB", mask.size, DUBAI.colors[4]).save(path)


UNLABELED = r"the images of --unlabeled \(2: .*now the images of --unlabeled "
CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "an image more": (lambda: save(MORE / "three.png", 3), UNLABELED + r"\(3:"),
    "an image less": (lambda: (MORE / "one.png").unlink(), UNLABELED + r"\(1:"),
    "another name": (lambda: (MORE / "one.png").rename(MORE / "zero.png"), UNLABELED + r"\(2:"),
    "another teacher": (lambda: train_teacher(epochs=2), r"the teachers \(1: .*now the teachers \(1:"),
    "another mask": (paint_a_mask, r"the labels \("),
}


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", CHANGES)
def test_a_run_does_not_go_on_with_other_files(name: str) -> None:
    change, said = CHANGES[name]
    change()
    with pytest.raises(RunFolderError, match=rf"other files.*{said}.*Put back what was there"):
        go_on()


@pytest.mark.usefixtures("place")
def test_a_run_goes_on_with_the_same_files_and_with_others_if_it_is_told_to() -> None:
    """Of a run of an earlier version it is not known what it has read."""
    save(MORE / "three.png", 3)
    with pytest.raises(RunFolderError):
        go_on()
    Path("run/inputs.json").unlink()
    with pytest.raises(RuntimeError, match="plug"):
        go_on(on_progress=stop)
    assert len(go_on().metrics.read_text().splitlines()) == 3


@pytest.mark.usefixtures("place")
def test_a_pretraining_goes_on_with_the_same_images_and_teacher_only() -> None:
    given = {"teacher": "teacher", "student": TINY, "images": MORE, "out": "pre", "epochs": 2, "resume": True, **SHORT}
    with pytest.raises(RuntimeError, match="plug"):
        pretrain(on_progress=stop, **given)
    save(MORE / "three.png", 3)
    with pytest.raises(RunFolderError, match=r"the images \(2: .*now the images \(3: "):
        pretrain(**given)
    (MORE / "three.png").unlink()
    shutil.copytree("teacher", "kept")
    train_teacher(epochs=2)
    with pytest.raises(RunFolderError, match=r"the weights of the teacher \(1: .*now the weights of the teacher \(1: "):
        pretrain(**given)
    shutil.rmtree("teacher")
    shutil.move("kept", "teacher")
    pretrain(**given)
