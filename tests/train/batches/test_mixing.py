"""CutMix and mixup: which pixels, labels and logits a mixed batch holds, and that both networks are fed the same."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from skystill.data import find_pairs
from skystill.data.scenes import SCENE_CLASSES
from skystill.data.unlabeled import ImageWindow
from skystill.errors import SettingsError
from skystill.raster.input_spec import Band, InputSpec
from skystill.settings import DistillSettings
from skystill.train.batches.batches import Batch, CropSampler, TrainBatches, UnlabeledCrops
from skystill.train.batches.images import labeled_images, unlabeled_images
from skystill.train.batches.mixing import Mixing
from skystill.train.loop.distiller import Distiller
from skystill.train.losses.on_labels import CrossEntropy, build_student_loss
from skystill.train.teachers.logit_cache import LogitCache, StoredLogits
from skystill.train.teachers.teacher import Teacher
from skystill.train.teaching import check_teaching
from tests.train.teachers.test_logit_cache import CLASSES, CPU, pairs, teacher  # noqa: F401 - fixtures

SIDE, VOID = 32, 255
KEY = (5, 1, 7)


def batch_of(count: int = 6, dtype: torch.dtype = torch.uint8, cached: bool = False) -> Batch:
    """Crops of one value each: crop i holds 10 i, is labelled i, and has the logits i / 4. The last one is unlabelled.

    The first rows of crop 0 are padding, and the first column of crop 1 is void.
    """
    numbers = torch.arange(count)
    images = (10 * numbers[:, None, None, None]).expand(count, 3, SIDE, SIDE).to(dtype)
    labels = numbers[:, None, None].repeat(1, SIDE, SIDE)
    valid = torch.ones_like(labels, dtype=torch.bool)
    valid[0, :5] = False
    labels[0, :5] = labels[1:2, :, 0] = labels[-1] = VOID
    distill_valid = valid & (labels != VOID)
    distill_valid[-1] = True
    logits = ()
    if cached:  # step * value + low is i / 4, by other steps for each crop
        step = (numbers + 1).float()[:, None, None, None] / 8
        value = torch.full((count, 2, SIDE // 2, SIDE // 2), 2, dtype=torch.uint8)
        low = numbers.float()[:, None, None, None] / 4 - 2 * step
        logits = (StoredLogits(value, step.expand(-1, 2, -1, -1), low.expand(-1, 2, -1, -1)),)
    return Batch(images, images.clone(), labels, valid, distill_valid, logits)


def parts(batch: Batch) -> dict[str, Tensor]:
    names = ("images", "teacher_images", "labels", "valid", "distill_valid")
    logits = {f"logits {n}": stored.logits() for n, stored in enumerate(batch.teacher_logits)}
    return {name: getattr(batch, name) for name in names} | logits | dict(batch.read_otherwise)


def same(one: Batch, other: Batch) -> bool:
    first, second = parts(one), parts(other)
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_cutmix_pastes_a_rectangle_of_another_crop_with_all_that_belongs_to_it(stride: int) -> None:
    batch = batch_of(cached=stride == 2)
    seen = set[tuple[int, int]]()
    for step in range(40):
        found = Mixing("cutmix", 1.0, stride)(batch, (0, 0, step), range(6))
        assert found.images is found.teacher_images and found.second_labels is None
        for index in range(6):
            values = found.images[index, 0]
            strange = (values != 10 * index).nonzero()
            if not len(strange):  # a rectangle without a pixel, or a pixel of the edge
                continue
            (top, left), (bottom, right) = strange.min(dim=0).values.tolist(), (strange.max(dim=0).values + 1).tolist()
            inside = np.s_[top:bottom, left:right]
            assert all(end % stride == 0 for end in (top, bottom, left, right))
            other = int(values[top, left]) // 10
            seen.add((index, other))
            here = torch.zeros(SIDE, SIDE, dtype=torch.bool)
            here[inside] = True
            for name, before in parts(batch).items():
                side = SIDE // before.shape[-1]
                expected = before[other].where(here[::side, ::side], before[index])
                assert parts(found)[name][index].equal(expected), name
    assert seen == {(index, other) for index in range(6) for other in range(6) if other != index}


def test_the_part_that_stays_is_uniform_but_for_what_lies_beyond_the_edge() -> None:
    """A rectangle of side s = sqrt(1 - u) around a uniform middle keeps (s - s^2 / 4)^2 of its square on average.

    The mean of that over u, with s^2 uniform: E[(s - s^2 / 4)^2] = 1/2 - 1/2 E[s^3] + 1/48 = 0.5 - 0.2 + 1/48.
    """
    batch = batch_of()
    pasted = [
        float((Mixing("cutmix", 1.0)(batch, (0, 0, step), range(6)).images[index, 0] != 10 * index).float().mean())
        for step in range(500)
        for index in range(6)
    ]
    assert np.mean(pasted) == pytest.approx(0.5 - 0.2 + 1 / 48, abs=0.015)
    assert min(pasted) < 0.01 and max(pasted) > 0.8


@pytest.mark.parametrize("how", ["cutmix", "mixup"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_a_fraction_of_the_crops_is_mixed(how: str, fraction: float) -> None:
    batch, mixed = batch_of(20), 0
    for step in range(25):
        images = Mixing(how, fraction)(batch, (1, 2, step), range(20)).images  # type: ignore[arg-type]
        mixed += int((images != batch.images).flatten(1).any(dim=1).sum())
    # a rectangle of no pixel, or a weight so near 1 that bytes stay, changes nothing
    assert mixed / 500 == pytest.approx(fraction, abs=0.06)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32])
def test_mixup_averages_two_crops_and_keeps_both_labels(dtype: torch.dtype) -> None:
    batch, seen = batch_of(dtype=dtype), set[float]()
    for step in range(20):
        found = Mixing("mixup", 0.8)(batch, (0, 0, step), range(6))
        assert found.images is found.teacher_images and found.images.dtype == dtype
        assert found.images.stride() == batch.images.contiguous().stride()
        assert found.second_labels is not None
        weight = found.first_weight
        seen.add(weight)
        for index in range(6):
            second = found.second_labels[index]
            # the crop is known by its label, and crop 5 by having none: where nothing else is void
            other = 5 if second[8, 8] == VOID else int(second[8, 8])
            mean = 10 * (weight * index + (1 - weight) * other)
            mean = mean if dtype == torch.float32 else float(np.rint(mean))
            assert torch.allclose(found.images[index].float(), torch.tensor(mean), rtol=1e-6, atol=0)
            both = batch.valid[index] & batch.valid[other]
            assert found.valid[index].equal(both)
            assert found.distill_valid[index].equal(batch.distill_valid[index] & batch.distill_valid[other])
            assert found.labels[index].equal(batch.labels[index].where(both, VOID))
            assert second.equal(batch.labels[other].where(both, VOID))
        agree = found.labels == found.second_labels
        assert found.common_labels.equal(found.labels.where(agree, VOID))
    assert len(seen) == 20 and min(seen) < 0.2 and max(seen) > 0.8


@pytest.mark.parametrize("how", ["cutmix", "mixup"])
def test_what_is_mixed_follows_from_seed_epoch_step_and_place_alone(how: str) -> None:
    mix, batch = Mixing(how, 0.7), batch_of()  # type: ignore[arg-type]
    first = mix(batch, KEY, range(6))
    assert same(first, mix(batch_of(), KEY, range(6)))
    for key in ((6, 1, 7), (5, 2, 7), (5, 1, 8)):
        assert not same(first, mix(batch, key, range(6)))
    assert not same(first, mix(batch, KEY, range(6, 12)))


SIX = InputSpec(tuple(Band(str(n), n + 1, 100.0, 30.0) for n in range(2)), "uint16")


@pytest.mark.parametrize("how", ["cutmix", "mixup"])
def test_images_of_a_teacher_of_other_bands_are_mixed_in_the_same_way(how: str) -> None:
    batch = batch_of()
    otherwise = (10 * torch.arange(6)[:, None, None, None]).expand(6, 2, SIDE, SIDE).to(torch.uint16)
    found = Mixing(how, 1.0)(replace(batch, read_otherwise={SIX.reading: otherwise}), KEY, range(6))  # type: ignore[arg-type]
    assert found.fed_to(SIX).dtype == torch.uint16 and found.fed_to(SIX).shape == (6, 2, SIDE, SIDE)
    assert found.fed_to(SIX)[:, 0].int().equal(found.images[:, 0].int())
    assert found.fed_to(None) is found.images


def test_a_batch_of_one_crop_and_cached_logits_under_mixup_are_refused() -> None:
    with pytest.raises(SettingsError, match="needs two"):
        Mixing("cutmix", 1.0)(batch_of(1), KEY, [0])
    with pytest.raises(SettingsError, match="which no cache holds"):
        Mixing("mixup", 1.0)(batch_of(cached=True), KEY, range(6))


class Spy(nn.Module):
    """A network that remembers what it was fed."""

    def __init__(self, num_classes: int = 6) -> None:
        super().__init__()
        self.conv, self.fed = nn.Conv2d(3, num_classes, 1), list[Tensor]()

    def forward(self, images: Tensor) -> Tensor:
        self.fed.append(images.clone())
        logits: Tensor = self.conv(images.float() / 255)
        return logits


def samplers(scenes: Path, jitter: float = 0.5) -> tuple[CropSampler, UnlabeledCrops]:
    found = find_pairs(scenes).pairs
    others = unlabeled_images([ImageWindow(found[3].image, (0, 128, 0, 128))])
    labeled = CropSampler(labeled_images(found[:2], SCENE_CLASSES), 64, jitter, [], 0.5, 2)
    return labeled, UnlabeledCrops(CropSampler(others, 64, jitter, [], 0.5, 2), 0.5)


@pytest.mark.parametrize("how", ["cutmix", "mixup", None])
def test_both_networks_are_fed_the_same_pixels(how: str | None, scenes: Path) -> None:
    labeled, unlabeled = samplers(scenes)
    batches = TrainBatches(labeled, 4, 3, unlabeled=unlabeled)
    plain = batches.batch(0, 0)
    student, other = Spy(), Spy()
    distiller = Distiller(student, other, Fabric(accelerator="cpu", devices=1))
    distiller.compile(torch.optim.SGD(student.parameters(), 0.1), temperature=2.0, stride=2, metrics={})
    if how is not None:
        batches.mix = Mixing(how, 1.0, 2)  # type: ignore[arg-type]
    for step in range(2):
        distiller.train_step(batches.batch(0, step))
    assert [ours.equal(theirs) for ours, theirs in zip(student.fed, other.fed, strict=True)] == [how is not None] * 2
    assert student.fed[0].equal(plain.images) == (how is None)
    if how is not None:  # a training that goes on draws the same again
        again = next(iter(batches.epoch(0, 1)))
        assert again.images.equal(student.fed[1])


def test_cached_logits_are_those_of_each_part_in_its_own_image(
    teacher: Teacher,  # noqa: F811
    pairs: Sequence,  # type: ignore[type-arg]  # noqa: F811
    tmp_path: Path,
) -> None:
    images = labeled_images(pairs, CLASSES)
    cache = LogitCache(tmp_path, "k", symmetric=True, bits=8, stride=2)
    cache.fill(images.image_windows, teacher, CPU)
    batches = TrainBatches(CropSampler(images, 32, 0.2, [cache], 0.0, 2), 3, 1)
    plain = [batches.batch(0, step) for step in range(3)]
    batches.mix = Mixing("cutmix", 1.0, 2)
    changed = 0
    for step, before in enumerate(plain):
        after = batches.batch(0, step)
        logits, whole = after.teacher_logits[0].logits(), before.teacher_logits[0].logits()
        assert logits.dtype == torch.float32 and logits.shape == whole.shape == (3, 6, 16, 16)
        for index in range(3):
            # each block has the logits, bit for bit, of a crop that its four pixels are of
            fitting = torch.zeros(16, 16, dtype=torch.bool)
            for other in range(3):
                pixels = (after.images[index] == before.images[other]).all(dim=0)
                blocks = pixels.reshape(16, 2, 16, 2).all(dim=3).all(dim=1)
                fitting |= blocks & (logits[index] == whole[other]).all(dim=0)
                changed += int(blocks.sum()) if other != index else 0
            assert fitting.all()
    assert changed > 100


def mixed_loss(loss: nn.Module, logits: Tensor, batch: Batch) -> Tensor:
    assert batch.second_labels is not None
    return batch.first_weight * loss(logits, batch.labels) + (1 - batch.first_weight) * loss(
        logits, batch.second_labels
    )


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), build_student_loss("ce+dice"), build_student_loss("focal+dice", (1, 2, 0, 4, 5, 1))]
)
def test_the_student_loss_of_mixup_is_the_mean_of_both_with_their_weights(loss: nn.Module) -> None:
    student = Spy()
    distiller = Distiller(student, Spy(), Fabric(accelerator="cpu", devices=1))
    distiller.compile(torch.optim.SGD(student.parameters(), 0.1), student_loss=loss, alpha=0.5, temperature=2.0)
    batch = Mixing("mixup", 1.0)(batch_of(), KEY, range(6))
    losses, _, _ = distiller.losses(batch)
    with torch.no_grad():
        expected = mixed_loss(loss, student(batch.images), batch)
    assert losses["student_loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    by_hand = 0.0
    if isinstance(loss, CrossEntropy):
        p = student(batch.images).softmax(dim=1).detach().numpy()
        for labels, weight in ((batch.labels, batch.first_weight), (batch.second_labels, 1 - batch.first_weight)):
            truth = labels.numpy()  # type: ignore[union-attr]
            there = np.take_along_axis(p, np.where(truth == VOID, 0, truth)[:, None], 1)[:, 0][truth != VOID]
            by_hand += weight * -np.log(there).mean()
        assert losses["student_loss"].item() == pytest.approx(by_hand, rel=1e-5)


def test_classes_that_the_teacher_lacks_are_compared_in_no_part_of_a_mixed_crop() -> None:
    student, fabric = Spy(), Fabric(accelerator="cpu", devices=1)
    distiller = Distiller(student, Spy(3), fabric, taught_labels=[0, 1, 2])
    counted: list[Tensor] = []

    def count(student_logits: Tensor, teacher_logits: Tensor, valid: Tensor) -> Tensor:
        counted.append(valid)
        return student_logits.sum() * 0

    distiller.compile(torch.optim.SGD(student.parameters(), 0.1), distillation_loss={"x": (1.0, count)})
    batch = Mixing("mixup", 1.0)(batch_of(), KEY, range(6))
    distiller.losses(batch)
    taught = torch.tensor([0, 1, 2, VOID])
    expected = batch.distill_valid & torch.isin(batch.labels, taught) & torch.isin(batch.second_labels, taught)
    assert counted[0].equal(expected) and 0 < expected.sum() < batch.distill_valid.sum()


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "mixup from a cache": ({"mix": "mixup", "teacher_mode": "cached"}, "is in no cache: --teacher-mode online"),
    "a fraction of nothing": ({"mix_fraction": 0.5}, "mixes nothing without --mix"),
    "one crop": ({"mix": "cutmix", "batch_size": 1}, "--batch-size 1 is too small for that: 2 or more"),
    "one crop for each process": ({"mix": "mixup", "batch_size": 4, "devices": 4}, "too small for that: 8 or more"),
    "a part of no images": ({"unlabeled_fraction": 0.3}, "give --unlabeled, or leave it out"),
    "confidence of nothing": ({"min_confidence": 0.5}, "give --unlabeled, and such a loss"),
    "confidence of features": ({"min_confidence": 0.5, "unlabeled": "x", "distillation_loss": "pkd"}, "such a loss"),
    "blocks that do not divide": ({"mix": "cutmix", "crop": 65}, "does not divide into blocks"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_settings_that_are_refused(case: str) -> None:
    given, says = REFUSED[case]
    with pytest.raises(SettingsError, match=says):
        check_teaching(DistillSettings(data="d", teacher="t", out="o", **given))


UNSURE = {"min_confidence": 0.5, "unlabeled": "x", "distillation_loss": "kl+pkd"}


@pytest.mark.parametrize(
    "given",
    [{"mix": "cutmix", "teacher_mode": "cached"}, {"mix": "mixup"}, {"mix": "cutmix", "mix_fraction": 1}, {}, UNSURE],
)
def test_settings_that_are_accepted(given: dict[str, object]) -> None:
    settings = DistillSettings(data="d", teacher="t", out="o", **given)
    check_teaching(settings)
    assert settings.mixed_fraction == given.get("mix_fraction", 0.5)


@pytest.mark.parametrize("given", [{"mix": "cut"}, {"mix_fraction": 0}, {"mix_fraction": 1.5}])
def test_values_that_no_setting_has(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="mix"):
        DistillSettings(data="d", teacher="t", out="o", **given)
