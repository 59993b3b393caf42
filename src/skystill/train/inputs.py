"""What a run has read when it began: a resumed run must read the same, or it would end in weights of its own."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from skystill.data import Pair
from skystill.data.prepare import PreparedData
from skystill.data.unlabeled import ImageWindow
from skystill.digests import file_sha256
from skystill.train.teachers.origins import cache_key
from skystill.train.teaching import Teaching

VALIDATION = "the validation images"
_BEGINNING = 2**20  # bytes that are compared of each file: rasters can be large


def beginnings_of(pairs: Sequence[Pair]) -> str:
    """Return a short text that is the same for the same images, wherever they lie: names, sizes, and how files begin.

    Args:
        pairs: in any order.
    """
    found = []
    for pair in pairs:
        with open(pair.image, "rb") as file:
            beginning = hashlib.sha256(file.read(_BEGINNING)).hexdigest()
        found.append((pair.image.name, pair.bounds or (), pair.image.stat().st_size, beginning))
    return _described(sorted(found))


def inputs_of_data(prepared: PreparedData) -> dict[str, str]:
    """Return what decides about a training on labels: names and sizes of files, and the pixels of each class."""
    pairs = [*prepared.split.train, *prepared.split.validation]
    masks = [(mask.name, mask.stat().st_size) for mask in dict.fromkeys(pair.mask for pair in pairs)]
    return {
        "the labelled images": inputs_of_windows([ImageWindow(pair.image, pair.bounds) for pair in pairs]),
        VALIDATION: beginnings_of(prepared.split.validation),
        "the labels": _described([*masks, *prepared.parts]),
        "the classes": ", ".join(prepared.classes.names),
    }


def inputs_of_teaching(teaching: Teaching) -> dict[str, str]:
    """Return what decides about a distillation besides: the bytes of the teachers, and the images without masks."""
    pairs = zip(teaching.teachers.origins, teaching.teachers.channels, strict=True)
    return {
        "the teachers": _described([cache_key(origin, channels, "") for origin, channels in pairs]),
        "the images of --unlabeled": inputs_of_windows(teaching.unlabeled),
    }


def inputs_of_pretraining(windows: Sequence[ImageWindow], teacher: Path | None) -> dict[str, str]:
    """Return what decides about learning features: the images, and the bytes of a teacher that was trained."""
    read = [] if teacher is None else [file_sha256(teacher).hex()]
    return {"the images": inputs_of_windows(windows), "the weights of the teacher": _described(read)}


def inputs_of_windows(windows: Sequence[ImageWindow]) -> str:
    """Return a short text that is another one if an image is added, removed, renamed, or has another size in bytes."""
    return _described([(window.path.name, window.bounds, window.path.stat().st_size) for window in windows])


def _described(read: Sequence[object]) -> str:
    return f"{len(read):,}: {hashlib.sha256(repr(read).encode(errors='backslashreplace')).hexdigest()[:8]}"
