import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from skystill.cli import commands as cli
from tests.made import made_once

TINY = ["--crop=32", "--batch-size=4", "--crops-per-image=4", "--split=0.5/0.1/0.4"]
"""Settings of runs that take a second."""


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def skystill(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Run the command line in this process, as a terminal would."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["skystill", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


def process(*arguments: object) -> Done:
    """Run the command line in a process of its own."""
    environment = os.environ | {"COLUMNS": "200"}
    command = [sys.executable, "-m", "skystill", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def teacher(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained teacher with its report."""

    def make(out: Path) -> None:
        flags = ["--network", "unet?channels=8&depth=3", "--epochs=3", *TINY]
        done = process("train", "--data", scenes, "--out", out, *flags)
        assert done.code == 0, done.err

    return copied(made_once("teacher", make, tmp_path_factory), tmp_path_factory)


@pytest.fixture(scope="session")
def student(teacher: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student distilled from it, with its baseline and report."""

    def make(out: Path) -> None:
        done = process(
            "distill", "--data", scenes, "--teacher", out.with_name("teacher"), "--out", out, "--student=two-level",
            "--epochs=3", "--alpha-end=0.3", *TINY,
        )  # fmt: skip
        assert done.code == 0, done.err

    return copied(made_once("student", make, tmp_path_factory), tmp_path_factory)


def copied(made: Path, factory: pytest.TempPathFactory) -> Path:
    """Return a copy that this test process may change."""
    copy = factory.mktemp("runs") / made.name
    shutil.copytree(made, copy)
    return copy
