"""Mosaics of class rasters, pixel by pixel against places that are computed one by one with pyproj."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import Affine, from_bounds, from_origin

from skystill.classes import DUBAI
from skystill.errors import DataError, DiskFull, RunFolderError, SettingsError
from skystill.predict import mosaic
from skystill.predict.mosaic import MosaicFile, mosaic_units, mosaic_window, place_rasters, write_mosaic
from skystill.predict.mosaic_grid import MosaicGrid, find_place, fit_grid, in_order, read_grid_file
from skystill.settings import RasterSettings

Pixels = np.ndarray[Any, Any]
UTM, MERCATOR, DEGREES, PACIFIC = "EPSG:32640", "EPSG:3857", "EPSG:4326", "EPSG:3832"


def classes(path: Path, labels: Pixels, crs: Any, transform: Affine) -> str:
    """A class raster as predictions are written."""
    height, width = labels.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype="uint8", nodata=255, crs=crs,
        transform=transform,
    ) as file:  # fmt: skip
        file.write(labels.astype(np.uint8), 1)
    return str(path)


def random_labels(height: int, width: int, seed: int = 0, holes: float = 0.2) -> Pixels:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 6, (height, width))
    return np.where(random.random((height, width)) < holes, 255, labels).astype(np.uint8)


def grid_of(crs: Any, bounds: tuple[float, float, float, float], width: int, height: int) -> MosaicGrid:
    return MosaicGrid(CRS.from_user_input(crs), from_bounds(*bounds, width, height), height, width)


def joined(rasters: list[str], grid: MosaicGrid) -> Pixels:
    """The mosaic, window by window."""
    found = np.zeros((grid.height, grid.width), np.uint8)
    places = place_rasters(rasters, grid)
    for unit in mosaic_units(grid):
        found[unit.top : unit.bottom, unit.left : unit.right] = mosaic_window(places, grid, unit)
    return found


def expected(rasters: list[str], grid: MosaicGrid) -> tuple[Pixels, Pixels]:
    """The same by pyproj and floor, and which pixels lie too near to an edge of a source's pixel to tell."""
    rows, columns = np.mgrid[: grid.height, : grid.width] + 0.5
    x, y = grid.transform * (columns, rows)
    labels = np.full((grid.height, grid.width), 255, np.uint8)
    near = np.zeros(labels.shape, bool)
    for name in rasters:
        with rasterio.open(name) as file:
            content, own, crs = file.read(1), file.transform, file.crs
        to = pyproj.Transformer.from_crs(grid.crs.to_wkt(), crs.to_wkt(), always_xy=True)
        own_x, own_y = to.transform(x, y)
        once = 2 * 20_037_508.342789244 if crs.to_epsg() == 3857 else 0 if crs.is_projected else 360
        for turn in {-once, 0, once}:
            column, row = ~own * (np.asarray(own_x) + turn, np.asarray(own_y))
            with np.errstate(invalid="ignore"):
                inside = (column >= 0) & (row >= 0) & (column < content.shape[1]) & (row < content.shape[0])
                off = np.minimum(np.abs(column - np.round(column)), np.abs(row - np.round(row)))
                close = (column > -1) & (row > -1) & (column < content.shape[1] + 1) & (row < content.shape[0] + 1)
            near |= close & (off < 1.1e-3)
            picked = np.full(labels.shape, 255, np.uint8)
            picked[inside] = content[row[inside].astype(int), column[inside].astype(int)]
            labels = np.where(labels == 255, picked, labels)
    return labels, near


def compare(rasters: list[str], grid: MosaicGrid, most_near: float = 0.02) -> Pixels:
    found, (wanted, near) = joined(rasters, grid), expected(rasters, grid)
    assert near.mean() <= most_near
    np.testing.assert_array_equal(np.where(near, 0, found), np.where(near, 0, wanted))
    return found


