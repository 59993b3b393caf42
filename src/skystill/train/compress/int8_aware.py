"""Quantisation-aware fine-tuning: a trained network is trained further with the rounding of INT8.

First, each BatchNorm is folded into its convolution, because the folded weights are the ones that will be rounded.
Weights are then rounded to 8 bits with one scale per output channel. The input of a convolution is rounded to 8 bits
over a range that follows the data. The gradient passes through the rounding (Jacob 2017, arXiv 1712.05877). Afterwards
the network has the same structure as before, including BatchNorm, and is exported and calibrated like any other.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from skystill.train.networks.levels import Leveled

_FOLLOW = 0.05  # rate of the moving average of a range: it follows the data within about twenty steps


class RoundWeights(nn.Module):
    """Rounding of weights (outputs, ...) to 255 levels, symmetric about 0, with one scale per output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weights. Gradients pass as if nothing had been rounded."""
        largest = weight.detach().abs().amax(dim=tuple(range(1, weight.dim())))
        scale = (largest / 127).clamp(min=1e-8)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


class RoundInput(nn.Module):
    """Rounding of a tensor to 256 levels over a range that follows the data in training mode."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))

    def forward(self, values: Tensor) -> Tensor:
        """Return the rounded tensor. Gradients pass only for values inside the range."""
        if self.training:
            self._follow(values.detach())
        scale = ((self.high - self.low) / 255).clamp(min=1e-8)
        zero = torch.round(-self.low / scale).clamp(0, 255).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, 255)

    def _follow(self, values: Tensor) -> None:
        low, high = values.amin().clamp(max=0).float(), values.amax().clamp(min=0).float()
        first = bool(self.high == self.low)
        self.low.copy_(low if first else torch.lerp(self.low, low, _FOLLOW))
        self.high.copy_(high if first else torch.lerp(self.high, high, _FOLLOW))


@contextmanager
def int8_aware(network: nn.Module) -> Iterator[nn.Module]:
    """Make a network compute with the rounding of INT8 inside the block.

    Afterwards it has its old structure again, with the weights that it learnt in the block.

    Args:
        network: a trained network, which is changed in place. Its optimiser must be created inside the block.

    Yields:
        The same network.
    """
    folded = _fold(network)
    # Frozen levels go to training mode, so that the ranges of their inputs follow the data. Their weights stay frozen,
    # and they have no BatchNorm here.
    frozen = network.frozen if isinstance(network, Leveled) else 0
    if isinstance(network, Leveled):
        network.frozen = 0
    handles: list[RemovableHandle] = []
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        parametrize.register_parametrization(convolution, "weight", RoundWeights())
        convolution.add_module("round_input", RoundInput())
        handles.append(convolution.register_forward_pre_hook(_round_input))
    try:
        yield network
    finally:
        for convolution, handle in zip(convolutions, handles, strict=True):
            handle.remove()
            del convolution.round_input
            parametrize.remove_parametrizations(convolution, "weight", leave_parametrized=False)
        if isinstance(network, Leveled):
            network.frozen = frozen
        _unfold(folded)


def _round_input(convolution: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    rounded: Tensor = convolution.round_input(inputs[0])  # type: ignore[operator]  # added in int8_aware
    return (rounded,)


_Folded = tuple[nn.Sequential, int, nn.BatchNorm2d]


def _fold(network: nn.Module) -> list[_Folded]:
    """Fold each BatchNorm into the convolution before it.

    Returns:
        For each of them the block, the place of the convolution in it, and the BatchNorm.
    """
    folded: list[_Folded] = []
    for block in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place in range(len(block) - 1):
            convolution, norm = block[place], block[place + 1]
            if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
                continue
            assert norm.running_mean is not None and norm.running_var is not None, "made without statistics"
            factor = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
            convolution.weight.data.mul_(factor[:, None, None, None])
            bias = norm.bias.detach() - norm.running_mean * factor
            convolution.bias = nn.Parameter(bias, requires_grad=norm.bias.requires_grad)
            block[place + 1] = nn.Identity()
            folded.append((block, place, norm))
    return folded


def _unfold(folded: list[_Folded]) -> None:
    """Put each BatchNorm back with mean 0 and variance 1, so that it only adds the bias of its convolution."""
    for block, place, norm in folded:
        convolution = block[place]
        assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None, "folded above"
        assert norm.running_mean is not None and norm.running_var is not None, "folded above"
        with torch.no_grad():
            norm.to(convolution.weight.device)
            norm.running_mean.zero_()
            norm.running_var.fill_(1.0)
            norm.weight.fill_(math.sqrt(1 + norm.eps))
            norm.bias.copy_(convolution.bias)
        convolution.bias = None
        block[place + 1] = norm
