"""Predictions that are killed or stopped at random moments, and go on: the same bytes as uninterrupted."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import skystill
from tests.channel_model import INFO, write_model
from tests.contents import contents as contents_of

pytestmark = pytest.mark.slow
SIZE = (2400, 1600)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command without --out: a raster of squares of 20 pixels, and a model of small tiles."""
    folder = tmp_path_factory.mktemp("given")
    labels = np.random.default_rng(3).integers(0, 3, (SIZE[0] // 20, SIZE[1] // 20)).repeat(20, 0).repeat(20, 1)
    with rasterio.open(
        folder / "in.tif", "w", driver="GTiff", height=SIZE[0], width=SIZE[1], count=3, dtype="uint8", tiled=True,
        blockxsize=256, blockysize=256, crs="EPSG:32640", transform=from_origin(300_000, 2_800_000, 0.5, 0.5),
    ) as file:  # fmt: skip
        file.write((200 * (labels == np.arange(3)[:, None, None])).astype(np.uint8))
    model = write_model(folder / "m.onnx", replace(INFO, tile_size=128).to_metadata())
    command = [sys.executable, "-m", "skystill", "predict", str(folder / "in.tif"), f"--model={model}", "--threads=1"]
    return [*command, "--vector=gpkg", "--cog", "--confidence", "--areas"]


def contents(folder: Path) -> dict[str, object]:
    found = contents_of(folder)
    assert all(len(tables["classes"]) > 1000 for tables in found.values() if isinstance(tables, dict))
    return found


@pytest.fixture(scope="module")
def whole(given: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run([*given, f"--out={folder}/c.tif"], check=True, capture_output=True)
    return contents(folder)


def units(journal: Path) -> int:
    """How many units lie in the journal, which the process may remove while they are counted."""
    try:
        return sum(path.suffix == ".unit" for path in journal.iterdir())
    except FileNotFoundError:
        return 0


def interpreters_own(said: str) -> bool:
    """Whether Ctrl-C met Python before any code of ours ran: it then ends with 1 and words of its own."""
    return "KeyboardInterrupt" in said and str(Path(skystill.__file__).parent) not in said


def moments(out: Path, rng: random.Random) -> Callable[[], bool]:
    """A random moment of the work: after some units, in the COG, in the polygons, in the areas, or at once."""
    journal = out / ".unfinished-c.tif"
    wanted = units(journal) + rng.randint(0, 12)
    return rng.choice(
        [
            lambda: True,
            lambda: units(journal) >= wanted,
            lambda: units(journal) >= wanted,
            lambda: units(journal) >= wanted,
            lambda: (journal / "classes-cog.tif").exists(),
            lambda: (journal / "finished.json").exists(),
            lambda: bool(list(out.glob(".part-*-c.gpkg"))),
            lambda: (out / "c.gpkg").exists(),
        ]
    )


SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
STOPS = int(os.environ.get("SKYSTILL_STOPS", "3"))
"""How often a prediction is asked to end; it is killed ten times in any case."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("times", "number"), [(10, SIGNALS[0]), (STOPS, SIGNALS[1]), (STOPS, SIGNALS[2])])
def test_stops_at_random_moments_change_nothing(
    times: int, number: signal.Signals, given: list[str], whole: dict[str, object], tmp_path: Path
) -> None:
    rng = random.Random(f"{number.name} {times}")
    out = tmp_path / "out"
    out.mkdir()
    command = [*given, f"--out={out}/c.tif", "--resume"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    stopped = 0
    for _ in range(times):
        is_there = moments(out, rng)
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while not is_there() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(number)
        said, code = process.communicate()[1], process.returncode
        assert code in (0, 130, -number) or (code == 1 and interpreters_own(said)), said
        stopped += code != 0
        if code == 0:  # it was faster: begin again
            assert contents(out) == whole
            for path in out.iterdir():
                path.unlink()
    assert stopped >= times // 2
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert contents(out) == whole
    assert not list(tmp_path.glob("skystill-*")), done.stderr


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_stop_in_the_polygons_costs_the_polygons_only(
    number: signal.Signals, given: list[str], whole: dict[str, object], tmp_path: Path
) -> None:
    command = [*given, f"--out={tmp_path}/c.tif"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".part-*-c.gpkg")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert "Go on with the same command and --resume" in said and "Traceback" not in said
    assert (tmp_path / "c.tif").exists() and not (tmp_path / "c.gpkg").exists()
    done = subprocess.run([*command, "--resume"], check=True, capture_output=True, text=True)
    assert f"{tmp_path}/c.tif: its rasters are complete; it goes on with polygons." in done.stderr
    assert contents(tmp_path) == whole


def test_ctrl_c_is_ctrl_c_where_a_module_of_c_makes_another_error_of_it() -> None:
    script = (
        "import os, signal, sys; from skystill.cli import commands\n"
        "def app():\n"
        "    try: os.kill(os.getpid(), signal.SIGINT) if sys.argv[1] == 'pressed' else None\n"
        "    except KeyboardInterrupt: pass\n"
        "    raise ImportError('initialization failed')\n"
        "commands.app = app; commands.main()"
    )
    for word, code in (("pressed", 130), ("not", 1)):
        done = subprocess.run([sys.executable, "-c", script, word], capture_output=True, text=True, check=False)
        assert (done.returncode, "internal error" in done.stderr) == (code, code == 1), done.stderr
