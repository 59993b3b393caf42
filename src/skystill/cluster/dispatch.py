"""Which worker does what next: pieces of work are made from the manifest as workers take them, and recorded there.

Only a few tasks for each worker are known to Dask at a time. The rest is in the manifest, so that the memory of the
command does not grow with the archive.
"""

import itertools
import math
import queue
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed import Future, KilledWorker

from skystill.cluster import tasks
from skystill.cluster.connection import Connection
from skystill.cluster.manifest import Done, Manifest, Piece
from skystill.cluster.orders import unshared
from skystill.cluster.stream import count_workers, wait_for_some
from skystill.cluster.tasks import Crashed, Ended, Fatal, Item, Outcome
from skystill.errors import ClusterError, shortened
from skystill.predict.batch import PredictedInput
from skystill.predict.pieces import end_units
from skystill.progress import OnProgress, Progress
from skystill.raster.names import absolute_name

ATTEMPTS = 3
"""How often an input or a piece is tried."""
TASK_SECONDS = 60.0
"""How long a task takes, about: an input that takes longer is cut into pieces, and small inputs are put together."""
FIRST_PIXELS = 8_000_000
"""What a worker is taken to do in that time, until the first task has been measured."""
_AHEAD = 3  # tasks of each worker that Dask knows of
_MOST_ITEMS = 500  # inputs of one task: its message stays below 100 kB
_TICK_SECONDS = 1.0
_TELL_SECONDS = 30.0


@dataclass(frozen=True)
class Batch:
    """A task on inputs that were not begun."""

    items: tuple[Item, ...]


