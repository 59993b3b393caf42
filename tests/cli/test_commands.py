import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from skystill.api.processes import to_arguments
from skystill.data import read_image
from skystill.errors import SettingsError
from skystill.predict import Predictor
from skystill.report.samples import paint_disagreement
from skystill.settings import DistillSettings
from skystill.train.runs import distill_run
from tests.cli.conftest import TINY, Done

Cli = Callable[..., Done]
pytestmark = pytest.mark.slow


def test_data_check_prints_sizes_classes_and_split(skystill: Cli, scenes: Path) -> None:
    done = skystill("data", "check", scenes)
    assert done.code == 0
    assert "12 pairs in" in done.out
    assert "sizes from 128x128 to 128x128 pixels" in done.out
    assert re.search(r"Building.*#3C1098.*%", done.out)
    assert "split auto, classes spread by area, seed 0: 8 train, 2 validation, 2 test images" in done.out
    assert re.search(r"pixels per class +train \(8 images\) +validation \(2 images\) +test \(2 images\)", done.out)
    assert "2 test image(s) give scores without an interval" in done.err


def test_networks_lists_the_table(skystill: Cli) -> None:
    done = skystill("networks")
    assert done.code == 0
    assert re.search(r"two-level.*25,766.*13\.7 G", done.out)


