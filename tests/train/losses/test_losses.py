from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from skystill.errors import SettingsError
from skystill.train.losses.on_labels import (
    STUDENT_LOSSES,
    CrossEntropy,
    CrossEntropyDice,
    Dice,
    Focal,
    build_student_loss,
)
from skystill.train.losses.on_logits import (
    DISTILLATION_LOSSES,
    BoundaryKL,
    ChannelWise,
    Correlation,
    DistillationKL,
    DistillationMSE,
    near_boundaries,
)
from skystill.train.losses.terms import Term, parse_terms

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


def written_from_the_formula(name: str, logits: Tensor, truth: Tensor) -> Tensor:
    """Student losses by autograd alone, through one-hot tensors."""
    valid = (truth != 255)[:, None]
    p = logits.softmax(dim=1) * valid
    hot = F.one_hot(truth.where(valid[:, 0], 0), logits.shape[1]).permute(0, 3, 1, 2) * valid
    negative_log_likelihood = -(logits.log_softmax(dim=1) * hot).sum() / valid.sum()
    shared, predicted, size = ((part).sum(dim=(0, 2, 3)) for part in (p * hot, p, hot))
    dice = 1 - ((2 * shared + 1) / (predicted + size + 1))[size > 0].mean()
    return {"ce": negative_log_likelihood, "dice": dice, "ce+dice": negative_log_likelihood + dice}[name]


@pytest.mark.parametrize(("name", "loss"), [("dice", Dice()), ("ce+dice", CrossEntropyDice()), ("ce", CrossEntropy())])
@given(seed=st.integers(0, 1000))
def test_student_losses_and_their_gradients_equal_float64(name: str, loss: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (5 * torch.randn(2, 4, 6, 5, generator=generator)).requires_grad_()
    truth = torch.randint(0, 3, (2, 6, 5), generator=generator)  # class 3 has no label
    truth[0, :2] = 255
    exact_logits = logits.detach().double().requires_grad_()
    value, exact = loss(logits, truth), written_from_the_formula(name, exact_logits, truth)
    assert float(value.detach()) == pytest.approx(float(exact.detach()), abs=1e-5)
    (slope,), (exact_slope,) = torch.autograd.grad(3 * value, logits), torch.autograd.grad(3 * exact, exact_logits)
    assert torch.allclose(slope.double(), exact_slope, atol=1e-7, rtol=1e-4)


def test_a_hopeless_pixel_has_a_finite_loss_and_a_gradient() -> None:
    logits = pixels((200.0, -200.0)).requires_grad_()
    CrossEntropyDice()(logits, labels(1)).backward()
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([1.0, -1.0])  # p - t; Dice has no slope there


@pytest.mark.parametrize("name", list(DISTILLATION_LOSSES))
@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 20))
def test_distillation_losses_obey_their_laws(name: str, seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(2, 4, 5, 3, generator=generator)
    teacher = torch.randn(2, 4, 5, 3, generator=generator) * 3
    valid = torch.rand(2, 5, 3, generator=generator) > 0.3
    loss = DISTILLATION_LOSSES[name](temperature)
    value = float(loss(student, teacher, valid))
    assert value >= 0
    assert float(loss(teacher, teacher, valid)) == pytest.approx(0, abs=1e-6)
    shift = torch.randn(2, 1, 5, 3, generator=generator)  # softmax over classes does not see it
    if name == "cwd":
        shift = torch.randn(2, 4, 1, 1, generator=generator)  # softmax over space does not see this one
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
        parse_terms("hinge", list(DISTILLATION_LOSSES))


def test_channel_wise_by_hand() -> None:
    """Two pixels: the first channel is (0.75, 0.25) over space for the teacher and even for the student."""
    teacher, student = pixels((LN3, 5.0), (0.0, 5.0)), pixels((0.0, 1.0), (0.0, 1.0))
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    assert float(ChannelWise(1.0)(student, teacher, valid)) == pytest.approx(0.130812 / 2, abs=1e-6)
    assert float(ChannelWise(2.0)(student, teacher, valid)) == pytest.approx(0.145363 / 2, abs=1e-6)
    padded = [torch.cat([x, torch.full((1, 2, 1, 1), 9.0)], dim=3) for x in (student, teacher)]
    some = torch.tensor([[[True, True, False]]])
    assert float(ChannelWise(1.0)(*padded, some)) == pytest.approx(0.130812 / 2, abs=1e-6)


@given(st.integers(0, 1000), st.floats(0.5, 20))
def test_channel_wise_and_correlation_equal_float64_numpy(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(0, 3, (2, 5, 4, 3)), rng.normal(0, 3, (2, 5, 4, 3))
    valid = rng.random((2, 4, 3)) > 0.2
    valid[:, 0, 0] = True
    expected = 0.0
    for image in range(2):
        for channel in range(5):
            t, s = (np.exp(x[image, channel][valid[image]] / temperature) for x in (teacher, student))
            p, q = t / t.sum(), s / s.sum()
            expected += float((p * np.log(p / q)).sum()) * temperature**2 / 10
    tensors = [torch.from_numpy(x).float() for x in (student, teacher)]
    where = torch.from_numpy(valid)
    assert float(ChannelWise(temperature)(*tensors, where)) == pytest.approx(expected, rel=2e-5, abs=1e-6)
    rows = []
    for logits in (student, teacher):
        raised = np.exp(logits)
        rows.append((raised / raised.sum(1, keepdims=True)).transpose(0, 2, 3, 1)[valid])
    between = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*rows, strict=True)])
    within = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(rows[0].T, rows[1].T, strict=True)])
    assert float(Correlation()(*tensors, where)) == pytest.approx(2 - between - within, abs=2e-5)


