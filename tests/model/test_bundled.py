import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skystill.classes import DUBAI
from skystill.data.scenes import paint_scene
from skystill.model.bundled import bundled_model, model_card
from skystill.predict import Predictor
from tests.cli.conftest import Done, process


def test_it_is_small_and_knows_the_classes_of_dubai() -> None:
    assert bundled_model().stat().st_size < 500_000
    predictor = Predictor(bundled_model())
    assert predictor.classes.names == DUBAI.names
    assert predictor.info.precision == "int8"
    labels = predictor.labels(paint_scene(300, 4)[0])
    assert labels.shape == (300, 300) and len(np.unique(labels)) > 1


def test_the_card_says_what_it_was_trained_on_and_where_it_fails() -> None:
    card = model_card()
    assert "CC0" in card and "## Where it fails" in card
    for name in DUBAI.names[:5]:
        assert re.search(rf"\| {name} \| \d\d\.\d \|", card), name


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_card_is_shown_to_its_end(columns: int) -> None:
    command = [sys.executable, "-m", "skystill", "box"]
    environment = os.environ | {"COLUMNS": str(columns)}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    said = set(re.findall(r"[a-z]{3,}", model_card().split("## Where it fails")[1]))
    assert len(said) > 30 and said <= set(re.findall(r"[a-z]{3,}", shown))


@pytest.mark.slow
def test_a_photograph_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(paint_scene(200, 5)[0]).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    done: Done = process("predict", "photo.jpg")
    assert done.code == 0, done.err
    assert "the bundled student (classes of Dubai) is used" in done.err
    with Image.open("classes/photo.png") as found:
        assert found.size == (200, 200) and found.mode == "P"
