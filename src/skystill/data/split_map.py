"""The split of a map as GeoJSON, to look at in a GIS."""

from itertools import pairwise

import numpy as np

from skystill.data.map_labels import MapLabels, open_map
from skystill.data.maps import block_of
from skystill.data.split import PARTS, Split
from skystill.raster.picture import Bounds

_SIDES = 8  # points on each side of a window: a straight line in the raster is a curve in longitude and latitude


def split_map(split: Split) -> dict[str, object]:
    """Return the windows of a split as GeoJSON (RFC 7946), with their part, key and block.

    Args:
        split: of a map.
    """
    features = [
        {
            "type": "Feature",
            "properties": {"part": part, "key": pair.key, "block": block_of(pair.key)},
            "geometry": {"type": "Polygon", "coordinates": [_ring(open_map(pair.image, pair.mask), pair.bounds)]},
        }
        for part in PARTS
        for pair in getattr(split, part)
        if pair.bounds
    ]
    return {"type": "FeatureCollection", "features": features}


def _ring(whole: MapLabels, bounds: Bounds) -> list[list[float]]:
    """Return the corners of a window, and points between, in longitude and latitude, counter-clockwise on a map."""
    top, bottom, left, right = bounds
    steps = np.arange(_SIDES) / _SIDES
    down, across = steps * (bottom - top), steps * (right - left)
    fixed = np.ones(_SIDES)
    columns = np.concatenate([left * fixed, left + across, right * fixed, right - across, [left]])
    rows = np.concatenate([top + down, bottom * fixed, bottom - down, top * fixed, [top]])
    longitudes, latitudes = whole.ground.lonlat(columns, rows)
    ring = [[round(float(x), 9), round(float(y), 9)] for x, y in zip(longitudes, latitudes, strict=True)]
    turn = sum((x1 - x0) * (y1 + y0) for (x0, y0), (x1, y1) in pairwise(ring))
    return ring[::-1] if turn > 0 else ring
