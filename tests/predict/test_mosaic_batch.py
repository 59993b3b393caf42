"""`skystill predict --mosaic` from images to the mosaic, and what is refused before anything is predicted."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import from_origin

from skystill import api
from skystill.errors import DataError, PredictionStopped, RunFolderError, SettingsError
from skystill.predict import mosaic_batch
from skystill.predict.mosaic import write_mosaic
from skystill.progress import Event, Note
from tests.channel_model import INFO, write_model
from tests.s3 import Bucket

UTM = "EPSG:32640"
Pixels = np.ndarray[Any, Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a model file: the class of a pixel is its brightest band."""
    write_model(tmp_path / "m.onnx", replace(INFO, tile_size=96, overlap=16).to_metadata())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image(path: Path, labels: list[list[int]], left: float, top: float = 2_800_000, **options: Any) -> Path:
    """A GeoTIFF with pixels of 1 m whose brightest band is the label; 9 is nodata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = np.array(labels)
    bands = np.stack([np.where(wanted == label, 200, 20) for label in range(3)])
    bands = np.where(wanted == 9, 0, bands).astype(np.uint8)
    place = {"crs": UTM, "transform": from_origin(left, top, 1, 1), **options}
    form = {"driver": "GTiff", "height": wanted.shape[0], "width": wanted.shape[1], "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **form, nodata=0, **place) as file:
        file.write(bands)
    return path


def predict(*inputs: object, grid: str = "{crs: EPSG:32640, resolution: 1}", **settings: Any) -> list[str]:
    """Predict a mosaic, and return the notes."""
    Path("grid.yaml").write_text(grid)
    events: list[Event] = []
    settings = {"model": Path("m.onnx"), "threads": 1, "mosaic": Path("grid.yaml"), "out": Path("out.tif"), **settings}
    api.predict(inputs=[str(name) for name in inputs], on_progress=events.append, **settings)
    return [event.text for event in events if isinstance(event, Note)]


def labels(path: str = "out.tif") -> list[list[int]]:
    with rasterio.open(path) as file:
        content: list[list[int]] = file.read(1).tolist()
        return content


@pytest.fixture
def two(here: Path) -> Path:
    """Two images that overlap in one column, with the same name in two folders."""
    image(here / "in/a/x.tif", [[0, 0, 0], [0, 9, 0]], 300_000)
    image(here / "in/b/x.tif", [[1, 1, 1], [2, 2, 9]], 300_001)
    return here


def test_a_mosaic_of_two_images(two: Path) -> None:
    notes = predict("in/a/x.tif", "in/b/x.tif", areas=True, vector="gpkg", stac=True)
    assert labels() == [[0, 0, 0, 1], [0, 2, 0, 255]]
    names = {"out.tif", "out.qml", "out.tif.aux.xml", "out-areas.csv", "out.gpkg", "out.stac.json"}
    assert {path.name for path in two.iterdir()} == {"in", "m.onnx", "grid.yaml", *names}
    assert "the mosaic has 4 x 2 pixels, 300000, 2799998, 300004, 2800000 in EPSG:32640." in notes
    rows = [row.split(",")[:2] for row in Path("out-areas.csv").read_text().splitlines()]
    assert [int(count) for _, count in rows[1:]] == [5, 1, 1, 0, 0, 0, 1]
    with rasterio.open("out.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    item = pystac.Item.from_file("out.stac.json")
    assert item.assets["classes"].media_type == pystac.MediaType.COG and item.id == "out"


def test_the_order_decides(two: Path) -> None:
    predict("in/b/x.tif", "in/a/x.tif")
    assert labels() == [[0, 1, 1, 1], [0, 2, 2, 255]]
    predict("in/a/x.tif", "in/b/x.tif", grid="{crs: EPSG:32640, resolution: 1, order: last}")
    assert labels() == [[0, 1, 1, 1], [0, 2, 2, 255]]
    Path("list.csv").write_text("image,datetime\nin/a/x.tif,2026-01-02\nin/b/x.tif,2026-01-01\n")
    for order, middle in (("newest", 0), ("oldest", 1)):
        predict("list.csv", grid=f"{{crs: EPSG:32640, resolution: 1, order: {order}}}", stac=True, out=Path(order))
        assert labels(f"{order}/mosaic.tif")[0] == [0, middle, middle, 1], order
        assert json.loads(Path(order, "mosaic.stac.json").read_text())["properties"]["datetime"].startswith(
            "2026-01-02"
        )
    with pytest.raises(SettingsError, match="2 inputs have no date"):
        predict("in/a/x.tif", "in/b/x.tif", grid="{crs: EPSG:32640, resolution: 1, order: newest}")


def test_smoothing_is_that_of_the_mosaic(here: Path) -> None:
    image(here / "l.tif", [[0, 0, 0], [0, 0, 1], [0, 0, 0]], 300_000)
    image(here / "r.tif", [[0, 0, 0], [1, 0, 0], [0, 0, 0]], 300_003)
    predict("l.tif", "r.tif", smooth=3)
    assert labels() == [[0] * 6] * 3
    predict("l.tif", "r.tif", min_area="2px", out=Path("two.tif"))
    assert labels("two.tif")[1] == [0, 0, 1, 1, 0, 0]  # one part of two pixels, across the seam


def test_an_input_outside_is_passed_over(two: Path) -> None:
    image(two / "far.tif", [[2]], 500_000)
    grid = "{crs: EPSG:32640, resolution: 1, extent: [300000, 2799998, 300004, 2800000]}"
    notes = predict("in/a/x.tif", "far.tif", "in/b/x.tif", grid=grid)
    assert labels() == [[0, 0, 0, 1], [0, 2, 0, 255]]
    assert "1 inputs do not touch the mosaic, and are not predicted: far.tif." in notes
    inputs = ["in/a/x.tif", "far.tif", "in/b/x.tif"]
    settings: dict[str, Any] = {"inputs": inputs, "model": "m.onnx", "mosaic": "grid.yaml", "out": "other.tif"}
    ahead = api.count_ahead(**settings)  # --out is one file, as it is for the mosaic
    assert (ahead.inputs, ahead.megapixels) == (2, 12e-6) and not Path("other.tif").exists()
    Path("grid.yaml").write_text(grid.replace("3000", "9000"))
    with pytest.raises(SettingsError, match="no input touches the grid"):
        api.count_ahead(**settings)


@pytest.mark.parametrize(
    ("grid", "settings", "said"),
    [
        ("{crs: EPSG:32640, resolution: 1, extent: [400000, 0, 400010, 10]}", {},
         "no input touches the grid. The grid reaches 400000, 0, 400010, 10 and the inputs reach "
         "300000, 2799998, 300004, 2800000 (left, bottom, right, top in EPSG:32640)"),
        ("{crs: EPSG:4326, resolution: 1, extent: [10, 10, 20, 20]}", {}, "the inputs reach 55.0"),
        ("{crs: EPSG:32640, resolution: 1.0e-7}", {}, "at most 20,000,000 a side are written"),
        ("{crs: EPSG:32640}", {}, "lacks crs or resolution"),
        ("{crs: EPSG:32640, resolution: 1}", {"overlay": True}, "leave --overlay out"),
        ("{crs: EPSG:32640, resolution: 1}", {"confidence": True, "probabilities": True},
         "leave --confidence and --probabilities out"),
        ("{crs: EPSG:32640, resolution: 1}", {"out": Path("out.png")}, "a mosaic is a GeoTIFF"),
        ("{crs: EPSG:32640, resolution: 1}", {"out": Path("in/a/x.tif")}, "is an input"),
        ("{crs: EPSG:32640, resolution: 1}", {"vector": "gpkg", "simplify": "0.001px"}, "simplify"),
        ("{crs: EPSG:32640, resolution: 1}", {"min_area": "100000000m2"}, "min-area"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_is_predicted(two: Path, grid: str, settings: Any, said: str) -> None:
    before = {path: path.read_bytes() for path in two.rglob("*.tif")}
    with pytest.raises(SettingsError) as raised:
        predict("in/a/x.tif", "in/b/x.tif", grid=grid, **settings)
    assert said in str(raised.value) and raised.value.exit_code == 2
    assert {path: path.read_bytes() for path in two.rglob("*.tif")} == before
    assert not list(two.glob(".mosaic*"))


def test_an_input_without_a_place_is_named(two: Path) -> None:
    image(two / "plain.tif", [[1]], 0, crs=None)
    with pytest.raises(DataError, match=r"1 of 2 inputs cannot be placed(?s:.)*plain\.tif has no CRS"):
        predict("in/a/x.tif", "plain.tif")
    assert not Path("out.tif").exists() and not list(two.glob(".mosaic*"))


def test_a_bad_input_leaves_a_mosaic_of_the_others_and_can_be_mended(two: Path) -> None:
    good = Path("in/a/x.tif").read_bytes()
    Path("in/a/x.tif").write_bytes(b"no raster")
    with pytest.raises(DataError, match=r"in/a/x\.tif"):
        predict("in/a/x.tif", "in/b/x.tif")
    assert labels() == [[1, 1, 1], [2, 2, 255]]
    Path("in/a/x.tif").write_bytes(good)
    with pytest.raises(RunFolderError, match=r"was interrupted\. Go on with --resume"):
        predict("in/a/x.tif", "in/b/x.tif")
    predict("in/a/x.tif", "in/b/x.tif", resume=True)
    assert labels() == [[0, 0, 0, 1], [0, 2, 0, 255]]
    assert not list(two.glob(".mosaic*"))
    with pytest.raises(DataError):
        Path("in/b/x.tif").write_bytes(b"no raster")
        predict("in/b/x.tif", grid="{crs: EPSG:32640, resolution: 1, extent: [300000, 2799998, 300004, 2800000]}")


def test_a_mosaic_that_was_stopped_goes_on(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict("in/a/x.tif", "in/b/x.tif", out=Path("whole.tif"))
    predicted: list[list[str]] = []

    def stops(*given: Any) -> list[str]:
        raise KeyboardInterrupt

    def noting(settings: Any, resume: bool, on_progress: Any) -> Any:
        predicted.append(settings.inputs)
        return mosaic_batch.predict_inputs(settings, resume, on_progress)

    monkeypatch.setattr(mosaic_batch, "write_mosaic", stops)
    with pytest.raises(PredictionStopped):
        predict("in/a/x.tif", "in/b/x.tif")
    assert not Path("out.tif").exists()
    monkeypatch.setattr(mosaic_batch, "write_mosaic", write_mosaic)
    image(two / "in/b/x.tif", [[2, 2, 2], [2, 2, 9]], 300_001)  # it has changed: predicted again
    settings = api.running.PredictSettings(
        inputs=["in/a/x.tif", "in/b/x.tif"], model=Path("m.onnx"), threads=1, mosaic=Path("grid.yaml"),
        out=Path("out.tif"),
    )  # fmt: skip
    (done,) = mosaic_batch.predict_mosaic(settings, True, predict=noting)
    assert predicted == [["in/b/x.tif"]]
    assert labels() == [[0, 0, 0, 2], [0, 2, 0, 255]]
    assert (done.prediction.path, done.prediction.pixels) == (Path("out.tif"), 8)


def test_a_mosaic_of_a_bucket(two: Path, bucket: Bucket) -> None:
    for name in ("a", "b"):
        bucket.put(f"{name}/x.tif", Path(f"in/{name}/x.tif"))
    predict(bucket / "*/x.tif")
    assert labels() == [[0, 0, 0, 1], [0, 2, 0, 255]]


def test_a_mosaic_of_an_asset(two: Path) -> None:
    items = []
    for name in ("a", "b"):
        item = pystac.Item(name, None, None, datetime(2024, 1, 1, tzinfo=UTC), {})
        for key in ("visual", "other"):
            item.add_asset(key, pystac.Asset(str(two / f"in/{name}/x.tif"), roles=["data"]))
        items.append(item.to_dict(include_self_link=False))
    Path("list.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    predict("list.json", asset="visual")
    assert labels() == [[0, 0, 0, 1], [0, 2, 0, 255]]


def test_a_name_that_would_write_another_geopackage(two: Path) -> None:
    """pyogrio takes what stands behind ! as a file in an archive: it would have replaced the user's own plots.gpkg."""
    Path("plots.gpkg").write_bytes(b"precious")
    shutil.copy("in/a/x.tif", "field!plots.tif")
    with pytest.raises(SettingsError, match="would open another file"):
        api.predict(inputs=["field!plots.tif"], model=Path("m.onnx"), out=Path("res"), vector="gpkg")
    assert Path("plots.gpkg").read_bytes() == b"precious" and not Path("res").exists()
