"""The JSON files of a run as frozen models, so that the type checker covers what is written, read and shown."""

import shlex
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from skystill import __version__
from skystill.errors import RunFolderError, shortened
from skystill.model.measure import ModelCost
from skystill.report.metrics import Curve, Scores
from skystill.run_folder import RunFolder, write_json

_R = TypeVar("_R", bound="Record")

RESULTS_VERSION = 2
"""Version of the format of `results.json`.

It increases when the meaning of a field changes or a field is removed. A new field with a default does not change it.
Since version 2, means are over the classes that have truth in the test images, the IoU and F1 of the others are None,
and an interval is None from too few images. In version 1 a class counted in the means of a model as soon as that model
had predicted a pixel of it.
"""
_OF_VERSION_1 = (
    "These results are of an earlier version of SkyStill, in which a class without a pixel in the test images counted "
    "in the mean of a model that predicted it. Score again: skystill evaluate RUN."
)


class Record(BaseModel):
    """Base class of the records. They are frozen, and unknown fields, such as those of later versions, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class SplitRecord(Record):
    """`split.json`: the keys of the images of a run, by the part that they serve."""

    rule: str
    """How the split was made."""
    train: list[str]
    validation: list[str]
    test: list[str]


class TrainingRecord(Record):
    """`training.json`: the cost and the history of a training."""

    parameters: int
    """Number of learnt values of the network."""
    steps: int
    """Number of optimiser steps."""
    seconds: float
    """Sum over the epochs, in seconds."""
    feature_epochs: int = 0
    """Passes in which the network learnt the features of its teacher before these epochs."""
    feature_seconds: float = 0.0
    """Their sum, in seconds."""
    int8_epochs: int = 0
    """Epochs with the rounding of INT8 (`--quantize`) after these."""
    int8_steps: int = 0
    """Optimiser steps in these epochs."""
    int8_seconds: float = 0.0
    """Their sum, in seconds."""
    peak_rss_bytes: int
    """Peak resident memory of the process, or the value that was in this file before, if that is larger."""
    device: str
    """Name of the device in torch."""
    ranks: int = 1
    """Number of processes that shared each batch."""
    gradients_in_the_first_steps: dict[str, float] = {}
    """Norm of the weighted gradient of each part of the loss at the student's logits: mean over the first steps."""
    kept_epoch: int | None = None
    """With `--patience`, the epoch whose weights were kept; otherwise None, for the last epoch."""
    history: list[dict[str, float]]
    """One row for each epoch, as in `metrics.csv`."""

    @property
    def all_seconds(self) -> float:
        """Seconds of the training, with those before it on features, and those after it with the rounding of INT8."""
        return self.seconds + self.feature_seconds + self.int8_seconds


class TeacherScores(Record):
    """`teacher.json`: scores of teachers that the report cannot run itself, computed when the student was distilled."""

    teacher: list[str]
    """The values of `--teacher`."""
    scores: Scores
    """Scores on the test images of the run."""


class DataRecord(Record):
    """The data of a report."""

    folder: str
    """Path of the data folder."""
    split: str
    """Rule of the split."""
    test_images: list[str]
    """Keys of the images that were scored."""


class ClassRecord(Record):
    """One class of a report."""

    name: str
    color: str
    """Colour in the form "#3C1098"."""
    scored: bool = True
    """Whether the class counts in means."""
    value: int | None = None
    """Its number in index masks, if that is not the label."""


class ClassesRecord(Record):
    """The classes of a report."""

    classes: list[ClassRecord]
    void: list[str] = []
    ignore_index: list[int] = []
    """Numbers in index masks that are void."""
    indexed: bool = False


class ModelRecord(Record):
    """One model of a report."""

    run: str
    """Path of its run folder."""
    cost: ModelCost
    training: TrainingRecord
    scores: Scores
    curves: list[Curve]
    """Precision-recall curve of each class."""


