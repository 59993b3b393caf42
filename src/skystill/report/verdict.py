"""The result of a run in sentences: accuracy and cost against the teacher, and whether distillation helped."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from skystill.model.measure import ModelCost
from skystill.report.metrics import Comparison, Counts, Evaluation, mean_iou, with_truth
from skystill.report.records import TeacherScores
from skystill.report.truth import missing_classes, needed, shown_difference, shown_interval, too_narrow

_SHOWN = 0.001  # a tenth of a point, the last digit that is shown
_COUNTS = 0.005  # half a point: an interval that ends above it does not rule out that distillation helps


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
    first = next(iter(evaluations.values()))
    missing = _missing(evaluations)
    if not first.counted.any():
        scored = ", ".join(name for name in first.classes.names if name not in first.classes.unscored)
        return [
            f"No test image holds a pixel of a class that is scored ({scored}): there is no mean IoU, and nothing can "
            "be compared. Give test images that hold them with --split.",
            *missing,
        ]
    if "student" not in evaluations:
        return [_reached(first), *missing, *too_narrow(len(first.keys))]
    lines = [_kept(evaluations, comparisons, measured) if foreign is None else _kept_of_foreign(evaluations, foreign)]
    if "student-alone" not in comparisons:
        lines.append("The same student was not trained alone, so this run cannot say whether distillation helped.")
    else:
        lines += _helped(comparisons["student-alone"])
    return [*lines, *missing, *too_narrow(len(first.keys))]


def features_first(passes: int, epochs: int, alone: int | None) -> list[str]:
    """Say that the student learnt the features of its teacher before it was distilled.

    Args:
        passes: over the images, in which it learnt them; 0 if it did not.
        epochs: in which it was distilled.
        alone: epochs of the same student without the teacher, or None if it was not trained.
    """
    if not passes:
        return []
    line = (
        f"The student first learnt the features of its teacher, in {passes} pass{'es' if passes > 1 else ''} over the"
    )
    if alone is None:
        return [f"{line} images."]
    return [
        f"{line} images; the student alone was given {alone} epochs on labels instead of {epochs}, for the same time."
    ]


def tuned_for_int8(epochs: int, is_alone: bool) -> list[str]:
    """Say that the student was trained further with the rounding of INT8.

    Args:
        epochs: how many of these there were; 0 for none.
        is_alone: whether the same student without the teacher was trained, for as many epochs in all.
    """
    if not epochs:
        return []
    more = "; the student alone was given as many more epochs on labels" if is_alone else ""
    return [f"The student was trained further with the rounding of INT8, for {epochs} epoch(s){more}."]


def _missing(evaluations: Mapping[str, Evaluation]) -> list[str]:
    names = {"teacher": "teacher", "alone": "student alone", "student": "distilled student"}
    if "student" not in evaluations:
        names["teacher"] = "network"
    confusions = {names[role]: one.total.tolist() for role, one in evaluations.items()}
    return missing_classes(confusions, next(iter(evaluations.values())).classes.names)


def _reached(evaluation: Evaluation) -> str:
    scores = evaluation.scores()
    between = shown_interval(scores.miou_interval, scores.images)
    between = f"95 % interval {between}" if between[0].isdigit() else between
    return f"The network reaches {_points(scores.miou)} % mean IoU on {scores.images} test image(s) ({between})."


def _helped(against: Comparison) -> list[str]:
    """Say whether distillation helped, from the student minus the same student trained alone."""
    if against.interval is None:
        return [
            "Whether distillation helped cannot be told: against the same student trained alone the difference is "
            f"{_span(against)}."
        ]
    if against.clear and abs(against.difference) < _SHOWN / 2:
        line = (
            "Distillation made no difference that counts here: against the same student trained alone it is "
            f"{_span(against)}, less than {100 * _SHOWN / 2:.2f} points."
        )
    elif not against.clear:
        line = (
            f"Distillation did not help here: against the same student trained alone the difference is "
            f"{_span(against)}, and that interval holds zero.{_may_have_helped(against)}"
        )
    elif against.difference > 0:
        line = f"Distillation helped: against the same student trained alone the difference is {_span(against)}."
    else:
        line = f"Distillation hurt here: against the same student trained alone the difference is {_span(against)}."
    return [line, "The interval is over test images of this one run; another seed may move the difference as much."]


def _may_have_helped(against: Comparison) -> str:
    """Say that an interval with zero in it is too wide to rule out a gain, if it is."""
    if against.interval is None or against.interval[1] < _COUNTS:
        return ""
    return f" It does not rule out a gain of up to {100 * against.interval[1]:.1f} points: more test images would tell."


def _kept(
    evaluations: Mapping[str, Evaluation], comparisons: Mapping[str, Comparison], costs: Mapping[str, ModelCost]
) -> str:
    teacher, student = evaluations["teacher"].scores(), evaluations["student"].scores()
    large, small = costs["teacher"], costs["student"]
    never = _never_predicted(evaluations["student"], evaluations["teacher"].total)
    size = _ratio(large.parameters / small.parameters, "fewer", "more", "as many")
    speed = _ratio(large.latency_ms_per_mp / small.latency_ms_per_mp, "faster", "slower", "as fast")
    return (
        f"The distilled student reaches {_points(student.miou)} % mean IoU where its teacher reaches "
        f"{_points(teacher.miou)} % ({_span(comparisons['student-teacher'])}), with {size} parameters, "
        f"and is {speed} on this CPU.{never}"
    )


def _ratio(ratio: float, above: str, below: str, same: str) -> str:
    """A ratio in three digits, such as "8 times fewer"; below 1 the other way round, and at 1 the words for that."""
    value, word = (ratio, above) if ratio >= 1 else (1 / ratio, below)
    digits = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return same if digits == "1" else f"{digits} times {word}"


def _kept_of_foreign(evaluations: Mapping[str, Evaluation], foreign: TeacherScores) -> str:
    """Compare with what the teacher reached when the student was distilled.

    Its mean is computed again from its counts, because files of earlier versions hold a mean over other classes: those
    that the teacher had predicted, too.
    """
    student, scores = evaluations["student"], foreign.scores
    confusion = np.array(scores.confusion, np.int64)
    mean = float(mean_iou(confusion, student.classes.scored))
    same_rule = scores.miou is not None and abs(scores.miou - mean) < 1e-9
    interval = scores.miou_interval if same_rule else None
    between = shown_interval(interval, scores.images)
    between = f"95 % interval {between}" if between[0].isdigit() else between
    return (
        f"The distilled student reaches {_points(student.scores().miou)} % mean IoU where its teacher "
        f"({' + '.join(foreign.teacher)}) reached {_points(None if np.isnan(mean) else mean)} % "
        f"({between}) on the run's own test images{_of_other_classes(student, confusion)}."
        f"{_never_predicted(student, confusion)}"
    )


def _never_predicted(student: Evaluation, confusion: Counts) -> str:
    """Name the classes that lower a teacher's mean because it does not have them, or never finds them."""
    never = student.classes.scored & with_truth(confusion) & (confusion.sum(axis=0) == 0)
    return f" The teacher never predicted {_names(student, never)}: an IoU of 0 in its mean." if never.any() else ""


def _of_other_classes(student: Evaluation, confusion: Counts) -> str:
    """Say over which classes the teacher's mean is, if they are not those of the student's mean."""
    counted = student.classes.scored & with_truth(confusion)
    if (counted == student.counted).all():
        return ""
    return f", a mean over other classes ({_names(student, counted) or 'none'}), so that the two cannot be compared"


def _names(evaluation: Evaluation, which: npt.NDArray[np.bool_]) -> str:
    return ", ".join(name for name, one in zip(evaluation.classes.names, which, strict=True) if one)


def _points(fraction: float | None) -> str:
    return "no" if fraction is None else f"{100 * fraction:.1f}"


def _span(comparison: Comparison) -> str:
    points = f"{100 * comparison.difference:+.1f} points"
    if comparison.interval is None:
        return f"{points}, {needed(comparison.images)}"
    return f"{points}, 95 % interval {shown_difference(comparison.interval, comparison.images)}"
