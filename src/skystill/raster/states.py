"""Whether the files of a raster are still those that were opened: read while it changes, it would be a mixture.

Of a file on a server, the state is what the server says of it (`skystill.raster.remote_states`). To ask takes a
request, so a server is asked only where a digest of all states is wanted.
"""

import functools
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from skystill.errors import SourceChanged
from skystill.raster.names import local_file_of
from skystill.raster.opening import is_remote
from skystill.raster.remote_states import RemoteState, ask_server, remote_file

_BESIDE = ".aux.xml"
"""Extension of the file beside a raster into which GDAL writes what the raster cannot hold, such as nodata or a CRS.
Viewers write statistics into it, which change nothing."""
_MOST_BESIDE = 2**24  # bytes; a larger one counts as it is
_STATISTICS = re.compile(rb'<MDI key="STATISTICS_[^"<]*">[^<]*</MDI>')
_EMPTY = re.compile(rb"<(Metadata|PAMRasterBand|PAMDataset)\b[^<>]*>\s*</\1>")

State = tuple[int, int, int, int]
"""Device, inode, size in bytes, and time of the last change in nanoseconds."""


class FileStates:
    """The states of the files of a raster. Record each file before its pixels are read.

    Args:
        files: paths or names of GDAL. Of a file in an archive, the archive is recorded.
    """

    def __init__(self, files: Iterable[str]) -> None:
        self._found: dict[str, State | None] = {}
        self._on_servers: dict[str, str] = {}  # GDAL's name for each file there, and the name that was given
        self._said: dict[str, RemoteState] = {}
        self.add(files)

    def add(self, files: Iterable[str]) -> None:
        """Record further files. Those that are recorded already keep their state."""
        for name in files:
            if is_remote(name):
                self._on_servers.setdefault(remote_file(name), name)
                continue
            path = local_file_of(name)
            if path is not None and path not in self._found:
                self._found[path] = _state(path)

    @property
    def changed(self) -> bool:
        """Whether a local file has changed since it was recorded."""
        return any(_state(path) != before for path, before in self._found.items())

    def check(self, result: str = "the result") -> None:
        """Check that no local file has changed since it was recorded.

        Args:
            result: what is made of the pixels, for the message.

        Raises:
            SourceChanged: a file was replaced, written, cut or removed.
        """
        for path, before in self._found.items():
            now = _state(path)
            if now != before:
                raise SourceChanged(path, _difference(before, now), result)

    def ask_servers(self) -> None:
        """Record what servers say of the files there. Each is asked once."""
        for file, name in self._on_servers.items():
            if file not in self._said:
                self._said[file] = ask_server(file, name)

    def check_all(self, result: str = "the result") -> None:
        """As `check`, also for files on servers, if these were asked before. Each is asked again.

        Raises:
            SourceChanged: a file was replaced, written, cut or removed.
        """
        self.check(result)
        for file, before in self._said.items():
            if before.is_certain and before.differs(ask_server(file, self._on_servers[file])):
                raise SourceChanged(self._on_servers[file], "was replaced on its server", result)

    @property
    def uncertain(self) -> list[str]:
        """The files on servers that say nothing by which a change is found. Servers that were not asked are asked."""
        self.ask_servers()
        return [self._on_servers[file] for file, said in self._said.items() if not said.is_certain]

    def __bool__(self) -> bool:
        """Whether any local file is recorded: of a raster on a server there is none."""
        return bool(self._found)

    @property
    def digest(self) -> str:
        """A digest of all names and states, by which this process knows whether the files are the same.

        Device numbers are left out: a disk may have another one after a restart.
        """
        return self._digest(of_state=1)

    @property
    def shared_digest(self) -> str:
        """As `digest`, for a later process, and for those of other machines: inodes are left out, which differ there.

        A file in whose place another of the same size and the same time was put is not found. While a process reads, it
        is: `check` compares inodes.
        """
        return self._digest(of_state=2)

    def _digest(self, of_state: int) -> str:
        known = [(path, state) for path, state in sorted(self._found.items()) if state or not _is_beside(path)]
        self.ask_servers()
        said = [(file, tuple(state)) for file, state in sorted(self._said.items())]
        text = repr([*((path, state and state[of_state:]) for path, state in known), *said])
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _state(path: str) -> State | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a VRT may name many thousands
    except (OSError, ValueError):
        return None
    state = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return _said_beside(path, state) if _is_beside(path) and found.st_size <= _MOST_BESIDE else state


def _is_beside(path: str) -> bool:
    return path.lower().endswith(_BESIDE)


@functools.lru_cache(maxsize=1024)
def _said_beside(path: str, state: State) -> State | None:
    """Return a state for what an .aux.xml file says without statistics; None if it says nothing else.

    Args:
        path: the file.
        state: its own state, for which the answer is kept.
    """
    try:
        text = Path(path).read_bytes()
    except OSError:
        return state
    text = b"".join(part.partition(b"<Histograms>")[0] for part in text.split(b"</Histograms>"))
    text = _STATISTICS.sub(b"", text)
    for _ in range(3):  # from the inside to the outside
        text = _EMPTY.sub(b"", text)
    said = b" ".join(text.split())
    return (0, 0, 0, int.from_bytes(hashlib.sha256(said).digest()[:7])) if said else None


def _difference(before: State | None, now: State | None) -> str:
    """Say how a file has changed."""
    if now is None:
        return "was removed"
    if before is None:
        return "appeared"
    if before[:2] != now[:2]:
        return "was replaced by another file"
    size = "" if before[2] == now[2] else f" (it had {before[2]:,} bytes and now has {now[2]:,})"
    return f"was written{size}"
