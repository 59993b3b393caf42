"""Rasters of any number of bands and any data type, through a network whose answer numpy works out by itself."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from skystill.errors import DataError, PredictionStopped, RunFolderError, SettingsError
from skystill.predict import Predictor
from skystill.progress import Progress
from skystill.raster.input_spec import InputSpec
from skystill.raster.steps import FurtherFiles, Step
from skystill.settings import RasterSettings
from tests.banded_model import truth, write_banded
from tests.banded_rasters import pixels_of, spec_of, write_bands

TYPES, COUNTS = ("uint8", "uint16", "int16", "float32"), (1, 2, 3, 4, 6, 13)
NAMES = ("blue", "green", "red", "nir", "swir16", "swir22")
RGBN = spec_of("uint16", 4, ("red", "green", "blue", "nir"))


def agree(found: np.ndarray, planes: np.ndarray, spec: InputSpec) -> None:
    labels, clear = truth(planes, spec)
    assert len(np.unique(labels)) >= 2 and clear.mean() > 0.98
    assert np.array_equal(found[clear], labels[clear])


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_arrays_and_rasters_of_any_bands(dtype: str, count: int, runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    spec = spec_of(dtype, count)
    planes = pixels_of(spec, 217, 301)
    predictor = Predictor(write_banded(tmp_path / "m.onnx", spec), runtime=runtime)
    assert predictor.info.input_spec == spec
    image = planes.transpose(1, 2, 0)
    agree(predictor.labels(image), planes, spec)
    agree(predictor.probabilities(image).argmax(axis=0), planes, spec)
    predictor.predict(write_bands(tmp_path / "in.tif", planes), tmp_path / "out.tif")
    agree(read(tmp_path / "out.tif"), planes, spec)


@pytest.mark.parametrize("settings", [{}, {"mode": "blend"}, {"views": "8"}, {"tile": 96, "mode": "blend"}], ids=str)
@pytest.mark.parametrize("size", [(217, 301), (70, 4300)], ids=["tiled", "wide and striped"])
@pytest.mark.parametrize(("dtype", "count"), [("uint8", 4), ("uint16", 6), ("int16", 1), ("float32", 13)])
def test_nodata_becomes_the_mean_and_255(
    dtype: str, count: int, size: tuple[int, int], settings: dict[str, Any], tmp_path: Path
) -> None:
    spec = spec_of(dtype, count)
    planes, nodata = pixels_of(spec, *size), {"uint8": 0, "uint16": 0, "int16": -32768, "float32": -9999.0}[dtype]
    empty = np.zeros(size, bool)
    empty[20:50, 60:200] = True
    empty[64:, 290:] = True
    planes[:, empty] = nodata
    layout = {"blockysize": 7} if size[1] > 4096 else {"tiled": True, "blockxsize": 64, "blockysize": 64}
    source = write_bands(tmp_path / "in.tif", planes, nodata=nodata, **layout)
    Predictor(write_banded(tmp_path / "m.onnx", spec)).predict(source, tmp_path / "out.tif", RasterSettings(**settings))
    found = read(tmp_path / "out.tif")
    assert np.array_equal(found == 255, empty)
    filled = planes.copy()
    filled[:, empty] = spec.fill[:, None]
    labels, clear = truth(filled, spec)
    assert np.array_equal(found[clear & ~empty], labels[clear & ~empty])


@pytest.mark.parametrize("target", ["out.tif", "out.png"])
@pytest.mark.parametrize("kind", ["nodata", "mask", "alpha", "nan"])
@pytest.mark.parametrize("whole", [True, False], ids=["nothing", "all but one pixel"])
def test_a_raster_without_data_is_named(kind: str, whole: bool, target: str, tmp_path: Path) -> None:
    spec = spec_of("float32" if kind == "nan" else "uint8", 3)
    planes = pixels_of(spec, 600, 70)
    path = tmp_path / "in.tif"
    valid = np.zeros((600, 70), bool)
    valid[-1, -1] = not whole
    gone = {"nodata": 7, "nan": np.nan}.get(kind)
    if gone is not None:
        planes[:, ~valid] = gone
    if kind == "alpha":
        planes = np.concatenate([planes, np.where(valid, 255, 0)[None].astype(np.uint8)])
    write_bands(path, planes, nodata=7 if kind == "nodata" else None)
    if kind in ("mask", "alpha"):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            if kind == "mask":
                file.write_mask(valid)
            else:
                file.colorinterp = [*map(ColorInterp, (3, 4, 5)), ColorInterp.alpha]
    predictor = Predictor(write_banded(tmp_path / "m.onnx", spec))
    bands = RasterSettings(bands="1,2,3")
    notes = predictor.predict(path, tmp_path / target, bands).notes
    empty = f"{tmp_path / target} holds no class: no pixel of {path} has data"
    assert [note for note in notes if note.startswith(empty)] == [note for note in notes if "holds no class" in note]
    assert any(note.startswith(empty) for note in notes) is whole
    assert (read(tmp_path / target) == 255).sum() == 600 * 70 - (not whole)


@pytest.mark.parametrize("whole", [True, False], ids=["nothing", "all but one pixel"])
def test_a_raster_without_data_is_named_when_its_files_are_made_again(whole: bool, tmp_path: Path) -> None:
    """The class raster is complete, and what is made of it failed: nothing is predicted a second time."""
    spec = spec_of("uint8", 3)
    planes = np.full((3, 600, 70), 7, np.uint8)
    planes[:, -1, -1] += not whole
    source, today = write_bands(tmp_path / "in.tif", planes, nodata=7), ["no polygons today"]

    def step() -> None:
        if today:
            raise DataError(today.pop())

    further = FurtherFiles((Step("polygons", tmp_path / "out.txt", None, step),))
    predictor = Predictor(write_banded(tmp_path / "m.onnx", spec))
    with pytest.raises(DataError, match="no polygons today"):
        predictor.predict(source, tmp_path / "out.tif", further=further)
    notes = predictor.predict(source, tmp_path / "out.tif", resume=True, further=further).notes
    assert any("holds no class" in note for note in notes) is whole


@pytest.mark.parametrize("size", [(330, 301), (210, 4300)], ids=["tiled", "wide and striped"])
@pytest.mark.parametrize("mode", ["crop", "blend"])
def test_a_stopped_prediction_is_resumed(mode: Any, size: tuple[int, int], tmp_path: Path) -> None:
    spec = spec_of("int16", 6)
    planes = pixels_of(spec, *size)
    source = write_bands(tmp_path / "in.tif", planes, blockysize=16)
    settings = RasterSettings(mode=mode)
    predictor = Predictor(write_banded(tmp_path / "m.onnx", spec), threads=1)

    def stop(progress: object) -> None:
        if isinstance(progress, Progress) and progress.done > 0:
            raise KeyboardInterrupt

    with pytest.raises(PredictionStopped):
        predictor.predict(source, tmp_path / "out.tif", settings, on_progress=stop)
    assert not (tmp_path / "out.tif").exists()
    predictor.predict(source, tmp_path / "out.tif", settings, resume=True)
    agree(read(tmp_path / "out.tif"), planes, spec)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_memory_limit_gives_the_same_classes(dtype: str, tmp_path: Path) -> None:
    spec = spec_of(dtype, 6)
    planes = pixels_of(spec, 217, 301)
    source = write_bands(tmp_path / "in.tif", planes)
    predictor = Predictor(write_banded(tmp_path / "m.onnx", spec))
    predictor.predict(source, tmp_path / "out.tif", RasterSettings(max_memory=2_000_000_000))
    agree(read(tmp_path / "out.tif"), planes, spec)
    with pytest.raises(SettingsError, match="the smallest possible is"):
        predictor.predict(source, tmp_path / "out2.tif", RasterSettings(max_memory=1_000_000))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_resampled_values_are_means(dtype: str, tmp_path: Path) -> None:
    spec = spec_of(dtype, 4)
    planes = pixels_of(spec, 240, 320)
    source = write_bands(tmp_path / "in.tif", planes)
    Predictor(write_banded(tmp_path / "m.onnx", spec)).predict(
        source, tmp_path / "out.tif", RasterSettings(resolution=1.0)
    )
    means = planes.reshape(4, 120, 2, 160, 2).astype(float).mean(axis=(2, 4))
    agree(read(tmp_path / "out.tif"), means if dtype == "float32" else np.floor(means + 0.5), spec)


def write_named(path: Path, planes: np.ndarray, names: tuple[str, ...], order: list[int], **more: Any) -> Path:
    return write_bands(path, planes[order], tuple(names[index] for index in order), **more)


@pytest.mark.parametrize("order", [[3, 2, 1, 0], [1, 3, 0, 2]], ids=str)
def test_bands_are_found_by_name(order: list[int], tmp_path: Path) -> None:
    planes = pixels_of(RGBN, 90, 110)
    predictor = Predictor(write_banded(tmp_path / "m.onnx", RGBN))
    source = write_named(tmp_path / "in.tif", planes, RGBN.names, order)
    found = predictor.predict(source, tmp_path / "out.tif")
    agree(read(tmp_path / "out.tif"), planes, RGBN)
    assert any("by their names" in note for note in found.notes)


@pytest.mark.parametrize("bands", ["4,3,2,1", "B04,green, Blue ,NIR"])
def test_the_user_says_which_bands_these_are(bands: str, tmp_path: Path) -> None:
    planes = pixels_of(RGBN, 90, 110)
    names = ("", "", "", "") if bands[0] == "4" else ("NIR", "Blue", "Green", "B04")
    source = write_bands(tmp_path / "in.tif", planes[::-1] if bands[0] == "4" else planes[[3, 2, 1, 0]], names)
    Predictor(write_banded(tmp_path / "m.onnx", RGBN)).predict(
        source, tmp_path / "out.tif", RasterSettings(bands=bands)
    )
    agree(read(tmp_path / "out.tif"), planes, RGBN)


def test_bands_without_names_are_taken_by_place(tmp_path: Path) -> None:
    planes = pixels_of(RGBN, 90, 110)
    found = Predictor(write_banded(tmp_path / "m.onnx", RGBN)).predict(
        write_bands(tmp_path / "in.tif", planes), tmp_path / "out.tif"
    )
    agree(read(tmp_path / "out.tif"), planes, RGBN)
    assert any("all by place and not by name" in note for note in found.notes)


def test_a_wide_integer_is_read_where_its_values_fit(tmp_path: Path) -> None:
    planes = pixels_of(RGBN, 90, 110)
    for dtype in ("int16", "int32", "uint32"):
        source = write_bands(tmp_path / f"{dtype}.tif", planes.astype(dtype))
        Predictor(write_banded(tmp_path / "m.onnx", RGBN)).predict(source, tmp_path / "out.tif")
        agree(read(tmp_path / "out.tif"), planes, RGBN)


GOOD = pixels_of(RGBN, 90, 110)
REFUSED: dict[str, tuple[np.ndarray, dict[str, Any], dict[str, Any], str]] = {
    "a band is missing": (GOOD[:3], {"names": ("red", "green", "blue")}, {}, "has no band nir; it has 3 bands"),
    "the fourth band is transparency": (
        (GOOD[:4] // 64).astype(np.uint16), {"photometric": "rgb", "alpha": "yes"}, {}, "has no band nir.*transparency"
    ),
    "bytes": ((GOOD // 32).astype(np.uint8), {}, {}, "holds uint8 and the network is fed uint16"),
    "reflectance": (GOOD.astype(np.float32) / 10_000, {}, {}, "holds float32 and the network is fed uint16"),
    "another scale": (GOOD * 5 + 20_000, {}, {}, "another scale, or it is another band"),
    "a negative value": (
        np.where(np.arange(110) == 50, -5, GOOD.astype(np.int16)).astype(np.int16), {}, {}, "holds values from -5"
    ),
    "too few --bands": (GOOD, {}, {"bands": "1,2,3"}, r"--bands names 3 band\(s\); the network is fed 4"),
    "no such --bands": (GOOD, {}, {"bands": "1,2,3,9"}, "has no band 9; it has 4 bands"),
    "no such name": (GOOD, {"names": NAMES[:4]}, {"bands": "red,green,blue,swir22"}, "has no band swir22"),
    "--scale": (GOOD, {}, {"scale": "0,4095"}, "--scale is for networks that are fed colours"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_the_network_is_refused(case: str, tmp_path: Path) -> None:
    planes, options, settings, message = REFUSED[case]
    source = write_bands(tmp_path / "in.tif", planes, **options)
    predictor = Predictor(write_banded(tmp_path / "m.onnx", RGBN))
    before = sorted(tmp_path.iterdir())
    with pytest.raises((DataError, SettingsError), match=message) as raised:
        predictor.predict(source, tmp_path / "out.tif", RasterSettings(**settings))
    assert raised.value.exit_code == 2
    assert [path for path in sorted(tmp_path.iterdir()) if "unfinished" not in path.name] == before


@pytest.mark.parametrize("image", [GOOD, GOOD.transpose(1, 2, 0)[..., :3], GOOD.transpose(1, 2, 0).astype(np.int16)])
def test_an_array_of_other_bands_is_refused(image: np.ndarray, tmp_path: Path) -> None:
    predictor = Predictor(write_banded(tmp_path / "m.onnx", RGBN))
    for call in (predictor.labels, predictor.probabilities):
        with pytest.raises(DataError, match=r"must be \(H, W, 4\) uint16 with pixels \(red, green, blue, nir\)"):
            call(image)


def test_resume_with_other_bands_is_refused(tmp_path: Path) -> None:
    source = write_bands(tmp_path / "in.tif", pixels_of(RGBN, 300, 110))
    predictor = Predictor(write_banded(tmp_path / "m.onnx", RGBN), threads=1)

    def stop(progress: object) -> None:
        if isinstance(progress, Progress) and progress.done > 0:
            raise KeyboardInterrupt

    with pytest.raises(PredictionStopped):
        predictor.predict(source, tmp_path / "out.tif", on_progress=stop)
    with pytest.raises(RunFolderError, match="bands"):
        predictor.predict(source, tmp_path / "out.tif", RasterSettings(bands="4,3,2,1"), resume=True)


@pytest.mark.parametrize("how", ["nodata", "nan", "mask"])
def test_pixels_without_data_however_they_are_marked(how: str, tmp_path: Path) -> None:
    """One band that is not finite, or a mask, leaves no measurement; nodata must stand in all bands."""
    spec = spec_of("float32", 4)
    planes = pixels_of(spec, 90, 110)
    empty = np.zeros((90, 110), bool)
    empty[30:60, 40:80] = True
    if how == "nan":
        planes[2, empty] = np.nan
    elif how == "nodata":
        planes[:, empty] = -1
    source = write_bands(tmp_path / "in.tif", planes, nodata=-1 if how == "nodata" else None)
    if how == "mask":
        with rasterio.open(source, "r+") as file:
            file.write_mask(~empty)
    Predictor(write_banded(tmp_path / "m.onnx", spec)).predict(source, tmp_path / "out.tif")
    found = read(tmp_path / "out.tif")
    assert np.array_equal(found == 255, empty)
    planes[:, empty] = spec.fill[:, None]
    labels, clear = truth(planes, spec)
    assert np.array_equal(found[clear & ~empty], labels[clear & ~empty])


@pytest.mark.parametrize("mode", ["crop", "blend"])
def test_the_memory_limit_holds_for_many_bands(mode: str, tmp_path: Path) -> None:
    spec = spec_of("float32", 13)
    source = write_bands(tmp_path / "in.tif", np.tile(pixels_of(spec, 250, 500), (1, 4, 10)), blockysize=8)
    model = write_banded(tmp_path / "m.onnx", spec, tile=512, hidden=16)
    script = (
        "import sys\nfrom skystill.model.measure import peak_rss_bytes\nfrom skystill.predict import Predictor\n"
        "from skystill.settings import RasterSettings\n"
        f"settings = RasterSettings(max_memory={350_000_000}, mode={mode!r})\n"
        f"Predictor({str(model)!r}).predict({str(source)!r}, {str(tmp_path / 'o.tif')!r}, settings)\n"
        "print(peak_rss_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 350e6
