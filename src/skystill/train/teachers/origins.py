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

import ast
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

import torch

from skystill.classes import ClassMap, classes_from, read_classes
from skystill.errors import ClassCountMismatch, ClassesError, SettingsError
from skystill.run_folder import RunFolder
from skystill.train.networks.models import read_about, read_network
from skystill.train.teachers import foreign
from skystill.train.teachers.teacher import INPUT_SCALES, Teacher

KINDS = {
    ".onnx": "onnx", ".pt2": "program", ".keras": "keras", ".h5": "keras", ".hdf5": "keras",
}  # fmt: skip
PREFIXES = ("smp", "torchvision", "hf")
KNOWN = (
    "a SkyStill run folder, .onnx, .pt2 (torch.export), .keras, .h5, .hdf5, smp:ARCHITECTURE/ENCODER?classes=N&"
    "weights=FILE, torchvision:NAME?classes=N&weights=FILE, hf:DIR"
)


@dataclass(frozen=True)
class Origin:
    """One teacher, as it was asked for; nothing is loaded.

    Args:
        text: as written after --teacher.
        kind: "run", "onnx", "program", "keras", "smp", "torchvision" or "hf".
        target: a path, or the architecture's name.
        options: what is written behind the question mark.
        names: the teacher's classes in its order; None where nobody says.
    """

    text: str
    kind: str
    target: str
    options: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] | None = None

    @property
    def files(self) -> list[Path]:
        """The files it is made of."""
        if self.kind == "run":
            return [RunFolder(Path(self.target)).weights]
        if self.kind == "hf":
            return sorted(p for p in Path(self.target).iterdir() if p.suffix in (".json", ".safetensors"))
        return [Path(self.options["weights"]) if self.kind in PREFIXES else Path(self.target)]

    def key(self, channels: Sequence[int], how: str) -> str:
        """Hash of its files, its options, the classes that are asked of it, and how it is run."""
        digest = hashlib.sha256(repr((self.kind, self.options, list(channels), how)).encode())
        for path in self.files:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


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


def _parse(text: str, own_classes: str | None) -> Origin:
    before, _, query = text.partition("?")
    try:
        options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError as error:
        raise SettingsError(f"teacher {text!r}: write options as ?classes=6&weights=FILE.") from error
    if options.get("input", "0..1") not in INPUT_SCALES:
        raise SettingsError(f"teacher {text!r}: input is {options['input']}; it is one of {', '.join(INPUT_SCALES)}.")
    prefix, _, target = before.partition(":")
    if prefix in PREFIXES and target:
        origin = Origin(text, prefix, target, options)
        if prefix != "hf" and not {"classes", "weights"} <= options.keys():
            raise SettingsError(f"teacher {text!r}: say how many classes it has and where its weights are: "
                                f"{before}?classes=6&weights=FILE.")  # fmt: skip
    elif Path(before).is_dir() or not Path(before).suffix:
        RunFolder(Path(before)).read_config()
        origin = Origin(text, "run", before, options)
    elif Path(before).suffix.lower() in KINDS:
        origin = Origin(text, KINDS[Path(before).suffix.lower()], before, options)
    else:
        raise SettingsError(f"teacher {text!r} is of a kind that is not known. Known: {KNOWN}.")
    _check_files(origin)
    names = _own_names(origin) or _read_names(own_classes)
    return Origin(origin.text, origin.kind, origin.target, origin.options, names)


def _check_files(origin: Origin) -> None:
    if origin.kind == "hf" and not (Path(origin.target) / "config.json").is_file():
        raise SettingsError(f"teacher {origin.text!r}: {origin.target} holds no config.json; give a folder that "
                            "save_pretrained wrote.")  # fmt: skip
    if origin.kind != "run":  # a run that is not finished says so itself
        for path in origin.files:
            if not path.is_file():
                raise SettingsError(f"teacher {origin.text!r}: {path}: no such file.")


def _own_names(origin: Origin) -> tuple[str, ...] | None:
    if origin.kind == "run":
        return classes_from(read_about(origin.files[0])["classes"], origin.target).names
    if origin.kind == "onnx":
        return foreign.onnx_class_names(Path(origin.target))
    if origin.kind == "hf":
        return foreign.hf_class_names(Path(origin.target))
    return None


def _read_names(own_classes: str | None) -> tuple[str, ...] | None:
    if own_classes is None:
        return None
    if "," in own_classes:
        return tuple(name.strip() for name in own_classes.split(","))
    return read_classes(own_classes).names


def _load(origin: Origin, channels: tuple[int, ...]) -> Teacher:
    loaders: dict[str, Callable[[Origin], foreign.Loaded]] = {
        "run": lambda origin: foreign.Loaded(read_network(origin.files[0])[0], "0..255"),
        "onnx": lambda origin: foreign.load_onnx(origin.files[0]),
        "program": lambda origin: foreign.load_program(origin.files[0]),
        "keras": lambda origin: foreign.load_keras(origin.files[0]),
        "smp": lambda origin: foreign.load_smp(origin.target, _sizes(origin), origin.files[0]),
        "torchvision": lambda origin: foreign.load_torchvision(origin.target, _sizes(origin), origin.files[0]),
        "hf": lambda origin: foreign.load_hf(Path(origin.target)),
    }
    loaded = loaders[origin.kind](origin)
    scale = INPUT_SCALES[origin.options["input"]] if "input" in origin.options else loaded.input_scale
    everything = Teacher(loaded.network, scale, loaded.multiple)
    noise = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with foreign.name_library_errors(origin.text, "it cannot be run"):
        count = everything(noise).shape[1]
    said = len(origin.names) if origin.names else len(channels)
    if count != said:
        raise ClassCountMismatch(origin.text, count, said)
    if list(channels) != list(range(count)):
        everything.channels = list(channels)
    return everything


def _sizes(origin: Origin) -> dict[str, object]:
    """The options that a constructor takes, as Python values where they are such."""
    sizes: dict[str, object] = {}
    for name, value in origin.options.items():
        if name not in ("weights", "input"):
            try:
                sizes[name] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                sizes[name] = value
    return sizes
