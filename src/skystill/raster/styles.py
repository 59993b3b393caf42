"""Styles for QGIS: colours and names of the classes, as QGIS itself writes them into .qml files.

QGIS applies NAME.qml when it opens the raster NAME.tif or the vector file NAME.geojson. One document serves both,
because QGIS reads `pipe` for a raster and `renderer-v2` for a vector layer.
"""

from functools import lru_cache
from xml.etree import ElementTree as xml

from skystill.classes import ClassMap, hex_color

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_VERSION = "3.22.0"  # the oldest version of QGIS that knows all elements below
_POLYGON = "2"  # QGIS's number of this geometry type


@lru_cache(maxsize=4)  # thousands of rasters of the same classes may be written
def style_document(classes: ClassMap, raster: bool = True) -> str:
    """Return a QML document for the polygons of a class raster and, with `raster`, for the raster, too.

    A raster gets a legend of exactly the classes. Its colour table alone would give 256 entries, because a TIFF cannot
    hold a shorter one. Polygons are coloured by their field `class`.

    Args:
        classes: names and colours of the labels.
        raster: whether the document is for a raster, too.
    """
    root = xml.Element("qgis", version=_VERSION, styleCategories="Symbology")
    if raster:
        _add_paletted(root, classes)
    _add_categorized(root, classes)
    for name, text in (("blendMode", "0"), ("featureBlendMode", "0"), ("layerGeometryType", _POLYGON)):
        xml.SubElement(root, name).text = text
    xml.indent(root, " ")
    return _DOCTYPE + xml.tostring(root, encoding="unicode") + "\n"


def _add_paletted(root: xml.Element, classes: ClassMap) -> None:
    pipe = xml.SubElement(root, "pipe")
    renderer = xml.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    xml.SubElement(renderer, "rasterTransparency")
    palette = xml.SubElement(renderer, "colorPalette")
    for label, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        entry = {"value": str(label), "color": hex_color(color).lower(), "alpha": "255", "label": name}
        xml.SubElement(palette, "paletteEntry", entry)


def _add_categorized(root: xml.Element, classes: ClassMap) -> None:
    renderer = xml.SubElement(
        root,
        "renderer-v2",
        type="categorizedSymbol",
        attr="class",
        symbollevels="0",
        enableorderby="0",
        forceraster="0",
    )
    categories = xml.SubElement(renderer, "categories")
    symbols = xml.SubElement(renderer, "symbols")
    for label, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        xml.SubElement(categories, "category", symbol=str(label), value=name, label=name, render="true", type="string")
        symbol = xml.SubElement(
            symbols, "symbol", type="fill", name=str(label), alpha="1", clip_to_extent="1", force_rhr="0"
        )
        fill = xml.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
        values = {"color": ",".join(map(str, (*color, 255))), "style": "solid", "outline_style": "no"}
        options = xml.SubElement(fill, "Option", type="Map")
        for key, value in values.items():
            xml.SubElement(options, "Option", name=key, value=value, type="QString")
        for key, value in values.items():  # read by QGIS before 3.26, which does not know Option here
            xml.SubElement(fill, "prop", k=key, v=value)
