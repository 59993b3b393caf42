import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skystill.classes import DUBAI, ClassMap, read_classes
from skystill.data import (
    Pair,
    check_data,
    find_pairs,
    read_image,
    read_labels,
    read_pairs,
    resolve_classes,
    sample_images,
    split_pairs,
)
from skystill.errors import ClassesError, DataError, SettingsError

Write = Callable[..., Path]
TWO = ClassMap(("Roof", "Grass"), ((255, 0, 0), (0, 255, 0)), "two")
BLUE = (0, 0, 255)


@pytest.mark.parametrize(
    ("image", "mask", "key"),
    [
        ("Tile 1/images/image_part_001.jpg", "Tile 1/masks/image_part_001.png", "Tile 1/image_part_001"),
        ("images/a.png", "masks/a.png", "a"),
        ("images/a.JPG", "masks/A.PNG", "a"),
        ("images/a.jpeg", "labels/a_label.png", "a"),
        ("a.jpg", "a_mask.png", "a"),
        ("12_sat.jpg", "12_mask.png", "12"),
        ("train/images/a.jpg", "train/masks/a.png", "train/a"),
        ("images/train/a.jpg", "masks/train/a.png", "train/a"),
        ("Images/deep/er/a.bmp", "Masks/deep/er/a.png", "deep/er/a"),
    ],
)
def test_layouts(tmp_path: Path, write_picture: Write, image: str, mask: str, key: str) -> None:
    write_picture(tmp_path / image)
    write_picture(tmp_path / mask)
    search = find_pairs(tmp_path)
    assert search.problems == ()
    assert [pair.key for pair in search.pairs] == [key]
    assert (search.pairs[0].image, search.pairs[0].mask) == (tmp_path / image, tmp_path / mask)


def test_subsets_come_from_folders(tmp_path: Path, write_picture: Write) -> None:
    for subset in ("train", "val", "test"):
        write_picture(tmp_path / subset / "images/a.png")
        write_picture(tmp_path / subset / "masks/a.png")
    pairs = find_pairs(tmp_path).pairs
    assert {pair.subset for pair in pairs} == {"train", "validation", "test"}
    assert split_pairs(pairs, "auto").rule == "folders"


def test_what_pairs_with_nothing_is_listed_whole(tmp_path: Path, write_picture: Write) -> None:
    for name in ("images/a.png", "masks/a.png", "images/alone.png", "masks/lost.png", "images/b.png", "images/b.jpg"):
        write_picture(tmp_path / name)
    problems = find_pairs(tmp_path).problems
    assert len(problems) == 3
    text = "\n".join(problems)
    for words in ("alone.png: no mask", "lost.png: no image", "more than one file for 'b'"):
        assert words in text


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", r"missing is not a folder\..*--data"),
        ("empty", r"empty holds no image with a mask \(0 images, 0 masks\)"),
    ],
)
def test_no_pair_is_an_error(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"(?s){says}"):
        find_pairs(tmp_path / name)


def test_every_picture_mode_becomes_rgb(tmp_path: Path) -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4
    grey = np.repeat(pixels[:, :, :1], 3, axis=2)
    palette = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5), "P")
    palette.putpalette(pixels.tobytes())
    see_through = np.dstack([pixels, np.full((4, 5), 7, np.uint8)])  # alpha is left out, the colour stays as it is
    for name, picture, expected in (
        ("rgb.png", Image.fromarray(pixels), pixels),
        ("rgba.png", Image.fromarray(see_through), pixels),
        ("grey.png", Image.fromarray(pixels[:, :, 0]), grey),
        ("palette.png", palette, pixels),
    ):
        picture.save(tmp_path / name)
        image = read_image(tmp_path / name)
        assert image.dtype == np.uint8
        assert image.tolist() == expected.tolist(), name


