"""Check a whole data set before training: every file is opened, and all problems are reported in one error."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skystill.classes import BUILT_IN, VOID, ClassMap, hex_color, nearest_class, parse_color, read_classes
from skystill.data.pairs import Pair, PairSearch
from skystill.data.read import read_image, read_labels
from skystill.errors import ClassesError, DataError
from skystill.progress import OnProgress, ignore_progress, tracked

_BESIDE = ("classes.yaml", "classes.yml", "classes.json")


@dataclass(frozen=True)
class ImageRecord:
    """The size and the labels of one pair that was opened.

    Args:
        pair: the image and its mask.
        height, width: size of both in pixels.
        counts: (256,) int64, number of mask pixels with each label; label 255 is void.
    """

    pair: Pair
    height: int
    width: int
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class DataCheck:
    """The content of a data set, and its problems.

    Args:
        classes: the classes with which the masks were read.
        records: every pair that could be read.
        problems: what must be corrected before training. Each line names the file or the class that it concerns.
        notes: what the user should know.
    """

    classes: ClassMap
    records: tuple[ImageRecord, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(256,) int64: number of pixels with each label, over all masks."""
        return np.asarray(sum((record.counts for record in self.records), np.zeros(256, np.int64)))

    def raise_problems(self, root: Path) -> None:
        """Raise one error that lists all problems. Does nothing if there are none.

        Args:
            root: the data folder, for the message.

        Raises:
            DataError: there is at least one problem.
        """
        if self.problems:
            raise DataError(
                f"{root}: {len(self.problems)} problem(s) in the data:",
                self.problems,
                f"Mend them, then look again with: skystill data check {root}",
            )


def resolve_classes(root: Path, given: str | None, pairs: Sequence[Pair]) -> tuple[ClassMap, tuple[str, ...]]:
    """Return the classes of a data set, and notes on where they came from.

    Args:
        root: the data folder.
        given: value of `--classes`, a file or a built-in name. If it is None, a classes file in the data folder is
            used.
        pairs: pairs of the data set. If the colours of the file in the data folder do not match their masks, but those
            of a built-in map with the same class names do, the built-in map is used and the notes say so.

    Raises:
        ClassesError: there are no classes, or their file cannot be read.
    """
    if given is not None:
        return read_classes(given), ()
    beside = next((root / name for name in _BESIDE if (root / name).is_file()), None)
    if beside is None:
        raise ClassesError(
            f"no classes: {root} has no classes.yaml or classes.json, and no --classes was given. "
            f"Give a file with names and colours, or a built-in name ({', '.join(BUILT_IN)})."
        )
    classes = read_classes(beside)
    spread = pairs[:: max(1, len(pairs) // 8)]  # 8 to 15 masks show the colours; there may be thousands
    if not classes.indexed and _unknown_share(spread, classes) > 0.01:
        for built_in in BUILT_IN.values():
            if _same_names(classes, built_in) and _unknown_share(spread, built_in) < 0.01:
                return built_in, _disagreements(beside, classes, built_in)
    return classes, ()


def check_data(search: PairSearch, classes: ClassMap, on_progress: OnProgress = ignore_progress) -> DataCheck:
    """Open every image and mask of a data set and collect all problems.

    Args:
        search: result of `find_pairs`. Its problems come first in the list of problems.
        classes: classes with which the masks are read.
        on_progress: called with a `Progress` after each pair.
    """
    problems = list(search.problems)
    unknown: dict[str, dict[Path, int]] = {}
    records: list[ImageRecord] = []
    for pair in tracked(search.pairs, "opening images and masks", on_progress):
        try:
            height, width = read_image(pair.image).shape[:2]
            reading = read_labels(pair.mask, classes)
        except DataError as error:
            problems.append(str(error))
            continue
        if reading.labels.shape != (height, width):
            found = f"{reading.labels.shape[1]}x{reading.labels.shape[0]}"
            problems.append(f"{pair.mask}: {found} pixels; its image {pair.image.name} has {width}x{height}.")
            continue
        for color, count in reading.unknown.items():
            unknown.setdefault(color, {})[pair.mask] = count
        records.append(ImageRecord(pair, height, width, np.bincount(reading.labels.ravel(), minlength=256)))
    problems.extend(_describe_unknown(unknown, classes))
    problems.extend(_unseen(records, classes))
    return DataCheck(classes, tuple(records), tuple(problems), tuple(_void_notes(records, classes)))


def _describe_unknown(unknown: dict[str, dict[Path, int]], classes: ClassMap) -> list[str]:
    lines: list[str] = []
    for color, where in sorted(unknown.items(), key=lambda item: -sum(item[1].values())):
        near = ""
        if color.startswith("#"):
            name, nearest = nearest_class(parse_color(color, "mask"), classes)
            near = f"; the nearest class colour is {name} {hex_color(nearest)}"
        files = [str(path) for path in where]
        listed = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
        lines.append(
            f"{color}: {sum(where.values()):,} pixels in {len(files)} mask(s) belong to no class of {classes.source}"
            f"{near}. In: {listed}. Give it a class in a --classes FILE, or list it there under void."
        )
    return lines


def _unseen(records: Sequence[ImageRecord], classes: ClassMap) -> list[str]:
    if not records:
        return []
    counts = np.sum([record.counts for record in records], axis=0)
    return [
        f"{name} {hex_color(color)}: no mask holds a pixel of this class of {classes.source}. "
        "Correct its colour, or take it out of a --classes FILE."
        for label, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))
        if counts[label] == 0 and name not in classes.unscored
    ]


def _void_notes(records: Sequence[ImageRecord], classes: ClassMap) -> list[str]:
    holding = [record for record in records if record.counts[VOID]]
    if not holding:
        return []
    total = sum(int(record.counts[VOID]) for record in holding)
    colors = ", ".join(hex_color(color) for color in classes.void_colors) or "label 255"
    most = sorted(holding, key=lambda record: -record.counts[VOID])
    files = ", ".join(f"{record.pair.mask} ({record.counts[VOID]:,})" for record in most[:10])
    return [f"void ({colors}, neither trained on nor scored): {total:,} pixels in {len(holding)} mask(s): {files}."]


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
