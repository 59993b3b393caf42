"""`skystill predict`: sub-folders, masks, and results that would overwrite an input or each other."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from skystill import api
from skystill.errors import DataError, SettingsError
from skystill.predict import Predictor
from skystill.progress import Event, Note
from skystill.raster.overwriting import source_files
from skystill.settings import RasterSettings
from tests.channel_model import INFO, write_model

Write = Callable[..., Path]
RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a model file: the class of a pixel is its brightest band."""
    write_model(tmp_path / "m.onnx", replace(INFO, tile_size=96, overlap=16).to_metadata())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*inputs: object, **settings: object) -> tuple[list[str], list[str]]:
    """Predict, and return the class rasters and the notes."""
    events: list[Event] = []
    settings = {"model": Path("m.onnx"), "threads": 1, **settings}
    done = api.predict(inputs=[str(name) for name in inputs], on_progress=events.append, **settings)
    return [str(one.prediction.path) for one in done], [event.text for event in events if isinstance(event, Note)]


def raster(path: Path, color: tuple[int, int, int] = RED, **options: object) -> Path:
    """A GeoTIFF of one colour, 8 x 6 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": "EPSG:32640", "transform": from_origin(300_000, 2_800_000, 0.5, 0.5), **options}
    with rasterio.open(path, "w", driver="GTiff", height=6, width=8, count=3, dtype="uint8", **place) as file:
        file.write(np.broadcast_to(np.array(color, np.uint8)[:, None, None], (3, 6, 8)))
    return path


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and inode of every file, and every folder and link, so that any change is seen."""
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else b"", path.lstat().st_ino)
        for path in folder.rglob("*")
    }


def label(path: str | Path) -> list[int]:
    with Image.open(path) as picture:
        return [int(value) for value in np.unique(np.asarray(picture))]


# ---- sub-folders and masks


@pytest.fixture
def photos(here: Path, write_picture: Write) -> Path:
    for name, color in (("a.jpg", RED), ("north/a.jpg", GREEN), ("north/deep/B.PNG", BLUE), (".thumbnails/a.jpg", RED)):
        write_picture(here / "photos" / name, color)
    return here / "photos"


def test_subfolders_are_mentioned_without_recursive(photos: Path) -> None:
    done, notes = predict("photos", out=Path("out"))
    assert done == ["out/a.png"]
    assert notes == ["photos: 1 sub-folder was not predicted; --recursive predicts the images there."]


def test_results_of_recursive_keep_the_subfolders(photos: Path) -> None:
    done, notes = predict("photos", out=Path("out"), recursive=True)
    assert (done, notes) == (["out/a.png", "out/north/a.png", "out/north/deep/B.png"], [])
    assert [label(path) for path in done] == [[0], [1], [2]]
    assert sorted(str(p) for p in Path("out").rglob("*") if p.is_file() and p.suffix != ".qml") == sorted(done)


def test_recursive_results_go_on_where_they_were_stopped(photos: Path) -> None:
    first, _ = predict("photos", out=Path("out"), recursive=True)
    again, _ = predict("photos", out=Path("out"), recursive=True, resume=True)
    assert again == first


def test_patterns_with_recursive_keep_the_subfolders_too(photos: Path, write_picture: Write) -> None:
    write_picture(photos / "south/a.jpg", BLUE)
    assert predict("photos/**/*.jpg", out=Path("p"), recursive=True)[0] == ["p/a.png", "p/north/a.png", "p/south/a.png"]
    done, _ = predict("photos/*th", out=Path("q"), recursive=True)
    assert done == ["q/north/a.png", "q/north/deep/B.png", "q/south/a.png"]
    with pytest.raises(SettingsError, match=r"several inputs would be written to a\.png"):
        predict("photos/*th", out=Path("r"))
    assert not Path("r").exists()


def test_two_folders_with_the_same_subfolders_are_refused(photos: Path, write_picture: Write) -> None:
    write_picture(Path("more/north/a.jpg"), RED)
    with pytest.raises(SettingsError, match=r"several inputs would be written to north/a\.png"):
        predict("photos", "more", out=Path("out"), recursive=True)
    assert not Path("out").exists()


def test_recursive_that_does_nothing_is_refused(photos: Path) -> None:
    with pytest.raises(SettingsError, match="--recursive is for folders, patterns and lists"):
        predict("photos/a.jpg", out=Path("out"), recursive=True)


