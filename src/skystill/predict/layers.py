"""Which rasters a prediction writes, and what lies beside them."""

from pathlib import Path

from skystill.classes import VOID, ClassMap
from skystill.errors import SettingsError
from skystill.raster.beside import category_names_of, style_of
from skystill.raster.layer import Layer
from skystill.raster.opening import open_raster
from skystill.raster.output import RasterOutput, journal_of
from skystill.settings import RasterSettings


def is_raster_name(path: Path) -> bool:
    """Return whether a path is named as a class raster that a prediction writes."""
    return path.suffix.lower() in (".tif", ".tiff", ".png")


def wanted_layers(target: Path, settings: RasterSettings, classes: ClassMap) -> list[Layer]:
    """Return the rasters to write, the class raster first.

    Args:
        target: path of the class raster. Confidence and probabilities are named after it.
        settings: which rasters are written, and whether as Cloud Optimized GeoTIFFs.
        classes: names of the labels.

    Raises:
        SettingsError: the extension of `target` is not that of a known format, or it is .png with `cog`.
    """
    if not is_raster_name(target):
        raise SettingsError(f"{target}: name it .tif (GeoTIFF) or .png.")
    if settings.cog and target.suffix.lower() == ".png":
        raise SettingsError(f"{target} is a PNG and --cog asks for a GeoTIFF; name it .tif.")
    layers = [Layer("classes", target, ("class",), is_classes=True, cog=settings.cog)]
    if settings.confidence:
        path = target.with_name(f"{target.stem}-confidence.tif")
        layers.append(Layer("confidence", path, ("confidence",), cog=settings.cog))
    if settings.probabilities:
        path = target.with_name(f"{target.stem}-probabilities.tif")
        layers.append(Layer("probabilities", path, classes.names, cog=settings.cog))
    return layers


def written_rasters(source: str, target: Path, settings: RasterSettings, classes: ClassMap) -> list[tuple[str, Path]]:
    """Return everything that `Predictor.predict` writes, for `check_outputs`.

    Args:
        source: the raster that is predicted.
        target: path of the class raster.
        settings: which rasters are written.
        classes: names of the labels.

    Raises:
        SettingsError: as in `wanted_layers`.
    """
    layers = wanted_layers(target, settings, classes)
    found = [("class raster" if layer.is_classes else layer.name, layer.path) for layer in layers]
    found.append(("unfinished work", journal_of(target)))
    what = "position" if target.suffix.lower() == ".png" else "names of the classes"
    found.append((what, category_names_of(target)))
    if target.suffix.lower() != ".png":  # a.png may share the style of a.tif: both have the same classes
        found.append(("style for QGIS", style_of(target)))
    return [(f"{what} of {source}", path) for what, path in found]


def style_notes(output: RasterOutput) -> list[str]:
    """Return a note if no style for QGIS lies beside the class raster."""
    if output.styled:
        return []
    path = output.layers[0].path
    return [
        f"no style for QGIS lies beside {path}: QGIS would apply {style_of(path).name} to the source, too, which has "
        "the same folder and name. Choose another --out if QGIS should show the names of the classes."
    ]


def empty_notes(output: RasterOutput, why: str) -> list[str]:
    """Return a note if no pixel of the class raster has a label, which nobody may have expected.

    Args:
        output: whose rasters are complete.
        why: what the source lacks.
    """
    path = output.layers[0].path
    if output.holds_labels or _holds_labels(path):
        return []
    return [f"{path} holds no class: {why}."]


def _holds_labels(path: Path) -> bool:
    """Look for a label, until the first block that has one."""
    with open_raster(path) as raster:
        return any((raster.read(1, window=window) != VOID).any() for _, window in raster.block_windows(1))
