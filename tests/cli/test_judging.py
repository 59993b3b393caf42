"""Whether scores, INT8 files and exports belong to the images and classes that they are said to belong to."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from PIL import Image

from skystill.data.scenes import write_scene, write_scene_classes
from skystill.errors import DataError, SettingsError
from skystill.model.quantize import quantize_model
from skystill.report.int8 import quantize_on_data
from skystill.run_folder import RunFolder
from skystill.settings import QuantizeSettings
from tests.cli.conftest import TINY, Done

Cli = Callable[..., Done]


@pytest.fixture
def run(teacher: Path, tmp_path: Path) -> Path:
    """A copy of a trained run, which the test may change."""
    copy = tmp_path / "run"
    shutil.copytree(teacher, copy)
    return copy


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    """A copy of its data."""
    copy = tmp_path / "data"
    shutil.copytree(scenes, copy)
    return copy


def split_of(run: Path) -> dict[str, list[str]]:
    return json.loads((run / "split.json").read_text())


def file_of(data: Path, folder: str, key: str) -> Path:
    return next(path for path in (data / folder).iterdir() if path.stem == Path(key).stem)


@pytest.mark.parametrize(
    ("part", "says"), [("train", "were trained on: the scores are too good"), ("validation", "were validated on")]
)
def test_evaluate_prints_that_images_were_seen(part: str, says: str, run: Path, skystill: Cli, tmp_path: Path) -> None:
    split = split_of(run)
    (tmp_path / "leak.json").write_text(json.dumps({"train": split["test"], "test": split[part]}))
    done = skystill("evaluate", run, "--split", tmp_path / "leak.json")
    assert done.code == 0, done.err
    count = len(split[part])
    assert f"note: {count} of these {count} test images {says}" in " ".join(done.out.split())


def test_images_of_other_data_are_known_by_their_bytes(run: Path, data: Path, skystill: Cli, tmp_path: Path) -> None:
    """The same names of another place are no leak, and other names of the same images are one."""
    other, renamed = tmp_path / "other", tmp_path / "renamed"
    write_scene_classes(other)
    for index in range(12):
        write_scene(other, index, 96, seed=77)
    names = {path.name for path in (other / "images").iterdir()}
    assert names == {path.name for path in (data / "images").iterdir()}
    shutil.copytree(data, renamed)
    for folder in ("images", "masks"):
        for path in (renamed / folder).iterdir():
            path.rename(path.with_name(f"x{path.name}"))
    (tmp_path / "s.json").write_text(json.dumps({"train": split_of(run)["test"], "test": split_of(run)["train"]}))
    done = skystill("evaluate", run, "--data", other, "--split", tmp_path / "s.json")
    assert done.code == 0 and "trained on" not in done.out, done.out + done.err
    done = skystill("evaluate", run, "--data", renamed, "--split", "0.4/0/0.6")
    assert done.code == 0, done.err
    known = {f"x{Path(key).stem}" for key in split_of(run)["train"]}
    tested = json.loads((run / "results.json").read_text())["data"]["test_images"]
    seen = sum(Path(key).stem in known for key in tested)
    assert seen and f"{seen} of these {len(tested)} test images were trained on" in " ".join(done.out.split())


def test_an_export_has_no_scores_of_other_images(run: Path, data: Path, skystill: Cli, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    assert skystill("export", run, "--out", out).code == 0
    scored = {one.key: one.value for one in onnx.load(out).metadata_props}["scores"]
    assert json.loads(scored)["miou"] > 0
    split = split_of(run)
    (tmp_path / "leak.json").write_text(json.dumps({"train": split["test"], "test": split["train"]}))
    for flags in (["--split", tmp_path / "leak.json"], ["--data", data, "--split", "0.5/0.1/0.4"]):
        assert skystill("evaluate", run, *flags).code == 0
        out.unlink()
        done = skystill("export", run, "--out", out)
        assert done.code == 0 and "written without scores" in " ".join(done.err.split()), done.err
        assert json.loads({one.key: one.value for one in onnx.load(out).metadata_props}["scores"]) == {}


def test_quantize_takes_the_images_of_the_run_or_says_so(run: Path, data: Path, skystill: Cli) -> None:
    key = split_of(run)["train"][0]
    for folder in ("images", "masks"):
        file_of(data, folder, key).unlink()
    done = skystill("quantize", run / "model.onnx", "--data", data)
    said = " ".join(done.err.split())
    assert done.code == 2 and "are gone" in said and key in said and not (run / "model-int8.onnx").exists()
    for folder in ("images", "masks"):
        for path in (data / folder).iterdir():
            path.rename(path.with_name(f"x{path.name}"))
    done = skystill("quantize", run / "model.onnx", "--data", data)
    assert done.code == 0 and "they are split anew" in " ".join(done.err.split()), done.err


def test_quantize_reads_masks_with_the_classes_of_the_data(run: Path, data: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((data / "classes.yaml").read_text())
    settings = QuantizeSettings(model=run / "model.onnx", data=data, out=tmp_path / "o.onnx")
    before = quantize_on_data(settings).quantized.float_score
    colors = [entry["color"] for entry in content["classes"]]
    turned = dict(zip(colors, colors[1:] + colors[:1], strict=True))
    for path in (data / "masks").iterdir():  # the same masks in other colours, as the file says
        mask = np.array(Image.open(path).convert("RGB"))
        new = mask.copy()
        for old, other in turned.items():
            found = (mask == np.array(bytearray.fromhex(old[1:]))).all(axis=2)
            new[found] = bytearray.fromhex(other[1:])
        Image.fromarray(new).save(path)
    for entry in content["classes"]:
        entry["color"] = turned[entry["color"]]
    (data / "classes.yaml").write_text(yaml.safe_dump(content))
    assert quantize_on_data(settings).quantized.float_score == pytest.approx(before)
    content["classes"][0]["name"] = "car"
    (data / "classes.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match=r"knows the classes .*; .*classes\.yaml has car, "):
        quantize_on_data(settings)


def test_evaluate_takes_the_classes_beside_other_data(
    run: Path, data: Path, scenes: Path, skystill: Cli, tmp_path: Path
) -> None:
    """A run that was given --classes reads its own masks with these, and those of others as their file says."""
    shutil.copy(scenes / "classes.yaml", tmp_path / "given.yaml")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "classes": str(tmp_path / "given.yaml")}))
    assert skystill("evaluate", run).code == 0
    own = json.loads((run / "results.json").read_text())["models"]["teacher"]["scores"]["miou"]
    for path in (data / "masks").iterdir():
        mask = np.array(Image.open(path).convert("RGB"))
        Image.fromarray(255 - mask).save(path)
    content = yaml.safe_load((data / "classes.yaml").read_text())
    for entry in content["classes"]:
        entry["color"] = "#" + "".join(f"{255 - part:02X}" for part in bytearray.fromhex(entry["color"][1:]))
    content["void"] = [
        "#" + "".join(f"{255 - part:02X}" for part in bytearray.fromhex(color[1:])) for color in content.get("void", [])
    ]
    (data / "classes.yaml").write_text(yaml.safe_dump(content))
    done = skystill("evaluate", run, "--data", data)
    assert done.code == 0, done.err
    found = json.loads((run / "results.json").read_text())["models"]["teacher"]["scores"]["miou"]
    assert found == pytest.approx(own)


def test_quantize_without_a_labelled_pixel_or_within_no_limit(run: Path, data: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((data / "classes.yaml").read_text())
    content["void"] = [*content.get("void", []), "#010101"]
    (data / "classes.yaml").write_text(yaml.safe_dump(content))
    for key in split_of(run)["validation"]:
        path = file_of(data, "masks", key)
        with Image.open(path) as mask:
            size = mask.size
        Image.new("RGB", size, (1, 1, 1)).save(path)
    out = tmp_path / "o.onnx"
    with pytest.raises(DataError, match="no labelled pixel of a class that is scored"):
        quantize_on_data(QuantizeSettings(model=run / "model.onnx", data=data, out=out))
    images = [np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)]
    scores = {"model.onnx": 0.9}
    with pytest.raises(
        SettingsError, match=r"costs 40\.0 points of mIoU \(90\.0 to 50\.0\), and --max-drop allows 0\.5"
    ):
        quantize_model(run / "model.onnx", out, images, lambda path: scores.get(path.name, 0.5))
    assert not out.exists()


@pytest.mark.parametrize("flags", [["--quantize"], ["--max-size=1MB"]])
def test_int8_needs_validation_images_before_the_training(
    flags: list[str], teacher: Path, scenes: Path, skystill: Cli, tmp_path: Path
) -> None:
    done = skystill("distill", f"--data={scenes}", f"--teacher={teacher}", f"--out={tmp_path}/r", "--epochs=1",
                    *TINY[:3], "--split=0.6/0/0.4", *flags)  # fmt: skip
    assert done.code == 2 and "scored on the validation images" in " ".join(done.err.split())
    assert not (tmp_path / "r/metrics.csv").exists()


def test_the_student_alone_has_the_epochs_for_int8_too(
    teacher: Path, scenes: Path, skystill: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "r"
    done = skystill("distill", f"--data={scenes}", f"--teacher={teacher}", f"--out={out}", "--student=two-level",
                    "--epochs=4", "--quantize", *TINY)  # fmt: skip
    assert done.code == 0, done.err
    models = json.loads((out / "results.json").read_text())["models"]
    student, alone = (models[role]["training"] for role in ("student", "alone"))
    assert (student["int8_epochs"], alone["int8_epochs"]) == (1, 0)
    assert student["steps"] + student["int8_steps"] == alone["steps"] == 5 * student["steps"] // 4
    assert "was trained further with the rounding of INT8, for 1 epoch(s); the student alone was given" in done.out


def test_a_model_file_of_another_name_is_not_the_network_of_the_run(run: Path) -> None:
    shutil.copy(run / "model.onnx", run / "student.onnx")
    assert RunFolder(run).model.name == "model.onnx"
    (run / "model.onnx").unlink()
    assert RunFolder(run).model.name == "student.onnx"  # as earlier versions called it


@pytest.mark.parametrize("how", ["0.7/0.15/0.15.", "0.7..1/0.2/0.1", "../1/2", "././.", "0.7/0.3"])
def test_a_split_that_is_mistyped_ends_in_words(how: str, scenes: Path, skystill: Cli) -> None:
    done = skystill("data", "check", scenes, "--split", how)
    assert done.code == 2 and "internal error" not in done.err, done.err


def test_nothing_is_imported_from_the_current_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "statistics.py").write_text("raise RuntimeError('a script of the user was imported')\n")
    command = [str(Path(sys.executable).with_name("skystill")), "measure", str(run / "model.onnx")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
