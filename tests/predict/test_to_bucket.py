"""Results in a bucket: those of a local folder, byte for byte, and nothing left behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import from_origin
from typer.testing import CliRunner

from skystill import api
from skystill.cli import app
from skystill.errors import DataError, PredictionStopped, SettingsError
from skystill.predict import predictor as predictor_module
from skystill.predict import to_bucket
from skystill.raster.buckets import bucket_address
from tests.channel_model import INFO, write_model
from tests.s3 import Bucket


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a model file, and two images with sub-folders."""
    write_model(tmp_path / "m.onnx", replace(INFO, tile_size=96, overlap=16).to_metadata())
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("in/a.tif", "in/north/b.tif")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(1, 255, (3, 150, 130), np.uint8)
        place = {"crs": "EPSG:32640", "transform": from_origin(300_000 + 100 * number, 2_800_000, 1, 1)}
        with rasterio.open(path, "w", driver="GTiff", height=150, width=130, count=3, dtype="uint8", **place) as file:
            file.write(pixels)
    return tmp_path


def predict(*inputs: object, out: object, **settings: Any) -> list[str | None]:
    done = api.predict(inputs=list(map(str, inputs)), model=Path("m.onnx"), threads=1, out=str(out), **settings)
    return [bucket_address(one.prediction.path) for one in done]


def stored(bucket: Bucket, prefix: str) -> dict[str, bytes]:
    return {key.removeprefix(prefix): bucket.get(key) for key in bucket.list() if key.startswith(prefix)}


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_in_a_bucket_holds_what_a_local_one_does(here: Path, bucket: Bucket) -> None:
    more = {"recursive": True, "areas": True, "vector": "geojson", "confidence": True, "cog": True, "overlay": True}
    predict("in", out="local", **more)
    assert predict("in", out=bucket / "out/", **more) == [bucket / "out/a.tif", bucket / "out/north/b.tif"]
    assert stored(bucket, "out/") == written(Path("local"))
    assert sorted(path.name for path in here.iterdir()) == ["in", "local", "m.onnx"]
    with rasterio.open(bucket / "out/a.tif") as file, rasterio.open("local/a.tif") as local:
        np.testing.assert_array_equal(file.read(), local.read())
        assert file.tags(1)["CLASS_0"]
    predict("in/a.tif", out=bucket / "out", smooth=3)  # again: a result is replaced
    assert bucket.get("out/a.tif") != Path("local/a.tif").read_bytes()


def test_from_one_folder_of_a_bucket_to_another_with_items(here: Path, bucket: Bucket, tmp_path: Path) -> None:
    for name in ("a.tif", "north/b.tif"):
        bucket.put(f"in/{name}", here / "in" / name)
    predict(bucket / "in/", out=bucket / "out", recursive=True, stac=True)
    for name, content in stored(bucket, "out/").items():
        path = tmp_path / "read" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    collection = pystac.Collection.from_file(str(tmp_path / "read/collection.json"))
    items = list(collection.get_items(recursive=True))
    assert sorted(item.id for item in items) == ["a", "north-b"]
    assert all(Path(str(asset.get_absolute_href())).is_file() for item in items for asset in item.assets.values())


def test_one_file_and_a_mosaic(here: Path, bucket: Bucket) -> None:
    assert predict("in/a.tif", out=bucket / "r.tif") == [bucket / "r.tif"]
    predict("in/a.tif", out="r.tif")
    assert bucket.get("r.tif") == Path("r.tif").read_bytes()
    Path("grid.yaml").write_text("{crs: EPSG:32640, resolution: 1}")
    mosaic = {"mosaic": Path("grid.yaml"), "areas": True}
    predict("in/a.tif", "in/north/b.tif", out=bucket / "m/m.tif", **mosaic)
    predict("in/a.tif", "in/north/b.tif", out="m/m.tif", **mosaic)
    assert stored(bucket, "m/") == written(Path("m"))
    assert not list(here.glob(".skystill*"))


