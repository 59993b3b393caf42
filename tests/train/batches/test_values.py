"""Batches of images of any bands against numpy, and batches of colours to the bit as before there were other bands."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from skystill.classes import ClassMap
from skystill.data import Pair, find_pairs
from skystill.data.scenes import SCENE_CLASSES, paint_scene
from skystill.data.unlabeled import ImageWindow, find_unlabeled
from skystill.errors import DataError
from skystill.raster.input_spec import RGB, Band, InputSpec
from skystill.symmetry import transform
from skystill.train.batches.augment import Augmentation, jitter_values, to_kind
from skystill.train.batches.batches import CropSampler, TrainBatches, WholeImages, as_batch
from skystill.train.batches.images import labeled_images, unlabeled_images
from tests.banded_rasters import pixels_of, spec_of, write_bands

TWO = ClassMap(("low", "high"), ((255, 0, 0), (0, 255, 0)), indexed=True)
TYPES = ("uint8", "uint16", "int16", "float32")


def write_pairs(folder: Path, planes: Sequence[np.ndarray], **options: object) -> list[Pair]:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(planes):
        write_bands(folder / f"images/{index}.tif", image, **options)
        mask = (np.arange(image[0].size).reshape(image.shape[1:]) // 7 % 2).astype(np.uint8)
        Image.fromarray(mask).save(folder / f"masks/{index}.png")
    return list(find_pairs(folder).pairs)


@pytest.mark.parametrize("dtype", TYPES)
def test_crops_are_slices_of_the_image(dtype: str, tmp_path: Path) -> None:
    spec = spec_of(dtype, 5)
    planes = pixels_of(spec, 60, 80)
    pairs = write_pairs(tmp_path, [planes])
    batches = TrainBatches(CropSampler(labeled_images(pairs, TWO, spec), 32, 0.0, []), 6, 1)
    batch = batches.batch(0, 0)
    assert batch.images.shape == (6, 5, 32, 32) and batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.numpy().dtype == spec.kind and batch.valid.all() and not batch.read_otherwise
    labels = np.asarray(Image.open(pairs[0].mask))
    for crop, found in zip(batch.images.numpy(), batch.labels.numpy(), strict=True):
        assert any(
            np.array_equal(crop, transform(planes[:, y : y + 32, x : x + 32].transpose(1, 2, 0), s).transpose(2, 0, 1))
            and np.array_equal(found, transform(labels[y : y + 32, x : x + 32], s))
            for s in range(8)
            for y, x in zip(*np.nonzero(np.isin(planes[0, :29, :49], crop[0])), strict=True)
        )
    for part in (0, 1):
        assert torch.equal(batch.to(torch.device("cpu")).images[part].float(), batch.images[part].float())


@pytest.mark.parametrize("jitter", [0.0, 0.3])
@pytest.mark.parametrize("dtype", TYPES)
def test_padding_and_nodata_hold_the_mean(dtype: str, jitter: float, tmp_path: Path) -> None:
    spec = spec_of(dtype, 4)
    planes = pixels_of(spec, 40, 40)
    nodata = 0 if dtype == "uint8" else 1
    planes[planes == nodata] += 1
    planes[:, 5:9, 11:20] = nodata
    pairs = write_pairs(tmp_path, [planes], nodata=nodata)
    batch = TrainBatches(CropSampler(labeled_images(pairs, TWO, spec), 64, jitter, []), 2, 1).batch(0, 0)
    assert batch.valid.sum().item() == 2 * (40 * 40 - 4 * 9)
    for images in (batch.images, batch.teacher_images):
        assert (images.numpy().transpose(0, 2, 3, 1)[~batch.valid.numpy()] == spec.fill).all()
    assert (batch.labels[~batch.valid] == 255).all() and not batch.distill_valid[~batch.valid].any()
    assert torch.equal(batch.distill_valid, batch.valid)
    assert np.isfinite(batch.images.numpy().astype(float)).all()
    seen = batch.teacher_images.numpy().transpose(0, 2, 3, 1)[batch.valid.numpy()]
    own = planes[:, ~(planes == nodata).all(axis=0)].T
    assert np.array_equal(np.sort(seen[: len(own)], axis=0), np.sort(own, axis=0))  # the first of both crops


def resized(band: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resampling of a square: a triangle around each centre, which is as wide as a new or an old pixel."""
    scale = len(band) / size
    centres = (np.arange(size) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(len(band)) + 0.5 - centres[:, None]) / max(scale, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(weights @ band.astype(np.float64) @ weights.T)


@pytest.mark.parametrize("seen", [20, 31, 45])
@pytest.mark.parametrize(("dtype", "count"), [("uint8", 4), ("uint16", 3), ("int16", 1), ("float32", 6)])
def test_zoom_resizes_each_band(dtype: str, count: int, seen: int) -> None:
    image = pixels_of(spec_of(dtype, count), 50, 50).transpose(1, 2, 0)
    found = Augmentation(2, 3, 32, 0, seen).apply_to_image(image)
    assert found.dtype == image.dtype and found.shape == (32, 32, count)
    for band in range(count):
        expected = resized(image[2 : 2 + seen, 3 : 3 + seen, band], 32)
        assert np.abs(found[..., band] - expected).max() <= (1e-5 if dtype == "float32" else 0.502)


def test_jitter_worked_by_hand() -> None:
    spec = InputSpec((Band("", 1, 1000.0, 200.0), Band("", 2, 50.0, 10.0)), "uint16")
    image = np.array([[[1000, 50], [1200, 60], [0, 0], [65535, 40]]], np.uint16)

    class Drawn:
        def __init__(self) -> None:
            self.values = [0.5, -1.0]  # contrast 1.1, and brightness -0.4 deviations

        def uniform(self, low: float, high: float) -> float:
            assert (low, high) == (-1, 1)
            return self.values.pop(0)

    found = jitter_values(Drawn(), image, 0.2, spec)  # type: ignore[arg-type]
    # (x - 1000) * 1.1 + 1000 - 80 and (x - 50) * 1.1 + 50 - 4
    assert found.tolist() == [[[920, 46], [1140, 57], [0, 0], [65535, 35]]]
    assert jitter_values(np.random.default_rng(0), image, 0.0, spec) is image


@pytest.mark.parametrize("dtype", TYPES)
def test_jitter_is_the_same_for_all_bands_and_stays_in_the_type(dtype: str) -> None:
    spec = spec_of(dtype, 4)
    image = pixels_of(spec, 30, 30).transpose(1, 2, 0)
    mean, std = (np.array([getattr(band, key) for band in spec.bands]) for key in ("mean", "std"))
    for seed in range(5):
        found = jitter_values(np.random.default_rng(seed), image, 0.2, spec)
        rng = np.random.default_rng(seed)
        contrast, brightness = 1 + 0.2 * rng.uniform(-1, 1), 0.4 * rng.uniform(-1, 1)
        expected = (image.astype(float) - mean) * contrast + mean + brightness * std
        if dtype == "float32":
            assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)
        else:
            limits = np.iinfo(dtype)
            assert np.abs(found - np.clip(expected, limits.min, limits.max)).max() <= 0.51
        assert found.dtype == image.dtype


