"""One output, used night after night with other inputs: what earlier commands left in it stays what it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from rasterio.transform import from_origin

from skystill.api import predict
from skystill.errors import SettingsError
from skystill.progress import Event, Message
from tests.cluster.archives import contents, small_tiles, write_raster

EVERYTHING = {"areas": True, "confidence": True, "overlay": True, "vector": "geojson", "stac": True}


@pytest.fixture
def given(tmp_path: Path, address: str) -> dict[str, Any]:
    return {"model": small_tiles(tmp_path), "out": tmp_path / "out", "threads": 1, "dask": address}


def picture(path: Path, seed: int = 0) -> str:
    """An image without a position, whose result is a PNG."""
    return str(write_raster(path, 60, 80, seed, driver="PNG", crs=None, transform=None, **dict.fromkeys(TILED)))


TILED = ("tiled", "blockxsize", "blockysize")


def said_by(given: dict[str, Any]) -> list[str]:
    said: list[Event] = []
    predict(**given, on_progress=said.append)
    return [event.text for event in said if isinstance(event, Message)]


@pytest.mark.parametrize("beside", [{name: value} for name, value in EVERYTHING.items()])
def test_an_input_of_the_same_stem_does_not_take_the_files_beside_an_earlier_result(
    given: dict[str, Any], tmp_path: Path, beside: dict[str, Any]
) -> None:
    first, other = picture(tmp_path / "s1/a.png"), str(write_raster(tmp_path / "s2/a.tif", 60, 80, 1))
    predict(**given, inputs=[first], **beside)
    before = contents(tmp_path / "out")
    with pytest.raises(SettingsError, match=r"earlier results(.|\n)*s2/a\.tif\) is a file of .*out/a\.png.*s1/a\.png"):
        predict(**given, inputs=[other], **beside)
    assert contents(tmp_path / "out") == before
    assert said_by({**given, "inputs": [first], **beside}) == ["1 inputs are done already; these are all."]
    (tmp_path / "out/a.png").unlink()  # it is not needed any more
    assert len(predict(**given, inputs=[other], **beside)) == 1
    with pytest.raises(SettingsError, match=r"s1/a\.png\) is a file of .*out/a\.tif"):
        predict(**given, inputs=[first], **beside)


def test_inputs_of_one_stem_may_follow_each_other_if_they_share_no_file(given: dict[str, Any], tmp_path: Path) -> None:
    for name in (picture(tmp_path / "s1/a.png"), str(write_raster(tmp_path / "s2/a.tif", 60, 80, 1))):
        assert len(predict(**given, inputs=[name])) == 1
    assert {"a.png", "a.tif"} <= set(contents(tmp_path / "out"))


def test_a_new_input_may_take_the_place_of_a_result_with_all_its_files(given: dict[str, Any], tmp_path: Path) -> None:
    for night in range(2):
        name = write_raster(tmp_path / f"s{night}/a.tif", 60, 80, night)
        assert len(predict(**given, inputs=[str(name)], areas=True)) == 1


def test_an_input_is_not_named_as_a_file_beside_an_earlier_result(given: dict[str, Any], tmp_path: Path) -> None:
    plain, named = picture(tmp_path / "s1/a.png"), picture(tmp_path / "s2/a-overlay.png", 1)
    predict(**given, inputs=[plain], overlay=True)
    with pytest.raises(SettingsError, match=r"out/a-overlay\.png \(by the class raster of"):
        predict(**given, inputs=[named], overlay=True)
    given["out"] = tmp_path / "turned"
    predict(**given, inputs=[named], overlay=True)
    with pytest.raises(SettingsError, match=r"turned/a-overlay\.png \(of .*is a file of the result"):
        predict(**given, inputs=[plain], overlay=True)


def test_an_image_that_got_a_position_may_replace_its_own_files(given: dict[str, Any], tmp_path: Path) -> None:
    name = picture(tmp_path / "s1/a.png")
    predict(**given, inputs=[name], areas=True)
    (tmp_path / "s1/a.pgw").write_text("0.5\n0\n0\n-0.5\n300000\n2800000\n")
    assert [one.prediction.path.name for one in predict(**given, inputs=[name], areas=True)] == ["a.tif"]


def test_the_collection_lists_the_items_of_all_nights_that_are_there(given: dict[str, Any], tmp_path: Path) -> None:
    for night, names in enumerate((("a", "gone", "no-item", "damaged"), ("x-b",), ("b", "x/b"))):
        for number, name in enumerate(names):
            place = from_origin(300_000 + 1000 * night, 2_800_000 + 1000 * number, 0.5, 0.5)
            write_raster(tmp_path / f"n{night}/{name}.tif", 60, 80, night, transform=place)
        if night == 2:  # some was taken away or changed meanwhile
            (tmp_path / "out/gone.tif").unlink()
            (tmp_path / "out/no-item.stac.json").unlink()
            (tmp_path / "out/damaged.stac.json").write_text('{"id": 7}')
        predict(**given, inputs=[str(tmp_path / f"n{night}")], recursive=True, stac=True)
    collection = pystac.Collection.from_file(str(tmp_path / "out/collection.json"))
    items = {str(item.self_href).removeprefix(f"{tmp_path}/out/"): item for item in collection.get_items()}
    assert {name: item.id for name, item in items.items()} == {
        "a.stac.json": "a", "x-b.stac.json": "x-b", "b.stac.json": "b", "x/b.stac.json": "x-b-2",
    }  # fmt: skip
    boxes = np.array([item.bbox for item in items.values()])
    assert collection.extent.spatial.bboxes == [[*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]]
    dates = [item.datetime for item in items.values() if item.datetime]
    assert collection.extent.temporal.intervals == [[min(dates), max(dates)]]
    predict(**given, inputs=[str(tmp_path / "n0/a.tif")], stac=True)  # all of it is done already
    again = pystac.Collection.from_file(str(tmp_path / "out/collection.json"))
    assert {item.id for item in again.get_items()} == {"a", "x-b", "b", "x-b-2"}
