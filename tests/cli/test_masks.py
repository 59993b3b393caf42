"""Masks of label numbers at half the size of their image, from `data check` to the scores."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from skystill.data.masks import fit_labels, read_labels
from skystill.data.scenes import SCENE_CLASSES
from skystill.model.file import open_session, read_info
from skystill.predict.predictor import Predictor
from tests.cli.conftest import TINY, Done

Cli = Callable[..., Done]


@pytest.fixture
def numbered(scenes: Path, tmp_path: Path) -> Path:
    """The scenes with masks as public data sets have them: 10, 20, ... with 0 as void, at half the size."""
    data = tmp_path / "data"
    shutil.copytree(scenes / "images", data / "images")
    (data / "masks").mkdir()
    for path in (scenes / "masks").glob("*.png"):
        labels = read_labels(path, SCENE_CLASSES).labels
        stored = np.where(labels == 255, 0, 10 * (labels + 1)).astype(np.uint8)
        stored[:4] = 0
        Image.fromarray(stored[::2, ::2]).save(data / "masks" / path.name)
    entries = [{"index": 0, "name": "undefined", "colour": [0, 0, 0]}]
    for label, (name, color) in enumerate(zip(SCENE_CLASSES.names, SCENE_CLASSES.colors, strict=True)):
        scored = {"scored": False} if name in SCENE_CLASSES.unscored else {}
        entries.append({"index": 10 * (label + 1), "name": name, "colour": list(color), **scored})
    (data / "classes.json").write_text(json.dumps({"ignore_index": 0, "encoding": "index", "classes": entries}))
    return data


def test_masks_of_another_size_are_offered_the_option(numbered: Path, skystill: Cli) -> None:
    for command in (["data", "check", numbered], ["train", "--data", numbered, "--out", numbered.parent / "run"]):
        done = skystill(*command)
        assert done.code == 2
        assert "12 masks have another size than their image" in done.err
        assert "with --fit-masks each pixel takes the nearest one of the mask" in " ".join(done.err.split())
    done = skystill("data", "check", numbered, "--fit-masks")
    assert done.code == 0, done.err
    assert re.search(r"\b1\W+20\W+Land\b", done.out), done.out  # label, value, class
    assert "12 mask(s) are fitted" in " ".join(done.err.split())


@pytest.mark.slow
def test_a_run_keeps_how_its_masks_are_read(numbered: Path, tmp_path: Path, skystill: Cli) -> None:
    run = tmp_path / "run"
    done = skystill(
        "train", "--data", numbered, "--out", run, "--network=two-level", "--epochs=2", "--fit-masks", *TINY
    )
    assert done.code == 0, done.err
    assert yaml.safe_load((run / "config.yaml").read_text())["fit_masks"] is True
    classes = read_info(open_session(run / "model.onnx"), run / "model.onnx").classes
    assert (classes.values, classes.void_values) == (tuple(range(10, 10 * len(classes) + 1, 10)), (0,))
    # Scores, worked out here from the files alone: of the test images, at the size of the images, without void.
    results = json.loads((run / "results.json").read_text())
    predictor = Predictor(run / "model.onnx")
    right, total = 0, 0
    for key in results["data"]["test_images"]:
        image = np.asarray(Image.open(numbered / f"images/{key}.jpg"))
        stored = np.asarray(Image.open(numbered / f"masks/{key}.png")).repeat(2, axis=0).repeat(2, axis=1)
        predicted = predictor.labels(image)
        assert predicted.max() < len(classes)  # a class raster holds labels, not the values of masks
        right += int((10 * (predicted.astype(int) + 1) == stored)[stored > 0].sum())
        total += int((stored > 0).sum())
    assert total == results["models"]["teacher"]["scores"]["pixels"]
    assert results["models"]["teacher"]["scores"]["pixel_accuracy"] == pytest.approx(right / total, abs=1e-4)
    refused = skystill("evaluate", run, "--data", numbered, "--no-fit-masks")
    assert refused.code == 2
    assert "64x64 pixels; its image" in refused.err
    quantized = skystill("quantize", run / "model.onnx", "--data", numbered, "--max-drop=100", "--images=2")
    assert quantized.code == 0, quantized.err


def test_halving_and_fitting_keep_blocks() -> None:
    labels = np.kron(np.array([[1, 2], [3, 4]], np.uint8), np.ones((4, 4), np.uint8))
    assert fit_labels(labels[::2, ::2], (8, 8)).tolist() == labels.tolist()
