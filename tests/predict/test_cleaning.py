"""Smoothing and merging of small components, against slow programs that are plainly right."""

import errno
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.features import shapes
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window

from skystill.errors import DiskFull, PredictionStopped, SettingsError
from skystill.predict import Predictor, cleaning
from skystill.predict.components import find_components
from skystill.predict.lengths import pixel_m2_at, smallest_component, tolerance_in_pixels
from skystill.predict.sieve import Sweep, sieve_limits
from skystill.predict.smooth import most_common_around
from skystill.progress import Event, Progress
from skystill.settings import PredictSettings, RasterSettings
from skystill.settings.base import build_settings
from tests.channel_model import INFO, write_model
from tests.predict.test_predictor import read, write

VOID = 255
NEXT = ((1, 0), (-1, 0), (0, 1), (0, -1))
UTM = CRS.from_epsg(32640)


def picture(text: str) -> np.ndarray:
    """Labels from rows of digits; a dot is nodata."""
    rows = text.split()
    return np.array([[VOID if mark == "." else int(mark) for mark in row] for row in rows], np.uint8)


def random_labels(rng: np.random.Generator, side: int) -> np.ndarray:
    height, width = rng.integers(1, side, 2)
    cell = int(rng.integers(1, 4))
    labels = rng.choice(np.array([0, 1, 2, 5, VOID], np.uint8), p=[0.4, 0.3, 0.15, 0.1, 0.05], size=(height, width))
    return np.repeat(np.repeat(labels, cell, 0), cell, 1)[:height, :width]


def components_of(labels: np.ndarray) -> tuple[np.ndarray, list[list[tuple[int, int]]]]:
    """Flood fill, pixel by pixel: the number of each pixel's component, and the pixels of each."""
    number, found = np.full(labels.shape, -1), []
    for start in zip(*np.nonzero(labels != VOID), strict=True):
        if number[start] >= 0:
            continue
        todo, pixels = [start], []
        number[start] = len(found)
        while todo:
            y, x = todo.pop()
            pixels.append((y, x))
            for place in ((y + dy, x + dx) for dy, dx in NEXT):
                inside = 0 <= place[0] < labels.shape[0] and 0 <= place[1] < labels.shape[1]
                if inside and number[place] < 0 and labels[place] == labels[y, x]:
                    number[place] = len(found)
                    todo.append(place)
        found.append(pixels)
    return number, found


def swept_slowly(labels: np.ndarray, limit: int) -> tuple[np.ndarray, int, int]:
    number, found = components_of(labels)
    result, merged, left = labels.copy(), 0, 0
    for pixels in (pixels for pixels in found if len(pixels) < limit):
        border = np.zeros(VOID, int)
        for y, x in pixels:
            for place in ((y + dy, x + dx) for dy, dx in NEXT):
                inside = 0 <= place[0] < labels.shape[0] and 0 <= place[1] < labels.shape[1]
                if inside and number[place] not in (-1, number[y, x]) and len(found[number[place]]) >= limit:
                    border[labels[place]] += 1
        merged, left = merged + bool(border.any()), left + (not border.any())
        if border.any():
            for place in pixels:
                result[place] = border.argmax()
    return result, merged, left


