"""Workers, scheduler and command are killed at random moments; the same command goes on, to the same bytes.

SKYSTILL_KILLS sets how often each is killed.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skystill.cluster.status import read_status
from tests.cluster.archives import contents, small_tiles, write_raster
from tests.cluster.scheduler import DEADLINE_SECONDS, running, start_worker

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("SKYSTILL_KILLS", "1"))
CLIENT = Path(__file__).parent / "client.py"
OPTIONS = ("--threads=1", "--vector=gpkg", "--confidence", "--areas", "--cog")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large raster, some small ones, a model, and what one machine makes of them."""
    folder = tmp_path_factory.mktemp("given")
    write_raster(folder / "in/large.tif", 800, 900)
    for number in range(3):
        write_raster(folder / f"in/small-{number}.tif", 90, 110, number)
    model = small_tiles(folder)
    command = [sys.executable, "-m", "skystill", "predict", str(folder / "in"), f"--model={model}", *OPTIONS]
    subprocess.run([*command, f"--out={folder / 'whole'}"], check=True, capture_output=True)
    return folder


def command(given: Path, out: Path, address: str) -> list[str]:
    where = [str(given / "in"), f"--model={given / 'm.onnx'}", f"--out={out}", f"--dask={address}"]
    return [sys.executable, str(CLIENT), "predict", *where, *OPTIONS]


def pieces_done(out: Path) -> int:
    """How many pieces are done, by the manifest."""
    try:
        base = sqlite3.connect(f"{(out / '.skystill/manifest.sqlite').as_uri()}?mode=ro", uri=True, timeout=30)
        found = base.execute("select count(*) from pieces where state = 'done'").fetchone()[0]
        base.close()
    except sqlite3.Error:  # it is not there yet, or a change of a killed command is to be taken back
        return 0
    return int(found)


def wait_for_piece(out: Path, process: subprocess.Popen[str], more: int) -> bool:
    """Wait until some more pieces are done. Returns whether the command still runs."""
    until, wanted = time.monotonic() + DEADLINE_SECONDS, pieces_done(out) + more
    while pieces_done(out) < wanted and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    return process.poll() is None


def test_killed_workers_cost_nothing(given: Path, tmp_path: Path) -> None:
    rng, out = random.Random(1), tmp_path / "out"
    with running(tmp_path / "dask", 2) as (address, processes):
        process = subprocess.Popen(command(given, out, address), stderr=subprocess.PIPE, text=True)
        for number in range(KILLS):
            if wait_for_piece(out, process, rng.randint(1, 4)):
                victim = processes.pop(rng.randrange(1, len(processes)))
                victim.send_signal(signal.SIGKILL)
                victim.wait()
                processes.append(start_worker(address, tmp_path / "dask", 2 + number))
        _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, said
    assert contents(out) == contents(given / "whole")
    assert read_status(out).inputs == {"done": 4}


def test_a_killed_scheduler_costs_nothing(given: Path, tmp_path: Path, address: str) -> None:
    rng, out = random.Random(2), tmp_path / "out"
    for number in range(KILLS):
        with running(tmp_path / f"dask-{number}", 2) as (own, processes):
            process = subprocess.Popen(command(given, out, own), stderr=subprocess.PIPE, text=True)
            if wait_for_piece(out, process, rng.randint(1, 4)):
                processes[0].send_signal(signal.SIGKILL)
            _, said = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode in (0, 2), said
        assert process.returncode == 0 or ("the scheduler of --dask" in said and "it goes on" in said), said
    finish(given, out, address)


def test_a_killed_command_costs_nothing(given: Path, tmp_path: Path, address: str) -> None:
    rng, out = random.Random(3), tmp_path / "out"
    for _ in range(KILLS):
        process = subprocess.Popen(command(given, out, address), stderr=subprocess.DEVNULL, text=True)
        wait_for_piece(out, process, rng.randint(1, 4))
        process.kill()
        process.wait()
    assert pieces_done(out) > 0
    finish(given, out, address)


def finish(given: Path, out: Path, address: str) -> None:
    done = subprocess.run(command(given, out, address), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(given / "whole")
    assert read_status(out).inputs == {"done": 4}
