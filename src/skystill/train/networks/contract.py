"""The contract of a network: what the rest of SkyStill expects of it, and a check of every clause.

Source of the measured field: Luo 2016, arXiv 1701.04128, which measures how much each input pixel contributes.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from skystill.errors import SettingsError
from skystill.raster.input_spec import RGB, Band
from skystill.train.networks.blocks import Normalize
from skystill.train.networks.examples import input_spec_of, noise_images

PHASE = 64
"""Cores and margins of tiles are multiples of this number of pixels (skystill.tiling)."""
MARGIN = 64
"""Pixels of context around the core of a tile, where a network names no other: half the overlap that a model file asks
for (`ModelInfo.overlap`)."""
LARGEST_FIELD_BEYOND = 0.01
"""Largest fraction of the field of a pixel that may lie beyond `MARGIN`. It is 0.0009 for `kite`, whose class maps are
equal to those of the whole image in 99.99 % of the pixels (docs/log.md), and 0.009 for `unet-large`, the largest."""

_FAR = 320  # pixels on each side in which the field is measured; a multiple of the phase
_FAILURES = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError)
_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)


@runtime_checkable
class Network(Protocol):
    """All that the rest of SkyStill expects of a network. It must be an `nn.Module` as well.

    `check_structure` and `check_network` check these clauses; the error names each broken clause by its word here.

    **input**: images (N, B, H, W) of the bands of its `InputSpec`, in the data type of the spec or as floats. N, H and
    W are 1 or more. Equal values give equal logits in both types. A model file takes the data type of the spec; pruning
    and the Deepness format feed floats; a tile at the edge of a raster can be one pixel wide.

    **output**: finite float32 logits (N, C, H, W), of the same height and width as the images. Losses, the cache and
    `predict` put the logits on top of the labels or the raster without resizing them.

    **eval**: in eval mode the logits of an image depend on this image alone, and are the same in each call. The cache
    holds logits that were computed in other batches, and a resumed prediction must equal an uninterrupted one.

    **normalize**: there is exactly one `Normalize`, and it holds the `InputSpec`. It runs once and is the first
    arithmetic: before it, bytes may be padded and moved, but not changed. The exported graph then begins with one Cast,
    Sub, Div chain. For three bands of bytes, `export` writes this chain as one DequantizeLinear, so that the INT8 graph
    takes the bytes of the image without conversion.

    **head**: `head` is the `nn.Conv2d` that makes the logits. Its output channels are the C classes, or C times the
    square of a stride where a pixel shuffle follows. Pruning must not remove the channels of the classes.

    **levels**: `levels` is an `nn.ModuleList` of the levels of the encoder, the finest first. All other layers belong
    to the decoder. `--freeze` and `--encoder-rate` tell them apart. The weights of an encoder may be random at the
    start, or come from elsewhere (imagenet.py); nothing else here depends on it.

    **feature_layer**: the module path of the layer whose output (N, C, h, w) the feature losses compare by default.

    **batch norm**: each BatchNorm is an `nn.BatchNorm2d` with weights and running statistics. It directly follows its
    `nn.Conv2d` in the same plain `nn.Sequential`, and this convolution has no bias. INT8-aware fine-tuning folds only
    such pairs. Any other BatchNorm would silently stay in float, and a bias of the convolution would be lost.

    **layers**: only `nn.Conv2d`, `nn.ConvTranspose2d` and `nn.BatchNorm2d` hold parameters and buffers, and `Normalize`
    the statistics of its bands. Each of them
    runs exactly once in a forward pass, and no two share a tensor. A weights file of a pruned network changes the
    widths of these layers alone. Layer times belong to a convolution by its module path, so they need one run for each
    path. A safetensors file cannot hold shared tensors. Training on several ranks waits for the gradient of each
    parameter.

    **multiple**: `multiple` is the number of pixels by which the network pads H and W, its total down-sampling. It
    divides 64. Cores and margins of tiles are multiples of 64, so that each tile meets the down-sampling in the same
    phase as the whole raster does.

    **field**: at most 1 % of the field of a pixel lies more than `margin` pixels outside the core of its tile. A model
    file asks for an overlap of twice the margin. It is 64 pixels for the networks that were made for this, 128 for
    those that end the encoder of EfficientNet-Lite at 1/16 of the resolution, and 192 for those that go down to 1/32:
    wide depthwise kernels at low resolution see far, and their tiles repeat more work. `margin` is a multiple of 64, or
    missing for 64. This clause is about the effective
    receptive field, as `field_beyond` measures it, because the theoretical one is larger than the margin for all
    networks of the table but `two-level`. Crop mode with the default overlap is therefore an approximation: 99.97 % of
    the pixels or more are those of the whole image for `kite` (docs/log.md). With `--overlap 256` it is exact for those
    of 64 pixels but `unet-large`, whose field reaches 184 pixels. Larger networks of other sizes may break
    this clause: they can be trained and exported, and need a larger `--overlap`.

    The encoders of other libraries (library_networks.py) are free of the clauses **batch norm** and **layers**, but for
    shared tensors. So they are not pruned, not fine-tuned for INT8, and not trained on several ranks. Their field is
    not measured: layers that look at the whole image have no margin that holds it.

    Three more expectations are not checked here. `torch.export` must be able to trace the network with N, H and W free,
    in operators of ONNX opset 18: `export` compares the logits of the file. The network runs on the meta device and can
    be copied with `copy.deepcopy`, because its work is counted on shapes. And its class is built from `num_classes` and
    sizes that are Python literals, because a weights file stores only these beside the weights.
    """

    multiple: int
    levels: nn.ModuleList
    feature_layer: str
    head: nn.Conv2d

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, B, H, W) to logits (N, C, H, W)."""
        ...


