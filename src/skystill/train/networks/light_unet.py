"""`LightUNet`: the light decoder that pretrained encoders of any kind share."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.raster.input_spec import InputSpec
from skystill.train.networks.blocks import ConvNorm, DoubleConv
from skystill.train.networks.levels import Leveled
from skystill.train.networks.pixel_shuffle import pixel_shuffle


class LightUNet(Leveled):
    """A U-Net with a light decoder, which goes up to half of the resolution.

    There, a 3x3 layer on the squares of the image joins it, so that edges do not depend on what the encoder keeps of
    them. A pixel shuffle gives the full resolution.
    """

    stride = 2
    margin = 192

    def add_decoder(
        self, num_classes: int, input_spec: InputSpec, sizes: Sequence[int], channels: Sequence[int]
    ) -> None:
        """Make the layers behind the encoder.

        Args:
            num_classes: C, channels of the logits.
            input_spec: what the network is fed.
            sizes: channels of the encoder's features from 1/2 of the resolution on, each at half of the resolution
                before. The first may be 0: an encoder that begins at 1/4.
            channels: channels of the decoder, from the second deepest resolution up to 1/2; one fewer than `sizes`.
        """
        squares = len(input_spec) * self.stride**2
        self.detail = nn.Sequential(ConvNorm(squares, channels[-1]), nn.ReLU(inplace=True))
        beside = [*sizes[-2:0:-1], sizes[0] + channels[-1]]
        self.decoder = nn.ModuleList(
            DoubleConv(before + skip, after, norm=True)
            for (before, after), skip in zip(pairwise([sizes[-1], *channels]), beside, strict=True)
        )
        self.head = nn.Conv2d(channels[-1], num_classes * self.stride**2, 1)

    def decode(self, pyramid: Sequence[Tensor], squares: Tensor) -> Tensor:
        """Compute the logits (N, C, H, W) of padded images.

        Args:
            pyramid: the encoder's features from 1/2 of the resolution on, or from 1/4 on where `sizes` began with 0.
            squares: (N, B * 4, H / 2, W / 2), the normalised image as squares of 2 x 2 pixels.
        """
        *skips, features = pyramid
        detail = self.detail(squares)
        if len(skips) == len(self.decoder):
            skips[0] = torch.cat([skips[0], detail], dim=1)
        else:
            skips.insert(0, detail)
        for block in self.decoder:
            raised = F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
            features = block(torch.cat([raised, skips.pop()], dim=1))
        return pixel_shuffle(self.head(features), self.stride)
