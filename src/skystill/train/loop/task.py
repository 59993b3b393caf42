"""What the training loop asks of a task and of its batches."""

from collections.abc import Iterable, Iterator, Mapping
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


class Watch(Protocol):
    """Somebody who looks on: a progress bar."""

    def on_step(self, done: int, total: int, result: Mapping[str, float], images_per_second: float) -> None:
        """After each training step: `done` of `total` steps of the whole run."""
        ...

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """After each epoch, with its row of the history."""
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
