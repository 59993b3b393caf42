"""`skystill tune`: a search over the settings of a distillation, in which any number of processes can take part.

Each trial is an ordinary run folder, TUNE/trials/NUMBER. Its score is the mIoU on the *validation* images. The study is
stored in a database. If a process dies, another process continues its trial from the last checkpoint: at once if it
runs on the same computer, and otherwise when the dead one has given no sign of life for 40 seconds.

What a trial draws depends on the seed, the number of the trial and the results so far, so that one process makes the
same study every time, however often it is stopped.
"""

import hashlib
import math
import os
import socket
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import yaml
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from skystill.data import find_pairs, resolve_classes
from skystill.databases import check_plain_tables
from skystill.errors import Interrupted, LossNotFinite, SettingsError, shortened
from skystill.parsing import PARSE_ERRORS
from skystill.progress import EpochEnd, Event, Message, OnProgress, Progress, ignore_progress, named
from skystill.report.records import StudyRecord, TrialRecord, read_training, write_record
from skystill.run_folder import RunFolder, write_text
from skystill.settings import DistillSettings, TuneSettings
from skystill.train.runs import distill_run, keep_beginning
from skystill.train.studies import (
    ENDED,
    check_study,
    check_trials,
    count_ended,
    importance,
    keep_settings,
    name_of_study,
)

LOSSES = ("kl", "mse", "cwd", "dist", "boundary-kl")
# Seconds between two heartbeats of a process, and seconds without one after which others take over its trial.
_HEARTBEAT, _GRACE = 10, 40
# Finished trials of the study, and epochs of a trial, before a trial can be stopped early.
_STARTUP, _WARM_UP = 5, 1
_PROCESS = "process"  # user attribute of a trial: the process that runs it


def trial_settings(settings: TuneSettings, trial: optuna.Trial) -> DistillSettings:
    """Draw the settings of a trial. The space of the search is defined in this function only."""
    channels = trial.suggest_int("channels", 16, 48, step=16)
    drawn = {
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True),
        "alpha": trial.suggest_float("alpha", 0.0, 1.0),
        "temperature": trial.suggest_float("temperature", 1.0, 10.0, log=True),
        "distillation_loss": trial.suggest_categorical("distillation_loss", LOSSES),
        "student": f"swift-small?channels=(16,{channels},{3 * channels // 2},{2 * channels})",
    }
    return _distillation(settings, first_number(trial), drawn)


def _distillation(settings: TuneSettings, number: int, drawn: dict[str, Any]) -> DistillSettings:
    shared = {
        name: getattr(settings, name) for name in DistillSettings.model_fields if name in TuneSettings.model_fields
    }
    own = {"out": settings.out / "trials" / f"{number}", "teacher_mode": "cached", "alone": False}
    cache = settings.cache or (None if settings.run_teacher else settings.out / "logits")
    return DistillSettings(**{**shared, **drawn, **own, "cache": cache})


def first_number(trial: optuna.Trial | FrozenTrial) -> int:
    """Return the number of a trial.

    A trial that continues the trial of a dead process has the number of that trial, and therefore its run folder.
    """
    frozen = trial if isinstance(trial, FrozenTrial) else trial.study.trials[trial.number]
    first = _continued(frozen)
    return trial.number if first is None else first


