"""Published weights for the encoders of other libraries: read from a file, or fetched by the library."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from skystill.errors import CheckpointError, SettingsError
from skystill.raster.input_spec import InputSpec
from skystill.train.libraries.imports import import_library, name_library_errors
from skystill.train.libraries.state import first_of, misfits, read_state
from skystill.train.networks.examples import input_spec_of
from skystill.train.networks.first_layer import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    colors_of,
    in_bytes,
    of_color,
    spread_kernel,
)
from skystill.train.networks.library import IMAGENET, LibraryName, check_weights, find_library
from skystill.train.networks.library_networks import OfLibrary

_COUNTER = "num_batches_tracked"  # of a BatchNorm; old files lack it, and nothing here reads it
_RED_GREEN_BLUE = [0, 1, 2]

_Scale = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of red, green and blue that the weights expect, for values of 0 to 1."""
_OF_IMAGENET: _Scale = (tuple(one / 255 for one in IMAGENET_MEAN), tuple(one / 255 for one in IMAGENET_STD))


@torch.no_grad()
def load_published(network: OfLibrary, name: LibraryName) -> str:
    """Give the encoder of a network published weights, in place. All other layers keep their own.

    Args:
        network: with fresh weights.
        name: its name, with weights.

    Returns:
        What was loaded, and what was left out, in a sentence.

    Raises:
        SettingsError: there is no such file, or the first layer cannot be fitted to the bands.
        CheckpointError: the file cannot be read, or holds the weights of another network, or nothing could be fetched.
    """
    check_weights(name)
    module = find_library(name)
    if name.weights == IMAGENET:
        state, scale = _fetch(module, name, network.encoder)
        left_out: list[str] = []
    else:
        scale = _scale_of(module, name)
        state = read_state(Path(name.weights), f"network {name.name}")
        left_out = _fit_names(state, network, module, name)
    _fit_bands(state, network)
    for key, value in network.encoder.state_dict().items():
        if key in state:
            value.copy_(state[key])
    _set_scale(network, scale)
    mean, std = (", ".join(f"{one:.3f}" for one in three) for three in scale)
    more = f" Left out of the file: {first_of(left_out)}." if left_out else ""
    return (
        f"{name.name}: the encoder begins with the weights of {name.weights}, for colours with the mean {mean} and the "
        f"deviation {std}; the decoder begins with random weights.{more}"
    )


# ---- where weights come from


def _fetch(module: ModuleType, name: LibraryName, encoder: nn.Module) -> tuple[dict[str, Tensor], _Scale]:
    """Let the library download its weights, or take them from its own cache. Three bands: red, green and blue."""
    what = (
        "its weights of ImageNet cannot be fetched. Download them where there is a network, and give "
        f"{name.name}?weights=FILE"
    )
    with _weights_only(), name_library_errors(f"network {name.name}", what):
        if name.library == "timm":
            published = module.create_model(name.target, pretrained=True, features_only=True, in_chans=3)
            return published.state_dict(), _scale_of(module, name)
        called = name.target.partition("/")[2]
        weights: Any = True if called.startswith("tu-") else IMAGENET
        depth = len(encoder.out_channels) - 1  # type: ignore[arg-type]  # of the library
        published = module.encoders.get_encoder(called, in_channels=3, depth=depth, weights=weights)
        said = module.encoders.get_preprocessing_params(called)
        if said["input_space"] != "RGB":
            raise ValueError(f"they are for {said['input_space']}")
        most = float(said["input_range"][1])
        mean, std = (tuple(one / most for one in said[part]) for part in ("mean", "std"))
        return published.state_dict(), (mean, std)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let torch.load refuse all but weights, whatever a library asks it for."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before


def _timm_name(name: LibraryName) -> str | None:
    """What timm calls the encoder; None if it is not timm's."""
    called = name.target.partition("/")[2] if name.library == "smp" else f"tu-{name.target}"
    return called.removeprefix("tu-") if called.startswith("tu-") else None


def _scale_of(module: ModuleType, name: LibraryName) -> _Scale:
    """The scale that the published weights of an encoder expect: what timm says, otherwise that of ImageNet."""
    called = _timm_name(name)
    said = None if called is None else import_library("timm", "timm").get_pretrained_cfg(called)
    return _OF_IMAGENET if said is None else (tuple(said.mean), tuple(said.std))


# ---- names


