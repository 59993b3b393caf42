"""Commands stopped at random moments in three ways: the same student, or the same files, as uninterrupted.

SKYSTILL_STOPS sets the number of stops of each command, with SIGKILL, SIGTERM and SIGINT in turn: by default 1, and
then of those that write files only `quantize`.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from safetensors.numpy import load_file

import skystill
from tests.cli.conftest import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STOPS = int(os.environ.get("SKYSTILL_STOPS", "1"))
EPOCHS = 5 + STOPS  # of a training that is stopped: one stop falls into about a second and a half of it
OF_LIBRARIES = ("torchinductor",)  # which torch makes where it is imported
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def finish(command: Sequence[str], tmp: Path | None = None) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment(tmp))
    assert done.returncode == 0, done.stderr
    return done.stderr


def environment(tmp: Path | None) -> dict[str, str]:
    return dict(os.environ) if tmp is None else {**os.environ, "TMPDIR": str(tmp)}


def stop_often(command: Sequence[str], out: Path, tmp: Path | None = None, seconds: float = 1.5) -> int:
    """Start a command again and again, and stop it at random moments of its work, which changes files below `out`.

    Args:
        command: the command.
        out: what it changes.
        tmp: its folder for temporary files.
        seconds: the latest stop after its first change.

    Returns:
        how many starts were stopped; the others had ended before.
    """
    rng, stopped = random.Random(out.name), 0
    for number, _ in zip(cycle(SIGNALS), range(STOPS), strict=False):
        files = {path for path in (out.rglob("*") if out.exists() else ())}
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment(tmp)
        )
        at_once = rng.random() < 0.2
        while not at_once and not changed(out, files) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, seconds))
        process.send_signal(number)
        said = process.communicate()[1]
        early = (
            process.returncode == 1 and "KeyboardInterrupt" in said and str(Path(skystill.__file__).parent) not in said
        )
        assert process.returncode in (0, -number, 130) or early, said
        stopped += process.returncode != 0
    return stopped


def changed(out: Path, before: set[Path]) -> bool:
    """Whether the work has begun: a file has come, such as the one that a checkpoint is written to."""
    try:
        return bool(set(out.rglob("*")) - before) or (not before and out.exists())
    except FileNotFoundError:  # it was removed while it was read
        return True


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights, the same INT8 graph, and the same figures but for the seconds."""
    first, second = (load_file(run / "checkpoints/model.safetensors") for run in (one, other))
    assert list(first) == list(second)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert figures(one) == figures(other)
    assert not [path for run in (one, other) for path in run.rglob(".part-*")]


def figures(run: Path) -> list[list[str]]:
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    kept = [column for column, name in enumerate(rows[0]) if "second" not in name]
    assert len(kept) > 3
    return [[row[column] for column in kept] for row in rows]


def distill(scenes: Path, out: Path, *flags: str) -> list[str]:
    shared = [f"--data={scenes}", f"--out={out}", "--no-report", *TINY]
    return [sys.executable, "-m", "skystill", "distill", *shared, *flags]


def test_a_distillation_with_cached_logits(scenes: Path, teacher: Path, tmp_path: Path) -> None:
    flags = [f"--teacher={teacher}", "--student=two-level", "--teacher-mode=cached", "--no-alone", f"--epochs={EPOCHS}"]
    finish(distill(scenes, tmp_path / "whole", *flags))
    command = distill(scenes, tmp_path / "stopped", *flags, "--resume")
    assert stop_often(command, tmp_path / "stopped") >= STOPS // 3
    finish(command)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.skipif(STOPS < 2, reason="test_prune.py continues one; SKYSTILL_STOPS=10 stops one ten times")