class NetworkContractError(SettingsError):
    """A network breaks clauses of the contract (`Network`). Holds all of them.

    Args:
        name: of the network.
        problems: one line for each broken clause, which begins with the name of the clause.
    """

    def __init__(self, name: str, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(
            f"network {name} breaks the contract of networks:\n{lines}\nChoose other sizes, or change its class; the "
            "docstring of skystill.train.networks.contract.Network gives the reason of each clause."
        )


def check_structure(network: nn.Module, name: str) -> None:
    """Check the clauses that need no forward pass. This takes about a millisecond.

    It runs where a network enters a training (`start_network`), so that a network that cannot be tiled or quantised is
    refused before it is trained. `build_network` and `read_network` do not run it.

    Args:
        network: in any mode and on any device; not changed.
        name: for the message.

    Raises:
        NetworkContractError: clauses are broken; all are listed.
    """
    _refuse(name, list(_broken_structure(network)))


def check_network(network: nn.Module, name: str, margin: int | None = MARGIN) -> None:
    """Check all clauses, with forward passes over small images: 0.05 to 1 second on one thread.

    The tests run it over the whole table. `export_network` runs it without the field before it writes: a large teacher
    of other sizes than the table's, such as a Kite of four levels, may have a larger field and needs only a larger
    `--overlap`. A clause that cannot be measured because the network raises an error is left out: that error is listed.

    Args:
        network: in any mode and on any device; not changed.
        name: for the message.
        margin: pixels of context that the field must fit, or more where the network names more; None leaves the field
            out.

    Raises:
        NetworkContractError: clauses are broken; all are listed.
    """
    problems = list(_broken_structure(network))
    twin = copy.deepcopy(network).cpu().eval()
    with torch.no_grad():
        behaviour = list(_broken_behaviour(twin))
    problems += behaviour
    margin = None if margin is None else max(margin, margin_of(network))
    if margin is not None and not behaviour and (beyond := field_beyond(network, margin)) > LARGEST_FIELD_BEYOND:
        problems.append(
            f"field: {beyond:.1%} of the field of a pixel lies beyond the margin of {margin} pixels; at most "
            f"{LARGEST_FIELD_BEYOND:.0%} may. Use fewer levels or blocks."
        )
    _refuse(name, problems)


def margin_of(network: nn.Module) -> int:
    """Pixels of context around the core of a tile that a network needs."""
    return int(getattr(network, "margin", MARGIN))


@torch.no_grad()
def field_beyond(network: nn.Module, margin: int) -> float:
    """The fraction of the field of a pixel that lies beyond the margin of its tile. At 0 the field fits exactly.

    It is measured on a copy in which each convolution takes the mean of its inputs, so that it does not depend on what
    the network has learnt. Everything beyond the margin is made brighter. The result is the largest change of a pixel
    in the core, relative to its change when the whole image is made brighter: 0 to 1. Weights are positive and nothing
    cancels, so that any pixel with a path to the core counts. Rows and columns are measured one after the other, up to
    320 pixels away.

    Args:
        network: with the layers that the contract allows; not changed.
        margin: pixels around a core of 64 x 64 pixels.
    """
    twin = _averaging(network)
    start, end = _FAR, _FAR + PHASE
    means, spreads = (torch.tensor([getattr(band, name) for band in _bands(network)]) for name in ("mean", "std"))
    grey = means[:, None, None].expand(-1, end + _FAR, PHASE)
    brighter = (means + spreads)[:, None, None].expand_as(grey)
    outside = brighter.clone()
    outside[:, start - margin : end + margin] = grey[:, start - margin : end + margin]
    images = torch.stack([grey, outside, brighter])
    largest = 0.0
    for turn in (images, images.transpose(2, 3)):
        logits = twin(turn)
        core = logits[:, :, start:end] if turn is images else logits[..., start:end]
        change = (core[1] - core[0]) / (core[2] - core[0]).clamp(min=torch.finfo(torch.float32).tiny)
        largest = max(largest, float(change.max()))
    return largest


def _bands(network: nn.Module) -> tuple[Band, ...]:
    """The bands of a network, with the constants that three bands of bytes are normalised by."""
    input_spec = input_spec_of(network)
    return RGB.bands if input_spec.is_three_bytes else input_spec.bands


def _averaging(network: nn.Module) -> nn.Module:
    """A copy whose convolutions take the mean of their inputs, and whose BatchNorms change nothing."""
    twin = copy.deepcopy(network).cpu().eval()
    for layer in twin.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
        elif isinstance(layer, nn.ReLU6):
            layer.max_val = torch.inf  # the field is that of a linear network; nothing is cut off
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            inputs = layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else layer.in_channels // layer.groups
            nn.init.constant_(layer.weight, 1 / inputs)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return twin


def _of_library(network: nn.Module) -> bool:
    return bool(getattr(network, "library", ""))


def _refuse(name: str, problems: list[str]) -> None:
    if problems:
        raise NetworkContractError(name, problems)


def _broken_structure(network: nn.Module) -> Iterator[str]:
    count = sum(isinstance(module, Normalize) for module in network.modules())
    if count != 1:
        yield f"normalize: there are {count} Normalize modules; exactly one is expected."
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Conv2d):
        yield f"head: `head` is {_kind(head)}; the nn.Conv2d that makes the logits is expected."
    levels = getattr(network, "levels", None)
    if not (isinstance(levels, nn.ModuleList) and len(levels)):
        yield f"levels: `levels` is {_kind(levels)}; an nn.ModuleList of the encoder's levels is expected."
    path = getattr(network, "feature_layer", None)
    if path not in {name for name, _ in network.named_modules() if name}:
        yield f"feature_layer: `feature_layer` is {path!r}; the module path of a layer is expected."
    multiple = getattr(network, "multiple", None)
    if not isinstance(multiple, int) or multiple < 1 or PHASE % multiple:
        yield f"multiple: `multiple` is {multiple!r}; a divisor of {PHASE} is expected. Use fewer levels."
    margin = getattr(network, "margin", MARGIN)
    if not isinstance(margin, int) or margin < PHASE or margin % PHASE:
        yield f"field: `margin` is {margin!r}; a multiple of {PHASE} is expected."
    if not _of_library(network):
        yield from _broken_norms(network)
    yield from _broken_layers(network)


