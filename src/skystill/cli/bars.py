"""Bars for people who wait: training with loss, rate and time left, and plain loops."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

console = Console(highlight=False, soft_wrap=True)
"""Where results go."""
messages = Console(stderr=True, highlight=False, soft_wrap=True)
"""Where bars, notes and errors go."""


def track(items: Sequence[Any], description: str) -> Iterable[Any]:
    """Loop over items behind a bar on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        yield from progress.track(items, description=description)


class TrainingBar:
    """A `Watch` that shows a bar with loss, images a second and time left, and a line an epoch.

    Args:
        progress: the bar's home.
        name: what is being trained.
    """

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name
        self._task: TaskID | None = None

    def on_step(self, done: int, total: int, result: Mapping[str, float], images_per_second: float) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._progress.add_task(self._name, total=total, completed=done - 1, about="")
        about = f"loss {result['loss']:.4f}  {images_per_second:.1f} images/s"
        self._progress.update(self._task, completed=done, about=about)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Print a line: what stays when the bar is gone, and all there is where no terminal shows bars."""
        parts = [f"epoch {row['epoch']:3.0f}", f"loss {row['loss']:.4f}", f"mIoU {row['miou']:.3f}"]
        if "validation_miou" in row:
            parts.append(f"validation loss {row['validation_student_loss']:.4f} mIoU {row['validation_miou']:.3f}")
        parts.append(f"{row['images_per_second']:.1f} images/s")
        messages.print(f"{self._name}: " + "  ".join(parts))


@contextmanager
def pixel_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for one raster, with megapixels a second and time left; called with the pixels done and the total."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[about]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        task = progress.add_task(name, total=None, about="")

        def show(done: int, total: int) -> None:
            seconds = progress.tasks[0].elapsed or 0.0
            progress.update(task, completed=done, total=total, about=f"{rate(done, seconds):.1f} MP/s")

        yield show


def rate(pixels: int, seconds: float) -> float:
    """Megapixels a second; 0 before the clock has moved."""
    return pixels / 1e6 / seconds if seconds > 0 else 0.0


@contextmanager
def training_bar(name: str) -> Iterator[TrainingBar]:
    """A bar for one training run."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[about]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        yield TrainingBar(progress, name)
