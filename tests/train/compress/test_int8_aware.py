from pathlib import Path

import pytest
import torch
from torch import nn

from skystill.classes import DUBAI
from skystill.train.compress.export import describe, export_network
from skystill.train.compress.int8_aware import RoundInput, RoundWeights, int8_aware
from skystill.train.networks.table import build_network


def test_weights_are_rounded_per_channel_by_hand() -> None:
    weight = torch.tensor([[[[1.27, 0.004, -0.016]]], [[[0.0, 12.7, -6.33]]]])
    expected = torch.tensor([[[[1.27, 0.0, -0.02]]], [[[0.0, 12.7, -6.3]]]])  # steps of 0.01 and of 0.1
    assert torch.allclose(RoundWeights()(weight), expected, atol=1e-6)


def test_gradients_pass_through_the_rounding() -> None:
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    RoundWeights()(weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_an_input_range_is_taken_at_once_and_then_follows() -> None:
    rounding = RoundInput()
    rounding(torch.tensor([-1.0, 0.0, 1.55]))
    assert (float(rounding.low), float(rounding.high)) == pytest.approx((-1.0, 1.55))
    found = rounding.eval()(torch.tensor([-5.0, 0.0, 0.014, 0.016, 5.0]))  # steps of 0.01
    assert torch.allclose(found, torch.tensor([-1.0, 0.0, 0.01, 0.02, 1.55]), atol=1e-5)
    rounding.train()(torch.tensor([0.0, 2.55]))
    assert float(rounding.high) == pytest.approx(1.55 + 0.05 * 1.0)


@pytest.mark.parametrize("name", ["kite-small", "unet-bn", "two-level"])
def test_the_network_comes_out_of_its_old_kind(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network(name, 6)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for _ in range(3):
        network(images)
    network.eval()
    keys = sorted(network.state_dict())
    with torch.no_grad():
        before = network(images)
        with int8_aware(network):
            assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
            network.train()(images)
            rounded = network.eval()(images)
        after = network.eval()(images)
    assert sorted(network.state_dict()) == keys
    assert torch.allclose(before, after, atol=1e-4 * float(before.abs().max()))
    difference = (rounded - before).abs().max() / before.abs().max()
    assert 1e-5 < difference < 0.5  # rounded, and still the same network
    export_network(network, describe(name, network, DUBAI), tmp_path / "m.onnx")


def test_it_learns_inside() -> None:
    torch.manual_seed(0)
    network = build_network("kite?channels=(8,)&blocks=(1,)", 2)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    labels = (images[:, 0] > 127).long()
    network(images)
    with int8_aware(network):
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        losses = []
        for _ in range(30):
            loss = nn.functional.cross_entropy(network.train()(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
