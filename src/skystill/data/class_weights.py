"""Weights of the classes in the loss against labels: given by the user, or found in the training images."""

import numpy as np
import numpy.typing as npt

from skystill.data.prepare import PreparedData
from skystill.errors import SettingsError
from skystill.progress import Message, OnProgress
from skystill.settings import AUTO, FitSettings, parse_weights


def find_class_weights(settings: FitSettings, prepared: PreparedData) -> tuple[float, ...] | None:
    """Return the weight of each class in the order of the labels, or None if all pixels have the same weight.

    Args:
        settings: how to train.
        prepared: the data, checked and split.

    Raises:
        SettingsError: there is not one weight for each class, or only classes without training pixels have a weight.
    """
    if settings.class_weights is None:
        return None
    names, counts = prepared.classes.names, _training_counts(prepared)
    if settings.class_weights == AUTO:
        return median_frequency_weights(counts)
    weights = parse_weights(settings.class_weights)
    if len(weights) != len(names):
        raise SettingsError(
            f"--class-weights {settings.class_weights}: {len(weights)} weight(s) for {len(names)} classes. "
            f"Give one for each of {', '.join(names)}, in this order."
        )
    if not np.dot(weights, counts.sum(axis=0)):
        raise SettingsError(
            f"--class-weights {settings.class_weights}: the classes with a weight above 0 have no pixel in the "
            f"{len(counts)} training image(s), so that nothing could be learnt. The order is {', '.join(names)}."
        )
    return weights


def report_class_weights(weights: tuple[float, ...] | None, prepared: PreparedData, on_progress: OnProgress) -> None:
    """Report the weight of each class in one line, if the classes are weighted."""
    if weights is not None:
        shown = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(prepared.classes.names, weights, strict=True))
        on_progress(Message(f"weights of the classes in the loss against labels: {shown}."))


def median_frequency_weights(counts: npt.NDArray[np.int64]) -> tuple[float, ...]:
    """Return the weight of each class by median frequency balancing.

        weight of c = median of the frequencies / frequency of c
        frequency of c = pixels of c / labelled pixels of the images that hold c

    Source: Eigen, Fergus 2015, arXiv 1411.4734, section 6.3. The median is over the classes that occur. A class that
    does not occur has the weight 1: without a label of it, the weight has no effect on any loss.

    Args:
        counts: (N, C) number of pixels of each class in each image. Void is not counted.
    """
    holds = counts > 0
    there = holds.any(axis=0)
    pixels = counts.sum(axis=0)
    of_images = (holds * counts.sum(axis=1, keepdims=True)).sum(axis=0)
    frequencies = np.where(there, pixels / np.maximum(of_images, 1), 1.0)
    middle = np.median(frequencies[there]) if there.any() else 1.0
    return tuple(float(weight) for weight in np.where(there, middle / frequencies, 1.0))


def _training_counts(prepared: PreparedData) -> npt.NDArray[np.int64]:
    """Return the pixels of each class in each training image, (N, C)."""
    records = prepared.check.by_key
    return np.array([records[pair.key].counts[: len(prepared.classes)] for pair in prepared.split.train])
