"""The files beside a class raster: names of the labels or the position of a PNG (.aux.xml), and the style for QGIS."""

import os
from pathlib import Path
from xml.sax.saxutils import escape

from skystill.classes import ClassMap
from skystill.run_folder import write_text


def category_names_of(target: Path) -> Path:
    """Return the file beside a result: the names of the labels of a GeoTIFF, or the position of a PNG."""
    return target.with_name(target.name + ".aux.xml")


def style_of(target: Path) -> Path:
    """Return the file beside a raster from which QGIS takes its legend."""
    return target.with_suffix(".qml")


def shares_style(source: str, target: Path) -> bool:
    """Return whether QGIS would apply the style of a class raster to its source, too.

    QGIS looks for NAME.qml whatever the extension of the raster is. So the style of ortho.png, in the folder of
    ortho.tif, would hide the picture, and could replace a style that the user made for it.

    Args:
        source: path or address of the source.
        target: path of the class raster.
    """
    same_name = bool(Path(source).name) and Path(source).stem == target.stem
    return same_name and os.path.realpath(style_of(Path(source))) == os.path.realpath(style_of(target))


def place_png(made: Path, path: Path, placed: bool) -> None:
    """Write the position of a PNG beside it, as .aux.xml, where GDAL and QGIS read it: a PNG cannot store one.

    Areas and polygons take it from there as well. Without a position, the file of an earlier result is removed.

    Args:
        made: the PNG as GDAL wrote it, with its .aux.xml.
        path: its final path.
        placed: whether it has a position.
    """
    beside = category_names_of(path)
    if placed:
        write_text(beside, category_names_of(made).read_text(encoding="utf-8"))
    else:
        beside.unlink(missing_ok=True)


def write_category_names(path: Path, classes: ClassMap) -> None:
    """Write the names of the labels to an .aux.xml file, where GDAL and QGIS read them.

    A GeoTIFF itself cannot store them.
    """
    names = "".join(f"<Category>{escape(name)}</Category>" for name in classes.names)
    write_text(
        category_names_of(path),
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>\n',
    )
