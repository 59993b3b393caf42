"""The networks: the U-Net of teachers and of the classical student, the efficient Kite family, the table of sizes.

Every network takes images (N, 3, H, W), uint8 or float, 0 to 255, any H and W from 1 up, and returns logits
(N, C, H, W) float. Scaling to zero mean is the first layer, so it travels with the weights and into every export.
`feature_layer` is the module whose output feature losses compare where nobody says otherwise: the deepest level.
"""

import ast
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from skystill.errors import CheckpointError, SettingsError
from skystill.run_folder import written_whole
from skystill.train.networks.pixel_shuffle import pixel_shuffle, pixel_unshuffle

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


class UNet(nn.Module):
    """U-Net (Ronneberger, Fischer, Brox 2015, arXiv 1505.04597): encoder, decoder, skip connections.

    Args:
        num_classes: C, channels of the logits.
        channels: filters of the first level; every level doubles them.
        depth: number of levels; 5 is the mission's teacher, 2 its student.
        norm: BatchNorm in every block. It trains better and, folded at export, costs nothing in use.
        stride: 1 is the classical network. 2 or 4 folds squares of pixels into channels first and unfolds them last
            (Shi 2016, arXiv 1609.05158), so that the first level works at 1/stride of the resolution: the same
            time buys far more channels.
    """

    def __init__(
        self, num_classes: int, channels: int = 16, depth: int = 5, norm: bool = True, stride: int = 1
    ) -> None:
        super().__init__()
        sizes = [channels * 2**level for level in range(depth)]
        self.stride = stride
        self.multiple = stride * 2 ** (depth - 1)
        self.feature_layer = f"encoder.{depth - 1}"
        self.normalize = Normalize()
        self.encoder = nn.ModuleList(
            DoubleConv(before, after, norm) for before, after in pairwise([3 * stride**2, *sizes])
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(deep, shallow, 2, stride=2) for shallow, deep in reversed(list(pairwise(sizes)))
        )
        self.decoder = nn.ModuleList(DoubleConv(2 * size, size, norm) for size in reversed(sizes[:-1]))
        self.head = nn.Conv2d(channels, num_classes * stride**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), 0 to 255, to logits (N, C, H, W)."""
        height, width = images.shape[-2:]
        features = self.normalize(pad_and_unshuffle(images, self.multiple, self.stride))
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            features = block(F.max_pool2d(features, 2) if level else features)
            skips.append(features)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            features = block(torch.cat([skips.pop(), up(features)], dim=1))
        return pixel_shuffle(self.head(features), self.stride)[..., :height, :width]


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


def _levels(inputs: int, channels: Sequence[int], blocks: Sequence[int]) -> nn.ModuleList:
    """An encoder: each level halves the resolution of the one before it, and has so many residual blocks."""
    return nn.ModuleList(
        nn.Sequential(
            nn.Sequential(ConvNorm(before, size, stride=2 if level else 1), nn.ReLU(inplace=True)),
            *(Residual(size) for _ in range(count)),
        )
        for level, (before, size, count) in enumerate(zip([inputs, *channels[:-1]], channels, blocks, strict=True))
    )


def _add_doubled(fine: Tensor, coarse: Tensor) -> Tensor:
    """A level, and what comes from the next coarser one, of the same width and half the resolution."""
    return F.relu(fine + F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False))


class Kite(nn.Module):
    """The fastest student: at 1/4 resolution from the first layer to the last, pixel-shuffled up at the end.

    Full-resolution convolutions are what makes a small U-Net slow (docs/design.md): here none is left. The encoder
    goes 1/4, 1/8, 1/16, ...; the decoder adds each level, brought to the width of the first, onto the next finer.

    Args:
        num_classes: C, channels of the logits.
        channels: width of each level, from 1/4 down.
        blocks: residual blocks at each level.
    """

    stride = 4  # at 8 roads and small houses dissolve; for 2 see Swift

    def __init__(self, num_classes: int, channels: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.multiple = self.stride * 2 ** (len(channels) - 1)
        self.feature_layer = f"levels.{len(channels) - 1}"
        self.normalize = Normalize()
        self.levels = _levels(3 * self.stride**2, channels, blocks)
        self.lateral = nn.ModuleList(ConvNorm(size, channels[0], kernel=1) for size in channels)
        self.smooth = nn.ModuleList(Residual(channels[0]) for _ in channels[1:])
        self.head = nn.Conv2d(channels[0], num_classes * self.stride**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), 0 to 255, to logits (N, C, H, W)."""
        height, width = images.shape[-2:]
        features = self.normalize(pad_and_unshuffle(images, self.multiple, self.stride))
        pyramid: list[Tensor] = []
        for level, lateral in zip(self.levels, self.lateral, strict=True):
            features = level(features)
            pyramid.append(lateral(features))
        features = pyramid.pop()
        for smooth in self.smooth:
            features = smooth(_add_doubled(pyramid.pop(), features))
        return pixel_shuffle(self.head(features), self.stride)[..., :height, :width]


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
        self.levels = _levels(3 * self.stride**2, channels, blocks)
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
            features = smooth(_add_doubled(pyramid.pop(), narrow(features)))
        return pixel_shuffle(self.head(features), self.stride)[..., :height, :width]


