import pytest
import torch
import torch.nn.functional as F

from skystill.train.networks.pixel_shuffle import pixel_shuffle, pixel_unshuffle

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_pixel_unshuffle_is_that_of_torch_and_pixel_shuffle_brings_it_back(stride: int) -> None:
    images = torch.randint(0, 256, (2, 3, 12, 24), dtype=torch.uint8)
    moved = pixel_unshuffle(images, stride)
    assert torch.equal(moved, F.pixel_unshuffle(images, stride))
    assert torch.equal(pixel_shuffle(moved, stride), images)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("stride", [2, 4])  # 4 and float64 are 32 bytes, which do not move as one number
@pytest.mark.parametrize(("high", "wide"), [(3, 7), (1, 1), (1, 7), (3, 1)])
def test_pixel_shuffle_and_its_gradient_are_those_of_torch(
    high: int, wide: int, stride: int, kind: torch.dtype, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 5 * stride**2, high, wide).to(kind).to(memory_format=layout).requires_grad_()
    twin = features.detach().clone().requires_grad_()
    ours, theirs = pixel_shuffle(features, stride), F.pixel_shuffle(twin, stride)
    assert torch.equal(ours, theirs)
    pull = torch.randn(2, 5, high * stride, wide * stride).to(kind)
    ours.backward(pull)
    theirs.backward(pull)
    assert features.grad is not None and twin.grad is not None
    assert torch.equal(features.grad, twin.grad)


def test_a_gradient_that_is_one_number_spread_out_arrives() -> None:
    features = torch.randn(1, 32, 2, 2, requires_grad=True)
    pixel_shuffle(features, 4).sum().backward()  # its gradient is an expanded tensor without memory of its own
    assert features.grad is not None
    assert torch.equal(features.grad, torch.ones(1, 32, 2, 2))
