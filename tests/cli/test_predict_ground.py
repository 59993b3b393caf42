"""`skystill predict` on rasters of any CRS: hectares, polygons and --resolution on the ground, GCPs and RPCs."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.features import rasterize
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin

from skystill.predict.predictor import Predictor
from skystill.raster.ground import find_ground
from skystill.settings import RasterSettings
from tests.channel_model import INFO, write_model

Cli = Callable[..., Any]
MERCATOR_60 = 8_399_737.89
"""y of 60 degrees north in web Mercator."""
TURNED_90 = Affine(0, 0.3, 500_000, 0.3, 0, 5_000_000)
GCPS = [
    GroundControlPoint(row, column, 10 + column * 1e-5, 50 - row * 1e-5, 7.0, str(number), "")
    for number, (row, column) in enumerate([(0, 0), (0, 60), (40, 0), (40, 60)])
]
ONES = [1.0] + [0.0] * 19
RPCS = RPC(0.0, 100.0, 50.0, 1.0, ONES, ONES, 19.5, 20.0, 10.0, 1.0, ONES, ONES, 29.5, 30.0, None, None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.onnx", replace(INFO, tile_size=96).to_metadata())


def write(path: Path, height: int, width: int, **place: Any) -> Path:
    """A raster of three bands: the left half is red, which the model calls the first class; the rest is green."""
    bands = np.zeros((3, height, width), np.uint8)
    bands[0, :, : width // 2] = bands[1, :, width // 2 :] = 200
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", photometric="rgb", **place
    ) as file:
        file.write(bands)
    return path


def predict(source: Path, out: Path, model: Path, skystill: Cli, *flags: object) -> Any:
    done = skystill("predict", source, "--model", model, "--out", out, *flags)
    assert done.code == 0, done.err
    return done


def hectares(out: Path) -> list[str]:
    with out.with_name(f"{out.stem}-areas.csv").open() as file:
        return [row["hectares"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["out.tif", "out.png"])
def test_a_raster_in_web_mercator_is_a_quarter_of_its_plane_at_60_degrees(
    name: str, tmp_path: Path, model: Path, skystill: Cli
) -> None:
    """12 ha of the plane are 3.01 ha on the ground: half for each class. A PNG says the same."""
    pytest.importorskip("pyogrio")
    place = from_origin(1_000_000, MERCATOR_60 + 200, 1, 1)
    source = write(tmp_path / "in.tif", 400, 300, crs="EPSG:3857", transform=place)
    out = tmp_path / "out" / name
    out.parent.mkdir()
    predict(source, out, model, skystill, "--areas", "--vector", "geojson")
    found = hectares(out)
    assert [float(part) for part in found[:2]] == [pytest.approx(3.0101 / 2, abs=2e-4)] * 2
    features = json.loads(out.with_suffix(".geojson").read_text())["features"]
    assert [feature["properties"]["area_m2"] for feature in features] == [pytest.approx(15_050.4, abs=1)] * 2
    for feature in features:
        for longitude, latitude in feature["geometry"]["coordinates"][0]:
            assert (longitude, latitude) == (pytest.approx(8.984, abs=2e-3), pytest.approx(60, abs=2e-3))
    with rasterio.open(out) as file:
        assert (file.crs, file.transform) == (rasterio.CRS.from_epsg(3857), place)


GRIDS = {
    "web Mercator at 60 degrees": ("EPSG:3857", from_origin(0, MERCATOR_60 + 200, 1, 1), 0.5),
    "degrees at 60 degrees": ("EPSG:4326", from_origin(10, 60, 1e-5, 1e-5), 2),
    "US survey feet": ("EPSG:2263", from_origin(980_000, 200_000, 1, 1), 0.5),
    "polar, 70 degrees north and 60": ("EPSG:3413", from_origin(-2_300_000, -2_300_000, 10, 10), 25),
    "UTM, turned by 90 degrees": ("EPSG:32633", TURNED_90, 0.6),
    "UTM, turned by 33 degrees": ("EPSG:32633", Affine.rotation(33) @ Affine.scale(0.3, -0.3), 0.5),
    "UTM, not square": ("EPSG:32633", from_origin(500_000, 5_000_000, 0.5, 1), 2),
    "UTM, at the antimeridian": ("EPSG:32601", from_origin(150_000, 8_000_000, 10, 10), 30),
}


@pytest.mark.parametrize(("crs", "transform", "wanted"), GRIDS.values(), ids=GRIDS)
def test_the_result_has_the_resolution_on_the_ground(
    crs: str, transform: Affine, wanted: float, tmp_path: Path, model: Path
) -> None:
    """At the centre, and within the half of a pixel by which 400 or 300 of them are rounded to whole ones."""
    source = write(tmp_path / "in.tif", 400, 300, crs=crs, transform=transform)
    Predictor(model).predict(source, tmp_path / "out.tif", RasterSettings(resolution=wanted))
    with rasterio.open(source) as before, rasterio.open(tmp_path / "out.tif") as after:
        ground = find_ground(after.crs, after.transform, after.height, after.width)
        assert ground is not None
        for size, pixels in zip(
            ground.pixel_metres(after.width / 2, after.height / 2), (after.height, after.width), strict=True
        ):
            assert size == pytest.approx(wanted, rel=0.001 + 0.5 / pixels)
        for corner in ((0, 0), (1, 1), (0, 1)):
            ends = [file.transform * (corner[0] * file.width, corner[1] * file.height) for file in (before, after)]
            assert ends[0] == pytest.approx(ends[1])


def test_a_resolution_that_the_raster_has_already_leaves_its_pixels_alone(tmp_path: Path, model: Path) -> None:
    """A UTM metre is 0.9996 m at the central meridian; nobody wants pixels blurred for that."""
    source = write(tmp_path / "in.tif", 40, 3000, crs="EPSG:32633", transform=from_origin(5e5, 5e6, 0.5, 0.5))
    Predictor(model).predict(source, tmp_path / "out.tif", RasterSettings(resolution=0.5))
    with rasterio.open(tmp_path / "out.tif") as out:
        assert out.shape == (40, 3000)


@pytest.mark.parametrize("kind", ["gpkg", "geojson"])
def test_buildings_get_right_angles(kind: str, tmp_path: Path, model: Path, skystill: Cli) -> None:
    """A red house of 30 x 20 m at 25 degrees and a red circle on green land, in pixels of 0.5 m."""
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    transform = from_origin(500_000, 5_000_000, 0.5, 0.5)
    house = shapely.affinity.rotate(shapely.box(500_010, 4_999_960, 500_040, 4_999_980), 25)
    tank = shapely.Point(500_075, 4_999_950).buffer(12)
    red = rasterize([house, tank], (160, 200), transform=transform, default_value=200).astype(np.uint8)
    profile = {"driver": "GTiff", "height": 160, "width": 200, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "in.tif", "w", transform=transform, photometric="rgb", **profile) as file:
        file.write(np.stack([red, 200 - red, 0 * red]))
    done = predict(tmp_path / "in.tif", tmp_path / "out.tif", model, skystill, "--vector", kind, "--square", "Building")
    assert "--square Building: 1 of 2 polygons have right angles; right angles would not fit the other 1" in " ".join(
        done.err.split()
    )
    _, _, wkb, (names, _, areas) = pyogrio.raw.read(tmp_path / f"out.{kind}")
    polygons = shapely.from_wkb(wkb)
    if kind == "geojson":
        to_utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True)
        polygons = shapely.transform(polygons, lambda points: np.column_stack(to_utm.transform(*points.T)))
    (found,) = (one for one, name in zip(polygons, names, strict=True) if name == "Building" and one.distance(tank) > 1)
    corners = shapely.get_coordinates(found)
    assert len(corners) == 5
    sides = np.diff(corners, axis=0)
    lengths = np.linalg.norm(sides, axis=1)
    assert sorted(lengths) == pytest.approx([20, 20, 30, 30], abs=1)
    assert (sides[1:] * sides[:-1]).sum(axis=1) / lengths[1:] / lengths[:-1] == pytest.approx(np.zeros(3), abs=1e-6)
    assert shapely.area(found) / 0.9996**2 == pytest.approx(areas[list(polygons).index(found)], rel=1e-4)
    assert found.intersection(house).area / found.union(house).area > 0.95


POSITIONS: dict[str, dict[str, Any]] = {
    "GCPs": {"gcps": GCPS, "crs": "EPSG:4326"},
    "GCPs without a CRS": {"gcps": GCPS, "crs": rasterio.CRS()},
    "RPCs": {"rpcs": RPCS},
}


@pytest.mark.parametrize(
    ("name", "flags"), [("out.tif", ()), ("out.tif", ("--cog",)), ("out.png", ())], ids=["GeoTIFF", "COG", "PNG"]
)
@pytest.mark.parametrize("kind", POSITIONS)
def test_gcps_and_rpcs_are_carried_over_and_it_is_said(
    kind: str, name: str, flags: tuple[str, ...], tmp_path: Path, model: Path, skystill: Cli
) -> None:
    source = write(tmp_path / "in.tif", 40, 60, **POSITIONS[kind])
    done = predict(source, tmp_path / name, model, skystill, "--areas", *flags)
    said = " ".join(done.err.split())
    what = "RPCs" if kind == "RPCs" else "4 ground control points"
    assert f"is placed by {what} and not by a transform. The result carries them over" in said
    assert set(hectares(tmp_path / name)) == {""}
    with rasterio.open(tmp_path / name) as file:
        gcps, crs = file.gcps
        if kind != "RPCs":
            assert [(g.row, g.col, g.x, g.y, g.z) for g in gcps] == [(g.row, g.col, g.x, g.y, g.z) for g in GCPS]
            assert crs == (rasterio.CRS.from_epsg(4326) if kind == "GCPs" else None)
        else:
            assert file.rpcs is not None
            assert (file.rpcs.line_off, file.rpcs.samp_scale, file.rpcs.long_off) == (19.5, 30, 10)


def test_a_raster_with_gcps_is_written_as_a_geotiff_by_itself(tmp_path: Path, model: Path, skystill: Cli) -> None:
    source = write(tmp_path / "in.tif", 40, 60, **POSITIONS["GCPs"])
    predict(source, tmp_path / "out", model, skystill)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["in.qml", "in.tif", "in.tif.aux.xml"]


@pytest.mark.parametrize("place", [{}, *POSITIONS.values(), {"crs": "EPSG:32633"}], ids=["none", *POSITIONS, "CRS"])
def test_a_resolution_without_a_ground_is_refused(
    place: dict[str, Any], tmp_path: Path, model: Path, skystill: Cli
) -> None:
    source = write(tmp_path / "in.tif", 40, 60, **place)
    done = skystill("predict", source, "--model", model, "--out", tmp_path / "out.tif", "--resolution", 1)
    assert done.code == 2
    assert "--resolution needs a CRS and a transform" in " ".join(done.err.split())
    assert not (tmp_path / "out.tif").exists()


def test_a_png_without_a_position_forgets_that_of_an_earlier_one(tmp_path: Path, model: Path, skystill: Cli) -> None:
    placed = write(tmp_path / "a.tif", 40, 60, crs="EPSG:32633", transform=from_origin(500_000, 5_000_000, 1, 1))
    plain = write(tmp_path / "b.tif", 40, 60)
    out = tmp_path / "out.png"
    predict(placed, out, model, skystill, "--areas")
    assert float(hectares(out)[0]) == pytest.approx(0.12 / 0.9996**2, abs=1e-4)
    predict(plain, out, model, skystill, "--areas")
    assert set(hectares(out)) == {""}
    assert not (tmp_path / "out.png.aux.xml").exists()
