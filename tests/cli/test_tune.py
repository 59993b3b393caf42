import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import yaml

from skystill.errors import Interrupted
from skystill.settings import TuneSettings
from skystill.train import tune
from tests.cli.conftest import TINY, Done

Cli = Callable[..., Done]
pytestmark = pytest.mark.slow

# The command with a quicker pulse: others take a dead process's trial over after 4 seconds instead of 40.
QUICK = (
    "import sys; from skystill.train import tune; tune._HEARTBEAT, tune._GRACE = 1, 4; "
    "from skystill.cli.commands import main; main()"
)


def flags(scenes: Path, teacher: Path, out: Path, trials: int) -> list[str]:
    shared = [f"--data={scenes}", f"--teacher={teacher}", f"--out={out}", "--epochs=2", *TINY]
    return ["tune", *shared, f"--trials={trials}"]


@pytest.mark.timeout(600)
def test_two_processes_share_a_study_and_a_killed_one_loses_no_trial(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli
) -> None:
    out = tmp_path / "study"
    command = [sys.executable, "-c", QUICK, *flags(scenes, teacher, out, 2)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    doomed = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]
    while not list(out.glob("trials/*/config.yaml")) and doomed.poll() is None:
        time.sleep(0.02)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    other = subprocess.run(command, check=False, **quiet)  # type: ignore[call-overload]
    assert other.returncode == 0, other.stderr.decode()
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{out / 'study.db'}")
    states = [trial.state.name for trial in study.trials]
    assert states.count("RUNNING") == states.count("WAITING") == 0
    assert states.count("COMPLETE") + states.count("PRUNED") == 2
    assert states.count("FAIL") == 1 and study.trials[0].state.name == "FAIL"
    again = [trial for trial in study.trials if trial.system_attrs.get("failed_trial") == 0]
    assert len(again) == 1 and again[0].params == study.trials[0].params
    # the trial that was begun again went on in the folder of trial 0, whichever number it got
    folders = {path.name for path in (out / "trials").iterdir()}
    assert folders == {"0", "1", "2"} - {str(again[0].number)}

    written = json.loads((out / "study.json").read_text())
    assert len(written["trials"]) == 2
    assert (out / "study.html").read_text().count("data:image/png") >= 2
    best = yaml.safe_load((out / "best.yaml").read_text())
    assert best["learning_rate"] == study.best_trial.params["learning_rate"]
    done = skystill(
        "distill",
        "--config",
        out / "best.yaml",
        f"--out={tmp_path / 'best'}",
        "--epochs=1",
        "--no-alone",
        "--no-report",
    )
    assert done.code == 0, done.err
    config = yaml.safe_load((tmp_path / "best/config.yaml").read_text())
    assert config["alpha"] == best["alpha"] and config["teacher"] == [str(teacher)]
    assert config["epochs"] == 1  # a flag goes before the file


def test_a_config_that_does_not_fit_is_refused(tmp_path: Path, skystill: Cli) -> None:
    (tmp_path / "c.yaml").write_text("alpha: 0.5\nbeta: 3\n")
    done = skystill("distill", "--config", tmp_path / "c.yaml", "--out=x")
    assert done.code == 2 and "beta: no such setting of distill" in " ".join(done.err.split())
    done = skystill("distill", "--config", tmp_path / "none.yaml", "--out=x")
    assert done.code == 2 and "cannot be read" in done.err


def test_a_storage_that_cannot_be_opened_is_said(scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli) -> None:
    done = skystill(*flags(scenes, teacher, tmp_path / "s", 1), "--storage=nodatabase://x")
    assert done.code == 2 and "--storage nodatabase://x" in done.err


def test_what_is_wrong_with_the_data_is_said_without_a_traceback(tmp_path: Path, skystill: Cli) -> None:
    """Optuna's own warning of a trial that failed is one."""
    done = skystill("tune", f"--data={tmp_path / 'none'}", "--teacher=none", f"--out={tmp_path / 's'}", "--trials=1")
    assert done.code == 2 and "none is not a folder" in " ".join(done.err.split()), done.err
    assert not (tmp_path / "s").exists()  # no study with a trial that failed


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE trials RENAME COLUMN number TO x",
        "UPDATE trials SET state = 'odd'",
        "UPDATE trial_values SET value = 'high'",
        "UPDATE study_directions SET direction = 'MINIMIZE'",  # the worst trial would be the best
        "CREATE VIEW v AS SELECT 1",  # one may never end
    ],
)
def test_a_damaged_database_is_named(damage: str, scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli) -> None:
    out = tmp_path / "study"
    out.mkdir()
    study = optuna.create_study(storage=f"sqlite:///{out}/study.db", study_name="study", direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=0.5, params={}, distributions={}))
    with sqlite3.connect(out / "study.db") as database:
        database.execute(damage)
    database.close()
    done = skystill(*flags(scenes, teacher, out, 1))
    assert done.code == 2 and "study.db: " in done.err and "internal error" not in done.err, done.err


@pytest.mark.parametrize("stop", [Interrupted(Path("resume.pt"), 3), KeyboardInterrupt()])
def test_ctrl_c_keeps_the_trial_for_the_next_command(
    stop: BaseException, scenes: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise stop

    monkeypatch.setattr(tune, "distill_run", stopped)
    settings = TuneSettings(data=scenes, teacher=[str(teacher)], out=tmp_path / "study", trials=2)
    for _ in range(2):
        with pytest.raises(type(stop)):
            tune.run_study(settings, lambda _: None)
    trials = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path / 'study/study.db'}").trials
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "WAITING"]
    assert [trial.system_attrs.get("failed_trial") for trial in trials] == [None, 0, 0]
    assert trials[1].params == trials[0].params != {}
