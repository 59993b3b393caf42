"""What `--unlabeled` and `--images` may name, and that each image counts once."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image

from skystill.data import Pair
from skystill.data.image_files import find_image_files, without_repeats
from skystill.data.unlabeled import find_unlabeled
from skystill.errors import DataError, RunFolderError
from skystill.progress import Event, Note
from skystill.run_folder import RunFolder
from skystill.settings import DistillSettings, PretrainSettings


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three scenes of two years, one mask, and a text file."""
    for seed, name in enumerate(("2023/a.png", "2023/b.tif", "2024/c.TIF", "2024/masks/c.png")):
        save(tmp_path / name, seed)
    (tmp_path / "2024/notes.txt").write_text("sunny")
    return tmp_path


SOURCES = {
    "a folder": (["."], ["2023/a.png", "2023/b.tif", "2024/c.TIF"]),
    "two folders": (["2024", "2023"], ["2024/c.TIF", "2023/a.png", "2023/b.tif"]),
    "a file": (["2023/b.tif"], ["2023/b.tif"]),
    "a file that is called a mask": (["2024/masks/c.png"], ["2024/masks/c.png"]),
    "a pattern, suffixes in upper and lower case": (["*/*.tif"], ["2023/b.tif", "2024/c.TIF"]),
    "a pattern of folders": (["202?"], ["2023/a.png", "2023/b.tif", "2024/c.TIF"]),
    "a pattern of any depth": (["**/*.png"], ["2023/a.png"]),
    "the same twice": (["2023/a.png", "2023/a.png"], ["2023/a.png"]),
    "a folder and a file of it": (["2023", "2023/b.tif"], ["2023/a.png", "2023/b.tif"]),
    "a file, and its folder by another path": (["2023/b.tif", "2024/../2023"], ["2023/b.tif", "2024/../2023/a.png"]),
    "a folder and a pattern of everything": (["2024", "**/*"], ["2024/c.TIF", "2023/a.png", "2023/b.tif"]),
}


@pytest.mark.parametrize("case", list(SOURCES))
def test_sources(root: Path, case: str) -> None:
    given, expected = SOURCES[case]
    said: list[Event] = []
    found = find_unlabeled([root / name for name in given], [], on_progress=said.append)
    assert [window.path for window in found] == [root / name for name in expected]
    named = sum(map(len, find_image_files([root / name for name in given])))
    repeated = named - len(expected)
    texts = [event.text for event in said if isinstance(event, Note)]
    assert bool(texts) == bool(repeated)
    assert all(text.startswith(f"{repeated} image(s) without labels are there more than once") for text in texts)


def test_copies_and_links(root: Path) -> None:
    (root / "other").mkdir()
    (root / "other/copy.png").write_bytes((root / "2023/a.png").read_bytes())
    (root / "other/link.tif").symlink_to(root / "2023/b.tif")
    (root / "2023/again.png").write_bytes((root / "2023/a.png").read_bytes())
    save(root / "other/new.png", 9)
    first, second = root / "2023", root / "other"
    # in one source, a copy stays: the bytes of one folder were never compared
    assert len(find_unlabeled([first], [])) == 3
    files, again = without_repeats(find_image_files([first, second]))
    assert files == [first / "a.png", first / "again.png", first / "b.tif", second / "new.png"]
    assert again == [(second / "link.tif", first / "b.tif"), (second / "copy.png", first / "a.png")]
    said: list[Event] = []
    find_unlabeled([first, second], [], on_progress=said.append)
    assert said == [Note(
        f"2 image(s) without labels are there more than once, and count once: {second / 'link.tif'} is "
        f"{first / 'b.tif'}, {second / 'copy.png'} is {first / 'a.png'}."
    )]  # fmt: skip


def test_files_of_one_size_are_compared_by_all_their_bytes(tmp_path: Path) -> None:
    """They have the same first 64 KiB, as rasters with an empty edge do."""
    image = np.zeros((300, 300, 3), np.uint8)
    for number in range(2):
        image[-1, -1] = number
        for folder in ("a", "b"):
            path = tmp_path / folder / f"{number}.tif"
            path.parent.mkdir(exist_ok=True)
            with rasterio.open(path, "w", driver="GTiff", height=300, width=300, count=3, dtype="uint8") as file:
                file.write(image.transpose(2, 0, 1))
    files, again = without_repeats(find_image_files([tmp_path / "a", tmp_path / "b"]))
    assert files == [tmp_path / "a/0.tif", tmp_path / "a/1.tif"]
    assert again == [(tmp_path / f"b/{number}.tif", tmp_path / f"a/{number}.tif") for number in range(2)]


def test_vrts_of_the_same_bytes_are_made_of_different_files(root: Path) -> None:
    for folder, seed in (("x", 20), ("y", 21)):
        save(root / folder / "tile.tif", seed)
        (root / folder / "all.vrt").write_text(
            '<VRTDataset rasterXSize="40" rasterYSize="40">'
            + "".join(
                f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">tile.tif'
                f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
                for band in (1, 2, 3)
            )
            + "</VRTDataset>"
        )
    found = find_unlabeled([root / "x/all.vrt", root / "y/all.vrt"], [])
    assert [window.path.parent.name for window in found] == ["x", "y"]
    assert not np.array_equal(found[0].read()[0], found[1].read()[0])