def _broken_norms(network: nn.Module) -> Iterator[str]:
    before: dict[nn.Module, nn.Conv2d] = {}
    for block in network.modules():
        if isinstance(block, nn.Sequential) and type(block).forward is nn.Sequential.forward:
            for first, second in pairwise(block):
                if isinstance(first, nn.Conv2d):
                    before[second] = first
    for path, norm in network.named_modules():
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        if norm not in before:
            yield f"batch norm: {path} does not directly follow an nn.Conv2d in the same plain nn.Sequential."
        elif before[norm].bias is not None:
            yield f"batch norm: the convolution before {path} has a bias; make it with bias=False."
        if not norm.affine or not norm.track_running_stats:
            yield f"batch norm: {path} has no weights or no running statistics; both are expected."


def _broken_layers(network: nn.Module) -> Iterator[str]:
    owners: dict[int, str] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if own and not _of_library(network) and not isinstance(module, (*_LAYERS, Normalize)):
            names = ", ".join(name for name, _ in own)
            yield (
                f"layers: {path or 'the network itself'} ({_kind(module)}) holds {names}; only nn.Conv2d, "
                "nn.ConvTranspose2d and nn.BatchNorm2d may hold parameters and buffers."
            )
        for name, tensor in own:
            owner = owners.setdefault(id(tensor), f"{path}.{name}")
            if owner != f"{path}.{name}":
                yield f"layers: {owner} and {path}.{name} are the same tensor; each layer has its own."


