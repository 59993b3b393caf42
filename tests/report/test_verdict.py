"""The sentences of a report, each with its figures worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from skystill.classes import ClassMap
from skystill.errors import DataError
from skystill.model.measure import ModelCost
from skystill.report.metrics import Comparison, Evaluation, compare
from skystill.report.records import TeacherScores
from skystill.report.truth import shown_difference
from skystill.report.verdict import verdict
from tests.model_cost import cost

TWO = ClassMap(("a", "b"), ((1, 1, 1), (2, 2, 2)))
ONE_RUN = "The interval is over test images of this one run; another seed may move the difference as much."
KEPT = (
    "The distilled student reaches 66.7 % mean IoU where its teacher reaches 81.8 % "
    "(-15.2 points, 95 % interval -15.2 to -15.2), with 8 times fewer parameters, and is 4 times faster on this CPU."
)
NARROW = (
    "Intervals from 6 test images are too narrow: instead of in 95 of 100 cases, an interval from 5 images holds the "
    "true value in about 83, from 10 in about 89, and from 20 on in 92 or more."
)


def evaluation(right: int, images: int = 6) -> Evaluation:
    """Each image has ten pixels of each class, of which so many are right: IoU right / (20 - right) of both classes.

    Equal images give an interval without width, so that every figure can be worked out: 9 right is 9 / 11 = 81.8 %,
    8 right is 8 / 12 = 66.7 %.
    """
    wrong = 10 - right
    confusion = np.array([[[right, wrong], [wrong, right]]] * images)
    return Evaluation(tuple(map(str, range(images))), confusion, np.zeros((2, 2, 256), np.int64), TWO)


def costs(**student: float) -> dict[str, ModelCost]:
    """A teacher of 800,000 parameters and 40 ms/MP; a student of 100,000 parameters and 10 ms/MP."""
    small = cost(**{"parameters": 100_000, "latency_ms_per_mp": 10.0} | student)
    return {"teacher": cost(parameters=800_000, latency_ms_per_mp=40.0), "student": small, "alone": small}


def distilled(against_alone: Comparison | None, images: int = 6, **student: float) -> list[str]:
    """The verdict on a student of 66.7 %, its teacher of 81.8 %, and the same student alone."""
    found = {"teacher": evaluation(9, images), "student": evaluation(8, images)}
    comparisons = {"student-teacher": compare([found["student"]], [found["teacher"]])}
    measured = costs(**student)
    if against_alone is None:
        del measured["alone"]
    else:
        found["alone"] = evaluation(8, images)
        comparisons |= {"student-alone": against_alone, "alone-teacher": comparisons["student-teacher"]}
    return verdict(found, comparisons, measured)


def of_counts(confusion: list[list[list[int]]], classes: ClassMap) -> Evaluation:
    """An evaluation with the counts of each image."""
    keys = tuple(map(str, range(len(confusion))))
    return Evaluation(keys, np.array(confusion), np.zeros((len(classes), 2, 256), np.int64), classes)


def test_one_network_alone() -> None:
    """Of two images one is all right, of one 6 of 10 pixels of each class are: IoU 16 / 24. Two give no interval."""
    found = of_counts([[[10, 0], [0, 10]], [[6, 4], [4, 6]]], TWO)
    assert verdict({"teacher": found}, {}, {"teacher": cost()}) == [
        "The network reaches 66.7 % mean IoU on 2 test image(s) "
        "(no interval from 2 test image(s): 5 or more are enough)."
    ]
    assert found.interval() is None
    assert found.scores().miou_interval is None


@pytest.mark.parametrize(
    ("images", "between", "more"),
    [
        (1, "no interval from 1 test image(s): 5 or more are enough", []),
        (4, "no interval from 4 test image(s): 5 or more are enough", []),
        (5, "95 % interval 66.7 to 66.7", [NARROW.replace("from 6", "from 5", 1)]),
        (19, "95 % interval 66.7 to 66.7", [NARROW.replace("from 6", "from 19", 1)]),
        (20, "95 % interval 66.7 to 66.7", []),
    ],
)
def test_an_interval_needs_images(images: int, between: str, more: list[str]) -> None:
    lines = verdict({"teacher": evaluation(8, images)}, {}, {"teacher": cost()})
    assert lines == [f"The network reaches 66.7 % mean IoU on {images} test image(s) ({between}).", *more]


THREE = ClassMap(("a", "b", "Water"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))


def test_a_stray_pixel_of_a_class_that_is_not_there_takes_nothing_but_its_own_place() -> None:
    """Ten pixels of a and of b in each of 20 images, none of Water.

    The student calls one pixel of a Water: IoU of a is 9 / 10 and of b 10 / 10, a mean of 95 %. Alone it calls one
    pixel of a b: 9 / 10 and 10 / 11, a mean of 90.5 %. So distillation helped by 4.5 points. With Water as a third
    class of score 0 in the student's mean alone, it would have hurt by 27.1 points: 63.3 - 90.5.
    """
    student = of_counts([[[9, 0, 1], [0, 10, 0], [0, 0, 0]]] * 20, THREE)
    alone = of_counts([[[9, 1, 0], [0, 10, 0], [0, 0, 0]]] * 20, THREE)
    teacher = of_counts([[[10, 0, 0], [0, 10, 0], [0, 0, 0]]] * 20, THREE)
    found = {"teacher": teacher, "student": student, "alone": alone}
    pairs = {f"{a}-{b}": compare([found[a]], [found[b]]) for a, b in (("student", "teacher"), ("student", "alone"))}
    lines = verdict(found, pairs, costs())
    assert lines[0].startswith(
        "The distilled student reaches 95.0 % mean IoU where its teacher reaches 100.0 % "
        "(-5.0 points, 95 % interval -5.0 to -5.0)"
    )
    assert lines[1:] == [
        "Distillation helped: against the same student trained alone the difference is +4.5 points, "
        "95 % interval +4.5 to +4.5.",
        ONE_RUN,
        "The test images hold no pixel of Water, so that it counts in no mean of any model. Pixels that are predicted "
        "as Water (teacher: 0, distilled student: 20, student alone: 0) are wrong: its precision is 0, and they lower "
        "the recall and the IoU of the classes that are there, and the pixel accuracy.",
    ]
    scores = student.scores()
    assert scores.per_class.iou == [0.9, 1.0, None]
    assert scores.per_class.f1 == [pytest.approx(18 / 19), 1.0, None]
    assert scores.per_class.precision == [1.0, 1.0, 0.0]
    assert scores.per_class.recall == [0.9, 1.0, None]
    assert (scores.mf1, scores.mprecision, scores.mrecall) == (pytest.approx((18 / 19 + 1) / 2), 1.0, 0.95)
    assert scores.pixel_accuracy == 0.95
    assert teacher.scores().per_class.precision[2] is None


def test_no_scored_class_is_there() -> None:
    """Nothing is compared, nothing is NaN, and the report says which classes it needs."""
    found = of_counts([[[0, 0, 0], [0, 0, 0], [1, 2, 7]]] * 6, ClassMap(THREE.names, THREE.colors, unscored=("Water",)))
    assert verdict({"teacher": found}, {}, {"teacher": cost()}) == [
        "No test image holds a pixel of a class that is scored (a, b): there is no mean IoU, and nothing can be "
        "compared. Give test images that hold them with --split.",
        "The test images hold no pixel of a, so that it counts in no mean of any model. Pixels that are predicted as a "
        "(network: 6) are wrong: its precision is 0, and they lower the recall and the IoU of the classes that are "
        "there, and the pixel accuracy.",
        "The test images hold no pixel of b, so that it counts in no mean of any model. Pixels that are predicted as b "
        "(network: 12) are wrong: its precision is 0, and they lower the recall and the IoU of the classes that are "
        "there, and the pixel accuracy.",
    ]
    assert found.scores().miou is None
    assert found.scores().miou_interval is None
    with pytest.raises(DataError, match="no scored class"):
        compare([found], [found])


def test_distillation_helped() -> None:
    assert distilled(Comparison(0.0312, 0.0104, 0.0519, 5)) == [
        KEPT,
        "Distillation helped: against the same student trained alone the difference is "
        "+3.1 points, 95 % interval +1.0 to +5.2.",
        ONE_RUN,
        NARROW,
    ]


def test_distillation_hurt() -> None:
    assert distilled(Comparison(-0.0312, -0.0519, -0.0104, 5)) == [
        KEPT,
        "Distillation hurt here: against the same student trained alone the difference is "
        "-3.1 points, 95 % interval -5.2 to -1.0.",
        ONE_RUN,
        NARROW,
    ]


@pytest.mark.parametrize("sign", [1, -1])
def test_less_than_is_shown_neither_helped_nor_hurt(sign: int) -> None:
    """A difference of 0.03 points, with an interval without zero, would read "helped by +0.0 points"."""
    lines = distilled(Comparison(sign * 0.0003, *sorted((sign * 0.0001, sign * 0.0005)), 6))
    assert lines[1].startswith("Distillation made no difference that counts here: ")
    assert lines[1].endswith("less than 0.05 points.")
    assert distilled(Comparison(0.0005, 0.0001, 0.0009, 6))[1].startswith("Distillation helped: ")


@pytest.mark.parametrize(
    ("comparison", "span", "gain"),
    [
        (Comparison(0.02, -0.005, 0.04, 6), "+2.0 points, 95 % interval -0.5 to +4.0", "4.0"),
        (Comparison(-0.02, -0.04, 0.005, 6), "-2.0 points, 95 % interval -4.0 to +0.5", "0.5"),
        (Comparison(0.02, 0.0, 0.04, 6), "+2.0 points, 95 % interval +0.0 to +4.0", "4.0"),
        (Comparison(-0.01, -0.02, 0.004, 6), "-1.0 points, 95 % interval -2.0 to +0.4", None),
        (compare([evaluation(8)], [evaluation(8)]), "+0.0 points, 95 % interval +0.0 to +0.0", None),
    ],
)
def test_distillation_did_not_help(comparison: Comparison, span: str, gain: str | None) -> None:
    """Zero in the interval is no proof that there is no gain: an interval that reaches half a point says so."""
    wide = f" It does not rule out a gain of up to {gain} points: more test images would tell." if gain else ""
    assert distilled(comparison) == [
        KEPT,
        f"Distillation did not help here: against the same student trained alone the difference is {span}, and that "
        f"interval holds zero.{wide}",
        ONE_RUN,
        NARROW,
    ]


def test_from_too_few_images_nothing_can_be_told() -> None:
    """Four images, however clear they are; with the fifth it counts."""
    assert distilled(Comparison(0.1, 0.08, 0.12, 4), images=4) == [
        KEPT.replace("95 % interval -15.2 to -15.2", "no interval from 4 test image(s): 5 or more are enough"),
        "Whether distillation helped cannot be told: against the same student trained alone the difference is +10.0 "
        "points, no interval from 4 test image(s): 5 or more are enough.",
    ]
    assert distilled(Comparison(0.1, 0.08, 0.12, 5))[1].startswith("Distillation helped: ")


def test_a_student_that_was_not_trained_alone() -> None:
    assert distilled(None) == [
        KEPT,
        "The same student was not trained alone, so this run cannot say whether distillation helped.",
        NARROW,
    ]


def test_a_teacher_that_is_no_run() -> None:
    """It is not measured here: what it reached on the run's own test images is all that is known."""
    foreign = TeacherScores(teacher=["forest.onnx", "town.pt2"], scores=evaluation(9).scores())
    student = {"student": evaluation(8), "alone": evaluation(7)}  # 7 / 13 = 53.8 %
    comparisons = {"student-alone": compare([student["student"]], [student["alone"]])}
    first = (
        "The distilled student reaches 66.7 % mean IoU where its teacher (forest.onnx + town.pt2) reached 81.8 % "
        "(95 % interval 81.8 to 81.8) on the run's own test images."
    )
    assert verdict(student, comparisons, costs(), foreign) == [
        first,
        "Distillation helped: against the same student trained alone the difference is "
        "+12.8 points, 95 % interval +12.8 to +12.8.",
        ONE_RUN,
        NARROW,
    ]
    assert verdict({"student": evaluation(8)}, {}, costs(), foreign) == [
        first,
        "The same student was not trained alone, so this run cannot say whether distillation helped.",
        NARROW,
    ]


