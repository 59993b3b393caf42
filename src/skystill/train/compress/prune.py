"""Structured pruning that is driven by measured time: whole channels go where they cost the most for what they do.

Channels that hang together (what an addition joins, what the next layer reads) are one group, found by torch-pruning's
dependency graph (Fang 2023, arXiv 2301.12900). In each round the network is exported, quantised, measured and
profiled: that gives the milliseconds that each convolution takes, and so what 16 channels of each group cost. What they
do for the loss is the first-order Taylor estimate (Molchanov 2019, arXiv 1906.10771). The cuts that lose the least for
a millisecond are made, until a part of the way to the budget is made by reckoning; then comes the next round.
(NetAdapt, Yang 2018, arXiv 1804.03230, cuts one layer a round by such a table.)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
import torch_pruning
from torch import Tensor, nn

from skystill.classes import ClassMap
from skystill.data.prepare import prepare_data
from skystill.errors import RunFolderError, SettingsError
from skystill.model.measure import ModelCost, measure_models
from skystill.progress import Message, OnProgress, ignore_progress, report_notes
from skystill.run_folder import RunFolder
from skystill.settings import DistillSettings, LearnSettings, PruneSettings, size_in_bytes
from skystill.train.batches.batches import CropSampler, TrainBatches, labeled_images
from skystill.train.compress.budget import Budget, budget_of, int8_file
from skystill.train.compress.layer_times import layer_fractions
from skystill.train.losses.on_labels import StudentLoss, build_student_loss
from skystill.train.networks.table import count_parameters
from skystill.train.networks.weights import PRUNED, read_record, start_network, write_network

Measure = Callable[[nn.Module], tuple[ModelCost, Mapping[str, float]]]
"""What a network costs in use, and the fraction of its time that each convolution
takes, by module path."""

CHUNK = 16
"""Channels go by sixteens, down to a multiple of 16: as many as 8-bit kernels take at once. Of odd widths a network of
288 thousand weights was *slower* than the one of 393 thousand it was cut from (docs/log.md)."""
_STEP = 0.75  # of its time is what a network keeps in a round: from further away the reckoning is too far off
_BATCHES = 32
_TIMES = 3  # the fastest measurement counts: whatever else the computer does can only slow it down


@dataclass(frozen=True)
class Group:
    """Channels that can only go together.

    Args:
        root: module path of the convolution that makes them.
        width: their number.
        importance: (width,) what each does for the loss.
        layers: paths of the convolutions that make or read them, and the part of the layer that a channel is.
    """

    root: str
    width: int
    importance: Tensor
    layers: Mapping[str, float]

    def least(self, chunk: int) -> list[int]:
        """The channels that do the least: as many as are above the next lower multiple of `chunk`."""
        order: list[int] = self.importance.argsort().tolist()
        return order[: self.width % chunk or chunk]

    def time_fraction(self, count: int, fractions: Mapping[str, float]) -> float:
        """The fraction of the network's time that goes with `count` channels."""
        return count * sum(fractions.get(layer, 0.0) * part for layer, part in self.layers.items())


@dataclass(frozen=True)
class Cut:
    """A cut that could be made.

    Args:
        root: of the group.
        channels: that go.
        importance: what they do for the loss.
        saved: milliseconds per megapixel.
    """

    root: str
    channels: list[int]
    importance: float
    saved: float


def prune_run(
    settings: PruneSettings, resume: bool = False, on_progress: OnProgress = ignore_progress
) -> DistillSettings:
    """Prune a run's network to a budget; the weights lie in the new run folder, from which it is distilled.

    Args:
        settings: of the command.
        resume: go on with a run that was begun: pruning that is done is not done again.
        on_progress: takes notes on the data and a `Message` about each round.

    Returns:
        how to distil it.

    Raises:
        UserError: as `train_run`, and a run that cannot be read or pruned so far.
    """
    folder, budget = RunFolder(settings.out), budget_of(settings)
    with folder.locked():
        folder.check_free(resume)
        if folder.pruned.exists():
            _check_resumed(folder, settings)
        else:
            weights = RunFolder(settings.run).weights
            record = read_record(weights)
            prepared = prepare_data(settings)
            report_notes(prepared.notes, on_progress)
            network = start_network(str(weights), len(prepared.classes))
            views = CropSampler(labeled_images(prepared.split.train, prepared.classes), settings.crop, 0.0, [])
            batches = TrainBatches(views, settings.batch_size, settings.seed)
            loss = build_student_loss(settings.student_loss)
            name = PRUNED + record.table_name
            prune_network(
                network,
                budget,
                lambda one: measure_and_profile(name, one, prepared.classes),
                lambda one: add_gradients(one, batches, loss),
                on_progress,
            )
            write_network(folder.pruned, network, replace(record, network=name, budget=_asked(settings)))
    learn = {name: getattr(settings, name) for name in LearnSettings.model_fields}
    own = {"teacher": settings.teacher or [str(settings.run)], "student": str(folder.pruned), "alone": False}
    return DistillSettings(**{**learn, **own})


