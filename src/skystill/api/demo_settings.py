"""The embedded default: procedural scenes, and settings that fit a coffee break on two cores."""

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
    """Write the scenes, and say how to train teacher and student.

    Args:
        settings: where, and with which seed.
        resume: go on in a folder that is there.
        on_progress: follows the scenes.

    Raises:
        RunFolderError: the folder is there, and `resume` is False.
    """
    data = settings.out / "data"
    if data.exists() and not resume:
        raise RunFolderError(f"{settings.out} is there already. Choose another --out, or go on with --resume.")
    write_scene_classes(data)
    for index in tracked(range(_SCENES), "painting scenes", on_progress):
        write_scene(data, index, _SIZE, settings.seed)
    shared: dict[str, Any] = {"data": data, "split": _SPLIT, "seed": settings.seed, "batch_size": 4, "crop": 224}
    # Clearly better than the student alone, or it would have nothing to teach: more weights, more steps.
    network = "kite?channels=(64,96,128)&blocks=(2,2,2)"
    teacher = TrainSettings(**shared, out=settings.out / "teacher", network=network, epochs=8)
    student = DistillSettings(
        **shared,
        out=settings.out / "student",
        student="kite",  # quicker to train than the default
        teacher=[str(teacher.out)],
        epochs=7,
        alpha=0.5,
        temperature=2.0,
    )
    return teacher, student
