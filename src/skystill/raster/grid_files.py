"""Grid files that a CRS names: PROJ opens whatever path stands there, so that a CRS may only name those of PROJ."""

import re
from typing import Any

_PARAMETERS = r"\b(?:nadgrids|geoidgrids|grids|xy_grids|z_grids|model|file|init)\s*=\s*[\"']?(?P<value>[^\s\"'|]*)"
_ELEMENTS = r"(?:PARAMETERFILE\s*[\[(]\s*\"[^\"]*\"|EXTENSION\s*[\[(]\s*\"PROJ4_GRIDS\")\s*,\s*\"(?P<file>[^\"]*)\""
_NAMED = re.compile(f"{_PARAMETERS}|{_ELEMENTS}", re.IGNORECASE)
_MEMBERS = re.compile(r"\"value\"\s*:\s*\"([^\"]*)\"", re.IGNORECASE)  # of JSON


def path_in_crs(text: str) -> str | None:
    """Return the first path, or address, of a grid file that a CRS names; None if it names those of PROJ alone.

    Args:
        text: the CRS, as WKT, as a text of PROJ, or as JSON.
    """
    found = (one["value"] or one["file"] or "" for one in _NAMED.finditer(text))
    members = (one[1] for one in _MEMBERS.finditer(text))
    return next((name for name in (*found, *members) if "/" in name or "\\" in name), None)


def path_in_crs_of(*crs: Any) -> str | None:  # noqa: ANN401 - rasterio carries no types
    """Return the same for CRSs of rasterio, of which some may be None."""
    return path_in_crs(" ".join(one.to_wkt(version="WKT2_2019") for one in crs if one))