def test_a_data_folder_gives_its_images_and_not_its_masks(here: Path, write_picture: Write) -> None:
    for name in ("data/images/a.jpg", "data/masks/a.png", "data/images/b_mask.jpg"):
        write_picture(here / name, GREEN)
    with pytest.raises(DataError, match=r"data: no images there(?s:.)*1 sub-folder was not predicted; --recursive"):
        predict("data", out=Path("out"))
    done, notes = predict("data", out=Path("out"), recursive=True)
    assert done == ["out/images/a.png"]
    assert notes == ["data: 2 masks were not predicted, by the words for masks in folders and file names."]
    assert predict("data/masks", out=Path("named"))[0] == ["named/a.png"]  # given by the user
    assert predict("data/images/b_mask.jpg", out=Path("named"))[0] == ["named/b_mask.png"]


def test_one_file_under_two_spellings_is_predicted_once(photos: Path) -> None:
    assert predict("photos/a.jpg", "./photos/../photos/a.jpg", photos / "a.jpg", out=Path("o"))[0] == ["o/a.png"]


# ---- no output is an input


@pytest.fixture
def taken(here: Path, write_picture: Write) -> Path:
    """Pictures and rasters whose names are those of results."""
    for name in ("photos/a.png", "photos/b.jpg", "photos/sub/c.png", "classes/a.png", "x/a-overlay.png", "y/a.jpg"):
        write_picture(here / name, GREEN)
    for name in ("geo/a.tif", "geo/a-confidence.tif", "geo/parts/p.tif", "geo/t.tiff"):
        raster(here / name)
    rasterio.shutil.copy(here / "geo/parts/p.tif", here / "geo/all.vrt", driver="VRT")
    inner = Path("geo/all.vrt").read_text()
    assert ">parts/p.tif<" in inner
    Path("geo/outer.vrt").write_text(inner.replace("parts/p.tif", "all.vrt"))
    Path("links").symlink_to("photos")
    Path("elsewhere").mkdir()
    Path("elsewhere/b.png").symlink_to("../photos/b.jpg")
    Path("hard").mkdir()
    os.link("photos/b.jpg", "hard/b.png")
    Path("model").mkdir()
    Path("model/b.png").symlink_to("../m.onnx")
    return here


SAME_FOLDER, INPUT, TWICE = "--out .* the folder", r"is (an input|the same file as the input)", "would be written twice"


@pytest.mark.parametrize(
    ("inputs", "settings", "says"),
    [
        (["photos"], {"out": "photos"}, "--out photos is the folder photos, whose images are predicted"),
        (["photos"], {"out": "./photos/../photos/"}, SAME_FOLDER),
        (["photos"], {"out": "links"}, SAME_FOLDER),
        (["links"], {"out": "photos"}, SAME_FOLDER),
        (["classes"], {}, "--out classes is the folder classes"),
        (["photos"], {"out": "photos/sub", "recursive": True}, "--out photos/sub lies in the folder photos, whose"),
        (["photos"], {"out": "photos/new", "recursive": True}, "--out photos/new lies in the folder photos"),
        (["."], {"recursive": True}, "--out classes lies in the folder"),
        (["photos/a.png"], {"out": "photos/a.png"}, r"photos/a.png \(class raster of photos/a.png\) is an input"),
        (["photos/a.png"], {"out": "links/a.png"}, "is the same file as the input photos/a.png"),
        (["photos/a.png"], {"out": "photos"}, INPUT),
        (["photos/*.png"], {"out": "photos"}, INPUT),
        (["photos/b.jpg"], {"out": "elsewhere"}, "is the same file as the input photos/b.jpg"),
        (["photos/b.jpg"], {"out": "elsewhere/b.png"}, "is the same file as the input photos/b.jpg"),
        (["photos/b.jpg"], {"out": "hard"}, "is the same file as the input photos/b.jpg"),
        (["photos/b.jpg"], {"out": "model"}, "is the same file as the input m.onnx"),
        (["geo/t.tiff"], {"out": "geo/t.tiff"}, INPUT),
        (["geo/all.vrt"], {"out": "geo/parts/p.tif"}, INPUT),  # the raster that the VRT shows
        (["geo/outer.vrt"], {"out": "geo/parts/p.tif"}, INPUT),  # a VRT of a VRT
        # files beside the class raster
        (["geo/a.tif", "geo/a-confidence.tif"], {"out": "geo2", "confidence": True}, TWICE),
        (["y/a.jpg", "geo/a-confidence.tif"], {"out": "geo", "confidence": True}, INPUT),
        (["y/a.jpg", "x/a-overlay.png"], {"out": "x", "overlay": True}, INPUT),
        (["y/a.jpg", "x/a-overlay.png"], {"out": "z", "overlay": True}, TWICE),
    ],
)  # fmt: skip
def test_a_result_that_would_overwrite_is_refused_and_nothing_changes(
    taken: Path, inputs: list[str], settings: dict[str, object], says: str
) -> None:
    before = content(taken)
    with pytest.raises(SettingsError, match=says) as raised:
        predict(*inputs, **settings)
    assert raised.value.exit_code == 2
    assert content(taken) == before


