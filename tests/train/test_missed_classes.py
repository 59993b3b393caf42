"""Classes that a teacher does not find are learnt from labels alone, and are named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from lightning_fabric import Fabric
from PIL import Image

from skystill.api import distill
from skystill.data.prepare import PreparedData, prepare_data
from skystill.predict.predictor import Predictor
from skystill.progress import Event, Note
from skystill.settings import DistillSettings
from skystill.train.missed_classes import without_missed
from skystill.train.runs import cache_settings, fill_cache_folder
from skystill.train.teaching import Teaching, open_teaching
from tests.foreign_model import THREE, write_foreign

CPU = Fabric(accelerator="cpu", devices=1)
RED, GREEN, DARK = range(3)
SEEN = np.array([(250, 0, 0), (0, 250, 0), (20, 20, 20)], np.uint8)
BROWN = np.array((180, 30, 20), np.uint8)  # the teacher takes it for red
SIDE = 64


class Ground:
    """A data set of eight images in which the teacher sees the colour of each pixel, and the labels say its class.

    Args:
        folder: where it is written.
        paint: changes the colours (64, 64, 3) of the image with this number, of which the labels are given.
        labels: changes the labels (64, 64) of the image with this number.
        unscored: names of classes without a score.
    """

    def __init__(
        self,
        folder: Path,
        paint: Callable[[int, npt.NDArray[np.uint8], npt.NDArray[np.uint8]], None] = lambda i, labels, colors: None,
        labels: Callable[[int, npt.NDArray[np.uint8]], None] = lambda i, labels: None,
        unscored: tuple[str, ...] = (),
    ) -> None:
        self.data = folder / "data"
        for kind in ("images", "masks"):
            (self.data / kind).mkdir(parents=True)
        for number in range(8):
            squares = np.random.default_rng(number).permutation(64) % 3
            truth = np.kron(squares.reshape(8, 8), np.ones((8, 8))).astype(np.uint8)
            labels(number, truth)
            colors = SEEN[truth].copy()
            paint(number, truth, colors)
            Image.fromarray(colors).save(self.data / "images" / f"{number}.png")
            Image.fromarray(np.array(THREE.colors, np.uint8)[truth]).save(self.data / "masks" / f"{number}.png")
        (self.data / "classes.json").write_text(json.dumps(replace(THREE, unscored=unscored).to_dict()))
        self.out = folder / "run"
        split = {"train": range(4), "validation": (4, 5), "test": (6, 7)}
        (folder / "split.json").write_text(json.dumps({part: [str(n) for n in of] for part, of in split.items()}))
        self.split = str(folder / "split.json")

    def settings(self, teachers: list[Path], mode: str = "cached", **more: object) -> DistillSettings:
        given: dict[str, object] = {
            "data": self.data,
            "split": self.split,
            "out": self.out,
            "teacher": [str(path) for path in teachers],
            "teacher_mode": mode,
            "teacher_classes": ",".join(THREE.names),
            "student": "kite-nano",
            "crop": 64,
            "alone": False,
        }
        return DistillSettings.model_validate(given | more)


def teacher_file(path: Path) -> Path:
    """A network of another program that is fed 0 to 1, and says red, green, or dark where both are below 100."""
    return write_foreign(path, scale=255.0)


def looked(settings: DistillSettings) -> tuple[Teaching, PreparedData, list[str]]:
    """The teachers after the look at their answers, and the notes of it."""
    if settings.teacher_mode == "cached":
        fill_cache_folder(cache_settings(settings))
    prepared, notes = prepare_data(settings), []

    def note(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    teaching = open_teaching(settings, prepared, lambda event: None)
    return without_missed(teaching, settings, prepared, CPU, note), prepared, notes


def paint_dark_brown(number: int, labels: npt.NDArray[np.uint8], colors: npt.NDArray[np.uint8]) -> None:
    colors[labels == DARK] = BROWN


def paint_all_red(number: int, labels: npt.NDArray[np.uint8], colors: npt.NDArray[np.uint8]) -> None:
    colors[:] = SEEN[RED]


def nothing_dark(number: int, labels: npt.NDArray[np.uint8]) -> None:
    """No training image holds it."""
    labels[(labels == DARK) & (number < 4)] = GREEN


@pytest.mark.parametrize("mode", ["cached", "online"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_class_that_the_teacher_takes_for_another_is_missed(mode: str, stride: int, tmp_path: Path) -> None:
    ground = Ground(tmp_path, paint_dark_brown)
    settings = ground.settings([teacher_file(tmp_path / "t.onnx")], mode, distillation_stride=stride)
    teaching, prepared, notes = looked(settings)
    assert teaching.missed_labels == (DARK,)
    assert teaching.compared_labels == [RED, GREEN, None]
    counts = sorted(record.counts[DARK] for record in prepared.check.records if int(record.pair.key) < 4)
    assert len(notes) == 1
    assert f"does not find dark (0 of {sum(counts[-2:]):,} pixels) where the labels have it" in notes[0]


@pytest.mark.parametrize(("found", "missed"), [(0, True), (79, True), (80, False)])
def test_the_border_is_a_hundredth_of_the_pixels(found: int, missed: bool, tmp_path: Path) -> None:
    """Two images are dark but for a row of red and one of green: 2 x 62 x 64 = 7,936 pixels, a hundredth is 79.36."""

    def label(number: int, labels: npt.NDArray[np.uint8]) -> None:
        if number < 2:
            labels[:] = DARK
            labels[:1], labels[1:2] = RED, GREEN
        else:
            nothing_dark(number, labels)

    def paint(number: int, labels: npt.NDArray[np.uint8], colors: npt.NDArray[np.uint8]) -> None:
        paint_dark_brown(number, labels, colors)
        if number == 0:
            colors.reshape(-1, 3)[np.flatnonzero(labels == DARK)[:found]] = SEEN[DARK]

    ground = Ground(tmp_path, paint, label)
    teaching, _, _ = looked(ground.settings([teacher_file(tmp_path / "t.onnx")], "online"))
    assert teaching.missed_labels == ((DARK,) if missed else ())


@pytest.mark.parametrize(
    ("paint", "labels", "unscored", "said"),
    [
        (None, None, (), ""),  # it finds all
        (None, nothing_dark, (), ""),  # a class that no training image holds cannot be missed
        (paint_dark_brown, None, ("dark",), ""),
        (paint_all_red, None, (), "finds almost nothing of green (0 of "),
    ],
)
def test_what_is_left_as_it_is(
    paint: Callable[..., None] | None, labels: Callable[..., None] | None, unscored: tuple[str, ...], said: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    nothing: Callable[..., None] = lambda *given: None  # noqa: E731
    ground = Ground(tmp_path, paint or nothing, labels or nothing, unscored)
    teaching, _, notes = looked(ground.settings([teacher_file(tmp_path / "t.onnx")], "online"))
    assert (teaching.missed_labels, teaching.compared_labels) == ((), None)
    assert len(notes) == bool(said)
    assert said in "".join(notes)


def test_two_teachers_miss_what_their_mean_misses(tmp_path: Path) -> None:
    """One takes brown for red, and the other, which sees half of the brightness, for dark (3.6 against 4)."""
    ground = Ground(tmp_path, paint_dark_brown)
    one, other = teacher_file(tmp_path / "one.onnx"), write_foreign(tmp_path / "two.onnx", scale=127.5)
    for weight, missed in ((1.0, (DARK,)), (30.0, ())):
        teaching, _, _ = looked(ground.settings([one, other], "online", teacher_weight=[1.0, weight]))
        assert teaching.missed_labels == missed


def test_all_ranks_go_by_what_the_first_has_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their networks differ in the last digits where they have other processors."""
    counts = np.array([[100, 100, 100], [50, 0, 50]], np.int64)
    monkeypatch.setattr("skystill.train.missed_classes.from_first_rank", lambda fabric, own: counts.tobytes())
    teaching, _, notes = looked(Ground(tmp_path).settings([teacher_file(tmp_path / "t.onnx")], "online"))
    assert teaching.missed_labels == (GREEN,)
    assert "does not find green (0 of 100 pixels)" in notes[0]


def test_a_student_learns_a_class_that_its_teacher_takes_for_another(tmp_path: Path) -> None:
    """Most weight is on the teacher, which says red of what the labels call dark."""
    ground = Ground(tmp_path, paint_dark_brown)
    teacher = teacher_file(tmp_path / "t.onnx")
    settings = ground.settings([teacher], alpha=0.3, alpha_end=0.3, epochs=8, crops_per_image=16, precision="32")
    notes: list[str] = []
    run = distill(settings, on_progress=lambda event: notes.append(event.text) if isinstance(event, Note) else None)
    image = np.asarray(Image.open(ground.data / "images" / "6.png"))
    truth = np.asarray(Image.open(ground.data / "masks" / "6.png"))
    labels = Predictor(run.model).labels(image)
    dark = (truth == THREE.colors[DARK]).all(axis=2)
    assert (labels[dark] == DARK).mean() > 0.8
    assert any("does not find dark" in note for note in notes)
