"""Metrics of predictions: confusion counts, IoU, F1, precision, recall, curves, and intervals over images.

Pixels of whole images are counted as integers. Each metric comes from the counts of the whole test set. A mean is taken
over classes, not over images: over those that are scored and that the truth of the images holds. Which classes these
are does not depend on what a model predicts, so that all models of a comparison are averaged over the same classes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from skystill.classes import VOID, ClassMap, Labels
from skystill.data.maps import block_of
from skystill.data.split import ENOUGH_IMAGES
from skystill.errors import DataError

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Probabilities = npt.NDArray[np.float32]
"""(C, H, W), the probability of each class."""
_Image = TypeVar("_Image")


BINS = 256
"""Number of thresholds of the precision-recall curve. Probabilities are counted in as many bins of equal width."""
MANY_IMAGES = 20
"""From so many images on, a bootstrap interval of 95 % holds the true value in 92 or more of 100 cases.

From fewer it is too narrow: from 5 images it holds it in about 83, from 10 in about 89. Both are simulated in
`tests/report/test_metrics.py`.
"""
_RESAMPLES = 2000


def confusion_counts(labels: Labels, predicted: Labels, num_classes: int) -> Counts:
    """Count pixels by truth (row) and prediction (column).

    Args:
        labels: (H, W) integers. Pixels with values of `num_classes` or more are not counted (void is 255).
        predicted: (H, W) integers, 0 to num_classes - 1.
        num_classes: C, the number of classes.

    Returns:
        (C, C) int64, number of pixels.
    """
    counted = labels < num_classes
    pairs = labels[counted].astype(np.int64) * num_classes + predicted[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    """Return part / whole, and NaN where whole is 0."""
    ratios = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=ratios, where=np.asarray(whole) > 0)
    return ratios


def _true_positives(confusion: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def with_truth(confusion: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which classes the truth holds: (..., C) bool, True where a pixel of the class is counted."""
    return np.asarray(confusion.sum(-1) > 0)


def iou_per_class(confusion: npt.NDArray[Any]) -> Floats:
    """Return the IoU of each class, TP / (TP + FP + FN).

    Args:
        confusion: (..., C, C) counts by truth (row) and prediction (column).

    Returns:
        (..., C); NaN for a class without truth, whatever is predicted.
    """
    hit = _true_positives(confusion)
    union = confusion.sum(-1) + confusion.sum(-2) - hit
    return _ratio(hit, np.where(with_truth(confusion), union, 0))


def precision_per_class(confusion: npt.NDArray[Any]) -> Floats:
    """Return the precision of each class, TP / (TP + FP).

    Args:
        confusion: (..., C, C) counts by truth (row) and prediction (column).

    Returns:
        (..., C); 0 for a class that is predicted and has no truth, and for one that has truth and is never predicted.
        NaN for a class that has neither.
    """
    hit, predicted = _true_positives(confusion), confusion.sum(-2)
    return _ratio(hit, np.where(with_truth(confusion), np.maximum(predicted, 1), predicted))


def recall_per_class(confusion: npt.NDArray[Any]) -> Floats:
    """Return the recall of each class, TP / (TP + FN): (..., C), NaN for a class without truth."""
    return _ratio(_true_positives(confusion), confusion.sum(-1))


def f1_per_class(confusion: npt.NDArray[Any]) -> Floats:
    """Return the F1 score of each class, 2 TP / (2 TP + FP + FN), which is also the Dice score.

    Args:
        confusion: (..., C, C) counts by truth (row) and prediction (column).

    Returns:
        (..., C); NaN for a class without truth, whatever is predicted.
    """
    both = confusion.sum(-1) + confusion.sum(-2)
    return _ratio(2 * _true_positives(confusion), np.where(with_truth(confusion), both, 0))


def pixel_accuracy(confusion: npt.NDArray[Any]) -> Floats:
    """Return the fraction of correct pixels over all classes: (...), NaN if no pixel is counted."""
    return _ratio(_true_positives(confusion).sum(-1), confusion.sum((-1, -2)))


def mean_over_classes(per_class: Floats, counted: npt.NDArray[np.bool_]) -> Floats:
    """Return the mean over classes.

    Args:
        per_class: (..., C), NaN for a class without a value.
        counted: (C,) or (..., C) bool, which classes count.

    Returns:
        (...): mean over the classes that count and have a value; NaN if none does.
    """
    kept = np.where(counted, per_class, np.nan)
    there = ~np.isnan(kept)
    return _ratio(np.where(there, kept, 0.0).sum(-1), there.sum(-1))


