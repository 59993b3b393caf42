"""Every file that SkyStill writes runs in ONNX Runtime 1.17.0, with the logits that it has here."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from skystill import api
from skystill.classes import ClassMap
from skystill.data.scenes import paint_scene
from skystill.model.bundled import bundled_model
from skystill.model.file import open_session
from skystill.model.quantize import quantize_model

CLASSES = ClassMap(("roof", "grass", "road"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
NOISE = np.random.default_rng(1).integers(0, 256, (1, 3, 512, 512), np.uint8)
FAST, PLAIN = "ORT_ENABLE_ALL", "ORT_DISABLE_ALL"  # levels of graph optimisation


def in_the_old_runtime(
    model: Path, given: npt.NDArray[Any], level: str = FAST
) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Return the output of a model file, and what `run_model.py` printed. A failure raises with its last line."""
    taken, result = model.with_suffix(".in.npy"), model.with_suffix(".out.npy")
    np.save(taken, given)
    script = str(Path(__file__).with_name("run_model.py"))
    command = [os.environ["OLD_RUNTIME_PYTHON"], script, str(model), str(taken), str(result), level]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    if done.returncode:
        raise OSError(done.stderr.strip().splitlines()[-1])
    return np.load(result), json.loads(done.stdout)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds of model file, from a training on GeoTIFFs of 0.25 m."""
    folder = tmp_path_factory.mktemp("files")
    data = folder / "data"
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True)
    for index in range(6):
        image = paint_scene(96, index)[0]
        place = {"crs": "EPSG:32640", "transform": from_origin(3e5 + 24 * index, 2.7e6, 0.25, 0.25)}
        shape = {"width": 96, "height": 96, "count": 3, "dtype": "uint8"}
        with rasterio.open(data / f"images/{index}.tif", "w", driver="GTiff", **shape, **place) as file:
            file.write(image.transpose(2, 0, 1))
        labels = (image.astype(int).sum(axis=2) // 256).astype(np.uint8)
        Image.fromarray(labels).save(data / f"masks/{index}.png")
    (data / "classes.yaml").write_text(json.dumps(CLASSES.to_dict()))
    run = api.train(
        data=data, out=folder / "run", network="kite-nano", epochs=2, crop=32, batch_size=4, crops_per_image=4,
        split="0.5/0.1/0.4", report=False,
    )  # fmt: skip
    (folder / "model.onnx").write_bytes(run.model.read_bytes())
    (folder / "bundled.onnx").write_bytes(bundled_model().read_bytes())
    api.export(run=run.path, out=folder / "again.onnx", format="onnx")
    api.export(run=run.path, out=folder / "deepness.onnx", format="deepness")
    images = [paint_scene(96, seed)[0] for seed in range(4)]
    quantize_model(folder / "model.onnx", folder / "int8.onnx", images, lambda path: 1.0)
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "again.onnx", "deepness.onnx"])
def test_it_gives_the_same_logits(files: Path, name: str) -> None:
    image = NOISE.astype(np.float32) / 255 if name == "deepness.onnx" else NOISE[:, :, :75, :141]
    expected = open_session(files / name).run(None, {"image": image})[0]
    found, said = in_the_old_runtime(files / name, image)
    assert said["runtime"] == "1.17.0"
    assert found.shape == expected.shape and found.dtype == np.float32 and np.ptp(expected) > 0
    assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.999


@pytest.mark.parametrize("name", ["int8.onnx", "bundled.onnx"])
def test_int8_gives_the_same_logits_with_plain_kernels(files: Path, name: str) -> None:
    """Fused kernels of ONNX Runtime 1.17 round in other ways: a logit moves by one step on average (docs/log.md)."""
    image = np.ascontiguousarray(paint_scene(150, 8)[0].transpose(2, 0, 1))[None]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    here = onnxruntime.InferenceSession(files / name, options, providers=["CPUExecutionProvider"])
    expected = here.run(None, {"image": image})[0]
    plain, _ = in_the_old_runtime(files / name, image, PLAIN)
    assert np.abs(plain - expected).max() <= 1e-5 * np.abs(expected).max()
    fast, _ = in_the_old_runtime(files / name, image)
    assert (fast.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9


def test_an_odd_size_and_several_images_at_once(files: Path) -> None:
    images = np.concatenate([NOISE[:, :, :33, :65], NOISE[:, :, 40:73, 40:105]])
    expected = open_session(files / "model.onnx").run(None, {"image": images})[0]
    found, _ = in_the_old_runtime(files / "model.onnx", images)
    assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


def test_the_old_runtime_refuses_a_newer_file(files: Path) -> None:
    """As every file was before: otherwise the tests above would show nothing."""
    model = onnx.load(files / "model.onnx")
    model.ir_version = 10
    onnx.save(model, files / "ir10.onnx")
    with pytest.raises(OSError, match="Unsupported model IR version: 10"):
        in_the_old_runtime(files / "ir10.onnx", NOISE)
    model.ir_version = 8
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 5))  # what ONNX Runtime's quantiser lists
    onnx.save(model, files / "ml5.onnx")
    with pytest.raises(OSError, match=r"ai\.onnx\.ml"):
        in_the_old_runtime(files / "ml5.onnx", NOISE)


def test_the_plugin_finds_every_key(files: Path) -> None:
    _, said = in_the_old_runtime(files / "deepness.onnx", NOISE.astype(np.float32) / 255)
    assert said["input"] == [1, 3, 512, 512]
    deepness = {
        "model_type": "Segmentor",
        "class_names": {"0": "roof", "1": "grass", "2": "road"},
        "resolution": 25.0,  # cm per pixel, from the GeoTIFFs
        "tile_size": 512,
        "tiles_size": 512,
        "tiles_overlap": 25,  # percent of the tile: 128 pixels
        "standardization_mean": [0.0, 0.0, 0.0],
        "standardization_std": [1.0, 1.0, 1.0],
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    assert {key: said["metadata"][key] for key in deepness} == deepness
