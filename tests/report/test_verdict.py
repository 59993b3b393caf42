"""The sentences of a report, each with its figures worked out by hand."""

import numpy as np
import pytest

from skystill.classes import ClassMap
from skystill.model.measure import ModelCost
from skystill.report.metrics import Comparison, Evaluation, compare
from skystill.report.records import TeacherScores
from skystill.report.verdict import verdict
from tests.model_cost import cost

TWO = ClassMap(("a", "b"), ((1, 1, 1), (2, 2, 2)))
ONE_RUN = "The interval is over test images of this one run; another seed may move the difference as much."
KEPT = (
    "The distilled student reaches 66.7 % mean IoU where its teacher reaches 81.8 % "
    "(-15.2 points, 95 % interval -15.2 to -15.2), with 8 times fewer parameters, and is 4 times faster on this CPU."
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


def distilled(against_alone: Comparison | None, **student: float) -> list[str]:
    """The verdict on a student of 66.7 %, its teacher of 81.8 %, and the same student alone."""
    found = {"teacher": evaluation(9), "student": evaluation(8)}
    comparisons = {"student-teacher": compare([found["student"]], [found["teacher"]])}
    measured = costs(**student)
    if against_alone is None:
        del measured["alone"]
    else:
        found["alone"] = evaluation(8)
        comparisons |= {"student-alone": against_alone, "alone-teacher": comparisons["student-teacher"]}
    return verdict(found, comparisons, measured)


def test_one_network_alone() -> None:
    """Of two images one is all right, IoU 100 %, and of one 6 of 10 pixels are, IoU 6 / 14 = 42.9 %; both: 16 / 24.

    A set of two drawn from them is twice the one, twice the other (a quarter each), or both: so the interval is wide.
    """
    both = np.array([[[10, 0], [0, 10]], [[6, 4], [4, 6]]])
    found = Evaluation(("x", "y"), both, np.zeros((2, 2, 256), np.int64), TWO)
    assert verdict({"teacher": found}, {}, {"teacher": cost()}) == [
        "The network reaches 66.7 % mean IoU on 2 test images (95 % interval 42.9 to 100.0)."
    ]


def test_distillation_helped() -> None:
    assert distilled(Comparison(0.0312, 0.0104, 0.0519, 5)) == [
        KEPT,
        "Distillation helped: against the same student trained alone the difference is "
        "+3.1 points, 95 % interval +1.0 to +5.2.",
        ONE_RUN,
    ]


def test_distillation_hurt() -> None:
    assert distilled(Comparison(-0.0312, -0.0519, -0.0104, 5)) == [
        KEPT,
        "Distillation hurt here: against the same student trained alone the difference is "
        "-3.1 points, 95 % interval -5.2 to -1.0.",
        ONE_RUN,
    ]


@pytest.mark.parametrize(
    ("comparison", "span"),
    [
        (Comparison(0.02, -0.005, 0.04, 6), "+2.0 points, 95 % interval -0.5 to +4.0"),
        (Comparison(-0.02, -0.04, 0.005, 6), "-2.0 points, 95 % interval -4.0 to +0.5"),
        (Comparison(0.02, 0.0, 0.04, 6), "+2.0 points, 95 % interval +0.0 to +4.0"),
        (compare([evaluation(8)], [evaluation(8)]), "+0.0 points, 95 % interval +0.0 to +0.0"),
    ],
)
def test_distillation_did_not_help(comparison: Comparison, span: str) -> None:
    assert distilled(comparison) == [
        KEPT,
        f"Distillation did not help here: against the same student trained alone the difference is {span}, and that "
        "interval holds zero.",
        ONE_RUN,
    ]


def test_from_too_few_images_nothing_can_be_told() -> None:
    """Four images, however clear they are; with the fifth it counts."""
    assert distilled(Comparison(0.1, 0.08, 0.12, 4)) == [
        KEPT,
        "Whether distillation helped cannot be told from 4 test image(s): the difference to the same student trained "
        "alone is +10.0 points, 95 % interval +8.0 to +12.0, but an interval needs 5 images at least.",
        ONE_RUN,
    ]
    assert distilled(Comparison(0.1, 0.08, 0.12, 5))[1].startswith("Distillation helped: ")


def test_a_student_that_was_not_trained_alone() -> None:
    assert distilled(None) == [
        KEPT,
        "The same student was not trained alone, so this run cannot say whether distillation helped.",
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
    ]
    assert verdict({"student": evaluation(8)}, {}, costs(), foreign) == [
        first,
        "The same student was not trained alone, so this run cannot say whether distillation helped.",
    ]


@pytest.mark.parametrize(
    ("latency_ms_per_mp", "speed"),
    [
        (10.0, "4 times faster"),
        (39.0, "1.03 times faster"),
        (50.0, "1.25 times slower"),
        (400.0, "10 times slower"),
        (0.16, "250 times faster"),
    ],
)
def test_faster_and_slower_than_the_teacher(latency_ms_per_mp: float, speed: str) -> None:
    (first, _) = distilled(None, latency_ms_per_mp=latency_ms_per_mp)
    assert first.endswith(f", with 8 times fewer parameters, and is {speed} on this CPU.")


def test_a_large_ratio_is_written_out() -> None:
    """800,000 parameters are 1,600 times 500, and 40 ms are 2,000 times 0.02 ms."""
    (first, _) = distilled(None, parameters=500, latency_ms_per_mp=0.02)
    assert "e+03" not in first
    assert first.replace(",", "").endswith("with 1600 times fewer parameters and is 2000 times faster on this CPU.")


def test_a_student_larger_than_its_teacher_does_not_have_fewer_parameters() -> None:
    (first, _) = distilled(None, parameters=1_600_000)
    assert "fewer parameters" not in first
    assert "2 times more parameters" in first