def _continued(trial: FrozenTrial) -> int | None:
    """Return the number of the trial of a dead process that this trial continues; None if it continues none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)


class TrialSampler(BaseSampler):
    """Draws each setting of a trial by TPE (Bergstra 2011), with a random generator of its own.

    The generator is seeded with the seed of the search, the place of the trial in the study and the name of the
    setting. A trial that continues the trial of a dead process has the place of that trial. One that ended in an error
    has none: what is drawn after the error was mended is what would have been drawn without it.

    Args:
        seed: seed of the search.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return no settings: none is drawn together with others."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw no settings."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 (as in the base class)
        """Draw one setting."""
        first = first_number(trial)
        trials = study.get_trials(deepcopy=False)
        lost = {one.number for one in trials if one.state == TrialState.FAIL} - {_continued(one) for one in trials}
        place = sum(one.number < first and one.number not in lost and _continued(one) is None for one in trials)
        seed = int.from_bytes(hashlib.sha256(f"{self._seed} {place} {param_name}".encode()).digest()[:4], "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = TPESampler(seed=seed, constant_liar=True)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


def run_study(
    settings: TuneSettings,
    fill_cache: Callable[[DistillSettings], None],
    on_progress: OnProgress = ignore_progress,
) -> optuna.Study:
    """Run trials of a study until it has as many as the settings want, and write the result.

    Args:
        settings: data, teachers and number of trials.
        fill_cache: function that fills the cache of the teacher's logits in a separate process.
        on_progress: called with the progress of each trial.

    Returns:
        the study.

    Raises:
        UserError: as `distill_run`.
        SettingsError: the storage cannot be opened, holds a study of other settings, or no trial got a score.
    """
    # Before there is a study: a trial that fails on wrong data would stay in it.
    resolve_classes(settings.data, settings.classes, find_pairs(settings.data, settings.fit_masks).pairs)
    settings.out.mkdir(parents=True, exist_ok=True)
    with naming_database(settings, (*DATABASE_ERRORS, *PARSE_ERRORS, LookupError)):  # a damaged one may hold anything
        study = open_study(settings)
        check_study(study)
        keep_settings(study, settings)
        check_trials(study, settings.out)
        begins = where_it_goes_on(settings, study)
    on_progress(Message(begins))
    filled = False

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr(_PROCESS, [_this_computer(), os.getpid(), psutil.Process().create_time()])
        drawn = trial_settings(settings, trial)
        keep_beginning(RunFolder(settings.out / "trials" / "0"), RunFolder(drawn.out))  # also of an earlier version
        try:
            distill_run(drawn, True, _reporting(trial, on_progress))
        except LossNotFinite as error:  # a learning rate that is too high is a result, too
            raise optuna.TrialPruned(str(error)) from error
        return _last_validation_miou(RunFolder(drawn.out))

    with naming_database(settings, DATABASE_ERRORS):
        while (todo := next_action(study, settings.trials)) != "end":
            _take_over_from_the_dead(study)
            if todo == "run":
                if not filled:  # before the first trial: a trial that fails on a wrong teacher would stay in the study
                    fill_cache(_distillation(settings, 0, {}))
                    filled = True
                with _continued_after_ctrl_c(study):
                    study.optimize(objective, n_trials=1)
            else:
                time.sleep(_HEARTBEAT / 2)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    optuna.storages.fail_stale_trials(study)
        write_result(settings, study)
    return study


DATABASE_ERRORS = (optuna.exceptions.StorageInternalError, SQLAlchemyError, sqlite3.Error)


def _where(settings: TuneSettings) -> str:
    return f"--storage {settings.storage}" if settings.storage else str(settings.out / "study.db")


@contextmanager
def naming_database(settings: TuneSettings, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn what a damaged or lost database raises into an error that names it."""
    try:
        yield
    except errors as error:
        cause = error.__cause__ or error
        raise SettingsError(
            f"{_where(settings)}: this database of a study cannot be used ({shortened(cause)}). "
            "Take a whole copy of it, or begin a study in another --out."
        ) from error


def _this_computer() -> str:
    """Name the computer since its start, and the container: where a process number means one process."""
    try:
        start, space = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), Path("/proc/self/ns/pid").readlink()
    except OSError:  # not Linux
        start, space = f"{psutil.boot_time():.0f}", Path()
    return f"{socket.gethostname()} {start} {space}"


def _take_over_from_the_dead(study: optuna.Study) -> None:
    """Put back the trials whose process ran on this computer and has ended, so that they are continued at once."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        computer, process, began = trial.user_attrs.get(_PROCESS, (None, 0, 0.0))
        if computer != _this_computer():
            continue
        try:
            lives = psutil.Process(process).create_time() == began
        except psutil.NoSuchProcess:
            lives = False
        if not lives:
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                continue  # another process was faster
            _continue_later(study, trial)


@contextmanager
def _continued_after_ctrl_c(study: optuna.Study) -> Iterator[None]:
    """Put back the trial of this process if Ctrl-C stops it. Optuna takes it for a failure."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        own = [this for this in study.get_trials(states=(TrialState.FAIL,)) if _is_of_this_process(this)]
        if own:  # the last: the first failure ends this process
            _continue_later(study, own[-1])
        raise


def _is_of_this_process(trial: FrozenTrial) -> bool:
    computer, process, _ = trial.user_attrs.get(_PROCESS, (None, 0, 0.0))
    return bool(computer == _this_computer() and process == os.getpid())


def _continue_later(study: optuna.Study, trial: FrozenTrial) -> None:
    trial.user_attrs.pop(_PROCESS, None)  # the process that continues it has not said its name yet
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)(study, trial)


def where_it_goes_on(settings: TuneSettings, study: optuna.Study) -> str:
    """Describe in one line which trials the study has already."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    ended = sum(state in ENDED for state in states)
    if ended >= settings.trials:
        return f"{settings.out}: {ended} trials are finished, and --trials {settings.trials} asks for no more."
    if not states:
        return f"{settings.out}: the study begins with its first trial of {settings.trials}."
    running = states.count(TrialState.RUNNING)
    begun = f", and {running} are running or were killed" if running else ""
    return f"{settings.out}: {ended} of {settings.trials} trials are finished{begun}; it goes on with the others."


def next_action(study: optuna.Study, trials: int) -> str:
    """Return what this process does next: "run", "wait" or "end".

    It waits while other processes run the last trials, in order to take over a trial whose process dies.
    """
    states, seen = [trial.state for trial in study.get_trials(deepcopy=False)], count_ended(study)
    if seen >= trials:
        return "end"
    begun = seen + states.count(TrialState.RUNNING)
    return "run" if TrialState.WAITING in states or begun < trials else "wait"


def open_study(settings: TuneSettings) -> optuna.Study:
    """Open the study, and create it if it does not exist yet.

    Raises:
        SettingsError: the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings are tracebacks of our own errors
    url, options = settings.storage, {}
    if url is None:
        # The file is opened by its name: in an address, "?", "%" and "{" of the folder would have a meaning.
        url, file = "sqlite:///study.db", settings.out / "study.db"
        options = {"creator": lambda: sqlite3.connect(file, check_same_thread=False)}
        with closing(sqlite3.connect(file)) as base:
            check_plain_tables(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            storage = RDBStorage(
                url,
                options,
                heartbeat_interval=_HEARTBEAT,
                grace_period=_GRACE,
                heartbeat_stale_trial_callback=_continue_later,
            )
        except Exception as error:
            raise SettingsError(f"{_where(settings)}: {shortened(error)}") from error
    return optuna.create_study(
        storage=storage,
        study_name=name_of_study(storage, settings),
        direction="maximize",
        sampler=TrialSampler(settings.seed),
        pruner=optuna.pruners.MedianPruner(_STARTUP, _WARM_UP),
        load_if_exists=True,
    )


def _reporting(trial: optuna.Trial, on_progress: OnProgress) -> OnProgress:
    """Return a callback that also reports each epoch to the study, and stops a trial that does badly."""
    name = f"trial {trial.number}"
    show = named(on_progress, name)

    def report(event: Event) -> None:
        if isinstance(event, Progress) and event.unit != "steps":
            event = replace(event, task=f"{name}: {event.task}")
        show(event)
        if not isinstance(event, EpochEnd):
            return
        if math.isnan(event.row.get("validation_miou", math.nan)):
            raise SettingsError(
                "tune compares trials on validation images; this split has none, or they hold no class that is scored."
            )
        epoch = int(event.row["epoch"])
        if epoch not in trial.study.trials[trial.number].intermediate_values:
            trial.report(event.row["validation_miou"], epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    return report


def _last_validation_miou(folder: RunFolder) -> float:
    return read_training(folder).history[-1]["validation_miou"]


def write_result(settings: TuneSettings, study: optuna.Study) -> None:
    """Write `best.yaml` for `skystill distill --config`, and `study.json` for the report.

    Raises:
        SettingsError: no trial has a score.
    """
    trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not done:
        raise SettingsError(
            f"{settings.out}: none of the {count_ended(study)} finished trials has a score, because the loss of each "
            "became infinite or no number. Look at the values of the images and of the teacher's logits, then search "
            "again in another --out."
        )
    best = study.best_trial
    config = RunFolder(settings.out / "trials" / f"{first_number(best)}").read_config()
    left_out = {"out", "alone"}
    write_text(
        settings.out / "best.yaml",
        yaml.safe_dump({name: value for name, value in config.items() if name not in left_out}, sort_keys=False),
    )
    rows = [
        TrialRecord(
            number=trial.number,
            state=trial.state.name.lower(),
            validation_miou=trial.value if trial.state in ENDED else None,
            seconds=trial.duration.total_seconds() if trial.duration else None,
            drawn=trial.params,
        )
        for trial in trials
        if trial.state != TrialState.FAIL  # another trial continued it
    ]
    record = StudyRecord(best=best.number, trials=rows, importance=importance(study), data=Path(settings.data).name)
    write_record(RunFolder(settings.out).study, record)


def best_line(study: optuna.Study) -> str:
    """Describe the best trial in one line."""
    best = study.best_trial
    drawn = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in best.params.items())
    return f"best of {count_ended(study)}: trial {best.number}, validation mIoU {100 * (best.value or 0):.1f} ({drawn})"
