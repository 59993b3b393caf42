"""`skystill tune` on a cluster. Takes minutes: SKYSTILL_STOPS=2 pytest tests/cluster/test_tune.py

What a worker does with the command is in test_commands.py, which always runs.
"""

import contextlib
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import psutil
import pytest
from distributed import Client

from skystill import api
from skystill.cluster.commands import host_name
from skystill.errors import SettingsError
from skystill.progress import Event, Progress
from skystill.settings import TuneSettings
from skystill.train.cluster_tune import _check_storage

from .scheduler import running
from .test_cache import write_teacher

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
often = pytest.mark.skipif(int(os.environ.get("SKYSTILL_STOPS", "1")) < 2, reason="minutes; SKYSTILL_STOPS=2 runs it")


def settings(scenes: Path, out: Path, trials: int, **more: object) -> TuneSettings:
    write_teacher(out.with_name("teacher"), scenes)
    own = {"data": scenes, "teacher": str(out.with_name("teacher")), "out": out, "trials": trials, "epochs": 2}
    own |= {"crop": 32, "batch_size": 4, "crops_per_image": 4, "split": "0.5/0.1/0.4"}
    return TuneSettings(**(own | more))  # type: ignore[arg-type]


def trials_of(out: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=out.name, storage=f"sqlite:///{out / 'study.db'}").trials


@often
def test_one_worker_makes_the_same_study(scenes: Path, tmp_path: Path) -> None:
    studies = []
    for name in ("here", "there"):
        with running(tmp_path / "dask", 1) if name == "there" else contextlib.nullcontext([None]) as (address, *_):
            api.tune(settings(scenes, tmp_path / name, 2, dask=address))
        studies.append([(trial.state, trial.params, trial.values) for trial in trials_of(tmp_path / name)])
        assert (tmp_path / name / "study.html").is_file() and (tmp_path / name / "best.yaml").is_file()
    assert studies[0] == studies[1] and len(studies[0]) == 2


@often
def test_the_trial_of_a_killed_worker_is_continued_by_another(scenes: Path, tmp_path: Path) -> None:
    out, killed = tmp_path / "study", list[Any]()

    def kill_one(event: Event) -> None:
        if killed or not isinstance(event, Progress):
            return
        for trial in trials_of(out):
            _, process, _ = trial.user_attrs.get("process", (None, 0, 0))
            if trial.state.name == "RUNNING" and (out / f"trials/{trial.number}/checkpoints/resume.pt").exists():
                with contextlib.suppress(psutil.NoSuchProcess):
                    above = {one.pid for one in psutil.Process(process).parents()}
                    worker = next(one for one in processes[1:] if one.pid in above)
                    worker.send_signal(signal.SIGKILL)
                    killed.append(trial)
                    return

    with running(tmp_path / "dask", 2) as (address, processes):
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2)
        api.tune(settings(scenes, out, 3, dask=address, epochs=8), on_progress=kill_one)
    assert len(killed) == 1
    found = trials_of(out)
    states = [trial.state.name for trial in found]
    assert states.count("RUNNING") == states.count("WAITING") == 0
    assert states.count("COMPLETE") + states.count("PRUNED") == 3 and states.count("FAIL") == 1
    assert found[killed[0].number].state.name == "FAIL"
    again = [trial for trial in found if trial.system_attrs.get("failed_trial") == killed[0].number]
    assert len(again) == 1 and again[0].params == killed[0].params


def test_a_file_is_not_shared_with_other_machines(scenes: Path, tmp_path: Path) -> None:
    for hosts, storage, refused in (
        ([host_name(), host_name()], None, False),
        ([host_name(), "elsewhere"], None, True),
        ([host_name(), "elsewhere"], "postgresql://host/name", False),
        ([], None, False),
    ):
        answers: Any = {f"tcp://{number}": host for number, host in enumerate(hosts)}
        connection: Any = SimpleNamespace(client=SimpleNamespace(run=lambda *_, answers=answers, **__: answers))
        wanted = settings(scenes, tmp_path / "study", 1, workers=2, storage=storage)
        with (
            pytest.raises(SettingsError, match=r"study.db cannot be shared with .* \(elsewhere\).*--storage")
            if (refused)
            else contextlib.nullcontext()
        ):
            _check_storage(wanted, connection)