def prune_network(
    network: nn.Module,
    budget: Budget,
    measure: Measure,
    add_gradients: Callable[[nn.Module], None],
    on_progress: OnProgress,
    chunk: int = CHUNK,
) -> None:
    """Take channels from a network until it keeps a budget, in place.

    Args:
        network: of ours, on the CPU.
        budget: what it may cost.
        measure: what a network costs.
        add_gradients: gives the weights of a network the gradients of the loss on training images.
        on_progress: takes a `Message` about each round.
        chunk: widths are cut down to multiples of this.

    Raises:
        SettingsError: the budget cannot be kept; says how far it went.
    """
    while broken := budget.broken((measured := measure(network))[0]):
        cost, fractions = measured
        now = cost.latency_ms_per_mp
        on_progress(Message(f"{_state(now, network)}; too much: {', '.join(broken)}"))
        cuts = []
        for group in find_groups(network, add_gradients):
            channels = group.least(chunk)
            if group.width > chunk:
                saved = now * group.time_fraction(len(channels), fractions)
                cuts.append(Cut(group.root, channels, group.importance[channels].sum().item(), saved))
        limit = budget.latency if budget.latency is not None and budget.latency < now else 0.0
        goal = max(limit * 0.98, now * _STEP)
        chosen = choose_cuts(cuts, now - goal)
        if not chosen:
            raise SettingsError(f"it cannot be pruned so far: at its least it needs {', '.join(broken)}.")
        for one in chosen:
            cut(network, one.root, one.channels)
    on_progress(Message(f"{_state(measured[0].latency_ms_per_mp, network)}: the budget is kept"))


def _state(latency_ms: float, network: nn.Module) -> str:
    return f"{latency_ms:.1f} ms per megapixel, {count_parameters(network):,} weights"


def measure_and_profile(name: str, network: nn.Module, classes: ClassMap) -> tuple[ModelCost, dict[str, float]]:
    """A `Measure` of this computer, in INT8."""
    with int8_file(name, network, classes) as (exported, made):
        fastest = min(measure_models([made] * _TIMES), key=lambda cost: cost.latency_ms_per_mp)
        return fastest, layer_fractions(exported, made)


def find_groups(network: nn.Module, add_gradients: Callable[[nn.Module], None]) -> list[Group]:
    """All groups of channels that may be cut; those of the answer may not.

    Args:
        network: of ours.
        add_gradients: as in `prune_network`.
    """
    network.zero_grad()
    add_gradients(network)
    names = {module: name for name, module in network.named_modules()}
    importance = torch_pruning.importance.GroupTaylorImportance(group_reduction="sum", normalizer=None)
    graph = _graph(network)
    found = []
    for group in graph.get_all_groups(ignored_layers=[network.head], root_module_types=[nn.Conv2d, nn.ConvTranspose2d]):
        values = importance(group)
        layers: dict[str, float] = {}
        for dependency, channels in group:
            layer = dependency.target.module
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                reads = dependency.handler == graph.get_pruner_of_module(layer).prune_in_channels
                part = len(channels) / len(values) / (layer.in_channels if reads else layer.out_channels)
                layers[names[layer]] = layers.get(names[layer], 0.0) + part
        found.append(Group(names[group[0].dep.target.module], len(values), values, layers))
    network.zero_grad()
    return found


def choose_cuts(cuts: Sequence[Cut], wanted: float) -> list[Cut]:
    """Cuts that lose the least for a millisecond, together worth `wanted` milliseconds per megapixel.

    Args:
        cuts: one a group; what saves nothing is not made.
        wanted: milliseconds per megapixel.
    """
    chosen: list[Cut] = []
    for one in sorted((one for one in cuts if one.saved > 0), key=lambda one: one.importance / one.saved):
        if sum(other.saved for other in chosen) >= wanted:
            break
        chosen.append(one)
    return chosen


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


def _asked(settings: PruneSettings) -> tuple[str | int | None, ...]:
    return (str(settings.run), settings.max_latency, settings.max_memory, settings.max_size)


def _check_resumed(folder: RunFolder, settings: PruneSettings) -> None:
    run, latency, memory, size = read_record(folder.pruned).budget or (None,) * 4
    before = (run, latency, size_in_bytes(memory), size_in_bytes(size))
    if before != _asked(settings):
        raise RunFolderError(f"{folder.path}: --resume with another run or budget than it was pruned with: {before}.")
