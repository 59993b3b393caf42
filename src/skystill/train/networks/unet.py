"""U-Net: the classical teacher and, with two levels, the classical small student."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.raster.input_spec import RGB, InputSpec
from skystill.train.networks.blocks import DoubleConv, Normalize
from skystill.train.networks.levels import Leveled
from skystill.train.networks.pixel_shuffle import pixel_shuffle


class UNet(Leveled):
    """U-Net (Ronneberger, Fischer, Brox 2015, arXiv 1505.04597): encoder, decoder, skip connections.

    Args:
        num_classes: C, channels of the logits.
        channels: channels of the first level; every further level has twice as many.
        depth: number of levels. 5 is the teacher of the project's first plan, 2 its student.
        norm: whether every block has BatchNorm. It trains better. It costs nothing in use, because the export folds it
            into the convolutions.
        stride: 1 is the classical network. With 2 or 4 a pixel unshuffle moves squares of pixels into channels first,
            and a pixel shuffle moves them back at the end (Shi 2016, arXiv 1609.05158). The first level then works at
            1/stride of the resolution, so that far more channels take the same time.
        input_spec: what the network is fed.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 16,
        depth: int = 5,
        norm: bool = True,
        stride: int = 1,
        input_spec: InputSpec = RGB,
    ) -> None:
        super().__init__()
        sizes = [channels * 2**level for level in range(depth)]
        self.stride = stride
        self.multiple = stride * 2 ** (depth - 1)
        self.feature_layer = f"encoder.{depth - 1}"
        self.normalize = Normalize(input_spec)
        self.encoder = nn.ModuleList(
            DoubleConv(before, after, norm) for before, after in pairwise([len(input_spec) * stride**2, *sizes])
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(deep, shallow, 2, stride=2) for shallow, deep in reversed(list(pairwise(sizes)))
        )
        self.decoder = nn.ModuleList(DoubleConv(2 * size, size, norm) for size in reversed(sizes[:-1]))
        self.head = nn.Conv2d(channels, num_classes * stride**2, 1)

    @property
    def levels(self) -> nn.ModuleList:  # type: ignore[override]  # weights files name it encoder
        """The levels of the encoder, the finest first."""
        return self.encoder

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, B, H, W), as the spec says, to logits (N, C, H, W)."""
        height, width = images.shape[-2:]
        features = self.normalize(images, self.multiple, self.stride)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            features = block(F.max_pool2d(features, 2) if level else features)
            skips.append(features)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            features = block(torch.cat([skips.pop(), up(features)], dim=1))
        return pixel_shuffle(self.head(features), self.stride)[..., :height, :width]