# The table of sizes; parameters are for the six classes of Dubai. To add a network: a line here and, where it is a new
# kind, a class above; tests/train/test_models.py puts every line of this table through the same contract.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": partial(UNet, channels=16, depth=5, norm=False),  # 1,941,190: the mission's teacher
    "unet-bn": partial(UNet, channels=16, depth=5),  # 1,942,662: the same with BatchNorm, which trains better
    "unet-large": partial(UNet, channels=64, depth=4, stride=4),  # 7,732,256: many weights in half unet's time
    "two-level": partial(UNet, channels=16, depth=2, norm=False),  # 25,766: the mission's student
    # Widths are multiples of 16, as many as 8-bit kernels take at once: of 8 first channels a student is *slower* in
    # INT8 than of 16. Time is made at the first level; deep levels are nearly free, and buy what a student can hold.
    "kite-nano": partial(Kite, channels=(16, 16, 16), blocks=(0, 0, 1)),  # 28,128: the fastest
    "kite-tiny": partial(Kite, channels=(16, 16, 32), blocks=(1, 1, 1)),  # 53,952
    "kite-small": partial(Kite, channels=(16, 32, 48), blocks=(1, 1, 1)),  # 103,040
    "kite": partial(Kite, channels=(32, 64, 96), blocks=(1, 1, 1)),  # 393,376
    "swift-small": partial(Swift, channels=(16, 32, 48, 64), blocks=(0, 0, 1, 1), up_blocks=(0, 1, 1)),  # 229,720
    "swift": partial(Swift, channels=(16, 32, 64, 96), blocks=(0, 1, 1, 1), up_blocks=(1, 1, 1)),  # 445,848
}
FAMILY = ("kite-nano", "kite-tiny", "kite-small", "kite", "swift-small", "swift")
"""The efficient students, the least capable first."""
PRUNED = "pruned "
"""Before the name of a network whose widths are no longer those of the table, but those of its weights."""


def build_network(spec: str, num_classes: int) -> nn.Module:
    """Build a network: with fresh weights, or, where a file of weights is named, with those.

    Args:
        spec: a name of the table, with other sizes behind a question mark where they are wanted:
            "unet?channels=32&depth=4"; values are Python literals. Or a file that `write_network` wrote (.safetensors).
        num_classes: C, channels of the logits.

    Raises:
        SettingsError: no network has this name, it does not take these sizes, or the file has other classes.
        CheckpointError: the file is missing, damaged, or of another program.
    """
    if spec.endswith(".safetensors"):
        network, about = read_network(Path(spec))
        if len(about["classes"]["classes"]) != num_classes:
            raise SettingsError(f"{spec} has {len(about['classes']['classes'])} classes, the data {num_classes}.")
        return network.train()
    name, _, query = spec.partition("?")
    if name not in NETWORKS:
        raise SettingsError(f"no network is called {name!r}; there are {', '.join(NETWORKS)}.")
    try:
        sizes = {key: ast.literal_eval(value) for key, value in parse_qsl(query, strict_parsing=bool(query))}
        return NETWORKS[name](num_classes, **sizes)
    except (TypeError, ValueError, SyntaxError, RuntimeError) as error:
        raise SettingsError(f"network {spec!r}: {error}. Write sizes as in unet?channels=32&depth=4.") from error


def network_name(spec: str) -> str:
    """What a network is called: a spec as it is; of a file the name in it. Raises as `read_about`."""
    return str(read_about(Path(spec))["network"]) if spec.endswith(".safetensors") else spec


def _match_channels(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Give convolutions and BatchNorms the widths that pruned weights have."""
    for name, layer in network.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None or not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            continue
        for part, value in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]:
            found = state[f"{name}.{part}"]
            setattr(layer, part, nn.Parameter(found.clone()) if isinstance(value, nn.Parameter) else found.clone())
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_features = len(weight)
        else:
            first, second = weight.shape[:2]
            transposed = isinstance(layer, nn.ConvTranspose2d)
            layer.in_channels, layer.out_channels = (first, second) if transposed else (second, first)


def to_memory_format(network: _N, layout: torch.memory_format) -> _N:
    """Put the weights into channels-last (fast convolutions) or plain layout, in place; returns the network."""
    moved: _N = network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks this overload
    return moved


def count_parameters(network: nn.Module) -> int:
    """Number of learnt values."""
    return sum(parameter.numel() for parameter in network.parameters())


def write_network(path: Path, network: nn.Module, about: dict[str, Any]) -> None:
    """Write weights as safetensors, whole or not at all.

    Args:
        path: the file.
        network: its weights and buffers are written.
        about: JSON-able; "network" (a name of the table, `PRUNED` before it where it was pruned) and "classes" (as
            `ClassMap.to_dict`) build it again.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with written_whole(path) as part:
        save_file(state, part, metadata={"skystill": json.dumps(about)})


def read_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read what `write_network` wrote: the network in eval mode, and what was said about it.

    Raises:
        CheckpointError: the file is missing, damaged, or of another program.
    """
    with _readable(path):
        about = read_about(path)
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        name = str(about["network"])
        network = build_network(name.removeprefix(PRUNED), len(about["classes"]["classes"]))
        if name.startswith(PRUNED):
            _match_channels(network, state)
        network.load_state_dict(state)
    return network.eval(), about


def read_about(path: Path) -> dict[str, Any]:
    """What was said of a network when it was written; its weights are not read. Raises as `read_network`."""
    with _readable(path), safe_open(path, framework="pt") as file:
        about: dict[str, Any] = json.loads((file.metadata() or {})["skystill"])
        return about


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in words what is wrong with a weights file."""
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the run has not finished. Finish it with --resume.") from error
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError, SettingsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as SkyStill weights ({reason}). Train again, or take a whole copy."
        ) from error
