"""Trains one network from settings: devices, batches, optimiser, training loop, and the files of the run."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.distributed.distributed_c10d import _set_pg_timeout  # no public function changes it

from skystill.allocator import freed_memory_returned, keep_freed_memory
from skystill.data import read_image
from skystill.data.prepare import PreparedData
from skystill.data.split_map import split_map
from skystill.errors import RanksNotConnected, SettingsError
from skystill.model.measure import peak_rss_bytes
from skystill.progress import Message, OnProgress, phase
from skystill.report.records import TrainingRecord, read_training, write_record
from skystill.run_folder import RunFolder, write_json, write_table
from skystill.settings import DistillSettings, FitSettings, LearnSettings
from skystill.train.batches.batches import CropSampler, TrainBatches, UnlabeledCrops, WholeImages
from skystill.train.batches.images import labeled_images, unlabeled_images
from skystill.train.batches.mixing import Mixing
from skystill.train.features_first import feature_seconds
from skystill.train.inputs import inputs_of_data, inputs_of_teaching
from skystill.train.loggers import open_loggers
from skystill.train.loop.checkpoint import Checkpointer
from skystill.train.loop.distiller import Distiller
from skystill.train.loop.machines import notice_lost_machines
from skystill.train.loop.ranks import check_launched, name_lost_ranks, rank_and_count
from skystill.train.loop.supervised import Supervised
from skystill.train.loop.task import History
from skystill.train.loop.validation import Validation, best_epoch
from skystill.train.losses.on_labels import build_student_loss
from skystill.train.networks.levels import as_leveled
from skystill.train.networks.start import network_name
from skystill.train.networks.table import count_parameters
from skystill.train.networks.weights import NetworkRecord, write_network
from skystill.train.pictures import RunPictures
from skystill.train.teaching import Teaching

_CONNECT = timedelta(minutes=10)
"""How long a rank waits for the others to connect."""
_EXCHANGE = timedelta(days=1)
"""How long a rank waits in an exchange, such as while others fill their part of the cache. A lost one is noticed."""


@dataclass(frozen=True)
class Fitting:
    """Everything that the training of one run needs besides the network.

    Args:
        folder: the run.
        settings: how to train.
        prepared: the data, checked and split.
        fabric: devices and precision.
        on_progress: called with the progress of the training.
        teaching: the teachers of a distilled run; None without teachers.
        class_weights: weight of each class in the loss against labels; None for the same weight.
    """

    folder: RunFolder
    settings: FitSettings
    prepared: PreparedData
    fabric: Fabric
    on_progress: OnProgress
    teaching: Teaching | None = None
    class_weights: tuple[float, ...] | None = None

    @contextmanager
    def held(self, resume: bool) -> Iterator[None]:
        """Start the run in its folder, and keep the folder locked inside the context.

        With several ranks, the first rank does this and the others wait for it.

        Args:
            resume: whether to continue a run.

        Raises:
            RunFolderError: the folder holds another run, or another process uses it.
            RankLost: another rank was lost.
        """
        first = self.fabric.is_global_zero
        with self.folder.locked(self.on_progress) if first else nullcontext(), name_lost_ranks(self.fabric):
            if first:
                if resume and not self.folder.config.exists():
                    begins = f"{self.folder.path}: no run had begun there; it begins with epoch 1"
                    self.on_progress(Message(f"{begins} of {self.settings.epochs}."))
                elif resume and not self.folder.resume.exists():
                    begins = f"{self.folder.path}: no checkpoint was saved yet; it begins with epoch 1"
                    self.on_progress(Message(f"{begins} of {self.settings.epochs}."))
                self._start(resume)
            self.fabric.barrier()
            yield

    def _start(self, resume: bool) -> None:
        config = self.settings.to_config()
        config["input_spec"] = self.prepared.spec.to_dict()
        if self.settings.limit_images is not None:
            config["sampled_images"] = [pair.key for pair in self.prepared.split.train]
        self.folder.start(config, resume)
        of_teaching = inputs_of_teaching(self.teaching) if self.teaching else {}
        self.folder.keep_inputs(inputs_of_data(self.prepared) | of_teaching)
        write_json(self.folder.split, self.prepared.split.to_dict())
        if self.prepared.split.test[0].is_window:
            write_json(self.folder.split_map, split_map(self.prepared.split))

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return AdamW over all weights of a network that learn; those of the encoder have a rate of their own."""
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        learning = [weight for weight in network.parameters() if weight.requires_grad]
        groups: list[dict[str, Any]] = [{"params": learning}]
        if self.settings.encoder_rate is not None:
            encoder = {id(weight) for weight in as_leveled(network).levels.parameters()}
            groups = [
                {"params": [weight for weight in learning if id(weight) not in encoder]},
                {"params": [weight for weight in learning if id(weight) in encoder],
                 "lr": rate * self.settings.encoder_rate},
            ]  # fmt: skip
        # fused: one pass over all weights. Many small passes took a tenth of the step time of a small student.
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, fused=True)

    def student_loss(self) -> nn.Module:
        """Return the loss against labels."""
        return build_student_loss(self.settings.student_loss, self.class_weights)

    def fit(self, task: Supervised) -> None:
        """Train a task, and write the cost of the training into `training.json`."""
        batches, images = self.batches()
        pictures = RunPictures(self.folder.pictures, self.prepared.classes, self.prepared.spec, self.settings.show)
        if self.fabric.is_global_zero:
            pictures.write_training(batches)

        def write_validation(network: nn.Module) -> None:
            assert images is not None, "is called after a validation"
            with self.fabric.autocast():
                pictures.write_validation(network, images.images)

        names = self.settings.logger if self.fabric.is_global_zero else []
        with open_loggers(names, self.folder, self.settings.to_config(), self.on_progress) as log:

            def write_history(rows: History) -> None:
                write_table(self.folder.metrics, rows)
                log(rows)

            history = task.fit(
                batches,
                validation=Validation(images, self.settings.patience, write_validation) if images else None,
                epochs=self.settings.epochs,
                schedule=self.settings.schedule,
                average=self.settings.average,
                checkpointer=Checkpointer(self.folder.resume, write_history),
                on_progress=self.on_progress,
            )
        if self.settings.patience is not None and self.fabric.is_global_zero:
            write_validation(task.network.eval())  # with the weights that are kept
        if self.fabric.is_global_zero:
            self._record(task, history)

    def fit_int8(self, task: Supervised) -> None:
        """Train for a second, short time from the weights of the first training, with a separate checkpoint."""
        batches, validation = self.batches()
        history = task.fit(
            batches,
            validation=validation,
            epochs=self.settings.epochs,
            schedule=self.settings.schedule,
            checkpointer=Checkpointer(
                self.folder.resume_int8, lambda rows: write_table(self.folder.metrics_int8, rows)
            ),
            on_progress=self.on_progress,
        )
        if self.fabric.is_global_zero:
            more = {
                "int8_epochs": len(history),
                "int8_steps": task.stepper.steps,
                "int8_seconds": sum(row["seconds"] for row in history),
            }
            write_record(self.folder.training, read_training(self.folder).model_copy(update=more))

    def batches(self) -> tuple[TrainBatches, WholeImages | None]:
        """Return the training batches, and the images for validation, or None if the split has none."""
        settings, split, classes = self.settings, self.prepared.split, self.prepared.classes
        teaching, stride, unlabeled = self.teaching, 1, None
        fed = self.prepared.spec
        otherwise = teaching.fed_otherwise(fed) if teaching else []
        caches = teaching.caches if teaching else []
        others, cached = ([], otherwise) if caches else (otherwise, [])
        if isinstance(settings, LearnSettings):
            stride = settings.distillation_stride
        drawn = (settings.crop, settings.jitter, caches, settings.zoom, stride)
        if isinstance(settings, LearnSettings) and teaching and teaching.unlabeled:
            of_map = any(window.path in self.prepared.check.maps for window in teaching.unlabeled)
            sampler = CropSampler(unlabeled_images(teaching.unlabeled, fed, others, cached, of_map), *drawn)
            unlabeled = UnlabeledCrops(sampler, settings.unlabeled_fraction)
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        batches = TrainBatches(
            CropSampler(labeled_images(split.train, classes, fed, others, cached), *drawn),
            settings.batch_size,
            settings.seed,
            settings.crops_per_image,
            unlabeled,
            (rank, ranks),
            ahead=self.fabric.device.type != "cpu",
        )
        if isinstance(settings, LearnSettings) and settings.mix is not None:
            batches.mix = Mixing(settings.mix, settings.mixed_fraction, stride)
        if not split.validation:
            return batches, None
        return batches, WholeImages(labeled_images(split.validation, classes, fed), rank=rank, ranks=ranks)

    def _record(self, task: Supervised, history: History) -> None:
        """Write `training.json`. If the file exists, the larger of both peaks of memory is kept."""
        before = read_training(self.folder) if self.folder.training.exists() else None
        norms = task.gradients.means() if isinstance(task, Distiller) else {}
        of_features = feature_seconds(self.settings.out)
        record = TrainingRecord(
            parameters=count_parameters(task.network),
            steps=task.stepper.steps,
            seconds=sum(row["seconds"] for row in history),
            feature_epochs=len(of_features),
            feature_seconds=sum(of_features),
            peak_rss_bytes=max(before.peak_rss_bytes if before else 0, peak_rss_bytes()),
            device=str(task.fabric.device),
            ranks=task.fabric.world_size,
            gradients_in_the_first_steps=norms or (before.gradients_in_the_first_steps if before else {}),
            # Without a class that counts there is no mean IoU: NaN, which JSON does not have.
            kept_epoch=None if self.settings.patience is None else best_epoch(history),
            history=[{name: value for name, value in row.items() if not math.isnan(value)} for row in history],
        )
        write_record(self.folder.training, record)

    def finish(self, network: nn.Module, spec: str) -> None:
        """Write the weights and the model file of a trained network.

        Args:
            network: the trained network. It is moved to the CPU.
            spec: what the network was built from: a name of the table, or a weights file.
        """
        classes, config = self.prepared.classes, self.settings.to_config()
        record = NetworkRecord(network_name(spec), classes, config, input_spec=self.prepared.spec)
        said = phase(f"writing {self.folder.weights.name} and {self.folder.model.name}", self.on_progress)
        with freed_memory_returned(), said:
            self._write(network.cpu(), record)

    def _write(self, network: nn.Module, record: NetworkRecord) -> None:
        # Imported here, after the training, because ONNX takes 40 MB of memory that training does not need.
        from skystill.train.compress.export import describe, export_network

        name, classes, fed = record.network, record.classes, record.input_spec
        write_network(self.folder.weights, network, record)
        info = describe(name, network, classes, data=str(self.settings.data.name))
        images = [read_image(pair.image, fed, pair.bounds)[:512, :512] for pair in self.prepared.split.train[:2]]
        export_network(network, replace(info, input_spec=fed), self.folder.model, images)