def test_the_command_prints_addresses(here: Path, bucket: Bucket) -> None:
    command = ["predict", "in/a.tif", "--model", "m.onnx", "--out", bucket / "out/", "--areas", "--stac"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert [line.partition(": ")[0] for line in lines[-3:]] == [
        bucket / "out/a.tif", bucket / "out/a-areas.csv", bucket / "out/collection.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "out", "recursive"),
    [
        (["in/"], "in/", False),
        (["in/"], "in", False),
        (["in/*.tif"], "in", False),
        (["in/a.tif"], "in/", False),
        (["in/a.tif"], "in/a.tif", False),
        (["in/a.tif"], "in/a.png", False),  # its .aux.xml and its style are named alike
        (["in/"], "in/classes/", True),
        (["in/**/*.tif"], "in/classes/", False),
    ],
)
def test_results_in_the_folder_of_the_inputs_are_refused(
    here: Path, bucket: Bucket, inputs: list[str], out: str, recursive: bool
) -> None:
    bucket.put("in/a.tif", here / "in/a.tif")
    before = stored(bucket, "")
    with pytest.raises(SettingsError, match="is in the folder of the input"):
        predict(*(bucket / name for name in inputs), out=bucket / out, recursive=recursive)
    assert stored(bucket, "") == before and not list(here.glob(".skystill*"))


def test_another_name_in_the_folder_of_the_input(here: Path, bucket: Bucket) -> None:
    bucket.put("in/a.tif", here / "in/a.tif")
    assert predict(bucket / "in/a.tif", out=bucket / "in/r.tif") == [bucket / "in/r.tif"]


def test_a_bucket_that_cannot_be_written_is_refused_at_once(here: Path, bucket: Bucket) -> None:
    with pytest.raises(DataError, match=r"cannot be copied to s3://no-such-bucket/x/") as raised:
        predict("in/a.tif", out="s3://no-such-bucket/x/")
    assert raised.value.exit_code == 2 and not list(here.glob(".skystill*"))


def test_a_stopped_prediction_goes_on(here: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predictor_module.RasterOutput.write
    count = 0

    def stops(output: Any, unit: Any, arrays: Any) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        whole(output, unit, arrays)

    monkeypatch.setattr(predictor_module.RasterOutput, "write", stops)
    with pytest.raises(PredictionStopped):
        predict("in/a.tif", out=bucket / "out/")
    assert bucket.list() == []
    (folder,) = here.glob(".skystill-out-*")
    assert list(folder.glob(".unfinished-a.tif/*.unit"))
    monkeypatch.setattr(predictor_module.RasterOutput, "write", whole)
    predict("in/a.tif", out=bucket / "out/", resume=True)
    predict("in/a.tif", out="local")
    assert stored(bucket, "out/") == written(Path("local")) and not folder.exists()


def test_a_copy_that_fails_keeps_the_result_here(here: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = to_bucket.copy_file

    def fails(source: Path, target: str) -> None:
        if target.endswith(".tif"):
            raise DataError("the server is gone.")
        whole(source, target)

    monkeypatch.setattr(to_bucket, "copy_file", fails)
    with pytest.raises(DataError, match=r"the server is gone\. What was not copied is kept in \.skystill-out-"):
        predict("in/a.tif", out=bucket / "out/")
    (folder,) = here.glob(".skystill-out-*")
    assert (folder / "a.tif").exists()
    assert bucket.list() == ["out/a.qml", "out/a.tif.aux.xml"]  # the class raster comes last


def test_addresses_as_paths() -> None:
    assert bucket_address(Path("s3://b/out/")) == "s3://b/out"
    assert bucket_address(Path("/vsigs/b/out")) == "/vsigs/b/out"
    assert [bucket_address(Path(name)) for name in ("out", "/s3/b", "s3", "./s3x:/b", ".")] == [None] * 5


def test_the_cost_is_counted_without_the_bucket(here: Path) -> None:
    ahead = api.count_ahead(inputs=["in/a.tif"], model=Path("m.onnx"), threads=1, out="s3://no-such-bucket/out/")
    assert (ahead.inputs, ahead.megapixels) == (1, 130 * 150 / 1e6)
    assert not list(here.glob(".skystill*"))
