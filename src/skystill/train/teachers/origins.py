"""Teachers of many kinds: turns the value of `--teacher` into a `Teacher`.

    runs/teacher                                      a SkyStill run
    model.onnx                                        an ONNX file of any origin, run in ONNX Runtime
    model.pt2                                         a program that torch.export saved
    model.keras, .h5, .hdf5                           a Keras model, run on Keras's torch backend
    smp:Unet/resnet34?classes=6&weights=unet.pth      an architecture of segmentation_models_pytorch
    torchvision:fcn_resnet50?classes=6&weights=F      a segmentation model of torchvision
    hf:DIR                                            a segmentation model of transformers, saved in the folder DIR

All of them accept options after a question mark. input=0..255, input=0..1 or input=imagenet gives the scale of the
pixels that the network expects, and input=values feeds it the values of the images, with divide=, mean= and std= where
it needs them. bands=red,green,blue,nir gives the bands that it is fed. SkyStill's own networks know both.

Nothing here runs code that a file contains: weights are loaded with weights_only=True or from safetensors, and Keras
models in safe mode. Programs of torch.export are the exception, and are loaded only if the user trusts them.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl

from skystill.classes import ClassMap, match_names, read_classes
from skystill.digests import file_sha256
from skystill.errors import ClassCountMismatch, ClassesError, SettingsError
from skystill.model.adapters import INPUT_SCALES, input_scale
from skystill.raster.input_spec import RGB, InputSpec
from skystill.run_folder import RunFolder
from skystill.train.teachers.fed import foreign_spec
from skystill.train.teachers.loaders.loader import INPUT_OPTIONS, Origin
from skystill.train.teachers.loaders.table import LOADERS
from skystill.train.teachers.teacher import Teacher, check_finite
from skystill.train.teachers.trying import try_teacher

_OF_TORCH = {".pth", ".pt", ".ckpt", ".bin"}
"""Endings of files that hold the weights of a network of PyTorch, and not the network."""


@dataclass(frozen=True)
class Teachers:
    """The teachers of a run, and the classes that they can teach.

    Args:
        origins: one for each teacher.
        channels: for each teacher, the indices of its classes that are used, in the order of the data's classes.
        taught_labels: labels of the data's classes that all teachers know. None means all classes.
        notes: what the user should know, one sentence or more each.
        num_classes: number of the data's classes, which a teacher without class names must have.
    """

    origins: tuple[Origin, ...]
    channels: tuple[tuple[int, ...], ...]
    taught_labels: tuple[int, ...] | None
    notes: tuple[str, ...]
    num_classes: int

    def load(self) -> list[Teacher]:
        """Load all teachers.

        Raises:
            UserError: a file is damaged, is of another kind, or can only be unpickled; or a library is not installed.
            ClassCountMismatch: a teacher gives another number of classes than expected. The expected number is that of
                its class names or, if it has none, that of the data's classes.
            TeacherNotFinite: a teacher's logits of the classes that are used are NaN or infinite.
        """
        return [self.load_one(index) for index in range(len(self.origins))]

    def load_one(self, index: int) -> Teacher:
        """Load the teacher of this index. It raises the errors of `load`."""
        return _load(self.origins[index], self.channels[index], self.num_classes)


def find_teachers(
    texts: Sequence[str],
    teacher_classes: str | None,
    classes: ClassMap,
    fed: InputSpec = RGB,
    offered: InputSpec = RGB,
    trusted: bool = False,
) -> Teachers:
    """Parse the values of `--teacher`, and map the teachers' classes to the data's by name. No weights are loaded.

    Args:
        texts: the values, as written after --teacher.
        teacher_classes: the classes of teachers whose files do not name them: names joined by commas, or the name of a
            classes file. None means that these teachers have the data's classes, in the same order.
        classes: the classes of the data.
        fed: what the student is fed.
        offered: all bands of the images, in their data type.
        trusted: whether the user has said that code in the teachers' files may run.

    Raises:
        SettingsError: a kind is not known, a file is missing, options do not fit, or a file must be trusted.
        RunFolderError: a folder is not a run.
        CheckpointError: a file whose class names are needed cannot be read.
        ClassesError: fewer than two of the data's classes are known to all teachers, or `teacher_classes` cannot be
            read.
    """
    origins = tuple(_with_input(_parse(text, teacher_classes, trusted), fed, offered) for text in texts)
    notes: list[str] = []
    matched: list[list[int | None]] = []  # for each teacher, which of its classes each class of the data is
    for origin in origins:
        if origin.names is None:
            notes.append(
                f"{origin.text} does not name its classes; they are taken to be the data's, in the same order "
                "(--teacher-classes)."
            )
        _check_names(origin, classes)
        matched.append(match_names(classes.names, origin.names or classes.names))
    given = _read_names(teacher_classes)
    if given is not None and all(origin.names != given for origin in origins):
        notes.append(
            f"--teacher-classes is not used: the classes of {', '.join(origin.text for origin in origins)} are named "
            f"in the file: {', '.join(origins[0].names or ())}."
        )
    shared = [label for label in range(len(classes)) if all(found[label] is not None for found in matched)]
    if len(shared) < 2:
        raise ClassesError(
            f"{', '.join(texts)}: {len(shared)} of the data's classes ({', '.join(classes.names)}) are known to the "
            f"teacher, which has {', '.join(origins[0].names or ())}. Name its classes as the data does: "
            "--teacher-classes."
        )
    missing = [name for label, name in enumerate(classes.names) if label not in shared]
    if missing:
        notes.append(f"no teacher for {', '.join(missing)}: learnt from labels alone.")
    channels = tuple(tuple(index for label in shared if (index := found[label]) is not None) for found in matched)
    return Teachers(origins, channels, tuple(shared) if missing else None, tuple(notes), len(classes))


def _check_names(origin: Origin, classes: ClassMap) -> None:
    """Refuse a teacher with a name twice. Names that differ in case alone may be there if the data has the same."""
    lower = Counter(name.lower() for name in origin.names or ())
    again = {name for name, count in Counter(origin.names).items() if count > 1 or name not in classes.names}
    if twice := sorted({name.lower() for name in again if lower[name.lower()] > 1}):
        raise ClassesError(f"{origin.text}: its classes name {', '.join(twice)} twice; which of them is meant?")


def cache_key(origin: Origin, channels: Sequence[int], how: str) -> str:
    """Return a hash of a teacher's files, its kind and options, the classes that are used, and how it is run.

    Args:
        origin: the teacher.
        channels: the indices of its classes that are used.
        how: describes how the teacher is run, such as its tiles.

    Returns:
        The SHA-256 hash in hexadecimal digits.
    """
    digest = hashlib.sha256(repr((origin.kind, origin.options, list(channels), how)).encode())
    digest.update(_digests(origin))
    return digest.hexdigest()


def files_digest(origin: Origin) -> str:
    """Return a hash of the bytes of a teacher's files, wherever they lie. It has 64 hexadecimal digits."""
    return hashlib.sha256(_digests(origin)).hexdigest()


