"""Loggers: programs that get the settings of a run and its `metrics.csv`, epoch by epoch.

Each is an optional package. They only add to `metrics.csv`, which is always written.
"""

import importlib.util
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from skystill.errors import SettingsError, shortened
from skystill.progress import Note, OnProgress
from skystill.run_folder import RunFolder, naming_failed_writes, write_json
from skystill.train.loop.task import History

PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny", "wandb": "wandb"}
"""The package to install for each logger. Loggers and modules have the same names."""


class RunLogger(Protocol):
    """A program that a run reports to. It is opened with the run folder and the settings.

    It names the run by the run folder, and finds its own run again when the training is resumed.
    """

    errors: tuple[type[Exception], ...]
    """What it raises if it cannot be reached. The training goes on without it then."""

    def log(self, history: History) -> None:
        """Add the rows that were not added before, as scalars by the names of `metrics.csv`, with the epoch as step.

        It is called after each epoch with the rows of all epochs, before the checkpoint. If the process is killed in
        between, a resumed run trains this epoch again, and calls it with the same row again.
        """
        ...

    def close(self, finished: bool) -> None:
        """Write what is left. `finished` is False if the training was stopped or failed."""
        ...


def check_loggers(names: Sequence[str]) -> None:
    """Check that the packages of loggers are installed, before hours of training.

    Raises:
        SettingsError: one is missing.
    """
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder of this name, as wandb makes one, has no origin
            raise SettingsError(
                f"--logger {name}: the package {name} is not installed. Install it: pip install {PACKAGES[name]}"
            )


@contextmanager
def open_loggers(
    names: Sequence[str], folder: RunFolder, settings: Mapping[str, Any], on_progress: OnProgress
) -> Iterator[Callable[[History], None]]:
    """Open the loggers of a run, and close them at the end of the context.

    Args:
        names: keys of `PACKAGES`.
        folder: the run.
        settings: its settings, which become hyperparameters.
        on_progress: receives a `Note` if a logger fails later. It gets nothing more then.

    Yields:
        a function that passes the rows of all epochs on.

    Raises:
        SettingsError: a logger cannot be opened, or its package cannot be imported.
    """
    opened: dict[str, RunLogger] = {}

    def log(history: History) -> None:
        for name, logger in list(opened.items()):
            try:
                logger.log(history)
            except logger.errors as error:
                del opened[name]
                on_progress(Note(f"--logger {name}: {_reason(error)}; the training goes on, and {name} gets no more."))

    with ExitStack() as stack:
        for name in names:
            try:
                logger = _OPENERS[name](folder, settings)
            except ImportError as error:
                raise _not_opened(name, error) from error
            opened[name] = logger
            stack.push(lambda kind, error, trace, logger=logger: logger.close(kind is None))
        yield log


def _reason(error: Exception) -> str:
    return shortened(str(error).splitlines()[0] if str(error) else type(error).__name__)


def _scalars(row: Mapping[str, float]) -> dict[str, float]:
    """Return the columns of a row without its number. A class without truth has no score: NaN is left out."""
    return {name: float(value) for name, value in row.items() if name != "epoch" and math.isfinite(value)}


