"""Distillation losses on logits: callables that map (student_logits, teacher_logits, valid) to a scalar.

Each docstring gives the formula, its source, the shapes, and what is averaged over what. All losses compute in float32,
whatever the precision of the networks, and are 0 if the student's logits equal the teacher's.
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
    """Return the temperature unchanged, after checking it.

    Raises:
        SettingsError: temperature is not positive.
    """
    if not temperature > 0:
        raise SettingsError(f"temperature is {temperature:g}; it must be more than 0.")
    return temperature


class DistillationKL(nn.Module):
    """KL divergence of the softened student from the softened teacher, averaged over valid pixels.

        L = T^2 / |V| * sum over valid pixels of KL( softmax(teacher / T) || softmax(student / T) )

    V are the valid pixels of the batch. Softmax runs over the classes of a pixel. The KL divergence is summed over
    classes and averaged over valid pixels. T^2 keeps the size of the gradient when T changes. Source: Hinton, Vinyals,
    Dean 2015, arXiv 1503.02531, section 2.

    Args:
        temperature: T > 0. At 1 both distributions stay as they are.

    Shape:
        student_logits, teacher_logits: (N, C, H, W) float, classes on axis 1.
        valid: (N, H, W) bool. False pixels, such as padding, are left out of the mean.
        returns: float32 scalar; 0 if no pixel is valid, or if student equals teacher.

    Raises:
        SettingsError: temperature is not positive.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
        divergence, weights = self.per_pixel(student_logits, teacher_logits, valid)
        mean: Tensor = (divergence * weights).sum() / weights.sum().clamp(min=1)
        return mean * (self.temperature * self.temperature)

    def per_pixel(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the KL divergence of each pixel and its weight in the mean, both (N, H, W) float32, 0 if not valid."""
        divergence = softened_kl(student_logits, teacher_logits, self.temperature)
        return divergence.where(valid, 0.0), valid.float()


class DistillationMSE(nn.Module):
    """Half the mean squared difference of centred logits: the limit of `DistillationKL` as T grows.

        L = 1/(2 C |V|) * sum over valid pixels and classes of (s - t)^2

    s and t are the student's and the teacher's logits, each minus their mean over the classes of the pixel. V are the
    valid pixels of the batch. As T grows, T^2 * KL of a pixel tends to 1/(2 C) times the squared distance of its
    centred logits. Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2.1, equation 4.

    Args:
        temperature: not used, because it cancels out. It is accepted so that all distillation losses are built in the
            same way.

    Shape:
        As `DistillationKL`.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
        difference = student_logits.float() - teacher_logits.float()
        centred = difference - difference.mean(dim=1, keepdim=True)
        return mean_over(centred.square().mean(dim=1), valid) / 2


class ChannelWise(nn.Module):
    """CWD: channel-wise KL divergence, with the softmax over space.

        L = T^2 / (N C) * sum over images and channels of KL( softmax_V(teacher / T) || softmax_V(student / T) )

    The loss compares where in the image each class is strongest. softmax_V runs over the valid pixels of an image, so
    that each channel of each image is one distribution. The KL divergence is summed over these pixels and averaged over
    images and channels. Source: Shu 2021, arXiv 2011.13256,
    equations 4 and 5, where T is 4 and the loss has a weight of 3 beside the cross-entropy.

    Args:
        temperature: T > 0. At 1 both distributions stay as they are.

    Shape:
        As `DistillationKL`. An image without a valid pixel adds 0 to the sum and still counts in N.

    Raises:
        SettingsError: temperature is not positive.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
        log_student = self._log_softmax(student_logits, valid)
        log_teacher = self._log_softmax(teacher_logits, valid)
        here = valid.flatten(1)[:, None]
        terms = (log_teacher.exp() * (log_teacher - log_student)).where(here, 0.0)
        return self.temperature**2 * terms.sum(dim=2).mean()

    def _log_softmax(self, logits: Tensor, valid: Tensor) -> Tensor:
        """Return log softmax over the valid pixels of each channel, (N, C, H * W) float32.

        Other pixels enter the softmax with the logit -1e4 instead of -inf: its exponential is 0 too, and its gradient
        is finite.
        """
        flat = (contiguous_float32(logits) / self.temperature).flatten(2)
        return F.log_softmax(flat.where(valid.flatten(1)[:, None], -1e4), dim=2)


class Correlation(nn.Module):
    """DIST: correlation of the student's probabilities with the teacher's, within pixels and within classes.

        L = (1 - mean over valid pixels of r over classes) + (1 - mean over classes of r over valid pixels)

    The student's probabilities need not equal the teacher's; they need only rise and fall with them. r is Pearson's
    correlation of the probabilities p = softmax(logits) of student and teacher. In the first term it runs over the
    classes of a pixel. In the second term it runs over all valid pixels of the batch together, for one class. The loss
    is weak for two classes, because r over two classes is always 1 or -1. Source: Huang 2022, arXiv 2205.10536,
    equations 7 to 9 with beta = gamma = 1.

    Args:
        temperature: not used, because the source uses none. It is accepted so that all distillation losses are built in
            the same way.

    Shape:
        As `DistillationKL`.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> Tensor:
        """Return the loss. The docstring of the class gives its formula and its shapes."""
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
    """Return Pearson's correlation of each row of (M, K) with the same row of the other tensor: (M,).

    It is 1 if at least one of the two rows is constant.
    """
    one, other = (rows - rows.mean(dim=1, keepdim=True) for rows in (one, other))
    norms: Tensor = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    tiny = 1e-8
    return ((one * other).sum(dim=1) + tiny) / (norms + tiny)


class BoundaryKL(DistillationKL):
    """`DistillationKL` with five times the weight near the teacher's class boundaries.

        L = T^2 / (sum of w) * sum over valid pixels of w * KL( softmax(teacher / T) || softmax(student / T) )

    w is 5 within 3 pixels of a place where the teacher's most likely class changes between valid neighbours, and 1
    elsewhere. Both sums run over the valid pixels of the batch. Outlines are what a small network at a quarter of the
    resolution loses first. This loss is SkyStill's own. The weighting of boundaries is as old as U-Net (Ronneberger
    2015, arXiv 1505.04597, equation 2).

    Args:
        temperature: T > 0. At 1 both distributions stay as they are.

    Shape:
        As `DistillationKL`.

    Raises:
        SettingsError: temperature is not positive.
    """

    def per_pixel(self, student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the KL divergence of each pixel and its weight w, both (N, H, W) float32, 0 if not valid."""
        divergence, weights = super().per_pixel(student_logits, teacher_logits, valid)
        return divergence, weights * (1 + 4 * near_boundaries(teacher_logits, valid, 3))


def near_boundaries(logits: Tensor, valid: Tensor, distance: int) -> Tensor:
    """Mark the pixels near a change of the most likely class.

    Args:
        logits: (N, C, H, W) float.
        valid: (N, H, W) bool. A change counts only between neighbours in a row or column that are both valid.
        distance: how many pixels on each side of a change are marked, 1 or more, in the chessboard metric.

    Returns:
        (N, H, W) float32, 1 near a change and 0 elsewhere.
    """
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
