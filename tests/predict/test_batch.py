"""One bad input does not stop the others, whatever it raises; and the exit code says whose fault it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skystill.errors import DataError, InputFailed, InputsFailed, NotEnoughMemory, PredictionStopped
from skystill.predict import predictor as predictor_module
from skystill.predict import summary
from skystill.predict.batch import predict_inputs
from skystill.predict.predictor import Predictor
from skystill.progress import Event, Note
from skystill.settings import PredictSettings
from tests.channel_model import INFO, write_model

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def settings(tmp_path: Path) -> PredictSettings:
    folder = tmp_path / "photos"
    folder.mkdir()
    for label, name in enumerate(NAMES):
        picture = np.zeros((20, 30, 3), np.uint8)
        picture[..., label % 3] = 200
        Image.fromarray(picture).save(folder / f"{name}.png")
    model = write_model(tmp_path / "m.onnx", replace(INFO, tile_size=128).to_metadata())
    return PredictSettings(inputs=[str(folder)], model=model, out=tmp_path / "out", areas=True)


def fail_on(monkeypatch: pytest.MonkeyPatch, errors: dict[str, BaseException]) -> None:
    """Let the prediction of some inputs raise an exception in the middle of the work, where rows are read."""
    whole = predictor_module.Stream.predict

    def predict(stream: Any, *arguments: Any) -> None:
        error = errors.get(Path(stream.source.path).stem)
        if error is not None:
            raise error
        whole(stream, *arguments)

    monkeypatch.setattr(predictor_module.Stream, "predict", predict)


def run(settings: PredictSettings, on_progress: Callable[[Event], None]) -> tuple[list[str], Exception | None]:
    """The inputs that are done, and the error at the end."""
    done: list[str] = []
    try:
        done.extend(Path(one.source).stem for one in predict_inputs(settings, on_progress=on_progress))
    except Exception as error:  # noqa: BLE001 - it is what is tested
        return sorted(path.stem for path in settings.out.glob("[!.]*.png")), error
    return done, None


UNEXPECTED = [
    ValueError("cannot reshape"), RuntimeError("GDAL"), TypeError("None"), KeyError("crs"), IndexError(), SystemError(),
    ZeroDivisionError(), OverflowError("too large"), AttributeError("x"), AssertionError(), EOFError(),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), RecursionError(), StopIteration(),
]  # fmt: skip


def test_bytes_that_are_no_text_are_a_fault_of_the_file(
    settings: PredictSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_on(monkeypatch, {"b": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")})
    done, raised = run(settings, lambda event: None)
    assert done == ["a", "c", "d"]
    assert isinstance(raised, DataError) and "b.png: it cannot be predicted: its metadata" in str(raised)


@pytest.mark.parametrize("error", UNEXPECTED, ids=lambda error: type(error).__name__)
def test_what_nobody_expects_costs_one_input_and_is_our_fault(
    error: Exception, settings: PredictSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_on(monkeypatch, {"b": error})
    done, raised = run(settings, lambda event: None)
    assert done == ["a", "c", "d"]
    assert isinstance(raised, InputFailed) and raised.exit_code == 1
    assert raised.__cause__ is not None
    assert f"b.png: internal error: {type(error).__name__}" in str(raised) and "--debug" in str(raised)
    assert (settings.out / "c-areas.csv").exists() and not (settings.out / "b-areas.csv").exists()


@pytest.mark.parametrize(
    ("errors", "kind", "code"),
    [
        ({"b": MemoryError()}, NotEnoughMemory, 2),
        ({"b": DataError("broken"), "d": MemoryError()}, DataError, 2),
        ({"b": OSError(5, "Input/output error")}, DataError, 2),
        ({"a": DataError("broken"), "d": ValueError("ours")}, InputsFailed, 1),
        ({"a": ValueError("ours"), "d": TypeError("ours too")}, InputsFailed, 1),
        ({name: ValueError(name) for name in NAMES}, InputsFailed, 1),
        ({}, type(None), 0),
    ],
)
def test_the_exit_code_is_2_only_where_the_user_can_mend_all(
    errors: dict[str, BaseException], kind: type, code: int, settings: PredictSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_on(monkeypatch, errors)
    done, raised = run(settings, lambda event: None)
    assert done == [name for name in NAMES if name not in errors]
    assert type(raised) is kind
    if raised is not None:
        assert getattr(raised, "exit_code", None) == code
        assert all(f"{name}.png" in str(raised) or str(error) in str(raised) for name, error in errors.items())


def test_a_step_after_the_prediction_costs_one_input_too(
    settings: PredictSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = summary.write_areas

    def write_areas(raster: Path, *arguments: Any) -> None:
        if raster.stem == "b":
            raise ValueError("bincount")
        whole(raster, *arguments)

    monkeypatch.setattr(summary, "write_areas", write_areas)
    _, raised = run(settings, lambda event: None)
    assert isinstance(raised, InputFailed)
    assert sorted(path.name for path in settings.out.glob("*.csv")) == ["a-areas.csv", "c-areas.csv", "d-areas.csv"]


def test_an_exception_of_the_callback_cancels_everything(settings: PredictSettings) -> None:
    class Cancelled(Exception):
        pass

    def cancel(event: Event) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        list(predict_inputs(settings, on_progress=cancel))
    assert not list(settings.out.glob("[!.]*.png"))


def test_ctrl_c_ends_all_and_tells_what_failed_before(
    settings: PredictSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_on(monkeypatch, {"a": ValueError("early"), "c": KeyboardInterrupt()})
    events: list[Event] = []
    with pytest.raises(PredictionStopped):
        list(predict_inputs(settings, on_progress=events.append))
    assert any(isinstance(event, Note) and "ValueError: early" in event.text for event in events)
    assert [path.name for path in settings.out.glob("[!.]*.png")] == ["b.png"]


def test_a_model_that_is_damaged_ends_before_the_first_input(settings: PredictSettings) -> None:
    assert settings.model is not None
    settings.model.write_bytes(b"no model")
    with pytest.raises(Exception, match=r"m\.onnx"):
        Predictor(settings.model)
    with pytest.raises(Exception, match=r"m\.onnx"):
        list(predict_inputs(settings))
    assert not settings.out.exists()
