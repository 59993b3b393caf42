"""Swift: the accurate student. Its first level works at half of the resolution."""

from itertools import pairwise

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


class AdditiveUNet(Leveled):
    """A U-Net at half of the resolution and below, which adds its skip connections instead of concatenating them.

    In the decoder a 1x1 convolution gives the deeper features the channels of the next finer level, where they are
    added and residual blocks follow. A pixel shuffle gives the full resolution.

    Args:
        num_classes: C, channels of the logits.
        levels: the encoder, from 1/2 of the resolution on. It is fed squares of 2 x 2 pixels.
        channels: channels of each level.
        up_blocks: number of residual blocks of each level of the decoder, from 1/2 of the resolution on. It is one
            shorter than `channels`, because the deepest level has no decoder.
        input_spec: what the network is fed.
    """

    stride = 2

    def __init__(
        self,
        num_classes: int,
        levels: nn.ModuleList,
        channels: tuple[int, ...],
        up_blocks: tuple[int, ...],
        input_spec: InputSpec,
    ) -> None:
        super().__init__()
        self.multiple = self.stride * 2 ** (len(channels) - 1)
        self.feature_layer = f"levels.{len(channels) - 1}"
        self.normalize = Normalize(input_spec)
        self.levels = levels
        self.narrow = nn.ModuleList(ConvNorm(deep, shallow, kernel=1) for shallow, deep in pairwise(channels))
        self.smooth = nn.ModuleList(
            nn.Sequential(*(Residual(size) for _ in range(count)))
            for size, count in zip(channels[:-1], up_blocks, strict=True)
        )
        self.head = nn.Conv2d(channels[0], num_classes * self.stride**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, B, H, W), as the spec says, to logits (N, C, H, W)."""
        height, width = images.shape[-2:]
        features = self.normalize(images, self.multiple, self.stride)
        pyramid: list[Tensor] = []
        for level in self.levels:
            features = level(features)
            pyramid.append(features)
        pyramid.pop()
        for narrow, smooth in zip(reversed(self.narrow), reversed(self.smooth), strict=True):
            features = smooth(add_upsampled(pyramid.pop(), narrow(features)))
        return pixel_shuffle(self.head(features), self.stride)[..., :height, :width]


class Swift(AdditiveUNet):
    """The accurate student. It starts at 1/2 of the resolution, and its decoder keeps the channels of each level.

    The encoder has levels at 1/2, 1/4, 1/8, ... of the resolution, with little work at the first.

    Args:
        num_classes: C, channels of the logits.
        channels: channels of each level, from 1/2 of the resolution on.
        blocks: number of residual blocks of each level of the encoder.
        up_blocks: as in `AdditiveUNet`.
        input_spec: what the network is fed.
    """

    def __init__(
        self,
        num_classes: int,
        channels: tuple[int, ...],
        blocks: tuple[int, ...],
        up_blocks: tuple[int, ...],
        input_spec: InputSpec = RGB,
    ) -> None:
        levels = encoder_levels(len(input_spec) * self.stride**2, channels, blocks)
        super().__init__(num_classes, levels, channels, up_blocks, input_spec)
