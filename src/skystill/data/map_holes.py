"""Find labels on ground that a raster does not show: holes of VRTs, and black edges of rasters without nodata or alpha.

Such pixels are 0 in all bands and count as seen, so that a class from: rest would be taught on them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from skystill.classes import VOID, Labels
from skystill.data.map_labels import burnt_mask
from skystill.raster.opening import VRT_SUFFIX, open_raster
from skystill.raster.picture import Bounds
from skystill.raster.source import gdal_environment

_CELL = 16  # pixels; windows begin at multiples of it
_LEAST_CELLS, _LEAST_SHARE = 64, 0.001  # of an area at the edge: shadows that are 0 in all bands are smaller
_SOURCES = ("SimpleSource", "ComplexSource", "AveragedSource", "KernelFilteredSource", "NoDataFromMaskSource")
_ROUNDING = 1.0  # pixels by which GDAL rounds the places of sources
Cells = npt.NDArray[np.bool_]


@dataclass
class Holes:
    """What a raster does not show, as far as its windows were looked at.

    Args:
        path: the raster.
        unmasked: whether it has neither nodata nor alpha. Otherwise nothing is looked for.
        uncovered: where none of the files of a VRT has pixels, as a geometry of shapely in its pixels; None if that is
            nowhere, or not known.
        on_holes: labelled pixels there.
        black: squares of 16 x 16 pixels that are labelled, and 0 in all bands; None as long as there are none.
    """

    path: Path
    unmasked: bool
    height: int
    width: int
    uncovered: Any = None
    on_holes: int = 0
    black: Cells | None = field(default=None, repr=False)

    def add(self, bounds: Bounds, image: npt.NDArray[Any], labels: Labels) -> None:
        """Look at a window.

        Args:
            bounds: the window.
            image: (H, W, B), as a network is fed.
            labels: (H, W) uint8, 255 = void.
        """
        import shapely

        if not self.unmasked:
            return
        top, bottom, left, right = bounds
        if self.uncovered is not None and self.uncovered.intersects(shapely.box(left, top, right, bottom)):
            hole = burnt_mask([self.uncovered], bounds, 1)
            self.on_holes += int((labels[hole] != VOID).sum())
            labels = np.where(hole, np.uint8(VOID), labels)
        middles = np.s_[_CELL // 2 :: _CELL, _CELL // 2 :: _CELL]
        if not ((labels[middles] != VOID) & ~image[middles].any(axis=-1)).any():
            return
        black = _cells(~image.any(axis=-1) & (labels != VOID))
        if not black.any():
            return
        with gdal_environment(), open_raster(self.path) as file:  # values below 256 of 16 bits may be 0 as they are fed
            values = file.read(window=Window(left, top, right - left, bottom - top))
        black &= _cells(~values.any(axis=0))
        if self.black is None:
            self.black = np.zeros((-(-self.height // _CELL), -(-self.width // _CELL)), bool)
        self.black[top // _CELL : -(-bottom // _CELL), left // _CELL : -(-right // _CELL)] |= black

    def problem(self) -> list[str]:
        """Return a line if labels lie where a VRT has no file."""
        if not self.on_holes:
            return []
        name = self.path.name
        return [
            f"about {self.on_holes:,} labelled pixels of {name} lie where none of the files that it is made of has "
            "pixels. It has neither nodata nor alpha, so that they would be taught as black ground. Make it again: "
            f"gdalbuildvrt -addalpha {name} FILES"
        ]

    def note(self, rest: str | None) -> list[str]:
        """Return a line if labels lie on large black areas at the edge.

        Args:
            rest: name of the class of all pixels that no feature covers, if there is one.
        """
        pixels = 0 if self.black is None else _CELL**2 * _at_edge(self.black)
        if pixels < _LEAST_SHARE * self.height * self.width:
            return []
        name, taught = self.path.name, "" if rest is None else f" as {rest}"
        return [
            f"about {pixels:,} labelled pixels of {name} are 0 in all bands, in large areas at its edge, and it has "
            f"neither nodata nor alpha. If it shows nothing there, they are taught wrongly{taught}: set gdal_edit.py "
            f"-a_nodata 0 {name}, or draw a layer area that leaves them out."
        ]


def open_holes(path: Path) -> Holes:
    """Return a raster whose windows have not been looked at."""
    with gdal_environment(), open_raster(path) as file:
        unmasked = all(MaskFlags.all_valid in flags for flags in file.mask_flag_enums)
        found = Holes(path, unmasked, file.height, file.width)
    if unmasked and path.suffix.lower() == VRT_SUFFIX:
        found.uncovered = _uncovered(path, found.height, found.width)
    return found


def _uncovered(path: Path, height: int, width: int) -> Any:  # noqa: ANN401 - a geometry of shapely, or None
    """Return the part of a VRT that no file covers in any band; None if there is none, or it is no plain mosaic."""
    import shapely

    root = ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(encoding="utf-8"))  # checked when opened
    boxes = []
    for band in root.findall("VRTRasterBand"):
        sources = [source for kind in _SOURCES for source in band.iter(kind)]
        places = [source.find("DstRect") for source in sources]
        if not sources or band.get("subClass", "VRTSourcedRasterBand") != "VRTSourcedRasterBand" or None in places:
            return None
        boxes += [_box(place) for place in places if place is not None]
    if not boxes or None in boxes:
        return None
    grown = shapely.union_all(boxes).buffer(_ROUNDING, join_style="mitre")
    uncovered = shapely.box(0, 0, width, height).difference(grown)
    return None if uncovered.is_empty else uncovered.buffer(_ROUNDING, join_style="mitre")


def _box(place: ElementTree.Element) -> Any:  # noqa: ANN401 - a geometry of shapely, or None
    import shapely

    try:
        left, top, across, down = (float(place.get(name, "")) for name in ("xOff", "yOff", "xSize", "ySize"))
    except ValueError:
        return None
    return shapely.box(left, top, left + across, top + down) if np.isfinite([left, top, across, down]).all() else None


def _cells(pixels: Cells) -> Cells:
    """Return which squares of 16 x 16 pixels hold nothing but True. Those at the end may be smaller."""
    height, width = (-(-side // _CELL) * _CELL for side in pixels.shape)
    padded = np.ones((height, width), bool)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return np.asarray(padded.reshape(height // _CELL, _CELL, width // _CELL, _CELL).all(axis=(1, 3)))


def _at_edge(black: Cells) -> int:
    """Return the number of squares in connected areas of at least 64 that reach the edge of the raster."""
    import shapely
    from rasterio.features import shapes

    rows, columns = black.shape
    total = 0
    for area, _ in shapes(black.astype(np.uint8), mask=black):
        polygon = shapely.geometry.shape(area)
        left, top, right, bottom = polygon.bounds
        if polygon.area >= _LEAST_CELLS and (left == 0 or top == 0 or right == columns or bottom == rows):
            total += int(polygon.area)
    return total
