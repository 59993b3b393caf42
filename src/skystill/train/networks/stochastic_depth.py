"""Stochastic depth: in training, residual branches are left out at random."""

import numpy as np
import torch
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Leaves out the branch of a residual block for some images of a training batch (Huang 2016, arXiv 1603.09382).

        output = branch * kept / (1 - rate), with kept = 0 in a fraction `rate` of the images, otherwise 1

    In eval mode the branch passes unchanged. Which images are left out depends on seed, step and block alone, and not
    on what was drawn before, so that a resumed training draws the same. Several ranks draw what one process would draw
    for the whole batch.

    Args:
        rate: 0 to below 1.
        block: number of the block, so that blocks draw independently.
    """

    def __init__(self, rate: float, block: int) -> None:
        super().__init__()
        self.rate = rate
        self.block = block
        self.seed, self.step, self.rank, self.ranks = 0, 0, 0, 1

    def forward(self, branch: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if not (self.training and self.rate):
            return branch
        count = len(branch)
        drawn = np.random.default_rng((self.seed, self.step, self.block)).random(count * self.ranks)
        own = drawn[self.rank * count : (self.rank + 1) * count]
        factor = torch.from_numpy((own >= self.rate) / (1 - self.rate)).to(branch.device, branch.dtype)
        return branch * factor[:, None, None, None]


def set_draws(network: nn.Module, seed: int, step: int, rank: int, ranks: int) -> None:
    """Set what layers of stochastic depth and of dropout draw from: the seed, the step, and the part of the batch.

    Args:
        network: with or without such layers.
        seed: seed of the training, 0 or more.
        step: number of the step.
        rank: number of this process.
        ranks: number of processes that share the batch.
    """
    if getattr(network, "library", ""):  # its layers of dropout draw from torch's generator, which no checkpoint holds
        torch.manual_seed(int(np.random.default_rng((seed, step, rank)).integers(2**62)))
    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.seed, module.step, module.rank, module.ranks = seed, step, rank, ranks
