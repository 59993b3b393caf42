"""Teachers from anywhere: what is written after `--teacher`, read and turned into a `Teacher`.

    runs/teacher                                      a SkyStill run
    model.onnx                                        run in ONNX Runtime, whatever made it
    model.pt2                                         a program of torch.export
    model.keras, .h5, .hdf5                           Keras, on its torch backend
    smp:Unet/resnet34?classes=6&weights=unet.pth      segmentation_models_pytorch
    torchvision:fcn_resnet50?classes=6&weights=F      torchvision
    hf:DIR                                            a segmentation model of transformers, saved in DIR

Behind a question mark, for each: input=0..255, 0..1 or imagenet, what pixels it wants. Nothing here runs code that a
file brings: weights load with weights_only=True or from safetensors, Keras in safe mode.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl

import torch

from skystill.classes import ClassMap, read_classes
from skystill.errors import ClassCountMismatch, ClassesError, SettingsError
from skystill.run_folder import RunFolder
from skystill.train.teachers.loaders.loader import Origin, name_library_errors
from skystill.train.teachers.loaders.table import LOADERS
from skystill.train.teachers.teacher import INPUT_SCALES, Teacher


@dataclass(frozen=True)
class Teachers:
    """The teachers of a run, and what they can teach.

    Args:
        origins: one a teacher.
        channels: of each, which of its classes are taken, in the data's order.
        taught_labels: labels of the data's classes that all of them know; None for all classes.
        notes: what the user should know.
    """

    origins: tuple[Origin, ...]
    channels: tuple[tuple[int, ...], ...]
    taught_labels: tuple[int, ...] | None
    notes: tuple[str, ...]

    def load(self) -> list[Teacher]:
        """Load all of them.

        Raises:
            UserError: a file that is damaged, pickled, or of another kind; a library that is missing.
            ClassCountMismatch: a teacher gives another number of classes than was said.
        """
        return [self.load_one(index) for index in range(len(self.origins))]

    def load_one(self, index: int) -> Teacher:
        """Load one of them. Raises as `load`."""
        return _load(self.origins[index], self.channels[index])


def find_teachers(texts: Sequence[str], own_classes: str | None, classes: ClassMap) -> Teachers:
    """Read what was asked for, and map classes by name; weights are not loaded.

    Args:
        texts: as written after --teacher.
        own_classes: the classes of teachers that do not name them: names joined by commas, or a classes file.
        classes: the data's.

    Raises:
        SettingsError: a kind that is not known, a file that is missing, options that do not fit.
        ClassesError: a teacher that shares fewer than two classes with the data.
        ClassCountMismatch: a teacher with nameless classes, and as many as the data has not.
    """
    origins = tuple(_parse(text, own_classes) for text in texts)
    notes: list[str] = []
    known: list[list[str]] = []
    for origin in origins:
        if origin.names is None:
            notes.append(
                f"{origin.text} does not name its classes; they are taken to be the data's, in the same order "
                "(--teacher-classes)."
            )
        known.append([name.lower() for name in origin.names or classes.names])
    shared = [label for label, name in enumerate(classes.names) if all(name.lower() in names for names in known)]
    if len(shared) < 2:
        raise ClassesError(
            f"{', '.join(texts)}: {len(shared)} of the data's classes ({', '.join(classes.names)}) are known to the "
            f"teacher, which has {', '.join(origins[0].names or ())}. Name its classes as the data does: "
            "--teacher-classes."
        )
    missing = [name for label, name in enumerate(classes.names) if label not in shared]
    if missing:
        notes.append(f"no teacher for {', '.join(missing)}: learnt from labels alone.")
    channels = tuple(tuple(names.index(classes.names[label].lower()) for label in shared) for names in known)
    return Teachers(origins, channels, tuple(shared) if missing else None, tuple(notes))


def cache_key(origin: Origin, channels: Sequence[int], how: str) -> str:
    """Hash of a teacher's files, its options, the classes that are asked of it, and how it is run."""
    digest = hashlib.sha256(repr((origin.kind, origin.options, list(channels), how)).encode())
    for path in LOADERS[origin.kind].files(origin):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _parse(text: str, own_classes: str | None) -> Origin:
    before, _, query = text.partition("?")
    try:
        options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError as error:
        raise SettingsError(f"teacher {text!r}: write options as ?classes=6&weights=FILE.") from error
    if options.get("input", "0..1") not in INPUT_SCALES:
        raise SettingsError(f"teacher {text!r}: input is {options['input']}; it is one of {', '.join(INPUT_SCALES)}.")
    kind, target = _recognise(text, before)
    loader = LOADERS[kind]
    if not set(loader.required) <= options.keys():
        raise SettingsError(f"teacher {text!r}: say how many classes it has and where its weights are: "
                            f"{before}?classes=6&weights=FILE.")  # fmt: skip
    origin = Origin(text, kind, target, options)
    if kind != "run":  # a run that is not finished reports that itself
        for path in loader.files(origin):
            if not path.is_file():
                raise SettingsError(f"teacher {text!r}: {path}: no such file.")
    return replace(origin, names=loader.class_names(origin) or _read_names(own_classes))


def _recognise(text: str, before: str) -> tuple[str, str]:
    """The loader that opens what is written before the question mark, and its target."""
    prefix, _, target = before.partition(":")
    suffix = Path(before).suffix.lower()
    for kind, loader in LOADERS.items():
        if target and loader.prefix == prefix:
            return kind, target
    if Path(before).is_dir() or not suffix:
        RunFolder(Path(before)).read_config()
        return "run", before
    for kind, loader in LOADERS.items():
        if suffix in loader.suffixes:
            return kind, before
    known = ", ".join(loader.example for loader in LOADERS.values())
    raise SettingsError(f"teacher {text!r} is of a kind that is not known. Known: {known}.")


def _read_names(own_classes: str | None) -> tuple[str, ...] | None:
    if own_classes is None:
        return None
    if "," in own_classes:
        return tuple(name.strip() for name in own_classes.split(","))
    return read_classes(own_classes).names


def _load(origin: Origin, channels: tuple[int, ...]) -> Teacher:
    loaded = LOADERS[origin.kind].load(origin)
    scale = INPUT_SCALES[origin.options["input"]] if "input" in origin.options else loaded.input_scale
    everything = Teacher(loaded.network, scale, loaded.multiple)
    noise = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with name_library_errors(origin.text, "it cannot be run"):
        count = everything(noise).shape[1]
    expected = len(origin.names) if origin.names else len(channels)
    if count != expected:
        raise ClassCountMismatch(origin.text, count, expected)
    if list(channels) != list(range(count)):
        everything.channels = list(channels)
    return everything
