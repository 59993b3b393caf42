"""The events of `on_progress`, the callback to which all long operations report.

The callback is called with one event at a time. The command line shows the events as progress bars and lines. A program
can count or log them. It can also cancel the operation by raising an exception in the callback: the operation ends, and
files that were already saved are kept.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Progress:
    """How much of a task is done.

    Args:
        task: name of the task, such as "opening images".
        done: number of units that are done.
        total: number of all units. The task ends when `done` reaches it.
        unit: "items", "steps" or "pixels".
        figures: current values to show, such as {"loss": 0.4, "images_per_second": 31.0}.
        leaves_line: True if a line is printed when the task ends. False if none is. None: if it took long.
    """

    task: str
    done: int
    total: int
    unit: str = "items"
    figures: Mapping[str, float] = field(default_factory=dict)
    leaves_line: bool | None = None


@dataclass(frozen=True)
class EpochEnd:
    """The end of a training epoch.

    Args:
        task: name of the training.
        row: the epoch's row in `metrics.csv`: number of the epoch, losses, metrics, seconds.
    """

    task: str
    row: Mapping[str, float]


@dataclass(frozen=True)
class Note:
    """Something about the data, the teacher or the settings that the user should know.

    Args:
        text: one or more sentences.
    """

    text: str


@dataclass(frozen=True)
class Message:
    """The result of one step of a longer operation, such as the measurement of one candidate.

    Args:
        text: one line.
    """

    text: str


Event = Progress | EpochEnd | Note | Message
OnProgress = Callable[[Event], None]


def ignore_progress(event: Event) -> None:
    """Ignore the event. This is the default callback."""


def tracked(items: Sequence[_T], task: str, on_progress: OnProgress, leaves_line: bool | None = None) -> Iterator[_T]:
    """Yield the items and report each one that is done.

    Args:
        items: what to iterate over.
        task: name of the task.
        on_progress: called with a `Progress` before the first item and after each item.
        leaves_line: as in `Progress`.
    """
    for done, item in enumerate(items):
        on_progress(Progress(task, done, len(items), leaves_line=leaves_line))
        yield item
    on_progress(Progress(task, len(items), len(items), leaves_line=leaves_line))


@contextmanager
def phase(task: str, on_progress: OnProgress, leaves_line: bool | None = True) -> Iterator[None]:
    """Report the context as a task of one item.

    Args:
        task: name of the task, such as "writing report.html".
        on_progress: called with a `Progress` before and after.
        leaves_line: as in `Progress`.
    """
    on_progress(Progress(task, 0, 1, leaves_line=leaves_line))
    yield
    on_progress(Progress(task, 1, 1, leaves_line=leaves_line))


def named(on_progress: OnProgress, task: str) -> OnProgress:
    """Return a callback that passes the events of a training on to `on_progress` under another task name.

    The training loop does not know what it trains. Its caller does, and sets the name with this function. Tasks that do
    not count steps keep their names.
    """

    def rename(event: Event) -> None:
        if isinstance(event, EpochEnd) or (isinstance(event, Progress) and event.unit == "steps"):
            event = replace(event, task=task)
        on_progress(event)

    return rename


SAID = "SKYSTILL_SAID"
"""The environment variable that tells a command what the command that started it has already said."""


class SaidOnce:
    """A callback that passes events on, but no note or message a second time.

    Data is prepared by several steps of one command, some of them in processes of their own, and each of them reports
    what it finds.

    Args:
        on_progress: receives the other events.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._said = dict.fromkeys(filter(None, os.environ.get(SAID, "").split(",")))

    def __call__(self, event: Event) -> None:
        """Pass an event on, unless it was said before."""
        if isinstance(event, Note | Message):
            key = hashlib.sha256(event.text.encode(errors="backslashreplace")).hexdigest()[:16]
            if key in self._said:
                return
            self._said[key] = None
        self._on_progress(event)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables for a process that is to say nothing that was said here."""
        return {SAID: ",".join(self._said)}


def is_a_step() -> bool:
    """Return whether another command runs this process as one of its steps."""
    return SAID in os.environ


def report_notes(notes: Sequence[str], on_progress: OnProgress) -> None:
    """Report each text as a `Note`."""
    for note in notes:
        on_progress(Note(note))


def duration(seconds: float) -> str:
    """Return a duration for people, such as "42 s", "3 min 05 s" or "2 h 07 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