def test_a_class_that_the_teacher_of_a_run_never_finds_is_named() -> None:
    """The student found it, and a teacher that finds one pixel of it is not accused."""
    finds = of_counts([[[12, 0, 0], [0, 6, 0], [0, 0, 6]]] * 6, THREE)
    for water, said in ((0, True), (1, False)):
        teacher = of_counts([[[12, 0, 0], [0, 6, 0], [6 - water, 0, water]]] * 6, THREE)
        comparisons = {"student-teacher": compare([finds], [teacher])}
        lines = verdict({"teacher": teacher, "student": finds}, comparisons, costs())
        assert lines[0].endswith(
            "on this CPU. The teacher never predicted Water: an IoU of 0 in its mean." if said else "on this CPU."
        )


def test_a_teacher_that_an_earlier_version_scored() -> None:
    """Its file holds a mean with Water at 0, (0.9 + 1 + 0) / 3; its counts give (0.9 + 1) / 2."""
    counts = of_counts([[[9, 0, 1], [0, 10, 0], [0, 0, 0]]] * 6, THREE)
    before = replace(counts.scores(), miou=1.9 / 3, miou_interval=(0.6, 0.7))
    lines = verdict({"student": counts}, {}, costs(), TeacherScores(teacher=["old.onnx"], scores=before))
    assert lines[0] == (
        "The distilled student reaches 95.0 % mean IoU where its teacher (old.onnx) reached 95.0 % (no interval) on "
        "the run's own test images."
    )


