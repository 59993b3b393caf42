import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from skystill.data.scenes import write_scene, write_scene_classes
from tests.made import made_once
from tests.s3 import Bucket, serving, use_server

# No deadline: how long an example takes says something of the machine's other work, and nothing of the code.
hypothesis.settings.register_profile("skystill", deadline=None)
hypothesis.settings.load_profile("skystill")

# Hundreds of tests open small model files that they have just made; tests/model/test_trial.py tries them as users do.
os.environ.setdefault("SKYSTILL_TRIAL_SECONDS", "0")
# Dozens of runs end with a report; on images of 1024 x 1024, measuring took a third of all tests.
os.environ.setdefault("SKYSTILL_MEASURED_SIDE", "128")

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
CLASSES_YAML = """
classes:
  - {name: Roof, color: "#FF0000"}
  - {name: Grass, color: "#00FF00"}
void: ["#0000FF"]
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: most mistakes show in seconds. Slow files first where several processes share the files.

    The last file would otherwise be a slow one, with which one process is left alone.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
        return
    slow: dict[Path, int] = {}
    for item in items:
        slow[item.path] = slow.get(item.path, 0) + (item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: (item.path.name != "test_fuzz.py", not slow[item.path]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many damaged inputs were tried, and how many failed, also where the test passes."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, said in getattr(report, "user_properties", ()):
                if name == "fuzz" and report.when == "call":
                    terminalreporter.write_line(said)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 12 small procedural scenes."""

    def make(folder: Path) -> None:
        write_scene_classes(folder)
        for index in range(12):
            write_scene(folder, index, 128, seed=3)

    return made_once("scenes", make, tmp_path_factory)


@pytest.fixture
def write_picture() -> Callable[..., Path]:
    """Write a picture of one colour, or from an array, in the format of its name."""

    def write(path: Path, content: object = RED, size: tuple[int, int] = (8, 6)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, tuple):
            picture = np.zeros((size[1], size[0], len(content)), np.uint8)
            picture[:] = content
            content = picture
        assert isinstance(content, np.ndarray)
        Image.fromarray(content).save(path)
        return path

    return write


@pytest.fixture
def pairs_folder(tmp_path: Path, write_picture: Callable[..., Path]) -> Path:
    """Six images with masks of two classes, and their classes file."""
    for index in range(6):
        write_picture(tmp_path / f"images/{index}.png", (10 * index, 90, 90), (40, 36))
        mask = np.zeros((36, 40, 3), np.uint8)
        mask[:] = RED
        mask[:, 20:] = GREEN
        write_picture(tmp_path / f"masks/{index}.png", mask)
    (tmp_path / "classes.yaml").write_text(CLASSES_YAML)
    return tmp_path


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of a server of S3 on this computer."""
    with serving() as port:
        yield port


@pytest.fixture
def bucket(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, which GDAL finds by its address."""
    use_server(s3_port, monkeypatch)
    return Bucket(s3_port)
