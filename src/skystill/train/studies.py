"""What a database of a study from elsewhere must hold, so that no trial is compared by something that is no score."""

import math
from collections.abc import Iterator

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


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
