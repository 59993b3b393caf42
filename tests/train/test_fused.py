"""Gradients written out by hand against those that autograd finds."""

import pytest
import torch
from torch import Tensor

from skystill.train.fused import float_and_some

PLACE = (slice(1, None, 2), slice(0, None, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("used", ["both", "all", "some"])
def test_logits_for_two_losses_have_the_gradient_of_their_sum(dtype: torch.dtype, used: str) -> None:
    start = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)

    def gradient(every: Tensor, some: Tensor, logits: Tensor) -> Tensor:
        loss = every.new_zeros(())
        if used != "some":
            loss = loss + every.pow(2).sum()
        if used != "all":
            loss = loss + some.pow(3).sum()
        (found,) = torch.autograd.grad(loss, logits)
        return found

    mine, plain = (start.clone().requires_grad_() for _ in range(2))
    every, some = float_and_some(mine, *PLACE)
    assert every.dtype == some.dtype == torch.float32
    assert torch.equal(some, start.float()[..., *PLACE])
    expected = gradient(plain.float(), plain.float()[..., *PLACE], plain)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    assert torch.allclose(gradient(every, some, mine).float(), expected.float(), rtol=tolerance, atol=tolerance)


def test_all_pixels_are_one_tensor() -> None:
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    every, some = float_and_some(logits, slice(0, None, 1), slice(0, None, 1))
    assert every is some
