"""Rasters through a network: whose answer is plain (the brightest channel), so that every pixel has one right value."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from skystill.classes import DUBAI
from skystill.errors import DataError, DiskFull, PredictionStopped, RunFolderError, SettingsError
from skystill.predict import Predictor
from skystill.predict.stream import most_likely
from skystill.predict.summary import write_areas, write_overlay
from skystill.raster.output import RasterOutput
from skystill.raster.styles import style_document
from skystill.settings import RasterSettings
from tests.channel_model import INFO, write_model

RGB = np.random.default_rng(2).integers(0, 256, (3, 700, 900), np.uint8)
TRUTH = RGB.argmax(axis=0).astype(np.uint8)


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(write_model(tmp_path / "m.onnx", replace(INFO, parameters=1, tile_size=256).to_metadata()))


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    return write(tmp_path / "in.tif", RGB)


def write(path: Path, bands: np.ndarray, **options: object) -> Path:
    profile = {
        "driver": "GTiff", "height": bands.shape[1], "width": bands.shape[2], "count": len(bands),
        "dtype": "uint8", "crs": "EPSG:32640", "transform": from_origin(300_000, 2_800_000, 0.5, 0.5),
    }  # fmt: skip
    with rasterio.open(path, "w", **{**profile, **options}) as file:
        file.write(bands)
    return path


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


@pytest.mark.parametrize("mode", ["crop", "blend"])
@pytest.mark.parametrize("layout", [{"tiled": True, "blockxsize": 128, "blockysize": 128}, {"blockysize": 7}])
def test_the_class_raster_lies_where_the_image_lies(
    tmp_path: Path, predictor: Predictor, mode: str, layout: dict[str, object]
) -> None:
    source = write(tmp_path / "in.tif", RGB, **layout)
    found = predictor.predict(source, tmp_path / "out.tif", RasterSettings(mode=mode))  # type: ignore[arg-type]
    assert (found.pixels, found.damaged) == (630_000, ())
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(source) as given:
        assert np.array_equal(out.read(1), TRUTH)
        assert (out.crs, out.transform, out.shape) == (given.crs, given.transform, given.shape)
        assert (out.nodata, out.dtypes, out.profile["tiled"], out.compression.name) == (
            255,
            ("uint8",),
            True,
            "deflate",
        )
        assert [out.colormap(1)[label][:3] for label in range(6)] == list(DUBAI.colors)
        assert out.tags(1)["CLASS_3"] == "Vegetation"
    assert "<Category>Vegetation</Category>" in (tmp_path / "out.tif.aux.xml").read_text()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("mode", ["crop", "blend"])
def test_wide_strips_go_through_the_spool(tmp_path: Path, predictor: Predictor, mode: str) -> None:
    wide = np.tile(RGB[:, :300], (1, 1, 6))  # 5,400 pixels: wider than two lanes of 2,048
    source = write(tmp_path / "in.tif", wide, blockysize=5)
    settings = RasterSettings(mode=mode, tile=768)  # type: ignore[arg-type]
    predictor.predict(source, tmp_path / "out.tif", settings)
    assert np.array_equal(read(tmp_path / "out.tif"), wide.argmax(axis=0))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 100_000), (3_000, 1), (65, 64)])
def test_odd_shapes(tmp_path: Path, predictor: Predictor, height: int, width: int) -> None:
    bands = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
    predictor.predict(write(tmp_path / "odd.tif", bands), tmp_path / "out.tif")
    assert np.array_equal(read(tmp_path / "out.tif"), bands.argmax(axis=0))


def test_nodata_stays_nodata(tmp_path: Path, predictor: Predictor) -> None:
    bands = RGB // 2 + 1
    bands[:, 100:400, 50:800] = 0
    source = write(tmp_path / "in.tif", bands, nodata=0)
    predictor.predict(source, tmp_path / "out.tif", RasterSettings(confidence=True))
    expected = np.where((bands == 0).all(axis=0), 255, bands.argmax(axis=0))
    assert np.array_equal(read(tmp_path / "out.tif"), expected)
    assert np.array_equal(read(tmp_path / "out-confidence.tif") == 255, expected == 255)


def test_confidence_and_probabilities_are_scaled_bytes(tmp_path: Path, predictor: Predictor, raster: Path) -> None:
    predictor.predict(raster, tmp_path / "out.tif", RasterSettings(confidence=True, probabilities=True))
    logits = np.concatenate([RGB, RGB]).astype(np.float64)
    shares = np.exp(logits - logits.max(axis=0))
    shares /= shares.sum(axis=0)
    with rasterio.open(tmp_path / "out-probabilities.tif") as file:
        assert file.descriptions == DUBAI.names
        assert np.abs(file.read() * file.scales[0] - shares).max() <= 0.002 + 1e-6
    with rasterio.open(tmp_path / "out-confidence.tif") as file:
        assert np.abs(file.read(1) * file.scales[0] - shares.max(axis=0)).max() <= 0.002 + 1e-6


def test_a_plain_image_becomes_a_palette_picture(tmp_path: Path, predictor: Predictor) -> None:
    from PIL import Image

    Image.fromarray(RGB.transpose(1, 2, 0)).save(tmp_path / "photo.png")
    predictor.predict(tmp_path / "photo.png", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), TRUTH)
        assert np.array_equal(np.asarray(picture.convert("RGB")), DUBAI.paint(TRUTH))


@pytest.mark.parametrize("name", ["classes.tif", "classes.png"])
def test_qgis_finds_the_style_of_every_class_raster(tmp_path: Path, predictor: Predictor, name: str) -> None:
    Image.fromarray(RGB[:, :50, :60].transpose(1, 2, 0)).save(tmp_path / "photo.jpg")
    found = predictor.predict(tmp_path / "photo.jpg", tmp_path / name)
    assert (tmp_path / "classes.qml").read_text(encoding="utf-8") == style_document(DUBAI)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("source", "target", "styled"),
    [
        ("ortho.tif", "ortho.png", False),
        ("ortho.tif", "same/ortho.png", False),
        ("ortho.jpg", "ortho.tif", False),
        ("ortho.tif", "out/ortho.png", True),
        ("ortho.tif", "ortho2.png", True),
        ("ortho.tif", "Ortho.png", True),
    ],
)
def test_the_style_is_not_that_of_the_source(
    tmp_path: Path, predictor: Predictor, source: str, target: str, styled: bool
) -> None:
    """QGIS would show ortho.tif with ortho.qml: in the colours of classes, or no longer in the user's own style."""
    (tmp_path / "out").mkdir()
    (tmp_path / "same").symlink_to(tmp_path)
    Image.fromarray(RGB[:, :50, :60].transpose(1, 2, 0)).save(tmp_path / source)
    (tmp_path / "ortho.qml").write_text("the user's own")
    found = predictor.predict(tmp_path / source, tmp_path / target)
    assert (tmp_path / "ortho.qml").read_text() == "the user's own"
    assert (tmp_path / target).exists()
    if styled:
        assert (tmp_path / target).with_suffix(".qml").read_text() == style_document(DUBAI)
        assert found.notes == ()
    else:
        (note,) = found.notes
        assert "QGIS would apply ortho.qml to the source, too" in note


