"""Prepare the data of a run: find, check and split it, and collect notes for the user."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skystill.classes import ClassMap
from skystill.data import (
    DataCheck,
    Pair,
    PairSearch,
    Split,
    check_data,
    find_pairs,
    resolve_classes,
    split_pairs,
)
from skystill.data.bands import ALL, BandStatistics, equal_bands, find_spec, with_statistics
from skystill.data.leaks import leak_notes
from skystill.data.map_check import check_map, gap_note, with_cut
from skystill.data.map_rest import count_rest
from skystill.data.maps import name_all
from skystill.data.parts import PartCounts, count_parts
from skystill.data.resolution import with_resolution
from skystill.data.run_split import find_split
from skystill.data.scale import check_scale
from skystill.data.stored import stored_notes
from skystill.errors import SettingsError
from skystill.progress import Message, OnProgress, ignore_progress, report_notes
from skystill.raster.input_spec import RGB, InputSpec
from skystill.settings import CacheSettings, CheckSettings, FitSettings


@dataclass(frozen=True)
class PreparedData:
    """Data that was found, checked and split.

    Args:
        check: classes, pixel counts and problems of the data.
        split: the images for training, validation and test. If `limit_images` is set, `train` is already sampled.
        notes: what the user should know.
        spec: what a network is fed that is trained on these images.
        measured: the same bands with the statistics of these training images, also where the network was trained before
            on others, whose statistics stay in `spec`. None if they are the same.
        offered: all bands of the images, in their data type; colours if a network cannot be fed these.
        parts: a table of the pixels of each class in each part of the split, as lines of text.
    """

    check: DataCheck
    split: Split
    notes: tuple[str, ...]
    spec: InputSpec = RGB
    offered: InputSpec = RGB
    parts: tuple[str, ...] = ()
    measured: InputSpec | None = None

    @property
    def classes(self) -> ClassMap:
        """The classes with which the masks were read."""
        return self.check.classes

    def report(self, on_progress: OnProgress) -> None:
        """Report what each part of the split holds, and what the user should know, before the training."""
        for line in self.parts:
            on_progress(Message(line))
        report_notes(self.notes, on_progress)


def prepare_data(
    settings: FitSettings | CacheSettings,
    on_progress: OnProgress = ignore_progress,
    known: InputSpec | None = None,
) -> PreparedData:
    """Find, check and split the data of a run.

    Args:
        settings: settings of the run.
        on_progress: called with a `Progress` after each pair that is opened.
        known: what the network is fed, if it was trained before: the bands and their statistics then stay.

    Raises:
        DataError: the folder holds no pairs or too few, the data has problems, which the message lists, or its values
            are not on the scale of `known`.
        ClassesError: there are no classes, or their file cannot be read.
        SettingsError: the split cannot be made, there are fewer training images than `limit_images`, the images lack
            bands, or `--bands` are not those of `known`.
    """
    search = find_pairs(settings.data, settings.fit_masks)
    classes, notes = resolve_classes(settings.data, settings.classes, search.pairs)
    spec = known or _find_spec(search, settings, classes)
    if known is not None and settings.bands is not None:
        check_same_bands(known, _find_spec(search, settings, classes), settings.bands)
    check = _check(search, classes, on_progress, spec)
    check.raise_problems(settings.data)
    split, of_split = find_split(settings, search.pairs, check)
    if known is not None:
        check_scale(_files(split.train), known, "the network to start from")
    check = with_cut(check, split, spec)
    lost = [*leak_notes(check, split), *(gap_note(check, split) if settings.limit_images is None else [])]
    parts = count_parts(check, split)
    notes += () if getattr(settings, "unlabeled", None) else _unlabeled_notes(settings.data, search, check, split, spec)
    measured = None if known is None else with_statistics(known, _statistics(check, split))
    spec, of_bands = _complete(spec, check, split, known)
    return PreparedData(
        check,
        split,
        (*notes, *search.notes, *check.notes, *of_split, *lost, *parts.warnings(), *of_bands),
        spec,
        _offered(search, classes),
        tuple(parts.lines()),
        measured,
    )


def _check(search: PairSearch, classes: ClassMap, on_progress: OnProgress, spec: InputSpec) -> DataCheck:
    return (check_map if search.pairs[0].is_window else check_data)(search, classes, on_progress, spec)


def _files(pairs: Sequence[Pair]) -> list[Path]:
    """Return the image of each pair; that of a map once."""
    return list(dict.fromkeys(pair.image for pair in pairs))


def have_same_bands(one: InputSpec, other: InputSpec) -> bool:
    """Return whether two networks are fed the same bands. Bands without a name are known by their number."""
    pairs = zip(one.bands, other.bands, strict=False)
    same = all(a.name == b.name if a.name and b.name else a.number == b.number for a, b in pairs)
    return same and (len(one), one.dtype) == (len(other), other.dtype)


def check_same_bands(known: InputSpec, found: InputSpec, bands: str) -> None:
    """Refuse bands that are not those which a network was trained on.

    Raises:
        SettingsError: they are not.
    """
    if not have_same_bands(known, found):
        raise SettingsError(
            f"--bands {bands}: the network to start from is fed {known.labels} as {known.dtype}, and these are "
            f"{found.labels} as {found.dtype}. Leave --bands out: it finds its own bands in the images."
        )


def _offered(search: PairSearch, classes: ClassMap) -> InputSpec:
    try:
        return find_spec([search.pairs[0].image], ALL, classes.band_names)
    except SettingsError:
        return RGB


def _find_spec(
    search: PairSearch, settings: FitSettings | CacheSettings | CheckSettings, classes: ClassMap
) -> InputSpec:
    return find_spec(_files(search.pairs), settings.bands, classes.band_names)


def _statistics(check: DataCheck, split: Split) -> list[BandStatistics]:
    trained = {pair.key for pair in split.train}
    return [record.statistics for key, record in check.by_key.items() if key in trained]


def _complete(spec: InputSpec, check: DataCheck, split: Split, known: InputSpec | None) -> tuple[InputSpec, list[str]]:
    """Return the spec with what only the training images tell, and notes on it."""
    statistics = _statistics(check, split)
    if known is None:
        spec = with_statistics(spec, statistics)
    spec, notes = with_resolution(spec, _files(split.train))
    notes += stored_notes(_files((*split.train, *split.validation, *split.test)), spec)
    if spec.is_colors:
        return spec, notes
    fed = f"the network is fed {spec.labels} as {spec.dtype}, with the values of the images."
    return spec, [fed, *equal_bands(spec, statistics), *notes]


@dataclass(frozen=True)
class CheckedData:
    """The content of a data folder, for inspection before training.

    Args:
        check: classes, number of pixels of each, and all problems.
        notes: what the user should know.
        split: the images for training, validation and test; None if there are problems.
        spec: what a network would be fed, with the statistics of the training images, or of all images if there are
            problems.
        parts: pixels of each class in each part of the split; None if there are problems.
    """

    check: DataCheck
    notes: tuple[str, ...]
    split: Split | None
    spec: InputSpec
    parts: PartCounts | None = None


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
    spec = _find_spec(search, settings, classes)
    check = _check(search, classes, on_progress, spec)
    split = None if check.problems else split_pairs(search.pairs, settings.split, areas=check.areas_of)
    check = with_cut(check, split, spec) if split else check
    parts = count_parts(check, split) if split else None
    every = Split("", search.pairs, (), ())
    spec, of_bands = _complete(spec, check, split or every, None)
    of_parts = [*leak_notes(check, split), *gap_note(check, split), *parts.warnings()] if split and parts else []
    of_rest = _unlabeled_notes(settings.data, search, check, split, spec)
    notes = (*notes, *search.notes, *of_rest, *check.notes, *of_parts, *of_bands)
    return CheckedData(check, notes, split, spec, parts)


def _unlabeled_notes(
    root: Path, search: PairSearch, check: DataCheck, split: Split | None, spec: InputSpec
) -> tuple[str, ...]:
    """Return what a student could learn from without labels: folders of images, and the rest of a map."""
    pools = {folder: f"{folder} holds {count:,} image(s) without masks" for folder, count in search.unlabeled.items()}
    rest = count_rest(check, split, spec) if split and check.maps else None
    if rest and rest.pixels:
        pools[root] = f"{rest} of {name_all([*check.maps])} have data and no labels"
    return tuple(
        f"{what}. A student learns from them, too, with: skystill distill --unlabeled {shlex.quote(str(folder))}"
        for folder, what in pools.items()
    )
