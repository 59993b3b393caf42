"""Survey the layers that label a map, before its windows are read: their features, and the values of attributes."""

import contextlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from skystill.classes import ClassMap
from skystill.data.map_datums import check_datums
from skystill.data.map_labels import MapLabels, chosen, is_flat
from skystill.data.maps import name_all
from skystill.data.sheets import Sheets
from skystill.data.vectors import Features, Layer, read_batches
from skystill.errors import DataError, first_few, shortened
from skystill.features import FeatureSource, attribute_text

_NAMED = 5
_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
Users = Sequence[tuple[str, FeatureSource]]
"""Classes that are drawn from a layer, each with its source."""


class _Place:
    """Where the rasters of a map lie, in pixels of the first one.

    Args:
        sheets: the rasters.
    """

    def __init__(self, sheets: Sheets) -> None:
        self.names = name_all(sheets.images)
        self.first: MapLabels = sheets.opened[sheets.images[0]]
        self.boxes = sheets.boxes_in_first()
        step = self.first.turn_step  # of several rasters, others may reach beyond the antimeridian
        self.turns = self.first.turns if len(self.boxes) == 1 or step is None else [0 * step, step, -step]

    def holds(self, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return which rectangles (N, 4) of left, top, right and bottom share ground with a raster."""
        inside = np.zeros(len(boxes), bool)
        for turn in self.turns:
            low, high = boxes[:, :2] + turn, boxes[:, 2:] + turn
            with np.errstate(invalid="ignore"):  # those that have no place there
                for box in self.boxes:
                    inside |= ((low < box[2:]) & (high > box[:2])).all(axis=1)
        return inside

    def extent(self) -> str:
        """Return in words what the rasters cover, in the CRS of the first one."""
        low, high = np.nanmin(self.boxes[:, :2], axis=0), np.nanmax(self.boxes[:, 2:], axis=0)
        return self.first.extent((*low.tolist(), *high.tolist()))


@dataclass
class _Survey:
    """What is found in a layer, feature by feature.

    Args:
        seen: values of attributes, as FIELD = VALUE.
        values: values of attributes that no class takes, with the numbers of their features.
        mended: number of geometries that are not valid, and the reasons of the first ones.
        empty, outside, slivers: numbers of features without a geometry, outside of the rasters, and below a pixel.
        flat: of each class without a buffer, the number of lines and points, and the first one in words.
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
    flat: dict[str, tuple[int, str]] = field(default_factory=dict)
    count: int = 0
    warnings: dict[str, None] = field(default_factory=dict)
    bounds: npt.NDArray[np.float64] = field(default_factory=lambda: np.array([np.inf, np.inf, -np.inf, -np.inf]))

    def add(self, place: _Place, layer: Layer, found: Features, users: Users) -> None:
        """Add some features."""
        import shapely

        self.count += len(found)
        self.warnings |= dict.fromkeys(found.warnings)
        self._add_values(found, users)
        there = ~(shapely.is_missing(found.geometries) | shapely.is_empty(found.geometries))
        self.empty += int((~there).sum())
        found = found.select(there)
        invalid = ~shapely.is_valid(found.geometries)
        self.mended += int(invalid.sum())
        bad = found.select(invalid).select(slice(0, _NAMED - len(self.reasons)))  # type: ignore[arg-type]
        reasons = (shapely.is_valid_reason(one) for one in bad.geometries)
        self.reasons += [f"feature {number}: {reason}" for number, reason in zip(bad.ids, reasons, strict=True)]
        moved = place.first.in_pixels(layer, found.geometries, must=False)
        boxes = shapely.bounds(moved)
        inside = np.isfinite(boxes).all(axis=1) & place.holds(boxes)
        self.outside += len(found) - int(inside.sum())
        self._add_flat(found.select(inside), users)
        areas = shapely.area(moved)
        self.slivers += int(((areas > 0) & (areas < 1)).sum())
        boxes = boxes[np.isfinite(boxes).all(axis=1)]
        if len(boxes):
            low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
            self.bounds = np.array([*np.minimum(self.bounds[:2], low), *np.maximum(self.bounds[2:], high)])

    def _add_values(self, found: Features, users: Users) -> None:
        """Add the values of attributes, and count those that no class takes."""
        taken = np.zeros(len(found), bool)
        places = replace(found, ids=np.arange(len(found)))
        for _, source in users:
            taken[chosen(places, source).ids] = True
        for name, column in found.values.items():
            self.seen.update(f"{name} = {attribute_text(value)}" for value in set(column.tolist()))
        if users and not taken.all():
            left = found.select(~taken)
            for name, column in left.values.items():
                self.values.update(f"{name} = {attribute_text(value)}" for value in column.tolist())

    def _add_flat(self, found: Features, users: Users) -> None:
        """Count lines and points that need a buffer and have none. A layer that no class uses has polygons."""
        for name, source in users or [("", FeatureSource())]:
            own = found if source.buffer_m is None else found.select(np.zeros(len(found), bool))
            own = chosen(own, source)
            flat = is_flat(own.geometries)
            if flat.any():
                count, first = self.flat.get(name, (0, f"{own.ids[flat][0]} is a {own.geometries[flat][0].geom_type}"))
                self.flat[name] = count + int(flat.sum()), first

    def flat_lines(self, layer: Layer) -> list[str]:
        """Return a problem for each class with lines or points that have no buffer."""
        return [
            f"{layer}: {count:,} features{f' of class {name}' if name else ''} are lines or points, or hold some, "
            f"which cover no pixel (feature {first}). "
            + (
                f"Give {name} a width in the classes file: from: {{layer: {layer.name}, buffer: METRES}}."
                if name
                else "Draw polygons."
            )
            for name, (count, first) in self.flat.items()
        ]

    def misspelt(self, layer: Layer, users: Users) -> list[str]:
        """Return a problem for each value that no class takes and that is another spelling of one that a class does."""
        taken = {_spelling(f"{source.field} = {value}"): (name, f"{source.field} = {value}")
                 for name, source in users for value in source.values}  # fmt: skip
        return [
            f"{layer}: {count} features have {_quoted(written)}, and class {taken[plain][0]} takes "
            f"{_quoted(taken[plain][1])}: case, blanks, accents and digits count, and YAML reads yes and no as true "
            "and false unless they are in quotes. Write it in one way, or list both under values."
            for written, count in self.values.items()
            if (plain := _spelling(written)) in taken
        ]

    def notes(self, layer: Layer, rasters: str, rest: str | None) -> list[str]:
        """Return what the user should know of the layer.

        Args:
            layer: the layer.
            rasters: the word for them.
            rest: name of the class of all pixels that no feature covers, if there is one.
        """
        lines = [f"GDAL warns: {warning}" for warning in first_few(list(self.warnings), _NAMED)]
        if self.mended:
            lines.append(f"{self.mended} geometries are not valid and are mended ({'; '.join(self.reasons)}).")
        if self.empty:
            lines.append(f"{self.empty} features have no geometry.")
        if self.outside:
            lines.append(f"{self.outside} of {self.count} features lie outside of the {rasters}.")
        if self.slivers:
            lines.append(
                f"{self.slivers} polygons are smaller than a pixel; they label it only if they hold its centre."
            )
        if self.values:
            listed = [f"{_quoted(written)} ({count})" for written, count in self.values.most_common()]
            instead = "" if rest is None else f": what they cover alone is {rest}"
            lines.append(
                f"no class takes the features with {', '.join(first_few(listed, 10))}; they are not drawn{instead}."
            )
        return [f"{layer}: {line}" for line in lines]


def _spelling(written: str) -> str:
    """Return FIELD = VALUE without what people get wrong in a value: case, blanks, zeros of numbers, words for true."""
    name, _, value = written.partition(" = ")
    plain = " ".join(unicodedata.normalize("NFKC", value).split()).casefold()
    plain = _WORDS.get(plain, plain)
    for number in (int, lambda text: f"{float(text):.6g}"):
        with contextlib.suppress(ValueError):
            return f"{name} = {number(plain)}"
    return f"{name} = {plain}"


def _quoted(written: str) -> str:
    """Return FIELD = VALUE with quotes around a value that is empty, or begins or ends with a blank."""
    name, _, value = written.partition(" = ")
    return f"{name} = {shortened(value, 40) if value and value == value.strip() else repr(value[:40])}"


def survey_layers(sheets: Sheets, classes: ClassMap) -> tuple[list[str], list[str], set[Layer]]:
    """Read all features of the layers that are used.

    Returns:
        problems, notes, and the layers whose lines and points lack a buffer, which are among the problems.
    """
    problems: list[str] = []
    notes: list[str] = []
    flat: set[Layer] = set()
    place = _Place(sheets)
    rest = next((name for name, given in zip(classes.names, classes.sources, strict=True) if given[0].rest), None)
    used = _used_layers(place.first, classes)
    notes += [
        f"{layer}: no class takes its {layer.count:,} features, and they are not drawn: a class needs from: {{layer: "
        f"{layer.name}}}."
        for layer in place.first.layers.all
        if layer not in used and layer.count
    ]
    for layer, users in used.items():
        of_datums = check_datums(sheets, layer)
        problems += of_datums[0]
        notes += of_datums[1]
        survey = _Survey()
        try:
            for found in read_batches(layer, tuple(sorted({s.field for _, s in users if s.field}))):
                survey.add(place, layer, found, users)
        except DataError as error:
            problems.append(str(error))
            continue
        notes += survey.notes(layer, "raster" if len(place.boxes) == 1 else "rasters", rest)
        problems += [*survey.flat_lines(layer), *survey.misspelt(layer, users)]
        flat |= {layer} if survey.flat else set()
        if survey.outside + survey.empty == survey.count:
            problems.append(_elsewhere(layer, survey, place))
        for name, source in users:
            absent = [value for value in source.values if f"{source.field} = {value}" not in survey.seen]
            line = f"{layer}: class {name} takes {source.field} = {', '.join(absent)}, which no feature has."
            (problems if absent == [*source.values] else notes).extend([line] if absent else [])
    return problems, notes, flat


def _used_layers(whole: MapLabels, classes: ClassMap) -> dict[Layer, list[tuple[str, FeatureSource]]]:
    by_layer: dict[Layer, list[tuple[str, FeatureSource]]] = {}
    for name, sources in zip(classes.names, classes.sources, strict=True):
        for source in sources:
            if not source.rest:
                by_layer.setdefault(whole.layers.layer_of(source, name), []).append((name, source))
    return by_layer | {layer: [] for layer in (whole.area, whole.split) if layer is not None}


def _elsewhere(layer: Layer, survey: _Survey, place: _Place) -> str:
    here = place.first.extent(survey.bounds.tolist()) if np.isfinite(survey.bounds).all() else "nothing"
    if len(place.boxes) > 1:
        return (
            f"{layer}: no feature lies in any raster. In the CRS of {place.first.image.name}, the {len(place.boxes)} "
            f"rasters cover {place.extent()}, and the features {here}."
        )
    return (
        f"{layer}: no feature lies in the raster. In its CRS, {place.first.image.name} covers {place.extent()}, and "
        f"the features {here}."
    )
