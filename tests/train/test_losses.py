from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from skystill.errors import SettingsError
from skystill.train.losses import (
    DISTILLATION_LOSSES,
    STUDENT_LOSSES,
    CrossEntropy,
    Dice,
    DistillationKL,
    DistillationMSE,
    Focal,
    build_distillation_loss,
    build_student_loss,
)

LN3 = float(np.log(3))
EVERYWHERE = torch.ones(1, 1, 1, dtype=torch.bool)


def pixels(*logits: tuple[float, ...]) -> Tensor:
    """One row of pixels, each given by its logits: (1, C, 1, W)."""
    return torch.tensor(logits).T[None, :, None, :]


def labels(*values: int) -> Tensor:
    return torch.tensor(values)[None, None, :]


TEACHER, STUDENT = pixels((LN3, 0.0)), pixels((0.0, 0.0))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # softmax(ln 3, 0) = (0.75, 0.25); 0.75 ln 1.5 + 0.25 ln 0.5
        (DistillationKL(1.0), 0.130812),
        # 4 * KL((3^.5 / (1 + 3^.5), ...) || (0.5, 0.5))
        (DistillationKL(2.0), 0.145363),
        # centred difference (ln 3 / 2) twice, squared, averaged over classes, halved: (ln 3)^2 / 8
        (DistillationMSE(), LN3**2 / 8),
        # the limit of T^2 KL
        (DistillationKL(30.0), LN3**2 / 8),
    ],
)
def test_distillation_by_hand(loss: nn.Module, expected: float) -> None:
    tolerance = 1e-3 if getattr(loss, "temperature", 0) == 30 else 1e-6
    assert float(loss(STUDENT, TEACHER, EVERYWHERE)) == pytest.approx(expected, abs=tolerance)


def test_kl_averages_over_valid_pixels_only() -> None:
    teacher = pixels((LN3, 0.0), (0.0, 0.0), (50.0, 0.0))
    student = pixels((0.0, 0.0), (0.0, 0.0), (0.0, 50.0))
    valid = torch.tensor([[[True, True, False]]])
    assert float(DistillationKL(1.0)(student, teacher, valid)) == pytest.approx(0.130812 / 2, abs=1e-6)
    assert float(DistillationKL(1.0)(student, teacher, torch.zeros_like(valid))) == 0.0


def _spatial_softmax(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    return F.kl_div(student.log_softmax(3), teacher.softmax(3), reduction="none").sum(1)[valid].mean()


def _softmax_of_softmax(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    return DistillationKL(1.0)(student.softmax(1), teacher.softmax(1), valid)


def _mean_over_classes(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    return F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="none").mean(1)[valid].mean()


@pytest.mark.parametrize("mistake", [_spatial_softmax, _softmax_of_softmax, _mean_over_classes])
def test_the_hand_worked_case_tells_the_known_mistakes_apart(mistake: Callable[..., Tensor]) -> None:
    assert abs(float(mistake(STUDENT, TEACHER, EVERYWHERE)) - 0.130812) > 0.01


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # -ln 0.75 = 0.287682 and -ln 0.25 = 1.386294; the third pixel is void
        (CrossEntropy(), (0.287682 + 1.386294) / 2),
        (Focal(gamma=2.0), (0.25**2 * 0.287682 + 0.75**2 * 1.386294) / 2),
        (Focal(gamma=0.0), (0.287682 + 1.386294) / 2),
        # class 0: (2 * 0.75 + 1) / (1.5 + 1 + 1); class 1: (2 * 0.25 + 1) / (0.5 + 1 + 1)
        (Dice(), 1 - (2.5 / 3.5 + 1.5 / 2.5) / 2),
    ],
)
def test_student_losses_by_hand(loss: nn.Module, expected: float) -> None:
    logits = pixels((LN3, 0.0), (LN3, 0.0), (-9.0, 9.0))
    assert float(loss(logits, labels(0, 1, 255))) == pytest.approx(expected, abs=1e-6)


def test_dice_leaves_out_classes_without_a_label() -> None:
    # only class 0 is there: (2 * 0.75 + 1) / (0.75 + 1 + 1)
    assert float(Dice()(pixels((LN3, 0.0)), labels(0))) == pytest.approx(1 - 2.5 / 2.75, abs=1e-6)


@pytest.mark.parametrize("name", list(STUDENT_LOSSES))
def test_student_losses_are_zero_where_all_is_void(name: str) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = build_student_loss(name)(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0.0


@pytest.mark.parametrize("name", list(DISTILLATION_LOSSES))
@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 20))
def test_distillation_losses_obey_their_laws(name: str, seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(2, 4, 5, 3, generator=generator)
    teacher = torch.randn(2, 4, 5, 3, generator=generator) * 3
    valid = torch.rand(2, 5, 3, generator=generator) > 0.3
    loss = build_distillation_loss(name, temperature)
    value = float(loss(student, teacher, valid))
    assert value >= 0
    assert float(loss(teacher, teacher, valid)) == pytest.approx(0, abs=1e-6)
    shift = torch.randn(2, 1, 5, 3, generator=generator)  # softmax does not see it
    assert float(loss(student + shift, teacher, valid)) == pytest.approx(value, rel=1e-3, abs=1e-5)
    changed = torch.where(valid[:, None], teacher, 77.0)  # nothing enters from outside
    assert float(loss(student, changed, valid)) == pytest.approx(value, rel=1e-6)


@given(st.integers(0, 1000), st.floats(0.5, 20))
def test_kl_equals_float64_numpy(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(0, 3, (2, 5, 4, 3)), rng.normal(0, 3, (2, 5, 4, 3))
    valid = rng.random((2, 4, 3)) > 0.2
    p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum(1, keepdims=True) for x in (teacher, student))
    expected = temperature**2 * (p * (np.log(p) - np.log(q))).sum(1)[valid].mean()
    found = DistillationKL(temperature)(torch.tensor(student), torch.tensor(teacher), torch.tensor(valid))
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_bad_settings_are_refused_in_words() -> None:
    with pytest.raises(SettingsError, match="temperature is 0"):
        DistillationKL(0.0)
    with pytest.raises(SettingsError, match="gamma is -1"):
        Focal(-1.0)
    with pytest.raises(SettingsError, match="there are ce, focal"):
        build_student_loss("hinge")
    with pytest.raises(SettingsError, match="there are kl, mse"):
        build_distillation_loss("hinge", 1.0)
