"""DataArrays through a network: the labels of `skystill predict` for the same raster, however the array is made."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

import skystill
from skystill.errors import DataError, ModelFileError, SettingsError, UserError
from skystill.predict import Predictor
from skystill.progress import Note, Progress
from skystill.raster.input_spec import RGB, InputSpec
from skystill.settings import RasterSettings
from tests.banded_model import truth, write_banded
from tests.banded_rasters import pixels_of, spec_of, write_bands

dask_array = pytest.importorskip("dask.array")
rioxarray = pytest.importorskip("rioxarray")
xr = pytest.importorskip("xarray")

NAMES = ("red", "green", "blue", "nir")
RGBN = spec_of("uint16", 4, NAMES)
GREY = spec_of("float32", 1)
MODELS: dict[tuple[InputSpec, int], Predictor] = {}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models")

    def of(spec: InputSpec, tile: int = 192) -> Predictor:
        key = spec, tile
        if key not in MODELS:
            MODELS[key] = Predictor(write_banded(folder / f"{len(MODELS)}.onnx", spec, tile, hidden=4))
        return MODELS[key]

    yield of
    MODELS.clear()


def written(predictor: Predictor, source: Path, **settings: Any) -> tuple[np.ndarray, rasterio.DatasetReader]:
    """What `skystill predict` writes."""
    out = source.with_name(f"{source.stem}-classes.tif")
    predictor.predict(source, out, RasterSettings(**settings))
    with rasterio.open(out) as file:
        return np.asarray(file.read(1)), file


def agrees(
    predictor: Predictor, source: Path, chunks: dict[str, Any] | None = None, masked: bool = False, **settings: Any
) -> Any:
    """The labels of the array, numpy's and dask's, once they are those that `skystill predict` writes."""
    expected, file = written(predictor, source, **settings)
    assert len(np.unique(expected)) > 2
    for chunked in (None, chunks or {"band": 1, "y": 117, "x": 150}):
        da = rioxarray.open_rasterio(source, chunks=chunked and {}, masked=masked)  # of tiny chunks, each is opened
        da = da if chunked is None else da.chunk(chunked)
        found = skystill.predict_dataarray(da, predictor, **settings)
        assert (found.chunks is None) == (chunked is None)
        assert found.dims == ("y", "x") and found.dtype == np.uint8
        assert np.array_equal(found.values, expected)
        assert (found.rio.crs, found.rio.transform(), found.rio.nodata) == (file.crs, file.transform, 255)
        if expected.shape == da.shape[1:]:
            assert found.x.equals(da.x) and found.y.equals(da.y)
    return found


# ---- the labels of `skystill predict`


@pytest.mark.parametrize(
    "settings",
    [{}, {"mode": "blend"}, {"views": "4"}, {"tile": 96, "overlap": 0}, {"mode": "blend", "views": "2", "tile": 130}],
    ids=str,
)
def test_colours(settings: dict[str, Any], models: Any, tmp_path: Path) -> None:
    source = write_bands(tmp_path / "a.tif", pixels_of(RGB, 317, 411))
    agrees(models(RGB), source, **settings)


@pytest.mark.parametrize("mode", ["crop", "blend"])
@pytest.mark.parametrize(
    "chunks",
    [{"y": -1, "x": -1}, {"y": 20, "x": -1}, {"y": 70, "x": 50}, {"y": (300, 17), "x": (1, 400, 10)}],
    ids=["one", "rows", "small", "irregular"],
)
def test_chunks_off_the_grid(chunks: dict[str, Any], mode: str, models: Any, tmp_path: Path) -> None:
    planes = pixels_of(RGBN, 317, 411)
    source = write_bands(tmp_path / "a.tif", planes[[3, 0, 1, 2]], ("nir", "red", "green", "blue"))
    found = agrees(models(RGBN), source, {"band": 1, **chunks}, mode=mode)
    assert found.attrs["notes"] == ["the DataArray: bands 2, 3, 4, 1 of 4 are red, green, blue, nir by their names."]


@pytest.mark.parametrize("mode", ["crop", "blend"])
def test_several_lanes_and_several_chunks_of_rows(mode: str, models: Any, tmp_path: Path) -> None:
    planes = pixels_of(GREY, 2300, 2200) if mode == "crop" else pixels_of(GREY, 600, 8300)
    found = agrees(models(GREY, 320), write_bands(tmp_path / "a.tif", planes), {"y": 1000, "x": 1500}, mode=mode)
    assert len(found.chunks[1]) == 2 and len(found.chunks[0]) == (2 if mode == "crop" else 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (64, 65), (193, 191)], ids=str)
def test_odd_sizes(size: tuple[int, int], models: Any, tmp_path: Path) -> None:
    source, predictor = write_bands(tmp_path / "a.tif", pixels_of(RGB, *size)), models(RGB)
    expected, file = written(predictor, source)
    for chunks in (None, 50):
        found = skystill.predict_dataarray(rioxarray.open_rasterio(source, chunks=chunks), predictor)
        assert np.array_equal(found.values, expected) and found.rio.transform() == file.transform


@pytest.mark.parametrize("masked", [False, True], ids=["values", "masked"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_nodata(dtype: str, masked: bool, models: Any, tmp_path: Path) -> None:
    spec = RGB if dtype == "uint8" else spec_of(dtype, 3)
    planes, nodata = pixels_of(spec, 301, 402), {"uint8": 0, "uint16": 0, "int16": -32768, "float32": -9999.0}[dtype]
    planes[:, 20:80, 60:300] = nodata
    planes[1, 100:140, 10:50] = nodata  # in one band: a colour, and no measurement
    found = agrees(models(spec), write_bands(tmp_path / "a.tif", planes, nodata=nodata), masked=masked)
    assert (found.values[20:80, 60:300] == 255).all()
    assert (found.values[100:140, 10:50] == 255).all() == (spec is not RGB)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_mask(dtype: str, models: Any, tmp_path: Path) -> None:
    spec = RGB if dtype == "uint8" else RGBN
    planes, seen = pixels_of(spec, 301, 402), np.ones((301, 402), bool)
    seen[40:90, 100:333] = False
    planes[:, ~seen] = 0
    source = write_bands(tmp_path / "a.tif", planes, spec.names)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(source, "r+") as file:
        file.write_mask(seen)
    found = agrees(models(spec), source, masked=True)
    assert np.array_equal(found.values == 255, ~seen)


def test_transparency_is_a_band_called_alpha(models: Any, tmp_path: Path) -> None:
    planes = np.concatenate([pixels_of(RGB, 301, 402), np.full((1, 301, 402), 255, np.uint8)])
    planes[3, 40:90, 100:333] = 0
    source = write_bands(tmp_path / "a.tif", planes, ("red", "green", "blue", "alpha"), alpha="yes", photometric="rgb")
    found = agrees(models(RGB), source)
    assert (found.values[40:90, 100:333] == 255).all() and (found.values == 255).sum() == 50 * 233


@pytest.mark.parametrize("resolution", [0.25, 0.8, 1.0], ids=str)
@pytest.mark.parametrize("nodata", [None, 0])
def test_resolution(resolution: float, nodata: int | None, models: Any, tmp_path: Path) -> None:
    planes = pixels_of(RGBN, 317, 411)
    planes[:, 100:220, 90:333] = 0
    source = write_bands(tmp_path / "a.tif", planes, NAMES, nodata=nodata)
    found = agrees(models(RGBN), source, resolution=resolution)
    assert found.rio.resolution() == pytest.approx((resolution, -resolution), rel=0.01)


def test_values_of_16_bits_become_colours_by_the_same_scale(models: Any, tmp_path: Path) -> None:
    source = write_bands(tmp_path / "a.tif", pixels_of(spec_of("uint16", 3), 301, 402))
    found = agrees(models(RGB), source)
    assert "98th percentile" in found.attrs["notes"][0]
    agrees(models(RGB), source, scale="1000,5000")


def test_bands_are_named_or_numbered_by_the_user(models: Any, tmp_path: Path) -> None:
    planes = pixels_of(RGBN, 201, 302)
    source = write_bands(tmp_path / "a.tif", planes[::-1], ("nir", "blue", "green", "red"))
    first = agrees(models(RGBN), source, bands="nir,blue,green,red")
    da = rioxarray.open_rasterio(source)
    assert np.array_equal(first.values, labels(da, models(RGBN), bands="1,2,3,4"))
    assert np.array_equal(first.values, labels(da, models(RGBN), bands=["nir", "blue", "green", "red"]))
    assert not np.array_equal(first.values, labels(da, models(RGBN)))


# ---- what rioxarray and xarray say


def array(spec: InputSpec, height: int = 200, width: int = 230, **coordinates: Any) -> Any:
    """A DataArray with pixels of 0.5 m in UTM, and what skystill predict would find in it."""
    x, y = 500_000.25 + 0.5 * np.arange(width), 2_800_000 - 0.25 - 0.5 * np.arange(height)
    da = xr.DataArray(pixels_of(spec, height, width), dims=("band", "y", "x"), coords={"y": y, "x": x, **coordinates})
    return da.rio.write_crs("EPSG:32640")


def labels(da: Any, predictor: Predictor, **settings: Any) -> np.ndarray:
    return np.asarray(skystill.predict_dataarray(da, predictor, **settings).values)


def test_the_labels_are_those_of_numpy(tmp_path: Path) -> None:
    predictor = Predictor(write_banded(tmp_path / "m.onnx", RGBN))
    da = array(RGBN, band=list(NAMES))
    expected, clear = truth(da.values, RGBN)
    found = labels(da, predictor)
    assert np.array_equal(found[clear], expected[clear]) and clear.mean() > 0.98


SAME = {
    "rows, columns, bands": lambda da: da.transpose("y", "x", "band"),
    "columns first": lambda da: da.transpose("x", "band", "y"),
    "other order of bands": lambda da: da.isel(band=[2, 0, 3, 1]),
    "long_name": lambda da: da.drop_vars("band").assign_attrs(long_name=NAMES),
    "long_name of numbered bands": lambda da: da.assign_coords(band=[1, 2, 3, 4]).assign_attrs(long_name=NAMES),
    "long_name of all bands of the file": lambda da: (
        xr.concat([da, da[:1]], "band").assign_coords(band=[1, 2, 3, 4, 5]).assign_attrs(long_name=[*NAMES, "swir"])
    ).sel(band=[1, 2, 3, 4]),
    "names of Sentinel-2": lambda da: da.assign_coords(band=["B04 (red)", "B03 (green)", "B02 (blue)", "B08 (NIR)"]),
    "bands of a Dataset": lambda da: da.to_dataset("band").to_dataarray(),
    "big endian": lambda da: da.astype(">u2"),
    "another width of integers": lambda da: da.astype("int32"),
    "longitude and latitude": lambda da: da.rename(x="longitude", y="latitude"),
    "other names of dimensions": lambda da: da.rename(x="easting", y="northing").rio.set_spatial_dims(
        x_dim="easting", y_dim="northing"
    ),
    "a scalar time": lambda da: da.assign_coords(time=np.datetime64("2026-01-01", "ns")),
    "no CRS": lambda da: da.drop_vars("spatial_ref"),
    "no coordinates": lambda da: da.drop_vars(["x", "y", "spatial_ref"]),
    "dask, of one band each": lambda da: da.chunk(band=1, y=50, x=-1),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_the_same_pixels_have_the_same_labels(make: Any, models: Any) -> None:
    da = array(RGBN, band=list(NAMES))
    found = skystill.predict_dataarray(make(da), models(RGBN))
    assert np.array_equal(found.values, labels(da, models(RGBN)))
    assert make(da).isel(band=0, missing_dims="ignore").squeeze().sizes.keys() >= set(found.dims)


def test_the_result_says_what_it_is(models: Any, tmp_path: Path) -> None:
    da = array(RGBN, band=list(NAMES)).assign_coords(time=np.datetime64("2026-01-01", "ns"))
    events: list[Any] = []
    found = skystill.predict_dataarray(da, models(RGBN), on_progress=events.append)
    assert found.name == "class" and set(found.coords) == {"x", "y", "time", "spatial_ref"}
    assert found.attrs == {
        "long_name": "class", "class_names": ["a", "b", "c", "d"], "_FillValue": 255,
        "class_colors": ["#FF0000", "#00FF00", "#0000FF", "#000000"],
    }  # fmt: skip
    assert found.rio.crs == da.rio.crs and found.rio.transform() == Affine(0.5, 0, 500_000, 0, -0.5, 2_800_000)
    assert isinstance(events[-1], Progress) and events[-1].done == events[-1].total == 200 * 230
    found.rio.to_raster(tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as file:
        assert np.array_equal(file.read(1), found.values) and file.nodata == 255


def test_every_second_pixel_has_twice_the_size(models: Any, tmp_path: Path) -> None:
    source = write_bands(tmp_path / "a.tif", pixels_of(RGB, 301, 402))
    da = rioxarray.open_rasterio(source)[:, 4::2, 6::2]
    assert da.rio.transform().a == 0.5  # what rioxarray says
    found = skystill.predict_dataarray(da, models(RGB))
    assert found.rio.transform().almost_equals(Affine(1, 0, 500_002.75, 0, -1, 2_799_998.25), 1e-6)
    assert "notes" not in found.attrs


def test_the_resolution_is_compared_with_that_of_the_model(models: Any, tmp_path: Path) -> None:
    info = models(RGBN).info.with_resolution(0.5)
    predictor = Predictor(write_banded(tmp_path / "m.onnx", info.input_spec))
    da = array(RGBN, band=list(NAMES))
    assert "notes" not in skystill.predict_dataarray(da, predictor).attrs
    (note,) = skystill.predict_dataarray(da[:, ::2, ::2], predictor).attrs["notes"]
    assert "has 1 m per pixel, the model was trained at 0.5 m" in note


def test_uneven_coordinates_have_no_transform(models: Any) -> None:
    da = array(RGBN, band=list(NAMES))
    uneven = da.assign_coords(y=da.y.values - 0.01 * np.arange(200) ** 2).rio.write_transform(Affine(1, 0, 0, 0, -1, 0))
    events: list[Any] = []
    found = skystill.predict_dataarray(uneven, models(RGBN), on_progress=events.append)
    assert np.array_equal(found.values, labels(da, models(RGBN)))
    assert found.y.equals(uneven.y) and "GeoTransform" not in found.spatial_ref.attrs
    assert any(isinstance(event, Note) and "no even steps" in event.text for event in events)
    with pytest.raises(SettingsError, match="does not say how large its pixels are"):
        skystill.predict_dataarray(uneven, models(RGBN), resolution=1.0)


@pytest.mark.parametrize("chunks", [None, 90])
def test_a_rotated_raster(chunks: int | None, models: Any, tmp_path: Path) -> None:
    turned = Affine.translation(500_000, 2_800_000) * Affine.rotation(30) * Affine.scale(0.5, -0.5)
    source = write_bands(tmp_path / "a.tif", pixels_of(RGB, 301, 402), transform=turned)
    for settings in ({}, {"resolution": 1.0}):
        expected, file = written(models(RGB), source, **settings)
        found = skystill.predict_dataarray(rioxarray.open_rasterio(source, chunks=chunks), models(RGB), **settings)
        assert np.array_equal(found.values, expected)
        assert found.rio.transform().almost_equals(file.transform, 1e-6)
    part = skystill.predict_dataarray(rioxarray.open_rasterio(source)[:, 20::2, 30:], models(RGB))
    assert part.rio.transform().almost_equals(turned * Affine(1, 0, 30, 0, 2, 19.5), 1e-6)


def test_float32_degrees_are_even(models: Any) -> None:
    da = array(RGBN, band=list(NAMES)).drop_vars("spatial_ref").rio.write_crs("EPSG:4326")
    da = da.assign_coords(x=np.float32(55.2 + 1e-4 * np.arange(230)), y=np.float32(25.2 - 1e-4 * np.arange(200)))
    assert skystill.predict_dataarray(da, models(RGBN)).rio.resolution() == pytest.approx((1e-4, -1e-4), rel=1e-3)


# ---- lazy


def test_nothing_is_computed_before_it_is_asked_for(models: Any) -> None:
    def refuse(block: np.ndarray) -> np.ndarray:
        raise AssertionError("computed")

    pixels = dask_array.zeros((3, 4000, 5000), np.uint8, chunks=(3, 512, 512)).map_blocks(
        refuse, meta=np.empty(0, "u1")
    )
    found = skystill.predict_dataarray(xr.DataArray(pixels, dims=("band", "y", "x")), models(RGB))
    assert found.shape == (4000, 5000)
    with pytest.raises(AssertionError, match="computed"):
        found[0, 0].compute()


def test_a_part_of_the_result_reads_a_part_of_the_array(models: Any) -> None:
    read: list[tuple[int, int]] = []

    def block(block_info: Any = None) -> np.ndarray:
        place = block_info[None]["array-location"]
        read.append((place[1][0], place[2][0]))
        return np.full([high - low for low, high in place], 90, np.uint8)

    pixels = dask_array.map_blocks(block, chunks=((3,), (500,) * 20, (500,) * 20), dtype=np.uint8)
    found = skystill.predict_dataarray(xr.DataArray(pixels, dims=("band", "y", "x")), models(RGB))
    assert not read
    found[5000:5010, 5000:5010].compute()
    assert 0 < len(set(read)) <= 49 and len(read) == len(set(read))


@pytest.mark.parametrize("mode", ["crop", "blend"])
def test_the_tasks_can_go_to_other_processes(mode: str, models: Any) -> None:
    import cloudpickle

    da = array(RGBN, band=list(NAMES)).chunk(y=77)
    found = skystill.predict_dataarray(da, models(RGBN), mode=mode)
    again = pickle.loads(cloudpickle.dumps(found))
    assert np.array_equal(again.values, labels(da.compute(), models(RGBN), mode=mode))


# ---- Predictor


@pytest.mark.parametrize("dask", [False, True])
def test_predictor_takes_dataarrays(dask: bool, models: Any) -> None:
    da, predictor = array(RGBN, band=list(NAMES)), models(RGBN)
    image = da.values.transpose(1, 2, 0)
    given = da.isel(band=[3, 1, 0, 2]).chunk(y=60) if dask else da.transpose("y", "x", "band")
    assert np.array_equal(predictor.labels(given, views=2), predictor.labels(image, views=2))
    assert np.array_equal(predictor.probabilities(given), predictor.probabilities(image))
    empty = da.where(da.x > da.x[9])
    empty.encoding = {"dtype": "uint16"}
    found, shares = predictor.labels(empty), predictor.probabilities(empty)
    assert (found[:, :10] == 255).all() and (found[:, 10:] < 4).all()
    assert np.isnan(shares[:, :, :10]).all() and np.allclose(shares[:, :, 10:].sum(axis=0), 1)


def test_predictor_takes_an_array_of_one_band_without_an_axis_for_it(models: Any) -> None:
    planes = pixels_of(GREY, 200, 230)
    assert np.array_equal(models(GREY).labels(planes[0]), models(GREY).labels(planes.transpose(1, 2, 0)))
    with pytest.raises(DataError, match=r"must be \(H, W, 3\) uint8 with pixels .*; this is \(200, 230\) uint8"):
        models(RGB).labels(np.zeros((200, 230), np.uint8))
    with pytest.raises(DataError, match="this is a list"):
        models(RGB).labels([[1]])  # type: ignore[arg-type]


# ---- bad input


def named(da: Any) -> Any:
    return da.assign_coords(band=list(NAMES))


BAD: dict[str, tuple[Any, type[UserError], str]] = {
    "numpy": (lambda da: da.values, DataError, "this is ndarray, not a DataArray"),
    "a Dataset": (lambda da: da.to_dataset("band"), DataError, r"this is Dataset.*to_dataarray\('band'\)"),
    "no band axis": (lambda da: named(da)[0], SettingsError, "no dimension `band`, and the network is fed 4 bands"),
    "a time axis": (lambda da: named(da).expand_dims(time=2), DataError, r"time \(2\).*da.isel\(time=0\)"),
    "time for bands": (lambda da: da.rename(band="time"), DataError, r"da.rename\(time='band'\)"),
    "no rows": (lambda da: named(da).rename(y="a", x="b"), DataError, "call them y and x"),
    "no pixels": (lambda da: named(da)[:, :0], DataError, "has no pixels .*y 0"),
    "no bands": (lambda da: named(da)[:0], DataError, "has no pixels .*band 0"),
    "too few bands": (lambda da: named(da)[:3], SettingsError, "has no band nir"),
    "a band twice": (lambda da: named(da)[[0, 1, 2, 3, 3]], SettingsError, "bands 4, 5 are all called nir"),
    "other names": (
        lambda da: da.assign_coords(band=["red", "green", "blue", "swir"]), SettingsError, "has no band nir; it has 4"
    ),
    "a name twice": (
        lambda da: da.assign_coords(band=["red", "green", "blue", "red"]), SettingsError, "1, 4 are all called red"
    ),
    "names for other bands": (
        lambda da: da.drop_vars("band", errors="ignore").assign_attrs(long_name=("red", "green", "blue")),
        DataError, "has 4 bands, and its long_name 3 names",
    ),
    "names that may be of the file": (
        lambda da: da.assign_coords(band=[4, 3, 2, 1]).assign_attrs(long_name=NAMES), DataError, "which may count"
    ),
    "numbers of other places": (lambda da: da.assign_coords(band=[4, 3, 2, 1]), SettingsError, "numbers them 4, 3, 2"),
    "bool": (lambda da: named(da) > 3000, DataError, "holds bool"),
    "complex": (lambda da: named(da) * 1j, DataError, "holds complex128"),
    "objects": (lambda da: named(da).astype(object), DataError, "holds object"),
    "dates": (lambda da: named(da).astype("datetime64[ns]"), DataError, "holds datetime64"),
    "bytes for 16 bits": (lambda da: (named(da) // 256).astype("uint8"), DataError, "holds uint8"),
    "floats for integers": (lambda da: named(da) / 1.0, DataError, "holds float64 and the network is fed uint16"),
    "another scale": (lambda da: named(da) + 30_000, DataError, "its values are on another scale"),
    "values beyond 16 bits": (
        lambda da: named(da).astype("int32").where(da.x != da.x[3], 70_000), DataError, "70000; the network"
    ),
    "an encoding that is not so": (
        lambda da: (named(da) + 0.5).pipe(encoded, dtype="uint16"), DataError, "its values were uint16 before"
    ),
    "scaled floats": (
        lambda da: (named(da) * 0.1).pipe(encoded, dtype="uint16", scale_factor=0.1), DataError, "holds float64"
    ),
    "nodata of two values": (
        lambda da: named(da).assign_attrs(_FillValue=[0, 1]), DataError, "a nodata value that is not one number"
    ),
}  # fmt: skip


def encoded(da: Any, **encoding: Any) -> Any:
    da.encoding = encoding
    return da


@pytest.mark.parametrize("chunked", [False, True], ids=["numpy", "dask"])
@pytest.mark.parametrize(("make", "error", "said"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(make: Any, error: type[UserError], said: str, chunked: bool, models: Any) -> None:
    da = array(RGBN)
    given = make(da.chunk(y=70) if chunked else da)
    with pytest.raises(error, match=said):
        skystill.predict_dataarray(given, models(RGBN)).compute()


def test_one_band_needs_no_dimension_of_bands(models: Any) -> None:
    da = array(GREY)
    expected = labels(da, models(GREY))
    assert np.array_equal(labels(da[0], models(GREY)), expected)
    assert np.array_equal(labels(da[0].chunk(x=99).T, models(GREY)), expected)


def test_masked_transparency(models: Any, tmp_path: Path) -> None:
    planes = np.concatenate([pixels_of(RGB, 201, 302), np.full((1, 201, 302), 255, np.uint8)])
    planes[:, 40:90, 100:233] = 0
    source = write_bands(tmp_path / "a.tif", planes, alpha="yes", photometric="rgb")
    assert (agrees(models(RGB), source, masked=True).values == 255).sum() == 50 * 133


def test_four_bands_without_names_are_not_taken_for_colours(models: Any) -> None:
    da = xr.DataArray(np.zeros((4, 70, 70), np.uint8), dims=("band", "y", "x"))
    with pytest.raises(SettingsError, match="the fourth may be transparency or infrared"):
        skystill.predict_dataarray(da, models(RGB))
    assert skystill.predict_dataarray(da, models(RGB), bands="1,2,3").shape == (70, 70)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"smooth": 5}, "--smooth"), ({"max_memory": "1GB"}, "--max-memory"), ({"views": 3}, "--views"),
        ({"bands": "1,2"}, r"--bands names 2 band\(s\); the network is fed 4"), ({"bands": "1,2,3,9"}, "has no band 9"),
        ({"scale": "0,1"}, "--scale is for networks"), ({"tile": 64, "overlap": 64}, "leave no middle"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_cannot_be_used(settings: dict[str, Any], said: str, models: Any) -> None:
    with pytest.raises(SettingsError, match=said):
        skystill.predict_dataarray(named(array(RGBN)), models(RGBN), **settings)


def test_resolution_needs_a_crs(models: Any) -> None:
    with pytest.raises(SettingsError, match="needs a CRS"):
        skystill.predict_dataarray(named(array(RGBN)).drop_vars("spatial_ref"), models(RGBN), resolution=1.0)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such model file"):
        skystill.predict_dataarray(named(array(RGBN)), tmp_path / "none.onnx")


# ---- packages


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_neither_xarray_nor_dask_is_imported_before_it_is_needed() -> None:
    python(
        "import sys, skystill, skystill.api, skystill.predict.dataarray, skystill.raster.dataarray\n"
        "skystill.predict_dataarray\n"
        "heavy = {'xarray', 'rioxarray', 'dask', 'pandas'} & set(sys.modules); assert not heavy, heavy"
    )


@pytest.mark.parametrize("package", ["rioxarray", "xarray"])
def test_a_missing_package_is_named(package: str) -> None:
    said = python(
        f"import sys; sys.modules['{package}'] = None\nimport skystill\n"
        "from skystill.model.bundled import bundled_model\n"
        "try: skystill.predict_dataarray(None, bundled_model())\n"
        "except skystill.errors.SettingsError as error: print(error)"
    )
    assert package in said and 'pip install "skystill[xarray]"' in said
