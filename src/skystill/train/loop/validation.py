"""What is done after each epoch of a training with validation images: scores, pictures, and when to stop."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from skystill.errors import SettingsError
from skystill.train.batches.batches import AnyBatch
from skystill.train.loop.task import History

_SCORE = "validation_miou"


def _no_pictures(network: nn.Module) -> None:
    """Do nothing, which is the default."""


@dataclass(frozen=True)
class Validation:
    """How a network is validated after each epoch, with the averaged weights if there is an average.

    Args:
        batches: batches, or pairs of (images, labels), to evaluate.
        patience: number of epochs without a better mean IoU after which the training stops. The weights of the best
            epoch are then kept. None trains all epochs and keeps the last weights.
        after: called on the first rank with the network that was evaluated, in eval mode.

    Raises:
        SettingsError: the patience is less than 1, or the batches can be read only once.
    """

    batches: Iterable[AnyBatch]
    patience: int | None = None
    after: Callable[[nn.Module], None] = _no_pictures

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise SettingsError(f"patience is {self.patience}; it is a number of epochs, 1 or more.")
        if isinstance(self.batches, Iterator):
            raise SettingsError("validation batches are read after each epoch: give a DataLoader or a list.")

    def is_over(self, history: History) -> bool:
        """Return whether the best epoch is `patience` epochs back, so that the training stops."""
        return self.patience is not None and bool(history) and len(history) - best_epoch(history) >= self.patience

    def keeps_last(self, history: History) -> bool:
        """Return whether the weights of the last epoch are to be kept, because it is the best one so far."""
        return self.patience is not None and best_epoch(history) == len(history)

    def result(self, history: History) -> str:
        """Describe in one line why the training ended, and which weights were kept."""
        best = best_epoch(history)
        stopped = (
            f"the training stopped after epoch {len(history)}, because the validation mIoU was best {self.patience} "
            "epoch(s) before"
            if self.is_over(history)
            else f"the training ended with its last epoch, {len(history)}"
        )
        return f"{stopped}. The weights of epoch {best} are kept: validation mIoU {history[best - 1][_SCORE]:.3f}."


def as_validation(given: Validation | Iterable[AnyBatch] | None) -> Validation | None:
    """Return how to validate, if only the batches are given."""
    return given if given is None or isinstance(given, Validation) else Validation(given)


def best_epoch(history: History) -> int:
    """Return the number of the epoch, from 1, with the best mean IoU on validation images; of equal ones the first.

    Raises:
        SettingsError: the metrics lack the mean IoU, or no epoch has one, because no pixel is labelled.
    """
    scores = [row.get(_SCORE, math.nan) for row in history]
    found = [score for score in scores if not math.isnan(score)]
    if not found:
        raise SettingsError("patience needs the mean IoU on validation images with labels, and there is none.")
    return scores.index(max(found)) + 1
