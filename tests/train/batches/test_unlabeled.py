import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from skystill.data import Pair, find_pairs
from skystill.data.scenes import SCENE_CLASSES, paint_scene
from skystill.data.unlabeled import ImageWindow, find_unlabeled
from skystill.errors import DataError
from skystill.train.batches.batches import Batch, CropSampler, TrainBatches, UnlabeledCrops
from skystill.train.batches.images import labeled_images, unlabeled_images


def save(path: Path, image: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def raster(path: Path, image: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"height": image.shape[0], "width": image.shape[1], "count": image.shape[2], "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **options) as file:
        file.write(image.transpose(2, 0, 1))
    return path


@pytest.fixture
def held_out(tmp_path: Path) -> list[Pair]:
    image = save(tmp_path / "test/images/a.png", paint_scene(96, 1)[0])
    return [Pair("a", image, tmp_path / "none.png")]


def test_windows_of_a_large_raster_tile_it_exactly(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1500, 2100, 3), np.uint8)
    raster(tmp_path / "r/big.tif", image, tiled=True, blockxsize=256, blockysize=256)
    image_windows = find_unlabeled([tmp_path / "r"], [])
    assert len(image_windows) == 2 * 3
    put = np.zeros_like(image)
    for image_window in image_windows:
        assert image_window.bounds is not None
        top, bottom, left, right = image_window.bounds
        assert image_window.size == (bottom - top, right - left) and max(image_window.size) <= 1024
        pixels, valid = image_window.read()
        put[top:bottom, left:right] += pixels
        assert valid.all()
    assert np.array_equal(put, image)
    assert len({image_window.content() for image_window in image_windows}) == 6


def test_only_the_window_is_read(tmp_path: Path) -> None:
    """A raster of 3 GB in a sparse file: reading it whole would take long, and the memory of this test."""
    path = tmp_path / "r/sparse.tif"
    path.parent.mkdir()
    big = {"height": 32_000, "width": 32_000, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, sparse_ok=True, **big) as file:
        window = rasterio.windows.Window(31_000, 31_000, 100, 100)
        file.write(np.full((3, 100, 100), 7, np.uint8), window=window)
    image_windows = find_unlabeled([tmp_path / "r"], [])
    assert len(image_windows) == 32**2
    assert image_windows[-1].read()[0].max() == 7


def test_nodata_does_not_teach(tmp_path: Path, scenes: Path) -> None:
    image = paint_scene(64, 2)[0]
    image[:, :20] = 0
    raster(tmp_path / "r/part.tif", image, nodata=0)
    views = CropSampler(unlabeled_images(find_unlabeled([tmp_path / "r"], [])), 64, 0.0, [])
    labeled = CropSampler(labeled_images(find_pairs(scenes).pairs[:1], SCENE_CLASSES), 64, 0.0, [])
    batch = TrainBatches(labeled, 2, seed=0, unlabeled=UnlabeledCrops(views, 0.5)).batch(0, 0)
    unlabeled = (batch.labels == 255).all(dim=2).all(dim=1)
    assert unlabeled.tolist() == [False, True]
    assert batch.distill_valid[1].sum() == batch.valid[1].sum() == 64 * 44
    assert batch.distill_valid[0].equal(batch.labels[0] != 255)


@pytest.mark.parametrize(("share", "batch_size", "steps"), [(0.25, 4, 8), (0.5, 3, 8), (0.1, 4, 20)])
def test_unlabelled_images_have_their_share(scenes: Path, share: float, batch_size: int, steps: int) -> None:
    views = CropSampler(labeled_images(find_pairs(scenes).pairs[:2], SCENE_CLASSES), 32, 0.0, [])
    others = CropSampler(
        unlabeled_images([ImageWindow(find_pairs(scenes).pairs[3].image, (0, 128, 0, 128))]), 32, 0.0, []
    )
    batches = TrainBatches(views, batch_size, 0, unlabeled=UnlabeledCrops(others, share))
    found = sum(int((batches.batch(0, step).labels == 255).flatten(1).all(dim=1).sum()) for step in range(steps))
    assert found == share * batch_size * steps
    assert batches.steps_per_epoch == TrainBatches(views, batch_size, 0).steps_per_epoch


def test_a_small_share_is_kept_over_short_epochs(scenes: Path) -> None:
    """Each epoch has 8 crops: a tenth of them is less than one, but not so of all epochs."""
    views = CropSampler(labeled_images(find_pairs(scenes).pairs[:2], SCENE_CLASSES), 32, 0.0, [])
    others = CropSampler(
        unlabeled_images([ImageWindow(find_pairs(scenes).pairs[3].image, (0, 128, 0, 128))]), 32, 0.0, []
    )
    batches = TrainBatches(views, 4, 0, crops_per_image=4, unlabeled=UnlabeledCrops(others, 0.1))
    made = [batch for epoch in range(10) for batch in batches.epoch(epoch)]
    assert sum(int((batch.labels == 255).flatten(1).all(dim=1).sum()) for batch in made) == 8


def test_ranks_make_the_parts_of_one_batch(scenes: Path) -> None:
    views = CropSampler(labeled_images(find_pairs(scenes).pairs[:3], SCENE_CLASSES), 32, 0.2, [])
    whole = TrainBatches(views, 4, seed=5).batch(2, 1)
    parts = [TrainBatches(views, 4, seed=5, rank_of=(rank, 2)).batch(2, 1) for rank in range(2)]
    for name in ("images", "teacher_images", "labels", "valid", "distill_valid"):
        joined = [row for part in parts for row in getattr(part, name)]
        assert all(one.equal(other) for one, other in zip(joined, getattr(whole, name), strict=True))


MASKS = [
    *(f"{folder}/c.png" for folder in ("masks", "Mask", "labels", "label", "annotations", "gt")),
    *(f"c{ending}.png" for ending in ("_mask", "_masks", "-label", "_labels", ".gt", " mask")),
]


@pytest.mark.parametrize("mask", MASKS)
def test_masks_are_no_images(tmp_path: Path, mask: str) -> None:
    """The rule is that of training data: what would be a mask there must not be looked at as an image here."""
    for name in ("images/a.png", "b.png", mask):
        save(tmp_path / "r" / name, paint_scene(64, 3)[0])
    found = find_unlabeled([tmp_path / "r"], [])
    assert sorted(image_window.path.name for image_window in found) == ["a.png", "b.png"]


COPIES: dict[str, Callable[[Path, np.ndarray], object]] = {
    "same.png": save,
    "again.jpg": lambda path, image: save(path, image, quality=70),
    "raster.tif": raster,
}


@pytest.mark.parametrize("name", list(COPIES))
def test_an_image_that_is_scored_on_is_refused(held_out: list[Pair], tmp_path: Path, name: str) -> None:
    save(tmp_path / "r/good.png", paint_scene(96, 2)[0])
    assert len(find_unlabeled([tmp_path / "r"], held_out)) == 1
    COPIES[name](tmp_path / "r" / name, paint_scene(96, 1)[0])
    with pytest.raises(DataError, match=rf"{name} is .*a.png, on which the student is scored\nTake them out"):
        find_unlabeled([tmp_path / "r"], held_out)


def test_bad_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none is not a folder, an image"):
        find_unlabeled([tmp_path / "none"], [])
    (tmp_path / "r").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        find_unlabeled([tmp_path / "r"], [])
    (tmp_path / "r/broken.tif").write_bytes(b"II*\0nothing")
    with pytest.raises(DataError, match=r"1 of 1 file\(s\) cannot teach:\n.*broken.tif"):
        find_unlabeled([tmp_path / "r"], [])


def test_what_an_image_does_not_show_is_not_taught(tmp_path: Path, scenes: Path) -> None:
    pair = find_pairs(scenes).pairs[0]
    picture = Image.open(pair.image).convert("RGBA")
    alpha = np.full((picture.height, picture.width), 255, np.uint8)
    alpha[:, :30] = 0
    picture.putalpha(Image.fromarray(alpha))
    picture.save(tmp_path / "a.png")
    images = labeled_images([replace(pair, image=tmp_path / "a.png")], SCENE_CLASSES)
    whole = labeled_images([pair], SCENE_CLASSES)
    assert not images[0].valid[:, :30].any() and images[0].valid[:, 30:].all()
    assert (images[0].labels[:, :30] == 255).all()
    assert np.array_equal(images[0].labels[:, 30:], whole[0].labels[:, 30:])
    batch = TrainBatches(CropSampler(images, 128, 0.0, []), 1, seed=0).batch(0, 0)
    assert batch.valid.sum() == 128 * 98 and not batch.distill_valid[~batch.valid].any()


def test_cached_logits_stay_only_where_the_pixels_stay(tmp_path: Path) -> None:
    """The key of a cached image: of a file read as it is stored, the hash of its bytes alone, as ever.

    Whole JPEG files have another key than before: their pixels were those of another decoder.
    """
    image = paint_scene(64, 2)[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    raster(tmp_path / "a.tif", image)
    Image.fromarray(image).save(tmp_path / "a.jpg")
    for name in ("a.png", "a.tif", "a.jpg"):
        whole, part = ImageWindow(tmp_path / name), ImageWindow(tmp_path / name, (0, 9, 0, 9))
        file = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        decoder = b"JPEG by GDAL" if name == "a.jpg" else b""
        assert whole.content() == hashlib.sha256(file.encode() + decoder).hexdigest()[:24]
        assert part.content() == hashlib.sha256(file.encode() + b"(0, 9, 0, 9)").hexdigest()[:24]
    raster(tmp_path / "bgr.tif", image)
    with rasterio.open(tmp_path / "bgr.tif", "r+") as file:
        file.descriptions = ("blue", "green", "red")
    file = hashlib.sha256((tmp_path / "bgr.tif").read_bytes()).hexdigest()
    assert (
        ImageWindow(tmp_path / "bgr.tif").content() != hashlib.sha256(file.encode()).hexdigest()[:24]
    )  # another order


def crops_of(windows: list[ImageWindow], labeled: CropSampler, zoom: float) -> list[Batch]:
    sampler = CropSampler(unlabeled_images(windows), 64, 0.2, [], zoom, 2)
    batches = TrainBatches(labeled, 4, seed=3, unlabeled=UnlabeledCrops(sampler, 0.5))
    return [batches.batch(epoch, step) for epoch in range(2) for step in range(2)]


@pytest.mark.parametrize("zoom", [0.0, 0.5])
def test_rasters_that_do_not_fit_in_memory_give_the_same_crops(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch, zoom: float
) -> None:
    """None is kept, none is read as a whole, and each crop is that of a raster in memory, bit for bit."""
    image = np.random.default_rng(0).integers(0, 256, (1100, 2050, 3), np.uint8)
    image[100:1000, :1500] = 0
    for name in ("a", "b"):
        image = image[::-1]
        raster(tmp_path / f"r/{name}.tif", image, tiled=True, blockxsize=256, blockysize=256, nodata=0)
    windows = find_unlabeled([tmp_path / "r"], [])
    labeled = CropSampler(labeled_images(find_pairs(scenes).pairs[:2], SCENE_CLASSES), 64, 0.2, [], zoom, 2)
    expected = crops_of(windows, labeled, zoom)
    read: list[ImageWindow] = []
    plain = ImageWindow.read

    def spied(window: ImageWindow, *args: object) -> tuple[np.ndarray, np.ndarray]:
        read.append(window)
        return plain(window, *args)  # type: ignore[arg-type]

    monkeypatch.setattr("skystill.train.batches.images._HELD_BYTES", 2 * 1100 * 2050 * 5 - 1)
    monkeypatch.setattr(ImageWindow, "read", spied)
    found = crops_of(windows, labeled, zoom)
    assert read[:2] == [windows[0], windows[len(windows) // 2]]  # the first window of each file
    assert len(read) == 2 + 8 and max(max(window.size) for window in read[2:]) <= 64 * 1.5
    for one, other in zip(found, expected, strict=True):
        for name in ("images", "teacher_images", "labels", "valid", "distill_valid"):
            assert getattr(one, name).equal(getattr(other, name)), name
    assert not all(batch.valid.all() for batch in found)
