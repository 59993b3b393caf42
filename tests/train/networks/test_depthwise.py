import copy

import pytest
import torch
from torch import nn

from skystill.train.networks.depthwise import Float32Depthwise, make_depthwise_fast


def depthwise(channels: int = 8, **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, groups=channels, **{"kernel_size": 5, "padding": 2, **options})


@pytest.mark.parametrize(
    ("layer", "is_changed"),
    [
        (depthwise(), True), (depthwise(kernel_size=3, stride=2), True), (depthwise(kernel_size=3), False),
        (nn.Conv2d(8, 8, 5), False), (nn.Conv2d(8, 16, 5, groups=8), False), (nn.Conv2d(8, 8, 5, groups=4), False),
        (nn.Conv2d(1, 1, 5), False),
    ],
)  # fmt: skip
def test_only_slow_depthwise_layers_change(layer: nn.Conv2d, is_changed: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, layer.in_channels, 3), nn.Sequential(layer))
    before = copy.deepcopy(network)
    make_depthwise_fast(network)
    assert isinstance(network[1][0], Float32Depthwise) == is_changed
    images = torch.randn(2, 3, 20, 20)
    assert torch.equal(network(images), before(images))  # in float32 nothing changes
    assert network.state_dict().keys() == before.state_dict().keys()


def test_in_bf16_the_layer_is_computed_in_float32_and_rounded_once() -> None:
    layer = depthwise()
    network = nn.Sequential(layer)
    make_depthwise_fast(network)
    features = torch.randn(2, 8, 16, 16).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(features.requires_grad_())
    found.float().square().sum().backward()
    exact = features.detach().float().requires_grad_()
    weights = layer.weight.detach().clone().requires_grad_()
    expected = torch.conv2d(exact, weights, layer.bias, padding=2, groups=8)
    rounded = expected.to(torch.bfloat16)
    rounded.float().square().sum().backward()
    assert found.dtype == torch.bfloat16 and torch.equal(found, rounded)
    assert layer.weight.grad is not None and weights.grad is not None
    torch.testing.assert_close(layer.weight.grad, weights.grad)
    torch.testing.assert_close(features.grad, exact.grad.to(torch.bfloat16))  # type: ignore[union-attr]
