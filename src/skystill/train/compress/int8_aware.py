"""Quantisation-aware fine-tuning: a trained network learns on with the rounding that INT8 will bring.

BatchNorm is folded into its convolution first, since that is what will be rounded; weights are rounded per output
channel to 8 bits and a convolution's input to 8 bits over a range that follows the data, with the gradient passed
through the rounding (Jacob 2017, arXiv 1712.05877). Afterwards the network is the same kind as before, BatchNorm
included, and is exported and calibrated as any other.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

_FOLLOW = 0.05  # how fast a range follows the data: about twenty steps


class RoundWeights(nn.Module):
    """Weights (outputs, ...) to the nearest of 255 steps, symmetric, a scale for each output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        """The rounded weights; gradients pass as if nothing had been rounded."""
        largest = weight.detach().abs().amax(dim=tuple(range(1, weight.dim())))
        scale = (largest / 127).clamp(min=1e-8)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


class RoundInput(nn.Module):
    """A tensor to the nearest of 256 steps over a range that follows the data while training."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))

    def forward(self, values: Tensor) -> Tensor:
        """The rounded tensor; gradients pass inside the range."""
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
    """Inside, the network computes with the rounding of INT8; afterwards it is of its old kind, with what it learnt.

    Args:
        network: trained; changed in place. Its optimiser must be made inside.
    """
    folded = _fold(network)
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
        _unfold(folded)


def _round_input(convolution: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    rounded: Tensor = convolution.round_input(inputs[0])  # type: ignore[operator]  # a module of our own
    return (rounded,)


_Folded = tuple[nn.Sequential, int, nn.BatchNorm2d]


def _fold(network: nn.Module) -> list[_Folded]:
    """Put each BatchNorm into the convolution before it; returns where each was."""
    folded: list[_Folded] = []
    for block in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place in range(len(block) - 1):
            convolution, norm = block[place], block[place + 1]
            if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
                continue
            assert norm.running_mean is not None and norm.running_var is not None, "made without statistics"
            factor = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
            convolution.weight.data.mul_(factor[:, None, None, None])
            convolution.bias = nn.Parameter(norm.bias.detach() - norm.running_mean * factor)
            block[place + 1] = nn.Identity()
            folded.append((block, place, norm))
    return folded


def _unfold(folded: list[_Folded]) -> None:
    """Give each convolution a BatchNorm that only adds: mean 0, variance 1."""
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