def test_correlation_sees_order_and_not_size() -> None:
    teacher = pixels((3.0, 1.0, 0.0), (0.0, 2.0, 1.0))
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    p = teacher.softmax(dim=1)
    flatter = (0.5 * p + 0.5 / 3).log()  # probabilities halfway to even: perfectly correlated
    assert float(Correlation()(flatter, teacher, valid)) == pytest.approx(0, abs=1e-5)
    assert float(DistillationKL(1.0)(flatter, teacher, valid)) > 0.01


def test_boundaries_are_near_changes_between_valid_neighbours() -> None:
    logits = torch.zeros(1, 2, 1, 12)
    logits[0, 1, 0, 6:] = 1.0
    all_valid = torch.ones(1, 1, 12, dtype=torch.bool)
    assert near_boundaries(logits, all_valid, 3)[0, 0].tolist() == [0] * 3 + [1] * 6 + [0] * 3
    hidden = all_valid.clone()
    hidden[0, 0, 5] = False
    assert float(near_boundaries(logits, hidden, 3).sum()) == 0


def test_boundary_kl_by_hand() -> None:
    teacher = pixels(*[(LN3, 0.0)] * 6, *[(0.0, LN3)] * 6)
    student = pixels(*[(LN3, 0.0)] * 5, (0.0, 0.0), *[(0.0, LN3)] * 5, (0.0, 0.0))
    valid = torch.ones(1, 1, 12, dtype=torch.bool)
    # one wrong pixel of weight 5 at the boundary, one of weight 1 far from it; 6 * 5 + 6 weights in all
    assert float(BoundaryKL(1.0)(student, teacher, valid)) == pytest.approx(0.130812 * 6 / 36, abs=1e-6)
    assert float(DistillationKL(1.0)(student, teacher, valid)) == pytest.approx(0.130812 * 2 / 12, abs=1e-6)


