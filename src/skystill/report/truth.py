"""Sentences on what a test set can tell: classes that it does not hold, and intervals from too few images."""

from collections.abc import Mapping, Sequence

import numpy as np

from skystill.data.split import ENOUGH_IMAGES
from skystill.report.metrics import MANY_IMAGES, with_truth

Interval = tuple[float, float] | None
"""Both ends, 0 to 1; None from too few images."""


def missing_classes(confusions: Mapping[str, Sequence[Sequence[int]]], names: Sequence[str]) -> list[str]:
    """Return one sentence for each class that the test images do not hold, with the pixels that are predicted of it.

    Args:
        confusions: (C, C) counts of each model by truth (row) and prediction (column), by the name of the model.
        names: names of the C classes.
    """
    counts = {model: np.asarray(confusion) for model, confusion in confusions.items()}
    lines = []
    for label, name in enumerate(names):
        if any(with_truth(confusion)[label] for confusion in counts.values()):
            continue
        wrong = {model: int(confusion[:, label].sum()) for model, confusion in counts.items()}
        line = f"The test images hold no pixel of {name}, so that it counts in no mean of any model."
        if any(wrong.values()):
            found = ", ".join(f"{model}: {pixels:,}" for model, pixels in wrong.items())
            line += (
                f" Pixels that are predicted as {name} ({found}) are wrong: its precision is 0, and they lower the "
                "recall and the IoU of the classes that are there, and the pixel accuracy."
            )
        lines.append(line)
    return lines


def shown_interval(interval: Interval, images: int) -> str:
    """Return "63.1 to 70.2", in percent, or what an interval would need.

    Args:
        interval: both ends, 0 to 1.
        images: number of test images. An interval from fewer than `ENOUGH_IMAGES` is not shown, even if there is one.
    """
    if interval is None or images < ENOUGH_IMAGES:
        return needed(images)
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def shown_difference(interval: Interval, images: int) -> str:
    """Return "-0.4 to +1.3", in percentage points, or what an interval would need; see `shown_interval`."""
    if interval is None or images < ENOUGH_IMAGES:
        return needed(images)
    return " to ".join(map(_signed, interval))


def _signed(fraction: float) -> str:
    """Return a difference in percentage points with its sign. One that is not zero has digits that say so."""
    points = 100 * fraction
    digits = next((digits for digits in (1, 2, 3) if round(points, digits)), 1)
    return f"{points:+.{digits}f}"


def needed(images: int) -> str:
    """Return the words that stand in the place of an interval, with the number of images that would be enough."""
    if images >= ENOUGH_IMAGES:
        return "no interval"
    return f"no interval from {images} test image(s): {ENOUGH_IMAGES} or more are enough"


def too_narrow(images: int) -> list[str]:
    """Return a sentence on the intervals of a test set of few images, or nothing if there are many or no intervals."""
    if not ENOUGH_IMAGES <= images < MANY_IMAGES:
        return []
    return [
        f"Intervals from {images} test images are too narrow: instead of in 95 of 100 cases, an interval from 5 images "
        f"holds the true value in about 83, from 10 in about 89, and from {MANY_IMAGES} on in 92 or more."
    ]
