"""Pictures of rasters of any bands, for the overlay and for reports."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from skystill.errors import SettingsError
from skystill.raster.shown import read_shown
from tests.banded_model import write_banded
from tests.banded_rasters import pixels_of, spec_of, write_bands

BYTES = np.random.default_rng(4).integers(0, 256, (6, 40, 50), np.uint8)
NAMES = ("nir", "blue", "red", "swir16", "green", "")


@pytest.mark.parametrize(
    ("count", "names", "show", "expected"),
    [
        (6, NAMES, None, [2, 4, 1]),
        (6, NAMES, ["nir", "red", "green"], [0, 2, 4]),
        (6, NAMES, [4], [3, 3, 3]),
        (6, (), None, [0, 1, 2]),
        (6, (), [6, 5, 1], [5, 4, 0]),
        (6, ("nir", "swir16", "red", "green"), None, [0, 1, 2]),
        (2, (), None, [0, 0, 0]),
        (2, ("red", "nir"), ["nir"], [1, 1, 1]),
        (1, (), None, [0, 0, 0]),
    ],
)
def test_three_bands_are_shown(
    count: int, names: tuple[str, ...], show: list[int | str] | None, expected: list[int], tmp_path: Path
) -> None:
    path = write_bands(tmp_path / "in.tif", BYTES[:count], names[:count])
    assert np.array_equal(read_shown(str(path), show).transpose(2, 0, 1), BYTES[expected])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_values_are_stretched(dtype: str, tmp_path: Path) -> None:
    """From the 2nd to the 98th percentile of all samples, here of the whole raster."""
    planes = pixels_of(spec_of(dtype, 4), 60, 80)
    path = write_bands(tmp_path / "in.tif", planes, ("blue", "green", "red", "nir"))
    low, high = np.percentile(planes[[2, 1, 0]], (2, 98))
    expected = np.clip((planes[[2, 1, 0]].astype(float) - low) / (high - low) * 255, 0, 255)
    assert np.abs(read_shown(str(path)).transpose(2, 0, 1) - expected).max() <= 0.51


def test_a_raster_without_these_bands_is_refused(tmp_path: Path) -> None:
    path = write_bands(tmp_path / "in.tif", BYTES, NAMES)
    with pytest.raises(SettingsError, match="has no band pan; it has 6 bands"):
        read_shown(str(path), ["pan"])


@pytest.mark.parametrize("count", [1, 2, 4, 6])
@pytest.mark.parametrize("show", [None, "1", "nir"])
def test_the_overlay_shows_them(count: int, show: str | None, tmp_path: Path, skystill: Any) -> None:
    spec = spec_of("uint8", count, NAMES[:count])
    source = write_bands(tmp_path / "in.tif", pixels_of(spec, 60, 80), NAMES[:count])
    model = write_banded(tmp_path / "m.onnx", spec)
    flags = [] if show is None else ["--show", show]
    done = skystill("predict", source, "--model", model, "--out", tmp_path / "o.tif", "--overlay", *flags)
    assert done.code == 0, done.err
    bands = None if show is None else [1] if show == "1" else ["nir"]
    with rasterio.open(tmp_path / "o.tif") as file:
        labels = file.read(1)
        colors = np.array([file.colormap(1)[label][:3] for label in range(4)])
    expected = 0.55 * read_shown(str(source), bands) + 0.45 * colors[labels]
    assert np.abs(np.asarray(Image.open(tmp_path / "o-overlay.png")) - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--overlay", "--show", "pan"], "has no band pan"),
        (["--overlay", "--show", "1,2"], "write three bands"),
        (["--overlay", "--show", "1,red,2"], "write numbers as 4,3,2"),
        (["--show", "1,2,3"], "--show is for the picture of --overlay"),
        (["--bands", "1,1,2,3"], "a band stands there twice"),
        (["--bands", "0,1,2,3"], "write numbers as 4,3,2"),
        (["--bands", "blue,red"], "names 2 band(s); the network is fed 4"),
        (["--scale", "0,10"], "--scale is for networks that are fed colours"),
        (["--input", "values"], "--input is for model files of other programs"),
    ],
)
def test_what_cannot_be_shown_or_fed_is_refused(flags: list[str], message: str, tmp_path: Path, skystill: Any) -> None:
    spec = spec_of("uint8", 4, NAMES[:4])
    source = write_bands(tmp_path / "in.tif", pixels_of(spec, 60, 80), NAMES[:4])
    model = write_banded(tmp_path / "m.onnx", spec)
    done = skystill("predict", source, "--model", model, "--out", tmp_path / "o.tif", *flags)
    assert done.code == 2 and message in " ".join(done.err.split())
    assert not (tmp_path / "o.tif").exists()
