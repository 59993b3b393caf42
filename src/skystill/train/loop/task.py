"""What the training loop asks of a task and of its batches."""

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from skystill.train.batches.batches import AnyBatch, Batch
from skystill.train.loop.meter import Meter
from skystill.train.loop.stepper import Stepper

History = list[dict[str, float]]
"""One row an epoch; the columns of `metrics.csv`."""


@runtime_checkable
class Batches(Protocol):
    """Training batches that can be entered in the middle of an epoch."""

    steps_per_epoch: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from step `start` on."""
        ...


class Task(Protocol):
    """What the loop trains."""

    meter: Meter

    @property
    def stepper(self) -> "Stepper":
        """Network, optimiser and moving average."""
        ...

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step; losses and metrics since the meter's last reset."""
        ...

    def evaluate(self, test: Iterable[AnyBatch]) -> dict[str, float]:
        """Losses and metrics over all batches."""
        ...