def test_by_hand(tmp_path: Path) -> None:
    """Two rasters of the same pixels that overlap in one column; holes of the first are filled by the second."""
    one = classes(tmp_path / "1.tif", np.array([[0, 1], [255, 3]]), UTM, from_origin(300_000, 2_800_000, 1, 1))
    two = classes(tmp_path / "2.tif", np.array([[4, 5], [4, 255]]), UTM, from_origin(300_001, 2_800_000, 1, 1))
    grid = grid_of(UTM, (300_000, 2_799_998, 300_004, 2_800_000), 4, 2)
    assert joined([one, two], grid).tolist() == [[0, 1, 5, 255], [255, 3, 255, 255]]
    assert joined([two, one], grid).tolist() == [[0, 4, 5, 255], [255, 4, 255, 255]]
    assert joined([], grid).tolist() == [[255] * 4] * 2
    finer = grid_of(UTM, (300_000, 2_799_999, 300_002, 2_800_000), 4, 2)
    assert joined([one, two], finer).tolist() == [[0, 0, 1, 1]] * 2
    coarser = grid_of(UTM, (300_000 - 0.2, 2_799_996, 300_002 - 0.2, 2_800_000), 1, 2)  # centres at 0.8, 1 and 3
    assert joined([one, two], coarser).tolist() == [[255], [255]]


PLACES = {
    "other pixels": [
        (UTM, from_origin(300_000.3, 2_800_000.7, 0.7, 0.9)),
        (UTM, from_origin(300_011, 2_799_990, 2, 2)),
    ],
    "turned": [(UTM, Affine.translation(300_020, 2_800_000) * Affine.rotation(30) * Affine.scale(0.8, -0.8))],
    "south up": [(UTM, Affine(0.9, 0, 300_003.1, 0, 0.9, 2_799_970.2))],
    "another zone": [("EPSG:32639", from_origin(911_450, 2_807_900, 0.6, 0.6)), (UTM, from_origin(3e5, 2.8e6, 1, 1))],
    "Mercator": [(MERCATOR, from_origin(6_125_480, 2_908_330, 0.9, 0.9))],
    "degrees": [(DEGREES, from_origin(55.0207, 25.2998, 1e-5, 7e-6))],
}


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_pixel_by_pixel(places: list[tuple[Any, Affine]], tmp_path: Path) -> None:
    rasters = [
        classes(tmp_path / f"{number}.tif", random_labels(37, 45, number), crs, transform)
        for number, (crs, transform) in enumerate(places)
    ]
    with rasterio.open(rasters[0]) as file:
        to = pyproj.Transformer.from_crs(file.crs, UTM, always_xy=True)
        x, y = to.transform(*(file.transform * (22, 18)))
    for crs, side in ((UTM, 0.37), (MERCATOR, 0.41), (DEGREES, 4.3e-6)):
        across, up = pyproj.Transformer.from_crs(UTM, crs, always_xy=True).transform(x, y)
        grid = grid_of(crs, (across - 40 * side, up - 50 * side, across + 60 * side, up + 45 * side), 100, 95)
        found = compare(rasters, grid)
        assert (found != 255).mean() > 0.1  # the grid shows a part of them


ACROSS = [
    (DEGREES, from_bounds(179.9, -0.1, 180.1, 0.1, 40, 40)),  # on beyond 180 degrees
    (DEGREES, from_bounds(-180.1, -0.1, -179.9, 0.1, 40, 40)),
    (DEGREES, from_bounds(-180, -0.1, -179.9, 0.1, 40, 40)),
    ("EPSG:32660", from_bounds(825_000, -9_000, 845_000, 11_000, 40, 40)),
    ("EPSG:32601", from_bounds(155_000, -9_000, 175_000, 11_000, 40, 40)),
    (PACIFIC, from_bounds(3_325_000, -11_000, 3_355_000, 11_000, 40, 40)),
    (DEGREES, from_bounds(180.1, -0.1, 179.9, 0.1, 40, 40)),  # rows run from east to west
]


