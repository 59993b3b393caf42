"""Adapters: run a model file of another program as if it were SkyStill's own.

`foreign.py` finds out how a file is called, and says it as a `Form`. `adapt` makes an `Infer` from it. SkyStill's own
files go through none of this.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from skystill.errors import AnswersNotFinite, ModelFileError, SettingsError
from skystill.raster.input_spec import RGB, InputSpec
from skystill.tiling import WHOLE_PHASE, overlapping_cuts

Planes = npt.NDArray[Any]
Logits = npt.NDArray[np.float32]
Infer = Callable[[Planes], Logits]
"""A call of a network: planes (B, H, W) in the data type of its `InputSpec`, to logits (C, H, W) float32.

It may be called from several threads at the same time. The logits are valid until the same thread calls it again."""

RawCall = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""A call of a network as its file defines it: a batch of one image, in the layout and type of the file, to its answer.

It may be called from several threads at the same time."""

Answer = Literal["logits", "probabilities", "independent"]
"""What a file answers: logits; probabilities that sum to one; or one probability for each class by itself (sigmoid)."""

SMALLEST = 1e-7  # also of `Teacher`: a file gives the same logits as a teacher and as a model
SMALLEST_INDEPENDENT = 1e-12  # smaller, because all classes of a pixel may be improbable, and one must still be chosen
TOLERANCE = 1e-2  # of probabilities and of their sum, so that half precision passes


@dataclass(frozen=True)
class InputScale:
    """The scale of the pixels that a network expects: (pixel / divisor - mean) / std.

    Args:
        divisor: for bytes, 255 for networks that expect 0 to 1, and 1 for networks that expect 0 to 255.
        mean, std: of each band, or one number for all bands. They are applied after the division.
        values: True if pixels are the raster's own values, in any data type. Otherwise they are bytes, 0 to 255.
    """

    divisor: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    values: bool = False

    def applied(self, planes: Planes) -> npt.NDArray[np.float32]:
        """Return planes (B, H, W) of any data type on this scale."""
        mean, std = (np.array(part, np.float32)[:, None, None] for part in (self.mean, self.std))
        return np.asarray((planes.astype(np.float32) / np.float32(self.divisor) - mean) / std, np.float32)