def _broken_behaviour(network: nn.Module) -> Iterator[str]:
    """What forward passes show. The network is a copy in eval mode on the CPU; no gradients are recorded."""
    unequal = ""
    images = torch.empty(0)
    for seed, (height, width) in enumerate(((1, 1), (37, 50), (PHASE, PHASE))):
        images = noise_images(input_spec_of(network), 2, height, width, seed)
        found: list[Tensor] = []
        for given in (images, images.float()):
            shown = f"{str(given.dtype).removeprefix('torch.')} images {tuple(given.shape)}"
            try:
                logits = network(given)
            except _FAILURES as error:
                reason = (str(error).splitlines() or [""])[0]
                yield f"input: {shown} raise {type(error).__name__} ({reason}); they must be taken."
                return
            wrong = _wrong_logits(logits, given)
            if wrong:
                yield f"output: {shown} give {wrong}; finite float32 logits (N, C, H, W) of the same size are expected."
                return
            found.append(logits)
        if not _alike(*found):
            kind = str(images.dtype).removeprefix("torch.")
            unequal = f"input: {kind} and float images {tuple(images.shape)} of equal values give different logits."
    random = not _alike(network(images), network(images))
    if random:
        yield "eval: two calls with the same images give different logits; eval mode must switch off what is random."
    elif not _alike(network(images)[:1], network(images[:1])):
        yield "eval: the logits of an image depend on the other images of its batch."
    if unequal and not random:
        yield unequal
    yield from _broken_trace(network, images)


def _wrong_logits(logits: object, images: Tensor) -> str:
    """What is wrong with the logits, in words; empty where nothing is."""
    if not isinstance(logits, Tensor):
        return _kind(logits)
    count, _, height, width = images.shape
    right = logits.ndim == 4 and (logits.shape[0], *logits.shape[2:]) == (count, height, width)
    if not right or logits.dtype != torch.float32:
        return f"{logits.dtype} of shape {tuple(logits.shape)}"
    return "" if bool(logits.isfinite().all()) else "values that are not finite"


def _alike(logits: Tensor, others: Tensor) -> bool:
    """Equal up to rounding: convolutions over batches of other sizes add in another order."""
    return bool((logits - others).abs().max() <= 1e-4 * max(1.0, float(logits.abs().max())))


def _broken_trace(network: nn.Module, images: Tensor) -> Iterator[str]:
    """What one forward pass shows from inside. The hooks stay, since the network is a copy."""
    names = {module: path for path, module in network.named_modules()}
    path, head = getattr(network, "feature_layer", None), getattr(network, "head", None)
    watched = [module for module in names if isinstance(module, (*_LAYERS, Normalize)) or names[module] == path]
    calls: list[nn.Module] = []
    seen: dict[nn.Module, tuple[object, object]] = {}

    def keep(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        calls.append(module)
        seen[module] = (inputs[0], output)

    for module in watched:
        module.register_forward_hook(keep)
    classes = network(images).shape[1]
    runs = Counter(calls)
    for module in watched:
        if isinstance(module, _LAYERS) and runs[module] != 1 and not _of_library(network):
            yield f"layers: {names[module]} runs {runs[module]} times in a forward pass; once is expected."
        if isinstance(module, Normalize) and runs[module] != 1:
            yield f"normalize: {names[module]} runs {runs[module]} times in a forward pass; once is expected."
        elif isinstance(module, Normalize) and not (calls[0] is module and _only_moved(images, seen[module][0])):
            yield f"normalize: the bytes are changed before {names[module]}; it must be the first arithmetic."
        if names[module] == path and not (module in seen and getattr(seen[module][1], "ndim", 0) == 4):
            found = _kind(seen[module][1]) if module in seen else "nothing, because it does not run"
            yield f"feature_layer: {path} gives {found}; a tensor (N, C, h, w) is expected."
    if isinstance(head, nn.Conv2d) and head.out_channels % classes:
        yield f"head: it gives {head.out_channels} channels for {classes} classes; a multiple of {classes} is expected."


def _only_moved(images: Tensor, given: object) -> bool:
    """Whether a tensor holds the bytes of the images, and nothing else but grey padding. Others must be the images."""
    if not isinstance(given, Tensor) or given.dtype != images.dtype:
        return False
    if images.dtype != torch.uint8:
        return given.shape == images.shape and torch.equal(given, images)
    extra = torch.bincount(given.flatten(), minlength=256) - torch.bincount(images.flatten(), minlength=256)
    padding = int(extra[128])
    return padding >= 0 and int(extra.abs().sum()) == padding


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return "missing" if value is None else type(value).__name__
