"""Early stopping, class weights, pictures and weak teachers in whole trainings, in this process."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import skystill.api as api
from skystill.errors import SettingsError
from skystill.progress import EpochEnd, Event, Message, Note

QUICK = {"network": "two-level", "crop": 64, "precision": "32", "schedule": "constant", "report": False}


class Stop(Exception):
    pass


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_training_with_patience_stops_and_resumes_to_the_same_bits(scenes: Path, tmp_path: Path) -> None:
    settings = QUICK | {"data": scenes, "epochs": 12, "patience": 2, "learning_rate": 0.03, "class_weights": "auto"}
    whole, said = tmp_path / "whole", list[Event]()
    api.train(**settings, out=whole, on_progress=said.append)
    scores = [float(row["validation_miou"]) for row in rows(whole)]
    best = int(np.argmax(scores)) + 1
    training = json.loads((whole / "training.json").read_text())
    assert training["kept_epoch"] == best
    assert len(scores) == min(12, best + 2)
    lines = [event.text for event in said if isinstance(event, Message)]
    assert any(f"The weights of epoch {best} are kept" in line for line in lines)
    assert any(line.startswith("weights of the classes in the loss against labels: Building ") for line in lines)

    def stop(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.row["epoch"] == best:
            raise Stop

    with pytest.raises(Stop):
        api.train(**settings, out=tmp_path / "cut", on_progress=stop)
    api.train(**settings, out=tmp_path / "cut", resume=True)
    one, other = (load_file(run / "checkpoints/model.safetensors") for run in (whole, tmp_path / "cut"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    pictures = [np.asarray(Image.open(run / "pictures/validation.png")) for run in (whole, tmp_path / "cut")]
    assert np.array_equal(*pictures)
    assert not list((whole / "pictures").glob(".part-*"))


def test_patience_without_validation_images_is_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--patience 3: the training would stop.*it has none"):
        api.train(**QUICK, data=scenes, out=tmp_path / "run", split="0.8/0/0.2", patience=3)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [("1,2", r"2 weight\(s\) for 5 classes. Give one for each of Building, Land"), ("1,1,1,1,1,1", "6 weight")],
)
def test_a_wrong_number_of_weights_is_refused(scenes: Path, tmp_path: Path, weights: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        api.train(**QUICK, data=scenes, out=tmp_path / "run", class_weights=weights)
    assert not (tmp_path / "run").exists()


def test_a_weak_teacher_is_named(scenes: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    api.train(**QUICK, data=scenes, out=teacher, epochs=1)
    known = float(rows(teacher)[-1]["validation_miou"])
    said, better = list[Event](), 0
    more = {name: value for name, value in QUICK.items() if name != "network"}
    more |= {"epochs": 8, "learning_rate": 0.01, "alone": False, "alpha": 1.0, "class_weights": "1,1,2,1,1"}
    api.distill(**more, data=scenes, out=tmp_path / "run", student="two-level", teacher=[str(teacher)],
                on_progress=said.append)  # fmt: skip
    lines = [event.text for event in said if isinstance(event, Message)]
    assert f"{teacher} has a validation mIoU of {known:.3f}, by its training.json." in lines
    notes = [event for event in said if isinstance(event, Note) and "better than its teacher" in event.text]
    for row in rows(tmp_path / "run"):
        better = better + 1 if float(row["validation_miou"]) > known + 0.01 else 0
        if better == 2:
            break
    assert better == 2, "the student of this test is better than its teacher"
    assert len(notes) == 1
