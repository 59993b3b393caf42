import numpy as np
import pytest
import torch

from skystill.classes import ClassMap
from skystill.errors import DataError
from skystill.report.metrics import (
    BINS,
    Evaluation,
    compare,
    confusion_counts,
    evaluate,
    f1_per_class,
    iou_per_class,
    mean_iou,
    mean_over_classes,
    metrics_for,
    pixel_accuracy,
    precision_per_class,
    recall_per_class,
)
from skystill.train.loop.meter import Meter

TWO = ClassMap(("a", "b"), ((1, 1, 1), (2, 2, 2)))
HAND = np.array([[5, 1], [2, 4]])  # truth a: 5 right, 1 called b; truth b: 2 called a, 4 right


def test_counts_by_hand() -> None:
    labels = np.array([[0, 0, 1], [1, 255, 0]], np.uint8)
    predicted = np.array([[0, 1, 1], [0, 1, 0]], np.uint8)
    assert confusion_counts(labels, predicted, 2).tolist() == [[2, 1], [1, 1]]


def test_metrics_by_hand() -> None:
    assert iou_per_class(HAND) == pytest.approx([5 / 8, 4 / 7])
    assert precision_per_class(HAND) == pytest.approx([5 / 7, 4 / 5])
    assert recall_per_class(HAND) == pytest.approx([5 / 6, 4 / 6])
    assert f1_per_class(HAND) == pytest.approx([10 / 13, 8 / 11])
    assert pixel_accuracy(HAND) == pytest.approx(9 / 12)


def test_a_class_that_is_not_there_leaves_the_mean() -> None:
    confusion = np.array([[3, 0, 1], [0, 0, 0], [0, 0, 2]])
    assert np.isnan(iou_per_class(confusion)[1])
    everything = np.ones(3, bool)
    assert mean_over_classes(iou_per_class(confusion), everything) == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_an_unscored_class_counts_as_an_error_and_leaves_the_mean() -> None:
    classes = ClassMap(("a", "b"), ((1, 1, 1), (2, 2, 2)), unscored=("b",))
    assert metrics_for(classes)["miou"](HAND) == pytest.approx(5 / 8)


