"""Check a whole data set before training: every file is opened, and all problems are reported in one error."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skystill.classes import BUILT_IN, VOID, ClassMap, hex_color, read_classes
from skystill.data.bands import BandStatistics, image_statistics
from skystill.data.catalogues import folder_of
from skystill.data.map_labels import open_map
from skystill.data.masks import is_same_shape, read_labels, read_pair_labels
from skystill.data.pairs import Pair, PairSearch
from skystill.data.places import Place, find_place, pixels_apart
from skystill.data.read import void_unseen
from skystill.data.split import class_areas
from skystill.data.stratify import Areas
from skystill.data.unknown import UnknownPixels, suggest_classes
from skystill.errors import ClassesError, DataError
from skystill.progress import OnProgress, ignore_progress, tracked
from skystill.raster.input_spec import RGB, InputSpec
from skystill.raster.picture import read_whole

_FITS = 1.0  # pixels by which the places of an image and its mask may differ: half of one is a common mistake
_LISTED = 5  # masks of another size, and notes on images, that are named one by one
_BESIDE = ("classes.yaml", "classes.yml", "classes.json")


@dataclass(frozen=True)
class ImageRecord:
    """The size and the labels of one pair that was opened.

    Args:
        pair: the image and its mask.
        height, width: size of both in pixels.
        counts: (256,) int64, number of mask pixels with each label; label 255 is void.
        statistics: of the bands of the image.
        areas: (C,) int64, number of pixels of each class in the mask file, whatever its image holds there.
        nodata: number of pixels that are void because the mask file or the image has no data there.
        unlabeled: of a window of a map, the number of pixels that have no label even if the raster has data there.
        outside: how many of these lie outside of the area of complete labels.
        place: of an image with a mask, where it lies, if its file says it.
    """

    pair: Pair
    height: int
    width: int
    counts: npt.NDArray[np.int64]
    statistics: BandStatistics
    areas: npt.NDArray[np.int64]
    nodata: int = 0
    unlabeled: int = 0
    outside: int = 0
    place: Place | None = None


@dataclass(frozen=True)
class DataCheck:
    """The content of a data set, and its problems.

    Args:
        classes: the classes with which the masks were read.
        records: every pair that could be read.
        problems: what must be corrected before training. Each line names the file or the class that it concerns.
        notes: what the user should know.
        suggestion: text of a classes file that fits the masks, if the classes do not fit; otherwise empty.
        cut: of a map, the windows of its split. They are parts of those of `records`.
    """

    classes: ClassMap
    records: tuple[ImageRecord, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    suggestion: str = ""
    cut: tuple[ImageRecord, ...] = ()

    @property
    def by_key(self) -> dict[str, ImageRecord]:
        """The records of all pairs, and of all windows of the split of a map."""
        return {record.pair.key: record for record in (*self.records, *self.cut)}

    @property
    def maps(self) -> dict[Path, Path]:
        """The rasters of a map, each with its vector file; empty for images with masks."""
        return {record.pair.image: record.pair.mask for record in self.records if record.pair.is_window}

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(256,) int64: number of pixels with each label, over all masks."""
        return np.asarray(sum((record.counts for record in self.records), np.zeros(256, np.int64)))

    def areas_of(self, pairs: Sequence[Pair]) -> Areas:
        """Return the pixels of each class in the masks of some pairs, (pairs, C), for `split_pairs`."""
        found = self.by_key
        return np.array([found[pair.key].areas for pair in pairs])

    def raise_problems(self, root: Path) -> None:
        """Raise one error that lists all problems. Does nothing if there are none.

        Args:
            root: the data folder, for the message.

        Raises:
            DataError: there is at least one problem.
        """
        if self.problems:
            mend = f"Mend them, then look again with: skystill data check {shlex.quote(str(root))}"
            raise DataError(
                f"{root}: {len(self.problems)} problem(s) in the data:",
                self.problems,
                f"{mend}\n{self.suggestion}" if self.suggestion else mend,
            )


