"""The page in Firefox, opened from a file and from a web server."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from skystill.api import export
from skystill.model.bundled import bundled_model
from skystill.predict import Predictor
from skystill.predict.web.check import ISOLATED, served
from tests.web.firefox import open_firefox, open_screen, until
from tests.web.images import UTM, encoded, scene, write_tiff

pytestmark = pytest.mark.slow


def test_the_page_in_firefox_gives_the_classes_of_predict(
    pages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skystill.predict.web.parts._EXAMPLE_SIDE", 64)  # large scenes take seconds
    planes = scene(600, 700)
    holes = planes.copy()
    holes[:, 300:420, 500:640] = 0
    Image.fromarray(planes.transpose(1, 2, 0)).save(tmp_path / "photo.png")
    tiff = write_tiff(tmp_path / "map.tif", holes, nodata=0, tiled=True, compress="lzw", photometric="rgb", **UTM)
    with open_firefox(tmp_path) as firefox:
        firefox.call("WebDriver:Navigate", url=pages["bundled"].as_uri())
        assert firefox.wait("ready", "failed") == "ready"
        for image in (tmp_path / "photo.png", tiff):
            assert firefox.label(image) == "done"
            Predictor(bundled_model()).predict(image, tmp_path / "wanted.tif")
            with (
                rasterio.open(firefox.save("save-tif", f"{image.stem}-classes.tif")) as own,
                rasterio.open(tmp_path / "wanted.tif") as other,
            ):
                labels, wanted = own.read(1), other.read(1)
                assert (own.crs, own.transform, own.nodata) == (other.crs, other.transform, other.nodata)
            assert len(np.unique(wanted)) > 3
            assert (labels == wanted).mean() > 0.999
            assert np.array_equal(labels == 255, wanted == 255)
        polygons = json.loads(firefox.save("save-geojson", "map-classes.geojson").read_text())["features"]
        with rasterio.open(firefox.save("save-png", "map-classes.png")) as picture:
            assert np.array_equal(picture.read(1), labels)
        models = {"run": bundled_model(), "with_": bundled_model()}  # the second one runs in threads
        with served(export(**models, format="web", out=tmp_path / "site"), ISOLATED) as address:
            firefox.call("WebDriver:Navigate", url=address)
            assert firefox.wait("ready", "failed") == "ready"
            assert firefox.run("crossOriginIsolated")
            assert firefox.label(tiff) == "done"
            (tmp_path / "saved/map-classes.tif").unlink()
            with rasterio.open(firefox.save("save-tif", "map-classes.tif")) as own:
                assert (own.read(1) == wanted).mean() >= 0.9999
            firefox.run("document.getElementById('compare').click()")
            assert firefox.wait("compared", "refused") == "compared"
            assert "the same class to 100.0 % of" in firefox.run("document.getElementById('compared').textContent")
    areas = [sum(one["properties"]["area_m2"] for one in polygons if one["properties"]["label"] == i) for i in range(6)]
    assert np.allclose(areas, np.bincount(labels.ravel(), minlength=6)[:6] * 0.25, rtol=2e-3, atol=0.1)


def test_a_folder_that_is_dropped_on_firefox(pages: dict[str, Path], tmp_path: Path) -> None:
    given, content = tmp_path / "given", encoded(Image.fromarray(scene(40, 50).transpose(1, 2, 0)), "PNG")
    for name in ("a.png", "sub/b.png", "sub/masks/b.png", ".c.png", "notes.txt"):
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        (given / name).write_bytes(content)
    with open_screen() as screen, open_firefox(tmp_path, screen) as firefox:
        firefox.call("WebDriver:Navigate", url=pages["channel"].as_uri())
        assert firefox.wait("ready", "failed") == "ready"
        firefox.drop(given)
        names = ["given/a.png", "given/sub/b.png"]
        listed = "[...document.getElementById('files').children].map((item) => item.textContent).join()"
        until(lambda: firefox.run(listed) == ",".join(names))  # without a state such as "waiting" behind its name
        said = firefox.run("document.getElementById('listed').textContent")
        assert said == "given: 2 images; passed over: 1 mask, 1 other file, 1 hidden file."
