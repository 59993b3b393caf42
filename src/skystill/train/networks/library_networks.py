"""Networks with the encoders of other libraries: timm's with a light decoder, and those of segmentation_models_pytorch.

Between `Normalize` and the encoder stands `Rescale`: published weights expect pixels on another scale.
"""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from types import ModuleType

import torch
from torch import Tensor, nn

from skystill.errors import SettingsError
from skystill.raster.input_spec import InputSpec
from skystill.train.libraries.imports import name_library_errors
from skystill.train.networks.blocks import Normalize
from skystill.train.networks.contract import PHASE
from skystill.train.networks.levels import Leveled
from skystill.train.networks.library import LibraryName, find_library
from skystill.train.networks.library_levels import watch_encoder
from skystill.train.networks.light_unet import LightUNet
from skystill.train.networks.pixel_shuffle import pixel_unshuffle

_CHANNELS = (256, 128, 64, 48, 32)  # of the decoder, up to 1/2; as in lite, and one more for encoders down to 1/64
_SIDES = (64, 96)  # pixels of the image that shows the levels: divisible by 32, and not square
_SMP_MULTIPLE = 32
_NOT_FREE = (
    f"its encoder does not take images of any size; it cannot be run on {_SIDES[0]} x {_SIDES[1]} pixels. Take a "
    "ResNet, an EfficientNet or a ConvNeXt"
)


class Rescale(nn.Module):
    """Brings normalised bands to the scale that the published weights of an encoder expect: scale * x + shift.

    It changes nothing until weights are loaded. Zero, which every convolution pads with, then means what it meant when
    the weights were trained.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(bands, 1, 1))
        self.register_buffer("shift", torch.zeros(bands, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, B, H, W) to the same shape."""
        return images * self.scale + self.shift


class OfLibrary(Leveled):
    """A network whose encoder is that of another library.

    Args:
        name: its name.
        encoder_path: module path of the encoder.
        input_spec: what the network is fed.
    """

    margin = 192

    def __init__(self, name: LibraryName, encoder_path: str, input_spec: InputSpec) -> None:
        super().__init__()
        self.library = name.library
        self.called = name.name
        self.encoder_path = encoder_path
        self.normalize = Normalize(input_spec)
        self.rescale = Rescale(len(input_spec))

    @property
    def encoder(self) -> nn.Module:
        """The encoder: images (N, B, H, W) to a list of features."""
        return self.get_submodule(self.encoder_path)

    @property
    def levels(self) -> nn.ModuleList:  # type: ignore[override]  # its modules stay where the library has put them
        """The levels of the encoder, the finest first, each as the list of its modules."""
        encoder = self.encoder
        return nn.ModuleList(nn.ModuleList(map(encoder.get_submodule, level)) for level in self.level_paths)

    def train(self, mode: bool = True) -> "OfLibrary":
        """As `Leveled.train`. Blocks of frozen layers are in eval mode, too: some drop their branch at random."""
        super().train(mode)
        for module in reversed(list(self.encoder.modules()) if self.frozen else []):  # parts come before their block
            parts = list(module.children())
            if parts and not any(part.training for part in parts):
                module.training = False
        return self

    def watch(self, encoder: nn.Module) -> tuple[Tensor, ...]:
        """Run the encoder once to find its levels and the layers that read the bands.

        Returns:
            The features that it returns.

        Raises:
            SettingsError: it cannot be run.
        """
        images = torch.zeros(1, len(self.rescale.scale), *_SIDES, device=next(encoder.parameters()).device)
        with name_library_errors(f"network {self.called}", _NOT_FREE, SettingsError):
            found = watch_encoder(encoder, images)
        self.level_paths, self.readers = found.levels, found.readers
        encoder.train()
        return found.features