def _can_score(prepared: PreparedData) -> bool:
    """Whether a pixel of the validation images is labelled with a class that is scored."""
    validation = prepared.split.validation
    return bool(validation) and bool(prepared.check.areas_of(validation)[:, prepared.classes.scored].any())


def check_patience(settings: FitSettings, prepared: PreparedData) -> None:
    """Check that there are validation images to go by, if the training is to stop by their score.

    Raises:
        SettingsError: there are none, or no pixel of them is labelled with a class that is scored.
    """
    if settings.patience is None:
        return
    validation = prepared.split.validation
    if not _can_score(prepared):
        found = f"its {len(validation)} validation image(s) have no labelled pixel" if validation else "it has none"
        raise SettingsError(
            f"--patience {settings.patience}: the training would stop by the mIoU on the validation images of the "
            f"split, and {found}. Leave --patience out, or give validation images, such as by --split 0.7/0.15/0.15."
        )


def check_validation(settings: DistillSettings, prepared: PreparedData) -> None:
    """As `check_patience`, and that there are images to score the INT8 file on, if one is to be written at the end.

    Raises:
        SettingsError: there are none, or no pixel of them is labelled with a class that is scored.
    """
    check_patience(settings, prepared)
    if not (settings.quantize or settings.has_budget):
        return
    if not _can_score(prepared):
        asked = "--quantize" if settings.quantize else "a budget"
        raise SettingsError(
            f"{asked}: the INT8 file is scored on the validation images of the split, and they have no labelled pixel. "
            "Leave it out, or give validation images, such as by --split 0.7/0.15/0.15."
        )


