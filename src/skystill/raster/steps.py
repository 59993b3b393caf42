"""What is finished of a prediction whose network is done: the rasters, and each file that is made from them."""

import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skystill.errors import RunFolderError
from skystill.parsing import read_json
from skystill.run_folder import write_json
from skystill.unfinished import PART, is_left

_SQLITE = "-journal|-wal|-shm"  # what SQLite leaves beside the part of a GeoPackage


class FinishedSteps:
    """The record of finished steps in the folder of a journal.

    A step counts as finished only as long as its files are those that it wrote, by size and time. A record that cannot
    be read counts as empty: its steps are made again.

    Args:
        journal: the folder.
    """

    def __init__(self, journal: Path) -> None:
        self.path = journal / "finished.json"
        """The file of the record."""

    def has(self, name: str, about: object, files: Sequence[Path]) -> bool:
        """Return whether a step is finished.

        Args:
            name: name of the step.
            about: everything besides the rasters that determines its files, as JSON values.
            files: what it writes.
        """
        states = [_state(path) for path in files]
        return None not in states and self._read().get(name) == _as_read([about, states])

    def add(self, name: str, about: object, files: Sequence[Path]) -> None:
        """Record a step whose files are written. The arguments are those of `has`.

        Raises:
            DiskFull: the record cannot be written.
        """
        write_json(self.path, {**self._read(), name: [about, [_state(path) for path in files]]})

    def clear(self) -> None:
        """Forget all steps."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            content = read_json(self.path, RunFolderError) if self.path.exists() else {}
        except RunFolderError:
            return {}
        return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Step:
    """One file that is made from complete rasters.

    Args:
        name: name of the step, for the record and for messages.
        path: the file.
        about: settings that determine its content, as JSON values.
        make: writes the file. It appears whole or not at all.
    """

    name: str
    path: Path
    about: object
    make: Callable[[], None]


@dataclass(frozen=True)
class FurtherFiles:
    """All files that are made from complete rasters.

    Args:
        steps: what is made, in this order.
        names: paths of all files that could be made with other settings, in the folder of the rasters. What a killed
            process left of them is removed.
    """

    steps: tuple[Step, ...] = ()
    names: tuple[Path, ...] = ()

    def missing(self, finished: FinishedSteps) -> list[str]:
        """Return the names of the steps that are not finished."""
        return [step.name for step in self.steps if not finished.has(step.name, step.about, [step.path])]

    def write(self, finished: FinishedSteps) -> None:
        """Make the files of all steps that are not finished, and record each.

        Raises:
            DiskFull: a file cannot be written. Those before it are kept and recorded.
        """
        for step in self.steps:
            if not finished.has(step.name, step.about, [step.path]):
                step.make()
                finished.add(step.name, step.about, [step.path])


def remove_parts(folder: Path, names: Collection[str], shared: Collection[str] = ()) -> None:
    """Remove what killed processes left of some files: the parts that `written_whole` names.

    Args:
        folder: the folder of the files.
        names: names of the files. Nobody else may be writing them.
        shared: names of files that others may be writing, as the style of a.tif and a.png. Their parts go only if it is
            sure that their process has ended.
    """
    with os.scandir(folder) as entries:  # thousands of results may lie there, and each of them comes here
        parts = [entry.name for entry in entries if entry.name.startswith(".part-")]
    if not parts:
        return
    wanted = "|".join(map(re.escape, {*names, *shared}))
    left = re.compile(rf"{PART}(?P<name>{wanted})(\.aux\.xml|{_SQLITE})?")
    for name in parts:
        found = left.fullmatch(name)
        if found and (found["name"] not in shared or is_left(folder / name)):
            (folder / name).unlink(missing_ok=True)


def _state(path: Path) -> list[int] | None:
    """Return size and time of a file, or None if there is no such file."""
    try:
        state = path.stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def _as_read(content: object) -> object:
    """Return JSON values as they are read back."""
    return json.loads(json.dumps(content))
