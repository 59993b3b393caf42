"""The small parts that the networks are made of."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.train.networks.pixel_shuffle import pixel_unshuffle

_N = TypeVar("_N", bound=nn.Module)


class Normalize(nn.Module):
    """Pixels 0..255 to -2..2, with one mean and spread for all channels.

    128 and 64: aerial photographs are neither as dark nor as saturated as ImageNet, and the first convolution (or its
    BatchNorm) learns the rest. And (x - 128) / 64 is how 8-bit quantisation reads a byte with zero point 128, so that
    an exported network takes the image's bytes as they are (see export.py).
    """

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) uint8 or float, 0 to 255, to float of the same shape."""
        kind = images.device.type
        if images.dtype == torch.uint8 and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            # All of these values are exact in half the bits, too; and convolutions want channels last.
            half = images.contiguous(memory_format=torch.channels_last).to(torch.get_autocast_dtype(kind))
            return half.sub_(128.0).div_(64.0)
        return (images.float() - 128.0) / 64.0


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Add grey rows and columns below and right until H and W divide by `multiple`.

    Grey (128) is zero after `Normalize`: the same as what every convolution pads with.
    """
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple), value=128)


def pad_and_unshuffle(images: Tensor, multiple: int, stride: int) -> Tensor:
    """Images filled up to a multiple of `multiple`, squares of stride x stride pixels folded into channels.

    Before `Normalize`, so that bytes are moved and not floats: cheaper.
    """
    return pixel_unshuffle(pad_to_multiple(images, multiple), stride)


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with ReLU; with `norm`, BatchNorm before each ReLU (and then no bias)."""

    def __init__(self, inputs: int, outputs: int, norm: bool) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=not norm))
            layers.extend([nn.BatchNorm2d(outputs)] if norm else [])
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class ConvNorm(nn.Sequential):
    """Convolution and BatchNorm, which export folds into one; ReLU6-free, so that INT8 scales stay tight."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        )


class Residual(nn.Module):
    """Two 3x3 convolutions around an identity (He 2015, arXiv 1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return F.relu(features + self.second(F.relu(self.first(features))))


def encoder_levels(inputs: int, channels: Sequence[int], blocks: Sequence[int]) -> nn.ModuleList:
    """An encoder: each level halves the resolution of the one before it, and has so many residual blocks."""
    return nn.ModuleList(
        nn.Sequential(
            nn.Sequential(ConvNorm(before, size, stride=2 if level else 1), nn.ReLU(inplace=True)),
            *(Residual(size) for _ in range(count)),
        )
        for level, (before, size, count) in enumerate(zip([inputs, *channels[:-1]], channels, blocks, strict=True))
    )


def add_upsampled(fine: Tensor, coarse: Tensor) -> Tensor:
    """A level, and what comes from the next coarser one, of the same width and half the resolution."""
    return F.relu(fine + F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False))


def to_memory_format(network: _N, layout: torch.memory_format) -> _N:
    """Put the weights into channels-last (fast convolutions) or plain layout, in place; returns the network."""
    moved: _N = network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks this overload
    return moved
