"""Networks on the encoder of EfficientNet-Lite, which can begin with weights that were trained on ImageNet.

EfficientNet (Tan, Le 2019, arXiv 1905.11946) in the form for 8 bits that its authors published as EfficientNet-Lite:
without squeeze-and-excitation, with ReLU6, and with a stem of 32 channels at every size.
"""

import math
from collections.abc import Iterator

from torch import Tensor, nn

from skystill.raster.input_spec import RGB, InputSpec
from skystill.train.networks.blocks import Normalize
from skystill.train.networks.light_unet import LightUNet
from skystill.train.networks.stochastic_depth import StochasticDepth
from skystill.train.networks.swift import AdditiveUNet

# Of each stage: number of blocks, kernel, stride of the first block, expansion of the channels, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32
_EPS, _MOMENTUM = 1e-3, 0.01  # of every BatchNorm of the published networks
_MOST_SCALE = 4.0


class ConvNormAs(nn.Sequential):
    """A convolution without bias and its BatchNorm, padded as in TensorFlow ("same") for inputs of even size.

    With stride 2 this is one row and column more below and on the right than above and on the left.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        even = before == after
        conv = nn.Conv2d(inputs, outputs, kernel, stride, before if even else 0, groups=groups, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out")
        pad = [] if even else [nn.ZeroPad2d((before, after, before, after))]
        super().__init__(*pad, conv, nn.BatchNorm2d(outputs, eps=_EPS, momentum=_MOMENTUM))


class MBConv(nn.Module):
    """The inverted bottleneck of MobileNetV2 (Sandler 2018, arXiv 1801.04381): expand, filter each channel, project.

    Args:
        inputs, outputs: channels.
        hidden: channels between expansion and projection; None for those of the input, without an expansion.
        kernel, stride: of the depthwise convolution.
        drop: stochastic depth of the branch, where the block is residual.
    """

    def __init__(
        self, inputs: int, hidden: int | None, outputs: int, kernel: int, stride: int, drop: StochasticDepth
    ) -> None:
        super().__init__()
        self.expand = nn.Sequential(ConvNormAs(inputs, hidden), nn.ReLU6(inplace=True)) if hidden else None
        inside = hidden or inputs
        self.depthwise = nn.Sequential(
            ConvNormAs(inside, inside, kernel, stride, groups=inside), nn.ReLU6(inplace=True)
        )
        self.project = ConvNormAs(inside, outputs)
        self.drop = drop if stride == 1 and inputs == outputs else None

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, outputs, H / stride, W / stride). The output may be negative: no ReLU6 follows."""
        expanded = features if self.expand is None else self.expand(features)
        branch: Tensor = self.project(self.depthwise(expanded))
        return branch if self.drop is None else features + self.drop(branch)


def lite_levels(
    inputs: int,
    scale: tuple[float, float] = (1.0, 1.0),
    blocks: int | None = None,
    hidden: tuple[int, ...] = (),
    stochastic_depth: float = 0.0,
) -> nn.ModuleList:
    """The levels of an encoder of EfficientNet-Lite, from half of the resolution on.

    The stem, a 3x3 convolution of stride 2, is computed on the squares of 2 x 2 pixels that `Normalize` moves into
    channels: as a 2x2 convolution, whose kernel covers 4 x 4 pixels. With ImageNet weights the fourth row and column
    are zero at the start. Thus no layer works at full resolution, and one pass over the image feeds all that read it.

    Args:
        inputs: channels of the squares.
        scale: factors of channels and of the number of blocks: (1, 1) for lite0, (1, 1.1) for lite1, (1.1, 1.2) for
            lite2.
        blocks: number of blocks; None for all.
        hidden: channels inside the first blocks, instead of those of the paper. The first block has those of the stem.
        stochastic_depth: the rate that a block behind the last one would have. It rises linearly from 0 at the first.

    Raises:
        ValueError: a number is out of its range.
    """
    sizes = _block_sizes(scale, blocks)
    if not 0 <= stochastic_depth < 1:
        raise ValueError(f"stochastic_depth is {stochastic_depth}; 0 to below 1 was expected")
    most = [before * expansion for before, _, _, _, expansion in sizes]
    if len(hidden) > len(most) or not all(1 <= size <= limit for size, limit in zip(hidden, most, strict=False)):
        raise ValueError(
            f"hidden is {hidden}; up to {len(most)} numbers, each at most that of {tuple(most)}, were expected"
        )
    stem = hidden[0] if hidden else STEM
    levels: list[list[nn.Module]] = [[nn.Sequential(ConvNormAs(inputs, stem, 2), nn.ReLU6(inplace=True))]]
    for number, (before, size, kernel, stride, expansion) in enumerate(sizes):
        inside = hidden[number] if number < len(hidden) else before * expansion
        drop = StochasticDepth(stochastic_depth * number / len(sizes), number)
        block = MBConv(before if number else stem, inside if number else None, size, kernel, stride, drop)
        levels.extend([[]] if stride == 2 else [])
        levels[-1].append(block)
    return nn.ModuleList(nn.Sequential(*level) for level in levels)


