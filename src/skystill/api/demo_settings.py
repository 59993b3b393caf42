"""Data and settings of `skystill demo`: procedural scenes, and training that takes a few minutes on two cores.

The demo shows what distillation is for. Somebody has trained a teacher on many labelled scenes. You have four labelled
scenes and many without labels, and a computer on which the teacher is too heavy.
"""

from typing import Any

from skystill.data.scenes import write_scene, write_scene_classes
from skystill.errors import RunFolderError
from skystill.progress import OnProgress, tracked
from skystill.settings import DemoSettings, DistillSettings, TrainSettings

_SIZE = 448
_OF_TEACHER = range(26)
"""Scenes of whoever trained the teacher. They are labelled, and the student never sees them."""
_LABELLED = range(26, 42)
"""Scenes of whoever needs the student: 4 to train on, 2 for validation, and 10 test images for the report."""
_UNLABELLED = range(42, 62)


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
    folders = {name: settings.out / name for name in ("teacher-data", "data", "unlabeled")}
    if folders["data"].exists() and not resume:
        raise RunFolderError(f"{settings.out} is there already. Choose another --out, or go on with --resume.")
    for name in ("teacher-data", "data"):
        write_scene_classes(folders[name])
    scenes = [
        (folders[name], index)
        for name, part in zip(folders, (_OF_TEACHER, _LABELLED, _UNLABELLED), strict=True)
        for index in part
    ]
    for folder, index in tracked(scenes, "painting scenes", on_progress):
        write_scene(folder, index, _SIZE, settings.seed, labelled=folder != folders["unlabeled"])
    shared: dict[str, Any] = {"seed": settings.seed, "batch_size": 4, "crop": 224}
    teacher = TrainSettings(
        **shared,
        data=folders["teacher-data"],
        out=settings.out / "teacher",
        split="0.8/0.08/0.12",
        network="kite?channels=(64,96,128)&blocks=(2,2,2)",
        epochs=8,
    )
    student = DistillSettings(
        **shared,
        data=folders["data"],
        unlabeled=folders["unlabeled"],
        out=settings.out / "student",
        split="0.25/0.125/0.625",
        student="kite",  # trains faster than the default student
        teacher=[str(teacher.out)],
        epochs=7,
        crops_per_image=24,  # as many steps as if all images had labels
        alpha=0.5,
        temperature=2.0,
    )
    return teacher, student
