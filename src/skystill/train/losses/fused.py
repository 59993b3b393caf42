"""Operations that the losses share, with gradients written by hand.

Autograd would keep each intermediate tensor, which is as large as the logits, and would go over all of them again in
the backward pass. For small students this cost as much as the network itself (docs/log.md).
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skystill.classes import VOID

_AT_ONCE = 2**20  # logits that `_SoftenedKL` handles at a time on a CPU


def contiguous_float32(logits: Tensor) -> Tensor:
    """Return logits (N, C, H, W) as float32 in the contiguous memory layout.

    Softmax over classes is up to twice as fast in this layout as with channels last.
    """
    return logits.to(torch.float32, memory_format=torch.contiguous_format)  # one pass for type and layout


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log softmax(logits)[label] for each pixel, and 0 where the label is void.

    Args:
        logits: (N, C, H, W) float.
        labels: (N, H, W) int64, 255 = void.

    Returns:
        (N, H, W) float32. Only the logits get a gradient.
    """
    found: Tensor = _NegativeLogLikelihood.apply(logits, labels)  # type: ignore[no-untyped-call]
    return found


def _log_softmax_at(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute what `_NegativeLogLikelihood` and `_ClassSums` both start from.

    Returns:
        log softmax(logits), (N, C, H, W) float32.
        The same at the label of each pixel, (N, H, W) float32, 0 where void.
        The labels, (N, 1, H, W) int64, 0 where void.
        True where the label is not void, (N, H, W) bool.
    """
    log_p = F.log_softmax(contiguous_float32(logits), dim=1)
    valid = labels != VOID
    truth = (labels if valid.all() else labels.where(valid, 0))[:, None]
    return log_p, log_p.gather(1, truth)[:, 0].where(valid, 0.0), truth, valid


class _NegativeLogLikelihood(torch.autograd.Function):
    """The gradient of a pixel is softmax(logits), minus 1 at the label."""

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
    """Return the sums from which cross-entropy and Dice are computed, with p = softmax(logits).

    All sums run over the pixels of the batch that are not void.

    Args:
        logits: (N, C, H, W) float.
        labels: (N, H, W) int64, 255 = void.

    Returns:
        Sum of -log p[label], a scalar; sum of p[label] for each label, (C,); sum of p for each class, (C,). All are
        float32.
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
        # The gradient with respect to p[c] is of_predicted[c], plus of_shared[label] if c is the label. Softmax turns a
        # gradient g into p * (g - sum of p * g). `b` is the label's term of p * g, and `mean` is the sum of p * g. The
        # gradient of -log p[label] with respect to the logits is p, minus 1 at the label.
        b = of_shared[truth[:, 0]] * p_truth
        mean = torch.matmul(of_predicted, p.flatten(2)).view_as(b) + b
        slope = ((of_predicted + of_likelihood)[:, None, None] - mean[:, None]).mul_(p)
        slope.scatter_add_(1, truth, (b - of_likelihood)[:, None])
        return slope.mul_(valid[:, None]), None


def softened_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return KL( softmax(teacher / T) || softmax(student / T) ) for each pixel, summed over classes.

    Args:
        student_logits: (N, C, H, W) float.
        teacher_logits: (N, C, H, W) float. They get no gradient.
        temperature: T > 0.

    Returns:
        (N, H, W) float32, not multiplied by T^2.
    """
    divergence: Tensor = _SoftenedKL.apply(student_logits, teacher_logits, temperature)  # type: ignore[no-untyped-call]
    return divergence


class _SoftenedKL(torch.autograd.Function):
    """The gradient of a pixel is (softmax(student / T) - softmax(teacher / T)) / T.

    Only the difference of the two is kept for the backward pass. Autograd would keep four tensors of that size.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:  # noqa: ANN401
        divergence = torch.empty_like(student[:, 0], dtype=torch.float32, memory_format=torch.contiguous_format)
        difference = torch.empty_like(student, dtype=torch.float32, memory_format=torch.contiguous_format)
        # A CPU handles a few images at a time: this is no slower, and the five temporary tensors hold only these
        # images. A GPU handles the whole batch, because it is faster with few calls.
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
    """Return logits / T as `contiguous_float32`, divided in place if that conversion made a copy."""
    plain = contiguous_float32(logits)
    return plain / temperature if plain.data_ptr() == logits.data_ptr() else plain.div_(temperature)


def block_means(maps: Tensor, side: int) -> Tensor:
    """Average over blocks of side x side pixels.

    Args:
        maps: (..., H, W) float.
        side: of the blocks, in pixels. At 1 `maps` itself is returned.

    Returns:
        (..., H // side, W // side). Rows and columns beyond the last whole block are left out.
    """
    return maps if side == 1 else _join_blocks(maps, side, torch.add).div_(side**2)


def whole_blocks(where: Tensor, side: int) -> Tensor:
    """Return True for each block whose pixels are all True. The arguments and shapes are those of `block_means`.

    Args:
        where: (..., H, W) bool.
        side: of the blocks, in pixels.

    Returns:
        (..., H // side, W // side) bool.
    """
    return _join_blocks(where, side, torch.logical_and)


def _join_blocks(maps: Tensor, side: int, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    height, width = (size - size % side for size in maps.shape[-2:])
    rows = reduce(join, (maps[..., first:height:side, :] for first in range(side)))  # whole rows are fast to read
    return reduce(join, (rows[..., first:width:side] for first in range(side)))


def float_and_means(logits: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the logits as `contiguous_float32` for one loss, and their `block_means` for another.

    In the backward pass of the means, autograd would fill a tensor as large as the logits for each of their operations.

    Args:
        logits: (N, C, H, W) float.
        side: of the blocks, in pixels.

    Returns:
        (N, C, H, W) and (N, C, H // side, W // side), both float32.
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
        of_all, of_means = gradients  # None if no loss used this output
        if of_all is None:
            slope = torch.zeros(ctx.shape, dtype=ctx.dtype, device=ctx.device)
        else:
            slope = of_all.to(ctx.dtype, copy=True)  # an incoming gradient must not be changed in place
        if of_means is not None:
            rows = (of_means / ctx.side**2).to(ctx.dtype).repeat_interleave(ctx.side, dim=-1)
            height, width = (size * ctx.side for size in of_means.shape[-2:])
            whole = slope[..., :height, :width]
            whole.view(*whole.shape[:-2], -1, ctx.side, width).add_(rows[..., None, :])
        return slope, None
