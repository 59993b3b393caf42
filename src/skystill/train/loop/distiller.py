"""`Distiller`: trains a student on labels and on the logits of teachers.

distiller = Distiller(student=student, teacher=teacher)
distiller.compile(optimizer, student_loss=..., distillation_loss=..., alpha=0.1, temperature=10.0, metrics=...)
history = distiller.fit(train, validation=val, epochs=50)
scores = distiller.evaluate(test)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from skystill.classes import VOID
from skystill.errors import SettingsError
from skystill.report.metrics import METRICS
from skystill.train.batches.batches import Batch
from skystill.train.loop.gradients import GradientLog, WeightedLoss
from skystill.train.loop.meter import Metrics
from skystill.train.loop.ranks import gather_ranks
from skystill.train.loop.supervised import Supervised, batch_of_all
from skystill.train.losses.fused import block_means, float_and_means, whole_blocks
from skystill.train.losses.on_features import FeatureHook
from skystill.train.losses.on_labels import StudentLoss
from skystill.train.losses.on_logits import DistillationKL, DistillationLoss
from skystill.train.networks.blocks import to_memory_format
from skystill.train.teachers.teacher import Teacher, combine


@dataclass(frozen=True)
class FeatureTerm:
    """A feature loss with its weight and the two layers that it compares.

    Args:
        name: name of the loss in messages and in the history.
        weight: weight of the loss in the distillation loss.
        loss: function of (student_features, teacher_features, labels, valid) that returns a scalar. If it has weights,
            they are trained together with the student.
        student, teacher: hooks of the two layers.
    """

    name: str
    weight: float
    loss: nn.Module
    student: FeatureHook
    teacher: FeatureHook


class CompileOptions(TypedDict, total=False):
    """What `Distiller.compile` takes besides the original workflow."""

    features: Sequence[FeatureTerm]
    """Losses on layers, added to those on logits. They need one teacher that runs, not a cache. Default: none."""
    alpha_end: float | None
    """Alpha in the last step; it changes linearly over all steps. None keeps it constant, which is the default. Source:
    teacher annealing, Clark 2019, arXiv 1907.04829."""
    stride: int
    """Losses on logits compare means of logits over blocks of stride x stride pixels. A block counts if all its pixels
    count. Cached logits must be such means. Default: 1."""
    min_confidence: float
    """Losses on logits leave out pixels without a label where the teacher's most likely class has a smaller
    probability, 0 to 1 (Sohn 2020, arXiv 2001.07685). Default: 0, which leaves out none."""


class Distiller(Supervised):
    """Trains a student on labels and on the logits of frozen teachers.

        loss = alpha * student_loss(student_logits, labels)
             + (1 - alpha) * T^2 * KL( softmax(teacher_logits / T) || softmax(student_logits / T) )

    Softmax is taken over classes. KL is summed over classes and averaged over pixels, or over blocks of pixels
    (`stride` of `compile`). Void and padding count in neither loss. Images without labels count in the distillation
    loss only. Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531.

    Args:
        student: takes images (N, B, H, W) and returns logits (N, C, H, W). Only its weights are trained.
        teacher: takes the same images, or those of its own spec (`Teacher.input_spec`), and returns logits or
            probabilities (N, C, h, w), which are resized to the size of the image. The softened probabilities of
            several teachers are averaged. Teachers are frozen permanently: they stay in eval mode and get no gradients.
            None if the batches contain logits from a cache.
        fabric: devices and precision. By default, the best device of this machine, in float32.
        teacher_weights: weight of each teacher; equal by default.
        taught_labels: labels of the classes that the teachers know, in the order of their logits, with None for
            logits that are not compared; None if they know all. The distillation loss then compares these classes
            only, on pixels whose label is one of them or void. The other classes are learnt from labels alone.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | Sequence[nn.Module] | None,
        fabric: Fabric | None = None,
        teacher_weights: Sequence[float] | None = None,
        taught_labels: Sequence[int | None] | None = None,
    ) -> None:
        super().__init__(student, fabric)
        self.student = student
        given = [] if teacher is None else [teacher] if isinstance(teacher, nn.Module) else list(teacher)
        self.teachers = [one if isinstance(one, Teacher) else Teacher(one) for one in given]
        for one in self.teachers:
            self.fabric.to_device(to_memory_format(one, torch.channels_last))
        self.teacher_weights = teacher_weights
        self._labels = None if taught_labels is None else list(taught_labels)
        self.gradients = GradientLog()
        self._distillation: dict[str, tuple[float, DistillationLoss]] = {}
        self._features: tuple[FeatureTerm, ...] = ()
        self._alpha, self._alpha_end, self._temperature, self._stride = 0.1, 0.1, 10.0, 1
        self._min_confidence = 0.0

    def compile(  # type: ignore[override]  # more arguments than Supervised
        self,
        optimizer: torch.optim.Optimizer,
        student_loss: StudentLoss | None = None,
        distillation_loss: DistillationLoss | type[nn.Module] | Mapping[str, tuple[float, DistillationLoss]] = (
            DistillationKL
        ),
        alpha: float = 0.1,
        temperature: float = 10.0,
        metrics: Metrics = METRICS,
        **options: Unpack[CompileOptions],
    ) -> None:
        """Set the optimiser, the losses and the metrics.

        Args:
            optimizer: optimiser over weights of the student only.
            student_loss: function of (student_logits, labels) that returns a scalar; cross-entropy by default.
            distillation_loss: function of (student_logits, teacher_logits, valid) that returns a scalar. A class is
                instantiated with the temperature. An object is used as it is and must contain the factor T^2 itself.
                Several losses are given as name to (weight, loss).
            alpha: weight of the *student* loss, 0 to 1; the distillation losses get 1 - alpha.
            temperature: T > 0, softens the logits of teacher and student.
            metrics: name to a function of confusion counts (C, C); {} for none.
            options: features, alpha_end, stride and min_confidence; see `CompileOptions`.

        Raises:
            SettingsError: alpha is outside 0..1, the temperature is not positive, an option is outside its range, the
                optimiser contains weights of another network, or there are feature losses without exactly one teacher
                that runs.
            TypeError: an option that does not exist.
        """
        if unknown := options.keys() - CompileOptions.__annotations__.keys():
            raise TypeError(f"compile() got unexpected keyword arguments: {', '.join(sorted(unknown))}")
        features, stride, alpha_end = options.get("features", ()), options.get("stride", 1), options.get("alpha_end")
        alpha_end = alpha if alpha_end is None else alpha_end
        self._min_confidence = options.get("min_confidence", 0.0)
        if not (isinstance(stride, int) and stride >= 1):
            raise SettingsError(f"stride is {stride}; it is the side of a block in pixels, 1 or more.")
        if not 0 <= self._min_confidence < 1:
            raise SettingsError(f"min_confidence is {self._min_confidence:g}; it is a probability, 0 to below 1.")
        for value in (alpha, alpha_end):
            if not 0 <= value <= 1:
                raise SettingsError(f"alpha is {value:g}; it is the weight of the student loss, 0 to 1.")
        if isinstance(distillation_loss, type):
            distillation_loss = cast(DistillationLoss, distillation_loss(temperature))
        if not isinstance(distillation_loss, Mapping):
            distillation_loss = {"logits": (1.0, distillation_loss)}
        if features and len(self.teachers) != 1:
            raise SettingsError(
                "feature losses compare layers: they need one teacher that runs (--teacher-mode online)."
            )
        super().compile(optimizer, student_loss, metrics)
        for term in features:
            self.stepper.learn_beside(self.fabric.to_device(term.loss))
        self._distillation, self._features = dict(distillation_loss), tuple(features)
        self._alpha, self._alpha_end, self._temperature, self._stride = alpha, alpha_end, temperature, stride

    @property
    def alpha(self) -> float:
        """Weight of the student loss in the next step."""
        done = min(1.0, self.stepper.steps / max(1, self.stepper.total - 1))
        return self._alpha + (self._alpha_end - self._alpha) * done

    def _teacher_logits(self, batch: Batch) -> Tensor:
        if self.teachers:
            with self.fabric.autocast():
                answers = [teacher(batch.fed_to(teacher.input_spec)) for teacher in self.teachers]
            answers = [block_means(answer.float(), self._stride) for answer in answers]
        elif batch.teacher_logits:
            answers = [stored.logits() for stored in batch.teacher_logits]
        else:
            raise SettingsError("there is no teacher, and the batch brings no teacher's logits; give one of them.")
        logits = combine(answers, self.teacher_weights or [1.0] * len(answers), self._temperature)
        if self._labels is None:
            return logits
        if logits.shape[1] != len(self._labels):
            raise SettingsError(f"the teacher gives {logits.shape[1]} classes, and {len(self._labels)} are named.")
        compared = [channel for channel, label in enumerate(self._labels) if label is not None]
        return logits if len(compared) == len(self._labels) else logits[:, compared]

    @property
    def taught_labels(self) -> list[int] | None:
        """Labels of the classes that the distillation loss compares; None for all."""
        return None if self._labels is None else [label for label in self._labels if label is not None]

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Batch]:
        """Compute the losses of a batch.

        Returns:
            the losses: "loss", which is minimised, "student_loss", "distillation_loss", if there are several its terms,
            and with `min_confidence` "confident", the part of the pixels that it does not leave out; the student's
            logits (N, C, H, W) float32 of all ranks; and the batch of all ranks (see `batch_of_all`).

        Raises:
            SettingsError: there are no logits of a teacher, or classes or sizes do not match.
        """
        teacher_logits = gather_ranks(self.fabric, self._teacher_logits(batch))
        answer = gather_ranks(self.fabric, self.stepper.forward(batch.images))
        batch = batch_of_all(self.fabric, batch)
        logits, compared = float_and_means(answer, self._stride)
        student_loss = self._loss_on_labels(logits, batch)
        terms = self._logit_terms(compared, teacher_logits, batch) | self._feature_terms(batch)
        total = sum((term.weight * term.value for term in terms.values()), logits.new_zeros(()))
        alpha = self.alpha
        loss = alpha * student_loss + (1 - alpha) * total
        # With several ranks the gradients at features would run through the wrapper, which allows one backward pass.
        if self.gradients.due(self.stepper.steps) and (self.fabric.world_size == 1 or not self._features):
            weighed = {name: term.weighed(1 - alpha) for name, term in terms.items()}
            self.gradients.add(logits, {"student loss": WeightedLoss(student_loss, alpha), **weighed})
        losses = {"loss": loss, "student_loss": student_loss, "distillation_loss": total}
        if len(terms) > 1:
            losses |= {f"{name}_loss": term.value for name, term in terms.items()}
        if self._min_confidence:
            losses["confident"] = self._confident(teacher_logits, batch).float().mean()
        return losses, logits, batch

    def _logit_terms(self, logits: Tensor, teacher_logits: Tensor, batch: Batch) -> dict[str, WeightedLoss]:
        compared, valid = logits, batch.distill_valid
        if (taught := self.taught_labels) is not None:
            known = torch.tensor([*taught, VOID], device=logits.device)
            logits, valid = logits[:, taught], valid & torch.isin(batch.labels, known)
            if batch.second_labels is not None:
                valid = valid & torch.isin(batch.second_labels, known)
        if teacher_logits.shape[1] != logits.shape[1]:
            raise SettingsError(f"the teacher gives {teacher_logits.shape[1]} classes, the student {logits.shape[1]}.")
        if teacher_logits.shape[2:] != logits.shape[2:]:
            raise SettingsError(
                f"the teacher's logits are {tuple(teacher_logits.shape[2:])} pixels or blocks, the student's "
                f"{tuple(logits.shape[2:])}: give the cache, the crop sampler and `compile` the same stride."
            )
        valid = whole_blocks(valid, self._stride)
        if self._min_confidence:
            valid = valid & self._confident(teacher_logits, batch)
        return {
            name: WeightedLoss(loss(logits, teacher_logits, valid), weight, means=compared, side=self._stride)
            for name, (weight, loss) in self._distillation.items()
        }

    def _confident(self, teacher_logits: Tensor, batch: Batch) -> Tensor:
        """Return True (N, h, w) where there is a label, or the teacher is sure enough of a class."""
        second = batch.labels if batch.second_labels is None else batch.second_labels
        unlabeled = whole_blocks((batch.labels == VOID) & (second == VOID), self._stride)
        return ~unlabeled | (teacher_logits.float().softmax(dim=1).amax(dim=1) >= self._min_confidence)

    def _feature_terms(self, batch: Batch) -> dict[str, WeightedLoss]:
        # Each layer is read once and first: reading it empties the hook, and two terms may share a layer.
        hooks = {id(hook): hook for term in self._features for hook in (term.student, term.teacher)}
        taken = {key: gather_ranks(self.fabric, hook.take()) for key, hook in hooks.items()}
        found: dict[str, WeightedLoss] = {}
        for term in self._features:
            student, teacher = taken[id(term.student)], taken[id(term.teacher)]
            value = term.loss(student, teacher.detach(), batch.common_labels, batch.distill_valid)
            found[term.name] = WeightedLoss(value, term.weight, student)
        return found
