"""The page of `skystill export --format html` in a real browser, opened from a file."""

import csv
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from skystill.api import export
from skystill.classes import DUBAI, ClassMap
from skystill.errors import ModelFileError
from skystill.predict import Predictor
from skystill.predict.summary import write_areas
from skystill.predict.web.browser import find_browser
from skystill.progress import Note
from skystill.raster.band_names import band_name
from skystill.raster.bands import described_bands
from skystill.raster.input_spec import Band, InputSpec
from skystill.settings import RasterSettings
from skystill.tiling import Grid
from tests.banded_model import write_banded
from tests.channel_model import INFO, write_model
from tests.web.browser import Browser
from tests.web.images import UTM, encoded, scene, write_pngs, write_refused, write_tiff, write_tiffs

pytestmark = pytest.mark.slow


def predicted(model: Path, image: Path, folder: Path) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """Labels and profile of what `skystill predict` writes."""
    folder.mkdir(exist_ok=True)
    target = folder / f"predicted-{image.stem}.tif"
    Predictor(model).predict(image, target, RasterSettings(confidence=True))
    with rasterio.open(target) as file:
        return file.read(1), file.profile


def saved(browser: Browser, image: Path, button: str = "save-tif") -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    with rasterio.open(browser.save(button, f"{image.stem}-classes{button[-4:].replace('-', '.')}")) as file:
        assert [file.colormap(1)[i][:3] for i in range(len(DUBAI))] == list(DUBAI.colors) or file.count == 1
        return file.read(1), file.profile


