"""Data and settings of `skystill demo`: procedural scenes, and training that takes a few minutes on two cores.

The demo shows what distillation is for. Somebody has trained a teacher on labelled scenes of summer and autumn. You
have labels of four scenes, all of summer, and need maps of autumn on a computer that is too weak for the teacher. The
student learns autumn from scenes that nobody labelled.
"""

from typing import Any

from skystill.data.scenes import AUTUMN, SUMMER, scene_key, write_scene, write_scene_classes
from skystill.errors import RunFolderError
from skystill.progress import OnProgress, tracked
from skystill.run_folder import write_json
from skystill.settings import DemoSettings, DistillSettings, TrainSettings

_SIZE = 448
_OF_TEACHER = range(26)
"""Labelled scenes of whoever trained the teacher, of summer and autumn in turn. The student never sees them."""
_TRAINING, _VALIDATION, _TEST = range(26, 30), range(30, 32), range(32, 42)
"""Labelled scenes: to train on (summer), and to validate and test the student on (autumn)."""
_UNLABELED = range(42, 62)
"""Scenes of autumn that nobody labelled."""


def prepare_demo(
    settings: DemoSettings, resume: bool, on_progress: OnProgress
) -> tuple[TrainSettings, DistillSettings]:
    """Write the scenes, and return the settings for training teacher and student.

    Args:
        settings: output folder and seed.
        resume: continue in an existing folder.
        on_progress: receives a `Progress` for each scene.

    Returns:
        The settings of the teacher and of the student.

    Raises:
        RunFolderError: the folder exists and `resume` is False.
    """
    archive, data, unlabeled = (settings.out / name for name in ("teacher-data", "data", "unlabeled"))
    if data.exists() and not resume:
        raise RunFolderError(f"{settings.out} is there already. Choose another --out, or go on with --resume.")
    for folder in (archive, data):
        write_scene_classes(folder)
    for index in tracked(range(_UNLABELED.stop), "painting scenes", on_progress):
        folder = archive if index in _OF_TEACHER else unlabeled if index in _UNLABELED else data
        is_summer = index % 2 == 0 if index in _OF_TEACHER else index in _TRAINING
        season = SUMMER if is_summer else AUTUMN
        write_scene(folder, index, _SIZE, settings.seed, labelled=folder != unlabeled, season=season)
    split, parts = settings.out / "split.json", {"train": _TRAINING, "validation": _VALIDATION, "test": _TEST}
    write_json(split, {part: [scene_key(index) for index in indices] for part, indices in parts.items()})
    shared: dict[str, Any] = {"seed": settings.seed, "batch_size": 4, "crop": 224}
    teacher = TrainSettings(
        **shared,
        data=archive,
        out=settings.out / "teacher",
        split="0.8/0.08/0.12",
        network="kite?channels=(64,96,128)&blocks=(2,2,2)",
        epochs=8,
    )
    student = DistillSettings(
        **shared,
        data=data,
        unlabeled=[unlabeled],
        out=settings.out / "student",
        split=str(split),
        student="kite",  # trains faster than the default student
        teacher=[str(teacher.out)],
        epochs=7,
        crops_per_image=24,  # as many steps as if all images had labels
        unlabeled_fraction=0.75,
        alpha=0.3,
        temperature=2.0,
    )
    return teacher, student