@pytest.mark.parametrize("source", range(len(ACROSS)))
@pytest.mark.parametrize(
    ("crs", "bounds"),
    [
        (DEGREES, (179.85, -0.13, 180.15, 0.11)),
        (DEGREES, (-180.15, -0.13, -179.85, 0.11)),
        (DEGREES, (179.85, -0.13, 180, 0.11)),
        (DEGREES, (-180, -0.13, -179.85, 0.11)),
        (PACIFIC, (3_320_000, -12_000, 3_360_000, 13_000)),
        (MERCATOR, (-20_037_508, -12_000, -20_020_000, 13_000)),
        (MERCATOR, (20_020_000, -12_000, 20_037_508, 13_000)),
    ],
)
def test_across_the_antimeridian(source: int, crs: Any, bounds: Any, tmp_path: Path) -> None:
    name = classes(tmp_path / "a.tif", random_labels(40, 40, source, 0.05), *ACROSS[source])
    found = compare([name], grid_of(crs, bounds, 61, 53), most_near=0.1)
    only_west = source == 2 and (bounds[2] == 180 or bounds[0] == 20_020_000)
    assert (found != 255).any() != only_west


@pytest.mark.parametrize("left", [20_027_000, -20_049_000, 20_037_000, 20_038_000])
@pytest.mark.parametrize(
    ("crs", "bounds"),
    [
        (DEGREES, (179.84, -0.13, 180.15, 0.11)),  # no pixel has its centre at 180 degrees exactly
        (DEGREES, (-180.16, -0.13, -179.85, 0.11)),
        (PACIFIC, (3_320_000, -12_000, 3_360_500, 13_000)),
        ("EPSG:32660", (820_000, -9_000, 850_000, 13_000)),
        ("EPSG:32601", (150_000, -9_000, 180_000, 13_000)),
    ],
)
def test_a_raster_in_web_mercator_goes_on_beyond_180_degrees(left: int, crs: Any, bounds: Any, tmp_path: Path) -> None:
    place = MERCATOR, from_bounds(left, -11_000, left + 22_000, 11_000, 40, 40)
    name = classes(tmp_path / "a.tif", random_labels(40, 40, 3, 0.05), *place)
    found = compare([name], grid_of(crs, bounds, 61, 53), most_near=0.1)
    assert (found != 255).any()


def test_the_union_across_the_antimeridian_is_small(tmp_path: Path) -> None:
    rasters = [classes(tmp_path / f"{n}.tif", random_labels(40, 40), *ACROSS[n]) for n in range(5)]
    (tmp_path / "g.yaml").write_text("{crs: 4326, resolution: 0.0047}")
    file = read_grid_file(tmp_path / "g.yaml")
    grid = fit_grid(file, [find_place(name, file.crs) for name in rasters])
    assert (grid.bounds[2] - grid.bounds[0], grid.bounds[3] - grid.bounds[1]) == pytest.approx((0.22, 0.2), abs=0.03)
    compare(rasters, grid)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    corner=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    pixel=st.floats(0.3, 7),
    angle=st.floats(0, 360),
    crs=st.sampled_from([UTM, MERCATOR, DEGREES]),
)
def test_geometry(seed: int, size: tuple[int, int], corner: Any, pixel: float, angle: float, crs: str) -> None:
    """Any raster on any grid: no pixel is lost by the bounds that decide which rasters are opened."""
    x, y = pyproj.Transformer.from_crs(UTM, crs, always_xy=True).transform(300_000, 2_800_000)
    unit = 1e-5 if crs == DEGREES else 1.0
    transform = Affine.translation(x + corner[0] * unit, y + corner[1] * unit) * Affine.rotation(angle)
    with rasterio.MemoryFile() as memory:
        form = {"driver": "GTiff", "height": size[0], "width": size[1], "count": 1, "dtype": "uint8", "nodata": 255}
        with memory.open(**form, crs=crs, transform=transform * Affine.scale(pixel * unit, -pixel * unit)) as file:
            file.write(random_labels(*size, seed), 1)
        grid = grid_of(UTM, (299_980, 2_799_983, 300_017, 2_800_020), 41, 43)
        found, (wanted, near) = joined([memory.name], grid), expected([memory.name], grid)
    np.testing.assert_array_equal(np.where(near, 0, found), np.where(near, 0, wanted))


def test_windows_give_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rasters = [
        classes(
            tmp_path / f"{n}.tif", random_labels(90, 110, n), UTM, from_origin(300_000 + 31 * n, 2_800_000, 0.7, 0.7)
        )
        for n in range(3)
    ]
    grid = grid_of(UTM, (299_990, 2_799_920, 300_180, 2_800_010), 190, 90)
    whole = joined(rasters, grid)
    monkeypatch.setattr(mosaic, "_SIDE", 32)
    assert len(list(mosaic_units(grid))) == 18
    np.testing.assert_array_equal(joined(rasters, grid), whole)