def test_a_cog_has_overviews(tmp_path: Path, predictor: Predictor, raster: Path) -> None:
    predictor.predict(raster, tmp_path / "out.tif", RasterSettings(cog=True))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1)
        assert np.array_equal(file.read(1), TRUTH)
        assert file.colormap(1)[0][:3] == DUBAI.colors[0]


@pytest.mark.parametrize("mode", ["crop", "blend"])
def test_what_was_interrupted_goes_on_to_the_same_bytes(
    tmp_path: Path, predictor: Predictor, raster: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RasterSettings(mode=mode, confidence=True)  # type: ignore[arg-type]
    predictor.predict(raster, tmp_path / "whole.tif", settings)
    out = tmp_path / "out.tif"
    written: list[int] = []
    write_unit = RasterOutput.write

    def stop_after_two(self: RasterOutput, unit: object, arrays: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(1)
        write_unit(self, unit, arrays)  # type: ignore[arg-type]

    monkeypatch.setattr(RasterOutput, "write", stop_after_two)
    with pytest.raises(PredictionStopped, match="--resume"):
        predictor.predict(raster, out, settings)
    assert not out.exists()
    monkeypatch.setattr(RasterOutput, "write", write_unit)
    with pytest.raises(RunFolderError, match=r"was interrupted\. Go on with --resume"):
        predictor.predict(raster, out, settings)
    with pytest.raises(RunFolderError, match=r"other settings \(confidence\)"):
        predictor.predict(raster, out, RasterSettings(mode=mode), resume=True)  # type: ignore[arg-type]
    predictor.predict(raster, out, settings, resume=True)
    for name in ("{}.tif", "{}-confidence.tif"):
        assert (tmp_path / name.format("out")).read_bytes() == (tmp_path / name.format("whole")).read_bytes()


def test_a_limit_of_memory_is_kept_or_refused(tmp_path: Path, predictor: Predictor, raster: Path) -> None:
    with pytest.raises(SettingsError, match=r"the smallest possible is [0-9]+MB"):
        predictor.predict(raster, tmp_path / "out.tif", RasterSettings(max_memory="10MB"))
    predictor.predict(raster, tmp_path / "out.tif", RasterSettings(max_memory="9GB"))
    assert np.array_equal(read(tmp_path / "out.tif"), TRUTH)


@pytest.mark.parametrize("mode", ["crop", "blend"])
@pytest.mark.parametrize("views", ["2", "4", "8"])
def test_views_come_back_to_their_place(
    tmp_path: Path, predictor: Predictor, raster: Path, mode: str, views: str
) -> None:
    settings = RasterSettings(mode=mode, views=views, tile=192, overlap=32, max_memory="9GB")  # type: ignore[arg-type]
    predictor.predict(raster, tmp_path / "out.tif", settings)
    assert np.array_equal(read(tmp_path / "out.tif"), TRUTH)


def test_a_limit_of_memory_does_not_keep_a_run_from_going_on(
    tmp_path: Path, predictor: Predictor, raster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RasterSettings(max_memory="9GB")
    write_unit = RasterOutput.write
    written: list[int] = []

    def stop(self: RasterOutput, unit: object, arrays: object) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(1)
        write_unit(self, unit, arrays)  # type: ignore[arg-type]

    monkeypatch.setattr(RasterOutput, "write", stop)
    with pytest.raises(PredictionStopped):
        predictor.predict(raster, tmp_path / "out.tif", settings)
    monkeypatch.setattr(RasterOutput, "write", write_unit)
    predictor._memory = {1: replace(predictor._memory[1], bytes_per_pixel=1e9)}  # now nothing would fit
    predictor.predict(raster, tmp_path / "out.tif", settings, resume=True)
    assert np.array_equal(read(tmp_path / "out.tif"), TRUTH)


def test_a_world_file_is_looked_for(tmp_path: Path, predictor: Predictor) -> None:
    from PIL import Image

    Image.fromarray(RGB[:, :50, :60].transpose(1, 2, 0)).save(tmp_path / "ortho.png")
    (tmp_path / "ortho.pgw").write_text("0.5\n0\n0\n-0.5\n300000.25\n2799999.75\n")
    predictor.predict(tmp_path / "ortho.png", tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as file:
        assert (file.transform.a, file.transform.c, file.transform.f) == (0.5, 300_000, 2_800_000)


def test_tiles_without_a_middle_are_refused(tmp_path: Path, predictor: Predictor, raster: Path) -> None:
    with pytest.raises(SettingsError, match="--tile must be 192 or more"):
        predictor.predict(raster, tmp_path / "out.tif", RasterSettings(tile=128, overlap=128))
    with pytest.raises(SettingsError, match=r"name it \.tif"):
        predictor.predict(raster, tmp_path / "out.jpg")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, predictor: Predictor, raster: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFull, match="cannot write"):
        predictor.predict(raster, tmp_path / "file" / "out.tif")


def test_a_model_of_another_maker_needs_classes(tmp_path: Path) -> None:
    path = write_model(tmp_path / "foreign.onnx", {})
    predictor = Predictor(path, classes=DUBAI)
    assert np.array_equal(predictor.labels(RGB.transpose(1, 2, 0)), TRUTH)


@pytest.mark.parametrize("shape", [(1, 3, 4), (6, 5, 7), (11, 300, 600)])
def test_most_likely_is_argmax(shape: tuple[int, int, int]) -> None:
    scores = np.random.default_rng(0).integers(0, 4, shape).astype(np.float32)  # many equals
    assert np.array_equal(most_likely(scores), scores.argmax(axis=0))


def test_the_metadata_is_read_as_deepness_reads_it(tmp_path: Path) -> None:
    import onnxruntime

    info = replace(INFO, tile_size=512, overlap=128).with_resolution(0.3)
    session = onnxruntime.InferenceSession(write_model(tmp_path / "m.onnx", info.to_metadata()))
    metadata = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert metadata["model_type"] == "Segmentor"
    assert metadata["class_names"] == {str(label): name for label, name in enumerate(DUBAI.names)}
    assert (metadata["tile_size"], metadata["tiles_size"], metadata["tiles_overlap"]) == (512, 512, 25)
    assert metadata["resolution"] == 30
    assert (metadata["seg_thresh"], metadata["seg_small_segment"]) == (0, 0)
    assert metadata["standardization_mean"] == [0, 0, 0] and metadata["standardization_std"] == [1, 1, 1]


@pytest.mark.parametrize("how", ["nodata", "alpha", "internal mask", "external mask"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_a_collar_is_nodata_in_every_type_and_the_table_says_so(
    tmp_path: Path, predictor: Predictor, dtype: str, how: str
) -> None:
    seen = np.ones((700, 900), bool)
    seen[:, :31] = seen[:50, 100:] = False  # 700 * 31 + 50 * 800 = 61,700 pixels
    bands = np.where(seen, np.maximum(RGB, 1), 0).astype(dtype)
    options: dict[str, object] = {"dtype": dtype, "nodata": 0 if how == "nodata" else None}
    if how == "alpha":
        bands = np.concatenate([bands, (seen * 255)[None].astype(dtype)])
        options |= {"photometric": "rgb", "alpha": "yes"}
    source = write(tmp_path / "in.tif", bands, **options)
    if "mask" in how:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=how == "internal mask"), rasterio.open(source, "r+") as file:
            file.write_mask(seen)
    predictor.predict(source, tmp_path / "out.tif", RasterSettings(scale=None if dtype == "uint8" else "0,255"))
    found = read(tmp_path / "out.tif")
    assert np.array_equal(found == 255, ~seen)
    assert np.array_equal(found[seen], np.maximum(RGB, 1).argmax(axis=0)[seen])
    write_areas(tmp_path / "out.tif", tmp_path / "areas.csv", DUBAI)
    assert "no data,61700," in (tmp_path / "areas.csv").read_text()


def test_a_photograph_that_lies_on_its_side_is_predicted_upright(tmp_path: Path, predictor: Predictor) -> None:
    exif = Image.Exif()
    exif[274] = 6  # the first stored row is the right side
    Image.fromarray(np.rot90(RGB.transpose(1, 2, 0))).save(tmp_path / "in.png", exif=exif)
    found = predictor.predict(tmp_path / "in.png", tmp_path / "out.png")
    assert np.array_equal(read(tmp_path / "out.png"), TRUTH)
    assert any("turned upright by its EXIF orientation 6" in note for note in found.notes)
    write_overlay(str(tmp_path / "in.png"), tmp_path / "out.png", tmp_path / "over.png", DUBAI, RasterSettings())
    colors = np.asarray(DUBAI.colors, float)[TRUTH]
    expected = RGB.transpose(1, 2, 0) * 0.55 + colors * 0.45
    assert np.abs(np.asarray(Image.open(tmp_path / "over.png"), float) - expected).max() < 1


def test_a_raster_of_which_nothing_can_be_read_is_an_error(tmp_path: Path, predictor: Predictor) -> None:
    source = write(tmp_path / "in.tif", RGB, compress="deflate", interleave="pixel", tiled=True)
    with rasterio.open(source) as file:
        offsets = [int(file.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=1)) for x in range(4) for y in range(3)]
    content = bytearray(source.read_bytes())
    for offset in offsets[1:]:
        content[offset : offset + 8] = b"\xff" * 8
    source.write_bytes(content)
    found = predictor.predict(source, tmp_path / "out.tif")
    assert len(found.damaged) == 4 and "a part cannot be read: " in found.notes[0]
    out = read(tmp_path / "out.tif")
    assert np.array_equal(out[:256, :256], TRUTH[:256, :256]) and (out == 255).sum() == 700 * 900 - 256 * 256
    (tmp_path / "out.tif").unlink()
    content[offsets[0] : offsets[0] + 8] = b"\xff" * 8
    source.write_bytes(content)
    with pytest.raises(DataError, match=r"in\.tif: no block of it can be read \(.*[dD]ecod.*\)\. Nothing was written"):
        predictor.predict(source, tmp_path / "out.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tif", "m.onnx", "out.qml", "out.tif.aux.xml"]


def test_the_mask_of_an_array_counts(predictor: Predictor) -> None:
    image = np.ma.MaskedArray(RGB.transpose(1, 2, 0).copy())
    assert np.array_equal(predictor.labels(image), TRUTH)
    image[100:200, :50] = np.ma.masked
    image[300, 400, 1] = np.ma.masked  # of one band
    void = np.zeros(TRUTH.shape, bool)
    void[100:200, :50] = void[300, 400] = True
    assert np.array_equal(predictor.labels(image), np.where(void, 255, TRUTH))
    found = predictor.probabilities(image)
    assert np.isnan(found[:, void]).all() and np.isfinite(found[:, ~void]).all()


@pytest.mark.parametrize("views", [0, 3, 5, 16, "4"])
def test_views_that_do_not_exist(views: int, predictor: Predictor) -> None:
    with pytest.raises(SettingsError, match="it is 1, 2, 4 or 8"):
        predictor.labels(RGB.transpose(1, 2, 0), views)


@pytest.mark.parametrize("resolution", [float("inf"), float("nan"), 0.0, -1.0])
def test_resolutions_that_are_no_length(resolution: float) -> None:
    with pytest.raises(ValueError, match="resolution"):
        RasterSettings(resolution=resolution)
