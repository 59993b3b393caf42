"""How well features are brought from the datum of their layer to that of a raster: a guess may be off by 200 m."""

from typing import Any

from skystill.data.map_labels import MapLabels
from skystill.data.sheets import Sheets
from skystill.data.vectors import Layer

_GUESS = "Ballpark geographic offset"  # PROJ's words for taking degrees of one datum for those of another one
_GRS_80_M, _GRS_80_FLATTENING = 6378137.0, 298.257  # of GRS 80 and WGS 84
_SAME_M, _SAME_FLATTENING = 1.0, 0.01  # ellipsoids are the same to within these
_COARSE_M = 1.0  # an accuracy that is not worth a note, whatever the pixels are


def check_datums(sheets: Sheets, layer: Layer) -> tuple[list[str], list[str]]:
    """Return problems and notes on how a layer is brought to the CRSs of the rasters."""
    problems, notes = [], []
    first_of = {one.ground.shifted: one for one in reversed(sheets.opened.values())}
    for whole in reversed(first_of.values()):
        how, accuracy_m = _operation(whole, layer)
        pixels = accuracy_m / min(whole.pixel_m)
        if _GUESS in how and _differ(whole, layer):
            problems.append(
                f"{layer}: PROJ knows no way from the datum of its CRS to that of {whole.image.name} ({how}), so that "
                "features may be 200 m from where they belong. Bring them to the CRS of the raster with the right "
                "datum: ogr2ogr -s_srs with +towgs84 or a grid (projsync) -t_srs, or -a_srs with a CRS that names its "
                "datum."
            )
        elif accuracy_m > _COARSE_M and pixels > 1:
            notes.append(
                f"{layer}: features come to the CRS of {whole.image.name} to within {accuracy_m:g} m, or {pixels:,.0f} "
                f"pixels ({how}). Look whether they fit."
            )
    return problems, notes


def _operation(whole: MapLabels, layer: Layer) -> tuple[str, float]:
    """Return in PROJ's words how places in the middle of a raster are brought there, and to within how many metres.

    The accuracy is -1 if PROJ does not know it.
    """
    import pyproj

    transformer = whole.transformer(layer)
    middle = whole.transform * (whole.width / 2, whole.height / 2)
    transformer.transform(*transformer.transform(*middle, direction="INVERSE"))
    try:
        used = transformer.get_last_used_operation()
    except pyproj.exceptions.ProjError:  # nothing is to be done
        used = transformer
    return str(used.description), float(used.accuracy)


def _differ(whole: MapLabels, layer: Layer) -> bool:
    """Return whether two CRSs have different datums, of which one is far from WGS 84.

    Many datums share an ellipsoid, such as DHDN and MGI, and lie 75 m apart. Those on GRS 80 or WGS 84 are within
    metres of each other. Degrees on a sphere are those on any ellipsoid.
    """
    import pyproj

    both = pyproj.CRS(layer.crs), whole.ground.crs
    if any(not crs.ellipsoid or not crs.ellipsoid.inverse_flattening for crs in both):
        return False
    names = {crs.datum.name for crs in both if crs.datum is not None}
    return not all(_is_modern(crs) for crs in both) and (len(names) > 1 or any(map(_is_unknown, names)))


def _is_modern(crs: Any) -> bool:  # noqa: ANN401 - from pyproj, which is imported where it is used
    own = crs.ellipsoid
    return bool(
        abs(own.semi_major_metre - _GRS_80_M) < _SAME_M
        and abs(own.inverse_flattening - _GRS_80_FLATTENING) < _SAME_FLATTENING
    )


def _is_unknown(datum: str) -> bool:
    return datum.lower().startswith("unknown")
