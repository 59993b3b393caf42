"""The models that the report of a run compares: its own, the teacher's and the baseline's."""

from dataclasses import dataclass
from pathlib import Path

from skystill.errors import RunFolderError
from skystill.run_folder import RunFolder


@dataclass(frozen=True)
class ComparedModel:
    """One model of a comparison.

    Args:
        role: "teacher", "alone" or "student".
        folder: the run that trained it.
    """

    role: str
    folder: RunFolder


def compared_models(folder: RunFolder) -> list[ComparedModel]:
    """Return the models to compare in the report of a run.

    A run without a teacher has one model, with the role "teacher". A distilled run has its student, the baseline if it
    was trained, and the teacher. A teacher that the run scored itself (`teacher.json`) is left out.

    Args:
        folder: the run.

    Raises:
        RunFolderError: the folder is not a run, or one of the runs has not finished.
    """
    config = folder.read_config()
    if "teacher" not in config:
        found = [ComparedModel("teacher", folder)]
    else:
        teachers = [config["teacher"]] if isinstance(config["teacher"], str) else config["teacher"]
        found = []
        if not folder.teacher_scores.exists():
            found.append(ComparedModel("teacher", RunFolder(Path(teachers[0]))))
        if folder.alone.model.exists():
            found.append(ComparedModel("alone", folder.alone))
        found.append(ComparedModel("student", folder))
    for compared_model in found:
        if not compared_model.folder.model.exists():
            raise RunFolderError(
                f"{compared_model.folder.model} is missing: that run has not finished. Finish it with --resume."
            )
    return found
