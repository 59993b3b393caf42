"""Images on another scale than that of the images that a network was trained on."""

from dataclasses import replace
from pathlib import Path

import pytest

from skystill.data.scale import check_each_scale, check_scale
from skystill.errors import DataError
from skystill.raster.input_spec import RGB, InputSpec
from tests.banded_rasters import pixels_of, spec_of, write_bands


def fed(dtype: str) -> InputSpec:
    """What a network is fed that was trained on `pixels_of` this data type."""
    spec = spec_of(dtype, 2, ("red", "nir"))
    bands = (replace(band, low=band.mean - 2.5 * band.std, high=band.mean + 2.5 * band.std) for band in spec.bands)
    return replace(spec, bands=tuple(bands))


def write_images(folder: Path, dtype: str, factors: list[float]) -> list[Path]:
    """Write an image for each factor by which its values are multiplied."""
    folder.mkdir()
    spec = fed(dtype)
    paths = []
    for seed, factor in enumerate(factors):
        planes = (pixels_of(spec, 20, 30, seed) * factor).astype(spec.dtype)
        paths.append(write_bands(folder / f"{seed}.tif", planes, ("red", "nir")))
    return paths


@pytest.mark.parametrize(
    ("dtype", "factors", "is_other"),
    [
        ("uint16", [1.0] * 3, False),
        ("uint16", [0.001] * 3, True),
        ("uint16", [0.001, 1.0, 1.0], False),  # one scene may be odd
        ("uint16", [0.001, 0.001, 1.0], True),
        ("uint16", [0.001], True),
        ("float32", [1.0, 1.0], False),
        ("float32", [10_000.0] * 2, True),  # reflectance, and 10,000 times of it
        ("uint8", [1.0, 1.0], False),
        ("uint16", [0.001] * 40, True),
    ],
)
def test_the_values_of_most_files_decide(dtype: str, factors: list[float], is_other: bool, tmp_path: Path) -> None:
    paths = [*write_images(tmp_path / "d", dtype, factors)]
    spec = fed(dtype)
    if not is_other:
        return check_scale([*paths, *paths], spec, "the teacher t")
    with pytest.raises(DataError, match=r"the teacher t was trained on other values \(\d+ of \d+ images that were"):
        check_scale([*paths, *paths], spec, "the teacher t")
    return None


def test_colours_and_files_that_cannot_be_opened_pass(tmp_path: Path) -> None:
    check_scale([tmp_path / "gone.tif"], spec_of("uint16", 2), "t")
    check_scale(write_images(tmp_path / "d", "uint16", [0.001] * 3), RGB, "t")
    check_scale([], spec_of("uint16", 2), "t")


def test_each_unlabelled_file_must_have_the_scale(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "d", "uint16", [1.0, 0.001, 1.0, 0.002])
    spec = fed("uint16")
    with pytest.raises(DataError, match=r"2 of 5 file\(s\) cannot teach") as caught:
        check_each_scale([*paths, tmp_path / "gone.tif"], spec)
    said = str(caught.value)
    named = [name for name in ("0.tif", "1.tif", "2.tif", "3.tif") if f"{name}: red is about" in said]
    assert named == ["1.tif", "3.tif"]
    check_each_scale(paths, RGB)