def test_masks_of_every_mode_give_the_same_labels(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 1], [1, 0, 255]], np.uint8)
    table = np.zeros((256, 3), np.uint8)
    table[:2] = TWO.colors
    table[255] = BLUE
    classes = ClassMap(TWO.names, TWO.colors, "two", void_colors=(BLUE,))
    rgb = Image.fromarray(table[labels])
    rgb.save(tmp_path / "rgb.png")
    rgb.convert("RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(labels).save(tmp_path / "index.png")
    palette = Image.fromarray(labels, "P")
    palette.putpalette(table.tobytes())
    palette.save(tmp_path / "palette.png")
    shuffled = Image.fromarray(labels, "P")  # a palette of other colours: its indices are the labels
    shuffled.putpalette(bytes(range(3, 256)) + bytes(515))
    shuffled.save(tmp_path / "shuffled.png")
    rgb.save(tmp_path / "rgb.tif")
    with rasterio.open(tmp_path / "map.tif", "w", driver="GTiff", width=3, height=2, count=1, dtype="uint8") as file:
        file.write(labels, 1)
        file.write_colormap(1, {0: TWO.colors[0], 1: TWO.colors[1], 255: BLUE})
    for path in sorted(tmp_path.iterdir()):
        reading = read_labels(path, classes)
        assert reading.labels.tolist() == labels.tolist(), path
        assert reading.unknown == {}, path


def test_unknown_labels_and_colors_are_void_and_counted(tmp_path: Path, write_picture: Write) -> None:
    index = write_picture(tmp_path / "index.png", np.array([[0, 7, 255]], np.uint8))
    reading = read_labels(index, TWO)
    assert (reading.labels.tolist(), reading.unknown) == ([[0, 255, 255]], {"label 7": 1})
    color = write_picture(tmp_path / "color.png", np.array([[[255, 0, 0], [1, 2, 3]]], np.uint8))
    assert read_labels(color, TWO).unknown == {"#010203": 1}


def test_a_truncated_jpeg_names_its_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / "cut.jpg"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"cut\.jpg: cannot be read as an image"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_rubbish_and_missing_files_name_themselves(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=re.escape(name)):
        read_image(tmp_path / name)
    (tmp_path / name).write_bytes(b"rubbish")
    with pytest.raises(DataError, match=re.escape(name)):
        read_labels(tmp_path / name, TWO)


def test_a_mask_of_a_picture_that_is_turned_must_have_the_turned_size(pairs_folder: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (36, 40)).save(pairs_folder / "images/0.png", exif=exif)  # 40x36 when it is upright, as its mask
    Image.new("RGB", (40, 36)).save(pairs_folder / "images/1.png", exif=exif)
    check = check_data(find_pairs(pairs_folder), read_classes(str(pairs_folder / "classes.yaml")))
    assert len(check.problems) == 1
    assert "1.png: 40x36 pixels; its image 1.png has 36x40" in check.problems[0]
    assert sum("turned upright by its EXIF orientation 6" in note for note in check.notes) == 2


def test_pixels_without_data_are_void_and_counted_so(pairs_folder: Path) -> None:
    before = check_data(find_pairs(pairs_folder), read_classes(str(pairs_folder / "classes.yaml")))
    assert before.counts[:2].tolist() == [6 * 36 * 20] * 2 and before.notes == ()
    image = np.full((36, 40, 4), 255, np.uint8)
    image[:10, 20:, 3] = 0
    Image.fromarray(image).save(pairs_folder / "images/0.png")
    with rasterio.open(
        pairs_folder / "images/1.tif", "w", driver="GTiff", width=40, height=36, count=3, dtype="uint16", nodata=0
    ) as file:
        bands = np.arange(3 * 36 * 40, dtype=np.uint16).reshape(3, 36, 40) + 1
        bands[:, :, :5] = 0
        file.write(bands)
    (pairs_folder / "images/1.png").unlink()
    classes = read_classes(str(pairs_folder / "classes.yaml"))
    check = check_data(find_pairs(pairs_folder), classes)
    assert check.problems == ()
    assert check.counts[[0, 1, 255]].tolist() == [6 * 720 - 36 * 5, 6 * 720 - 200, 36 * 5 + 200]
    assert ", nodata, neither" in check.notes[0] and "380 pixels in 2 mask(s)" in check.notes[0]
    assert "1.tif: uint16 pixels; " in check.notes[1]
    labels = {key: labels for key, _, labels in read_pairs(find_pairs(pairs_folder).pairs, classes)}
    first, second = (labels[key] for key in sorted(labels)[:2])
    assert (first[:10, 20:] == 255).all() and (first == 255).sum() == 200
    assert (second[:, :5] == 255).all() and (second == 255).sum() == 180


def test_a_good_data_set_is_counted(pairs_folder: Path) -> None:
    search = find_pairs(pairs_folder)
    classes, notes = resolve_classes(pairs_folder, None, search.pairs)
    check = check_data(search, classes)
    assert (check.problems, notes, len(check.records)) == ((), (), 6)
    assert check.counts[:2].tolist() == [6 * 36 * 20, 6 * 36 * 20]
    check.raise_problems(pairs_folder)


def test_all_problems_come_at_once(pairs_folder: Path, write_picture: Write) -> None:
    write_picture(pairs_folder / "images/extra.png")
    write_picture(pairs_folder / "masks/0.png", (255, 0, 0), (3, 3))
    write_picture(pairs_folder / "masks/1.png", (1, 2, 250), (40, 36))
    (pairs_folder / "images/2.png").write_bytes(b"rubbish")
    check = check_data(find_pairs(pairs_folder), read_classes(pairs_folder / "classes.yaml"))
    with pytest.raises(DataError) as raised:
        check.raise_problems(pairs_folder)
    text = str(raised.value)
    for words in (
        "extra.png: no mask",
        "0.png: 3x3 pixels; its image 0.png has 40x36",
        "#0102FA: 1,440 pixels in 1 mask(s) belong to no class",
        "nearest class colour is",
        "2.png: cannot be read",
    ):
        assert words in text
    assert len(raised.value.problems) == 4


def test_a_class_never_seen_is_a_problem_unless_unscored(pairs_folder: Path) -> None:
    search = find_pairs(pairs_folder)
    colors = ((255, 0, 0), (0, 255, 0), (9, 9, 9))
    never = ClassMap(("Roof", "Grass", "Ghost"), colors)
    assert "Ghost #090909: no mask holds a pixel" in check_data(search, never).problems[0]
    assert check_data(search, ClassMap(never.names, colors, unscored=("Ghost",))).problems == ()


def test_void_is_told_with_its_files(pairs_folder: Path, write_picture: Write) -> None:
    write_picture(pairs_folder / "masks/3.png", BLUE, (40, 36))
    check = check_data(find_pairs(pairs_folder), read_classes(pairs_folder / "classes.yaml"))
    assert check.problems == ()
    assert "1,440 pixels in 1 mask(s)" in check.notes[0]
    assert "masks/3.png (1,440)" in check.notes[0]


def test_masks_win_over_a_classes_file_of_other_colors(tmp_path: Path, write_picture: Write) -> None:
    mask = np.zeros((6, 8, 3), np.uint8)
    mask[:] = DUBAI.colors[2]
    write_picture(tmp_path / "images/a.png")
    write_picture(tmp_path / "masks/a.png", mask)
    entries = [{"title": name, "color": f"#0000{10 + i}"} for i, name in enumerate(DUBAI.names)]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": entries}))
    classes, notes = resolve_classes(tmp_path, None, find_pairs(tmp_path).pairs)
    assert classes is DUBAI
    assert f"Road: {tmp_path / 'classes.json'} says #000012, the masks use #6EC1E4." in notes


def test_no_classes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClassesError, match=r"no classes: .* no --classes was given"):
        resolve_classes(tmp_path, None, [])


