"""Weights files: the weights of a network as safetensors, with all that is needed to build it again."""

import json
import math
import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from skystill.classes import ClassMap, classes_from
from skystill.digests import KEY, UNKNOWN, check_once, check_safetensors, seal_safetensors
from skystill.errors import CheckpointError, ClassesError, SettingsError, shortened
from skystill.parsing import parse_json
from skystill.raster.files import special_kind
from skystill.raster.input_spec import RGB, InputSpec, spec_from
from skystill.run_folder import written_whole
from skystill.train.libraries.imports import LibraryMissing
from skystill.train.networks.contract import NetworkContractError, check_network, check_structure
from skystill.train.networks.imagenet import is_pretrained, load_imagenet
from skystill.train.networks.library import IMAGENET, is_library, is_weights_file, parse_library, shown_name
from skystill.train.networks.library_networks import OfLibrary, build_library
from skystill.train.networks.library_weights import load_published
from skystill.train.networks.table import build_network, declared_shapes

PRUNED = "pruned "
"""Prefix of the name of a pruned network. Its numbers of channels are those of its weights, not those of the table."""

# A pruned network is built whole before its channels are removed: above 200 MB only where a hundredth is left of it.
_PRUNED_VALUES, _PRUNED_RATIO = 50_000_000, 100


@dataclass(frozen=True)
class NetworkRecord:
    """What a weights file stores about its network: all that is needed to build it again.

    Args:
        network: a name of the table with its sizes. `PRUNED` comes first where channels were removed.
        classes: the C classes of its logits.
        settings: settings of the run that trained it, as in `config.yaml`.
        budget: for a pruned network, the run that was pruned and the limits of the budget.
        input_spec: what the network is fed.
        pretrained: the teacher whose features the network has learnt from images alone. Its head has learnt nothing,
            and `classes` has no meaning. Empty for a network that gives logits of its classes.
    """

    network: str
    classes: ClassMap
    settings: Mapping[str, object] = field(default_factory=dict)
    budget: tuple[str | int | None, ...] | None = None
    input_spec: InputSpec = RGB
    pretrained: str = ""

    @property
    def table_name(self) -> str:
        """The name and the sizes, without `PRUNED`."""
        return self.network.removeprefix(PRUNED)

    def to_json(self) -> str:
        """The JSON text that is written into the file."""
        content: dict[str, object] = {
            KEY: UNKNOWN,  # `seal_safetensors` writes the digest there
            "network": self.network,
            "classes": self.classes.to_dict(),
            "input_spec": self.input_spec.to_dict(),
        }
        if self.settings:
            content["settings"] = dict(self.settings)
        if self.budget is not None:
            content["budget"] = list(self.budget)
        if self.pretrained:
            content["pretrained"] = self.pretrained
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str, source: str) -> "NetworkRecord":
        """Read the text that `to_json` wrote. Other texts raise KeyError, TypeError, ValueError or ClassesError."""
        content = parse_json(text)
        if not isinstance(content, dict):
            raise ValueError(f"its metadata hold {type(content).__name__} instead of an object")
        budget = content.get("budget")
        return cls(
            str(content["network"]),
            classes_from(content["classes"], source),
            content.get("settings", {}),
            None if budget is None else tuple(budget),
            spec_from(content["input_spec"]) if "input_spec" in content else RGB,
            str(content.get("pretrained", "")),
        )


def start_network(
    spec: str, num_classes: int, input_spec: InputSpec = RGB, from_scratch: bool = False, new_head: bool = False
) -> nn.Module:
    """The network that a training starts from: a network of the table, or one from a weights file.

    The weights of a network of the table are random, except for an encoder that has weights of ImageNet (imagenet.py).

    The structure of the network is checked here, because a network that cannot be tiled or quantised must be refused
    before it is trained. No forward pass is made, but for networks of other libraries.

    Args:
        spec: as in `build_network`, or a file that `write_network` wrote (.safetensors).
        num_classes: C, channels of the logits.
        input_spec: what the network is fed. A weights file keeps its own.
        from_scratch: leave the weights out that it would begin with.
        new_head: give a network from a weights file a fresh head, whatever its classes. One that has learnt no classes
            gets one in any case.

    Raises:
        SettingsError: as `build_network` and `load_imagenet`, or the file has another number of classes, or is fed
            other bands.
        NetworkContractError: the structure breaks a clause of the contract.
        CheckpointError: the file is missing or damaged, or another program wrote it.
    """
    if is_library(spec):
        return _start_library(spec, num_classes, input_spec, from_scratch)
    if not is_weights_file(spec):
        network = build_network(spec, num_classes, input_spec)
        check_structure(network, spec)
        if is_pretrained(network) and not from_scratch:
            load_imagenet(network, spec)
        return network
    network, record = _read(Path(spec))
    if record.pretrained or new_head:
        network = _with_new_head(network, record, num_classes)
    elif len(record.classes) != num_classes:
        raise SettingsError(f"{spec} has {len(record.classes)} classes, the data {num_classes}.")
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


def _with_new_head(trained: nn.Module, record: NetworkRecord, num_classes: int) -> nn.Module:
    """The network with the weights of a trained one, and a fresh head for the classes of the data."""
    network = build_network(record.table_name, num_classes, record.input_spec)
    head = {name: value for name, value in network.state_dict().items() if name.startswith("head.")}
    state = trained.state_dict()
    if record.network.startswith(PRUNED):
        head["head.weight"] = head["head.weight"][:, : state["head.weight"].shape[1]]
        _match_channels(network, state | head)
    network.load_state_dict(state | head)
    return network


