"""`Distiller`: a student learns from labels and from a teacher. `Supervised`: a network learns from labels alone.

distiller = Distiller(student=student, teacher=teacher)
distiller.compile(optimizer, student_loss=..., distillation_loss=..., alpha=0.1, temperature=10.0, metrics=...)
history = distiller.fit(train, validation=val, epochs=50)
scores = distiller.evaluate(test)
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from skystill.errors import SettingsError
from skystill.evaluate import METRICS
from skystill.train.data import AnyBatch, Batch, LoaderBatches, as_batch
from skystill.train.loop import Batches, History, Keeper, Meter, Metrics, Stepper, Watch, run
from skystill.train.losses import CrossEntropy, DistillationKL, DistillationLoss, StudentLoss
from skystill.train.models import in_layout
from skystill.train.teacher import Teacher


class Supervised:
    """A network that learns from labels alone: a teacher, or the student that a distilled one is compared with.

    Args:
        network: images (N, 3, H, W), 0 to 255, to logits (N, C, H, W).
        fabric: devices and precision; by default the best device, float32.
    """

    def __init__(self, network: nn.Module, fabric: Fabric | None = None) -> None:
        self.network = network
        self.fabric = fabric or Fabric(accelerator="auto", devices=1)
        self.meter = Meter(1)
        self._stepper: Stepper | None = None
        self._student_loss: StudentLoss = CrossEntropy()
        self._metrics: Metrics = METRICS

    def compile(
        self,
        optimizer: torch.optim.Optimizer,
        student_loss: StudentLoss | None = None,
        metrics: Metrics = METRICS,
    ) -> None:
        """Say how to train.

        Args:
            optimizer: over weights of the network; its learning rates are the peaks of the schedule.
            student_loss: (logits, labels) to a scalar; cross-entropy by default.
            metrics: name to a function of confusion counts (C, C).

        Raises:
            SettingsError: the optimiser holds weights that are not the network's.
        """
        own = {id(parameter) for parameter in self.network.parameters()}
        if any(id(p) not in own for group in optimizer.param_groups for p in group["params"]):
            raise SettingsError("the optimizer holds weights that are not the student's; only the student may learn.")
        self._stepper = Stepper(self.fabric, self.network, optimizer)
        self._student_loss = student_loss or CrossEntropy()
        self._metrics = metrics

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
        validation: Iterable[AnyBatch] | None = None,
        epochs: int = 50,
        *,
        schedule: str = "one-cycle",
        average: float = 0.0,
        keeper: Keeper | None = None,
        watch: Watch | None = None,
    ) -> History:
        """Train for a number of epochs.

        Args:
            train: our batches, or any loader with a length that gives (images, labels).
            validation: evaluated after each epoch: batches, or (images, labels).
            epochs: how many in all.
            schedule: "one-cycle", "cosine" or "constant".
            average: decay of a moving average of the weights, which then is what is evaluated and what remains; 0 for
                none. It costs one more copy of the weights and a pass over them a step.
            keeper: saves checkpoints and goes on from them; none by default.
            watch: a progress bar.

        Returns:
            one row an epoch: losses, metrics, learning rate, seconds; validation's begin with "validation_".

        Raises:
            SettingsError: not compiled, or no such schedule.
            LossNotFinite: the loss became NaN or infinite.
        """
        stepper = self.stepper
        batches = train if isinstance(train, Batches) else LoaderBatches(train)
        stepper.plan(epochs * batches.steps_per_epoch, schedule, average)
        self.meter.reset()
        history = run(self, batches, validation, epochs, keeper=keeper, watch=watch)
        stepper.take_average()
        return history

    def evaluate(self, test: Iterable[AnyBatch]) -> dict[str, float]:
        """Losses and metrics over all batches of a test set."""
        self.meter.reset()
        result: dict[str, float] = {}
        for batch in test:
            result = self.test_step(as_batch(batch).to(self.fabric.device))
        self.meter.reset()
        return result

    def train_step(self, batch: AnyBatch) -> dict[str, float]:
        """Run the models on one batch, weigh the losses, step the optimiser.

        Returns:
            "loss", its parts, and the metrics: means since the start of the epoch.

        Raises:
            LossNotFinite: the loss is NaN or infinite; the weights were not moved.
        """
        batch = as_batch(batch)
        self.stepper.network.train()
        losses, logits = self.losses(batch)
        values = self.stepper.step(losses)
        return self._count(values, logits, batch)

    @torch.no_grad()
    def test_step(self, batch: AnyBatch) -> dict[str, float]:
        """Run the student alone on one batch: its loss and metrics, means since the start of `evaluate`."""
        batch = as_batch(batch)
        network = self.stepper.network.eval()
        logits: Tensor = network(batch.images)
        return self._count({"student_loss": float(self._student_loss(logits, batch.labels))}, logits, batch)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The losses of a batch, "loss" being what is minimised, and the logits they came from."""
        logits: Tensor = self.stepper.network(batch.images)
        loss = self._student_loss(logits, batch.labels)
        return {"loss": loss, "student_loss": loss}, logits

    def _count(self, losses: dict[str, float], logits: Tensor, batch: Batch) -> dict[str, float]:
        if self.meter.confusion.shape[0] != logits.shape[1] or self.meter.metrics is not self._metrics:
            self.meter = Meter(logits.shape[1], self._metrics)
        return self.meter.add(losses, logits, batch)


