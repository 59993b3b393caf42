"""Example images for networks of any input: noise, for checks, and for measurements that do not depend on the image."""

import numpy as np
import torch
from torch import Tensor, nn

from skystill.raster.input_spec import RGB, InputSpec
from skystill.train.networks.blocks import Normalize


def input_spec_of(network: nn.Module) -> InputSpec:
    """Return what a network is fed: the spec of its `Normalize`, or colours if it has none."""
    found = next((module for module in network.modules() if isinstance(module, Normalize)), None)
    return RGB if found is None else found.input_spec


def noise_images(input_spec: InputSpec, count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return images of noise (count, B, height, width) in the data type of the spec.

    Values are equally likely over the range of the training images, bytes over 0 to 255.
    """
    if input_spec.is_three_bytes:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
    low, high = np.array([(band.low, band.high) for band in input_spec.bands]).T[:, None, :, None, None]
    values = np.random.default_rng(seed).random((count, len(input_spec), height, width)) * (high - low) + low
    return torch.from_numpy(values.astype(input_spec.kind))
