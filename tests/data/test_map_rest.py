"""The part of a map without labels: which windows of it teach, and that none shows what is scored."""

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from skystill.classes import read_classes
from skystill.data import Split, check_data, find_pairs, map_rest, split_pairs
from skystill.data.check import DataCheck
from skystill.data.map_check import check_map
from skystill.data.map_rest import Rest, count_rest, find_rest
from skystill.data.pairs import PairSearch
from skystill.data.scenes import SCENE_CLASSES
from skystill.data.unlabeled import ImageWindow, find_unlabeled
from skystill.errors import DataError
from skystill.train.batches.batches import CropSampler, TrainBatches, UnlabeledCrops
from skystill.train.batches.images import labeled_images, unlabeled_images
from tests.maps import box, write_classes, write_layer, write_raster

SIDE = 1536


def make(root: Path, labeled_rows: int = 800, **more: object) -> Path:
    """A map of 6 x 6 windows of 256 pixels, labelled in its first rows."""
    values = np.full((3, SIDE, SIDE), 90, np.uint8)
    values[:, 1400:, :] = 0
    to = write_raster(root / "ortho.tif", SIDE, SIDE, values=values, tiled=True, compress="deflate", **more)
    roofs = [box(to, y, y + 40, x, x + 40) for y in range(20, SIDE, 128) for x in range(20, SIDE, 128)]
    write_layer(root / "labels.gpkg", roofs, "roofs")
    write_layer(root / "labels.gpkg", [box(to, 0, labeled_rows, 0, SIDE)], "area")
    write_classes(root, {"Land": "rest", "Roof": "{layer: roofs}"})
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("map"))


@functools.lru_cache(maxsize=2)
def checked_map(root: Path, changed: int) -> tuple[PairSearch, DataCheck]:
    search = find_pairs(root)
    return search, check_map(search, read_classes(root / "classes.yaml"))


def split_of(root: Path, how: str) -> tuple[DataCheck, Split]:
    image = next(path for path in root.iterdir() if path.suffix in (".tif", ".vrt"))
    search, check = checked_map(root, image.stat().st_mtime_ns)
    return check, split_pairs(search.pairs, how, areas=check.areas_of)


def rest_of(root: Path, how: str) -> tuple[list[ImageWindow], Split]:
    check, split = split_of(root, how)
    return find_rest(check, split), split


def mask_of(windows: list[tuple[int, int, int, int]], gap: int = 0) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    for top, bottom, left, right in windows:
        mask[max(0, top - gap) : bottom + gap, max(0, left - gap) : right + gap] = True
    return mask


@pytest.mark.parametrize(("how", "gap"), [("blocks:256/0", 128), ("blocks:256/200", 200), ("blocks:512/20", 128)])
def test_all_of_the_rest_that_is_away_from_what_is_scored(root: Path, how: str, gap: int) -> None:
    found, split = rest_of(root, how)
    near = mask_of([pair.bounds for pair in (*split.validation, *split.test) if pair.bounds], gap)
    rest = mask_of([window.bounds for window in found if window.bounds])
    assert near.any() and rest.any()
    assert not (near & rest).any()
    # The area ends in the fourth row of windows. Of those near what is scored, one rectangle each is left.
    unlabeled = np.zeros((SIDE, SIDE), bool)
    unlabeled[768:] = True
    whole = [(y, y + 256, x, x + 256) for y in range(0, SIDE, 256) for x in range(0, SIDE, 256)]
    free = [one for one in whole if unlabeled[one[0], one[2]] and not near[one[0] : one[1], one[2] : one[3]].any()]
    assert (rest | ~mask_of(free)).all()
    assert not (rest & ~unlabeled).any()
    assert len(found) == len(set(found))


def test_windows_without_data_teach_nothing(tmp_path: Path) -> None:
    found, _ = rest_of(make(tmp_path, nodata=0), "blocks:256/0")
    assert max(window.bounds[1] for window in found if window.bounds) == SIDE  # a part of the last ones has data
    with rasterio.open(tmp_path / "ortho.tif", "r+") as file:
        file.write(np.zeros((3, 300, SIDE), np.uint8), window=((1236, SIDE), (0, SIDE)))
    fewer, _ = rest_of(tmp_path, "blocks:256/0")
    assert [window for window in found if window.bounds and window.bounds[0] < 1280] == fewer


def test_the_folder_of_a_map_gives_its_rest_and_its_pool(root: Path, tmp_path: Path) -> None:
    rest, split = rest_of(root, "blocks:256/0")
    held_out = [*split.validation, *split.test]
    for named in (root, root / "ortho.tif"):
        assert find_unlabeled([named], held_out, find_rest=lambda: rest) == rest
    write_raster(tmp_path / "other.tif", 300, 200)
    more = [ImageWindow(tmp_path / "other.tif", (0, 300, 0, 200))]
    sources = [tmp_path, root, root / "ortho.tif"]
    assert find_unlabeled(sources, held_out, find_rest=lambda: rest) == [*rest, *more]
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "other name.tif").symlink_to(root / "ortho.tif")
    assert find_unlabeled([linked], held_out, find_rest=lambda: rest) == rest
    (tmp_path / "copied").mkdir()
    shutil.copy(root / "ortho.tif", tmp_path / "copied/b.tif")
    with pytest.raises(DataError, match=r"b\.tif is .*ortho\.tif, on which the student is scored"):
        find_unlabeled([tmp_path / "copied"], held_out, find_rest=lambda: rest)


