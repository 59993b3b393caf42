"""Split pairs into train, validation and test.

The split is by image and never by crop, because neighbouring crops of an image look alike.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skystill.classes import ClassMap, Labels
from skystill.data.blocks import is_blocks, split_blocks
from skystill.data.catalogues import PARTS as PART_WORDS
from skystill.data.masks import read_stored_labels
from skystill.data.pairs import Pair, count_known, find_named
from skystill.data.stratify import PARTS as PARTS
from skystill.data.stratify import Areas, stratified_parts
from skystill.errors import DataError, SettingsError, shortened
from skystill.parsing import read_yaml

ENOUGH_IMAGES = 5
"""Smallest number of test images from which an interval of a score is given.

A bootstrap draws sets of images. Of 3 images, one set in 27 holds the first image alone, which is more than the 2.5 %
beyond an end of the interval: its ends would be the scores of single images. From 5 images on the ends are mixtures.
The interval is still too narrow then (`skystill.report.metrics.MANY_IMAGES`), and reports say so.
"""
_AUTO = (0.7, 0.15, 0.15)
_IMAGES_FOR_AN_INTERVAL = 15
AUTO_RULE = "auto, "
"""What the rule of a split that spreads the classes begins with."""
FindAreas = Callable[[Sequence[Pair]], Areas]
"""Function from n pairs to the pixels of each class in their masks, (n, C)."""
_DUBAI_KEY = re.compile(r"Tile (\d+)/image_part_0*(\d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class Split:
    """The pairs for training, validation and test.

    Args:
        rule: how the split was made, for reports.
        train, validation, test: the pairs of each part. The test part is never empty and never used in training.
        gap: rows and columns of a map that lie between its parts at least; None if nothing is said about that.
    """

    rule: str
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]
    gap: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, str | list[str] | list[int]]:
        """Return the rule and the keys of the pairs, as in a split file and in `split.json` of a run folder."""
        gap = {} if self.gap is None else {"gap": list(self.gap)}
        return {"rule": self.rule, **gap, **{part: [pair.key for pair in getattr(self, part)] for part in PARTS}}


def _dubai(tile: int, part: int) -> str:
    return "train" if part <= 6 else "validation" if part == 7 else "test"


def _dubai_tiles(tile: int, part: int) -> str:
    return {1: "validation", 3: "test", 6: "test"}.get(tile, "train")


RULES: dict[str, Callable[[int, int], str]] = {"dubai": _dubai, "dubai-tiles": _dubai_tiles}
"""Built-in rules for the Dubai data. Each maps tile number and part number of an image to a part of the split."""


def split_pairs(pairs: Sequence[Pair], how: str, seed: int = 0, areas: FindAreas | None = None) -> Split:
    """Split pairs by image.

    Args:
        pairs: all pairs of the data set.
        how: one of "dubai" and "dubai-tiles"; a file (YAML or JSON) with lists of keys under train, validation and
            test; fractions such as "0.7/0.15/0.15"; "folders" for the data set's own train, val and test folders; or
            "auto". "auto" uses the folders if there are any, "dubai" if the names are those of the Dubai data, and
            otherwise spreads the classes over 70 % of the images for training, 15 % for validation and 15 % for test.
            From 15 images on the test part has at least `ENOUGH_IMAGES`.
        seed: seed of the random choice for fractions and for "auto".
        areas: called if "auto" spreads the classes, with the sorted pairs; see `mask_areas`. Without it all images
            count as alike.

    Raises:
        SettingsError: `how` is none of these, the fractions do not add up to 1, the images are not those of the Dubai
            data, or a file names images twice or images that do not exist.
        DataError: no image is left to train or to test on.
    """
    of_map = any(pair.is_window for pair in pairs)
    if of_map and is_blocks(how):
        split = _in_space(pairs, how, seed, areas)
    elif how == "auto" and spreads_classes(pairs):
        split = _by_area(pairs, seed, areas)
    elif (how := _choose(pairs) if how == "auto" else how) in RULES:
        split = _by_rule(pairs, how)
    elif how == "folders":
        split = _collect(how, [(pair, pair.subset) for pair in pairs])
    elif re.fullmatch(r"(\d*\.?\d+/){2}\d*\.?\d+", how) and not of_map:
        split = _by_fractions(pairs, how, seed)
    else:
        split = _by_file(pairs, Path(how))
    empty = [part for part in ("train", "test") if not getattr(split, part)]
    if empty:
        raise DataError(
            f"the split {how!r} of {len(pairs)} image(s) leaves nothing for {' and '.join(empty)}.",
            mend="A map needs several blocks: take smaller ones or a smaller gap (--split blocks:SIDE/GAP, in metres), "
            "or draw a layer split."
            if of_map
            else "Training needs an image, and an honest score another: add images, or name them in a --split FILE.",
        )
    return split


def sample_images(pairs: Sequence[Pair], count: int, seed: int) -> tuple[Pair, ...]:
    """Draw pairs at random, for `--limit-images`.

    Args:
        pairs: the pairs to draw from.
        count: number of pairs to draw.
        seed: the same seed draws the same pairs.

    Returns:
        the drawn pairs, sorted by key.

    Raises:
        SettingsError: there are fewer than `count` pairs.
    """
    if count > len(pairs):
        raise SettingsError(f"--limit-images {count}: there are only {len(pairs)} training images.")
    return tuple(sorted(random.Random(seed).sample(sorted(pairs), count)))


def spreads_classes(pairs: Sequence[Pair]) -> bool:
    """Return whether "auto" spreads the classes of these images, because neither folders nor names say the part."""
    return _choose(pairs) == ""


def mask_areas(pairs: Sequence[Pair], classes: ClassMap) -> Areas:
    """Read masks, and return the number of pixels of each class in each.

    Images are not opened, so that a split does not depend on the bands that a network is fed.

    Raises:
        DataError: a mask cannot be read.
    """
    return np.array([class_areas(read_stored_labels(pair, classes).labels, classes) for pair in pairs])


def class_areas(labels: Labels, classes: ClassMap) -> npt.NDArray[np.int64]:
    """Return the number of pixels (C,) of each class in the labels (H, W) of a mask."""
    return np.bincount(labels.ravel(), minlength=len(classes))[: len(classes)].copy()  # not a part of 256


def _choose(pairs: Sequence[Pair]) -> str:
    """Return the rule that fits the data, or "" if neither its folders nor its names say the part of an image."""
    subsets = {pair.subset for pair in pairs}
    if "" not in subsets and {"train", "test"} <= subsets:
        return "folders"
    if all(_DUBAI_KEY.search(pair.key) for pair in pairs):
        return "dubai"
    return ""


def _by_rule(pairs: Sequence[Pair], how: str) -> Split:
    chosen: list[tuple[Pair, str]] = []
    for pair in pairs:
        match = _DUBAI_KEY.search(pair.key)
        if match is None:
            raise SettingsError(
                f"--split {how} is for the Dubai data (Tile N/image_part_00M); {pair.image} is not of it."
            )
        chosen.append((pair, RULES[how](int(match[1]), int(match[2]))))
    return _collect(how, chosen)


def _in_space(pairs: Sequence[Pair], how: str, seed: int, find_areas: FindAreas | None) -> Split:
    ordered = sorted(pairs)
    areas = find_areas(ordered) if find_areas else np.ones((len(ordered), 1), np.int64)
    rule, gap, placed = split_blocks(ordered, how, seed, areas, _sizes)
    return replace(_collect(rule, placed), gap=gap)


def _sizes(count: int) -> tuple[int, int, int]:
    """Return how many of some images, or blocks, go to training, validation and test."""
    least = ENOUGH_IMAGES if count >= _IMAGES_FOR_AN_INTERVAL else 1
    test = min(max(least, round(_AUTO[2] * count)), count)
    validation = min(max(1, round(_AUTO[1] * count)), max(0, count - test - 1))
    return count - test - validation, validation, test


def _by_area(pairs: Sequence[Pair], seed: int, find_areas: FindAreas | None) -> Split:
    ordered = sorted(pairs)
    areas = find_areas(ordered) if find_areas else np.zeros((len(ordered), 1), np.int64)
    parts = stratified_parts(areas, _sizes(len(ordered)), seed)
    rule = f"{AUTO_RULE}classes spread by area, seed {seed}"
    return _collect(rule, [(pair, PARTS[part]) for pair, part in zip(ordered, parts, strict=True)])


def _by_fractions(pairs: Sequence[Pair], how: str, seed: int) -> Split:
    fractions = [float(value) for value in how.split("/")]
    if abs(sum(fractions) - 1) > 1e-6:
        raise SettingsError(f"--split {how}: the fractions add up to {sum(fractions):g}; they must add up to 1.")
    shuffled = sorted(pairs)
    random.Random(seed).shuffle(shuffled)
    count = len(shuffled)
    # Each part whose fraction is above 0 gets at least one image, if there are enough: first test, then train, then
    # validation.
    test = min(max(1, round(fractions[2] * count)), count) if fractions[2] else 0
    validation = min(max(1, round(fractions[1] * count)), max(0, count - test - 1)) if fractions[1] else 0
    parts = ["test"] * test + ["validation"] * validation
    parts += ["train"] * (count - len(parts))
    return _collect(f"{how}, seed {seed}", list(zip(shuffled, parts, strict=True)))


def _by_file(pairs: Sequence[Pair], path: Path) -> Split:
    if not path.is_file():
        raise SettingsError(
            f"--split {path}: neither a file, nor fractions (0.7/0.15/0.15), nor one of "
            f"auto, folders, {', '.join(RULES)}. Windows of a map are split by blocks, blocks:SIDE or blocks:SIDE/GAP "
            "in metres, or by a layer split: a random split of neighbouring windows would leak."
        )
    content = read_yaml(path, lambda reason: SettingsError(f"--split {path}: {reason}."))
    content = _with_parts(path, content)
    images = [pair for pair in pairs if not pair.is_window]
    by_name = {pair.image.name: pair for pair in images} | {pair.key: pair for pair in images}
    listed = [str(name) for part in PARTS for name in content.get(part, [])]
    _check_names(path, listed, images)
    by_name |= find_named(pairs, listed)  # a key takes precedence over a file name of another image
    chosen: list[tuple[Pair, str]] = []
    missing: list[str] = []
    for part in PARTS:
        for name in content.get(part, []):
            pair = by_name.get(str(name))
            missing.extend([] if pair else [str(name)])
            chosen.extend([(pair, part)] if pair else [])
    if missing:
        raise SettingsError(
            f"--split {path} names images that the data does not hold: {shortened(', '.join(missing))}."
        )
    keys = [pair.key for pair, _ in chosen]
    twice = sorted(key for key, count in Counter(keys).items() if count > 1)
    if twice:
        raise SettingsError(
            f"--split {path} names images twice, so that a part would leak: {shortened(', '.join(twice))}."
        )
    split = replace(_collect(shortened(content.get("rule", path.name)), chosen), gap=read_gap(content))
    leaking = count_known(split.test, [*(p.key for p in (*split.train, *split.validation) if p.is_window)], pairs)
    if leaking:
        raise SettingsError(f"--split {path}: {leaking} test windows overlap with windows of other parts.")
    return split


def _with_parts(path: Path, content: object) -> dict[str, Any]:
    """Return a split file with the names of this project for its parts, such as validation for val.

    Texts and numbers of other names are left out: they say what the file is.

    Raises:
        SettingsError: it is no object, has lists of other names, or a part is no list.
    """
    if not isinstance(content, dict):
        raise SettingsError(f"--split {path}: it must hold lists of images under train, validation and test.")
    parts: dict[str, Any] = {name: content[name] for name in ("rule", "gap") if name in content}
    for name, listed in content.items():
        part = PART_WORDS.get(str(name).lower())
        if name in ("rule", "gap") or (part is None and not isinstance(listed, list | dict)):
            continue
        if part is None or not isinstance(listed, list):
            raise SettingsError(
                f"--split {path}: {shortened(name)} is no list of a part; it must hold lists of images under train, "
                "validation (or val) and test."
            )
        parts[part] = [*parts.get(part, []), *listed]
    return parts


def _check_names(path: Path, listed: Sequence[str], images: Sequence[Pair]) -> None:
    """Refuse names of files that several images have.

    Raises:
        SettingsError: there are some.
    """
    keys, files = {pair.key for pair in images}, Counter(pair.image.name for pair in images)
    many = sorted({name for name in listed if files[name] > 1 and name not in keys})
    if many:
        having = [pair.key for pair in images if pair.image.name == many[0]]
        raise SettingsError(
            f"--split {path} names {shortened(', '.join(many))}, and several images are called so. Write their keys "
            f"instead: {shortened(', '.join(having))}."
        )


def read_gap(content: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the gap that a split file gives, or None if it gives none."""
    match content.get("gap"):
        case [int(down), int(across)] if down >= 0 and across >= 0:
            return down, across
        case _:
            return None


def _collect(rule: str, chosen: list[tuple[Pair, str]]) -> Split:
    train, validation, test = (tuple(sorted(pair for pair, where in chosen if where == part)) for part in PARTS)
    return Split(rule, train, validation, test)
