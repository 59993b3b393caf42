"""Unfinished files have names that never meet, and are known as left behind only when that is sure."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skystill import unfinished
from skystill.run_folder import hold_output, written_whole
from skystill.unfinished import is_left, part_of

WRITE = """
import sys, time
from pathlib import Path
from skystill.run_folder import written_whole
with written_whole(Path(sys.argv[1])) as part:
    part.write_text("half")
    print(part, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unfinished file of another machine, written a moment ago."""
    monkeypatch.setattr(unfinished, "_machine", lambda: "0a1b2c")
    part = part_of(tmp_path / "a.tif")
    monkeypatch.undo()
    part.touch()
    return part


def test_no_two_names_meet_and_the_suffix_stays(tmp_path: Path) -> None:
    names = {part_of(tmp_path / "a.tif") for _ in range(100)}
    assert len(names) == 100 and {name.suffix for name in names} == {".tif"}


def test_machines_of_one_name_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers of one machine count their processes from 1, and may share its name and its kernel."""
    here = unfinished._machine()
    monkeypatch.setattr(os, "readlink", lambda path: "pid:[42]")
    assert unfinished._machine.__wrapped__() != here


def test_a_process_that_writes_is_left_alone_and_what_it_left_goes_when_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path / "page.html")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        part = Path(process.stdout.readline().strip())
        assert part.exists() and not is_left(part)
        process.kill()
        until = time.monotonic() + 60
        while not is_left(part) and time.monotonic() < until:  # also before its parent takes note of it
            time.sleep(0.01)
        assert is_left(part)
    assert is_left(part)
    with hold_output(tmp_path / "page.html"):
        assert not part.exists()


def test_a_part_of_this_process_is_in_work(tmp_path: Path) -> None:
    with written_whole(tmp_path / "a.tif") as part:
        part.touch()
        assert not is_left(part)


def test_parts_of_another_machine_or_version_are_left_when_nothing_was_written_for_long(
    tmp_path: Path, elsewhere: Path
) -> None:
    before = tmp_path / ".part-77-a.tif"
    before.touch()
    for part in (elsewhere, before):
        assert not is_left(part)
        os.utime(part, (time.time() - 7200,) * 2)
        assert is_left(part)
        part.unlink()
        assert not is_left(part)
