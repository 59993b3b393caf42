"""One way to list files: what is an image, what is a mask, what is passed over, and which links are followed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from skystill.data import find_pairs
from skystill.data.unlabeled import find_unlabeled
from skystill.errors import DataError
from skystill.predict.inputs import find_inputs
from skystill.raster.listing import IMAGE_SUFFIXES, list_images, match_images
from skystill.settings import PredictSettings

Write = Callable[..., Path]


def made(root: Path, *names: str) -> Path:
    """Empty files: listing does not open them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(root: Path, paths: tuple[Path, ...]) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_suffixes_count_in_upper_and_lower_case(tmp_path: Path, suffix: str) -> None:
    made(tmp_path, f"a{suffix}", f"b{suffix.upper()}", f"c{suffix.title()}", f"d{suffix}.aux.xml", f"e{suffix}.txt")
    assert names(tmp_path, list_images(tmp_path).images) == [f"a{suffix}", f"b{suffix.upper()}", f"c{suffix.title()}"]


@pytest.mark.parametrize(
    "hidden",
    [
        "._a.jpg", ".a.jpg", ".ipynb_checkpoints/a-checkpoint.png", ".thumbnails/a.png", ".git/a.png", "b/._a.jpg",
        "b/.thumbnails/deep/er/a.png", "__MACOSX/a.jpg", "b/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        ".unfinished-a.png/classes.tif", ".part-77-a.png",
    ],
)  # fmt: skip
def test_hidden_files_and_folders_are_passed_over_everywhere(tmp_path: Path, write_picture: Write, hidden: str) -> None:
    root = tmp_path / "data"
    for name in ("images/a.png", "masks/a.png", f"images/{hidden}", hidden):
        write_picture(root / name)
    search = find_pairs(root)
    assert (search.problems, [pair.image for pair in search.pairs]) == ((), [root / "images/a.png"])
    assert [window.path for window in find_unlabeled([root], [])] == [root / "images/a.png"]
    found = find_inputs(PredictSettings(inputs=[str(root)], recursive=True, out=tmp_path / "out"))
    assert list(found.sources) == [str(root / "images/a.png")]
    flat = find_inputs(PredictSettings(inputs=[f"{root}/images"], out=tmp_path / "out"))
    assert list(flat.sources) == [str(root / "images/a.png")]


def test_a_folder_below_a_hidden_one_is_listed_if_it_is_given(tmp_path: Path) -> None:
    root = made(tmp_path / ".cache/data", "a.jpg", ".b.jpg")
    assert names(root, list_images(root).images) == ["a.jpg"]
    assert match_images(f"{root}/*")[0].images == (root / "a.jpg",)


MASKS = [
    *(f"{folder}/c.png" for folder in ("masks", "Mask", "labels", "LABEL", "annotations", "gt", "gt/deep", "x/gt")),
    *(f"c{ending}.png" for ending in ("_mask", "_masks", "-label", "_labels", ".gt", " mask", "_GT")),
]


@pytest.mark.parametrize("mask", MASKS)
def test_the_same_words_mean_mask_everywhere(tmp_path: Path, write_picture: Write, mask: str) -> None:
    root = tmp_path / "labels"  # a word above the folder that is given does not count
    for name in ("images/c.png", "other.png", mask):
        write_picture(root / name)
    images = [root / "images/c.png", root / "other.png"]
    problems = "\n".join(find_pairs_or_problems(root))
    assert f"{root / mask}: no mask" not in problems and f"{root / 'other.png'}: no mask" in problems
    assert sorted(window.path for window in find_unlabeled([root], [])) == images
    found = find_inputs(PredictSettings(inputs=[str(root)], recursive=True, out=tmp_path / "out"))
    assert sorted(map(Path, found.sources)) == images
    assert found.notes == (f"{root}: 1 mask was not predicted, by the words for masks in folders and file names.",)


def find_pairs_or_problems(root: Path) -> tuple[str, ...]:
    """The problems, also where no mask fits an image."""
    try:
        return find_pairs(root).problems
    except DataError as error:
        return tuple(error.problems)


def test_linked_folders_are_followed(tmp_path: Path, write_picture: Write) -> None:
    for name in ("store/photos/deep/a.png", "store/truth/deep/a.png"):
        write_picture(tmp_path / name)
    root = tmp_path / "data"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "store/photos")
    (root / "masks").symlink_to("../store/truth")
    search = find_pairs(root)
    assert search.problems == ()
    assert [(p.key, p.image, p.mask) for p in search.pairs] == [
        ("deep/a", root / "images/deep/a.png", root / "masks/deep/a.png")
    ]
    assert [window.path for window in find_unlabeled([root], [])] == [root / "images/deep/a.png"]
    found = find_inputs(PredictSettings(inputs=[str(root)], recursive=True, out=tmp_path / "out"))
    assert found.sources == {str(root / "images/deep/a.png"): Path("images/deep")}
    assert match_images(f"{root}/**/*.png")[0].images == (root / "images/deep/a.png",)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("links", [["up"], ["up", "up2", "up3"]])