def test_train_leaves_a_whole_run_folder(teacher: Path) -> None:
    for name in ("config.yaml", "split.json", "metrics.csv", "results.json", "report.html", "training.json"):
        assert (teacher / name).stat().st_size > 0, name
    rows = list(csv.DictReader((teacher / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"loss", "student_loss", "miou", "validation_student_loss", "validation_miou"} <= set(rows[0])
    assert not list(teacher.rglob(".part-*"))


def test_distill_compares_three_models_on_the_same_images(student: Path, teacher: Path) -> None:
    results = json.loads((student / "results.json").read_text())
    assert set(results["models"]) == {"teacher", "alone", "student"}
    assert set(results["comparisons"]) == {"student-teacher", "student-alone", "alone-teacher"}
    steps = {name: model["training"]["steps"] for name, model in results["models"].items()}
    assert steps["alone"] == steps["student"] == 3 * 6
    for model in results["models"].values():
        assert model["scores"]["images"] == len(results["data"]["test_images"]) == 5
        assert model["scores"]["pixels"] == 5 * 128 * 128  # whole images
        low, high = model["scores"]["miou_interval"]
        assert low <= model["scores"]["miou"] <= high
        assert model["cost"]["peak_rss_bytes"] > 50e6
        assert model["training"]["peak_rss_bytes"] > 100e6
    assert results["models"]["alone"]["cost"]["parameters"] == results["models"]["student"]["cost"]["parameters"]
    history = results["models"]["student"]["training"]["history"]
    assert {"loss", "student_loss", "distillation_loss", "validation_student_loss"} <= set(history[0])
    assert history[0]["loss"] == pytest.approx(
        0.3 * history[0]["student_loss"] + 0.7 * history[0]["distillation_loss"], rel=1e-5
    )


def test_the_scores_are_those_of_the_model_file(student: Path, scenes: Path) -> None:
    results = json.loads((student / "results.json").read_text())
    predictor = Predictor(student / "student.onnx")
    colors = np.array(predictor.classes.colors)
    confusion = np.zeros((5, 5), int)
    for key in results["data"]["test_images"]:
        image = read_image(scenes / f"images/{key}.jpg")
        mask = read_image(scenes / f"masks/{key}.png")
        truth = (mask[:, :, None] == colors).all(-1).argmax(-1)
        np.add.at(confusion, (truth, predictor.labels(image)), 1)
    assert results["models"]["student"]["scores"]["confusion"] == confusion.tolist()


def test_the_report_is_one_file_that_says_what_was_found(student: Path) -> None:
    page = (student / "report.html").read_text()
    results = json.loads((student / "results.json").read_text())
    assert len(results["verdict"]) == 4
    assert results["verdict"][3].startswith("Intervals from 5 test images are too narrow")
    for line in results["verdict"]:
        assert line in page
    assert not re.findall(r'(?:src|href|srcset)="(?!data:)', page)
    for words in (
        "prefers-color-scheme: dark",
        "width=device-width",
        "Precision against recall",
        "Peak memory in training",
    ):
        assert words in page
    assert len(results["samples"]) == 5
    for kind in ("image", "truth", "teacher", "student", "disagreement"):
        assert (student / "samples" / results["samples"][0][kind]).exists()
    for plot in ("losses", "precision-recall", "confusion"):
        for theme in ("", "-dark"):
            assert read_image(student / f"plots/{plot}{theme}.png").shape[1] > 400


def test_the_config_is_enough_to_run_again(student: Path, skystill: Cli, tmp_path: Path) -> None:
    config = yaml.safe_load((student / "config.yaml").read_text())
    assert (config["alpha"], config["temperature"], config["seed"]) == (0.3, 2.0, 0)
    settings = DistillSettings(**config | {"out": tmp_path / "again", "alone": False})
    flags = to_arguments(settings)
    done = skystill("distill", *flags, "--no-report")
    assert done.code == 0, done.err
    one, other = (load_file(run / "checkpoints/model.safetensors") for run in (student, tmp_path / "again"))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_evaluate_scores_on_another_split_and_warns_of_a_leak(teacher: Path, skystill: Cli, tmp_path: Path) -> None:
    split = json.loads((teacher / "split.json").read_text())
    leaky = tmp_path / "leaky.json"
    leaky.write_text(json.dumps({"train": split["test"], "test": split["train"]}))
    before = (teacher / "results.json").read_text()
    done = skystill("evaluate", teacher, "--split", leaky)
    assert done.code == 0, done.err
    assert "6 of these 6 test images were trained on" in (teacher / "report.html").read_text()
    skystill("evaluate", teacher)
    after = json.loads((teacher / "results.json").read_text())
    assert after["models"]["teacher"]["scores"] == json.loads(before)["models"]["teacher"]["scores"]


def test_limit_images_draws_by_seed_and_writes_the_sample(scenes: Path, tmp_path: Path, skystill: Cli) -> None:
    out = tmp_path / "run"
    done = skystill(
        "train", "--data", scenes, "--out", out, "--network=two-level", "--epochs=1", "--limit-images=3", "--no-report",
        *TINY,
    )  # fmt: skip
    assert done.code == 0, done.err
    config = yaml.safe_load((out / "config.yaml").read_text())
    split = json.loads((out / "split.json").read_text())
    assert config["sampled_images"] == split["train"]
    assert len(split["train"]) == 3


def test_the_disagreement_picture_by_hand() -> None:
    labels = np.array([[0, 0, 0, 0, 255]], np.uint8)
    teacher, student = np.array([[0, 1, 0, 1, 0]], np.uint8), np.array([[0, 0, 1, 1, 0]], np.uint8)
    picture = paint_disagreement(labels, teacher, student)
    assert picture[0].tolist() == [[225] * 3, [0, 114, 178], [213, 94, 0], [120] * 3, [0] * 3]


def test_a_cached_teacher_leaves_after_one_pass(scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli) -> None:
    shared = ["--data", scenes, "--teacher", teacher, f"--cache={tmp_path / 'logits'}", "--split=0.5/0.1/0.4"]
    filled = skystill("cache", *shared)
    assert filled.code == 0 and "teacher's logits of 6 image(s)" in filled.err
    assert len(list((tmp_path / "logits").rglob("*.safetensors"))) == 6
    flags = ["--student=two-level", "--epochs=2", "--no-alone", "--no-report", "--teacher-mode=cached", *TINY]
    done = skystill("distill", *shared, "--out", tmp_path / "s", *flags)
    assert done.code == 0, done.err
    assert len((tmp_path / "s/metrics.csv").read_text().splitlines()) == 3
    shutil.rmtree(tmp_path / "logits")
    settings = DistillSettings(
        data=scenes, teacher=[str(teacher)], out=tmp_path / "t", cache=tmp_path / "logits", teacher_mode="cached"
    )
    with pytest.raises(SettingsError, match=r"images have no logits of .*it is empty.*skystill cache"):
        distill_run(settings)
    assert not (tmp_path / "t").exists()
