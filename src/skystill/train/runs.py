"""From settings to a run folder: `train_run` and `distill_run`. Only here do data, task, loop and export meet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from skystill.classes import ClassMap
from skystill.dataset import (
    DataCheck,
    Pair,
    Split,
    check_data,
    find_pairs,
    read_image,
    resolve_classes,
    sample_images,
    split_pairs,
)
from skystill.errors import SettingsError
from skystill.evaluate import metrics_for
from skystill.measure import peak_rss_bytes
from skystill.run_folder import RunFolder, write_json, write_table
from skystill.settings import CacheSettings, DistillSettings, FitSettings, TrainSettings
from skystill.train.data import Scenes, TrainBatches, WholeImages
from skystill.train.distiller import Distiller, Supervised
from skystill.train.export import describe, export_network
from skystill.train.int8_aware import int8_aware
from skystill.train.logit_cache import LogitCache, Track, mirror_agreement, teacher_key
from skystill.train.loop import History, Keeper, Watch
from skystill.train.losses import build_distillation_loss, build_student_loss
from skystill.train.models import build_network, count_parameters, in_layout, write_network
from skystill.train.teacher import Teacher, check_classes, load_teacher

Tell = Callable[[tuple[str, ...]], None]
"""Takes notes on the data that the user should read."""


def ignore_notes(notes: tuple[str, ...]) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Prepared:
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


def prepare(settings: FitSettings | CacheSettings) -> Prepared:
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
    return Prepared(check, split, (*notes, *check.notes, *_missing_in_train(check, split)))


def train_run(
    settings: TrainSettings, resume: bool = False, watch: Watch | None = None, tell: Tell = ignore_notes
) -> RunFolder:
    """Train a network on labels alone into a run folder.

    Raises:
        UserError: anything the user can mend: data, settings, folder, disk, a loss that is not finite.
        Interrupted: Ctrl-C; the checkpoint is saved.
    """
    folder = RunFolder(settings.out)
    prepared = prepare(settings)
    tell(prepared.notes)
    network = _fresh_network(settings.network, settings, prepared)
    with folder.locked():
        _start(folder, settings, prepared, resume)
        task = Supervised(network, _fabric(settings))
        task.compile(
            _optimizer(network, settings), build_student_loss(settings.student_loss), metrics_for(prepared.classes)
        )
        _fit(task, settings, prepared, folder, watch)
        _finish(folder, network, settings.network, settings, prepared)
    return folder


def distill_run(
    settings: DistillSettings, resume: bool = False, watch: Watch | None = None, tell: Tell = ignore_notes
) -> RunFolder:
    """Distil a student into a run folder. The baseline (`settings.alone`) is another run; see `alone_settings`.

    Raises:
        UserError: as `train_run`, and a teacher that is missing or of other classes.
        Interrupted: Ctrl-C; the checkpoint is saved.
    """
    folder = RunFolder(settings.out)
    prepared = prepare(settings)
    tell(prepared.notes)
    build_distillation_loss(settings.distillation_loss, settings.temperature)  # a wrong name leaves nothing behind
    cache = open_cache(settings, prepared) if settings.teacher_mode == "cached" else None
    teacher = None if cache else load_teacher(settings.teacher, prepared.classes)[0]
    student = _fresh_network(settings.student, settings, prepared)
    with folder.locked():
        _start(folder, settings, prepared, resume)
        _fit(_distiller(student, teacher, settings, prepared), settings, prepared, folder, watch, cache)
        if settings.quantize:
            _fine_tune_for_int8(student, teacher, settings, prepared, folder, watch, cache)
        _finish(folder, student, settings.student, settings, prepared)
    return folder


def _distiller(student: nn.Module, teacher: Teacher | None, settings: DistillSettings, prepared: Prepared) -> Distiller:
    task = Distiller(student=student, teacher=teacher, fabric=_fabric(settings))
    task.compile(
        _optimizer(student, settings),
        student_loss=build_student_loss(settings.student_loss),
        distillation_loss=build_distillation_loss(settings.distillation_loss, settings.temperature),
        alpha=settings.alpha,
        temperature=settings.temperature,
        metrics=metrics_for(prepared.classes),
    )
    return task


def _fine_tune_for_int8(
    student: nn.Module,
    teacher: Teacher | None,
    settings: DistillSettings,
    prepared: Prepared,
    folder: RunFolder,
    watch: Watch | None,
    cache: LogitCache | None,
) -> None:
    """A second, short training from where the first one ended, with a checkpoint of its own."""
    short: dict[str, Any] = {
        "epochs": max(1, round(settings.epochs / 4)),
        "learning_rate": settings.learning_rate / 10,
        "schedule": "cosine",
        "average": 0.0,
    }
    settings = settings.model_copy(update=short)
    with int8_aware(student):
        task = _distiller(student, teacher, settings, prepared)
        batches, validation = _batches(settings, prepared, cache)
        task.fit(
            batches,
            validation=validation,
            epochs=settings.epochs,
            schedule=settings.schedule,
            keeper=Keeper(folder.resume_int8, lambda rows: write_table(folder.metrics_int8, rows)),
            watch=watch,
        )


def cache_run(settings: CacheSettings, track: Track, tell: Tell = ignore_notes) -> LogitCache:
    """Run a teacher over the training images of a split and keep its logits; what is there already stays.

    Raises:
        UserError: as `train_run`, and a teacher that is missing or of other classes.
    """
    prepared = prepare(settings)
    tell(prepared.notes)
    teacher, _ = load_teacher(settings.teacher, prepared.classes)
    cache = _cache(settings)
    pairs = prepared.split.train
    missing = set(cache.missing(pairs))
    sizes = [(r.height, r.width) for r in prepared.check.records if r.pair in missing]
    size = cache.bytes_needed(sizes, len(prepared.classes))
    tell((f"teacher's logits of {len(sizes)} image(s): {size / 1e6:,.0f} MB in {cache.folder}",))
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.to_device(in_layout(teacher, torch.channels_last))
    cache.fill(pairs, teacher, fabric.device, track)
    if not cache.symmetric and pairs:
        same = mirror_agreement(cache, pairs[0].image, teacher, fabric.device)
        tell((f"mirrored cache and teacher agree on {100 * same:.1f} % of the pixels of {pairs[0].key}, mirrored",))
    return cache


def open_cache(settings: DistillSettings, prepared: Prepared) -> LogitCache:
    """The cache of a run's training images, complete.

    Raises:
        CheckpointError: the teacher's weights are missing or damaged.
        ClassCountMismatch, ClassOrderMismatch: the teacher was trained on other classes.
        SettingsError: images without logits.
    """
    check_classes(settings.teacher, prepared.classes)
    cache = _cache(settings)
    missing = cache.missing(prepared.split.train)
    if missing:
        raise SettingsError(
            f"{len(missing)} of {len(prepared.split.train)} training images have no logits in {cache.folder} "
            f"({missing[0].key}, ...); fill it with skystill cache, same data, split and teacher."
        )
    return cache


def _cache(settings: CacheSettings | DistillSettings) -> LogitCache:
    key = teacher_key(RunFolder(settings.teacher).weights)
    return LogitCache(settings.cache or settings.teacher / "logits", key, settings.cache_symmetry == "d4")


def cache_settings(settings: DistillSettings) -> CacheSettings:
    """What `skystill cache` needs to fill the cache of a distillation."""
    return CacheSettings(**{name: getattr(settings, name) for name in CacheSettings.model_fields})


def alone_settings(settings: DistillSettings) -> TrainSettings:
    """The same student, data, steps and seed without the teacher, as a run inside the distilled one's folder."""
    shared = {name: getattr(settings, name) for name in FitSettings.model_fields}
    return TrainSettings(**{**shared, "out": RunFolder(settings.out).alone.path, "network": settings.student})


