"""When the validation score of a teacher is known for the images of a student."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from skystill.classes import ClassMap
from skystill.data.prepare import PreparedData, prepare_data
from skystill.report.records import TrainingRecord, write_record
from skystill.run_folder import RunFolder, write_json
from skystill.settings import DistillSettings
from skystill.train.inputs import beginnings_of, inputs_of_data
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import NetworkRecord, write_network
from skystill.train.weak_teacher import teacher_score

NAMES = ("a", "b", "rest")
COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


@pytest.fixture(scope="module")
def prepared(scenes: Path) -> PreparedData:
    return prepare_data(DistillSettings(data=scenes, teacher=["t"], out=Path("o"), split="0.5/0.25/0.25"))


@pytest.mark.parametrize(
    ("classes", "known"),
    [
        (ClassMap(NAMES, COLORS), True),
        (ClassMap(("A", "B", "Rest"), COLORS), True),
        (ClassMap(("b", "a", "rest"), COLORS), True),  # the mean is over the same classes
        (ClassMap(NAMES, COLORS, unscored=("rest",)), False),
        (ClassMap(NAMES[:2], COLORS[:2]), False),
        (ClassMap(("a", "b", "other"), COLORS), False),
    ],
)
def test_a_score_over_other_classes_is_not_compared(
    classes: ClassMap, known: bool, prepared: PreparedData, tmp_path: Path
) -> None:
    run, of_student = RunFolder(tmp_path), ClassMap(NAMES, COLORS)
    run.weights.parent.mkdir()
    run.config.write_text("network: kite-nano\n")
    write_json(run.split, {"validation": [pair.key for pair in prepared.split.validation]})
    history = [{"epoch": 1.0, "validation_miou": 0.5}]
    training = {"parameters": 1, "steps": 1, "seconds": 1.0, "peak_rss_bytes": 1, "device": "cpu", "history": history}
    write_record(run.training, TrainingRecord.model_validate(training))
    write_network(run.weights, build_network("kite-nano", len(classes)), NetworkRecord("kite-nano", classes))
    settings = DistillSettings(data=Path("d"), teacher=[str(tmp_path)], out=Path("o"))
    assert teacher_score(settings, prepared.split, of_student) == (0.5 if known else None)
    write_json(run.inputs, inputs_of_data(prepared))
    assert teacher_score(settings, prepared.split, of_student) == (0.5 if known else None)


def test_a_score_on_other_images_of_the_same_names_is_not_compared(prepared: PreparedData, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(prepared.split.validation[0].image.parent, copied)
    pairs = prepared.split.validation
    moved = [replace(pair, image=copied / pair.image.name) for pair in pairs]
    assert beginnings_of(moved) == beginnings_of(pairs[::-1])
    content = bytearray(moved[0].image.read_bytes())
    content[len(content) // 2] ^= 1
    moved[0].image.write_bytes(content)
    assert beginnings_of(moved) != beginnings_of(pairs)
