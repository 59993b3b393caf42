"""Notes of the check of a map on its labels: what has none and why, and what is taken for the rest."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skystill.classes import VOID
from skystill.data.check import DataCheck
from skystill.data.maps import name_all
from skystill.data.sheets import Sheets


def label_notes(sheets: Sheets, check: DataCheck) -> list[str]:
    """Return what share of the rasters has no label, and what is taken for the rest.

    Args:
        sheets: the rasters of the map.
        check: its content.
    """
    total = sum(one.height * one.width for one in sheets.opened.values())
    rest = [name for name, sources in zip(check.classes.names, check.classes.sources, strict=True) if sources[0].rest]
    has_area = next(iter(sheets.opened.values())).area is not None
    lines = [*_void_note(check, total, name_all(sheets.images)), *_sheet_notes(sheets, check, rest)]
    if has_area:
        return lines
    if rest:
        share = 100 * int(check.counts[check.classes.names.index(rest[0])]) / max(1, total)
        lines.append(
            f"there is no layer area, so that the whole raster is taken for completely labelled: the {share:.1f} % "
            f"that no feature covers are {rest[0]} (from: rest). If some of it was not looked at, what is missing "
            "there is taught wrongly: draw polygons around what is complete, in a layer area."
        )
    elif any(record.unlabeled for record in check.records):
        lines.append(
            "there is no layer area and no class from: rest, so that pixels between features teach nothing. If labels "
            "are complete somewhere, draw a layer area around it and add {name: Background, from: rest} to the classes."
        )
    return lines


def _void_note(check: DataCheck, total: int, names: str) -> list[str]:
    void = int(check.counts[VOID])
    if not void:
        return []
    outside, unlabeled = (sum(getattr(one, name) for one in check.records) for name in ("outside", "unlabeled"))
    parts = {
        "lie outside of the area": outside,
        "are covered by no feature": unlabeled - outside,
        "would have a label, but the raster has no data there": void - unlabeled,
    }
    said = "; ".join(f"{count:,} {what}" for what, count in parts.items() if count)
    return [
        f"{void:,} of {total:,} pixels ({100 * void / total:.1f} %) of {names} are void, which is neither trained on "
        f"nor scored: {said}."
    ]


def _sheet_notes(sheets: Sheets, check: DataCheck, rest: list[str]) -> list[str]:
    """Return notes on rasters of which no feature covers a pixel, and on those that show the same ground."""
    if len(sheets.images) == 1:
        return []
    counts: dict[Path, npt.NDArray[np.int64]] = defaultdict(lambda: np.zeros(256, np.int64))
    for record in check.records:
        counts[record.pair.image] = counts[record.pair.image] + record.counts
    drawn = [label for label, name in enumerate(check.classes.names) if name not in rest]
    bare = [image for image in sheets.images if not counts[image][drawn].any()]
    lines = []
    if bare:
        taken = [image for image in bare if counts[image][: len(check.classes)].any()]
        line = f"no feature covers a pixel of {len(bare)} of {len(sheets.images)} rasters: {name_all(bare)}."
        if taken:
            line += (
                f" All that counts of {name_all(taken)} is {rest[0]} (from: rest). If nobody has looked there, take "
                "these rasters out, or draw a layer area around what is complete."
            )
        lines.append(line)
    twice = [f"{one.name} and {other.name}" for one, other in sheets.overlapping()]
    if twice:
        more = f" and {len(twice) - 3} more" if len(twice) > 3 else ""
        lines.append(
            f"rasters show the same ground ({', '.join(twice[:3])}{more}): it is trained on once for each of them, and "
            "is never in two parts of the split."
        )
    return lines
