"""Trains and distils from settings into a run folder: data, teachers, training loop and export come together here."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import nn

from skystill.classes import Labels
from skystill.data import find_pairs, read_image, read_pairs, resolve_classes
from skystill.data.bands import find_spec
from skystill.data.class_weights import find_class_weights, report_class_weights
from skystill.data.prepare import PreparedData, prepare_data
from skystill.errors import SettingsError
from skystill.model.measure import reset_peak_rss
from skystill.progress import Event, Note, OnProgress, Progress, ignore_progress, named, phase, report_notes, tracked
from skystill.report.metrics import evaluate, metrics_for
from skystill.report.records import TeacherScores, write_record
from skystill.run_folder import RunFolder, write_json
from skystill.settings import CacheSettings, ClusterSettings, DistillSettings, FitSettings, TrainSettings
from skystill.train.alike import check_alike, facts_of_run
from skystill.train.beginning import build_first, check_beginning, check_layers, has_begun, try_network
from skystill.train.compress.int8_aware import int8_aware
from skystill.train.features_first import LearnFeatures, baseline_epochs, begin_with_features, check_features_first
from skystill.train.fitting import Fitting, check_patience, check_validation, connect_ranks, open_fabric
from skystill.train.inputs import inputs_of_teaching
from skystill.train.loggers import check_loggers
from skystill.train.loop.distiller import Distiller
from skystill.train.loop.gradients import GradientLog
from skystill.train.loop.ranks import name_lost_ranks, rank_and_count
from skystill.train.loop.supervised import Supervised
from skystill.train.missed_classes import without_missed
from skystill.train.networks.library import is_library, shown_name
from skystill.train.networks.start import recorded_input
from skystill.train.teachers.logit_cache import whole_logits
from skystill.train.teachers.teacher import combine
from skystill.train.teaching import Teaching, build_distiller, check_teaching, fill_caches, open_teaching
from skystill.train.weak_teacher import compared_with_teacher, teacher_score


def train_run(settings: TrainSettings, resume: bool = False, on_progress: OnProgress = ignore_progress) -> RunFolder:
    """Train a network on labels alone, and write the results into a run folder.

    Args:
        settings: how to train.
        resume: whether to continue a run that was stopped or killed.
        on_progress: called with notes on the data and with the progress of the training.

    Returns:
        the run.

    Raises:
        UserError: a problem that the user can mend: data, settings, folder, disk, or a loss that is not finite.
        Interrupted: the user pressed Ctrl-C. The checkpoint is saved.
    """
    check_layers(settings.network, settings)
    connected = connect_ranks(settings)
    check_loggers(settings.logger)
    begun = has_begun(settings, resume)
    check_beginning(settings.network, settings, begun)
    reset_peak_rss()  # of one training: a program may train a teacher first and then a student
    prepared = prepare_data(settings, on_progress, recorded_input(settings.network))
    check_patience(settings, prepared)
    class_weights = find_class_weights(settings, prepared)
    network = build_first(settings.network, settings, prepared, begun)
    if connected:
        check_alike(connected, facts_of_run(settings, prepared, connected))
    fabric = connected or open_fabric(settings)
    on_progress = named(on_progress, shown_name(settings.network)) if fabric.is_global_zero else ignore_progress
    prepared.report(on_progress)
    report_class_weights(class_weights, prepared, on_progress)
    if not begun:
        try_network(network, settings.network, prepared.classes, on_progress)
    fitting = Fitting(RunFolder(settings.out), settings, prepared, fabric, on_progress, class_weights=class_weights)
    with fitting.held(resume):
        task = Supervised(network, fabric)
        task.compile(fitting.optimizer(network), fitting.student_loss(), metrics_for(prepared.classes))
        fitting.fit(task)
        if fabric.is_global_zero:
            fitting.finish(network, settings.network)
    return fitting.folder


def distill_run(
    settings: DistillSettings,
    resume: bool = False,
    on_progress: OnProgress = ignore_progress,
    fill_cache: Callable[[], None] | None = None,
    learn_features: LearnFeatures | None = None,
) -> RunFolder:
    """Distil a student, and write the results into a run folder. The baseline is another run; see `alone_settings`.

    Args:
        settings: how to distil.
        resume: whether to continue a run that was stopped or killed.
        on_progress: called with notes on the data and the teachers, and with the progress of the training.
        fill_cache: fills the cache of the teachers' logits. It is called when the data is prepared and reported.
        learn_features: lets the student learn the teacher's features, after that. Without it, it does not learn them.

    Returns:
        the run.

    Raises:
        UserError: as `train_run`, or a teacher cannot be used.
        Interrupted: the user pressed Ctrl-C. The checkpoint is saved.
    """
    _check_ranks(settings)
    connected = connect_ranks(settings)
    check_loggers(settings.logger)
    check_teaching(settings)  # Opening the data and filling a cache can take hours: errors in the settings come first.
    begun = has_begun(settings, resume)
    check_beginning(settings.student, settings, begun)
    reset_peak_rss()  # as in train_run
    prepared = prepare_data(settings, on_progress, recorded_input(settings.student))
    check_validation(settings, prepared)
    class_weights = find_class_weights(settings, prepared)
    student = build_first(settings.student, settings, prepared, begun)
    if connected:
        check_alike(connected, facts_of_run(settings, prepared, connected))
    prepared.report(on_progress)
    RunFolder(settings.out).check_free(resume)  # before the cache: the run itself checks it again, with the lock held
    report_class_weights(class_weights, prepared, on_progress)
    if not begun:
        try_network(student, settings.student, prepared.classes, on_progress)
    if fill_cache is not None:
        fill_cache()
    if learn_features is not None:
        student, prepared = begin_with_features(student, settings, prepared, learn_features)
    fabric = connected or open_fabric(settings)
    on_progress = named(on_progress, f"{_shown(settings)} distilled") if fabric.is_global_zero else ignore_progress
    teaching = _open_teachers(settings, prepared, fabric, on_progress)
    fitting = Fitting(RunFolder(settings.out), settings, prepared, fabric, on_progress, teaching, class_weights)
    task = _build_task(student, fitting)
    with fitting.held(resume):
        score = teacher_score(settings, prepared.split, prepared.classes)
        compared = compared_with_teacher(_warning(on_progress, task.gradients), settings.teacher[0], score)
        replace(fitting, on_progress=compared).fit(task)
        if settings.quantize:
            _fine_tune_for_int8(student, fitting)
        if fabric.is_global_zero:
            fitting.finish(student, settings.student)
            _score_teachers(teaching, settings, fitting)
    return fitting.folder


def _check_ranks(settings: DistillSettings) -> None:
    """Refuse what cannot be done, above all in several processes, before they connect."""
    if settings.quantize and settings.devices * settings.nodes > 1:
        raise SettingsError("--quantize fine-tunes in one process: leave --devices and --nodes at 1.")
    check_layers(settings.student, settings)
    check_features_first(settings)


def _open_teachers(
    settings: DistillSettings, prepared: PreparedData, fabric: Fabric, on_progress: OnProgress
) -> Teaching:
    """Open the teachers when every rank has filled its part of the cache, and report notes on them."""
    with name_lost_ranks(fabric):
        fabric.barrier()
    with phase("opening teachers", on_progress, leaves_line=None):
        teaching = open_teaching(settings, prepared, on_progress)
    if fabric.world_size > 1:
        check_alike(fabric, inputs_of_teaching(teaching))
    report_notes(teaching.teachers.notes, on_progress)
    return without_missed(teaching, settings, prepared, fabric, on_progress)


def _shown(settings: DistillSettings) -> str:
    """Return the name of the student to show with its progress. For a weights file this is its name without folder."""
    if is_library(settings.student):
        return shown_name(settings.student)
    return settings.student.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".safetensors")


def _build_task(student: nn.Module, fitting: Fitting) -> Distiller:
    assert isinstance(fitting.settings, DistillSettings) and fitting.teaching is not None, "of a distilled run"
    optimizer, loss = fitting.optimizer(student), fitting.student_loss()
    more = {"student_loss": loss, "metrics": metrics_for(fitting.prepared.classes)}
    return build_distiller(student, fitting.teaching, fitting.settings, fitting.fabric, optimizer, **more)


def _fine_tune_for_int8(student: nn.Module, fitting: Fitting) -> None:
    """Continue training for a quarter of the epochs at a tenth of the learning rate, with the rounding of INT8."""
    short: dict[str, Any] = {
        "epochs": max(1, round(fitting.settings.epochs / 4)),
        "learning_rate": fitting.settings.learning_rate / 10,
        "schedule": "cosine",
        "average": 0.0,
    }
    short_fitting = replace(fitting, settings=fitting.settings.model_copy(update=short))
    with int8_aware(student):
        short_fitting.fit_int8(_build_task(student, short_fitting))


def _warning(on_progress: OnProgress, gradients: GradientLog) -> OnProgress:
    """Return a callback that also gives a note if the parts of the loss have very unequal gradients.

    The note comes once the gradients of the first steps are known.
    """

    def report(event: Event) -> None:
        first_steps_are_done = isinstance(event, Progress) and event.done == GradientLog.steps
        if first_steps_are_done and (warning := gradients.warning()):
            on_progress(Note(warning))
        on_progress(event)

    return report


def fill_cache_folder(settings: CacheSettings, on_progress: OnProgress = ignore_progress) -> None:
    """Run teachers on the training images of a split and store their logits. Images with stored logits are skipped.

    Args:
        settings: data, teachers, and where the logits are stored.
        on_progress: called with notes on the data and the cache, and with a `Progress` for each image.

    Raises:
        UserError: as `distill_run`.
    """
    prepared = prepare_data(settings, on_progress)
    prepared.report(on_progress)
    fill_caches(settings, prepared, on_progress)


def cache_settings(settings: DistillSettings) -> CacheSettings:
    """Return the settings with which `skystill cache` fills the cache of a distillation.

    With several ranks, each rank fills its own part of the cache.

    Raises:
        SettingsError: as `check_teaching`.
    """
    check_teaching(settings)
    rank, ranks = rank_and_count()
    own = {"share", *ClusterSettings.model_fields}
    values = {name: getattr(settings, name) for name in CacheSettings.model_fields if name not in own}
    if (begun := RunFolder(settings.out).split).is_file():
        values["split"] = str(begun)  # the cache is of the images that the run began with
    if settings.bands is None and (known := recorded_input(settings.student)) and not known.is_colors:
        named = all(band.name for band in known.bands)
        values["bands"] = ",".join(band.name if named else str(band.number) for band in known.bands)
    if settings.cache is None and settings.run_teacher is None:
        values["cache"] = RunFolder(settings.out).logits
    return CacheSettings(**values, share=f"{rank + 1}/{ranks}")


def _score_teachers(teaching: Teaching, settings: DistillSettings, fitting: Fitting) -> None:
    """Score the teachers on the test images, if the report cannot run them itself.

    The report can run a single teacher that is a SkyStill run with the classes of the data.
    """
    classes, test, device = fitting.prepared.classes, fitting.prepared.split.test, fitting.fabric.device
    is_own_run = settings.run_teacher is not None and teaching.teachers.origins[0].names == classes.names
    if is_own_run or not test:
        return
    networks = teaching.networks or teaching.teachers.load()
    for network in networks:
        fitting.fabric.to_device(network)
    known = list(teaching.teachers.taught_labels or range(len(classes)))

    def probabilities(images: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        found = (whole_logits(network, image, device) for network, image in zip(networks, images, strict=True))
        answers = [torch.from_numpy(logits).permute(2, 0, 1)[None] for logits in found]
        mean = combine(answers, settings.teacher_weight or [1.0] * len(answers), 1.0).softmax(dim=1)[0].numpy()
        scores = np.zeros((len(classes), *mean.shape[1:]), np.float32)
        scores[known] = mean
        return scores

    def as_fed() -> Iterator[tuple[str, list[npt.NDArray[Any]], Labels]]:
        specs = [origin.input_spec for origin in teaching.teachers.origins]
        shown = tracked(test, "evaluating the teachers", fitting.on_progress, leaves_line=True)
        for pair, (key, first, labels) in zip(shown, read_pairs(test, classes, specs[0]), strict=True):
            yield key, [first, *(read_image(pair.image, spec, pair.bounds) for spec in specs[1:])], labels

    scores = evaluate(probabilities, as_fed(), classes).scores()
    write_record(fitting.folder.teacher_scores, TeacherScores(teacher=settings.teacher, scores=scores))


def within_budget(settings: DistillSettings, on_progress: OnProgress = ignore_progress) -> DistillSettings:
    """Return the settings with the student that fits the budget. Without a budget they stay as they are.

    A run that has begun keeps its student.

    Args:
        settings: how to distil, with or without a budget.
        on_progress: called with a `Message` for each candidate.

    Raises:
        SettingsError: no student fits the budget.
        DataError: the measurements of another computer cannot be read.
    """
    if not settings.has_budget:
        return settings
    check_loggers(settings.logger)  # Measuring takes minutes: errors in the settings come first.
    check_teaching(settings)
    folder = RunFolder(settings.out)
    if folder.config.is_file():
        return settings.model_copy(update={"student": folder.read_config()["student"]})
    # Imported here, because ONNX takes 40 MB of memory that a training without a budget does not need.
    from skystill.train.compress.budget import choose_student

    pairs = find_pairs(settings.data).pairs
    classes, _ = resolve_classes(settings.data, settings.classes, pairs)
    fed = find_spec(list(dict.fromkeys(pair.image for pair in pairs)), settings.bands, classes.band_names)
    return choose_student(settings, classes, fed, on_progress)


def keep_split(run: RunFolder, other: RunFolder) -> None:
    """Give another run, which has not begun, the split of a run."""
    _keep(run, run.split, other.split)


def _keep(run: RunFolder, file: Path, copy: Path) -> None:
    if file.is_file() and not copy.exists():
        write_json(copy, run.read_json(file))


def keep_beginning(run: RunFolder, other: RunFolder) -> None:
    """Give another run, which has not begun, the split and the files of a run, so that it is refused with others."""
    keep_split(run, other)
    _keep(run, run.inputs, other.inputs)


def alone_settings(settings: DistillSettings) -> TrainSettings:
    """Return the settings of the baseline: the same student, data and seed, and as many epochs, but no teacher.

    Where the student learnt features first, it has as many more epochs as that took. The baseline is a run inside the
    folder of the distilled run, which is finished. One process trains it.
    """
    shared = {name: getattr(settings, name) for name in FitSettings.model_fields}
    own = {"out": RunFolder(settings.out).alone.path, "network": settings.student, "devices": 1, "nodes": 1}
    return TrainSettings(**{**shared, **own, "epochs": baseline_epochs(settings)})
