"""The first layer of a network that was trained on colours, fitted to other bands and their scale."""

import torch
from torch import Tensor

from skystill.raster.input_spec import InputSpec

_COLORS = ("red", "green", "blue")
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of its bytes; torchvision's numbers


def spread_kernel(kernel: Tensor, input_spec: InputSpec) -> Tensor:
    """Spread the kernel of a first convolution over the bands of a network.

    A band that is named red, green or blue gets the kernel of this colour, every other band the mean of the three. All
    are multiplied by 3 / B, so that the sum of B bands is as large as that of three.

    Args:
        kernel: (C, 3, h, w), of red, green and blue.
        input_spec: the B bands.

    Returns:
        (C, B, h, w).
    """
    parts = [kernel.mean(dim=1) if own is None else kernel[:, own] for own in colors_of(input_spec)]
    return torch.stack(parts, dim=1) * (3 / len(parts))


def on_other_bands(kernel: Tensor, colors: InputSpec, input_spec: InputSpec) -> Tensor:
    """Fit the kernel of a first layer on squares of pixels, for red, green and blue in bytes, to other bands.

    Three bands of bytes are normalised much as the colours are, to the spread of the images. Any other band has the
    deviation 1 behind `Normalize`, and is multiplied by the mean deviation that the colours had there.

    Args:
        kernel: (C, 3 S, h, w), where S is the number of pixels of a square.
        colors: what it was trained on.
        input_spec: the B bands.

    Returns:
        (C, B S, h, w).
    """
    if input_spec.is_colors:
        return kernel
    count, inputs, height, width = kernel.shape
    spread = spread_kernel(kernel.reshape(count, 3, inputs // 3 * height, width), input_spec)
    if not input_spec.is_three_bytes:
        spread = spread * (sum(band.std for band in colors.bands) / 3 / colors.unit)
    return spread.reshape(count, -1, height, width)


def colors_of(input_spec: InputSpec) -> list[int | None]:
    """For each band 0, 1 or 2 if it is named red, green or blue, otherwise None."""
    return [_COLORS.index(band.name) if band.name in _COLORS else None for band in input_spec.bands]


def in_bytes(input_spec: InputSpec) -> list[tuple[float, float]]:
    """What `Normalize` makes of each band stands for mean + std * normalised in the bytes of ImageNet.

    Three bands of bytes are normalised by the two numbers of the spec. Any other band has mean 0 and deviation 1, and
    is given the mean and the deviation of its colour in ImageNet, or of all three.

    Returns:
        mean and std of each band.
    """
    if input_spec.is_three_bytes:
        return [(float(input_spec.zero), input_spec.unit)] * 3
    return [(of_color(IMAGENET_MEAN, own), of_color(IMAGENET_STD, own)) for own in colors_of(input_spec)]


def of_color(three: tuple[float, ...], own: int | None) -> float:
    """The value of a colour, or the mean of the three where a band is none of them."""
    return sum(three) / 3 if own is None else three[own]
