"""Images and masks that do not belong together, and parts of a split that show the same: said before training."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine, from_origin

from skystill.data.places import find_place, pixels_apart, sharing_ground
from skystill.data.prepare import CheckedData, check_folder
from skystill.errors import SettingsError
from skystill.settings import CheckSettings

SIDE, UTM = 32, "EPSG:32633"
NORTH_UP, SOUTH_UP = from_origin(500_000, 5_000_000, 1, 1), Affine(1, 0, 500_000, 0, 1, 5_000_000 - SIDE)
LABELS = np.repeat(np.array([[0], [1]], np.uint8), SIDE // 2, axis=0) + np.zeros((1, SIDE), np.uint8)


def write(path: Path, bands: np.ndarray, transform: Affine | None = None, crs: str | None = UTM) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    placed = {} if transform is None else {"transform": transform, "crs": crs}
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype="uint8", **placed
    ) as file:
        file.write(bands)
    return path


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (3, SIDE, SIDE)).astype(np.uint8)


def add(root: Path, key: str, seed: int, transform: Affine | None = None) -> None:
    """Write an image with its mask, and the classes."""
    folder, name = Path(key).parent, Path(key).name
    write(root / folder / "images" / f"{name}.tif", noise(seed), transform)
    (root / folder / "masks").mkdir(parents=True, exist_ok=True)
    Image.fromarray(LABELS).save(root / folder / "masks" / f"{name}.png")
    (root / "classes.yaml").write_text("classes: [{name: A, value: 0}, {name: B, value: 1}]\n")


def check(root: Path, split: str = "auto") -> CheckedData:
    return check_folder(CheckSettings(data=root, split=split))


@pytest.mark.parametrize(
    ("of_mask", "crs", "size", "apart"),
    [
        (NORTH_UP, UTM, SIDE, 0),
        (NORTH_UP, None, SIDE, 0),  # the CRS was lost, and the place is the same
        (Affine(2, 0, 500_000, 0, -2, 5_000_000), UTM, SIDE // 2, 0),  # half the resolution, for --fit-masks
        (from_origin(500_000.5, 5_000_000.5, 1, 1), UTM, SIDE, 0.5**0.5),  # a pixel is a point, or an area
        (SOUTH_UP, UTM, SIDE, SIDE),
        (from_origin(500_010, 5_000_000, 1, 1), UTM, SIDE, 10),
        (from_origin(500_010, 5_000_000, 2, 2), UTM, SIDE // 2, 5),  # in pixels of the mask
        (from_origin(500_000, 5_000_000, 1, 1), "EPSG:32634", SIDE, 1e5),  # another zone
        (None, None, SIDE, 0),
    ],
)
def test_masks_lie_where_their_images_do(
    tmp_path: Path, of_mask: Affine | None, crs: str | None, size: int, apart: float
) -> None:
    image = find_place(write(tmp_path / "image.tif", noise(0), NORTH_UP))
    mask = write(tmp_path / "mask.tif", np.zeros((1, size, size), np.uint8), of_mask, crs)
    assert image is not None
    found = pixels_apart(image, mask)
    assert found > apart if apart == 1e5 else found == pytest.approx(apart, abs=1e-6)


def test_a_mask_that_is_upside_down_is_refused(tmp_path: Path) -> None:
    for number in range(6):
        add(tmp_path, f"{number}", number, NORTH_UP)
        (tmp_path / f"masks/{number}.png").unlink()
        write(tmp_path / f"masks/{number}.tif", LABELS[None], SOUTH_UP if number > 3 else NORTH_UP)
    (problem,) = check(tmp_path).check.problems
    assert "masks/4.tif (and 1 more masks)" in problem and "up to 32 pixels apart" in problem


def test_ground_is_shared_in_one_crs_by_more_than_an_edge(tmp_path: Path) -> None:
    def at(left: float, crs: str = UTM) -> Path:
        return write(tmp_path / f"{left}-{crs[-5:]}.tif", noise(0), from_origin(500_000 + left, 5_000_000, 1, 1), crs)

    places = [find_place(path) for path in (at(0), at(31.8), at(16), at(0, "EPSG:32634"))]
    others = [None, *(find_place(path) for path in (at(32), at(-20)))]
    assert sharing_ground([*places, None], others) == [2, 1, 1, None, None]
    assert sharing_ground(places, [None]) == [None] * 4


def test_tiles_that_overlap_across_parts_are_told(tmp_path: Path) -> None:
    for number, part in enumerate(["train", "train", "val", "test", "test"]):
        left = 500_000 + 100 * number - (80 if number == 3 else 0)  # the first of test over the one of validation
        add(tmp_path, f"{part}/{number}", number, from_origin(left, 5_000_000, 1, 1))
    (note,) = [note for note in check(tmp_path).notes if "other parts" in note]
    assert note.startswith(
        "1 of 2 test images show ground, or have the mask, of images of other parts (test/3 and val/2)"
    )


def test_one_mask_of_several_images_is_one_place(tmp_path: Path) -> None:
    for number, part in enumerate(["train", "val", "test"]):
        add(tmp_path, f"{number}", number)
        rows = [f"images/{number}.tif,masks/{min(number, 1)}.png,{part}"]
        with (tmp_path / "pairs.csv").open("a") as table:
            table.write("\n".join([*(["image,labels,split"] if number == 0 else []), *rows, ""]))
    (note,) = [note for note in check(tmp_path / "pairs.csv").notes if "other parts" in note]
    assert note.startswith("1 of 1 test images show ground, or have the mask, of images of other parts (2 and 1)")


def test_copies_in_other_parts_are_told(tmp_path: Path) -> None:
    for number, key in enumerate(["train/0", "train/1", "train/2", "val/3"]):
        add(tmp_path, key, number)
    add(tmp_path, "test/copy", 0)
    add(tmp_path, "test/own", 9)
    (tmp_path / "val/images/3.tif").unlink()
    (tmp_path / "val/images/3.tif").symlink_to(tmp_path / "train/images/1.tif")
    notes = [note for note in check(tmp_path).notes if "copies of" in note]
    assert [note.split(":")[0] for note in notes] == [
        "1 of 2 test images are copies of images of other parts (test/copy and train/0)",
        "1 of 1 validation images are copies of images of other parts (val/3 and train/1)",
    ]


@pytest.mark.parametrize(
    ("folders", "rule", "told"),
    [
        (["training", "validation", "test"], "folders", False),
        (["Train", "Valid", "Testing"], "folders", False),
        (["train", "val"], "auto, classes spread by area, seed 0", True),
        (["train", "site"], "auto, classes spread by area, seed 0", True),
        (["north", "south"], "auto, classes spread by area, seed 0", False),
    ],
)
def test_folders_that_name_parts_are_kept_to_or_it_is_told(
    tmp_path: Path, folders: list[str], rule: str, told: bool
) -> None:
    for number in range(2 * len(folders)):
        add(tmp_path, f"{folders[number // 2]}/{number}", number)
    found = check(tmp_path)
    assert found.split is not None and found.split.rule == rule
    assert any("without regard to them" in note for note in found.notes) == told


def test_a_split_file_names_one_image(tmp_path: Path) -> None:
    for number, key in enumerate(["a/0", "a/1", "b/0", "b/2"]):
        add(tmp_path, key, number)
    split = tmp_path / "split.yaml"
    split.write_text("train: [0.tif, 1.tif]\ntest: [2.tif]\n")
    with pytest.raises(SettingsError, match=r"names 0.tif, and several images are called so.*: a/0, b/0"):
        check(tmp_path, str(split))
    split.write_text("train: [a/0, 1.tif]\ntest: [2.tif, b/0]\n")
    found = check(tmp_path, str(split)).split
    assert found is not None and [pair.key for pair in found.test] == ["b/0", "b/2"]


def test_a_test_image_that_is_made_of_small_training_tiles_is_told(tmp_path: Path) -> None:
    """Each tile shows less than a hundredth of the test image."""
    side, big = SIDE // 2, 12 * SIDE
    write(tmp_path / "test/images/big.tif", np.zeros((3, big, big), np.uint8), from_origin(500_000, 5_000_000, 1, 1))
    (tmp_path / "test/masks").mkdir()
    Image.fromarray(np.tile(LABELS, (12, 12))).save(tmp_path / "test/masks/big.png")
    for number in range(6):
        left = 500_000 + 2 * side * number
        add(tmp_path, f"train/{number}", number, from_origin(left, 5_000_000, 0.5, 0.5))
    notes = " ".join(check(tmp_path).notes)
    assert "1 of 1 test images show ground, or have the mask, of images of other parts (test/big and train/" in notes
