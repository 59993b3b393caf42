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
