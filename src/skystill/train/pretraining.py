"""`skystill pretrain`: a student learns the features of a teacher from images alone, before it is trained."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from skystill.allocator import keep_freed_memory
from skystill.classes import ClassMap
from skystill.data.bands import find_spec, image_statistics, with_statistics
from skystill.data.image_files import find_image_files
from skystill.data.map_rest import find_rest
from skystill.data.prepare import PreparedData, check_same_bands, have_same_bands, prepare_data
from skystill.data.scale import check_each_scale
from skystill.data.split import Split
from skystill.data.unlabeled import ImageWindow, find_unlabeled, whole_images
from skystill.errors import SettingsError
from skystill.progress import Message, OnProgress, ignore_progress, named, report_notes
from skystill.raster.input_spec import InputSpec
from skystill.run_folder import RunFolder, write_json, write_table
from skystill.settings import CacheSettings, PretrainSettings
from skystill.train.batches.batches import CropSampler, TrainBatches
from skystill.train.batches.images import TrainingImages, unlabeled_images
from skystill.train.fitting import choose_precision
from skystill.train.inputs import inputs_of_pretraining
from skystill.train.loop.checkpoint import Checkpointer
from skystill.train.loop.matching import FeatureMatching
from skystill.train.losses.on_features import check_crop
from skystill.train.networks.imagenet import is_pretrained
from skystill.train.networks.levels import Leveled, as_leveled
from skystill.train.networks.library import is_library, is_shipped, is_weights_file
from skystill.train.networks.start import network_name, recorded_input, start_network
from skystill.train.networks.weights import NetworkRecord, read_network, read_record, write_network

_NO_CLASSES = ClassMap(("none",), ((0, 0, 0),))
"""Stands for the classes, which nothing learns here."""


def pretrain_run(
    settings: PretrainSettings, resume: bool = False, on_progress: OnProgress = ignore_progress
) -> RunFolder:
    """Train a student to have the features of a teacher, and write its weights into a run folder.

    Args:
        settings: teacher, student, images and how to train.
        resume: whether to continue a run that was stopped or killed.
        on_progress: called with notes on the data and with the progress of the training.

    Returns:
        the run folder. `RunFolder.weights` is what a training starts from.

    Raises:
        UserError: a problem that the user can mend: images, teacher, student, folder, disk, or a loss that is not
            finite.
        Interrupted: the user pressed Ctrl-C. The checkpoint is saved.
    """
    trained = _trained_weights(settings.teacher)
    windows, input_spec, split, of_map = _find_images(settings, trained, on_progress)
    torch.manual_seed(settings.seed)
    begun = start_network(settings.student, len(_NO_CLASSES), input_spec)
    student = _of_the_table(begun, settings.student)
    teacher = _open_teacher(settings.teacher, trained, input_spec)
    check_crop(settings.crop, student, teacher)
    keep_freed_memory()
    fabric = Fabric(accelerator="auto", devices=1, precision=choose_precision(settings.precision))  # type: ignore[arg-type]
    task = FeatureMatching(student, teacher, has_decoder=trained is not None, fabric=fabric)
    rate, decay = settings.learning_rate, settings.weight_decay
    task.begin(torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=decay, fused=True))
    name = network_name(settings.student)
    with _held(settings, input_spec, resume) as folder:
        folder.keep_inputs(inputs_of_pretraining(windows, trained))
        if split is not None:
            write_json(folder.split, split.to_dict())
        task.fit(
            _batches(settings, unlabeled_images(windows, input_spec, of_map=of_map), fabric),
            epochs=settings.epochs,
            checkpointer=Checkpointer(folder.resume, lambda rows: write_table(folder.metrics, rows)),
            on_progress=named(on_progress, f"{name} learns from {settings.teacher}"),
        )
        source = NetworkRecord(
            name, _NO_CLASSES, settings.to_config(), input_spec=input_spec, pretrained=settings.teacher
        )
        write_network(folder.weights, student.cpu(), source)
    return folder


@contextmanager
def _held(settings: PretrainSettings, input_spec: InputSpec, resume: bool) -> Iterator[RunFolder]:
    """Start the run in its folder, and keep the folder locked inside the context."""
    folder = RunFolder(settings.out)
    with folder.locked():
        folder.start(settings.to_config() | {"input_spec": input_spec.to_dict()}, resume)
        yield folder


def _trained_weights(teacher: str) -> Path | None:
    """Return the weights of a teacher that was trained, or None for a name of the table."""
    path = Path(teacher)
    if (path / "config.yaml").is_file():
        return RunFolder(path).weights
    if is_shipped(teacher):
        raise SettingsError(
            f"--teacher {teacher}: it holds what a student has learnt from a teacher. Give lite0, lite1 or lite2, or "
            f"the run folder of a network that was trained; a student begins with it: --student {teacher}."
        )
    return path if is_weights_file(teacher) else None


def _open_teacher(teacher: str, trained: Path | None, input_spec: InputSpec) -> Leveled:
    if trained is not None:
        return _of_the_table(read_network(trained)[0], teacher)
    network = start_network(teacher, len(_NO_CLASSES), input_spec)
    if is_library(teacher):
        return _of_the_table(network, teacher)
    if not is_pretrained(network):
        raise SettingsError(
            f"--teacher {teacher}: its weights are random, so that there is nothing to learn from it. Give lite0, "
            "lite1 or lite2, which come with weights of ImageNet, or the run folder of a network that was trained."
        )
    return as_leveled(network)


def _of_the_table(network: nn.Module, name: str) -> Leveled:
    leveled = as_leveled(network)
    if leveled.library:
        raise SettingsError(
            f"{name} is made of layers of {leveled.library}; skystill pretrain compares the levels of networks that "
            "skystill networks lists. Take one of these, or learn from its logits: skystill distill --teacher RUN."
        )
    return leveled


def _find_images(
    settings: PretrainSettings, trained: Path | None, on_progress: OnProgress
) -> tuple[list[ImageWindow], InputSpec, Split | None, bool]:
    """Find the images, what the student is fed, the split of the labelled data, and whether it is a map.

    The student is fed what it was fed before if it begins with weights, or else what a trained teacher is fed, or else
    what the images offer.
    """
    known = _known_input(settings, trained)
    prepared = None if settings.data is None else _prepare(settings.data, settings, trained, known, on_progress)
    split = prepared.split if prepared else Split("", (), (), ())
    input_spec = known
    if known is None or (settings.bands is not None and prepared is None):  # `prepare_data` has compared the bands
        found = [] if split.train else find_image_files(settings.images)
        paths = [pair.image for pair in split.train] or [path for files in found for path in files]
        input_spec = find_spec(paths, settings.bands, prepared.classes.band_names if prepared else ())
        if known is not None and settings.bands is not None:
            check_same_bands(known, input_spec, settings.bands)
            input_spec = known
    assert input_spec is not None, "is known, or was found"
    held_out = [*split.validation, *split.test]
    windows = whole_images(split.train)
    if settings.images:
        rest = partial(find_rest, prepared.check, split, input_spec, on_progress) if prepared else list
        maps = prepared.check.maps if prepared else ()
        own = {os.path.realpath(window.path) for window in windows if window.bounds is None}
        found_windows = find_unlabeled(settings.images, held_out, input_spec, rest, maps, split.train, on_progress)
        if scale := known or (prepared.spec if prepared else None):
            check_each_scale([window.path for window in found_windows], scale)
        windows += [window for window in found_windows if os.path.realpath(window.path) not in own]
    windows = list(dict.fromkeys(windows))
    if known is None:
        statistics = [image_statistics(*window.read(input_spec)) for window in windows]
        input_spec = with_statistics(input_spec, statistics)
    on_progress(Message(f"{len(windows):,} image(s) and windows to learn from, {len(held_out):,} held out"))
    of_map = any(pair.is_window for pair in split.train)
    return windows, input_spec, split if prepared else None, of_map


def _known_input(settings: PretrainSettings, trained: Path | None) -> InputSpec | None:
    """Return what the student is fed, if it or its teacher was trained before.

    Raises:
        SettingsError: both were, on other bands: they could not see the same pixels.
    """
    own = recorded_input(settings.student)
    if trained is None:
        return own
    taught = read_record(trained).input_spec
    if own is not None and not have_same_bands(own, taught):
        raise SettingsError(
            f"the student {settings.student} is fed {own.labels} as {own.dtype}, and its teacher {settings.teacher} is "
            f"fed {taught.labels} as {taught.dtype}: they cannot see the same pixels. Take one that is fed the same."
        )
    return own or taught


def _prepare(
    data: Path, settings: PretrainSettings, trained: Path | None, known: InputSpec | None, on_progress: OnProgress
) -> PreparedData:
    """Check the labelled data, and split it as a distillation from this teacher would.

    A run that has begun keeps its split.
    """
    begun = RunFolder(settings.out).split
    run = trained.parent.parent if trained and (trained.parent.parent / "config.yaml").is_file() else settings.teacher
    as_taught = CacheSettings(
        data=data,
        teacher=[str(run)],
        classes=settings.classes,
        split=str(begun) if begun.is_file() else settings.split,
        fit_masks=settings.fit_masks,
        bands=settings.bands,
        seed=settings.seed,
    )
    prepared = prepare_data(as_taught, on_progress, known)
    report_notes(prepared.notes, on_progress)
    return prepared


def _batches(settings: PretrainSettings, images: TrainingImages, fabric: Fabric) -> TrainBatches:
    sampler = CropSampler(images, settings.crop, settings.jitter, [], settings.zoom)
    ahead = fabric.device.type != "cpu"
    return TrainBatches(sampler, settings.batch_size, settings.seed, settings.crops_per_image, ahead=ahead)
