from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skystill.errors import SettingsError
from skystill.model.adapters import INPUT_SCALES
from skystill.train.teachers.teacher import Teacher, answer_of, combine


def test_probabilities_become_logits_that_softmax_back() -> None:
    logits = torch.randn(1, 4, 3, 3)
    teacher = Teacher(nn.Softmax(dim=1))
    assert torch.allclose(teacher(logits).softmax(dim=1), logits.softmax(dim=1), atol=1e-6)
    assert torch.equal(Teacher(nn.Identity())(logits), logits)


def test_a_probability_of_zero_stays_finite() -> None:
    certain = torch.zeros(1, 2, 1, 1)
    certain[0, 0] = 1.0
    assert torch.isfinite(Teacher(nn.Identity())(certain)).all()


def test_logits_are_not_taken_for_probabilities() -> None:
    assert answer_of(torch.rand(2, 3, 4, 4).softmax(dim=1).half()) == "probabilities"
    assert answer_of(torch.rand(2, 3, 4, 4)) == "independent"
    assert answer_of(torch.rand(2, 1, 4, 4)) == "independent"
    assert answer_of(torch.randn(2, 3, 4, 4)) == "logits"
    assert answer_of(torch.tensor([1.5, -0.5]).reshape(1, 2, 1, 1)) == "logits"


def test_probabilities_of_each_class_by_itself_become_the_logits_before_the_sigmoid() -> None:
    logits = torch.randn(1, 4, 3, 3)
    assert torch.allclose(Teacher(nn.Sigmoid())(logits), logits, atol=1e-4)
    assert torch.isfinite(Teacher(nn.Identity())(torch.tensor([0.0, 1.0, 1.0]).reshape(1, 3, 1, 1))).all()


def test_a_teacher_that_turns_out_to_give_logits_is_refused() -> None:
    teacher = Teacher(nn.Identity())
    teacher(torch.tensor([0.2, 0.9]).reshape(1, 2, 1, 1))
    with pytest.raises(SettingsError, match=r"gave probabilities for the first images, and now gives -0\.5 to 1\.5"):
        teacher(torch.tensor([1.5, -0.5]).reshape(1, 2, 1, 1))


def test_answers_at_a_quarter_of_the_resolution_are_resized() -> None:
    images = torch.rand(1, 3, 30, 41) * 255
    answer = F.avg_pool2d(images, 4)  # (7, 10): the last rows and columns of the image are no whole block
    expected = F.interpolate(answer, size=(30, 41), mode="bilinear", align_corners=False)
    assert torch.allclose(Teacher(nn.AvgPool2d(4))(images), expected, atol=1e-3)


def test_any_way_of_giving_logits_is_understood() -> None:
    class Giving(nn.Module):
        def __init__(self, wrap: object) -> None:
            super().__init__()
            self.wrap = wrap

        def forward(self, images: Tensor) -> object:
            return self.wrap(images)  # type: ignore[operator]

    images = torch.randn(1, 3, 4, 4)
    ways = [
        lambda x: {"out": x, "aux": 1},
        lambda x: {"logits": x},
        lambda x: (x, 1),
        lambda x: SimpleNamespace(logits=x),
    ]
    for way in ways:
        assert torch.equal(Teacher(Giving(way))(images), images)
    with pytest.raises(SettingsError, match="a segmentation network gives"):
        Teacher(Giving(lambda x: x.mean()))(images)


def test_pixels_are_scaled_and_padded_as_the_network_wants() -> None:
    seen: list[Tensor] = []

    class Looking(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images

    images = torch.randint(0, 256, (1, 3, 30, 41), dtype=torch.uint8)
    answer = Teacher(Looking(), INPUT_SCALES["imagenet"], multiple=32)(images)
    assert seen[0].shape == (1, 3, 32, 64) and answer.shape == images.shape
    assert seen[0][0, 1, 2, 3].item() == pytest.approx((images[0, 1, 2, 3].item() / 255 - 0.456) / 0.224, rel=1e-5)


def test_several_teachers_are_the_weighted_mean_of_their_softened_probabilities() -> None:
    one, other = torch.randn(2, 1, 4, 3, 3).unbind()
    mean = combine([one, other], [3.0, 1.0], 2.0)
    expected = 0.75 * (one / 2).softmax(dim=1) + 0.25 * (other / 2).softmax(dim=1)
    assert torch.allclose((mean / 2).softmax(dim=1), expected, atol=1e-6)
    assert torch.equal(combine([one], [1.0], 2.0), one)
