"""The data of a run: found, checked, split, and what the user should know of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skystill.classes import ClassMap
from skystill.data import DataCheck, Split, check_data, find_pairs, resolve_classes, sample_images, split_pairs
from skystill.settings import CacheSettings, FitSettings

Tell = Callable[[tuple[str, ...]], None]
"""Takes notes on the data that the user should read."""


def ignore_notes(notes: tuple[str, ...]) -> None:
    """Tell nobody."""


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


def prepare_data(settings: FitSettings | CacheSettings) -> PreparedData:
    """Find, check and split the data of a run.

    Raises:
        DataError: problems in the data, all of them listed.
        ClassesError, SettingsError: no classes, or a split that cannot be made.
    """
    search = find_pairs(settings.data)
    classes, notes = resolve_classes(settings.data, settings.classes, search.pairs)
    check = check_data(search, classes)
    check.raise_problems(settings.data)
    split = split_pairs(search.pairs, settings.split, settings.seed)
    if settings.limit_images is not None:
        drawn = sample_images(split.train, settings.limit_images, settings.seed)
        split = Split(split.rule, drawn, split.validation, split.test)
    return PreparedData(check, split, (*notes, *check.notes, *_missing_in_train(check, split)))


def _missing_in_train(check: DataCheck, split: Split) -> list[str]:
    trained = {pair.key for pair in split.train}
    counts = np.sum([record.counts for record in check.records if record.pair.key in trained], axis=0)
    return [
        f"no training image holds {name}; the network cannot learn it."
        for label, name in enumerate(check.classes.names)
        if counts[label] == 0
    ]
