"""Swift: the accurate student, which starts at half of the resolution."""

from itertools import pairwise

from torch import Tensor, nn

from skystill.train.networks.blocks import (
    ConvNorm,
    Normalize,
    Residual,
    add_upsampled,
    encoder_levels,
    pad_and_unshuffle,
)
from skystill.train.networks.pixel_shuffle import pixel_shuffle


class Swift(nn.Module):
    """The accurate student: as Kite, but from 1/2 resolution, with next to no work there and each level's own width.

    The encoder goes 1/2, 1/4, 1/8, ...; the decoder brings what is deeper to the width of the next finer level, adds
    it there, and goes on with residual blocks: a U-Net that adds where that one concatenates.

    Args:
        num_classes: C, channels of the logits.
        channels: width of each level, from 1/2 down.
        blocks: residual blocks at each level, on the way down.
        up_blocks: the same on the way up, from 1/2 down: one level less, the deepest is not on it.
    """

    stride = 2

    def __init__(
        self, num_classes: int, channels: tuple[int, ...], blocks: tuple[int, ...], up_blocks: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.multiple = self.stride * 2 ** (len(channels) - 1)
        self.feature_layer = f"levels.{len(channels) - 1}"
        self.normalize = Normalize()
        self.levels = encoder_levels(3 * self.stride**2, channels, blocks)
        self.narrow = nn.ModuleList(ConvNorm(deep, shallow, kernel=1) for shallow, deep in pairwise(channels))
        self.smooth = nn.ModuleList(
            nn.Sequential(*(Residual(size) for _ in range(count)))
            for size, count in zip(channels[:-1], up_blocks, strict=True)
        )
        self.head = nn.Conv2d(channels[0], num_classes * self.stride**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), 0 to 255, to logits (N, C, H, W)."""
        height, width = images.shape[-2:]
        features = self.normalize(pad_and_unshuffle(images, self.multiple, self.stride))
        pyramid: list[Tensor] = []
        for level in self.levels:
            features = level(features)
            pyramid.append(features)
        pyramid.pop()
        for narrow, smooth in zip(reversed(self.narrow), reversed(self.smooth), strict=True):
            features = smooth(add_upsampled(pyramid.pop(), narrow(features)))
        return pixel_shuffle(self.head(features), self.stride)[..., :height, :width]
