"""Wrappers that run a network of fixed image size or fixed batch size on images of any size and number."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.tiling import overlapping_cuts


class FixedSize(nn.Module):
    """A wrapper that runs a network of fixed input size in tiles of this size over images of any size.

    Neighbouring tiles overlap by a quarter of their side or more. Images smaller than a tile are padded below and on
    the right with their edge pixels.

    Args:
        network: images (N, 3, height, width) to (N, C, h, w). An output of another size than the input is resized.
        height, width: the input size of the network in pixels.
    """

    def __init__(self, network: nn.Module, height: int, width: int) -> None:
        super().__init__()
        self.network, self.height, self.width = network, height, width

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to outputs (N, C, H, W)."""
        height, width = images.shape[2:]
        below, right = max(0, self.height - height), max(0, self.width - width)
        padded = F.pad(images.float(), (0, right, 0, below), mode="replicate") if below or right else images
        result: Tensor | None = None
        for top, rows, rows_in in overlapping_cuts(padded.shape[2], self.height):
            for left, columns, columns_in in overlapping_cuts(padded.shape[3], self.width):
                found = self.network(padded[:, :, top : top + self.height, left : left + self.width])
                if found.shape[2:] != (self.height, self.width):
                    found = F.interpolate(found.float(), size=(self.height, self.width), mode="bilinear")
                if result is None:
                    result = found.new_empty(found.shape[0], found.shape[1], *padded.shape[2:])
                result[:, :, rows, columns] = found[:, :, rows_in, columns_in]
        assert result is not None
        return result[:, :, :height, :width]


def fixed_or_free(network: nn.Module, height: object, width: object) -> nn.Module:
    """Return the network, wrapped in `FixedSize` if its input height and width are fixed numbers.

    Args:
        network: the network.
        height: an int if it is fixed; any other value means that it is free.
        width: as `height`.
    """
    return FixedSize(network, height, width) if isinstance(height, int) and isinstance(width, int) else network


class ChannelsLast(nn.Module):
    """A wrapper of a network whose input and output are (N, H, W, C)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, B, H, W) to outputs (N, C, h, w)."""
        found: Tensor = self.network(images.permute(0, 2, 3, 1))
        return found.permute(0, 3, 1, 2)


class _OneByOne(nn.Module):
    """A wrapper that runs a network on one image at a time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to outputs (N, C, h, w)."""
        return torch.cat([self.network(images[index : index + 1]) for index in range(len(images))])


def one_by_one(network: nn.Module, batch: object) -> nn.Module:
    """Return the network, wrapped to run on one image at a time if its batch size is a fixed number.

    Args:
        network: the network.
        batch: an int if the batch size is fixed; any other value means that it is free.
    """
    return _OneByOne(network) if isinstance(batch, int) else network
