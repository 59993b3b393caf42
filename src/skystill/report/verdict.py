"""The result of a run in sentences: accuracy and cost against the teacher, and whether distillation helped."""

from collections.abc import Mapping

from skystill.model.measure import ModelCost
from skystill.report.metrics import ENOUGH_IMAGES, Comparison, Evaluation
from skystill.report.records import TeacherScores


def verdict(
    evaluations: Mapping[str, Evaluation],
    comparisons: Mapping[str, Comparison],
    measured: Mapping[str, ModelCost],
    foreign: TeacherScores | None = None,
) -> list[str]:
    """Describe the result in sentences: accuracy and cost against the teacher, and whether distillation helped.

    Args:
        evaluations: evaluation of each model by role: "teacher", "alone", "student".
        comparisons: comparisons by pair of roles, such as "student-alone".
        measured: cost of each model by role.
        foreign: scores of a teacher that is not a SkyStill run; None if the teacher is among `evaluations`.

    Returns:
        the lines of the verdict, each of one sentence or more.
    """
    if "student" not in evaluations:
        role = next(iter(evaluations))
        scores = evaluations[role].scores()
        low, high = scores.miou_interval
        return [
            f"The network reaches {_points(scores.miou)} % mean IoU on {scores.images} test images "
            f"(95 % interval {_points(low)} to {_points(high)})."
        ]
    lines = [_kept(evaluations, comparisons, measured) if foreign is None else _kept_of_foreign(evaluations, foreign)]
    if "student-alone" not in comparisons:
        return [*lines, "The same student was not trained alone, so this run cannot say whether distillation helped."]
    against = comparisons["student-alone"]
    if against.images < ENOUGH_IMAGES:
        lines.append(
            f"Whether distillation helped cannot be told from {against.images} test image(s): the difference to the "
            f"same student trained alone is {_span(against)}, but an interval needs {ENOUGH_IMAGES} images at least."
        )
    elif not against.clear:
        lines.append(
            f"Distillation did not help here: against the same student trained alone the difference is "
            f"{_span(against)}, and that interval holds zero."
        )
    elif against.difference > 0:
        lines.append(f"Distillation helped: against the same student trained alone the difference is {_span(against)}.")
    else:
        lines.append(
            f"Distillation hurt here: against the same student trained alone the difference is {_span(against)}."
        )
    return [*lines, "The interval is over test images of this one run; another seed may move the difference as much."]


def _kept(
    evaluations: Mapping[str, Evaluation], comparisons: Mapping[str, Comparison], costs: Mapping[str, ModelCost]
) -> str:
    teacher, student = evaluations["teacher"].scores(), evaluations["student"].scores()
    size = _ratio(costs["teacher"].parameters / costs["student"].parameters, "fewer", "more")
    speed = _ratio(costs["teacher"].latency_ms_per_mp / costs["student"].latency_ms_per_mp, "faster", "slower")
    return (
        f"The distilled student reaches {_points(student.miou)} % mean IoU where its teacher reaches "
        f"{_points(teacher.miou)} % ({_span(comparisons['student-teacher'])}), with {size} parameters, "
        f"and is {speed} on this CPU."
    )


def _ratio(ratio: float, above: str, below: str) -> str:
    """A ratio in three digits, such as "8 times fewer"; below 1 the other way round."""
    value, word = (ratio, above) if ratio >= 1 else (1 / ratio, below)
    return f"{value:,.0f} times {word}" if value >= 100 else f"{value:.3g} times {word}"


def _kept_of_foreign(evaluations: Mapping[str, Evaluation], foreign: TeacherScores) -> str:
    low, high = foreign.scores.miou_interval
    student = _points(evaluations["student"].scores().miou)
    return (
        f"The distilled student reaches {student} % mean IoU where its teacher "
        f"({' + '.join(foreign.teacher)}) reached {_points(foreign.scores.miou)} % "
        f"(95 % interval {_points(low)} to {_points(high)}) on the run's own test images."
    )


def _points(fraction: float | None) -> str:
    return "no" if fraction is None else f"{100 * fraction:.1f}"


def _span(comparison: Comparison) -> str:
    difference, low, high = (100 * value for value in (comparison.difference, comparison.low, comparison.high))
    return f"{difference:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