def level_channels(scale: tuple[float, float], blocks: int | None = None) -> list[int]:
    """The channels of each level of `lite_levels`."""
    channels: list[int] = []
    for _, size, _, stride, _ in _block_sizes(scale, blocks):
        channels[-1:] = [*(channels[-1:] if stride == 2 else []), size]
    return channels


_BlockSizes = tuple[int, int, int, int, int]


def _block_sizes(scale: tuple[float, float], blocks: int | None) -> list[_BlockSizes]:
    """Input channels, output channels, kernel, stride and expansion of the first blocks, or of all."""
    sizes = list(_all_block_sizes(scale))
    if blocks is not None and not 1 <= blocks <= len(sizes):
        raise ValueError(f"blocks is {blocks}; 1 to {len(sizes)} were expected")
    return sizes[:blocks]


def _all_block_sizes(scale: tuple[float, float]) -> Iterator[_BlockSizes]:
    if len(scale) != 2 or not all(0 < factor <= _MOST_SCALE for factor in scale):
        raise ValueError(f"scale is {scale}; two factors above 0, up to {_MOST_SCALE:g}, were expected")
    before = STEM
    for stage, (count, kernel, stride, expansion, size) in enumerate(STAGES):
        after = _rounded(size * scale[0])
        fixed = stage in (0, len(STAGES) - 1)
        for first in [True] + [False] * ((count if fixed else math.ceil(count * scale[1])) - 1):
            yield before, after, kernel, stride if first else 1, expansion
            before = after


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, but not less than 90 %."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class LiteUNet(LightUNet):
    """A teacher: a U-Net on an encoder of EfficientNet-Lite.

    Args:
        num_classes: C, channels of the logits.
        scale: factors of channels and of the number of blocks of the encoder, as in `lite_levels`.
        channels: channels of the decoder, from 1/16 to 1/2 of the resolution.
        stochastic_depth: as in `lite_levels`.
        input_spec: what the network is fed.
    """

    def __init__(
        self,
        num_classes: int,
        scale: tuple[float, float] = (1.0, 1.0),
        channels: tuple[int, ...] = (128, 64, 48, 32),
        stochastic_depth: float = 0.0,
        input_spec: InputSpec = RGB,
    ) -> None:
        super().__init__()
        sizes = level_channels(scale)
        self.scale = scale
        self.multiple = self.stride * 2 ** (len(sizes) - 1)
        self.feature_layer = f"levels.{len(sizes) - 1}"
        self.normalize = Normalize(input_spec)
        self.levels = lite_levels(len(input_spec) * self.stride**2, scale, stochastic_depth=stochastic_depth)
        self.add_decoder(num_classes, input_spec, sizes, channels)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, B, H, W), as the spec says, to logits (N, C, H, W)."""
        height, width = images.shape[-2:]
        features = squares = self.normalize(images, self.multiple, self.stride)
        pyramid: list[Tensor] = []
        for level in self.levels:
            features = level(features)
            pyramid.append(features)
        return self.decode(pyramid, squares)[..., :height, :width]


class Lite(AdditiveUNet):
    """A student: the first blocks of EfficientNet-Lite0, down to 1/16 of the resolution, and the decoder of Swift.

    Args:
        num_classes: C, channels of the logits.
        blocks: number of blocks of the encoder.
        hidden: channels inside the first blocks, as in `lite_levels`. Those of ImageNet that matter most are kept.
        up_blocks: number of residual blocks of each level of the decoder, from 1/2 of the resolution on.
        stochastic_depth: as in `lite_levels`.
        input_spec: what the network is fed.
    """

    scale = (1.0, 1.0)
    margin = 128

    def __init__(
        self,
        num_classes: int,
        blocks: int = 11,
        hidden: tuple[int, ...] = (),
        up_blocks: tuple[int, ...] = (1, 1, 1),
        stochastic_depth: float = 0.0,
        input_spec: InputSpec = RGB,
    ) -> None:
        levels = lite_levels(len(input_spec) * self.stride**2, self.scale, blocks, hidden, stochastic_depth)
        super().__init__(num_classes, levels, tuple(level_channels(self.scale, blocks)), up_blocks, input_spec)
        self.hidden = hidden