def _fit_names(state: dict[str, Tensor], network: OfLibrary, module: ModuleType, name: LibraryName) -> list[str]:
    """Give weights the names of an encoder, in place, and refuse those of another one.

    A file may hold the whole published network with its classifier, or a whole network of segmentation_models_pytorch.
    What does not belong to the encoder is left out. A library that returns features renames "stages.0" to "stages_0".

    Returns:
        The names that were left out and that no published network explains.

    Raises:
        CheckpointError: the weights are those of another network. The message gives the first that do not fit.
    """
    own = network.encoder.state_dict()
    inside = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    left_out = [key for key in state if inside and not key.startswith("encoder.")]
    prefix = "model." if all(key.startswith("model.") for key in own) else ""  # an encoder of timm inside smp
    by_plain = {_plain(key.removeprefix(prefix)): key for key in own}
    given = {
        by_plain.get(_plain(key.removeprefix(prefix)), key): value for key, value in (inside or dict(state)).items()
    }
    whole = _whole_names(name)
    components = {key.partition(".")[0] for key in own}
    for key in [key for key in given if key not in own]:
        if _plain(key.removeprefix(prefix)) in whole:
            del given[key]
        elif not whole and key.partition(".")[0] not in components:
            left_out.append(key)
            del given[key]
    _refuse_others(given, network, name)
    state.clear()
    state.update(given)
    return left_out


def _plain(key: str) -> str:
    return key.replace(".", "_")


def _whole_names(name: LibraryName) -> set[str]:
    """The names in the published network of an encoder of timm, with its classifier; empty for other encoders."""
    called = _timm_name(name)
    if called is None:
        return set()
    with torch.device("meta"), name_library_errors(f"network {name.name}", "it cannot be built"):
        whole = import_library("timm", "timm").create_model(called, pretrained=False)
    return {_plain(key) for key in whole.state_dict()}


def _refuse_others(given: Mapping[str, Tensor], network: OfLibrary, name: LibraryName) -> None:
    own = network.encoder.state_dict()
    expected = {key: tuple(value.shape) for key, value in own.items() if key in given or not key.endswith(_COUNTER)}
    if _reads_bands(network):
        for key in (f"{reader}.weight" for reader in network.readers):
            expected[key] = (expected[key][0], 3, *expected[key][2:])
    problems = misfits(expected, given)
    problems += [
        f"{key} holds {str(value.dtype).removeprefix('torch.')}"
        for key, value in given.items()
        if key in own and value.is_floating_point() != own[key].is_floating_point()
    ]
    if problems:
        raise CheckpointError(
            f"{name.weights} does not hold the weights of {name.name}: {len(problems)} do not fit, of "
            f"{len(expected)} ({first_of(problems)}). Give the state_dict of this encoder, as its library publishes it."
        )


# ---- bands


def _reads_bands(network: OfLibrary) -> bool:
    """Whether the bands are read by convolutions over all of them, and by nothing else."""
    bands = len(input_spec_of(network))
    layers = [network.encoder.get_submodule(reader) for reader in network.readers]
    return bool(layers) and all(
        isinstance(layer, nn.Conv2d) and layer.in_channels == bands and layer.groups == 1 for layer in layers
    )


def _fit_bands(state: dict[str, Tensor], network: OfLibrary) -> None:
    """Spread the first convolutions over the bands, in place."""
    input_spec = input_spec_of(network)
    if colors_of(input_spec) == _RED_GREEN_BLUE:
        return
    if not _reads_bands(network):
        raise SettingsError(
            f"network {network.called} is fed {input_spec.labels}, and what reads them is no convolution over bands: "
            "weights for colours cannot be spread over them. Leave the weights out, or take another encoder."
        )
    for key in (f"{reader}.weight" for reader in network.readers):
        state[key] = spread_kernel(state[key].float(), input_spec)


def _set_scale(network: OfLibrary, scale: _Scale) -> None:
    """Set the scale of the inputs to what the weights expect: (value in 0 to 1 - mean) / std."""
    input_spec: InputSpec = input_spec_of(network)
    fed = zip(in_bytes(input_spec), colors_of(input_spec), strict=True)
    for band, ((zero, unit), own) in enumerate(fed):
        mean, std = (of_color(three, own) for three in scale)
        network.rescale.scale[band] = unit / 255 / std
        network.rescale.shift[band] = (zero / 255 - mean) / std