@torch.no_grad()
def match_head(network: nn.Module, spec: str, classes: ClassMap) -> str | None:
    """Sort the rows of the head of a network from a weights file by the names of the classes, in place.

    A class that the file does not know gets the rows of a fresh head.

    Args:
        network: as `start_network` returns it.
        spec: what it was built from. Only a file whose network has learnt classes changes anything.
        classes: those of the data, as many as the file has.

    Returns:
        What was done, in a sentence; None if the classes are the same.
    """
    record = _read_record(Path(spec)) if is_weights_file(spec) else None
    if record is None or record.pretrained:
        return None
    before, now = ([name.lower() for name in one.names] for one in (record.classes, classes))
    if before == now:
        return None
    head = network.head
    assert isinstance(head, nn.Conv2d), "the contract of networks"
    trained = {name: value.clone() for name, value in head.state_dict().items()}
    head.reset_parameters()
    for name, value in head.state_dict().items():
        rows, own = (one.view(len(now), -1, *one.shape[1:]) for one in (value, trained[name]))
        for label, called in enumerate(now):
            if called in before:
                rows[label] = own[before.index(called)]
    fresh = [called for called, own in zip(classes.names, now, strict=True) if own not in before]
    more = f"; {', '.join(fresh)} begin anew" if fresh else ""
    return f"{spec} was trained on {', '.join(record.classes.names)}: its classes are matched by name{more}."


def recorded_input(spec: str) -> InputSpec | None:
    """What a network is fed that was trained before, or None for a name of the table. Raises as `read_record`."""
    return _read_record(Path(spec)).input_spec if is_weights_file(spec) else None


def network_name(spec: str) -> str:
    """The name of a network: the spec without weights, or the name in a weights file. Raises as `read_record`."""
    return _read_record(Path(spec)).network if is_weights_file(spec) else shown_name(spec)


def write_network(path: Path, network: nn.Module, record: NetworkRecord) -> None:
    """Write weights as safetensors. The file appears whole or not at all.

    Args:
        path: the file.
        network: the network, whose weights and buffers are written.
        record: what is needed to build the network again.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with written_whole(path) as part:
        save_file(state, part, metadata={"skystill": record.to_json()})
        seal_safetensors(part)


def read_network(path: Path) -> tuple[nn.Module, NetworkRecord]:
    """Read a file of `write_network`: the network in eval mode, and its record.

    Raises:
        CheckpointError: the file is missing or damaged, another program wrote it, or its network has learnt no classes.
    """
    network, record = _read(path)
    _check_finished(path, record)
    return network, record


def _read(path: Path) -> tuple[nn.Module, NetworkRecord]:
    with _readable(path):
        record = _read_record(path)
        with safe_open(path, framework="pt") as file:
            _check_shapes(record, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        network = build_network(record.table_name, len(record.classes), record.input_spec)
        if record.network.startswith(PRUNED):
            _match_channels(network, state)
        network.load_state_dict(state)
    return network.eval(), record


def read_record(path: Path) -> NetworkRecord:
    """Read the record of a weights file without its weights. Raises as `read_network`."""
    record = _read_record(path)
    _check_finished(path, record)
    return record


def _check_finished(path: Path, record: NetworkRecord) -> None:
    if record.pretrained:
        raise CheckpointError(
            f"{path} holds a network that was pretrained on the features of {record.pretrained} and knows no classes "
            "yet. Start a training from it: skystill distill --student FILE, or skystill train --network FILE."
        )


def _read_record(path: Path) -> NetworkRecord:
    with _readable(path):
        check_once(path, check_safetensors)
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {})["skystill"]
        return NetworkRecord.from_json(text, str(path))


def _check_shapes(record: NetworkRecord, stored: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the weights that a file holds with those of the network that it names, before either takes memory.

    Raises:
        SettingsError: as `build_network`.
        ValueError: the weights are those of another network.
    """
    declared = declared_shapes(record.table_name, len(record.classes), record.input_spec)
    if missing := sorted(declared.keys() ^ stored.keys()):
        raise ValueError(f"the weights are not those of {record.network}: {missing[0]} is on one side only")
    pruned = record.network.startswith(PRUNED)
    for name, shape in declared.items():
        found = stored[name]
        smaller = len(found) == len(shape) and all(map(operator.le, found, shape))
        if found != shape and not (pruned and smaller):
            raise ValueError(f"{name} has the shape {list(found)}, and {record.network} has {list(shape)}")
    whole, kept = (sum(map(math.prod, shapes.values())) for shapes in (declared, stored))
    if whole > max(_PRUNED_VALUES, _PRUNED_RATIO * kept):
        raise ValueError(f"{kept:,} values are said to be left of {whole:,} after pruning")


def _match_channels(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Give the layers the numbers of channels of the pruned weights."""
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
            if layer.groups > 1:  # depthwise: each channel has its own kernel
                layer.groups, second = first, first
            transposed = isinstance(layer, nn.ConvTranspose2d)
            layer.in_channels, layer.out_channels = (first, second) if transposed else (second, first)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn every failure to read a weights file into a `CheckpointError` that gives the reason."""
    if kind := special_kind(path):
        raise CheckpointError(f"{path} is {kind}, not a file of weights. Give a file.")
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the run has not finished. Finish it with --resume.") from error
    except LibraryMissing:
        raise
    except (
        SafetensorError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
        ValueError,
        OverflowError,
        MemoryError,
        RuntimeError,
        OSError,
        SettingsError,
        ClassesError,
    ) as error:
        reason = shortened(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise CheckpointError(
            f"{path} cannot be read as SkyStill weights ({reason}). Train again, or take a whole copy."
        ) from error
