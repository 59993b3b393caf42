"""Finds out by trying how a teacher is called: the sizes of images that it takes, and what it answers.

`skystill.model.foreign` does the same for a model file in `predict`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from skystill.errors import CheckpointError
from skystill.model.adapters import Answer
from skystill.model.trial_images import LARGEST_REDUCTION, MULTIPLES, even_images, trial_size
from skystill.raster.input_spec import RGB
from skystill.train.libraries.imports import name_library_errors
from skystill.train.networks.examples import noise_images
from skystill.train.teachers.teacher import Teacher, answer_of

_KINDS: tuple[Answer, ...] = ("logits", "independent", "probabilities")


def try_teacher(teacher: Teacher, num_classes: int) -> Tensor:
    """Set `multiple`, `answer` and `binary` of a teacher, and return its logits of an image of noise (1, C, H, W).

    The image has odd sides, and then sides that are divisible by 2, 4, ..., until the network can be run and answers at
    the size of the image or at a whole part of it. The answer is probabilities only if it is that for noise, a dark and
    a bright image. One channel is that of the second of two classes.

    Raises:
        CheckpointError: the network fails on all sizes, or its answers fit none.
    """
    spec, problem = teacher.input_spec or RGB, None
    for multiple in (one for one in MULTIPLES if one % teacher.multiple == 0):
        height, width = trial_size(multiple)
        noise = noise_images(spec, 1, height, width)
        try:
            with name_library_errors(f"teacher {teacher.name}", "it cannot be run"):
                outputs = teacher.outputs(noise)
        except CheckpointError as error:
            problem = problem or error
            continue
        if not _fits(outputs.shape[2:], height, width):
            problem = problem or CheckpointError(
                f"teacher {teacher.name} gives {tuple(outputs.shape)} for an image of {height} x {width} pixels; a "
                "segmentation network gives one value for each class and pixel, or for each square of up to "
                f"{LARGEST_REDUCTION} x {LARGEST_REDUCTION} pixels."
            )
            continue
        teacher.multiple = multiple
        found = {answer_of(outputs)}
        if found != {"logits"}:
            even = map(torch.from_numpy, even_images(spec, height, width))
            found |= {answer_of(teacher.outputs(image[None])) for image in even}
        teacher.answer = next(kind for kind in _KINDS if kind in found)
        teacher.binary = outputs.shape[1] == 1 and num_classes == 2
        logits: Tensor = teacher(noise)
        return logits
    assert problem is not None, "each size that does not fit gives one"
    raise problem


def _fits(answered: Sequence[int], height: int, width: int) -> bool:
    """Whether an answer covers the image exactly: one value for each pixel, or for each square of pixels."""
    reductions = range(1, LARGEST_REDUCTION + 1)
    return any(
        height % side == width % side == 0 and tuple(answered) == (height // side, width // side) for side in reductions
    )
