"""`skystill tune`: a search over the settings of a distillation, shared by as many processes as like to join.

Each trial is an ordinary run folder, TUNE/trials/NUMBER, scored by the mIoU on *validation* images. The study is in a
database: a process that dies leaves its trial to the others, who go on from its checkpoint.
"""

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
import yaml
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from skystill.errors import LossNotFinite, SettingsError
from skystill.progress import EpochEnd, Event, Note, OnProgress, ignore_progress, named
from skystill.report.records import StudyRecord, TrialRecord, read_training, write_record
from skystill.run_folder import RunFolder, write_text
from skystill.settings import DistillSettings, TuneSettings
from skystill.train.runs import distill_run

SEEN = (TrialState.COMPLETE, TrialState.PRUNED)
LOSSES = ("kl", "mse", "cwd", "dist", "boundary-kl")
_HEARTBEAT, _GRACE = 10, 40  # seconds between signs of life, and without one until others take the trial over
_STARTUP, _WARM_UP = 5, 1  # trials, and epochs, before one may be given up


def trial_settings(settings: TuneSettings, trial: optuna.Trial) -> DistillSettings:
    """Draw the settings of a trial: what is searched over is here and nowhere else."""
    width = trial.suggest_int("width", 16, 48, step=16)
    shared = {
        name: getattr(settings, name) for name in DistillSettings.model_fields if name in TuneSettings.model_fields
    }
    drawn = {
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True),
        "alpha": trial.suggest_float("alpha", 0.0, 1.0),
        "temperature": trial.suggest_float("temperature", 1.0, 10.0, log=True),
        "distillation_loss": trial.suggest_categorical("distillation_loss", LOSSES),
        "student": f"swift-small?channels=(16,{width},{3 * width // 2},{2 * width})",
    }
    own = {"out": settings.out / "trials" / f"{first_number(trial)}", "teacher_mode": "cached", "alone": False}
    cache = settings.cache or (None if settings.run_teacher else settings.out / "logits")
    return DistillSettings(**{**shared, **drawn, **own, "cache": cache})


def first_number(trial: optuna.Trial | FrozenTrial) -> int:
    """The number of a trial; of one that goes on for a dead process, the number it had there."""
    frozen = trial if isinstance(trial, FrozenTrial) else trial.study.trials[trial.number]
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(frozen)
    return trial.number if first is None else int(first)


def run_study(
    settings: TuneSettings,
    fill_cache: Callable[[DistillSettings], None],
    on_progress: OnProgress = ignore_progress,
) -> optuna.Study:
    """Take part in a study until it has its trials.

    Args:
        settings: data, teacher, how many trials.
        fill_cache: fills the cache of the teacher's logits, in a process of its own.
        on_progress: follows each trial.

    Raises:
        UserError: as `distill_run`.
        SettingsError: a storage that cannot be opened.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    study = open_study(settings)
    filled = False

    def objective(trial: optuna.Trial) -> float:
        nonlocal filled
        drawn = trial_settings(settings, trial)
        if not filled:
            fill_cache(drawn)
            filled = True
        try:
            distill_run(drawn, True, _reporting(trial, on_progress))
        except LossNotFinite as error:  # a learning rate too high is a result as well
            raise optuna.TrialPruned(str(error)) from error
        return _score(RunFolder(drawn.out))

    while (todo := _what_to_do(study, settings.trials)) != "end":
        if todo == "run":
            study.optimize(objective, n_trials=1)
        else:
            time.sleep(_HEARTBEAT / 2)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(study)
    write_result(settings, study)
    return study


def _what_to_do(study: optuna.Study, trials: int) -> str:
    """Run a trial, wait for those that others run (and take over what they leave), or end."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    seen = sum(state in SEEN for state in states)
    if seen >= trials:
        return "end"
    begun = seen + states.count(TrialState.RUNNING)
    return "run" if TrialState.WAITING in states or begun < trials else "wait"


def open_study(settings: TuneSettings) -> optuna.Study:
    """The study, made where it is not there yet.

    Raises:
        SettingsError: the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = settings.storage or f"sqlite:///{settings.out / 'study.db'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        again = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)
        try:
            storage = RDBStorage(
                url, heartbeat_interval=_HEARTBEAT, grace_period=_GRACE, heartbeat_stale_trial_callback=again
            )
        except Exception as error:
            raise SettingsError(f"--storage {url}: {str(error).splitlines()[0]}") from error
    return optuna.create_study(
        storage=storage,
        study_name=settings.out.name,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=None, constant_liar=True),  # not seeded: processes must not draw alike
        pruner=optuna.pruners.MedianPruner(_STARTUP, _WARM_UP),
        load_if_exists=True,
    )


def _reporting(trial: optuna.Trial, on_progress: OnProgress) -> OnProgress:
    """A callback that also reports each epoch to the study, and ends a trial that goes badly."""

    def report(event: Event) -> None:
        if not isinstance(event, Note):  # the notes on the data are the same in every trial
            on_progress(event)
        if not isinstance(event, EpochEnd):
            return
        if "validation_miou" not in event.row:
            raise SettingsError("tune compares trials on validation images; this split has none.")
        epoch = int(event.row["epoch"])
        if epoch not in trial.study.trials[trial.number].intermediate_values:
            trial.report(event.row["validation_miou"], epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    return named(report, f"trial {trial.number}")


def _score(folder: RunFolder) -> float:
    return read_training(folder).history[-1]["validation_miou"]


def write_result(settings: TuneSettings, study: optuna.Study) -> None:
    """Write `best.yaml`, which `skystill distill --config` takes, and `study.json`, of which the report is made."""
    trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not done:
        return
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
            validation_miou=trial.value if trial.state in SEEN else None,
            seconds=trial.duration.total_seconds() if trial.duration else None,
            drawn=trial.params,
        )
        for trial in trials
        if trial.state != TrialState.FAIL  # another went on with it
    ]
    record = StudyRecord(best=best.number, trials=rows, importance=importance(study), data=Path(settings.data).name)
    write_record(RunFolder(settings.out).study, record)


def importance(study: optuna.Study) -> dict[str, float]:
    """Share of each setting in what makes trials good (PED-ANOVA, Watanabe 2023, arXiv 2304.10255); {} if too few."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError):  # fewer than two finished trials, or all alike
            return {}


def best_line(study: optuna.Study) -> str:
    """The best trial in a sentence."""
    best = study.best_trial
    drawn = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in best.params.items())
    return f"best of {len(study.trials)}: trial {best.number}, validation mIoU {100 * (best.value or 0):.1f} ({drawn})"
