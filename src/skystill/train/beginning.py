"""The network that a training begins with: what is checked before the data is opened, and how it is built."""

import torch
from torch import nn

from skystill.classes import ClassMap
from skystill.data.prepare import PreparedData
from skystill.errors import SettingsError
from skystill.progress import OnProgress, phase, report_notes
from skystill.run_folder import RunFolder
from skystill.settings import DistillSettings, FitSettings
from skystill.train.networks.imagenet import is_pretrained, may_freeze
from skystill.train.networks.levels import as_leveled
from skystill.train.networks.library import (
    check_weights,
    find_library,
    is_library,
    is_shipped,
    parse_library,
    shown_name,
)
from skystill.train.networks.shipped import find_weights
from skystill.train.networks.start import images_seen, match_head, network_name, start_network


def check_layers(spec: str, settings: FitSettings) -> None:
    """Refuse what cannot be done with the layers of another library.

    This comes before the ranks connect: Fabric starts the other ranks by running this command again.

    Args:
        spec: as in `start_network`.
        settings: how to train.

    Raises:
        SettingsError: it is asked for.
        CheckpointError: the weights file is not one of ours, or damaged.
    """
    name = network_name(spec)
    if not is_library(name):
        return
    library = parse_library(name).library
    if settings.devices * settings.nodes > 1:
        raise SettingsError(
            f"{name} is made of layers of {library}, whose BatchNorms do not count over several processes. Leave "
            "--devices and --nodes at 1."
        )
    if isinstance(settings, DistillSettings) and settings.quantize:
        raise SettingsError(
            f"--quantize fine-tunes with the rounding of INT8, and {name} is made of layers of {library}, which it "
            "cannot round. Leave --quantize out, and quantise the finished run: skystill quantize RUN/student.onnx."
        )


def check_beginning(spec: str, settings: FitSettings, begun: bool) -> None:
    """Check the name of a network of another library and what is asked of it. Other names pass.

    It takes the time of the import of the library, and data can take hours to open: errors in the settings come first.

    Args:
        spec: as in `start_network`.
        settings: how to train.
        begun: whether there is a checkpoint, so that no other weights are read.

    Raises:
        UserError: the library is not installed or has no such network, the weights are missing, or settings exclude
            each other.
    """
    if not is_library(spec):
        return
    name = parse_library(spec)
    if settings.from_scratch and name.weights:
        raise SettingsError(f"--from-scratch means random weights, and {spec} names weights. Leave one of them out.")
    if settings.freeze and not name.weights:
        _refuse_random(name.name, settings)
    if not begun:
        check_weights(name)
    find_library(name)


def build_first(spec: str, settings: FitSettings, prepared: PreparedData, begun: bool = False) -> nn.Module:
    """Build the network to train, with weights drawn by the seed or those that it begins with.

    This is done before any file is written, so that a wrong name of a network leaves no folder behind.

    Args:
        spec: as in `start_network`.
        settings: how to train.
        prepared: the data.
        begun: whether there is a checkpoint, which holds all weights. Those of another library's network are then
            neither read nor fetched again.

    Raises:
        UserError: as `start_network`, or levels are frozen that cannot be, or settings exclude each other.
    """
    if settings.from_scratch and find_weights(spec):
        raise SettingsError(f"--from-scratch means random weights, and {spec} has weights. Leave one of them out.")
    torch.manual_seed(settings.seed)
    from_scratch = settings.from_scratch or (begun and is_library(spec))
    network = as_leveled(start_network(spec, len(prepared.classes), prepared.spec, from_scratch))
    if not begun:
        notes = match_head(network, spec, prepared.classes), _leak_note(spec, prepared)
        network.notes = (*network.notes, *filter(None, notes))
    if settings.freeze:
        _check_weights_are_kept(network, spec, settings)
        network.freeze(settings.freeze, shown_name(spec))
    return network


def _leak_note(spec: str, prepared: PreparedData) -> str | None:
    """A note if weights of the package were trained on test images."""
    if not is_shipped(spec):
        return None
    test = {pair.image for pair in prepared.split.test if not pair.is_window}  # maps are large, and not among them
    if not (seen := images_seen(spec, test)):
        return None
    return (
        f"{spec} was trained on {seen} of the {len(test)} test images: scores there are too good. Choose a --split "
        "that tests on others, or begin without these weights."
    )


def has_begun(settings: FitSettings, resume: bool) -> bool:
    """Whether a training goes on from a checkpoint."""
    return resume and RunFolder(settings.out).resume.exists()


def try_network(network: nn.Module, spec: str, classes: ClassMap, on_progress: OnProgress) -> None:
    """Say what a network begins with, and try the export of one that is made of another library's layers.

    Not all of their layers can be written for images of any size, and this must be known before hours of training.

    Args:
        network: the network, on the CPU and in training mode.
        spec: what it was built from.
        classes: the classes of its logits.
        on_progress: called with notes, and while it is exported.

    Raises:
        SettingsError: it cannot be exported.
    """
    leveled = as_leveled(network)
    report_notes(leveled.notes, on_progress)
    if leveled.library:
        # Imported here: ONNX takes 40 MB of memory that the training of other networks does not need.
        from skystill.train.compress.export import check_export

        with phase(f"trying the export of {shown_name(spec)}", on_progress, leaves_line=None):
            check_export(network, shown_name(spec), classes)


def _check_weights_are_kept(network: nn.Module, spec: str, settings: FitSettings) -> None:
    """Refuse to freeze levels whose weights are random, or do not fit together.

    Raises:
        SettingsError: they are.
    """
    if find_weights(spec) or (is_library(spec) and parse_library(spec).weights):
        return
    if settings.from_scratch or not is_pretrained(network):
        _refuse_random(spec, settings)
    if not may_freeze(network):
        raise SettingsError(
            f"--freeze {settings.freeze}: {spec} leaves out channels that its weights of ImageNet were trained with, "
            "so every level must learn. Take lite, or leave --freeze out."
        )


def _refuse_random(spec: str, settings: FitSettings) -> None:
    more = f", {spec}?weights=FILE" if is_library(spec) else ""
    raise SettingsError(
        f"--freeze {settings.freeze}: {spec} begins with random weights, and frozen levels would keep them. Begin "
        f"with lite0, lite1, lite2 or lite{more}, or with a file of weights (.safetensors)."
    )
