"""A distillation that begins with the teacher's features: whether it does, and how they are learnt."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from skystill.data import Split
from skystill.data.prepare import PreparedData, have_same_bands
from skystill.data.split import PARTS
from skystill.errors import RunFolderError, SettingsError
from skystill.raster.input_spec import InputSpec
from skystill.report.records import read_training
from skystill.run_folder import RunFolder, write_json
from skystill.settings import DistillSettings, PretrainSettings
from skystill.train.beginning import build_first
from skystill.train.networks.library import is_library, is_weights_file
from skystill.train.networks.weights import read_record

LearnFeatures = Callable[[PretrainSettings], None]
"""Pretrains a student in a run folder, or goes on with it."""

_LEAST_CROP = 64  # of `PretrainSettings`: the deepest levels have too few cells below


def check_features_first(settings: DistillSettings) -> None:
    """Check what is asked of the teacher and the student. No data is opened.

    Raises:
        SettingsError: the teacher has no features that can be learnt, or the student has weights already.
    """
    if not settings.feature_epochs:
        return
    asked = f"--feature-epochs {settings.feature_epochs}"
    if _teacher_network(settings) is None:
        raise SettingsError(
            f"{asked}: features are learnt from one teacher that is a run of a network that skystill networks lists. "
            "Leave the option out: the student then learns from the teacher's logits alone."
        )
    if is_weights_file(settings.student) or is_library(settings.student):
        raise SettingsError(
            f"{asked}: {settings.student} does not begin with a network that skystill networks lists. Name one of "
            "these, or leave the option out."
        )
    if settings.from_scratch:
        raise SettingsError(
            f"{asked} and --from-scratch exclude each other: features are what the student begins with."
        )
    if settings.devices * settings.nodes > 1:
        raise SettingsError(
            f"{asked} learns features in one process: leave --devices and --nodes at 1, or learn them first with "
            "skystill pretrain, and begin with --student FILE.safetensors."
        )


def begin_with_features(
    student: nn.Module,
    settings: DistillSettings,
    prepared: PreparedData,
    learn: LearnFeatures,
) -> tuple[nn.Module, PreparedData]:
    """Let a student learn the features of its teacher, if it is to begin with them.

    Args:
        student: the student with its first weights.
        settings: how to distil.
        prepared: the data, checked and split.
        learn: called if the features are not learnt yet.

    Returns:
        The student to train and the data with what it is fed: those of the arguments, or the student with the
        features, which is fed what its teacher is fed.

    Raises:
        SettingsError: the student is fed other bands than its teacher.
        RunFolderError: the folder holds features that were learnt otherwise.
        CommandFailed: the features could not be learnt. The reason is printed.
    """
    if not settings.feature_epochs:
        return student, prepared
    folder = RunFolder(settings.out).features
    taught = read_record(_weights(settings)).input_spec
    if not have_same_bands(taught, prepared.spec):
        raise SettingsError(
            f"--feature-epochs {settings.feature_epochs}: the teacher is fed {_fed(taught)}, and the student "
            f"{_fed(prepared.spec)}. Leave the option out."
        )
    asked = _settings(settings, folder)
    if folder.weights.exists():
        _check_same(folder, asked, prepared.split)
    else:
        write_json(folder.split, prepared.split.to_dict())
        learn(asked)
    found = prepared.spec
    fed = replace(
        taught, nodata=found.nodata, resolution_m=found.resolution_m, resolution_range_m=found.resolution_range_m
    )
    prepared = replace(prepared, spec=fed)
    return build_first(str(folder.weights), settings, prepared), prepared


def baseline_epochs(settings: DistillSettings) -> int:
    """Return the epochs of the student alone: as many as of the distilled student, those for INT8 included.

    Where that student learnt features first, there are as many more as that took.

    Args:
        settings: how the student was distilled, in a run that is finished.
    """
    trained = read_training(RunFolder(settings.out))
    return (
        settings.epochs
        + trained.int8_epochs
        + round(trained.feature_seconds / (trained.seconds / len(trained.history)))
    )


def feature_seconds(out: Path) -> list[float]:
    """Return the seconds of each pass in which the student of a run learnt features; none if it did not."""
    metrics = RunFolder(out).features.metrics
    if not metrics.is_file():
        return []
    with metrics.open(encoding="utf-8", newline="") as file:
        return [float(row["seconds"]) for row in csv.DictReader(file)]


def _teacher_network(settings: DistillSettings) -> str | None:
    """Return the network of a teacher whose features can be learnt, or None."""
    if settings.run_teacher is None or not _weights(settings).is_file():
        return None
    name = read_record(_weights(settings)).network
    return None if is_library(name) else name


def _weights(settings: DistillSettings) -> Path:
    assert settings.run_teacher is not None, "the callers have looked"
    return RunFolder(settings.run_teacher).weights


def _check_same(folder: RunFolder, asked: PretrainSettings, split: Split) -> None:
    """Check that the features that are there are those that are asked for, of the same training images.

    Raises:
        RunFolderError: they are others.
    """
    config = {name: value for name, value in asked.to_config().items() if name != "split"}  # the folder may have moved
    before, now = folder.read_json(folder.split), split.to_dict()
    others = any(before.get(part) != now[part] for part in PARTS)
    if changes := folder.changes(config) or ("from other images" if others else ""):
        raise RunFolderError(
            f"{folder.path} holds features that were learnt otherwise: {changes}. Delete it to learn them again, or "
            "choose another --out."
        )


def _settings(settings: DistillSettings, folder: RunFolder) -> PretrainSettings:
    same = ("data", "classes", "fit_masks", "bands", "crops_per_image", "jitter", "zoom", "precision", "seed")
    return PretrainSettings(
        **{name: getattr(settings, name) for name in same},
        teacher=settings.teacher[0],
        student=settings.student,
        out=folder.path,
        images=settings.unlabeled,
        split=str(folder.split),
        epochs=settings.feature_epochs,
        crop=max(settings.crop, _LEAST_CROP),
    )


def _fed(spec: InputSpec) -> str:
    return f"{spec.labels} as {spec.dtype}"
