"""Teachers that are no run of ours, images without masks, several processes: whole commands."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image

from skystill.data.scenes import paint_scene
from tests.cli.conftest import TINY, Done, process

Cli = Callable[..., Done]
pytestmark = pytest.mark.slow


def rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


@pytest.fixture
def unlabeled(tmp_path: Path) -> Path:
    folder = tmp_path / "unlabeled"
    folder.mkdir()
    for seed in (91, 92):
        Image.fromarray(paint_scene(100, seed)[0]).save(folder / f"{seed}.png")
    return folder


def test_an_onnx_teacher_unlabelled_images_and_a_cache(
    scenes: Path, teacher: Path, unlabeled: Path, tmp_path: Path, skystill: Cli
) -> None:
    done = skystill(
        "distill", f"--data={scenes}", f"--teacher={teacher / 'model.onnx'}", f"--out={tmp_path / 's'}",
        "--student=two-level", "--epochs=2", "--no-alone", "--teacher-mode=cached", f"--unlabeled={unlabeled}/*2.png",
        f"--unlabeled={unlabeled}", *TINY,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "1 image(s) without labels are there more than once" in " ".join(done.err.split())
    assert len(list((tmp_path / "s/logits").rglob("*.safetensors"))) == 6 + 2
    results = json.loads((tmp_path / "s/results.json").read_text())
    assert list(results["models"]) == ["student"]
    scores = json.loads((tmp_path / "s/teacher.json").read_text())["scores"]
    of_run = json.loads((teacher / "results.json").read_text())["models"]["teacher"]["scores"]
    assert scores["miou"] == pytest.approx(of_run["miou"], abs=1e-3)
    assert "model.onnx) reached" in results["verdict"][0]
    assert "teacher" not in results["samples"][0] and "student" in results["samples"][0]
    assert (tmp_path / "s/report.html").stat().st_size > 50_000
    training = json.loads((tmp_path / "s/training.json").read_text())
    assert set(training["gradients_in_the_first_steps"]) == {"student loss", "kl"}


def test_losses_on_features_and_several_teachers(scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli) -> None:
    shared = [
        f"--data={scenes}", "--student=two-level", "--epochs=1", "--no-alone", "--no-report", "--precision=32", *TINY,
    ]  # fmt: skip
    flags = ["--distillation-loss=kl+300*pkd", f"--teacher={teacher}", f"--out={tmp_path / 'f'}"]
    done = skystill("distill", *shared, *flags)
    assert done.code == 0, done.err
    assert {"kl_loss", "pkd_loss"} <= rows(tmp_path / "f")[0].keys()
    two = [f"--teacher={teacher}", f"--teacher={teacher / 'model.onnx'}", "--teacher-weight=2", "--teacher-weight=1"]
    done = skystill("distill", *shared, *two, f"--out={tmp_path / 'two'}")
    assert done.code == 0, done.err
    one = skystill("distill", *shared, f"--teacher={teacher}", f"--out={tmp_path / 'one'}")
    assert one.code == 0, one.err
    # the same network twice is one teacher
    losses = [float(rows(tmp_path / name)[0]["distillation_loss"]) for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_teacher_of_more_classes_teaches_those_it_shares(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli
) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    text = (data / "classes.yaml").read_text()
    text = text.replace("void: []", "void: ['#E2A929']").replace("- name: Water\n  color: '#E2A929'\n", "")
    (data / "classes.yaml").write_text(text)
    done = skystill(
        "distill", f"--data={data}", f"--teacher={teacher}", f"--out={tmp_path / 's'}", "--student=two-level",
        "--epochs=1", "--no-alone", *TINY,
    )  # fmt: skip
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "s/results.json").read_text())
    assert list(results["models"]) == ["student"] and "reached" in results["verdict"][0]


def test_what_cannot_be_learnt_from_is_refused_before_anything_is_written(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli
) -> None:
    shared = [f"--data={scenes}", f"--teacher={teacher}", f"--out={tmp_path / 's'}", *TINY]
    for flags, says in (
        (
            ["--distillation-loss=kl+pkd", "--teacher-mode=cached", f"--cache={tmp_path / 'l'}"],
            "need the teacher itself",
        ),
        (["--distillation-loss=pkd", "--student-layer=levels.9"], "near it are levels."),
        ([f"--unlabeled={scenes}"], "on which the student is scored"),
        ([f"--teacher={teacher}", "--teacher-weight=1"], "2 teacher(s), but 1 --teacher-weight"),
        (["--distillation-stride=3"], "does not divide into blocks of --distillation-stride 3"),
        (["--teacher=model.tflite"], "of a kind that is not known"),
        (["--nodes=2"], "--nodes: start the command on each machine"),
    ):
        done = skystill("distill", *shared, *flags)
        assert done.code == 2 and says in " ".join(done.err.split()), done.err
        assert not (tmp_path / "s/config.yaml").exists()


def lose_the_last_rank(running: subprocess.Popen[str]) -> None:
    """Kill the last of the ranks below a process, as the system does that has no memory left."""
    ranks: dict[int, psutil.Process] = {}
    for child in psutil.Process(running.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "RANK" in (environment := child.environ()):
                ranks[int(environment["RANK"])] = child
    ranks[max(ranks)].send_signal(signal.SIGKILL)


@pytest.mark.timeout(1200)  # ten processes, one after the other: a minute, or six where the machine is busy
def test_two_processes_train_as_one_and_a_lost_one_ends_the_run(
    scenes: Path, teacher: Path, unlabeled: Path, tmp_path: Path, skystill: Cli
) -> None:
    shared = [
        f"--data={scenes}", f"--teacher={teacher}", "--teacher-mode=cached", f"--unlabeled={unlabeled}",
        "--student=two-level", "--no-alone", "--no-report", "--precision=32", *TINY,
    ]  # fmt: skip
    for devices, run in ((1, skystill), (2, process)):
        out, cache = f"--out={tmp_path / str(devices)}", f"--cache={tmp_path / f'logits-{devices}'}"
        done = run("distill", *shared, out, cache, "--epochs=2", f"--devices={devices}")
        assert done.code == 0, done.err
    one, two = (rows(tmp_path / name) for name in ("1", "2"))
    # step by step to 1e-5 in tests/train/loop/test_ranks.py; here rounding has twelve steps on tiny maps to grow in
    for epoch, tolerance in ((0, 1e-4), (1, 1e-3)):
        for column in ("loss", "validation_student_loss"):
            assert float(two[epoch][column]) == pytest.approx(float(one[epoch][column]), rel=tolerance)
    files = [{path.name for path in (tmp_path / f"logits-{n}").rglob("*.safetensors")} for n in (1, 2)]
    assert files[0] == files[1] and len(files[0]) == 8
    training = json.loads((tmp_path / "2/training.json").read_text())
    assert training["ranks"] == 2

    flags = [*shared, f"--out={tmp_path / 'lost'}", "--teacher-mode=online", "--epochs=15"]
    command = [sys.executable, "-m", "skystill", "distill", *flags]
    running = subprocess.Popen([*command, "--devices=2"], stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        while not (tmp_path / "lost/metrics.csv").exists() and running.poll() is None:
            time.sleep(0.05)
        lose_the_last_rank(running)
        _, said = running.communicate()
    finally:  # where the test fails, the ranks would train on
        for left in (*psutil.Process(running.pid).children(recursive=True), running) if running.poll() is None else ():
            left.kill()
    assert running.returncode == 1
    assert "Go on with --resume" in said
    assert (tmp_path / "lost/checkpoints/resume.pt").exists()
    done = skystill("distill", *flags, "--resume")  # one process may go on where two began
    assert done.code == 0, done.err
    assert len(rows(tmp_path / "lost")) == 15
