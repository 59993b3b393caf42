"""`on_progress`: the one callback with which everything that takes long reports what it does.

It is called with one event after another. The command line shows them as bars and lines; a program may count, log or
cancel: an exception that the callback raises ends the work, and what was saved stays.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Progress:
    """A part of a task is done.

    Args:
        task: what is being done, such as "opening images".
        done: units that are done.
        total: units in all; the task ends when `done` reaches it.
        unit: "items", "steps" or "pixels".
        figures: what is known so far, such as {"loss": 0.4, "images_per_second": 31.0}.
    """

    task: str
    done: int
    total: int
    unit: str = "items"
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochEnd:
    """An epoch of a training has ended.

    Args:
        task: what is being trained.
        row: its row of `metrics.csv`: epoch, losses, metrics, seconds.
    """

    task: str
    row: Mapping[str, float]


@dataclass(frozen=True)
class Note:
    """Something on the data, the teacher or the settings that the user should know.

    Args:
        text: one sentence or more.
    """

    text: str


@dataclass(frozen=True)
class Message:
    """The result of one step of a search, such as a candidate that was measured.

    Args:
        text: one line.
    """

    text: str


Event = Progress | EpochEnd | Note | Message
OnProgress = Callable[[Event], None]


def ignore_progress(event: Event) -> None:
    """Default callback: does nothing."""


def tracked(items: Sequence[_T], task: str, on_progress: OnProgress) -> Iterator[_T]:
    """Loop over items and report each that is done.

    Args:
        items: to loop over.
        task: what is being done.
        on_progress: called before the first item, and after each.
    """
    for done, item in enumerate(items):
        on_progress(Progress(task, done, len(items)))
        yield item
    on_progress(Progress(task, len(items), len(items)))


def named(on_progress: OnProgress, task: str) -> OnProgress:
    """The same callback, with another name for the task: whoever starts a training knows what is trained."""

    def rename(event: Event) -> None:
        on_progress(replace(event, task=task) if isinstance(event, Progress | EpochEnd) else event)

    return rename


def report_notes(notes: Sequence[str], on_progress: OnProgress) -> None:
    """Report each note."""
    for note in notes:
        on_progress(Note(note))
