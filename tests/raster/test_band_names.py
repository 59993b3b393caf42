"""Names of bands: what descriptions and colour tags mean, and which bands of a raster a spec or the user means."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from skystill.errors import SettingsError
from skystill.raster.band_names import (
    alpha_of,
    band_name,
    describe_bands,
    match_bands,
    names_of,
    parse_bands,
    pick_bands,
)
from skystill.raster.input_spec import MAX_BANDS, Band, InputSpec
from tests.banded_rasters import write_bands

RED, GREEN, BLUE, ALPHA, GRAY, NONE = (
    ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha, ColorInterp.gray, ColorInterp.undefined,
)  # fmt: skip
RGBN = (Band("red", 1), Band("green", 2), Band("blue", 3), Band("nir", 4))

NAMES = {
    "B08 (Near Infrared)": "nir", "near-infrared": "nir", "NIR": "nir", "Near IR": "nir", "nir_1": "nir1",
    "NIR 2": "nir2", "NIR (842nm)": "nir", "B02, blue": "blue", "Red": "red", "  RED ": "red", "red (665 nm)": "red",
    "red edge 1": "rededge1", "RedEdge": "rededge", "Red-Edge 2": "rededge2", "vegetation red edge": "rededge",
    "coastal blue": "coastal", "Coastal aerosol": "coastal", "deep red": "deepred", "far red": "farred",
    "SWIR 1": "swir1", "Short-wave infrared": "swir", "SWIR": "swir", "panchromatic": "pan", "Pan": "pan",
    "thermal infra-red": "thermal infrared", "Infra red": "infrared", "mid infrared": "mid infrared",
    "B8A": "b8a", "b08": "b8", "Band 4": "b4", "band_11": "b11", "NDVI": "ndvi", "ndvi ": "ndvi", "height": "height",
    "infrared": "infrared", "green_i": "green_i", "reduced": "reduced", "greenhouse": "greenhouse", "": "",
    "Grün": "grün", "近红外": "近红外",
}  # fmt: skip


@pytest.mark.parametrize("text", NAMES)
def test_a_name_in_the_form_in_which_names_are_compared(text: str) -> None:
    assert band_name(text) == NAMES[text]
    assert band_name(NAMES[text]) == NAMES[text]


def write(path: Path, descriptions: tuple[str | None, ...], colors: tuple[ColorInterp, ...] | None = None) -> Path:
    write_bands(path, np.zeros((len(descriptions), 4, 5), np.uint16))
    with rasterio.open(path, "r+") as file:
        if colors is not None:
            file.colorinterp = colors
        for number, text in enumerate(descriptions, 1):
            if text is not None:
                file.set_band_description(number, text)
    return path


FILES: dict[str, tuple[tuple[str | None, ...], tuple[ColorInterp, ...] | None, list[tuple[str, ...]], int | None]] = {
    "tags alone": ((None,) * 4, (RED, GREEN, BLUE, NONE), [("red",), ("green",), ("blue",), ()], None),
    "descriptions win": (
        ("B02", "Green", "Red", "NIR"), (RED, GREEN, BLUE, NONE), [("b2", "b02"), ("green",), ("red",), ("nir",)], None
    ),
    "a tag whose name another band describes": (
        (None, None, None, "red"), (RED, GREEN, BLUE, NONE), [(), ("green",), ("blue",), ("red",)], None
    ),
    "counted bands have no name": (
        ("Band 1", "band_2", "Layer 3", "4", "channel-5"), (GRAY, NONE, NONE, NONE, NONE), [(), (), (), (), ()], None
    ),
    "a code and a colour": (
        ("B08 (Near Infrared)", "B8A"), (GRAY, NONE), [("nir", "b8", "b08 (near infrared)"), ("b8a",)], None
    ),
    "alpha is no band": ((None,) * 4, (RED, GREEN, BLUE, ALPHA), [("red",), ("green",), ("blue",), ()], 4),
    "alpha described as nir": (
        (None, None, None, "nir"), (RED, GREEN, BLUE, ALPHA), [("red",), ("green",), ("blue",), ("nir",)], None
    ),
    "alpha described as alpha": ((None, "Alpha channel"), (GRAY, ALPHA), [(), ()], 2),
    "alpha that is counted": ((None, "Band 2"), (GRAY, ALPHA), [(), ()], 2),
    "the same tag twice names none": ((None, None, None), (RED, RED, BLUE), [(), (), ("blue",)], None),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_names_and_transparency_of_a_file(case: str, tmp_path: Path) -> None:
    descriptions, colors, names, alpha = FILES[case]
    with rasterio.open(write(tmp_path / "a.tif", descriptions, colors)) as file:
        assert names_of(file) == names
        assert alpha_of(file) == alpha


MATCHES: dict[str, tuple[tuple[Band, ...], tuple[str | None, ...], Any, tuple[int, ...], str]] = {
    "as trained": (RGBN, ("red", "green", "blue", "nir"), None, (1, 2, 3, 4), ""),
    "in another order": (RGBN, ("B08 (NIR)", "Blue", "Green", "Red"), None, (4, 3, 2, 1), "by their names"),
    "among others": (RGBN, ("ndvi", "red", "swir", "nir", "blue", "green"), None, (2, 6, 5, 4), "by their names"),
    "all by place": (RGBN, (None,) * 5, None, (1, 2, 3, 4), "all by place and not by name"),
    "one by place": (RGBN, (None,) * 4, (RED, GREEN, BLUE, NONE), (1, 2, 3, 4), "nir by place and not by name"),
    "unnamed bands of the spec take any name": (
        (Band("", 3), Band("", 1)), ("nir", "red", "green"), None, (3, 1), "all by place"
    ),
    "a code beside a colour": ((Band("b8", 1),), ("blue", "B08 (Near Infrared)"), None, (2,), "by their names"),
    "the band that is first known by the name": (
        (Band("b8", 1),), ("B08 (Near Infrared)", "B8"), None, (2,), "by their names"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MATCHES)
def test_the_bands_of_a_spec_in_a_file(case: str, tmp_path: Path) -> None:
    bands, descriptions, colors, numbers, note = MATCHES[case]
    with rasterio.open(write(tmp_path / "a.tif", descriptions, colors)) as file:
        match = match_bands(file, "a.tif", InputSpec(bands, "uint16"))
    assert match.numbers == numbers
    assert len(match.notes) == bool(note) and note in "".join(match.notes)


MISMATCHES: dict[str, tuple[tuple[Band, ...], tuple[str | None, ...], Any, str]] = {
    "a band of another name at its place": (RGBN, ("red", "green", "blue", "swir"), None, "has no band nir"),
    "too few bands": (RGBN, (None, None, None), None, "has no band nir; it has 3 bands: unnamed, unnamed, unnamed"),
    "transparency at its place": (RGBN, (None,) * 4, (RED, GREEN, BLUE, ALPHA), "Band 4 is tagged as transparency"),
    "a band would be fed twice": (
        (Band("nir", 1), Band("", 2)), ("red", "nir"), None, "bands 2, 2 would be nir, band 2: one of them twice"
    ),
    "two bands of the name": (RGBN, ("red", "green", "nir", "NIR", "blue"), None, "bands 3, 4 are all called nir"),
    "all are missing": (RGBN, ("ndvi",), None, "has no band red, green, blue, nir; it has 1 band: ndvi"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISMATCHES)
def test_bands_that_are_not_there_are_refused(case: str, tmp_path: Path) -> None:
    bands, descriptions, colors, message = MISMATCHES[case]
    with (
        rasterio.open(write(tmp_path / "a.tif", descriptions, colors)) as file,
        pytest.raises(SettingsError, match=message) as raised,
    ):
        match_bands(file, "a.tif", InputSpec(bands, "uint16"))
    assert raised.value.exit_code == 2 and "--bands" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4,3,2", [4, 3, 2]), (" 1 , 12 ", [1, 12]), ("7", [7]), ("red,NIR ,B8A", ["red", "nir", "b8a"]),
        ("Near Infrared", ["nir"]), ("red edge 1,red edge 2", ["rededge1", "rededge2"]),
    ],
)  # fmt: skip
def test_bands_as_the_user_writes_them(text: str, found: list[int | str]) -> None:
    assert parse_bands(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write bands as 4,3,2"), ("4,,2", "write bands as 4,3,2"), ("0,1", "the first band is 1"),
        ("00", "the first band is 1"), ("red,4", "either numbers of bands or names"), ("4,4", "stands there twice"),
        ("NIR,near infrared", "a band stands there twice"), ("1,01", "a band stands there twice"), (",", "write bands"),
    ],
)  # fmt: skip
def test_bands_that_mean_nothing(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_bands(text)


def test_bands_that_the_user_means_in_a_file(tmp_path: Path) -> None:
    with rasterio.open(write(tmp_path / "a.tif", ("B04 (Red)", "Green", "NIR", None))) as file:
        assert pick_bands(file, "a.tif", [4, 1]) == (4, 1)
        assert pick_bands(file, "a.tif", ["nir", "b4"]) == (3, 1)
        for wanted in ([5], [1, 0], ["blue"], ["nir", "swir"]):
            with pytest.raises(SettingsError, match=r"a.tif has no band .*; it has 4 bands: red, green, nir, unnamed"):
                pick_bands(file, "a.tif", wanted)
    with (
        rasterio.open(write(tmp_path / "b.tif", ("nir", "NIR"))) as file,
        pytest.raises(SettingsError, match="bands 1, 2 are all called nir"),
    ):
        pick_bands(file, "b.tif", ["nir"])


def test_many_bands(tmp_path: Path) -> None:
    bands = tuple(Band("", number) for number in range(1, MAX_BANDS + 1))
    assert len(InputSpec(bands, "int16")) == 64
    with pytest.raises(ValueError, match="65 bands; a network is fed 1 to 64"):
        InputSpec((*bands, Band("", 65)), "int16")
    with rasterio.open(write(tmp_path / "a.tif", (None,) * 64)) as file:
        assert match_bands(file, "a.tif", InputSpec(bands, "uint16")).numbers == tuple(range(1, 65))
        assert describe_bands(file) == f"64 bands: {', '.join(['unnamed'] * 16)}, ..."


@pytest.mark.parametrize(
    ("bands", "dtype", "message"),
    [
        ((Band("red", 1), Band("red", 2)), "uint8", "the band red twice"), ((), "uint8", "0 bands"),
        ((Band("", 1),), "int32", "pixels of int32"), ((Band("", 1, std=0.0),), "uint16", "not above 0"),
        ((Band("", 1, mean=float("nan")),), "float32", "mean is not finite"),
    ],
)  # fmt: skip
def test_a_spec_that_no_network_can_be_fed(bands: tuple[Band, ...], dtype: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputSpec(bands, dtype)
