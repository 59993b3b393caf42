"""Frozen levels of an encoder, its learning rate, and a resumed training with stochastic depth."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from skystill.classes import DUBAI, ClassMap
from skystill.data.prepare import PreparedData
from skystill.errors import SettingsError
from skystill.raster.input_spec import RGB
from skystill.settings import DistillSettings, TrainSettings
from skystill.train.batches.batches import Batch, as_batch
from skystill.train.beginning import build_first
from skystill.train.compress.int8_aware import int8_aware
from skystill.train.fitting import Fitting
from skystill.train.loop.checkpoint import Checkpointer, LoopState
from skystill.train.loop.supervised import Supervised
from skystill.train.networks.levels import Leveled, as_leveled
from skystill.train.networks.table import NETWORKS, build_network
from skystill.train.networks.weights import NetworkRecord, write_network
from skystill.train.teachers.origins import Teachers
from skystill.train.teachers.teacher import Teacher
from skystill.train.teaching import Teaching, build_distiller

DATA = cast(PreparedData, SimpleNamespace(classes=("a", "b", "c"), spec=RGB))


def settings(network: str = "lite", **keywords: object) -> TrainSettings:
    return TrainSettings(data=Path("data"), out=Path("out"), network=network, **keywords)  # type: ignore[arg-type]


def first(network: str, **keywords: object) -> Leveled:
    own = build_first(network, settings(network, **keywords), DATA)
    assert isinstance(own, Leveled)
    return own


def task_of(network: nn.Module, **keywords: object) -> Supervised:
    task = Supervised(network)
    fitting = cast(Fitting, SimpleNamespace(settings=settings(**keywords)))
    task.compile(Fitting.optimizer(fitting, network), metrics={})
    task.stepper.plan(6, "one-cycle", 0.9)
    return task


def batches() -> Iterator[Batch]:
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
        yield as_batch((images, torch.randint(0, 3, (2, 32, 32), generator=generator)))


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_frozen_levels_have_no_gradients_and_their_statistics_stay(count: int) -> None:
    network = first("lite?stochastic_depth=0.2", freeze=count)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    task = task_of(network, encoder_rate=0.1 if count == 4 else None)  # then nothing learns at this rate
    for batch in batches():
        network.train()  # as any loop does
        task.train_step(batch)
    frozen = tuple(f"levels.{level}." for level in range(count))
    for key, weight in network.named_parameters():
        assert (weight.grad is None) == key.startswith(frozen), key
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith(frozen), key
    assert not any(module.training for level in network.levels[:count] for module in level.modules())
    assert all(module.training for level in network.levels[count:] for module in level.modules())
    assert sum(len(group["params"]) for group in task.stepper.optimizer.param_groups) == sum(
        weight.requires_grad for weight in network.parameters()
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_more_levels_than_there_are_name_their_number(name: str) -> None:
    network = build_network(name, 2)
    assert isinstance(network, Leveled)
    network.freeze(len(network.levels), name)
    with pytest.raises(SettingsError, match=rf"--freeze 17: the encoder of {name} has {len(network.levels)} levels"):
        network.freeze(17, name)


def test_what_cannot_be_frozen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="swift begins with random weights, and frozen levels would keep them"):
        first("swift", freeze=1)
    with pytest.raises(SettingsError, match="lite begins with random weights"):
        first("lite", freeze=1, from_scratch=True)
    with pytest.raises(SettingsError, match="lite-small leaves out channels"):
        first("lite-small", freeze=1)
    with pytest.raises(SettingsError, match="lite has 4 levels"):
        first("lite", freeze=5)
    path = tmp_path / "kite.safetensors"
    write_network(path, build_network("kite-tiny", len(DUBAI)), NetworkRecord("kite-tiny", DUBAI))
    data = cast(PreparedData, SimpleNamespace(classes=DUBAI, spec=RGB))
    found = build_first(str(path), settings(str(path), freeze=1), data)
    assert [any(p.requires_grad for p in level.parameters()) for level in found.levels] == [False, True, True]
    with pytest.raises(SettingsError, match=r"has weights\. Leave one of them out"):
        build_first(str(path), settings(str(path), from_scratch=True), data)


def test_a_head_of_other_classes_is_sorted_by_name(tmp_path: Path) -> None:
    path = tmp_path / "kite.safetensors"
    before = ClassMap(("a", "b", "c"), ((1, 0, 0), (2, 0, 0), (3, 0, 0)))
    now = ClassMap(("C", "new", "a"), before.colors)
    write_network(path, build_network("kite-tiny", 3), NetworkRecord("kite-tiny", before))
    own = build_first(str(path), settings(str(path)), cast(PreparedData, SimpleNamespace(classes=before, spec=RGB)))
    found = build_first(str(path), settings(str(path)), cast(PreparedData, SimpleNamespace(classes=now, spec=RGB)))
    rows, sorted_rows = (one.head.weight.view(3, -1) for one in (own, found))  # type: ignore[union-attr, operator]
    assert sorted_rows[0].equal(rows[2]) and sorted_rows[2].equal(rows[0]) and not sorted_rows[1].equal(rows[1])
    assert not own.notes and "matched by name; new begin anew" in found.notes[0]  # type: ignore[index, operator]


@pytest.mark.parametrize(
    ("names", "kept", "said"),
    [
        (("b", "a"), (1, 0), "its classes are matched by name."),
        (("A", "b", "c", "d"), (0, 1, 2, None), "matched by name; d begin anew."),
        (("x", "y", "z", "u", "C"), (None, None, None, None, 2), "matched by name; x, y, z, u begin anew."),
        (("x", "y"), (None, None), "matched by name; x, y begin anew."),
    ],
)
def test_a_head_of_more_or_fewer_classes_keeps_those_that_it_knows(
    names: tuple[str, ...], kept: tuple[int | None, ...], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "kite.safetensors"
    before = ClassMap(("a", "b", "c"), ((1, 0, 0), (2, 0, 0), (3, 0, 0)))
    now = ClassMap(names, tuple((label, 0, 0) for label in range(len(names))))
    written = build_network("kite-tiny", 3)
    write_network(path, written, NetworkRecord("kite-tiny", before))
    found = build_first(str(path), settings(str(path)), cast(PreparedData, SimpleNamespace(classes=now, spec=RGB)))
    rows, own = found.head.weight.view(len(names), -1), written.head.weight.view(3, -1)  # type: ignore[union-attr, operator]
    for label, source in enumerate(kept):
        same = [bool(rows[label].equal(one)) for one in own]
        assert same == [source == index for index in range(3)], names[label]
    assert found.notes[0].endswith(said)  # type: ignore[index, operator]
    rest, trained = found.state_dict(), written.state_dict()
    assert all(rest[name].equal(value) for name, value in trained.items() if not name.startswith("head."))


def test_the_encoder_has_a_learning_rate_of_its_own() -> None:
    network = first("lite", freeze=2)
    groups = task_of(network, learning_rate=1e-3, encoder_rate=0.1).stepper.optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([1e-3, 1e-4])
    learning = [weight for level in network.levels[2:] for weight in level.parameters()]
    assert [id(weight) for weight in groups[1]["params"]] == [id(weight) for weight in learning]
    task = task_of(network, learning_rate=1e-3, encoder_rate=0.1)
    task.train_step(next(batches()))
    assert task.stepper.optimizer.param_groups[1]["lr"] == pytest.approx(
        0.1 * task.stepper.optimizer.param_groups[0]["lr"]
    )


def test_a_resumed_training_gives_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    def begin() -> tuple[nn.Module, Supervised]:
        network = first("lite?stochastic_depth=0.5", freeze=1, seed=3)
        return network, task_of(network, encoder_rate=0.1)

    network, task = begin()
    for batch in batches():
        task.train_step(batch)
    again, task = begin()
    for batch in list(batches())[:3]:
        task.train_step(batch)
    checkpointer = Checkpointer(tmp_path / "resume.pt", lambda rows: None)
    checkpointer.save(task, LoopState(0, 3, []))
    torch.manual_seed(99)
    resumed = first("lite?stochastic_depth=0.5", freeze=1, seed=8)
    task = task_of(resumed, encoder_rate=0.1)
    checkpointer.load(task)
    for batch in list(batches())[3:]:
        task.train_step(batch)
    expected = network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.state_dict().items())
    assert not torch.equal(again.head.weight, network.head.weight)


def test_int8_aware_fine_tuning_keeps_frozen_weights_and_follows_their_ranges() -> None:
    network = first("lite", freeze=2)
    squares = network.normalize(next(batches()).images, 16, 2)  # type: ignore[operator]
    with torch.no_grad():
        expected = network.levels[1](network.levels[0](squares))
    with int8_aware(network):
        before = {key: value.clone() for key, value in network.named_parameters() if key.startswith("levels.1.")}
        task = task_of(network)
        for batch in batches():
            task.train_step(batch)
        assert all(weight.grad is None for key, weight in network.named_parameters() if key in before)
        assert all(torch.equal(weight, before[key]) for key, weight in network.named_parameters() if key in before)
        assert all(float(module.round_input.high) > 0 for module in network.modules() if isinstance(module, nn.Conv2d))
    assert network.frozen == 2
    with torch.no_grad():
        found = network.train().levels[1](network.levels[0](squares))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_loss_on_features_of_a_frozen_layer_is_refused() -> None:
    """Nothing could learn there."""
    student = as_leveled(build_network("kite-tiny", 3))
    student.freeze(len(student.levels), "kite-tiny")
    given: dict[str, Any] = {"data": Path("d"), "teacher": ["t"], "out": Path("o"), "distillation_loss": "pkd"}
    teacher = Teacher(build_network("kite-tiny", 3))
    teachers = Teaching(cast(Teachers, SimpleNamespace(taught_labels=None)), [teacher], [], [])
    fabric, optimizer = Fabric(accelerator="cpu", devices=1), torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    frozen = DistillSettings(**given, freeze=len(student.levels))
    with pytest.raises(SettingsError, match=r"is frozen .* choose a later layer"):
        build_distiller(student, teachers, frozen, fabric, optimizer)
