"""The building blocks that the networks share."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.raster.input_spec import RGB, InputSpec
from skystill.train.networks.pixel_shuffle import pixel_unshuffle

_Module = TypeVar("_Module", bound=nn.Module)


class Normalize(nn.Module):
    """The entry of a network: normalises pixels, pads them, and moves squares of them into channels.

    Three bands of bytes become (x - zero) / unit, with the same two numbers for all of them: 128 and 64 for most
    aerial photographs, whose bytes are then -2 to 2, and others for images that are dark, bright or flat
    (`data.bands.byte_scale`). The first convolution or its BatchNorm learns the rest. This is also how 8-bit
    quantisation reads a byte with a zero point. An exported network can therefore take the bytes of the image without
    conversion (export.py). They are padded and moved as bytes, which is cheaper than moving floats.

    The bands of every other input are normalised one by one, with their mean and standard deviation in the training
    images. This comes first, so that padding is zero in every band.

    Args:
        input_spec: what the network is fed.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, input_spec: InputSpec = RGB) -> None:
        super().__init__()
        self.input_spec = input_spec
        if not input_spec.is_three_bytes:
            for name in ("mean", "std"):
                values = torch.tensor([getattr(band, name) for band in input_spec.bands])[:, None, None]
                self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor, multiple: int = 1, stride: int = 1) -> Tensor:
        """Normalise images (N, B, H, W), as floats or in the data type of the spec.

        Args:
            images: the raster's own values.
            multiple: H and W are padded below and on the right until they are divisible by this.
            stride: squares of stride x stride pixels become channels.

        Returns:
            (N, B * stride^2, H' / stride, W' / stride) float, with the padded H' and W'.
        """
        if self.input_spec.is_three_bytes:
            padded = pad_to_multiple(images, multiple, self.input_spec.zero)  # convolutions pad with zeros as well
            return _scale_bytes(pixel_unshuffle(padded, stride), self.input_spec)
        return pixel_unshuffle(pad_to_multiple((images.float() - self.mean) / self.std, multiple, 0), stride)


def _scale_bytes(images: Tensor, spec: InputSpec) -> Tensor:
    device = images.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if images.dtype == torch.uint8 and autocast:
        # All 256 values are exact in half precision too. Convolutions are fastest in the channels-last layout.
        half = images.contiguous(memory_format=torch.channels_last).to(torch.get_autocast_dtype(device))
        return half.sub_(float(spec.zero)).div_(spec.unit)
    return (images.float() - float(spec.zero)) / spec.unit


def pad_to_multiple(images: Tensor, multiple: int, value: float) -> Tensor:
    """Add rows below and columns on the right, until H and W are divisible by `multiple`."""
    height, width = images.shape[-2:]
    # With -height % multiple, torch.export would reason for seconds about all the sizes that follow from it.
    up_height, up_width = ((side + multiple - 1) // multiple * multiple for side in (height, width))
    return F.pad(images, (0, up_width - width, 0, up_height - height), value=value)


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with ReLU. With `norm`, a BatchNorm comes before each ReLU and replaces the bias."""

    def __init__(self, inputs: int, outputs: int, norm: bool) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=not norm))
            layers.extend([nn.BatchNorm2d(outputs)] if norm else [])
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class ConvNorm(nn.Sequential):
    """A convolution and its BatchNorm, which the export folds into one convolution.

    ReLU follows it here, and ReLU6 only where weights were trained with it (lite.py).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        )


class Residual(nn.Module):
    """A residual block: two 3x3 convolutions beside an identity (He 2015, arXiv 1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return F.relu(features + self.second(F.relu(self.first(features))))


def encoder_levels(inputs: int, channels: Sequence[int], blocks: Sequence[int]) -> nn.ModuleList:
    """The levels of an encoder. Each level after the first halves the resolution.

    Args:
        inputs: channels of the encoder's input.
        channels: channels of each level.
        blocks: number of residual blocks of each level.
    """
    return nn.ModuleList(
        nn.Sequential(
            nn.Sequential(ConvNorm(before, size, stride=2 if level else 1), nn.ReLU(inplace=True)),
            *(Residual(size) for _ in range(count)),
        )
        for level, (before, size, count) in enumerate(zip([inputs, *channels[:-1]], channels, blocks, strict=True))
    )


def add_upsampled(fine: Tensor, coarse: Tensor) -> Tensor:
    """Add the features of the next coarser level, (N, C, H/2, W/2), to the features of a level, (N, C, H, W)."""
    return F.relu(fine + F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False))


def to_memory_format(network: _Module, layout: torch.memory_format) -> _Module:
    """Change the memory layout of the weights in place and return the network.

    Channels-last makes convolutions faster; the contiguous layout is torch's default.
    """
    moved: _Module = network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks this overload
    return moved
