"""Open a raster for a model: its bands, its resolution, and notes where it differs from the training images."""

from collections.abc import Sequence

from skystill.errors import SettingsError
from skystill.model.file import ModelInfo
from skystill.raster.array import ArrayRaster, ArraySource
from skystill.raster.band_names import wanted_bands
from skystill.raster.ground import snap_factor
from skystill.raster.remote_states import forget_kept
from skystill.raster.source import RasterSource
from skystill.settings import RasterSettings


def open_source(raster: str | ArrayRaster, settings: RasterSettings, info: ModelInfo) -> RasterSource:
    """Open a raster as a model is fed it, resampled to the resolution in the settings if there is one.

    Otherwise a note is added if the resolution differs from that of the model by a factor of 2 or more. Values are
    compared with those of the training images.

    Args:
        raster: anything that GDAL opens, or an array.
        settings: bands, scale and resolution.
        info: the model.

    Raises:
        DataError: the raster cannot be opened, or its values are not those that the model was trained on.
        SettingsError: the bands, the scale or the resolution cannot be used.
    """
    if isinstance(raster, str):
        forget_kept(raster)
    bands = wanted_bands(settings.bands)
    source = _source(raster, bands, settings, info)
    if settings.resolution is None:
        trained = info.resolution_m
        own = source.resolution_m if trained else None  # asking for it loads pyproj, which takes 10 MB
        if own and trained and not 0.5 < own / trained < 2:
            source.notes.append(
                f"{source.path} has {own:.3g} m per pixel, the model was trained at {trained:g} m; "
                f"--resolution {trained:g} resamples."
            )
    else:
        pixel = source.pixel_metres
        source.close()
        if pixel is None:
            raise SettingsError(
                f"{source.path} does not say how large its pixels are in metres: --resolution needs a CRS and a "
                "transform. Leave --resolution out, or write them into the file (gdal_edit, gdalwarp)."
            )
        factors = snap_factor(settings.resolution / pixel[0]), snap_factor(settings.resolution / pixel[1])
        source = _source(raster, bands, settings, info, factors)
    try:
        source.check_range()
    except BaseException:
        source.close()
        raise
    return source


def _source(
    raster: str | ArrayRaster,
    bands: Sequence[int | str] | None,
    settings: RasterSettings,
    info: ModelInfo,
    factors: tuple[float, float] = (1.0, 1.0),
) -> RasterSource:
    if isinstance(raster, ArrayRaster):
        return ArraySource(raster, bands, settings.scale_range, factors, info.input_spec)
    return RasterSource(raster, bands, settings.scale_range, factors, spec=info.input_spec)