def mean_iou(confusion: npt.NDArray[Any], scored: npt.NDArray[np.bool_]) -> Floats:
    """Return the mean IoU over the classes that are scored and have truth.

    Args:
        confusion: (..., C, C) counts by truth (row) and prediction (column).
        scored: (C,) bool, which classes are scored.

    Returns:
        (...); NaN if no scored class has truth.
    """
    return mean_over_classes(iou_per_class(confusion), scored & with_truth(confusion))


def metrics_for(classes: ClassMap) -> dict[str, Callable[[Counts], float]]:
    """Return the metrics "miou" and "pixel_accuracy" for training.

    The means are over the same classes as in a report: those that are scored and have truth.
    """
    return {
        "miou": lambda confusion: float(mean_iou(confusion, classes.scored)),
        "pixel_accuracy": lambda confusion: float(pixel_accuracy(confusion)),
    }


METRICS: Mapping[str, Callable[[Counts], float]] = {
    "miou": lambda confusion: float(mean_iou(confusion, np.ones(len(confusion), bool))),
    "pixel_accuracy": lambda confusion: float(pixel_accuracy(confusion)),
}
"""The same metrics where all classes are scored, by name: functions of the confusion counts (C, C)."""


@dataclass(frozen=True)
class ClassScores:
    """Metrics of each class, in the order of the labels. None if a class has no value (see the functions above)."""

    iou: list[float | None]
    f1: list[float | None]
    precision: list[float | None]
    recall: list[float | None]


@dataclass(frozen=True)
class Scores:
    """All metrics of a model on a test set. Ratios are 0 to 1; a ratio is None if its denominator is 0.

    Args:
        images: number of images that were scored.
        pixels: number of pixels that were scored.
        miou, mf1, mprecision, mrecall: means over the classes that are scored and have truth, from the counts of the
            whole test set. None if there is no such class.
        miou_interval: 95 % bootstrap interval of `miou` over images; None from fewer than `ENOUGH_IMAGES` images.
        pixel_accuracy: fraction of the pixels that are correct.
        per_class: metrics of each class.
        confusion: (C, C) number of pixels by truth (row) and prediction (column).
    """

    images: int
    pixels: int
    miou: float | None
    mf1: float | None
    mprecision: float | None
    mrecall: float | None
    miou_interval: tuple[float, float] | None
    pixel_accuracy: float | None
    per_class: ClassScores
    confusion: list[list[int]]


@dataclass(frozen=True)
class Curve:
    """Precision and recall of one class, from the highest threshold to the lowest. Empty if it does not occur."""

    threshold: list[float]
    precision: list[float]
    recall: list[float]


