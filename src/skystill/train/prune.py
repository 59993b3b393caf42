"""Structured pruning that is driven by measured time: whole channels go where they cost the most for what they do.

Channels that hang together (what an addition joins, what the next layer reads) are one group, found by torch-pruning's
dependency graph (Fang 2023, arXiv 2301.12900). In each round every group is cut to half in a copy, which is exported,
quantised and measured: that gives milliseconds a channel. What a channel does for the loss is the first-order Taylor
estimate (Molchanov 2019, arXiv 1906.10771). The channels that do the least for a millisecond go, until a part of the
way to the budget is made by reckoning; then the network itself is measured. (NetAdapt, Yang 2018, arXiv 1804.03230,
goes one layer a round.)
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from skystill.errors import RunFolderError, SettingsError
from skystill.run_folder import RunFolder
from skystill.settings import DistillSettings, LearnSettings, PruneSettings
from skystill.train.budget import Budget, budget_of, measure_int8
from skystill.train.data import TrainBatches, Views, labeled_scenes
from skystill.train.logit_cache import Track
from skystill.train.losses import StudentLoss, build_student_loss
from skystill.train.models import PRUNED, read_about, read_network, write_network
from skystill.train.prepared import Tell, prepare

Measure = Callable[[nn.Module], Mapping[str, Any]]
"""What a network costs in use: at least "latency_ms_per_mp"."""

CHUNK = 4
"""Channels go by fours, as processors multiply them."""
_LEAST = 4  # channels that remain in every group
_STEP = 0.75  # of its time is what a network keeps in a round: from further away the reckoning is too far off
_BATCHES = 32


@dataclass(frozen=True)
class Group:
    """Channels that can only go together.

    Args:
        root: module path of the convolution that makes them.
        width: their number.
        worth: (width,) what each does for the loss.
    """

    root: str
    width: int
    worth: Tensor


def prune_run(
    settings: PruneSettings, resume: bool, track: Track, tell: Callable[[str], None], notes: Tell
) -> DistillSettings:
    """Prune a run's network to a budget; the weights lie in the new run folder, from which it is distilled.

    Args:
        settings: of the command.
        resume: go on with a run that was begun: pruning that is done is not done again.
        track: wraps a loop to show a bar.
        tell: takes a line about each round.
        notes: takes notes on the data.

    Returns:
        how to distil it.

    Raises:
        UserError: as `train_run`, and a run that cannot be read or pruned so far.
    """
    folder, budget = RunFolder(settings.out), budget_of(settings)
    with folder.locked():
        if folder.pruned.exists():
            _check_resumed(folder, settings, resume)
        else:
            network, about = read_network(RunFolder(settings.run).weights)
            prepared = prepare(settings)
            notes(prepared.notes)
            views = Views(labeled_scenes(prepared.split.train, prepared.classes), settings.crop, 0.0, [])
            batches = TrainBatches(views, settings.batch_size, settings.seed)
            loss = build_student_loss(settings.student_loss)
            name = PRUNED + str(about["network"]).removeprefix(PRUNED)
            prune_network(
                network,
                budget,
                lambda one: measure_int8(name, one, prepared.classes),
                lambda one: add_gradients(one, batches, loss),
                track,
                tell,
            )
            write_network(folder.pruned, network, {**about, "network": name, "budget": _asked(settings)})
    learn = {name: getattr(settings, name) for name in LearnSettings.model_fields}
    own = {"teacher": settings.teacher or [str(settings.run)], "student": str(folder.pruned), "alone": False}
    return DistillSettings(**{**learn, **own})


def prune_network(
    network: nn.Module,
    budget: Budget,
    measure: Measure,
    add_gradients: Callable[[nn.Module], None],
    track: Track,
    tell: Callable[[str], None],
) -> None:
    """Take channels from a network until it keeps a budget, in place.

    Args:
        network: of ours, on the CPU.
        budget: what it may cost.
        measure: what a network costs.
        add_gradients: gives the weights of a network the gradients of the loss on training images.
        track: wraps a loop to show a bar.
        tell: takes a line about each round.

    Raises:
        SettingsError: the budget cannot be kept; says how far it went.
    """
    cost = measure(network)
    while broken := budget.broken(cost):
        now = float(cost["latency_ms_per_mp"])
        tell(f"{now:.1f} ms a megapixel, {_weights(network):,} weights; too much: {', '.join(broken)}")
        groups = find_groups(network, add_gradients)
        saved = {
            group.root: (now - float(measure(halved(network, group))["latency_ms_per_mp"])) / (group.width // 2)
            for group in track([group for group in groups if group.width >= 2 * _LEAST], "measuring groups of channels")
        }
        goal = now * _STEP if budget.latency is None else max(budget.latency * 0.98, now * _STEP)
        chosen = choose_channels(groups, saved, now - goal)
        if not chosen:
            raise SettingsError(f"it cannot be pruned so far: at its least it needs {', '.join(broken)}.")
        for root, channels in chosen.items():
            cut(network, root, channels)
        cost = measure(network)
    tell(f"{cost['latency_ms_per_mp']:.1f} ms a megapixel, {_weights(network):,} weights: the budget is kept")


def find_groups(network: nn.Module, add_gradients: Callable[[nn.Module], None]) -> list[Group]:
    """All groups of channels that may be cut; those of the answer may not.

    Args:
        network: of ours.
        add_gradients: as in `prune_network`.
    """
    network.zero_grad()
    add_gradients(network)
    names = {module: name for name, module in network.named_modules()}
    worth = torch_pruning.importance.GroupTaylorImportance(group_reduction="sum", normalizer=None)
    graph = _graph(network)
    found = []
    for group in graph.get_all_groups(ignored_layers=[network.head], root_module_types=[nn.Conv2d, nn.ConvTranspose2d]):
        values = worth(group)
        found.append(Group(names[group[0].dep.target.module], len(values), values))
    network.zero_grad()
    return found


def choose_channels(groups: list[Group], saved: Mapping[str, float], wanted: float) -> dict[str, list[int]]:
    """Channels that do the least for a millisecond, together worth `wanted` milliseconds a megapixel.

    Args:
        groups: with what their channels do.
        saved: milliseconds a megapixel that a channel costs, by group; those that are missing or cost nothing stay.
        wanted: milliseconds a megapixel.
    """
    chunks: list[tuple[float, str, list[int]]] = []
    for group in groups:
        if saved.get(group.root, 0.0) > 0:
            order = group.worth.argsort().tolist()[: group.width - _LEAST]
            for start in range(0, len(order) - CHUNK + 1, CHUNK):
                channels = order[start : start + CHUNK]
                loss = float(group.worth[channels].sum())
                chunks.append((loss / (saved[group.root] * CHUNK), group.root, channels))
    chosen: dict[str, list[int]] = {}
    for _, root, channels in sorted(chunks, key=lambda chunk: chunk[0]):
        if wanted <= 0:
            break
        chosen.setdefault(root, []).extend(channels)
        wanted -= saved[root] * CHUNK
    return chosen


def halved(network: nn.Module, group: Group) -> nn.Module:
    """A copy without the half of a group that does the least."""
    smaller = copy.deepcopy(network)
    cut(smaller, group.root, group.worth.argsort().tolist()[: group.width // 2])
    return smaller


def cut(network: nn.Module, root: str, channels: list[int]) -> None:
    """Take channels away, and with them all that hangs on them, in place.

    Args:
        network: of ours.
        root: module path of the convolution that makes them.
        channels: their indices.
    """
    layer = network.get_submodule(root)
    graph = _graph(network)
    graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, channels).prune()


def add_gradients(network: nn.Module, batches: TrainBatches, loss: StudentLoss) -> None:
    """Add up the gradients of the loss over some training batches; BatchNorm stays as it is."""
    network.eval()
    for batch in islice((batch for epoch in range(_BATCHES) for batch in batches.epoch(epoch)), _BATCHES):
        loss(network(batch.images), batch.labels).backward()  # type: ignore[no-untyped-call]


def _graph(network: nn.Module) -> torch_pruning.DependencyGraph:
    return torch_pruning.DependencyGraph().build_dependency(network, example_inputs=torch.zeros(1, 3, 64, 64))


def _weights(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _asked(settings: PruneSettings) -> list[str | None]:
    return [str(settings.run), settings.max_latency, settings.max_memory, settings.max_size]


def _check_resumed(folder: RunFolder, settings: PruneSettings, resume: bool) -> None:
    if not resume:
        raise RunFolderError(f"{folder.path} holds a run. Go on with it by --resume, or choose another --out.")
    before = read_about(folder.pruned).get("budget")
    if before != _asked(settings):
        raise RunFolderError(f"{folder.path}: --resume with another run or budget than it was pruned with: {before}.")
