"""`Meter`: losses and metrics over the steps of an epoch, or over the batches of a validation."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor

from skystill.report.metrics import METRICS

Metrics = Mapping[str, Callable[[npt.NDArray[np.int64]], float]]
"""Metrics by name: functions of the confusion counts (C, C) by truth (row) and prediction (column)."""


class Meter:
    """Accumulates losses and confusion counts since the last reset.

    A loss is averaged over batches, weighted by their pixels. Metrics are computed from the sum of the confusion
    counts.

    Args:
        num_classes: C, the number of classes.
        metrics: metrics to compute from the counts; {} for none, and then no pixels are counted.
    """

    def __init__(self, num_classes: int, metrics: Metrics = METRICS) -> None:
        self.metrics = metrics
        self.confusion = np.zeros((num_classes, num_classes), np.int64)
        self._sums: dict[str, float] = {}
        self._pixels = 0.0

    def reset(self) -> None:
        """Set all sums and counts to zero."""
        self.confusion = np.zeros_like(self.confusion)
        self._sums, self._pixels = {}, 0.0

    def count(self, logits: Tensor, labels: Tensor) -> npt.NDArray[np.int64]:
        """Return the confusion counts of a batch for `add`, or zeros if there are no metrics."""
        return count_confusion(logits, labels) if self.metrics else np.zeros_like(self.confusion)

    def add(self, losses: Mapping[str, float], confusion: npt.NDArray[np.int64], pixels: float) -> dict[str, float]:
        """Add one batch, and return means and metrics so far.

        Args:
            losses: name of a loss to its value for this batch.
            confusion: (C, C) confusion counts of this batch.
            pixels: number of pixels of this batch, the weight of its losses.
        """
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * pixels
        self._pixels += pixels
        self.confusion += confusion
        return self.result()

    def result(self) -> dict[str, float]:
        """Return the mean losses and the metrics since the last reset."""
        means = {name: value / max(self._pixels, 1.0) for name, value in self._sums.items()}
        return means | {name: float(metric(self.confusion)) for name, metric in self.metrics.items()}

    def add_ranks(self, fabric: Fabric) -> None:
        """Add the counts and the student loss that the other ranks have of their own validation images."""
        if fabric.world_size == 1:
            return
        loss = self._sums.get("student_loss", 0.0)  # 0 on a rank without images
        own = torch.tensor([*self.confusion.ravel().tolist(), self._pixels, loss], dtype=torch.float64)
        total = np.asarray(fabric.all_reduce(own, reduce_op="sum").cpu())  # type: ignore[union-attr]
        self.confusion = total[:-2].astype(np.int64).reshape(self.confusion.shape)
        self._pixels, self._sums = float(total[-2]), {"student_loss": float(total[-1])}

    def state(self) -> dict[str, Any]:
        """Return sums and counts, for a checkpoint in the middle of an epoch."""
        return {"confusion": self.confusion.tolist(), "sums": dict(self._sums), "pixels": self._pixels}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.confusion = np.array(state["confusion"], np.int64)
        self._sums, self._pixels = dict(state["sums"]), float(state["pixels"])


def count_confusion(logits: Tensor, labels: Tensor) -> npt.NDArray[np.int64]:
    """Count pixels by truth (row) and prediction (column).

    Args:
        logits: (N, C, H, W) float.
        labels: (N, H, W) int64. Pixels with labels of C or more are not counted (void is 255).

    Returns:
        (C, C) int64.
    """
    num_classes = logits.shape[1]
    # Labels of C or more get bins beyond the C^2 that are kept.
    pairs = labels.clamp(max=num_classes).int() * num_classes + most_likely(logits.detach())
    counts = torch.bincount(pairs.flatten(), minlength=num_classes**2)[: num_classes**2]
    counts = counts.reshape(num_classes, num_classes)
    return np.asarray(counts.cpu().numpy(), np.int64)


def most_likely(scores: Tensor) -> Tensor:
    """Return the argmax over classes. It takes a quarter of the time of `argmax`.

    Args:
        scores: (N, C, H, W) float.

    Returns:
        (N, H, W) uint8; of equal scores the first class, as `argmax` returns.
    """
    best = scores[:, 0].clone()
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=scores.device)
    for label in range(1, scores.shape[1]):
        # Labels increase, so the largest label that was better than all before it is the best label.
        won = (scores[:, label] > best).to(torch.uint8).mul_(label)
        torch.maximum(labels, won, out=labels)
        torch.maximum(best, scores[:, label], out=best)
    return labels