def test_a_teacher_that_was_scored_on_images_with_other_classes() -> None:
    counts = of_counts([[[9, 0, 1], [0, 10, 0], [0, 0, 0]]] * 6, THREE)
    other = of_counts([[[10, 0, 0], [0, 0, 0], [0, 0, 10]]] * 6, THREE).scores()
    lines = verdict({"student": counts}, {}, costs(), TeacherScores(teacher=["t.onnx"], scores=other))
    assert lines[0].endswith("test images, a mean over other classes (a, Water), so that the two cannot be compared.")


def test_classes_that_a_foreign_teacher_lacks_are_named() -> None:
    """Its 12 pixels of b and of Water are called a: IoU 12 / 24 of a, and 0 of the others."""
    student = of_counts([[[12, 0, 0], [0, 6, 0], [0, 0, 6]]] * 6, THREE)
    lacks = of_counts([[[12, 0, 0], [6, 0, 0], [6, 0, 0]]] * 6, THREE).scores()
    lines = verdict({"student": student}, {}, costs(), TeacherScores(teacher=["t.onnx"], scores=lacks))
    assert lines[0] == (
        "The distilled student reaches 100.0 % mean IoU where its teacher (t.onnx) reached 16.7 % (95 % interval 16.7 "
        "to 16.7) on the run's own test images. The teacher never predicted b, Water: an IoU of 0 in its mean."
    )


