"""The part of a map without labels: windows that may teach a student through its teacher."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.enums import MaskFlags

from skystill.classes import VOID
from skystill.data.blocks import cut_away, least_gap
from skystill.data.check import DataCheck, ImageRecord
from skystill.data.masks import read_stored_labels
from skystill.data.pairs import sheets_of, windows_by_image
from skystill.data.split import Split
from skystill.data.unlabeled import ImageWindow
from skystill.errors import DataError
from skystill.progress import OnProgress, ignore_progress, tracked
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.opening import open_raster
from skystill.raster.source import gdal_environment

_READ = 64  # windows that are read to estimate a number of pixels


@dataclass(frozen=True)
class Rest:
    """How much of a map has data and no label.

    Args:
        pixels: their number.
        read, windows: the number of windows that were read for it, and that would have to be read to know it exactly.
    """

    pixels: int
    read: int = 0
    windows: int = 0

    def __str__(self) -> str:
        if self.read == self.windows:
            return f"{self.pixels:,} pixels"
        rounded = float(f"{self.pixels:.2g}")
        return f"about {rounded:,.0f} pixels (seen in {self.read} of {self.windows:,} windows)"


def count_rest(check: DataCheck, split: Split, spec: InputSpec = RGB) -> Rest:
    """Count the pixels of a map that `find_rest` gives: with data, without a label, away from validation and test.

    Windows that the check has not read, and those that are cut, are read: 64 of them, spread evenly, if there are more.
    Of images with masks there are none.

    Args:
        check: the content of the map.
        split: its split.
        spec: what the student is fed.
    """
    exact, unknown = 0, []
    full = {path for path in check.maps if _is_full(path)}
    for record, window in _away(check, split):
        whole = window.bounds == record.pair.bounds
        if whole and (record.areas.any() or window.path in full):
            exact += int(record.counts[VOID]) - record.nodata
        else:
            unknown.append((record, window))
    chosen = [unknown[place * len(unknown) // _READ] for place in range(_READ)] if len(unknown) > _READ else unknown
    found = sum(_count_window(record, window, check, spec) for record, window in chosen)
    seen, every = (sum(window.size[0] * window.size[1] for _, window in some) for some in (chosen, unknown))
    return Rest(exact + round(found * every / max(1, seen)), len(chosen), len(unknown))


def _count_window(record: ImageRecord, window: ImageWindow, check: DataCheck, spec: InputSpec) -> int:
    assert window.bounds is not None  # noqa: S101 - it is one of a map
    with contextlib.suppress(DataError):  # it is damaged, and does not teach
        labels = read_stored_labels(record.pair.cut(window.bounds), check.classes).labels
        return int(((labels == VOID) & window.read(spec)[1]).sum())
    return 0


def find_rest(
    check: DataCheck, split: Split, spec: InputSpec = RGB, on_progress: OnProgress = ignore_progress
) -> list[ImageWindow]:
    """Return the windows of a map in which pixels have no label, cut so that they keep away from validation and test.

    Windows without a pixel of data are left out. Of a window that is labelled in part, all of it is returned: its
    labelled part teaches in training, too.

    Args:
        check: the content of the map.
        split: its split. Its gap is kept, and at least that of `skystill.data.blocks.least_gap`.
        spec: what the student is fed.
        on_progress: called with a `Progress` for each window that is read.
    """
    return _with_data([window for _, window in _away(check, split)], spec, on_progress)


def _away(check: DataCheck, split: Split) -> list[tuple[ImageRecord, ImageWindow]]:
    """Return windows with pixels without a label, as far as the check knows, cut away from validation and test."""
    if not check.maps:
        return []
    sheets = sheets_of(record.pair for record in check.records)
    least = least_gap(sheets)
    gap = max(least[0], (split.gap or (0, 0))[0]), max(least[1], (split.gap or (0, 0))[1])
    held = windows_by_image((*split.validation, *split.test))
    held_out = {image: sheets.seen_from(image, held, gap) for image in sheets.images}
    found = []
    for record in check.records:
        pair = record.pair
        if pair.bounds is None or int(record.counts[VOID]) <= record.nodata:
            continue
        left = cut_away(pair.bounds, held_out[pair.image], gap)
        found += [(record, ImageWindow(pair.image, left))] if left else []
    return found


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
