"""`skystill predict --mosaic` on a cluster: the windows of the mosaic are tasks, as the inputs are.

A task writes its windows into the journal of the mosaic. The command then writes the mosaic from the full journal by
the code of one machine, so it is the same. What the workers need to know lies in a file beside the class rasters.
"""

import contextlib
import functools
import math
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rasterio.transform import Affine

from skystill.cluster.archive import ArchiveStopped, predict_archive
from skystill.cluster.connection import RUNTIME, Connection, open_connection
from skystill.cluster.dispatch import ATTEMPTS
from skystill.cluster.manifest import Manifest
from skystill.cluster.orders import Fence, end_run, read_order, unshared, write_order
from skystill.cluster.stream import count_workers, stream
from skystill.cluster.tasks import Ended, Fatal, in_turn, reporting
from skystill.errors import ClusterError, RunFolderError, SettingsError
from skystill.parsing import read_json
from skystill.predict.archive_folder import MANIFEST, archive_folder
from skystill.predict.batch import PredictedInput, open_predictor
from skystill.predict.mosaic import (
    MosaicFile,
    begin_mosaic,
    mosaic_units,
    mosaic_window,
    place_rasters,
    write_mosaic,
)
from skystill.predict.mosaic_batch import predict_mosaic
from skystill.predict.mosaic_grid import MosaicGrid, Place, read_grid_file
from skystill.progress import Event, OnProgress, Progress, ignore_progress
from skystill.raster.entries import write_entry
from skystill.run_folder import naming_failed_writes, write_json
from skystill.settings import PredictSettings

_MOST_WINDOWS = 32  # of a task: some ten seconds
_TASKS = 4  # for each worker, at least, if there are as many windows
_GRID, _WINDOWS = "grid.yaml", "windows.json"
_WINDOWS_UNIT = "windows"  # of a `Progress`
_TICK_SECONDS = 1.0


def predict_mosaic_on_cluster(
    settings: PredictSettings, resume: bool = False, on_progress: OnProgress = ignore_progress
) -> Iterator[PredictedInput]:
    """Predict every input of a mosaic on the workers of a cluster, and compute its windows there, too.

    The mosaic is that of `predict_mosaic`, to the byte. The cluster of the predictions is kept for the windows.

    Args:
        settings: settings of the command, which name a cluster and a mosaic.
        resume: makes no difference: every call goes on.
        on_progress: as in `predict_archive`.

    Yields:
        the mosaic.

    Raises:
        UserError, InputFailed, InputsFailed, PredictionStopped: as `predict_mosaic` and `predict_archive`.
    """
    with contextlib.ExitStack() as stack:
        opened: list[Connection] = []

        def connect(
            given: PredictSettings, on_progress: OnProgress, needs: Sequence[str]
        ) -> contextlib.AbstractContextManager[Connection]:
            if not opened:
                opened.append(stack.enter_context(open_connection(given, on_progress, needs)))
            return contextlib.nullcontext(opened[0])

        def join(
            rasters: Sequence[str | Path], grid: MosaicGrid, file: MosaicFile, resume: bool, on_progress: OnProgress
        ) -> list[str]:
            journal, missing = begin_mosaic(rasters, grid, file)
            folder = archive_folder(Path(rasters[0]).parent).absolute()
            with naming_failed_writes(folder):
                folder.mkdir(parents=True, exist_ok=True)
            with _recorded(folder, grid, len(missing), on_progress) as record:
                if len(missing) > 1:
                    _tell_windows(folder, settings, [Path(one).absolute() for one in rasters], grid, journal)
                    with connect(settings, on_progress, RUNTIME) as connection:
                        _compute(connection, folder, settings, missing, file.path, record)
                return write_mosaic(rasters, grid, file, resume, record)

        predict = functools.partial(predict_archive, connect=connect)
        yield from predict_mosaic(settings, True, on_progress, predict, join)


