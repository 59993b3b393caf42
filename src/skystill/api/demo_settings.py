"""Data and settings of `skystill demo`: procedural scenes, and training that takes a few minutes on two cores."""

from typing import Any

from skystill.data.scenes import write_scene, write_scene_classes
from skystill.errors import RunFolderError
from skystill.progress import OnProgress, tracked
from skystill.settings import DemoSettings, DistillSettings, TrainSettings

_SCENES = 36
_SIZE = 448
_SPLIT = "0.6/0.12/0.28"  # ten test images for the report


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
    data = settings.out / "data"
    if data.exists() and not resume:
        raise RunFolderError(f"{settings.out} is there already. Choose another --out, or go on with --resume.")
    write_scene_classes(data)
    for index in tracked(range(_SCENES), "painting scenes", on_progress):
        write_scene(data, index, _SIZE, settings.seed)
    shared: dict[str, Any] = {"data": data, "split": _SPLIT, "seed": settings.seed, "batch_size": 4, "crop": 224}
    # The teacher must be clearly better than the student alone, or distillation cannot help. So it has more weights and
    # more steps.
    network = "kite?channels=(64,96,128)&blocks=(2,2,2)"
    teacher = TrainSettings(**shared, out=settings.out / "teacher", network=network, epochs=8)
    student = DistillSettings(
        **shared,
        out=settings.out / "student",
        student="kite",  # trains faster than the default student
        teacher=[str(teacher.out)],
        epochs=7,
        alpha=0.5,
        temperature=2.0,
    )
    return teacher, student
