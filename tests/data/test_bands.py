"""What a network is fed, found in the training images: bands, data type, statistics, resolution."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from skystill.data.bands import BandStatistics, byte_scale, equal_bands, find_spec, image_statistics, with_statistics
from skystill.data.prepare import check_folder, prepare_data
from skystill.data.stored import stored_notes
from skystill.errors import DataError, SettingsError
from skystill.raster.input_spec import RGB, Band, InputSpec, spec_from
from skystill.settings import CheckSettings, TrainSettings
from tests.banded_rasters import pixels_of, spec_of, write_bands

RED, GREEN, BLUE, ALPHA, GRAY, NONE = (
    ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha, ColorInterp.gray, ColorInterp.undefined,
)  # fmt: skip
SENTINEL = ("B02 (blue)", "B03 (green)", "B04 (red)", "B08 (NIR)", "B8A")


def write(
    path: Path, dtype: str, count: int, names: tuple[str, ...] = (), colors: tuple[ColorInterp, ...] = (), **more: Any
) -> Path:
    values = (np.arange(count * 4 * 5) % 97).reshape(count, 4, 5).astype(dtype)
    write_bands(path, values, names, **more)
    if colors:
        with rasterio.open(path, "r+") as file:
            file.colorinterp = colors
    return path


def names_and_numbers(spec: InputSpec) -> list[tuple[str, int]]:
    return [(band.name, band.number) for band in spec.bands]


DEFAULTS: dict[str, tuple[list[tuple[Any, ...]], str, list[tuple[str, int]] | None]] = {
    "colours": ([("uint8", 3, (), (RED, GREEN, BLUE))], "uint8", None),
    "four bands of bytes": ([("uint8", 4)], "uint8", None),
    "grey of 16 bits": ([("uint16", 1)], "uint16", [("", 1)]),
    "heights": ([("float32", 1)], "float32", [("", 1)]),
    "heights of 64 bits": ([("float64", 1)], "float32", [("", 1)]),
    "colours of 16 bits": ([("uint16", 3, (), (RED, GREEN, BLUE))], "uint16", [("red", 1), ("green", 2), ("blue", 3)]),
    "Sentinel": ([("uint16", 5, SENTINEL)], "uint16", [("red", 3), ("green", 2), ("blue", 1)]),
    "the first three, which nobody names": ([("int16", 5)], "int16", [("", 1), ("", 2), ("", 3)]),
    "bytes and 16 bits": ([("uint16", 3), ("uint8", 3)], "uint8", None),
    "two types of 16 bits": ([("uint16", 3), ("int16", 3)], "uint8", None),
    "grey of 16 bits with transparency": ([("uint16", 2, (), (GRAY, ALPHA))], "uint16", [("", 1)]),
    "wide integers, which are stretched": ([("uint32", 3)], "uint8", None),
}  # fmt: skip


@pytest.mark.parametrize("case", DEFAULTS)
def test_what_is_fed_by_default(case: str, tmp_path: Path) -> None:
    files, dtype, bands = DEFAULTS[case]
    found = find_spec([write(tmp_path / f"{i}.tif", *file) for i, file in enumerate(files)], None)
    assert found.dtype == dtype
    assert found == RGB if bands is None else names_and_numbers(found) == bands


def test_a_picture_of_16_bits_is_a_band_of_values(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), 4000, np.uint16)).save(tmp_path / "a.png")
    assert find_spec([tmp_path / "a.png"], None) == InputSpec((Band("", 1),), "uint16")
    assert find_spec([tmp_path / "gone.png"], None) == RGB == find_spec([], "all")


WANTED: dict[str, tuple[tuple[Any, ...], str, tuple[str, ...], str, list[tuple[str, int]] | None]] = {
    "all": (("uint16", 5, SENTINEL), "all", (), "uint16",
            [("blue", 1), ("green", 2), ("red", 3), ("nir", 4), ("b8a", 5)]),
    "all but transparency": (("uint8", 4, (), (GRAY, NONE, NONE, ALPHA)), " ALL ", (), "uint8",
                             [("", 1), ("", 2), ("", 3)]),
    "numbers": (("int16", 5, SENTINEL), "4,3,2", (), "int16", [("nir", 4), ("red", 3), ("green", 2)]),
    "names": (("uint16", 5, SENTINEL), "NIR,B04,green", (), "uint16", [("nir", 4), ("red", 3), ("green", 2)]),
    "colours by name": (("uint8", 4, (), (RED, GREEN, BLUE, NONE)), "red,green,blue", (), "uint8", None),
    "colours by number": (("uint8", 3, (), (RED, GREEN, BLUE)), "1,2,3", (), "uint8", None),
    "colours in another order": (("uint8", 3, (), (RED, GREEN, BLUE)), "3,2,1", (), "uint8",
                                 [("blue", 3), ("green", 2), ("red", 1)]),
    "three bytes that nobody names": (("uint8", 3), "1,2,3", (), "uint8", [("", 1), ("", 2), ("", 3)]),
    "names of the classes file": (("uint16", 4), "nir,red", ("Blue", "Green", "Red", "NIR"), "uint16",
                                  [("nir", 4), ("red", 3)]),
    "all with names of the classes file": (("uint16", 2), "all", ("VV", "VH"), "uint16", [("vv", 1), ("vh", 2)]),
    "the fourth name of the classes file": (("uint8", 4, (), (RED, GREEN, BLUE, NONE)), "red,nir",
                                            ("red", "green", "blue", "nir"), "uint8", [("red", 1), ("nir", 4)]),
    "too few names in the classes file": (("uint16", 3), "all", ("VV", "VH"), "uint16", [("", 1), ("", 2), ("", 3)]),
    "float64": (("float64", 2), "2,1", (), "float32", [("", 2), ("", 1)]),
    "two bands of one name, by number": (("uint16", 2, ("nir", "nir")), "all", (), "uint16", [("", 1), ("", 2)]),
    "transparency by number": (("uint8", 4, (), (RED, GREEN, BLUE, ALPHA)), "1,4", (), "uint8", [("red", 1), ("", 4)]),
}  # fmt: skip


@pytest.mark.parametrize("case", WANTED)
def test_what_the_user_asks_for(case: str, tmp_path: Path) -> None:
    file, wanted, names, dtype, bands = WANTED[case]
    found = find_spec([write(tmp_path / "a.tif", *file)], wanted, names)
    assert found.dtype == dtype
    assert found == RGB if bands is None else names_and_numbers(found) == bands


def test_colours_by_default_are_found_by_the_names_of_the_classes_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", "uint16", 4)
    found = find_spec([path], None, ("nir", "blue", "green", "red"))
    assert names_and_numbers(found) == [("red", 4), ("green", 3), ("blue", 2)]


REFUSED: dict[str, tuple[tuple[Any, ...], str, tuple[str, ...], str]] = {
    "no such number": (("uint16", 3), "1,4", (), "has no band 4; it has 3 bands"),
    "no such name": (("uint16", 5, SENTINEL), "red,swir", (), "has no band swir; it has 5 bands: blue, green"),
    "a name twice": (("uint16", 3, ("nir", "nir", "red")), "nir,red", (), "bands 1, 2 are all called nir"),
    "numbers and names": (("uint16", 3), "1,red", (), "either numbers of bands or names"),
    "a band twice": (("uint16", 3), "1,1", (), "--bands 1,1: a band stands there twice"),
    "zero": (("uint16", 3), "0,1", (), "the first band is 1"),
    "nothing": (("uint16", 3), "", (), "write bands as 4,3,2"),
    "one band by two names": (("uint16", 5, SENTINEL), "red,b4", (), "twice"),
    "wide integers": (("int32", 4), "all", (), "holds int32; a network is fed uint8, uint16, int16, float32"),
    "65 bands": (("uint8", 65), "all", (), "--bands all: 65 bands; a network is fed 1 to 64"),
    "the classes file against the file": (("uint8", 3, (), (RED, GREEN, BLUE)), "nir,red", ("nir", "red", "green"),
                                          "the classes file calls the bands nir, red, green, and .* red, green, blue"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_asked_for(case: str, tmp_path: Path) -> None:
    file, wanted, names, message = REFUSED[case]
    with pytest.raises(SettingsError, match=message) as raised:
        find_spec([write(tmp_path / "a.tif", *file)], wanted, names)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("given", "shared"),
    [((0, 0), 0.0), ((0, None), None), ((0, 1), None), ((None, None), None), ((math.nan, math.nan), math.nan)],
)
def test_nodata_that_all_images_share(given: tuple[Any, Any], shared: float | None, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.tif", "float32", 2, nodata=nodata) for i, nodata in enumerate(given)]
    assert find_spec(paths, "all").nodata == (pytest.approx(shared, nan_ok=True) if shared is not None else None)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_statistics_of_several_images_are_those_of_all_valid_pixels(dtype: str) -> None:
    spec, rng = spec_of(dtype, 5), np.random.default_rng(4)
    images, seen = [], []
    for seed, (height, width) in enumerate([(9, 31), (50, 7), (1, 1), (20, 20)]):
        image = pixels_of(spec, height, width, seed).transpose(1, 2, 0) + np.array(seed * 3, dtype)
        valid = None if seed == 0 else rng.random((height, width)) < 0.7 if seed < 3 else np.zeros((20, 20), bool)
        images.append(image_statistics(image, valid))
        seen.append(image.reshape(-1, 5) if valid is None else image[valid])
    joined = np.concatenate(seen).astype(np.float64)
    found = with_statistics(InputSpec(tuple(Band("", n) for n in range(1, 6)), dtype), images)
    for place, band in enumerate(found.bands):
        values = joined[:, place]
        assert band.mean == pytest.approx(values.mean(), rel=1e-6) and band.std == pytest.approx(values.std(), rel=1e-6)
        assert (band.low, band.high) == (values.min(), values.max())
        assert band.mean == float(f"{band.mean:.7g}")


def test_statistics_worked_by_hand() -> None:
    images = [image_statistics(np.array(values, np.uint16)[None, :, None], None) for values in ([1, 3], [8], [4, 4])]
    found = with_statistics(InputSpec((Band("", 1),), "uint16"), images).bands[0]
    assert (found.mean, found.low, found.high) == (4.0, 1.0, 8.0)
    assert found.std == pytest.approx(math.sqrt((9 + 1 + 16) / 5), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0, 1e6, -3e4])
def test_a_band_of_one_value_is_normalised_to_zero(value: float) -> None:
    image = np.full((30, 30, 1), value, np.float32)
    spec = with_statistics(InputSpec((Band("", 1),), "float32"), [image_statistics(image, None)] * 3)
    assert spec.bands[0].std == 1.0 and spec.bands[0].mean == pytest.approx(float(np.float32(value)), rel=1e-6)


@pytest.mark.parametrize(
    ("bands", "scale"),
    [
        ([(128, 64)] * 3, (128, 64.0)),
        ([(105, 52), (107, 37), (87, 39)], (128, 64.0)),  # means 99.7, deviation sqrt((52^2+37^2+39^2)/3 + 80.9) = 44
        ([(64, 32)] * 3, (128, 64.0)),
        ([(63, 32)] * 3, (63, 32.0)),
        ([(193, 60)] * 3, (193, 64.0)),
        ([(42, 21.5), (37, 18.9), (31, 24.9)], (37, 16.0)),  # the scene of India: deviation 22.4, log2 4.49
        ([(20, 3), (20, 3), (20, 3)], (20, 4.0)),
        ([(0, 1), (0, 1), (0, 1)], (0, 1.0)),  # black images
        ([(255, 0.01)] * 3, (255, 1.0)),
        ([(10, 1), (128, 1), (245, 1)], (128, 64.0)),  # far apart: deviation 96
        ([(30, 1), (31, 1), (200, 1)], (128, 64.0)),  # mean 87, deviation 80
    ],
)  # fmt: skip
def test_images_far_from_grey_get_a_scale_of_their_own(bands: list[tuple[float, float]], scale: Any) -> None:
    assert byte_scale(bands) == scale
    spec = replace(RGB, zero=scale[0], unit=scale[1])
    assert spec_from(spec.to_dict()) == spec
    assert ("zero" in spec.to_dict()) == (scale != (128, 64.0))


@pytest.mark.parametrize("wrong", [{"zero": 256}, {"zero": -1}, {"unit": 0.0}, {"unit": math.nan}, {"unit": 48.0}])
def test_a_scale_that_no_byte_has_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="bytes are normalised by"):
        spec_from(RGB.to_dict() | wrong)


def test_the_scale_is_found_in_dark_images_and_not_for_other_kinds() -> None:
    image = np.random.default_rng(0).integers(20, 60, (50, 50, 3))
    dark = with_statistics(RGB, [image_statistics(image.astype(np.uint8), None)])
    assert (dark.zero, dark.unit) == (round(image.mean()), 16.0)  # the deviation is sqrt((40^2 - 1) / 12) = 11.5
    values = with_statistics(replace(RGB, dtype="uint16"), [image_statistics(image.astype(np.uint16), None)])
    assert (values.zero, values.unit) == (128, 64.0)


def test_without_valid_pixels_the_spec_stays() -> None:
    spec = spec_of("float32", 2)
    empty = image_statistics(np.zeros((3, 3, 2), np.float32), np.zeros((3, 3), bool))
    assert with_statistics(spec, [empty]) == spec == with_statistics(spec, [])


def test_equal_bands_are_named() -> None:
    spec = InputSpec((Band("red", 1), Band("", 2), Band("nir", 3)), "uint16")
    image = np.random.default_rng(1).integers(0, 900, (6, 6, 3)).astype(np.uint16)
    statistics: list[BandStatistics] = [image_statistics(image, None)]
    assert equal_bands(spec, statistics) == equal_bands(spec, []) == []
    image[..., 2] = image[..., 0]
    notes = equal_bands(spec, [*statistics, image_statistics(image, None)])
    assert notes == []  # in one of two images only
    notes = equal_bands(spec, [image_statistics(image, None)] * 2)
    assert len(notes) == 1 and notes[0].startswith("bands red, nir hold the same values in all training images")


def write_data(folder: Path, planes: list[np.ndarray], classes: str = "", **options: Any) -> Path:
    """Images of these planes, with masks of two classes."""
    for index, image in enumerate(planes):
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        names = options.pop("names", ()) if index == len(planes) - 1 else options.get("names", ())
        write_bands(folder / f"images/{index}.tif", image, names, **{k: v for k, v in options.items() if k != "names"})
        mask = np.zeros(image.shape[1:], np.uint8)
        mask[:, mask.shape[1] // 2 :] = 1
        Image.fromarray(mask).save(folder / f"masks/{index}.png")
    (folder / "classes.yaml").write_text("classes: [low, high]\n" + classes)
    return folder


def test_the_spec_of_a_data_folder_is_that_of_its_training_images(tmp_path: Path) -> None:
    truth = spec_of("uint16", 4)
    planes = [pixels_of(truth, 20, 24, seed) + np.uint16(seed) for seed in range(8)]
    for image in planes:
        image[:, :3] = 0  # nodata
    data = write_data(tmp_path, planes, "bands: [red, green, blue, nir]\n", nodata=0)
    settings = TrainSettings(data=data, out=tmp_path / "run", bands="nir,green", split="0.5/0.25/0.25")
    prepared = prepare_data(settings)
    spec = prepared.spec
    assert [(band.name, band.number) for band in spec.bands] == [("nir", 4), ("green", 2)]
    assert (spec.nodata, spec.resolution_m, spec.resolution_range_m) == (0.0, 0.5, (0.5, 0.5))
    trained = [planes[int(pair.key)][:, 3:] for pair in prepared.split.train]
    assert len(trained) == 4
    for band in spec.bands:
        values = np.concatenate([image[band.number - 1].ravel() for image in trained]).astype(float)
        assert (band.mean, band.std) == (pytest.approx(values.mean(), rel=1e-6), pytest.approx(values.std(), rel=1e-6))
        assert (band.low, band.high) == (values.min(), values.max())
    assert sum(record.nodata for record in prepared.check.records) == 8 * 3 * 24
    assert prepared.check.counts.tolist()[:2] == [8 * 17 * 12] * 2
    assert [band.number for band in prepared.offered.bands] == [1, 2, 3, 4]
    assert any("the network is fed nir, green as uint16" in note for note in prepared.notes)
    checked = check_folder(CheckSettings(data=data, bands="nir,green", split="0.5/0.25/0.25"))
    assert checked.spec == spec


def test_resolutions_that_differ(tmp_path: Path) -> None:
    planes = [pixels_of(spec_of("uint16", 2), 20, 24, seed) for seed in range(4)]
    data = write_data(tmp_path, planes)
    for index in (0, 1):  # so that one of them is a training image
        write_bands(data / f"images/{index}.tif", planes[index], transform=from_origin(500_000, 2_800_000, 0.7, 0.7))
    checked = check_folder(CheckSettings(data=data, bands="all", split="0.75/0/0.25"))
    assert checked.spec.resolution_m is None and checked.spec.resolution_range_m == (0.5, 0.7)
    assert any("0.5 to 0.7 m per pixel" in note for note in checked.notes)


def test_two_bands_are_refused_with_advice(tmp_path: Path) -> None:
    data = write_data(tmp_path, [pixels_of(spec_of("uint16", 2), 20, 24, seed) for seed in range(4)])
    with pytest.raises(DataError, match=r"has two bands; .* --bands"):
        prepare_data(TrainSettings(data=data, out=tmp_path / "run"))


def test_images_that_lack_a_band_are_listed(tmp_path: Path) -> None:
    planes = [pixels_of(spec_of("uint16", 4), 20, 24, seed) for seed in range(4)]
    planes[2] = planes[2][:3]
    data = write_data(tmp_path, planes)
    write_bands(data / "images/3.tif", planes[3].astype(np.float32))
    with pytest.raises(DataError, match="2 problem") as raised:
        prepare_data(TrainSettings(data=data, out=tmp_path / "run", bands="all"))
    assert "2.tif has no band band 4" in str(raised.value) and "3.tif holds float32" in str(raised.value)


def test_a_network_that_was_trained_before_keeps_its_spec(tmp_path: Path) -> None:
    planes = [pixels_of(spec_of("uint16", 4), 20, 24, seed) for seed in range(4)]
    data = write_data(tmp_path, planes, "bands: [red, green, blue, nir]\n")
    known = spec_of("uint16", 2, ("nir", "red"))
    known = replace(known, bands=(replace(known.bands[0], number=4), replace(known.bands[1], number=1)))
    for bands in (None, "nir,red", "4,1"):
        settings = TrainSettings(data=data, out=tmp_path / "run", bands=bands, split="0.5/0/0.5")
        assert prepare_data(settings, known=known).spec.bands == known.bands
    for bands in ("red,nir", "all", "1,4", "nir"):
        settings = TrainSettings(data=data, out=tmp_path / "run", bands=bands, split="0.5/0/0.5")
        with pytest.raises(SettingsError, match=r"is fed nir, red as uint16.*--bands"):
            prepare_data(settings, known=known)


@pytest.mark.parametrize(
    ("inside", "names", "told"),
    [
        (None, (), True),  # GDAL calls a fourth band of bytes transparency, which is infrared here
        (None, ("red", "green", "blue", "nir"), False),
        (255, (), False),
        (0, (), False),
    ],
)
def test_transparency_that_looks_like_a_measurement_is_told(
    inside: int | None, names: tuple[str, ...], told: bool, tmp_path: Path
) -> None:
    planes = np.random.default_rng(0).integers(1, 255, (4, 40, 50)).astype(np.uint8)
    planes[3] = planes[3] if inside is None else inside
    planes[3, :5] = 100  # the edge of a picture may be soft
    image = write_bands(tmp_path / "a.tif", planes, names, photometric="rgb", alpha="yes")
    (note,) = stored_notes([image, image], RGB) if told else ("", *stored_notes([image, image], RGB))
    assert ("(2 of the 2 images that were looked at): band 4 is transparency by its tag" in note) == told


def test_values_of_different_scales_are_told(tmp_path: Path) -> None:
    images = [write(tmp_path / f"{number}.tif", "uint16", 3) for number in range(3)]
    values, missing = find_spec(images, None), tmp_path / "none.tif"
    assert stored_notes([*images, missing], values) == []
    with rasterio.open(images[2], "r+") as file:
        file.scales, file.offsets = (1e-4,) * 3, (-0.1,) * 3
    (note,) = stored_notes(images, values)
    assert f"{images[0]} scale 1 and offset 0, {images[2]} scale 0.0001 and offset -0.1" in note
    assert stored_notes(images, RGB) == [] and stored_notes(images[2:], values) == []
