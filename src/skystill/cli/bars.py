"""Show the events of `on_progress` on standard error: progress bars, a line for each epoch, notes and messages."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from skystill.errors import visible
from skystill.progress import EpochEnd, Event, Message, Note, OnProgress, Progress, duration


class VisibleConsole(Console):
    """A console that shows characters of names which would act on the terminal as escapes."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - as rich has them
        """Convert a text that is printed, or a cell of a table."""
        return super().render_str(visible(text), **options)


console = VisibleConsole(highlight=False, soft_wrap=True, markup=False, emoji=False)
"""Standard output, for results. Names are printed as they are: "[/red]" is no markup, and ":car:" no picture."""
messages = VisibleConsole(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
"""Standard error, for progress bars, notes and errors."""


def rate(pixels: int, seconds: float) -> float:
    """Return the rate in megapixels per second, or 0 if no time has passed.

    Args:
        pixels: number of pixels that were processed.
        seconds: time that this took.
    """
    return pixels / 1e6 / seconds if seconds > 0 else 0.0


_EVERY_SECONDS = 30.0  # between two lines about a task, where there is no terminal
_LONG_SECONDS = 5.0  # a task that took longer leaves a line
_TICK_SECONDS = 1.0  # between two looks at the tasks that report nothing, where there is no terminal


@dataclass
class _Timed:
    """A running task: when it began, its first and last event, and when the last line about it was printed."""

    began: float
    first: int
    told: float
    last: Progress

    def left(self, now: float) -> str:
        """Return the time that is left at the rate so far, or nothing if nothing was done yet."""
        begun = self.last.done - self.first
        if begun <= 0:
            return ""
        return f"  about {duration((now - self.began) / begun * (self.last.total - self.last.done))} left"


class ProgressDisplay:
    """An `on_progress` callback for the terminal.

    Each running task has a progress bar, which is removed when the task is done. If standard error is not a terminal,
    a line is printed every 30 seconds instead. A task of more than 5 seconds leaves a line with its
    time, and so do the steps of a command, however short they are.

    Args:
        clock: returns the time in seconds; tests give a fake clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._clock = clock
        self._timed: dict[str, _Timed] = {}
        self._told = -math.inf
        self._lock = threading.Lock()  # of what the thread that ticks reads

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Note):
            messages.print(f"note: {visible(event.text)}", markup=False)
        elif isinstance(event, Message):
            messages.print(visible(event.text), markup=False)
        elif isinstance(event, EpochEnd):
            timed = self._timed.get(visible(event.task))
            left = timed.left(self._clock()) if timed else ""
            messages.print(f"{visible(event.task)}: {epoch_line(event.row)}{left}", markup=False)
        else:
            event = replace(event, task=visible(event.task))
            if messages.is_terminal:
                self._move(event)
            self._tell(event)

    def close(self) -> None:
        """Remove the remaining bars, for example after an error."""
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._tasks = None, {}

    def tick(self) -> None:
        """Print the line about the task that runs, if it is due. A task may take minutes without an event."""
        with self._lock:
            if self._timed and not messages.is_terminal:
                self._tell_if_due(list(self._timed.values())[-1], self._clock())

    def _tell(self, event: Progress) -> None:
        """Print the lines about a task: every 30 seconds without a terminal, and at its end if it was long."""
        now = self._clock()
        with self._lock:
            timed = self._timed.setdefault(event.task, _Timed(now, event.done, now, event))
            timed.last = event
            if event.done < event.total:
                if not messages.is_terminal:
                    self._tell_if_due(timed, now)
                return
            del self._timed[event.task]
        seconds = now - timed.began
        if event.leaves_line or (event.leaves_line is None and seconds > _LONG_SECONDS):
            messages.print(f"{event.task}: done in {duration(seconds)}", markup=False)

    def _tell_if_due(self, timed: _Timed, now: float) -> None:
        if now - max(timed.told, self._told) >= _EVERY_SECONDS:
            timed.told = self._told = now
            messages.print(f"{timed.last.task}: {_progress_line(timed, now)}", markup=False)

    def _move(self, event: Progress) -> None:
        if self._bars is None:
            # Standard output is not redirected, because results may go to a file while bars are shown.
            self._bars = Bars(*_columns(), console=messages, transient=True, redirect_stdout=False)
            self._bars.start()
        if event.task not in self._tasks:
            # A task of one item moves from side to side: nothing is known of how far it is.
            total = event.total if event.total > 1 else None
            self._tasks[event.task] = self._bars.add_task(event.task, total=total, completed=event.done, about="")
        task = self._tasks[event.task]
        elapsed = next((one.elapsed for one in self._bars.tasks if one.id == task), None) or 0.0
        total = event.total if event.total > 1 else None
        self._bars.update(task, completed=event.done, total=total, about=_about(event, elapsed))
        if event.done >= event.total:
            self._bars.remove_task(self._tasks.pop(event.task))
            if not self._tasks:
                self.close()


def _progress_line(timed: _Timed, now: float) -> str:
    """Return the part that is done, the figures, and the time that is left. A task of one item has only its time."""
    event, seconds = timed.last, now - timed.began
    if event.total <= 1:
        return f"running for {duration(seconds)}"
    done = f"{100 * event.done // event.total} %"
    return f"{done}  {_about(event, seconds, timed.first)}{timed.left(now)}"


def _columns() -> tuple[TextColumn | BarColumn | TimeRemainingColumn, ...]:
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[about]}", markup=False),
        TimeRemainingColumn(),
    )


def _about(event: Progress, elapsed: float, first: int = 0) -> str:
    """Return the text next to a bar: the counts, and the figures of the event.

    Args:
        event: the event.
        elapsed: seconds since the task began.
        first: what was done then.
    """
    if event.unit == "pixels":
        return f"{rate(event.done - first, elapsed):.1f} MP/s"
    if event.total <= 1:
        return ""
    parts = [f"{event.done} of {event.total} {event.unit if event.unit != 'items' else ''}".rstrip()]
    if "loss" in event.figures:
        parts.append(f"loss {event.figures['loss']:.4f}")
    if "images_per_second" in event.figures:
        parts.append(f"{event.figures['images_per_second']:.1f} images/s")
    return "  ".join(parts)


def epoch_line(row: Mapping[str, float]) -> str:
    """Return the line that is printed after an epoch.

    Args:
        row: the row of the epoch in `metrics.csv`.
    """
    parts = [f"epoch {row['epoch']:3.0f}", f"loss {row['loss']:.4f}"]
    if "miou" in row:  # pretraining has no labels
        parts.append(f"mIoU {row['miou']:.3f}")
    if "validation_miou" in row:
        parts.append(f"validation loss {row['validation_student_loss']:.4f} mIoU {row['validation_miou']:.3f}")
    parts.append(f"{row['images_per_second']:.1f} images/s")
    return "  ".join(parts)


@contextmanager
def progress_display() -> Iterator[OnProgress]:
    """Yield a callback that shows progress, and remove all bars at the end."""
    display, ended = ProgressDisplay(), threading.Event()

    def tick() -> None:
        while not ended.wait(_TICK_SECONDS):
            display.tick()

    ticking = threading.Thread(target=tick, name="progress", daemon=True)
    if not messages.is_terminal:  # the bars of a terminal move by themselves
        ticking.start()
    try:
        yield display
    finally:
        ended.set()
        display.close()
