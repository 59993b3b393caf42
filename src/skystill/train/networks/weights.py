"""Weights files: the weights of a network as safetensors, with all that is needed to build it again."""

import json
import math
import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
from skystill.train.networks.table import build_network, declared_shapes

IMAGES = "images"
"""The setting in the record of weights of the package that lists the images on which they were trained."""
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
    network, record = read_any_network(path)
    _check_finished(path, record)
    return network, record


def read_any_network(path: Path) -> tuple[nn.Module, NetworkRecord]:
    """As `read_network`, also for a network that has learnt features and no classes."""
    with readable(path):
        record = read_any_record(path)
        with safe_open(path, framework="pt") as file:
            _check_shapes(record, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        network = build_network(record.table_name, len(record.classes), record.input_spec)
        if record.network.startswith(PRUNED):
            match_channels(network, state)
        network.load_state_dict(state)
    return network.eval(), record


def read_record(path: Path) -> NetworkRecord:
    """Read the record of a weights file without its weights. Raises as `read_network`."""
    record = read_any_record(path)
    _check_finished(path, record)
    return record


def _check_finished(path: Path, record: NetworkRecord) -> None:
    if record.pretrained:
        raise CheckpointError(
            f"{path} holds a network that was pretrained on the features of {record.pretrained} and knows no classes "
            "yet. Start a training from it: skystill distill --student FILE, or skystill train --network FILE."
        )


def read_any_record(path: Path) -> NetworkRecord:
    """As `read_record`, also for a network that has learnt features and no classes."""
    with readable(path):
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


def match_channels(network: nn.Module, state: dict[str, Tensor]) -> None:
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
def readable(path: Path) -> Iterator[None]:
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
