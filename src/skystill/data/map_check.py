"""Check a map before training: every layer and every window is read, and all problems are reported at once."""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from skystill.allocator import return_large_arrays
from skystill.classes import VOID, ClassMap
from skystill.data.bands import image_statistics
from skystill.data.check import DataCheck, ImageRecord
from skystill.data.map_labels import MapLabels, chosen, open_map
from skystill.data.masks import read_stored_labels
from skystill.data.pairs import Pair, PairSearch
from skystill.data.read import void_unseen
from skystill.data.split import Split, class_areas
from skystill.data.vectors import Features, Layer, read_batches
from skystill.errors import DataError, first_few, shortened
from skystill.features import FeatureSource, attribute_text
from skystill.progress import OnProgress, ignore_progress, tracked
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.picture import Bounds, read_whole
from skystill.raster.tiled_copy import make_copy, wide_blocks

_NAMED = 5
_COARSE = 16  # pixels, to see whether a window is in the area
_COPY_COST = 2.5  # of a tiled copy, in times that all of the raster is decoded
_BLOCK_BYTES = 2**16  # GDAL's blocks are above it. The heap grew by 0.2 MB with each window: records lay between them


@dataclass
class _Survey:
    """What is found in a layer, feature by feature.

    Args:
        seen: values of attributes, as FIELD = VALUE.
        values: values of attributes that no class takes, with the numbers of their features.
        mended: number of geometries that are not valid, and the reasons of the first ones.
        empty, outside, slivers: numbers of features without a geometry, outside of the raster, and below a pixel.
        count: number of features.
        warnings: what GDAL has to say.
        bounds: left, top, right and bottom of all features, in pixels.
    """

    seen: set[str] = field(default_factory=set)
    values: Counter[str] = field(default_factory=Counter)
    mended: int = 0
    reasons: list[str] = field(default_factory=list)
    empty: int = 0
    outside: int = 0
    slivers: int = 0
    count: int = 0
    warnings: dict[str, None] = field(default_factory=dict)
    bounds: npt.NDArray[np.float64] = field(default_factory=lambda: np.array([np.inf, np.inf, -np.inf, -np.inf]))

    def add(self, whole: MapLabels, layer: Layer, found: Features) -> None:
        """Add the geometries of some features."""
        import shapely

        self.count += len(found)
        self.warnings |= dict.fromkeys(found.warnings)
        there = ~(shapely.is_missing(found.geometries) | shapely.is_empty(found.geometries))
        self.empty += int((~there).sum())
        found = found.select(there)
        invalid = ~shapely.is_valid(found.geometries)
        self.mended += int(invalid.sum())
        bad = found.select(invalid).select(slice(0, _NAMED - len(self.reasons)))  # type: ignore[arg-type]
        reasons = (shapely.is_valid_reason(one) for one in bad.geometries)
        self.reasons += [f"feature {number}: {reason}" for number, reason in zip(bad.ids, reasons, strict=True)]
        moved = whole.in_pixels(layer, found.geometries, must=False)
        boxes = shapely.bounds(moved)
        boxes = boxes[np.isfinite(boxes).all(axis=1)]
        inside = (boxes[:, 0] < whole.width) & (boxes[:, 2] > 0) & (boxes[:, 1] < whole.height) & (boxes[:, 3] > 0)
        self.outside += len(found) - int(inside.sum())
        areas = shapely.area(moved)
        self.slivers += int(((areas > 0) & (areas < 1)).sum())
        if len(boxes):
            low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
            self.bounds = np.array([*np.minimum(self.bounds[:2], low), *np.maximum(self.bounds[2:], high)])

    def notes(self, layer: Layer) -> list[str]:
        """Return what the user should know of the layer."""
        lines = [f"GDAL warns: {warning}" for warning in first_few(list(self.warnings), _NAMED)]
        if self.mended:
            lines.append(f"{self.mended} geometries are not valid and are mended ({'; '.join(self.reasons)}).")
        if self.empty:
            lines.append(f"{self.empty} features have no geometry.")
        if self.outside:
            lines.append(f"{self.outside} of {self.count} features lie outside of the raster.")
        if self.slivers:
            lines.append(
                f"{self.slivers} polygons are smaller than a pixel; they label it only if they hold its centre."
            )
        if self.values:
            listed = [f"{name} ({count})" for name, count in self.values.most_common()]
            lines.append(f"no class takes the features with {', '.join(first_few(listed, 10))}; they are not drawn.")
        return [f"{layer}: {line}" for line in lines]


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
    whole = open_map(search.pairs[0].image, search.pairs[0].mask)
    whole.check_classes(classes)
    return_large_arrays(_BLOCK_BYTES)
    problems, notes = _survey(whole, classes)
    of_blocks = [] if problems else _copy_tiled(whole, search.pairs, spec, on_progress)
    records: list[ImageRecord] = []
    overlaps: Counter[tuple[int, int]] = Counter()
    for pair in tracked(search.pairs, "reading windows of the map and their labels", on_progress):
        try:
            record, lost = window_record(pair, classes, spec)
        except DataError as error:
            problems.append(str(error))
            continue
        records.append(record)
        overlaps.update(lost)
    check = DataCheck(classes, tuple(records), ())
    problems += _missing(check) if not problems else []
    return replace(
        check,
        problems=tuple(dict.fromkeys((*search.problems, *problems))),
        notes=(*notes, *_overlap_notes(whole, classes, overlaps), *_label_notes(whole, check), *of_blocks),
    )


