"""Nothing that a command does is told to anybody: libraries that would do so are kept from it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skystill.model.bundled import bundled_model

COMMANDS = {
    "predict": ["predict", "photo.png", "--out=classes.png"],
    "predict in OpenVINO": ["predict", "photo.png", "--out=classes.png", "--runtime=openvino"],
    "predict, after a trial of the model": ["predict", "photo.png", "--out=classes.png", "--model=model.onnx"],
    "measure": ["measure", "model.onnx"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_identifier_is_made_and_no_events_are_kept(name: str, tmp_path: Path) -> None:
    """ONNX Runtime 1.32 and OpenVINO 2026.4 would write an identifier of the machine below the user's home, and events
    that they send. The variables by which they know a test of their own or a build server are not set here.
    """
    if "openvino" in " ".join(COMMANDS[name]):
        pytest.importorskip("openvino")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    homes = {variable: tmp_path / variable for variable in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    for home in homes.values():
        home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    shutil.copy(bundled_model(), tmp_path / "model.onnx")
    done = subprocess.run(
        [sys.executable, "-m", "skystill", *COMMANDS[name]],
        cwd=tmp_path, env={**kept, **{key: str(home) for key, home in homes.items()}},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = [path for home in homes.values() for path in home.rglob("*") if path.is_file()]
    assert not left


def test_a_choice_of_the_user_stays() -> None:
    code = "import os, skystill; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"} | given
        assert subprocess.check_output([sys.executable, "-c", code], text=True, env=env).strip() == expected