@pytest.mark.parametrize("dtype", TYPES[:3])
def test_integers_are_rounded_and_limited(dtype: str) -> None:
    limits = np.iinfo(dtype)
    values = np.array([limits.min - 7, limits.min + 0.4, 2.5, 3.5, 99.6, limits.max + 0.6, 1e9], np.float32)
    expected = [limits.min, limits.min, 2, 4, 100, limits.max, limits.max]
    assert to_kind(values, np.dtype(dtype)).tolist() == expected


def test_a_batch_of_bands_is_a_function_of_seed_epoch_and_step(tmp_path: Path) -> None:
    spec = spec_of("int16", 4)
    pairs = write_pairs(tmp_path, [pixels_of(spec, 50, 60, seed) for seed in range(3)])

    def batch(seed: int) -> Tensor:
        sampler = CropSampler(labeled_images(pairs, TWO, spec), 32, 0.2, [], 0.5)
        return TrainBatches(sampler, 3, seed).batch(1, 2).images

    assert torch.equal(batch(4), batch(4)) and not torch.equal(batch(4), batch(5))


def test_validation_sees_every_pixel_once(tmp_path: Path) -> None:
    spec = spec_of("float32", 6)
    planes = [pixels_of(spec, 50, 60, seed) for seed in range(2)]
    images = labeled_images(write_pairs(tmp_path, planes), TWO, spec)
    tiles = [batch.images for batch in WholeImages(images, tile=40)]
    assert sum(int(tile.numel()) for tile in tiles) == 2 * 6 * 50 * 60
    assert sum(tile.double().sum().item() for tile in tiles) == pytest.approx(np.sum(planes, dtype=float))


