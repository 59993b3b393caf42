import numpy as np
import pytest

from skystill.data.class_weights import median_frequency_weights
from skystill.errors import SettingsError
from skystill.settings import TrainSettings, build_settings


def test_median_frequency_by_hand() -> None:
    # Two images of 100 labelled pixels. Class 0: 160 of 200; class 1: 20 of the 100 of its image; class 2: 20 of 200.
    counts = np.array([[70, 20, 10, 0], [90, 0, 10, 0]])
    # frequencies 0.8, 0.2, 0.1; their median is 0.2. Class 3 does not occur.
    assert median_frequency_weights(counts) == pytest.approx((0.25, 1.0, 2.0, 1.0))
    assert median_frequency_weights(np.zeros((2, 2), np.int64)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("auto", "auto"), ("1,2,0.5", "1,2,0.5"), ([1, 2.5], "1,2.5"), (None, None), ("0,1", "0,1")],
)
def test_settings_that_are_taken(given: object, kept: object) -> None:
    settings = build_settings(TrainSettings, {"data": "d", "out": "o", "class_weights": given})
    assert settings.class_weights == kept


@pytest.mark.parametrize(
    ("option", "given", "complaint"),
    [
        ("class_weights", "1,x", "write one number for each class"),
        ("class_weights", "", "--class-weights is empty"),
        ("class_weights", "1,-2", "a weight must be 0 or more"),
        ("class_weights", "1,inf", "a weight must be 0 or more"),
        ("class_weights", "nan,1", "a weight must be 0 or more"),
        ("class_weights", "0,0", "all weights are 0"),
        ("class_weights", 3, "--class-weights 3"),
        ("patience", 0, "--patience 0"),
        ("logger", "comet", "no logger is called 'comet'; there are tensorboard, mlflow, wandb"),
    ],
)
def test_settings_that_are_refused(option: str, given: object, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        build_settings(TrainSettings, {"data": "d", "out": "o", option: given})


def test_loggers_are_listed_or_joined() -> None:
    one = build_settings(TrainSettings, {"data": "d", "out": "o", "logger": ["mlflow,wandb", "tensorboard", "wandb"]})
    assert one.logger == ["mlflow", "wandb", "tensorboard"]