def connect_ranks(settings: FitSettings) -> Fabric | None:
    """Connect the ranks of a run, before each of them opens its data: one that fails later is noticed by the others.

    Returns:
        the devices, or None if the run has one process.

    Raises:
        SettingsError: torchrun or SLURM started another number of processes.
        RanksNotConnected: the ranks do not reach each other.
    """
    check_launched(settings.devices, settings.nodes)
    return open_fabric(settings) if settings.devices * settings.nodes > 1 else None


def open_fabric(settings: FitSettings) -> Fabric:
    """Open the devices with their precision. With several ranks, the ranks connect here.

    Raises:
        RanksNotConnected: the ranks do not reach each other.
    """
    keep_freed_memory()
    ranks = settings.devices * settings.nodes
    with _only_warnings():
        fabric = Fabric(
            accelerator="auto",
            devices=settings.devices,
            num_nodes=settings.nodes,
            precision=choose_precision(settings.precision),  # type: ignore[arg-type]
            strategy=DDPStrategy(timeout=_CONNECT) if ranks > 1 else "auto",
        )
        if ranks > 1:
            try:
                fabric.launch()
                fabric.barrier()
            except RuntimeError as error:
                raise RanksNotConnected(*rank_and_count(), error) from error
            _set_pg_timeout(_EXCHANGE)
            notice_lost_machines()
    return fabric


@contextmanager
def _only_warnings() -> Iterator[None]:
    """Keep Fabric from printing the precision and the ranks. Its warnings are still printed."""
    logger = logging.getLogger("lightning_fabric")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def choose_precision(precision: str) -> str:
    """Return the name that Fabric has for a precision.

    bf16 is faster on a GPU, and on a CPU with matrix units. On a CPU that only has the bf16 dot product, training in
    bf16 was 1.2 to 1.5 times *slower* than in float32 (docs/log.md). "auto" therefore takes float32 there.

    Args:
        precision: "auto", "bf16" or "32".
    """
    if precision == "auto":
        gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = "bf16" if gpu or torch.cpu._is_amx_tile_supported() else "32"
    return {"bf16": "bf16-mixed", "32": "32-true"}[precision]
