"""Scores and calibration on maps: blocks count as images, and classes know their features."""

from pathlib import Path

import numpy as np
import pytest

from skystill.classes import VOID, ClassMap
from skystill.data import find_pairs, read_pairs
from skystill.errors import DataError
from skystill.progress import ignore_progress
from skystill.report.int8 import _images
from skystill.report.metrics import evaluate
from skystill.settings import QuantizeSettings
from tests.maps import box, write_classes, write_layer, write_raster

CLASSES = ClassMap(("Land", "Roof"), ((0, 0, 0), (1, 1, 1)))


def test_windows_of_a_block_are_one_image() -> None:
    image, labels = np.zeros((2, 2, 3), np.uint8), np.array([[0, 1], [1, VOID]], np.uint8)
    keys = ["a#0-0[0:2,0:2]", "a#0-1[0:2,4:6]", "a#0-0[0:2,2:4]", "a[0:2,6:8]", "a[0:2,8:10]", "b", "c"]
    found = evaluate(
        lambda _: np.stack([np.ones((2, 2)), np.zeros((2, 2))]), [(key, image, labels) for key in keys], CLASSES
    )
    assert found.keys == ("a#0-0", "a#0-1", "a[0:2,6:8]", "a[0:2,8:10]", "b", "c")
    assert found.confusion[:, 0, 0].tolist() == [2, 1, 1, 1, 1, 1]
    assert found.confusion[:, 1, 0].tolist() == [4, 2, 2, 2, 2, 2]
    assert found.scores().images == 6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    transform = write_raster(tmp_path / "ortho.tif", 1024, 1024, values=np.ones((3, 1024, 1024), np.uint8))
    write_layer(
        tmp_path / "labels.gpkg", [box(transform, 0, 1024, left, left + 20) for left in range(0, 1000, 100)], "a"
    )
    write_classes(tmp_path, {"Land": "rest", "Roof": "{layer: a}"})
    return tmp_path


def test_a_model_is_quantised_on_the_classes_of_the_map(root: Path) -> None:
    settings = QuantizeSettings(model=root / "model.onnx", data=root, split="blocks:256/0")
    train, validation, classes = _images(settings, CLASSES, ignore_progress)
    assert len(train) > len(validation) > 0
    counts = sum(np.bincount(labels.ravel(), minlength=2) for _, _, labels in read_pairs(train, classes))
    assert counts[1] / counts.sum() == pytest.approx(0.2, abs=0.02)  # 200 of 1,024 columns
    other = ClassMap(("Land", "Road"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(DataError, match=r"knows the classes Land, Road; .*classes.yaml has Land, Roof"):
        _images(settings, other, ignore_progress)


def test_a_limit_of_images_is_not_called_a_gap(root: Path) -> None:
    from skystill.data.prepare import prepare_data
    from skystill.settings import TrainSettings

    given = {"data": root, "out": root / "run", "split": "blocks:256/0"}
    for more in ({}, {"limit_images": 2}):
        prepared = prepare_data(TrainSettings(**given, **more))
        assert not [note for note in prepared.notes if "are in no part" in note]
    assert len(prepared.split.train) == 2
    assert len(find_pairs(root).pairs) == 16
