"""DataArrays of xarray as rasters, by the conventions of rioxarray. Needs xarray and rioxarray.

Only this module and `predict/dataarray` know xarray. Both import it inside functions.
"""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.transform import Affine

from skystill.errors import DataError, SettingsError, shortened
from skystill.raster.array import ArrayRaster
from skystill.raster.band_names import names_of
from skystill.raster.input_spec import InputSpec

DataArray = Any
"""A DataArray of xarray, whose types need not be installed."""

BAND_DIMENSIONS = ("band", "variable")
"""Names of the dimension of bands: that of rioxarray, and that of `Dataset.to_array`."""

_EVEN = 0.1  # pixels that coordinates may differ from even steps: float32 degrees do by about 0.05


def is_dataarray(value: object) -> bool:
    """Return whether a value is a DataArray. xarray is not imported for it."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(value, xarray.DataArray)


def open_dataarray(da: DataArray) -> ArrayRaster:
    """Return a DataArray as a raster.

    Args:
        da: dimensions of x, y and, for several bands, `band`, in any order. rioxarray says which dimensions x and y
            are, and which CRS, transform and nodata there are. Bands are named by `long_name`, one text for each, or by
            texts as the coordinate of the bands. Floats that rioxarray made of integers (`masked=True`) are taken as
            these integers, and NaN as pixels without a measurement.

    Raises:
        DataError: it is no DataArray, has other dimensions, no pixels, or values that are no numbers, or its band names
            contradict each other.
        SettingsError: xarray or rioxarray is not installed.
    """
    check_installed("rioxarray")
    if not is_dataarray(da):
        hint = ""
        if type(da).__name__ == "Dataset":
            hint = " Of a Dataset, make one: ds[['red', 'green', 'blue']].to_dataarray('band')."
        raise DataError(f"this is {type(da).__name__}, not a DataArray of xarray.{hint}")
    name = f"DataArray {shortened(str(da.name))}" if da.name else "the DataArray"
    y, x, band = _dimensions(da, name)
    kind = np.dtype(da.dtype)
    if kind.kind not in "uif":
        raise DataError(f"{name} holds {kind}; pixels are integers or floats. Convert them first: da.astype('uint8').")
    cube = da.transpose(band, y, x) if band is not None else da.expand_dims("band").transpose("band", y, x)
    height, width = da.sizes[y], da.sizes[x]
    stored, nodata = _stored_type(da), _nodata(da, name)
    values = cube.data if cube.chunks is not None else cube.values
    return ArrayRaster(
        name, values, height, width, _band_names(da, band, name), stored, nodata, da.rio.crs, transform_of(da)
    )


def check_installed(package: str) -> None:
    """Import a package of the extra `xarray`.

    Raises:
        SettingsError: it is not installed.
    """
    import importlib

    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise SettingsError(f'{error}: DataArrays need it. Install it with pip install "skystill[xarray]".') from error


def plain_dimensions(da: DataArray) -> tuple[str, str]:
    """Return the names of the dimensions of rows and columns, as rioxarray finds them.

    Raises:
        DataError: there are none.
    """
    from rioxarray.exceptions import RioXarrayError

    try:
        return da.rio.y_dim, da.rio.x_dim
    except RioXarrayError as error:
        raise DataError(
            f"which dimensions of {tuple(da.dims)} are rows and columns is not known: call them y and x, or say it "
            "with da.rio.set_spatial_dims(x_dim=..., y_dim=...)."
        ) from error


def _dimensions(da: DataArray, name: str) -> tuple[str, str, str | None]:
    """Return the dimensions of rows, columns and bands; the last is None if there is none."""
    y, x = plain_dimensions(da)
    others = [str(dim) for dim in da.dims if dim not in (y, x)]
    strange = [dim for dim in others if dim not in BAND_DIMENSIONS]
    if strange or len(others) > 1:
        sizes = ", ".join(f"{dim} ({da.sizes[dim]})" for dim in da.dims)
        wrong = (strange or others)[0]
        raise DataError(
            f"{name} has the dimensions {sizes}; an image has rows, columns and `band`. Take one index of the others, "
            f"da.isel({wrong}=0), or if {wrong} counts the bands, da.rename({wrong}='band')."
        )
    if not all(da.sizes.values()):
        raise DataError(f"{name} has no pixels ({', '.join(f'{dim} {size}' for dim, size in da.sizes.items())}).")
    return y, x, others[0] if others else None


def _stored_type(da: DataArray) -> np.dtype[Any]:
    """Return the data type of the values; that of the encoding if the array holds floats that were made of integers."""
    own: np.dtype[Any] = np.dtype(da.dtype).newbyteorder("=")
    found = da.encoding.get("rasterio_dtype", da.encoding.get("dtype"))
    scaled = da.encoding.get("scale_factor", 1) != 1 or da.encoding.get("add_offset", 0) != 0
    if own.kind != "f" or found is None or scaled:
        return own
    kind: np.dtype[Any] = np.dtype(found).newbyteorder("=")
    return kind if kind.kind in "ui" else own


def _nodata(da: DataArray, name: str) -> float | None:
    """Return the nodata value in the data type that is stored, or None."""
    encoded = da.encoding.get("_FillValue")
    try:
        found = da.rio.nodata if encoded is None else encoded
        value = None if found is None else float(found)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name} has a nodata value that is not one number ({error}).") from error
    converted = _stored_type(da) != np.dtype(da.dtype).newbyteorder("=")
    return None if converted and value is not None and np.isnan(value) else value


def _band_names(da: DataArray, band: str | None, name: str) -> tuple[str | None, ...]:
    """Return the name of each band, or None where it has none."""
    count = 1 if band is None else da.sizes[band]
    texts = da.attrs.get("long_name")
    listed = None if texts is None or isinstance(texts, str) else [str(text or "") for text in texts]
    if isinstance(texts, str) and count == 1:
        listed = [texts]
    coordinate = None if band is None or band not in da.coords else da.coords[band].values
    if coordinate is not None and coordinate.dtype.kind in "UOT":
        return tuple(str(text) for text in coordinate)
    if listed is None:
        return (None,) * count
    by_place = listed if len(listed) == count else None
    by_number = _by_number(listed, coordinate)
    if by_place and by_number and by_place != by_number:
        raise DataError(
            f"{name} has the bands {_joined(coordinate)} and the long_name {_joined(listed)}, which may count the "
            "bands of the array or those of its file. Name the bands themselves: da.assign_coords(band=['red', ...])."
        )
    if not (by_place or by_number):
        raise DataError(
            f"{name} has {count} bands, and its long_name {len(listed)} names ({_joined(listed)}). Name each band: "
            "da.assign_coords(band=['red', ...])."
        )
    return tuple(text or None for text in by_place or by_number or [])


def _by_number(listed: list[str], coordinate: npt.NDArray[Any] | None) -> list[str] | None:
    """Return the names of the bands of these numbers; None if the coordinate does not number bands of `listed`."""
    if coordinate is None or coordinate.dtype.kind not in "ui":
        return None
    numbers = [int(number) for number in np.atleast_1d(coordinate)]
    return [listed[number - 1] for number in numbers] if all(1 <= n <= len(listed) for n in numbers) else None


def _joined(values: Any) -> str:  # noqa: ANN401 - a list or an array
    return ", ".join(str(value) for value in values)


def transform_of(da: DataArray) -> Affine:
    """Return the transform of a DataArray: the identity if it has none, or if its coordinates have no even steps.

    The coordinates decide where there are any. rioxarray takes the steps of the transform in `spatial_ref`, which are
    those of the file, also if only every second pixel was kept.
    """
    y, x = plain_dimensions(da)
    own: Affine = da.rio.transform()
    if not own.is_rectilinear:
        return _turned(da, own)
    if y not in da.coords or x not in da.coords:
        return own
    columns, rows = _even_steps(da.coords[x].values), _even_steps(da.coords[y].values)
    if columns is None or rows is None or (own.is_identity and 0 in (columns[1], rows[1])):
        return Affine.identity()
    left, top = columns[0], rows[0]
    across, down = columns[1] or own.a, rows[1] or own.e  # one pixel has no step: that of `spatial_ref` is taken
    return _written(da, Affine(across, 0, left - across / 2, 0, down, top - down / 2))


def _turned(da: DataArray, own: Affine) -> Affine:
    """Return the transform of a rotated raster. rioxarray keeps the places of its pixels in `xc` and `yc`."""
    places = [da.coords[name].values for name in ("xc", "yc") if name in da.coords and da.coords[name].ndim == 2]
    if len(places) < 2 or min(places[0].shape) < 2 or places[0].shape != places[1].shape:
        return own
    (a, b, c), (d, e, f) = ((p[0, 1] - p[0, 0], p[1, 0] - p[0, 0], p[0, 0]) for p in places)
    return _written(da, Affine(a, b, c - (a + b) / 2, d, e, f - (d + e) / 2))


def has_even_steps(da: DataArray) -> bool:
    """Return whether the coordinates of rows and columns have even steps, or there are none."""
    dims = [dim for dim in plain_dimensions(da) if dim in da.coords]
    return all(_even_steps(da.coords[dim].values) is not None for dim in dims)


def _even_steps(values: npt.NDArray[Any]) -> tuple[float, float] | None:
    """Return the first value and the step of a coordinate; the step of one value is 0. None if steps are not even."""
    if values.ndim != 1 or values.dtype.kind not in "uif":
        return None
    places = values.astype(np.float64)
    if len(places) == 1:
        return float(places[0]), 0.0
    step = (places[-1] - places[0]) / (len(places) - 1)
    off = np.abs(places - (places[0] + step * np.arange(len(places))))
    even = bool(np.isfinite(places).all()) and step != 0 and off.max() <= _EVEN * abs(step)
    return (float(places[0]), float(step)) if even else None


def _written(da: DataArray, found: Affine) -> Affine:
    """Return the transform in `spatial_ref` where it is `found` but for rounding, otherwise `found`."""
    text = da.coords[da.rio.grid_mapping].attrs.get("GeoTransform") if da.rio.grid_mapping in da.coords else None
    numbers = [] if text is None else [float(number) for number in str(text).split()]
    if len(numbers) != 6:
        return found
    kept = Affine.from_gdal(*numbers)
    scale = max(map(abs, (found.a, found.b, found.d, found.e)))
    return kept if kept.almost_equals(found, precision=1e-6 * scale) else found


def check_band_places(da: DataArray, raster: ArrayRaster, spec: InputSpec) -> None:
    """Refuse bands without names whose places do not say which bands they are. Not needed if the user named them.

    Args:
        da: the DataArray.
        raster: the same as a raster.
        spec: what the network is fed.

    Raises:
        SettingsError: the coordinate numbers the bands otherwise than their places, and the network is fed values; or
            there are four bands, of which the last may be transparency: rioxarray does not say so, as GDAL does.
    """
    if any(names_of(raster)):
        return
    mend = "Name them, da.assign_coords(band=['red', 'green', ...]), or give `bands`, such as"
    if spec.is_colors and raster.count == 4 and np.dtype(da.dtype) in (np.uint8, np.uint16):
        raise SettingsError(
            f"{raster.name} has four bands without names; the network is fed {spec.labels}, and the fourth may be "
            f"transparency or infrared. {mend} '1,2,3'. Transparency is called alpha."
        )
    band = next((dim for dim in da.dims if dim in BAND_DIMENSIONS and dim in da.coords), None)
    numbers = [] if band is None else da.coords[band].values.tolist()
    if numbers and numbers != list(range(1, raster.count + 1)) and not spec.is_colors:
        raise SettingsError(
            f"{raster.name} has no names of bands, and numbers them {_joined(numbers)}; the network is fed "
            f"{spec.labels}, by name or by place. {mend} '2,1': the place of each in the array, from 1 on."
        )
