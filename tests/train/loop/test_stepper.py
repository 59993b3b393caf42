"""Schedules by hand, the moving average by hand, and checkpoints."""

import math
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from skystill.errors import LossNotFinite, SettingsError
from skystill.train.loop.stepper import Stepper, learning_rate


class OneWeight(nn.Module):
    """A weight w, which also stands in a float buffer, and a buffer that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("seen", torch.tensor(0.0))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = self.w.detach().clone()
        self.count += 1
        return self.w * images


def stepper_of(network: nn.Module, rate: float = 0.1) -> Stepper:
    return Stepper(Fabric(accelerator="cpu", devices=1), network, torch.optim.SGD(network.parameters(), lr=rate))


def descend(stepper: Stepper, steps: int) -> None:
    """The gradient of the loss is 1, so that each step takes the learning rate off the weight."""
    for _ in range(steps):
        stepper.step({"loss": stepper.forward(torch.ones(()))})


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 7, 2.0),
        ("cosine", 0, 2.0),
        ("cosine", 5, 1.0),  # half of the way down
        ("cosine", 10, 0.0),
        ("one-cycle", 0, 2.0 / 25),
        ("one-cycle", 1, (2.0 / 25 + 2.0) / 2),  # half of the way up
        ("one-cycle", 2, 2.0),
        ("one-cycle", 6, (2.0 + 2e-4) / 2),  # half of the way down
        ("one-cycle", 10, 2e-4),
    ],
)
def test_schedules_by_hand(schedule: str, step: int, expected: float) -> None:
    assert learning_rate(schedule, 2.0, step, total=11) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("schedule", "decay", "says"),
    [
        ("linear", 0.0, "'linear'; there are one-cycle, cosine, constant"),
        ("cosine", 1.0, "decay is 1;"),
        ("cosine", -0.1, "decay is -0.1;"),
    ],
)
def test_a_plan_that_cannot_be_kept_is_refused(schedule: str, decay: float, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        stepper_of(OneWeight()).plan(10, schedule, decay)


def test_the_moving_average_by_hand() -> None:
    """The weight goes 1, 0.9, 0.8, 0.7, the buffer 0, 1, 0.9, 0.8. The decay is min(0.22, (1 + t) / (10 + t)) after
    step t: 2/11, then 0.22, because 3/12 and 4/13 are larger."""
    network = OneWeight()
    stepper = stepper_of(network)
    stepper.plan(3, "constant", 0.22)
    for step, weight, seen in ((1, 0.918182, 0.818182), (2, 0.826, 0.882), (3, 0.72772, 0.81804)):
        descend(stepper, 1)
        assert float(stepper.average["w"]) == pytest.approx(weight, abs=1e-6)
        assert float(stepper.average["seen"]) == pytest.approx(seen, abs=1e-6)  # float buffers are averaged
        assert int(stepper.average["count"]) == step  # integer buffers are copied
    with stepper.averaged():
        assert network.w.item() == pytest.approx(0.72772, abs=1e-6)
    assert network.w.item() == pytest.approx(0.7, abs=1e-6)
    stepper.take_result()
    assert network.w.item() == pytest.approx(0.72772, abs=1e-6)


def test_without_a_decay_there_is_no_average() -> None:
    stepper = stepper_of(OneWeight())
    stepper.plan(2, "constant", 0.0)
    descend(stepper, 2)
    assert stepper.average == {}
    stepper.take_result()
    assert stepper.plain_network.w.item() == pytest.approx(0.8)


def test_a_resumed_stepper_ends_at_the_same_bits(tmp_path: Path) -> None:
    whole = stepper_of(OneWeight())
    whole.plan(6, "one-cycle", 0.9)
    descend(whole, 3)
    torch.save(whole.state(), tmp_path / "resume.pt")
    descend(whole, 3)
    resumed = stepper_of(OneWeight())
    resumed.plan(6, "one-cycle", 0.9)
    resumed.load(torch.load(tmp_path / "resume.pt", weights_only=True))
    descend(resumed, 3)
    assert resumed.steps == 6
    for part in ("network", "average"):
        one, other = whole.state()[part], resumed.state()[part]
        assert one.keys() == other.keys() == {"w", "seen", "count"}
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_average_can_be_started_while_a_hook_holds_features() -> None:
    """A step that was interrupted leaves features with their gradients behind; copying the module would fail."""
    network = OneWeight()
    network.features = network(torch.ones(()))  # as `FeatureHook` keeps them
    stepper = stepper_of(network)
    stepper.plan(1, "constant", 0.9)
    descend(stepper, 1)
    assert stepper.average.keys() == {"w", "seen", "count"}


def test_weights_of_a_loss_learn_beside_the_network() -> None:
    stepper = stepper_of(OneWeight())
    beside = OneWeight()
    stepper.learn_beside(beside)
    stepper.learn_beside(nn.Identity())  # a loss without weights
    stepper.plan(1, "constant", 0.0)
    stepper.step({"loss": stepper.forward(torch.ones(())) + 2 * beside(torch.ones(()))})
    assert stepper.plain_network.w.item() == pytest.approx(0.9)
    assert beside.w.item() == pytest.approx(0.8)
    assert len(stepper.state()["beside"]) == 1


def test_the_gradient_is_clipped_to_length_one() -> None:
    stepper = stepper_of(OneWeight())
    stepper.plan(1, "constant", 0.0)
    stepper.step({"loss": stepper.forward(torch.tensor(50.0))})
    assert stepper.plain_network.w.item() == pytest.approx(0.9, abs=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_moves_nothing(value: float) -> None:
    stepper = stepper_of(OneWeight())
    stepper.plan(1, "constant", 0.0)
    with pytest.raises(LossNotFinite, match="step 1"):
        stepper.step({"loss": stepper.forward(torch.tensor(value))})
    assert stepper.plain_network.w.item() == 1.0 and stepper.steps == 0
