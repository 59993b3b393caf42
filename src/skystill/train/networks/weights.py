"""Weights files: a network's values as safetensors, and what is needed to build it again."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from skystill.classes import ClassMap, classes_from
from skystill.errors import CheckpointError, ClassesError, SettingsError
from skystill.run_folder import written_whole
from skystill.train.networks.table import build_network

PRUNED = "pruned "
"""Before the name of a network whose widths are no longer those of the table, but those of its weights."""


@dataclass(frozen=True)
class NetworkRecord:
    """What a weights file says about its network: all that is needed to build it again.

    Args:
        network: a name of the table with its sizes, after `PRUNED` where channels were removed.
        classes: the C classes of its logits.
        settings: of the run that trained it, as in `config.yaml`.
        budget: of a pruned network: the run that was pruned, and the limits that it was pruned to.
    """

    network: str
    classes: ClassMap
    settings: Mapping[str, object] = field(default_factory=dict)
    budget: tuple[str | None, ...] | None = None

    @property
    def table_name(self) -> str:
        """The name and sizes in the table of networks."""
        return self.network.removeprefix(PRUNED)

    def to_json(self) -> str:
        """As it is written into the file."""
        content: dict[str, object] = {"network": self.network, "classes": self.classes.to_dict()}
        if self.settings:
            content["settings"] = dict(self.settings)
        if self.budget is not None:
            content["budget"] = list(self.budget)
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str, source: str) -> "NetworkRecord":
        """What `to_json` wrote. Raises KeyError, TypeError, ValueError or ClassesError for anything else."""
        content = json.loads(text)
        budget = content.get("budget")
        return cls(
            str(content["network"]),
            classes_from(content["classes"], source),
            content.get("settings", {}),
            None if budget is None else tuple(budget),
        )


def start_network(spec: str, num_classes: int) -> nn.Module:
    """The network that a training begins with: of the table with fresh weights, or from a weights file.

    Args:
        spec: as in `build_network`, or a file that `write_network` wrote (.safetensors).
        num_classes: C, channels of the logits.

    Raises:
        SettingsError: as `build_network`, or the file has another number of classes.
        CheckpointError: the file is missing, damaged, or of another program.
    """
    if not spec.endswith(".safetensors"):
        return build_network(spec, num_classes)
    network, record = read_network(Path(spec))
    if len(record.classes) != num_classes:
        raise SettingsError(f"{spec} has {len(record.classes)} classes, the data {num_classes}.")
    return network.train()


def network_name(spec: str) -> str:
    """The name of a network: a spec itself, or the name in a weights file. Raises as `read_record`."""
    return read_record(Path(spec)).network if spec.endswith(".safetensors") else spec


def write_network(path: Path, network: nn.Module, record: NetworkRecord) -> None:
    """Write weights as safetensors, whole or not at all.

    Args:
        path: the file.
        network: its weights and buffers are written.
        record: what is needed to build it again.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with written_whole(path) as part:
        save_file(state, part, metadata={"skystill": record.to_json()})


def read_network(path: Path) -> tuple[nn.Module, NetworkRecord]:
    """Read what `write_network` wrote: the network in eval mode, and its record.

    Raises:
        CheckpointError: the file is missing, damaged, or of another program.
    """
    with _readable(path):
        record = read_record(path)
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        network = build_network(record.table_name, len(record.classes))
        if record.network.startswith(PRUNED):
            _match_channels(network, state)
        network.load_state_dict(state)
    return network.eval(), record


def read_record(path: Path) -> NetworkRecord:
    """The record of a weights file; its weights are not read. Raises as `read_network`."""
    with _readable(path), safe_open(path, framework="pt") as file:
        return NetworkRecord.from_json((file.metadata() or {})["skystill"], str(path))


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


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in words what is wrong with a weights file."""
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the run has not finished. Finish it with --resume.") from error
    except (
        SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        OSError,
        SettingsError,
        ClassesError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as SkyStill weights ({reason}). Train again, or take a whole copy."
        ) from error
