"""What a person sees who waits: lines on standard error, and bars where that is a terminal."""

import io
import re
import time

import pytest
from rich.console import Console

from skystill.cli import bars
from skystill.cli.bars import progress_display, rate
from skystill.progress import EpochEnd, Message, Note, Progress

ROW = {"epoch": 3.0, "loss": 0.51234, "miou": 0.25, "images_per_second": 12.34}


def test_notes_messages_and_epochs_are_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display() as on_progress:
        on_progress(Note("3 of 4 bands are used [red]"))
        on_progress(Message("saved"))
        on_progress(Progress("student", 1, 2))  # no terminal here, so no bar
        on_progress(EpochEnd("student", ROW))
        on_progress(EpochEnd("student", ROW | {"validation_student_loss": 0.75, "validation_miou": 0.125}))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "note: 3 of 4 bands are used [red]",
        "saved",
        "student: epoch   3  loss 0.5123  mIoU 0.250  12.3 images/s",
        "student: epoch   3  loss 0.5123  mIoU 0.250  validation loss 0.7500 mIoU 0.125  12.3 images/s",
    ]


def test_a_terminal_shows_bars_with_counts_and_figures_and_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(bars, "messages", Console(file=screen, force_terminal=True, width=120))
    figures = {"loss": 0.51234, "images_per_second": 12.34}
    with progress_display() as on_progress:
        on_progress(Progress("student", 1, 4, unit="steps", figures=figures))
        for _ in range(100):  # the bar is drawn ten times a second, by a thread of its own
            if "1 of 4" in screen.getvalue():
                break
            time.sleep(0.05)
        on_progress(Progress("student", 4, 4, unit="steps", figures=figures))
    assert "student " in screen.getvalue()
    assert " 25 % 1 of 4 steps  loss 0.5123  12.3 images/s" in re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert screen.getvalue().endswith("\r\x1b[2K\x1b[?25h\r")  # its line is cleared


def test_the_printed_rate_is_megapixels_by_the_clock() -> None:
    assert rate(3_000_000, 2.0) == 1.5
    assert rate(3_000_000, 0.0) == 0.0  # before the clock has moved


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_a_line_every_thirty_seconds_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    display = bars.ProgressDisplay(clock)
    for second, done in (
        (0, 0),
        (10, 1),
        (29, 3),
        (30, 4),
        (31, 5),
        (59, 6),
        (61, 10),
        (90, 11),
        (3775, 99),
        (3800, 100),
    ):
        clock.now = 100.0 + second
        display(Progress("polygons of a.tif", done, 100))
    display(Progress("areas of a.tif", 0, 2))
    clock.now += 4.9
    display(Progress("areas of a.tif", 2, 2))
    assert capsys.readouterr().err.splitlines() == [
        "polygons of a.tif: 4 %  4 of 100  about 12 min 00 s left",  # 30 s for 4, 96 are left
        "polygons of a.tif: 10 %  10 of 100  about 9 min 09 s left",
        "polygons of a.tif: 99 %  99 of 100  about 38 s left",  # the one after 90 s came 29 s after the last line
        "polygons of a.tif: done in 1 h 03 min",
    ]


def test_the_rate_of_pixels_counts_from_where_a_task_began(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    display = bars.ProgressDisplay(clock)
    display(Progress("a.tif", 60_000_000, 100_000_000, "pixels"))  # resumed
    clock.now += 40
    display(Progress("a.tif", 80_000_000, 100_000_000, "pixels"))
    assert capsys.readouterr().err == "a.tif: 80 %  0.5 MP/s  about 40 s left\n"


def test_a_long_task_leaves_a_line_on_a_terminal_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, clock = io.StringIO(), Clock()
    monkeypatch.setattr(bars, "messages", Console(file=screen, force_terminal=True, width=120))
    display = bars.ProgressDisplay(clock)
    for second in (0, 35, 65):
        clock.now = 100.0 + second
        display(Progress("polygons of [red].tif", second, 65))
    display.close()
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n").splitlines()
    assert "polygons of [red].tif: done in 1 min 05 s" in lines
    assert not any("left" in line for line in lines)  # the bar says it


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7650, "2 h 07 min"),
    ],
)
def test_durations_are_for_people(seconds: float, said: str) -> None:
    assert bars.duration(seconds) == said
