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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skystill.api import predict
from skystill.cluster.status import read_status
from skystill.errors import ClusterError
from skystill.progress import Event, Progress
from tests.cluster.archives import contents, small_tiles, write_raster
from tests.cluster.scheduler import DEADLINE_SECONDS, running, start_worker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_tasks")]
KILLS = int(os.environ.get("SKYSTILL_KILLS", "1"))
CLIENT = Path(__file__).parent / "client.py"
OPTIONS = {"threads": 1, "vector": "gpkg", "confidence": True, "areas": True, "cog": True}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large raster, some small ones, a model, and what one machine makes of them."""
    folder = tmp_path_factory.mktemp("given")
    write_raster(folder / "in/large.tif", 800, 900)
    for number in range(3):
        write_raster(folder / f"in/small-{number}.tif", 90, 110, number)
    small_tiles(folder)
    predict(**settings(folder, folder / "whole"))
    return folder


def settings(given: Path, out: Path, address: str | None = None) -> dict[str, Any]:
    return {"inputs": [str(given / "in")], "model": given / "m.onnx", "out": out, "dask": address, **OPTIONS}


def command(given: Path, out: Path, address: str) -> list[str]:
    where = [str(given / "in"), f"--model={given / 'm.onnx'}", f"--out={out}", f"--dask={address}"]
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in OPTIONS.items()]
    return [sys.executable, str(CLIENT), "predict", *where, *flags]


def after_pieces(rng: random.Random, out: Path, kill: Iterator[Callable[[], None]]) -> Callable[[Event], None]:
    """Return a callback that kills, each time after some more pieces."""
    wanted = rng.randint(1, 4)

    def look(event: Event) -> None:
        nonlocal wanted
        if isinstance(event, Progress) and event.unit == "pixels" and pieces_done(out) >= wanted:
            wanted = pieces_done(out) + rng.randint(1, 4)
            next(kill, lambda: None)()

    return look


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
    rng, out, killed = random.Random(1), tmp_path / "out", 0
    with running(tmp_path / "dask", 2) as (address, processes):

        def kill_one() -> None:
            nonlocal killed
            killed += 1
            victim = processes.pop(rng.randrange(1, len(processes)))
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            processes.append(start_worker(address, tmp_path / "dask", 1 + killed))

        predict(**settings(given, out, address), on_progress=after_pieces(rng, out, iter([kill_one] * KILLS)))
    assert killed
    assert contents(out) == contents(given / "whole")
    assert read_status(out).inputs == {"done": 4}


def test_a_killed_scheduler_costs_nothing(given: Path, tmp_path: Path, address: str) -> None:
    rng, out, lost = random.Random(2), tmp_path / "out", []
    for number in range(10 * KILLS):
        with running(tmp_path / f"dask-{number}", 2) as (own, processes):
            kill = iter([processes[0].kill])
            try:
                predict(**settings(given, out, own), on_progress=after_pieces(rng, out, kill))
                out = tmp_path / f"out-{number}"  # all was done before the kill: again, from the beginning
            except ClusterError as error:
                lost.append(str(error))
        if len(lost) == KILLS:
            break
    assert len(lost) == KILLS and all("the scheduler of --dask" in said and "it goes on" in said for said in lost)
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
    predict(**settings(given, out, address))
    assert contents(out) == contents(given / "whole")
    assert read_status(out).inputs == {"done": 4}
