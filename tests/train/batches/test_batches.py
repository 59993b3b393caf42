from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from skystill.data import find_pairs, read_labels
from skystill.data.scenes import SCENE_CLASSES
from skystill.errors import SettingsError
from skystill.train.batches import images as images_module
from skystill.train.batches.batches import CropSampler, LoaderBatches, TrainBatches, WholeImages
from skystill.train.batches.images import TrainingImages, labeled_images


@pytest.fixture(scope="module")
def loaded(scenes: Path) -> TrainingImages:
    return labeled_images(find_pairs(scenes).pairs[:4], SCENE_CLASSES)


def batches_of(scenes: TrainingImages, crop: int, batch_size: int, seed: int, jitter: float = 0.2) -> TrainBatches:
    return TrainBatches(CropSampler(scenes, crop, jitter, []), batch_size, seed)


def test_a_batch_has_the_promised_shapes(loaded: TrainingImages) -> None:
    batch = batches_of(loaded, 32, 3, 0).batch(0, 0)
    assert (batch.images.shape, batch.images.dtype) == ((3, 3, 32, 32), torch.uint8)
    assert batch.teacher_images.shape == batch.images.shape
    assert (batch.labels.shape, batch.labels.dtype) == ((3, 32, 32), torch.int64)
    assert batch.valid.all()
    assert len(batch) == 3
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_is_a_function_of_seed_epoch_and_step(loaded: TrainingImages) -> None:
    def pixels(seed: int, epoch: int, step: int) -> bytes:
        return batches_of(loaded, 32, 3, seed).batch(epoch, step).images.numpy().tobytes()

    assert pixels(0, 1, 2) == pixels(0, 1, 2)
    assert len({pixels(0, 0, 0), pixels(1, 0, 0), pixels(0, 1, 0), pixels(0, 0, 1)}) == 4


@pytest.mark.parametrize("ahead", [False, True])
def test_an_epoch_entered_in_the_middle_goes_on_as_the_whole_one(loaded: TrainingImages, ahead: bool) -> None:
    batches = batches_of(loaded, 32, 4, 5)
    batches.ahead = ahead
    whole = [batch.images for batch in batches.epoch(3)]
    assert len(whole) == batches.steps_per_epoch == 4 * 128 * 128 // 32**2 // 4
    rest = [batch.images for batch in batches.epoch(3, start=10)]
    assert all(torch.equal(a, b) for a, b in zip(whole[10:], rest, strict=True))


def test_colors_are_jittered_for_the_student_only(loaded: TrainingImages) -> None:
    batch = batches_of(loaded, 32, 3, 0, jitter=0.3).batch(0, 0)
    assert not torch.equal(batch.images, batch.teacher_images)
    still = batches_of(loaded, 32, 3, 0, jitter=0.0).batch(0, 0)
    assert torch.equal(still.images, still.teacher_images)


def test_crops_larger_than_the_image_are_padded_void(loaded: TrainingImages) -> None:
    batch = batches_of(loaded, 160, 2, 0).batch(0, 0)
    assert batch.valid.sum(dim=(1, 2)).tolist() == [128 * 128] * 2
    assert (batch.labels[~batch.valid] == 255).all()


def test_whole_images_leave_nothing_out(loaded: TrainingImages, scenes: Path) -> None:
    seen = np.zeros(256, np.int64)
    shapes = set()
    for batch in WholeImages(loaded, tile=100):
        seen += np.bincount(batch.labels.numpy().ravel(), minlength=256)
        shapes.add(tuple(batch.labels.shape[1:]))
    expected = sum(
        np.bincount(read_labels(pair.mask, SCENE_CLASSES).labels.ravel(), minlength=256)
        for pair in find_pairs(scenes).pairs[:4]
    )
    assert seen.tolist() == expected.tolist()
    assert shapes == {(100, 100), (100, 28), (28, 100), (28, 28)}


def test_images_beyond_the_room_are_read_again(
    loaded: TrainingImages, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_module, "_HELD_BYTES", 0)
    unheld = labeled_images(find_pairs(scenes).pairs[:4], SCENE_CLASSES)
    assert unheld[1] is not unheld[1]
    assert np.array_equal(unheld[1].image, loaded[1].image)
    assert loaded[1] is loaded[1]


def test_a_data_loader_serves_as_batches() -> None:
    items = [(torch.zeros(3, 8, 8), torch.full((8, 8), i)) for i in range(5)]
    batches = LoaderBatches(DataLoader(items, batch_size=2))
    assert batches.steps_per_epoch == 3
    assert [batch.labels[0, 0, 0].item() for batch in batches.epoch(0, start=1)] == [2, 4]
    with pytest.raises(SettingsError, match="need a length"):
        LoaderBatches(iter(items))  # type: ignore[arg-type]
    for empty in ([], DataLoader(items, batch_size=8, drop_last=True)):
        with pytest.raises(SettingsError, match="is empty"):
            LoaderBatches(empty)
