"""The journal outlives the work: it goes when every file is written, and what fails late costs little."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from skystill.errors import DamagedSource, DiskFull, RunFolderError, UserError
from skystill.predict import predictor as predictor_module
from skystill.predict.batch import predict_inputs
from skystill.progress import Event, Message
from skystill.raster import output
from skystill.raster.scratch import clear_scratch, make_scratch
from skystill.raster.steps import FinishedSteps, remove_parts
from skystill.settings import PredictSettings
from tests.channel_model import INFO, write_model
from tests.contents import contents

SIZE = (200, 150)  # of a raster of eight units


@pytest.fixture
def settings(tmp_path: Path) -> PredictSettings:
    labels = np.random.default_rng(1).integers(0, 3, (SIZE[0] // 10, SIZE[1] // 10)).repeat(10, 0).repeat(10, 1)
    with rasterio.open(
        tmp_path / "in.tif", "w", driver="GTiff", height=SIZE[0], width=SIZE[1], count=3, dtype="uint8",
        crs="EPSG:32640", transform=from_origin(300_000, 2_800_000, 0.5, 0.5),
    ) as file:  # fmt: skip
        file.write((200 * (labels == np.arange(3)[:, None, None])).astype(np.uint8))
    model = write_model(tmp_path / "m.onnx", replace(INFO, tile_size=80).to_metadata())
    return PredictSettings(
        inputs=[str(tmp_path / "in.tif")], model=model, out=tmp_path / "out/c.tif", threads=1, cog=True,
        confidence=True, areas=True, overlay=True, vector="gpkg",
    )  # fmt: skip


def predict(settings: PredictSettings, resume: bool = False, **changes: object) -> list[str]:
    """Predict, and return the lines that were told."""
    events: list[Event] = []
    list(predict_inputs(settings.model_copy(update=changes), resume, events.append))
    return [event.text for event in events if isinstance(event, Message)]


def the_network_must_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the network runs again")

    monkeypatch.setattr(predictor_module.Stream, "predict", refuse)


@pytest.fixture
def whole(settings: PredictSettings, tmp_path: Path) -> dict[str, object]:
    predict(settings, out=tmp_path / "whole/c.tif")
    return contents(tmp_path / "whole")


NAMES = {"areas": "c-areas.csv", "overlay": "c-overlay.png", "polygons": "c.gpkg"}


@pytest.mark.parametrize("step", NAMES)
def test_a_step_that_fails_costs_that_step(
    step: str, settings: PredictSettings, whole: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = settings.out.parent
    blocked = out / NAMES[step]
    (blocked / "in the way").mkdir(parents=True)  # a folder of that name: the file cannot get it
    with pytest.raises(DiskFull, match=NAMES[step]):
        predict(settings)
    assert (out / "c.tif").exists() and (out / ".unfinished-c.tif").is_dir()
    with pytest.raises(RunFolderError, match="--resume"):
        predict(settings)
    (blocked / "in the way").rmdir()
    blocked.rmdir()
    the_network_must_not_run(monkeypatch)
    missing = list(NAMES)[list(NAMES).index(step) :]
    said = predict(settings, resume=True)
    assert said == [f"{settings.out}: its rasters are complete; it goes on with {', '.join(missing)}."]
    assert contents(out) == whole


def test_a_cog_that_fails_costs_no_unit(
    settings: PredictSettings, whole: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise rasterio.errors.RasterioIOError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(output, "convert", fail)
        with pytest.raises(DiskFull, match="No space left"):
            predict(settings)
    out = settings.out.parent
    assert [path.name for path in out.iterdir()] == [".unfinished-c.tif"]
    computed: list[object] = []
    monkeypatch.setattr(predictor_module.Stream, "_work", lambda *arguments: computed.append(arguments))
    said = predict(settings, resume=True)
    assert said == [f"{settings.out}: all 8 parts are done; it goes on with the files."]
    assert computed == [] and contents(out) == whole


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"simplify": "2px"}, ["polygons"]),
        ({"square": "Building"}, ["polygons"]),
        ({"vector": "geojson"}, ["polygons"]),
        ({"show": "1"}, ["overlay", "polygons"]),
        ({"areas": False}, ["polygons"]),
        ({"vector": None}, ["the removal of its journal"]),
    ],
)
def test_the_steps_follow_the_settings_of_the_resumed_command(
    change: dict[str, object], again: list[str], settings: PredictSettings, tmp_path: Path
) -> None:
    (settings.out.parent / "c.gpkg/x").mkdir(parents=True)
    with pytest.raises(DiskFull):
        predict(settings)
    (settings.out.parent / "c.gpkg/x").rmdir()
    (settings.out.parent / "c.gpkg").rmdir()
    said = predict(settings, resume=True, **change)
    assert said == [f"{settings.out}: its rasters are complete; it goes on with {', '.join(again)}."]
    predict(settings, out=tmp_path / "fresh/c.tif", **change)
    found, fresh = contents(settings.out.parent), contents(tmp_path / "fresh")
    assert {name: found[name] for name in fresh} == fresh
    assert not (settings.out.parent / ".unfinished-c.tif").exists()


@pytest.mark.parametrize("how", ["changed", "removed", "of another record"])
def test_results_that_were_changed_are_made_again(
    how: str, settings: PredictSettings, whole: dict[str, object]
) -> None:
    out = settings.out.parent
    (out / "c.gpkg/x").mkdir(parents=True)
    with pytest.raises(DiskFull):
        predict(settings)
    (out / "c.gpkg/x").rmdir()
    (out / "c.gpkg").rmdir()
    if how == "changed":
        settings.out.write_bytes(settings.out.read_bytes() + b" ")
    elif how == "removed":
        settings.out.unlink()
    else:
        (out / ".unfinished-c.tif/finished.json").write_text("{" * 10_000)
    assert "all 8 parts are done" in predict(settings, resume=True)[0]
    assert contents(out) == whole


def test_a_journal_that_lost_its_settings_gives_no_units(settings: PredictSettings, whole: dict[str, object]) -> None:
    """Units of another prediction would be taken for those of this one after the next stop."""
    (settings.out.parent / "c.gpkg/x").mkdir(parents=True)
    with pytest.raises(DiskFull):
        predict(settings)
    (settings.out.parent / "c.gpkg/x").rmdir()
    (settings.out.parent / "c.gpkg").rmdir()
    journal = settings.out.parent / ".unfinished-c.tif"
    (journal / "settings.json").unlink()
    (journal / "finished.json").unlink()
    units = {path.name: path.stat().st_mtime_ns for path in journal.glob("*.unit")}
    assert len(units) == 8
    damaged = Path(settings.inputs[0])
    with rasterio.open(damaged, "r+") as file:
        file.write(255 - file.read())
    begun = output.RasterOutput._begin

    def stop(self: Any, *arguments: Any) -> list[int]:
        begun(self, *arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output.RasterOutput, "_begin", stop)
        with pytest.raises(Exception, match="stopped"):
            predict(settings)
    assert not list(journal.glob("*.unit"))
    predict(settings, resume=True)
    assert contents(settings.out.parent)["c.tif"] != whole["c.tif"]


def test_damage_is_named_after_a_resume_as_well(settings: PredictSettings, tmp_path: Path) -> None:
    source = Path(settings.inputs[0])
    whole = source.read_bytes()
    with rasterio.open(source) as file:
        rows = file.block_shapes[0][0]
    assert rows < SIZE[0] // 4
    source.write_bytes(whole[: len(whole) * 3 // 4])
    (settings.out.parent / "c.gpkg/x").mkdir(parents=True)
    with pytest.raises(UserError):  # the polygons cannot be written
        predict(settings)
    (settings.out.parent / "c.gpkg/x").rmdir()
    (settings.out.parent / "c.gpkg").rmdir()
    with pytest.raises(DamagedSource) as resumed:
        predict(settings, resume=True)
    with pytest.raises(DamagedSource) as fresh:
        predict(settings, out=tmp_path / "fresh/c.tif")
    assert str(resumed.value).replace("/out/", "/fresh/") == str(fresh.value)
    assert "columns" in str(fresh.value)


def test_parts_of_killed_processes_go_and_those_of_others_stay(settings: PredictSettings) -> None:
    out = settings.out.parent
    out.mkdir()
    left = [
        ".part-3380-c.gpkg", ".part-3380-c.gpkg-journal", ".part-7-c.gpkg-wal", ".part-1-c.geojson",
        ".part-1-c-areas.csv", ".part-12-c-overlay.png", ".part-12-c.qml", ".part-12-c.tif.aux.xml",
        ".part-9-c-probabilities.tif",
    ]  # fmt: skip
    stay = [
        ".part-3380-d.gpkg",
        ".part-1-my-c.gpkg",
        ".part-x-c.gpkg",
        ".part-1-c.gpkg.txt",
        "part-1-c.gpkg",
        ".part-1-cc.qml",
    ]
    for name in (*left, *stay):
        (out / name).write_text("half")
    os.utime(out / ".part-12-c.qml", (0, 0))  # another thread may be writing the style of c.png, which is the same file
    predict(settings)
    assert sorted(path.name for path in out.iterdir() if "part-" in path.name) == sorted(stay)


def test_names_with_signs_of_patterns_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in (".part-1-a[1].gpkg", ".part-1-a1.gpkg", ".part-1-a+.gpkg", ".part-1-aa.gpkg"):
        (tmp_path / name).touch()
    remove_parts(tmp_path, {"a[1].gpkg", "a+.gpkg"})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".part-1-a1.gpkg", ".part-1-aa.gpkg"]


def test_a_step_is_finished_as_long_as_its_file_is_the_one_it_wrote(tmp_path: Path) -> None:
    path, steps = tmp_path / "a.csv", FinishedSteps(tmp_path)
    path.write_text("a")
    steps.add("areas", ("x", None), [path])
    assert steps.has("areas", ["x", None], [path])
    assert not steps.has("areas", ["y", None], [path]) and not steps.has("overlay", ["x", None], [path])
    assert not FinishedSteps(tmp_path / "other").has("areas", ["x", None], [path])
    for content in ("[]", "null", "{", "\x00", '{"areas": 3}', "[" * 100_000):
        (tmp_path / "finished.json").write_text(content)
        assert not steps.has("areas", ["x", None], [path])
    steps.add("areas", None, [path])
    path.write_text("changed")
    assert not steps.has("areas", None, [path])
    path.unlink()
    assert not steps.has("areas", None, [path])


# ---- the folder for temporary files


class Owner:
    pass


def test_scratch_folders_of_killed_processes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = (
        "import sys, tempfile, time; tempfile.tempdir = sys.argv[1]; from skystill.raster.scratch import make_scratch\n"
        "class Owner: pass\n"
        "owner = Owner(); (make_scratch(owner) / 'upright.tif').write_text('x'); print('made', flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"made\n"
    (tmp_path / "skystill-scratch-of-a-user").mkdir()
    owner = Owner()
    own = make_scratch(owner)
    clear_scratch()
    assert len(list(tmp_path.glob("skystill-*/upright.tif"))) == 1  # that process lives
    assert own.is_dir()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    clear_scratch()
    assert sorted(tmp_path.iterdir()) == sorted([own, tmp_path / "skystill-scratch-of-a-user"])
    del owner
    assert not own.exists()


def test_a_turned_picture_that_was_killed_leaves_nothing_after_the_next_run(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1200, 900, 3), np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    picture.save(tmp_path / "photo.png", exif=exif)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    model = write_model(tmp_path / "m.onnx", replace(INFO, tile_size=80).to_metadata())
    command = [sys.executable, "-m", "skystill", "predict", str(tmp_path / "photo.png"), f"--model={model}"]
    command += [f"--out={tmp_path}/out.png", "--resume"]
    environment = os.environ | {"TMPDIR": str(scratch)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(scratch.glob("*/upright.tif")) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert list(scratch.glob("*/upright.tif"))
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert list(scratch.glob("skystill-*")) == []


def test_the_record_of_what_is_finished_goes_last(settings: PredictSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while the journal is removed costs nothing: the next run finds that all is done."""
    with monkeypatch.context() as patch:
        unlink = Path.unlink

        def press(path: Path, missing_ok: bool = False) -> None:
            if path.name == "finished.json" and path.exists():
                raise KeyboardInterrupt
            unlink(path, missing_ok)

        patch.setattr(Path, "unlink", press)
        with pytest.raises(Exception, match="stopped"):
            predict(settings)
    journal = settings.out.parent / ".unfinished-c.tif"
    assert not list(journal.glob("*.unit")) and set(json.loads((journal / "finished.json").read_text())) == {
        "rasters", *NAMES,
    }  # fmt: skip
    made = contents(settings.out.parent) if not journal.is_dir() else None
    assert made is None
    the_network_must_not_run(monkeypatch)
    said = predict(settings, resume=True)
    assert said == [f"{settings.out}: its rasters are complete; it goes on with the removal of its journal."]
    assert not journal.exists()
