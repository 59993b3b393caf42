"""What a database of a study must hold, so that all of its trials can be compared with each other."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from skystill.errors import SettingsError, shortened
from skystill.settings import ClusterSettings, TuneSettings

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
_SETTINGS = "settings"  # user attribute of a study: what its first process was asked for
_MAY_DIFFER = {"out", "trials", "storage", "cache", "trust_teacher", *ClusterSettings.model_fields}


def name_of_study(storage: RDBStorage, settings: TuneSettings) -> str:
    """Return the name of the study: that of its folder, but in a database of its own the name that it has there.

    A folder that was renamed or copied keeps its study.
    """
    known = [one.study_name for one in storage.get_all_studies()]
    return known[0] if settings.storage is None and len(known) == 1 else settings.out.name


def keep_settings(study: optuna.Study, settings: TuneSettings) -> None:
    """Store in a new study what it was asked for, or check that a process which joins it was asked for the same.

    Raises:
        SettingsError: it was asked for something else. Scores on other data, or after more epochs, say nothing here.
        ValueError: what the database holds are no settings.
    """
    asked = {name: value for name, value in settings.model_dump(mode="json").items() if name not in _MAY_DIFFER}
    if _SETTINGS not in study.user_attrs and not study.get_trials(deepcopy=False):
        study.set_user_attr(_SETTINGS, asked)
    began = study.user_attrs.get(_SETTINGS, {})
    if not isinstance(began, dict):
        raise ValueError(f"its settings are {shortened(began)}")
    changed = [name for name, value in asked.items() if name in began and began[name] != value]
    if changed:
        lines = "; ".join(f"{name} was {began[name]}, is now {asked[name]}" for name in changed)
        where = f" in --storage {settings.storage}" if settings.storage else ""
        raise SettingsError(
            f"{settings.out}: the study {study.study_name!r}{where} began with other settings, and trials cannot be "
            f"compared: {lines}. Give those settings, or choose an --out of another name."
        )


def check_trials(study: optuna.Study, out: Path) -> None:
    """Check that the folder of a study holds the trials that its database knows, and no others.

    Raises:
        SettingsError: they belong to different studies.
    """
    trials, begun = study.get_trials(deepcopy=False), sorted((out / "trials").glob("*/config.yaml"))
    if any(trial.state == TrialState.COMPLETE for trial in trials) and not begun:
        raise SettingsError(
            f"{out}: the database has {len(trials)} trials of a study {study.study_name!r}, and {out / 'trials'} holds "
            "none of them: they belong to another folder. Give that folder, or choose an --out of another name."
        )
    if begun and not trials:
        raise SettingsError(
            f"{out}: {out / 'trials'} holds trials, and the database knows no trial of a study {study.study_name!r}. "
            "Give the database and the folder name that they began with, or choose another --out."
        )


def count_ended(study: optuna.Study) -> int:
    """Return how many trials have a score, or were stopped because they did badly."""
    return sum(trial.state in ENDED for trial in study.get_trials(deepcopy=False))


def check_study(study: optuna.Study) -> None:
    """Check the direction of a study and the numbers of its trials: SQLite takes any text for a number.

    Raises:
        ValueError: one is not what tune writes.
    """
    if study.directions != [StudyDirection.MAXIMIZE]:
        raise ValueError(f"its direction is {', '.join(one.name.lower() for one in study.directions)}, not maximize")
    for trial in study.get_trials(deepcopy=False):
        for what, value in _numbers(trial):
            if not isinstance(value, int | float):
                raise ValueError(f"{what} of a trial is {str(value)[:60]!r}, and no number")
        finite = all(map(math.isfinite, trial.values or ()))
        if not finite or (trial.state == TrialState.COMPLETE and len(trial.values or ()) != 1):
            raise ValueError(f"the score of trial {trial.number} is {trial.values}, and no number")


def _numbers(trial: FrozenTrial) -> Iterator[tuple[str, object]]:
    yield "the number", trial.number
    yield from (("the score", value) for value in trial.values or ())
    yield from (("the score after an epoch", value) for value in trial.intermediate_values.values())
    for name, value in trial.params.items():
        if not isinstance(trial.distributions[name], CategoricalDistribution):
            yield name, value


def importance(study: optuna.Study) -> dict[str, float]:
    """Return the importance of each setting for the score of a trial, as a fraction.

    The method is PED-ANOVA (Watanabe 2023, arXiv 2304.10255).

    Returns:
        importance of each setting by name; empty if there are too few trials, or if all are alike.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError):  # fewer than two finished trials, or all are alike
            return {}
