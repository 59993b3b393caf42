"""One process at a time, in real processes: who comes second waits, or is told who holds what it wants."""

import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from skystill.errors import RunFolderError
from skystill.locks import hold_lock
from skystill.progress import Event, Note
from skystill.run_folder import RunFolder, hold_output
from tests.holder import Holder

_WAITS = """
import sys
from pathlib import Path
from skystill.locks import hold_lock
with hold_lock(Path(sys.argv[1]), "the cache", lambda event: print(event.text, flush=True), wait=True):
    print("has it", flush=True)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    with Holder(tmp_path / "run/.lock") as held:
        yield held


def test_the_second_is_told_who_is_first(tmp_path: Path, holder: Holder) -> None:
    with pytest.raises(RunFolderError) as refused, RunFolder(tmp_path / "run").locked():
        pass
    who = rf"process {holder.pid} on {re.escape(socket.gethostname())}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(
        rf"{re.escape(str(tmp_path))}/run is in use by another process \({who}\)\. Wait .*", str(refused.value)
    )
    assert refused.value.exit_code == 2
    holder.release()
    with RunFolder(tmp_path / "run").locked():
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_kill_9_releases_a_lock_and_what_it_left_does_no_harm(tmp_path: Path, holder: Holder) -> None:
    holder.kill()
    assert len(list((tmp_path / "run").iterdir())) == 2
    with RunFolder(tmp_path / "run").locked():
        assert str(os.getpid()) in (tmp_path / "run/.lock-holder").read_text()
    assert list((tmp_path / "run").iterdir()) == []


def test_one_that_waits_says_so_and_goes_on(tmp_path: Path, holder: Holder) -> None:
    command = [sys.executable, "-c", _WAITS, str(tmp_path / "run/.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        said = waiting.stdout.readline()
        assert re.match(rf"the cache is in use by another process \(process {holder.pid} .*; this process waits", said)
        assert waiting.poll() is None
        holder.release()
        assert waiting.stdout.read() == "has it\n"
    assert waiting.returncode == 0


def test_a_folder_that_goes_with_its_lock_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "journal/lock"
    with hold_lock(path, "a.tif"):
        for left in path.parent.iterdir():
            left.unlink()
        path.parent.rmdir()
        with hold_lock(path, "a.tif"):  # another file of the same name: another lock
            assert path.exists()
    assert list(tmp_path.rglob("*")) == [path.parent]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_with_a_note(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: FileLock, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    said: list[Event] = []
    with RunFolder(tmp_path).locked(said.append):
        pass
    assert len(said) == 1 and isinstance(said[0], Note)
    assert said[0].text.startswith(f"{tmp_path}: this file system has no locks (")


def test_a_file_is_held_by_its_run_or_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "model.onnx", tmp_path / "other.onnx"
    with hold_output(one), hold_output(other):
        ends = ("", "-holder")
        assert {path.name for path in tmp_path.iterdir()} == {
            f".lock-{p.name}{end}" for p in (one, other) for end in ends
        }
        with pytest.raises(RunFolderError, match=f"{re.escape(str(one))} is in use"), hold_output(one):
            pass
    (tmp_path / "config.yaml").touch()
    with hold_output(one), pytest.raises(RunFolderError, match=f"{tmp_path} is in use"), hold_output(other):
        pass


def test_a_run_that_begins_leaves_what_others_are_writing_below_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start({"seed": 1}, resume=False)
    for below in ("logits/t", "alone/checkpoints", "checkpoints", "plots"):
        (tmp_path / below).mkdir(parents=True)
        (tmp_path / below / ".part-1-x").touch()
    folder.start({"seed": 1}, resume=True)
    left = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob(".part-*")}
    assert left == {"logits/t", "alone/checkpoints"}