@contextlib.contextmanager
def _recorded(folder: Path, grid: MosaicGrid, missing: int, on_progress: OnProgress) -> Iterator[OnProgress]:
    """Yield a callback that also records how far the windows are, and that the command lives, for `skystill status`.

    Args:
        folder: the folder of the archive.
        grid: the pixels of the mosaic.
        missing: number of windows that are to be computed.
        on_progress: the callback of the command.
    """
    count, began, told = sum(1 for _ in mosaic_units(grid)), time.monotonic(), -math.inf
    thread = threading.get_ident()
    with contextlib.closing(Manifest(folder / MANIFEST)) as manifest:

        def tell(**values: object) -> None:
            manifest.tell(updated=time.time(), **values)
            manifest.commit()

        def record(event: Event) -> None:
            nonlocal told
            now = time.monotonic()
            if isinstance(event, Progress) and event.unit == _WINDOWS_UNIT:
                tell(windows_done=count - missing + event.done, windows_rate=event.done / max(1e-3, now - began))
            elif now - told > _TICK_SECONDS and threading.get_ident() == thread:  # SQLite wants one thread
                told = now
                tell()
            on_progress(event)

        state = "stopped"
        tell(state="running", windows=count, windows_done=count - missing, windows_rate=0)
        try:
            yield record
            state = "ended"
        finally:
            tell(state=state)


def _tell_windows(
    folder: Path, settings: PredictSettings, rasters: Sequence[Path], grid: MosaicGrid, journal: Path
) -> None:
    """Write what the tasks need: where the rasters lie, the grid, and the journal.

    Raises:
        SettingsError: the file of the grid has changed meanwhile.
    """
    assert settings.mosaic is not None  # noqa: S101 - the caller looks at it
    with naming_failed_writes(folder):
        shutil.copyfile(settings.mosaic, folder / _GRID)  # its CRS as it was written: another text may mean another way
    if read_grid_file(folder / _GRID).crs != grid.crs:
        raise SettingsError(f"--mosaic {settings.mosaic} has changed while the command ran. Run it again.")
    shape = {"transform": list(grid.transform)[:6], "height": grid.height, "width": grid.width}
    places = [asdict(place) for place in place_rasters(rasters, grid)]
    write_json(folder / _WINDOWS, {**shape, "journal": str(journal.absolute()), "places": places})


def _compute(
    connection: Connection,
    folder: Path,
    settings: PredictSettings,
    missing: Sequence[int],
    target: Path,
    on_progress: OnProgress,
) -> None:
    """Compute windows on the workers. Those that fail three times are left to the command, which says why.

    Raises:
        ClusterError: the cluster is lost, or a worker cannot be used.
        ArchiveStopped: the user pressed Ctrl-C.
    """
    token = write_order(folder, settings, open_predictor(settings).path, connection.versions)
    each = math.ceil(len(missing) / (_TASKS * max(1, count_workers(connection))))
    each = min(each, _MOST_WINDOWS)
    pieces = deque(tuple(missing[first : first + each]) for first in range(0, len(missing), each))
    run = functools.partial(compute_windows, str(folder), token)
    failed: Counter[tuple[int, ...]] = Counter()
    task, done = f"windows of {target.name}", 0
    try:
        on_progress(Progress(task, done, len(missing), _WINDOWS_UNIT))
        for piece, found in stream(connection, run, pieces, on_progress):
            if isinstance(found, Fatal):
                raise ClusterError(found.text)
            if isinstance(found, Ended):
                raise ClusterError(unshared(found.host, folder.parent))
            if found is not None:
                failed[piece] += 1
                if failed[piece] < ATTEMPTS:
                    pieces.append(piece)
                    continue
            done += len(piece)
            on_progress(Progress(task, done, len(missing), _WINDOWS_UNIT))
    except KeyboardInterrupt as error:
        raise ArchiveStopped(settings.out) from error
    finally:
        end_run(folder)


@reporting
@in_turn
def compute_windows(folder: str, token: str, piece: tuple[int, ...]) -> None:
    """Compute windows of a mosaic, and write them into its journal."""
    journal, places, grid = _told(folder, token)
    fence = Fence(folder, token)
    units = list(mosaic_units(grid))
    for index in piece:
        labels = mosaic_window(places, grid, units[index])
        fence()
        write_entry(journal, index, [labels[None]])


@functools.lru_cache(maxsize=1)
def _told(folder: str, token: str) -> tuple[Path, tuple[Place, ...], MosaicGrid]:
    """Return the journal, the places and the grid, as `_tell_windows` wrote them."""
    read_order(Path(folder), token)  # it checks the versions
    found: Any = read_json(Path(folder) / _WINDOWS, RunFolderError)
    crs = read_grid_file(Path(folder) / _GRID).crs
    places = tuple(
        Place(one["source"], None if one["box"] is None else tuple(one["box"]), tuple(one["reach"]), one["turn"])
        for one in found["places"]
    )
    grid = MosaicGrid(crs, Affine(*found["transform"]), found["height"], found["width"])
    return Path(found["journal"]), places, grid
