"""Which runtime runs a model file; and the mean over mirrored and turned views, of a network whose answer depends on
where a pixel lies.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skystill.errors import SettingsError
from skystill.model.engine import average_test_time_views, open_engine
from skystill.symmetry import SYMMETRIES, TEST_TIME_VIEWS, turned
from tests.channel_model import INFO, write_model

AXES = (1, 2)
_buffer = np.empty((3, 8, 8), np.float32)


def run(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Twice the pixel, plus its row and ten times its column; into one buffer, as the engine's own."""
    _, height, width = planes.shape
    logits = _buffer[:, :height, :width]
    logits[:] = 2.0 * planes + np.arange(height)[:, None] + 10 * np.arange(width)
    return logits


def test_one_view_is_the_network_itself() -> None:
    assert average_test_time_views(run, 1) is run


def test_two_views_by_hand() -> None:
    # Seen upside down, the pixel of row 0 lies in row 1: the mean of both rows' numbers, 0 and 1, is 0.5 everywhere.
    planes = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    expected = 2.0 * planes + 0.5 + 10 * np.arange(3)
    assert average_test_time_views(run, 2)(planes)[:1] == pytest.approx(expected)


def test_four_views_by_hand() -> None:
    # All four mirrors: rows and columns both average out, to 0.5 and to 10.
    planes = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert average_test_time_views(run, 4)(planes)[:1] == pytest.approx(2.0 * planes + 0.5 + 10)


@given(st.integers(0, SYMMETRIES - 1), st.integers(1, 8), st.integers(1, 8), st.integers(0, 99))
def test_over_all_eight_what_is_turned_comes_out_turned(symmetry: int, height: int, width: int, seed: int) -> None:
    planes = np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8)
    mean = average_test_time_views(run, 8)
    assert np.allclose(mean(turned(planes, symmetry, AXES)), turned(mean(planes), symmetry, AXES), atol=1e-4)


@pytest.mark.parametrize("views", TEST_TIME_VIEWS)
def test_views_are_as_many_different_ones_as_they_say(views: int) -> None:
    square = np.arange(9).reshape(3, 3)
    assert len({turned(square, symmetry).tobytes() for symmetry in TEST_TIME_VIEWS[views]}) == views


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.onnx", INFO.to_metadata())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_runtime_that_is_named_runs_the_file(runtime: str, model: Path) -> None:
    pytest.importorskip(runtime)
    opened = open_engine(model, runtime=runtime)
    assert opened.runtime == runtime
    assert opened.infer.__qualname__.startswith(
        {"onnxruntime": "_open_onnxruntime", "openvino": "_open_openvino"}[runtime]
    )
    planes = np.random.default_rng(0).integers(0, 256, (3, 20, 30), np.uint8)
    assert np.array_equal(opened.infer(planes), np.concatenate([planes, planes]).astype(np.float32))


def test_openvino_is_refused_where_it_is_not_installed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as where it is not installed: importing it fails
    assert open_engine(model).runtime == "onnxruntime"
    with pytest.raises(SettingsError, match=r'openvino is not installed.*pip install "skystill\[openvino\]"'):
        open_engine(model, runtime="openvino")


@pytest.mark.parametrize("runtime", ["tensorrt", "auto", ""])
def test_a_runtime_that_does_not_exist_is_refused(runtime: str, model: Path) -> None:
    with pytest.raises(SettingsError, match=f"'{runtime}'; there are onnxruntime, openvino"):
        open_engine(model, runtime=runtime)