def test_terms_are_read_with_their_weights() -> None:
    assert parse_terms("kl", ["kl"]) == [Term("kl", 1.0)]
    assert parse_terms("kl + 0.5*dist", ["kl", "dist"]) == [Term("kl", 1.0), Term("dist", 0.5)]
    for text, says in (
        ("kl+foo", "is called 'foo'"), ("-1*kl", "positive number"), ("x*kl", "positive number"), ("kl+kl", "twice"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=says):
            parse_terms(text, ["kl"])


@pytest.mark.parametrize("name", list(DISTILLATION_LOSSES))
def test_gradients_reach_the_student_and_stay_finite(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 3, 6, 6, generator=generator, requires_grad=True)
    teacher = torch.randn(2, 3, 6, 6, generator=generator) * 20
    for share in (0.5, 0.0):
        valid = torch.rand(2, 6, 6, generator=generator) < share
        student.grad = None
        DISTILLATION_LOSSES[name](4.0)(student, teacher, valid).backward()
        assert student.grad is not None and bool(student.grad.isfinite().all())
        assert bool((student.grad * ~valid[:, None]).abs().max() == 0)
        assert bool(student.grad.abs().max() > 0) == (share > 0)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.3, 2.0, 0.01), (0.0, 5.0, 1.0)])
def test_weighted_losses_are_normalised_as_torch_does(weights: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, 7, requires_grad=True)
    truth = torch.randint(0, 3, (2, 5, 7))
    truth[0, :2] = 255
    w = torch.tensor(weights)
    loss = build_student_loss("ce", weights)(logits, truth)
    expected = F.cross_entropy(logits, truth, weight=w, ignore_index=255)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    (found,) = torch.autograd.grad(loss, logits)
    (wanted,) = torch.autograd.grad(expected, logits)
    assert torch.allclose(found, wanted, atol=1e-7)
    logits = logits.detach()
    assert float(Focal(0.0, weights)(logits, truth)) == pytest.approx(float(expected.detach()), rel=1e-6)
    # focal: each term as torch has it, times (1 - p)^2, over the same sum of weights
    terms = F.cross_entropy(logits, truth, weight=w, ignore_index=255, reduction="none")
    plain = F.cross_entropy(logits, truth, ignore_index=255, reduction="none")
    total = w[truth[truth != 255]].sum()
    focal = float(((1 - torch.exp(-plain)) ** 2 * terms).sum() / total)
    assert float(build_student_loss("focal", weights)(logits, truth)) == pytest.approx(focal, rel=1e-6)


def test_weighted_dice_by_hand() -> None:
    # p of the labels is 3/4 and 1/2. Class 0: 1 - (2*3/4 + 1) / (3/4 + 1/2 + 1 + 1); class 1: the same with 1/2 and
    # 1/4 + 1/2. Class 2 has no label, so that its weight of 9 counts nowhere.
    logits = pixels((LN3, 0.0, -99.0), (0.0, 0.0, -99.0))
    first, second = 1 - 2.5 / 3.25, 1 - 2.0 / 2.75
    expected = (3 * first + 1 * second) / 4
    assert float(Dice((3.0, 1.0, 9.0))(logits, labels(0, 1))) == pytest.approx(expected, abs=1e-6)
    # of all classes the same weight is the loss without weights, whatever its size
    assert float(Dice((0.2, 0.2, 0.2))(logits, labels(0, 1))) == pytest.approx(float(Dice()(logits, labels(0, 1))))


@pytest.mark.parametrize("name", list(STUDENT_LOSSES))
def test_weighted_losses_are_zero_where_no_class_with_a_weight_is(name: str) -> None:
    logits = torch.randn(1, 2, 4, 4)
    for truth in (torch.full((1, 4, 4), 255), torch.zeros((1, 4, 4), dtype=torch.int64)):
        assert float(build_student_loss(name, (0.0, 1.0))(logits, truth)) == 0.0


def test_bad_weights_are_refused() -> None:
    for bad in ((0.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(SettingsError, match="give 0 or more"):
            build_student_loss("ce", bad)
    with pytest.raises(SettingsError, match="3 weights of classes, but the network gives 2"):
        build_student_loss("ce+dice", (1.0, 1.0, 1.0))(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4).long())
