"""The JSON files of a run: what is damaged is named, with what to do, and never ends in a traceback."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from skystill.errors import RunFolderError
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
