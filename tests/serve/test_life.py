"""How the service begins, ends, and bears clients that are slow, or many."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from skystill.errors import SettingsError
from skystill.serve.bodies import save_body
from skystill.serve.problems import Problem
from skystill.serve.run import _listening
from skystill.settings import ServeSettings
from tests.cli.conftest import Done
from tests.serve.images import png, waves, write_tif
from tests.serve.serving import Serving, wait_until

MANY = int(os.environ.get("SKYSTILL_TEST_REQUESTS", "24"))
"""Requests at once. The gate sends 24; 200 take a minute."""
SIDE = 512 if "SKYSTILL_TEST_REQUESTS" in os.environ else 256
"""Side of their images in pixels."""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["none.onnx"], "none.onnx"),
        (["MODEL", "--host=203.0.113.1", "--port=0"], "cannot be listened on"),
        (["MODEL", "--host=no.such.host.invalid"], "is no address"),
        (["MODEL", "--port=TAKEN"], "End the program that uses the port"),
        (["BROKEN", "--port=0"], "broken.onnx"),
        (["MODEL", "--queue=0"], "--queue 0"),
        (["MODEL", "--max-body=1B"], "--max-body"),
    ],
)
def test_what_it_does_not_begin_with(
    options: list[str], words: str, channel_model: Path, service: Serving, tmp_path: Path, skystill: Callable[..., Done]
) -> None:
    (tmp_path / "broken.onnx").write_bytes(channel_model.read_bytes()[:200])
    values = {"MODEL": channel_model, "BROKEN": tmp_path / "broken.onnx", "--port=TAKEN": f"--port={service.port}"}
    done = skystill("serve", *(values.get(option, option) for option in options))
    assert done.code == 2, done.err
    assert words in done.err


def test_of_two_services_on_one_port_the_second_says_so() -> None:
    """Both have begun, and neither has opened its model."""
    with _listening(ServeSettings(port=0)) as first:
        port = first.getsockname()[1]
        with (
            pytest.raises(SettingsError, match=f"--port {port} .*End the program"),
            _listening(ServeSettings(port=port)),
        ):
            pass
    with _listening(ServeSettings(port=port)):  # it is free again at once
        pass


def test_without_its_packages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, skystill: Callable[..., Done]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("skystill.serve", "starlette"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    done = skystill("serve", "--port=0")
    assert (done.code, 'pip install "skystill[serve]".' in done.err) == (2, True), done.err


def begin_work(service: Serving, body: bytes, pool: ThreadPoolExecutor) -> "Future[httpx.Response]":
    """Send a large image, and return when the service has taken the request."""
    answer = pool.submit(service.post, "/predict?views=4", body, "image/tiff")
    wait_until(lambda: service.client.get("/health").json()["queue"] == 1)
    return answer


def check_ended(service: Serving, code: int) -> None:
    assert service.process.wait(60) == code
    assert service.log.splitlines()[-1] == "stopped"
    assert "Traceback" not in service.log
    assert list(service.scratch.glob("skystill-*")) == []


def test_work_is_finished_before_the_end(serving: Callable[..., Serving], large: bytes) -> None:
    """A request in work gets its result, a job is dropped, and no file stays."""
    service = serving("--grace-seconds=60")
    service.post("/processes/segment/execution?views=8", large, "image/tiff", Prefer="respond-async")
    with ThreadPoolExecutor(1) as pool:
        answer = begin_work(service, large, pool)
        service.process.send_signal(signal.SIGTERM)
        assert answer.result().status_code == 200
    check_ended(service, 0)


def test_after_the_grace_time_work_is_ended(serving: Callable[..., Serving], large: bytes) -> None:
    """Of eight large requests, which are predicted one after the other, some are in work or wait after a second."""
    service = serving("--grace-seconds=1")
    with ThreadPoolExecutor(8) as pool:
        answers = [
            begin_work(service, large, pool),
            *(pool.submit(service.post, "/predict?views=8", large) for _ in range(7)),
        ]
        # A body that is still on its way would get no answer: all eight must have come.
        wait_until(lambda: service.client.get("/health").json()["queue"] + sum(map(Future.done, answers)) == 8)
        service.process.send_signal(signal.SIGINT)
        statuses = {answer.result().status_code for answer in answers}
    assert 503 in statuses
    assert statuses <= {200, 503}
    check_ended(service, 130)


def test_polygons_of_noise_end_with_the_grace_time(serving: Callable[..., Serving], tmp_path: Path) -> None:
    """A million pixels of noise are polygons of a minute, in one window."""
    service = serving("--grace-seconds=1")
    noise = np.random.default_rng(1).integers(0, 256, (3, 1000, 1000)).astype(np.uint8)
    body = write_tif(tmp_path / "noise.tif", noise, tiled=True).read_bytes()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.post, "/predict?f=geojson", body, "image/tiff")
        wait_until(lambda: any(name.endswith("classes.tif") and "journal" not in name for name in service.files()))
        time.sleep(1)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert answer.result().status_code == 503
    check_ended(service, 0)
    assert time.monotonic() - began < 15


def test_a_step_that_does_not_end_is_ended_with_the_process(channel_model: Path, tmp_path: Path) -> None:
    """Within one step of a prediction nobody can be asked. The process ends with its scratch folder, and code 0."""
    code = (
        "import os, signal, threading, time\n"
        "from pathlib import Path\n"
        "from skystill.serve import run\n"
        "from skystill.serve.service import Service\n"
        "from skystill.settings import ServeSettings\n"
        "run._LAST_SECONDS = 0.5\n"
        "close = Service.close\n"
        "def stuck(service):\n"
        "    service._large.submit(time.sleep, 300)\n"
        "    close(service)\n"
        "Service.close = stuck\n"
        "def end(event):\n"
        "    print(getattr(event, 'text', ''), flush=True)\n"
        "    threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        f"run.run_service(ServeSettings(model=Path({str(channel_model)!r}), port=0, grace_seconds=0), end)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "stopped, in the middle of a step of a prediction"
    assert list(tmp_path.iterdir()) == []


def clean(folder: Path) -> None:
    """Delete a folder, from which the service takes away files of the last request at the same time."""

    def is_gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    wait_until(is_gone)


def test_a_cleaner_of_temporary_files_does_not_end_it(serving: Callable[..., Serving]) -> None:
    """Its folder is made again, and what was in it is told to be gone. Without any room for it, it is not ready."""
    service = serving()
    job = service.post("/processes/segment/execution", png(), Prefer="respond-async").json()["jobID"]
    wait_until(lambda: service.client.get(f"/jobs/{job}").json()["status"] == "successful")
    clean(next(service.scratch.glob("skystill-*")))
    assert service.client.get("/health").status_code == 200
    gone = service.client.get(f"/jobs/{job}/results")
    assert (gone.status_code, gone.json()["detail"]) == (
        404, "The result of the job was deleted on the service. Send the image again.",
    )  # fmt: skip
    assert service.post("/predict", png()).status_code == 200
    clean(service.scratch)
    refused = service.post("/predict", png())
    assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
    health = service.client.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "full")
    service.scratch.mkdir()
    assert service.client.get("/health").status_code == 200
    assert service.post("/predict", png()).status_code == 200
    assert service.end() == 0
    assert "Traceback" not in service.log
    assert list(service.scratch.iterdir()) == []


class Clock:
    """A clock that goes on by a number of seconds each time it is looked at."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.mark.parametrize(("step", "size", "taken"), [(0.1, 1, True), (0.5, 2**20, True), (3.0, 1, False)])