def _hyperparameters(settings: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Return settings as the loggers take them: numbers and texts, without what is not set."""
    return {
        name: value if isinstance(value, bool | int | float | str) else ", ".join(map(str, value))
        for name, value in settings.items()
        if value is not None and value != []
    }


def _title(folder: RunFolder) -> str:
    path = folder.path.absolute()
    return f"{path.parent.name}/{path.name}" if path.name == "alone" else path.name


class TensorBoard:
    """Writes event files into `tensorboard/` in the run folder."""

    errors: tuple[type[Exception], ...] = ()

    def __init__(self, folder: RunFolder, settings: Mapping[str, Any]) -> None:
        # Imported here: it takes half a second, and the package may be missing or broken, which must show at the start.
        from torch.utils.tensorboard import SummaryWriter

        self._new_writer = SummaryWriter
        self._path, self._settings = folder.path / "tensorboard", _hyperparameters(settings)
        self._writer: Any = None

    def log(self, history: History) -> None:
        """Add the last row. A resumed run hides what an earlier process wrote of this epoch and later ones.

        Where no process wrote anything, all rows are added.
        """
        with naming_failed_writes(self._path):
            first = len(history) if self._path.exists() else 1
            if self._writer is None:
                self._open(first, _scalars(history[first - 1]))
            for epoch, row in enumerate(history[first - 1 :], start=first):
                for name, value in _scalars(row).items():
                    self._writer.add_scalar(name, value, epoch)
            self._writer.flush()

    def _open(self, epoch: int, scalars: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import hparams

        self._writer = self._new_writer(str(self._path), purge_step=epoch)
        if epoch == 1:  # `add_hparams` of the writer would make a run of its own of them
            for summary in hparams(self._settings, dict(scalars)):  # type: ignore[no-untyped-call]
                self._writer.file_writer.add_summary(summary)

    def close(self, finished: bool) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class MLflow:
    """Adds a run to the tracking server and the experiment that MLflow's environment variables name."""

    def __init__(self, folder: RunFolder, settings: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would tell its makers what is logged
        import mlflow

        self.errors: tuple[type[Exception], ...] = (mlflow.exceptions.MlflowException, OSError)
        try:
            self._client = mlflow.MlflowClient()
            before = read_identity(folder, "mlflow")
            experiment = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
            if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
                found = self._client.get_experiment_by_name(name)
                experiment = found.experiment_id if found else self._client.create_experiment(name)
            self._run = before or self._client.create_run(experiment, run_name=_title(folder)).info.run_id
            if before is None:
                for key, value in _hyperparameters(settings).items():
                    self._client.log_param(self._run, key, str(value)[:500])
                _write_identity(folder, "mlflow", self._run)
            else:
                self._client.set_terminated(self._run, "RUNNING")
            points = self._client.get_metric_history(self._run, "loss") if before else []
            self._logged = {point.step for point in points}
        except self.errors as error:
            raise _not_opened("mlflow", error) from error

    def log(self, history: History) -> None:
        """Add the rows whose steps the server does not have."""
        for epoch, row in enumerate(history, start=1):
            if epoch in self._logged:
                continue
            for name, value in sorted(_scalars(row).items(), key=lambda item: item[0] == "loss"):  # it says: complete
                self._client.log_metric(self._run, name, value, step=epoch)
            self._logged.add(epoch)

    def close(self, finished: bool) -> None:
        """Set the state of the run."""
        try:
            self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")
        except self.errors:
            return  # the note about the failure came when a row could not be added


class Wandb:
    """Adds a run to the project that WANDB_PROJECT names, or to skystill. WANDB_MODE=offline needs no network."""

    def __init__(self, folder: RunFolder, settings: Mapping[str, Any]) -> None:
        import wandb

        self.errors: tuple[type[Exception], ...] = (wandb.Error, OSError)
        identity = read_identity(folder, "wandb") or uuid.uuid4().hex[:12]
        _write_identity(folder, "wandb", identity)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "skystill",
                id=identity,
                name=_title(folder),
                resume="allow",
                reinit="create_new",
                dir=str(folder.path),
                config=_hyperparameters(settings),
            )
        except self.errors as error:
            raise _not_opened("wandb", error) from error

    def log(self, history: History) -> None:
        """Add the last row, unless the server has it."""
        epoch = len(history)
        if epoch >= self._run.step:
            self._run.log(_scalars(history[-1]), step=epoch, commit=True)

    def close(self, finished: bool) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if finished else 1)


_OPENERS: dict[str, Callable[[RunFolder, Mapping[str, Any]], RunLogger]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": Wandb,
}


def read_identity(folder: RunFolder, name: str) -> str | None:
    """Return the name under which a logger knows the run, or None if it does not know it yet.

    Raises:
        RunFolderError: the file with these names is damaged.
    """
    found = folder.read_json(folder.loggers).get(name) if folder.loggers.exists() else None
    return str(found) if found else None


def _write_identity(folder: RunFolder, name: str, identity: str) -> None:
    before = folder.read_json(folder.loggers) if folder.loggers.exists() else {}
    write_json(folder.loggers, before | {name: identity})


def _not_opened(name: str, error: Exception) -> SettingsError:
    return SettingsError(f"--logger {name} cannot be opened: {_reason(error)}. Set it up, or leave the option out.")
