"""The Dockerfile names what is there. It is built by hand: no test may need a Docker daemon."""

import json
import re
from pathlib import Path

import typer

from skystill.cli import app

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = [name for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in copied)


def test_it_runs_a_command_that_there_is_as_a_user_without_rights() -> None:
    entry = json.loads(re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)[0])
    verb, *options = json.loads(re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)[0])
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert entry == ["skystill"]
    assert {option.partition("=")[0] for option in options} <= known
    assert DOCKERFILE.index("\nUSER skystill") < DOCKERFILE.index("\nENTRYPOINT")
    assert re.search(r"^HEALTHCHECK .*\\\n  CMD .*/health/live", DOCKERFILE, re.MULTILINE)