def test_other_specs_are_cut_in_the_same_place(tmp_path: Path) -> None:
    """The student is fed two bands, one teacher three of the same values, and one the mean of its own."""
    student = spec_of("uint16", 2)
    of_teacher = InputSpec((Band("", 4, 7.0), Band("", 1, 8.0), Band("", 3, 9.0)), "uint16")
    planes = pixels_of(spec_of("uint16", 4), 60, 60)
    planes[1, 10:20] = 0  # nodata for the student only
    planes[2:, 30:40] = 0  # nodata for the teacher only
    pairs = write_pairs(tmp_path, [planes], nodata=0)
    sampler = CropSampler(labeled_images(pairs, TWO, student, [of_teacher]), 40, 0.3, [], 0.4)
    batch = TrainBatches(sampler, 8, 3).batch(0, 0)
    assert list(batch.read_otherwise) == [of_teacher.reading]
    seen = batch.fed_to(of_teacher)
    assert seen.shape == (8, 3, 40, 40) and batch.fed_to(student) is batch.fed_to(None) is batch.teacher_images
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.fed_to(of_teacher).int(), seen.int())
    still = TrainBatches(replace_zoom(sampler), 8, 3).batch(0, 0)
    first, other = still.teacher_images.numpy(), still.fed_to(of_teacher).numpy()
    both = still.distill_valid.numpy()
    assert np.array_equal(first[:, 0][both], other[:, 1][both])  # band 1 of both
    lost = still.valid & ~still.distill_valid & (still.labels != 255)
    assert lost.any() and (other.transpose(0, 2, 3, 1)[lost.numpy()] == [7, 8, 9]).all()
    assert (first.transpose(0, 2, 3, 1)[~still.valid.numpy()] == student.fill).all()
    cached = CropSampler(labeled_images(pairs, TWO, student, [], [of_teacher]), 40, 0.3, [], 0.0)
    from_cache = TrainBatches(cached, 8, 3).batch(0, 0)
    assert torch.equal(from_cache.distill_valid, still.distill_valid) and not from_cache.read_otherwise


def replace_zoom(sampler: CropSampler) -> CropSampler:
    return CropSampler(sampler.images, sampler.crop, sampler.jitter, [], 0.0)


def test_unlabelled_rasters_of_more_bands(tmp_path: Path) -> None:
    spec = InputSpec((Band("nir", 4, 3000.0, 900.0), Band("red", 3, 3000.0, 900.0)), "uint16")
    planes = pixels_of(spec_of("uint16", 5), 1100, 50)
    planes[:, 3:9] = 0
    path = tmp_path / "more" / "a.tif"
    path.parent.mkdir()
    write_bands(path, planes, ("blue", "green", "red", "nir", "swir"), nodata=0)
    windows = find_unlabeled([tmp_path / "more"], [], spec)
    assert [window.size for window in windows] == [(550, 50), (550, 50)]
    images = unlabeled_images(windows, spec)
    joined = np.concatenate([images[index].image for index in range(2)])
    filled = planes[[3, 2]].copy()
    filled[:, 3:9] = spec.fill[:, None, None]
    assert np.array_equal(joined.transpose(2, 0, 1), filled)
    batch = TrainBatches(CropSampler(images, 32, 0.2, []), 4, 1).batch(0, 0)
    assert (batch.labels == 255).all() and torch.equal(batch.distill_valid, batch.valid)
    assert ImageWindow(path).size == (1100, 50)
    (tmp_path / "more" / "b.tif").write_bytes(write_bands(tmp_path / "b.tif", planes[:2, :9]).read_bytes())
    with pytest.raises(DataError, match=r"(?s)1 of 2 file\(s\) cannot teach.*b.tif has no band nir"):
        find_unlabeled([tmp_path / "more"], [], spec)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_size_of_an_image_needs_no_colours(count: int, tmp_path: Path) -> None:
    path = write_bands(tmp_path / "a.tif", pixels_of(spec_of("float32", count), 9, 11))
    assert ImageWindow(path).size == (9, 11)
    with pytest.raises(DataError, match="no such file"):
        _ = ImageWindow(tmp_path / "gone.tif").size