@pytest.mark.parametrize(
    ("latency_ms_per_mp", "speed"),
    [
        (10.0, "4 times faster"),
        (39.0, "1.03 times faster"),
        (50.0, "1.25 times slower"),
        (400.0, "10 times slower"),
        (0.16, "250 times faster"),
        (40.0, "as fast"),
        (39.9, "as fast"),  # 1.0025 times
        (40.1, "as fast"),
    ],
)
def test_faster_and_slower_than_the_teacher(latency_ms_per_mp: float, speed: str) -> None:
    first = distilled(None, latency_ms_per_mp=latency_ms_per_mp)[0]
    assert first.endswith(f", with 8 times fewer parameters, and is {speed} on this CPU.")


def test_a_student_of_the_size_of_its_teacher() -> None:
    assert ", with as many parameters, and is 4 times faster" in distilled(None, parameters=800_000)[0]


@pytest.mark.parametrize(
    ("low", "high", "between"),
    [
        (0.00011, 0.0123, "+0.01 to +1.2"),  # clear, and both ends say so
        (-0.00011, 0.0123, "-0.01 to +1.2"),
        (0.000011, 0.0005, "+0.001 to +0.1"),  # 0.05 points are rounded up
        (0.0, 0.0, "+0.0 to +0.0"),
        (-0.0123, -0.00049, "-1.2 to -0.05"),
    ],
)
def test_the_end_of_an_interval_that_is_not_zero_is_not_written_as_zero(low: float, high: float, between: str) -> None:
    assert shown_difference((low, high), 20) == between
    (line, *_) = distilled(Comparison((low + high) / 2, low, high, 20), 20)[1:]
    assert f"95 % interval {between}" in line
    assert ("holds zero" in line) == (low <= 0 <= high)


def test_a_large_ratio_is_written_out() -> None:
    """800,000 parameters are 1,600 times 500, and 40 ms are 2,000 times 0.02 ms."""
    first = distilled(None, parameters=500, latency_ms_per_mp=0.02)[0]
    assert "e+03" not in first
    assert first.replace(",", "").endswith("with 1600 times fewer parameters and is 2000 times faster on this CPU.")


def test_a_student_larger_than_its_teacher_does_not_have_fewer_parameters() -> None:
    first = distilled(None, parameters=1_600_000)[0]
    assert "fewer parameters" not in first
    assert "2 times more parameters" in first