# ---- the file


def test_the_file_is_a_cog_with_the_names_of_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosaic, "_SIDE", 512)
    rasters = [
        classes(tmp_path / f"{n}.tif", random_labels(700, 800, n), UTM, from_origin(300_000 + 300 * n, 2_800_000, 1, 1))
        for n in range(2)
    ]
    grid = grid_of(UTM, (300_000, 2_799_300, 301_100, 2_800_000), 1100, 700)
    assert write_mosaic(rasters, grid, MosaicFile(tmp_path / "m.tif", DUBAI)) == []
    with rasterio.open(tmp_path / "m.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected(rasters, grid)[0])
        assert (file.crs, file.transform, file.nodata) == (grid.crs, grid.transform, 255)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and file.overviews(1)
        assert file.tags(1)["CLASS_0"] == DUBAI.names[0]
        assert file.colormap(1)[1][:3] == DUBAI.colors[1]
    assert {path.name for path in tmp_path.iterdir()} == {"0.tif", "1.tif", "m.tif", "m.qml", "m.tif.aux.xml"}


@pytest.mark.parametrize("cell, said", [(2, True), (1, False)])
def test_a_mosaic_without_a_label_is_named(cell: int, said: bool, tmp_path: Path) -> None:
    """An input of 0.8 m in a cell of 2 m holds no centre of a cell; one of the cells of 1 m has its centre in it."""
    raster = classes(tmp_path / "a.tif", np.ones((1, 1)), UTM, from_origin(300_000.1, 2_799_999.9, 0.8, 0.8))
    grid = grid_of(UTM, (300_000, 2_799_998, 300_002, 2_800_000), 2 // cell, 2 // cell)
    notes = write_mosaic([raster], grid, MosaicFile(tmp_path / "m.tif", DUBAI))
    where = "none of its pixels has its centre where an input has data"
    assert notes == ([f"{tmp_path / 'm.tif'} holds no class: {where}."] if said else [])


def test_smoothing_goes_across_the_seams(tmp_path: Path) -> None:
    place = from_origin(300_000, 2_800_000, 1, 1)
    left, right = np.full((20, 10), 1), np.full((20, 10), 2)
    right[:, 0] = 1
    left[5, 9] = 2
    rasters = [
        classes(tmp_path / "l.tif", left, UTM, place),
        classes(tmp_path / "r.tif", right, UTM, place * Affine.translation(10, 0)),
    ]
    grid = grid_of(UTM, (300_000, 2_799_980, 300_020, 2_800_000), 20, 20)
    write_mosaic(rasters, grid, MosaicFile(tmp_path / "m.tif", DUBAI, RasterSettings(smooth=3)))
    with rasterio.open(tmp_path / "m.tif") as file:
        assert file.read(1)[5, 8:12].tolist() == [1, 1, 1, 2]  # nine votes for the pixel at the seam, from both


def test_a_mosaic_goes_on_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosaic, "_SIDE", 512)
    raster = classes(tmp_path / "a.tif", random_labels(600, 1400), UTM, from_origin(300_000, 2_800_000, 1, 1))
    grid = grid_of(UTM, (300_000, 2_799_400, 301_400, 2_800_000), 1400, 600)
    file = MosaicFile(tmp_path / "m.tif", DUBAI)
    write_mosaic([raster], grid, replace(file, path=tmp_path / "whole.tif"))
    done = []

    def stops(places: Any, grid: MosaicGrid, unit: Any) -> Pixels:
        if unit.index == 3:
            raise KeyboardInterrupt
        done.append(unit.index)
        return mosaic_window(places, grid, unit)

    monkeypatch.setattr(mosaic, "mosaic_window", stops)
    with pytest.raises(KeyboardInterrupt):
        write_mosaic([raster], grid, file)
    assert not file.path.exists()
    with pytest.raises(RunFolderError, match="Go on with --resume"):
        write_mosaic([raster], grid, file)
    monkeypatch.setattr(mosaic, "mosaic_window", lambda *given: done.append(given[2].index) or mosaic_window(*given))
    write_mosaic([raster], grid, file, resume=True)
    assert done == [0, 1, 2, 3, 4, 5]
    assert file.path.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_names_of_mosaics(tmp_path: Path) -> None:
    raster = classes(tmp_path / "a.tif", random_labels(6, 6), UTM, from_origin(300_000, 2_800_000, 1, 1))
    grid = grid_of(UTM, (300_000, 2_799_994, 300_006, 2_800_000), 6, 6)
    with pytest.raises(SettingsError, match=r"m\.png: a mosaic is a GeoTIFF"):
        write_mosaic([raster], grid, MosaicFile(tmp_path / "m.png", DUBAI))
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFull):
        write_mosaic([raster], grid, MosaicFile(tmp_path / "file/m.tif", DUBAI))