class Distiller(Supervised):
    """A student that learns from labels and from a frozen teacher.

        loss = alpha * student_loss(student_logits, labels)
             + (1 - alpha) * T^2 * KL( softmax(teacher_logits / T) || softmax(student_logits / T) )

    Softmax over classes, KL summed over classes and averaged over pixels. Void pixels count only in the distillation
    loss (the teacher has an opinion there), padding in neither. Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531.

    Args:
        student: images (N, 3, H, W), 0 to 255, to logits (N, C, H, W); the only one that learns.
        teacher: the same to logits or probabilities (N, C, h, w), resized to the student's size where it differs.
            It is frozen: eval mode, no gradients, for good. None where batches bring its logits from a cache.
        fabric: devices and precision; by default the best device, float32.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | None, fabric: Fabric | None = None) -> None:
        super().__init__(student, fabric)
        self.student = student
        self.teacher = teacher if teacher is None or isinstance(teacher, Teacher) else Teacher(teacher)
        if self.teacher is not None:
            self.fabric.to_device(in_layout(self.teacher, torch.channels_last))
        self._distillation_loss: DistillationLoss = DistillationKL(10.0)
        self._alpha = 0.1

    def compile(  # type: ignore[override]  # more to say than a Supervised has
        self,
        optimizer: torch.optim.Optimizer,
        student_loss: StudentLoss | None = None,
        distillation_loss: DistillationLoss | type[nn.Module] = DistillationKL,
        alpha: float = 0.1,
        temperature: float = 10.0,
        metrics: Metrics = METRICS,
    ) -> None:
        """Say how to distil.

        Args:
            optimizer: over the student's weights only.
            student_loss: (student_logits, labels) to a scalar; cross-entropy by default.
            distillation_loss: (student_logits, teacher_logits, valid) to a scalar. A class is built with the
                temperature; an object is taken as it is, T^2 and all.
            alpha: weight of the *student* loss, 0 to 1; the distillation loss gets 1 - alpha.
            temperature: T > 0, softens both.
            metrics: name to a function of confusion counts (C, C).

        Raises:
            SettingsError: alpha outside 0..1, a temperature that is not positive, or an optimiser over other weights.
        """
        if not 0 <= alpha <= 1:
            raise SettingsError(f"alpha is {alpha:g}; it is the weight of the student loss, 0 to 1.")
        super().compile(optimizer, student_loss, metrics)
        self._alpha = alpha
        if isinstance(distillation_loss, type):
            distillation_loss = cast(DistillationLoss, distillation_loss(temperature))
        self._distillation_loss = distillation_loss

    def _teacher_logits(self, batch: Batch) -> Tensor:
        if batch.teacher_logits is not None:
            return batch.teacher_logits
        if self.teacher is None:
            raise SettingsError("there is no teacher, and the batch brings no teacher's logits; give one of them.")
        with self.fabric.autocast():
            logits: Tensor = self.teacher(batch.plain)
        return logits

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The weighed loss and its two parts, and the student's logits."""
        teacher_logits = self._teacher_logits(batch)
        logits: Tensor = self.stepper.network(batch.images)
        if teacher_logits.shape[1] != logits.shape[1]:
            raise SettingsError(f"the teacher gives {teacher_logits.shape[1]} classes, the student {logits.shape[1]}.")
        if teacher_logits.shape[2:] != logits.shape[2:]:
            teacher_logits = F.interpolate(
                teacher_logits.float(), size=logits.shape[2:], mode="bilinear", align_corners=False
            )
        student_loss = self._student_loss(logits, batch.labels)
        distillation_loss = self._distillation_loss(logits, teacher_logits, batch.inside)
        loss = self._alpha * student_loss + (1 - self._alpha) * distillation_loss
        return {"loss": loss, "student_loss": student_loss, "distillation_loss": distillation_loss}, logits