@pytest.mark.parametrize("suffix", ["gpkg", "geojson"])
def test_polygons_and_areas_are_compared_too(taken: Path, suffix: str) -> None:
    """GDAL opens a link of any name: here the results' names are taken by links to the inputs."""
    for name in (f"out/a.{suffix}", "areas/a-areas.csv", "probabilities/a-probabilities.tif", "names/a.tif.aux.xml"):
        Path(name).parent.mkdir()
        Path(name).symlink_to("../geo/a.tif")
    before = content(taken)
    pytest.importorskip("shapely")
    for settings in (
        {"out": Path("out"), "vector": suffix},
        {"out": Path("areas"), "areas": True},
        {"out": Path("probabilities"), "probabilities": True},
        {"out": Path("names")},
    ):
        with pytest.raises(SettingsError, match=r"is the same file as the input geo/a\.tif"):
            predict("geo/a.tif", **settings)
    assert content(taken) == before
    assert predict("geo/a.tif", out=Path("areas"))[0] == ["areas/a.tif"]  # without --areas nothing is in the way


def test_the_unfinished_work_holds_no_input(taken: Path) -> None:
    """The folder of unfinished work is deleted at the end."""
    source = raster(taken / "geo/.unfinished-r.tif/in.tif")
    before = content(taken)
    with pytest.raises(SettingsError, match=r"\(unfinished work of .*\) holds the input .*in\.tif"):
        predict(source, out=Path("geo/r.tif"))
    assert content(taken) == before


@pytest.mark.parametrize("target", ["photos/a.png", "links/a.png", "new.png"])
def test_predictor_refuses_to_write_over_its_source(taken: Path, target: str) -> None:
    os.link("photos/a.png", "new.png")
    predictor = Predictor("m.onnx", threads=1)
    before = content(taken)
    with pytest.raises(SettingsError, match=INPUT):
        predictor.predict("photos/a.png", target)
    with pytest.raises(SettingsError, match=INPUT):
        predictor.predict(Path("geo/a-confidence.tif"), "geo/a.tif", RasterSettings(confidence=True))
    assert content(taken) == before


def test_what_overwrites_no_input_is_written(taken: Path) -> None:
    assert predict("photos/b.jpg", out=Path("photos"))[0] == ["photos/b.png"]  # beside its input
    assert predict("photos/*.jpg", out=Path("photos"))[0] == ["photos/b.png"]  # again: earlier results are replaced
    done, notes = predict("classes", out=Path("classes/again"))  # a sub-folder that is not searched
    assert (done, notes) == (["classes/again/a.png"], [])
    done, notes = predict("classes", out=Path("classes/again"))  # and its earlier results are no sub-folder to mention
    assert (done, notes) == (["classes/again/a.png"], [])


def test_all_files_of_a_source(taken: Path) -> None:
    assert {path.name for path in source_files("geo/outer.vrt")} == {"outer.vrt", "all.vrt", "p.tif"}
    Path("geo/a.tif.aux.xml").write_text("<PAMDataset/>")
    assert {path.name for path in source_files("geo/a.tif")} == {"a.tif", "a.tif.aux.xml"}
    assert source_files("nowhere.tif") == [Path("nowhere.tif")]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes")
def test_names_that_are_no_text_are_refused_and_the_rest_is_predicted(here: Path, write_picture: Write) -> None:
    write_picture(here / "in/good.png", RED, (20, 10))
    odd = Path(os.fsdecode(bytes(here / "in") + b"/\xff\xfe.png"))
    odd.hardlink_to(here / "in/good.png")
    with pytest.raises(SettingsError, match=r"no text in UTF-8\. Rename the input"):
        predict("in", out=Path("out"))
    assert (here / "out/good.png").exists()
    with pytest.raises(SettingsError, match="or choose another --out"):
        predict("in/good.png", out=Path(os.fsdecode(b"\xff.tif")))
