"""Optional libraries: how they are imported, and how their errors are reported."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from skystill.errors import CheckpointError, SettingsError, SkystillError


class LibraryMissing(SettingsError):
    """A library that the user's choice needs is not installed.

    Args:
        whose: what needs it, for the message.
        package: the name of the package for pip.
    """

    def __init__(self, whose: str, package: str) -> None:
        super().__init__(f"{whose} needs {package}, which is not installed: pip install {package}")


def import_library(module: str, package: str, whose: str = "this teacher") -> ModuleType:
    """Import an optional library.

    Args:
        module: the module to import.
        package: the name of the package for pip, for the message.
        whose: what needs it, for the message.

    Raises:
        LibraryMissing: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise LibraryMissing(whose, package) from error


@contextmanager
def name_library_errors(whose: str, what: str) -> Iterator[None]:
    """Turn every error that another library raises in the block into one message.

    SkyStill's own errors, KeyboardInterrupt and MemoryError pass unchanged.

    Args:
        whose: the teacher or the network, for the message.
        what: what could not be done, for the message.

    Raises:
        CheckpointError: the library raised an error. The message quotes the first line of its text.
    """
    try:
        yield
    except (SkystillError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # a library may raise any error on a file of another kind
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{whose}: {what} ({type(error).__name__}: {reason[:300]}).") from error
