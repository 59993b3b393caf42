"""A class raster does not take the place of an image of the user. It may take that of another class raster."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from skystill import api
from skystill.errors import SettingsError
from skystill.predict import Predictor
from skystill.raster.around import has_palette
from tests.cluster.archives import small_tiles, write_raster


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_tiles(tmp_path)
    write_raster(tmp_path / "in/t.tif", 40, 60)
    Image.new("RGB", (60, 40), (0, 200, 0)).save(tmp_path / "in/p.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*inputs: str, **settings: Any) -> list[str]:
    settings = {"model": Path("m.onnx"), "threads": 1, "out": Path("out"), **settings}
    return [str(one.prediction.path) for one in api.predict(inputs=list(inputs), **settings)]


def photograph(path: Path, **options: object) -> None:
    write_raster(path, 40, 60, 0, **options)


def single(path: Path, dtype: str = "uint8", **options: object) -> None:
    """One band, without a palette."""
    with rasterio.open(path, "w", driver="GTiff", height=40, width=60, count=1, dtype=dtype, **options) as file:
        file.write(np.ones((1, 40, 60), dtype))


IMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "photograph": ("t.tif", photograph),
    "BigTIFF": ("t.tif", lambda path: photograph(path, BIGTIFF="YES")),
    "big-endian": ("t.tif", lambda path: photograph(path, ENDIANNESS="BIG")),
    "COG": ("t.tif", lambda path: photograph(path, driver="COG", tiled=None, blockxsize=None, blockysize=None)),
    "grey": ("t.tif", single),
    "heights": ("t.tif", lambda path: single(path, "float32", nodata=-9999)),
    "PNG": ("p.png", lambda path: Image.new("RGB", (60, 40)).save(path)),
    "PNG with alpha": ("p.png", lambda path: Image.new("RGBA", (60, 40)).save(path)),
    "grey PNG": ("p.png", lambda path: Image.new("L", (60, 40)).save(path)),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_of_the_user_is_not_replaced(here: Path, kind: str) -> None:
    name, write = IMAGES[kind]
    (here / "out").mkdir()
    write(here / "out" / name)
    before = (here / "out" / name).read_bytes()
    for out in (Path("out"), Path("out") / name):
        inputs = ["in/t.tif", "in/p.png"] if out == Path("out") else [f"in/{name}"]
        says = rf"nothing was written:\n  - out/{name} \(by .* in/{name}\)\n"
        with pytest.raises(SettingsError, match=says) as error:
            predict(*inputs, out=out)
        assert error.value.exit_code == 2 and "move these images" in str(error.value)
    assert [path.name for path in (here / "out").iterdir()] == [name]
    assert (here / "out" / name).read_bytes() == before


@pytest.mark.parametrize("settings", [{}, {"cog": True}, {"confidence": True, "areas": True, "overlay": True}])
def test_results_are_written_over_those_of_an_earlier_command(here: Path, settings: dict[str, Any]) -> None:
    for _ in range(2):
        assert len(predict("in/t.tif", "in/p.png", **settings)) == 2


def test_a_mosaic_is_written_over_an_earlier_one_only(here: Path) -> None:
    Path("grid.yaml").write_text("{crs: EPSG:32640, resolution: 1}")
    for _ in range(2):
        predict("in/t.tif", mosaic=Path("grid.yaml"), out=Path("m.tif"))
    photograph(here / "m.tif")
    with pytest.raises(SettingsError, match=r"m\.tif"):
        predict("in/t.tif", mosaic=Path("grid.yaml"), out=Path("m.tif"))


@pytest.mark.parametrize("name", ["t.tif", "p.png"])
def test_of_a_damaged_result_it_is_not_known_whose_it_is(here: Path, name: str) -> None:
    predict(f"in/{name}")
    whole = (here / "out" / name).read_bytes()
    for size in (0, 3, 8, 20):
        (here / "out" / name).write_bytes(whole[:size])
        predict(f"in/{name}")
        assert (here / "out" / name).read_bytes() == whole
    for head in (b"MM\0+\0\x08\0\0" + b"\xff" * 40, b"II*\0" + b"\xff" * 40, b"no image"):
        (here / "out" / name).write_bytes(head)
        assert has_palette(here / "out" / name) is None


def test_nor_is_it_by_the_predictor_itself(here: Path) -> None:
    photograph(here / "photo.tif")
    before = (here / "photo.tif").read_bytes()
    with pytest.raises(SettingsError, match=r"photo\.tif"):
        Predictor(here / "m.onnx", threads=1).predict(here / "in/t.tif", here / "photo.tif")
    assert (here / "photo.tif").read_bytes() == before
