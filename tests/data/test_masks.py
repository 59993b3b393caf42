"""Masks as people have them: numbers, greys, colours, palettes, every bit depth, nodata; and what is refused."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from PIL import Image

from skystill.classes import ClassMap, classes_from, read_classes
from skystill.data import (
    Pair,
    check_data,
    find_pairs,
    masks,
    read_labels,
    read_pair_labels,
    read_pairs,
    resolve_classes,
)
from skystill.data.masks import fit_labels, is_same_shape
from skystill.errors import ClassesError, DataError

Write = Callable[..., Path]
Array = npt.NDArray[Any]
VALUES = classes_from([{"name": "roof", "value": 1}, {"name": "grass", "value": 2}], "file")
FAR = classes_from({"classes": [{"name": "a", "value": 7}, {"name": "b", "value": 300}], "void": [0]}, "file")
NAMES = classes_from(["a", "b", "c", "d"], "file")
GREY = classes_from([{"name": "back", "color": "#000000"}, {"name": "roof", "color": "#FFFFFF"}], "file")
COLOR = classes_from([{"name": "red", "color": "#FF0000"}, {"name": "white", "color": "#FFFFFF"}], "file")
BOTH = classes_from(
    {"classes": [{"name": "red", "color": "#FF0000", "value": 5}, {"name": "white", "color": "#FFFFFF", "value": 9}],
     "void": ["#000000", 0]},
    "file",
)  # fmt: skip


def write_tiff(path: Path, bands: Array, table: dict[int, tuple[int, ...]] | None = None, **options: Any) -> None:
    bands = bands if bands.ndim == 3 else bands[None]
    count, height, width = bands.shape
    if options.pop("alpha", False):
        options["ALPHA"] = "YES"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, count=count, dtype=bands.dtype, **options
        ) as file:
            file.write(bands)
            if table:
                file.write_colormap(1, table)


def palette(index: list[list[int]], colors: list[tuple[int, int, int]], **options: Any) -> tuple[Image.Image, Any]:
    picture = Image.fromarray(np.array(index, np.uint8), "P")
    picture.putpalette([value for color in colors for value in color])
    return picture, options


def rgb(rows: list[list[int]]) -> Array:
    """A picture whose pixels are written as 0xFF0000."""
    packed = np.array(rows)
    return np.stack([packed >> 16, (packed >> 8) & 255, packed & 255], axis=-1).astype(np.uint8)


RED, WHITE, BLACK = 0xFF0000, 0xFFFFFF, 0
U8, U16 = np.uint8, np.uint16
# what is stored, as an array or as (picture, options of save); the classes; the labels
PICTURES: dict[str, tuple[Any, ClassMap, list[list[int]]]] = {
    "numbers 1..N, 255 is void": (np.array([[1, 2, 255]], U8), VALUES, [[0, 1, 255]]),
    "numbers of 16 bits": (np.array([[7, 300, 0]], U16), FAR, [[0, 1, 255]]),
    "numbers without values": (np.array([[0, 3, 255]], U8), NAMES, [[0, 3, 255]]),
    "a value of 255 is a class": (
        np.array([[0, 255]], U8),
        classes_from([{"name": "a", "value": 0}, {"name": "b", "value": 255}], "f"),
        [[0, 1]],
    ),
    "grey 0 and 255": (np.array([[0, 255, 255]], U8), GREY, [[0, 1, 1]]),
    "grey with alpha": (Image.fromarray(np.array([[0, 255]], U8)).convert("LA"), GREY, [[0, 1]]),
    "1 bit, numbers": (Image.fromarray(np.array([[0, 255]], U8)).convert("1"), NAMES, [[0, 1]]),
    "1 bit, black and white": (Image.fromarray(np.array([[0, 255]], U8)).convert("1"), GREY, [[0, 1]]),
    "colours": (rgb([[RED, WHITE]]), COLOR, [[0, 1]]),
    "colours beside values": (rgb([[RED, WHITE, BLACK]]), BOTH, [[0, 1, 255]]),
    "white alone is a colour, not 255": (rgb([[WHITE, WHITE]]), BOTH, [[1, 1]]),
    "numbers beside colours": (np.array([[5, 9, 0]], U8), BOTH, [[0, 1, 255]]),
    "numbers in three equal bands": (np.repeat(np.array([[[1], [2]]], U8), 3, axis=2), VALUES, [[0, 1]]),
    "numbers in three bands, colours in the file": (np.full((1, 2, 3), 9, U8), BOTH, [[1, 1]]),
    "transparent, with the colour of a class": (
        np.dstack([rgb([[RED, WHITE]]), np.array([[0, 255]], U8)]), COLOR, [[0, 1]],
    ),
    "palette of 1 bit": (palette([[1, 0]], [(255, 0, 0), (255, 255, 255)], bits=1), COLOR, [[1, 0]]),
    "palette of 2 bits": (palette([[3, 0]], [(255, 0, 0), (9, 9, 9), (8, 8, 8), (255,) * 3], bits=2), COLOR, [[1, 0]]),
    "palette with a transparent entry": (
        palette([[0, 1]], [(255, 0, 0), (255, 255, 255)], transparency=0), COLOR, [[0, 1]],
    ),
    "palette of other colours": (palette([[2, 1]], [(1, 2, 3), (4, 5, 6), (7, 8, 9)]), VALUES, [[1, 0]]),
    "palette of greys": (palette([[0, 1]], [(0, 0, 0), (255, 255, 255)]), GREY, [[0, 1]]),
    "palette, encoding: index": (
        palette([[1, 2]], [(0, 0, 0), (255, 255, 255), (255, 0, 0)]),
        classes_from(
            {"encoding": "index",
             "classes": [
                 {"name": "a", "index": 1, "colour": [255, 0, 0]}, {"name": "b", "index": 2, "colour": "#FFFFFF"},
             ]},
            "f",
        ),
        [[0, 1]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PICTURES)
def test_pictures(tmp_path: Path, case: str) -> None:
    stored, classes, labels = PICTURES[case]
    picture, options = stored if isinstance(stored, tuple) else (stored, {})
    opened = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    opened.save(tmp_path / "mask.png", **options)
    reading = read_labels(tmp_path / "mask.png", classes)
    assert (reading.labels.tolist(), reading.labels.dtype, reading.unknown) == (labels, np.uint8, {})


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_pngs_of_few_bits_hold_their_numbers(tmp_path: Path, bits: int) -> None:
    stored = np.array([[0, 1, (1 << bits) - 1]], np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            tmp_path / "a.png", "w", driver="PNG", width=3, height=1, count=1, dtype="uint8", NBITS=bits
        ) as file:
            file.write(stored, 1)
    names = classes_from([f"class {n}" for n in range(16)], "f")
    assert read_labels(tmp_path / "a.png", names).labels.tolist() == stored.tolist()
    black_and_white = read_labels(tmp_path / "a.png", GREY)  # the same file by its greys: 0 is black, the highest white
    assert black_and_white.labels[0, [0, 2]].tolist() == [0, 1]


def test_sixteen_bit_colour_png(tmp_path: Path) -> None:
    wide = rgb([[RED, WHITE]]).astype(np.uint16) * 257
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(tmp_path / "a.png", "w", driver="PNG", width=2, height=1, count=3, dtype="uint16") as file:
            file.write(wide.transpose(2, 0, 1))
    assert read_labels(tmp_path / "a.png", COLOR).labels.tolist() == [[0, 1]]


COLORS = rgb([[RED, WHITE, BLACK]]).transpose(2, 0, 1)
TIFFS: dict[str, tuple[Array, dict[str, Any], ClassMap, list[list[int]], int]] = {
    **{
        f"numbers of {kind}": (np.array([[1, 2, 255]]).astype(kind), {}, VALUES, [[0, 1, 255]], 0)
        for kind in ("uint8", "uint16", "int16", "int32", "uint32", "float32", "float64")
    },
    "numbers of 16 bits above 255": (np.array([[7, 300]], U16), {}, FAR, [[0, 1]], 0),
    "nodata 0": (np.array([[1, 0, 2]], U8), {"nodata": 0}, VALUES, [[0, 255, 1]], 1),
    "nodata wins over a class": (np.array([[1, 0]], U8), {"nodata": 0}, NAMES, [[1, 255]], 1),
    "nodata -9999": (np.array([[1, -9999]], np.int16), {"nodata": -9999}, VALUES, [[0, 255]], 1),
    "nodata NaN": (np.array([[1, np.nan]], np.float32), {"nodata": np.nan}, VALUES, [[0, 255]], 1),
    "NaN without nodata": (np.array([[1, np.nan]], np.float32), {}, VALUES, [[0, 255]], 1),
    "nodata of colours": (COLORS, {"nodata": 0}, COLOR, [[0, 1, 255]], 1),
    "1 bit": (np.array([[0, 1]], U8), {"NBITS": 1}, NAMES, [[0, 1]], 0),
    "1 bit, black and white": (np.array([[0, 1]], U8), {"NBITS": 1}, GREY, [[0, 1]], 0),
    "4 bits": (np.array([[0, 3]], U8), {"NBITS": 4}, NAMES, [[0, 3]], 0),
    "colours of 16 bits, 0 to 255": (COLORS[:, :, :2].astype(U16), {}, COLOR, [[0, 1]], 0),
    "colours of 16 bits, stretched": (COLORS[:, :, :2].astype(U16) * 257, {}, COLOR, [[0, 1]], 0),
    "colours with alpha": (
        np.concatenate([COLORS, [[[0, 255, 255]]]]).astype(U8)[:, :, :2], {"alpha": True}, COLOR, [[0, 1]], 0,
    ),
    "numbers with alpha": (np.array([[[1, 2]], [[255, 255]]], U8), {"alpha": True}, VALUES, [[0, 1]], 0),
    "colour table": (np.array([[4, 3]], U8), {"table": {3: (255, 0, 0), 4: (255,) * 3}}, COLOR, [[1, 0]], 0),
    "colour table of other colours": (np.array([[1, 2]], U8), {"table": {1: (9, 8, 7)}}, VALUES, [[0, 1]], 0),
}  # fmt: skip


@pytest.mark.parametrize("case", TIFFS)
def test_tiffs(tmp_path: Path, case: str) -> None:
    bands, options, classes, labels, nodata = TIFFS[case]
    write_tiff(tmp_path / "mask.tif", bands, **options)
    reading = read_labels(tmp_path / "mask.tif", classes)
    assert (reading.labels.tolist(), reading.unknown, reading.nodata) == (labels, {}, nodata)


@pytest.mark.parametrize("bits", [1, 8])
def test_min_is_white_is_seen_as_viewers_show_it(tmp_path: Path, bits: int) -> None:
    high = (1 << bits) - 1
    write_tiff(tmp_path / "a.tif", np.array([[0, high]], U8), NBITS=bits, photometric="MINISWHITE")
    assert read_labels(tmp_path / "a.tif", GREY).labels.tolist() == [[1, 0]]  # 0 is white, which is roof
    numbers = classes_from([{"name": "a", "value": 0}, {"name": "b", "value": high}], "f")
    assert read_labels(tmp_path / "a.tif", numbers).labels.tolist() == [[0, 1]]  # numbers are those of the file


def test_an_internal_mask_is_void(tmp_path: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_tiff(tmp_path / "a.tif", np.array([[1, 2, 2]], U8))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(tmp_path / "a.tif", "r+") as file:
                file.write_mask(np.array([[255, 0, 255]], U8))
    reading = read_labels(tmp_path / "a.tif", VALUES)
    assert (reading.labels.tolist(), reading.nodata) == ([[0, 255, 1]], 1)


def test_orientation_is_that_of_viewers(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.array([[1, 2]], U8)).save(tmp_path / "a.png", exif=exif)
    assert read_labels(tmp_path / "a.png", VALUES).labels.tolist() == [[0], [1]]


REFUSED: dict[str, tuple[Array, dict[str, Any], ClassMap, str]] = {
    "two bands": (np.ones((2, 1, 2), U8), {}, VALUES, "2 bands; a mask has one band of numbers, or three of colours"),
    "six bands": (np.ones((6, 1, 2), U8), {}, VALUES, "6 bands"),
    "colours that would wrap": (COLORS.astype(U16) + 256, {}, COLOR, "colours of uint16 from 256 to 511"),
    "fractions": (np.array([[1, 1.5]], np.float32), {}, VALUES, "no whole numbers, such as 1.5"),
    "infinite": (np.array([[1, np.inf]], np.float32), {}, VALUES, "no whole numbers, such as inf"),
    "complex": (np.ones((1, 2), np.complex64), {}, VALUES, "complex64 pixels"),
    "colours and values that do not agree": (
        np.array([[9, 5]], U8), {"table": {9: (255, 0, 0), 5: (255,) * 3}}, BOTH, "do not agree",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path: Path, case: str) -> None:
    bands, options, classes, says = REFUSED[case]
    write_tiff(tmp_path / "mask.tif", bands, **options)
    with pytest.raises(DataError, match=rf"mask\.tif: .*{re.escape(says)}"):
        read_labels(tmp_path / "mask.tif", classes)


def test_numbers_of_no_class_are_counted(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", np.array([[256, 1, -1, 70000, 70000]], np.int32))
    reading = read_labels(tmp_path / "a.tif", VALUES)
    assert reading.labels.tolist() == [[255, 0, 255, 255, 255]]  # 256 does not wrap to 0, nor 70,000 to 112
    assert reading.unknown == {"label -1": 1, "label 256": 1, "label 70000": 2}


# ---- masks of another size


@pytest.mark.parametrize(
    ("mask", "image", "same"),
    [
        ((50, 60), (100, 120), True),
        ((250, 250), (999, 1001), True),  # a quarter, rounded
        ((100, 120), (25, 30), True),
        ((509, 544), (510, 544), True),  # a pixel of rounding
        ((60, 50), (100, 120), False),  # turned
        ((3, 3), (36, 40), False),
        ((90, 120), (100, 120), False),
    ],
)
def test_same_shape(mask: tuple[int, int], image: tuple[int, int], same: bool) -> None:
    assert is_same_shape(mask, image) == is_same_shape(image, mask) == same


@pytest.mark.parametrize("size", [(4, 6), (3, 9), (20, 30), (7, 11), (1, 1)])
def test_fitting_takes_the_nearest_pixel(size: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (10, 15), np.uint8)
    fitted = fit_labels(labels, size)
    assert fitted.tolist() == np.asarray(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST)).tolist()
    assert fit_labels(np.array([[1, 2]], np.uint8), (2, 4)).tolist() == [[1, 1, 2, 2]] * 2


def test_masks_of_another_size_are_fitted_only_if_asked(pairs_folder: Path, write_picture: Write) -> None:
    half = np.zeros((18, 20, 3), np.uint8)
    half[:, :10], half[:, 10:] = (255, 0, 0), (0, 255, 0)
    write_picture(pairs_folder / "masks/0.png", half)
    classes = read_classes(pairs_folder / "classes.yaml")
    problems = check_data(find_pairs(pairs_folder), classes).problems
    assert len(problems) == 1
    assert "0.png: 20x18 pixels; its image 0.png has 40x36. The shape is the same: with --fit-masks" in problems[0]
    search = find_pairs(pairs_folder, fit_masks=True)
    check = check_data(search, classes)
    assert check.problems == ()
    assert "1 mask(s) are fitted to the size of their image" in check.notes[0]
    assert check.counts[:2].tolist() == [6 * 36 * 20] * 2
    key, image, labels = next(read_pairs(search.pairs, classes))
    assert (key, image.shape, labels.shape, np.unique(labels[:, :20]).tolist()) == ("0", (36, 40, 3), (36, 40), [0])
    with pytest.raises(DataError, match=r"0\.png: 20x18 pixels; its image"):
        read_pair_labels(find_pairs(pairs_folder).pairs[0], classes, (36, 40))


def test_many_masks_of_another_size_are_one_line(pairs_folder: Path, write_picture: Write) -> None:
    for index in range(6):
        write_picture(pairs_folder / f"masks/{index}.png", (255, 0, 0), (36, 40))
    problems = check_data(find_pairs(pairs_folder, True), read_classes(pairs_folder / "classes.yaml")).problems
    assert len(problems) == 1
    assert "6 masks have another size than their image" in problems[0]
    assert "The shape is another" in problems[0]


# ---- what a whole data set is told


def masked(folder: Path, write_picture: Write, content: Array, name: str = "a.png", **options: Any) -> Path:
    """A data folder of one pair."""
    write_picture(folder / f"images/{Path(name).stem}.png", (9, 9, 9), content.shape[1::-1])
    (folder / "masks").mkdir(exist_ok=True)
    Image.fromarray(content).save(folder / f"masks/{name}", **options)
    return folder


def checked(folder: Path, classes: ClassMap) -> Any:
    return check_data(find_pairs(folder), classes)


def blocks() -> Array:
    """A colour mask of 64 x 64 with squares of red and green."""
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:], picture[8:31, 8:31], picture[35:60, 40:55] = (255, 0, 0), (0, 255, 0), (0, 255, 0)
    return picture


RED_GREEN = ClassMap(("Roof", "Grass"), ((255, 0, 0), (0, 255, 0)), "two")


def test_jpeg_masks_are_named_once(tmp_path: Path, write_picture: Write) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        masked(tmp_path, write_picture, blocks(), name, quality=85)
    check = checked(tmp_path, RED_GREEN)
    assert len([problem for problem in check.problems if "JPEG" in problem]) == 1
    assert len(check.problems) <= 3
    assert "3 mask(s) are saved as JPEG" in check.problems[0]
    assert "Export the masks again, as PNG" in check.problems[0]


def test_jpeg_of_near_numbers_is_refused_though_every_number_is_a_class(tmp_path: Path, write_picture: Write) -> None:
    numbers = np.repeat(np.array([[0, 1, 2, 3]], np.uint8), 16, axis=0).repeat(8, axis=1)
    masked(tmp_path, write_picture, numbers, "a.jpg", quality=95)
    assert any("saved as JPEG" in problem for problem in checked(tmp_path, NAMES).problems)


def test_smoothed_masks_are_named_once(tmp_path: Path, write_picture: Write) -> None:
    angle = np.add.outer(np.arange(200), 2 * np.arange(200)) % 90 < 45  # slanted edges: all shares of both colours
    picture = np.where(angle[..., None], np.uint8([255, 0, 0]), np.uint8([0, 255, 0]))
    smooth = np.asarray(Image.fromarray(picture).resize((170, 170), Image.Resampling.BICUBIC))
    masked(tmp_path, write_picture, smooth)
    unknown = len(read_labels(tmp_path / "masks/a.png", RED_GREEN).unknown)
    assert unknown > 20
    problems = checked(tmp_path, RED_GREEN).problems
    assert len(problems) < 8
    assert "resized with smoothing. Resize them with the nearest pixel" in problems[-1]


@pytest.mark.parametrize("fill", [0, 255])
def test_one_class_alone_is_refused(tmp_path: Path, write_picture: Write, fill: int) -> None:
    content = np.full((8, 8), fill, np.uint8)
    content[:4] = 1
    masked(tmp_path, write_picture, content)
    alone = classes_from({"classes": [{"name": "roof", "value": 1}], "ignore_index": [0]}, "one")
    problems = checked(tmp_path, alone).problems
    assert len(problems) == 1
    assert "roof is the only class in the masks, and everything else is void (32 pixels)" in problems[0]
    assert "background must be a class" in problems[0]


def test_one_scored_class_alone_is_refused(tmp_path: Path, write_picture: Write) -> None:
    masked(tmp_path, write_picture, np.array([[0, 255]], np.uint8))
    two = classes_from([{"name": "roof"}, {"name": "other", "scored": False}], "two")
    assert "roof is the only class" in checked(tmp_path, two).problems[0]


def test_nodata_that_swallows_a_class_is_said(tmp_path: Path, write_picture: Write) -> None:
    write_picture(tmp_path / "images/a.png", (1, 2, 3), (2, 1))
    (tmp_path / "masks").mkdir()
    write_tiff(tmp_path / "masks/a.tif", np.array([[0, 1]], np.uint8), nodata=0)
    problems = checked(tmp_path, classes_from(["a", "b"], "f")).problems
    assert "a (value 0): no mask holds a pixel of this class of f" in problems[0]
    assert "1 pixels of the masks or of their images are nodata, which is void" in problems[0]


@pytest.mark.parametrize(
    ("content", "given"),
    [
        (blocks(), None),
        (blocks(), ClassMap(("Grass", "Ghost"), ((0, 255, 0), (1, 1, 1)), "old")),
        (np.array([[0, 1, 2], [8, 8, 1]], np.uint8), None),
        (np.array([[0, 1, 2], [8, 8, 1]], np.uint8), classes_from({"classes": ["a, b", "b"], "void": [8]}, "old")),
        (np.array([[0, 255]], np.uint8), ClassMap(("x", "y"), ((170, 0, 0), (187, 0, 0)), "f")),
    ],
)  # fmt: skip
def test_the_suggested_file_fits(tmp_path: Path, write_picture: Write, content: Array, given: ClassMap | None) -> None:
    masked(tmp_path, write_picture, content)
    if given is None:
        with pytest.raises(ClassesError) as raised:
            resolve_classes(tmp_path, None, find_pairs(tmp_path).pairs)
        text = str(raised.value)
    else:
        with pytest.raises(DataError) as refused:
            checked(tmp_path, given).raise_problems(tmp_path)
        text = str(refused.value)
    (tmp_path / "classes.yaml").write_text(text[text.index("\nclasses:") :])
    pairs = find_pairs(tmp_path).pairs
    classes, _ = resolve_classes(tmp_path, None, pairs)
    check = checked(tmp_path, classes)
    assert check.problems == ()
    if given is not None:
        assert set(given.names) & set(classes.names)


def test_the_suggested_file_counts_pixels(tmp_path: Path, write_picture: Write) -> None:
    masked(tmp_path, write_picture, np.array([[0, 3, 3, 3]], np.uint8))
    with pytest.raises(ClassesError) as raised:
        resolve_classes(tmp_path, None, find_pairs(tmp_path).pairs)
    assert '  - {name: "class_0", value: 0}  # 1 pixels, 25.0 %' in str(raised.value)
    assert '  - {name: "class_3", value: 3}  # 3 pixels, 75.0 %' in str(raised.value)


def test_the_suggested_file_holds_rare_numbers_too(tmp_path: Path, write_picture: Write) -> None:
    content = np.full((100, 100), 3, np.uint8)
    content[0, 0], content[1] = 0, 1  # one pixel in ten thousand
    masked(tmp_path, write_picture, content)
    problems = checked(tmp_path, VALUES)
    assert '  - {name: "class_0", value: 0}  # 1 pixels, 0.0 %' in problems.suggestion
    assert '  - {name: "roof", value: 1}  # 100 pixels, 1.0 %' in problems.suggestion


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled", "more/unlabeled/deep"])
def test_images_without_labels_lie_beside_the_pairs(pairs_folder: Path, write_picture: Write, name: str) -> None:
    for number in range(3):
        write_picture(pairs_folder / name / f"{number}.png", (1, 2, 3), (40, 36))
    search = find_pairs(pairs_folder)
    pool = pairs_folder / name.removesuffix("/deep")
    assert (len(search.pairs), search.problems, dict(search.unlabeled)) == (6, (), {pool: 3})


def test_a_pair_in_the_unlabelled_folder_is_a_pair(tmp_path: Path, write_picture: Write) -> None:
    write_picture(tmp_path / "images/unlabeled/a.png")
    write_picture(tmp_path / "masks/unlabeled/a.png")
    search = find_pairs(tmp_path)
    assert (len(search.pairs), dict(search.unlabeled)) == (1, {})


def test_scores_do_not_pass_over_unknown_pixels(pairs_folder: Path, write_picture: Write) -> None:
    write_picture(pairs_folder / "masks/0.png", (7, 7, 7), (40, 36))
    pair = Pair("0", pairs_folder / "images/0.png", pairs_folder / "masks/0.png")
    with pytest.raises(DataError, match=r"0\.png: #070707 \(1,440 pixels\) belongs to no class"):
        next(read_pairs([pair], read_classes(pairs_folder / "classes.yaml")))


def test_large_masks_are_read_in_parts(tmp_path: Path, write_picture: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    colors = np.uint8([[255, 0, 0], [0, 255, 0], [1, 2, 3], [9, 9, 9]])
    picture = colors[rng.integers(0, 4, (37, 23))]
    numbers = rng.integers(0, 5, (37, 23)).astype(np.uint8)
    write_picture(tmp_path / "colors.png", picture)
    write_picture(tmp_path / "numbers.png", numbers)
    write_tiff(tmp_path / "wide.tif", numbers.astype(np.int32) * 70_000)
    paths = [(tmp_path / "colors.png", RED_GREEN), (tmp_path / "numbers.png", NAMES), (tmp_path / "wide.tif", NAMES)]
    whole = [read_labels(path, classes) for path, classes in paths]
    monkeypatch.setattr(masks, "_STRIPE_PIXELS", 50)  # two rows at a time
    for (path, classes), expected in zip(paths, whole, strict=True):
        found = read_labels(path, classes)
        assert (found.labels == expected.labels).all() and found.unknown == expected.unknown
    assert whole[0].unknown == {
        "#010203": int((picture == [1, 2, 3]).all(axis=2).sum()), "#090909": int((picture == 9).all(axis=2).sum())
    }  # fmt: skip


def test_an_image_that_is_taken_for_a_mask_is_counted_in_bounded_memory(
    tmp_path: Path, write_picture: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_KINDS", 10)
    monkeypatch.setattr(masks, "_STRIPE_PIXELS", 50)
    write_picture(tmp_path / "a.png", np.random.default_rng(3).integers(0, 256, (40, 30, 3)).astype(np.uint8))
    reading = read_labels(tmp_path / "a.png", RED_GREEN)
    assert len(reading.unknown) == 11 and sum(reading.unknown.values()) == 1200
    assert reading.unknown[masks.OTHERS] > 1000 and (reading.labels == 255).all()


LOSSY: dict[str, tuple[str, dict[str, Any], bool]] = {
    "WebP as Pillow writes it": ("a.webp", {}, True),
    "WebP without loss": ("a.webp", {"lossless": True}, False),
    "JPEG 2000 with the wavelet that loses": ("a.jp2", {"irreversible": True}, True),
    "JPEG 2000 with bits left out": ("a.jp2", {"quality_mode": "rates", "quality_layers": [20]}, True),
    "JPEG 2000 as Pillow writes it": ("a.jp2", {}, True),  # it looks like the one before
    "TIFF with LERC that loses": ("a.tif", {"compress": "LERC", "MAX_Z_ERROR": 1}, True),
    "TIFF with LERC": ("a.tif", {"compress": "LERC"}, False),
    "TIFF with JPEG": ("a.tif", {"compress": "JPEG"}, True),
    "TIFF with deflate": ("a.tif", {"compress": "DEFLATE"}, False),
    "PNG": ("a.png", {}, False),
}


@pytest.mark.parametrize("case", LOSSY)
def test_near_numbers_of_a_lossy_mask_are_refused(case: str, tmp_path: Path, write_picture: Write) -> None:
    name, options, is_lossy = LOSSY[case]
    numbers = np.random.default_rng(0).integers(0, 4, (64, 64)).astype(np.uint8)
    write_picture(tmp_path / "images/a.png", (9, 9, 9), (64, 64))
    (tmp_path / "masks").mkdir()
    path = tmp_path / "masks" / name
    if path.suffix == ".tif":
        write_tiff(path, numbers, **options)
    else:
        Image.fromarray(numbers).save(path, **options)
    check = checked(tmp_path, NAMES)
    assert any("saved as JPEG, or in another way" in problem for problem in check.problems) == is_lossy
    if not is_lossy:
        assert read_labels(path, NAMES).labels.tolist() == numbers.tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_mask_in_tiff_is_turned_as_viewers_turn_it(tmp_path: Path, orientation: int, mode: str) -> None:
    numbers = np.random.default_rng(1).integers(0, 2, (30, 20)).astype(np.uint8)
    stored = Image.fromarray(255 * numbers).convert(mode)
    stored.save(tmp_path / "a.tif", tiffinfo={274: orientation})
    # Worked out by hand: the tag says where row 0 and column 0 of what is stored belong.
    upright = {
        1: numbers, 2: numbers[:, ::-1], 3: numbers[::-1, ::-1], 4: numbers[::-1],
        5: numbers.T, 6: numbers.T[:, ::-1], 7: numbers.T[::-1, ::-1], 8: numbers.T[::-1],
    }[orientation]  # fmt: skip
    assert read_labels(tmp_path / "a.tif", GREY).labels.tolist() == upright.tolist()
