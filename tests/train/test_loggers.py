"""Loggers by fake modules with the same calls; tests/foreign/test_tensorboard.py reads real event files."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from skystill.errors import SettingsError
from skystill.progress import Event, Note
from skystill.run_folder import RunFolder
from skystill.train.loggers import PACKAGES, check_loggers, open_loggers

ROWS = [{"epoch": n, "loss": 1 / n, "validation_miou": float("nan") if n == 1 else n / 10} for n in (1, 2, 3, 4)]
SETTINGS = {"epochs": 4, "teacher": ["a", "b"], "zoom": 0.5, "classes": None, "logger": []}


class Server:
    """What a tracking server holds, and whether it can be reached."""

    def __init__(self) -> None:
        self.points: list[tuple[str, str, float, int]] = []
        self.params: dict[str, Any] = {}
        self.states: list[str] = []
        self.is_down = self.is_closed = False


class MlflowException(Exception):
    pass


def fake_mlflow(server: Server) -> ModuleType:
    class MlflowClient:
        def __init__(self) -> None:
            if server.is_closed:
                raise MlflowException("the backend is in maintenance mode")

        def create_run(self, experiment: str, run_name: str) -> Any:
            assert (experiment, run_name) == ("0", "student/alone")
            if server.is_down:
                raise MlflowException("no route to host\nmore")
            return SimpleNamespace(info=SimpleNamespace(run_id="run-7"))

        def log_param(self, run: str, key: str, value: str) -> None:
            assert key not in server.params, "MLflow refuses to change a parameter"
            server.params[key] = value

        def get_metric_history(self, run: str, key: str) -> list[Any]:
            return [SimpleNamespace(step=step) for _, name, _, step in server.points if name == key]

        def log_metric(self, run: str, key: str, value: float, step: int) -> None:
            if server.is_down:
                raise MlflowException("no route to host\nmore")
            server.points.append((run, key, value, step))

        def set_terminated(self, run: str, status: str) -> None:
            server.states.append(status)

    module = ModuleType("mlflow")
    module.MlflowClient, module.exceptions = MlflowClient, SimpleNamespace(MlflowException=MlflowException)  # type: ignore[attr-defined]
    return module


def fake_wandb(server: Server) -> ModuleType:
    class Error(Exception):
        pass

    class Run:
        def __init__(self, identity: str) -> None:
            self.identity = identity
            self.step = max((step for *_, step in server.points), default=-1) + 1

        def log(self, scalars: dict[str, float], step: int, commit: bool) -> None:
            assert commit
            server.points += [(self.identity, name, value, step) for name, value in scalars.items()]
            self.step = step + 1

        def finish(self, exit_code: int) -> None:
            server.states.append({0: "FINISHED", 1: "KILLED"}[exit_code])

    def init(*, project: str, id: str, name: str, resume: str, reinit: str, dir: str, config: dict[str, Any]) -> Run:
        assert (project, name, resume, reinit) == ("skystill", "student/alone", "allow", "create_new")
        if server.is_down:
            raise Error("no route to host\nmore")
        server.params = config
        return Run(id)

    module = ModuleType("wandb")
    module.init, module.Error = init, Error  # type: ignore[attr-defined]
    return module


FAKES: dict[str, Callable[[Server], ModuleType]] = {"mlflow": fake_mlflow, "wandb": fake_wandb}


@pytest.fixture(params=list(FAKES))
def logger(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Server]:
    server = Server()
    for variable in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setitem(sys.modules, request.param, FAKES[request.param](server))
    return request.param, server


def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "student" / "alone")
    run.path.mkdir(parents=True)
    return run


def test_a_resumed_run_appends_and_doubles_nothing(logger: tuple[str, Server], tmp_path: Path) -> None:
    name, server = logger
    run = folder(tmp_path)
    with pytest.raises(KeyboardInterrupt), open_loggers([name], run, SETTINGS, print) as log:
        log(ROWS[:1])
        log(ROWS[:2])
        raise KeyboardInterrupt  # after the row was logged, before its checkpoint
    assert server.states == ["KILLED"]
    with open_loggers([name], run, SETTINGS, print) as log:
        log(ROWS[:2])
        log(ROWS[:3])
        log(ROWS)
    assert server.states[-1] == "FINISHED"
    (identity,) = {run_id for run_id, *_ in server.points}
    assert json.loads(run.loggers.read_text()) == {name: identity}
    by_name = {key: [(step, value) for _, n, value, step in server.points if n == key] for key in ROWS[0]}
    assert by_name["loss"] == [(1, 1.0), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]
    assert by_name["validation_miou"] == [(2, 0.2), (3, 0.3), (4, 0.4)]  # NaN is left out
    assert by_name["epoch"] == []
    assert {key: str(value) for key, value in server.params.items()} == {
        "epochs": "4",
        "teacher": "a, b",
        "zoom": "0.5",
    }


def test_a_server_that_cannot_be_reached_is_an_error_at_the_start(logger: tuple[str, Server], tmp_path: Path) -> None:
    name, server = logger
    server.is_down = True
    with (
        pytest.raises(SettingsError, match=f"--logger {name} cannot be opened: no route to host. Set it up"),
        open_loggers([name], folder(tmp_path), SETTINGS, print),
    ):
        raise AssertionError


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb")]
)
def test_a_package_that_cannot_be_imported_is_an_error_at_the_start(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(SettingsError, match=f"--logger {name} cannot be opened: .*{module}"),
        open_loggers([name], folder(tmp_path), SETTINGS, print),
    ):
        raise AssertionError


def test_what_mlflow_refuses_before_it_connects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client without the server's part knows no database, which is where it writes without an address."""
    server = Server()
    server.is_closed = True
    monkeypatch.setitem(sys.modules, "mlflow", fake_mlflow(server))
    with (
        pytest.raises(SettingsError, match="--logger mlflow cannot be opened: the backend is in maintenance mode"),
        open_loggers(["mlflow"], folder(tmp_path), SETTINGS, print),
    ):
        raise AssertionError


def test_a_server_that_is_lost_does_not_end_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, said, run = Server(), list[Event](), folder(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", fake_mlflow(server))
    with open_loggers(["mlflow"], run, SETTINGS, said.append) as log:
        log(ROWS[:1])
        server.is_down = True
        log(ROWS[:2])
        log(ROWS[:3])
    (note,) = said
    assert isinstance(note, Note)
    assert note.text == "--logger mlflow: no route to host; the training goes on, and mlflow gets no more."
    server.is_down = False
    with open_loggers(["mlflow"], run, SETTINGS, said.append) as log:  # resumed: the missing rows follow
        log(ROWS)
    assert [step for _, name, _, step in server.points if name == "loss"] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", list(PACKAGES))
def test_a_missing_package_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(SettingsError, match=f"the package {name} is not installed.*pip install {PACKAGES[name]}"):
        check_loggers([name])
    check_loggers([])
    # a folder of this name in the working directory is no package
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: SimpleNamespace(origin=None))
    with pytest.raises(SettingsError, match="is not installed"):
        check_loggers([name])
