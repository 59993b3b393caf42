"""Structured pruning by measured time: removal of whole channels that cost much time and matter little to the loss.

Channels that depend on each other (those that an addition joins, and those that the next layer reads) form one group.
The dependency graph of torch-pruning finds these groups (Fang 2023, arXiv 2301.12900).

In each round, the network is exported, quantised, measured and profiled. This gives the milliseconds that each
convolution takes, and from them the cost of 16 channels of each group. The importance of channels for the loss is the
first-order Taylor estimate (Molchanov 2019, arXiv 1906.10771). Cuts with the least importance per millisecond saved are
made until the estimated saving covers part of the gap to the budget. Then the next round measures the network again.
NetAdapt (Yang 2018, arXiv 1804.03230) cuts one layer per round from such a table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
import torch_pruning
from torch import Tensor, nn

from skystill.classes import ClassMap, match_names
from skystill.data.class_weights import find_class_weights
from skystill.data.prepare import prepare_data
from skystill.errors import RunFolderError, SettingsError
from skystill.model.measure import ModelCost, measure_models
from skystill.progress import Message, OnProgress, ignore_progress, phase
from skystill.run_folder import RunFolder, write_json
from skystill.settings import DistillSettings, LearnSettings, PruneSettings, size_in_bytes
from skystill.train.batches.batches import CropSampler, TrainBatches
from skystill.train.batches.images import labeled_images
from skystill.train.compress.budget import Budget, budget_of, int8_file
from skystill.train.compress.layer_times import layer_fractions
from skystill.train.fitting import check_validation
from skystill.train.loggers import check_loggers
from skystill.train.losses.on_labels import StudentLoss, build_student_loss
from skystill.train.networks.examples import input_spec_of
from skystill.train.networks.library import is_library
from skystill.train.networks.start import start_network
from skystill.train.networks.table import count_parameters
from skystill.train.networks.weights import PRUNED, read_record, write_network
from skystill.train.teaching import check_teaching

Measure = Callable[[nn.Module], tuple[ModelCost, Mapping[str, float]]]
"""Measures a network. Returns its cost, and the fraction of its time that each convolution takes, by module path."""

CHUNK = 16
"""Channels are removed in steps of 16, down to a multiple of 16, because 8-bit kernels process 16 channels at a time.
With other numbers of channels, a network of 288 thousand weights was *slower* than the network of 393 thousand weights
from which it was cut (docs/log.md)."""
_STEP = 0.75  # fraction of the latency that one round aims to keep: the estimate of a larger cut is too inaccurate
_BATCHES = 32
_TIMES = 3  # measurements, of which the fastest counts: other work of the computer can only slow them down


@dataclass(frozen=True)
class Group:
    """Channels of several layers that depend on each other and can only be removed together.

    Args:
        root: module path of the convolution that computes them.
        channels: number of channels.
        importance: (channels,) float, the estimated importance of each channel for the loss.
        layers: the fraction of the layer that one channel makes up, by module path, for each convolution that computes
            or reads the channels.
    """

    root: str
    channels: int
    importance: Tensor
    layers: Mapping[str, float]

    def least_important(self, chunk: int) -> list[int]:
        """Return the indices of the least important channels, as many as exceed the next lower multiple of `chunk`."""
        order: list[int] = self.importance.argsort().tolist()
        return order[: self.channels % chunk or chunk]

    def time_fraction(self, count: int, fractions: Mapping[str, float]) -> float:
        """Return the estimated fraction of the network's time that removing `count` channels saves.

        Args:
            count: number of channels.
            fractions: the fraction of the time that each convolution takes, by module path.
        """
        return count * sum(fractions.get(layer, 0.0) * part for layer, part in self.layers.items())


@dataclass(frozen=True)
class Cut:
    """A candidate for a cut: the least important channels of one group.

    Args:
        root: `root` of the group.
        channels: indices of the channels to remove.
        importance: their estimated importance for the loss, summed.
        saved: the estimated saving in milliseconds per megapixel.
    """

    root: str
    channels: list[int]
    importance: float
    saved: float


def prune_run(
    settings: PruneSettings, resume: bool = False, on_progress: OnProgress = ignore_progress
) -> DistillSettings:
    """Prune the network of a run to a budget, and write its weights into a new run folder.

    Args:
        settings: settings of the command.
        resume: True to continue a run that was begun. If its pruning is complete, it is not repeated.
        on_progress: receives notes on the data and a `Message` about each round.

    Returns:
        The settings with which the pruned network is then distilled.

    Raises:
        UserError: data, settings or the folder are not usable, the run cannot be read, or its network cannot be pruned
            to the budget.
    """
    folder, budget = RunFolder(settings.out), budget_of(settings)
    distilled = _distilled(settings, folder)
    check_loggers(settings.logger)  # Pruning can take hours: errors in the settings come first.
    check_teaching(distilled)
    with folder.locked(on_progress):
        folder.check_free(resume)
        if folder.pruned.exists():
            _check_resumed(folder, settings)
            on_progress(Message(f"{folder.pruned}: the network is pruned; it goes on with the distillation."))
        else:
            if resume:
                on_progress(Message(f"{folder.path}: the pruning was not finished; it begins with its first round."))
            weights = RunFolder(settings.run).weights
            record = read_record(weights)
            if is_library(record.table_name):
                raise SettingsError(
                    f"{settings.run} is a network of another library ({record.network}), whose channels cannot be "
                    "removed. Distil a network that skystill networks lists from it, and prune that one."
                )
            prepared = prepare_data(settings, on_progress, record.input_spec)
            check_validation(distilled, prepared)
            _check_classes(settings.run, record.classes, prepared.classes)
            prepared.report(on_progress)
            network = start_network(str(weights), len(prepared.classes), prepared.spec)
            sampler = CropSampler(
                labeled_images(prepared.split.train, prepared.classes, prepared.spec), settings.crop, 0.0, []
            )
            batches = TrainBatches(sampler, settings.batch_size, settings.seed)
            loss = build_student_loss(settings.student_loss, find_class_weights(settings, prepared))
            name = PRUNED + record.table_name
            prune_network(
                network,
                budget,
                lambda one: measure_and_profile(name, one, prepared.classes),
                lambda one: add_gradients(one, batches, loss),
                on_progress,
            )
            write_json(folder.split, prepared.split.to_dict())  # the distillation goes on with these images
            write_network(folder.pruned, network, replace(record, network=name, budget=_asked(settings)))
    return distilled


def _check_classes(run: Path, trained: ClassMap, classes: ClassMap) -> None:
    """Refuse data of other classes: what a channel is worth is measured by the loss on the labels.

    Raises:
        SettingsError: the names or their order are not those that the network was trained on.
    """
    if match_names(classes.names, trained.names) != list(range(len(trained))):
        raise SettingsError(
            f"{run} was trained on {', '.join(trained.names)}, and the data have {', '.join(classes.names)}. Prune on "
            f"data of the same classes, or train the network on these first: --network {RunFolder(run).weights}."
        )


def _distilled(settings: PruneSettings, folder: RunFolder) -> DistillSettings:
    """Return the settings with which the pruned network is distilled."""
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
    """Remove channels from a network until it keeps a budget, in place.

    Args:
        network: one of SkyStill's networks, on the CPU.
        budget: the limits to keep.
        measure: measures a network; called once per round.
        add_gradients: gives the weights of a network the gradients of the loss on training images.
        on_progress: receives a `Message` about each round.
        chunk: numbers of channels are cut down to multiples of this.

    Raises:
        SettingsError: the budget cannot be kept. The message gives what the smallest network that was reached needs.
    """
    while True:
        with phase("measuring the network", on_progress, leaves_line=None):
            cost, fractions = measure(network)
        if not (broken := budget.violations(cost)):
            break
        now = cost.latency_ms_per_mp
        on_progress(Message(f"{_state(now, network)}; too much: {', '.join(broken)}"))
        cuts = []
        with phase("estimating the importance of the channels", on_progress, leaves_line=None):
            groups = find_groups(network, add_gradients)
        for group in groups:
            channels = group.least_important(chunk)
            if group.channels > chunk:
                saved = now * group.time_fraction(len(channels), fractions)
                cuts.append(Cut(group.root, channels, group.importance[channels].sum().item(), saved))
        limit = (
            budget.latency_ms_per_mp if budget.latency_ms_per_mp is not None and budget.latency_ms_per_mp < now else 0.0
        )
        goal = max(limit * 0.98, now * _STEP)
        chosen = choose_cuts(cuts, now - goal)
        if not chosen:
            raise SettingsError(f"it cannot be pruned so far: at its least it needs {', '.join(broken)}.")
        for one in chosen:
            cut(network, one.root, one.channels)
    on_progress(Message(f"{_state(cost.latency_ms_per_mp, network)}: the budget is kept"))


def _state(latency_ms: float, network: nn.Module) -> str:
    return f"{latency_ms:.1f} ms per megapixel, {count_parameters(network):,} weights"


def measure_and_profile(name: str, network: nn.Module, classes: ClassMap) -> tuple[ModelCost, dict[str, float]]:
    """Measure a network in INT8 on this computer, as `Measure` describes. The fastest of 3 measurements counts.

    Args:
        name: the name of the network, for the model files.
        network: on the CPU.
        classes: the classes of the data.
    """
    with int8_file(name, network, classes) as (exported, made):
        fastest = min(measure_models([made] * _TIMES), key=lambda cost: cost.latency_ms_per_mp)
        return fastest, layer_fractions(exported, made)


def find_groups(network: nn.Module, add_gradients: Callable[[nn.Module], None]) -> list[Group]:
    """Find all groups of channels that may be cut. The output channels of the head, the logits, may not.

    Args:
        network: one of SkyStill's networks.
        add_gradients: gives the weights of a network the gradients of the loss on training images.
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
    """Choose the cuts with the least importance per millisecond, until together they save `wanted`.

    Args:
        cuts: candidates, one for each group. Cuts that save nothing are never chosen.
        wanted: the saving to reach, in milliseconds per megapixel.

    Returns:
        The chosen cuts. If all cuts together save less than `wanted`, all that save time.
    """
    chosen: list[Cut] = []
    for one in sorted((one for one in cuts if one.saved > 0), key=lambda one: one.importance / one.saved):
        if sum(other.saved for other in chosen) >= wanted:
            break
        chosen.append(one)
    return chosen


