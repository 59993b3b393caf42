"""The metrics against those of torchmetrics, an independent reference."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import (
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MulticlassPrecision,
    MulticlassRecall,
)

from skystill.report.metrics import (
    confusion_counts,
    f1_per_class,
    iou_per_class,
    mean_iou,
    precision_per_class,
    recall_per_class,
    with_truth,
)


@given(st.integers(0, 2**32 - 1))
def test_torchmetrics_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), (40, 30))
    predicted = rng.integers(0, 3, (40, 30), np.uint8)
    counts = confusion_counts(labels, predicted, 3)
    references = {
        iou_per_class: MulticlassJaccardIndex(3, average=None, ignore_index=255),
        precision_per_class: MulticlassPrecision(3, average=None, ignore_index=255),
        recall_per_class: MulticlassRecall(3, average=None, ignore_index=255),
        f1_per_class: MulticlassF1Score(3, average=None, ignore_index=255),
    }
    for ours, theirs in references.items():
        expected = theirs(torch.from_numpy(predicted).long(), torch.from_numpy(labels).long())
        assert ours(counts) == pytest.approx(expected.numpy(), abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_which_classes_count_does_not_depend_on_the_predictions(seed: int, classes: int) -> None:
    """The same truth, two models: where one predicts a class without truth and the other does not, both leave it out.

    The reference is torchmetrics, averaged by hand over the classes that occur.
    """
    rng = np.random.default_rng(seed)
    labels = rng.choice(rng.integers(0, classes, 3), (12, 9)).astype(np.uint8)
    there = np.unique(labels).tolist()
    for _ in range(2):
        predicted = rng.integers(0, classes, (12, 9), np.uint8)
        every = MulticlassJaccardIndex(max(2, classes), average=None)(
            torch.from_numpy(predicted).long(), torch.from_numpy(labels).long()
        )
        counts = confusion_counts(labels, predicted, classes)
        assert np.flatnonzero(with_truth(counts)).tolist() == there
        assert mean_iou(counts, np.ones(classes, bool)) == pytest.approx(float(every[there].mean()), abs=1e-6)