def test_a_body_that_drips_is_ended(step: float, size: int, taken: bool, tmp_path: Path) -> None:
    """20 parts, one each `step` seconds."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(size)

    saving = save_body(parts(), tmp_path / "body", 2**26, Clock(step))
    if taken:
        assert asyncio.run(saving) == 20 * size
    else:
        with pytest.raises(Problem, match="too slowly") as caught:
            asyncio.run(saving)
        assert caught.value.status == 408


def check_slow_connections(service: Serving) -> None:
    """Heads and bodies that do not come: both are ended, without holding the service up."""
    heads = [
        b"POST /predict HTTP/1.1\r\nHost: x\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab",
    ]
    ended: list[bytes] = []

    def wait(head: bytes) -> None:
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
            connection.sendall(head)
            try:
                ended.append(connection.recv(4096))
            except ConnectionResetError:
                ended.append(b"")

    threads = [threading.Thread(target=wait, args=(heads[at % 2],)) for at in range(20)]
    for thread in threads:
        thread.start()
    assert service.post("/predict", png()).status_code == 200
    for thread in threads:
        thread.join()
    assert sorted({answer[:12] for answer in ended}) == [b"", b"HTTP/1.1 408"]


def counted(service: Serving) -> tuple[int, float]:
    """Requests that were answered with a result, and megapixels, by the metrics."""
    metrics = service.client.get("/metrics").text
    requests = re.search(r'skystill_requests_total\{method="POST",route="/predict",status="200"\} (\S+)', metrics)
    megapixels = re.search(r"^skystill_megapixels_total (\S+)", metrics, re.MULTILINE)
    return int(float(requests[1])) if requests else 0, float(megapixels[1]) if megapixels else 0.0


def test_many_requests_at_once(service: Serving, tmp_path: Path) -> None:
    """All are answered, with the same result, and memory does not grow with their number."""
    requests, megapixels = counted(service)
    body = write_tif(tmp_path / "image.tif", waves(SIDE, SIDE), tiled=True).read_bytes()
    truth = service.post("/predict", body, "image/tiff").content
    for _ in range(3):
        service.post("/predict", body, "image/tiff")
    before, peak, ended = service.memory, [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], service.memory)

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.monotonic()
    with ThreadPoolExecutor(MANY) as pool:
        answers = list(pool.map(lambda _: service.post("/predict", body, "image/tiff"), range(MANY)))
    seconds = time.monotonic() - began
    ended.set()
    watching.join()
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} == {truth}
    grown = (peak[0] - before) / 2**20
    said = f"{MANY} at once: {before / 2**20:.0f} MiB before, {grown:.0f} MiB more at the peak, {seconds:.1f} s\n"
    sys.stdout.write(said)
    assert grown < 100 + 0.5 * MANY  # of each body at most 64 kB wait in memory
    now = counted(service)
    assert now[0] - requests == MANY + 4
    assert now[1] - megapixels == pytest.approx((MANY + 4) * SIDE**2 / 1e6)
    check_slow_connections(service)