def choose_precision(precision: str) -> str:
    """Fabric's name of a precision.

    bf16 pays on a GPU, and on a CPU with matrix units. On a CPU that only has the bf16 dot product it was measured
    1.2 to 1.5 times *slower* than float32 in training (docs/log.md), so "auto" leaves it off there.
    """
    if precision == "auto":
        gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = "bf16" if gpu or torch.cpu._is_amx_tile_supported() else "32"
    return {"bf16": "bf16-mixed", "32": "32-true"}[precision]


def _fresh_network(spec: str, settings: FitSettings, prepared: Prepared) -> nn.Module:
    """Build before anything is written: a name that does not exist must leave no folder behind."""
    torch.manual_seed(settings.seed)
    return build_network(spec, len(prepared.classes))


def _fabric(settings: FitSettings) -> Fabric:
    return Fabric(accelerator="auto", devices=1, precision=choose_precision(settings.precision))  # type: ignore[arg-type]


def _optimizer(network: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _start(folder: RunFolder, settings: FitSettings, prepared: Prepared, resume: bool) -> None:
    config = settings.to_config()
    if settings.limit_images is not None:
        config["sampled_images"] = [pair.key for pair in prepared.split.train]
    folder.start(config, resume)
    write_json(folder.split, prepared.split.to_dict())


def _fit(
    task: Supervised,
    settings: FitSettings,
    prepared: Prepared,
    folder: RunFolder,
    watch: Watch | None,
    cache: LogitCache | None = None,
) -> History:
    batches, validation = _batches(settings, prepared, cache)
    history = task.fit(
        batches,
        validation=validation,
        epochs=settings.epochs,
        schedule=settings.schedule,
        average=settings.average,
        keeper=Keeper(folder.resume, lambda rows: write_table(folder.metrics, rows)),
        watch=watch,
    )
    _record_training(folder, task, history)
    return history


def _batches(
    settings: FitSettings, prepared: Prepared, cache: LogitCache | None
) -> tuple[TrainBatches, WholeImages | None]:
    batches = TrainBatches(
        _scenes(prepared, prepared.split.train),
        settings.crop,
        settings.batch_size,
        settings.seed,
        settings.jitter,
        settings.crops_per_image,
        cache,
    )
    validation = WholeImages(_scenes(prepared, prepared.split.validation)) if prepared.split.validation else None
    return batches, validation


def _record_training(folder: RunFolder, task: Supervised, history: History) -> None:
    """What training cost; of a resumed run, the largest memory of all its processes."""
    before: dict[str, Any] = folder.read_json(folder.training) if folder.training.exists() else {}
    write_json(
        folder.training,
        {
            "parameters": count_parameters(task.network),
            "steps": task.stepper.steps,
            "seconds": sum(row["seconds"] for row in history),
            "peak_rss_bytes": max(before.get("peak_rss_bytes", 0), peak_rss_bytes()),
            "device": str(task.fabric.device),
            "history": history,
        },
    )


def _finish(folder: RunFolder, network: nn.Module, name: str, settings: FitSettings, prepared: Prepared) -> None:
    about = {"network": name, "classes": prepared.classes.to_dict(), "settings": settings.to_config()}
    write_network(folder.weights, network.cpu(), about)
    info = describe(name, network.cpu(), prepared.classes, data=str(settings.data.name))
    images = [read_image(pair.image)[:512, :512] for pair in prepared.split.train[:2]]
    export_network(network, info, folder.model, images)


def _scenes(prepared: Prepared, pairs: Sequence[Pair]) -> Scenes:
    return Scenes(pairs, prepared.classes)


def _missing_in_train(check: DataCheck, split: Split) -> list[str]:
    trained = {pair.key for pair in split.train}
    counts = np.sum([record.counts for record in check.records if record.pair.key in trained], axis=0)
    return [
        f"no training image holds {name}; the network cannot learn it."
        for label, name in enumerate(check.classes.names)
        if counts[label] == 0
    ]
