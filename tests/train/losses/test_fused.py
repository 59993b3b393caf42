"""Gradients written out by hand against those that autograd finds."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skystill.train.losses.fused import float_and_means


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("used", ["both", "all", "means"])
@pytest.mark.parametrize("side", [2, 3])  # by 3 the last two columns are no whole block
def test_logits_for_two_losses_have_the_gradient_of_their_sum(dtype: torch.dtype, used: str, side: int) -> None:
    start = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)

    def gradient(every: Tensor, means: Tensor, logits: Tensor) -> Tensor:
        loss = every.new_zeros(())
        if used != "means":
            loss = loss + every.pow(2).sum()
        if used != "all":
            loss = loss + means.pow(3).sum()
        (found,) = torch.autograd.grad(loss, logits)
        return found

    mine, plain = (start.clone().requires_grad_() for _ in range(2))
    every, means = float_and_means(mine, side)
    assert every.dtype == means.dtype == torch.float32
    expected = F.avg_pool2d(plain.float(), side)
    assert torch.allclose(means, expected, atol=1e-6)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    found, wanted = gradient(every, means, mine), gradient(plain.float(), expected, plain)
    assert torch.allclose(found.float(), wanted.float(), rtol=tolerance, atol=tolerance)


def test_blocks_of_one_pixel_are_the_logits() -> None:
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    every, means = float_and_means(logits, 1)
    assert every is means
