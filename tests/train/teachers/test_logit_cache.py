import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from safetensors.numpy import save_file
from torch import Tensor, nn

from skystill.classes import ClassMap
from skystill.data import Pair
from skystill.data.scenes import paint_scene
from skystill.data.unlabeled import ImageWindow, whole_images
from skystill.errors import DataError, DiskFull, SettingsError, TeacherNotFinite
from skystill.symmetry import transform
from skystill.train.batches.batches import CropSampler, TrainBatches
from skystill.train.batches.images import labeled_images
from skystill.train.loop.distiller import Distiller
from skystill.train.networks.table import build_network
from skystill.train.teachers import logit_cache
from skystill.train.teachers.logit_cache import (
    CachedLogits,
    LogitCache,
    mirror_agreement,
    symmetric_logits,
    whole_logits,
)
from skystill.train.teachers.teacher import Teacher
from skystill.unfinished import part_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """A real network that has seen some pictures: BatchNorm away from its start, logits that vary."""
    torch.manual_seed(0)
    network = build_network("kite?channels=(8,16)&blocks=(1,1)", 6)
    with torch.no_grad():
        for seed in range(3):
            network(torch.from_numpy(paint_scene(96, seed)[0]).permute(2, 0, 1)[None])
    return Teacher(network)


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Three square scenes with masks of label numbers."""
    found = []
    for index in range(3):
        image, labels = paint_scene(64, index)
        for kind, picture in (("images", image), ("masks", labels)):
            path = tmp_path / kind / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(path)
        found.append(Pair(str(index), tmp_path / f"images/{index}.png", tmp_path / f"masks/{index}.png"))
    return found


CLASSES = ClassMap(tuple("abcdef"), tuple((40 * i, 0, 0) for i in range(6)), indexed=True)


@pytest.mark.parametrize("symmetry", range(1, 8))
def test_the_symmetric_answer_turns_with_the_image_and_the_plain_one_does_not(teacher: Teacher, symmetry: int) -> None:
    image = paint_scene(80, 4)[0][:64]  # oblong
    turned = transform(image, symmetry)
    mean, plain = symmetric_logits(teacher, image, CPU), whole_logits(teacher, image, CPU)
    largest = np.abs(mean).max()
    assert np.abs(symmetric_logits(teacher, turned, CPU) - transform(mean, symmetry)).max() < 1e-4 * largest
    assert np.abs(whole_logits(teacher, turned, CPU) - transform(plain, symmetry)).max() > 1e-2 * largest


def test_tiles_give_the_whole_images_logits(teacher: Teacher) -> None:
    image = np.tile(paint_scene(128, 2)[0], (10, 2, 1))  # 1,280 rows: two tiles
    with torch.no_grad():
        whole = teacher(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    assert np.allclose(whole_logits(teacher, image, CPU), whole, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 4])
def test_a_view_of_the_cache_is_the_symmetric_teachers_answer_to_the_view(
    teacher: Teacher, pairs: list[Pair], tmp_path: Path, stride: int
) -> None:
    cache = LogitCache(tmp_path / "logits", "key", stride=stride)
    cache.fill(whole_images(pairs), teacher, CPU)
    batches = TrainBatches(
        CropSampler(labeled_images(pairs, CLASSES), 64, 0.2, [cache], stride=stride), 4, seed=0, crops_per_image=8
    )  # whole images
    seen = set()
    for step in range(6):
        batch = batches.batch(0, step)
        (found,) = batch.teacher_logits
        assert found.values.dtype == torch.float16
        for view, logits in zip(batch.teacher_images, found.logits(), strict=True):
            image = view.permute(1, 2, 0).numpy()
            answer = symmetric_logits(teacher, image, CPU).transpose(2, 0, 1)
            expected = answer.reshape(6, 64 // stride, stride, 64 // stride, stride).mean((2, 4))
            assert np.abs(logits.numpy() - expected).max() < 2e-3 * np.abs(expected).max()  # 16 bits
            seen.add(image.tobytes())
    assert len(seen) > 10  # many different turns


def test_each_image_of_a_batch_has_its_own_steps(teacher: Teacher, pairs: list[Pair], tmp_path: Path) -> None:
    caches = [LogitCache(tmp_path / "logits", "key", bits=bits) for bits in (8, 16)]
    for cache in caches:
        cache.fill(whole_images(pairs), teacher, CPU)
    views = CropSampler(labeled_images(pairs, CLASSES), 64, 0.0, caches)  # two teachers: the same in 8 and in 16 bits
    batch = TrainBatches(views, 8, seed=0, crops_per_image=8).batch(0, 0)
    coarse, fine = batch.teacher_logits
    assert coarse.values.dtype == torch.uint8
    assert len(torch.unique(coarse.step, dim=0)) == len(pairs)
    away = (coarse.logits() - fine.logits()).abs()
    assert (away <= coarse.step / 2 + 1e-2).all()


class Symmetric(nn.Module):
    """The teacher that the cache stands for, run live."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        answers = [symmetric_logits(self.network, image.permute(1, 2, 0).numpy(), CPU) for image in images]
        return torch.from_numpy(np.stack(answers)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("stride", [1, 2])
def test_cached_and_live_give_the_same_loss_in_every_step(
    teacher: Teacher, pairs: list[Pair], tmp_path: Path, stride: int
) -> None:
    cache = LogitCache(tmp_path / "logits", "key", stride=stride)
    cache.fill(whole_images(pairs), teacher, CPU)
    losses: dict[str, list[float]] = {"cached": [], "online": []}
    for kind in losses:
        torch.manual_seed(1)
        student = build_network("kite?channels=(8,)&blocks=(1,)", 6)
        fabric = Fabric(accelerator="cpu", devices=1)
        distiller = Distiller(student, None if kind == "cached" else Symmetric(teacher), fabric)
        distiller.compile(torch.optim.SGD(student.parameters(), lr=0.01), alpha=0.3, temperature=2.0, stride=stride)
        distiller.stepper.plan(5, "constant", 0.0)
        views = CropSampler(labeled_images(pairs, CLASSES), 64, 0.2, [cache] if kind == "cached" else [], stride=stride)
        batches = TrainBatches(views, 2, seed=0, crops_per_image=8)
        for step in range(5):
            distiller.meter.reset()
            losses[kind].append(distiller.train_step(batches.batch(0, step))["loss"])
    assert losses["cached"] == pytest.approx(losses["online"], rel=1e-3)


def test_a_cache_at_another_stride_than_the_losses_is_refused(
    teacher: Teacher, pairs: list[Pair], tmp_path: Path
) -> None:
    cache = LogitCache(tmp_path / "logits", "key", stride=2)
    cache.fill(whole_images(pairs), teacher, CPU)
    student = build_network("kite?channels=(8,)&blocks=(1,)", 6)
    distiller = Distiller(student, None, Fabric(accelerator="cpu", devices=1))
    distiller.compile(torch.optim.SGD(student.parameters(), lr=0.01))
    batches = TrainBatches(CropSampler(labeled_images(pairs, CLASSES), 64, 0.2, [cache], stride=2), 2, seed=0)
    with pytest.raises(SettingsError, match="the same stride"):
        distiller.train_step(batches.batch(0, 0))


def test_what_is_there_is_not_made_again_and_another_byte_is_another_file(
    teacher: Teacher, pairs: list[Pair], tmp_path: Path
) -> None:
    cache, images = LogitCache(tmp_path / "logits", "key"), whole_images(pairs)
    cache.fill(images[:2], teacher, CPU)
    before = {image: cache.path(image).stat().st_mtime_ns for image in images[:2]}
    assert cache.missing(images) == [images[2]]
    cache.fill(images, teacher, CPU)
    assert {image: cache.path(image).stat().st_mtime_ns for image in images[:2]} == before
    assert cache.missing(images) == []
    assert 0 < cache.path(images[0]).stat().st_size - cache.bytes_needed([(64, 64)], 6) < 200  # the header
    changed = tmp_path / "changed.png"
    Image.fromarray(255 - paint_scene(64, 0)[0]).save(changed)
    assert cache.missing([ImageWindow(changed)]) == [ImageWindow(changed)]
    assert LogitCache(tmp_path / "logits", "other").missing(images) == images
    assert LogitCache(tmp_path / "logits", "key", symmetric=False).missing(images) == images
    assert LogitCache(tmp_path / "logits", "key", bits=8).missing(images) == images
    assert LogitCache(tmp_path / "logits", "key", stride=2).missing(images) == images


def test_eight_bits_are_half_a_step_off_at_most_and_half_as_large(
    teacher: Teacher, pairs: list[Pair], tmp_path: Path
) -> None:
    image = whole_images(pairs)[0]
    caches = {bits: LogitCache(tmp_path / "logits", "key", bits=bits) for bits in (8, 16)}
    for cache in caches.values():
        cache.fill([image], teacher, CPU)
    exact = symmetric_logits(teacher, image.read()[0], CPU)
    step = (exact.max(axis=(0, 1)) - exact.min(axis=(0, 1))) / 255
    stored = caches[8].open(image)
    coarse = stored[:, :] * stored.step + stored.low
    assert (np.abs(coarse - exact) <= step / 2 + 1e-5).all()
    assert np.abs(coarse - exact).max() > step.min() / 4
    assert caches[8].bytes_needed([(64, 64)], 6) * 2 == caches[16].bytes_needed([(64, 64)], 6)


def test_a_slice_reads_as_the_whole_does(teacher: Teacher, pairs: list[Pair], tmp_path: Path) -> None:
    for bits in (8, 16):
        cache, image = LogitCache(tmp_path / "logits", "key", bits=bits), whole_images(pairs)[0]
        cache.fill([image], teacher, CPU)
        logits = cache.open(image)
        assert logits[:, :].shape == (64, 64, 6)
        assert np.array_equal(logits[3:20, 40:64], logits[:, :][3:20, 40:64])


def test_damage_is_said(teacher: Teacher, pairs: list[Pair], tmp_path: Path) -> None:
    cache, images = LogitCache(tmp_path / "logits", "key"), whole_images(pairs)
    cache.fill(images[:1], teacher, CPU)
    path = cache.path(images[0])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cannot be read.*Delete it"):
        cache.open(images[0])


def test_logits_that_another_process_wrote_meanwhile_are_taken(
    teacher: Teacher, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version removes the unfinished file of a living process, and writes its own."""
    cache, images = LogitCache(tmp_path / "logits", "key"), whole_images(pairs)
    cache.fill(images[:1], teacher, CPU)
    path = cache.path(images[0])
    whole = path.read_bytes()
    path.unlink()

    def removed(part: Path, is_written: bool) -> None:
        part.unlink()
        if is_written:
            path.write_bytes(whole)

    monkeypatch.setattr(logit_cache, "seal_safetensors", partial(removed, is_written=True))
    cache.fill(images[:1], teacher, CPU)
    path.unlink()
    monkeypatch.setattr(logit_cache, "seal_safetensors", partial(removed, is_written=False))
    with pytest.raises(DiskFull, match=r"cannot write .* No such file"):
        cache.fill(images[:1], teacher, CPU)


def test_what_killed_processes_left_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    cache = LogitCache(tmp_path / "logits", "key")
    cache.own_folder.mkdir(parents=True)
    name = cache.own_folder / "a.safetensors"
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    living = part_of(name)
    ended = living.with_name(living.name.replace(f"-{os.getpid()}-", f"-{process.pid}-"))
    for part in (living, ended):
        part.touch()
    with cache.held(1, 1):
        assert living.exists() and not ended.exists()


def test_what_a_folder_holds_instead_is_said(teacher: Teacher, pairs: list[Pair], tmp_path: Path) -> None:
    cache = LogitCache(tmp_path / "logits", "key")
    assert cache.what_else() == "it is empty"
    cache.fill(whole_images(pairs[:1]), teacher, CPU)
    assert cache.what_else() == "it holds this teacher's logits of other images"
    assert "another teacher" in LogitCache(tmp_path / "logits", "other").what_else()


def test_the_gap_of_a_plain_cache_is_measured(teacher: Teacher, pairs: list[Pair], tmp_path: Path) -> None:
    plain = LogitCache(tmp_path / "logits", "key", symmetric=False)
    plain.fill(whole_images(pairs[:1]), teacher, CPU)
    assert 0 < mirror_agreement(plain, whole_images(pairs)[0], teacher, CPU) < 0.99


def test_without_teacher_and_without_logits_nothing_can_be_learnt() -> None:
    student = nn.Conv2d(3, 2, 1)
    distiller = Distiller(student, None, Fabric(accelerator="cpu", devices=1))
    distiller.compile(torch.optim.SGD(student.parameters(), lr=0.1))
    with pytest.raises(SettingsError, match="there is no teacher"):
        distiller.train_step((torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)))


def test_a_slice_beyond_the_image_is_cut_as_in_numpy(tmp_path: Path) -> None:
    path = tmp_path / "logits.safetensors"
    values = np.arange(3 * 4 * 2, dtype=np.uint8).reshape(3, 4, 2)
    coding = {"step": np.ones(2, np.float32), "low": np.zeros(2, np.float32)}
    save_file({"logits": values, **coding}, path)
    stored = CachedLogits(path)
    for place in (np.s_[0:3, 0:4], np.s_[0:9, 0:9], np.s_[1:9, 2:3], np.s_[2:3, 3:99]):
        assert np.array_equal(stored[place], values[place])


def test_crops_larger_than_the_image_are_padded(tmp_path: Path, teacher: nn.Module, pairs: list[Pair]) -> None:
    cache = LogitCache(tmp_path, "t")
    cache.fill(whole_images(pairs[:1]), teacher, CPU)
    image = labeled_images(pairs[:1], CLASSES)
    height, width = image.sizes[0]
    crop = 2 * max(height, width)
    batch = TrainBatches(CropSampler(image, crop, 0.0, [cache]), 1, seed=0, crops_per_image=1).batch(0, 0)
    assert batch.teacher_logits[0].logits().shape[2:] == (crop, crop)
    assert batch.valid.sum() == height * width


class Masked(nn.Module):
    """Gives the pixels of an image as logits, and `value` for the second class where the image is brightest."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        logits = images.float() - 100
        logits[:, 1][logits[:, 0] == logits[:, 0].max()] = self.value
        return logits


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [float("-inf"), float("nan")])
def test_a_teacher_whose_logits_are_not_finite_fills_no_cache(
    bits: int, symmetric: bool, value: float, pairs: list[Pair], tmp_path: Path
) -> None:
    teacher = Teacher(Masked(value))
    teacher.name = "masked.onnx"
    cache = LogitCache(tmp_path / "cache", "key", symmetric, bits)
    windows = whole_images(pairs)
    with pytest.raises(TeacherNotFinite, match=r"masked\.onnx gives .* on .*0\.png, for class 1 \("):
        cache.fill(windows, teacher, CPU)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_logits_that_16_bits_cannot_hold_are_refused(pairs: list[Pair], tmp_path: Path) -> None:
    windows = whole_images(pairs)
    with pytest.raises(DataError, match=r"logits up to 100000 on .*--cache-bits 8"):
        LogitCache(tmp_path / "16", "key", False, 16).fill(windows, Teacher(Masked(1e5)), CPU)
    LogitCache(tmp_path / "8", "key", False, 8).fill(windows, Teacher(Masked(1e5)), CPU)
    assert len(list((tmp_path / "8").rglob("*.safetensors"))) == len(pairs)
