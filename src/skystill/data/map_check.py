"""Check a map before training: every layer and every window is read, and all problems are reported at once."""

import contextlib
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from skystill.allocator import return_large_arrays
from skystill.classes import VOID, ClassMap
from skystill.data.bands import image_statistics
from skystill.data.check import DataCheck, ImageRecord
from skystill.data.map_holes import Holes, open_holes
from skystill.data.map_labels import FlatFeatures, MapLabels
from skystill.data.map_notes import label_notes
from skystill.data.map_survey import survey_layers
from skystill.data.masks import read_stored_labels
from skystill.data.pairs import Pair, PairSearch, sheets_of, windows_by_image
from skystill.data.read import void_unseen
from skystill.data.sheets import Sheets
from skystill.data.split import Split, class_areas
from skystill.errors import DataError, first_few
from skystill.progress import OnProgress, ignore_progress, tracked
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.picture import Bounds, read_whole
from skystill.raster.tiled_copy import make_copy, wide_blocks

_NAMED = 5
_COARSE = 16  # pixels, to see whether a window is in the area
_COPY_COST = 2.5  # of a tiled copy, in times that all of the raster is decoded
_BLOCK_BYTES = 2**16  # GDAL's blocks are above it. The heap grew by 0.2 MB with each window: records lay between them


def check_map(
    search: PairSearch, classes: ClassMap, on_progress: OnProgress = ignore_progress, spec: InputSpec = RGB
) -> DataCheck:
    """Read every layer and every window of a map, and collect all problems.

    Args:
        search: result of `find_pairs`: windows.
        classes: the classes with their sources.
        on_progress: called with a `Progress` after each window.
        spec: what a network will be fed.

    Raises:
        ClassesError: a layer or an attribute does not exist, or a class has no features.
    """
    sheets = sheets_of(search.pairs)
    next(iter(sheets.opened.values())).layers.check_classes(classes)
    return_large_arrays(_BLOCK_BYTES)
    problems, notes, flat = survey_layers(sheets, classes)
    problems = [*sheets.problems(), *problems]
    of_blocks = [] if problems else _copy_tiled(sheets, search.pairs, spec, on_progress)
    records: list[ImageRecord] = []
    overlaps: dict[Path, Counter[tuple[int, int]]] = defaultdict(Counter)
    holes = {image: open_holes(image) for image in sheets.images}
    for pair in tracked(search.pairs, "reading windows of the map and their labels", on_progress):
        try:
            record, lost = window_record(pair, classes, spec, holes[pair.image])
        except FlatFeatures as error:  # one problem of the layer, not of each window
            problems += [] if error.layer in flat else [str(error)]
            flat.add(error.layer)
            continue
        except DataError as error:
            problems.append(str(error))
            continue
        records.append(record)
        overlaps[pair.image].update(lost)
    check = DataCheck(classes, tuple(records), ())
    problems += _missing(check) if not problems else []
    problems += [line for one in holes.values() for line in one.problem()]
    rest = next((name for name, given in zip(classes.names, classes.sources, strict=True) if given[0].rest), None)
    of_holes = [line for one in holes.values() for line in one.note(rest)]
    return replace(
        check,
        problems=tuple(dict.fromkeys((*search.problems, *problems))),
        notes=(
            *notes,
            *_overlap_notes(sheets, classes, overlaps),
            *label_notes(sheets, check),
            *first_few(of_holes, _NAMED),
            *of_blocks,
        ),
    )


def window_record(
    pair: Pair, classes: ClassMap, spec: InputSpec, holes: Holes | None = None
) -> tuple[ImageRecord, dict[tuple[int, int], int]]:
    """Read a window. Where nothing is labelled, its pixels are not read: they are in no part of a split.

    Args:
        pair: the window.
        classes: the classes with their sources.
        spec: what a network will be fed.
        holes: what is known of the raster, to which that of the window is added.

    Returns:
        its record, whose areas leave out pixels without data, and its overlaps (`Burnt`).

    Raises:
        DataError: the raster or a layer cannot be read.
    """
    reading = read_stored_labels(pair, classes)
    labels, unseen = reading.labels, 0
    height, width = labels.shape
    statistics = image_statistics(np.zeros((0, 0, len(spec)), np.uint8), None)
    if (labels != VOID).any():
        picture = read_whole(pair.image, pair.bounds, spec)
        statistics = image_statistics(picture.image, picture.valid)
        unseen = 0 if picture.valid is None else int((~picture.valid).sum())
        labels = void_unseen(labels, picture)
        if holes is not None and pair.bounds is not None:
            holes.add(pair.bounds, picture.image, labels)
    counts = np.bincount(labels.ravel(), minlength=256)
    unlabeled = int((reading.labels == VOID).sum())
    areas = class_areas(labels, classes)
    record = ImageRecord(pair, height, width, counts, statistics, areas, unseen, unlabeled, reading.outside)
    return record, reading.overlaps


