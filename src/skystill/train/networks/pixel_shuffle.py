"""Squares of pixels into channels and back: how a network works at a part of the resolution from its first layer on.

Source: Shi 2016, arXiv 1609.05158.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_WIDE = {4: torch.int32, 8: torch.int64, 16: torch.complex128}  # a type for each number of bytes that moves as one


def pixel_unshuffle(images: Tensor, stride: int) -> Tensor:
    """Squares of stride x stride pixels into channels: (N, C, H, W) to (N, C * stride^2, H / stride, W / stride).

    The values of `F.pixel_unshuffle`, in two turns instead of one: first within each row, then whole rows. ONNX
    Runtime moves the bytes of a 1024x1024 image so in 5 ms, in one turn in 17 (one thread).
    """
    if stride == 1:
        return images
    count, channels, height, width = images.shape
    high, wide = height // stride, width // stride
    rows = images.reshape(count, channels * height, wide, stride).transpose(2, 3)
    squares = rows.reshape(count, channels, high, stride**2, wide).transpose(2, 3)
    return squares.reshape(count, channels * stride**2, high, wide)


def pixel_shuffle(features: Tensor, stride: int) -> Tensor:
    """The way back: (N, C * stride^2, H, W) to (N, C, H * stride, W * stride), as `F.pixel_shuffle`."""
    if stride == 1:
        return features
    if stride * features.element_size() in _WIDE and not torch.compiler.is_compiling():
        unfolded: Tensor = _PixelShuffle.apply(features, stride)  # type: ignore[no-untyped-call]
        return unfolded
    count, _, high, wide = features.shape  # an export: in two turns, as above
    channels = features.shape[1] // stride**2
    rows = features.reshape(count, channels, stride**2, high, wide).transpose(2, 3)
    pixels = rows.reshape(count, channels * high * stride, stride, wide).transpose(2, 3)
    return pixels.reshape(count, channels, high * stride, wide * stride)


class _PixelShuffle(torch.autograd.Function):
    """With channels last the values of one square's row lie side by side before and after: they move as one number.

    In training, forward and backward together take a third of what they take value by value (docs/log.md).
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, stride: int) -> Tensor:  # noqa: ANN401
        ctx.stride = stride
        count, channels, high, wide = features.shape
        channels //= stride**2
        rows = features.permute(0, 2, 3, 1).reshape(count, high, wide, channels, stride, stride)
        moved = _as_one(rows).permute(0, 3, 1, 4, 2).contiguous()  # N, C, H, row of the square, W
        return moved.view(features.dtype).view(count, channels, high * stride, wide * stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        stride = ctx.stride
        count, channels, height, width = gradient.shape
        rows = gradient.reshape(count, channels, height // stride, stride, width // stride, stride)
        moved = _as_one(rows).permute(0, 2, 4, 1, 3).contiguous()  # N, H, W, C, row of the square
        squares = moved[..., None].view(gradient.dtype).flatten(3)
        return squares.permute(0, 3, 1, 2), None


def _as_one(rows: Tensor) -> Tensor:
    """The last axis as one number a row, bit by bit."""
    return rows.contiguous().view(_WIDE[rows.shape[-1] * rows.element_size()])[..., 0]
