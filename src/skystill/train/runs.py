"""From settings to a run folder: `train_run` and `distill_run`. Only here do data, task, loop and export meet."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from skystill.allocator import keep_freed_memory
from skystill.data import find_pairs, read_image, read_pairs, resolve_classes
from skystill.data.prepare import PreparedData, Tell, ignore_notes, prepare_data
from skystill.errors import SettingsError
from skystill.model.measure import peak_rss_bytes
from skystill.report.metrics import evaluate, metrics_for
from skystill.run_folder import RunFolder, write_json, write_table
from skystill.settings import CacheSettings, DistillSettings, FitSettings, TrainSettings
from skystill.train.batches.batches import CropSampler, TrainBatches, WholeImages, labeled_images, unlabeled_images
from skystill.train.compress.int8_aware import int8_aware
from skystill.train.loop.checkpoint import Checkpointer
from skystill.train.loop.distiller import Distiller
from skystill.train.loop.gradients import GradientLog
from skystill.train.loop.ranks import name_lost_ranks, rank_and_count
from skystill.train.loop.supervised import Supervised
from skystill.train.loop.task import History, Watch
from skystill.train.losses.on_labels import build_student_loss
from skystill.train.networks.table import count_parameters
from skystill.train.networks.weights import NetworkRecord, network_name, start_network, write_network
from skystill.train.teachers.logit_cache import Track, whole_logits
from skystill.train.teachers.teacher import combine
from skystill.train.teaching import (
    Teaching,
    build_distiller,
    check_teaching,
    fill_caches,
    open_teaching,
)


def train_run(
    settings: TrainSettings, resume: bool = False, watch: Watch | None = None, tell: Tell = ignore_notes
) -> RunFolder:
    """Train a network on labels alone into a run folder.

    Raises:
        UserError: anything the user can mend: data, settings, folder, disk, a loss that is not finite.
        Interrupted: Ctrl-C; the checkpoint is saved.
    """
    folder = RunFolder(settings.out)
    prepared = prepare_data(settings)
    network = _fresh_network(settings.network, settings, prepared)
    fabric = _fabric(settings)
    tell, watch = _first_rank_only(fabric, tell, watch)
    tell(prepared.notes)
    with _held(folder, fabric, settings, prepared, resume):
        task = Supervised(network, fabric)
        task.compile(
            _optimizer(network, settings), build_student_loss(settings.student_loss), metrics_for(prepared.classes)
        )
        _fit(task, settings, prepared, folder, watch)
        if fabric.is_global_zero:
            _finish(folder, network, settings.network, settings, prepared)
    return folder


def distill_run(
    settings: DistillSettings, resume: bool = False, watch: Watch | None = None, tell: Tell = ignore_notes
) -> RunFolder:
    """Distil a student into a run folder. The baseline (`settings.alone`) is another run; see `alone_settings`.

    Raises:
        UserError: as `train_run`, and a teacher that cannot be used.
        Interrupted: Ctrl-C; the checkpoint is saved.
    """
    if settings.quantize and settings.devices * settings.nodes > 1:
        raise SettingsError("--quantize fine-tunes in one process: leave --devices and --nodes at 1.")
    folder = RunFolder(settings.out)
    prepared = prepare_data(settings)
    student = _fresh_network(settings.student, settings, prepared)
    fabric = _fabric(settings)
    tell, watch = _first_rank_only(fabric, tell, watch)
    teaching = open_teaching(settings, prepared.classes, prepared.split)
    tell((*prepared.notes, *teaching.teachers.notes))
    task = _distiller(student, teaching, settings, prepared, fabric)
    with _held(folder, fabric, settings, prepared, resume):
        _fit(task, settings, prepared, folder, Telling(watch, task.gradients, tell), teaching)
        if settings.quantize:
            _fine_tune_for_int8(student, teaching, settings, prepared, folder, watch, fabric)
        if fabric.is_global_zero:
            _finish(folder, student, settings.student, settings, prepared)
            _score_teachers(teaching, settings, prepared, folder, fabric)
    return folder


def _distiller(
    student: nn.Module, teaching: Teaching, settings: DistillSettings, prepared: PreparedData, fabric: Fabric
) -> Distiller:
    optimizer = _optimizer(student, settings)
    return build_distiller(student, teaching, settings, fabric, optimizer, metrics=metrics_for(prepared.classes))


def _fine_tune_for_int8(
    student: nn.Module,
    teaching: Teaching,
    settings: DistillSettings,
    prepared: PreparedData,
    folder: RunFolder,
    watch: Watch | None,
    fabric: Fabric,
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
        task = _distiller(student, teaching, settings, prepared, fabric)
        batches, validation = _batches(settings, prepared, fabric, teaching)
        task.fit(
            batches,
            validation=validation,
            epochs=settings.epochs,
            schedule=settings.schedule,
            checkpointer=Checkpointer(folder.resume_int8, lambda rows: write_table(folder.metrics_int8, rows)),
            watch=watch,
        )


def fill_cache_folder(settings: CacheSettings, track: Track, tell: Tell = ignore_notes) -> None:
    """Run teachers over the training images of a split and keep their logits; what is there already stays.

    Raises:
        UserError: as `distill_run`.
    """
    prepared = prepare_data(settings)
    tell(prepared.notes)
    fill_caches(settings, prepared.classes, prepared.split, track, tell)


def cache_settings(settings: DistillSettings) -> CacheSettings:
    """What `skystill cache` needs to fill the cache of a distillation: this rank's share of it."""
    check_teaching(settings)  # before hours are spent
    rank, ranks = rank_and_count()
    values = {name: getattr(settings, name) for name in CacheSettings.model_fields if name != "share"}
    if settings.cache is None and settings.run_teacher is None:
        values["cache"] = RunFolder(settings.out).logits
    return CacheSettings(**values, share=f"{rank + 1}/{ranks}")


