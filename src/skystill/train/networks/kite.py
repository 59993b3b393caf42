"""Kite: the fastest student. It works at a quarter of the resolution from its first layer on."""

from torch import Tensor, nn

from skystill.raster.input_spec import RGB, InputSpec
from skystill.train.networks.blocks import (
    ConvNorm,
    Normalize,
    Residual,
    add_upsampled,
    encoder_levels,
)
from skystill.train.networks.levels import Leveled
from skystill.train.networks.pixel_shuffle import pixel_shuffle


class Kite(Leveled):
    """The fastest student. It works at 1/4 of the resolution or below, and ends with a pixel shuffle.

    A small U-Net is slow because of its convolutions at full resolution (docs/design.md). A Kite has none. The encoder
    has levels at 1/4, 1/8, 1/16, ... of the resolution. A 1x1 convolution gives each level the channels of the first.
    The decoder adds each level to the next finer one.

    Args:
        num_classes: C, channels of the logits.
        channels: channels of each level, from 1/4 of the resolution on.
        blocks: number of residual blocks of each level.
        input_spec: what the network is fed.
    """

    stride = 4  # With 8, roads and small houses are lost. Swift has 2.

    def __init__(
        self, num_classes: int, channels: tuple[int, ...], blocks: tuple[int, ...], input_spec: InputSpec = RGB
    ) -> None:
        super().__init__()
        self.multiple = self.stride * 2 ** (len(channels) - 1)
        self.feature_layer = f"levels.{len(channels) - 1}"
        self.normalize = Normalize(input_spec)
        self.levels = encoder_levels(len(input_spec) * self.stride**2, channels, blocks)
        self.lateral = nn.ModuleList(ConvNorm(size, channels[0], kernel=1) for size in channels)
        self.smooth = nn.ModuleList(Residual(channels[0]) for _ in channels[1:])
        self.head = nn.Conv2d(channels[0], num_classes * self.stride**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, B, H, W), as the spec says, to logits (N, C, H, W)."""
        height, width = images.shape[-2:]
        features = self.normalize(images, self.multiple, self.stride)
        pyramid: list[Tensor] = []
        for level, lateral in zip(self.levels, self.lateral, strict=True):
            features = level(features)
            pyramid.append(lateral(features))
        features = pyramid.pop()
        for smooth in self.smooth:
            features = smooth(add_upsampled(pyramid.pop(), features))
        return pixel_shuffle(self.head(features), self.stride)[..., :height, :width]