def test_links_that_lead_back_end(tmp_path: Path, links: list[str]) -> None:
    """With three links the number of paths grows threefold with each level: only a walk that knows loops ends."""
    root = made(tmp_path / "r", "a.jpg", "sub/b.jpg", "other/c.jpg")
    for link in links:
        (root / "sub" / link).symlink_to(root)
    (root / "sub/self").symlink_to(".")
    (root / "sub/other").symlink_to("../other")
    (root / "other/sub").symlink_to("../sub")
    expected = [
        "a.jpg", "other/c.jpg", "other/sub/b.jpg", "sub/b.jpg", "sub/other/c.jpg",
    ]  # fmt: skip
    assert names(root, list_images(root).images) == expected
    assert names(root, match_images(f"{root}/**")[0].images) == expected
    assert names(root, match_images(f"{root}/**/*.jpg")[0].images) == expected


def test_a_file_that_is_linked_twice_teaches_once(tmp_path: Path, write_picture: Write) -> None:
    image = write_picture(tmp_path / "r/2024/a.png")
    (tmp_path / "r/latest").symlink_to("2024")
    assert [window.path for window in find_unlabeled([tmp_path / "r"], [])] == [image]


def test_a_link_to_an_image_that_is_gone_is_named(tmp_path: Path, write_picture: Write) -> None:
    write_picture(tmp_path / "r/a.png")
    (tmp_path / "r/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "r/round.jpg").symlink_to("round.jpg")
    assert names(tmp_path / "r", list_images(tmp_path / "r").images) == ["a.png", "gone.jpg", "round.jpg"]
    with pytest.raises(DataError, match=r"2 of 3 file\(s\) cannot teach(?s:.)*gone\.jpg(?s:.)*round\.jpg"):
        find_unlabeled([tmp_path / "r"], [])


def test_a_folder_that_cannot_be_opened_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "a.jpg", "closed/b.jpg")
    scandir = os.scandir

    def refuse(folder: Path) -> object:  # chmod does not stop root, who runs tests in containers
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"closed cannot be listed: Permission denied"):
        list_images(tmp_path)


TREE = (
    "a.jpg", "B.JPG", "c.tif", "c.tif.aux.xml", "d.img", "a_mask.jpg", ".h.jpg", "sub/e.jpg", "sub/deep/f.jpg",
    "masks/g.jpg", "x[1]/i.jpg", "notes.txt",
)  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "images", "masks", "folders"),
    [
        ("*.jpg", ["B.JPG", "a.jpg"], ["a_mask.jpg"], []),  # in either case
        ("*.JPG", ["B.JPG", "a.jpg"], ["a_mask.jpg"], []),
        ("*.img", ["d.img"], [], []),  # a suffix that is named may be any
        ("[ac].*", ["a.jpg", "c.tif"], [], []),  # c.tif.aux.xml is no image
        ("?.tif", ["c.tif"], [], []),
        ("*", ["B.JPG", "a.jpg", "c.tif"], ["a_mask.jpg"], ["masks", "sub", "x[1]"]),
        ("*/*.jpg", ["sub/e.jpg", "x[1]/i.jpg"], ["masks/g.jpg"], []),
        ("sub/*", ["sub/e.jpg"], [], ["sub/deep"]),
        ("**/?.jpg", ["B.JPG", "a.jpg", "sub/deep/f.jpg", "sub/e.jpg", "x[1]/i.jpg"], ["masks/g.jpg"], []),
        ("**/deep/*.jpg", ["sub/deep/f.jpg"], [], []),
        ("sub/**", ["sub/deep/f.jpg", "sub/e.jpg"], [], []),
        ("x[1]/*.jpg", ["x[1]/i.jpg"], [], []),  # the folder is there, so its brackets are no pattern
        ("masks/*.jpg", ["masks/g.jpg"], [], []),  # named on purpose
        ("*.gif", [], [], []),
        ("nowhere/*.jpg", [], [], []),
    ],
)  # fmt: skip
def test_patterns(tmp_path: Path, pattern: str, images: list[str], masks: list[str], folders: list[str]) -> None:
    made(tmp_path, *TREE)
    found, _ = match_images(f"{tmp_path}/{pattern}")
    assert [names(tmp_path, part) for part in (found.images, found.masks, found.folders)] == [images, masks, folders]


def test_a_relative_pattern_and_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, *TREE)
    monkeypatch.chdir(tmp_path)
    assert match_images("s*/*.jpg")[0].images == (Path("sub/e.jpg"),)
    assert list_images(Path(), recursive=False).images == (Path("B.JPG"), Path("a.jpg"), Path("c.tif"))