def swept(labels: np.ndarray, limit: int, side: int) -> tuple[np.ndarray, int, int]:
    height, width = labels.shape
    windows = [
        Window(left, top, min(side, width - left), min(side, height - top))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    sweep, result = Sweep(height, width, limit, io.BytesIO()), labels.copy()
    for window in windows:
        sweep.add(window, labels[window.toslices()])
    sweep.end_row()
    for window in windows:
        result[window.toslices()] = sweep.changed(window, labels[window.toslices()])
    return result, sweep.merged, sweep.left


def test_components_are_those_of_gdal() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = random_labels(rng, 30)
        found = find_components(labels)
        assert len(found.labels) == len(list(shapes(labels, connectivity=4)))
        assert np.array_equal(found.labels[found.numbers], labels)
        assert np.array_equal(np.bincount(found.numbers.ravel()), found.sizes)


@pytest.mark.parametrize("side", [2, 7, 64])
@pytest.mark.parametrize("limit", [2, 4, 9, 30, 100])
def test_a_sweep_does_not_depend_on_the_windows(limit: int, side: int) -> None:
    rng = np.random.default_rng(limit)
    for _ in range(6):
        labels = random_labels(rng, 40)
        expected, merged, left = swept_slowly(labels, limit)
        found = swept(labels, limit, side)
        assert np.array_equal(found[0], expected) and found[1:] == (merged, left)


@pytest.mark.parametrize(
    ("before", "limit", "after"),
    [
        ("0000 0100 0000", 2, "0000 0000 0000"),
        ("0000 0110 0000", 2, "0000 0110 0000"),  # of the limit, and not below it
        ("0022 0122 0022", 2, "0022 0022 0022"),  # three sides of 1 touch 0, one touches 2: the longest wins
        ("001222 001222", 3, "000222 000222"),  # equal borders: the lowest label
        ("0.0 .1. 0.0", 2, "0.0 .1. 0.0"),  # nodata takes nothing, and gives nothing
        ("000 010 0.0", 2, "000 000 0.0"),
        ("0000 0120 0000", 2, "0000 0000 0000"),  # two small ones beside each other
        ("111122220", 3, "111122222"),
    ],
)
def test_small_components_take_the_class_of_the_longest_border(before: str, limit: int, after: str) -> None:
    for side in (1, 2, 8):
        assert np.array_equal(swept(picture(before), limit, side)[0], picture(after))


@pytest.mark.parametrize(
    ("before", "side", "after"),
    [
        ("000 010 000", 3, "000 000 000"),
        ("001 011 111", 3, "001 011 111"),  # a straight border stays
        ("0.. .1. ..0", 3, "0.. .0. ..0"),  # two votes to one: nodata has none, and stays
        ("12 34", 3, "12 34"),  # a tie of all
        ("000 031 111", 3, "000 031 111"),  # four votes for 0, four for 1: the centre keeps its own class
        # The centre has 9 votes of 25. A corner of the block has 9 of 16, because nothing outside the raster votes.
        ("00000 01110 01110 01110 00000", 5, "00000 01010 00000 01010 00000"),
    ],
)
def test_smoothing_takes_the_most_common_class(before: str, side: int, after: str) -> None:
    assert np.array_equal(most_common_around(picture(before), side), picture(after))


@pytest.mark.parametrize("side", [3, 5, 9, 255])
def test_smoothing_is_that_of_counting_each_pixel(side: int) -> None:
    rng, reach = np.random.default_rng(side), side // 2
    for _ in range(6):
        labels = random_labels(rng, 24)
        expected = labels.copy()
        for y, x in zip(*np.nonzero(labels != VOID), strict=True):
            around = labels[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            votes = np.bincount(around[around != VOID], minlength=VOID)
            if (votes == votes.max()).sum() == 1:
                expected[y, x] = votes.argmax()
        assert np.array_equal(most_common_around(labels, side), expected)


def test_limits_grow_to_the_last() -> None:
    assert sieve_limits(2) == [2]
    assert sieve_limits(50) == [4, 16, 50]
    assert sieve_limits(64) == [4, 16, 64]


# ---- through the predictor: the class of a pixel is that of its brightest band


def image_of(labels: np.ndarray) -> np.ndarray:
    """Bands for the network of the tests, which answers with these labels (0, 1, 2). Nodata is 0 in all bands."""
    return np.stack([np.where(labels == VOID, 0, np.where(labels == band, 200, 10)) for band in range(3)]).astype(
        np.uint8
    )


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(write_model(tmp_path / "m.onnx", replace(INFO, parameters=1, tile_size=256).to_metadata()))


@pytest.fixture
def labels() -> np.ndarray:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.repeat(rng.integers(0, 3, (13, 9)), 9, 0), 11, 1).astype(np.uint8)
    noise = rng.random(labels.shape)
    labels = np.where(noise < 0.1, rng.integers(0, 3, labels.shape), labels).astype(np.uint8)
    labels[50:70, 40:80] = VOID
    return labels


def sieved(labels: np.ndarray, pixels: int) -> np.ndarray:
    for limit in sieve_limits(pixels):
        labels = swept_slowly(labels, limit)[0]
    while (found := swept_slowly(labels, pixels))[1]:
        labels = found[0]
    return labels


@pytest.mark.parametrize("window", [64, 1024])
def test_class_rasters_are_cleaned(
    tmp_path: Path,
    predictor: Predictor,
    labels: np.ndarray,
    window: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleaning, "_WINDOW", window)
    source = write(tmp_path / "in.tif", image_of(labels), nodata=0)
    plain = predictor.predict(source, tmp_path / "plain.tif")
    assert np.array_equal(read(tmp_path / "plain.tif"), labels) and plain.notes == ()
    smooth = most_common_around(labels, 5)
    wanted = {"smooth": smooth, "sieve": sieved(labels, 30), "both": sieved(smooth, 30)}
    flags = {"smooth": {"smooth": 5}, "sieve": {"min_area": "30px"}, "both": {"smooth": 5, "min_area": "7.5m2"}}
    for name, expected in wanted.items():
        for end, cog in ((".tif", False), (".png", False), ("-cog.tif", True)):
            target = tmp_path / f"{name}{end}"
            done = predictor.predict(source, target, RasterSettings(cog=cog, **flags[name]))  # type: ignore[arg-type]
            assert np.array_equal(read(target), expected), target
            assert len(done.notes) == len(flags[name])
    _, found = components_of(wanted["both"])
    assert min(len(pixels) for pixels in found) >= 30
    assert f"{(smooth != labels).sum():,} of {labels.size:,} pixels" in done.notes[0]
    with rasterio.open(tmp_path / "both.tif") as made, rasterio.open(tmp_path / "plain.tif") as file:
        assert made.profile == file.profile and made.colormap(1) == file.colormap(1)
        assert (made.tags(1), made.descriptions) == (file.tags(1), file.descriptions)
    assert not list(tmp_path.glob(".*"))


def test_a_stopped_cleaning_goes_on(tmp_path: Path, predictor: Predictor, labels: np.ndarray) -> None:
    source = write(tmp_path / "in.tif", image_of(labels), nodata=0)
    settings = RasterSettings(smooth=3, min_area="20px")

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "merging components":
            raise KeyboardInterrupt

    with pytest.raises(PredictionStopped):
        predictor.predict(source, tmp_path / "out.tif", settings, on_progress=stop)
    assert not (tmp_path / "out.tif").exists()
    predictor.predict(source, tmp_path / "out.tif", settings, resume=True)
    assert np.array_equal(read(tmp_path / "out.tif"), sieved(most_common_around(labels, 3), 20))
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_said(
    tmp_path: Path, predictor: Predictor, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_nothing(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Sweep, "add", write_nothing)
    source = write(tmp_path / "in.tif", image_of(labels), nodata=0)
    with pytest.raises(DiskFull, match="No space left on device"):
        predictor.predict(source, tmp_path / "out.tif", RasterSettings(min_area="20px"))
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1)])
def test_thin_rasters(tmp_path: Path, predictor: Predictor, shape: tuple[int, int]) -> None:
    source = write(tmp_path / "in.tif", image_of(np.zeros(shape, np.uint8)))
    predictor.predict(source, tmp_path / "out.tif", RasterSettings(smooth=9))
    assert not read(tmp_path / "out.tif").any()