def classes_file(root: Path) -> Path | None:
    """Return the classes file of a data folder, or beside a catalogue; None if there is none."""
    return next((path for name in _BESIDE if (path := folder_of(root) / name).is_file()), None)


def resolve_classes(root: Path, given: str | None, pairs: Sequence[Pair]) -> tuple[ClassMap, tuple[str, ...]]:
    """Return the classes of a data set, and notes on where they came from.

    Args:
        root: the data folder, or a catalogue.
        given: value of `--classes`, a file or a built-in name. If it is None, a classes file in the data folder is
            used.
        pairs: pairs of the data set. If the colours of the file in the data folder do not match their masks, but those
            of a built-in map with the same class names do, the built-in map is used and the notes say so.

    Raises:
        ClassesError: there are no classes, or their file cannot be read.
    """
    if pairs and pairs[0].is_window:
        return _classes_of_map(root, given, pairs[0]), ()
    if given is not None:
        return read_classes(given), ()
    beside = classes_file(root)
    if beside is None:
        raise ClassesError(
            f"no classes: {folder_of(root)} has no classes.yaml or classes.json, and no --classes was given. "
            f"Give a file with names and colours, or a built-in name ({', '.join(BUILT_IN)}).\n"
            + suggest_classes(pairs)
        )
    classes = read_classes(beside)
    spread = pairs[:: max(1, len(pairs) // 8)]  # 8 to 15 masks show the colours; there may be thousands
    if not classes.indexed and _unknown_share(spread, classes) > 0.01:
        for built_in in BUILT_IN.values():
            if _same_names(classes, built_in) and _unknown_share(spread, built_in) < 0.01:
                return built_in, _disagreements(beside, classes, built_in)
    return classes, ()


def _classes_of_map(root: Path, given: str | None, window: Pair) -> ClassMap:
    """Return the classes of a map, whose file says which features each is drawn from.

    Raises:
        ClassesError: there are none, their file cannot be read, or it does not fit the layers.
    """
    whole = open_map(window.image, window.mask)
    name = given or classes_file(root)
    if name is None:
        listed = "\n  - ".join(["", *whole.layers.describe()])
        raise ClassesError(
            f"no classes: {folder_of(root)} has no classes.yaml, and no --classes was given. Write which features "
            "each class is drawn from, such as {name: Road, from: {layer: roads, buffer: 3}}. "
            f"{window.mask} has:{listed}"
        )
    classes = read_classes(name)
    whole.layers.check_classes(classes)
    return classes


def check_data(
    search: PairSearch, classes: ClassMap, on_progress: OnProgress = ignore_progress, spec: InputSpec = RGB
) -> DataCheck:
    """Open every image and mask of a data set and collect all problems.

    Args:
        search: result of `find_pairs`. Its problems come first in the list of problems.
        classes: classes with which the masks are read.
        on_progress: called with a `Progress` after each pair.
        spec: what a network will be fed.
    """
    problems = list(search.problems)
    unknown = UnknownPixels()
    records: list[ImageRecord] = []
    sizes: list[tuple[Pair, tuple[int, int], tuple[int, int]]] = []
    image_notes: list[tuple[Path, str]] = []
    misplaced: list[tuple[Pair, float]] = []
    for pair in tracked(search.pairs, "opening images and masks", on_progress):
        try:
            picture = read_whole(pair.image, spec=spec)
            height, width = picture.image.shape[:2]
            statistics = image_statistics(picture.image, picture.valid)
            picture = replace(picture, image=picture.image[:0])  # a large one and its mask need not be held together
            image_notes.extend((pair.image, note) for note in picture.notes)
            reading = read_labels(pair.mask, classes)
            areas = class_areas(reading.labels, classes)
            if reading.labels.shape != (height, width):
                sizes.append((pair, (reading.labels.shape[0], reading.labels.shape[1]), (height, width)))
                if not (pair.fit_mask and is_same_shape(*sizes[-1][1:])):
                    continue
                reading = read_pair_labels(pair, classes, (height, width))
        except DataError as error:
            problems.append(str(error))
            continue
        unknown.add(pair.mask, reading)
        counts = np.bincount(void_unseen(reading.labels, picture).ravel(), minlength=256)
        unseen = 0 if picture.valid is None else int((~picture.valid).sum())
        place = find_place(pair.image)
        if place is not None and (apart := pixels_apart(place, pair.mask)) > _FITS:
            misplaced.append((pair, apart))
        nodata = reading.nodata + unseen
        records.append(ImageRecord(pair, height, width, counts, statistics, areas, nodata, place=place))
    misfits, notes = _describe_sizes(sizes)
    problems.extend([*misfits, *_describe_misplaced(misplaced)])
    of_classes = [*unknown.describe(classes), *_unseen(records, classes), *_single_class(records, classes)]
    return DataCheck(
        classes,
        tuple(records),
        (*problems, *of_classes),
        (*notes, *_void_notes(records, classes), *_few(image_notes)),
        suggest_classes(search.pairs, classes) if of_classes else "",
    )


def _describe_sizes(
    sizes: Sequence[tuple[Pair, tuple[int, int], tuple[int, int]]],
) -> tuple[list[str], list[str]]:
    """Return the problems of masks whose size is not that of their image, and a note on those that are fitted.

    Args:
        sizes: pairs, with the size of the mask and the size of the image (height, width).
    """
    lines: dict[str, list[str]] = defaultdict(list)
    notes: list[str] = []
    for pair, mask, image in sizes:
        line = f"{pair.mask}: {mask[1]}x{mask[0]} pixels; its image {pair.image.name} has {image[1]}x{image[0]}"
        if is_same_shape(mask, image) and pair.fit_mask:
            notes.append(line)
        elif is_same_shape(mask, image):
            lines["The shape is the same: with --fit-masks each pixel takes the nearest one of the mask."].append(line)
        else:
            lines["The shape is another: cut or export the mask as the image."].append(line)
    problems: list[str] = []
    for mend, found in lines.items():
        if len(found) <= _LISTED:
            problems.extend(f"{line}. {mend}" for line in found)
        else:
            problems.append(f"{len(found)} masks have another size than their image ({found[0]}; ...). {mend}")
    fitted = [f"{len(notes)} mask(s) are fitted to the size of their image ({notes[0]}; ...)."] if notes else []
    return problems, fitted


def _describe_misplaced(misplaced: Sequence[tuple[Pair, float]]) -> list[str]:
    """Return a problem for masks that lie elsewhere than their image: which pixels belong together, only users know."""
    if not misplaced:
        return []
    pair, apart = misplaced[0]
    more = f" (and {len(misplaced) - 1} more masks)" if len(misplaced) > 1 else ""
    return [
        f"{pair.mask}{more}: by its georeference it lies elsewhere than its image {pair.image.name}: their corners are "
        f"up to {apart:,.4g} pixels apart, as where one is upside down or cut elsewhere. Warp the mask onto the image "
        "(gdalwarp -te ... -ts ...), or, if the pixels fit as they are, take the wrong place out of the file: "
        "gdal_edit.py -unsetgt -a_srs '' FILE."
    ]


def _unseen(records: Sequence[ImageRecord], classes: ClassMap) -> list[str]:
    if not records:
        return []
    counts = np.sum([record.counts for record in records], axis=0)
    nodata = sum(record.nodata for record in records)
    hint = f" {nodata:,} pixels of the masks or of their images are nodata, which is void." if nodata else ""
    return [
        f"{_known_by(classes, label)}: no mask holds a pixel of this class of {classes.source}. "
        f"Correct {'its value' if classes.indexed else 'its colour'}, or take it out of a --classes FILE.{hint}"
        for label, name in enumerate(classes.names)
        if counts[label] == 0 and name not in classes.unscored
    ]


def _known_by(classes: ClassMap, label: int) -> str:
    """Return the name of a class with what stands for it in masks, such as "Roof #FF0000" or "Roof (value 3)"."""
    value = classes.values[label] if classes.values else label
    shown = f"(value {value})" if classes.indexed else hex_color(classes.colors[label])
    return f"{classes.names[label]} {shown}"


def _single_class(records: Sequence[ImageRecord], classes: ClassMap) -> list[str]:
    """Return a problem if the masks hold one class and nothing else that counts."""
    counts = np.asarray(sum((record.counts for record in records), np.zeros(256, np.int64)))
    seen = [name for label, name in enumerate(classes.names) if counts[label]]
    if not records or len(seen) != 1 or (len(classes) > 1 and seen[0] in classes.unscored):
        return []
    return [
        f"{seen[0]} is the only class in the masks, and everything else is void ({counts[VOID]:,} pixels): a network "
        "that answers nothing else scores 100 %. The background must be a class, too: give it a name, with its colour "
        "or value, in a --classes FILE."
    ]


def _few(notes: Sequence[tuple[Path, str]]) -> list[str]:
    """Return the notes on images. Those that say the same of several images are one, and only the first are listed."""
    images: dict[str, list[Path]] = defaultdict(list)
    for path, note in notes:
        images[note.removeprefix(f"{path}: ")].append(path)
    lines = [
        f"{paths[0]}{f' and {len(paths) - 1} more images' if len(paths) > 1 else ''}: {note}"
        for note, paths in images.items()
    ]
    more = [f"and {len(lines) - _LISTED} more notes of this kind on other images."] if len(lines) > _LISTED else []
    return [*lines[:_LISTED], *more]


def _void_notes(records: Sequence[ImageRecord], classes: ClassMap) -> list[str]:
    holding = [record for record in records if record.counts[VOID]]
    if not holding:
        return []
    total = sum(int(record.counts[VOID]) for record in holding)
    kinds = [hex_color(color) for color in classes.void_colors] + [f"label {value}" for value in classes.void_values]
    kinds = kinds or ["label 255"]
    kinds += ["nodata"] if any(record.nodata for record in records) else []
    most = sorted(holding, key=lambda record: -record.counts[VOID])
    files = ", ".join(f"{record.pair.mask} ({record.counts[VOID]:,})" for record in most[:10])
    more = f" and {len(most) - 10} more" if len(most) > 10 else ""
    return [
        f"void ({', '.join(kinds)}, neither trained on nor scored): {total:,} pixels in {len(holding)} mask(s): "
        f"{files}{more}."
    ]


def _unknown_share(pairs: Sequence[Pair], classes: ClassMap) -> float:
    unknown, total = 0, 0
    for pair in pairs:
        try:
            reading = read_labels(pair.mask, classes)
        except DataError:
            continue  # check_data reports it together with all other problems
        unknown += sum(reading.unknown.values())
        total += reading.labels.size
    return unknown / max(1, total)


def _plain(name: str) -> str:
    return name.split("(")[0].strip().lower()


def _same_names(one: ClassMap, other: ClassMap) -> bool:
    return Counter(map(_plain, one.names)) == Counter(map(_plain, other.names))


def _disagreements(path: Path, written: ClassMap, used: ClassMap) -> tuple[str, ...]:
    by_name = {_plain(name): color for name, color in zip(written.names, written.colors, strict=True)}
    differing = [
        f"{name}: {path} says {hex_color(by_name[_plain(name)])}, the masks use {hex_color(color)}."
        for name, color in zip(used.names, used.colors, strict=True)
        if by_name[_plain(name)] != color
    ]
    return (f"the colours in {path} are not those of the masks; the masks win (classes: {used.source}).", *differing)
