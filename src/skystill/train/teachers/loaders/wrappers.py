"""Networks of fixed size or fixed batch, run on any."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FixedSize(nn.Module):
    """A network that takes one size only, run in tiles of it over images of any size; smaller images are padded.

    Args:
        network: (N, 3, height, width) to (N, C, height, width).
        height, width: that size in pixels.
    """

    def __init__(self, network: nn.Module, height: int, width: int) -> None:
        super().__init__()
        self.network, self.height, self.width = network, height, width

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, H, W)."""
        height, width = images.shape[2:]
        below, right = max(0, self.height - height), max(0, self.width - width)
        padded = F.pad(images.float(), (0, right, 0, below), mode="replicate") if below or right else images
        result: Tensor | None = None
        for top, rows, rows_in in _cuts(padded.shape[2], self.height):
            for left, columns, columns_in in _cuts(padded.shape[3], self.width):
                found = self.network(padded[:, :, top : top + self.height, left : left + self.width])
                if found.shape[2:] != (self.height, self.width):
                    found = F.interpolate(found.float(), size=(self.height, self.width), mode="bilinear")
                if result is None:
                    result = found.new_empty(found.shape[0], found.shape[1], *padded.shape[2:])
                result[:, :, rows, columns] = found[:, :, rows_in, columns_in]
        assert result is not None
        return result[:, :, :height, :width]


def _cuts(size: int, tile: int) -> list[tuple[int, slice, slice]]:
    """Starts of tiles that overlap by a quarter or more, and what each owns, in the image and in the tile."""
    count = 1 if size == tile else 1 + -(-(size - tile) // max(1, tile * 3 // 4))
    starts = [round(index * (size - tile) / max(1, count - 1)) for index in range(count)]
    ends = [(start + tile + following) // 2 for start, following in pairwise(starts)]
    owned = list(zip([0, *ends], [*ends, size], strict=True))
    return [(s, slice(a, b), slice(a - s, b - s)) for s, (a, b) in zip(starts, owned, strict=True)]


def fixed_or_free(network: nn.Module, height: object, width: object) -> nn.Module:
    """The network, in tiles where its height and width are given numbers."""
    return FixedSize(network, height, width) if isinstance(height, int) and isinstance(width, int) else network


class _OneByOne(nn.Module):
    """A network that takes one image at a time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, h, w)."""
        return torch.cat([self.network(images[index : index + 1]) for index in range(len(images))])


def one_by_one(network: nn.Module, batch: object) -> nn.Module:
    """The network, run on one image at a time where its batch size is a given number."""
    return _OneByOne(network) if isinstance(batch, int) else network
