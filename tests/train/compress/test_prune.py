import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from skystill.classes import ClassMap
from skystill.data.scenes import SCENE_CLASSES
from skystill.errors import CheckpointError, SettingsError
from skystill.model.measure import ModelCost
from skystill.progress import Event, Message, ignore_progress
from skystill.run_folder import RunFolder
from skystill.settings import PruneSettings, build_settings
from skystill.train.compress.budget import Budget
from skystill.train.compress.export import describe, export_network, multiply_adds_per_megapixel
from skystill.train.compress.prune import Cut, Group, choose_cuts, cut, find_groups, prune_network, prune_run
from skystill.train.networks.start import network_name, start_network
from skystill.train.networks.table import build_network, count_parameters
from skystill.train.networks.weights import NetworkRecord, read_network, write_network
from tests.model_cost import cost

IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
NETWORKS = [
    "kite-tiny",
    "swift-small",
    "kite?channels=(12,20)&blocks=(2,1)",
    "unet?channels=8&depth=3&norm=True",
    "two-level",
    "lite?blocks=5&up_blocks=(1,1)&hidden=(16,48)",
]


def squares(network: nn.Module) -> None:
    """A loss that every weight has a part in."""
    network.eval()(IMAGES).square().mean().backward()


def worked(network: nn.Module) -> tuple[ModelCost, dict[str, float]]:
    """Work for time, weights for shares of it: they are the same on every machine."""
    work = cost(latency_ms_per_mp=multiply_adds_per_megapixel(network) / 1e6, size_bytes=count_parameters(network))
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    total = sum(layer.weight.numel() for layer in layers.values())
    return work, {name: layer.weight.numel() / total for name, layer in layers.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_silent_channels_go_without_a_trace(name: str) -> None:
    """Channels whose every weight is 0 do nothing: without them the network answers the same."""
    torch.manual_seed(0)
    network = build_network(name, 5).eval()
    groups = find_groups(network, squares)
    assert len(groups) >= 2
    for group in groups:
        silent = [0, group.channels - 1]
        copied = copy.deepcopy(network)
        _silence(copied, group.root, silent)
        smaller = copy.deepcopy(copied)
        cut(smaller, group.root, silent)
        assert count_parameters(smaller) < count_parameters(network)
        torch.testing.assert_close(smaller(IMAGES), copied(IMAGES), rtol=1e-4, atol=1e-4)


def _silence(network: nn.Module, root: str, channels: list[int]) -> None:
    """Set to 0 all that cutting these channels takes away."""
    from skystill.train.compress.prune import _graph  # the library's own list of what hangs together

    layer = network.get_submodule(root)
    graph = _graph(network)
    group = graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, channels)
    with torch.no_grad():
        for dependency, indices in group:
            module = dependency.target.module
            if hasattr(module, "weight") and dependency.handler.__name__ == "prune_out_channels":
                along = 1 if isinstance(module, nn.ConvTranspose2d) else 0
                module.weight.index_fill_(along, torch.tensor(indices), 0.0)
                if module.bias is not None:
                    module.bias[indices] = 0.0


def test_what_a_channel_does_is_its_weights_times_their_gradients() -> None:
    torch.manual_seed(0)
    network = build_network("two-level?channels=4", 3).eval()
    group = next(g for g in find_groups(network, squares) if g.root == "encoder.0.0")
    squares(network)
    first, second = network.encoder[0][0], network.encoder[0][2]  # type: ignore[index]  # what makes it, what reads it
    made = (first.weight * first.weight.grad).abs().sum(dim=(1, 2, 3))
    read = (second.weight * second.weight.grad).abs().sum(dim=(0, 2, 3))
    torch.testing.assert_close(group.importance, made + read)


def test_the_least_worth_for_a_millisecond_goes_first() -> None:
    cheap, dear, slow = Cut("a", [0], 4.0, 1.0), Cut("b", [1], 4.0, 4.0), Cut("c", [2], 12.0, 4.0)
    free, noise = Cut("d", [3], 0.0, 0.0), Cut("e", [4], 0.0, -1.0)
    cuts = [cheap, noise, slow, dear, free]
    assert choose_cuts(cuts, 4.0) == [dear]  # 1 a millisecond, then 3, then 4
    assert choose_cuts(cuts, 4.1) == [dear, slow]
    assert choose_cuts(cuts, 1e9) == [dear, slow, cheap]
    assert choose_cuts([free, noise], 1.0) == []


def test_widths_go_down_to_a_multiple() -> None:
    importance = torch.tensor([5.0, 1, 4, 2, 3, 9, 8, 7, 6, 10])
    assert Group("a", 10, importance, {}).least_important(4) == [1, 3]
    assert Group("a", 10, importance, {}).least_important(5) == [1, 3, 4, 2, 0]


