import re
from pathlib import Path

import numpy as np
import pytest

from skystill.errors import DataError, ModelFileError, SettingsError
from skystill.model.file import REQUIRED_KEYS, open_session, read_info
from skystill.model.measure import measure_models, measured_side, peak_rss_bytes, time_per_megapixel
from skystill.predict.predictor import Predictor, softmax
from skystill.symmetry import TEST_TIME_VIEWS
from tests.channel_model import INFO, write_model


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", INFO.to_metadata())
    read = read_info(open_session(path), path)
    assert read.to_metadata() == INFO.to_metadata()


@pytest.mark.parametrize("key", REQUIRED_KEYS)
def test_a_missing_or_damaged_key_is_named(tmp_path: Path, key: str) -> None:
    metadata = INFO.to_metadata()
    path = write_model(tmp_path / "m.onnx", {k: v for k, v in metadata.items() if k != key})
    with pytest.raises(ModelFileError, match=f"lacks the metadata {key}"):
        Predictor(path)
    path = write_model(tmp_path / "n.onnx", metadata | {key: "{"})
    with pytest.raises(ModelFileError, match="its metadata is damaged"):
        Predictor(path)


def test_what_is_no_model_is_refused_in_words(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", INFO.to_metadata())
    whole = path.read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole[: len(whole) // 2])
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    for wrong, says in (
        (tmp_path / "none.onnx", "no such model file"),
        (cut, "cannot be opened as an ONNX model"),
        (text, "cannot be opened as an ONNX model"),
    ):
        with pytest.raises(ModelFileError, match=says) as raised:
            open_session(wrong)
        assert str(wrong) in str(raised.value)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (64, 64), (65, 200), (1, 300)])
def test_every_pixel_is_predicted_once_in_its_place(tmp_path: Path, height: int, width: int) -> None:
    predictor = Predictor(write_model(tmp_path / "m.onnx", INFO.to_metadata()))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    expected = softmax(np.concatenate([image, image], axis=2).transpose(2, 0, 1).astype(np.float32))
    assert np.allclose(predictor.probabilities(image), expected, atol=1e-6)
    assert predictor.labels(image).dtype == np.uint8


@pytest.mark.parametrize("views", TEST_TIME_VIEWS)
def test_views_of_a_network_that_looks_at_single_pixels_change_nothing(tmp_path: Path, views: int) -> None:
    predictor = Predictor(write_model(tmp_path / "m.onnx", INFO.to_metadata()))
    image = np.random.default_rng(0).integers(0, 256, (40, 170, 3), np.uint8)
    assert np.allclose(predictor.probabilities(image, views), predictor.probabilities(image), atol=1e-6)
    assert np.array_equal(predictor.labels(image, views), predictor.labels(image))


@pytest.mark.parametrize(
    "image",
    [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))],
)
def test_what_is_no_image_is_refused_in_words(tmp_path: Path, image: np.ndarray) -> None:
    predictor = Predictor(write_model(tmp_path / "m.onnx", INFO.to_metadata()))
    with pytest.raises(DataError, match=re.escape("an image must be (H, W, 3) uint8")):
        predictor.probabilities(image)


def test_latency_is_milliseconds_per_million_pixels() -> None:
    clock = iter([0.0, 0.5, 1.0, 1.25])
    calls: list[int] = []
    times = time_per_megapixel(lambda: calls.append(1), pixels=500_000, runs=2, clock=lambda: next(clock))
    assert times == [1000.0, 500.0]
    assert len(calls) == 4  # two warm up


@pytest.mark.parametrize(("text", "side"), [(None, 1024), ("", 1024), ("256", 256), (" 64 ", 64)])
def test_the_side_of_the_measured_image(text: str | None, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if text is None:
        monkeypatch.delenv("SKYSTILL_MEASURED_SIDE", raising=False)
    else:
        monkeypatch.setenv("SKYSTILL_MEASURED_SIDE", text)
    assert measured_side() == side


@pytest.mark.parametrize("text", ["0", "31", "9000", "1e3", "-64", "²", "64.5", "9" * 40])
def test_a_side_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYSTILL_MEASURED_SIDE", text)
    with pytest.raises(SettingsError, match="from 32 to 8192"):
        measured_side()


def test_each_model_is_measured_in_its_own_process(tmp_path: Path) -> None:
    ballast = np.ones(40_000_000)  # 320 MB here; the measured process must not see it
    path = write_model(tmp_path / "m.onnx", INFO.to_metadata())
    (measured,) = measure_models([path])
    assert peak_rss_bytes() > ballast.nbytes
    assert 20e6 < measured.peak_rss_bytes < 300e6
    assert measured.size_bytes == path.stat().st_size
    low, high = measured.latency_spread_ms_per_mp
    assert 0 < low <= measured.latency_ms_per_mp <= high
    with pytest.raises(ModelFileError, match="no such model file"):
        measure_models([tmp_path / "none.onnx"])