def with_cut(check: DataCheck, split: Split, spec: InputSpec) -> DataCheck:
    """Return the check with records of the windows that a split has cut or named anew.

    Raises:
        DataError: a window cannot be read.
    """
    pairs = (*split.train, *split.validation, *split.test)
    known = {(record.pair.image, record.pair.bounds): record for record in check.records}
    cut = []
    for pair in pairs:
        if not pair.is_window:
            return check
        same = known.get((pair.image, pair.bounds))
        cut.append(replace(same, pair=pair) if same else window_record(pair, check.classes, spec)[0])
    return replace(check, cut=tuple(cut))


def gap_note(check: DataCheck, split: Split) -> list[str]:
    """Return a note on the labelled pixels of a map, or the images, that are in no part."""
    if not split.test or not split.test[0].is_window:
        used = {pair.key for part in (split.train, split.validation, split.test) for pair in part}
        unused = [record.pair.key for record in check.records if record.pair.key not in used]
        return (
            [
                f"{len(unused)} of {len(check.records)} images are in no part of the split, and not used: "
                f"{', '.join(first_few(unused, _NAMED))}."
            ]
            if unused
            else []
        )
    total, kept = (sum(int(record.areas.sum()) for record in some) for some in (check.records, check.cut))
    if kept == total:
        return []
    return [
        f"{total - kept:,} of {total:,} labelled pixels ({100 * (total - kept) / max(1, total):.1f} %) are in no part "
        "of the split: they lie in the gap between parts, of which larger blocks lose less (--split blocks:SIDE/GAP "
        "in metres), or in windows that no part of the layer split holds as a whole."
    ]


def _missing(check: DataCheck) -> list[str]:
    """Return problems of classes without a pixel, and of a map that holds one class alone."""
    classes, counts = check.classes, check.counts
    lines = [
        f"{name}: no pixel of the raster has this class: its features cover none, or only pixels without data, or lie "
        "outside of the area of complete labels. Take it out of the classes file, or draw some."
        for label, name in enumerate(classes.names)
        if not counts[label] and name not in classes.unscored
    ]
    seen = [name for label, name in enumerate(classes.names) if counts[label]]
    if len(seen) == 1 and not (len(classes) > 1 and seen[0] in classes.unscored):
        lines.append(
            f"{seen[0]} is the only class: a network that answers nothing else scores 100 %. Add a class for all other "
            "pixels to the classes file: {name: Background, from: rest}."
        )
    return lines


def _overlap_notes(sheets: Sheets, classes: ClassMap, overlaps: Mapping[Path, Counter[tuple[int, int]]]) -> list[str]:
    pixels: Counter[tuple[int, int]] = Counter()
    square_m: defaultdict[tuple[int, int], float] = defaultdict(float)
    for image, lost in overlaps.items():
        area = math.prod(sheets.opened[image].pixel_m)
        pixels.update(lost)
        for both, count in lost.items():
            square_m[both] += count * area
    return [
        f"{classes.names[winner]} covers {classes.names[loser]} on {count:,} pixels "
        f"({square_m[loser, winner]:,.6g} m2); the order of the classes file decides."
        for (loser, winner), count in pixels.most_common()
    ]


def _copy_tiled(sheets: Sheets, pairs: Sequence[Pair], spec: InputSpec, on_progress: OnProgress) -> list[str]:
    """Make tiled copies of rasters in wide compressed blocks where that is cheaper, and return notes on the blocks."""
    wide = {image: blocks for image in sheets.images if (blocks := wide_blocks(image)) is not None}
    windows = windows_by_image(pair for pair in pairs if pair.image in wide)
    notes = [
        _copy_one(sheets.opened[image], blocks, windows[image], spec, on_progress) for image, blocks in wide.items()
    ]
    return first_few(notes, _NAMED)


def _copy_one(
    whole: MapLabels, blocks: tuple[int, int], windows: Sequence[Bounds], spec: InputSpec, on_progress: OnProgress
) -> str:
    name, (rows, columns) = whole.image.name, blocks
    windows = [bounds for bounds in windows if _is_in_area(whole, bounds)]
    # Each window decodes all blocks of its rows at least once; the copy decodes all once, and encodes what it decodes.
    decoded = sum(max(rows, bottom - top) for top, bottom, _, _ in windows)
    size = None
    if decoded > _COPY_COST * whole.height:
        with contextlib.suppress(DataError):  # which each window will tell
            size = make_copy(whole.image, spec, on_progress)
    made = "A tiled copy is read faster"
    if size is not None:
        made = (
            f"So this command made a tiled copy of {size / 1e6:,.0f} MB in {tempfile.gettempdir()}, which goes when it "
            "ends. To make one once and for all"
        )
    return (
        f"{name} is compressed in blocks of {columns:,} x {rows:,} pixels, each of which is decoded again for every "
        f"window that it touches. {made}: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE {name} tiled.tif"
    )


def _is_in_area(whole: MapLabels, bounds: Bounds) -> bool:
    inside = whole.inside_area(bounds, _COARSE)
    return inside is None or bool(inside.any())
