"""Model files of other programs: look at a file and try it on small images, to find out how it is called."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from skystill.classes import ClassMap
from skystill.errors import ModelFileError, SettingsError, shortened
from skystill.model.adapters import (
    INPUT_SCALES,
    Answer,
    Form,
    InputScale,
    RawCall,
    channels_of,
    input_scale,
    parse_input,
    to_input,
    what_is_answered,
)
from skystill.model.trial_images import LARGEST_REDUCTION, MULTIPLES, even_images, random_image, trial_size
from skystill.parsing import parse_json
from skystill.raster.input_spec import MAX_BANDS, RGB, Band, InputSpec

_INPUT_TYPES: Mapping[str, Any] = {
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}


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
    path: Path,
    session: ort.InferenceSession,
    call: RawCall,
    classes: ClassMap,
    scale_text: str | None,
    bands: Sequence[int | str] | None = None,
) -> Foreign:
    """Look at the input and output of a file, and run it on small images.

    Args:
        path: the file, for messages.
        session: the file, open; result of `open_session`.
        call: runs the file.
        classes: the classes that the user says it has.
        scale_text: the scale of its input, as `parse_input` reads it; None takes that of its metadata, or 0..255.
        bands: the bands that it is fed, numbers or names; None is for red, green and blue.

    Raises:
        ModelFileError: it takes something else than one image of these bands, fails on all images that were tried, or
            gives something else than logits or probabilities of the classes, at the size of the image or at a whole
            part of it.
        SettingsError: `scale_text` is not understood or does not fit the type or the bands of the file.
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
    dtype = np.dtype(_INPUT_TYPES[taken.type])
    options = None if scale_text is None else parse_input(scale_text)
    count = _count_bands(path, taken.shape, bands, options)
    scale, scale_words = _input_scale(path, metadata, dtype, options, count)
    form = Form(
        path, len(classes), dtype, scale, bands_last=False, classes_last=False, channels=0,
        answer="logits", size=None, multiple=1, smallest=1, reduction=1, spec=_spec(scale, dtype, bands, count),
    )  # fmt: skip
    form = _with_answer(_with_shape(form, taken.shape, call, classes), call)
    outputs = f"; of its outputs {given[0].name} is used" if len(given) > 1 else ""
    note = f"{path} was not exported by SkyStill. {scale_words}{_in_words(form, classes)}{outputs}."
    return Foreign(form, _tiles(form), note)


def _count_bands(
    path: Path, shape: Sequence[object], bands: Sequence[int | str] | None, options: Mapping[str, str] | None
) -> int:
    """Return the number of bands of a file: that of `bands`, or 3. One band may also be grey for a file of three.

    Raises:
        SettingsError: there are too many bands, or values are wanted and it is not said which.
    """
    values = options is not None and options["input"] == "values"
    if bands is None:
        if values:
            raise SettingsError(
                f"{path} is fed the values of bands, and it is not said which; add --bands, such as --bands "
                "blue,green,red,nir or 2,3,4,8."
            )
        return 3
    if len(bands) > MAX_BANDS:
        raise SettingsError(f"--bands names {len(bands)} bands; a network is fed 1 to {MAX_BANDS}.")
    grey = len(bands) == 1 and not values and not any(shape[axis] == 1 for axis in (1, 3))
    return 3 if grey else len(bands)


def _input_scale(
    path: Path, metadata: Mapping[str, str], dtype: "np.dtype[Any]", options: Mapping[str, str] | None, bands: int
) -> tuple[InputScale, str]:
    """Return the scale of the input, and a sentence about it."""
    if options is not None:
        scale, words = input_scale(options, bands), _option_words(options)
        if dtype.kind == "f":
            return scale, f"It is given pixels as --input {words} says"
        if replace(scale, values=False) != InputScale():
            raise SettingsError(
                f"{path} takes {'bytes' if dtype == np.uint8 else dtype}, and --input {words} asks for floats; leave "
                "it out."
            )
        if scale.values:
            return scale, f"It is given the values of the raster as {dtype}"
    if dtype.kind != "f" and dtype != np.uint8:
        raise SettingsError(f"{path} takes {dtype}, the values of a raster; add --input values and --bands.")
    if dtype == np.uint8:
        return InputScale(), "It is given bytes from 0 to 255"
    if "model_type" not in metadata and "standardization_mean" not in metadata:
        return InputScale(), f"It is given pixels from 0 to 255; --input {', '.join(INPUT_SCALES)} gives it others"
    try:  # the keys of the QGIS plugin Deepness, which divides by 255 before it standardises
        mean = _one_each(parse_json(metadata.get("standardization_mean", str([0] * bands))), bands)
        std = _one_each(parse_json(metadata.get("standardization_std", str([1] * bands))), bands)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelFileError(
            f"{path}: its metadata standardization_mean and standardization_std are damaged ({shortened(error)}); "
            f"{bands} numbers each were expected. Say with --input what it expects."
        ) from error
    words = "" if not any(mean) and set(std) == {1.0} else f", less {mean} and divided by {std}"
    return InputScale(255.0, mean, std), f"It is given pixels from 0 to 1{words}, as its metadata for Deepness says"