# ---- the grid


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crs: EPSG:32640", "lacks crs or resolution"),
        ("[1, 2]", "lacks crs or resolution"),
        ("{crs: EPSG:32640, resolution: 1, size: 3}", "no use for size"),
        ("{crs: EPSG:99999, resolution: 1}", "is not known"),
        ("{crs: true, resolution: 1}", "its crs is True"),
        ("{crs: '+proj=longlat +ellps=bessel +nadgrids=/etc/passwd', resolution: 1}", "grid file /etc/passwd"),
        ("{crs: '+proj=longlat +ellps=bessel +geoidgrids=@null,../x', resolution: 1}", "grid file @null,../x"),
        ("{crs: EPSG:4978, resolution: 1}", "neither projected nor in degrees"),
        ("{crs: EPSG:32640, resolution: 0}", "not above 0"),
        ("{crs: EPSG:32640, resolution: -1}", "not above 0"),
        ("{crs: EPSG:32640, resolution: fine}", "its resolution is 'fine'"),
        ("{crs: EPSG:32640, resolution: .nan}", "nan is no finite number"),
        ("{crs: EPSG:32640, resolution: [1, 2, 3]}", "1 or 2 numbers are needed"),
        ("{crs: EPSG:32640, resolution: 5e}", "1 or 2 numbers are needed"),
        ("{crs: EPSG:32640, resolution: 1, extent: [0, 1, 2]}", "4 numbers are needed"),
        ("{crs: EPSG:32640, resolution: 1, extent: [5, 0, 5, 1]}", "is empty"),
        ("{crs: EPSG:32640, resolution: 1, extent: [0, 5, 5, 1]}", "is empty"),
        (
            "{crs: EPSG:32640, resolution: 2, extent: [0, 0, 5, 4]}",
            "is 5 wide, which is no whole number of pixels of 2",
        ),
        ("{crs: EPSG:32640, resolution: 2, extent: [0, 0, 4, 5]}", "is 5 high"),
        ("{crs: EPSG:32640, resolution: 1, order: best}", "its order is 'best'"),
        ("{crs: EPSG:32640, resolution: [1", "YAML"),
    ],
)
def test_grids_that_are_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as raised:
        read_grid_file(path)
    assert said in str(raised.value) and str(path) in str(raised.value)