class ComparisonRecord(Record):
    """Difference of the mean IoU of two models on the same images."""

    difference: float
    interval: tuple[float, float] | None
    """95 % bootstrap interval over images; None from too few images."""
    clear: bool
    """Whether the interval excludes zero and there are enough images for an interval."""


class Results(Record):
    """`results.json`: everything that the report shows."""

    version: int = RESULTS_VERSION
    skystill_version: str = __version__
    created: str
    """Local date and time of the evaluation."""
    title: str
    data: DataRecord
    classes: ClassesRecord
    models: dict[str, ModelRecord]
    """The models by role: "teacher", "alone", "student"."""
    comparisons: dict[str, ComparisonRecord]
    """Comparisons by pair of roles. "student-teacher" is the student minus the teacher."""
    verdict: list[str]
    """The result in sentences."""
    notes: list[str]
    """Warnings about the evaluation, such as test images that were trained on."""
    samples: list[dict[str, str]]
    """File names of the pictures of each sample, by kind."""
    settings: dict[str, Any]
    """The settings of the run, from `config.yaml`."""


class TrialRecord(Record):
    """One trial of a search."""

    number: int
    state: str
    """"complete", "pruned", "running" or "waiting"."""
    validation_miou: float | None
    """0 to 1; None if the trial has no result."""
    seconds: float | None
    """Duration; None if the trial has not ended."""
    drawn: dict[str, float | int | str]
    """The settings that were drawn, by name."""


class StudyRecord(Record):
    """`study.json`: a search and its trials."""

    best: int
    """Number of the best trial."""
    trials: list[TrialRecord]
    importance: dict[str, float]
    """Importance of each setting for the result of a trial, as a fraction. Empty if there are too few trials."""
    data: str
    """Name of the data folder, without its path."""


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON. The file appears whole or not at all."""
    write_json(path, record.model_dump(mode="json"))


def read_results(folder: RunFolder) -> Results:
    """Read the results of an evaluated run.

    Raises:
        RunFolderError: the run was not evaluated, its results are damaged, or a later version of SkyStill wrote them.
    """
    content = folder.read_json(folder.results)
    version = content.get("version", 1)
    if isinstance(version, int) and version > RESULTS_VERSION:
        raise RunFolderError(
            f"{folder.results} has version {version}; this SkyStill reads up to {RESULTS_VERSION}. Install a later "
            f"SkyStill, or evaluate the run again: skystill evaluate {shlex.quote(str(folder.path))}."
        )
    results = _checked(Results, content, folder.results)
    return results if results.version > 1 else results.model_copy(update={"notes": [*results.notes, _OF_VERSION_1]})


def read_split(folder: RunFolder) -> SplitRecord:
    """Read the split of a run. It raises the errors of `RunFolder.read_json`."""
    return _checked(SplitRecord, folder.read_json(folder.split), folder.split)


def read_training(folder: RunFolder) -> TrainingRecord:
    """Read the cost and the history of a training. Raises RunFolderError if the file is missing or damaged."""
    return _checked(TrainingRecord, folder.read_json(folder.training), folder.training)


def read_teacher_scores(folder: RunFolder) -> TeacherScores | None:
    """Read the scores of a teacher that is not a SkyStill run. Returns None if there is no such file.

    Raises:
        RunFolderError: the file is damaged.
    """
    if not folder.teacher_scores.exists():
        return None
    return _checked(TeacherScores, folder.read_json(folder.teacher_scores), folder.teacher_scores)


def read_study(folder: RunFolder) -> StudyRecord:
    """Read the record of a search. Raises RunFolderError if the file is missing or damaged."""
    return _checked(StudyRecord, folder.read_json(folder.study), folder.study)


def _checked(kind: type[_R], content: dict[str, Any], path: Path) -> _R:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RunFolderError(
            f"{path} is damaged: {shortened(place)}: {shortened(first['msg'])}. Take a whole copy of it, or make "
            "it again."
        ) from error
