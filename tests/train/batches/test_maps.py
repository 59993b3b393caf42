"""Crops of a map: the same as of the same windows as pictures with masks, read in bounded memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from skystill.classes import ClassMap, read_classes
from skystill.data import Pair, find_pairs, read_pair
from skystill.data.unlabeled import ImageWindow
from skystill.train.batches import images as module
from skystill.train.batches.batches import CropSampler, TrainBatches, WholeImages
from skystill.train.batches.images import TrainingImages, labeled_images
from tests.maps import box, write_classes, write_layer, write_raster


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of 700 x 900 pixels with an area, roofs and roads, and nodata at its edge."""
    folder = tmp_path_factory.mktemp("map")
    values = np.random.default_rng(0).integers(1, 255, (3, 700, 900)).astype(np.uint8)
    values[:, :, 880:] = 0
    transform = write_raster(
        folder / "ortho.tif", 700, 900, 0.5, values=values, nodata=0, tiled=True, compress="deflate"
    )
    rng = np.random.default_rng(1)
    roofs = [box(transform, y, y + 20, x, x + 30) for y, x in rng.uniform(0, 680, (60, 2))]
    write_layer(folder / "labels.gpkg", roofs, "roofs")
    write_layer(folder / "labels.gpkg", [box(transform, 30, 690, 10, 800)], "area")
    write_classes(folder, {"Land": "rest", "Roof": "{layer: roofs}"})
    return folder


@pytest.fixture(scope="module")
def pictures(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """The windows of the map as PNG files with masks of numbers, nodata as transparency."""
    folder = tmp_path_factory.mktemp("pictures")
    classes, found = read_classes(root / "classes.yaml"), []
    for place, pair in enumerate(find_pairs(root).pairs):
        picture, reading = read_pair(pair, classes)
        valid = np.full(reading.labels.shape, True) if picture.valid is None else picture.valid
        alpha = np.where(valid, 255, 0).astype(np.uint8)
        image, mask = folder / f"{place:02}.png", folder / f"{place:02}_mask.png"
        Image.fromarray(np.dstack([picture.image, alpha])).save(image)
        Image.fromarray(reading.labels).save(mask)
        found.append(Pair(f"{place:02}", image, mask))
    return found


def classes_of(root: Path) -> ClassMap:
    return read_classes(root / "classes.yaml")


def batches_of(images: TrainingImages, zoom: float, stride: int = 1) -> TrainBatches:
    return TrainBatches(CropSampler(images, 64, 0.2, [], zoom, stride), batch_size=6, seed=3)


@pytest.mark.parametrize("held", [2**28, 300_000, 0])
@pytest.mark.parametrize(("zoom", "stride"), [(0.0, 1), (0.5, 2), (3.0, 2)])
def test_crops_are_those_of_pictures_and_masks(
    root: Path, pictures: list[Pair], held: int, zoom: float, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HELD_OF_MAP_BYTES", held)
    classes = classes_of(root)
    of_map = batches_of(labeled_images(find_pairs(root).pairs, classes), zoom, stride)
    of_files = batches_of(labeled_images(pictures, classes), zoom, stride)
    assert of_map.steps_per_epoch == of_files.steps_per_epoch
    of_files._near = lambda sampler, epoch, step: of_map._near(of_map.sampler, epoch, step)  # type: ignore[method-assign]
    seen = set()
    for step in range(6):
        one, other = of_map.batch(0, step), of_files.batch(0, step)
        for part in ("images", "teacher_images", "labels", "valid", "distill_valid"):
            assert torch.equal(getattr(one, part), getattr(other, part)), part
        seen |= set(one.labels.unique().tolist())
    assert seen == {0, 1, 255}


def test_validation_is_that_of_pictures_and_masks(root: Path, pictures: list[Pair]) -> None:
    classes = classes_of(root)
    of_map = WholeImages(labeled_images(find_pairs(root).pairs, classes))
    of_files = WholeImages(labeled_images(pictures, classes))
    for one, other in zip(of_map, of_files, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def noted(images: TrainingImages, monkeypatch: pytest.MonkeyPatch) -> list[ImageWindow]:
    """The windows that are read from now on."""
    read: list[ImageWindow] = []
    inner = images._read
    monkeypatch.setattr(images, "_read", lambda index, window: (read.append(window), inner(index, window))[1])
    return read


def test_only_the_crop_is_read_where_windows_are_hardly_used_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD_OF_MAP_BYTES", 0)
    images = labeled_images(find_pairs(root).pairs, classes_of(root))
    assert images._held == {}  # nothing is read before it is needed
    batches = TrainBatches(CropSampler(images, 64, 0.0, []), batch_size=2, seed=0, crops_per_image=1)
    read = noted(images, monkeypatch)
    for step in range(5):
        batches.batch(0, step)
    assert len(read) == 10
    assert all(max(window.size) <= 64 for window in read)
    assert images._held == {}


def test_an_epoch_reads_each_window_once_and_holds_few(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD_OF_MAP_BYTES", 1_600_000)
    images = labeled_images(find_pairs(root).pairs, classes_of(root))
    batches = TrainBatches(CropSampler(images, 32, 0.0, []), batch_size=4, seed=5)
    read, most = noted(images, monkeypatch), 0
    for step in range(batches.steps_per_epoch):
        batches.batch(0, step)
        most = max(most, sum(one.nbytes for one in images._held.values()))
    assert sorted(read, key=str) == sorted(images.image_windows, key=str)
    assert 0 < most <= 1_600_000
    first = batches.batch(1, 7)  # another order, and the same after anything else
    batches.batch(0, 3)
    assert torch.equal(batches.batch(1, 7).images, first.images)
    assert images.near((5, 0), 0.5).tolist() != images.near((5, 1), 0.5).tolist()


def test_groups_are_all_images_each_for_its_part_of_an_epoch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD_OF_MAP_BYTES", 1_300_000)
    images = labeled_images(find_pairs(root).pairs, classes_of(root))
    areas = [height * width for height, width in images.sizes]
    steps, chances = 2000, np.zeros(len(images))
    for step in range(steps):
        group = images.near((0, 0), step / steps)
        within = np.array([areas[index] for index in group], float)
        chances[group] += within / within.sum() / steps
    assert not images.fits
    assert chances == pytest.approx(np.array(areas) / sum(areas), abs=2 / steps)
