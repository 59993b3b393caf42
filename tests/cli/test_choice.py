"""Which runtime runs a model file: one, unless another is named or recorded beside the file. No clock decides."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skystill import api
from skystill.errors import DataError, ModelFileError, RunFolderError, SettingsError
from skystill.model import choice, measure
from skystill.model.choice import choice_path, read_choice, write_choice
from skystill.predict import Predictor
from skystill.predict import predictor as predictor_module
from skystill.progress import Event, Note
from skystill.settings import MeasureSettings, PredictSettings, build_settings
from tests.channel_model import INFO, write_model
from tests.model_cost import cost


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.onnx", replace(INFO, tile_size=80).to_metadata())


def record(model: Path, onnxruntime: float, openvino: float) -> Path:
    """Record a choice from latencies in ms per megapixel on one thread."""
    times = {"onnxruntime": onnxruntime, "openvino": openvino}
    write_choice(model, [cost(runtime=name, latency_ms_per_mp_1_thread=ms) for name, ms in times.items()])
    return choice_path(model)


def taken(model: Path, **keywords: Any) -> tuple[str, str]:
    """The runtime that predicts, and the notes."""
    predictor = Predictor(model, runtime="auto", **keywords)
    return predictor.runtime, "\n".join(predictor.notes)


def test_without_a_record_it_is_onnxruntime_however_fast_openvino_is(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: pytest.fail("a clock was asked"))
    assert taken(model) == ("onnxruntime", "")
    assert build_settings(PredictSettings, {"inputs": ["a.tif"]}).runtime == "auto"
    for name in ("auto", "onnxruntime", "openvino"):  # what earlier settings may hold
        assert build_settings(PredictSettings, {"inputs": ["a.tif"], "runtime": name}).runtime == name


@pytest.mark.parametrize(
    ("times", "runtime"), [((20.0, 12.3), "openvino"), ((12.0, 20.0), "onnxruntime"), ((9.0, 9.0), "onnxruntime")]
)
def test_the_record_decides(times: tuple[float, float], runtime: str, model: Path) -> None:
    pytest.importorskip("openvino")
    path = record(model, *times)
    assert path == model.with_name("m.onnx.runtime.json")
    content = json.loads(path.read_text())
    assert content["runtime"] == runtime
    assert [content["measured"][name]["latency_ms_per_mp_1_thread"] for name in ("onnxruntime", "openvino")] == [*times]
    assert content["machine"]["cores"] >= 1 and content["machine"]["processor"]
    found, notes = taken(model)
    assert found == runtime
    said = f"{path} chooses openvino (measured, in ms per megapixel on one thread: onnxruntime 20.0, openvino 12.3)."
    assert notes.startswith(said) if runtime == "openvino" else notes == ""
    assert Predictor(model).runtime == Predictor(model, runtime="onnxruntime").runtime == "onnxruntime"
    assert Predictor(model, runtime="openvino").runtime == "openvino"


def test_a_record_of_another_model_is_not_used_and_said(model: Path) -> None:
    path = record(model, 20, 10)
    write_model(model, replace(INFO, tile_size=96).to_metadata())
    assert taken(model) == (
        "onnxruntime",
        f"{path} was measured with another model file, and is not used. skystill measure {model} --choose makes it "
        "again; without it, onnxruntime is used.",
    )


def test_a_record_goes_with_its_model_under_any_name(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = record(model, 20, 10)
    (tmp_path / "other").mkdir()
    shutil.copy(model, tmp_path / "other/b.onnx")
    assert taken(tmp_path / "other/b.onnx")[0] == "onnxruntime"
    shutil.copy(path, tmp_path / "other/b.onnx.runtime.json")
    assert taken(tmp_path / "other/b.onnx")[0] == "openvino"


def test_without_openvino_its_record_is_not_used_and_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(model, 20, 10)
    monkeypatch.setitem(sys.modules, "openvino", None)
    runtime, notes = taken(model)
    assert runtime == "onnxruntime"
    assert notes.startswith(f"{path} chooses openvino, which is not installed here: onnxruntime is used")
    with pytest.raises(SettingsError, match="openvino is not installed"):
        Predictor(model, runtime="openvino")
    with pytest.raises(SettingsError, match=r"only onnxruntime is installed\. Install the other one"):
        api.measure(models=[model], choose=True)


DAMAGED: dict[str, str | bytes] = {
    "empty": "", "no JSON": "{", "a list": "[]", "null": "null", "a number": "3", "nothing in it": "{}",
    "deep": "[" * 100_000, "not text": b"\xff\xfe\x00",
    "another runtime": '{"runtime": "tensorrt", "model_sha256": "x", "measured": {}}',
    "auto": '{"runtime": "auto", "model_sha256": "x", "measured": {}}',
    "runtime is a list": '{"runtime": ["openvino"], "model_sha256": "x", "measured": {}}',
    "no figures": '{"runtime": "openvino", "model_sha256": "x", "measured": null}',
    "figures of no number": '{"runtime": "openvino", "model_sha256": "x", "measured": {"openvino": '
    '{"latency_ms_per_mp_1_thread": "a"}}}',
    "figures are missing": '{"runtime": "openvino", "model_sha256": "x", "measured": {"openvino": {}}}',
}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_named(content: str | bytes, model: Path) -> None:
    path = choice_path(model)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelFileError, match=r"m\.onnx\.runtime\.json is damaged .*measure .*--choose makes it again"):
        read_choice(model)
    assert Predictor(model, runtime="onnxruntime").runtime == "onnxruntime"  # a name needs no record


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes")
def test_a_pipe_with_a_record_is_not_read(model: Path) -> None:
    record(model, 10, 20)
    model.unlink()
    os.mkfifo(model)
    with pytest.raises(DataError, match=r"m\.onnx is a named pipe, not a file"):
        read_choice(model)


def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Let measuring take no time, and return what is measured."""
    asked: list[tuple[str, str]] = []

    def compare(paths: list[Path], runtime: str, on_progress: object) -> list[measure.ComparedCost]:
        asked.extend((path.name, runtime) for path in paths)
        ms = 5.0 if runtime == "openvino" else 8.0
        return [cost(path=str(path), runtime=runtime, latency_ms_per_mp_1_thread=ms) for path in paths]

    monkeypatch.setattr(measure, "compare_models", compare)
    return asked


