"""Large GeoTIFFs in the page are shown from their overviews at once, and labelled from their own pixels."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from skystill.predict import Predictor
from tests.web.browser import Browser
from tests.web.images import UTM, scene, write_tiff

pytestmark = pytest.mark.slow

COLOR = (90, 40, 200)  # of the overviews of the tests: no part of the image has it
HEIGHT, WIDTH = 301, 402  # no multiples of the factors


@pytest.fixture(scope="module")
def page(pages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page for which an image of 0.1 megapixels is large: it is shown reduced by 4."""
    text = pages["channel"].read_text(encoding="utf-8")
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script.count("const BASE_PIXELS = 6.5e6;") == 1
    changed = script.replace("const BASE_PIXELS = 6.5e6;", "const BASE_PIXELS = 1e4;")
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (script, changed)]
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(text.replace(script, changed).replace(*digests), encoding="utf-8")
    return path


def write_overviews(path: Path, factors: list[int], color: tuple[int, int, int] = COLOR, **options: Any) -> Path:
    """A tiled GeoTIFF whose overviews have one colour, and which itself is a scene."""
    planes = np.empty((3, HEIGHT, WIDTH), np.uint8)
    planes[:] = np.array(color)[:, None, None]
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64, "photometric": "rgb", **UTM, **options}
    write_tiff(path, planes, **tiled)
    with rasterio.open(path, "r+") as file:
        file.build_overviews(factors)
    with rasterio.open(path, "r+") as file:
        file.write(scene(HEIGHT, WIDTH))
        assert file.overviews(1) == factors
    with rasterio.open(path, overview_level=0) as file:
        assert (file.read() == np.array(color)[:, None, None]).all()
    return path


WATCH = """{
    shown = [];
    view.putOverview = (pixels, step) => {
        View.prototype.putOverview.call(view, pixels, step);
        const { width, height } = view.base.picture.canvas;
        const seen = view.base.picture.getImageData(0, 0, width, height).data;
        const colors = Array.from({ length: width * height }, (_, i) => [...seen.slice(4 * i, 4 * i + 3)].join());
        const labelled = current.labels.tiles.filter((tile) => tile.labels).length;
        shown.push([step, labelled, [...new Set(colors)]]);
    };
}"""


def predicted(model: Path, image: Path, folder: Path) -> Any:
    Predictor(model).predict(image, folder / "wanted.tif")
    with rasterio.open(folder / "wanted.tif") as file:
        return file.read(1)


def test_an_overview_is_shown_before_the_first_tile(
    browser: Browser, page: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    browser.open(page)
    browser.run("view.canvas.style.width = view.canvas.style.height = '100px'; 1")
    browser.run(WATCH)
    options: dict[str, Any]
    for name, options, factors, step in (
        ("packed", {"compress": "deflate", "predictor": 2}, [2, 4, 8], 4),
        ("fine", {}, [2], 4),  # none is as coarse as the screen
        ("coarse", {"interleave": "band"}, [8], 8),  # and none as fine
    ):
        image = write_overviews(tmp_path / f"{name}.tif", factors, **options)
        browser.run("shown = []; 1")
        assert browser.label(image) == "done", browser.status
        assert browser.run("view.base.step") == 4
        assert browser.run("shown") == [[step, 0, [",".join(map(str, COLOR))]]], name
        with rasterio.open(browser.save("save-tif", f"{name}-classes.tif")) as file:
            assert np.array_equal(file.read(1), predicted(models["channel"], image, tmp_path))
        # Each tile has put its own pixels in the place of the overview: the mean of 4 x 4 pixels.
        seen = browser.run("[...view.base.picture.getImageData(0, 0, 100, 75).data]")
        wanted = scene(HEIGHT, WIDTH)[:, :300, :400].reshape(3, 75, 4, 100, 4).mean((2, 4)).transpose(1, 2, 0)
        assert np.abs(np.reshape(seen, (75, 100, 4))[..., :3] - wanted).max() <= 1


def test_a_part_that_is_enlarged_is_read_from_the_overview_that_is_fine_enough(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    image = write_overviews(tmp_path / "map.tif", [2, 4])
    browser.open(page)
    assert browser.label(image) == "done", browser.status
    area = {"top": 40, "left": 24, "bottom": 301, "right": 402}
    found = browser.run(f"""Promise.all([1, 2, 4, 8].map(async (step) => [step, [...new Set(
        [...await readShown({json.dumps(area)}, step)].filter((_, i) => i % 4 !== 3))]]))""")
    by_step = {step: values for step, values in found}
    assert len(by_step[1]) > 20  # its own pixels
    for step in (2, 4, 8):
        assert sorted(by_step[step]) == sorted(COLOR)
    sizes = browser.run(
        f"Promise.all([2, 8].map(async (step) => (await readShown({json.dumps(area)}, step)).length / 4))"
    )
    assert sizes == [131 * 189, 33 * 48]


def test_overviews_that_cannot_be_read_are_left_out(
    browser: Browser, page: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    damaged = write_overviews(tmp_path / "damaged.tif", [2, 4], compress="deflate")
    with rasterio.open(damaged) as file:
        places = [int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, ovr=number)) for number in (0, 1)]
    content = bytearray(damaged.read_bytes())
    for place in places:
        content[place : place + 8] = b"\0" * 8
    damaged.write_bytes(content)
    browser.open(page)
    browser.run(WATCH)
    assert browser.label(damaged) == "done", browser.status
    colors = {color for _, _, colors in browser.run("shown") for color in colors}
    assert len(colors) > 20  # the image itself, which is small enough
    with rasterio.open(browser.save("save-tif", "damaged-classes.tif")) as file:
        assert np.array_equal(file.read(1), predicted(models["channel"], damaged, tmp_path))
    assert browser.run("current.picture.factors") == [2, 4]
    plain = write_tiff(tmp_path / "plain.tif", scene(HEIGHT, WIDTH), photometric="rgb", tiled=True)
    browser.run("shown = []; 1")
    assert browser.label(plain) == "done", browser.status
    assert browser.run("[current.picture.factors, shown]") == [[], []]