def test_a_channel_costs_its_part_of_each_layer_that_makes_or_reads_it() -> None:
    network = build_network("two-level?channels=4", 3).eval()
    groups = {group.root: group for group in find_groups(network, squares)}
    # encoder.0.2 makes 4 channels; encoder.1.0 reads them, and decoder.0.0 reads 8: these 4 and 4 from below
    assert groups["encoder.0.2"].layers == {"encoder.0.2": 1 / 4, "encoder.1.0": 1 / 4, "decoder.0.0": 1 / 8}
    shares = {"encoder.0.2": 0.4, "encoder.1.0": 0.2, "head": 0.4}
    assert groups["encoder.0.2"].time_fraction(2, shares) == pytest.approx(0.2 + 0.1)


@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_to_a_budget_and_read_again(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network(name, len(SCENE_CLASSES)).eval()
    limit = worked(network)[0].latency_ms_per_mp * 0.6
    events: list[Event] = []
    prune_network(network, Budget(limit, None, None), worked, squares, events.append, 4)
    assert (
        worked(network)[0].latency_ms_per_mp <= limit and isinstance(events[-1], Message) and "kept" in events[-1].text
    )
    path = tmp_path / "pruned.safetensors"
    write_network(path, network, NetworkRecord(f"pruned {name}", SCENE_CLASSES))
    again, about = read_network(path)
    assert torch.equal(again(IMAGES), network(IMAGES)) and network_name(str(path)) == f"pruned {name}"
    if name == "two-level":  # the cheapest: exporting takes seconds, and is checked against torch
        export_network(again, describe(about.network, again, SCENE_CLASSES), tmp_path / "m.onnx")
    fresh = start_network(str(path), len(SCENE_CLASSES)).train()  # as a student that goes on learning
    loss = fresh(IMAGES).square().mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in fresh.parameters())


def test_a_size_is_kept_where_the_time_already_is() -> None:
    network = build_network("two-level", 5).eval()
    size = count_parameters(network) // 2
    prune_network(network, Budget(1e9, None, size), worked, squares, ignore_progress, 4)
    assert count_parameters(network) <= size


def test_a_budget_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    network = build_network("kite-tiny", 5).eval()
    with pytest.raises(SettingsError, match="cannot be pruned so far: at its least it needs"):
        prune_network(network, Budget(1e-3, None, None), worked, squares, ignore_progress)
    with pytest.raises(SettingsError, match="say what the pruned network may cost: --max-latency"):
        build_settings(PruneSettings, {"data": tmp_path, "out": tmp_path, "run": tmp_path})
    for asked in ({"freeze": 2}, {"from_scratch": True}):
        with pytest.raises(SettingsError, match="every level must learn to do without the rest"):
            build_settings(
                PruneSettings, {"data": tmp_path, "out": tmp_path, "run": tmp_path, "max_size": "1MB"} | asked
            )


def test_a_weights_file_of_other_widths_is_refused(tmp_path: Path) -> None:
    network = build_network("kite-tiny", 5).eval()
    group = find_groups(network, squares)[0]
    about = NetworkRecord("kite-tiny", SCENE_CLASSES)
    smaller = copy.deepcopy(network)
    cut(smaller, group.root, [0])
    write_network(tmp_path / "w.safetensors", smaller, about)
    with pytest.raises(CheckpointError, match="cannot be read as SkyStill weights"):
        read_network(tmp_path / "w.safetensors")
    write_network(tmp_path / "w.safetensors", smaller, replace(about, network="pruned kite-tiny"))
    other = start_network(
        str(tmp_path / "w.safetensors"), 6
    )  # other classes get a fresh head on the channels that are left
    assert other(torch.zeros(1, 3, 32, 32)).shape == (1, 6, 32, 32)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"mix": "mixup", "teacher_mode": "cached"}, "is in no cache"),
        ({"logger": ["wandb"]}, "the package wandb is not installed"),
        ({"patience": 2, "split": "0.8/0/0.2"}, "by the mIoU on the validation images of the split, and it has none"),
    ],
)
def test_settings_of_the_distillation_are_checked_before_anything_is_pruned(
    more: dict[str, object], reason: str, tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skystill.train.loggers.importlib.util.find_spec", lambda name: None)
    run = RunFolder(tmp_path / "run")
    run.start({}, resume=False)
    network = build_network("kite-nano", len(SCENE_CLASSES))
    write_network(run.weights, network, NetworkRecord("kite-nano", SCENE_CLASSES))
    given = {"run": run.path, "data": scenes, "out": tmp_path / "out", "max_size": "1KB"}
    with pytest.raises(SettingsError, match=reason):
        prune_run(build_settings(PruneSettings, given | more))
    assert not RunFolder(tmp_path / "out").pruned.exists()


def test_data_of_other_classes_are_refused(tmp_path: Path, scenes: Path) -> None:
    """The same classes in another order, too: each row of the head would be measured on the labels of another class."""
    run = RunFolder(tmp_path / "run")
    run.start({}, resume=False)
    other = ClassMap(tuple(reversed(SCENE_CLASSES.names)), SCENE_CLASSES.colors)
    write_network(run.weights, build_network("kite-nano", len(other)), NetworkRecord("kite-nano", other))
    given = {"run": run.path, "data": scenes, "out": tmp_path / "out", "max_size": "1KB"}
    with pytest.raises(SettingsError, match=rf"was trained on {other.names[0]}.*Prune on data of the same classes"):
        prune_run(build_settings(PruneSettings, given))
