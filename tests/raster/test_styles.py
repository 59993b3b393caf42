"""The styles for QGIS: what QGIS reads in them."""

from xml.etree import ElementTree as xml

from skystill.classes import DUBAI, ClassMap
from skystill.raster.styles import style_document

TWO = ClassMap(("Bauten & <Dach>", 'Weg "A"'), ((1, 2, 3), (255, 0, 16)))


def test_a_raster_has_a_legend_of_exactly_its_classes() -> None:
    root = xml.fromstring(style_document(TWO))
    assert root.tag == "qgis"
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None and (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    assert [entry.attrib for entry in renderer.iterfind("colorPalette/paletteEntry")] == [
        {"value": "0", "color": "#010203", "alpha": "255", "label": "Bauten & <Dach>"},
        {"value": "1", "color": "#ff0010", "alpha": "255", "label": 'Weg "A"'},
    ]


def test_polygons_have_the_color_of_their_field_class() -> None:
    for raster in (True, False):
        root = xml.fromstring(style_document(DUBAI, raster))
        assert (root.find("pipe") is not None) == raster
        assert root.findtext("layerGeometryType") == "2"
        renderer = root.find("renderer-v2")
        assert renderer is not None and (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "class")
        found = {}
        for category in renderer.iterfind("categories/category"):
            symbol = renderer.find(f"symbols/symbol[@name='{category.get('symbol')}']")
            assert symbol is not None and (symbol.get("type"), category.get("render")) == ("fill", "true")
            assert category.get("label") == category.get("value")
            color = symbol.find("layer[@class='SimpleFill']/Option/Option[@name='color']")
            older = symbol.find("layer/prop[@k='color']")
            assert color is not None and older is not None and color.get("value") == older.get("v")
            found[category.get("value")] = tuple(map(int, str(color.get("value")).split(",")))
        assert found == {name: (*color, 255) for name, color in zip(DUBAI.names, DUBAI.colors, strict=True)}
