"""The spread of the values of a raster of more than 8 bits, by which they become colours.

It is found in samples from all over the raster, and is kept: to read them takes ten times as long as to read a crop.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from skystill.raster.colors import Samples
from skystill.raster.states import FileStates

_MOST_KEPT = 4096
_kept: dict[tuple[object, ...], tuple[float, float]] = {}
_lock = threading.Lock()


def kept_spread(
    path: str,
    states: FileStates,
    read_samples: Samples,
    bands: Sequence[int],
    alpha: int | None,
) -> tuple[float, float]:
    """Return the 2nd and the 98th percentile of samples, which differ by at least 1 if those do not.

    Args:
        path: the raster.
        states: its files. They are read again once one of them has changed.
        read_samples: reads the samples.
        bands: numbers of the bands.
        alpha: number of the band of transparency, or None.
    """
    if not states:  # on a server
        return _spread_of(read_samples(bands, alpha))
    key = path, states.digest, tuple(bands), alpha
    with _lock:
        found = _kept.get(key)
    if found is None:
        found = _spread_of(read_samples(bands, alpha))
        with _lock:
            _kept[key] = found
            if len(_kept) > _MOST_KEPT:
                del _kept[next(iter(_kept))]
    return found


def _spread_of(samples: "np.ma.MaskedArray[Any, Any]") -> tuple[float, float]:
    values = samples.compressed()
    low, high = (0.0, 1.0) if not values.size else np.percentile(values, (2, 98))
    return float(low), float(high if high > low else low + 1)
