"""How far an archive is, by its manifest, while its command runs and after it."""

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from skystill.cluster.manifest import Manifest
from skystill.errors import RunFolderError
from skystill.predict.archive_folder import MANIFEST, archive_folder
from skystill.predict.mosaic_batch import work_folder

_RECENT_SECONDS = 600.0
_SILENT_SECONDS = 120.0
_MOST_REASONS = 1000


@dataclass(frozen=True)
class Status:
    """How far an archive is.

    Args:
        out: the output.
        state: "running"; "ended"; "stopped" by Ctrl-C or an error; "silent" for a command that has given no sign of
            life for two minutes.
        began: when the command began, in seconds since 1970.
        updated: its last sign of life.
        workers: number of workers then.
        dashboard: address of the dashboard of Dask, if there is one.
        inputs: number of inputs by state: "done", "failed", "waiting", "begun", "again".
        pixels: number of pixels that are done.
        total_pixels: number of all pixels; for inputs that were not opened yet, the mean of the others is taken.
        rate: pixels per second over the last ten minutes of the command.
        problems: input and reason, of inputs that failed, or of whose source a part could not be read.
        problem_count: number of those.
        pieces: number of pieces of large rasters that are done, and of all of those that were begun.
        windows: number of windows of a mosaic that are computed, and of all. They follow the inputs: none of none until
            then. None for an output that is no mosaic.
        window_rate: windows per second.
        hosts: name, number of pieces of work, pixels, and seconds of each machine.
    """

    out: Path
    state: str
    began: float
    updated: float
    workers: int
    dashboard: str | None
    inputs: Mapping[str, int]
    pixels: int
    total_pixels: int
    rate: float
    problems: tuple[tuple[str, str], ...]
    problem_count: int
    hosts: tuple[tuple[str, int, int, float], ...]
    pieces: tuple[int, int] = (0, 0)
    windows: tuple[int, int] | None = None
    window_rate: float = 0.0

    @property
    def total(self) -> int:
        """Number of all inputs."""
        return sum(self.inputs.values())

    @property
    def done(self) -> int:
        """Number of inputs that are done."""
        return self.inputs.get("done", 0)

    @property
    def failed(self) -> int:
        """Number of inputs that failed."""
        return self.inputs.get("failed", 0)

    @property
    def fraction(self) -> float:
        """Part of the pixels that is done, 0 to 1."""
        return self.pixels / self.total_pixels if self.total_pixels else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time that is left at this rate, or None if nothing runs or no rate is known."""
        if self.state != "running":
            return None
        done, count = self.windows or (0, 0)
        if count:
            return (count - done) / self.window_rate if self.window_rate and done < count else None
        if not self.rate:
            return None
        return max(0, self.total_pixels - self.pixels) / self.rate


def read_status(out: Path, now: float | None = None) -> Status:
    """Read how far an archive is. Nothing is written.

    Args:
        out: the --out of the command.
        now: seconds since 1970; None takes the clock.

    Raises:
        RunFolderError: no command on a cluster wrote there, or its manifest is damaged.
    """
    paths = [archive_folder(folder) / MANIFEST for folder in (out, work_folder(out))]
    path = next((one for one in paths if one.is_file()), None)
    if path is None:
        raise RunFolderError(
            f"{out} is no output of a skystill predict on a cluster: there is no {paths[0]}. Give the --out of such a "
            "command. A mosaic that is complete has no manifest any more."
        )
    with closing(Manifest(path, read_only=True)) as manifest:
        about, counts = manifest.about(), manifest.counts()
        began, updated = float(about.get("began", 0)), float(about.get("updated", 0))
        state = str(about.get("state", "stopped"))
        if state == "running" and (time.time() if now is None else now) - updated > _SILENT_SECONDS:
            state = "silent"
        first = max(began, updated - _RECENT_SECONDS)
        known = [counts.get(name, (0, 0)) for name in ("done", "begun")]
        inputs = {name: count for name, (count, _) in counts.items()}
        opened, pixels = sum(count for count, _ in known), sum(pixels for _, pixels in known)
        left = sum(inputs.values()) - opened - inputs.get("failed", 0)
        return Status(
            out, state, began, updated, int(about.get("workers", 0)), about.get("dashboard"), inputs,
            manifest.done_pixels(), pixels + round(left * pixels / max(1, opened)),
            manifest.pixels_since(first) / max(1.0, updated - first),
            tuple((source, text) for source, text, _ in manifest.failed(_MOST_REASONS)), manifest.failed_count(),
            tuple(manifest.hosts()), manifest.piece_counts(),
            (about.get("windows_done", 0), about.get("windows", 0)) if path == paths[1] else None,
            float(about.get("windows_rate", 0)),
        )  # fmt: skip
