"""Says that a teacher knows less than its student, while the student is trained."""

import math

from skystill.classes import ClassMap
from skystill.data.split import Split
from skystill.progress import EpochEnd, Event, Message, Note, OnProgress
from skystill.report.records import read_training
from skystill.run_folder import RunFolder
from skystill.settings import DistillSettings
from skystill.train.inputs import VALIDATION, beginnings_of
from skystill.train.networks.weights import read_record

_MARGIN = 0.01  # a point of mIoU
_EPOCHS = 2  # in a row: one epoch may be luck


def teacher_score(settings: DistillSettings, split: Split, classes: ClassMap) -> float | None:
    """Return the validation mIoU of the teacher's kept weights, or None if it is not known for these images.

    It is known if the teacher is a single run of SkyStill that was validated on the same images with the same classes.

    Args:
        settings: how to distil.
        split: the images of the student.
        classes: its classes.

    Raises:
        RunFolderError: a file of the teacher's run is damaged.
    """
    if settings.run_teacher is None:
        return None
    run = RunFolder(settings.run_teacher)
    if not (run.training.exists() and run.split.exists()):
        return None
    same = sorted(map(str, run.read_json(run.split).get("validation", []))) == sorted(p.key for p in split.validation)
    training = read_training(run)
    same = same and _has_images(run, split)
    same = same and _scored(read_record(run.weights).classes) == _scored(classes)
    if not same or not training.history:
        return None
    return training.history[(training.kept_epoch or len(training.history)) - 1].get("validation_miou")


def _has_images(run: RunFolder, split: Split) -> bool:
    """Whether a run was validated on these images. Files of other places may have the same names."""
    said = run.read_json(run.inputs).get(VALIDATION) if run.inputs.is_file() else None
    return said is None or said == beginnings_of(split.validation)


def _scored(classes: ClassMap) -> list[str]:
    return sorted(name.lower() for name in classes.names if name not in classes.unscored)


def compared_with_teacher(on_progress: OnProgress, teacher: str, score: float | None) -> OnProgress:
    """Report the teacher's score, and return a callback that gives a note once the student is clearly better.

    Args:
        on_progress: receives all events.
        teacher: its name for messages.
        score: its validation mIoU; None returns `on_progress`.
    """
    if score is None or math.isnan(score):
        return on_progress
    on_progress(Message(f"{teacher} has a validation mIoU of {score:.3f}, by its training.json."))
    better = 0

    def report(event: Event) -> None:
        nonlocal better
        on_progress(event)
        if isinstance(event, EpochEnd) and better < _EPOCHS:
            better = better + 1 if event.row.get("validation_miou", 0.0) > score + _MARGIN else 0
            if better == _EPOCHS:
                on_progress(
                    Note(
                        f"the student has been better than its teacher {teacher} on the validation images for "
                        f"{_EPOCHS} epochs, by more than {100 * _MARGIN:.0f} point: a teacher that knows less cannot "
                        "help much. "
                        "Train a better one, such as skystill train --network lite0, or use the student without it."
                    )
                )

    return report
