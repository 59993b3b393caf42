"""How well features are brought from the datum of their layer to that of a raster: a guess may be off by 200 m."""

from skystill.data.map_labels import MapLabels
from skystill.data.sheets import Sheets
from skystill.data.vectors import Layer

_GUESS = "Ballpark geographic offset"  # PROJ's words for taking degrees of one datum for those of another one
_SAME_M, _SAME_FLATTENING = 1.0, 0.01  # ellipsoids are the same to within these: WGS 84 and GRS 80 are
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
    """Return whether two CRSs have different ellipsoids. Degrees on a sphere are those on any ellipsoid."""
    import pyproj

    one, other = (crs.ellipsoid for crs in (pyproj.CRS(layer.crs), whole.ground.crs))
    if not one or not other or not one.inverse_flattening or not other.inverse_flattening:
        return False
    return bool(
        abs(one.semi_major_metre - other.semi_major_metre) > _SAME_M
        or abs(one.inverse_flattening - other.inverse_flattening) > _SAME_FLATTENING
    )