@dataclass(frozen=True)
class Evaluation:
    """Counts of one model on a test set. All metrics are computed from them.

    Args:
        keys: key of each image.
        confusion: (images, C, C) int64, confusion counts of each image.
        curve: (C, 2, BINS) int64, number of pixels by the predicted probability of the class. Row 0 counts pixels
            whose truth is another class, row 1 pixels whose truth is this class.
        classes: names of the C classes, and which of them are scored.
    """

    keys: tuple[str, ...]
    confusion: Counts
    curve: Counts
    classes: ClassMap

    @property
    def total(self) -> Counts:
        """Confusion counts (C, C) of all images together."""
        return np.asarray(self.confusion.sum(axis=0))

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """(C,) bool: the classes over which means are taken, which are scored and have truth in the images."""
        return self.classes.scored & with_truth(self.total)

    def scores(self) -> Scores:
        """Compute all metrics."""
        total, counted = self.total, self.counted
        per_class = {
            "iou": iou_per_class(total),
            "f1": f1_per_class(total),
            "precision": precision_per_class(total),
            "recall": recall_per_class(total),
        }
        means = {
            f"m{name}": _none_if_nan(float(mean_over_classes(values, counted))) for name, values in per_class.items()
        }
        return Scores(
            images=len(self.keys),
            pixels=int(total.sum()),
            **means,
            miou_interval=self.interval(),
            pixel_accuracy=_none_if_nan(float(pixel_accuracy(total))),
            per_class=ClassScores(
                **{name: [_none_if_nan(v) for v in values.tolist()] for name, values in per_class.items()}
            ),
            confusion=total.tolist(),
        )

    def interval(self) -> tuple[float, float] | None:
        """Return the 95 % bootstrap interval of the mean IoU, resampled over images.

        It is None from fewer than `ENOUGH_IMAGES` images, and if no scored class has truth. In a resampled set, too,
        the classes count that have truth in it.
        """
        if len(self.keys) < ENOUGH_IMAGES or not self.counted.any():
            return None
        return _percentiles(_resampled_miou(self))

    def precision_recall(self) -> list[Curve]:
        """Return the precision-recall curve of each class, without thresholds at which no pixel is predicted."""
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
    predict: Callable[[_Image], Probabilities], images: Iterable[tuple[str, _Image, Labels]], classes: ClassMap
) -> Evaluation:
    """Predict whole images and count their pixels.

    Args:
        predict: function from an image to class probabilities.
        images: for each test image its key, the image as `predict` takes it, and labels (H, W) uint8, 255 = void.
        classes: the C classes.

    Windows of one block of a map count as one image: neighbours are alike, so that an interval over windows would be
    too narrow.

    Raises:
        DataError: there is no image.
    """
    confusions: dict[str, Counts] = {}
    curve = np.zeros((len(classes), 2, BINS), np.int64)
    for key, image, labels in images:
        probabilities = predict(image)
        counts = confusion_counts(labels, probabilities.argmax(axis=0).astype(np.uint8), len(classes))
        name = block_of(key)
        confusions[name] = confusions[name] + counts if name in confusions else counts
        _add_to_curve(curve, probabilities, labels)
    if not confusions:
        raise DataError("there is no image to evaluate on.", mend="Give a --split whose test part holds images.")
    return Evaluation(tuple(confusions), np.stack([*confusions.values()]), curve, classes)


def _add_to_curve(curve: Counts, probabilities: npt.NDArray[np.float32], labels: Labels) -> None:
    valid = labels != VOID
    truth = labels[valid]
    for label, channel in enumerate(probabilities):
        bins = np.minimum((channel[valid] * BINS).astype(np.int64), BINS - 1)
        curve[label] += np.bincount(bins + BINS * (truth == label), minlength=2 * BINS).reshape(2, BINS)


@dataclass(frozen=True)
class Comparison:
    """Difference of the mean IoU of two models on the same images.

    Args:
        difference: mean IoU of the one minus mean IoU of the other, -1 to 1.
        low, high: 95 % interval of the difference. From few images it means nothing: show `interval`.
        images: number of images.
    """

    difference: float
    low: float
    high: float
    images: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the difference; None if there are too few images for one."""
        return (self.low, self.high) if self.images >= ENOUGH_IMAGES else None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero and there are enough images for an interval."""
        return self.images >= ENOUGH_IMAGES and (self.low > 0 or self.high < 0)


def compare(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> Comparison:
    """Compare the mean IoU of two kinds of models, with a paired bootstrap over images.

    The bootstrap is paired: the same resampled images are used for all evaluations.

    Args:
        first: evaluations of the first kind of model, one per seed. Their mean IoU is averaged.
        second: evaluations of the second kind.

    Returns:
        the mean IoU of `first` minus the mean IoU of `second`.

    Raises:
        DataError: the models were evaluated on different images, or on other classes, or no scored class has truth.
    """
    every = (*first, *second)
    if len({one.keys for one in every}) != 1:
        raise DataError("the models were evaluated on different images, so that they cannot be compared.")
    if len({tuple(one.counted) for one in every}) != 1:
        raise DataError("the models were evaluated on labels of different classes, so that they cannot be compared.")
    if not every[0].counted.any():
        raise DataError("no scored class has a pixel in the test images, so that there is no mean IoU to compare.")
    resampled = [np.mean([_resampled_miou(evaluation) for evaluation in side], axis=0) for side in (first, second)]
    point = [np.mean([mean_iou(one.total, one.classes.scored) for one in side]) for side in (first, second)]
    return Comparison(float(point[0] - point[1]), *_percentiles(resampled[0] - resampled[1]), len(first[0].keys))


def _resampled_miou(evaluation: Evaluation) -> Floats:
    """Return the mean IoU (2000,) of resampled sets of images.

    The draws depend on the number of images alone, so that the sets of two models are the same.
    """
    count = len(evaluation.keys)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    return mean_iou(np.tensordot(draws, evaluation.confusion, axes=1), evaluation.classes.scored)


def _percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