class TimmUNet(OfLibrary, LightUNet):
    """A U-Net on an encoder of timm, with the light decoder.

    Args:
        name: its name.
        encoder: the encoder.
        num_classes: C, channels of the logits.
        input_spec: what the network is fed.

    Raises:
        SettingsError: the encoder does not give maps of 1/4, 1/8, ... of the resolution, or only for images of one
            size.
    """

    def __init__(self, name: LibraryName, encoder: nn.Module, num_classes: int, input_spec: InputSpec) -> None:
        super().__init__(name, "timm", input_spec)
        self.timm = encoder
        features = self.watch(encoder)
        reductions = _reductions(self.called, features)
        self.multiple = reductions[-1]
        self.skipped = int(reductions[0] == 1)  # features at full resolution are not decoded
        self.deepest = nn.Identity()
        self.feature_layer = "deepest"
        sizes = [0] * (reductions[0] == 4) + [one.shape[1] for one in features[self.skipped :]]
        self.add_decoder(num_classes, input_spec, sizes, _CHANNELS[-(len(sizes) - 1) :])

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, B, H, W), as the spec says, to logits (N, C, H, W)."""
        height, width = images.shape[-2:]
        normalized = self.normalize(images, self.multiple)
        *finer, last = self.timm(self.rescale(normalized))
        pyramid = [*finer[self.skipped :], self.deepest(last)]
        return self.decode(pyramid, pixel_unshuffle(normalized, self.stride))[..., :height, :width]


class SmpNetwork(OfLibrary):
    """A network of segmentation_models_pytorch.

    Args:
        name: its name.
        network: images to logits (N, C, H, W), built by the library.
        input_spec: what the network is fed.

    Raises:
        SettingsError: its encoder takes images of one size only.
    """

    def __init__(self, name: LibraryName, network: nn.Module, input_spec: InputSpec) -> None:
        super().__init__(name, "network.encoder", input_spec)
        self.network = network
        self.watch(self.encoder)
        self.multiple = max(_SMP_MULTIPLE, int(self.encoder.output_stride))  # type: ignore[arg-type]  # of the library
        self.feature_layer = "network.decoder"

    @property
    def head(self) -> nn.Module:
        """The convolution that makes the logits."""
        return self.network.get_submodule("segmentation_head.0")

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, B, H, W), as the spec says, to logits (N, C, H, W)."""
        height, width = images.shape[-2:]
        logits: Tensor = self.network(self.rescale(self.normalize(images, self.multiple)))
        return logits[..., :height, :width]


def build_library(name: LibraryName, num_classes: int, input_spec: InputSpec) -> OfLibrary:
    """Build a network of another library with random weights. Nothing is downloaded.

    Args:
        name: the network. Its weights are not opened.
        num_classes: C, channels of the logits.
        input_spec: what the network is fed.

    Raises:
        LibraryMissing: the library is not installed.
        SettingsError: it has no such network, or this network cannot be used as one of SkyStill's.
    """
    module = find_library(name)
    bands = len(input_spec)
    with name_library_errors(f"network {name.name}", "it cannot be built", SettingsError):
        if name.library == "timm":
            encoder = module.create_model(name.target, pretrained=False, features_only=True, in_chans=bands)
        else:
            network = _make_smp(module, name.target, bands, num_classes)
    if name.library == "timm":
        return TimmUNet(name, encoder, num_classes, input_spec)
    return SmpNetwork(name, network, input_spec)


def _make_smp(smp: ModuleType, target: str, bands: int, num_classes: int) -> nn.Module:
    architecture, _, encoder = target.partition("/")
    # The rates of these encoders are read from a tensor, which the meta device, where sizes are counted, does not hold.
    on_cpu = torch.device("cpu") if encoder.startswith("mit_") else nullcontext()
    with on_cpu, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its encoders whose names begin with timm-
        network: nn.Module = smp.create_model(
            architecture, encoder_name=encoder, encoder_weights=None, in_channels=bands, classes=num_classes
        )
    return network


def _reductions(name: str, features: Sequence[Tensor]) -> list[int]:
    """By how much each map of an encoder is smaller than the image.

    Raises:
        SettingsError: they are not maps (N, C, h, w), each at half of the resolution before.
    """
    found: list[int] = []
    for one in features:
        high, wide = (side // part if part else 0 for side, part in zip(_SIDES, one.shape[2:], strict=False))
        if one.ndim == 4 and high == wide and tuple(one.shape[2:]) == (_SIDES[0] // high, _SIDES[1] // wide):
            found.append(high)
    doubling = all(after == 2 * before for before, after in pairwise(found))
    if len(found) == len(features) and doubling and found and found[0] in (1, 2, 4) and 4 <= found[-1] <= PHASE:
        return found
    shapes = ", ".join(str(tuple(one.shape[1:])) for one in features) or "nothing"
    raise SettingsError(
        f"network {name}: of {_SIDES[0]} x {_SIDES[1]} pixels its encoder makes {shapes}; maps (C, h, w) that begin at "
        f"1/1, 1/2 or 1/4 of the resolution, with half of the one before in each, down to 1/4 to 1/{PHASE}, are "
        "expected. Take another encoder, such as a ResNet, an EfficientNet or a ConvNeXt."
    )
