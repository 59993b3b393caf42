"""`Supervised`: trains a network on labels alone, with the same interface as `Distiller`."""

from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from skystill.allocator import trim_heap
from skystill.classes import VOID
from skystill.errors import DataError, SettingsError
from skystill.progress import OnProgress, ignore_progress
from skystill.report.metrics import METRICS
from skystill.train.batches.batches import AnyBatch, Batch, LoaderBatches, as_batch
from skystill.train.loop.checkpoint import Checkpointer
from skystill.train.loop.loop import train_epochs
from skystill.train.loop.meter import Meter, Metrics
from skystill.train.loop.ranks import gather_ranks
from skystill.train.loop.stepper import Stepper
from skystill.train.loop.task import Batches, History
from skystill.train.loop.validation import Validation
from skystill.train.losses.on_labels import CrossEntropy, StudentLoss


class Supervised:
    """Trains a network on labels alone: a teacher, or the student that is the baseline of a distilled one.

    Args:
        network: takes images (N, B, H, W) and returns logits (N, C, H, W).
        fabric: devices and precision. By default, the best device of this machine, in float32.
    """

    def __init__(self, network: nn.Module, fabric: Fabric | None = None) -> None:
        self.network = network
        self.fabric = fabric or Fabric(accelerator="auto", devices=1)
        self.meter = Meter(1)
        self._stepper: Stepper | None = None
        self._student_loss: StudentLoss = CrossEntropy()

    def compile(
        self,
        optimizer: torch.optim.Optimizer,
        student_loss: StudentLoss | None = None,
        metrics: Metrics = METRICS,
    ) -> None:
        """Set the optimiser, the loss and the metrics.

        Args:
            optimizer: optimiser over weights of the network. Its learning rates are the peaks of the schedule.
            student_loss: function of (logits, labels) that returns a scalar; cross-entropy by default.
            metrics: name to a function of confusion counts (C, C); {} for none.

        Raises:
            SettingsError: the optimiser contains weights that do not belong to the network.
        """
        own = {id(parameter) for parameter in self.network.parameters()}
        if any(id(p) not in own for group in optimizer.param_groups for p in group["params"]):
            raise SettingsError("the optimizer holds weights that are not the student's; only the student may learn.")
        self._stepper = Stepper(self.fabric, self.network, optimizer)
        self._student_loss = student_loss or CrossEntropy()
        self.meter = Meter(1, metrics)

    @property
    def stepper(self) -> Stepper:
        """Network, optimiser and moving average.

        Raises:
            SettingsError: `compile` was not called.
        """
        if self._stepper is None:
            raise SettingsError(f"call {type(self).__name__}.compile(optimizer, ...) first.")
        return self._stepper

    def fit(
        self,
        train: Batches | Iterable[tuple[Tensor, Tensor]],
        validation: Validation | Iterable[AnyBatch] | None = None,
        epochs: int = 50,
        *,
        schedule: str = "one-cycle",
        average: float = 0.0,
        checkpointer: Checkpointer | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> History:
        """Train for a number of epochs.

        Args:
            train: `Batches`, or any loader with a length that yields (images, labels).
            validation: batches, or pairs of (images, labels), to evaluate after each epoch. A `Validation` can also
                stop the training when it no longer helps; the network then has the weights of the best epoch.
            epochs: total number of epochs.
            schedule: "one-cycle", "cosine" or "constant".
            average: decay of a moving average of the weights, 0 to below 1; 0 for no average. The average is evaluated,
                and the network has the averaged weights at the end. It covers at most the last ninth of the steps so
                far. It costs one more copy of the weights, and one pass over them per step.
            checkpointer: saves checkpoints and continues from them; none by default.
            on_progress: called with a `Progress` after each step and an `EpochEnd` after each epoch.

        Returns:
            one row per epoch: losses, metrics, learning rate, seconds. Names of validation columns begin with
            "validation_".

        Raises:
            SettingsError: `compile` was not called, there is no such schedule, the decay is outside its range, the
                loader has no length or is empty, or the validation batches can be read only once.
            DataError: labels are no integers, or not of a class of the network.
            LossNotFinite: the loss became NaN or infinite.
            Interrupted, KeyboardInterrupt, CheckpointError, RankLost: as `train_epochs`.
        """
        stepper = self.stepper
        batches = train if isinstance(train, Batches) else LoaderBatches(train)
        stepper.plan(epochs * batches.steps_per_epoch, schedule, average)
        self.meter.reset()
        history = train_epochs(self, batches, validation, epochs, checkpointer=checkpointer, on_progress=on_progress)
        stepper.take_result()
        return history

    def evaluate(self, test: Iterable[AnyBatch]) -> dict[str, float]:
        """Return losses and metrics over all batches of a test set. With several ranks, each gives its own batches."""
        self.meter.reset()
        for batch in test:
            self.test_step(as_batch(batch).to(self.fabric.device))
            trim_heap()  # images of other sizes would come to lie beside each other, none in the place of another
        self.meter.add_ranks(self.fabric)
        result = self.meter.result()
        self.meter.reset()
        return result

    def train_step(self, batch: AnyBatch) -> dict[str, float]:
        """Run the networks on one batch, compute the weighted loss, and make one optimiser step.

        Returns:
            "loss" and its parts, as means since the start of the epoch, and the metrics since then.

        Raises:
            LossNotFinite: the loss is NaN or infinite. The weights were not changed.
        """
        batch = as_batch(batch)
        self.stepper.network.train()
        losses, logits, batch = self.losses(batch)
        confusion = self._meter_of(logits).count(logits, batch.common_labels)
        del logits  # frees memory for the backward pass
        return self.meter.add(self.stepper.step(losses), confusion, float(batch.valid.sum()))

    @torch.no_grad()
    def test_step(self, batch: AnyBatch) -> dict[str, float]:
        """Run the trained network on one batch, and return loss and metrics since the start of `evaluate`."""
        batch = as_batch(batch)
        network = self.stepper.plain_network.eval()  # the wrapper for several ranks would wait for the other ranks
        with self.fabric.autocast():
            logits: Tensor = network(batch.images)
        loss = {"student_loss": float(self._loss_of(logits, batch.labels))}
        labelled = float((batch.labels != VOID).sum())  # an image without labels has no loss, and not the loss 0
        return self._meter_of(logits).add(loss, self.meter.count(logits, batch.labels), labelled)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Batch]:
        """Compute the losses of a batch.

        Returns:
            the losses, of which "loss" is minimised; the logits (N, C, H, W) of all ranks; and the batch of all ranks
            (see `batch_of_all`).
        """
        logits = gather_ranks(self.fabric, self.stepper.forward(batch.images))
        batch = batch_of_all(self.fabric, batch)
        loss = self._loss_on_labels(logits, batch)
        return {"loss": loss, "student_loss": loss}, logits, batch

    def _loss_on_labels(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the student loss; under mixup that on the labels of both crops, with the weights of the crops."""
        first = self._loss_of(logits, batch.labels)
        if batch.second_labels is None:
            return first
        return batch.first_weight * first + (1 - batch.first_weight) * self._loss_of(logits, batch.second_labels)

    def _loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        try:
            return self._student_loss(logits, labels)
        except (IndexError, RuntimeError) as error:  # looked at after a failure only: on a GPU a look costs time
            beyond = labels[(labels >= logits.shape[1]) & (labels != VOID)]
            if not beyond.numel():
                raise
            raise DataError(
                f"a label is {int(beyond.max())}, and the network has {logits.shape[1]} classes, 0 to "
                f"{logits.shape[1] - 1}. Pixels without a label are {VOID}."
            ) from error

    def _meter_of(self, logits: Tensor) -> Meter:
        """Return the meter. A new one is made if the number of classes has changed, as in the first step."""
        if self.meter.confusion.shape[0] != logits.shape[1]:
            self.meter = Meter(logits.shape[1], self.meter.metrics)
        return self.meter


def batch_of_all(fabric: Fabric, batch: Batch) -> Batch:
    """Return a batch with the labels, `valid` and `distill_valid` of all ranks, which the losses need.

    Its images are those of this rank, and it has no logits of teachers.
    """
    labels, valid, distill_valid = (
        gather_ranks(fabric, part) for part in (batch.labels, batch.valid, batch.distill_valid)
    )
    second = None if batch.second_labels is None else gather_ranks(fabric, batch.second_labels)
    images, weight = batch.images, batch.first_weight  # the weight is that of the step, alike on all ranks
    return Batch(images, batch.teacher_images, labels, valid, distill_valid, second_labels=second, first_weight=weight)
