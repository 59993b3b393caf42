"""Data and settings of `skystill demo`: procedural scenes, and training that takes a few minutes on two cores.

The demo shows what distillation is for. Somebody has trained a teacher on many labelled scenes. You have one labelled
scene and many without labels, and a computer on which the teacher is too heavy.
"""

from typing import Any

import numpy as np

from skystill.data.scenes import SCENE_CLASSES, scene_key, write_scene, write_scene_classes
from skystill.errors import RunFolderError
from skystill.progress import OnProgress, tracked
from skystill.run_folder import write_json
from skystill.settings import DemoSettings, DistillSettings, TrainSettings

_SIZE = 448
_OF_TEACHER = range(26)
"""Scenes of whoever trained the teacher. They are labelled, and the student never sees them."""
_LABELLED = range(26, 39)
"""Scenes of whoever needs the student: 1 to train on, 2 for validation, and 10 test images for the report."""
_UNLABELLED = range(39, 59)


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
    of_folder = ((archive, _OF_TEACHER), (data, _LABELLED), (unlabeled, _UNLABELLED))
    scenes = [(folder, index) for folder, part in of_folder for index in part]
    complete = list[str]()
    for folder, index in tracked(scenes, "painting scenes", on_progress):
        labels = write_scene(folder, index, _SIZE, settings.seed, labelled=folder != unlabeled)
        if folder == data and len(np.unique(labels)) == len(SCENE_CLASSES):
            complete.append(scene_key(index))
    split = settings.out / "split.json"
    write_json(split, _split([scene_key(index) for index in _LABELLED], complete))
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
        unlabeled=unlabeled,
        out=settings.out / "student",
        split=str(split),
        student="kite",  # trains faster than the default student
        teacher=[str(teacher.out)],
        epochs=7,
        crops_per_image=96,  # as many steps as if all images had labels
        alpha=0.5,
        temperature=2.0,
    )
    return teacher, student


def _split(keys: list[str], complete: list[str]) -> dict[str, list[str]]:
    """Return the parts of the labelled scenes. The only scene to train on shows every class, if one does."""
    only = (complete or keys)[0]
    others = [key for key in keys if key != only]
    return {"train": [only], "validation": others[:2], "test": others[2:]}