def window_record(pair: Pair, classes: ClassMap, spec: InputSpec) -> tuple[ImageRecord, dict[tuple[int, int], int]]:
    """Read a window. Where nothing is labelled, its pixels are not read: they are in no part of a split.

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
    counts = np.bincount(labels.ravel(), minlength=256)
    return ImageRecord(pair, height, width, counts, statistics, class_areas(labels, classes), unseen), reading.overlaps


def with_cut(check: DataCheck, split: Split, spec: InputSpec) -> DataCheck:
    """Return the check with records of the windows that a split has cut or named anew.

    Raises:
        DataError: a window cannot be read.
    """
    pairs = (*split.train, *split.validation, *split.test)
    known = {record.pair.bounds: record for record in check.records}
    cut = []
    for pair in pairs:
        if not pair.is_window:
            return check
        same = known.get(pair.bounds)
        cut.append(replace(same, pair=pair) if same else window_record(pair, check.classes, spec)[0])
    return replace(check, cut=tuple(cut))


def gap_note(check: DataCheck, split: Split) -> list[str]:
    """Return a note on the labelled pixels of a map that are in no part."""
    if not split.test or not split.test[0].is_window:
        return []
    total, kept = (sum(int(record.areas.sum()) for record in some) for some in (check.records, check.cut))
    if kept == total:
        return []
    return [
        f"{total - kept:,} of {total:,} labelled pixels ({100 * (total - kept) / max(1, total):.1f} %) are in no part "
        "of the split: they lie in the gap between parts, of which larger blocks lose less (--split blocks:SIDE/GAP "
        "in metres), or in windows that no part of the layer split holds as a whole."
    ]


def _survey(whole: MapLabels, classes: ClassMap) -> tuple[list[str], list[str]]:
    """Read all features of the layers that are used, and return problems and notes."""
    problems: list[str] = []
    notes: list[str] = []
    by_layer: dict[Layer, list[tuple[str, FeatureSource]]] = {}
    for name, sources in zip(classes.names, classes.sources, strict=True):
        for source in sources:
            if not source.rest:
                by_layer.setdefault(whole.layer_of(source, name), []).append((name, source))
    by_layer |= {layer: [] for layer in (whole.area, whole.split) if layer is not None}
    for layer, users in by_layer.items():
        survey = _Survey()
        try:
            for found in read_batches(layer, tuple(sorted({s.field for _, s in users if s.field}))):
                survey.add(whole, layer, found)
                _count_users(survey, found, users)
        except DataError as error:
            problems.append(str(error))
            continue
        notes += survey.notes(layer)
        if survey.outside + survey.empty == survey.count:
            here = whole.extent(survey.bounds.tolist()) if np.isfinite(survey.bounds).all() else "nothing"
            problems.append(
                f"{layer}: no feature lies in the raster. In its CRS, {whole.image.name} covers "
                f"{whole.extent((0, 0, whole.width, whole.height))}, and the features {here}."
            )
        for name, source in users:
            absent = [value for value in source.values if f"{source.field} = {value}" not in survey.seen]
            line = f"{layer}: class {name} takes {source.field} = {', '.join(absent)}, which no feature has."
            (problems if absent == [*source.values] else notes).extend([line] if absent else [])
    return problems, notes


def _count_users(survey: _Survey, found: Features, users: Sequence[tuple[str, FeatureSource]]) -> None:
    """Count the features of each class, and the values of those that no class takes."""
    taken = np.zeros(len(found), bool)
    places = replace(found, ids=np.arange(len(found)))
    for _, source in users:
        taken[chosen(places, source).ids] = True
    for name, column in found.values.items():
        survey.seen.update(f"{name} = {attribute_text(value)}" for value in set(column.tolist()))
    if users and not taken.all():
        left = found.select(~taken)
        for name, column in left.values.items():
            survey.values.update(f"{name} = {shortened(attribute_text(value), 40)}" for value in column.tolist())


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


def _overlap_notes(whole: MapLabels, classes: ClassMap, overlaps: Counter[tuple[int, int]]) -> list[str]:
    area = whole.pixel_m[0] * whole.pixel_m[1]
    return [
        f"{classes.names[winner]} covers {classes.names[loser]} on {pixels:,} pixels ({pixels * area:,.6g} m2); the "
        "order of the classes file decides."
        for (loser, winner), pixels in overlaps.most_common()
    ]


def _label_notes(whole: MapLabels, check: DataCheck) -> list[str]:
    """Return what share of the raster has no label, and what is taken for the rest."""
    total, void = whole.height * whole.width, int(check.counts[VOID])
    nodata = sum(record.nodata for record in check.records)
    rest = [name for name, sources in zip(check.classes.names, check.classes.sources, strict=True) if sources[0].rest]
    outside = "" if whole.area is None else "they lie outside of the area, "
    lines = [
        f"{void:,} of {total:,} pixels ({100 * void / total:.1f} %) of {whole.image.name} are void, which is neither "
        f"trained on nor scored: no feature covers them, {outside}or the raster has no data there."
    ] if void else []  # fmt: skip
    if whole.area is not None:
        return lines
    if rest:
        share = 100 * int(check.counts[check.classes.names.index(rest[0])]) / max(1, total)
        lines.append(
            f"there is no layer area, so that the whole raster is taken for completely labelled: the {share:.1f} % "
            f"that no feature covers are {rest[0]} (from: rest). If some of it was not looked at, what is missing "
            "there is taught wrongly: draw polygons around what is complete, in a layer area."
        )
    elif void > nodata:
        lines.append(
            "there is no layer area and no class from: rest, so that pixels between features teach nothing. If labels "
            "are complete somewhere, draw a layer area around it and add {name: Background, from: rest} to the classes."
        )
    return lines


def _copy_tiled(whole: MapLabels, pairs: Sequence[Pair], spec: InputSpec, on_progress: OnProgress) -> list[str]:
    """Make a tiled copy of a raster in wide compressed blocks if that is cheaper, and return a note on the blocks."""
    blocks = wide_blocks(whole.image)
    if blocks is None:
        return []
    name, (rows, columns) = whole.image.name, blocks
    windows = [pair.bounds for pair in pairs if pair.bounds and _is_in_area(whole, pair.bounds)]
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
    return [
        f"{name} is compressed in blocks of {columns:,} x {rows:,} pixels, each of which is decoded again for every "
        f"window that it touches. {made}: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE {name} tiled.tif"
    ]


def _is_in_area(whole: MapLabels, bounds: Bounds) -> bool:
    inside = whole.inside_area(bounds, _COARSE)
    return inside is None or bool(inside.any())