class Dispatch:
    """The work of one run.

    Args:
        connection: the cluster.
        manifest: what is done and what is left.
        run: folder of the archive, and number of the run.
        on_progress: receives a `Progress` in pixels of all inputs.
    """

    def __init__(
        self, connection: Connection, manifest: Manifest, run: tuple[Path, str], on_progress: OnProgress
    ) -> None:
        self._connection, self._manifest, self._on_progress = connection, manifest, on_progress
        self._run = str(run[0]), run[1]
        self._numbers = itertools.count()
        self._flying: dict[str, tuple[Future, Batch | Piece]] = {}
        self._landed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._pieces, self._items, self._alone = deque[Piece](), deque[Item](), deque[Item]()
        self._last_piece = self._last_item = 0
        self._joins = 0  # tasks on the workers that only wait for others
        self._rate: float | None = None
        self._workers, self._looked, self._told = 1, -math.inf, time.monotonic()
        counts = manifest.counts()
        self._inputs = sum(count for count, _ in counts.values())
        self._waiting = counts.get("waiting", (0, 0))[0]
        self._known = counts.get("done", (0, 0))
        self._done_pixels = manifest.done_pixels()

    def results(self) -> Iterator[PredictedInput]:
        """Do all that is left, and yield each input when it is finished.

        Raises:
            ClusterError: the cluster is lost, or a worker cannot be used.
        """
        while True:
            self._fill()
            if self._flying:
                for work, found in self._wait():
                    yield from self._settle(work, found)
            else:
                self._waiting, self._last_item = self._manifest.wait_again(), 0
                if not self._waiting:
                    break
        self._manifest.commit()
        self._tell(final=True)

    def cancel(self) -> None:
        """Let go of all tasks."""
        if not self._connection.is_lost:
            self._connection.client.cancel([future for future, _ in self._flying.values()])
        self._flying.clear()

    # ---- tasks

    def _fill(self) -> None:
        """Submit tasks until the workers have enough."""
        while len(self._flying) - self._joins < _AHEAD * self._workers + 1:
            work = self._next()
            if work is None:
                return
            self._submit(work)

    def _next(self) -> Batch | Piece | None:
        """Return the next piece of work: what is begun is finished first."""
        if not self._pieces:
            self._pieces.extend(self._manifest.waiting_pieces(self._last_piece))
            self._last_piece = self._pieces[-1].id if self._pieces else self._last_piece
        if self._pieces:
            is_held = self._pieces[0].kind == "join" and self._joins >= self._workers  # rasters are computed too fast
            return None if is_held else self._pieces.popleft()
        if self._alone:
            return Batch((self._alone.popleft(),))
        items: list[Item] = []
        wanted = self._batch_size()
        while len(items) < wanted:
            if not self._items:
                self._items.extend(self._manifest.inputs("waiting", self._last_item))
                self._last_item = self._items[-1][0] if self._items else self._last_item
            if not self._items:
                break
            items.append(self._items.popleft())
        self._waiting = max(0, self._waiting - len(items))
        return Batch(tuple(items)) if items else None

    def _task_pixels(self) -> int:
        return FIRST_PIXELS if self._rate is None else max(1, int(self._rate * TASK_SECONDS))

    def _is_scarce(self) -> bool:
        """Whether there are fewer inputs than workers can take, so that work is to be spread."""
        return self._waiting < 2 * self._workers

    def _batch_size(self) -> int:
        known, pixels = self._known
        each = pixels / known if known else self._task_pixels() / 4
        even = math.ceil(self._waiting / (_AHEAD * self._workers))
        return max(1, min(int(self._task_pixels() / max(1.0, each)), even, _MOST_ITEMS))

    def _submit(self, work: Batch | Piece) -> None:
        arguments: tuple[Any, ...]
        if isinstance(work, Batch):
            most = self._task_pixels() // (4 if self._is_scarce() else 1)
            run, arguments = tasks.predict_inputs_of, (work.items, most, TASK_SECONDS)
        elif work.kind == "units":
            item = (work.id, work.source, work.target)
            run, arguments = tasks.compute_piece, (item, work.first, work.last)  # type: ignore[assignment]
        else:
            run = tasks.join_pieces if work.kind == "join" else tasks.write_files  # type: ignore[assignment]
            arguments = ((work.id, work.source, work.target),)
        self._joins += _is_join(work)
        key = f"skystill-{self._run[1]}-{next(self._numbers)}"
        future = self._connection.client.submit(run, *self._run, *arguments, key=key, pure=False)
        self._flying[key] = future, work
        future.add_done_callback(lambda done: self._landed.put(done.key))

    def _wait(self) -> Iterator[tuple[Batch | Piece, Any]]:
        """Yield tasks that have ended, with their results or exceptions. Wait for the first, but not for long."""
        self._look()
        for key in wait_for_some(self._landed):
            if key not in self._flying:
                continue
            future, work = self._flying.pop(key)
            self._joins -= _is_join(work)
            if self._connection.is_lost:
                raise self._connection.lost()
            if future.status == "finished":
                try:
                    yield work, future.result(timeout=_TELL_SECONDS)
                except Exception as error:  # noqa: BLE001 - its worker has gone with the result
                    yield work, error
            else:
                yield work, future.exception() if future.status == "error" else ClusterError("it was cancelled")

    def _look(self) -> None:
        """Look after the cluster once a second, and record that the command lives."""
        now = time.monotonic()
        if now - self._looked < _TICK_SECONDS:
            return
        self._looked = now
        workers = count_workers(self._connection)
        if not workers and now - self._told > _TELL_SECONDS:
            self._told = now
            self._on_progress(self._connection.waits())
        self._workers = max(1, workers)
        self._manifest.tell(updated=time.time(), workers=workers)
        self._manifest.commit()

    # ---- results

    def _settle(self, work: Batch | Piece, found: Any) -> Iterator[PredictedInput]:  # noqa: ANN401 - what a task gave
        """Record what became of a task, and yield the inputs that it finished."""
        if isinstance(found, Fatal):
            raise ClusterError(found.text)
        if isinstance(found, Ended):
            raise ClusterError(unshared(found.host, Path(self._run[0]).parent))
        if isinstance(found, ImportError):
            raise ClusterError(
                f"a worker cannot run the tasks ({shortened(found)}). Install there, in the version of this process, "
                'what they need: pip install "skystill[cluster]".'
            )
        if isinstance(found, BaseException):
            reason = f"a worker was lost, or ran out of memory, while it had this input ({shortened(found)})"
            text = f"{reason}. See the log of the worker; --max-memory bounds its memory."
            self._died(work, text, ours=not isinstance(found, KilledWorker))
        elif isinstance(found, Crashed):
            self._died(work, f"internal error on a worker: {found.text}", ours=True)
        elif isinstance(work, Batch):
            for outcome, item in zip(found, work.items, strict=True):
                yield from self._settle_input(outcome, item)
        else:
            yield from self._settle_piece(found, work)
        self._tell()

    def _settle_input(self, found: Outcome, item: Item) -> Iterator[PredictedInput]:
        if found.kind == "later":
            self._items.append(item)
            self._waiting += 1
        elif found.kind == "failed":
            self._manifest.fail_input(found.number, found.error or "", found.ours, ATTEMPTS)
        elif found.kind == "large":
            self._know(found.pixels)
            self._manifest.begin_input(found.number, found.pixels, found.units)
            self._cut(found)
        else:
            self._know(found.pixels)
            self._measure(found)
            self._done_pixels += found.pixels - self._manifest.piece_pixels(found.number)
            self._manifest.add_whole(found.number, _done(found))
            yield self._finish(found.number, found)

    def _settle_piece(self, found: Outcome, piece: Piece) -> Iterator[PredictedInput]:
        manifest = self._manifest
        if manifest.input_state(piece.input) != "begun":
            return  # another piece of it failed
        if found.kind == "failed" and not _is_join(piece):
            if manifest.fail_piece(piece.id, found.error or "") >= ATTEMPTS:
                manifest.fail_input(piece.input, found.error or "", found.ours, most=0)
                end_units(Path(piece.target))
            else:
                self._pieces.appendleft(piece)  # before joins, of which one may wait for it
            return
        # A join that failed, or whose worker another input has killed, is over: the last task writes all units then.
        manifest.finish_piece(piece.id, _done(found))
        if piece.kind == "files":
            yield self._finish(piece.input, found)
            return
        if piece.kind == "units":
            self._measure(found)
            self._done_pixels += piece.pixels
        left = manifest.open_pieces(piece.input)
        if "units" not in left:
            end_units(Path(piece.target))
        if not left:
            manifest.add_pieces(piece.input, "files", [(0, 0, 0)])

    def _cut(self, found: Outcome) -> None:
        """Cut the units of a large raster that are not computed into pieces."""
        manifest, number, each = self._manifest, found.number, found.pixels / found.units
        missing = list(found.missing)
        self._done_pixels -= manifest.piece_pixels(number)
        manifest.keep_pieces(number, missing)
        if found.one is not None:
            self._measure(found.one)
            first, end = missing[0]
            done = replace(_done(found.one), pixels=round(each))
            manifest.add_done(number, "units", (first, first + 1), done)
            missing[0] = first + 1, end
        self._done_pixels += manifest.piece_pixels(number)
        most = max(1, int(self._task_pixels() / each))
        if self._is_scarce():
            units = sum(last - first for first, last in missing)
            most = min(most, max(1, math.ceil(units / (_AHEAD * self._workers))))
        pieces = [
            (first, min(first + most, last), round((min(first + most, last) - first) * each))
            for begin, last in missing
            for first in range(begin, last, most)
        ]
        manifest.add_pieces(number, "join" if pieces else "files", [(0, 0, 0)])
        manifest.add_pieces(number, "units", pieces)

    def _finish(self, number: int, found: Outcome) -> PredictedInput:
        self._manifest.finish_input(number, found.source_state, found.target_state, _done(found))
        self._manifest.note_damage(number, found.error)
        assert found.about is not None, "what is done has a result"  # noqa: S101
        return replace(found.about, seconds=self._manifest.seconds_of(number))

    def _died(self, work: Batch | Piece, text: str, ours: bool) -> None:
        """Record a task without a result. Of several inputs, it is not known which is at fault: each goes alone.

        Args:
            work: the task.
            text: what happened.
            ours: whether it is a fault of SkyStill.
        """
        if isinstance(work, Piece):
            failed = Outcome(work.id, "failed", error=f"{work.source}: {text}", ours=ours)
            list(self._settle_piece(failed, work))
        elif len(work.items) > 1:
            self._alone.extend(work.items)
        else:
            number, source, _ = work.items[0]
            self._manifest.fail_input(number, f"{source}: {text}", ours, ATTEMPTS)

    def _know(self, pixels: int) -> None:
        self._known = self._known[0] + 1, self._known[1] + pixels

    def _measure(self, found: Outcome) -> None:
        """Take the rate of a worker from what it did: half of the new value, half of the old."""
        rate = found.pixels / max(found.seconds, 1e-3)
        self._rate = rate if self._rate is None else (self._rate + rate) / 2

    def _tell(self, final: bool = False) -> None:
        known, pixels = self._known
        total = pixels + (pixels // known if known else 0) * max(0, self._inputs - known)
        total = self._done_pixels if final else max(total, self._done_pixels + 1)
        self._on_progress(Progress(f"{self._inputs:,} inputs", self._done_pixels, total, "pixels"))


def _is_join(work: Batch | Piece) -> bool:
    return isinstance(work, Piece) and work.kind == "join"


def _done(found: Outcome) -> Done:
    return Done(found.pixels, found.size, found.digest, found.seconds, found.host)


def absolute(sources: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, Path]]:
    """Yield inputs and results under names that workers understand, whose current folder is another.

    Raises:
        SettingsError: no such name can be made for an input.
    """
    for source, target in sources:
        yield absolute_name(source), target.absolute()
