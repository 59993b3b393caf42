"""Images that are given as arrays, as a network is fed them, and their tiles."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from skystill.errors import DataError
from skystill.model.engine import Infer
from skystill.raster.dataarray import DataArray, is_dataarray
from skystill.raster.source import Planes, Valid
from skystill.tiling import Grid

if TYPE_CHECKING:
    from skystill.predict.predictor import Predictor

Image = npt.NDArray[Any] | DataArray
"""(H, W, B) in the data type of a spec, or (H, W) of one band; or a DataArray of xarray."""


def planes_of(image: Image, predictor: "Predictor") -> tuple[Planes, Valid | None]:
    """Return an image as a network is fed it.

    Args:
        image: an array of exactly the bands and the data type of the network, whose mask counts if it has one; or a
            DataArray, whose bands, data type
            and nodata are read by the rules for rasters.
        predictor: the network.

    Returns:
        planes (B, H, W), and valid (H, W) bool, or None if all pixels are valid.

    Raises:
        DataError: the image is not such an array, or it has no pixels.
        SettingsError: the DataArray lacks a band.
    """
    if is_dataarray(image):
        from skystill.predict.dataarray import read_dataarray

        return read_dataarray(image, predictor)
    spec = predictor.info.input_spec
    cube = image[..., None] if isinstance(image, np.ndarray) and image.ndim == 2 and len(spec) == 1 else image
    if not isinstance(cube, np.ndarray) or not spec.takes(cube):
        what = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
        raise DataError(
            f"an image must be (H, W, {len(spec)}) {spec.dtype} with pixels ({spec.labels}); this is {what}."
        )
    if isinstance(cube, np.ma.MaskedArray):
        valid: Valid = np.logical_not(np.ma.getmaskarray(cube).any(axis=2))
        cube = np.ma.getdata(cube) if spec.is_colors else np.where(valid[..., None], np.ma.getdata(cube), spec.fill)
        return cube.transpose(2, 0, 1), None if valid.all() else valid
    return cube.transpose(2, 0, 1), None


def logits_of_tiles(planes: Planes, infer: Infer, grid: Grid) -> Iterator[tuple[Any, npt.NDArray[np.float32]]]:
    """Yield the place of the core of each tile of a grid, and the logits (C, H, W) there.

    Args:
        planes: (B, H, W).
        infer: runs the network.
        grid: how the image is cut.
    """
    for unit in grid.units():
        for tile in unit.tiles:
            yield tile.place, infer(planes[:, *tile.window])[:, *tile.inside][:, *tile.core]
