"""Model files of other programs: look at a file and try it on small images, to find out how it is called."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from skystill.classes import ClassMap
from skystill.errors import ModelFileError, SettingsError
from skystill.model.adapters import (
    INPUT_SCALES,
    Answer,
    Form,
    InputScale,
    Planes,
    RawCall,
    channels_of,
    to_input,
    what_is_answered,
)

_INPUT_TYPES: Mapping[str, Any] = {
    "tensor(uint8)": np.uint8,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128)
_TRIAL_ROWS, _TRIAL_COLUMNS = 131, 97  # pixels, about; both odd, so that a network that halves its input cannot fit
_LARGEST_REDUCTION = 32


@dataclass(frozen=True)
class Foreign:
    """What was found out about a model file of another program.

    Args:
        form: how the file is called.
        tiles: `tile_size` and `overlap` that suit its input size, in pixels; empty if any tiles do.
        note: what was found, in words for the user.
    """

    form: Form
    tiles: dict[str, Any]
    note: str


def find_form(
    path: Path, session: ort.InferenceSession, call: RawCall, classes: ClassMap, scale_name: str | None
) -> Foreign:
    """Look at the input and output of a file, and run it on small images.

    Args:
        path: the file, for messages.
        session: the file, open; result of `open_session`.
        call: runs the file.
        classes: the classes that the user says it has.
        scale_name: the scale of its input, a key of `INPUT_SCALES`; None takes that of its metadata, or 0..255.

    Raises:
        ModelFileError: it takes something else than one RGB image, fails on all images that were tried, or gives
            something else than logits or probabilities of the classes, at the size of the image or at a whole part
            of it.
        SettingsError: `scale_name` does not fit a file that takes bytes.
    """
    taken, given = session.get_inputs()[0], session.get_outputs()
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    if taken.type not in _INPUT_TYPES:
        raise ModelFileError(f"{path} takes {taken.type}; an image is {', '.join(_INPUT_TYPES)}.")
    if given[0].type not in ("tensor(float)", "tensor(float16)", "tensor(double)"):
        raise ModelFileError(
            f"{path} gives {given[0].type}; logits or probabilities in floats were expected. Export it without the "
            "argmax at its end."
        )
    _check_class_names(path, metadata, classes)
    scale, scale_words = _input_scale(path, metadata, _INPUT_TYPES[taken.type], scale_name)
    form = Form(
        path, len(classes), _INPUT_TYPES[taken.type], scale, bands_last=False, classes_last=False, channels=0,
        answer="logits", size=None, multiple=1, smallest=1, reduction=1,
    )  # fmt: skip
    form = _with_answer(_with_shape(form, taken.shape, call, classes), call)
    outputs = f"; of its outputs {given[0].name} is used" if len(given) > 1 else ""
    note = f"{path} was not exported by SkyStill. {scale_words}{_in_words(form, classes)}{outputs}."
    return Foreign(form, _tiles(form), note)


def _input_scale(
    path: Path,
    metadata: Mapping[str, str],
    dtype: Any,  # noqa: ANN401 - a numpy type
    name: str | None,
) -> tuple[InputScale, str]:
    """Return the scale of the input, and a sentence about it."""
    if name is not None and name not in INPUT_SCALES:
        raise SettingsError(f"no scale of the input is called {name!r}; there are {', '.join(INPUT_SCALES)}.")
    if dtype is np.uint8:
        if name not in (None, "0..255"):
            raise SettingsError(f"{path} takes bytes, and --input {name} asks for floats; leave --input out.")
        return InputScale(), "It is given bytes from 0 to 255"
    if name is not None:
        return INPUT_SCALES[name], f"It is given pixels as --input {name} says"
    if "model_type" not in metadata and "standardization_mean" not in metadata:
        return InputScale(), "It is given pixels from 0 to 255; --input 0..1 or imagenet gives it others"
    try:  # the keys of the QGIS plugin Deepness, which divides by 255 before it standardises
        mean = _three(json.loads(metadata.get("standardization_mean", "[0, 0, 0]")))
        std = _three(json.loads(metadata.get("standardization_std", "[1, 1, 1]")))
    except (ValueError, TypeError) as error:
        raise ModelFileError(
            f"{path}: its metadata standardization_mean and standardization_std are damaged ({error}); three numbers "
            "each were expected. Say with --input what it expects."
        ) from error
    words = "" if mean == (0, 0, 0) and std == (1, 1, 1) else f", less {mean} and divided by {std}"
    return InputScale(255.0, mean, std), f"It is given pixels from 0 to 1{words}, as its metadata for Deepness says"


def _three(values: Any) -> tuple[float, ...]:  # noqa: ANN401 - from JSON
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise ValueError(f"{len(numbers)} numbers")
    return numbers


def _check_class_names(path: Path, metadata: Mapping[str, str], classes: ClassMap) -> None:
    """Refuse classes in another order than that of the metadata. Other names are no error: they may be translated.

    Raises:
        ModelFileError: a class has another place in the file.
    """
    try:
        names = json.loads(metadata.get("class_names", "{}"))
        said = {str(name).lower(): int(label) for label, name in names.items()}
    except (ValueError, AttributeError):
        return
    moved = [f"{n} is {said[n.lower()]}" for i, n in enumerate(classes.names) if said.get(n.lower(), i) != i]
    if moved:
        raise ModelFileError(
            f"{path} has its classes in another order than {classes.source}: in the file {', '.join(moved)}. Write "
            "the classes in the order of the file."
        )


def _with_shape(form: Form, shape: Sequence[object], call: RawCall, classes: ClassMap) -> Form:
    """Add the layout, the size or the multiple, and the shape of the answer. They are found by trying."""
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ModelFileError(f"{form.path} takes {shape[0]} images at once; export it for one image, or any number.")
    layouts = [last for last, axis in ((False, 1), (True, 3)) if shape[axis] == 3]
    if not layouts:
        layouts = [last for last, axis in ((False, 1), (True, 3)) if not isinstance(shape[axis], int)]
    if not layouts:
        raise ModelFileError(f"{form.path} takes {shape}; an image of three bands is (N, 3, H, W) or (N, H, W, 3).")
    problem = ""
    for bands_last in layouts:
        sides = [side for side in (shape[1:3] if bands_last else shape[2:4]) if isinstance(side, int)]
        fixed = (sides[0], sides[-1]) if sides else None
        for multiple in (1,) if fixed else _MULTIPLES:
            height, width = fixed or (_near(_TRIAL_ROWS, multiple, 3), _near(_TRIAL_COLUMNS, multiple, 1))
            trial = replace(form, bands_last=bands_last, size=fixed, multiple=multiple, smallest=min(height, width))
            try:
                answer = call(to_input(_noise(height, width), trial))
            except ModelFileError as error:
                problem = problem or str(error)
                continue
            found = _fitted(trial, answer.shape, height, width, classes)
            if found:
                return found
            problem = (
                f"{form.path} gives {answer.shape} for an image of {height} x {width} pixels; a segmentation model "
                "gives one value for each class and pixel, or for each square of up to "
                f"{_LARGEST_REDUCTION} x {_LARGEST_REDUCTION} pixels."
            )
    raise ModelFileError(problem)


def _near(size: int, multiple: int, least: int) -> int:
    """Return an odd number of times `multiple`, near `size`."""
    return multiple * max(least, size // multiple // 2 * 2 + 1)


def _noise(height: int, width: int) -> Planes:
    return np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)


def _fitted(trial: Form, shape: Sequence[int], height: int, width: int, classes: ClassMap) -> Form | None:
    """Return the form with the layout and the reduction of an answer, or None if the answer does not fit the image.

    Raises:
        ModelFileError: the answer fits the image, but not the number of classes.
    """
    if len(shape) != 4 or shape[0] != 1:
        return None
    others: list[int] = []
    for classes_last in (trial.bands_last, not trial.bands_last):
        channels, rows, columns = (shape[3], *shape[1:3]) if classes_last else shape[1:]
        for reduction in range(1, _LARGEST_REDUCTION + 1):
            # An input of free size is padded to a multiple, so that the squares of the answer cover it exactly.
            exact = trial.size is not None or height % reduction == width % reduction == 0
            if not exact or (rows, columns) != (-(-height // reduction), -(-width // reduction)):
                continue
            if channels == len(classes) or (channels == 1 and len(classes) == 2):
                return replace(trial, classes_last=classes_last, channels=channels, reduction=reduction)
            others.append(channels)
    if others:
        more = " One channel needs two classes, and is that of the second." if others[0] == 1 else ""
        raise ModelFileError(
            f"{trial.path} gives {others[0]} classes; {classes.source} has {len(classes)} "
            f"({', '.join(classes.names)}).{more}"
        )
    return None


def _with_answer(form: Form, call: RawCall) -> Form:
    """Add what the answer is: probabilities only if it is that for noise, a black and a white image."""
    height, width = form.size or (_near(_TRIAL_ROWS, form.multiple, 3), _near(_TRIAL_COLUMNS, form.multiple, 1))
    black = np.zeros((3, height, width), np.uint8)
    found = {
        what_is_answered(channels_of(call(to_input(planes, form)), form, height, width))
        for planes in (_noise(height, width), black, black + np.uint8(255))
    }
    kinds: tuple[Answer, ...] = ("logits", "independent", "probabilities")
    return replace(form, answer=next(kind for kind in kinds if kind in found))


def _tiles(form: Form) -> dict[str, Any]:
    """Return tile size and overlap for which one tile is one call of a network of fixed size, or nothing.

    Cores of tiles are multiples of 64 pixels. From 640 pixels on, cores are the blocks of 512 of the written files.
    """
    if form.size is None or form.size[0] != form.size[1]:
        return {}
    side = form.size[0]
    if side % 64 or not 256 <= side <= 1024:
        return {}
    core = 512 if side >= 640 else side * 3 // 4 // 64 * 64
    return {"tile_size": side, "overlap": side - core}


def _in_words(form: Form, classes: ClassMap) -> str:
    """Return what else the user should know about the form, beginning with a semicolon, or nothing."""
    words = []
    if form.size:
        words.append(f"it takes {form.size[0]} x {form.size[1]} pixels, so it runs in overlapping tiles of this size")
    elif form.multiple > 1:
        words.append(f"images are padded to multiples of {form.multiple} pixels")
    if form.reduction > 1:
        words.append(f"its answers at 1/{form.reduction} of the resolution are resized")
    if form.channels < form.num_classes:
        what = "the logit" if form.answer == "logits" else "the probability"
        words.append(f"its one channel is taken as {what} of {classes.names[1]}, and the rest is {classes.names[0]}")
    elif form.answer == "probabilities":
        words.append("it gives probabilities")
    elif form.answer == "independent":
        words.append("it gives a probability for each class by itself")
    return "".join(f"; {word}" for word in words)