def _scenes(labels: list[list[list[int]]]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    return [
        (f"{i}", np.zeros((len(rows), len(rows[0]), 3), np.uint8), np.array(rows, np.uint8))
        for i, rows in enumerate(labels)
    ]


def test_the_curve_by_hand() -> None:
    # class b: probabilities 0.9 (is b), 0.6 (is a), 0.4 (is b); class a has the rest
    def predict(image: np.ndarray) -> np.ndarray:
        b = np.array([[0.9, 0.6, 0.4]], np.float32)
        return np.stack([1 - b, b])

    found = evaluate(predict, _scenes([[[1, 0, 1]]]), TWO)
    assert found.total.tolist() == [[0, 1], [1, 1]]
    curve = found.precision_recall()[1]
    # bins of 1/256: 0.9 is in bin 230, 0.6 in 153, 0.4 in 102; above 230 nothing is predicted
    assert curve.threshold == [step / BINS for step in range(230, -1, -1)]
    points = list(zip(curve.precision, curve.recall, strict=True))
    only_first, first_two, all_three = (1.0, 0.5), (0.5, 0.5), (2 / 3, 1.0)
    assert points == [only_first] * (230 - 153) + [first_two] * (153 - 102) + [all_three] * 103


def test_evaluation_needs_an_image() -> None:
    with pytest.raises(DataError, match="no image"):
        evaluate(lambda image: image, [], TWO)


def _evaluation(confusions: list[np.ndarray]) -> Evaluation:
    keys = tuple(str(i) for i in range(len(confusions)))
    return Evaluation(keys, np.array(confusions), np.zeros((2, 2, BINS), np.int64), TWO)


def test_equal_images_give_an_interval_without_width() -> None:
    found = _evaluation([HAND] * 8).interval()
    assert found is not None
    low, high = found
    expected = (5 / 8 + 4 / 7) / 2
    assert (low, high) == (pytest.approx(expected), pytest.approx(expected))


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of images drawn from a known mixture, the 95 % interval should hold the true mIoU about 95 times in 100."""
    rng = np.random.default_rng(5)
    good, bad = np.array([[90, 10], [10, 90]]), np.array([[60, 40], [40, 60]])
    truth = float(mean_over_classes(iou_per_class(good + bad), np.ones(2, bool)))
    hits = 0
    for _ in range(100):
        drawn = [good if flip else bad for flip in rng.random(40) < 0.5]
        low, high = _evaluation(drawn).interval() or (1, 0)
        hits += low <= truth <= high
    assert 87 <= hits <= 100


@pytest.mark.parametrize(("images", "least", "most"), [(5, 75, 91), (10, 82, 95), (20, 87, 99)])
def test_an_interval_from_few_images_is_too_narrow(images: int, least: int, most: int) -> None:
    """What reports say of it: about 83 in 100 hold the truth from 5 images, 89 from 10, and 92 or more from 20 on."""
    rng = np.random.default_rng(7)
    right = rng.beta(8, 2, (100_000, 2)).mean(axis=0)
    truth = float(mean_iou(_counts(*right), np.ones(2, bool)))
    hits = 0
    for _ in range(200):
        low, high = _evaluation([_counts(*rng.beta(8, 2, 2)) for _ in range(images)]).interval() or (1, 0)
        hits += low <= truth <= high
    assert least <= hits / 2 <= most


def _counts(first: float, second: float) -> np.ndarray:
    """Of 10,000 pixels of each class, so many are right."""
    right = np.rint(10_000 * np.array([first, second])).astype(np.int64)
    return np.array([[right[0], 10_000 - right[0]], [10_000 - right[1], right[1]]])


def test_a_class_with_truth_that_is_never_predicted_has_precision_zero() -> None:
    assert precision_per_class(np.array([[3, 0, 0], [2, 0, 0], [0, 0, 0]])) == pytest.approx(
        [3 / 5, 0, np.nan], nan_ok=True
    )
    assert precision_per_class(np.array([[3, 0, 1], [0, 2, 0], [0, 0, 0]])) == pytest.approx([1, 1, 0])


def test_training_and_report_count_the_same_classes() -> None:
    """The mIoU of the log, of the batches of a validation and of the report, where b has no truth and is predicted."""
    classes = ClassMap(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)))
    labels = np.array([[0, 0, 0, 2]], np.uint8)
    predicted = np.array([[0, 0, 1, 2]], np.uint8)
    logits = np.eye(3, dtype=np.float32)[predicted].transpose(2, 0, 1)
    meter = Meter(3, metrics_for(classes))
    batch = torch.from_numpy(logits)[None], torch.from_numpy(labels).long()[None]
    logged = meter.add({}, meter.count(*batch), 4)
    reported = evaluate(lambda image: logits, [("x", np.zeros((1, 4, 3), np.uint8), labels)], classes)
    assert logged["miou"] == reported.scores().miou == pytest.approx((2 / 3 + 1) / 2)
    assert reported.precision_recall()[1].recall == []


def test_a_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    worse = [rng.integers(20, 60, (2, 2)) for _ in range(12)]
    better = [c + np.diag([15, 15]) for c in worse]
    comparison = compare([_evaluation(better)], [_evaluation(worse)])
    assert comparison.clear
    assert 0 < comparison.low < comparison.difference < comparison.high
    same = compare([_evaluation(worse)], [_evaluation(worse)])
    assert (same.low, same.difference, same.high, same.clear) == (0, 0, 0, False)
    few = compare([_evaluation(better[:4])], [_evaluation(worse[:4])])
    assert few.low > 0
    assert few.interval is None
    assert not few.clear
    assert compare([_evaluation(better[:5])], [_evaluation(worse[:5])]).interval is not None


def test_scores_are_json_and_agree_with_the_counts() -> None:
    scores = _evaluation([HAND, HAND]).scores()
    assert scores.miou == pytest.approx((5 / 8 + 4 / 7) / 2)
    assert scores.confusion == (2 * HAND).tolist()
    assert scores.pixels == 24


def test_seeds_are_averaged_before_they_are_compared() -> None:
    rng = np.random.default_rng(1)
    base = [rng.integers(20, 60, (2, 2)) for _ in range(9)]
    better, much = ([c + np.diag([n, n]) for c in base] for n in (10, 30))
    one, other, third = _evaluation(base), _evaluation(better), _evaluation(much)
    both = compare([other, third], [one, one])
    single = [compare([evaluation], [one]).difference for evaluation in (other, third)]
    assert both.difference == pytest.approx(np.mean(single))
    assert both.low < both.difference < both.high
    with pytest.raises(DataError, match="different images"):
        compare([one], [_evaluation(base[:3])])