def _option_words(options: Mapping[str, str]) -> str:
    more = "&".join(f"{key}={value}" for key, value in options.items() if key != "input")
    return f"{options['input']}?{more}" if more else options["input"]


def _one_each(values: Any, bands: int) -> tuple[float, ...]:  # noqa: ANN401 - from JSON
    numbers = tuple(float(value) for value in values)
    if len(numbers) != bands:
        raise ValueError(f"{len(numbers)} numbers")
    return numbers


def _spec(scale: InputScale, dtype: "np.dtype[Any]", bands: Sequence[int | str] | None, count: int) -> InputSpec:
    """Return what a file is fed, before the scale: colours, bytes of other bands, or values.

    Nothing is known of the range of the values, so none is checked. The mean of a band is where the network sees 0.
    """
    if not scale.values and count == 3:
        return RGB
    means, stds = (part * count if len(part) == 1 else part for part in (scale.mean, scale.std))
    found = []
    for place, wanted in enumerate(bands or ()):
        name, number = (wanted, place + 1) if isinstance(wanted, str) else ("", wanted)
        spread = (means[place] * scale.divisor, stds[place] * scale.divisor) if scale.values else (128.0, 64.0)
        found.append(Band(name, number, *spread, -math.inf, math.inf))
    kind = "uint8" if not scale.values else "float32" if dtype.kind == "f" else dtype.name
    return InputSpec(tuple(found), kind)


def _check_class_names(path: Path, metadata: Mapping[str, str], classes: ClassMap) -> None:
    """Refuse classes in another order than that of the metadata. Other names are no error: they may be translated.

    Raises:
        ModelFileError: a class has another place in the file.
    """
    try:
        names = parse_json(metadata.get("class_names", "{}"))
        said = {str(name).lower(): int(label) for label, name in names.items()}
    except (ValueError, AttributeError, TypeError, OverflowError):
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
    bands = len(form.spec)
    layouts = [last for last, axis in ((False, 1), (True, 3)) if shape[axis] == bands]
    if not layouts:
        layouts = [last for last, axis in ((False, 1), (True, 3)) if not isinstance(shape[axis], int)]
    if not layouts:
        raise ModelFileError(
            f"{form.path} takes {shape}; an image of {bands} bands is (N, {bands}, H, W) or (N, H, W, {bands}). Name "
            "as many bands as it takes, in its order, with --bands, such as --bands blue,green,red,nir or 2,3,4,8."
        )
    problem = ""
    for bands_last in layouts:
        sides = [side for side in (shape[1:3] if bands_last else shape[2:4]) if isinstance(side, int)]
        fixed = (sides[0], sides[-1]) if sides else None
        for multiple in (1,) if fixed else MULTIPLES:
            height, width = fixed or trial_size(multiple)
            trial = replace(form, bands_last=bands_last, size=fixed, multiple=multiple, smallest=min(height, width))
            try:
                answer = call(to_input(random_image(form.spec, height, width), trial))
            except ModelFileError as error:
                problem = problem or str(error)
                continue
            found = _fitted(trial, answer.shape, height, width, classes)
            if found:
                return found
            problem = (
                f"{form.path} gives {answer.shape} for an image of {height} x {width} pixels; a segmentation model "
                "gives one value for each class and pixel, or for each square of up to "
                f"{LARGEST_REDUCTION} x {LARGEST_REDUCTION} pixels."
            )
    raise ModelFileError(problem)


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
        for reduction in range(1, LARGEST_REDUCTION + 1):
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
    height, width = form.size or trial_size(form.multiple)
    found = {
        what_is_answered(channels_of(call(to_input(planes, form)), form, height, width))
        for planes in (random_image(form.spec, height, width), *even_images(form.spec, height, width))
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
