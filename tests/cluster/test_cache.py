"""`skystill cache` on a cluster of two processes: the files of one process, whatever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from distributed import Client

from skystill import api
from skystill.classes import read_classes
from skystill.data.scenes import write_scene
from skystill.errors import ClusterError, DataError
from skystill.progress import Event, Progress
from skystill.raster.input_spec import RGB
from skystill.run_folder import RunFolder
from skystill.settings import CacheSettings
from skystill.train.networks.table import build_network
from skystill.train.networks.weights import NetworkRecord, write_network

from .scheduler import Change, changed, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
IMAGES = 40
COUNTED = """
import os
from pathlib import Path
from skystill.train.teachers.origins import Teachers
def counted(self, index, load_one=Teachers.load_one):
    with open(Path({folder!r}) / f"loads-{{os.getpid()}}", "a") as file:
        file.write("once ")
    return load_one(self, index)
if Teachers.load_one.__name__ != "counted":  # Dask runs this twice
    Teachers.load_one = counted
"""
BLIND = Change(
    "import skystill.train.teachers.cache_tasks as t; t._PATIENCE_SECONDS = 0; t.kept = t._sees.__code__; "
    "t._sees.__code__ = (lambda sign, token: False).__code__",
    "import skystill.train.teachers.cache_tasks as t; t._sees.__code__ = t.kept",
)

SLOW = Change(
    "import time; import skystill.train.teachers.logit_cache as c; c.kept = c.seal_safetensors; "
    "c.seal_safetensors = lambda path: (time.sleep(0.3), c.kept(path))",
    "import skystill.train.teachers.logit_cache as c; c.seal_safetensors = c.kept",
)


@dataclass(frozen=True)
class World:
    """A cluster, data, and the cache that one process has filled."""

    folder: Path
    scenes: Path
    address: str
    processes: list[subprocess.Popen[bytes]]
    whole: dict[str, bytes]

    def settings(self, cache: str, **more: object) -> CacheSettings:
        own = {"data": self.scenes, "split": "0.5/0.1/0.4", "cache": self.folder / cache, "cache_symmetry": "none"}
        own |= {"teacher": str(self.folder / "teacher"), "unlabeled": self.folder / "images"}
        return CacheSettings(**(own | more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("cluster")
    for index in range(IMAGES):
        write_scene(folder, index, 64, seed=9)
    write_teacher(folder / "teacher", scenes)
    with running(folder / "dask", 2, worker_preload=COUNTED.format(folder=str(folder))) as (address, processes):
        world = World(folder, scenes, address, processes, {})
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2)
        api.cache(world.settings("whole"))
        world.whole.update(logits(folder / "whole"))
        yield world


def write_teacher(run: Path, scenes: Path) -> None:
    """A run whose network has learnt nothing."""
    torch.manual_seed(0)
    classes, name = read_classes(scenes / "classes.yaml"), "unet?channels=8&depth=2"
    write_network(
        RunFolder(run).weights,
        build_network(name, len(classes)).eval(),
        NetworkRecord(name, classes, {}, input_spec=RGB),
    )
    RunFolder(run).config.write_text(f"network: {name}\ndata: nowhere\nseed: 0\n")


def logits(cache: Path) -> dict[str, bytes]:
    return {str(path.relative_to(cache)): path.read_bytes() for path in cache.rglob("*.safetensors")}


def left_behind(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob(".*")]


def test_the_files_are_those_of_one_process_and_a_teacher_is_loaded_once(world: World) -> None:
    events: list[Event] = []
    api.cache(world.settings("same", dask=world.address), on_progress=events.append)
    assert logits(world.folder / "same") == world.whole and len(world.whole) == IMAGES + 6
    assert left_behind(world.folder / "same") == []
    loads = [path.read_text() for path in world.folder.glob("loads-*")]
    assert loads == ["once ", "once "]
    done = [event.done for event in events if isinstance(event, Progress) and event.task == "teacher"]
    assert done == sorted(done) and (done[0], done[-1]) == (0, IMAGES + 6) and len(done) > 8
    # what is there stays, and the two caches of one folder do not mix
    before = {path: path.stat().st_mtime_ns for path in (world.folder / "same").rglob("*.safetensors")}
    api.cache(world.settings("same", dask=world.address))
    assert before == {path: path.stat().st_mtime_ns for path in (world.folder / "same").rglob("*.safetensors")}


def test_a_killed_command_goes_on(world: World) -> None:
    settings = world.settings("stopped", dask=world.address)
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in settings.to_config().items()
        if isinstance(value, str) and name != "share"
    ]
    command = [sys.executable, "-m", "skystill", "cache", *flags, f"--teacher={settings.teacher[0]}"]
    client = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    while not logits(world.folder / "stopped") and client.poll() is None:
        time.sleep(0.001)
    client.send_signal(signal.SIGKILL)
    client.wait()
    api.cache(settings)
    assert logits(world.folder / "stopped") == world.whole
    assert left_behind(world.folder / "stopped") == []


def test_workers_that_write_the_logits_of_one_image_at_the_same_time_leave_each_other_alone(world: World) -> None:
    """Two commands on overlapping shares have locks of their own, and each finds the files missing."""
    commands = [world.settings("shared", dask=world.address, share=share) for share in ("1/2", "1/3", "1/1")]
    with changed(world.address, SLOW), ThreadPoolExecutor(len(commands)) as threads:
        list(threads.map(api.cache, commands))
    assert logits(world.folder / "shared") == world.whole
    assert left_behind(world.folder / "shared") == []


def test_a_bad_image_is_named_at_the_end_and_the_others_are_done(world: World) -> None:
    bad = world.folder / "images" / "zz_cut.jpg"
    content = sorted(world.folder.glob("images/*.jpg"))[0].read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    try:
        with pytest.raises(DataError, match=r"1 of 47 image\(s\) have no logits") as error:
            api.cache(world.settings("bad", dask=world.address))
    finally:
        bad.unlink()
    assert str(bad) in str(error.value) and "The others are done" in str(error.value)
    assert logits(world.folder / "bad") == world.whole


def test_a_killed_worker_loses_no_image(world: World) -> None:
    killed = []

    def kill_one(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "teacher" and event.done and not killed:
            killed.append(world.processes[-1])
            world.processes[-1].send_signal(signal.SIGKILL)

    api.cache(world.settings("killed", dask=world.address), on_progress=kill_one)
    assert killed and killed[0].wait() == -signal.SIGKILL
    assert logits(world.folder / "killed") == world.whole


def test_a_worker_that_does_not_see_the_cache_is_refused_before_the_first_image(world: World) -> None:
    """Its code that looks for the file of the command finds none. A worker that joins later is refused by its tasks."""
    with changed(world.address, BLIND), pytest.raises(ClusterError, match=r"does not see .*unseen.*No image was begun"):
        api.cache(world.settings("unseen", dask=world.address))
    assert logits(world.folder / "unseen") == {} and left_behind(world.folder / "unseen") == []
