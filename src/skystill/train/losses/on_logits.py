"""Distillation losses on logits: (student_logits, teacher_logits, valid) to a scalar.

Each docstring gives the formula, its source, the shapes, and what is averaged over what. All compute in float32,
whatever the networks ran in, and are 0 where student equals teacher.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.errors import SettingsError
from skystill.train.losses.fused import contiguous_float32, softened_kl
from skystill.train.losses.on_labels import mean_over

DistillationLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def positive_temperature(temperature: float) -> float:
    """The temperature.

    Raises:
        SettingsError: it is not positive.
    """
    if not temperature > 0:
        raise SettingsError(f"temperature is {temperature:g}; it must be more than 0.")
    return temperature


class DistillationKL(nn.Module):
    """Divergence of the softened student from the softened teacher.

        L = T^2 / |V| * sum over valid pixels of KL( softmax(teacher / T) || softmax(student / T) )

    Softmax and KL over classes (summed), averaged over valid pixels. T^2 keeps the gradient's size when T changes.
    Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2.

    Args:
        temperature: T > 0. At 1 both distributions stay as they are.

    Shape:
        student_logits, teacher_logits: (N, C, H, W) float, classes on axis 1.
        valid: (N, H, W) bool; False pixels (padding) count nowhere.
        returns: float32 scalar; 0 where no pixel is valid, or student equals teacher.

    Raises:
        SettingsError: temperature is not positive.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> Tensor:
        """See the class."""
        divergence, weights = self.per_pixel(student_logits, teacher_logits, valid)
        mean: Tensor = (divergence * weights).sum() / weights.sum().clamp(min=1)
        return mean * (self.temperature * self.temperature)

    def per_pixel(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """KL (N, H, W) and its weights, both 0 where not valid."""
        divergence = softened_kl(student_logits, teacher_logits, self.temperature)
        return divergence.where(valid, 0.0), valid.float()


class DistillationMSE(nn.Module):
    """L = 1/(2 C |V|) * sum over valid pixels and classes of (s - t)^2, both logits centred over classes.

    The limit of `DistillationKL` as T grows, up to its constant: there T^2 * KL tends to 1/(2 C) of the squared
    distance of centred logits. Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2.1, equation 4.

    Args:
        temperature: taken so that every distillation loss is built alike; it cancels out.

    Shape:
        as `DistillationKL`.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> Tensor:
        """See the class."""
        difference = student_logits.float() - teacher_logits.float()
        centred = difference - difference.mean(dim=1, keepdim=True)
        return mean_over(centred.square().mean(dim=1), valid) / 2


class ChannelWise(nn.Module):
    """Where in the image each class is strongest: softmax over space, one distribution a channel.

        L = T^2 / (N C) * sum over images and channels of KL( softmax_V(teacher / T) || softmax_V(student / T) )

    softmax_V runs over the valid pixels of an image. Source: Shu 2021, arXiv 2011.13256, equations 4 and 5 (there with
    T = 4 and a weight of 3 beside the cross-entropy).

    Args:
        temperature: T > 0.

    Shape:
        as `DistillationKL`; an image without a valid pixel adds 0.

    Raises:
        SettingsError: temperature is not positive.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> Tensor:
        """See the class."""
        log_student = self._log_softmax(student_logits, valid)
        log_teacher = self._log_softmax(teacher_logits, valid)
        here = valid.flatten(1)[:, None]
        terms = (log_teacher.exp() * (log_teacher - log_student)).where(here, 0.0)
        return self.temperature**2 * terms.sum(dim=2).mean()

    def _log_softmax(self, logits: Tensor, valid: Tensor) -> Tensor:
        """(N, C, H W) over valid pixels. Elsewhere -1e4 and not -inf: its exponential is 0 and has a gradient."""
        flat = (contiguous_float32(logits) / self.temperature).flatten(2)
        return F.log_softmax(flat.where(valid.flatten(1)[:, None], -1e4), dim=2)


class Correlation(nn.Module):
    """DIST: the student need not match the teacher's probabilities, only rise and fall with them.

        L = (1 - mean over valid pixels of r over classes) + (1 - mean over classes of r over valid pixels)

    with r Pearson's correlation of p = softmax(logits) of student and teacher, all valid pixels of the batch together.
    Source: Huang 2022, arXiv 2205.10536, equations 7 to 9, beta = gamma = 1. It is weak for two classes, where r over
    classes is only ever 1 or -1.

    Args:
        temperature: taken so that every distillation loss is built alike; the source uses none.

    Shape:
        as `DistillationKL`.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> Tensor:
        """See the class."""
        if not valid.any():
            return student_logits.float().sum() * 0
        p_student, p_teacher = (
            contiguous_float32(logits).softmax(dim=1).permute(0, 2, 3, 1)[valid]
            for logits in (student_logits, teacher_logits)
        )
        between = 1 - _pearson(p_student, p_teacher).mean()
        within = 1 - _pearson(p_student.T, p_teacher.T).mean()
        return between + within


def _pearson(one: Tensor, other: Tensor) -> Tensor:
    """Correlation of the rows of (M, K): (M,); 1 where a row of one and the other does not vary at all."""
    one, other = (rows - rows.mean(dim=1, keepdim=True) for rows in (one, other))
    norms: Tensor = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    tiny = 1e-8
    return ((one * other).sum(dim=1) + tiny) / (norms + tiny)


class BoundaryKL(DistillationKL):
    """`DistillationKL` with five times the weight near the teacher's boundaries.

        L = T^2 / (sum of w) * sum over valid pixels of w * KL( softmax(teacher / T) || softmax(student / T) )

    w is 5 within 3 pixels of a place where the teacher's most likely class changes between valid neighbours, else 1:
    outlines are what a small network at a quarter of the resolution loses first. Ours; the weighting of boundaries is
    as old as U-Net (Ronneberger 2015, arXiv 1505.04597, equation 2).

    Args:
        temperature: T > 0.

    Shape:
        as `DistillationKL`.
    """

    def per_pixel(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """KL (N, H, W) and its weights."""
        divergence, weights = super().per_pixel(student_logits, teacher_logits, valid)
        return divergence, weights * (1 + 4 * near_boundaries(teacher_logits, valid, 3))


def near_boundaries(logits: Tensor, valid: Tensor, distance: int) -> Tensor:
    """(N, H, W) float, 1 within `distance` pixels (chessboard) of a change of the most likely class, else 0."""
    labels = logits.argmax(dim=1)
    changes = torch.zeros_like(labels, dtype=torch.float32)
    for axis in (1, 2):
        size = labels.shape[axis]
        label, there = labels.narrow(axis, 0, size - 1), valid.narrow(axis, 0, size - 1)
        next_label, next_there = labels.narrow(axis, 1, size - 1), valid.narrow(axis, 1, size - 1)
        differs = ((label != next_label) & there & next_there).float()
        changes.narrow(axis, 0, size - 1).add_(differs)
        changes.narrow(axis, 1, size - 1).add_(differs)
    marked = (changes > 0).float()[:, None]
    near: Tensor = F.max_pool2d(marked, 2 * distance - 1, stride=1, padding=distance - 1)[:, 0]
    return near


DISTILLATION_LOSSES: dict[str, Callable[[float], nn.Module]] = {
    "kl": DistillationKL,
    "mse": DistillationMSE,
    "cwd": ChannelWise,
    "dist": Correlation,
    "boundary-kl": BoundaryKL,
}
