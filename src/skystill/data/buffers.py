"""Grow features by metres on the ground, in pixels of a raster that may be turned, stretched or sheared."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.errors import DataError
from skystill.raster.ground import Ground

Geometries = npt.NDArray[np.object_]
Floats = npt.NDArray[np.float64]


def grown(geometries: Geometries, ground: Ground, buffer_m: float, path: Path) -> Geometries:
    """Return geometries that are grown, measured on the plane that touches the ground at the middle of each.

    Args:
        geometries: in columns and rows of a raster.
        ground: that of the raster.
        buffer_m: metres by which they grow.
        path: their file, for messages.

    Raises:
        DataError: the CRS of the raster has no metres there.
    """
    import shapely

    middles = shapely.get_coordinates(shapely.centroid(geometries))
    frames = np.array([ground.pixel_frame(x, y) for x, y in middles]).reshape(-1, 3)
    if not (np.isfinite(frames).all() and (frames[:, [0, 2]] > 0).all()):
        raise DataError(f"{path}: metres have no meaning at a feature that has a buffer, so far off it lies.")

    def to_plane(points: Floats) -> Floats:
        across, along, down = frames[_owners(geometries)].T
        return np.stack([points[:, 0] * across + points[:, 1] * along, points[:, 1] * down], axis=1)

    round_ = shapely.buffer(shapely.transform(geometries, to_plane), buffer_m)

    def to_pixels(points: Floats) -> Floats:
        across, along, down = frames[_owners(round_)].T
        rows = points[:, 1] / down
        return np.stack([(points[:, 0] - rows * along) / across, rows], axis=1)

    return np.asarray(shapely.transform(round_, to_pixels), object)


def _owners(geometries: Any) -> npt.NDArray[np.intp]:  # noqa: ANN401 - shapely's array
    """Return for each point of geometries which of them it belongs to."""
    import shapely

    return np.repeat(np.arange(len(geometries)), shapely.get_num_coordinates(geometries))
