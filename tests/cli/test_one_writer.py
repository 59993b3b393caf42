"""Two processes in one run folder, in one output, in one cache: one waits or is refused, and nothing changes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import TINY, Done
from tests.holder import Holder

Cli = Callable[..., Done]
pytestmark = pytest.mark.slow


def content(folder: Path) -> dict[str, bytes]:
    """The files below a folder, without those of the locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and "lock" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_command_is_refused_where_another_process_writes(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli
) -> None:
    run, data = tmp_path / "run", f"--data={scenes}"
    shutil.copytree(teacher, run)
    image = next((scenes / "images").iterdir())
    model, outside, classes = run / "model.onnx", tmp_path / "outside.onnx", tmp_path / "classes.png"
    journal = tmp_path / ".unfinished-classes.png"
    commands = [
        ("train", data, f"--out={run}", "--network=two-level", "--resume", *TINY),
        ("distill", data, f"--teacher={teacher}", f"--out={run}", "--student=two-level", "--resume", *TINY),
        ("prune", teacher, data, f"--out={run}", "--max-size=1MB", *TINY),
        ("evaluate", run),
        ("quantize", model, data),
        ("export", run, f"--out={run / 'deepness.onnx'}", "--format=deepness"),
        ("export", run, f"--out={outside}"),
        ("predict", image, f"--model={model}", f"--out={classes}"),
    ]
    before = content(tmp_path)
    with Holder(run / ".lock", outside.with_name(".lock-outside.onnx"), journal / "lock") as holder:
        for command in commands:
            done = skystill(*command)
            assert done.code == 2, (command[0], done.err)
            assert f"is in use by another process (process {holder.pid} on " in done.err, (command[0], done.err)
            assert content(tmp_path) == before, command[0]
        holder.release()
    for command in commands[-2:]:
        assert skystill(*command).code == 0
    assert set(content(tmp_path)) > set(before) and not list(tmp_path.glob(".*"))


def test_a_cache_waits_and_two_that_fill_it_fill_it_once(
    scenes: Path, teacher: Path, tmp_path: Path, skystill: Cli
) -> None:
    flags = ["cache", f"--data={scenes}", f"--teacher={teacher}", f"--cache={tmp_path / 'logits'}", *TINY[-1:]]
    assert skystill(*flags).code == 0
    whole = content(tmp_path)
    files = sorted((tmp_path / "logits").rglob("*.safetensors"))
    assert len(files) == 6
    for file in files[:2]:
        file.unlink()
    left = files[0].with_name(f".part-1-{files[0].name}")  # of an earlier version that was killed
    left.touch()
    os.utime(left, (0, 0))
    command = [sys.executable, "-m", "skystill", *flags]
    with Holder(files[0].with_name(".lock-1-of-1")) as holder:
        running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        for process in running:
            assert process.stderr is not None
            while "waits until it has ended" not in (line := process.stderr.readline()):
                assert line, "it ended without waiting"
        assert len(content(tmp_path)) == 5
        holder.release()
        said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted("teacher: done in" in one for one in said) == [False, True]
    assert content(tmp_path) == whole