def test_files_that_a_map_is_made_of_are_no_other_images(tmp_path: Path) -> None:
    """A mosaic shows what its files show: they would bring what is scored into the training."""
    make(tmp_path / "map")
    (tmp_path / "parts").mkdir()
    shutil.move(tmp_path / "map/ortho.tif", tmp_path / "parts/a.tif")
    write_raster(tmp_path / "parts/free.tif", 64, 64)
    bands = "".join(
        f"<VRTRasterBand dataType='Byte' band='{band}'><SimpleSource><SourceFilename relativeToVRT='1'>../parts/a.tif"
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>" for band in (1, 2, 3)
    )  # fmt: skip
    with rasterio.open(tmp_path / "parts/a.tif") as file:
        to = file.transform
    (tmp_path / "map/map.vrt").write_text(
        f"<VRTDataset rasterXSize='{SIDE}' rasterYSize='{SIDE}'><SRS>EPSG:32633</SRS>"
        f"<GeoTransform>{to.c},{to.a},0,{to.f},0,{to.e}</GeoTransform>{bands}</VRTDataset>"
    )
    rest, split = rest_of(tmp_path / "map", "blocks:256/0")
    held_out = [*split.validation, *split.test]
    assert find_unlabeled([tmp_path], held_out, find_rest=lambda: rest) == [
        *rest, ImageWindow(tmp_path / "parts/free.tif", (0, 64, 0, 64))
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"parts/a\.tif is a part of .*map\.vrt; give that"):
        find_unlabeled([tmp_path / "parts"], held_out, find_rest=lambda: rest)


def test_a_map_that_is_labelled_everywhere_has_no_rest(tmp_path: Path) -> None:
    make(tmp_path, SIDE)
    rest, split = rest_of(tmp_path, "blocks:256/0")
    assert rest == []
    with pytest.raises(DataError, match=r"ortho\.tif: all pixels that are not held out have labels"):
        find_unlabeled([tmp_path], split.test, find_rest=lambda: rest)


def counted(root: Path, how: str) -> tuple[Rest, int]:
    """What is counted, and the pixels with data and without a label in the windows that teach."""
    check, split = split_of(root, how)
    rest = mask_of([window.bounds for window in find_rest(check, split) if window.bounds])
    with rasterio.open(root / "ortho.tif") as file:
        has_data = file.dataset_mask() > 0
    return count_rest(check, split), int((rest & has_data)[800:].sum())


@pytest.mark.parametrize("how", ["blocks:256/0", "blocks:256/200", "blocks:512/20"])
def test_pixels_without_labels_are_counted(root: Path, how: str) -> None:
    found, expected = counted(root, how)
    assert found.pixels == expected > 0 and found.read == found.windows


def test_pixels_without_data_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, expected = counted(make(tmp_path, nodata=0), "blocks:256/0")
    assert found.pixels == expected > 0 and found.read == found.windows > 6
    monkeypatch.setattr(map_rest, "_READ", 5)
    found, _ = counted(tmp_path, "blocks:256/0")
    assert found.pixels == pytest.approx(expected, rel=0.3)
    assert str(found).startswith("about ") and str(found).endswith(f" pixels (seen in 5 of {found.windows} windows)")


def test_images_with_masks_have_no_rest(scenes: Path) -> None:
    check = check_data(find_pairs(scenes), SCENE_CLASSES)
    split = split_pairs(find_pairs(scenes).pairs, "auto")
    assert count_rest(check, split) == Rest(0) and find_rest(check, split) == []


def test_crops_of_the_rest_have_no_labels_and_are_taught(root: Path) -> None:
    rest, split = rest_of(root, "blocks:256/0")
    images = unlabeled_images(rest, of_map=True)
    assert images._held == {}  # nothing is read before it is needed
    sampler = CropSampler(labeled_images(split.train, read_classes(root / "classes.yaml")), 64, 0.0, [])
    batches = TrainBatches(sampler, 4, 0, unlabeled=UnlabeledCrops(CropSampler(images, 64, 0.0, []), 0.5))
    for batch in (batches.batch(0, step) for step in range(3)):
        assert (batch.labels[1::2] == 255).all() and (batch.labels[::2] != 255).any()
        assert torch.equal(
            batch.distill_valid,
            batch.valid & ((batch.labels != 255) | torch.tensor([0, 1, 0, 1])[:, None, None].bool()),
        )
