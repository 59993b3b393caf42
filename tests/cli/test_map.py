"""From a raster with polygons to a student, by the commands."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from skystill.data.split import PARTS
from tests.cli.conftest import Done
from tests.maps import box, write_classes, write_layer, write_raster

TINY = ["--epochs=1", "--crop=32", "--batch-size=4", "--crops-per-image=1", "--split=blocks:128/16"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of 1,280 x 1,280 pixels of half a metre: 5 x 5 windows of 256, four rows labelled; roofs are bright."""
    folder = tmp_path_factory.mktemp("map")
    rng = np.random.default_rng(1)
    values = rng.integers(20, 60, (3, 1280, 1280)).astype(np.uint8)
    places = [(int(y), int(x)) for y, x in rng.uniform(0, 1240, (120, 2))]
    for y, x in places:
        values[:, y : y + 30, x : x + 40] = 220
    transform = write_raster(folder / "ortho.tif", 1280, 1280, 0.5, values=values, tiled=True, compress="deflate")
    write_layer(folder / "labels.gpkg", [box(transform, y, y + 30, x, x + 40) for y, x in places], "roofs")
    write_layer(folder / "area.gpkg", [box(transform, 0, 1024, 0, 1280)])
    write_classes(folder, {"Land": "rest", "Roof": "{layer: roofs}"})
    return folder


@pytest.mark.slow
def test_a_map_teaches_and_is_scored(root: Path, tmp_path: Path, skystill: Callable[..., Done]) -> None:
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    done = skystill("train", "--data", root, "--out", teacher, "--network=two-level", "--no-report", *TINY)
    assert done.code == 0, done.err
    note = (
        "196,608 pixels of ortho.tif have data and no labels. A student learns from them, too, with: skystill distill"
    )
    assert f"{note} --unlabeled {root}" in " ".join(done.err.split())
    split = json.loads((teacher / "split.json").read_text())
    shown = json.loads((teacher / "split.geojson").read_text())
    assert [feature["properties"]["key"] for feature in shown["features"]] == [k for part in PARTS for k in split[part]]
    student_of = (
        "--teacher",
        teacher,
        "--student=two-level",
        "--no-alone",
        "--teacher-mode=cached",
        "--cache-symmetry=none",
        "--unlabeled",
        root,
    )
    done = skystill("distill", "--data", root, "--out", student, *student_of, *TINY, "--split=auto")
    assert done.code == 0, done.err
    assert [again["gap"] for again in (split, json.loads((student / "split.json").read_text()))] == [[32, 32]] * 2
    assert len(list((teacher / "logits").rglob("*.safetensors"))) > len(split["train"])
    again = json.loads((student / "split.json").read_text())
    assert [again[part] for part in PARTS] == [split[part] for part in PARTS]  # that of its teacher
    results = json.loads((student / "results.json").read_text())
    blocks = sorted({key.split("[")[0] for key in split["test"]})
    assert results["data"]["test_images"] == blocks
    assert results["models"]["student"]["scores"]["images"] == len(blocks) == 5
    pixels = sum(
        (int(bottom) - int(top)) * (int(right) - int(left))
        for (top, bottom), (left, right) in (
            [part.split(":") for part in key.split("[")[1].rstrip("]").split(",")] for key in split["test"]
        )
    )
    assert results["models"]["student"]["scores"]["pixels"] == pixels
