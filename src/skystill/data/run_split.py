"""The split of a run: its own `split.json`, that of the run that it goes on from, or a new one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from skystill.data.check import DataCheck
from skystill.data.pairs import Pair, count_known, find_named
from skystill.data.split import PARTS, Split, read_gap, sample_images, split_pairs, spreads_classes
from skystill.run_folder import RunFolder, is_own_data
from skystill.settings import CacheSettings, FitSettings, PruneSettings


def find_split(
    settings: FitSettings | CacheSettings, pairs: Sequence[Pair], check: DataCheck
) -> tuple[Split, tuple[str, ...]]:
    """Return the split of a run, with the training images sampled if `limit_images` is set, and notes on it.

    A run that has begun keeps the split in its folder, so that it goes on with the same images, also if an earlier
    version of SkyStill made it by another rule. Where "auto" spreads the classes, a run takes the split of its teacher
    (or of the run that it prunes) on the same images. Its test images are then new to both.

    Args:
        settings: settings of the run.
        pairs: all pairs of the data.
        check: the content of the data, without problems.

    Raises:
        SettingsError, DataError: as `split_pairs`; also if images of a run that has begun are gone.
    """
    own = RunFolder(settings.out).split if isinstance(settings, FitSettings) else None
    if own is not None and own.is_file():
        return split_pairs(pairs, str(own)), ()
    notes: tuple[str, ...] = ()
    before = _run_before(settings)
    split = run_split(before, pairs) if before and settings.split == "auto" and spreads_classes(pairs) else None
    if before and split:
        notes = (
            f"the split is that of {before.path}, whose images have the same names, so that those that it was trained "
            "on are no test images here.",
        )
    else:
        split = split_pairs(pairs, settings.split, settings.seed, check.areas_of)
    if settings.limit_images is not None:
        drawn = sample_images(split.train, settings.limit_images, settings.seed)
        split = replace(split, train=drawn)
    return split, (*notes, *_leaks(settings, split, pairs))


def run_split(run: RunFolder, pairs: Sequence[Pair]) -> Split | None:
    """Return the split of a run for the images of a data folder, or None if the images are not those of the run.

    Training images that `limit_images` left out in the run are training images here.

    Args:
        run: the run.
        pairs: all pairs of the data.

    Raises:
        RunFolderError: the settings or the split of the run cannot be read.
    """
    if not run.split.is_file():
        return None
    content = run.read_json(run.split)
    keys = {part: set(map(str, content.get(part, []))) for part in PARTS}
    if pairs and pairs[0].is_window:
        return _of_map(run, pairs, content)
    known, here = set().union(*keys.values()), {pair.key for pair in pairs}
    sampled = run.config.is_file() and run.read_config().get("limit_images") is not None
    if not keys["test"] or not (known == here or (sampled and known < here)):
        return None
    held_out = keys["validation"] | keys["test"]
    train = tuple(sorted(pair for pair in pairs if pair.key not in held_out))
    validation, test = (tuple(sorted(pair for pair in pairs if pair.key in keys[part])) for part in PARTS[1:])
    return Split(str(content.get("rule", run.split)), train, validation, test)


def _of_map(run: RunFolder, pairs: Sequence[Pair], content: Mapping[str, Any]) -> Split | None:
    """Return the split of a run for a map, whose windows it has cut; None if they are not of this map, or sampled."""
    parts = {part: [str(key) for key in content.get(part, [])] for part in PARTS}
    found = find_named(pairs, [key for keys in parts.values() for key in keys])
    sampled = run.config.is_file() and run.read_config().get("limit_images") is not None
    if sampled or not parts["test"] or any(key not in found for keys in parts.values() for key in keys):
        return None
    train, validation, test = (tuple(sorted(found[key] for key in parts[part])) for part in PARTS)
    return Split(str(content.get("rule", run.split)), train, validation, test, read_gap(content))


def _run_before(settings: FitSettings | CacheSettings) -> RunFolder | None:
    """Return the run from which a run goes on: the one that is pruned, or a teacher that is a run."""
    if isinstance(settings, PruneSettings):
        return RunFolder(settings.run)
    teacher = getattr(settings, "run_teacher", None)
    return RunFolder(teacher) if teacher else None


def _leaks(settings: FitSettings | CacheSettings, split: Split, pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Return a note for each teacher, and the network to start from, that was trained on test images of this data."""
    beside = ", and so are those of a student that learns from it"
    others = [(f"the teacher {teacher}", Path(teacher), beside) for teacher in getattr(settings, "teacher", [])]
    first = Path(getattr(settings, "student", getattr(settings, "network", "")))
    if first.suffix == ".safetensors":
        others.append((f"the network to start from, {first},", first.parent.parent, ""))
    notes = []
    for name, folder, more in others:
        run = RunFolder(folder)
        if not (run.split.is_file() and run.config.is_file()):
            continue
        if not is_own_data(run.read_config(), settings.data):
            continue
        seen = count_known(split.test, map(str, run.read_json(run.split).get("train", [])), pairs)
        if seen:
            notes.append(
                f"{name} was trained on {seen} of the {len(split.test)} test images: its scores there are too good"
                f"{more}. Give both the same --split."
            )
    return tuple(notes)
