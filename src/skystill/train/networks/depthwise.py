"""Depthwise convolutions in the number format in which they train fastest."""

import torch
from torch import Tensor, nn


class Float32Depthwise(nn.Conv2d):
    """A depthwise convolution that computes in float32 where a CPU otherwise works in bf16.

    oneDNN has no fast backward pass in bf16 for kernels above 3x3 or with a stride: it took 3 to 7 times as long as in
    float32 (benchmarks/depthwise.py).
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H / stride, W / stride), in the number format of autocast."""
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(torch.get_autocast_dtype("cpu"))


def make_depthwise_fast(network: nn.Module) -> None:
    """Let the depthwise convolutions of a network that are slow in bf16 compute in float32, in place.

    Weights, their names, and what is computed in float32 stay as they are.
    """
    for layer in network.modules():
        if type(layer) is nn.Conv2d and _is_slow(layer):
            layer.__class__ = Float32Depthwise


def _is_slow(layer: nn.Conv2d) -> bool:
    is_depthwise = layer.groups == layer.in_channels == layer.out_channels > 1
    return is_depthwise and (max(layer.kernel_size) > 3 or max(layer.stride) > 1)
