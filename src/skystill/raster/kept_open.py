"""Rasters that stay open between the windows that are read of them: to open one takes as long as to read a small one.

Each thread of each process has its own: a raster is read from one thread only, and after a fork two processes would
move the same place in a file.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from skystill.errors import DataError, SettingsError
from skystill.raster.input_spec import InputSpec
from skystill.raster.size_cap import max_image_values
from skystill.raster.source import RasterSource

_MOST = 8
_Key = tuple[int, Path, InputSpec]


class _Kept(threading.local):
    """The open rasters of a thread, those first that were not used for longest, each with the state of its folder."""

    def __init__(self) -> None:
        self.sources: dict[_Key, tuple[int, RasterSource]] = {}


_kept = _Kept()


@contextlib.contextmanager
def open_source(path: Path, spec: InputSpec, keep: bool) -> Iterator[RasterSource]:
    """Open a raster as it is stored, or take one that is open, if no file of it has changed since.

    Args:
        path: the file.
        spec: what the network is fed.
        keep: whether it stays open for the next window. After an error or damage it does not.

    Raises:
        DataError: the file cannot be read by the spec, as `RasterSource` says.
    """
    key = os.getpid(), path, spec
    folder = _changed(path.parent)  # files that appear beside a raster, such as masks, are found when it is opened
    before, source = _kept.sources.pop(key, (None, None)) if keep else (None, None)
    if source is not None and (before != folder or source.states.changed):
        source.close()
        source = None
    kept = False
    max_image_values()  # a mistake in the environment is not one of the file
    try:
        source = source or RasterSource(str(path), as_stored=True, spec=spec)
    except SettingsError as error:
        raise DataError(str(error)) from error
    try:
        yield source
        kept = keep and folder is not None and not source.damaged
    finally:
        if kept and folder is not None:
            _kept.sources[key] = folder, source
            source = _kept.sources.pop(next(iter(_kept.sources)))[1] if len(_kept.sources) > _MOST else None
        if source is not None:
            source.close()


def _changed(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None
