"""Prepare the data of a run: find, check and split it, and collect notes for the user."""

import shlex
from dataclasses import dataclass

import numpy as np

from skystill.classes import ClassMap
from skystill.data import (
    DataCheck,
    PairSearch,
    Split,
    check_data,
    find_pairs,
    resolve_classes,
    sample_images,
    split_pairs,
)
from skystill.progress import OnProgress, ignore_progress
from skystill.settings import CacheSettings, CheckSettings, FitSettings


@dataclass(frozen=True)
class PreparedData:
    """Data that was found, checked and split.

    Args:
        check: classes, pixel counts and problems of the data.
        split: the images for training, validation and test. If `limit_images` is set, `train` is already sampled.
        notes: what the user should know.
    """

    check: DataCheck
    split: Split
    notes: tuple[str, ...]

    @property
    def classes(self) -> ClassMap:
        """The classes with which the masks were read."""
        return self.check.classes


def prepare_data(settings: FitSettings | CacheSettings, on_progress: OnProgress = ignore_progress) -> PreparedData:
    """Find, check and split the data of a run.

    Args:
        settings: settings of the run.
        on_progress: called with a `Progress` after each pair that is opened.

    Raises:
        DataError: the folder holds no pairs or too few, or the data has problems, which the message lists.
        ClassesError: there are no classes, or their file cannot be read.
        SettingsError: the split cannot be made, or there are fewer training images than `limit_images`.
    """
    search = find_pairs(settings.data, settings.fit_masks)
    classes, notes = resolve_classes(settings.data, settings.classes, search.pairs)
    check = check_data(search, classes, on_progress)
    check.raise_problems(settings.data)
    split = split_pairs(search.pairs, settings.split, settings.seed)
    if settings.limit_images is not None:
        drawn = sample_images(split.train, settings.limit_images, settings.seed)
        split = Split(split.rule, drawn, split.validation, split.test)
    notes += () if getattr(settings, "unlabeled", None) else _unlabeled_notes(search)
    return PreparedData(check, split, (*notes, *check.notes, *_missing_in_train(check, split)))


@dataclass(frozen=True)
class CheckedData:
    """The content of a data folder, for inspection before training.

    Args:
        check: classes, number of pixels of each, and all problems.
        notes: what the user should know.
        split: the images for training, validation and test; None if there are problems.
    """

    check: DataCheck
    notes: tuple[str, ...]
    split: Split | None


def check_folder(settings: CheckSettings, on_progress: OnProgress = ignore_progress) -> CheckedData:
    """Find pairs of images and masks, open all of them, and return the content and the problems.

    Args:
        settings: data folder, classes and split.
        on_progress: called with a `Progress` after each pair that is opened.

    Raises:
        DataError: the folder does not exist, or it holds no pairs or too few.
        ClassesError: there are no classes, or their file cannot be read.
        SettingsError: the split cannot be made.
    """
    search = find_pairs(settings.data, settings.fit_masks)
    classes, notes = resolve_classes(settings.data, settings.classes, search.pairs)
    check = check_data(search, classes, on_progress)
    split = None if check.problems else split_pairs(search.pairs, settings.split)
    return CheckedData(check, (*notes, *_unlabeled_notes(search), *check.notes), split)


def _unlabeled_notes(search: PairSearch) -> tuple[str, ...]:
    return tuple(
        f"{folder} holds {count:,} image(s) without masks. A student learns from them, too, with: skystill distill "
        f"--unlabeled {shlex.quote(str(folder))}"
        for folder, count in search.unlabeled.items()
    )


def _missing_in_train(check: DataCheck, split: Split) -> list[str]:
    trained = {pair.key for pair in split.train}
    counts = np.sum([record.counts for record in check.records if record.pair.key in trained], axis=0)
    return [
        f"no training image holds {name}; the network cannot learn it."
        for label, name in enumerate(check.classes.names)
        if counts[label] == 0
    ]
