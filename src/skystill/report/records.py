"""The JSON files of a run as frozen models: what is written, read and shown is checked by the type checker."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from skystill import __version__
from skystill.errors import RunFolderError
from skystill.model.measure import ModelCost
from skystill.report.metrics import Curve, Scores
from skystill.run_folder import RunFolder, write_json

_R = TypeVar("_R", bound="Record")

RESULTS_VERSION = 1
"""Of `results.json`. It rises when a field changes its meaning or goes; a new field with a default needs no new one."""


class Record(BaseModel):
    """What the records share: they are frozen, and fields of later versions are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TrainingRecord(Record):
    """`training.json`: what a training cost, and its history."""

    parameters: int
    """Learnt values of the network."""
    steps: int
    """Optimiser steps."""
    seconds: float
    """Of all epochs."""
    peak_rss_bytes: int
    """Peak resident memory; of a resumed run the largest of all its processes."""
    device: str
    """As torch names it."""
    ranks: int = 1
    """Processes that shared each batch."""
    gradients_in_the_first_steps: dict[str, float] = {}
    """Norm of the weighted gradient of each part of the loss at the student's logits, mean over the first steps."""
    history: list[dict[str, float]]
    """One row for each epoch, as in `metrics.csv`."""


class TeacherScores(Record):
    """`teacher.json`: the scores of a teacher that is not a SkyStill run, found when the student was distilled."""

    teacher: list[str]
    """As written after `--teacher`."""
    scores: Scores


class DataRecord(Record):
    """The data of a report."""

    folder: str
    split: str
    """The rule of the split."""
    test_images: list[str]
    """Keys of the images that were scored."""


class ClassRecord(Record):
    """One class of a report."""

    name: str
    color: str
    """As "#3C1098"."""
    scored: bool = True
    """Whether it counts in means."""


class ClassesRecord(Record):
    """The classes of a report."""

    classes: list[ClassRecord]
    void: list[str] = []
    indexed: bool = False


class ModelRecord(Record):
    """One model of a report."""

    run: str
    """Its run folder."""
    cost: ModelCost
    training: TrainingRecord
    scores: Scores
    curves: list[Curve]
    """Precision against recall of each class."""


class ComparisonRecord(Record):
    """The difference of the mean IoU of two models on the same images."""

    difference: float
    interval: tuple[float, float]
    """95 % bootstrap interval over images."""
    clear: bool
    """Whether the interval leaves out zero."""


class Results(Record):
    """`results.json`: everything that the report shows."""

    version: int = RESULTS_VERSION
    skystill_version: str = __version__
    created: str
    """Date and time."""
    title: str
    data: DataRecord
    classes: ClassesRecord
    models: dict[str, ModelRecord]
    """By role: "teacher", "alone", "student"."""
    comparisons: dict[str, ComparisonRecord]
    """By roles, such as "student-teacher"."""
    verdict: list[str]
    """The result in sentences."""
    notes: list[str]
    samples: list[dict[str, str]]
    """File names of sample pictures, by kind."""
    settings: dict[str, Any]
    """`config.yaml` of the run."""


class TrialRecord(Record):
    """One trial of a search."""

    number: int
    state: str
    """"complete", "pruned", "running" or "waiting"."""
    validation_miou: float | None
    seconds: float | None
    drawn: dict[str, float | int | str]
    """The settings that were drawn."""


class StudyRecord(Record):
    """`study.json`: a search and its trials."""

    best: int
    """Number of the best trial."""
    trials: list[TrialRecord]
    importance: dict[str, float]
    """Part of each setting in what makes trials good; empty where there are too few trials."""
    data: str
    """Name of the data folder."""


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, whole."""
    write_json(path, record.model_dump(mode="json"))


def read_results(folder: RunFolder) -> Results:
    """The results of an evaluated run.

    Raises:
        RunFolderError: the run was not evaluated, its results are damaged, or a later SkyStill wrote them.
    """
    content = folder.read_json(folder.results)
    version = content.get("version", 1)
    if isinstance(version, int) and version > RESULTS_VERSION:
        raise RunFolderError(
            f"{folder.results} has version {version}; this SkyStill reads up to {RESULTS_VERSION}. Install a later "
            f"SkyStill, or evaluate the run again: skystill evaluate {folder.path}."
        )
    return _checked(Results, content, folder.results)


def read_training(folder: RunFolder) -> TrainingRecord:
    """What the training of a run cost. Raises RunFolderError as `RunFolder.read_json`."""
    return _checked(TrainingRecord, folder.read_json(folder.training), folder.training)


def read_teacher_scores(folder: RunFolder) -> TeacherScores | None:
    """The scores of a teacher that is not a run; None where there are none. Raises as `RunFolder.read_json`."""
    if not folder.teacher_scores.exists():
        return None
    return _checked(TeacherScores, folder.read_json(folder.teacher_scores), folder.teacher_scores)


def read_study(folder: RunFolder) -> StudyRecord:
    """A search. Raises RunFolderError as `RunFolder.read_json`."""
    return _checked(StudyRecord, folder.read_json(folder.study), folder.study)


def _checked(kind: type[_R], content: dict[str, Any], path: Path) -> _R:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RunFolderError(f"{path} is damaged: {place}: {first['msg']}.") from error