@pytest.mark.parametrize(
    ("crs", "transform", "square_metres"),
    [
        (UTM, from_origin(500_000, 2_800_000, 0.5, 0.5), 0.25 / 0.9996**2),  # on the central meridian
        (UTM, Affine(0, 0.3, 500_000, 0.3, 0, 2_800_000), 0.09 / 0.9996**2),  # turned by 90 degrees
        (CRS.from_epsg(3857), from_origin(0, 8_399_737.89, 1, 1), 0.2506),  # 60 degrees north, see below
        (CRS.from_epsg(4326), from_origin(10, 0.00005, 1e-6, 1e-6), 0.111320 * 0.110574),  # at the equator
        (CRS.from_epsg(2263), from_origin(984_250, 200_000, 1, 1), 0.3048006**2),  # US survey feet
        (None, from_origin(0, 0, 1, 1), None),
    ],
)
def test_pixels_have_their_size_on_the_ground(crs: CRS | None, transform: Affine, square_metres: float | None) -> None:
    # At 60 degrees the radii of WGS 84 are 6,383,454 m (meridian) and 3,197,105 m (parallel). A metre of web Mercator
    # is 1 / 6,378,137 radians of longitude, and half of that in latitude: 0.50042 m x 0.50126 m.
    found = pixel_m2_at((100, 100, crs, transform), 50, 50)
    assert found == (None if square_metres is None else pytest.approx(square_metres, rel=2e-3))


