"""The weights with which neighbouring tiles are blended in their overlap."""

from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.tiling import Grid, Tile


def blending_weights(tile: Tile, grid: Grid) -> npt.NDArray[np.float32]:
    """Return the blending weights of a tile, (H, W) float32.

    They are 1 in the middle and fall to 0 over the inner half of the overlap, as half a cosine. The weights of all
    tiles that cover a pixel add up to 1, so no division is needed afterwards.
    """
    rows = _ramp(tile.read_top, tile.read_bottom, tile.top, tile.bottom, grid.margin, grid.height)
    columns = _ramp(tile.read_left, tile.read_right, tile.left, tile.right, grid.margin, grid.width)
    weights = np.empty((len(rows), len(columns)), np.float32)
    np.multiply(rows[:, None], columns[None, :], out=weights, dtype=np.float64, casting="same_kind")
    return weights


def _ramp(start: int, end: int, core_start: int, core_end: int, margin: int, size: int) -> npt.NDArray[np.float64]:
    at = np.arange(start, end) + 0.5
    weights = np.ones(end - start)
    # Only over half of the margin: farther out, a pixel has too little context in this tile.
    if margin and core_start > 0:
        weights *= _rise((at - core_start) / (margin / 2))
    if margin and core_end < size:
        weights *= 1 - _rise((at - core_end) / (margin / 2))
    return weights


def _rise(at: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Return 0 up to -1, 1 from 1 on, and half a cosine in between."""
    return np.asarray(0.5 + 0.5 * np.sin(np.clip(at, -1, 1) * (np.pi / 2)))
