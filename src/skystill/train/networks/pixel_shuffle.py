"""Pixel unshuffle and pixel shuffle: squares of pixels are moved into channels and back.

With them a network works at a fraction of the resolution from its first layer on. Source: Shi 2016, arXiv 1609.05158.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_WIDE_TYPES = {4: torch.int32, 8: torch.int64, 16: torch.complex128}  # by the number of bytes that are moved at once


def pixel_unshuffle(images: Tensor, stride: int) -> Tensor:
    """Move squares of stride x stride pixels into channels: (N, C, H, W) to (N, C * stride^2, H / stride, W / stride).

    The values are those of `F.pixel_unshuffle`. They are moved with two transpositions instead of one: first within
    each row, then whole rows. ONNX Runtime moves the bytes of a 1024x1024 image in 5 ms this way, and in 17 ms with one
    transposition (one thread).
    """
    if stride == 1:
        return images
    count, channels, height, width = images.shape
    high, wide = height // stride, width // stride
    rows = images.reshape(count, channels * height, wide, stride).transpose(2, 3)
    squares = rows.reshape(count, channels, high, stride**2, wide).transpose(2, 3)
    return squares.reshape(count, channels * stride**2, high, wide)


def pixel_shuffle(features: Tensor, stride: int) -> Tensor:
    """Move channels back into squares of pixels: (N, C * stride^2, H, W) to (N, C, H * stride, W * stride).

    The values are those of `F.pixel_shuffle`.
    """
    if stride == 1:
        return features
    if stride * features.element_size() in _WIDE_TYPES and not torch.compiler.is_compiling():
        shuffled: Tensor = _PixelShuffle.apply(features, stride)  # type: ignore[no-untyped-call]
        return shuffled
    # An export, or a size that does not move as one number: two transpositions, as above.
    count, _, high, wide = features.shape
    channels = features.shape[1] // stride**2
    rows = features.reshape(count, channels, stride**2, high, wide).transpose(2, 3)
    pixels = rows.reshape(count, channels * high * stride, stride, wide).transpose(2, 3)
    return pixels.reshape(count, channels, high * stride, wide * stride)


class _PixelShuffle(torch.autograd.Function):
    """Pixel shuffle for channels-last features, which moves several values at once.

    In this layout the values of one row of a square are neighbours in memory, before and after. They are therefore
    moved as one wide number. In training, forward and backward pass together take a third of the time that moving
    single values takes (docs/log.md).
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, stride: int) -> Tensor:  # noqa: ANN401
        ctx.stride = stride
        count, channels, high, wide = features.shape
        channels //= stride**2
        rows = features.permute(0, 2, 3, 1).reshape(count, high, wide, channels, stride, stride)
        moved = _in_order(_as_one(rows).permute(0, 3, 1, 4, 2))  # (N, C, H, row of the square, W)
        return moved.view(features.dtype).view(count, channels, high * stride, wide * stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        stride = ctx.stride
        count, channels, height, width = gradient.shape
        rows = gradient.reshape(count, channels, height // stride, stride, width // stride, stride)
        moved = _in_order(_as_one(rows).permute(0, 2, 4, 1, 3))  # (N, H, W, C, row of the square)
        squares = moved[..., None].view(gradient.dtype).flatten(3)
        return squares.permute(0, 3, 1, 2), None


def _as_one(rows: Tensor) -> Tensor:
    """View the last axis as one wide number with the same bits."""
    return _in_order(rows).view(_WIDE_TYPES[rows.shape[-1] * rows.element_size()])[..., 0]


def _in_order(values: Tensor) -> Tensor:
    """The values in plain layout, with the strides of that layout.

    `contiguous()` is not enough: a tensor of a single column counts as contiguous whatever its last stride is, and
    cannot be viewed as another type then.
    """
    return (
        values
        if values.is_contiguous() and values.stride(-1) == 1
        else values.clone(memory_format=torch.contiguous_format)
    )