def _pairs(count: int) -> list[Pair]:
    return [Pair(f"{i:03d}", Path(f"{i:03d}.jpg"), Path(f"{i:03d}.png")) for i in range(count)]


def _dubai_pairs() -> list[Pair]:
    return [
        Pair(f"Tile {tile}/image_part_{part:03d}", Path("a.jpg"), Path("a.png"))
        for tile in range(1, 9)
        for part in range(1, 10)
    ]


def test_the_two_dubai_rules() -> None:
    by_image = split_pairs(_dubai_pairs(), "auto")
    assert (by_image.rule, len(by_image.train), len(by_image.validation), len(by_image.test)) == ("dubai", 48, 8, 16)
    assert {pair.key[-3:] for pair in by_image.test} == {"008", "009"}
    by_tile = split_pairs(_dubai_pairs(), "dubai-tiles")
    assert {pair.key[:6] for pair in by_tile.test} == {"Tile 3", "Tile 6"}
    assert {pair.key[:6] for pair in by_tile.validation} == {"Tile 1"}
    assert len(by_tile.train) == 45


@given(st.integers(2, 60), st.integers(0, 5))
def test_fractions_share_out_every_image_once(count: int, seed: int) -> None:
    split = split_pairs(_pairs(count), "0.7/0.15/0.15", seed)
    keys = [pair.key for part in (split.train, split.validation, split.test) for pair in part]
    assert sorted(keys) == [f"{i:03d}" for i in range(count)]
    assert split == split_pairs(_pairs(count)[::-1], "0.7/0.15/0.15", seed)  # order of the files does not matter


def test_a_file_names_images_by_key_or_name(tmp_path: Path) -> None:
    path = tmp_path / "split.yaml"
    path.write_text("train: ['000', 001.jpg]\ntest: ['002']\n")
    split = split_pairs(_pairs(4), str(path))
    assert [pair.key for pair in split.train] == ["000", "001"]
    assert split_pairs(_pairs(4), str(_written(tmp_path, split.to_dict()))).test == split.test


def _written(folder: Path, content: object) -> Path:
    path = folder / "again.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("dubai", "is for the Dubai data"),
        ("0.5/0.5/0.5", "add up to 1.5"),
        ("nothing", "neither a file, nor fractions"),
        ("{train: [nobody], test: ['000']}", "does not hold: nobody"),
        ("{train: ['000'], test: ['000']}", "twice, so that a part would leak: 000"),
        ("just words", "it must hold lists"),
    ],
)
def test_a_bad_split_is_refused_in_words(tmp_path: Path, how: str, says: str) -> None:
    if how.startswith("{") or " " in how:
        (tmp_path / "split.yaml").write_text(how)
        how = str(tmp_path / "split.yaml")
    with pytest.raises(SettingsError, match=re.escape(says)):
        split_pairs(_pairs(4), how)


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(DataError, match="leaves nothing for train"):
        split_pairs(_pairs(1), "auto")


def test_a_sample_is_drawn_by_seed() -> None:
    drawn = sample_images(_pairs(48), 10, seed=1)
    assert len(set(drawn)) == 10
    assert drawn == sample_images(_pairs(48), 10, seed=1) != sample_images(_pairs(48), 10, seed=2)
    with pytest.raises(SettingsError, match="only 48 training images"):
        sample_images(_pairs(48), 49, seed=1)