def _digests(origin: Origin) -> bytes:
    return b"".join(map(file_sha256, LOADERS[origin.kind].files(origin)))


def _parse(text: str, teacher_classes: str | None, trusted: bool) -> Origin:
    before, _, query = text.partition("?")
    options = _parse_options(text, query)
    if options.get("input", "0..1") not in INPUT_SCALES:
        raise SettingsError(f"teacher {text!r}: input is {options['input']}; it is one of {', '.join(INPUT_SCALES)}.")
    kind, target = _recognise(text, before)
    loader = LOADERS[kind]
    if not set(loader.required) <= options.keys():
        raise SettingsError(f"teacher {text!r}: say how many classes it has and where its weights are: "
                            f"{before}?classes=6&weights=FILE.")  # fmt: skip
    origin = Origin(text, kind, target, options, trusted=trusted)
    known = ("bands", *sorted(INPUT_OPTIONS))
    unknown = [name for name in options if name not in known]
    if unknown and not loader.required:  # the others go to the constructor of the network, which refuses them
        raise SettingsError(
            f"teacher {text!r}: there is no option {', '.join(unknown)} for this kind; there are {', '.join(known)}."
        )
    if kind != "run":  # reading an unfinished run raises its own error
        for path in loader.files(origin):
            if not path.is_file():
                raise SettingsError(f"teacher {text!r}: {path}: no such file.")
    loader.check(origin)
    return replace(origin, names=loader.class_names(origin) or _read_names(teacher_classes))


def _parse_options(text: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise SettingsError(f"teacher {text!r}: write options as ?classes=6&weights=FILE.") from error
    options = dict(pairs)
    if len(options) < len(pairs):
        raise SettingsError(f"teacher {text!r}: an option stands there twice; write each once.")
    return options


def _with_input(origin: Origin, fed: InputSpec, offered: InputSpec) -> Origin:
    own = LOADERS[origin.kind].input_spec(origin)
    if own is None:
        return replace(origin, input_spec=foreign_spec(origin.text, origin.options, fed, offered))
    given = [name for name in ("bands", *INPUT_OPTIONS) if name in origin.options]
    if given and not (given == ["input"] and origin.options["input"] == "0..255"):
        raise SettingsError(
            f"teacher {origin.text!r} is SkyStill's own and knows that it is fed {own.labels} as {own.dtype}; leave "
            f"{', '.join(given)} out."
        )
    return replace(origin, input_spec=own, knows_input=True)


def _recognise(text: str, before: str) -> tuple[str, str]:
    """Return the kind of the loader for the text before the question mark, and the target for this loader."""
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
    own = " A file of weights does not hold its network: write both as an ONNX file (torch.onnx.export)."
    raise SettingsError(
        f"teacher {text!r} is of a kind that is not known. Known: {known}.{own if suffix in _OF_TORCH else ''}"
    )


def _read_names(teacher_classes: str | None) -> tuple[str, ...] | None:
    if teacher_classes is None:
        return None
    if "," in teacher_classes:
        return tuple(name.strip() for name in teacher_classes.split(","))
    return read_classes(teacher_classes).names


def _load(origin: Origin, channels: tuple[int, ...], num_classes: int) -> Teacher:
    loaded = LOADERS[origin.kind].load(origin)
    given = bool(INPUT_OPTIONS & origin.options.keys())
    scale = input_scale(origin.options, len(origin.input_spec)) if given else loaded.input_scale
    teacher = Teacher(loaded.network, scale, loaded.multiple, input_spec=origin.input_spec)
    teacher.name = origin.text
    expected = len(origin.names) if origin.names else num_classes
    logits = try_teacher(teacher, expected)
    count = logits.shape[1]
    if count != expected:
        raise ClassCountMismatch(origin.text, count, expected)
    check_finite(logits[:, list(channels)], origin.text, "a first image of noise")
    if list(channels) != list(range(count)):
        teacher.channels = list(channels)
    return teacher
