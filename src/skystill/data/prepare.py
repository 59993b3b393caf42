"""The data of a run: found, checked, split, and what the user should know of it."""

from dataclasses import dataclass

import numpy as np

from skystill.classes import ClassMap
from skystill.data import DataCheck, Split, check_data, find_pairs, resolve_classes, sample_images, split_pairs
from skystill.progress import OnProgress, ignore_progress
from skystill.settings import CacheSettings, CheckSettings, FitSettings


@dataclass(frozen=True)
class PreparedData:
    """Data found, checked and split.

    Args:
        check: what the data holds.
        split: which images serve what; `train` is already sampled where `limit_images` asks for it.
        notes: what the user should know.
    """

    check: DataCheck
    split: Split
    notes: tuple[str, ...]

    @property
    def classes(self) -> ClassMap:
        """The classes that the masks were read with."""
        return self.check.classes


def prepare_data(settings: FitSettings | CacheSettings, on_progress: OnProgress = ignore_progress) -> PreparedData:
    """Find, check and split the data of a run.

    Args:
        settings: of the run.
        on_progress: follows the files that are opened.

    Raises:
        DataError: problems in the data, all of them listed.
        ClassesError, SettingsError: no classes, or a split that cannot be made.
    """
    search = find_pairs(settings.data)
    classes, notes = resolve_classes(settings.data, settings.classes, search.pairs)
    check = check_data(search, classes, on_progress)
    check.raise_problems(settings.data)
    split = split_pairs(search.pairs, settings.split, settings.seed)
    if settings.limit_images is not None:
        drawn = sample_images(split.train, settings.limit_images, settings.seed)
        split = Split(split.rule, drawn, split.validation, split.test)
    return PreparedData(check, split, (*notes, *check.notes, *_missing_in_train(check, split)))


@dataclass(frozen=True)
class CheckedData:
    """What a data folder holds, for people to look at before training.

    Args:
        check: classes, pixels of each, and every problem.
        notes: what the user should know.
        split: which images serve what; None where there are problems.
    """

    check: DataCheck
    notes: tuple[str, ...]
    split: Split | None


def check_folder(settings: CheckSettings, on_progress: OnProgress = ignore_progress) -> CheckedData:
    """Find pairs of images and masks, open all of them, and tell what is there and what is wrong.

    Raises:
        DataError: no folder, or no pair in it.
        ClassesError, SettingsError: no classes, or a split that cannot be made.
    """
    search = find_pairs(settings.data)
    classes, notes = resolve_classes(settings.data, settings.classes, search.pairs)
    check = check_data(search, classes, on_progress)
    split = None if check.problems else split_pairs(search.pairs, settings.split)
    return CheckedData(check, (*notes, *check.notes), split)


def _missing_in_train(check: DataCheck, split: Split) -> list[str]:
    trained = {pair.key for pair in split.train}
    counts = np.sum([record.counts for record in check.records if record.pair.key in trained], axis=0)
    return [
        f"no training image holds {name}; the network cannot learn it."
        for label, name in enumerate(check.classes.names)
        if counts[label] == 0
    ]
