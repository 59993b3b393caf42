"""The contract of a loader: what it is asked for, what it gives, and how errors of foreign libraries are reported."""

import ast
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from torch import nn

from skystill.errors import CheckpointError, SettingsError, SkystillError
from skystill.train.teachers.teacher import INPUT_SCALES, InputScale


@dataclass(frozen=True)
class Origin:
    """One teacher, as it is written after `--teacher`. Nothing is loaded.

    Args:
        text: as written.
        kind: name of the loader, a key of `LOADERS`.
        target: a path, or the name of an architecture.
        options: what is written behind the question mark.
        names: the names of the teacher's classes, in its order; None where nothing names them.
    """

    text: str
    kind: str
    target: str
    options: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] | None = None

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
        """The options that a constructor takes, as Python values where they are literals."""
        return {name: _literal(value) for name, value in self.options.items() if name not in ("weights", "input")}


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@dataclass(frozen=True)
class Loaded:
    """A network, and what it wants.

    Args:
        network: images to logits or probabilities.
        wants: name of its input scale.
        multiple: H and W must divide by this.
        scale: its input scale where it has no name.
    """

    network: nn.Module
    wants: str = "0..1"
    multiple: int = 1
    scale: InputScale | None = None

    @property
    def input_scale(self) -> InputScale:
        """What pixels it wants."""
        return self.scale or INPUT_SCALES[self.wants]


@contextmanager
def name_library_errors(name: object, what: str) -> Iterator[None]:
    """Turn whatever a foreign library raises into one message.

    Raises:
        CheckpointError: with the library's own words.
    """
    try:
        yield
    except (SkystillError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # any library may raise anything on a file that is not what it says
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"teacher {name}: {what} ({type(error).__name__}: {reason[:300]}).") from error


def import_library(module: str, package: str) -> ModuleType:
    """Import an optional library.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise SettingsError(f"this teacher needs {package}, which is not installed: pip install {package}") from error


def target_file(origin: Origin) -> list[Path]:
    """The files of an origin that is one file."""
    return [origin.path]


def weights_file(origin: Origin) -> list[Path]:
    """The files of an origin that is an architecture with a file of weights."""
    return [origin.weights]


def no_class_names(origin: Origin) -> tuple[str, ...] | None:
    """For files that do not name their classes."""
    return None


@dataclass(frozen=True)
class Loader:
    """How teachers of one kind are recognised, named, and loaded. `LOADERS` in `table.py` lists all of them.

    A loader must not run code that a file brings: it reads weights without unpickling objects, and models in the
    library's safe mode.

    Args:
        load: loads the network. It raises `CheckpointError` for a file that cannot be used and `SettingsError` for an
            architecture that does not exist or a library that is not installed.
        suffixes: of the files that this loader opens, such as ".onnx".
        prefix: written before a colon, such as "smp"; None where the suffix decides.
        required: options that must be given behind the question mark.
        files: the files that the teacher is made of. Their bytes are part of the key of its cached logits.
        class_names: the names of the classes, where the files give them.
        example: how such a teacher is written, for messages.
    """

    load: Callable[[Origin], Loaded]
    example: str
    suffixes: tuple[str, ...] = ()
    prefix: str | None = None
    required: tuple[str, ...] = ()
    files: Callable[[Origin], list[Path]] = target_file
    class_names: Callable[[Origin], tuple[str, ...] | None] = no_class_names
