"""The network that a training starts from: built from its name, and given the weights that it begins with."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from skystill.classes import ClassMap, match_names
from skystill.digests import file_sha256
from skystill.errors import SettingsError
from skystill.raster.input_spec import RGB, InputSpec
from skystill.train.networks.contract import NetworkContractError, check_network, check_structure
from skystill.train.networks.first_layer import on_other_bands
from skystill.train.networks.imagenet import is_pretrained, load_imagenet
from skystill.train.networks.library import IMAGENET, is_library, is_shipped, is_weights_file, parse_library, shown_name
from skystill.train.networks.library_networks import OfLibrary, build_library
from skystill.train.networks.library_weights import load_published
from skystill.train.networks.shipped import find_weights
from skystill.train.networks.table import build_network, declared_shapes
from skystill.train.networks.weights import (
    IMAGES,
    PRUNED,
    NetworkRecord,
    match_channels,
    read_any_network,
    read_any_record,
    readable,
)


def start_network(spec: str, num_classes: int, input_spec: InputSpec = RGB, from_scratch: bool = False) -> nn.Module:
    """The network that a training starts from: a network of the table, or one from a weights file.

    The weights of a network of the table are random, except for an encoder that has weights of ImageNet (imagenet.py),
    and for NAME?weights=..., whose weights come with the package (shipped.py). These fit any bands: the kernels of red,
    green and blue in the first layer are spread over others.

    The structure of the network is checked here, because a network that cannot be tiled or quantised must be refused
    before it is trained. No forward pass is made, but for networks of other libraries.

    Args:
        spec: as in `build_network`, NAME?weights=..., or a file that `write_network` wrote (.safetensors).
        num_classes: C, channels of the logits.
        input_spec: what the network is fed. A weights file of a user keeps its own.
        from_scratch: leave the weights out that it would begin with.

    Returns:
        The network. A weights file with another number of classes, or none, has a fresh head: `match_head` gives it
        what the file knows of the classes.

    Raises:
        SettingsError: as `build_network`, `load_imagenet` and `find_weights`, or the file is fed other bands.
        NetworkContractError: the structure breaks a clause of the contract.
        CheckpointError: the file is missing or damaged, or another program wrote it.
    """
    if is_library(spec):
        return _start_library(spec, num_classes, input_spec, from_scratch)
    path = find_weights(spec)
    if path is None:
        network = build_network(spec, num_classes, input_spec)
        check_structure(network, spec)
        if is_pretrained(network) and not from_scratch:
            load_imagenet(network, spec)
        return network
    network, record = read_any_network(path)
    if is_shipped(spec):
        return _with_new_head(network, record, num_classes, input_spec).train()
    if record.pretrained or len(record.classes) != num_classes:
        network = _with_new_head(network, record, num_classes)
    own = record.input_spec
    if (len(own), own.dtype) != (len(input_spec), input_spec.dtype):
        raise SettingsError(
            f"{spec} is fed {own.labels} as {own.dtype}; of these images it would be {input_spec.labels} as "
            f"{input_spec.dtype}. Choose the same --bands."
        )
    check_structure(network, spec)
    return network.train()


def _start_library(spec: str, num_classes: int, input_spec: InputSpec, from_scratch: bool) -> OfLibrary:
    name = parse_library(spec)
    declared_shapes(name.name, num_classes, input_spec)
    network = build_library(name, num_classes, input_spec)
    if name.weights and not from_scratch:
        network.notes = (load_published(network, name),)
    elif not from_scratch:
        network.notes = (
            f"{name.name} BEGINS WITH RANDOM WEIGHTS: nothing was learnt from other images. Give the weights of its "
            f"encoder: {name.name}?weights=FILE, or ?weights={IMAGENET} if the library may download them.",
        )
    try:
        check_network(network, name.name, margin=None)
    except NetworkContractError as error:
        problems = "\n".join(f"  - {problem}" for problem in error.problems)
        raise SettingsError(
            f"network {name.name} cannot be used here:\n{problems}\nTake another encoder or architecture."
        ) from error
    return network


def _with_new_head(
    trained: nn.Module, record: NetworkRecord, num_classes: int, input_spec: InputSpec | None = None
) -> nn.Module:
    """The network with the weights of a trained one, and a fresh head for the classes of the data.

    With an `input_spec`, the first layer of a network for red, green and blue in bytes is fitted to these bands.
    """
    network = build_network(record.table_name, num_classes, input_spec or record.input_spec)
    head = {name: value for name, value in network.state_dict().items() if name.startswith(_head_prefix(network))}
    state = trained.state_dict()
    if input_spec is not None:
        first = next(name for name in state if name.startswith("levels."))
        state[first] = on_other_bands(state[first], record.input_spec, input_spec)
    if record.network.startswith(PRUNED):
        head["head.weight"] = head["head.weight"][:, : state["head.weight"].shape[1]]
        match_channels(network, state | head)
    network.load_state_dict(state | head)
    return network


@torch.no_grad()
def match_head(network: nn.Module, spec: str, classes: ClassMap) -> str | None:
    """Give the head of a network from a weights file the rows of the classes of the same name, in place.

    A class that the file does not know gets the rows of a fresh head. Classes of the file that the data do not have are
    left out.

    Args:
        network: as `start_network` returns it.
        spec: what it was built from. Only a file whose network has learnt classes changes anything.
        classes: those of the data.

    Returns:
        What was done, in a sentence; None if the classes are the same.
    """
    record = read_any_record(Path(spec)) if is_weights_file(spec) else None
    if record is None or record.pretrained:
        return None
    places = match_names(classes.names, record.classes.names)
    if places == list(range(len(record.classes))):
        return None
    head = network.head
    assert isinstance(head, nn.Conv2d), "the contract of networks"
    with readable(Path(spec)), safe_open(spec, framework="pt") as file:
        trained = {name: file.get_tensor(f"{_head_prefix(network)}{name}") for name in head.state_dict()}
    head.reset_parameters()
    for name, value in head.state_dict().items():
        rows = value.view(len(classes), -1, *value.shape[1:])
        own = trained[name].view(len(record.classes), -1, *value.shape[1:])
        for label, place in enumerate(places):
            if place is not None:
                rows[label] = own[place]
    fresh = [name for name, place in zip(classes.names, places, strict=True) if place is None]
    more = f"; {', '.join(fresh)} begin anew" if fresh else ""
    return f"{spec} was trained on {', '.join(record.classes.names)}: its classes are matched by name{more}."


def _head_prefix(network: nn.Module) -> str:
    """What the names of the weights of the head begin with: networks of other libraries have names of their own."""
    name = next(name for name, module in network.named_modules() if module is network.head)
    return f"{name}."


def images_seen(spec: str, images: Iterable[Path]) -> int:
    """Count the images on which weights of the package were trained, by the bytes of the files.

    Args:
        spec: NAME?weights=..., for which `is_shipped` is true.
        images: the files.

    Raises:
        SettingsError: as `find_weights`.
    """
    path = find_weights(spec)
    assert path is not None, "is_shipped"
    known = read_any_record(path).settings[IMAGES]
    assert isinstance(known, list), "made by benchmarks/starting_weights.py"
    return sum(image_digest(image) in known for image in images)


def image_digest(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file, as the record of weights of the package lists them."""
    return file_sha256(path).hex()[:16]


def recorded_input(spec: str) -> InputSpec | None:
    """What a network is fed whose weights a user has trained, or None for another. Raises as `read_record`."""
    return read_any_record(Path(spec)).input_spec if is_weights_file(spec) else None


def network_name(spec: str) -> str:
    """The name of a network: the spec without weights, or the name in a weights file.

    Raises:
        CheckpointError: as `read_record`.
        SettingsError: as `find_weights`.
    """
    path = find_weights(spec)
    return shown_name(spec) if path is None else read_any_record(path).network