INPUT_SCALES = {
    "0..255": InputScale(),
    "0..1": InputScale(255.0),
    "imagenet": InputScale(255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "values": InputScale(values=True),
}
"""The scales by name: the values of `--input` of skystill predict, and of the option `input=` of a teacher."""


def parse_input(text: str) -> dict[str, str]:
    """Return the options of a text of `--input`, such as "values?divide=10000&mean=0.2&std=0.1", for `input_scale`.

    Raises:
        SettingsError: a part is not an option with a value, or stands there twice.
    """
    name, _, more = text.partition("?")
    options = {"input": name}
    for part in more.split("&") if more else []:
        key, _, value = part.partition("=")
        if key not in ("divide", "mean", "std") or not value or key in options:
            raise SettingsError(
                f"--input {text}: {part!r} is not understood; write it as values?divide=10000&mean=0.2,0.3&std=0.1,0.1 "
                "with each part once."
            )
        options[key] = value
    return options


def input_scale(options: Mapping[str, str], bands: int) -> InputScale:
    """Return the scale that options describe.

    Args:
        options: "input", a key of `INPUT_SCALES`; "divide", a number, only for values; "mean" and "std", numbers with
            commas between them, one for each band or one for all. Other keys are passed over.
        bands: number of bands of the network.

    Raises:
        SettingsError: there is no such scale, a number is none, or there is not one for each band.
    """
    name = options.get("input", "0..255")
    if name not in INPUT_SCALES:
        raise SettingsError(f"no scale of the input is called {name!r}; there are {', '.join(INPUT_SCALES)}.")
    scale = INPUT_SCALES[name]
    if name == "imagenet" and (bands != 3 or {"mean", "std"} & options.keys()):
        raise SettingsError(
            "imagenet is for three bands, and is a mean and a standard deviation itself; write 0..1?mean=...&std=... "
            "for others."
        )
    if "divide" in options and not scale.values:
        raise SettingsError(f"divide is for values, and {name} says already what bytes are divided by; leave it out.")
    divisor = _numbers(options, "divide", 1)[0] if "divide" in options else scale.divisor
    mean = _numbers(options, "mean", bands) if "mean" in options else scale.mean
    std = _numbers(options, "std", bands) if "std" in options else scale.std
    if divisor <= 0 or min(std) <= 0:
        raise SettingsError("divide and std must be above 0.")
    return replace(scale, divisor=divisor, mean=mean, std=std)


def _numbers(options: Mapping[str, str], key: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in options[key].split(","))
    except ValueError:
        numbers = ()
    if not all(map(math.isfinite, numbers)) or len(numbers) not in (1, count):
        expected = "one number was" if count == 1 else f"{count} numbers, or one for all bands, were"
        raise SettingsError(f"{key}={options[key]}: {expected} expected.")
    return numbers


@dataclass(frozen=True)
class Form:
    """How a model file of another program is called, and what it answers.

    Args:
        path: the file, for messages.
        num_classes: C, the number of classes.
        dtype: type of its input: uint8, uint16, int16, float16, float32 or float64.
        scale: scale of the pixels that it expects. It is not applied to integers.
        bands_last: True if its input is (N, H, W, B) instead of (N, B, H, W).
        classes_last: True if its answer is (N, h, w, C) instead of (N, C, h, w).
        channels: channels of its answer: C, or 1 for two classes.
        answer: what these channels are.
        size: height and width of its input in pixels, if they are fixed.
        multiple: height and width of its input must be divisible by this, if they are free.
        smallest: smallest height and width that it is given, if they are free.
        reduction: sides of its input divided by those of its answer.
        spec: what it is fed, before the scale.
    """

    path: Path
    num_classes: int
    dtype: Any
    scale: InputScale
    bands_last: bool
    classes_last: bool
    channels: int
    answer: Answer
    size: tuple[int, int] | None
    multiple: int
    smallest: int
    reduction: int
    spec: InputSpec = RGB


def adapt(call: RawCall, form: Form) -> Infer:
    """Return the network of a file of another program as an `Infer`.

    Its calls raise `ModelFileError` if the file answers in another shape than `form` says, or with values that are not
    finite or, where it promised probabilities, not probabilities.

    Args:
        call: runs the file.
        form: how the file is called; result of `find_form`.
    """

    def infer_as_it_is(planes: Planes) -> Logits:
        height, width = planes.shape[1:]
        logits = to_logits(channels_of(call(to_input(planes, form)), form, height, width), form)
        return logits if form.reduction == 1 else resized(logits, height, width)

    if form.size:
        return _fixed_size(infer_as_it_is, form.size, form.spec.fill)
    return _padded(infer_as_it_is, form.multiple, form.smallest, form.spec.fill)


def to_input(planes: Planes, form: Form) -> npt.NDArray[Any]:
    """Return planes (B, H, W) of the form's spec as the file's input: a batch of one image, in its layout and type."""
    values: npt.NDArray[Any] = planes
    if np.dtype(form.dtype).kind == "f" and replace(form.scale, values=False) != InputScale():
        values = form.scale.applied(planes)
    if form.bands_last:
        values = values.transpose(1, 2, 0)
    return np.ascontiguousarray(values, form.dtype)[None]


def channels_of(answer: npt.NDArray[Any], form: Form, height: int, width: int) -> Logits:
    """Return the file's answer to an image of `height` x `width` pixels as (channels, h, w) float32.

    Raises:
        ModelFileError: the answer has another shape than `form` says.
        AnswersNotFinite: a value is NaN or infinite.
    """
    sides = -(-height // form.reduction), -(-width // form.reduction)
    expected = (1, *sides, form.channels) if form.classes_last else (1, form.channels, *sides)
    if answer.shape != expected:
        raise ModelFileError(
            f"{form.path} gives {answer.shape} for an image of {height} x {width} pixels; by its first answers "
            f"{expected} was expected. Export it again with a fixed input size."
        )
    values = np.asarray(answer[0].transpose(2, 0, 1) if form.classes_last else answer[0], np.float32)
    if not np.isfinite(values).all():
        raise AnswersNotFinite(form.path)
    return values


def to_logits(values: Logits, form: Form) -> Logits:
    """Return the file's channels (channels, h, w) as logits (C, h, w) float32.

    The softmax of the logarithms of probabilities gives the probabilities back. One channel becomes the logit of the
    second of two classes, and the logit of the first is 0.

    Raises:
        ModelFileError: the file promised probabilities, and a value is none.
    """
    if form.answer != "logits" and what_is_answered(values) not in (form.answer, "probabilities"):
        raise ModelFileError(
            f"{form.path} gave probabilities when it was opened, and now gives {values.min():g} to {values.max():g}; "
            "one of the two was expected. Export it again with logits as its output."
        )
    if form.answer == "probabilities":
        values = np.log(np.maximum(values, np.float32(SMALLEST)))
    elif form.answer == "independent":
        least = np.float32(SMALLEST_INDEPENDENT)
        values = np.log(np.maximum(values, least)) - np.log(np.maximum(1 - values, least))
    if form.channels < form.num_classes:
        return np.concatenate([np.zeros_like(values), values])
    return values


def what_is_answered(values: Logits) -> Answer:
    """Recognise what channels (channels, h, w) are, by their values.

    Probabilities are nowhere negative and sum to one over classes. Values from 0 to 1 with another sum are
    probabilities of each class by itself. `answer_of` of the teachers is the same for tensors.
    """
    if not (values.min() >= 0 and values.max() <= 1 + TOLERANCE):
        return "logits"
    if len(values) > 1 and (np.abs(values.sum(axis=0) - 1) < TOLERANCE).all():
        return "probabilities"
    return "independent"


def resized(values: Logits, height: int, width: int) -> Logits:
    """Resize (C, h, w) float32 to (C, height, width), bilinear, as torch's `interpolate` with align_corners=False."""
    for axis, size in ((1, height), (2, width)):
        length = values.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
        low = at.astype(np.intp)
        shape = [1, 1, 1]
        shape[axis] = size
        weights = (at - low).astype(np.float32).reshape(shape)
        below = values.take(low, axis)
        values = below + (values.take(np.minimum(low + 1, length - 1), axis) - below) * weights
    return values


def _fixed_size(infer: Infer, size: tuple[int, int], fill: Planes) -> Infer:
    """Run a network of fixed input size in tiles that overlap by a quarter of their side or more.

    An image that is smaller than a tile is computed twice along this axis: at the beginning and at the end of the tile.
    Each half is taken from where its own edge is the edge of the tile, as it is in a network of free size.
    """

    def infer_tiles(planes: Planes) -> Logits:
        result: Logits = np.empty(0, np.float32)
        for top, rows, rows_in in _cuts(planes.shape[1], size[0]):
            for left, columns, columns_in in _cuts(planes.shape[2], size[1]):
                found = infer(_filled_around(planes, (top, left), size, fill))
                if not result.size:
                    result = np.empty((len(found), *planes.shape[1:]), np.float32)
                result[:, rows, columns] = found[:, rows_in, columns_in]
        return result

    return infer_tiles


def _cuts(length: int, tile: int) -> list[tuple[int, slice, slice]]:
    """Cut one axis into tiles, as `overlapping_cuts`, but for a length below that of a tile, too.

    The second tile of a short axis begins before the axis, at a multiple of `WHOLE_PHASE`, and ends with it.
    """
    if length >= tile:
        return overlapping_cuts(length, tile)
    before, half = (tile - length) // WHOLE_PHASE * WHOLE_PHASE, length // 2
    first = (0, slice(0, half), slice(0, half))
    second = (-before, slice(half, length), slice(half + before, length + before))
    return [first, second] if before and half else [(0, slice(0, length), slice(0, length))]


def _padded(infer: Infer, multiple: int, smallest: int, fill: Planes) -> Infer:
    """Run a network whose input must be divisible by `multiple` and not below `smallest`."""

    def infer_padded(planes: Planes) -> Logits:
        height, width = planes.shape[1:]
        rows, columns = (-(-max(side, smallest) // multiple) * multiple for side in (height, width))
        return infer(_filled_around(planes, (0, 0), (rows, columns), fill))[:, :height, :width]

    return infer_padded


def _filled_around(planes: Planes, start: tuple[int, int], size: tuple[int, int], fill: Planes) -> Planes:
    """Return a window of planes (B, H, W), and the fill where it reaches beyond them.

    The fill of colours is grey, as in `Teacher` and in SkyStill's networks. The fill of values becomes 0.

    Args:
        planes: the image.
        start: first row and column of the window; they may be negative.
        size: height and width of the window.
        fill: (B,) a value for each band.
    """
    (top, left), (height, width) = start, size
    part = planes[:, max(0, top) : top + height, max(0, left) : left + width]
    if part.shape[1:] == size:
        return part
    window = np.empty((len(planes), height, width), planes.dtype)
    window[:] = fill[:, None, None]
    above, before = max(0, -top), max(0, -left)
    window[:, above : above + part.shape[1], before : before + part.shape[2]] = part
    return window