REFUSED: dict[str, tuple[str, str]] = {
    "nothing there": ("none", "none is not a folder, an image .* or a pattern"),
    "a file that is no image": ("2024/notes.txt", "notes.txt is not a folder, an image"),
    "a pattern without a match": ("*/*.jpg", r"\*/\*\.jpg holds no images"),
    "a pattern of masks": ("2024/**/*.png", r"holds no images"),
    "a pattern of other files": ("*/*.txt", r"1 of 3 file\(s\) cannot teach:\n.*notes.txt"),
    "a name that is too long": ("x" * 300, r"x \.\.\. cannot be opened: File name too long"),
    "a pattern below a name that is too long": ("x" * 300 + "/*", r"cannot be opened: File name too long"),
    "an address": ("s3://bucket/scenes", "is not a folder, an image"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_sources_that_are_refused(root: Path, case: str) -> None:
    source, says = REFUSED[case]
    with pytest.raises(DataError, match=says):
        find_unlabeled([root / "2023", root / source], [])


def other_depth(path: Path) -> None:
    write(path, np.random.default_rng(1).integers(0, 9000, (40, 40, 3)).astype(np.uint16))


def write(path: Path, image: np.ndarray) -> None:
    shape = {"height": image.shape[0], "width": image.shape[1], "count": image.shape[2], "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape) as file:
        file.write(image.transpose(2, 0, 1))


CANNOT_TEACH: dict[str, tuple[Callable[[Path], object], str]] = {
    "16 bits, where the training images have 8": (other_depth, "has more than 8 bits per band, and the training"),
    "floats": (lambda path: write(path, np.linspace(0, 1, 4800, dtype=np.float32).reshape(40, 40, 3)), "more than 8"),
    "two bands": (lambda path: write(path, np.zeros((40, 40, 2), np.uint8)), "has two bands"),
    "cut off": (lambda path: path.write_bytes(b"II*\0"), "cannot be"),
    "no file": (lambda path: path.mkdir() or (path / "x.tif").symlink_to("gone.tif"), "x.tif"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CANNOT_TEACH))
def test_files_that_cannot_teach_are_named(root: Path, case: str) -> None:
    make, says = CANNOT_TEACH[case]
    trained = [Pair("t", save(root / "train/t.png", 30), root / "none.png")]
    assert len(find_unlabeled([root / "2023", root / "2024"], [], trained=trained)) == 3
    make(root / "2024/bad.tif")
    with pytest.raises(DataError, match=rf"(?s)1 of 4 file\(s\) cannot teach:.*bad\.tif.*{re.escape(says)}"):
        find_unlabeled([root / "2023", root / "2024"], [], trained=trained)


def test_images_of_the_depth_of_the_training_images_teach(root: Path) -> None:
    for name in ("2023/deep.tif", "train.tif"):
        other_depth(root / name)
    trained = [Pair("t", root / "train.tif", root / "none.png")]
    assert len(find_unlabeled([root / "2023"], [], trained=trained)) == 3


@pytest.mark.parametrize("source", range(2))
def test_a_scored_image_is_refused_in_every_source(root: Path, source: int) -> None:
    held_out = [Pair("t", save(root / "test/t.png", 30), root / "none.png")]
    folders = [root / "2023", root / "2024"]
    (folders[source] / "copy.png").write_bytes((root / "test/t.png").read_bytes())
    with pytest.raises(DataError, match=r"copy.png is .*t.png, on which the student is scored"):
        find_unlabeled(folders, held_out)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, []),
        ({"unlabeled": None}, []),  # as the config.yaml of earlier versions has it
        ({"unlabeled": "photos"}, ["photos"]),
        ({"unlabeled": Path("photos")}, ["photos"]),
        ({"unlabeled": ["photos", Path("more/*.tif")]}, ["photos", "more/*.tif"]),
    ],
)
def test_one_source_or_several_in_settings(given: dict[str, object], expected: list[str]) -> None:
    settings = DistillSettings(data="d", teacher="t", out="o", **given)
    assert settings.to_config()["unlabeled"] == expected
    assert settings.alpha_at_end == (0.3 if expected else 1.0)
    if expected:
        assert PretrainSettings(teacher="lite0", out="o", images=given["unlabeled"]).to_config()["images"] == expected


@pytest.mark.parametrize(("before", "now"), [("photos", ["photos"]), (None, [])])
def test_runs_of_earlier_versions_go_on(tmp_path: Path, before: str | None, now: list[str]) -> None:
    settings = DistillSettings(data="d", teacher="t", out=tmp_path / "run", unlabeled=now)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text(yaml.safe_dump(settings.to_config() | {"unlabeled": before}))
    run.start(settings.to_config(), resume=True)
    assert run.read_config()["unlabeled"] == now
    with pytest.raises(RunFolderError, match="unlabeled was"):
        run.start(settings.to_config() | {"unlabeled": ["others"]}, resume=True)
