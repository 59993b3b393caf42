"""Folders of images in the page: dropped or chosen, and all results saved at once."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from skystill.predict import Predictor
from skystill.predict.web.check import served
from skystill.raster.listing import list_images
from tests.web.browser import Browser
from tests.web.images import UTM, encoded, scene, write_tiff

pytestmark = pytest.mark.slow

IMAGES = (
    "a.png",
    "photos_gt/c.PNG",
    "sub/10.png",
    "sub/9.png",
    "sub/a.jpg",
    "sub/deep/d.tif",
    "sub/a.png",
    "sub/labels.png",
)
PASSED = {
    "mask": ("a_mask.png", "masks/a.png", "sub/GT/x.jpg", "sub/b-labels.tif", "sub/b.gt.png", "sub/my labels.png"),
    "other file": ("notes.txt", "sub/jpg", "sub/a.jpg.aux.xml", "world.tfw"),
    "hidden file": (".a.png", "sub/.thumbs/1.jpg", "@eaDir/a.png", "__MACOSX/sub/._a.png"),
}
SAID = "images: 8 images; passed over: 6 masks, 4 other files, 4 hidden files."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and what is none, in a folder whose own name does not count."""
    folder = tmp_path_factory.mktemp("given") / "images"
    contents = {name: encoded(Image.fromarray(scene(40, 50).transpose(1, 2, 0)), "PNG") for name in IMAGES}
    for name, content in {**contents, **{name: b"other" for names in PASSED.values() for name in names}}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_tiff(folder / "sub/deep/d.tif", scene(70, 90), photometric="rgb", **UTM)
    return folder


def drop(browser: Browser, *paths: Path) -> None:
    browser.run("document.documentElement.dataset.state = 'chosen'")
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.call("Input.dispatchDragEvent", type=kind, x=100, y=100, data=data)


def finish(browser: Browser, count: int) -> list[list[str]]:
    """Wait until as many images are labelled or refused, and return the name and the state of each."""
    browser.run(f"""new Promise((done) => {{
        const look = () => (busy || entries.length < {count} ? setTimeout(look, 20) : done());
        look();
    }})""")
    found: list[list[str]] = browser.run("entries.map((entry) => [entry.name, entry.state])")
    return found


def wanted(folder: Path) -> list[str]:
    """The images as `skystill predict --recursive` takes them."""
    return [f"{folder.name}/{path.relative_to(folder).as_posix()}" for path in list_images(folder).images]


def test_folders_and_files_that_are_dropped(
    browser: Browser, pages: dict[str, Path], folder: Path, tmp_path: Path
) -> None:
    mask, empty = tmp_path / "single_mask.png", tmp_path / "empty"
    mask.write_bytes((folder / "a.png").read_bytes())  # named as a mask, and given by itself
    empty.mkdir()
    names = [*wanted(folder), mask.name]
    assert sorted(names) == sorted([*(f"images/{name}" for name in IMAGES), mask.name])
    with served(pages["channel"].parent, {}) as address:
        for page in (pages["channel"], f"{address}channel.html"):
            browser.open(page)
            if page != pages["channel"]:  # as in a browser without handles
                browser.run("delete DataTransferItem.prototype.getAsFileSystemHandle")
            drop(browser, folder, empty, mask)
            assert finish(browser, len(names)) == [[name, "done"] for name in names]
            said = browser.run("$('listed').textContent")
            assert said == f"{SAID} empty: no JPEG, PNG, WebP or TIFF."
            listed = browser.run("[...$('files').children].map((item) => item.textContent)")
            assert listed == names


def test_a_folder_that_is_chosen_is_saved_at_once(
    browser: Browser, models: dict[str, Path], pages: dict[str, Path], folder: Path, tmp_path: Path
) -> None:
    browser.open(pages["channel"])
    assert browser.run("$('save-all').hidden")
    given = browser.call("Runtime.evaluate", expression="document.getElementById('folder')")["result"]["objectId"]
    browser.call("DOM.setFileInputFiles", files=[str(folder)], objectId=given)
    names = wanted(folder)
    assert finish(browser, len(names)) == [[name, "done"] for name in names]
    assert browser.run("$('listed').textContent") == SAID
    browser.run("$('files').children[1].firstChild.click()")
    assert browser.run("current.name") == names[1]
    assert browser.save("save-png", f"{names[1].replace('/', '-')[:-4]}-classes.png").is_file()
    with zipfile.ZipFile(browser.save("save-all", "class-maps.zip")) as saved:
        assert saved.testzip() is None
        bases = [name.rpartition(".")[0] for name in names]
        bases[names.index("images/sub/a.png")] = "images/sub/a.png"  # beside a.jpg
        assert saved.namelist() == [f"{base}{end}" for base in bases for end in ("-classes.tif", "-areas.csv")]
        for name, base in zip(names, bases, strict=True):
            target = tmp_path / "wanted.tif"
            Predictor(models["channel"]).predict(folder.parent / name, target)
            with rasterio.open(io.BytesIO(saved.read(f"{base}-classes.tif"))) as own, rasterio.open(target) as other:
                assert np.array_equal(own.read(1), other.read(1)), name
                assert (own.crs, own.transform) == (other.crs, other.transform)
                pixels = own.width * own.height
            areas = list(csv.DictReader(saved.read(f"{base}-areas.csv").decode().splitlines()))
            assert sum(int(row["pixels"]) for row in areas) == pixels


def test_more_images_than_there_is_memory_for(browser: Browser, pages: dict[str, Path], folder: Path) -> None:
    browser.open(pages["channel"])
    browser.run("LIMITS.results = 2000; 1")  # pixels; each image but one has as many
    paths = [folder / name for name in ("a.png", "sub/9.png", "sub/10.png")]
    browser.choose(*paths)
    states = [state for _, state in finish(browser, 3)]
    assert states[:2] == ["done", "done"]
    assert states[2].startswith("together with the images before it, it has more than the 0 megapixels")


def test_a_folder_that_cannot_be_listed_is_told(browser: Browser, pages: dict[str, Path], folder: Path) -> None:
    browser.open(pages["channel"])
    browser.run(
        """DataTransferItem.prototype.getAsFileSystemHandle = () => Promise.reject(new Error("not allowed")); 1"""
    )
    drop(browser, folder)
    browser.run("""new Promise((done) => {
        const look = () => ($("listed").textContent ? done() : setTimeout(look, 20));
        look();
    })""")
    assert browser.run("$('listed').textContent").startswith("The folder cannot be listed (not allowed). Press")
    assert browser.run("entries.length") == 0
