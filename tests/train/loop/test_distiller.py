import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from skystill.errors import DataError, LossNotFinite, SettingsError
from skystill.settings import LearnSettings
from skystill.train import Distiller, Supervised
from skystill.train.batches.batches import Batch
from skystill.train.losses.fused import block_means, whole_blocks
from skystill.train.losses.on_labels import Focal
from skystill.train.losses.on_logits import DistillationMSE
from skystill.train.teachers.logit_cache import StoredLogits

C = 4
CPU = Fabric(accelerator="cpu", devices=1)


class Pixelwise(nn.Module):
    """A 1x1 network with BatchNorm and its own scale, small enough to work out in numpy."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, C, 1)
        self.norm = nn.BatchNorm2d(C)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images.float() / 255))


def batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        images = torch.randint(0, 256, (2, 3, 24, 20), dtype=torch.uint8, generator=generator)
        labels = images.sum(dim=1).long() // 192  # learnable: brightness in four classes
        labels[:, :3] = 255  # void
        made.append((images, labels))
    return made


def compiled(alpha: float = 0.1, temperature: float = 10.0, **more: object) -> Distiller:
    student, teacher = Pixelwise(1), Pixelwise(2)
    distiller = Distiller(student=student, teacher=teacher, fabric=CPU)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    distiller.compile(optimizer, alpha=alpha, temperature=temperature, **more)  # type: ignore[arg-type]
    return distiller


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


@pytest.mark.parametrize(("alpha", "temperature"), [(0.1, 10.0), (0.5, 2.0), (1.0, 1.0), (0.0, 4.0)])
def test_the_loss_is_the_formula_in_float64(alpha: float, temperature: float) -> None:
    distiller = compiled(alpha, temperature)
    images, labels = batches(1)[0]
    inside = torch.ones_like(labels, dtype=torch.bool)
    inside[0, :, 15:] = False
    labels[~inside] = 255
    with torch.no_grad():
        student = copy.deepcopy(distiller.student).train()(images).double().numpy()
        teacher = distiller.teachers[0].network(images).double().numpy()
    result = distiller.train_step(Batch(images, images, labels, inside, labels != 255))

    truth, counted = labels.numpy(), labels.numpy() != 255
    right = np.take_along_axis(_softmax(student), np.where(counted, truth, 0)[:, None], 1)[:, 0]
    student_loss = -np.log(right)[counted].mean()
    p, q = _softmax(teacher / temperature), _softmax(student / temperature)
    kl = (p * np.log(p / q)).sum(1)[counted].mean()  # neither padding nor void
    expected = alpha * student_loss + (1 - alpha) * temperature**2 * kl
    assert result["student_loss"] == pytest.approx(student_loss, rel=1e-6)
    assert result["distillation_loss"] == pytest.approx(temperature**2 * kl, rel=1e-5, abs=1e-6)
    assert result["loss"] == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("stride", [2, 5])
def test_at_a_stride_the_means_of_whole_blocks_are_compared(stride: int) -> None:
    """24 x 20 pixels, of which 5 columns are padding and 3 rows void: by 5 the last 4 rows are no whole block."""
    distiller = compiled(0.3, 2.0, stride=stride)
    images, labels = batches(1)[0]
    inside = torch.ones_like(labels, dtype=torch.bool)
    inside[0, :, 15:] = False
    labels[~inside] = 255
    with torch.no_grad():
        of_student = copy.deepcopy(distiller.student).train()(images).double().numpy()
        of_teacher = distiller.teachers[0].network(images).double().numpy()
    result = distiller.train_step(Batch(images, images, labels, inside, labels != 255))

    kept = [slice(0, size - size % stride) for size in (24, 20)]
    blocks = (24 // stride, stride, 20 // stride, stride)
    student, teacher = (one[:, :, *kept].reshape(2, C, *blocks).mean((3, 5)) for one in (of_student, of_teacher))
    counted = (labels.numpy() != 255)[:, *kept].reshape(2, *blocks).all((2, 4))
    assert counted.sum() < counted.size
    p, q = _softmax(teacher / 2), _softmax(student / 2)
    kl = (p * np.log(p / q)).sum(1)[counted].mean()
    assert result["distillation_loss"] == pytest.approx(4 * kl, rel=1e-5, abs=1e-6)
    right = np.take_along_axis(_softmax(of_student), labels.where(labels != 255, 0).numpy()[:, None], 1)[:, 0]
    assert result["student_loss"] == pytest.approx(-np.log(right)[labels.numpy() != 255].mean(), rel=1e-6)


def test_only_the_student_moves() -> None:
    distiller = compiled()
    teacher_before = copy.deepcopy(distiller.teachers[0].state_dict())
    student_before = copy.deepcopy(distiller.student.state_dict())
    distiller.fit(batches(4), validation=batches(1, seed=9), epochs=3)
    for name, value in distiller.teachers[0].state_dict().items():
        assert torch.equal(value, teacher_before[name]), name  # BatchNorm's statistics as well
    assert all(p.grad is None and not p.requires_grad for p in distiller.teachers[0].parameters())
    assert any(not torch.equal(v, student_before[n]) for n, v in distiller.student.state_dict().items())


def test_the_teacher_stays_in_eval_mode() -> None:
    distiller = compiled()
    distiller.teachers[0].train()
    distiller.train_step(batches(1)[0])
    assert not any(module.training for module in distiller.teachers[0].modules())


def test_test_step_runs_the_student_alone() -> None:
    distiller = compiled()

    def fail(images: Tensor) -> Tensor:
        raise AssertionError("the teacher was run")

    distiller.teachers[0].forward = fail  # type: ignore[method-assign]
    result = distiller.test_step(batches(1)[0])
    assert set(result) == {"student_loss", "miou", "pixel_accuracy"}


def test_void_of_a_labelled_image_teaches_nothing_and_an_unlabelled_image_through_the_teacher_alone() -> None:
    images, labels = batches(1)[0]
    void = torch.full_like(labels, 255)
    result = compiled(alpha=0.5).train_step((images, void))
    assert (result["student_loss"], result["distillation_loss"]) == (0, 0)
    all_valid = torch.ones_like(labels, dtype=torch.bool)
    result = compiled(alpha=0.5).train_step(Batch(images, images, void, all_valid, all_valid))
    assert result["student_loss"] == 0
    assert result["distillation_loss"] > 0


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("second", [False, True])
def test_unlabelled_pixels_count_where_the_teacher_is_sure(stride: int, second: bool) -> None:
    """Logits ln 4, 0, 0, 0 are the probability 4/7; equal logits are 1/4. One image has labels, the other has none."""
    counted: list[Tensor] = []

    def count(student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> Tensor:
        counted.append(valid)
        return student_logits.sum() * 0

    sure = torch.zeros(2, C, 4, 4)
    sure[:, 0, :2] = math.log(4)
    labels = torch.full((2, 4, 4), 255)
    labels[0] = 1
    valid = torch.ones_like(labels, dtype=torch.bool)
    valid[1, :, 3] = False
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    other = labels.flip(0) if second else None  # under mixup each pixel then has one label
    logits = (StoredLogits(block_means(sure, stride), torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)),)
    for least, kept in ((0.0, None), (0.57, (1.0, 0.5)), (0.58, (1.0, 0.0)), (0.2, (1.0, 1.0))):
        student = Pixelwise(1)
        distiller = Distiller(student, None, CPU)
        terms = {"count": (1.0, count)}
        distiller.compile(
            torch.optim.SGD(student.parameters(), 0.1), distillation_loss=terms, stride=stride, min_confidence=least
        )
        losses, _, _ = distiller.losses(Batch(images, images, labels, valid, valid, logits, second_labels=other))
        expected = whole_blocks(valid, stride)
        if kept is not None and not second:
            expected[1, 2 // stride :] &= kept[1] > 0.5
            expected[1, : 2 // stride] &= kept[1] > 0
        assert counted.pop().equal(expected)
        assert ("confident" in losses) == (least > 0)
        if kept is not None:
            assert losses["confident"].item() == pytest.approx(1.0 if second else sum(kept) / 2)


@pytest.mark.parametrize(
    ("channels", "taught"), [([3, 1], [3, 1]), ([3, 0, 1], [3, None, 1]), ([2, 3, 1], [None, 3, 1])]
)
def test_classes_that_the_teacher_lacks_are_learnt_from_labels_alone(
    channels: list[int], taught: list[int | None]
) -> None:
    """A teacher of classes 3 and 1: the loss is that of these two, and pixels of other classes are left out."""
    student, teacher = Pixelwise(1), nn.Sequential(Pixelwise(2), Picked(channels))
    distiller = Distiller(student, teacher, CPU, taught_labels=taught)
    distiller.compile(torch.optim.SGD(student.parameters(), lr=0.1), alpha=0.0, temperature=2.0)
    images, labels = batches(1)[0]
    with torch.no_grad():
        own = copy.deepcopy(student).train()(images)[:, [3, 1]].double().numpy()
        its = teacher.eval()[0](images)[:, [3, 1]].double().numpy()
    p, q = _softmax(its / 2), _softmax(own / 2)
    counted = np.isin(labels.numpy(), (1, 3))
    expected = 4 * (p * np.log(p / q)).sum(1)[counted].mean()
    assert 0 < counted.mean() < 1
    assert distiller.train_step((images, labels))["loss"] == pytest.approx(expected, rel=1e-5)


def test_names_for_more_or_fewer_logits_than_the_teacher_gives_are_refused() -> None:
    for taught in ([3], [3, None, 1]):
        student = Pixelwise(1)
        distiller = Distiller(student, nn.Sequential(Pixelwise(2), Picked([3, 1])), CPU, taught_labels=taught)
        distiller.compile(torch.optim.SGD(student.parameters(), lr=0.1))
        with pytest.raises(SettingsError, match=f"the teacher gives 2 classes, and {len(taught)} are named"):
            distiller.train_step(batches(1)[0])


class Picked(nn.Module):
    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, logits: Tensor) -> Tensor:
        return logits[:, self.channels]


def test_several_teachers_teach_their_mean() -> None:
    images, labels = batches(1)[0]
    losses = []
    for teachers in ([Pixelwise(2), Pixelwise(2)], Pixelwise(2), [Pixelwise(2), Pixelwise(3)]):
        student = Pixelwise(1)
        distiller = Distiller(student, teachers, CPU)
        distiller.compile(torch.optim.SGD(student.parameters(), lr=0.1))
        losses.append(distiller.train_step((images, labels))["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[2] != pytest.approx(losses[1], rel=1e-3)


def test_a_teacher_that_ends_in_softmax_gives_the_same_loss() -> None:
    plain, ending = compiled(), compiled()
    softmaxed = Distiller(
        student=ending.student, teacher=nn.Sequential(Pixelwise(2).eval(), nn.Softmax(dim=1)), fabric=CPU
    )
    softmaxed.compile(torch.optim.SGD(ending.student.parameters(), lr=0.1))
    batch = batches(1)[0]
    assert softmaxed.train_step(batch)["loss"] == pytest.approx(plain.train_step(batch)["loss"], rel=1e-5)


def test_a_coarser_teacher_is_resized() -> None:
    images, labels = batches(1)[0]
    coarse = nn.Sequential(nn.AvgPool2d(4), Pixelwise(2))
    resized = nn.Sequential(coarse, nn.Upsample((24, 20), mode="bilinear", align_corners=False))
    losses = []
    for teacher in (coarse, resized, Pixelwise(2)):
        distiller = compiled()
        distiller.teachers[0].network = teacher.eval()
        losses.append(distiller.train_step((images.float(), labels))["distillation_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-2)


def test_a_teacher_of_other_classes_is_refused_in_words() -> None:
    distiller = Distiller(student=Pixelwise(1), teacher=nn.Conv2d(3, 7, 1), fabric=CPU)
    distiller.compile(torch.optim.SGD(distiller.student.parameters(), lr=0.1))
    images, labels = batches(1)[0]
    with pytest.raises(SettingsError, match="the teacher gives 7 classes, the student 4"):
        distiller.train_step((images.float(), labels))


def test_any_loss_and_any_metric_will_do() -> None:
    distiller = compiled(
        student_loss=Focal(),
        distillation_loss=DistillationMSE(),
        metrics={"hits": lambda confusion: float(np.trace(confusion))},
    )
    result = distiller.train_step(batches(1)[0])
    assert set(result) == {"loss", "student_loss", "distillation_loss", "hits"}
    bare = compiled(metrics={})
    assert set(bare.train_step(batches(1)[0])) == {"loss", "student_loss", "distillation_loss"}
    assert not bare.meter.confusion.any()
    called = compiled(distillation_loss=lambda student, teacher, valid: student.sum() * 0 + 2.0, alpha=0.25)
    result = called.train_step(batches(1)[0])
    assert result["loss"] == pytest.approx(0.25 * result["student_loss"] + 0.75 * 2)


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword arguments: temprature"):
        compiled(temprature=4.0)


def test_fit_learns_and_tells_its_history() -> None:
    distiller = compiled(alpha=1.0)
    history = distiller.fit(batches(8), validation=batches(2, seed=7), epochs=6, schedule="constant")
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["validation_miou"] > history[0]["validation_miou"]
    scores = distiller.evaluate(batches(2, seed=7))
    assert scores["miou"] == pytest.approx(history[-1]["validation_miou"])


def test_images_without_labels_do_not_count_in_the_validation_loss() -> None:
    """Of two images of which one has no label, the loss is that of the other, and not half of it."""
    distiller = compiled(alpha=1.0)
    labelled, without = batches(2, seed=7)
    without = (without[0], torch.full_like(without[1], 255))
    found = [distiller.evaluate(given)["student_loss"] for given in ([labelled], [labelled, without])]
    assert found[0] > 0 and found[1] == pytest.approx(found[0])


def test_the_moving_average_is_what_remains() -> None:
    plain, averaged = compiled(), compiled()
    plain.fit(batches(8), epochs=2)
    averaged.fit(batches(8), epochs=2, average=0.9)
    own = averaged.stepper.average
    assert all(torch.equal(v, own[n]) for n, v in averaged.student.state_dict().items())
    assert not torch.equal(plain.student.conv.weight, averaged.student.conv.weight)


def test_supervised_is_a_distiller_that_ignores_its_teacher() -> None:
    distiller = compiled(alpha=1.0)
    alone = Supervised(Pixelwise(1), CPU)
    alone.compile(torch.optim.SGD(alone.network.parameters(), lr=0.1))
    distiller.fit(batches(4), epochs=2)
    alone.fit(batches(4), epochs=2)
    for name, value in distiller.student.state_dict().items():
        assert torch.equal(value, alone.network.state_dict()[name])


def test_alpha_goes_to_its_end_in_a_straight_line() -> None:
    distiller = compiled(alpha=0.2, alpha_end=1.0)
    batch = batches(1)[0]
    distiller.stepper.plan(5, "constant", 0.0)
    for alpha in (0.2, 0.4, 0.6, 0.8, 1.0, 1.0):  # the last: a step beyond the plan
        assert distiller.alpha == pytest.approx(alpha)
        distiller.meter.reset()
        step = distiller.train_step(batch)
        expected = alpha * step["student_loss"] + (1 - alpha) * step["distillation_loss"]
        assert step["loss"] == pytest.approx(expected, rel=1e-5)
    assert compiled(alpha=0.2, alpha_end=1.0).alpha == 0.2  # steps without a plan


def test_labels_have_the_last_word_where_there_are_labels() -> None:
    said = {"data": Path("d"), "out": Path("o"), "teacher": ["t"]}
    assert LearnSettings(**said).alpha_at_end == 1.0
    assert LearnSettings(**said, unlabeled=Path("more")).alpha_at_end == LearnSettings(**said).alpha == 0.3
    assert LearnSettings(**said, unlabeled=Path("more"), alpha_end=0.5).alpha_at_end == 0.5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"alpha_end": -1.0}, "alpha is -1"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"temperature": 0.0}, "temperature is 0"),
    ],
)
def test_bad_settings_are_refused_in_words(settings: dict[str, float], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        compiled(**settings)


def test_an_optimizer_over_the_teacher_is_refused() -> None:
    student, teacher = Pixelwise(1), Pixelwise(2)
    distiller = Distiller(student=student, teacher=teacher, fabric=CPU)
    with pytest.raises(SettingsError, match="only the student may learn"):
        distiller.compile(torch.optim.SGD([*student.parameters(), *teacher.parameters()], lr=0.1))


def test_fit_before_compile_says_what_to_do() -> None:
    with pytest.raises(SettingsError, match=r"call Distiller\.compile"):
        Distiller(student=Pixelwise(1), teacher=Pixelwise(2), fabric=CPU).fit(batches(1))


def test_a_loss_that_is_not_finite_stops_before_the_weights_move() -> None:
    distiller = compiled(student_loss=lambda logits, labels: logits.sum() * float("nan"))
    before = distiller.student.conv.weight.clone()
    with pytest.raises(LossNotFinite, match=r"not finite at step 1 \(loss nan"):
        distiller.train_step(batches(1)[0])
    assert torch.equal(distiller.student.conv.weight, before)


def test_half_precision_learns_and_its_gradients_are_looked_at() -> None:
    student = Pixelwise(1)
    distiller = Distiller(student, Pixelwise(2), Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))
    distiller.compile(torch.optim.SGD(student.parameters(), lr=0.1))
    result = distiller.fit(batches(4), epochs=2)
    assert result[-1]["loss"] < result[0]["loss"]
    assert set(distiller.gradients.means()) == {"student loss", "logits"}


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integer_type_give_the_same_step(kind: torch.dtype) -> None:
    images, labels = batches(1)[0]
    results = [compiled().train_step((images, given)) for given in (labels, labels.to(kind))]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (7, "a label is 7, and the network has 4 classes, 0 to 3"),
        (254, "a label is 254"),
        (-1, "labels reach from -1 to 255"),
        (256, "labels reach from 0 to 256"),
    ],
)
def test_labels_of_no_class_are_refused_by_their_value(wrong: int, says: str) -> None:
    images, labels = batches(1)[0]
    labels[0, 10, 10] = wrong
    distiller = compiled()
    for step in (distiller.train_step, distiller.test_step):
        with pytest.raises(DataError, match=says):
            step((images, labels))


@pytest.mark.parametrize("kind", [torch.float32, torch.bool])
def test_labels_that_are_no_integers_are_refused(kind: torch.dtype) -> None:
    images, labels = batches(1)[0]
    with pytest.raises(DataError, match="give integers"):
        compiled().train_step((images, labels.to(kind)))


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"stride": 0}, "stride is 0"),
        ({"stride": -1}, "stride is -1"),
        ({"stride": 1.5}, "stride is 1.5"),
        ({"min_confidence": 5.0}, "min_confidence is 5"),
        ({"min_confidence": -0.1}, "min_confidence is -0.1"),
    ],
)
def test_options_outside_their_range_are_refused(option: dict[str, float], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        compiled(**option)


def test_validation_batches_that_can_be_read_only_once_are_refused() -> None:
    with pytest.raises(SettingsError, match="read after each epoch"):
        compiled().fit(batches(2), validation=iter(batches(1)), epochs=2)
