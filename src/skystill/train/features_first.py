"""A distillation that begins with the teacher's features: whether it does, and how they are learnt."""

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from skystill.data import Split
from skystill.data.prepare import PreparedData
from skystill.errors import SettingsError
from skystill.progress import Note, OnProgress
from skystill.raster.input_spec import InputSpec
from skystill.run_folder import RunFolder, write_json
from skystill.settings import DistillSettings, PretrainSettings
from skystill.train.networks.imagenet import is_pretrained
from skystill.train.networks.library import is_library, is_weights_file
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import PRUNED, read_record, start_network

LearnFeatures = Callable[[PretrainSettings], None]
"""Pretrains a student in a run folder, or goes on with it."""

_PASSES, _SHARE = 8, 3  # at most 8, and no more than a third of the epochs (docs/results/features.md)
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
    on_progress: OnProgress,
) -> tuple[nn.Module, PreparedData]:
    """Let a student learn the features of its teacher, if it is to begin with them.

    Args:
        student: the student with its first weights.
        settings: how to distil.
        prepared: the data, checked and split.
        learn: called if the features are not learnt yet.
        on_progress: called with a note where the student cannot begin with them.

    Returns:
        The student to train and the data with what it is fed: those of the arguments, or the student with the
        features, which is fed what its teacher is fed.

    Raises:
        SettingsError: `feature_epochs` is set, and the student is fed other bands than its teacher.
        CommandFailed: the features could not be learnt. The reason is printed.
    """
    passes, run = _passes(settings), RunFolder(settings.out)
    of_before = run.config.is_file() and "feature_epochs" not in run.read_config()  # an earlier version began it
    if not passes or of_before:
        return student, prepared
    folder = run.features
    taught = read_record(_weights(settings)).input_spec
    if taught.reading != prepared.spec.reading:
        reason = f"the teacher is fed {_fed(taught)}, and the student {_fed(prepared.spec)}"
        if settings.feature_epochs:
            raise SettingsError(f"--feature-epochs {passes}: {reason}. Leave the option out.")
        on_progress(Note(f"the student does not begin with the teacher's features: {reason}."))
        return student, prepared
    if not folder.weights.exists():
        learn(_settings(settings, folder, passes, prepared.split))
    torch.manual_seed(settings.seed)
    found = prepared.spec
    fed = replace(
        taught, nodata=found.nodata, resolution_m=found.resolution_m, resolution_range_m=found.resolution_range_m
    )
    return start_network(str(folder.weights), len(prepared.classes), fed), replace(prepared, spec=fed)


def baseline_epochs(settings: DistillSettings) -> int:
    """Return the epochs of the student alone: for as many crops as the distilled student saw, with and without labels.

    Args:
        settings: how the student was distilled, in a run that is finished.
    """
    folder = RunFolder(settings.out)
    of_features, of_epochs = _crops(folder.features), _crops(folder)
    return settings.epochs + round(sum(of_features) / (sum(of_epochs) / len(of_epochs)))


def feature_seconds(out: Path) -> list[float]:
    """Return the seconds of each pass in which the student of a run learnt features; none if it did not."""
    return _column(RunFolder(out).features, "seconds")


def _crops(run: RunFolder) -> list[float]:
    """Return the crops that a run saw in each epoch."""
    rates = _column(run, "images_per_second")
    return [seconds * rate for seconds, rate in zip(_column(run, "seconds"), rates, strict=True)]


def _column(run: RunFolder, name: str) -> list[float]:
    if not run.metrics.is_file():
        return []
    with run.metrics.open(encoding="utf-8", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def _passes(settings: DistillSettings) -> int:
    if settings.feature_epochs is not None:
        return settings.feature_epochs
    teacher, student = _teacher_network(settings), settings.student
    if teacher is None or is_weights_file(student) or is_library(student) or settings.devices * settings.nodes > 1:
        return 0
    own_weights = settings.from_scratch or _is_of_imagenet(student)
    knows_more = _is_of_imagenet(teacher) and not read_record(_weights(settings)).settings.get("from_scratch")
    return min(_PASSES, math.ceil(settings.epochs / _SHARE)) if knows_more and not own_weights else 0


def _teacher_network(settings: DistillSettings) -> str | None:
    """Return the network of a teacher whose features can be learnt, or None."""
    if settings.run_teacher is None or not _weights(settings).is_file():
        return None
    name = read_record(_weights(settings)).network
    return None if is_library(name) else name


def _weights(settings: DistillSettings) -> Path:
    assert settings.run_teacher is not None, "the callers have looked"
    return RunFolder(settings.run_teacher).weights


def _is_of_imagenet(network: str) -> bool:
    with torch.device("meta"):
        return is_pretrained(build_network(network.removeprefix(PRUNED), 2))


def _settings(settings: DistillSettings, folder: RunFolder, passes: int, split: Split) -> PretrainSettings:
    write_json(folder.split, split.to_dict())
    same = ("data", "classes", "fit_masks", "bands", "crops_per_image", "jitter", "zoom", "precision", "seed")
    return PretrainSettings(
        **{name: getattr(settings, name) for name in same},
        teacher=settings.teacher[0],
        student=settings.student,
        out=folder.path,
        images=settings.unlabeled,
        split=str(folder.split),
        epochs=passes,
        crop=max(settings.crop, _LEAST_CROP),
    )


def _fed(spec: InputSpec) -> str:
    return f"{spec.labels} as {spec.dtype}"