def _score_teachers(
    teaching: Teaching, settings: DistillSettings, prepared: PreparedData, folder: RunFolder, fabric: Fabric
) -> None:
    """Score teachers that the report cannot run itself on the test images: no run of ours, or of other classes."""
    like_ours = settings.run_teacher is not None and teaching.teachers.origins[0].names == prepared.classes.names
    if like_ours or not prepared.split.test:
        return
    networks = teaching.networks or teaching.teachers.load()
    for network in networks:
        fabric.to_device(network)
    known = list(teaching.teachers.taught_labels or range(len(prepared.classes)))

    def probabilities(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        answers = [torch.from_numpy(whole_logits(n, image, fabric.device)).permute(2, 0, 1)[None] for n in networks]
        mean = combine(answers, settings.teacher_weight or [1.0] * len(answers), 1.0).softmax(dim=1)[0].numpy()
        found = np.zeros((len(prepared.classes), *image.shape[:2]), np.float32)
        found[known] = mean
        return found

    scenes = read_pairs(prepared.split.test, prepared.classes)
    scores = evaluate(probabilities, scenes, prepared.classes).scores()
    write_json(folder.teacher_scores, {"teacher": settings.teacher, "scores": scores})


def within_budget(settings: DistillSettings, tell: Callable[[str], None]) -> DistillSettings:
    """The settings with the student that keeps the budget, where there is one. A run that has begun keeps its student.

    Raises:
        SettingsError: no student keeps it.
        DataError: figures of another computer that cannot be read.
    """
    if not settings.has_budget:
        return settings
    folder = RunFolder(settings.out)
    if folder.config.is_file():
        return settings.model_copy(update={"student": folder.read_config()["student"]})
    from skystill.train.compress.budget import choose_student  # not at the top: as in _finish

    classes, _ = resolve_classes(settings.data, settings.classes, find_pairs(settings.data).pairs)
    return choose_student(settings, classes, tell)


def alone_settings(settings: DistillSettings) -> TrainSettings:
    """The same student, data, steps and seed without the teacher, as a run inside the distilled one's folder."""
    shared = {name: getattr(settings, name) for name in FitSettings.model_fields}
    own = {"out": RunFolder(settings.out).alone.path, "network": settings.student, "devices": 1, "nodes": 1}
    return TrainSettings(**{**shared, **own})


def choose_precision(precision: str) -> str:
    """Fabric's name of a precision.

    bf16 pays on a GPU, and on a CPU with matrix units. On a CPU that only has the bf16 dot product it was measured
    1.2 to 1.5 times *slower* than float32 in training (docs/log.md), so "auto" leaves it off there.
    """
    if precision == "auto":
        gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = "bf16" if gpu or torch.cpu._is_amx_tile_supported() else "32"
    return {"bf16": "bf16-mixed", "32": "32-true"}[precision]


def _fresh_network(spec: str, settings: FitSettings, prepared: PreparedData) -> nn.Module:
    """Build before anything is written: a name that does not exist must leave no folder behind."""
    torch.manual_seed(settings.seed)
    return start_network(spec, len(prepared.classes))


def _fabric(settings: FitSettings) -> Fabric:
    """Devices and precision; of several ranks, joined."""
    keep_freed_memory()
    ranks = settings.devices * settings.nodes
    fabric = Fabric(
        accelerator="auto",
        devices=settings.devices,
        num_nodes=settings.nodes,
        precision=choose_precision(settings.precision),  # type: ignore[arg-type]
        # A day: a rank waits for the others' share of the cache. One that is lost is noticed at once all the same.
        strategy=DDPStrategy(timeout=timedelta(days=1)) if ranks > 1 else "auto",
    )
    if ranks > 1:
        fabric.launch()
        with name_lost_ranks(fabric):
            fabric.barrier()
    return fabric


def _first_rank_only(fabric: Fabric, tell: Tell, watch: Watch | None) -> tuple[Tell, Watch | None]:
    return (tell, watch) if fabric.is_global_zero else (ignore_notes, None)


@contextmanager
def _held(
    folder: RunFolder, fabric: Fabric, settings: FitSettings, prepared: PreparedData, resume: bool
) -> Iterator[None]:
    """Begin a run folder and hold it; of several ranks the first does, and the others wait until it has."""
    with folder.locked() if fabric.is_global_zero else nullcontext(), name_lost_ranks(fabric):
        if fabric.is_global_zero:
            _start(folder, settings, prepared, resume)
        fabric.barrier()
        yield


def _optimizer(network: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    # fused: one pass over all weights; for a small student the many small ones took a tenth of the step
    return torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )


def _start(folder: RunFolder, settings: FitSettings, prepared: PreparedData, resume: bool) -> None:
    config = settings.to_config()
    if settings.limit_images is not None:
        config["sampled_images"] = [pair.key for pair in prepared.split.train]
    folder.start(config, resume)
    write_json(folder.split, prepared.split.to_dict())


def _fit(
    task: Supervised,
    settings: FitSettings,
    prepared: PreparedData,
    folder: RunFolder,
    watch: Watch | None,
    teaching: Teaching | None = None,
) -> History:
    batches, validation = _batches(settings, prepared, task.fabric, teaching)
    history = task.fit(
        batches,
        validation=validation,
        epochs=settings.epochs,
        schedule=settings.schedule,
        average=settings.average,
        checkpointer=Checkpointer(folder.resume, lambda rows: write_table(folder.metrics, rows)),
        watch=watch,
    )
    if task.fabric.is_global_zero:
        _record_training(folder, task, history)
    return history


def _batches(
    settings: FitSettings, prepared: PreparedData, fabric: Fabric, teaching: Teaching | None = None
) -> tuple[TrainBatches, WholeImages | None]:
    caches = teaching.caches if teaching else []
    stride, fraction = 1, 0.0
    if isinstance(settings, DistillSettings):
        stride, fraction = settings.distillation_stride, settings.unlabeled_fraction
    seen = (settings.crop, settings.jitter, caches, settings.zoom, stride)
    views = CropSampler(labeled_images(prepared.split.train, prepared.classes), *seen)
    unlabeled = CropSampler(unlabeled_images(teaching.unlabeled), *seen) if teaching and teaching.unlabeled else None
    rank, ranks = fabric.global_rank, fabric.world_size
    batches = TrainBatches(
        views, settings.batch_size, settings.seed, settings.crops_per_image, unlabeled, fraction, rank, ranks,
        ahead=fabric.device.type != "cpu",
    )  # fmt: skip
    held_out = prepared.split.validation
    return batches, WholeImages(
        labeled_images(held_out, prepared.classes), rank=rank, ranks=ranks
    ) if held_out else None


def _record_training(folder: RunFolder, task: Supervised, history: History) -> None:
    """What training cost; of a resumed run, the largest memory of all its processes."""
    before: dict[str, Any] = folder.read_json(folder.training) if folder.training.exists() else {}
    pulls = task.gradients.means() if isinstance(task, Distiller) else {}
    write_json(
        folder.training,
        {
            "parameters": count_parameters(task.network),
            "steps": task.stepper.steps,
            "seconds": sum(row["seconds"] for row in history),
            "peak_rss_bytes": max(before.get("peak_rss_bytes", 0), peak_rss_bytes()),
            "device": str(task.fabric.device),
            "ranks": task.fabric.world_size,
            "gradients_in_the_first_steps": pulls or before.get("gradients_in_the_first_steps", {}),
            "history": history,
        },
    )


@dataclass
class Telling:
    """A watch that also says, after the first steps, when the parts of the loss pull too unequally.

    Args:
        watch: who looks on besides.
        gradients: of the distiller.
        tell: where the warning goes.
    """

    watch: Watch | None
    gradients: GradientLog
    tell: Tell

    def on_step(self, done: int, total: int, result: Mapping[str, float], images_per_second: float) -> None:
        """Pass on, and warn once."""
        if done == GradientLog.steps and (warning := self.gradients.warning()):
            self.tell((warning,))
        if self.watch:
            self.watch.on_step(done, total, result, images_per_second)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Pass on."""
        if self.watch:
            self.watch.on_epoch(row)


def _finish(folder: RunFolder, network: nn.Module, name: str, settings: FitSettings, prepared: PreparedData) -> None:
    from skystill.train.compress.export import describe, export_network  # ONNX is 40 MB that training need not have

    name = network_name(name)
    write_network(folder.weights, network.cpu(), NetworkRecord(name, prepared.classes, settings.to_config()))
    info = describe(name, network.cpu(), prepared.classes, data=str(settings.data.name))
    images = [read_image(pair.image)[:512, :512] for pair in prepared.split.train[:2]]
    export_network(network, info, folder.model, images)
