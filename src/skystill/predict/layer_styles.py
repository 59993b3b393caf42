"""The table `layer_styles` of a GeoPackage, from which QGIS takes the style of a layer by itself."""

from pathlib import Path

import numpy as np
import pyogrio

from skystill.errors import DiskFull

_TEXTS = {
    "f_table_catalog": "",
    "f_table_schema": "",  # QGIS looks for an empty text and not for NULL
    "f_table_name": "",
    "f_geometry_column": "geom",  # GDAL's name of the column
    "styleName": "",
    "styleQML": "",
    "styleSLD": "",
}

_UTC = 100  # GDAL's number of this time zone. Without it, GDAL warns of the time whenever it reads the style


def add_layer_style(path: Path, layer: str, document: str) -> None:
    """Add the default style of a layer to a GeoPackage.

    The columns are those that QGIS creates when it saves a style. GDAL registers the table among the contents.

    Args:
        path: the GeoPackage.
        layer: name of the layer.
        document: the style in QML.

    Raises:
        DiskFull: the file cannot be written.
    """
    texts = _TEXTS | {"f_table_name": layer, "styleName": layer, "styleQML": document}
    columns = {
        **{name: np.array([text], object) for name, text in texts.items()},
        "useAsDefault": np.array([True]),
        "description": np.array(["colours of the classes"], object),
        "owner": np.array([""], object),
        "ui": np.array([None], object),
        "update_time": np.array(["now"], "datetime64[ms]"),
    }
    try:
        pyogrio.raw.write(
            path,
            None,
            list(columns.values()),
            np.array(list(columns)),
            layer="layer_styles",
            driver="GPKG",
            layer_options={"FID": "id", "DATETIME_PRECISION": "MILLISECOND"},
            gdal_tz_offsets={"update_time": np.array([_UTC])},
        )
    except (RuntimeError, OSError) as error:
        raise DiskFull(path, error) from error