def test_a_copy_of_a_test_image_is_found_in_any_bands(tmp_path: Path) -> None:
    spec = spec_of("float32", 4)
    planes = pixels_of(spec, 64, 64).repeat(4, 1).repeat(4, 2)
    held_out = [Pair("a", write_bands(tmp_path / "a.tif", planes), tmp_path / "none.png")]
    folder = tmp_path / "more"
    folder.mkdir()
    write_bands(folder / "other.tif", pixels_of(spec, 64, 64, 9).repeat(4, 1).repeat(4, 2))
    assert len(find_unlabeled([folder], held_out, spec)) == 1
    write_bands(folder / "copy.tif", planes, compress="deflate")
    with pytest.raises(DataError, match=r"copy.tif is .*a.tif, on which the student is scored"):
        find_unlabeled([folder], held_out, spec)


def test_how_an_image_is_read_is_part_of_its_key(tmp_path: Path) -> None:
    spec = spec_of("uint16", 4, ("red", "green", "blue", "nir"))
    path = write_bands(tmp_path / "a.tif", pixels_of(spec, 9, 9), ("nir", "blue", "green", "red"))
    window = ImageWindow(path)
    two = replace(spec, bands=spec.bands[:2])
    other_fill = replace(spec, bands=(*spec.bands[:3], replace(spec.bands[3], mean=5.0)))
    keys = {window.content(one) for one in (spec, two, other_fill, RGB)}
    assert len(keys) == 4
    other_std = replace(spec, bands=(*spec.bands[:3], replace(spec.bands[3], std=5.0, low=1.0)))
    assert window.content(other_std) == window.content(spec)  # the pixels are the same


def test_pairs_of_any_bands_are_a_batch() -> None:
    images, labels = torch.zeros(2, 6, 8, 8, dtype=torch.int16), torch.zeros(2, 8, 8, dtype=torch.int64)
    assert as_batch((images, labels)).fed_to(spec_of("int16", 6)) is images


def digest(*parts: Tensor) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(np.ascontiguousarray(part.numpy()).tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize(
    ("crop", "jitter", "zoom", "expected"),
    [
        (64, 0.0, 0.0, ("e866aafb3939602a", "e866aafb3939602a", "1004ae7efb0e6657", "916b144867c34061")),
        (64, 0.2, 0.0, ("a0f1ef4c0e55bfea", "e866aafb3939602a", "1004ae7efb0e6657", "916b144867c34061")),
        (64, 0.3, 0.5, ("7ba2df898ce47b14", "151281fb38784ece", "396abb55d46646bf", "916b144867c34061")),
        (160, 0.2, 0.5, ("1487fbb43ff4dcac", "50415ad8d5ab6fa6", "992c8faf9de1b8f7", "e8c2bcf31d0f407f")),
    ],
    ids=["plain", "jitter", "zoom", "padded"],
)
def test_batches_of_colours_are_what_they_were(
    crop: int, jitter: float, zoom: float, expected: tuple[str, ...], tmp_path: Path
) -> None:
    """Hashes of images, teacher_images, labels and valid, written before images could have other bands."""
    for index in range(3):
        image, labels = paint_scene(96 + 8 * index, 50 + index)
        for part, picture in (("images", image), ("masks", SCENE_CLASSES.paint(labels))):
            (tmp_path / part).mkdir(exist_ok=True)
            Image.fromarray(picture).save(tmp_path / part / f"{index}.png")
    images = labeled_images(find_pairs(tmp_path).pairs, SCENE_CLASSES)
    batches = TrainBatches(CropSampler(images, crop, jitter, [], zoom), 4, 7)
    steps = [(0, 0)] if crop == 160 else [(epoch, step) for epoch in range(2) for step in range(2)]
    drawn = [batches.batch(*step) for step in steps]
    found = [[getattr(one, name) for one in drawn] for name in ("images", "teacher_images", "labels", "valid")]
    assert tuple(digest(*parts) for parts in found) == expected
