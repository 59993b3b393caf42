"""The page of `skystill data check`: the map, the pixels of each class, samples with their labels, and problems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skystill import __version__
from skystill.classes import VOID, ClassMap, Labels, hex_color
from skystill.data import ImageRecord, Pair, read_pair_labels
from skystill.data.maps import block_of, name_all
from skystill.data.prepare import CheckedData
from skystill.data.split import PARTS
from skystill.errors import UserError
from skystill.progress import OnProgress, ignore_progress, tracked
from skystill.raster.shown import read_shown
from skystill.report.environment import page_environment, picture_url
from skystill.report.map_overview import draw_overviews
from skystill.run_folder import write_text

_SAMPLES, _SIDE = 12, 384
PART_COLORS = {"train": "#3D3DE0", "validation": "#B3199E", "test": "#D11A2A"}


@dataclass(frozen=True)
class _Column:
    """Pixels of each class, and of void behind them, in all of the data or in a part of its split."""

    title: str
    pixels: list[int]

    @property
    def shares(self) -> list[float]:
        return [count / max(1, sum(self.pixels)) for count in self.pixels]


def write_check_page(path: Path, root: Path, checked: CheckedData, on_progress: OnProgress = ignore_progress) -> None:
    """Write what `check_folder` found as one HTML file that needs no other file.

    Args:
        path: the file. It appears complete or not at all.
        root: the data folder.
        checked: its content.
        on_progress: called with a `Progress` for each window of a map and each sample.

    Raises:
        DiskFull: the file cannot be written.
    """
    check, split = checked.check, checked.split
    classes = check.classes
    parts: dict[str, tuple[Pair, ...]] = {part: getattr(split, part) for part in PARTS} if split else {}
    windows = [record.pair for record in check.records if record.pair.is_window]
    page = (
        page_environment()
        .get_template("check.html.j2")
        .render(
            root=root,
            version=__version__,
            count=_count(check.records),
            rule=split.rule if split else None,
            classes=[(name, hex_color(color)) for name, color in zip(classes.names, classes.colors, strict=True)],
            source=classes.source,
            columns=_columns(checked, parts),
            overviews=draw_overviews(windows, classes, parts, on_progress) if windows else [],
            rasters=len(check.maps),
            part_colors={part: color for part, color in PART_COLORS.items() if parts.get(part)},
            blocks={part: len({block_of(pair.key) for pair in pairs}) for part, pairs in parts.items()},
            samples=_samples(check.cut or check.records, classes, parts, on_progress),
            problems=check.problems,
            notes=checked.notes,
        )
    )
    write_text(path, page)


def _count(records: Sequence[ImageRecord]) -> str:
    if records and records[0].pair.is_window:
        return f"{name_all(list(dict.fromkeys(record.pair.image for record in records)))}: {len(records):,} windows"
    return f"{len(records):,} images with masks"


def _columns(checked: CheckedData, parts: Mapping[str, Sequence[Pair]]) -> list[_Column]:
    check, number = checked.check, len(checked.check.classes)
    records = check.by_key
    columns = [("all", check.counts)]
    columns += [
        (part, np.asarray(sum((records[pair.key].counts for pair in pairs), np.zeros(256, np.int64))))
        for part, pairs in parts.items()
        if pairs
    ]
    return [_Column(title, [*counts[:number].tolist(), int(counts[VOID])]) for title, counts in columns]


def _samples(
    records: Sequence[ImageRecord], classes: ClassMap, parts: Mapping[str, Sequence[Pair]], on_progress: OnProgress
) -> list[dict[str, str]]:
    """Return small parts of images, and their labels: of each class one, and others that are spread evenly."""
    part_of = {pair.key: part for part, pairs in parts.items() for pair in pairs}
    samples = []
    for record, label in tracked(_chosen(records, len(classes)), "drawing samples", on_progress):
        pair = record.pair
        try:
            image = read_shown(str(pair.image), None, pair.bounds)
            labels = read_pair_labels(pair, classes, (image.shape[0], image.shape[1])).labels
        except UserError:
            continue  # it is among the problems
        top, left = _corner(labels, label)
        here = np.s_[top : top + _SIDE, left : left + _SIDE]
        image, labels = image[here], labels[here]
        held = [name for place, name in enumerate(classes.names) if (labels == place).any()]
        samples.append(
            {
                "key": pair.key,
                "part": part_of.get(pair.key, ""),
                "held": ", ".join(held) or "void alone",
                "image": picture_url(image, ".jpg"),
                "labels": picture_url(classes.paint_striped(labels), ".png"),
            }
        )
    return samples


def _chosen(records: Sequence[ImageRecord], number: int) -> list[tuple[ImageRecord, int]]:
    """Return images with the class that is shown of each: the image with most of it, from the rarest class on."""
    counts = np.array([record.counts[:number] for record in records]).reshape(-1, number)
    rarest = [label for label in np.argsort(counts.sum(axis=0), kind="stable").tolist() if counts[:, label].any()]
    found: dict[int, int] = {}
    for label in rarest[:_SAMPLES]:
        place = int(counts[:, label].argmax())
        found.setdefault(place, label)
    labeled = np.flatnonzero(counts.any(axis=1)).tolist()
    for number_of in range(_SAMPLES):
        if labeled and len(found) < _SAMPLES:
            place = labeled[number_of * len(labeled) // _SAMPLES]
            held = [label for label in rarest if counts[place, label]]
            found.setdefault(place, held[0])
    return [(records[place], label) for place, label in sorted(found.items())]


def _corner(labels: Labels, label: int) -> tuple[int, int]:
    """Return the top and left of a square with a pixel of a class in its middle, if the image is large enough."""
    rows = np.flatnonzero((labels == label).any(axis=1))
    if not len(rows):
        return 0, 0
    row = rows[len(rows) // 2]
    columns = np.flatnonzero(labels[row] == label)
    middle = int(row), int(columns[len(columns) // 2])
    top, left = (max(0, min(at - _SIDE // 2, size - _SIDE)) for at, size in zip(middle, labels.shape, strict=True))
    return top, left
