"""Optional libraries: how they are imported, and how their errors are reported."""

import importlib
from collections.abc import Callable, Iterator
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
        SettingsError: it is installed, and cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a library may lack others, or not fit their versions
        if isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]:
            raise LibraryMissing(whose, package) from error
        raise SettingsError(
            f"{whose} needs {package}, which is installed and cannot be imported ({type(error).__name__}: "
            f"{first_line(error)[:300]}). Install it again with the packages that it needs: pip install {package}"
        ) from error


@contextmanager
def name_library_errors(
    whose: str, what: str, refusal: Callable[[str], SkystillError] = CheckpointError
) -> Iterator[None]:
    """Turn every error that another library raises in the block into one message.

    SkyStill's own errors, KeyboardInterrupt and MemoryError pass unchanged.

    Args:
        whose: the teacher or the network, for the message.
        what: what could not be done, for the message.
        refusal: makes the error of the message.

    Raises:
        CheckpointError: or what `refusal` makes, if the library raised an error. The message quotes the first line of
            its text.
    """
    try:
        yield
    except (SkystillError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # a library may raise any error on a file of another kind
        raise refusal(f"{whose}: {what} ({type(error).__name__}: {first_line(error)[:300]}).") from error


def first_line(error: Exception) -> str:
    """The first line of the text of an error, or its name if it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
