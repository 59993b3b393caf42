"""The events of `on_progress`, the callback to which all long operations report.

The callback is called with one event at a time. The command line shows the events as progress bars and lines. A program
can count or log them. It can also cancel the operation by raising an exception in the callback: the operation ends, and
files that were already saved are kept.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """

    task: str
    done: int
    total: int
    unit: str = "items"
    figures: Mapping[str, float] = field(default_factory=dict)


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


def tracked(items: Sequence[_T], task: str, on_progress: OnProgress) -> Iterator[_T]:
    """Yield the items and report each one that is done.

    Args:
        items: what to iterate over.
        task: name of the task.
        on_progress: called with a `Progress` before the first item and after each item.
    """
    for done, item in enumerate(items):
        on_progress(Progress(task, done, len(items)))
        yield item
    on_progress(Progress(task, len(items), len(items)))


def named(on_progress: OnProgress, task: str) -> OnProgress:
    """Return a callback that passes events on to `on_progress` under another task name.

    The training loop does not know what it trains. Its caller does, and sets the name with this function.
    """

    def rename(event: Event) -> None:
        on_progress(replace(event, task=task) if isinstance(event, Progress | EpochEnd) else event)

    return rename


def report_notes(notes: Sequence[str], on_progress: OnProgress) -> None:
    """Report each text as a `Note`."""
    for note in notes:
        on_progress(Note(note))
