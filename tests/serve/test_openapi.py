"""The description of the service is true: schemathesis draws requests from it and compares every answer with it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.serve.serving import Serving

ROOT = Path(__file__).parents[2]
EXAMPLES = os.environ.get("SKYSTILL_TEST_EXAMPLES", "3")
"""Requests drawn for each address, besides some hundred for every limit in the description."""


def run_schemathesis(service: Serving, folder: Path, *options: str, **environment: str) -> int:
    """Run it, and return how many requests it drew. Every check but one: a schema cannot say which bytes are an image,
    so that valid requests may be refused.
    """
    command = [
        sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run",
        f"{service.url}/openapi.json", "--checks=all", "--exclude-checks=positive_data_acceptance", "--seed=1",
        "--continue-on-failure", "--no-color", "--warnings=off", *options,
    ]  # fmt: skip
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    given = os.environ | {"SCHEMATHESIS_HOOKS": "tests.serve.drawn", "PYTHONPATH": paths} | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=given)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    drawn = re.search(r"(\d+) generated", done.stdout)
    assert drawn is not None
    return int(drawn[1])


def test_the_description_is_true(service: Serving, tmp_path: Path) -> None:
    assert run_schemathesis(service, tmp_path, f"--max-examples={EXAMPLES}", "--phases=coverage,fuzzing") > 300
    before = service.log
    run_schemathesis(
        service, tmp_path, "--max-examples=20", "--phases=fuzzing", "--mode=positive", "--include-path=/predict",
        SKYSTILL_TEST_PLAIN="1",
    )  # fmt: skip
    lines = service.log[len(before) :].splitlines()
    answers = {found[1] for line in lines if (found := re.search(r"POST /predict: (\d+)", line))}
    assert {"200", "415"} <= answers
    assert not {answer for answer in answers if answer.startswith("5")}


def test_every_address_is_described(service: Serving) -> None:
    described = service.client.get("/openapi.json").json()["paths"]
    source = (ROOT / "src/skystill/serve/app.py").read_text()
    routes = set(re.findall(r'\("(GET|POST|DELETE)", "(/[^"]*)"', source))
    wildcards = {("GET", "/processes/{process}"), ("POST", "/processes/{process}/execution")}  # of one process
    found = {
        (method.upper(), path) for path, methods in described.items() for method in methods if method != "parameters"
    }
    assert found - routes == {("GET", "/processes/segment"), ("POST", "/processes/segment/execution")}
    assert routes - found == wildcards
