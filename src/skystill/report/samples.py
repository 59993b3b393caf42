"""Small pictures of test images: the image, the ground truth, the predictions, and where student and teacher differ."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from skystill.classes import VOID, ClassMap, Labels
from skystill.data import Pair, read_image, read_pair_labels
from skystill.predict.predictor import Predictor
from skystill.progress import OnProgress, tracked
from skystill.raster.saving import save_picture
from skystill.raster.shown import read_shown
from skystill.report.compared import ComparedModel
from skystill.run_folder import RunFolder

_SAMPLES = 10
_SAMPLE_SIDE = 400
_AGREE, _BOTH_WRONG, _STUDENT_WRONG, _TEACHER_WRONG = (225, 225, 225), (120, 120, 120), (213, 94, 0), (0, 114, 178)
DISAGREEMENT = {
    "both right": _AGREE,
    "both wrong": _BOTH_WRONG,
    "only the student wrong": _STUDENT_WRONG,
    "only the teacher wrong": _TEACHER_WRONG,
}
"""Meaning and colour of the pixels of a disagreement picture. Void is black."""


def write_samples(
    folder: RunFolder,
    models: Sequence[ComparedModel],
    pairs: Sequence[Pair],
    classes: ClassMap,
    on_progress: OnProgress,
    show: Sequence[int | str] | None = None,
) -> list[dict[str, str]]:
    """Write small pictures of up to ten test images, spread evenly over the test set.

    Args:
        folder: the run, in which the pictures are written.
        models: the models of the run. The baseline ("alone") is left out.
        pairs: the test images and their masks.
        classes: the classes and their colours.
        on_progress: called with a `Progress` for each image.
        show: the bands of the image that are shown; None finds red, green and blue.

    Returns:
        for each image its "key", and the file name of each picture by kind: "image", "truth", the roles of the models,
        and "disagreement" if there are both a student and a teacher.
    """
    predictors = {m.role: Predictor(m.folder.model) for m in models if m.role != "alone"}
    count = min(_SAMPLES, len(pairs))
    chosen = [pairs[index * len(pairs) // count] for index in range(count)]
    written: list[dict[str, str]] = []
    for number, pair in enumerate(tracked(chosen, "sample pictures", on_progress, leaves_line=True)):
        image = read_shown(str(pair.image), show, pair.bounds)
        labels = read_pair_labels(pair, classes, (image.shape[0], image.shape[1])).labels
        found = {
            role: predictor.labels(read_image(pair.image, predictor.info.input_spec, pair.bounds))
            for role, predictor in predictors.items()
        }
        pictures = {"image": image, "truth": classes.paint(labels)}
        pictures |= {role: classes.paint(predicted) for role, predicted in found.items()}
        if {"student", "teacher"} <= found.keys():
            pictures["disagreement"] = paint_disagreement(labels, found["teacher"], found["student"])
        names = {"key": pair.key}
        for kind, picture in pictures.items():
            names[kind] = f"{number:02d}-{kind}.{'jpg' if kind == 'image' else 'png'}"
            _save_small(folder.samples / names[kind], picture, photo=kind == "image")
        written.append(names)
    return written


def paint_disagreement(labels: Labels, teacher: Labels, student: Labels) -> npt.NDArray[np.uint8]:
    """Paint where student and teacher are right or wrong, in the colours of `DISAGREEMENT`.

    Args:
        labels: (H, W) uint8, the ground truth, 255 = void.
        teacher: (H, W) uint8, labels that the teacher predicts.
        student: (H, W) uint8, labels that the student predicts.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    picture = np.empty((*labels.shape, 3), np.uint8)
    picture[:] = _AGREE
    picture[(student != labels) & (teacher != labels)] = _BOTH_WRONG
    picture[(student != labels) & (teacher == labels)] = _STUDENT_WRONG
    picture[(student == labels) & (teacher != labels)] = _TEACHER_WRONG
    picture[labels == VOID] = 0
    return picture


def _save_small(path: Path, picture: npt.NDArray[np.uint8], photo: bool) -> None:
    opened = Image.fromarray(picture)
    scale = min(1.0, _SAMPLE_SIDE / max(opened.size))
    size = (max(1, round(opened.width * scale)), max(1, round(opened.height * scale)))
    if photo:
        save_picture(opened.resize(size, Image.Resampling.LANCZOS), path, quality=85)
    else:
        save_picture(opened.resize(size, Image.Resampling.NEAREST).quantize(256), path, optimize=True)