def test_the_page_is_tried_after_it_was_written(
    browser: Browser, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert browser
    monkeypatch.setattr("skystill.predict.web.check.find_browser", find_browser)
    notes: list[object] = []
    out = tmp_path / "page.html"
    export(run=models["values"], with_=models["values"], format="html", out=out, on_progress=notes.append)
    [note] = [one.text for one in notes if isinstance(one, Note)]
    share = r"(100\.000|99\.\d+) %"
    assert re.fullmatch(rf"In \S+ \d+, {share} and {share} of the pixels of a test tile have the class .*", note)
    out.unlink()
    monkeypatch.setattr("skystill.predict.web.check._wanted", lambda *_: np.full((192, 192), 77))
    with pytest.raises(ModelFileError, match=r"0\.00% of the pixels of a test tile .* page is not written"):
        export(run=models["values"], format="html", out=out)
    assert not list(tmp_path.glob("*.html"))


def test_a_photograph_and_a_geotiff_get_the_classes_of_predict(
    browser: Browser, models: dict[str, Path], pages: dict[str, Path], tmp_path: Path
) -> None:
    planes = scene(700, 1250)  # two tiles of the bundled model down and two across
    holes = planes.copy()
    holes[:, 300:420, 500:640] = 0
    Image.fromarray(planes.transpose(1, 2, 0)).save(tmp_path / "photo.png")
    tiff = write_tiff(tmp_path / "map.tif", holes, nodata=0, tiled=True, compress="deflate", photometric="rgb", **UTM)
    browser.requests.clear()
    browser.open(pages["bundled"])
    for image in (tmp_path / "photo.png", tiff):
        assert browser.label(image) == "done", browser.status
        wanted, profile = predicted(models["bundled"], image, tmp_path)
        confidence = browser.run("""[[0, 0], [3, 700], [350, 620], [699, 1249]].map(([row, column]) =>
            [row, column, current.labels.at(row, column).confidence])""")
        with rasterio.open(tmp_path / f"predicted-{image.stem}-confidence.tif") as file:
            written = file.read(1)
        for row, column, own in confidence:
            assert own == pytest.approx(int(written[row, column]), abs=3), (row, column)
        for button in ("save-tif", "save-png"):
            labels, own = saved(browser, image, button)
            assert labels.shape == wanted.shape
            assert len(np.unique(labels)) > 3
            assert (labels == wanted).mean() > 0.999
            assert np.array_equal(labels == 255, wanted == 255)
            assert own["dtype"] == "uint8"
            if button == "save-tif":
                assert [own[key] for key in ("crs", "transform", "nodata")] == [
                    profile[key] for key in ("crs", "transform", "nodata")
                ]
    # Nothing but the page and its own workers was asked for, and the page can ask for nothing.
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "blob"}
    assert browser.requests.count(pages["bundled"].as_uri()) == 1
    assert browser.run("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    refused = """new Promise((told) => {
        addEventListener("securitypolicyviolation", (event) => told(event.effectiveDirective), { once: true });
        new Image().src = "http://127.0.0.1:9/";
    })"""
    assert browser.run(refused) == "img-src"


def test_every_kind_of_file_is_read_as_predict_reads_it(
    browser: Browser, models: dict[str, Path], pages: dict[str, Path], tmp_path: Path
) -> None:
    page = pages["channel"].read_text(encoding="utf-8")
    assert (page.count("const KEPT = 1e8;"), page.count("const CHOPPED = 2 ** 20;")) == (1, 1)
    page = page.replace("const KEPT = 1e8;", "const KEPT = 5e4;")  # so that blocks of these small images are dropped
    (tmp_path / "page.html").write_text(page.replace("const CHOPPED = 2 ** 20;", "const CHOPPED = 2 ** 14;"))
    browser.open(tmp_path / "page.html")
    for name, image in {**write_tiffs(tmp_path), **write_pngs(tmp_path)}.items():
        wanted, profile = predicted(models["channel"], image, tmp_path)
        assert browser.label(image) == "done", (name, browser.status)
        labels, own = saved(browser, image)
        assert np.array_equal(labels, wanted), (name, (labels == wanted).mean())
        for key in ("crs", "transform", "nodata"):
            assert own[key] == profile[key], (name, key)


def test_lossy_files_are_decoded_as_predict_decodes_them(
    browser: Browser, models: dict[str, Path], pages: dict[str, Path], tmp_path: Path
) -> None:
    planes = scene(150, 230)
    whole = Image.fromarray(planes.transpose(1, 2, 0))
    turned = Image.Exif()
    turned[274] = 6
    packed: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "jpeg"}
    images = {
        "photo.jpg": encoded(whole, "JPEG", quality=90, subsampling=0),
        "grey.jpg": encoded(whole.convert("L"), "JPEG", quality=90),
        "progressive.jpg": encoded(whole, "JPEG", quality=90, subsampling=0, progressive=True),
        "sideways.jpg": encoded(whole, "JPEG", quality=90, subsampling=0, exif=turned),
        "picture.webp": encoded(whole, "WEBP", lossless=True),
        # GDAL repeats the colours of files that store fewer of them than pixels; a browser interpolates them.
        "halved.jpg": encoded(whole, "JPEG", quality=90, subsampling=2),
    }
    for name, content in images.items():
        (tmp_path / name).write_bytes(content)
    write_tiff(tmp_path / "packed.tif", planes, photometric="rgb", **packed)
    write_tiff(tmp_path / "halved.tif", planes, photometric="ycbcr", **packed)
    browser.open(pages["channel"])
    for name in (*images, "packed.tif", "halved.tif"):
        assert browser.label(tmp_path / name) == "done", (name, browser.status)
        labels, _ = saved(browser, tmp_path / name)
        wanted, _ = predicted(models["channel"], tmp_path / name, tmp_path)
        assert labels.shape == wanted.shape
        assert (labels == wanted).mean() >= (0.97 if "halved" in name else 1), (name, (labels == wanted).mean())


def test_what_cannot_be_read_rightly_is_refused(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    browser.open(pages["channel"])
    for name, (image, said) in write_refused(tmp_path).items():
        assert browser.label(image) == "refused", (name, browser.status)
        assert name in browser.status
        assert said in browser.status, (name, browser.status)
        assert browser.run("document.getElementById('result').hidden"), name
    (tmp_path / "sound.png").write_bytes(encoded(Image.fromarray(scene(40, 50).transpose(1, 2, 0)), "PNG"))
    assert browser.label(tmp_path / "sound.png") == "done"  # and goes on
    assert browser.label(tmp_path / "circle.tif") == "done"  # and does not look for a mask for ever
    write_tiff(tmp_path / "large.tif", scene(100, 200), photometric="rgb", compress="lzw", blockysize=100)
    for limit, least, said in (
        ("results", 19_999, "large.tif: 200 x 100 pixels are more than the 0 megapixels"),
        ("decoded", 59_999, "large.tif: it is stored in blocks of 1 MB, and this page decodes up to 0 MB at once"),
    ):
        browser.run(f"saved = LIMITS.{limit}; LIMITS.{limit} = {least}; 1")
        assert browser.label(tmp_path / "large.tif") == "refused"
        assert said in browser.status
        browser.run(f"LIMITS.{limit} = saved; 1")


def test_values_of_named_bands(
    browser: Browser, models: dict[str, Path], pages: dict[str, Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    planes = rng.integers(0, 4000, (3, 150, 170)).astype(np.uint16)
    planes[:, 40:60, 30:80] = 65535
    named = {"descriptions": ("B08 (Near Infrared)", "Green", "B04 - red"), "nodata": 65535}
    browser.open(pages["values"])
    for image in (
        write_tiff(tmp_path / "named.tif", planes, compress="deflate", predictor=2, **UTM, **named),
        write_tiff(tmp_path / "placed.tif", planes[:2], nodata=65535, endianness="big", photometric="minisblack"),
    ):
        assert browser.label(image) == "done", browser.status
        labels, _ = saved(browser, image)
        wanted, _ = predicted(models["values"], image, tmp_path)
        assert len(np.unique(wanted)) > 3
        assert (labels == wanted).mean() > 0.999
        assert np.array_equal(labels == 255, wanted == 255)
    for image, said in (
        (write_tiff(tmp_path / "one.tif", planes[:1]), "has no band nir; it has 1 band: unnamed"),
        (write_tiff(tmp_path / "bytes.tif", planes.astype(np.uint8)), "holds uint8, and the network is fed uint16"),
        (write_tiff(tmp_path / "scale.tif", planes // 100 + 20000, **named), "another scale"),
        (write_tiff(tmp_path / "other.tif", planes[:2], descriptions=("red", "swir")), "has no band nir"),
    ):
        assert browser.label(image) == "refused", browser.status
        assert said in browser.status


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_values_of_other_data_types(browser: Browser, models: dict[str, Path], tmp_path: Path, dtype: str) -> None:
    spec = InputSpec(tuple(Band("", number, 100.4, 700, -4000, 4000) for number in (1, 2, 3)), dtype)
    model = write_banded(tmp_path / "model.onnx", spec)
    planes = np.random.default_rng(5).integers(-4000, 4000, (3, 140, 160)).astype(dtype)
    planes[1, 40:60, 30:80] = -9999
    if dtype == "float32":
        planes[0, 100:110, :40] = np.nan
        planes[2, 100:110, 50:60] = np.inf
    image = write_tiff(tmp_path / "map.tif", planes, nodata=-9999, photometric="minisblack", compress="lzw", **UTM)
    browser.open(export(run=model, format="html", out=tmp_path / "page.html"))
    assert browser.label(image) == "done", browser.status
    labels, _ = saved(browser, image)
    wanted, _ = predicted(model, image, tmp_path)
    assert (wanted == 255).sum() >= 1000
    assert (labels == wanted).mean() > 0.999
    assert np.array_equal(labels == 255, wanted == 255)


def test_areas_are_those_of_predict(
    browser: Browser, models: dict[str, Path], pages: dict[str, Path], tmp_path: Path
) -> None:
    browser.open(pages["channel"])
    for name, crs, transform in (
        ("utm", "EPSG:32640", UTM["transform"]),
        ("edge-of-zone", "EPSG:32733", from_origin(180000, 6200000, 30, 30)),
        ("degrees", "EPSG:4326", from_origin(24, 61, 0.001, 0.001)),
        ("mercator", "EPSG:3857", from_origin(2600000, 8400000, 20, 20)),
        ("lambert", "EPSG:2154", from_origin(700000, 6600000, 1, 1)),
    ):
        place = {"crs": crs, "transform": transform}
        image = write_tiff(tmp_path / f"{name}.tif", scene(150, 230), photometric="rgb", **place)
        assert browser.label(image) == "done", browser.status
        predicted(models["channel"], image, tmp_path)
        write_areas(tmp_path / f"predicted-{name}.tif", tmp_path / "wanted.csv", DUBAI)
        wanted = list(csv.DictReader((tmp_path / "wanted.csv").read_text().splitlines()))
        found = list(csv.DictReader(browser.save("save-csv", f"{name}-areas.csv").read_text().splitlines()))
        for one, other in zip(found, wanted, strict=True):
            mine, theirs = one.pop("hectares"), other.pop("hectares")
            assert one == other
            if name == "lambert":
                assert mine == ""
            elif theirs:
                assert float(mine) == pytest.approx(float(theirs), rel=2e-5, abs=2e-4)
    assert "this is EPSG:2154" in browser.run("document.getElementById('notes').textContent")


def test_stop_keeps_nothing_and_the_next_images_go_on(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        (tmp_path / name).write_bytes(encoded(Image.fromarray(scene(300, 400).transpose(1, 2, 0)), "PNG"))
    browser.open(pages["channel"])
    browser.run("""new MutationObserver((_, observer) => {
        if (document.documentElement.dataset.state !== "running") return;
        observer.disconnect();
        document.getElementById("stop").click();
    }).observe(document.documentElement, { attributes: true })""")
    browser.choose(tmp_path / "first.png", tmp_path / "second.png")
    assert browser.wait("stopped", "done") == "stopped"
    assert "first.png was stopped" in browser.status
    assert browser.run("document.getElementById('result').hidden")
    assert browser.label(tmp_path / "second.png") == "done"
    browser.choose(tmp_path / "first.png")  # and a further one while it may still run
    browser.choose(tmp_path / "second.png")
    browser.run("""new Promise((done) => {
        const look = () => (busy ? setTimeout(look, 20) : done());
        look();
    })""")
    states = browser.run("entries.map((entry) => entry.state)")
    assert states == ["stopped", "stopped", "done", "done", "done"]
    browser.run("document.querySelectorAll('#files button')[2].click()")  # its file is read again
    browser.run("""new Promise((done) => {
        const shown = () => [...view.base.picture.getImageData(200, 150, 1, 1).data].join() !== "0,0,0,255";
        const look = () => (shown() ? done() : setTimeout(look, 20));
        look();
    })""")
    assert browser.run("[current === entries[2], view.labels.width, view.labels.height]") == [True, 400, 300]


def test_a_file_that_goes_is_refused(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    content = encoded(Image.fromarray(scene(40, 50).transpose(1, 2, 0)), "PNG")
    (tmp_path / "photo.png").write_bytes(content)
    browser.open(pages["channel"])
    assert browser.label(tmp_path / "photo.png") == "done"
    (tmp_path / "photo.png").write_bytes(content * 2)
    browser.run("document.documentElement.dataset.state = 'chosen'; add([entries[0].file])")
    assert browser.wait("refused", "done") == "refused"
    assert "photo.png: it cannot be read any more" in browser.status


def test_what_is_seen_and_switched(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    planes = np.zeros((3, 100, 100), np.uint8)
    planes[0, :, :50], planes[1, :, 50:] = 200, 200  # the first class on the left, the second on the right
    Image.fromarray(planes.transpose(1, 2, 0)).save(tmp_path / "halves.png")
    browser.open(pages["channel"])
    assert browser.label(tmp_path / "halves.png") == "done"
    middle = """(([x, y]) => {
        do view.paint(); while (view.stale.length); // it paints for a few milliseconds at a time
        const { width, height } = view.canvas;
        const pixel = [...view.context.getImageData(width / 2 + x * view.scale, height / 2 + y, 1, 1).data];
        const place = view.at(width / 2 + x * view.scale, height / 2);
        view.tell(place);
        return [pixel.slice(0, 3), place.column, document.getElementById("under").textContent];
    })"""
    browser.run("view.opacity = 1")
    left, column, under = browser.run(f"{middle}([-25, 0])")
    assert (left, column) == (list(DUBAI.colors[0]), 25)
    assert under == "Building, 50 % (row 50, column 25)"
    right, _, under = browser.run(f"{middle}([25, 0])")
    assert (right, under) == (list(DUBAI.colors[1]), "Land, 50 % (row 50, column 75)")
    browser.run("document.getElementById('class-0').click()")  # the legend switches a class off
    assert browser.run(f"{middle}([-25, 0])")[0] == [200, 0, 0]
    assert browser.run(f"{middle}([25, 0])")[0] == list(DUBAI.colors[1])
    cells = "[...document.getElementById('classes').rows].map((row) => row.innerText.split('\\t').join('|'))"
    assert browser.run(cells)[:3] == ["Building|5,000|50.0 %", "Land|5,000|50.0 %", "Road|0|0.0 %"]
    browser.run("view.fit(); view.zoom(2); view.canvas.focus()")
    before = browser.run("view.left")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    assert browser.run("view.left") > before


def test_a_part_that_is_enlarged_gets_its_own_pixels(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    planes = scene(300, 400)
    image = write_tiff(tmp_path / "map.tif", planes, photometric="rgb", tiled=True)
    browser.open(pages["channel"])
    assert browser.label(image) == "done"
    browser.run("""view.base = new Layer({ top: 0, left: 0, bottom: 300, right: 400 }, 4); // as of a large image
        view.zoom(8);""")
    browser.run("new Promise((done) => { const look = () => (view.detail ? done() : setTimeout(look, 20)); look(); })")
    area, shown, classes = browser.run("""(() => {
        const { area, picture, classes, columns, rows } = view.detail;
        const bytes = (context) => [...context.getImageData(0, 0, columns, rows).data];
        return [area, bytes(picture), bytes(classes)];
    })()""")
    part = np.s_[area["top"] : area["bottom"], area["left"] : area["right"]]
    wanted = planes[:, *part].transpose(1, 2, 0)
    assert 0 < wanted.size < planes.size
    assert np.array_equal(np.reshape(shown, (*wanted.shape[:2], 4))[..., :3], wanted)
    colors = np.array(DUBAI.colors)[wanted.argmax(axis=2)]
    assert np.array_equal(np.reshape(classes, (*wanted.shape[:2], 4))[..., :3], colors)


def test_a_second_model_is_compared_on_the_part_that_is_shown(browser: Browser, tmp_path: Path) -> None:
    own = write_model(tmp_path / "student.onnx", replace(INFO, tile_size=80).to_metadata())
    turned = ClassMap(DUBAI.names[::-1], DUBAI.colors[::-1])  # its first class is Unlabeled: the brightest is red
    other = write_model(
        tmp_path / "teacher.onnx", replace(INFO, tile_size=144, classes=turned).to_metadata(), added=(4, 40.0)
    )
    planes = scene(300, 400)
    planes[:, 250:, 300:] = 0
    image = write_tiff(tmp_path / "map.tif", planes, photometric="rgb", nodata=0, **UTM)
    wanted, second = (predicted(model, image, tmp_path / model.stem)[0] for model in (own, other))
    second = np.where(second == 255, 255, 5 - second)
    browser.open(export(run=own, with_=other, format="html", out=tmp_path / "page.html"))
    assert browser.label(image) == "done", browser.status
    browser.run("view.fit(); view.zoom(4); 1")
    seen = browser.run("view.seen()")
    assert (seen["bottom"] - seen["top"]) * (seen["right"] - seen["left"]) < 60_000  # of 120,000 pixels
    browser.click("compare")
    assert browser.wait("compared", "refused") == "compared", browser.status
    found = browser.run("""current.other.labels.tiles.map((tile, i) => [tile.top, tile.bottom, tile.left, tile.right,
        tile.labels && [...tile.labels], tile.labels && [...current.other.difference.tiles[i].labels]])""")
    known = equal = 0
    for top, bottom, left, right, labels, differs in found:
        part = np.s_[top:bottom, left:right]
        is_seen = top < seen["bottom"] and bottom > seen["top"] and left < seen["right"] and right > seen["left"]
        assert (labels is not None) == is_seen
        if is_seen:
            assert np.array_equal(labels, second[part].ravel())
            assert np.array_equal(differs, np.where(second[part] == wanted[part], 255, 254).ravel())
            known += int((wanted[part] != 255).sum())
            equal += int(((wanted[part] == second[part]) & (wanted[part] != 255)).sum())
    assert 0 < equal < known
    said = browser.run("document.getElementById('compared').textContent")
    assert re.search(r"student: \d+\.\d\d s per megapixel\. teacher: \d+\.\d\d s per megapixel", said)
    assert f"the same class to {100 * equal / known:.1f} % of the {known:,} pixels" in said
    shown = browser.run("""["difference", "other", "own"].map((what) => {
        chooseShown(what);
        view.opacity = 1;
        do view.paint(); while (view.stale.length); // it paints for a few milliseconds at a time
        return [...view.base.classes.getImageData(200, 150, 1, 1).data];
    })""")
    colors = [*DUBAI.colors[second[150, 200]], 255], [*DUBAI.colors[wanted[150, 200]], 255]
    assert shown == [[230, 20, 20, 255] if second[150, 200] != wanted[150, 200] else [0, 0, 0, 0], *map(list, colors)]
    browser.run("view.fit(); 1")
    browser.click("compare")  # the rest; what is there already is not done again
    assert browser.wait("compared", "refused") == "compared", browser.status
    assert browser.run("current.other.known") == (wanted != 255).sum()
    labels, _ = saved(browser, image)
    assert np.array_equal(labels, wanted)


def test_the_example_is_labelled(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["bundled"])
    limits = browser.run("document.getElementById('limits').textContent")
    assert re.fullmatch(
        r"Of a TIFF up to [\d,]+ megapixels are read, .*; of other files up to 200, all at once\.", limits
    )
    browser.click("example")
    assert browser.wait("done", "refused") == "done", browser.status
    assert browser.run("[current.labels.height, current.labels.width]") == [192, 192]
    assert "a drawn scene" in browser.run("document.getElementById('notes').textContent")
    assert browser.run("current.counts.filter(Boolean).length") > 2
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_tiles_are_those_of_python(browser: Browser, pages: dict[str, Path]) -> None:
    draw = random.Random(3)
    cases = [
        (draw.randint(1, 5000), draw.randint(1, 5000), draw.choice([64, 300, 640, 832]),
         draw.choice([64, 512, 1152]), draw.choice([0, 8, 30, 64]))
        for _ in range(150)
    ]  # fmt: skip
    cases += [(1, 1, 640, 1152, 64), (512, 1024, 640, 1152, 64), (513, 1025, 640, 1152, 64), (64, 64, 64, 64, 0)]
    browser.open(pages["channel"])
    found = browser.run(f"""{json.dumps(cases)}.map(([height, width, rows, columns, margin]) =>
        cut(height, width, {{ rows, columns, margin }}).map((tile) => [tile.top, tile.bottom, tile.left, tile.right,
        tile.readTop, tile.readBottom, tile.readLeft, tile.readRight]))""")
    for (height, width, rows, columns, margin), tiles in zip(cases, found, strict=True):
        units = Grid(height, width, rows, columns, margin, lane_width=10**9).units()
        wanted = [
            [t.top, t.bottom, t.left, t.right, t.read_top, t.read_bottom, t.read_left, t.read_right]
            for unit in units
            for t in unit.tiles
        ]
        assert tiles == wanted


def test_names_of_bands_are_those_of_python(browser: Browser, pages: dict[str, Path]) -> None:
    texts = [
        "Red", "red edge", "Red Edge 2", "coastal blue", "B08 (Near Infrared)", "NIR", "nir2", "near-ir 1", "SWIR 1",
        "short wave infra red 2", "B8A", "band 4", "Band_07", "b04", "deep blue", "far red", "infra red", "Pan",
        "panchromatic", "NDVI", "green (B03)", "blue", "", "4", "layer 2", "Alpha", "colored", " RED ", "B12",
    ]  # fmt: skip
    browser.open(pages["channel"])
    assert browser.run(f"{json.dumps(texts)}.map(bandName)") == [band_name(text) for text in texts]
    triples = [
        [a, b, c, "nir"] for a in ("Red", "B04 red", "red edge") for b in ("green", "") for c in ("Blue", "deep blue")
    ]
    found = browser.run(f"{json.dumps(triples)}.map(describedColors)")
    assert [one and tuple(one) for one in found] == [described_bands(one) for one in triples]
