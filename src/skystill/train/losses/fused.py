"""What losses are made of, with its gradient written out.

Autograd would keep each intermediate tensor, as large as the logits, and go over all of them once more: for small
students that cost as much as the network itself (docs/log.md).
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skystill.classes import VOID

_AT_ONCE = 2**20  # values


def contiguous_float32(logits: Tensor) -> Tensor:
    """float32 in the plain memory layout: softmax over classes is up to twice as fast there as with channels last."""
    return logits.to(torch.float32, memory_format=torch.contiguous_format)  # both in one pass


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[label] of each pixel, 0 where void.

    Args:
        logits: (N, C, H, W) float.
        labels: (N, H, W) int64, 255 = void.

    Returns:
        (N, H, W) float32.
    """
    found: Tensor = _NegativeLogLikelihood.apply(logits, labels)  # type: ignore[no-untyped-call]
    return found


def _log_softmax_at(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What both below begin with: log softmax(logits) (N, C, H, W); it at the labels (N, H, W), 0 where void; the
    labels (N, 1, H, W), 0 where void; where they are not void (N, H, W).
    """
    log_p = F.log_softmax(contiguous_float32(logits), dim=1)
    valid = labels != VOID
    truth = (labels if valid.all() else labels.where(valid, 0))[:, None]
    return log_p, log_p.gather(1, truth)[:, 0].where(valid, 0.0), truth, valid


class _NegativeLogLikelihood(torch.autograd.Function):
    """Its gradient is softmax(logits), less 1 at the label."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:  # noqa: ANN401
        log_p, log_truth, truth, valid = _log_softmax_at(logits, labels)
        ctx.save_for_backward(log_p.exp_(), truth, valid)
        return log_truth.neg_()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        p, truth, valid = ctx.saved_tensors
        of_pixel = gradients[0].where(valid, 0.0)[:, None]
        return (p * of_pixel).scatter_add_(1, truth, -of_pixel), None


def class_sums(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What cross-entropy and Dice are made of, p = softmax(logits), sums over pixels that are not void.

    Args:
        logits: (N, C, H, W) float.
        labels: (N, H, W) int64, 255 = void.

    Returns:
        sum of -log p[label], a scalar; sum of p[label] by label, (C,); sum of p by class, (C,). float32.
    """
    sums: tuple[Tensor, Tensor, Tensor] = _ClassSums.apply(logits, labels)  # type: ignore[no-untyped-call]
    return sums


class _ClassSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        num_classes = logits.shape[1]
        log_p, log_truth, truth, valid = _log_softmax_at(logits, labels)
        p, p_truth = log_p.exp_(), log_truth.exp().where(valid, 0.0)
        shared = torch.zeros(num_classes, device=p.device).index_add_(0, truth.flatten(), p_truth.flatten())
        predicted = torch.bmm(p.flatten(2), valid.float().flatten(1)[:, :, None]).sum(dim=0)[:, 0]
        ctx.save_for_backward(p, p_truth, truth, valid)
        return -log_truth.sum(), shared, predicted

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        p, p_truth, truth, valid = ctx.saved_tensors
        of_likelihood, of_shared, of_predicted = gradients
        # By p: a[c] on every class, and b on the label's. Through softmax: p * (a - sum of p * (a, b)) + b * p[label].
        b = of_shared[truth[:, 0]] * p_truth
        mean = torch.matmul(of_predicted, p.flatten(2)).view_as(b) + b
        slope = ((of_predicted + of_likelihood)[:, None, None] - mean[:, None]).mul_(p)
        slope.scatter_add_(1, truth, (b - of_likelihood)[:, None])
        return slope.mul_(valid[:, None]), None


def softened_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL( softmax(teacher / T) || softmax(student / T) ) of each pixel; no gradient for the teacher.

    Args:
        student_logits: (N, C, H, W) float.
        teacher_logits: the same.
        temperature: T > 0.

    Returns:
        (N, H, W) float32.
    """
    divergence: Tensor = _SoftenedKL.apply(student_logits, teacher_logits, temperature)  # type: ignore[no-untyped-call]
    return divergence


class _SoftenedKL(torch.autograd.Function):
    """Its gradient is (softmax(student / T) - softmax(teacher / T)) / T: one tensor is kept, autograd keeps four."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:  # noqa: ANN401
        divergence = torch.empty_like(student[:, 0], dtype=torch.float32, memory_format=torch.contiguous_format)
        difference = torch.empty_like(student, dtype=torch.float32, memory_format=torch.contiguous_format)
        # On a CPU a few images at a time: no slower, and five tensors of a few instead of all. A GPU wants few calls.
        size = max(1, _AT_ONCE // student[0].numel()) if student.device.type == "cpu" else len(student)
        for start in range(0, len(student), size):
            here = slice(start, start + size)
            log_student = F.log_softmax(_softened(student[here], temperature), dim=1)
            log_teacher = F.log_softmax(_softened(teacher[here], temperature), dim=1)
            p_teacher = log_teacher.exp()
            torch.sum(log_teacher.sub_(log_student).mul_(p_teacher), dim=1, out=divergence[here])
            torch.sub(log_student.exp_(), p_teacher, out=difference[here])
        ctx.save_for_backward(difference)
        ctx.temperature = temperature
        return divergence

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (difference,) = ctx.saved_tensors
        return difference * (gradients[0] / ctx.temperature)[:, None], None, None


def _softened(logits: Tensor, temperature: float) -> Tensor:
    """Logits / T in `contiguous_float32`, divided in place where that made a copy."""
    plain = contiguous_float32(logits)
    return plain / temperature if plain.data_ptr() == logits.data_ptr() else plain.div_(temperature)


def block_means(maps: Tensor, side: int) -> Tensor:
    """Means of blocks of side x side pixels: float (..., H, W) to (..., H / side, W / side); what is beyond the last
    whole block is left out.
    """
    return maps if side == 1 else _join_blocks(maps, side, torch.add).div_(side**2)


def whole_blocks(where: Tensor, side: int) -> Tensor:
    """Where every pixel of a block is True, bool, shapes as in `block_means`."""
    return _join_blocks(where, side, torch.logical_and)


def _join_blocks(maps: Tensor, side: int, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    height, width = (size - size % side for size in maps.shape[-2:])
    rows = reduce(join, (maps[..., first:height:side, :] for first in range(side)))  # whole rows are quick
    return reduce(join, (rows[..., first:width:side] for first in range(side)))


def float_and_means(logits: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The logits in `contiguous_float32` for one loss, and their `block_means` for another.

    Autograd would fill tensors as large as all logits on the way back from the means, one for each step of it.

    Args:
        logits: (N, C, H, W) float.
        side: of the blocks in pixels.

    Returns:
        (N, C, H, W) and (N, C, h, w), float32.
    """
    if side == 1:
        plain = contiguous_float32(logits)
        return plain, plain
    both: tuple[Tensor, Tensor] = _FloatAndMeans.apply(logits, side)  # type: ignore[no-untyped-call]
    return both


class _FloatAndMeans(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, side: int) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        ctx.side, ctx.shape, ctx.dtype, ctx.device = side, logits.shape, logits.dtype, logits.device
        ctx.set_materialize_grads(False)
        plain = contiguous_float32(logits)
        return plain.view_as(plain), block_means(plain, side)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None]:  # noqa: ANN401
        of_all, of_means = gradients  # None where a loss did not use it
        if of_all is None:
            slope = torch.zeros(ctx.shape, dtype=ctx.dtype, device=ctx.device)
        else:
            slope = of_all.to(ctx.dtype, copy=True)  # a gradient that comes in is not ours to change
        if of_means is not None:
            rows = (of_means / ctx.side**2).to(ctx.dtype).repeat_interleave(ctx.side, dim=-1)
            height, width = (size * ctx.side for size in of_means.shape[-2:])
            whole = slope[..., :height, :width]
            whole.view(*whole.shape[:-2], -1, ctx.side, width).add_(rows[..., None, :])
        return slope, None