def test_grids_that_are_read(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("{crs: 32640, resolution: [0.5, 0.25], extent: [10, 20, 30, 30], order: newest}")
    file = read_grid_file(path)
    grid = fit_grid(file, [])
    assert (grid.width, grid.height, grid.bounds) == (40, 40, (10, 20, 30, 30))
    assert (file.crs, file.order) == (CRS.from_epsg(32640), "newest")
    path.write_text("{crs: EPSG:32640, resolution: 1.e-3, extent: [0, 0, 30000, 1]}")
    with pytest.raises(SettingsError, match="30,000,000 x 1,000 pixels"):
        fit_grid(read_grid_file(path), [])
    with pytest.raises(SettingsError, match="no such file"):
        read_grid_file(tmp_path / "none.yaml")


def test_numbers_with_an_exponent(tmp_path: Path) -> None:
    """YAML 1.1 takes them for a text if they have no point."""
    path = tmp_path / "g.yaml"
    path.write_text("{crs: EPSG:4326, resolution: 5e-06, extent: [1e1, 50, 10.5, 5.1E+1]}")
    file = read_grid_file(path)
    assert file.resolution == (5e-6, 5e-6) and file.extent == (10, 50, 10.5, 51)


def test_the_union_begins_at_whole_pixels(tmp_path: Path) -> None:
    names = [
        classes(tmp_path / "a.tif", random_labels(10, 20), UTM, from_origin(300_000.2, 2_800_000.9, 1, 1)),
        classes(tmp_path / "b.tif", random_labels(10, 20), UTM, from_origin(300_031, 2_799_995, 0.5, 0.5)),
    ]
    (tmp_path / "g.yaml").write_text("{crs: EPSG:32640, resolution: 0.5}")
    file = read_grid_file(tmp_path / "g.yaml")
    grid = fit_grid(file, [find_place(name, file.crs) for name in names])
    assert grid.bounds == (300_000, 2_799_990, 300_041, 2_800_001)
    assert (grid.width, grid.height) == (82, 22)


@pytest.mark.parametrize(
    ("bounds", "touches"),
    [
        ((300_000, 2_799_990, 300_020, 2_800_000), True),
        ((300_019, 2_799_990, 300_030, 2_799_991), True),
        ((300_020, 2_799_990, 300_030, 2_800_000), False),  # edges alone
        ((299_000, 2_799_000, 301_000, 2_801_000), True),
        ((300_000, 2_800_000, 300_010, 2_800_010), False),
    ],
)
def test_what_touches(bounds: Any, touches: bool, tmp_path: Path) -> None:
    name = classes(tmp_path / "a.tif", random_labels(10, 20), UTM, from_origin(300_000, 2_800_000, 1, 1))
    assert find_place(name, CRS.from_user_input(UTM)).touches(bounds) is touches
    to = pyproj.Transformer.from_crs(UTM, DEGREES, always_xy=True)
    x, y = to.transform([300_000, 300_020], [2_799_990, 2_800_000])
    place = find_place(name, CRS.from_user_input(DEGREES))
    for turn in (-360, 0, 360):
        assert place.touches((x[0] + turn, y[0], x[1] + turn, y[1]))
        assert not place.touches((x[1] + turn + 1, y[0], x[1] + turn + 2, y[1]))


def test_a_raster_beyond_the_projection_has_no_place(tmp_path: Path) -> None:
    name = classes(tmp_path / "a.tif", random_labels(4, 4), DEGREES, from_bounds(150, 89.95, 151, 90, 4, 4))
    place = find_place(name, CRS.from_user_input("+proj=gnom +lat_0=-90 +datum=WGS84"))
    assert place.box is None and not place.touches((-math.inf, -math.inf, math.inf, math.inf), reached=True)


def test_rasters_without_a_place_are_named(tmp_path: Path) -> None:
    plain = classes(tmp_path / "plain.tif", random_labels(4, 4), None, from_origin(1, 1, 1, 1))
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        unplaced = classes(tmp_path / "unplaced.tif", random_labels(4, 4), UTM, Affine.identity())
    local = classes(tmp_path / "local.tif", random_labels(4, 4), 'LOCAL_CS["here",UNIT["metre",1]]', Affine.scale(2))
    for name, said in ((plain, "plain.tif has no CRS"), (unplaced, "no transform"), (local, "cannot be converted")):
        with pytest.raises(DataError, match=said):
            find_place(name, CRS.from_user_input(UTM))


def test_orders() -> None:
    dates = {name: datetime(2026, month, 1, tzinfo=UTC) for name, month in (("a", 2), ("b", 3), ("c", 1), ("d", 3))}
    names = ["a", "b", "c", "d"]
    assert in_order(names, "first", {}) == names
    assert in_order(names, "last", {}) == ["d", "c", "b", "a"]
    assert in_order(names, "newest", dates) == ["b", "d", "a", "c"]
    assert in_order(names, "oldest", dates) == ["c", "a", "b", "d"]
    with pytest.raises(SettingsError, match="1 inputs have no date: e"):
        in_order([*names, "e"], "oldest", dates)
