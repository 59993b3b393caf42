import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.cli.conftest import TINY

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("SKYSTILL_STOPS", "1"))


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "checkpoints/model.safetensors")


def command(verb: str, scenes: Path, out: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "skystill", verb, f"--data={scenes}", f"--out={out}", "--no-report", *flags, *TINY]


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.02)


@pytest.mark.timeout(600)
@pytest.mark.skipif(KILLS < 2, reason="test_stops.py kills a distillation; SKYSTILL_STOPS=10 kills a training, too")
def test_kills_at_random_moments_change_nothing(scenes: Path, tmp_path: Path) -> None:
    flags = ["--network=two-level", "--epochs=30"]
    subprocess.run(command("train", scenes, tmp_path / "whole", *flags), check=True, capture_output=True)
    rng = random.Random(11)
    killed = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            command("train", scenes, tmp_path / "killed", *flags, "--resume"), stderr=subprocess.DEVNULL
        )
        wait_for(tmp_path / "killed/config.yaml", process)
        time.sleep(rng.uniform(0, 4))  # in the imports, in a step, in a checkpoint, in the export
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= KILLS // 2
    subprocess.run(command("train", scenes, tmp_path / "killed", *flags, "--resume"), check=True, capture_output=True)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not list((tmp_path / "killed").rglob(".part-*"))
    rows = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("whole", "killed")]
    assert len(rows[0]) == len(rows[1]) == 31


def test_ctrl_c_saves_and_says_how_to_go_on(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command("train", scenes, out, "--network=two-level", "--epochs=300"), stderr=subprocess.PIPE, text=True
    )
    while not (out / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "the checkpoint is saved" in err
    assert "Traceback" not in err
    assert (out / "checkpoints/resume.pt").exists()
