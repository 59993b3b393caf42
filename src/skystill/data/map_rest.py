"""The part of a map without labels: windows that may teach a student through its teacher."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rasterio.enums import MaskFlags

from skystill.classes import VOID
from skystill.data.blocks import GAP, cut_away
from skystill.data.check import DataCheck
from skystill.data.split import Split
from skystill.data.unlabeled import ImageWindow
from skystill.progress import OnProgress, ignore_progress, tracked
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.opening import open_raster
from skystill.raster.source import gdal_environment


def count_rest(check: DataCheck) -> int:
    """Return how many pixels of a map have data, as far as they were read, and no label. Of pairs there are none."""
    return sum(int(record.counts[VOID]) - record.nodata for record in check.records if record.pair.is_window)


def find_rest(
    check: DataCheck, split: Split, spec: InputSpec = RGB, on_progress: OnProgress = ignore_progress
) -> list[ImageWindow]:
    """Return the windows of a map in which pixels have no label, cut so that they keep away from validation and test.

    Windows without a pixel of data are left out. Of a window that is labelled in part, all of it is returned: its
    labelled part teaches in training, too.

    Args:
        check: the content of the map.
        split: its split. Its gap is kept, and at least `GAP`.
        spec: what the student is fed.
        on_progress: called with a `Progress` for each window that is read.
    """
    down, across = (max(GAP, side) for side in split.gap or (0, 0))
    found = []
    for record in check.records:
        pair = record.pair
        if pair.bounds is None or int(record.counts[VOID]) <= record.nodata:
            continue
        held_out = [one.bounds for one in (*split.validation, *split.test) if one.bounds and one.image == pair.image]
        left = cut_away(pair.bounds, held_out, (down, across))
        found += [ImageWindow(pair.image, left)] if left else []
    return _with_data(found, spec, on_progress)


def _with_data(windows: Sequence[ImageWindow], spec: InputSpec, on_progress: OnProgress) -> list[ImageWindow]:
    """Return the windows that hold a valid pixel. Those of rasters in which all pixels are valid are not read."""
    full = {path for path in {window.path for window in windows} if _is_full(path)}
    looked = [window for window in windows if window.path not in full]
    empty = {
        window
        for window in tracked(looked, "looking for data in windows without labels", on_progress)
        if not window.read(spec)[1].any()
    }
    return [window for window in windows if window not in empty]


def _is_full(path: Path) -> bool:
    with gdal_environment(), open_raster(path) as file:
        whole = all(MaskFlags.all_valid in flags for flags in file.mask_flag_enums)
        return whole and all(np.dtype(kind).kind in "ui" for kind in file.dtypes)
