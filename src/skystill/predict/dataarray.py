"""`predict_dataarray`: labels of a DataArray of xarray, lazily if it is one of dask. Needs `skystill[xarray]`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from skystill.classes import ClassMap, Labels
from skystill.errors import SettingsError
from skystill.predict.opening import open_source
from skystill.predict.plan import Plan
from skystill.predict.predictor import Predictor
from skystill.progress import OnProgress, Progress, ignore_progress, report_notes
from skystill.raster.array import ArraySource
from skystill.raster.dataarray import (
    DataArray,
    check_band_places,
    check_installed,
    has_even_steps,
    open_dataarray,
    plain_dimensions,
)
from skystill.raster.output import NODATA
from skystill.raster.source import Planes, Valid, gdal_environment
from skystill.settings import ArraySettings, RasterSettings, build_settings
from skystill.tiling import Unit

if TYPE_CHECKING:
    import xarray as xr

_CHUNK_ROWS = 2048  # of a lazy result; of smaller chunks, more rows of the array would be read twice


@dataclass(frozen=True)
class _Prediction:
    """What the tasks of one lazy prediction share. It can be pickled, for schedulers of several processes.

    Args:
        predictor: the model file.
        source: the array, without its values.
        plan: how it is cut.
        settings: test-time views and blending.
    """

    predictor: Predictor
    source: ArraySource
    plan: Plan
    settings: RasterSettings

    def labels(self, units: Sequence[Unit], source: ArraySource, on_progress: OnProgress = ignore_progress) -> Labels:
        """Return the labels of units that make up a rectangle."""
        top, left = units[0].top, units[0].left
        found = np.full((units[-1].bottom - top, units[-1].right - left), NODATA, np.uint8)
        stream, done = self.predictor.stream(source, self.plan, self.settings, ("classes",)), 0
        for unit, arrays in stream.compute({unit.index for unit in units}):
            here = np.s_[unit.top - top : unit.bottom - top, unit.left - left : unit.right - left]
            found[here] = arrays["classes"][0]
            done += found[here].size
            on_progress(Progress(source.path, done, found.size, "pixels"))
        return found

    def labels_of_window(self, values: npt.NDArray[Any], units: Sequence[Unit], top: int, left: int) -> Labels:
        """Return the labels of units from the values of the window that they need, whose first pixel is given."""
        return self.labels(units, self.source.within(values, top, left))


def predict_dataarray(
    da: "xr.DataArray",
    model: Predictor | Path | str,
    *,
    on_progress: OnProgress = ignore_progress,
    **settings: object,
) -> "xr.DataArray":
    """Return the labels of a DataArray: those that `skystill predict` writes for the same raster.

    Bands, data types, nodata and resolution are read by the rules for rasters. rioxarray says which dimensions are rows
    and columns, and what the CRS, the transform and nodata are. Bands have the names in `long_name`, one for each, or
    in the coordinate `band`; the numbers of bands in the settings are their places in the array, from 1 on. A mask is
    NaN, as of `rioxarray.open_rasterio(path, masked=True)`.

    A DataArray of dask stays one: each chunk of the result reads the pixels that it needs when it is computed, whatever
    the chunks of the array are. Only where the rules for rasters need samples (values of more than 8 bits), sixteen
    windows of 256 x 256 pixels are computed at once.

    Args:
        da: dimensions of rows, columns and `band`, in any order; without `band` only for a network of one band.
        model: a model file, or a `Predictor`, which other programs' files need for their classes.
        on_progress: receives a `Note` for everything that the user should know and, if the array is one of numpy, a
            `Progress` in pixels.
        settings: fields of `skystill.settings.ArraySettings`, such as `bands`, `mode`, `views` and `resolution`. Bands
            and scale may be lists.

    Returns:
        (y, x) uint8, 0 to C - 1, and 255 where there is no data (`_FillValue`), with the coordinates, CRS and transform
        of the array. The attributes `class_names` and `class_colors` describe the labels, and `notes` holds the texts
        that `on_progress` received.

    Raises:
        DataError: it is no DataArray, its dimensions or values are not those of an image, or its values are not those
            that the model was trained on.
        SettingsError: the bands, the tiles, the scale or the resolution cannot be used, or xarray or rioxarray is not
            installed.
        ModelFileError: the model file cannot be opened, or fails on a tile. A lazy result raises this later.
    """
    texts = {name: ",".join(map(str, one)) if isinstance(one, list | tuple) else one for name, one in settings.items()}
    chosen = RasterSettings(**build_settings(ArraySettings, texts).model_dump())
    predictor = model if isinstance(model, Predictor) else Predictor(model, runtime="auto")
    with gdal_environment():
        source = _open(da, predictor, chosen)
        even = has_even_steps(da)
        notes = [*predictor.notes, *source.notes]
        if not even:
            notes.append(f"{source.path}: its coordinates have no even steps, so the result has no transform.")
        report_notes(notes, on_progress)
        plan = predictor.plan(source, chosen)
        shared = _Prediction(predictor, source.within(None), plan, chosen)
        if da.chunks is None:
            labels: Any = shared.labels(list(plan.grid.units()), source, on_progress)
        else:
            labels = _lazy_labels(shared, source)
    return _described(da, labels, source, predictor.classes, notes)


def read_dataarray(da: DataArray, predictor: Predictor) -> tuple[Planes, Valid | None]:
    """Return all pixels of a DataArray as a network is fed them.

    Args:
        da: the DataArray; one of dask is computed.
        predictor: the network.

    Returns:
        planes (B, H, W) in the data type of the spec, and valid (H, W) bool, or None if all pixels are valid.

    Raises:
        DataError, SettingsError: as `predict_dataarray`.
    """
    with gdal_environment():
        source = _open(da, predictor, RasterSettings())
        return source.read(0, source.height, 0, source.width)


def _open(da: DataArray, predictor: Predictor, settings: RasterSettings) -> ArraySource:
    raster = open_dataarray(da)
    settings = predictor.with_own_bands(settings)
    spec = predictor.info.input_spec
    if len(spec) > 1 and da.ndim == 2:
        raise SettingsError(
            f"{raster.name} has no dimension `band`, and the network is fed {len(spec)} bands: {spec.labels}. Of a "
            "grey image for a network of colours, make one band: da.expand_dims('band')."
        )
    if settings.bands is None:
        check_band_places(da, raster, spec)
    source = open_source(raster, settings, predictor.info)
    assert isinstance(source, ArraySource)  # noqa: S101 - of a raster that is an array
    return source


def _lazy_labels(shared: _Prediction, source: ArraySource) -> DataArray:
    """Return a dask array of labels whose chunks are whole units of the plan."""
    check_installed("dask.array")
    import dask
    import dask.array

    grid = shared.plan.grid
    by_place = {(unit.row, unit.lane): unit for unit in grid.units()}
    rows, lanes = (1 + max(place[axis] for place in by_place) for axis in (0, 1))
    together = max(1, _CHUNK_ROWS // (by_place[0, 0].bottom - by_place[0, 0].top))
    # A name of its own: what a file or an array holds may change, and its name stays.
    common = dask.delayed(shared, name=f"skystill-{dask.base.tokenize(object())}", traverse=False)

    def chunk(first: int, lane: int) -> DataArray:
        units = [by_place[row, lane] for row in range(first, min(rows, first + together))]
        above = by_place[max(0, first - int(grid.blend)), lane]  # blended tiles reach into the next unit
        reads = [unit.read for unit in (above, *units)]
        left, right = units[0].read[2:]
        needed = min(read[0] for read in reads), max(read[1] for read in reads), left, right
        values, top, left = source.values_for(*needed)
        found = common.labels_of_window(values, units, top, left)
        shape = units[-1].bottom - units[0].top, units[0].right - units[0].left
        return dask.array.from_delayed(found, shape, np.uint8)

    return dask.array.block([[chunk(first, lane) for lane in range(lanes)] for first in range(0, rows, together)])


def _described(da: DataArray, labels: Any, source: ArraySource, classes: ClassMap, notes: Sequence[str]) -> DataArray:  # noqa: ANN401
    """Return labels as a DataArray with the place of the array, and what the labels mean."""
    import xarray as xr

    y, x = plain_dimensions(da)
    resampled = labels.shape != (da.sizes[y], da.sizes[x])
    to, kept = source.transform, {name: coord for name, coord in da.coords.items() if set(coord.dims) <= {y, x}}
    kept.pop(da.rio.grid_mapping, None)
    if resampled:
        kept = {name: coord for name, coord in kept.items() if not coord.dims}
    if resampled and to.is_rectilinear:
        kept |= {x: to.c + to.a * (np.arange(source.width) + 0.5), y: to.f + to.e * (np.arange(source.height) + 0.5)}
    attributes = {
        "long_name": "class",
        "class_names": list(classes.names),
        "class_colors": ["#{:02X}{:02X}{:02X}".format(*color) for color in classes.colors],
        **({"notes": list(notes)} if notes else {}),
    }
    found: DataArray = xr.DataArray(labels, dims=(y, x), coords=kept, name="class", attrs=attributes)
    found = found.rio.set_spatial_dims(x_dim=x, y_dim=y).rio.write_nodata(NODATA)
    if source.crs is not None:
        found = found.rio.write_crs(source.crs)
    if not to.is_identity:
        found = found.rio.write_transform(to)
    points = da.rio.get_gcps()
    return found.rio.write_gcps(points, source.crs) if points else found