def test_a_pruning(scenes: Path, tmp_path: Path) -> None:
    """Which channels are cut depends on measured times; the distillation of what was cut must be the same."""
    shared = [f"--data={scenes}", "--no-report", *TINY]
    run, stopped = tmp_path / "run", tmp_path / "stopped"
    network = "--network=kite?channels=(32,)&blocks=(1,)"
    finish([sys.executable, "-m", "skystill", "train", *shared, f"--out={run}", network, "--epochs=1"])
    start = [sys.executable, "-m", "skystill", "prune", str(run), *shared, "--epochs=8", "--max-size=1MB"]
    assert stop_often([*start, f"--out={stopped}", "--resume"], stopped) >= STOPS // 3
    finish([*start, f"--out={stopped}", "--resume"])
    whole = tmp_path / "whole"
    (whole / "checkpoints").mkdir(parents=True)
    for name in ("checkpoints/pruned.safetensors", "split.json"):
        shutil.copy(stopped / name, whole / name)
    finish([*start, f"--out={whole}", "--resume"])
    assert_same_run(whole, stopped)


@pytest.mark.skipif(STOPS < 2, reason="test_tune.py kills a search; SKYSTILL_STOPS=10 stops one ten times")
def test_a_search(scenes: Path, teacher: Path, tmp_path: Path) -> None:
    """The same trials draw the same settings and end in the same weights; the study is the same."""
    shared = [f"--data={scenes}", f"--teacher={teacher}", "--epochs=3", "--trials=3", *TINY]
    for name in ("whole", "stopped"):
        command = [sys.executable, "-m", "skystill", "tune", *shared, f"--out={tmp_path / name}"]
        if name == "stopped":
            assert stop_often(command, tmp_path / name) >= STOPS // 3
        finish(command)
    whole, stopped = (trials(tmp_path / name) for name in ("whole", "stopped"))
    assert [one[:2] for one in whole] == [one[:2] for one in stopped]
    for (*_, run), (*_, other) in zip(whole, stopped, strict=True):
        assert_same_run(run, other)
    best, again = (yaml.safe_load((tmp_path / name / "best.yaml").read_text()) for name in ("whole", "stopped"))
    assert best | {"cache": None} == again | {"cache": None}


def trials(out: Path) -> list[tuple[object, object, Path]]:
    """What each trial drew, its score and its run folder."""
    study = optuna.load_study(study_name=out.name, storage=f"sqlite:///{out / 'study.db'}")
    done = [one for one in study.trials if one.state.name in ("COMPLETE", "PRUNED")]
    firsts = [one.system_attrs.get("failed_trial", one.number) for one in done]
    found = [(one.params, one.values, out / "trials" / f"{first}") for one, first in zip(done, firsts, strict=True)]
    return sorted(found, key=lambda row: int(row[2].name))


@pytest.mark.parametrize("name", ["cache", "quantize", "export"] if STOPS > 1 else ["quantize"])
def test_what_writes_files(name: str, scenes: Path, teacher: Path, tmp_path: Path) -> None:
    """The same files, and nothing left in the folder for temporary files after the next run."""
    results = {}
    for place in (tmp_path / "whole", tmp_path / "stopped"):
        out, tmp = place / "out", place / "tmp"
        tmp.mkdir(parents=True)
        out.mkdir()
        flags = {
            "cache": [f"--teacher={teacher}", f"--data={scenes}", f"--cache={out}", TINY[3]],
            "quantize": [str(teacher / "model.onnx"), f"--data={scenes}", f"--out={out / 'int8.onnx'}"],
            "export": [str(teacher), f"--out={out / 'network.xml'}", "--format=openvino"],
        }
        command = [sys.executable, "-m", "skystill", name, *flags[name]]
        if place.name == "stopped":
            # the logits of six small images take a quarter of a second
            assert stop_often(command, place, tmp, 0.25 if name == "cache" else 1.5) >= STOPS // 3
        finish(command, tmp)
        results[place.name] = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        left = [path.name for path in tmp.iterdir() if not path.name.startswith(OF_LIBRARIES)]
        assert not left
    assert results["whole"] and results["whole"] == results["stopped"]
