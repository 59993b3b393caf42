"""`skystill.api` does what the commands do: the same run folder, the same files, the same errors."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from skystill import api
from skystill.errors import CommandFailed, DataError, RunFolderError, SettingsError
from skystill.progress import EpochEnd, Event, Progress
from skystill.report.records import read_results
from skystill.run_folder import RunFolder
from skystill.settings import DistillSettings, EvaluateSettings, MeasureSettings, PredictSettings, TrainSettings

TINY = {"crop": 32, "batch_size": 4, "crops_per_image": 4, "split": "0.5/0.1/0.4"}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def logged(path: Path) -> list[dict[str, str]]:
    """`metrics.csv` without what differs from run to run: how long it took."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if "second" not in name} for row in rows]


@pytest.mark.slow
def test_distill_in_python_makes_the_run_folder_of_the_command(scenes: Path, student: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    teacher = yaml.safe_load(RunFolder(student).config.read_text())["teacher"]
    run = api.distill(
        data=scenes, teacher=teacher, out=tmp_path / "student", student="two-level", epochs=3, alpha_end=0.3,
        on_progress=events.append, **TINY,
    )  # fmt: skip
    command = RunFolder(student)
    assert run.path == tmp_path / "student" and files(run.path) == files(command.path)
    configs = [yaml.safe_load(one.config.read_text()) for one in (run, command)]
    assert configs[0].pop("out") != configs[1].pop("out") and configs[0] == configs[1]
    for mine, other in ((run, command), (run.alone, command.alone)):
        weights, expected = load_file(mine.weights), load_file(other.weights)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in weights)
        assert logged(mine.metrics) == logged(other.metrics)
    found, expected_results = read_results(run), read_results(command)
    for role in ("teacher", "alone", "student"):
        assert found.models[role].scores == expected_results.models[role].scores
    assert found.comparisons == expected_results.comparisons
    for name in files(run.samples):
        assert (run.samples / name).read_bytes() == (command.samples / name).read_bytes()
    # the callback saw the training, the epochs and the scoring
    tasks = {event.task for event in events if isinstance(event, Progress)}
    assert {"two-level distilled", "evaluating student", "evaluating teacher", "measuring time and memory"} <= tasks
    assert [event.row["epoch"] for event in events if isinstance(event, EpochEnd)] == [1, 2, 3]


@pytest.mark.slow
def test_train_quantize_measure_and_predict_in_python(scenes: Path, tmp_path: Path) -> None:
    settings = TrainSettings(data=scenes, out=tmp_path / "run", network="two-level", epochs=1, **TINY)
    run = api.train(settings, report=False)
    assert run.model == tmp_path / "run/model.onnx" and run.model.is_file() and not run.report.exists()
    assert api.evaluate(EvaluateSettings(run=run.path)).report.is_file()
    (cost,) = api.measure(models=[run.model], save=tmp_path / "costs.json")
    assert cost.size_bytes == run.model.stat().st_size
    assert json.loads((tmp_path / "costs.json").read_text())["models"][0]["parameters"] == cost.parameters
    assert api.export(run=run.path, out=tmp_path / "again.onnx").is_file()
    events: list[Event] = []
    image = scenes / "images/scene_001.jpg"
    (done,) = api.predict(inputs=[str(image)], model=run.model, out=tmp_path / "c.png", on_progress=events.append)
    assert done.prediction.pixels == 128 * 128
    assert np.asarray(Image.open(tmp_path / "c.png")).shape == (128, 128)
    assert [event for event in events if isinstance(event, Progress)][-1].done == 128 * 128


def test_check_in_python_returns_what_is_there(scenes: Path) -> None:
    checked = api.check(data=scenes, split="0.5/0.25/0.25")
    assert checked.check.problems == () and len(checked.check.records) == 12
    assert checked.split is not None and len(checked.split.train) == 6


def test_paths_are_taken_alone_and_in_lists(tmp_path: Path) -> None:
    for teacher in ("runs/t", Path("runs/t"), ["runs/t"], [Path("runs/t")], (Path("runs/t"),)):
        assert DistillSettings(data=tmp_path, out=tmp_path, teacher=teacher).teacher == ["runs/t"]  # type: ignore[arg-type]
    assert PredictSettings(inputs=Path("a.tif")).inputs == ["a.tif"]  # type: ignore[arg-type]
    assert MeasureSettings(models="m.onnx").models == [Path("m.onnx")]  # type: ignore[arg-type]
    for verb, empty in ((api.predict, {"inputs": []}), (api.measure, {"models": []})):
        with pytest.raises(SettingsError, match="at least 1 item"):
            verb(**empty)


@pytest.mark.parametrize("given", ["data", {"data": "d"}, None.__class__])
def test_settings_of_another_kind_are_refused(given: object, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="this takes TrainSettings, or its fields as keywords"):
        api.train(given)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="the settings are EvaluateSettings; this takes TrainSettings"):
        api.train(EvaluateSettings(run=tmp_path))  # type: ignore[arg-type]


def test_settings_or_keywords_but_not_both(scenes: Path, tmp_path: Path) -> None:
    settings = TrainSettings(data=scenes, out=tmp_path / "run")
    with pytest.raises(SettingsError, match=r"give TrainSettings, or its fields as keywords \(epochs\), not both"):
        api.train(settings, epochs=3)
    with pytest.raises(SettingsError, match="--epoch 3"):
        api.train(data=scenes, out=tmp_path / "run", epoch=3)
    assert not (tmp_path / "run").exists()


def test_errors_are_those_of_the_commands(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        api.evaluate(run=tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        api.train(data=tmp_path / "nowhere", out=tmp_path / "run")


@pytest.mark.slow
def test_a_step_in_a_process_of_its_own_that_fails_is_an_error(scenes: Path, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, where the cache wants a folder")
    with pytest.raises(
        CommandFailed, match=r"skystill cache ended with exit code 2; its own message is above"
    ) as failed:
        api.distill(
            data=scenes,
            teacher=[str(teacher)],
            out=tmp_path / "s",
            teacher_mode="cached",
            cache=tmp_path / "taken",
        )
    assert failed.value.exit_code == 2


def test_an_option_that_is_missing_is_named_alone() -> None:
    with pytest.raises(SettingsError, match=r"--data: Field required; --out: Field required"):
        api.train()
