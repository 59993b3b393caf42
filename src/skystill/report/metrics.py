"""From predictions to figures: confusion counts, IoU, F1, precision, recall, curves, and intervals over images.

All counting is in integers over whole images; means are over classes of the whole test set, not over images.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.classes import VOID, ClassMap, Labels
from skystill.errors import DataError

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""Image (H, W, 3) uint8 to class probabilities (C, H, W) float32."""

BINS = 256
"""Thresholds of the precision-recall curve: probabilities are counted in this many equal bins."""
ENOUGH_IMAGES = 5
"""Below this a bootstrap over images says nothing: with one image every interval has no width."""
_RESAMPLES = 2000


def confusion_counts(labels: Labels, predicted: Labels, num_classes: int) -> Counts:
    """Count pixels by truth (row) and prediction (column).

    Args:
        labels: (H, W) integers; values from `num_classes` up (void is 255) count nowhere.
        predicted: (H, W) integers, 0 to num_classes - 1.
        num_classes: C.

    Returns:
        (C, C) int64.
    """
    counted = labels < num_classes
    pairs = labels[counted].astype(np.int64) * num_classes + predicted[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    """Part / whole, NaN where whole is 0."""
    ratios = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=ratios, where=np.asarray(whole) > 0)
    return ratios


def _true_positives(confusion: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def iou_per_class(confusion: npt.NDArray[Any]) -> Floats:
    """TP / (TP + FP + FN) of confusion counts (..., C, C): (..., C), NaN for a class neither there nor predicted."""
    hit = _true_positives(confusion)
    return _ratio(hit, confusion.sum(-1) + confusion.sum(-2) - hit)


def precision_per_class(confusion: npt.NDArray[Any]) -> Floats:
    """TP / (TP + FP): (..., C), NaN for a class never predicted."""
    return _ratio(_true_positives(confusion), confusion.sum(-2))


def recall_per_class(confusion: npt.NDArray[Any]) -> Floats:
    """TP / (TP + FN): (..., C), NaN for a class that is not there."""
    return _ratio(_true_positives(confusion), confusion.sum(-1))


def f1_per_class(confusion: npt.NDArray[Any]) -> Floats:
    """2 TP / (2 TP + FP + FN): (..., C), NaN for a class neither there nor predicted. It is the Dice score."""
    return _ratio(2 * _true_positives(confusion), confusion.sum(-1) + confusion.sum(-2))


def pixel_accuracy(confusion: npt.NDArray[Any]) -> Floats:
    """Share of pixels that are right, all classes: (...), NaN where there is no pixel."""
    return _ratio(_true_positives(confusion).sum(-1), confusion.sum((-1, -2)))


def mean_over_classes(per_class: Floats, scored: npt.NDArray[np.bool_]) -> Floats:
    """Mean of (..., C) over the scored classes that have a value; NaN where none has."""
    kept = np.where(scored, per_class, np.nan)
    there = ~np.isnan(kept)
    return _ratio(np.where(there, kept, 0.0).sum(-1), there.sum(-1))


def metrics_for(classes: ClassMap) -> dict[str, Callable[[Counts], float]]:
    """Training metrics that leave unscored classes out of means: "miou" and "pixel_accuracy"."""
    return {
        "miou": lambda confusion: float(mean_over_classes(iou_per_class(confusion), classes.scored)),
        "pixel_accuracy": lambda confusion: float(pixel_accuracy(confusion)),
    }


METRICS: Mapping[str, Callable[[Counts], float]] = {
    "miou": lambda confusion: float(mean_over_classes(iou_per_class(confusion), np.ones(len(confusion), bool))),
    "pixel_accuracy": lambda confusion: float(pixel_accuracy(confusion)),
}
"""The same for classes that are all scored."""


@dataclass(frozen=True)
class ClassScores:
    """Figures of each class, in the order of the labels; None where a class has none (see the functions above)."""

    iou: list[float | None]
    f1: list[float | None]
    precision: list[float | None]
    recall: list[float | None]


@dataclass(frozen=True)
class Scores:
    """Every figure of a model on a test set. Ratios are 0 to 1; None where there is nothing to divide by.

    Args:
        images, pixels: that were scored.
        miou, mf1, mprecision, mrecall: means over the scored classes of the whole test set.
        miou_interval: 95 % bootstrap interval over images.
        pixel_accuracy: part of the pixels that are right.
        per_class: figures of each class.
        confusion: (C, C) pixels by truth (row) and prediction (column).
    """

    images: int
    pixels: int
    miou: float | None
    mf1: float | None
    mprecision: float | None
    mrecall: float | None
    miou_interval: tuple[float, float]
    pixel_accuracy: float | None
    per_class: ClassScores
    confusion: list[list[int]]


@dataclass(frozen=True)
class Curve:
    """Precision against recall of one class, from the highest threshold to the lowest; empty where it is not there."""

    threshold: list[float]
    precision: list[float]
    recall: list[float]


@dataclass(frozen=True)
class Evaluation:
    """Counts of one model over a test set, one entry an image, from which every figure follows.

    Args:
        keys: the images.
        confusion: (images, C, C).
        curve: (C, 2, BINS) pixels by probability of the class, row 0 where the truth is another class, row 1 where
            it is this one.
        classes: names, and which are scored.
    """

    keys: tuple[str, ...]
    confusion: Counts
    curve: Counts
    classes: ClassMap

    @property
    def total(self) -> Counts:
        """(C, C) over all images."""
        return np.asarray(self.confusion.sum(axis=0))

    def scores(self) -> Scores:
        """Every figure."""
        total, scored = self.total, self.classes.scored
        per_class = {
            "iou": iou_per_class(total),
            "f1": f1_per_class(total),
            "precision": precision_per_class(total),
            "recall": recall_per_class(total),
        }
        means = {f"m{name}": _none(float(mean_over_classes(values, scored))) for name, values in per_class.items()}
        return Scores(
            images=len(self.keys),
            pixels=int(total.sum()),
            **means,
            miou_interval=self.interval(),
            pixel_accuracy=_none(float(pixel_accuracy(total))),
            per_class=ClassScores(**{name: [_none(v) for v in values.tolist()] for name, values in per_class.items()}),
            confusion=total.tolist(),
        )

    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval over images of the mean IoU."""
        return _percentiles(_resampled_miou(self))

    def precision_recall(self) -> list[Curve]:
        """The curve of each class. Thresholds at which nothing is predicted are left out."""
        curves: list[Curve] = []
        for false, true in self.curve:
            hits, alarms = true[::-1].cumsum(), false[::-1].cumsum()
            kept = (hits + alarms > 0) & (hits[-1] > 0)
            thresholds = (np.arange(BINS)[::-1] / BINS)[kept]
            precision = (hits / np.maximum(hits + alarms, 1))[kept]
            recall = (hits / max(int(hits[-1]), 1))[kept]
            curves.append(Curve(thresholds.tolist(), precision.tolist(), recall.tolist()))
        return curves


def evaluate(
    predict: Predict, images: Iterable[tuple[str, npt.NDArray[np.uint8], Labels]], classes: ClassMap
) -> Evaluation:
    """Predict whole images and count.

    Args:
        predict: image to probabilities.
        images: key, image (H, W, 3) uint8, labels (H, W) uint8 of each test image.
        classes: C classes.

    Raises:
        DataError: no image.
    """
    keys: list[str] = []
    confusions: list[Counts] = []
    curve = np.zeros((len(classes), 2, BINS), np.int64)
    for key, image, labels in images:
        probabilities = predict(image)
        keys.append(key)
        confusions.append(confusion_counts(labels, probabilities.argmax(axis=0).astype(np.uint8), len(classes)))
        _add_to_curve(curve, probabilities, labels)
    if not keys:
        raise DataError("there is no image to evaluate on.", mend="Give a --split whose test part holds images.")
    return Evaluation(tuple(keys), np.stack(confusions), curve, classes)


def _add_to_curve(curve: Counts, probabilities: npt.NDArray[np.float32], labels: Labels) -> None:
    valid = labels != VOID
    truth = labels[valid]
    for label, channel in enumerate(probabilities):
        bins = np.minimum((channel[valid] * BINS).astype(np.int64), BINS - 1)
        curve[label] += np.bincount(bins + BINS * (truth == label), minlength=2 * BINS).reshape(2, BINS)


@dataclass(frozen=True)
class Comparison:
    """Mean IoU of one model minus another's on the same images, with its 95 % interval and their number."""

    difference: float
    low: float
    high: float
    images: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero, and stands on enough images to be one."""
        return self.images >= ENOUGH_IMAGES and (self.low > 0 or self.high < 0)


def compare(ones: Sequence[Evaluation], others: Sequence[Evaluation]) -> Comparison:
    """Bootstrap over images of the mean IoU of `ones` minus that of `others`, paired: all are resampled alike.

    Args:
        ones: evaluations of one kind of model, one a seed; their mean IoU is averaged.
        others: of another kind.

    Raises:
        DataError: they were evaluated on different images.
    """
    if len({evaluation.keys for evaluation in (*ones, *others)}) != 1:
        raise DataError("the models were evaluated on different images, so that they cannot be compared.")
    resampled = [np.mean([_resampled_miou(evaluation) for evaluation in side], axis=0) for side in (ones, others)]
    point = [np.mean([_miou(evaluation.total, evaluation.classes) for evaluation in side]) for side in (ones, others)]
    return Comparison(float(point[0] - point[1]), *_percentiles(resampled[0] - resampled[1]), len(ones[0].keys))


def _miou(confusion: npt.NDArray[Any], classes: ClassMap) -> Floats:
    return mean_over_classes(iou_per_class(confusion), classes.scored)


def _resampled_miou(evaluation: Evaluation) -> Floats:
    """Mean IoU of resampled image sets; the draws depend on the number of images alone, so that models pair up."""
    count = len(evaluation.keys)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    return _miou(np.tensordot(draws, evaluation.confusion, axes=1), evaluation.classes)


def _percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _none(value: float) -> float | None:
    return None if np.isnan(value) else value