def test_measure_choose_records_for_each_model_and_says_so(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skystill: Callable[..., Any]
) -> None:
    pytest.importorskip("openvino")
    asked = measured(monkeypatch)
    shutil.copy(model, tmp_path / "n.onnx")
    events: list[Event] = []
    costs = api.measure(
        models=[model, tmp_path / "n.onnx", model], choose=True, save=tmp_path / "m.json", on_progress=events.append
    )
    both = ("onnxruntime", "openvino")
    assert asked == [(name, runtime) for name in ("m.onnx", "n.onnx") for runtime in both]
    assert [entry["runtime"] for entry in json.loads((tmp_path / "m.json").read_text())["models"]] == [*both, *both]
    assert [one.runtime for one in costs] == [*both, *both]
    notes = [event.text for event in events if isinstance(event, Note)]
    assert len(notes) == 2 and all("chooses openvino" in note for note in notes)
    assert taken(tmp_path / "n.onnx")[0] == "openvino"
    done = skystill("measure", model, "--choose")
    assert done.code == 0 and "openvino" in done.out and "chooses openvino" in done.err
    assert skystill("measure", model, "--choose", "--runtime=openvino").code == 2


def test_measure_without_choose_records_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch)
    for runtime in ("onnxruntime", "openvino"):
        assert [one.runtime for one in api.measure(models=[model], runtime=runtime)] == [runtime]
    assert not choice_path(model).exists()
    assert MeasureSettings(models=[str(model)]).choose is False


@pytest.mark.parametrize("kind", ["the file", "a link", "a hard link", "another spelling", "the record"])
def test_measure_never_writes_over_a_model(
    kind: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skystill: Callable[..., Any]
) -> None:
    pytest.importorskip("openvino")
    asked = measured(monkeypatch)
    save = model if kind == "the file" else tmp_path / "x.json"
    if kind == "a link":
        save.symlink_to(model)
    elif kind == "a hard link":
        save.hardlink_to(model)
    elif kind == "another spelling":
        (tmp_path / "sub").mkdir()
        save = tmp_path / "sub/../m.onnx"
    elif kind == "the record":
        save = choice_path(model)
    before = model.read_bytes()
    done = skystill("measure", model, "--choose", f"--save={save}")
    assert done.code == 2 and "--save" in done.err and asked == []
    assert model.read_bytes() == before and not (choice_path(model)).exists()


# ---- a stopped prediction goes on in the runtime that it was begun with


def stop_after(units: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predictor_module.RasterOutput.write
    written = []

    def write(output: Any, *arguments: Any) -> None:
        if len(written) == units:
            raise KeyboardInterrupt
        written.append(arguments)
        whole(output, *arguments)

    monkeypatch.setattr(predictor_module.RasterOutput, "write", write)


@pytest.mark.parametrize("begun", ["onnxruntime", "openvino"])
def test_resume_goes_on_in_the_runtime_of_the_journal(
    begun: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    for name in ("a", "b"):
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 90, 3), np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    other = "openvino" if begun == "onnxruntime" else "onnxruntime"
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(Exception, match="stopped"):
            Predictor(model, 1, begun).predict(tmp_path / "a.png", tmp_path / "out/a.png")
    record(model, *((20, 10) if other == "openvino" else (10, 20)))  # recorded meanwhile
    assert taken(model)[0] == other
    with pytest.raises(RunFolderError, match=r"other settings \(runtime\)"):
        Predictor(model, 1, other).predict(tmp_path / "a.png", tmp_path / "out/a.png", resume=True)
    events: list[Event] = []
    ran: list[str] = []
    opened = choice_of_engine(ran, monkeypatch)
    done = api.predict(
        inputs=[str(tmp_path / "a.png"), str(tmp_path / "b.png")], model=model, out=tmp_path / "out", resume=True,
        threads=1, on_progress=events.append,
    )  # fmt: skip
    assert [one.prediction.path.name for one in done] == ["a.png", "b.png"] and opened
    said = f"{tmp_path}/a.png was begun with --runtime {begun}, and goes on with it."
    assert said in [event.text for event in events if isinstance(event, Note)]
    assert set(ran[: ran.index(other)]) == {begun} and set(ran[ran.index(other) :]) == {other}  # b.png is new


def choice_of_engine(ran: list[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Note the runtime of each tile that is computed."""
    whole = predictor_module.Predictor.single_threaded

    def single_threaded(predictor: Any) -> Any:
        infer = whole(predictor)

        def noted(planes: Any) -> Any:
            ran.append(predictor.runtime)
            return infer(planes)

        return noted

    monkeypatch.setattr(predictor_module.Predictor, "single_threaded", single_threaded)
    return True


def test_the_names_of_runtimes_are_those_of_the_settings() -> None:
    assert set(choice.RUNTIMES) | {"auto"} == set(PredictSettings.model_fields["runtime"].annotation.__args__)  # type: ignore[union-attr]
    assert set(choice.RUNTIMES) == set(MeasureSettings.model_fields["runtime"].annotation.__args__)  # type: ignore[union-attr]
