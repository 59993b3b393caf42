"""The folder in which a prediction on a cluster keeps what belongs to its output."""

from pathlib import Path

from skystill.locks import hold_lock
from skystill.predict.layers import is_raster_name

MANIFEST, LOCK = "manifest.sqlite", "lock"
"""Names in the folder."""


def archive_folder(out: Path) -> Path:
    """Return the folder of an output: for manifest, lock, and orders for the workers.

    Args:
        out: the --out of the command.
    """
    is_file = is_raster_name(out) and not out.is_dir()
    return out.with_name(f".skystill-{out.name}") if is_file else out / ".skystill"


def check_free(out: Path) -> None:
    """Check that no prediction on a cluster works on an output.

    Args:
        out: the --out of a command.

    Raises:
        InUse: one does. The message says which process.
    """
    lock = archive_folder(out) / LOCK
    if lock.exists():
        with hold_lock(lock, str(out)):
            return
