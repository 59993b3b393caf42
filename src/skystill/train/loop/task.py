"""The interfaces that a task and its batches must have for the training loop."""

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from skystill.train.batches.batches import AnyBatch, Batch
from skystill.train.loop.meter import Meter
from skystill.train.loop.stepper import Stepper

History = list[dict[str, float]]
"""One row per epoch, with the columns of `metrics.csv`."""


@runtime_checkable
class Batches(Protocol):
    """Training batches. A resumed run can start in the middle of an epoch."""

    steps_per_epoch: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, from step `start` on."""
        ...


class Task(Protocol):
    """A task that the loop can train."""

    meter: Meter

    @property
    def stepper(self) -> "Stepper":
        """Network, optimiser and moving average."""
        ...

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Train one step, and return the mean losses and the metrics since the last reset of the meter."""
        ...

    def evaluate(self, test: Iterable[AnyBatch]) -> dict[str, float]:
        """Return losses and metrics over all batches."""
        ...
