"""Labels on ground that a raster does not show: holes of VRTs are refused, black edges are told, shadows are not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin

from skystill.api import check
from skystill.data.map_holes import open_holes
from skystill.data.prepare import CheckedData
from tests.maps import LEFT, TOP, UTM, box, write_classes, write_layer, write_raster

SIDE = 1024
TO = from_origin(LEFT, TOP, 1, 1)
REFUSED = "labelled pixels of map.vrt lie where none of the files that it is made of has pixels"
TOLD = "labelled pixels of ortho.tif are 0 in all bands, in large areas at its edge"


def make(root: Path, area: tuple[int, int, int, int] | None = None, rest: bool = True) -> None:
    roofs = [(y, y + 10, x, x + 10) for y in range(20, SIDE, 128) for x in range(20, SIDE, 128)]
    write_layer(root / "labels.gpkg", [box(TO, *one) for one in roofs], "roofs")
    write_layer(root / "labels.gpkg", [box(TO, 0, 9, 0, SIDE)], "roads")
    if area:
        write_layer(root / "area.gpkg", [box(TO, *area)])
    write_classes(root, {**({"Land": "rest"} if rest else {}), "Roof": "{layer: roofs}", "Road": "{layer: roads}"})


def said(root: Path) -> tuple[CheckedData, str]:
    found = check(data=root, split="blocks:256/0")
    return found, "\n".join((*found.check.problems, *found.notes))


def vrt(root: Path, *columns: tuple[float, float], nodata: bool = False, whole: bool = False) -> None:
    """A VRT of tiles with a left and right side each; with `whole` sources that say no place."""
    bands = ""
    for band in (1, 2, 3):
        bands += f"<VRTRasterBand dataType='Byte' band='{band}'>" + "<NoDataValue>0</NoDataValue>" * nodata
        for place, (left, right) in enumerate(columns):
            if band == 1:
                write_raster(root / f"tiles/{place}.tif", SIDE, round(right - left), origin=(LEFT + left, TOP))
            rects = f"<SrcRect xOff='0' yOff='0' xSize='{round(right - left)}' ySize='{SIDE}'/>" \
                    f"<DstRect xOff='{left}' yOff='0' xSize='{right - left}' ySize='{SIDE}'/>"  # fmt: skip
            bands += (
                f"<SimpleSource><SourceFilename relativeToVRT='1'>tiles/{place}.tif</SourceFilename>"
                f"<SourceBand>{band}</SourceBand>{'' if whole else rects}</SimpleSource>"
            )
        bands += "</VRTRasterBand>"
    (root / "map.vrt").write_text(
        f"<VRTDataset rasterXSize='{SIDE}' rasterYSize='{SIDE}'><SRS>{UTM}</SRS>"
        f"<GeoTransform>{LEFT},1,0,{TOP},0,-1</GeoTransform>{bands}</VRTDataset>"
    )


def test_holes_of_a_vrt_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    vrt(tmp_path, (0, 400), (500, 1000))
    found, text = said(tmp_path)
    assert f"{(100 + 24) * SIDE:,} {REFUSED}. It has neither nodata nor alpha" in text
    assert "gdalbuildvrt -addalpha map.vrt FILES" in text
    assert len(found.check.problems) == 1 and found.split is None


def test_only_labels_on_holes_are_refused(tmp_path: Path) -> None:
    make(tmp_path, rest=False)
    vrt(tmp_path, (0, 400), (500, 1000))
    assert f"{100 * 9 + 24 * 9 + 8 * 100:,} {REFUSED}" in said(tmp_path)[1]  # the road, and a column of roofs


@pytest.mark.parametrize(
    ("columns", "more"),
    [
        ([(0, 400), (400, 1024)], {}),
        ([(0, 600), (400, 1024)], {}),
        ([(0, 399.7), (400.4, 1023.5)], {}),  # GDAL rounds what lies between pixels
        ([(0, 400), (500, 1000)], {"nodata": True}),
        ([(0, 1024)], {"whole": True}),
    ],
    ids=["tiles", "overlapping tiles", "rounded tiles", "nodata", "no rectangles"],
)
def test_vrts_without_holes(tmp_path: Path, columns: list[tuple[float, float]], more: dict[str, bool]) -> None:
    make(tmp_path)
    vrt(tmp_path, *columns, **more)
    found, text = said(tmp_path)
    assert found.check.problems == () and "neither nodata" not in text


@pytest.mark.parametrize("written", ["xOff='much'", "xoff='0'"])
def test_places_that_are_no_numbers_are_no_holes(tmp_path: Path, written: str) -> None:
    vrt(tmp_path, (0, 400))
    text = (tmp_path / "map.vrt").read_text()
    (tmp_path / "map.vrt").write_text(text.replace("<DstRect xOff='0'", f"<DstRect {written}"))
    assert open_holes(tmp_path / "map.vrt").uncovered is None


def test_an_area_leaves_holes_out(tmp_path: Path) -> None:
    make(tmp_path, area=(0, SIDE, 0, 400))
    vrt(tmp_path, (0, 400), (500, 1024))
    assert said(tmp_path)[0].check.problems == ()


def collar(values: np.ndarray) -> None:
    values[:, :100] = 0


def corner(values: np.ndarray) -> None:
    rows, columns = np.ogrid[:SIDE, :SIDE]
    values[:, rows + columns < 400] = 0


def shadows(values: np.ndarray) -> None:
    for place in range(0, SIDE, 90):
        values[:, place : place + 70, place : place + 70] = 0
    values[:, :40, 300:420] = 0


def lake(values: np.ndarray) -> None:
    values[:, 200:700, 200:700] = 0


def one_band(values: np.ndarray) -> None:
    values[:2, :100] = 0


def nearly(values: np.ndarray) -> None:
    values[:, :100] = 0
    values[1, :100:10, ::10] = 1


@pytest.mark.parametrize(
    ("spoil", "pixels"),
    [(collar, 96 * SIDE), (corner, None), (shadows, 0), (lake, 0), (one_band, 0), (nearly, 0)],
)  # fmt: skip
def test_black_edges_are_told(tmp_path: Path, spoil: Callable[[np.ndarray], None], pixels: int | None) -> None:
    values = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE)).astype(np.uint8)
    spoil(values)
    write_raster(tmp_path / "ortho.tif", SIDE, SIDE, values=values, tiled=True)
    make(tmp_path)
    found, text = said(tmp_path)
    assert found.check.problems == ()
    if pixels == 0:
        assert TOLD not in text
    else:
        count = int(text.split(f" {TOLD}")[0].split("about ")[-1].replace(",", ""))
        assert count == pixels if pixels else 0.85 < count / (400 * 401 / 2) <= 1
        assert "they are taught wrongly as Land: set gdal_edit.py -a_nodata 0 ortho.tif, or draw a layer area" in text


@pytest.mark.parametrize("more", [{"nodata": 0}, {"area": (100, SIDE, 0, SIDE)}, {"dark": 1}])
def test_black_edges_that_are_known(tmp_path: Path, more: dict[str, object]) -> None:
    values = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE)).astype(np.uint8)
    values[:, :100] = more.pop("dark", 0)
    area = more.pop("area", None)
    write_raster(tmp_path / "ortho.tif", SIDE, SIDE, values=values, tiled=True, **more)
    make(tmp_path, area)
    assert TOLD not in said(tmp_path)[1]


def test_dark_values_of_16_bits_are_not_black(tmp_path: Path) -> None:
    import rasterio

    values = np.random.default_rng(0).integers(1000, 60_000, (3, SIDE, SIDE)).astype(np.uint16)
    values[:, :100] = 1
    with rasterio.open(tmp_path / "ortho.tif", "w", driver="GTiff", height=SIDE, width=SIDE, count=3, dtype="uint16",
                       crs=UTM, transform=TO) as file:  # fmt: skip
        file.write(values)
    make(tmp_path)
    assert TOLD not in said(tmp_path)[1]