def cut(network: nn.Module, root: str, channels: list[int]) -> None:
    """Remove output channels of a convolution, and everything that depends on them, in place.

    Args:
        network: one of SkyStill's networks.
        root: module path of the convolution that computes the channels.
        channels: their indices.
    """
    layer = network.get_submodule(root)
    graph = _graph(network)
    graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, channels).prune()


def add_gradients(network: nn.Module, batches: TrainBatches, loss: StudentLoss) -> None:
    """Sum the gradients of the loss over 32 training batches. BatchNorm statistics do not change.

    Args:
        network: its weights get the gradients. It is put in eval mode.
        batches: training batches.
        loss: the student loss.
    """
    network.eval()
    for batch in islice((batch for epoch in range(_BATCHES) for batch in batches.epoch(epoch)), _BATCHES):
        loss(network(batch.images), batch.labels).backward()  # type: ignore[no-untyped-call]


def _graph(network: nn.Module) -> torch_pruning.DependencyGraph:
    images = torch.zeros(1, len(input_spec_of(network)), 64, 64)
    return torch_pruning.DependencyGraph().build_dependency(network, example_inputs=images)


def _asked(settings: PruneSettings) -> tuple[str | int | None, ...]:
    return (str(settings.run), settings.max_latency, settings.max_memory, settings.max_size)


def _check_resumed(folder: RunFolder, settings: PruneSettings) -> None:
    run, latency, memory, size = read_record(folder.pruned).budget or (None,) * 4
    before = (run, latency, size_in_bytes(memory), size_in_bytes(size))
    if before != _asked(settings):
        raise RunFolderError(f"{folder.path}: --resume with another run or budget than it was pruned with: {before}.")
