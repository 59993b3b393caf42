"""`skystill export` of a run that was trained on GeoTIFFs: versions of the format, and the ground resolution."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from skystill import api
from skystill.data.scenes import paint_scene
from skystill.model.file import open_session, read_info
from skystill.model.quantize import quantize_model
from skystill.progress import Event, Note
from tests.cli.conftest import Done

Cli = Callable[..., Done]


def write_data(folder: Path, *metres: float) -> Path:
    """Images with a ground resolution each, and masks of two classes."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index, one in enumerate(metres):
        image = paint_scene(64, index)[0]
        shape = {"width": 64, "height": 64, "count": 3, "dtype": "uint8"}
        place = {"crs": "EPSG:32640", "transform": from_origin(3e5, 2.7e6, one, one)}
        with rasterio.open(folder / f"images/{index}.tif", "w", driver="GTiff", **shape, **place) as file:
            file.write(image.transpose(2, 0, 1))
        Image.fromarray((image[:, :, 1] > 110).astype(np.uint8)).save(folder / f"masks/{index}.png")
    (folder / "classes.yaml").write_text("classes: [low, high]\n")
    return folder


def train(data: Path, out: Path, events: list[Event]) -> Path:
    run = api.train(
        data=data, out=out, network="two-level", epochs=1, crop=32, batch_size=2, crops_per_image=2,
        split="0.5/0.25/0.25", report=False, on_progress=events.append,
    )  # fmt: skip
    return run.path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("georeferenced")
    return train(write_data(folder / "data", 0.3, 0.3, 0.3, 0.3), folder / "run", [])


def stored(path: Path) -> float | None:
    return read_info(open_session(path), path).resolution_m


def versions(path: Path) -> tuple[int, list[tuple[str, int]]]:
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    return model.ir_version, [(one.domain, one.version) for one in model.opset_import]


def test_every_file_is_in_ir_version_8(run: Path, tmp_path: Path, skystill: Cli) -> None:
    assert versions(run / "model.onnx") == (8, [("", 18)])
    done = skystill("export", run, "--out", tmp_path / "d.onnx", "--format", "deepness")
    assert done.code == 0, done.err
    assert versions(tmp_path / "d.onnx") == (8, [("", 17)])
    before = onnx.load(run / "model.onnx")  # as the file of an earlier version
    before.ir_version = 10
    assert before.metadata_props.pop().key == "skystill_sha256"
    onnx.save(before, tmp_path / "before.onnx")
    quantize_model(tmp_path / "before.onnx", tmp_path / "q.onnx", [paint_scene(64, 9)[0]], lambda path: 1.0)
    assert versions(tmp_path / "q.onnx") == (8, [("", 18)])
    assert stored(tmp_path / "q.onnx") == 0.3


def test_the_resolution_of_the_training_images_is_kept(run: Path, tmp_path: Path, skystill: Cli) -> None:
    assert stored(run / "model.onnx") == 0.3
    for flags, expected in ((), 0.3), (("--resolution", 0.5), 0.5):
        done = skystill("export", run, "--out", tmp_path / "m.onnx", *flags)
        assert done.code == 0, done.err
        assert stored(tmp_path / "m.onnx") == expected
    done = skystill("export", run, "--out", tmp_path / "d.onnx", "--format", "deepness")
    assert done.code == 0, done.err
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(tmp_path / "d.onnx").metadata_props}
    assert metadata["resolution"] == 30.0  # cm per pixel
    assert metadata["class_names"] == {"0": "low", "1": "high"}


def test_a_run_without_its_model_file_is_exported_with_the_resolution(run: Path, tmp_path: Path, skystill: Cli) -> None:
    """As a run of an earlier version, whose file stores none."""
    whole = (run / "model.onnx").read_bytes()
    try:
        (run / "model.onnx").write_bytes(whole[:1000])
        done = skystill("export", run, "--out", tmp_path / "m.onnx")
    finally:
        (run / "model.onnx").write_bytes(whole)
    assert done.code == 0, done.err
    assert stored(tmp_path / "m.onnx") == 0.3


def test_resolutions_that_differ_are_told_and_not_stored(tmp_path: Path) -> None:
    events: list[Event] = []
    run = train(write_data(tmp_path / "data", 0.3, 0.6, 0.3, 0.6, 0.3, 0.6, 0.3, 0.6), tmp_path / "run", events)
    assert stored(run / "model.onnx") is None
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("the training images have 0.3 to 0.6 m per pixel" in note for note in notes)
