"""The JSON files of a run: what is damaged is named, with what to do, and never ends in a traceback."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from skystill.errors import RunFolderError
from skystill.report.page import write_report
from skystill.report.records import (
    RESULTS_VERSION,
    TrainingRecord,
    read_results,
    read_split,
    read_study,
    read_teacher_scores,
    read_training,
    write_record,
)
from skystill.run_folder import RunFolder
from tests.model_cost import cost

READERS: dict[str, Callable[[RunFolder], object]] = {
    "results.json": read_results,
    "training.json": read_training,
    "split.json": read_split,
    "teacher.json": read_teacher_scores,
    "study.json": read_study,
}
DAMAGE = [
    "",
    "null",
    "[]",
    "[1]",
    "3",
    '"text"',
    "{",
    "{}",
    '{"version": "x"}',
    '{"history": 3, "trials": 3, "train": 3}',
]


@pytest.mark.parametrize("content", DAMAGE)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_with_the_mend(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RunFolderError, match=rf"{name} is damaged: .*make it again"):
        READERS[name](RunFolder(tmp_path))


@pytest.mark.parametrize("name", READERS)
def test_a_folder_in_its_place_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(RunFolderError, match=name):
        READERS[name](RunFolder(tmp_path))


def test_results_of_a_later_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"version": RESULTS_VERSION + 1}))
    with pytest.raises(RunFolderError, match=rf"has version {RESULTS_VERSION + 1}; this SkyStill reads up to"):
        read_results(RunFolder(tmp_path))


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = TrainingRecord(
        parameters=3, steps=4, seconds=0.5, peak_rss_bytes=10**9, device="cpu", history=[{"epoch": 1.0, "loss": 0.25}]
    )
    folder = RunFolder(tmp_path)
    write_record(folder.training, record)
    assert read_training(folder) == record
    content = json.loads(folder.training.read_text())
    content["a_later_field"] = 1
    folder.training.write_text(json.dumps(content))
    assert read_training(folder) == record


@pytest.mark.parametrize("content", ["", "null", "3", "[1]", "a: [", "max_size: big", "\x00"])
def test_a_damaged_config_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(RunFolderError, match=r"config\.yaml is damaged"):
        RunFolder(tmp_path).read_config()


def test_a_config_of_an_earlier_commit_is_read_with_todays_names(tmp_path: Path) -> None:
    old = {"data": "d", "teacher_share": [2.0], "unlabeled_share": 0.25, "max_size": "300KB", "max_memory": None}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    assert RunFolder(tmp_path).read_config() == {
        "data": "d", "teacher_weight": [2.0], "unlabeled_fraction": 0.25, "max_size": 300_000, "max_memory": None,
    }  # fmt: skip


def _results_of_version_1() -> dict[str, object]:
    """As an earlier version wrote them: an interval of two images, and two stray pixels of b that count as IoU 0."""
    per_class = {"iou": [0.9, 0.0], "f1": [18 / 19, 0.0], "precision": [1.0, 0.0], "recall": [0.9, None]}
    scores = {
        "images": 2, "pixels": 20, "miou": 0.45, "mf1": 9 / 19, "mprecision": 0.5, "mrecall": 0.9,
        "miou_interval": [0.4, 0.5], "pixel_accuracy": 0.9, "per_class": per_class, "confusion": [[18, 2], [0, 0]],
    }  # fmt: skip
    row = {"epoch": 1, "loss": 1.0, "student_loss": 1.0}
    training = {"parameters": 9, "steps": 1, "seconds": 1, "peak_rss_bytes": 9, "device": "cpu", "history": [row]}
    curve = {"threshold": [], "precision": [], "recall": []}
    model = {"run": "r", "cost": asdict(cost()), "training": training, "scores": scores, "curves": [curve, curve]}
    classes = [{"name": "a", "color": "#010101"}, {"name": "b", "color": "#020202"}]
    return {
        "version": 1, "created": "", "title": "old", "classes": {"classes": classes}, "models": {"teacher": model},
        "data": {"folder": "d", "split": "auto", "test_images": ["x", "y"]}, "comparisons": {}, "verdict": ["v"],
        "notes": [], "samples": [], "settings": {},
    }  # fmt: skip


def test_results_of_version_1_are_shown_and_say_that_the_mean_is_another(tmp_path: Path) -> None:
    """Its interval is from two images, and is not shown."""
    folder = RunFolder(tmp_path)
    folder.results.write_text(json.dumps(_results_of_version_1()))
    assert "of an earlier version" in read_results(folder).notes[0]
    write_report(folder)
    page = folder.report.read_text()
    assert "of an earlier version" in page
    assert "45.0 (no interval from 2 test image(s): 5 or more are enough)" in page
    assert "40.0 to 50.0" not in page
    assert "The test images hold no pixel of b" in page


def test_results_of_version_2_keep_what_has_no_value(tmp_path: Path) -> None:
    content: Any = _results_of_version_1() | {"version": 2}
    content["models"]["teacher"]["scores"]["miou_interval"] = None
    content["comparisons"] = {"student-alone": {"difference": 0.1, "interval": None, "clear": False}}
    (tmp_path / "results.json").write_text(json.dumps(content))
    found = read_results(RunFolder(tmp_path))
    assert found.notes == []
    assert found.models["teacher"].scores.miou_interval is None
    assert found.comparisons["student-alone"].interval is None
