"""The contract of a loader: its input and its result."""

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from skystill.model.adapters import INPUT_SCALES, InputScale
from skystill.raster.input_spec import RGB, InputSpec

INPUT_OPTIONS = frozenset({"input", "divide", "mean", "std"})
"""Options of a teacher that say on which scale it is fed, as `skystill.model.adapters.input_scale` reads them."""

NOT_SIZES = ("weights", "bands", *INPUT_OPTIONS)
"""Options of a teacher that do not go to the constructor of its network."""


@dataclass(frozen=True)
class Origin:
    """The parsed value of `--teacher` for one teacher. Nothing is loaded.

    Args:
        text: the value as written.
        kind: the name of the loader, a key of `LOADERS`.
        target: a path, or the name of an architecture.
        options: the options after the question mark.
        names: the names of the teacher's classes, in the order of its logits. None if neither its files nor the user
            name them.
        input_spec: what the teacher is fed.
        knows_input: whether its files say this, with the statistics of its training images: one of SkyStill's own.
        trusted: whether the user has said that code in the teacher's files may run.
    """

    text: str
    kind: str
    target: str
    options: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    input_spec: InputSpec = RGB
    knows_input: bool = False
    trusted: bool = False

    @property
    def path(self) -> Path:
        """The target as a path."""
        return Path(self.target)

    @property
    def weights(self) -> Path:
        """The file given as `weights=`."""
        return Path(self.options["weights"])

    @property
    def sizes(self) -> dict[str, object]:
        """The options for the constructor of the network. Literals are converted to Python values, others stay text."""
        return {name: _literal(value) for name, value in self.options.items() if name not in NOT_SIZES}


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@dataclass(frozen=True)
class Loaded:
    """A loaded network, and the input that it expects.

    Args:
        network: images (N, B, H, W) to logits or probabilities (N, C, h, w), as `Teacher` accepts them.
        wants: the name of its input scale, a key of `INPUT_SCALES`.
        multiple: H and W of the input must be divisible by this.
        scale: its input scale if this has no name. It replaces `wants`.
    """

    network: nn.Module
    wants: str = "0..1"
    multiple: int = 1
    scale: InputScale | None = None

    @property
    def input_scale(self) -> InputScale:
        """The scale of the pixels that the network expects."""
        return self.scale or INPUT_SCALES[self.wants]


def target_file(origin: Origin) -> list[Path]:
    """Return the files of a teacher that is one file: the target."""
    return [origin.path]


def weights_file(origin: Origin) -> list[Path]:
    """Return the files of a teacher that is an architecture with a file of weights: the weights."""
    return [origin.weights]


def no_class_names(origin: Origin) -> tuple[str, ...] | None:
    """Return None, for files that do not name their classes."""
    return None


def no_input_spec(origin: Origin) -> InputSpec | None:
    """Return None, for files that do not say which bands the network is fed."""
    return None


def no_check(origin: Origin) -> None:
    """Accept every teacher of a kind."""


@dataclass(frozen=True)
class Loader:
    """How teachers of one kind are recognised and loaded, and where their class names come from.

    `LOADERS` in `table.py` lists all loaders. A loader must not run code that a file contains: it reads weights without
    unpickling objects, and models in the safe mode of their library. If that cannot be had, `check` refuses the file
    unless the user has said that it is trusted. docs/opening.md has a line for each loader.

    Args:
        load: loads the network. It raises `CheckpointError` for a file that cannot be used, and `SettingsError` for an
            architecture that does not exist or a library that is not installed.
        example: how such a teacher is written, for messages.
        suffixes: suffixes of the files that this loader opens, such as ".onnx".
        prefix: the prefix that is written before a colon, such as "smp". None if the suffix selects the loader.
        required: options that must be given after the question mark.
        files: returns the files of the teacher. Their bytes are part of the key of its cached logits.
        class_names: returns the names of the classes, or None if the files do not give them.
        input_spec: returns what the network is fed, or None if the files do not say it.
        check: refuses a teacher before any of its files is opened.
    """

    load: Callable[[Origin], Loaded]
    example: str
    suffixes: tuple[str, ...] = ()
    prefix: str | None = None
    required: tuple[str, ...] = ()
    files: Callable[[Origin], list[Path]] = target_file
    class_names: Callable[[Origin], tuple[str, ...] | None] = no_class_names
    input_spec: Callable[[Origin], InputSpec | None] = no_input_spec
    check: Callable[[Origin], None] = no_check