@pytest.mark.parametrize(("side", "noted"), [(0.001, False), (0.1, True)])
def test_uneven_pixels_are_noted(side: float, noted: bool) -> None:
    # 100 x 100 pixels below 61 degrees north. With 0.1 degrees, the lower pixels, at 51 degrees, are 1.3 times as large
    # as the upper ones: cos 51 / cos 61 is 1.30.
    grid = (100, 100, CRS.from_epsg(4326), from_origin(10, 61, side, side))
    found = cleaning.choose_cleaning(
        RasterSettings(min_area="300000m2" if side < 0.01 else "3000000000m2"), "a.tif", grid, print
    )
    assert found is not None and len(found.notes) == noted


@pytest.mark.parametrize(
    ("min_area", "pixel_m2", "pixels"),
    [("20m2", 0.25, 80), ("20 m2", 0.1, 200), ("20m²", 0.3, 67), ("50px", None, 50), ("2.5px", 0.1, 3)],
)
def test_areas_become_pixels(min_area: str, pixel_m2: float | None, pixels: int) -> None:
    settings = RasterSettings(min_area=min_area)
    assert smallest_component(str(settings.min_area), "a.tif", pixel_m2, 10_000) == pixels


def test_tolerances_become_pixels() -> None:
    assert tolerance_in_pixels("1m", "a.tif", 0.25) == 2
    assert tolerance_in_pixels("1.5px", "a.tif", None) == 1.5


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: smallest_component("20m2", "a.png", None, 10_000), "how large its pixels are .* such as 50px"),
        (lambda: smallest_component("1m2", "a.tif", 100, 10_000), "0.01 pixels of a.tif; no component is smaller"),
        (lambda: smallest_component("1px", "a.tif", 100, 10_000), "no component is smaller"),
        (lambda: smallest_component("200px", "a.tif", 100, 100), "the whole raster has 100"),
        (lambda: smallest_component("9" * 400 + "px", "a.tif", 100, 100), r"9 \.\.\. is inf pixels .* raster has 100"),
        (lambda: smallest_component("9" * 400 + "m2", "a.tif", 100, 100), "the whole raster has 100"),
        (lambda: smallest_component("9" * 300 + "m2", "a.tif", 1e-300, 100), "the whole raster has 100"),
        (lambda: tolerance_in_pixels("9" * 400 + "m", "a.tif", 1), "more than any raster has. Give less"),
        (lambda: tolerance_in_pixels("1m", "a.png", None), "--simplify 1m: a.png does not say .* such as 2px"),
        (lambda: tolerance_in_pixels("0.5m", "a.tif", 1), "which removes nothing"),
        *(
            (lambda values=values: build_settings(PredictSettings, {"inputs": ["a.tif"], **values}), says)
            for values, says in (
                ({"smooth": 4}, "--smooth 4: .*odd number"),
                ({"smooth": 1}, "--smooth 1: .*greater than or equal to 3"),
                ({"smooth": 257}, "--smooth 257: .*less than or equal to 255"),
                ({"min_area": "20"}, "--min-area 20: .*20m2 or 50px"),
                ({"min_area": "20m"}, "--min-area 20m: "),
                ({"min_area": "0m2"}, "--min-area 0m2: "),
                ({"min_area": "-5px"}, "--min-area -5px: "),
                ({"simplify": "2m2", "vector": "gpkg"}, "--simplify 2m2: .*1m or 2px"),
                ({"simplify": "2px"}, "add --vector"),
            )
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(wrong: object, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        wrong()  # type: ignore[operator]


def test_square_metres_of_a_picture_are_refused_before_it_is_predicted(
    tmp_path: Path,
    predictor: Predictor,
    labels: np.ndarray,
) -> None:
    source = write(tmp_path / "in.tif", image_of(labels), crs=None)
    with pytest.raises(SettingsError, match="Give pixels, such as 50px"):
        predictor.predict(source, tmp_path / "out.tif", RasterSettings(min_area="20m2"))
    assert {path.name for path in tmp_path.iterdir()} == {"in.tif", "m.onnx"}
