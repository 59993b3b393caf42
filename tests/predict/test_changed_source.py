"""A raster that is replaced, cut, rewritten or removed while it is read: an error that names it, never a mixture."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.shutil import copy as convert

from skystill.errors import DataError, PredictionStopped, RunFolderError, SourceChanged
from skystill.predict import Predictor
from skystill.predict.batch import predict_inputs
from skystill.predict.summary import write_areas
from skystill.progress import Event, Progress
from skystill.raster.picture import read_whole
from skystill.raster.source import RasterSource
from skystill.raster.states import FileStates
from skystill.settings import PredictSettings
from tests.channel_model import INFO, write_model

SHAPE = (3, 1100, 700)
OLD, NEW = (np.random.default_rng(seed).integers(1, 256, SHAPE, np.uint8) for seed in (1, 2))


def write(path: Path, bands: np.ndarray) -> Path:
    """Write a raster whose size in bytes does not depend on its pixels, as GeoTIFF."""
    options = {"driver": "GTiff", "height": SHAPE[1], "width": SHAPE[2], "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **options, tiled=True, blockxsize=128, blockysize=128) as file:
        file.write(bands)
    return path


def replaced(path: Path) -> None:
    other = write(path.with_name("other.tif"), NEW)
    if path.suffix == ".png":
        convert(other, path.with_name("other.png"), driver="PNG")
        other = path.with_name("other.png")
    other.replace(path)


def written_in_place(path: Path) -> None:
    content = write(path.with_name("other.tif"), NEW).read_bytes()
    with path.open("r+b") as file:
        file.write(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def removed(path: Path) -> None:
    path.unlink()


CHANGES: list[Callable[[Path], None]] = [replaced, written_in_place, cut, removed]
WORDS = {
    replaced: "was replaced by another file", written_in_place: "was written", cut: "was written (it had",
    removed: "was removed",
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "m.onnx", replace(INFO, parameters=1, tile_size=256).to_metadata())


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, tuple[Path, Path]]:
    """By kind: the raster that is predicted, and the file that changes."""
    folder = tmp_path / "in"
    folder.mkdir()
    plain = write(folder / "plain.tif", OLD)
    png = folder / "a.png"
    convert(plain, png, driver="PNG")
    part = write(folder / "part.tif", OLD)
    inner, outer = folder / "inner.vrt", folder / "outer.vrt"
    convert(part, inner, driver="VRT")
    convert(inner, outer, driver="VRT")
    masked = write(folder / "masked.tif", OLD)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(masked, "r+") as file:
        file.write_mask(np.ones(SHAPE[1:], bool))
    assert (folder / "masked.tif.msk").exists()
    return {
        "plain": (plain, plain), "png": (png, png), "vrt": (inner, part), "vrt in a vrt": (outer, part),
        "mask": (masked, folder / "masked.tif.msk"),
    }  # fmt: skip


def changing(at: int, change: Callable[[], object]) -> Callable[[Event], None]:
    """A callback that makes a change after so many units; 0 makes it before the first one is finished."""
    seen = []

    def on_progress(event: Event) -> None:
        if isinstance(event, Progress) and event.unit == "pixels":
            seen.append(event)
            if len(seen) == at:
                change()

    return on_progress


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["plain", "png", "vrt", "vrt in a vrt", "mask"])
def test_a_source_that_changes_is_an_error(
    kind: str, change: Callable[[Path], None], sources: dict[str, tuple[Path, Path]], model: Path, tmp_path: Path
) -> None:
    source, changed = sources[kind]
    out = tmp_path / "out" / "o.tif"
    with pytest.raises(SourceChanged) as error:
        Predictor(model, threads=1).predict(source, out, on_progress=changing(2, lambda: change(changed)))
    assert str(error.value).startswith(str(changed)) and WORDS[change].split(" (it")[0] in str(error.value)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changes_before_its_pixels_are_read(
    change: Callable[[Path], None],
    sources: dict[str, tuple[Path, Path]],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, _ = sources["plain"]
    read = RasterSource.read

    def change_and_read(self: RasterSource, *window: int) -> object:
        if source.exists() and self.states.digest == FileStates([str(source)]).digest:
            change(source)
        return read(self, *window)

    monkeypatch.setattr(RasterSource, "read", change_and_read)
    out = tmp_path / "out" / "o.tif"
    with pytest.raises(SourceChanged, match=r"plain\.tif was"):
        Predictor(model).predict(source, out)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["plain", "vrt in a vrt"])
def test_a_source_that_changes_before_the_prediction_goes_on(
    kind: str, change: Callable[[Path], None], sources: dict[str, tuple[Path, Path]], model: Path, tmp_path: Path
) -> None:
    source, changed = sources[kind]
    out = tmp_path / "out" / "o.tif"

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(PredictionStopped):
        Predictor(model).predict(source, out, on_progress=changing(2, stop))
    change(changed)
    with pytest.raises((RunFolderError, DataError), match=f"{source.name}|{changed.name}"):
        Predictor(model).predict(source, out, resume=True)
    assert not out.exists()


def test_a_prediction_goes_on_if_its_source_is_the_same(
    sources: dict[str, tuple[Path, Path]], model: Path, tmp_path: Path
) -> None:
    source, _ = sources["vrt in a vrt"]
    Predictor(model).predict(source, tmp_path / "whole.tif")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(PredictionStopped):
        Predictor(model).predict(source, tmp_path / "o.tif", on_progress=changing(2, stop))
    source.with_name("inner.vrt.aux.xml").write_text("<PAMDataset/>")  # a viewer has written its statistics
    Predictor(model).predict(source, tmp_path / "o.tif", resume=True)
    assert (tmp_path / "o.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_another_machine_goes_on_though_it_sees_other_inodes(
    sources: dict[str, tuple[Path, Path]], model: Path, tmp_path: Path
) -> None:
    source, part = sources["vrt in a vrt"]
    Predictor(model).predict(source, tmp_path / "whole.tif")

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(PredictionStopped):
        Predictor(model).predict(source, tmp_path / "o.tif", on_progress=changing(2, stop))
    inode = part.stat().st_ino
    Path(shutil.copy2(part, tmp_path / "copy.tif")).replace(part)
    assert part.stat().st_ino != inode
    Predictor(model).predict(source, tmp_path / "o.tif", resume=True)
    assert (tmp_path / "o.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def beside(nodata: int | None, maximum: int | None = 9) -> str:
    """What GDAL writes beside a PNG of three bands: nodata, and the histogram and statistics of a viewer."""
    told = "" if nodata is None else f"<NoDataValue>{nodata}</NoDataValue>"
    looked = "" if maximum is None else (
        "<Histograms><HistItem><HistMin>0</HistMin></HistItem></Histograms>"
        f'<Metadata>\n <MDI key="STATISTICS_MAXIMUM">{maximum}</MDI>\n</Metadata>'
    )  # fmt: skip
    bands = (f'<PAMRasterBand band="{band}">{told}{looked}</PAMRasterBand>' for band in (1, 2, 3))
    return f"<PAMDataset>\n{' '.join(bands)}</PAMDataset>\n"


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (None, beside(None), True),  # a viewer was there
        (beside(None), None, True),
        (beside(None), beside(None, 8), True),
        (beside(3), beside(3, 8), True),
        (beside(3, None), beside(3), True),
        (None, beside(3), False),  # gdal_edit.py -a_nodata 3
        (beside(3), beside(4), False),
        (beside(3), beside(None), False),
        (beside(3), None, False),
    ],
)
def test_what_stands_beside_a_source_is_a_part_of_it(
    before: str | None,
    after: str | None,
    same: bool,
    sources: dict[str, tuple[Path, Path]],
    model: Path,
    tmp_path: Path,
) -> None:
    source, _ = sources["png"]
    pam = source.with_name("a.png.aux.xml")

    def write_beside(text: str | None) -> None:
        pam.unlink(missing_ok=True)
        if text is not None:
            pam.write_text(text)

    def stop() -> None:
        raise KeyboardInterrupt

    write_beside(before)
    with pytest.raises(PredictionStopped):
        Predictor(model, threads=1).predict(source, tmp_path / "o.tif", on_progress=changing(2, stop))
    write_beside(after)
    if same:
        Predictor(model, threads=1).predict(source, tmp_path / "o.tif", resume=True)
        return
    with pytest.raises(RunFolderError, match=r"a\.png"):
        Predictor(model, threads=1).predict(source, tmp_path / "o.tif", resume=True)


def test_a_source_that_is_open_is_opened_again_if_its_nodata_changes(tmp_path: Path) -> None:
    source, pam = tmp_path / "a.png", tmp_path / "a.png.aux.xml"
    Image.fromarray(np.array([[[3] * 3, [4] * 3]], np.uint8)).save(source)

    def valid() -> list[bool]:
        os.utime(tmp_path, ns=(0, 0))  # as where a file is written in its place
        found = read_whole(source, (0, 1, 0, 2)).valid
        return [True, True] if found is None else found[0].tolist()

    for nodata, expected in ((3, [False, True]), (4, [True, False]), (None, [True, True])):
        pam.write_text(beside(nodata))
        assert valid() == expected


def test_an_overlay_is_not_made_of_another_image(
    sources: dict[str, tuple[Path, Path]], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = sources["plain"]

    def change_and_write(*arguments: Any) -> None:
        replaced(source)
        write_areas(*arguments)

    monkeypatch.setattr("skystill.predict.summary.write_areas", change_and_write)  # it comes before the overlay
    settings = PredictSettings(
        inputs=[str(source)], model=model, out=tmp_path / "out" / "o.tif", areas=True, overlay=True
    )
    with pytest.raises(SourceChanged, match="the overlay would be a mixture"):
        list(predict_inputs(settings))
    assert (tmp_path / "out" / "o.tif").exists() and not list((tmp_path / "out").glob("*overlay*"))


def test_a_training_image_that_changes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = write(tmp_path / "a.tif", OLD), RasterSource.read

    def read_and_change(self: RasterSource, *window: int) -> object:
        found = read(self, *window)
        written_in_place(path)
        return found

    monkeypatch.setattr(RasterSource, "read", read_and_change)
    with pytest.raises(SourceChanged, match=r"a\.tif was written"):
        read_whole(path)


def test_a_file_in_an_archive_is_that_archive(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    write(inside / "a.tif", OLD)
    shutil.make_archive(str(tmp_path / "a"), "zip", inside)
    name = f"/vsizip/{tmp_path}/a.zip/a.tif"
    for nanoseconds, one in enumerate((name, str(Path(name)))):  # a Path has one slash in the place of two
        states = FileStates([one, "https://example.com/a.tif"])
        states.check()
        os.utime(tmp_path / "a.zip", ns=(nanoseconds, nanoseconds))
        with pytest.raises(SourceChanged, match=r"a\.zip was written"):
            states.check()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a process is stopped and goes on by signals of Unix")
@pytest.mark.parametrize("change", CHANGES)
def test_a_command_whose_source_changes(
    change: Callable[[Path], None], sources: dict[str, tuple[Path, Path]], model: Path, tmp_path: Path
) -> None:
    source, _ = sources["plain"]
    command = [sys.executable, "-m", "skystill", "predict", str(source), "--model", str(model), "--tile=256",
               "--threads=1", "--overlap=64", "--out", str(tmp_path / "o.tif")]  # fmt: skip
    for _ in range(20):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        journal = tmp_path / ".unfinished-o.tif"
        while not list(journal.glob("*.unit")) and process.poll() is None:
            time.sleep(0.001)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGSTOP)
        if (tmp_path / "o.tif").exists():  # the process was faster than this test
            os.kill(process.pid, signal.SIGCONT)
            process.communicate()
            (tmp_path / "o.tif").unlink()
            continue
        change(source)
        os.kill(process.pid, signal.SIGCONT)
        _, said = process.communicate()
        break
    else:
        pytest.skip("the machine is too busy: the process was never met at its work")
    if process.returncode == 0:  # it was stopped after its last look: the whole old one
        with rasterio.open(tmp_path / "o.tif") as file:
            assert np.array_equal(file.read(1), OLD.argmax(axis=0))
    else:
        assert process.returncode == 2 and str(source) in said.replace("\n", "")
        assert not (tmp_path / "o.tif").exists() and not journal.exists()
